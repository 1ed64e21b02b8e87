"""The way of a run from a door into the log, and of the news that it is durable back.

    run of one socket read                      one journal record
    ┌──┬──┬──┬──┬──┬──┐   by producer slot   ┌───────┬─────┬─────┐
    │ a│ b│ a│ c│ a│ b│ ───────────────────▶ │ a a a │ b b │  c  │ ──▶ Ledgers.append, once
    └──┴──┴──┴──┴──┴──┘       (stable)       └───────┴─────┴─────┘
                                               │ refused, duplicate: no part of the record
                                               │ no ledger open:     copied, held, appended later

    one commit ──▶ every log learns its new end ──▶ receipts, back to back ──▶ subscriptions wake

The receipts of a run are made up before the run is appended, as if all went well: a commit
then only hands them over. What is decided without the disk (a refusal, a duplicate) is
reported behind whatever is still on its way, because the journal confirms in the order of
appending, and the groups of a producer must be reported in the order in which it sent them.
No object per entry anywhere; a handful per run.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol, cast

from magnetar.broker.clock import Clock
from magnetar.broker.metrics import Metrics
from magnetar.broker.port import (
    Group,
    NotAllowedError,
    PersistenceError,
    PortError,
    Producer,
    PublishDone,
    ServiceNotReadyError,
    TopicTerminatedError,
)
from magnetar.broker.run import FLAGS, LENGTH, Run
from magnetar.broker.storage.record import Part
from magnetar.broker.topics.limits.gate import Gate
from magnetar.broker.topics.producers.deduplication import NO_SEQUENCE, Judgement, Sequences
from magnetar.broker.topics.producers.holding import Holding
from magnetar.broker.topics.producers.measuring import CHUNK, Place, Taken
from magnetar.broker.topics.producers.pacing import pace
from magnetar.broker.topics.producers.positions import gathered, stamp, stamped
from magnetar.broker.topics.producers.producer import (
    NOT_STORED,
    AppendLog,
    Inlet,
    OpenProducer,
)
from magnetar.broker.topics.producers.reports import Awaited, Report
from magnetar.broker.topics.producers.rows import Rows, number_rows, transactions_of
from magnetar.broker.topics.producers.tally import Tally, latency_bucket

logger = logging.getLogger(__name__)

_new = tuple.__new__


class Appender(Protocol):
    """What publishing needs of the ledgers of this process."""

    @property
    def congested(self) -> bool: ...
    def append(self, run: Run, parts: Sequence[Part], token: object) -> None: ...
    def call_when_clear(self, callback: Callable[[], None]) -> None: ...


class Publisher:
    """Takes the runs of all doors of this process."""

    def __init__(
        self,
        ledgers: Appender,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        metrics: Metrics,
        *,
        held_bytes_max: int,
    ) -> None:
        self._ledgers = ledgers
        self._clock = clock
        self._loop = loop
        self._holding = Holding(self, ledgers, loop, held_bytes_max)
        self._last: Report | None = None
        self._soon: list[Report] = []
        self.refusal: PortError | None = None
        """Why nothing at all may be stored at the moment, such as a disk nearly full."""
        self.on_failure: Callable[[str], None] = _ignore
        """Called when something could not be stored, with the reason."""
        self._runs = metrics.counter("magnetar_publish_runs_total", "Runs taken from doors.")
        self._entries = metrics.counter("magnetar_publish_entries_total", "Entries taken.")
        self._bytes = metrics.counter("magnetar_publish_bytes_total", "Bytes of bodies taken.")
        self._refused = metrics.counter("magnetar_publish_refused_total", "Entries refused.")
        self._duplicates = metrics.counter(
            "magnetar_publish_duplicates_total", "Entries not stored because they were before."
        )
        self._durable = metrics.latencies(
            "magnetar_publish_durable_seconds", "From taking an entry until it was durable."
        )
        text = "From taking an entry until it was durable, ms."
        metrics.summary("bookie_journal_JOURNAL_ADD_ENTRY", text, self._durable, 'success="true"')
        metrics.gauge(
            "magnetar_publish_held_bytes",
            "Bytes of entries that wait for a ledger to be opened.",
            lambda: self._holding.bytes,
        )

    # --- from the doors -----------------------------------------------------------------

    @property
    def refused(self) -> int:
        """How many entries were refused since the start."""
        return self._refused.value

    def publish(self, run: Run, producers: Sequence[Producer | None], done: PublishDone) -> bool:
        """Store a run, as `port.Port.publish` says."""
        if not run.count:
            return True
        moved, groups = gathered(run.rows)
        if moved is not None:
            run = Run(moved, run.buffer, run.base, run.transactions)
        report = Report(run, done)
        now_ms, now_s = self._clock.wall_ms(), self._clock.monotonic()
        plain = run.transactions is None and self.refusal is None
        places: list[Place] = []
        for taken in groups:
            slot, first_row, count = taken[:3]
            producer = _opened(producers, slot)
            if plain and _is_plain(producer):
                place = self._store_plain(report, producer, taken, now_ms, now_s)
                if place is not None:
                    places.append(place)
                    continue
            rows = run if count == run.count else run.slice(first_row, count)
            self._take(report, Rows(producer, slot, first_row, rows))
        if places:
            stamp(run.rows, places, now_ms)
        self._runs.value += 1
        self.send_off(report)
        return not self.congested

    @property
    def congested(self) -> bool:
        """Whether doors should stop reading until `call_when_clear` calls."""
        return self._ledgers.congested or self._holding.bytes > self._holding.bytes_max

    def call_when_clear(self, callback: Callable[[], None]) -> None:
        """Call once, soon, when publishing may go on."""
        if self._holding.bytes > self._holding.bytes_max:
            self._holding.when_clear.append(callback)
        else:
            self._ledgers.call_when_clear(callback)

    def _store_plain(
        self, report: Report, producer: OpenProducer, taken: Taken, now_ms: int, now_s: float
    ) -> Place | None:
        """Store rows that are simply appended, and say where; None: no ledger is open.

        Producers that do not batch, over many topics, make of each row a group: so this does
        at once what `_store` does for the others.
        """
        inlet = producer.inlet
        log, tally = inlet.log, inlet.tally
        assert log is not None
        slot, first_row, count, messages, size_bytes, first_ms, last_ms, chunks, low, high = taken
        place = log.take(count, messages, size_bytes, first_ms, last_ms, now_s)
        if place is None:
            return None
        ledger, entry, index = place
        if tally is None:
            tally = inlet.tally = Tally()
        if not tally.alike(count, low, high):
            tally.sizes(report.run.u32(LENGTH)[first_row : first_row + count].tolist())
        groups = report.groups
        report.stored.append(len(groups))
        # As `Part(...)` and `Group(...)`: a call of their own each would cost more than the tuple.
        report.parts.append(_new(Part, (ledger, entry, first_row, count, "")))
        groups.append(_new(Group, (slot, first_row, count, ledger, entry, None)))
        report.counted.append(producer)
        producer.pending += 1
        producer.messages_in += messages
        producer.bytes_in += size_bytes
        inlet.entries_in += count
        inlet.messages_in += messages
        inlet.bytes_in += size_bytes
        inlet.last_publish_ms = now_ms
        if chunks:
            producer.chunks_in += chunks
            inlet.chunks_in += chunks
        self._entries.value += count
        self._bytes.value += size_bytes
        return first_row, count, index

    # --- one group ----------------------------------------------------------------------

    def _take(self, report: Report, rows: Rows) -> None:
        """Decide about the rows of one producer."""
        producer = rows.producer
        inlet = producer.inlet
        if inlet.held and not producer.closed:
            # Also what will be refused: it is reported behind what its producer sent before.
            self._holding.hold(rows, report.done)
            return
        refusal = self.refusal_for(producer)
        if producer.closed and refusal is None:
            refusal = ServiceNotReadyError(f"producer {producer.name!r} is closed")
        log = inlet.log
        if refusal is not None:
            self.refuse(report, rows, refusal)
        elif log is None:
            self._hand_out(report, rows)
        elif (
            log.ready
            and not inlet.held
            and (rows.run.transactions is None or number_rows(rows.run, inlet.transactions))
        ):
            self.admit(report, rows, log)
        else:
            self._holding.hold(rows, report.done)

    def refusal_for(self, producer: OpenProducer) -> PortError | None:
        """Return why nothing of a producer may be stored now; None: it may."""
        if producer.refusal is not None:
            return producer.refusal
        if not producer.ready:
            return NotAllowedError(
                f"producer {producer.name!r} waits for exclusive access and may not send yet"
            )
        if producer.inlet.refusal is not None:
            return producer.inlet.refusal
        return None if producer.inlet.log is None else self.refusal

    def refuse(self, report: Report, rows: Rows, error: PortError) -> None:
        """Refuse rows, and what their producer sends after them."""
        producer, slot, first_row, run = rows
        self._refused.value += run.count
        report.groups.append(Group(slot, first_row, run.count, NOT_STORED, NOT_STORED, error))
        self._count(report, producer)
        if producer.refusal is None and not isinstance(
            error, TopicTerminatedError | NotAllowedError
        ):
            # What it sends next must not overtake what was refused: its client has to come again.
            producer.refusal = error
            self._loop.call_soon(producer.end, error)

    def _hand_out(self, report: Report, rows: Rows) -> None:
        """Pass rows of a topic that keeps nothing straight to its subscriptions."""
        gate = rows.producer.inlet.gate
        if gate is None:
            self._hand_out_all(report, rows)
            return
        for piece in self._through(gate, report, rows):
            self._hand_out_all(report, piece)

    def _hand_out_all(self, report: Report, rows: Rows) -> None:
        producer, slot, first_row, run = rows
        inlet = producer.inlet
        if run.transactions is not None and transactions_of(run):
            error = NotAllowedError("a topic that keeps nothing takes part in no transaction")
            self.refuse(report, rows, error)
            return
        now_ms = self._clock.wall_ms()
        self._count_in(stamped(run.rows, inlet.messages_in, now_ms), producer, now_ms)
        if inlet.offer is not None:
            inlet.offer(run)
        report.groups.append(Group(slot, first_row, run.count, NOT_STORED, NOT_STORED))
        self._count(report, producer)

    def admit(self, report: Report, rows: Rows, log: AppendLog) -> None:
        """Give rows their entry ids, apart from those that are stored already."""
        inlet = rows.producer.inlet
        if inlet.sequences is None and inlet.gate is None:
            log.wrote(*self._store(report, rows, log, NO_SEQUENCE))
            return
        written: list[tuple[int, int, int, int]] = []
        pieces = [rows] if inlet.gate is None else self._through(inlet.gate, report, rows)
        for piece in pieces:
            if inlet.sequences is None:
                written.append(self._store(report, piece, log, NO_SEQUENCE))
            else:
                self._store_new(report, piece, log, inlet.sequences, written)
        if written:
            # Told once, at the end: it may close the ledger, and these rows are judged already.
            counts, sizes, first_ms, last_ms = zip(*written, strict=True)
            log.wrote(sum(counts), sum(sizes), min(first_ms), max(last_ms))

    def _through(self, gate: Gate, report: Report, rows: Rows) -> Iterator[Rows]:
        """Yield the rows that may pass the gate of a topic; refuse the others, in their turn."""
        producer, slot, first_row, run = rows
        for first, count, error in gate.judged(run, self._clock.wall_ms()):
            whole = count == run.count
            piece = (
                rows if whole else Rows(producer, slot, first_row + first, run.slice(first, count))
            )
            if error is not None:
                self.refuse(report, piece, error)
            else:
                yield piece

    def _store_new(
        self,
        report: Report,
        rows: Rows,
        log: AppendLog,
        sequences: Sequences,
        written: list[tuple[int, int, int, int]],
    ) -> None:
        """Store the rows that are not stored already."""
        producer, slot, first_row, run = rows
        for judgement, first, count, highest in sequences.judge(producer.name, run):
            if judgement is Judgement.NEW:
                piece = run if count == run.count else run.slice(first, count)
                new = Rows(producer, slot, first_row + first, piece)
                written.append(self._store(report, new, log, highest))
                continue
            self._duplicates.value += count
            if judgement is Judgement.WAITING:
                if report.awaited is None:
                    report.awaited = []
                report.awaited.append(
                    Awaited(len(report.groups), sequences, producer.name, highest)
                )
            report.groups.append(Group(slot, first_row + first, count, NOT_STORED, NOT_STORED))
            self._count(report, producer)

    def _store(
        self, report: Report, rows: Rows, log: AppendLog, highest: int
    ) -> tuple[int, int, int, int]:
        """Add rows to the record; return what the log is to be told about them."""
        producer, slot, first_row, run = rows
        now_ms = self._clock.wall_ms()
        count = run.count
        taken = stamped(run.rows, log.next_index, now_ms)
        log.next_index += taken.messages
        tally = producer.inlet.tally
        if tally is None:
            tally = producer.inlet.tally = Tally()
        if not tally.alike(count, taken.smallest, taken.largest):
            tally.sizes(run.u32(LENGTH).tolist())
        ledger, entry = log.reserve(count)
        if run.transactions is not None and producer.inlet.transactions is not None:
            producer.inlet.transactions.stored(run, ledger, entry)
        self._count_in(taken, producer, now_ms)
        # The journal names the producer only where reading it back may raise its sequence id.
        name = "" if highest == NO_SEQUENCE else producer.name
        report.parts.append(Part(ledger, entry, first_row, count, name))
        report.stored.append(len(report.groups))
        if highest != NO_SEQUENCE:
            if report.highest is None:
                report.highest = {}
            report.highest[len(report.groups)] = highest
        report.groups.append(Group(slot, first_row, count, ledger, entry))
        self._count(report, producer)
        return count, taken.size_bytes, taken.publish_first_ms, taken.publish_last_ms

    def _count_in(self, taken: Taken, producer: OpenProducer, now_ms: int) -> None:
        _, _, entries, messages, size_bytes, _, _, chunks, _, _ = taken
        inlet = producer.inlet
        inlet.count(entries, messages, size_bytes, now_ms)
        producer.messages_in += messages
        producer.bytes_in += size_bytes
        if chunks:
            producer.chunks_in += chunks
            inlet.chunks_in += chunks
        if inlet.gate is not None and inlet.gate.meters is not None:
            pace(inlet.gate.meters, producer, messages, size_bytes)
        self._entries.value += entries
        self._bytes.value += size_bytes

    def _count(self, report: Report, producer: OpenProducer) -> None:
        producer.pending += 1
        report.counted.append(producer)

    def send_off(self, report: Report) -> None:
        """Append what there is to append; report the rest behind what is on its way."""
        if report.parts:
            report.began_s = self._clock.monotonic()
            self._last = report
            self._ledgers.append(report.run, report.parts, report)
        elif report.groups:
            last = self._last
            if last is not None:
                if last.behind is None:
                    last.behind = []
                last.behind.append(report)
                return
            if not self._soon:
                self._loop.call_soon(self._send_soon)
            self._soon.append(report)

    def _send_soon(self) -> None:
        reports, self._soon = self._soon, []
        for report in reports:
            report.send()

    # --- from the journal ---------------------------------------------------------------

    def committed(self, tokens: Sequence[object], error: Exception | None) -> None:
        """Take the news of one commit: these tokens are durable, or with `error` none of them is.

        Tokens that are not runs are functions, called with the error.
        """
        touched: dict[Inlet, int] = {}
        reports: list[Report] = []
        if error is not None:
            self.on_failure(str(error))
        for token in tokens:
            if isinstance(token, Report):
                reports.append(token)
                self._settle(token, touched, error)
            elif callable(token):
                token(error)
        if reports and reports[-1] is self._last:
            self._last = None
        self._send_soon()  # decided before any of these was appended
        for report in reports:
            report.send()
        for inlet in touched:
            inlet.wake()
        if reports and error is None:
            # What shared a commit differs by less than what it took: the middle is told of all.
            began_s = (reports[0].began_s + reports[-1].began_s) / 2
            took_s = self._clock.monotonic() - began_s
            _count_latency(touched, took_s)
            self._durable.record(took_s, sum(touched.values()))

    def _settle(self, report: Report, touched: dict[Inlet, int], error: Exception | None) -> None:
        groups, producers, highest = report.groups, report.counted, report.highest
        if error is None and highest is None and len(report.stored) == len(groups):
            # All is well, and nobody looks for duplicates: with many topics a group is one row.
            for producer, (_, _, count, ledger, first_entry, _) in zip(
                producers, groups, strict=True
            ):
                inlet = producer.inlet
                touched[inlet] = touched.get(inlet, 0) + count
                if inlet.log is not None:
                    inlet.log.committed(ledger, first_entry + count)
            return
        for number in report.stored:
            producer = producers[number]
            inlet = producer.inlet
            _, _, count, ledger, first_entry, _ = groups[number]
            touched[inlet] = touched.get(inlet, 0) + count
            if error is not None:
                self._lose(report, number, error)
                continue
            if inlet.log is not None:
                inlet.log.committed(ledger, first_entry + count)
            if highest is not None and number in highest and inlet.sequences is not None:
                inlet.sequences.stored(producer.name, highest[number])

    def _lose(self, report: Report, number: int, cause: Exception) -> None:
        """Refuse a group that did not become durable, and what its producer sends after it.

        Whatever was appended behind it fails in the same commit, so that its entry ids can be
        given out again, by the same ledger or the next.
        """
        producer = report.counted[number]
        inlet = producer.inlet
        error = PersistenceError(f"the entry could not be made durable: {cause}")
        self._take_back(report, number)
        report.fail(number, error)
        if inlet.sequences is not None:
            inlet.sequences.failed(producer.name)
        if producer.refusal is None:
            producer.refusal = error
            self._loop.call_soon(producer.end, error)

    def _take_back(self, report: Report, number: int) -> None:
        """Count what was thought stored as refused, not as received."""
        group, producer = report.groups[number], report.counted[number]
        lost = report.run.slice(group.first_row, group.count)
        sizes = lost.u32(LENGTH).tolist()
        producer.take_back(
            group.count,
            lost.message_count(),
            sum(sizes),
            sum(1 for flag in lost.u32(FLAGS) if flag & CHUNK),
        )
        if producer.inlet.tally is not None:
            producer.inlet.tally.take_back(sizes)
        self._entries.value -= group.count
        self._bytes.value -= sum(sizes)
        self._refused.value += group.count


def _count_latency(entries: Mapping[Inlet, int], took_s: float) -> None:
    """Count entries per topic that took so long to be durable."""
    bucket, took_us = latency_bucket(took_s), round(took_s * 1e6)
    for inlet, count in entries.items():
        tally = inlet.tally
        if tally is not None:
            tally.wrote(count, took_us, bucket)


def _ignore(reason: str) -> None:
    """Stand in for `on_failure` until somebody listens."""


def _is_plain(producer: OpenProducer) -> bool:
    """Return whether rows of a producer are simply appended: nothing to refuse or look up."""
    inlet = producer.inlet
    return (
        producer.refusal is None
        and producer.ready
        and not producer.closed
        and inlet.refusal is None
        and inlet.sequences is None
        and inlet.gate is None
        and inlet.log is not None
        and not inlet.held
    )


def _opened(producers: Sequence[Producer | None], slot: int) -> OpenProducer:
    producer = producers[slot]
    if producer is None:
        raise ValueError(f"no producer in slot {slot}")  # the door's mistake, not the client's
    # What comes back through the port went out through it.
    return cast("OpenProducer", producer)
