"""Only one port can be reached, and there are two processes: clients notice nothing of that.

The official client against `magnetar standalone --workers 2 --single-port`. Which process a
connection lands on is chance, so every test uses topics of both owners and several clients.
"""

import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pulsar
import pytest
from pulsar.schema import AvroSchema, Integer, Record, StringSchema

from magnetar.broker.ownership import owner_of
from magnetar.broker.wire.pulsar import client_role
from magnetar.broker.wire.pulsar.frames import FrameReader
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.cli.demo.broker import (
    PRIVATE_PULSAR_PORT,
    BrokerProcess,
    free_ports,
    group_members,
)
from magnetar.client.address import PULSAR_PORT
from magnetar.client.admin import Admin
from magnetar.standalone.addresses import worker_addresses
from magnetar.standalone.options import StandaloneOptions
from tests.conformance.histories import lost, out_of_order, phantoms
from tests.conformance.talk import LIMIT_S, RECEIVE_MS, eventually

WORKERS = 2
CLIENTS = 6
"""Connections enough that both processes have some of them."""
EACH, SHARED = 100, 400
"""Messages of each client, and of a shared subscription."""
RESTARTED_S = 60.0
"""How long a process that was killed may take to be there again; alone on a machine it is one."""

Connect = Callable[[], Any]
quiet = logging.getLogger("quiet")
quiet.addHandler(logging.NullHandler())
quiet.propagate = False


class Reading(Record):  # type: ignore[misc]
    number = Integer(required=True)


def started(folder: Path, *more: str) -> BrokerProcess:
    broker = BrokerProcess(folder, free_ports(WORKERS), WORKERS)
    broker._command += more
    broker.start()
    return broker


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    process = started(tmp_path_factory.mktemp("single"), "--single-port")
    try:
        yield process
        assert process.stop() == 0, process.log_end()
    finally:
        process.discard()


@pytest.fixture
def clients(broker: BrokerProcess) -> Iterator[list[Any]]:
    """Several clients, each with connections of its own."""
    with connected(broker) as opened:
        yield opened


@contextlib.contextmanager
def connected(broker: BrokerProcess, count: int = CLIENTS) -> Iterator[list[Any]]:
    opened = [pulsar.Client(broker.ports.url, logger=quiet) for _ in range(count)]
    try:
        yield opened
    finally:
        for each in opened:
            each.close()


def topic_of(worker: int, name: str) -> str:
    """A topic that this worker owns."""
    for number in range(1_000):
        topic = f"persistent://public/default/{name}-{number}"
        if owner_of(topic, WORKERS) == worker:
            return topic
    raise AssertionError("the rule of ownership never chooses this worker")


def remote_entries(broker: BrokerProcess) -> float:
    """How many entries went to a process that did not take the connection."""
    with Admin(broker.ports.admin_url, timeout_s=LIMIT_S) as admin:
        name = "magnetar_remote_published_entries_total"
        lines = admin.metrics().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name + "{"))


def publish(producer: Any, payloads: list[bytes]) -> list[Any]:
    """Publish without waiting for each; return the results in the order of the callbacks."""
    results: list[Any] = []
    for payload in payloads:
        producer.send_async(payload, lambda result, _: results.append(result))
    producer.flush()
    return results


def numbers(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


@pytest.mark.parametrize("worker", range(WORKERS))
@pytest.mark.parametrize("batching", [True, False], ids=["batches", "single entries"])
def test_what_is_produced_anywhere_is_consumed_anywhere_in_order(
    clients: list[Any], worker: int, batching: bool
) -> None:
    topic = topic_of(worker, f"order-{batching}")
    consumers = [each.subscribe(topic, f"s-{number}") for number, each in enumerate(clients)]
    for each in clients:
        producer = each.create_producer(topic, batching_enabled=batching, block_if_queue_full=True)
        results = publish(producer, numbers(EACH))
        assert results == [pulsar.Result.Ok] * EACH
        producer.close()
    for consumer in consumers:
        got = [consumer.receive(RECEIVE_MS) for _ in range(EACH * len(clients))]
        assert [each.data() for each in got] == numbers(EACH) * len(clients)
        for each in got:
            consumer.acknowledge(each)


@pytest.mark.parametrize("worker", range(WORKERS))
def test_typed_clients_have_one_schema_wherever_they_are(clients: list[Any], worker: int) -> None:
    topic = topic_of(worker, "typed")
    consumers = [
        each.subscribe(topic, f"s-{number}", schema=AvroSchema(Reading))
        for number, each in enumerate(clients)
    ]
    for number, each in enumerate(clients):
        each.create_producer(topic, schema=AvroSchema(Reading)).send(Reading(number=number))
        with pytest.raises(pulsar.IncompatibleSchema):
            each.create_producer(topic, schema=StringSchema())
        with pytest.raises(pulsar.IncompatibleSchema):
            each.subscribe(topic, "other", schema=StringSchema())
    for consumer in consumers:
        got = [consumer.receive(RECEIVE_MS) for _ in clients]
        assert [each.value().number for each in got] == list(range(len(clients)))
        assert {each.schema_version().encode() for each in got} == {bytes(8)}


def test_both_processes_had_to_pass_entries_on(broker: BrokerProcess, clients: list[Any]) -> None:
    """Negative control of all the others: connections did land on processes that own nothing."""
    before = remote_entries(broker)
    for worker in range(WORKERS):
        for each in clients:
            each.create_producer(topic_of(worker, "control")).send(b"x")
    passed_on = remote_entries(broker) - before
    assert 0 < passed_on < WORKERS * CLIENTS


def test_without_the_option_lookups_lead_to_the_owner_and_nothing_is_passed_on(
    tmp_path: Path,
) -> None:
    broker = started(tmp_path)
    try:
        with connected(broker) as clients:
            for worker in range(WORKERS):
                topic = topic_of(worker, "direct")
                for each in clients:
                    each.create_producer(topic).send(b"x")
        assert remote_entries(broker) == 0
    finally:
        broker.discard()


@pytest.mark.parametrize("worker", range(WORKERS))
def test_a_shared_subscription_over_two_connections_gets_each_message_once(
    clients: list[Any], worker: int
) -> None:
    topic = topic_of(worker, "shared")
    consumers = [
        each.subscribe(topic, "s", consumer_type=pulsar.ConsumerType.Shared) for each in clients[:4]
    ]
    producer = clients[4].create_producer(topic, batching_enabled=False, block_if_queue_full=True)
    assert set(publish(producer, numbers(SHARED))) == {pulsar.Result.Ok}
    got: list[bytes] = []
    end = time.perf_counter() + LIMIT_S
    while len(got) < SHARED and time.perf_counter() < end:
        for consumer in consumers:
            with contextlib.suppress(pulsar.Timeout):
                while True:
                    message = consumer.receive(50)
                    got.append(message.data())
                    consumer.acknowledge(message)
    assert sorted(got) == sorted(numbers(SHARED))


@pytest.mark.parametrize("worker", range(WORKERS))
def test_a_negative_acknowledgement_brings_a_message_again(clients: list[Any], worker: int) -> None:
    topic = topic_of(worker, "again")
    for each in clients:
        consumer = each.subscribe(
            topic,
            "s",
            consumer_type=pulsar.ConsumerType.Shared,
            negative_ack_redelivery_delay_ms=50,
        )
        each.create_producer(topic).send(b"once more")
        first = consumer.receive(RECEIVE_MS)
        consumer.negative_acknowledge(first)
        second = consumer.receive(RECEIVE_MS)
        assert second.message_id() == first.message_id()
        assert second.redelivery_count() == 1
        consumer.acknowledge(second)
        consumer.close()


@pytest.mark.parametrize("worker", range(WORKERS))
def test_a_reader_reads_from_anywhere_and_seeks(clients: list[Any], worker: int) -> None:
    topic = topic_of(worker, "reader")
    producer = clients[0].create_producer(topic)
    ids = [producer.send(each) for each in numbers(50)]
    for each in clients:
        reader = each.create_reader(topic, pulsar.MessageId.earliest)
        assert [reader.read_next(RECEIVE_MS).data() for _ in range(50)] == numbers(50)
        assert not reader.has_message_available()
        reader.seek(ids[30])
        assert [reader.read_next(RECEIVE_MS).data() for _ in range(19)] == numbers(50)[31:]
        reader.close()


def test_the_partitions_of_a_topic_belong_to_both_and_are_all_served(
    broker: BrokerProcess, clients: list[Any]
) -> None:
    topic = "persistent://public/default/parts"
    with Admin(broker.ports.admin_url, timeout_s=LIMIT_S) as admin:
        admin.create_topic(topic, partitions=4)
    assert {owner_of(f"{topic}-partition-{index}", WORKERS) for index in range(4)} == {0, 1}
    consumers = [each.subscribe(topic, f"s-{number}") for number, each in enumerate(clients)]
    producer = clients[0].create_producer(topic, block_if_queue_full=True)
    for number in range(400):
        producer.send_async(b"%d" % number, None, partition_key=str(number % 20))
    producer.flush()
    for consumer in consumers:
        got = [consumer.receive(RECEIVE_MS) for _ in range(400)]
        by_key: dict[str, list[int]] = {}
        for each in got:
            by_key.setdefault(each.partition_key(), []).append(int(each.data()))
        assert sum(map(len, by_key.values())) == 400
        assert all(values == sorted(values) for values in by_key.values())


def test_who_comes_to_the_wrong_process_without_being_told_is_served(tmp_path: Path) -> None:
    """A door that a look-up did not name: here the private port of the other worker."""
    broker = started(tmp_path)
    try:
        topic = topic_of(0, "insisting")
        port = PRIVATE_PULSAR_PORT + 1 + broker.ports.offset
        with socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S) as sock:
            sock.sendall(client_role.connect() + client_role.producer(1, 1, topic))
            reader = FrameReader()
            kinds: list[int] = []
            while len(kinds) < 2:
                data = sock.recv(65536)
                assert data, "the door closed"
                kinds += [frame.command.type for frame in reader.feed(data)]
            assert kinds == [api.BaseCommand.CONNECTED, api.BaseCommand.PRODUCER_SUCCESS]
    finally:
        broker.discard()


def test_with_a_single_port_there_are_no_private_ones(broker: BrokerProcess) -> None:
    options = StandaloneOptions(
        data=Path("d"), workers=2, single_port=True, listen="::", insecure=True
    )
    told = {each.url for each in worker_addresses(options, "outside")}
    assert told == {f"pulsar://outside:{PULSAR_PORT}"}
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", PRIVATE_PULSAR_PORT + broker.ports.offset))


class Traffic:
    """A producer and a consumer of one topic, in threads, until told to stop."""

    def __init__(self, producing: Any, consuming: Any, topic: str) -> None:
        self.sent = 0
        self.acknowledged: set[int] = set()
        self.received: list[int] = []
        self._consumer = consuming.subscribe(topic, "s")
        self._producer = producing.create_producer(
            topic, batching_enabled=False, block_if_queue_full=True, send_timeout_millis=0
        )
        self._stop, self._drained = threading.Event(), threading.Event()
        self._threads = [threading.Thread(target=each) for each in (self._send, self._receive)]
        for each in self._threads:
            each.start()

    def _send(self) -> None:
        while not self._stop.is_set():
            number = self.sent
            self.sent += 1
            self._producer.send_async(
                b"%d" % number,
                lambda result, _, number=number: (
                    self.acknowledged.add(number) if result == pulsar.Result.Ok else None
                ),
            )
            time.sleep(0.002)
        self._producer.flush()

    def _receive(self) -> None:
        while not (self._drained.is_set() and self._has_all()):
            with contextlib.suppress(pulsar.Timeout):
                message = self._consumer.receive(200)
                self.received.append(int(message.data()))
                self._consumer.acknowledge(message)

    def _has_all(self) -> bool:
        return self.acknowledged <= set(self.received)

    def stop(self) -> None:
        self._stop.set()
        self._threads[0].join(2 * LIMIT_S)
        self._drained.set()
        self._threads[1].join(2 * LIMIT_S)
        assert not any(each.is_alive() for each in self._threads), "the traffic did not resume"


@pytest.mark.timeout(240)
@pytest.mark.parametrize("victim", range(WORKERS))
def test_a_worker_that_is_killed_costs_time_and_nothing_else(tmp_path: Path, victim: int) -> None:
    broker = started(tmp_path, "--single-port")
    try:
        with connected(broker, 2 * CLIENTS) as clients:
            pairs = zip(clients[::2], clients[1::2], strict=True)
            traffic = [
                Traffic(producing, consuming, topic_of(number % WORKERS, f"kill-{number}"))
                for number, (producing, consuming) in enumerate(pairs)
            ]
            time.sleep(0.5)
            killed = worker_pid(broker, victim)
            assert killed is not None
            os.kill(killed, signal.SIGKILL)
            eventually(lambda: worker_pid(broker, victim) not in {None, killed}, RESTARTED_S)
            at_restart = [len(each.acknowledged) for each in traffic]
            eventually(
                lambda: all(
                    len(each.acknowledged) > before
                    for each, before in zip(traffic, at_restart, strict=True)
                )
            )
            for each in traffic:
                each.stop()
        assert remote_entries(broker) > 0
        for each in traffic:
            assert each.acknowledged == set(range(each.sent))
            assert not lost(each.acknowledged, each.received)
            assert not phantoms(each.sent, each.received)
            assert not out_of_order(each.received)
    finally:
        broker.discard()


def worker_pid(broker: BrokerProcess, worker: int) -> int | None:
    """The process that answers admin REST for a worker; None: nobody does."""
    path = str(broker.log.parent / "data" / "run" / f"worker-{worker}.sock")
    inodes = {
        line.split()[6]
        for line in Path("/proc/net/unix").read_text().splitlines()[1:]
        if line.endswith(" " + path)
    }
    for pid in group_members(broker.pid):
        if pid == broker.pid:
            continue
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if str(fd.readlink()) in {f"socket:[{inode}]" for inode in inodes}:
                    return pid
    return None
