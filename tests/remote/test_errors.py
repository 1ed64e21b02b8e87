"""An error is the same error on the other side of the wire."""

import pytest

from magnetar.broker import port
from magnetar.broker.doors.pulsar.errors import server_error
from magnetar.broker.remote.errors import port_error
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api

ERRORS = [
    error
    for error in vars(port).values()
    if isinstance(error, type)
    and issubclass(error, port.PortError)
    # Pulsar has one code for everything that is missing, and one for schemas that do not fit.
    and error
    not in {
        port.QuotaExceededError,
        port.NamespaceNotFoundError,
        port.SchemaNotFoundError,
        port.InvalidSchemaError,
        port.TopicMovedError,  # where to is a field of CLOSE_PRODUCER, not of an error
    }
]


@pytest.mark.parametrize("kind", ERRORS)
def test_what_a_door_made_a_code_of_is_that_error_again(kind: type[port.PortError]) -> None:
    again = port_error(server_error(kind("why")), "why")
    assert type(again) is kind
    assert str(again) == "why"


@pytest.mark.parametrize("hold", [True, False])
def test_a_full_quota_still_says_whether_to_wait(hold: bool) -> None:
    again = port_error(server_error(port.QuotaExceededError("full", hold=hold)), "full")
    assert isinstance(again, port.QuotaExceededError)
    assert again.hold is hold


def test_a_missing_namespace_is_a_topic_that_cannot_be_found() -> None:
    code = server_error(port.NamespaceNotFoundError("none"))
    assert type(port_error(code, "none")) is port.TopicNotFoundError


def test_a_code_that_stands_for_nothing_is_no_particular_error() -> None:
    assert type(port_error(api.ChecksumError, "?")) is port.PortError
