"""Knobs act at once, on topics of every process, and the policies of people win over them."""

import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pulsar
import pytest

from magnetar.cli.demo.broker import BrokerProcess, free_ports, wait_until
from magnetar.client.admin import Admin
from tests.conformance.talk import LIMIT_S, RECEIVE_MS
from tests.conformance.test_kill_loop import quiet_client

TOPICS = [f"persistent://public/default/knob-{number}" for number in range(6)]
"""So many that each process has some."""
SILENCE_MS = 300


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    own = BrokerProcess(tmp_path_factory.mktemp("broker"), free_ports(2), 2)
    own.start()
    yield own
    own.discard()


@pytest.fixture
def admin(broker: BrokerProcess) -> Iterator[Admin]:
    with Admin(broker.ports.admin_url) as opened:
        yield opened
        for each in opened.knobs():
            if each["hand"]:
                opened.unset_setting(each["name"])


@pytest.fixture
def client(broker: BrokerProcess) -> Iterator[Any]:
    opened = quiet_client(broker.ports.url)
    yield opened
    opened.close()


def turn(admin: Admin, name: str, value: float) -> None:
    """Turn a knob, and wait until every process runs with it."""
    admin.set_setting(name, str(value))

    def in_use() -> bool:
        return [each["value"] for each in admin.knob(name)["processes"]] == [value, value]

    wait_until(in_use, f"{name} to be in use", LIMIT_S)


def metric(broker: BrokerProcess, name: str) -> float:
    with urllib.request.urlopen(f"{broker.ports.admin_url}/metrics") as answer:  # noqa: S310 - ours
        lines = answer.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def demand_exactly(consumer: Any, count: int) -> None:
    """See that so many messages come, and none after them. Nothing is acknowledged."""
    for _ in range(count):
        consumer.receive(RECEIVE_MS)
    with pytest.raises(pulsar.Timeout):
        consumer.receive(SILENCE_MS)


def test_a_commit_window_is_waited_for_on_topics_of_every_process(
    admin: Admin, client: Any
) -> None:
    producers = [client.create_producer(topic) for topic in TOPICS]

    def fastest(producer: Any) -> float:
        times = []
        for _ in range(5):
            began = time.perf_counter()
            producer.send(b"x")
            times.append(time.perf_counter() - began)
        return min(times)

    turn(admin, "journal_window_ms", 20)
    assert all(fastest(each) >= 0.02 for each in producers)
    turn(admin, "journal_window_ms", 0)
    wait_until(lambda: min(map(fastest, producers)) < 0.02, "receipts without a window", LIMIT_S)


def test_a_limit_of_unacknowledged_messages_holds_for_who_is_there_and_a_policy_wins(
    admin: Admin, client: Any
) -> None:
    if "public/ruled" not in admin.namespaces("public"):
        admin.create_namespace("public/ruled")
    admin.set_policy("public/ruled", "maxUnackedMessagesPerConsumer", value=9)
    topics = [*TOPICS, "persistent://public/ruled/knob"]
    consumers = [
        client.subscribe(topic, "s", consumer_type=pulsar.ConsumerType.Shared) for topic in topics
    ]
    turn(admin, "unacked_messages_per_consumer_max", 4)
    for topic in topics:
        producer = client.create_producer(topic, batching_enabled=False)
        for _ in range(20):
            producer.send_async(b"x", lambda *_: None)
        producer.flush()
    for consumer, count in zip(consumers, [4] * len(TOPICS) + [9], strict=True):
        demand_exactly(consumer, count)
    turn(admin, "unacked_messages_per_consumer_max", 50_000)
    for consumer, count in zip(consumers, [16] * len(TOPICS) + [0], strict=True):
        demand_exactly(consumer, count)


def test_the_flush_interval_holds_for_what_is_in_memory_already(
    admin: Admin, broker: BrokerProcess, client: Any
) -> None:
    for topic in TOPICS:
        client.create_producer(topic).send(b"x" * 1000)
    assert metric(broker, "magnetar_storage_write_cache_bytes") > 0
    turn(admin, "flush_interval_s", 0.1)
    wait_until(
        lambda: metric(broker, "magnetar_storage_write_cache_bytes") == 0,
        "everything to be flushed",
        LIMIT_S,
    )


def test_the_next_ledger_comes_at_the_size_that_is_set(admin: Admin, client: Any) -> None:
    def ledgers(topic: str) -> int:
        return len(admin.internal_stats(topic)["ledgers"])

    producers = [client.create_producer(topic, batching_enabled=False) for topic in TOPICS]
    before = [ledgers(topic) for topic in TOPICS]
    turn(admin, "ledger_bytes_max", 64 * 1024)
    for producer in producers:
        for _ in range(3):
            producer.send(b"x" * 70_000)
    assert all(ledgers(topic) >= had + 2 for topic, had in zip(TOPICS, before, strict=True))
