"""kill -9 under load, again and again: nothing that was acknowledged is lost.

One official client stays connected through all of it. Two producers send numbered messages,
one of them to a namespace with deduplication; each topic has four subscriptions, one of each
type, whose consumers acknowledge what they get. Every few hundred milliseconds the whole
broker is killed, supervisor and workers, and started again on the same folder.

    TESTS_KILLS=60 pytest tests/conformance/test_kill_loop.py
"""

import logging
import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pulsar
import pytest

from magnetar.cli.demo.broker import BrokerProcess, free_ports
from magnetar.client.admin import Admin
from tests.conformance.histories import (
    lost,
    out_of_order,
    out_of_order_by_key,
    phantoms,
    stored_twice,
)
from tests.conformance.talk import RECEIVE_MS

logger = logging.getLogger(__name__)

KILLS = int(os.environ.get("TESTS_KILLS", "6"))
KEYS = 16
RATE = 1_500
"""Messages per second and producer, so that the client leaves the broker its share of the cores."""
PENDING_MAX = 300
"""Messages in flight: what a producer may send twice at each crash, where nobody deduplicates."""
DRAIN_S = 60.0
TYPES = {
    "exclusive": pulsar.ConsumerType.Exclusive,
    "failover": pulsar.ConsumerType.Failover,
    "shared": pulsar.ConsumerType.Shared,
    "key-shared": pulsar.ConsumerType.KeyShared,
}


class Stream:
    """One topic with its producer and its four subscriptions."""

    def __init__(self, client: Any, topic: str) -> None:
        self.topic = topic
        self.sent = 0
        self.acknowledged: set[int] = set()
        self.received: dict[str, list[int]] = {name: [] for name in TYPES}
        self._sending = threading.Event()
        self._reading = threading.Event()
        self._consumers = {
            name: client.subscribe(
                topic, name, consumer_type=kind, initial_position=pulsar.InitialPosition.Earliest
            )
            for name, kind in TYPES.items()
        }
        self._producer = client.create_producer(
            topic,
            producer_name="numbers",
            send_timeout_millis=0,
            block_if_queue_full=True,
            max_pending_messages=PENDING_MAX,
        )
        self._threads = [threading.Thread(target=self._send, daemon=True)]
        self._threads += [
            threading.Thread(target=self._read, args=(name,), daemon=True) for name in TYPES
        ]

    def start(self) -> None:
        """Let messages flow."""
        self._sending.set()
        self._reading.set()
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        """Stop sending, wait until everything has arrived everywhere, then stop reading."""
        self._sending.clear()
        self._threads[0].join()
        self._producer.flush()
        deadline = time.perf_counter() + DRAIN_S
        while time.perf_counter() < deadline:
            if not any(lost(self.acknowledged, got) for got in self.received.values()):
                break
            time.sleep(0.1)
        self._reading.clear()
        for thread in self._threads[1:]:
            thread.join()

    def _send(self) -> None:
        start = time.perf_counter()
        while self._sending.is_set():
            number = self.sent

            def sent(result: pulsar.Result, _: object, number: int = number) -> None:
                if result == pulsar.Result.Ok:
                    self.acknowledged.add(number)

            self._producer.send_async(
                str(number).encode(), sent, partition_key=str(number % KEYS), sequence_id=number
            )
            self.sent += 1
            ahead = start + self.sent / RATE - time.perf_counter()
            if ahead > 0.01:
                time.sleep(ahead)

    def _read(self, name: str) -> None:
        consumer, received = self._consumers[name], self.received[name]
        while self._reading.is_set():
            try:
                message = consumer.receive(timeout_millis=200)
            except pulsar.Timeout:
                continue
            received.append(int(message.data()))
            consumer.acknowledge(message)

    def stored(self, client: Any) -> list[int]:
        """Read the whole topic from its start."""
        reader = client.create_reader(self.topic, pulsar.MessageId.earliest)
        found = []
        while reader.has_message_available():
            found.append(int(reader.read_next(timeout_millis=RECEIVE_MS).data()))
        reader.close()
        return found


@pytest.fixture(params=[1, 2], ids=["one process", "two processes"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BrokerProcess]:
    """A broker to kill."""
    own = BrokerProcess(tmp_path, free_ports(request.param), request.param)
    own.start()
    yield own
    own.discard()


def quiet_client(url: str) -> Any:
    """An official client that keeps its opinion about vanishing brokers to itself."""
    logger = logging.getLogger("pulsar client")
    logger.setLevel(logging.CRITICAL)
    return pulsar.Client(url, logger=logger, operation_timeout_seconds=60)


@pytest.mark.timeout(120 + 10 * KILLS)
def test_nothing_acknowledged_is_lost_however_often_the_broker_is_killed(
    broker: BrokerProcess,
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    logger.warning("seed %d, %d kills", seed, KILLS)
    campaign(broker, KILLS, random.Random(seed))


def campaign(broker: BrokerProcess, kills: int, moments: random.Random) -> None:
    """Kill a broker so many times under load, and check what came of it; it is stopped then."""
    with Admin(broker.ports.admin_url) as admin:
        admin.create_namespace("public/once")
        admin.set_policy("public/once", "deduplication", value=True)
    client = quiet_client(broker.ports.url)
    streams = [
        Stream(client, "persistent://public/default/numbers"),
        Stream(client, "persistent://public/once/numbers"),
    ]
    for stream in streams:
        stream.start()
    restarts = []
    for _ in range(kills):
        time.sleep(moments.uniform(0.05, 0.8))
        broker.kill()
        restarts.append(broker.start())
    for stream in streams:
        stream.finish()
    sent = [stream.sent for stream in streams]
    logger.warning("slowest restart %.2f s, sent %s", max(restarts, default=0), sent)
    for stream in streams:
        check(stream, stream.stored(client), kills)
    assert not stored_twice(streams[1].stored(client)), "deduplication let something through"
    client.close()
    assert broker.stop() == 0, broker.log_end()
    assert not complaints(broker), "a crash is no damage"


def complaints(broker: BrokerProcess) -> list[str]:
    """Return what the storage said that an operator would have to look after."""
    lines = broker.log.read_text().splitlines()
    return [line for line in lines if " ERROR magnetar.broker.storage" in line]


def check(stream: Stream, stored: list[int], kills: int) -> None:
    """Ask everything that holds for any topic."""
    assert stream.acknowledged, "nothing was acknowledged, so nothing was tested"
    assert not lost(stream.acknowledged, stored), "acknowledged, and not in the log"
    assert not out_of_order(stored)
    assert len(stored_twice(stored)) <= kills * PENDING_MAX
    for name, received in stream.received.items():
        assert not lost(stream.acknowledged, received), f"acknowledged, and never came to {name}"
        assert not phantoms(stream.sent, received), name
    assert not out_of_order(stream.received["exclusive"])
    assert not out_of_order(stream.received["failover"])
    assert not out_of_order_by_key(stream.received["key-shared"], KEYS)


def test_the_loss_of_a_journal_would_be_noticed(tmp_path: Path) -> None:
    """The negative control: take away what was synced, and the checker must see it."""
    broker = BrokerProcess(tmp_path, free_ports(1))
    try:
        broker.start()
        client = quiet_client(broker.ports.url)
        producer = client.create_producer("numbers")
        for number in range(50):
            producer.send(str(number).encode())
        client.close()
        broker.kill()
        for journal in (tmp_path / "data" / "journal").rglob("*.journal"):
            journal.write_bytes(b"\0" * journal.stat().st_size)
        broker.start()
        client = quiet_client(broker.ports.url)
        reader = client.create_reader("numbers", pulsar.MessageId.earliest)
        survivors = []
        while reader.has_message_available():
            survivors.append(int(reader.read_next(timeout_millis=RECEIVE_MS).data()))
        client.close()
        assert lost(range(50), survivors) == list(range(50))
        assert "held records that no entry log has" in " ".join(complaints(broker))
    finally:
        broker.discard()
