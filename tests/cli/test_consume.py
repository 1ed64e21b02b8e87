"""`magnetar consume`."""

import json
import signal
import threading
import time
from typing import Any

import pulsar
import pytest

from magnetar.cli.consume import POLL_MS, QUIET_MS, End, receive_all
from magnetar.cli.patience import Patience
from magnetar.cli.verb import Asked
from magnetar.client.cluster import SubscriptionType
from magnetar.client.rest import AdminError


class Id:
    """A message id of the official client."""

    def __init__(self, entry: int, batch_index: int = -1, ledger: int = 7) -> None:
        self._parts = (ledger, entry, batch_index)

    def ledger_id(self) -> int:
        return self._parts[0]

    def entry_id(self) -> int:
        return self._parts[1]

    def batch_index(self) -> int:
        return self._parts[2]


class Message:
    """A message of the official client, of which only the place matters here."""

    def __init__(self, *place: int) -> None:
        self._id = Id(*place)

    def message_id(self) -> Id:
        return self._id


def unknown() -> None:
    return None


def test_messages_are_printed_one_per_line_and_acknowledged(run: Any, cluster: Any) -> None:
    cluster.bodies = [b"one", b"two"]
    ended = run("consume", "t", "-s", "s", "--count", "2")
    assert ended.code == 0
    assert ended.out == "one\ntwo\n"
    assert cluster.acknowledged == [0, 1]
    assert cluster.opened["args"] == ("t", "s", SubscriptionType.EXCLUSIVE, "earliest")


def test_without_acknowledging_nothing_is_acknowledged(run: Any, cluster: Any) -> None:
    cluster.bodies = [b"one"]
    assert run("consume", "t", "-s", "s", "-n", "1", "--no-ack", "--type", "shared").code == 0
    assert not cluster.acknowledged
    assert cluster.opened["args"][2] is SubscriptionType.SHARED


def test_in_json_every_line_is_a_document(run: Any, cluster: Any) -> None:
    cluster.bodies = [b"one", b"\xff"]
    lines = run("consume", "t", "-s", "s", "-n", "2", "-o", "json").out.splitlines()
    first, second = map(json.loads, lines)
    assert (first["payload"], first["id"], first["key"]) == ("one", "7:0", "k")
    assert second["payload_base64"] == "/w=="


def test_until_end_stops_after_the_last_message_there_was(run: Any, cluster: Any) -> None:
    cluster.bodies = [b"1", b"2", b"3"]
    ended = run("consume", "t", "-s", "s", "--until-end")
    assert ended.code == 0
    assert ended.out == "1\n2\n3\n"


def test_until_end_of_an_empty_topic_ends_at_once(run: Any, cluster: Any) -> None:
    assert run("consume", "t", "-s", "s", "--until-end").out == ""


def test_ctrl_c_is_130_and_closes_the_consumer(run: Any, cluster: Any) -> None:
    cluster.bodies = [b"1"]
    cluster.interrupt_after = 1
    ended = run("consume", "t", "-s", "s")
    assert ended.code == 130
    assert ended.out == "1\n"
    assert cluster.closed == 2  # the consumer, then the client


def test_ctrl_c_waits_until_what_was_printed_is_acknowledged(run: Any, cluster: Any) -> None:
    cluster.bodies = [b"1", b"2"]
    receive = cluster.receive

    def interrupted(timeout_ms: int) -> Any:
        signal.raise_signal(signal.SIGINT)  # as if while the first message is being printed
        return receive(timeout_ms)

    cluster.receive = interrupted
    ended = run("consume", "t", "-s", "s")
    assert ended.code == 130
    assert ended.out == "1\n"
    assert cluster.acknowledged == [0]


def test_a_time_that_cannot_be_is_refused_before_anything_is_opened(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Asked, "cluster", lambda _: pytest.fail("was opened"))
    for verb in (["consume", "t", "-s", "s"], ["tail", "t"]):
        ended = run(*verb, "--from", "99999999999999999999")
        assert ended.code == 2
        assert "9999-12-31" in ended.err


def test_a_start_before_1970_moves_the_subscription_to_the_very_beginning(
    run: Any, cluster: Any
) -> None:
    assert run("consume", "t", "-s", "s", "--until-end", "--from", "99999d").code == 0
    assert cluster.opened["args"][3] == 0


def test_who_is_waited_for_is_told_and_why_is_the_error(
    run: Any, cluster: Any, admin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = threading.Event()

    def health() -> str:
        asked.set()
        raise AdminError(503, "the disk is full")

    def never(*_: object, **__: object) -> None:
        assert asked.wait(30)
        time.sleep(0.05)
        raise pulsar.Timeout("Pulsar error: TimeOut")

    monkeypatch.setattr(Patience.__init__, "__defaults__", (0.02,))
    monkeypatch.setattr(cluster, "consumer", never)
    admin.answers["health"] = health
    ended = run("consume", "t", "-s", "s")
    assert ended.code == 4
    assert ended.err.splitlines() == [
        "magnetar: the broker takes nothing: the disk is full; still trying",
        "magnetar: t: the broker takes nothing: the disk is full",
    ]


def test_a_subscription_is_required(run: Any) -> None:
    ended = run("consume", "t")
    assert ended.code == 2
    assert "--subscription" in ended.err


def test_the_end_is_the_last_message_within_its_batch_too() -> None:
    end = End(Id(5, 2), unknown)
    assert not end(Message(5, 1), 0)
    assert end(Message(5, 2), 0)
    assert end(Message(6), 0)
    assert end(Message(0, -1, 8), 0)


def test_quiet_is_the_end_once_the_backlog_is_empty() -> None:
    assert End(None, lambda: False)(None, POLL_MS)
    assert not End(None, lambda: True)(None, POLL_MS)


def test_where_nobody_knows_only_a_long_silence_is_the_end() -> None:
    end = End(None, unknown)
    assert not end(None, QUIET_MS - POLL_MS)
    assert end(None, QUIET_MS)
    assert End(None, lambda: True)(None, QUIET_MS)  # the rest is in other consumers' hands


def test_silence_is_counted_anew_after_each_message() -> None:
    script: list[Any] = [None, "a", None, None]
    asked = list[int]()

    def receive(_: int) -> Any:
        message = script.pop(0)
        if message is None:
            raise pulsar.Timeout("Pulsar error: TimeOut")
        return message

    def ended(_: Any, quiet_ms: int) -> bool:
        asked.append(quiet_ms)
        return not script

    assert list(receive_all(receive, ended=ended)) == ["a"]
    assert asked == [POLL_MS, 0, POLL_MS, 2 * POLL_MS]


def test_no_more_is_asked_for_than_was_wanted() -> None:
    assert list(receive_all(lambda _: "x", count=3)) == ["x"] * 3


def test_other_errors_of_the_client_are_not_taken_for_silence() -> None:
    def receive(_: int) -> Any:
        raise pulsar.AlreadyClosed("Pulsar error: AlreadyClosed")

    with pytest.raises(pulsar.AlreadyClosed):
        next(receive_all(receive))


@pytest.mark.parametrize("verb", ["consume", "peek"])
def test_a_subscription_without_a_name_is_a_usage_error(run: Any, verb: str) -> None:
    ended = run(verb, "t", "-s", "")
    assert ended.code == 2
    assert "subscription" in ended.err
