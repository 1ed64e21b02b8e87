"""Memory is bounded whatever the backlog, the holes, the delays, the topics and the consumers.

A whole broker runs as a child process, and the system says what its worker takes. Each test
has a short form, for every change, and a long one with the numbers that the project promises:

    TESTS_LIMITS=full pytest tests/conformance/test_limits.py        (or: make limits)
"""

import logging
import os
import random
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import pytest

from benchmarks.pipeline import keep_full
from benchmarks.pulsar_load import Load, open_producers, topic_of
from magnetar.bench.accounting import cpu_s
from magnetar.broker.entry import EntryId
from magnetar.broker.wire.pulsar import client_role
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.broker.wire.pulsar.generated.PulsarApi_pb2 import BaseCommand
from magnetar.client.admin import Admin
from tests.conformance.child import MIB, Child, computed_s, eventually, running
from tests.conformance.conftest import new_client
from tests.conformance.line import EXCLUSIVE, SHARED, Line
from tests.conformance.talk import acknowledgements_are_durable

logger = logging.getLogger(__name__)

FULL = os.environ.get("TESTS_LIMITS") == "full"
CAP_BYTES = 512 * MIB * 115 // 100
"""What a process may take: 512 MiB, and 15 % for what an allocator cannot give back."""
SMALL_CACHES = {"write_cache_bytes_max": 16 * MIB, "read_cache_bytes_max": 8 * MIB}
"""So that a backlog that a test can make in seconds is many times what may be in memory."""
SMALL_CAP_BYTES = 128 * MIB

pytestmark = pytest.mark.timeout(1800 if FULL else 240)


# --- a backlog ---------------------------------------------------------------------------

BACKLOG = 10_000_000 if FULL else 300_000
MESSAGE_BYTES = 500
BATCH = 100
SLICES = 5
SCHEDULED_S = 0.001
"""A running thread's CPU time is written down when it is scheduled: less may be shown as none."""


TOPIC = topic_of(Load("publish", 0, prefix="backlog"), 0)


class Filled(NamedTuple):
    """What `publish` has done."""

    messages: int
    rates: list[float]
    """Messages per second of the broker's CPU time in each part."""


def publish(broker: Child, messages: int, batch: int, size_bytes: int = MESSAGE_BYTES) -> Filled:
    """Fill `TOPIC` with at least so many messages, in `SLICES` equal parts."""
    load = Load("publish", broker.port, size_bytes, batch, window_bytes=2 * MIB, prefix="backlog")
    pipeline, rates = open_producers(load, 0), list[float]()
    for part in range(1, SLICES + 1):
        before = pipeline.answered
        began_s = computed_s(broker.worker())
        keep_full([pipeline], 0, 0, part * messages // batch // SLICES)
        took_s = max(computed_s(broker.worker()) - began_s, SCHEDULED_S)
        rates.append((pipeline.answered - before) * batch / took_s)
    keep_full([pipeline], 0, 0, pipeline.begun)
    pipeline.sock.close()
    assert pipeline.answered == pipeline.begun
    return Filled(pipeline.answered * batch, rates)


def drain(broker: Child, messages: int) -> list[float]:
    """Read `TOPIC` from its start and acknowledge everything; return the rates likewise.

    Raises:
        AssertionError: something is missing, comes twice, or comes out of order.
    """
    rates, seen, last = list[float](), 0, EntryId(-1, -1)
    with Line(broker.port) as line:
        line.subscribe(TOPIC, "late-comer", EXCLUSIVE, permits=20_000)
        began_s, before, since_flow = computed_s(broker.worker()), 0, 0
        for entry in line.received():
            assert entry.at > last, "twice, or out of order"
            last = entry.at
            seen += entry.messages
            since_flow += entry.messages
            if since_flow >= 5_000 or seen >= messages:
                line.send(
                    client_role.ack(0, [last], cumulative=True), client_role.flow(0, since_flow)
                )
                since_flow = 0
            if seen >= (len(rates) + 1) * messages // SLICES:
                now_s = computed_s(broker.worker())
                rates.append((seen - before) / max(now_s - began_s, SCHEDULED_S))
                began_s, before = now_s, seen
            if seen >= messages:
                break
        with pytest.raises(TimeoutError):
            line.frame(0.2)
    assert seen == messages
    return rates


@pytest.mark.parametrize("batch", [BATCH, 1], ids=["batched", "unbatched"])
def test_a_backlog_of_any_size_takes_no_more_memory_and_no_more_time(
    tmp_path: Path, batch: int
) -> None:
    wanted = BACKLOG if batch > 1 else BACKLOG // 10
    cap = CAP_BYTES if FULL else SMALL_CAP_BYTES
    with running(Child(tmp_path, None if FULL else SMALL_CACHES)) as broker:
        filled = publish(broker, wanted, batch)
        after_publishing = broker.peak_bytes()
        read = drain(broker, filled.messages)
        peak = broker.peak_bytes()
        report("published per second of CPU", filled.rates)
        report("consumed per second of CPU", read)
        logger.warning("peak %d MiB, then %d MiB", after_publishing // MIB, peak // MIB)
        assert peak <= cap
        for rates in (filled.rates, read):
            # The promise is 80 %; the rest is left to whoever else uses this machine's caches.
            assert max(rates[-2:]) >= 0.5 * min(rates[:2]), rates
        assert broker.stop() == 0, broker.log_end()


def test_a_cache_that_is_not_bounded_would_be_noticed(tmp_path: Path) -> None:
    """The negative control: the same load with a cache as large as the backlog."""
    large = {"write_cache_bytes_max": 8192 * MIB, "read_cache_bytes_max": 8192 * MIB}
    with running(Child(tmp_path, large)) as broker:
        publish(broker, 400_000, BATCH)
        assert broker.peak_bytes() > SMALL_CAP_BYTES


def report(what: str, rates: Sequence[float]) -> None:
    """Tell how even it went."""
    logger.warning("%s: %s", what, ", ".join(f"{rate:,.0f}" for rate in rates))


# --- keys --------------------------------------------------------------------------------

KEYS = 3_000_000 if FULL else 100_000
KEY_MEMORY_BYTES = 16 * MIB if FULL else 8 * MIB
AROUND_BYTES = 48 * MIB
"""What compaction may take beside that: runs that are read and written, a bit per message."""


def test_compaction_takes_the_memory_it_may_however_many_keys_there_are(tmp_path: Path) -> None:
    settings = {**SMALL_CACHES, "compaction_memory_bytes_max": KEY_MEMORY_BYTES}
    with running(Child(tmp_path, settings)) as broker, broker.admin() as admin:
        client = new_client(broker.ports.url)
        producer = client.create_producer(
            TOPIC, batching_enabled=True, batching_max_messages=1000, block_if_queue_full=True
        )
        for number in range(KEYS + 1000):
            producer.send_async(b"value", _nothing, partition_key=f"user-{number % KEYS}")
        producer.flush()
        client.close()
        before = broker.resident_bytes()
        broker.forget_peak()
        began = perf_counter()
        admin.compact(TOPIC)
        eventually(lambda: admin.compaction(TOPIC)[0] != "RUNNING", 1000)
        assert admin.compaction(TOPIC) == ("SUCCESS", "")
        grown = broker.peak_bytes() - before
        logger.warning("%d keys: %.0f s, %.0f MiB more", KEYS, perf_counter() - began, grown / MIB)
        assert grown < KEY_MEMORY_BYTES + AROUND_BYTES
        compaction = admin.stats(TOPIC)["compaction"]
        assert compaction["lastCompactionRemovedEventCount"] == 1000


def _nothing(*_: object) -> None:
    """Take a receipt that nobody waits for."""


# --- holes -------------------------------------------------------------------------------

HOLES = 1_000_000 if FULL else 100_000
ACKS_PER_COMMAND = 1_000
UNBOUNDED = {
    "unacked_messages_per_consumer_max": 10_000_000,
    "unacked_messages_per_subscription_max": 10_000_000,
}


def test_holes_of_single_acknowledgements_stay_and_cost_little(tmp_path: Path) -> None:
    with running(Child(tmp_path, UNBOUNDED)) as broker:
        messages = publish(broker, 2 * HOLES, 1, size_bytes=20).messages
        safe, unsure, kept = set[EntryId](), set[EntryId](), set[EntryId]()
        with Line(broker.port) as line:
            line.subscribe(TOPIC, "work", SHARED, permits=messages)
            every_second: list[EntryId] = []
            for number, entry in enumerate(line.received()):
                if number % 2:
                    every_second.append(entry.at)
                else:
                    kept.add(entry.at)
                if len(every_second) == ACKS_PER_COMMAND:
                    line.send(client_role.ack(0, every_second))
                    safe.update(every_second)
                    every_second = []
                if number == messages - 1:
                    break
            peak = broker.peak_bytes()
            # Acknowledgements go on until the moment of the kill. `kept` gives some of its own.
            extra = sorted(kept)[:: max(len(kept) // 200, 1)]
            for each in extra[::2]:
                line.send(client_role.ack(0, [each]))
                safe.add(each)
            with broker.admin() as admin:
                eventually(lambda: backlog(admin) == messages - len(safe), 60)
                eventually(lambda: acknowledgements_are_durable(admin), 60)
            for each in extra[1::2]:
                line.send(client_role.ack(0, [each]))
                unsure.add(each)
                time.sleep(0.003)
            broker.kill()

        logger.warning("started again after %.2f s", broker.start())
        with Line(broker.port) as line:
            line.subscribe(TOPIC, "work", SHARED, permits=messages)
            wanted = messages - len(safe) - len(unsure)
            again = {entry.at for entry in line.received(2.0, wanted)}
        peak = max(peak, broker.peak_bytes())
        logger.warning("%d holes, peak %d MiB", len(safe), peak // MIB)
        assert not again & safe, "durable before the kill, and came again"
        assert kept - safe - unsure <= again, "never acknowledged, and did not come again"
        with broker.admin() as admin:
            assert wanted <= backlog(admin) <= messages - len(safe)
        assert peak <= CAP_BYTES


def backlog(admin: Admin) -> int:
    """Return how much of `TOPIC` nobody has acknowledged."""
    return int(admin.stats(TOPIC)["subscriptions"]["work"]["msgBacklog"])


# --- delays ------------------------------------------------------------------------------

DELAYED = 1_000_000 if FULL else 50_000
FIRST_DUE_S, SPREAD_S = ([150.0, 400.0], 360.0) if FULL else ([8.0, 30.0, 90.0], 4.0)
"""When the first is due. Where a machine needs longer to publish and to restart, the next."""
LATE_S = 60.0
"""How late the machine may make us; a tick is 0.1 s. In the long form the messages are many
times what the read cache holds, and come in another order than they lie in: each costs a read."""
EARLY_MS = 1
DUE = struct.Struct(">q")


def test_delayed_messages_survive_a_restart_and_come_in_order_of_time(tmp_path: Path) -> None:
    for first_s in FIRST_DUE_S:
        folder = tmp_path / f"{first_s:g}"
        folder.mkdir()
        if came_in_order_of_time(folder, first_s):
            return
    pytest.fail(f"this machine publishes less than {DELAYED} messages in {FIRST_DUE_S[-1]:g} s")


def came_in_order_of_time(folder: Path, first_s: float) -> bool:
    """Return False if the first was due before the broker was back, and nothing was tested."""
    topic = "persistent://public/default/delayed"
    with running(Child(folder)) as broker:
        first_ms = round((time.time() + first_s) * 1000)
        due = [first_ms + number * round(SPREAD_S * 1000) // DELAYED for number in range(DELAYED)]
        random.Random(7).shuffle(due)
        with Line(broker.port) as consumer, Line(broker.port) as producer:
            consumer.subscribe(topic, "later", SHARED, permits=1_000)
            publish_delayed(producer, topic, due)
            logger.warning("published %.1f s before the first is due", left_s(first_ms))
            peak = broker.peak_bytes()
            broker.kill()
        broker.start()
        with Line(broker.port) as consumer:
            consumer.subscribe(topic, "later", SHARED, permits=1_000)
            if left_s(first_ms) < 0.5:
                return False
            came: list[int] = []
            unacknowledged: list[EntryId] = []
            early = late_ms = 0
            for entry in consumer.received(first_s + LATE_S):
                now_ms = time.time() * 1000
                (wanted,) = DUE.unpack(entry.payload)
                early += wanted > now_ms + EARLY_MS
                late_ms = max(late_ms, round(now_ms) - wanted)
                came.append(wanted)
                unacknowledged.append(entry.at)
                if len(unacknowledged) == 500 or len(came) == DELAYED:
                    consumer.send(
                        client_role.ack(0, unacknowledged),
                        client_role.flow(0, len(unacknowledged)),
                    )
                    unacknowledged = []
                if len(came) == DELAYED:
                    break
        peak = max(peak, broker.peak_bytes())
        logger.warning("latest %d ms after its time, peak %d MiB", late_ms, peak // MIB)
        assert not early
        assert sorted(came) == sorted(due)
        assert came == sorted(came), "not in order of time"
        assert late_ms <= LATE_S * 1000
        assert peak <= CAP_BYTES
    return True


def left_s(first_ms: int) -> float:
    """Return how long it is until the first delayed message is due."""
    return first_ms / 1000 - time.time()


def publish_delayed(line: Line, topic: str, due: Sequence[int]) -> None:
    """Publish messages that say when they are due, and are due then."""
    line.produce(topic, name="delayed")
    step = 1_000
    for first in range(0, len(due), step):
        part = due[first : first + step]
        frames = [
            client_role.send(
                0,
                api.MessageMetadata(
                    producer_name="delayed",
                    sequence_id=first + i,
                    publish_time=1,
                    deliver_at_time=at,
                ),
                DUE.pack(at),
            )
            for i, at in enumerate(part)
        ]
        line.send(*frames)
        line.answers(BaseCommand.SEND_RECEIPT, len(part))


# --- topics ------------------------------------------------------------------------------

TOPICS = 10_000 if FULL else 2_000
PER_TOPIC_BYTES = 20 * 1024
BASE_BYTES = 200 * MIB
START_CPU_S = 10.0
"""Of computing: what a start may take, with all these topics."""
IDLE_CPU_PERCENT = 2.0
WATCH_S = 22.0 if FULL else 11.0
"""Longer than the pause between two rounds of any of the broker's duties."""
BURST = 200


def test_idle_topics_cost_little_memory_and_no_time(tmp_path: Path) -> None:
    with running(Child(tmp_path)) as broker:
        base = broker.resident_bytes()
        began = perf_counter()
        with Line(broker.port) as line:
            for first in range(0, TOPICS, BURST):
                numbers = range(first, min(first + BURST, TOPICS))
                line.send(
                    *(
                        client_role.subscribe(
                            n, n, f"persistent://public/default/idle-{n}", "own", SHARED
                        )
                        for n in numbers
                    )
                )
                line.answers(BaseCommand.SUCCESS, len(numbers))
            with_consumers = broker.resident_bytes()
        logger.warning("made %d topics in %.1f s", TOPICS, perf_counter() - began)
        per_topic = (broker.resident_bytes() - base) / TOPICS
        logger.warning(
            "%.1f KiB per topic, %.1f with a consumer",
            per_topic / 1024,
            (with_consumers - base) / TOPICS / 1024,
        )
        idle = broker.idle_cpu_percent(WATCH_S)
        assert broker.stop() == 0, broker.log_end()
        start_s = broker.start()
        start_cpu_s = cpu_s(broker.pid)
        with broker.admin() as admin:
            assert len(admin.topics("public/default")) == TOPICS
        logger.warning("started again in %.2f s, idle at %.2f %%", start_s, idle)
        assert per_topic <= PER_TOPIC_BYTES
        assert broker.peak_bytes() <= BASE_BYTES + TOPICS * PER_TOPIC_BYTES
        assert start_cpu_s <= START_CPU_S
        assert idle <= IDLE_CPU_PERCENT


# --- consumers that do not read ----------------------------------------------------------

STUCK = 100
PER_STUCK_BYTES = 1 * MIB
STREAM_MESSAGES = 40_000
STREAM_BATCH = 10


def grown_by_stuck_consumers(folder: Path, settings: dict[str, int]) -> int:
    """Return how many bytes each consumer that never reads has cost."""
    with running(Child(folder, settings)) as broker:
        stored = publish(broker, STREAM_MESSAGES, STREAM_BATCH).messages
        drain(broker, stored)
        broker.forget_peak()
        before = broker.peak_bytes()
        lines = [Line(broker.port, receive_buffer=4096) for _ in range(STUCK)]
        try:
            for number, line in enumerate(lines):
                line.subscribe(TOPIC, f"stuck-{number}", EXCLUSIVE, permits=10_000_000)
            with broker.admin() as admin:
                admin.reset(TOPIC, "late-comer", 0)
            began = perf_counter()
            drain(broker, stored)
            logger.warning("read beside %d stuck ones in %.1f s", STUCK, perf_counter() - began)
            return (broker.peak_bytes() - before) // STUCK
        finally:
            for line in lines:
                line.sock.close()


def test_consumers_that_never_read_hold_up_nobody_and_cost_little(tmp_path: Path) -> None:
    cost = grown_by_stuck_consumers(tmp_path, SMALL_CACHES)
    logger.warning("%d KiB per stuck consumer", cost // 1024)
    assert cost <= PER_STUCK_BYTES


def test_a_larger_buffer_for_stuck_consumers_would_be_noticed(tmp_path: Path) -> None:
    """The negative control."""
    large = SMALL_CACHES | {"write_buffer_bytes_per_connection_max": 64 * MIB}
    assert grown_by_stuck_consumers(tmp_path, large) > PER_STUCK_BYTES


# --- frames that are too large -----------------------------------------------------------

FRAME_BYTES_MAX = 5 * MIB + 10 * 1024


def oversize() -> Iterator[int]:
    """Claims from just too large to the largest that four bytes can make."""
    yield from (FRAME_BYTES_MAX + 10 * 1024, 6 * MIB, 64 * MIB, 1 << 30, (1 << 31) - 1)
    yield from (1 << 31, (1 << 32) - 1)


def test_a_frame_that_claims_too_much_is_refused_at_its_header(tmp_path: Path) -> None:
    with running(Child(tmp_path)) as broker, Line(broker.port) as good:
        good.produce("persistent://public/default/good", name="good")
        before = broker.peak_bytes()
        for sequence, claim in enumerate(oversize()):
            for command_size in (20, claim - 4):
                with Line(broker.port) as bad:
                    bad.send(struct.pack(">II", claim, command_size), bytes(64 * 1024))
                    assert said_at_the_end(bad) <= {BaseCommand.ERROR}, claim
            good.send(send_of(sequence))
            good.answers(BaseCommand.SEND_RECEIPT, 1)
        growth = broker.peak_bytes() - before
        logger.warning("grew by %d KiB", growth // 1024)
        assert growth < 4 * MIB


def said_at_the_end(line: Line) -> set[int]:
    """Return what the broker still says until it closes the connection."""
    said: set[int] = set()
    with suppress(ConnectionError):
        while True:
            said.add(line.frame().command.type)
    return said


def test_a_frame_of_the_largest_size_passes(tmp_path: Path) -> None:
    """The negative control: what is refused is the claim, not the size of what is near it."""
    with running(Child(tmp_path)) as broker, Line(broker.port) as line:
        line.produce("persistent://public/default/large", name="large")
        line.send(send_of(0, bytes(5 * MIB)))
        line.answers(BaseCommand.SEND_RECEIPT, 1)


def send_of(sequence: int, payload: bytes = b"good") -> bytes:
    """One message."""
    metadata = api.MessageMetadata(producer_name="good", sequence_id=sequence, publish_time=1)
    return client_role.send(0, metadata, payload)
