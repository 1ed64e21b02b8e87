"""Publishing: the runs of the doors go into the log, and receipts come back in order."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magnetar.broker.clock import ManualClock
from magnetar.broker.entry import EntryFlags
from magnetar.broker.metrics import Metrics
from magnetar.broker.port import (
    PersistenceError,
    PortError,
    ProducerBusyError,
    ProducerRequest,
    QuotaExceededError,
    TopicTerminatedError,
)
from magnetar.broker.run import Run
from magnetar.broker.topics.producers.deduplication import Sequences
from magnetar.broker.topics.producers.producer import Inlet, OpenProducer
from magnetar.broker.topics.producers.publishing import Publisher
from magnetar.broker.topics.producers.tally import SIZES_FROM
from magnetar.names import TopicName
from tests.topics.stand_ins import ProducerDoor, Receipts, ScriptedLedgers, ScriptedLog, make_run

TOPIC = TopicName.parse("t")


class Bench:
    """A publisher over scripted ledgers, with producers `p0`, `p1`, ... in slots 0, 1, ..."""

    def __init__(self, held_bytes_max: int = 10_000) -> None:
        self.ledgers = ScriptedLedgers()
        self.clock = ManualClock()
        self.publisher = Publisher(
            self.ledgers,
            self.clock,
            asyncio.get_running_loop(),
            Metrics(),
            held_bytes_max=held_bytes_max,
        )
        self.ledgers.on_commit = self.publisher.committed
        self.producers: list[OpenProducer | None] = []
        self.doors: list[ProducerDoor] = []
        self.receipts = Receipts()
        self.woken: list[Inlet] = []

    def topic(self, log: ScriptedLog | None = None, *, deduplication: bool = False) -> Inlet:
        inlet = Inlet(
            log=log or ScriptedLog(),
            wake=lambda: self.woken.append(inlet),
            sequences=Sequences() if deduplication else None,
        )
        return inlet

    def producer(self, inlet: Inlet) -> OpenProducer:
        door = ProducerDoor()
        producer = OpenProducer(
            inlet, ProducerRequest(TOPIC), f"p{len(self.producers)}", door, lambda _: None
        )
        self.producers.append(producer)
        self.doors.append(door)
        return producer

    def send(self, *rows: tuple[int, int], flags: int = 0) -> bool:
        run = make_run(rows, flags=flags)
        taken = self.publisher.publish(run, self.producers, self.receipts)
        # The door reuses its buffer as soon as publish returns.
        assert isinstance(run.buffer.obj, bytearray)
        run.buffer[:] = bytes(len(run.buffer))
        return taken


async def soon() -> None:
    """Let everything run that is due."""
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
async def bench() -> Bench:
    return Bench()


async def test_a_receipt_comes_only_once_the_entry_is_durable(bench: Bench) -> None:
    bench.producer(bench.topic())
    bench.send((0, 7))
    await soon()
    assert bench.receipts.rows == []
    bench.ledgers.commit()
    assert bench.receipts.rows == [(0, 7, (100, 0))]


async def test_the_rows_of_a_run_become_neighbouring_entries_with_rising_indexes(
    bench: Bench,
) -> None:
    bench.producer(bench.topic())
    bench.send((0, 1), (0, 2), (0, 3))
    [record] = bench.ledgers.pending
    assert list(record.indexes.items()) == [((100, 0), 0), ((100, 1), 1), ((100, 2), 2)]
    assert list(record.bodies.values()) == [b"0/1", b"0/2", b"0/3"]


async def test_a_whole_run_is_one_append_whatever_its_topics(bench: Bench) -> None:
    for _ in range(3):
        bench.producer(bench.topic())
    bench.send((0, 1), (1, 1), (2, 1), (0, 2))
    assert len(bench.ledgers.pending) == 1


async def test_interleaved_producers_each_keep_their_order(bench: Bench) -> None:
    one, two = bench.topic(ScriptedLog(100)), bench.topic(ScriptedLog(200))
    bench.producer(one)
    bench.producer(two)
    bench.producer(one)
    bench.send((2, 1), (0, 1), (1, 1), (0, 2), (2, 2), (1, 2))
    bench.ledgers.commit()
    assert bench.receipts.rows == [
        (0, 1, (100, 0)),
        (0, 2, (100, 1)),
        (1, 1, (200, 0)),
        (1, 2, (200, 1)),
        (2, 1, (100, 2)),
        (2, 2, (100, 3)),
    ]
    assert bench.ledgers.bodies() == ["0/1", "0/2", "1/1", "1/2", "2/1", "2/2"]


async def test_every_topic_touched_by_a_commit_wakes_once_after_all_receipts(bench: Bench) -> None:
    one, two = bench.topic(), bench.topic()
    seen: list[int] = []
    one.wake = lambda: seen.append(len(bench.receipts.rows))
    bench.producer(one)
    bench.producer(two)
    for sequence_id in range(3):
        bench.send((0, sequence_id), (1, sequence_id))
    bench.ledgers.commit()
    assert seen == [6]
    assert bench.woken == [two]


async def test_the_log_learns_its_new_end_before_the_receipts_go_out(bench: Bench) -> None:
    log = ScriptedLog()
    bench.producer(bench.topic(log))
    bench.send((0, 1), (0, 2))
    ends: list[tuple[int, int] | None] = []
    bench.publisher.publish(
        make_run([(0, 3)]), bench.producers, lambda _run, _groups: ends.append(log.end)
    )
    bench.ledgers.commit()
    assert ends == [(100, 3)]


async def test_a_door_that_fails_does_not_keep_others_from_their_receipts(bench: Bench) -> None:
    def broken(_run: object, _groups: object) -> None:
        raise RuntimeError("a bug in a door")

    producer = bench.producer(bench.topic())
    bench.publisher.publish(make_run([(0, 1)]), bench.producers, broken)
    bench.send((0, 2))
    bench.ledgers.commit()
    assert bench.receipts.rows == [(0, 2, (100, 1))]
    assert producer.pending == 0


# --- refusals


async def test_a_terminated_topic_refuses_and_stores_nothing(bench: Bench) -> None:
    inlet = bench.topic()
    bench.producer(inlet)
    inlet.refusal = TopicTerminatedError("terminated")
    bench.send((0, 1))
    await soon()
    assert bench.receipts.rows == [(0, 1, inlet.refusal)]
    assert not bench.ledgers.pending


async def test_a_refusal_is_reported_behind_what_was_sent_before(bench: Bench) -> None:
    inlet = bench.topic()
    bench.producer(inlet)
    bench.send((0, 1))
    inlet.refusal = TopicTerminatedError("terminated")
    bench.send((0, 2))
    await soon()
    assert bench.receipts.rows == []
    bench.ledgers.commit()
    assert [row[1] for row in bench.receipts.rows] == [1, 2]


async def test_what_is_sent_after_a_refusal_is_refused_too_even_if_the_reason_is_gone(
    bench: Bench,
) -> None:
    inlet = bench.topic()
    producer = bench.producer(inlet)
    inlet.refusal = QuotaExceededError("full", hold=True)
    bench.send((0, 1))
    inlet.refusal = None
    bench.send((0, 2))
    await soon()
    assert [isinstance(row[2], QuotaExceededError) for row in bench.receipts.rows] == [True, True]
    assert bench.doors[0].reasons == [producer.refusal]


async def test_one_refused_producer_does_not_keep_the_others_from_storing(bench: Bench) -> None:
    closed, fine = bench.topic(), bench.topic(ScriptedLog(200))
    bench.producer(closed).end(ProducerBusyError("replaced"))
    bench.producer(fine)
    bench.send((0, 1), (1, 1), (0, 2))
    bench.ledgers.commit()
    rows = {(slot, sequence_id): result for slot, sequence_id, result in bench.receipts.rows}
    assert rows[1, 1] == (200, 0)
    assert isinstance(rows[0, 1], ProducerBusyError)
    assert isinstance(rows[0, 2], ProducerBusyError)


async def test_a_producer_that_waits_for_exclusive_access_may_not_send(bench: Bench) -> None:
    bench.producer(bench.topic()).ready = False
    bench.send((0, 1))
    await soon()
    assert isinstance(bench.receipts.rows[0][2], PortError)
    assert not bench.ledgers.pending


async def test_a_full_disk_refuses_persistent_topics_only(bench: Bench) -> None:
    bench.producer(bench.topic())
    handed_out: list[Run] = []
    bench.producer(Inlet(log=None, wake=lambda: None, offer=handed_out.append))
    bench.publisher.refusal = PersistenceError("disk full")
    bench.send((0, 1), (1, 1))
    await soon()
    assert isinstance(bench.receipts.rows[0][2], PersistenceError)
    assert bench.receipts.rows[1] == (1, 1, (-1, -1))
    assert len(handed_out) == 1


# --- what is counted


def counted(inlet: Inlet, producer: OpenProducer) -> list[int]:
    assert (producer.messages_in, producer.bytes_in) == (inlet.messages_in, inlet.bytes_in)
    sizes = 0 if inlet.tally is None else sum(inlet.tally.counts[SIZES_FROM:])
    return [inlet.entries_in, inlet.messages_in, inlet.bytes_in, sizes]


async def test_what_is_refused_was_not_received(bench: Bench) -> None:
    inlet = bench.topic()
    producer = bench.producer(inlet)
    bench.send((0, 1), (0, 2))
    bench.ledgers.commit()
    before = counted(inlet, producer)
    assert before == [2, 2, 6, 2]
    bench.publisher.refusal = PersistenceError("disk full")
    bench.send((0, 3))
    await soon()
    assert counted(inlet, producer) == before


@pytest.mark.parametrize("others", [[], [(1, 7), (1, 8)], [(1, 7)]])
async def test_what_could_not_be_made_durable_is_counted_as_refused(
    bench: Bench, others: list[tuple[int, int]]
) -> None:
    inlet, other = bench.topic(), bench.topic(ScriptedLog(200))
    producer, neighbour = bench.producer(inlet), bench.producer(other)
    bench.send((0, 1), (0, 2), *others)
    bench.ledgers.fail(OSError("no room"))
    assert counted(inlet, producer) == [0, 0, 0, 0]
    assert counted(other, neighbour) == [0, 0, 0, 0]
    assert bench.publisher.refused == 2 + len(others)
    assert bench.publisher._entries.value == bench.publisher._bytes.value == 0


async def test_how_long_entries_took_is_counted_per_topic_once_they_are_durable(
    bench: Bench,
) -> None:
    one, two, idle = bench.topic(), bench.topic(ScriptedLog(200)), bench.topic(ScriptedLog(300))
    for inlet in (one, two, idle):
        bench.producer(inlet)
    bench.send((0, 1), (0, 2), (1, 1))
    bench.clock.advance(0.004)
    bench.ledgers.commit()
    bench.send((0, 3))
    bench.clock.advance(7)
    bench.ledgers.fail(OSError("no room"))
    assert one.tally is not None
    assert two.tally is not None
    assert one.tally.counts[:SIZES_FROM] == [0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 8000]
    assert two.tally.counts[:SIZES_FROM] == [0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 4000]
    assert idle.tally is None


# --- deduplication


async def test_a_duplicate_is_confirmed_and_not_stored(bench: Bench) -> None:
    bench.producer(bench.topic(deduplication=True))
    bench.send((0, 1), (0, 2))
    bench.ledgers.commit()
    bench.send((0, 1), (0, 2), (0, 3))
    bench.ledgers.commit()
    assert bench.receipts.rows[2:] == [(0, 1, (-1, -1)), (0, 2, (-1, -1)), (0, 3, (100, 2))]
    assert bench.ledgers.bodies() == ["0/1", "0/2", "0/3"]


async def test_without_deduplication_the_same_sequence_id_is_stored_twice(bench: Bench) -> None:
    bench.producer(bench.topic())
    bench.send((0, 1))
    bench.send((0, 1))
    bench.ledgers.commit()
    assert bench.ledgers.bodies() == ["0/1", "0/1"]


async def test_a_duplicate_of_something_on_its_way_waits_for_it(bench: Bench) -> None:
    bench.producer(bench.topic(deduplication=True))
    bench.send((0, 1))
    bench.send((0, 1))
    await soon()
    assert bench.receipts.rows == []
    bench.ledgers.commit()
    assert bench.receipts.rows == [(0, 1, (100, 0)), (0, 1, (-1, -1))]


async def test_a_duplicate_of_something_that_failed_is_refused_not_confirmed(bench: Bench) -> None:
    bench.producer(bench.topic(deduplication=True))
    bench.send((0, 1))
    bench.send((0, 1))
    bench.ledgers.fail(OSError("EIO"))
    assert [type(row[2]) for row in bench.receipts.rows] == [PersistenceError, PersistenceError]


async def test_after_a_failed_write_the_resent_entry_is_new(bench: Bench) -> None:
    inlet = bench.topic(deduplication=True)
    first = bench.producer(inlet)
    bench.send((0, 1))
    bench.ledgers.fail(OSError("EIO"))
    again = bench.producer(inlet)
    again.name = first.name
    assert isinstance(inlet.log, ScriptedLog)
    await inlet.log.open()
    bench.send((1, 1))
    bench.ledgers.commit()
    assert bench.receipts.rows[-1] == (1, 1, (101, 0))


async def test_duplicates_in_the_middle_of_a_run_leave_no_hole_in_the_log(bench: Bench) -> None:
    bench.producer(bench.topic(deduplication=True))
    bench.send((0, 1), (0, 1), (0, 2))
    bench.ledgers.commit()
    assert bench.receipts.rows == [(0, 1, (100, 0)), (0, 1, (-1, -1)), (0, 2, (100, 1))]
    [record] = bench.ledgers.durable
    assert list(record.indexes.values()) == [0, 1]


async def test_the_journal_names_the_producer_only_where_a_message_is_complete(
    bench: Bench,
) -> None:
    bench.producer(bench.topic(deduplication=True))
    bench.send((0, 1), flags=EntryFlags.CHUNK)
    bench.send((0, 1), flags=EntryFlags.CHUNK | EntryFlags.LAST_CHUNK)
    assert [record.parts[0].producer for record in bench.ledgers.pending] == ["", "p0"]


# --- failures


async def test_a_failed_commit_refuses_every_entry_in_it(bench: Bench) -> None:
    bench.producer(bench.topic())
    bench.send((0, 1))
    bench.send((0, 2))
    bench.ledgers.fail(OSError("EIO"))
    assert [type(row[2]) for row in bench.receipts.rows] == [PersistenceError, PersistenceError]


async def test_a_producer_whose_write_failed_has_to_come_again(bench: Bench) -> None:
    inlet = bench.topic()
    bench.producer(inlet)
    bench.producer(inlet)
    bench.send((0, 1))
    bench.ledgers.fail(OSError("EIO"))
    assert isinstance(inlet.log, ScriptedLog)
    await inlet.log.open()
    bench.send((0, 2), (1, 1))
    bench.ledgers.commit()
    await soon()
    results = {(slot, number): result for slot, number, result in bench.receipts.rows}
    assert isinstance(results[0, 2], PersistenceError)
    assert results[1, 1] == (101, 0)
    assert len(bench.doors[0].reasons) == 1
    assert bench.doors[1].reasons == []


# --- topics without an open ledger


async def test_the_first_entries_of_a_topic_wait_for_its_ledger_in_order(bench: Bench) -> None:
    log = ScriptedLog(ready=False)
    log.may_open.clear()
    bench.producer(bench.topic(log))
    bench.send((0, 1), (0, 2))
    bench.send((0, 3))
    await soon()
    assert not bench.ledgers.pending
    log.may_open.set()
    await soon()
    bench.send((0, 4))
    bench.ledgers.commit()
    assert [row[1] for row in bench.receipts.rows] == [1, 2, 3, 4]
    assert bench.ledgers.bodies() == ["0/1", "0/2", "0/3", "0/4"]
    assert log.opened == 1


async def test_a_held_topic_does_not_hold_its_neighbours_in_the_same_run(bench: Bench) -> None:
    log = ScriptedLog(ready=False)
    log.may_open.clear()
    bench.producer(bench.topic(log))
    bench.producer(bench.topic(ScriptedLog(200)))
    bench.send((0, 1), (1, 1))
    bench.ledgers.commit()
    assert bench.receipts.rows == [(1, 1, (200, 0))]
    log.may_open.set()
    await soon()
    bench.ledgers.commit()
    assert bench.receipts.rows[1] == (0, 1, (101, 0))


async def test_a_full_ledger_is_followed_by_the_next_one(bench: Bench) -> None:
    log = ScriptedLog(entries_max=2)
    bench.producer(bench.topic(log))
    for sequence_id in range(5):
        bench.send((0, sequence_id))
        await soon()
    bench.ledgers.commit()
    assert [row[2] for row in bench.receipts.rows] == [
        (100, 0),
        (100, 1),
        (101, 0),
        (101, 1),
        (102, 0),
    ]


async def test_held_entries_are_judged_for_duplicates_when_they_are_appended(bench: Bench) -> None:
    log = ScriptedLog(ready=False)
    log.may_open.clear()
    bench.producer(bench.topic(log, deduplication=True))
    bench.send((0, 1))
    bench.send((0, 1))
    log.may_open.set()
    await soon()
    bench.ledgers.commit()
    assert bench.receipts.rows == [(0, 1, (101, 0)), (0, 1, (-1, -1))]


async def test_if_no_ledger_can_be_opened_the_held_entries_are_refused(bench: Bench) -> None:
    log = ScriptedLog(ready=False)
    log.open_error = PersistenceError("metadata is full")
    bench.producer(bench.topic(log))
    bench.send((0, 1))
    bench.send((0, 2))
    await soon()
    assert [type(row[2]) for row in bench.receipts.rows] == [PersistenceError, PersistenceError]
    assert len(bench.doors[0].reasons) == 1


async def test_doors_stop_reading_when_too_much_is_held_and_go_on_later() -> None:
    bench = Bench(held_bytes_max=200)
    log = ScriptedLog(ready=False)
    log.may_open.clear()
    bench.producer(bench.topic(log))
    assert bench.send((0, 1))
    assert not bench.send((0, 2), (0, 3))
    called: list[bool] = []
    bench.publisher.call_when_clear(lambda: called.append(True))
    log.may_open.set()
    await soon()
    for callback in bench.ledgers.waiting:
        callback()
    assert called == [True]
    assert bench.send((0, 4))


async def test_a_producer_closes_once_everything_it_sent_is_reported(bench: Bench) -> None:
    producer = bench.producer(bench.topic())
    bench.send((0, 1))
    closing = asyncio.ensure_future(producer.close())
    await soon()
    assert not closing.done()
    bench.ledgers.commit()
    await asyncio.wait_for(closing, 30)
    assert bench.receipts.rows == [(0, 1, (100, 0))]


async def test_what_was_held_when_its_producer_closed_is_stored_all_the_same(bench: Bench) -> None:
    log = ScriptedLog(ready=False)
    log.may_open.clear()
    producer = bench.producer(bench.topic(log))
    bench.send((0, 1))
    closing = asyncio.ensure_future(producer.close())
    await soon()
    log.may_open.set()
    await soon()
    bench.ledgers.commit()
    await asyncio.wait_for(closing, 30)
    assert bench.receipts.rows == [(0, 1, (101, 0))]


async def test_a_closed_producer_may_not_send(bench: Bench) -> None:
    producer = bench.producer(bench.topic())
    await producer.close()
    bench.send((0, 1))
    await soon()
    assert isinstance(bench.receipts.rows[0][2], PortError)


# --- topics that keep nothing


async def test_a_topic_that_keeps_nothing_confirms_at_once_and_hands_out(bench: Bench) -> None:
    handed_out: list[list[bytes]] = []

    def offer(run: Run) -> None:
        handed_out.append([bytes(run.body(row)) for row in range(run.count)])

    bench.producer(Inlet(log=None, wake=lambda: None, offer=offer))
    bench.send((0, 1), (0, 2))
    await soon()
    assert handed_out == [[b"0/1", b"0/2"]]
    assert bench.receipts.rows == [(0, 1, (-1, -1)), (0, 2, (-1, -1))]


# --- everything at once

ROWS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), min_size=1, max_size=25)
STEPS = st.lists(
    st.one_of(
        ROWS,
        st.sampled_from(["commit", "fail", "hold", "open", "refuse", "allow"]),
    ),
    max_size=25,
)


class Storm:
    """Six producers on three topics: a plain one, one that deduplicates, one that may refuse."""

    def __init__(self) -> None:
        self.bench = Bench(held_bytes_max=1 << 30)
        self.topics = [
            self.bench.topic(ScriptedLog(100, entries_max=7)),
            self.bench.topic(ScriptedLog(200, entries_max=7), deduplication=True),
            self.bench.topic(ScriptedLog(300, entries_max=7)),
        ]
        self.producers = [self.bench.producer(self.topics[slot % 3]) for slot in range(6)]
        self.logs = [topic.log for topic in self.topics if isinstance(topic.log, ScriptedLog)]
        self.sent: dict[int, list[int]] = {slot: [] for slot in range(6)}

    def send(self, rows: list[tuple[int, int]]) -> None:
        self.bench.send(*rows)
        for slot, number in rows:
            self.sent[slot].append(number)

    def fail(self) -> None:
        ledgers = self.bench.ledgers
        lost = {part.ledger for record in ledgers.pending for part in record.parts}
        for log in self.logs:
            log.ready = log.ready and log.ledger not in lost  # as a failed sync seals them
        ledgers.fail(OSError("EIO"))

    async def do(self, step: str) -> None:
        match step:
            case "commit":
                self.bench.ledgers.commit()
            case "fail":
                self.fail()
            case "hold":
                self.logs[0].may_open.clear()
            case "open":
                self.logs[0].may_open.set()
                await soon()
            case _:
                over = TopicTerminatedError("over")
                self.topics[2].refusal = over if step == "refuse" else None

    async def calm_down(self) -> None:
        self.logs[0].may_open.set()
        await soon()
        while self.bench.ledgers.pending:
            self.bench.ledgers.commit()
            await soon()

    def told(self) -> dict[int, list[int]]:
        """What was reported of each producer, in order."""
        found: dict[int, list[int]] = {slot: [] for slot in range(6)}
        for slot, number, _ in self.bench.receipts.rows:
            found[slot].append(number)
        return found

    def confirmed(self) -> dict[tuple[int, int], str]:
        """Where receipts say that entries lie, and what they are."""
        rows = self.bench.receipts.rows
        places = [
            (result, f"{slot}/{number}")
            for slot, number, result in rows
            if not isinstance(result, PortError) and result != (-1, -1)
        ]
        assert len(dict(places)) == len(places), "two entries at one place"
        return dict(places)


@given(STEPS)
async def test_whatever_happens_every_row_is_accounted_for_once_and_in_order(
    steps: list[list[tuple[int, int]] | str],
) -> None:
    storm = Storm()
    for step in steps:
        if isinstance(step, str):
            await storm.do(step)
        else:
            storm.send(step)
    await storm.calm_down()
    assert storm.told() == storm.sent
    assert all(producer.pending == 0 for producer in storm.producers)
    confirmed = storm.confirmed()
    durable = [
        (place, body.decode())
        for record in storm.bench.ledgers.durable
        for place, body in record.bodies.items()
    ]
    assert dict(durable) == confirmed
    entries: dict[int, list[int]] = {}
    for ledger, entry in sorted(confirmed):
        entries.setdefault(ledger, []).append(entry)
    assert all(each == list(range(len(each))) for each in entries.values())
    for slot in (1, 4):
        numbers = [
            int(body.split("/")[1])
            for _, body in sorted(confirmed.items())
            if body.startswith(f"{slot}/")
        ]
        assert numbers == sorted(set(numbers)), "deduplication stores each number once, rising"
