"""When the disk is full or descriptors run out: refuse, lose nothing, and go on by itself.

A small file system of its own is mounted where the system allows it (Linux, as root); the
same is done elsewhere with a watermark that the disk is above from the start.
"""

import logging
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from time import perf_counter
from typing import Any, Self

import pulsar
import pytest

from magnetar.broker.wire.pulsar import client_role
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.broker.wire.pulsar.generated.PulsarApi_pb2 import BaseCommand
from magnetar.client.admin import Admin
from magnetar.client.rest import AdminError
from tests.conformance.child import MIB, Child, eventually, running, size_on_disk
from tests.conformance.histories import lost, out_of_order, phantoms
from tests.conformance.line import EXCLUSIVE, Line, Received

logger = logging.getLogger(__name__)

pytestmark = pytest.mark.timeout(240)

TOPIC = "persistent://public/default/numbers"
SMALL_DISK_BYTES = 64 * MIB
SMALL = {
    "write_cache_bytes_max": 8 * MIB,
    "journal_file_bytes": 4 * MIB,
    "ledger_bytes_max": 1 * MIB,
    "expiry_interval_s": 0.2,
    "reclaim_interval_s": 0.2,
}
NO_WATERMARK = {"disk_used_percent_readonly": 100, "disk_used_percent_warn": 100}
ROOM_IN_THE_JOURNAL = {"journal_file_bytes": 8 * MIB, "ledger_bytes_max": 256 * MIB}
REFUSED_S = 20.0
"""How soon a producer must know. Alone on a machine it is told at once."""
SEND_TIMEOUT_MS = 3_000
SILENT = pulsar.FileLogger(pulsar.LoggerLevel.Error, os.devnull)
RESUMED_S = 30.0
"""How soon after space is back it must go on. Alone on a machine it is one second."""


class Numbers:
    """A producer that sends numbers one after the other, and knows which were acknowledged."""

    def __init__(self, port: int, payload_bytes: int = 64 * 1024) -> None:
        self.line = Line(port)
        self.refused = False
        self.acknowledged: list[int] = []
        self._port = port
        self.next = 0
        self._padding = bytes(payload_bytes)
        self.line.produce(TOPIC, name="numbers")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.line.sock.close()

    def send(self) -> api.BaseCommand:
        """Send the next number, and return what the broker says to it."""
        metadata = api.MessageMetadata(
            producer_name="numbers", sequence_id=self.next, publish_time=1
        )
        payload = self.next.to_bytes(8, "big") + self._padding
        self.line.send(client_role.send(0, metadata, payload))
        answer = self.line.frame().command
        self.refused = answer.type != BaseCommand.SEND_RECEIPT
        if not self.refused:
            self.acknowledged.append(self.next)
        self.next += 1
        return answer

    def accepted(self) -> bool:
        """Send one more; return whether it was taken.

        A producer that was refused comes again first, on a new connection.
        """
        if self.refused:
            self.line.sock.close()
            self.line = Line(self._port)
            answer = self.line.answer(client_role.producer(1, 0, TOPIC, name="numbers"))
            if answer.type != BaseCommand.PRODUCER_SUCCESS:
                return False
        return self.send().type == BaseCommand.SEND_RECEIPT


def numbers_in(port: int, subscription: str, at_least: int) -> list[int]:
    """Read the whole topic, which must hold so many."""
    with Line(port) as line:
        line.subscribe(TOPIC, subscription, EXCLUSIVE, permits=1_000_000)
        return [number_in(entry) for entry in line.received(1.0, at_least)]


def number_in(entry: Received) -> int:
    """Return the number that a message holds."""
    return int.from_bytes(entry.payload[:8], "big")


# --- a full disk -------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MiB."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    options = f"size={SMALL_DISK_BYTES}"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=False, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip(f"this system mounts nothing: {mounted.stdout.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def child_on(disk: Path, settings: Mapping[str, Any]) -> Child:
    """A broker whose data, but not its log, is on the small disk."""
    child = Child(disk, settings)
    child.log = disk.parent / "broker.log"
    return child


def fill(path: Path, percent: int) -> None:
    """Take what is free, until so much of the disk is used."""
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while percent == 100 or used_percent(path.parent) < percent:
            file.write(bytes(64 * 1024))


def used_percent(folder: Path) -> float:
    """Return how full the disk is."""
    usage = shutil.disk_usage(folder)
    return 100 * usage.used / usage.total


@pytest.mark.parametrize(
    ("filled_percent", "settings", "reason"),
    [
        (100, {}, "disk is full"),
        (99, ROOM_IN_THE_JOURNAL, "the write cache is full, and the disk does not take it"),
        (70, {"disk_used_percent_readonly": 70, "disk_used_percent_warn": 70}, "the limit is 70%"),
    ],
    ids=["no room for a ledger", "room in the journal alone", "a watermark"],
)
def test_a_disk_that_is_really_full_refuses_loses_nothing_and_goes_on(
    small_disk: Path, filled_percent: int, settings: dict[str, int], reason: str
) -> None:
    with (
        running(child_on(small_disk, NO_WATERMARK | SMALL | settings)) as broker,
        Numbers(broker.port) as numbers,
        Line(broker.port) as reader,
    ):
        reader.subscribe(TOPIC, "reader", EXCLUSIVE)
        for _ in range(250):
            assert numbers.accepted()
        fill(small_disk / "somebody-elses-file", filled_percent)
        began = perf_counter()
        while (answer := numbers.send()).type == BaseCommand.SEND_RECEIPT:
            began = perf_counter()
        assert perf_counter() - began < REFUSED_S
        assert_retryable(answer)
        for _ in range(5):
            numbers.accepted()
        assert reason in broker.log.read_text(), "another case than the one to be tested"

        reader.send(client_role.flow(0, 1_000_000))
        told = reader.received(1.0, len(numbers.acknowledged))
        before = [number_in(entry) for entry in told]
        assert not lost(numbers.acknowledged, before), "consumers go on, with all there is"

        (small_disk / "somebody-elses-file").unlink()
        took = eventually(numbers.accepted, RESUMED_S)
        logger.warning("took messages again after %.2f s", took)
        for _ in range(20):
            assert numbers.accepted()
        check(numbers, broker.port, "afterwards")
        broker.kill()
        broker.start()
        check(numbers, broker.port, "after a restart")
        assert broker.stop() == 0, broker.log_end()


def test_a_broker_killed_on_a_full_disk_comes_back_with_everything(small_disk: Path) -> None:
    with running(child_on(small_disk, SMALL)) as broker, Numbers(broker.port) as numbers:
        for _ in range(100):
            assert numbers.accepted()
        fill(small_disk / "somebody-elses-file", 100)
        while numbers.accepted():
            pass
        broker.kill()
        with suppress(Exception):
            broker.start()  # it may say that it cannot start; it may not damage anything
        broker.discard()
        (small_disk / "somebody-elses-file").unlink()
        broker.start()
        check(numbers, broker.port, "after a restart")


def assert_retryable(answer: api.BaseCommand) -> None:
    """An answer after which the official clients try again."""
    assert answer.type in {BaseCommand.SEND_ERROR, BaseCommand.CLOSE_PRODUCER}, answer
    if answer.type == BaseCommand.SEND_ERROR:
        assert answer.send_error.error == api.PersistenceError, answer


def check(numbers: Numbers, port: int, subscription: str) -> None:
    """Everything acknowledged is there, in order."""
    stored = numbers_in(port, subscription, len(numbers.acknowledged))
    assert not lost(numbers.acknowledged, stored)
    assert not phantoms(numbers.next, stored)
    assert not out_of_order(stored)


def test_the_official_client_hears_of_a_full_disk_and_the_log_stays_short(
    small_disk: Path,
) -> None:
    """A producer that is let in again and again would never time out, ten times a second."""
    with running(child_on(small_disk, NO_WATERMARK | SMALL)) as broker, broker.admin() as admin:
        client = pulsar.Client(f"pulsar://127.0.0.1:{broker.port}", logger=SILENT)
        producer = client.create_producer(
            TOPIC, send_timeout_millis=SEND_TIMEOUT_MS, batching_enabled=False
        )
        for _ in range(50):
            producer.send(bytes(64 * 1024))
        assert admin.health() == "ok"
        fill(small_disk / "somebody-elses-file", 100)
        assert refused_after_s(producer) < SEND_TIMEOUT_MS / 1000 + REFUSED_S
        with pytest.raises(AdminError, match="nothing can be stored") as unwell:
            admin.health()
        assert unwell.value.status == 503
        assert admin.ready() == "ok", "it serves consumers"
        lines = broker.log.read_text().splitlines()
        assert len([line for line in lines if " ERROR " in line or " WARNING " in line]) < 15
        assert not [line for line in lines if line.startswith("Traceback")]
        made = re.search(r"\npulsar_connection_created_total_count.* (\d+)\n", admin.metrics())
        assert made is not None
        assert int(made[1]) < 25, "clients come back more and more slowly"

        (small_disk / "somebody-elses-file").unlink()
        eventually(lambda: is_well(admin), RESUMED_S)
        began = perf_counter()
        while True:
            with suppress(pulsar.PulsarException):
                producer.send(b"goes on by itself")
                break
            assert perf_counter() - began < 90
        client.close()


def refused_after_s(producer: Any) -> float:
    """Send until it fails; return how long the last call took."""
    while True:
        began = perf_counter()
        try:
            producer.send(bytes(64 * 1024))
        except pulsar.PulsarException:
            return perf_counter() - began


def is_well(admin: Admin) -> bool:
    """Return whether the broker has nothing to complain about."""
    with suppress(AdminError):
        return admin.health() == "ok"
    return False


def test_above_the_watermark_producers_are_refused_and_consumers_go_on(tmp_path: Path) -> None:
    with running(Child(tmp_path)) as broker, Numbers(broker.port) as numbers:
        assert all(numbers.accepted() for _ in range(10))
        assert broker.stop() == 0
    low = {"disk_used_percent_readonly": 1, "disk_used_percent_warn": 1}
    with running(Child(tmp_path, low)) as broker:
        with Line(broker.port) as line:
            began = perf_counter()
            opened = line.answer(client_role.producer(1, 0, TOPIC, name="numbers"))
            if opened.type == BaseCommand.PRODUCER_SUCCESS:
                metadata = api.MessageMetadata(producer_name="x", sequence_id=0, publish_time=1)
                line.send(client_role.send(0, metadata, b"x"))
                assert_retryable(line.frame().command)
            assert perf_counter() - began < REFUSED_S
        assert numbers_in(broker.port, "reader", 10) == numbers.acknowledged
        assert broker.stop() == 0
    with running(Child(tmp_path)) as broker, Numbers(broker.port) as again:
        assert again.accepted()


# --- space that is given back ------------------------------------------------------------

VOLUME_BYTES = 100 * MIB
LEFT_BYTES = 16 * MIB
"""What an open ledger and its logs may still hold."""


def test_what_everybody_acknowledged_leaves_the_disk(tmp_path: Path) -> None:
    """The negative control is in the middle: until it is acknowledged, it stays."""
    with running(Child(tmp_path, SMALL)) as broker, broker.admin() as admin:
        admin.set_retention("public/default", 0, 0)
        entries = broker.data / "entries"
        with Line(broker.port) as line, Numbers(broker.port, 256 * 1024) as numbers:
            line.subscribe(TOPIC, "reader", EXCLUSIVE)
            while numbers.next * 256 * 1024 < VOLUME_BYTES:
                assert numbers.accepted()
            eventually(lambda: size_on_disk(entries) >= VOLUME_BYTES - 16 * MIB, 60)
            line.send(client_role.flow(0, 1_000_000))
            received = line.received()
            last = [next(received).at for _ in range(numbers.next)][-1]
            assert size_on_disk(entries) >= VOLUME_BYTES - 16 * MIB, "not acknowledged, but gone"
            line.send(client_role.ack(0, [last], cumulative=True))
            took = eventually(lambda: size_on_disk(entries) <= LEFT_BYTES, 60)
            left = size_on_disk(entries) // MIB
            logger.warning("%d MiB left of %d after %.1f s", left, VOLUME_BYTES // MIB, took)
            assert numbers.accepted()
        assert broker.stop() == 0, broker.log_end()


# --- descriptors -------------------------------------------------------------------------

DESCRIPTORS = 256
MANY_TOPICS = 1_000


def test_few_descriptors_are_enough_for_many_topics_and_too_few_for_many_clients(
    tmp_path: Path,
) -> None:
    limited = ["/bin/sh", "-c", f'ulimit -n {DESCRIPTORS} && exec "$0" "$@"']
    with running(Child(tmp_path, before=limited)) as broker:
        with Line(broker.port) as line:
            for first in range(0, MANY_TOPICS, 100):
                for number in range(first, first + 100):
                    topic = f"persistent://public/default/many-{number}"
                    line.send(client_role.producer(number, number, topic, name=f"p-{number}"))
                line.answers(BaseCommand.PRODUCER_SUCCESS, 100)
            worker = broker.worker()
            with ExitStack() as crowd:
                clients = [
                    crowd.enter_context(socket.create_connection(("127.0.0.1", broker.port)))
                    for _ in range(2 * DESCRIPTORS)
                ]
                for client in clients:
                    with suppress(ConnectionError):
                        client.sendall(client_role.connect())
                eventually(lambda: any(map(is_closed, clients)), 30.0)
                assert not reachable(broker.port)
                assert descriptors_of(worker) <= DESCRIPTORS
                # Who was there before is served, also when files have to be opened.
                for number in range(MANY_TOPICS):
                    metadata = api.MessageMetadata(
                        producer_name=f"p-{number}", sequence_id=0, publish_time=1
                    )
                    line.send(client_role.send(number, metadata, bytes(1024)))
                line.answers(BaseCommand.SEND_RECEIPT, MANY_TOPICS)
            took = eventually(lambda: reachable(broker.port, 5.0), 30.0)
            logger.warning("reachable again after %.2f s", took)
        assert broker.worker() == worker, "the worker has died meanwhile"
        broker.stop()


def descriptors_of(pid: int) -> int:
    """Return how many a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def is_closed(client: socket.socket) -> bool:
    """Return whether the broker has hung up."""
    client.setblocking(False)
    try:
        return client.recv(1 << 16) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def reachable(port: int, within_s: float = 0.5) -> bool:
    """Return whether a new client is served within a moment."""
    try:
        with Line(port, answer_s=within_s):
            return True
    except OSError:
        return False
