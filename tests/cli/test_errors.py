"""Every error in one line, with what to do next and an exit code."""

import json

import pulsar
import pytest

from magnetar.cli.errors import CommandError, ExitCode, client_error, explain
from magnetar.client.address import AddressError
from magnetar.client.rest import AdminError
from magnetar.names import InvalidNameError


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (pulsar.TopicNotFound("x"), ExitCode.NOT_FOUND),
        (pulsar.ConnectError("x"), ExitCode.NO_ANSWER),
        (pulsar.Timeout("x"), ExitCode.NO_ANSWER),
        (pulsar.ConsumerBusy("x"), ExitCode.FAILED),
        (pulsar.InvalidTopicName("x"), ExitCode.USAGE),
        (pulsar.UnknownError("x"), ExitCode.FAILED),
        (AdminError(0, "nobody"), ExitCode.NO_ANSWER),
        (AdminError(404, "no topic x"), ExitCode.NOT_FOUND),
        (AdminError(409, "there already"), ExitCode.FAILED),
        (AdminError(401, "who are you"), ExitCode.FAILED),
        (InvalidNameError("a b"), ExitCode.USAGE),
        (AddressError("x"), ExitCode.USAGE),
        (FileNotFoundError(2, "No such file", "lines.txt"), ExitCode.FAILED),
        (ZeroDivisionError("oops"), ExitCode.FAILED),
    ],
)
def test_every_kind_of_error_has_an_exit_code(error: Exception, code: ExitCode) -> None:
    told = explain(error, "orders")
    assert told.exit_code is code
    assert "\n" not in told.render()
    assert told.render().startswith("magnetar: ")


def test_every_name_in_the_table_is_an_error_of_the_official_client() -> None:
    """A misspelt name would never be found, and its error never explained."""
    from magnetar.cli.errors import _CLIENT_ERRORS

    assert set(_CLIENT_ERRORS) <= set(dir(pulsar.exceptions))
    assert set(_CLIENT_ERRORS) <= set(pulsar.Result.__members__)


def test_an_error_of_the_client_names_what_it_happened_to() -> None:
    assert client_error("TopicNotFound", "orders").message == "orders: the topic does not exist"
    assert "the client reported Strange" in client_error("Strange").message


def test_a_defect_is_called_a_defect() -> None:
    assert "--debug" in explain(ZeroDivisionError("oops")).render()


def test_a_peer_cannot_steer_the_terminal_with_what_it_answers() -> None:
    assert (
        CommandError("\x1b[2J\0\x9b\N{EURO SIGN}").render()
        == "magnetar: \\x1b[2J\\x00\\x9b\N{EURO SIGN}"
    )


def test_in_json_an_error_has_three_fields() -> None:
    error = CommandError("it broke", "mend it", ExitCode.NOT_FOUND)
    error.as_json = True
    assert json.loads(error.render()) == {"error": "it broke", "advice": "mend it", "exit_code": 3}
