"""The command line against a whole broker."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def payloads(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the payloads that a command printed as JSON."""
    assert done.returncode == 0, done.stderr
    return [json.loads(line)["payload"] for line in done.stdout.splitlines()]


def test_what_is_produced_is_consumed_once(magnetar: Any, topic: str) -> None:
    assert magnetar("subscriptions", "create", topic, "s").returncode == 0
    told = json.loads(magnetar("produce", topic, "one", "two", "-o", "json").stdout)
    assert told["published"] == 2
    consume = ("consume", topic, "-s", "s", "--until-end")
    assert magnetar(*consume).stdout == "one\ntwo\n"
    assert magnetar(*consume).stdout == ""


def test_standard_input_is_published_line_by_line_with_key_and_properties(
    magnetar: Any, topic: str
) -> None:
    lines = "".join(f"{number}\n" for number in range(1000))
    done = magnetar("produce", topic, "-", "--key", "k", "-p", "a=b", given=lines)
    assert "published 1,000" in done.stdout
    found = magnetar("tail", topic, "--from", "earliest", "--until-end", "-o", "json")
    assert payloads(found) == lines.split()
    first = json.loads(found.stdout.splitlines()[0])
    assert (first["key"], first["properties"]) == ("k", {"a": "b"})


def test_a_file_may_be_published_without_batches(magnetar: Any, topic: str, tmp_path: Path) -> None:
    (tmp_path / "lines").write_text("a\nb\n")
    assert magnetar("produce", topic, "-f", str(tmp_path / "lines"), "--no-batch").returncode == 0
    found = magnetar("consume", topic, "-s", "s", "-n", "2", "-o", "json")
    ids = [json.loads(line)["id"] for line in found.stdout.splitlines()]
    assert len(set(ids)) == 2
    assert payloads(found) == ["a", "b"]


def test_what_is_not_acknowledged_comes_again(magnetar: Any, topic: str) -> None:
    magnetar("produce", topic, "x")
    consume = ("consume", topic, "-s", "s", "-n", "1", "-o", "json")
    assert payloads(magnetar(*consume, "--no-ack")) == ["x"]
    assert payloads(magnetar(*consume)) == ["x"]


def test_what_is_acknowledged_of_a_batch_does_not_come_again(magnetar: Any, topic: str) -> None:
    magnetar("produce", topic, "a", "b", "c", "--batch")
    consume = ("consume", topic, "-s", "s", "-n", "1", "-o", "json")
    assert [payloads(magnetar(*consume)) for _ in "abc"] == [["a"], ["b"], ["c"]]


def test_a_shared_subscription_ends_too(magnetar: Any, topic: str) -> None:
    magnetar("produce", topic, "a", "b", "c")
    found = magnetar("consume", topic, "-s", "s", "--type", "shared", "--until-end", "-o", "json")
    assert payloads(found) == ["a", "b", "c"]


def test_peek_sees_what_was_acknowledged_already(magnetar: Any, topic: str) -> None:
    magnetar("produce", topic, "a", "b", "c", "--no-batch")
    assert magnetar("consume", topic, "-s", "s", "--until-end").returncode == 0
    assert payloads(magnetar("peek", topic, "-n", "9", "-o", "json")) == ["a", "b", "c"]
    assert payloads(magnetar("peek", topic, "--position", "latest", "-o", "json")) == ["c"]
    second = json.loads(magnetar("peek", topic, "-n", "2", "-o", "json").stdout.splitlines()[1])
    assert payloads(magnetar("peek", topic, "--position", second["id"], "-o", "json")) == ["b"]
    empty = magnetar("peek", topic, "-s", "s")
    assert empty.returncode == 3
    assert "backlog of s is empty" in empty.stderr


def test_peek_opens_batches(magnetar: Any, topic: str) -> None:
    magnetar("produce", topic, "a", "b", "c", "--batch")
    assert payloads(magnetar("peek", topic, "-n", "2", "-o", "json")) == ["a", "b"]


def test_a_subscription_is_moved_back_and_forth(magnetar: Any, topic: str) -> None:
    magnetar("produce", topic, "a", "b", "c", "--no-batch")
    magnetar("subscriptions", "create", topic, "s", "--from", "earliest")

    def backlog(*arguments: str) -> int:
        done = magnetar("subscriptions", *arguments, "-o", "json")
        assert done.returncode == 0, done.stderr
        return int(json.loads(done.stdout)["backlog"])

    assert payloads(magnetar("subscriptions", "peek", topic, "s", "-n", "3", "-o", "json")) == [
        "a",
        "b",
        "c",
    ]
    assert backlog("skip", topic, "s", "1") == 2
    assert backlog("clear", topic, "s") == 0
    assert backlog("reset", topic, "s", "--to", "earliest") == 3
    assert backlog("reset", topic, "s", "--to", "1h") == 3
    assert backlog("reset", topic, "s", "--to", "latest") == 0
    rows = json.loads(magnetar("subscriptions", "list", topic, "-o", "json").stdout)
    nothing = dict.fromkeys(("backlog", "unacknowledged", "consumers", "gaps_passed"), 0)
    assert rows == [{"subscription": "s", "type": None, **nothing}]
    assert magnetar("subscriptions", "delete", topic, "s").returncode == 0
    assert magnetar("subscriptions", "list", topic).stdout == ""


def test_topics_live_and_die(magnetar: Any, topic: str) -> None:
    assert magnetar("topics", "create", topic).returncode == 0
    assert topic in magnetar("topics", "list").stdout
    assert magnetar("topics", "create", topic).returncode == 1
    magnetar("produce", topic, "x")
    assert "messages in    1" in magnetar("topics", "stats", topic).stdout
    internal = json.loads(magnetar("topics", "stats", topic, "--internal").stdout)
    assert internal["numberOfEntries"] == 1
    assert magnetar("topics", "unload", topic).returncode == 0
    assert magnetar("topics", "terminate", topic).returncode == 0
    refused = magnetar("produce", topic, "y")
    assert refused.returncode == 1
    assert "closed for good" in refused.stderr
    assert magnetar("topics", "delete", topic).returncode == 0
    assert magnetar("topics", "stats", topic).returncode == 3


def test_a_partitioned_topic_is_published_to_and_grown(magnetar: Any, topic: str) -> None:
    assert magnetar("topics", "create", topic, "--partitions", "2").returncode == 0
    assert magnetar("topics", "partitions", topic).stdout == "2\n"
    assert magnetar("topics", "partitions", topic, "--set", "3").stdout == "3\n"
    magnetar("produce", topic, *map(str, range(12)), "--no-batch")
    found = magnetar("consume", topic, "-s", "s", "-n", "12", "-o", "json")
    assert sorted(payloads(found), key=int) == [str(number) for number in range(12)]
    assert magnetar("topics", "delete", topic).returncode == 0


def test_namespaces_live_and_die_with_their_tenants(magnetar: Any, topic: str) -> None:
    namespace = f"acme/{topic.rpartition('/')[2]}"
    assert magnetar("namespaces", "create", namespace).returncode == 0
    assert namespace in magnetar("namespaces", "list", "acme").stdout
    set_retention = ("namespaces", "set-retention", namespace, "--time", "7d", "--size", "1G")
    assert magnetar(*set_retention).returncode == 0
    policies = json.loads(magnetar("namespaces", "policies", namespace).stdout)
    assert policies["retention_policies"]["retentionTimeInMinutes"] == 10_080
    assert magnetar("namespaces", "delete", namespace).returncode == 0
    assert magnetar("namespaces", "policies", namespace).returncode == 3


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["topics", "stats", "not-there"], 3),
        (["subscriptions", "list", "not-there"], 3),
        (["peek", "not-there"], 3),
        (["topics", "create", "a/b"], 2),
        (["produce", "no-such-tenant/default/t", "x"], 3),
    ],
)
def test_errors_are_one_line_with_a_code(magnetar: Any, arguments: list[str], code: int) -> None:
    ended = magnetar(*arguments)
    assert ended.returncode == code, ended.stderr
    assert ended.stderr.startswith("magnetar: ")
    assert ended.stderr.count("\n") == 1
    assert not ended.stdout


def test_a_consumer_ends_cleanly_with_ctrl_c(addresses: Any, magnetar: Any, topic: str) -> None:
    magnetar("produce", topic, "x")
    consuming = subprocess.Popen(
        [sys.executable, "-m", "magnetar", "consume", topic, "-s", "s"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "MAGNETAR_URL": addresses.url, "PYTHONUNBUFFERED": "1"},
    )
    assert consuming.stdout is not None
    assert consuming.stdout.readline() == b"x\n"
    consuming.send_signal(signal.SIGINT)
    _, err = consuming.communicate(timeout=60)
    assert consuming.returncode == 130
    assert b"Traceback" not in err
    again = magnetar("consume", topic, "-s", "s", "--until-end")
    assert again.stdout == ""  # what was printed was acknowledged


def test_what_is_piped_into_head_ends_well(addresses: Any, magnetar: Any, topic: str) -> None:
    magnetar("produce", topic, "x" * 1000, "--count", "500")
    command = f"{sys.executable} -m magnetar tail {topic} --from earliest --until-end | head -n 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        capture_output=True,
        text=True,
        env={**os.environ, "MAGNETAR_URL": addresses.url},
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    assert done.stdout == "x" * 1000 + "\n"
    assert done.stderr == ""


RECEIPTS_ON_THE_WAY = """
import sys

import pulsar

from magnetar.cli import main as cli


kept = []


def main():
    log = pulsar.FileLogger(pulsar.LoggerLevel.Error, "/dev/null")
    client = pulsar.Client(sys.argv[1], logger=log)
    kept.append(client)
    producer = client.create_producer(sys.argv[2], max_pending_messages=50_000)
    for _ in range(20_000):
        producer.send_async(b"x", lambda result, message_id: None)
    return 0


cli.main = main
{end}
"""


@pytest.mark.parametrize(("end", "code"), [("cli.run()", 0), ("sys.exit(main())", -6)])
def test_a_command_that_ends_while_the_client_works_ends_as_it_says(
    addresses: Any, topic: str, end: str, code: int
) -> None:
    """The second is the control: what the official client does when Python takes it down."""
    done = subprocess.run(
        [sys.executable, "-c", RECEIPTS_ON_THE_WAY.format(end=end), addresses.url, topic],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr
