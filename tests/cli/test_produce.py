"""`magnetar produce`."""

import io
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pulsar
import pytest

from magnetar.cli.patience import Patience
from magnetar.cli.produce import Pacer, Receipts, lines_of
from magnetar.client.rest import AdminError


def test_every_argument_is_a_message(run: Any, cluster: Any) -> None:
    ended = run("produce", "t", "one", "two", "--key", "k", "--property", "a=b", "-p", "c=d")
    assert ended.code == 0
    assert cluster.bodies == [b"one", b"two"]
    assert cluster.send_options[0] == {"partition_key": "k", "properties": {"a": "b", "c": "d"}}
    assert "published 2 to persistent://public/default/t, last 7:1" in ended.out


def test_of_nothing_to_publish_no_last_message_is_claimed(
    run: Any, cluster: Any, tmp_path: Path
) -> None:
    (tmp_path / "empty").touch()
    ended = run("produce", "t", "--file", str(tmp_path / "empty"))
    assert ended.code == 0
    assert ended.out == (
        "published nothing to persistent://public/default/t:"
        " the files and standard input had no lines\n"
    )


def test_in_json_it_tells_how_many_and_where(run: Any, cluster: Any) -> None:
    told = json.loads(run("produce", "t", "x", "--count", "3", "-o", "json").out)
    assert told["published"] == 3
    assert (told["first_id"], told["last_id"]) == ("7:0", "7:2")


def test_the_event_time_may_be_in_any_form(run: Any, cluster: Any) -> None:
    assert run("produce", "t", "x", "--event-time", "1970-01-01T00:00:01Z").code == 0
    assert cluster.send_options == [{"event_timestamp": 1000}]


def test_lines_of_files_are_messages_without_their_ends(
    run: Any, cluster: Any, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(b"one\r\ntwo\n\n\xff")
    assert run("produce", "t", "--file", str(tmp_path / "a")).code == 0
    assert cluster.bodies == [b"one", b"two", b"", b"\xff"]


def test_a_dash_is_standard_input(run: Any, cluster: Any, monkeypatch: Any) -> None:
    text = io.TextIOWrapper(io.BytesIO(b"one\ntwo"))
    monkeypatch.setattr(sys, "stdin", text)
    assert run("produce", "t", "-").code == 0
    assert cluster.bodies == [b"one", b"two"]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["-", "--count", "2"],
        ["x", "--property", "a"],
        ["x", "--rate", "0"],
        ["x", "--rate", "1e-300"],
        ["x", "--event-time", "99999999999999999999"],
    ],
)
def test_what_makes_no_sense_is_a_usage_error(run: Any, arguments: list[str]) -> None:
    assert run("produce", "t", *arguments).code == 2


def test_a_refused_message_is_a_failure_that_tells_how_far_it_came(run: Any, cluster: Any) -> None:
    cluster.fail_after = 2
    ended = run("produce", "t", "x", "--count", "5")
    assert ended.code == 1
    assert "closed for good" in ended.err
    assert "2 messages were published before that" in ended.err
    assert not ended.out


def test_a_broker_that_takes_nothing_is_told_and_its_reason_is_the_error(
    run: Any, cluster: Any, admin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = threading.Event()

    def health() -> str:
        asked.set()
        raise AdminError(503, "nothing can be stored: the disk is full")

    def never(*_: object, **__: object) -> None:
        assert asked.wait(30)
        time.sleep(0.05)
        raise pulsar.Timeout("Pulsar error: TimeOut")

    monkeypatch.setattr(Patience.__init__, "__defaults__", (0.02,))
    monkeypatch.setattr(cluster, "producer", never)
    admin.answers["health"] = health
    ended = run("produce", "t", "x")
    assert ended.code == 1
    first, last = ended.err.splitlines()
    assert first == (
        "magnetar: the broker takes nothing: nothing can be stored: the disk is full; still trying"
    )
    assert last == (
        "magnetar: t: the broker takes nothing: nothing can be stored: the disk is full;"
        " 0 messages were published before that"
    )


def test_a_missing_namespace_is_named_rather_than_the_topic(
    run: Any, cluster: Any, admin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object, **__: object) -> None:
        raise pulsar.TopicNotFound("Pulsar error: TopicNotFound")

    monkeypatch.setattr(cluster, "producer", missing)
    admin.answers["namespace"] = AdminError(404, "namespace a/b does not exist")
    assert run("produce", "a/b/t", "x").err == "magnetar: namespace a/b does not exist\n"
    answers: list[Any] = [{}, AdminError(0, "no broker answers")]
    for answer in answers:
        admin.answers["namespace"] = answer
        ended = run("produce", "a/b/t", "x")
        assert (ended.code, "the topic does not exist" in ended.err) == (3, True)


def test_the_pacer_spreads_messages_evenly_and_never_catches_up() -> None:
    now, slept = [0.0], list[float]()

    def sleep(seconds: float) -> None:
        slept.append(round(seconds, 6))
        now[0] += seconds

    pacer = Pacer(10, lambda: now[0], sleep)
    for _ in range(3):
        pacer.wait()
    assert slept == [0.1, 0.1]
    now[0] += 5.0  # the broker was away: no burst of fifty afterwards
    pacer.wait()
    pacer.wait()
    assert slept == [0.1, 0.1, 0.1]


def test_without_a_rate_the_pacer_asks_no_clock() -> None:
    pacer = Pacer(None, lambda: 0.0, lambda _: pytest.fail("slept"))
    for _ in range(100):
        pacer.wait()


def test_lines_come_one_by_one_as_they_are_read() -> None:
    def endless() -> Any:
        while True:
            yield b"x\n"

    lines = lines_of(endless())
    assert [next(lines), next(lines)] == [b"x", b"x"]


def test_receipts_remember_the_first_error_only() -> None:
    class Result:
        def __init__(self, name: str) -> None:
            self.name = name

    receipts = Receipts(lambda _: None)
    receipts.note(Result("Timeout"), None)
    receipts.note(Result("TopicTerminated"), None)
    assert receipts.error == "Timeout"
    assert receipts.acknowledged == 0


def test_a_file_that_is_not_there_is_a_usage_error() -> None:
    command = [sys.executable, "-m", "magnetar", "produce", "t", "--file", "/nowhere"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "/nowhere" in done.stderr
