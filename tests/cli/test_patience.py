"""Whoever waits for a broker that takes nothing is told so, and why."""

import socket
import threading
import time

import pytest

from magnetar.cli.patience import Patience, complaint
from magnetar.client.rest import AdminError
from tests.cli.conftest import FakeAdmin

SOON_S = 0.02
LONG_S = 30.0
TRIES = 50


class Told:
    """Collects lines, and can be waited for."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.any = threading.Event()

    def __call__(self, line: str) -> None:
        self.lines.append(line)
        self.any.set()


def test_the_reason_of_the_broker_is_told_once_and_kept() -> None:
    told = Told()
    with Patience(lambda: "the disk is full", told, SOON_S) as patience:
        patience.expect()
        assert told.any.wait(LONG_S)
        told.any.clear()
        assert not told.any.wait(5 * SOON_S)
    assert told.lines == ["the disk is full; still trying"]
    assert patience.reason == "the disk is full"


def test_a_broker_without_a_complaint_has_just_not_answered() -> None:
    told = Told()
    with Patience(lambda: "", told, SOON_S, whom="the broker at pulsar://b") as patience:
        patience.expect()
        assert told.any.wait(LONG_S)
    assert told.lines == ["no answer from the broker at pulsar://b for 0.02 s; still trying"]
    assert patience.reason == ""


def test_nothing_is_told_while_nothing_is_expected() -> None:
    for _ in range(TRIES):
        told, began_s = Told(), time.monotonic()
        with Patience(lambda: "the disk is full", told, SOON_S) as patience:
            patience.expect()
            patience.met()
            in_time = time.monotonic() - began_s < SOON_S
            told_something = told.any.wait(5 * SOON_S)
        if in_time:
            assert not told_something
            return
    pytest.fail("this machine does nothing in time")


def test_an_answer_takes_back_what_was_told_and_the_next_pause_is_told_again() -> None:
    told = Told()
    with Patience(lambda: "the disk is full", told, SOON_S) as patience:
        for _ in range(2):
            patience.expect()
            assert told.any.wait(LONG_S)
            told.any.clear()
            patience.met()
            assert patience.reason == ""
    assert len(told.lines) == 2


@pytest.mark.parametrize(
    ("health", "reason"),
    [
        ("ok", ""),
        (AdminError(503, "the disk is full"), "the broker takes nothing: the disk is full"),
        (AdminError(0, "no broker answers"), ""),
        (AdminError(404, "there is no such path"), ""),
    ],
)
def test_only_what_the_broker_says_about_itself_is_a_complaint(
    health: str | AdminError, reason: str
) -> None:
    admin = FakeAdmin()
    admin.answers["health"] = health
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"pulsar://127.0.0.1:{silent.getsockname()[1]}"
    assert complaint(admin, url) == reason  # type: ignore[arg-type]  # a stand-in


def test_who_has_not_logged_in_is_told_so() -> None:
    admin = FakeAdmin()
    admin.answers |= {"health": "ok", "version": AdminError(401, "log in: this broker takes token")}
    told = complaint(admin, "pulsar://127.0.0.1:1", "use a token")  # type: ignore[arg-type]
    assert told == "log in: this broker takes token; use a token"


@pytest.mark.parametrize(
    ("answer", "is_http"), [(b"HTTP/1.1 403 Forbidden\r\n\r\n", True), (b"\0\0\0\x44\0", False)]
)
def test_an_http_port_where_pulsar_was_expected_is_named(answer: bytes, is_http: bool) -> None:
    admin = FakeAdmin()
    admin.answers["health"] = AdminError(0, "no broker answers")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                connection.sendall(answer)

        answering = threading.Thread(target=serve)
        answering.start()
        where = f"127.0.0.1:{server.getsockname()[1]}"
        told = complaint(admin, f"pulsar://{where}")  # type: ignore[arg-type]  # a stand-in
        answering.join(LONG_S)
    assert told == (f"{where} is no Pulsar port, HTTP answers there" if is_http else "")
