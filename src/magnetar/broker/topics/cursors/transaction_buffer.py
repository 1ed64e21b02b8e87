"""The transactions that a topic has entries of: which entries may be read, and how far.

    log        a  b  T1 c  T2 T1 d  T2 e        T1 aborted, T2 open
                           ▲
                         stable: subscriptions read up to here; T1's entries are passed over

    SEND in a transaction ──unknown?──▶ join: a number, written down ──▶ appended like any entry
    decided ──▶ end ──committed──▶ forgotten: entries of unknown numbers may be read
                  └──aborted────▶ kept: where its entries lie, until they are trimmed

An entry's row holds the number that its transaction has in this topic, so that neither bodies
nor the journal need to be searched. Everything stays in the order of positions: what was
published behind the first entry of an open transaction waits for it, transactional or not, as
in Apache Pulsar, and as Kafka's last stable offset. There are no marker entries: a decision is
a fact in the metadata (see `metadata.transactions`), and no subscription has to step over it.

A topic without transactions has none of this, and its subscriptions read its log itself.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

from magnetar.broker.entry import EARLIEST, EntryFlags, EntryId, TransactionId
from magnetar.broker.metadata.transactions import BufferRecord, State, TransactionStore
from magnetar.broker.port import (
    InvalidTransactionStatusError,
    NotAllowedError,
    PortError,
    TransactionNotFoundError,
)
from magnetar.broker.run import FLAGS, TRANSACTION, Run
from magnetar.broker.storage.errors import Gap
from magnetar.broker.topics.cursors.reading import Log
from magnetar.names import TopicName

logger = logging.getLogger(__name__)

LOOK_ENTRIES = 1_000
LOOK_BYTES = 1 << 20
"""Read at once where the first entry of a transaction is looked for after a start."""

NUMBERS = 1 << 32
"""A row has room for so many numbers. They come round again; what is kept of each transaction
includes the places between which its entries lie, so that none is taken for another."""

OPEN_PER_TOPIC_MAX = 100_000
"""Transactions that may have entries in one topic at a time and are not decided."""

NO_ENTRIES = Run(b"", b"")

_TRANSACTIONAL = EntryFlags.TRANSACTIONAL.value
_MARKER = EntryFlags.MARKER.value


class Span(NamedTuple):
    """Between which places, both included, the entries of a transaction lie."""

    first: EntryId
    last: EntryId


@dataclass(slots=True)
class Opened:
    """A transaction that is not decided, as one topic knows it."""

    number: int
    since: EntryId
    """None of its entries lies before this place; that is written down."""
    first: EntryId | None = None
    """None: nothing was appended yet."""
    last: EntryId = EARLIEST
    entries: int = 0


class Ending(NamedTuple):
    """What a topic has of a transaction that is decided."""

    number: int
    span: Span | None
    """None: no entries."""


class TransactionBuffer:
    """The transactions of one topic."""

    def __init__(
        self, topic: TopicName, log: Log, store: TransactionStore, wake: Callable[[], None]
    ) -> None:
        """`wake` is called when more may be read."""
        self._topic = topic
        self._log = log
        self._store = store
        self._wake = wake
        self.open: dict[TransactionId, Opened] = {}
        self.aborted: dict[int, Span] = {}
        self.committed_total = 0
        self.aborted_total = 0
        self._by_number: dict[int, TransactionId] = {}
        self._places: dict[TransactionId, EntryId] = {}
        """First entries, in log order, because that is how they come."""
        self._last_number = 0

    @classmethod
    async def load(
        cls, topic: TopicName, log: Log, store: TransactionStore, wake: Callable[[], None]
    ) -> Self:
        """Return what was known of a topic's transactions, and look up what became of them.

        Raises:
            StoreError, StorageError: something could not be read.
        """
        buffer = cls(topic, log, store, wake)
        opened: list[tuple[EntryId, TransactionId, Opened]] = []
        records = await store.buffers(topic)
        for number in list(records):
            record = records[number]
            state = await buffer._state_of(number, record)
            if state is State.OPEN:
                each = Opened(number, record.first)
                each.first = await buffer._find_first(number, record.first)
                each.last = log.last
                opened.append((each.first or log.end, record.transaction, each))
            elif state is State.ABORTING:
                span = Span(record.first, record.last)
                if span.last == EARLIEST:
                    span = Span(record.first, log.last)
                    await buffer.save_aborted(record.transaction, Ending(number, span))
                buffer.aborted[number] = span
        for first, transaction, each in sorted(opened):
            buffer.open[transaction] = each
            buffer._by_number[each.number] = transaction
            if each.first is not None:
                buffer._places[transaction] = first
        buffer._last_number = max(records, default=0)
        return buffer

    async def _state_of(self, number: int, record: BufferRecord) -> State:
        """Return what is decided; a transaction that is over and not aborted is committed."""
        if record.aborted:
            return State.ABORTING
        try:
            return (await self._store.find(record.transaction)).record.state
        except TransactionNotFoundError:
            # It was finished between the two reads. What it left says how.
            left = (await self._store.buffers(self._topic)).get(number)
            aborted = left is not None and left.aborted
            return State.ABORTING if aborted else State.COMMITTING

    async def _find_first(self, number: int, since: EntryId) -> EntryId | None:
        """Return the first entry with a number; None: there is none."""
        position = self._log.next_position(since)
        while position < self._log.end:
            found = await self._log.read(position, LOOK_ENTRIES, LOOK_BYTES)
            if isinstance(found, Gap):
                return position  # it may have been in there
            at, run = found
            numbers = run.u32(TRANSACTION).tolist()
            if number in numbers:
                return EntryId(at.ledger, at.entry + numbers.index(number))
            if not run.count:
                break
            position = self._log.next_position(EntryId(at.ledger, at.entry + run.count))
        return None

    # --- what may be read

    @property
    def stable(self) -> EntryId | None:
        """Nothing from this place on may be read yet; None: everything may."""
        return next(iter(self._places.values()), None)

    def hidden(self, at: EntryId, run: Run) -> list[int]:
        """Return the rows of a run that belong to aborted transactions."""
        if not self.aborted:
            return []
        ledger, entry = at
        rows = []
        flags = run.u32(FLAGS).tolist()
        for row, number in enumerate(run.u32(TRANSACTION).tolist()):
            # Of what is in no transaction, the column may say something else: see `view`.
            if flags[row] & _TRANSACTIONAL and (span := self.aborted.get(number)) is not None:
                first, last = span
                if first <= (ledger, entry + row) <= last:
                    rows.append(row)
        return rows

    # --- publishing

    def number_of(self, transaction: TransactionId) -> int | None:
        """Return the number of a transaction in this topic; None: it has to join first."""
        opened = self.open.get(transaction)
        return None if opened is None else opened.number

    def stored(self, run: Run, ledger: int, entry: int) -> None:
        """Take note of entries that are on their way to the disk; their rows have numbers."""
        for row, number in enumerate(run.u32(TRANSACTION).tolist()):
            if not number:
                continue
            transaction = self._by_number[number]
            opened = self.open[transaction]
            at = EntryId(ledger, entry + row)
            if opened.first is None:
                opened.first = self._places[transaction] = at
            opened.last = at
            opened.entries += 1

    async def join(self, wanted: Collection[TransactionId]) -> Mapping[TransactionId, PortError]:
        """Take part in transactions; return why not, for those where that cannot be."""
        outcomes = await asyncio.gather(*map(self._join, wanted), return_exceptions=True)
        failed: dict[TransactionId, PortError] = {}
        for transaction, outcome in zip(wanted, outcomes, strict=True):
            if isinstance(outcome, TransactionNotFoundError | InvalidTransactionStatusError):
                # The code for this makes clients fail the message, and keep the connection.
                failed[transaction] = NotAllowedError(str(outcome))
            elif isinstance(outcome, PortError):
                failed[transaction] = outcome
            elif outcome is not None:
                raise outcome
        return failed

    async def _join(self, transaction: TransactionId) -> None:
        if transaction in self.open:
            return
        if len(self.open) >= OPEN_PER_TOPIC_MAX:
            raise NotAllowedError(
                f"topic {self._topic} has entries of {OPEN_PER_TOPIC_MAX} open transactions"
            )
        found = await self._store.find_open(transaction)
        number = self._next_number()
        # Before it is written down: the decision may come while this is waiting for the disk.
        opened = self.open[transaction] = Opened(number, self._log.end)
        self._by_number[number] = transaction
        try:
            await self._store.join(found, self._topic, number, opened.since)
        except BaseException:
            self._forget(transaction)
            raise
        if transaction not in self.open:
            raise InvalidTransactionStatusError(f"transaction {transaction} is over")

    def _next_number(self) -> int:
        number = self._last_number
        while True:
            number = (number + 1) % NUMBERS
            if number and number not in self._by_number and number not in self.aborted:
                self._last_number = number
                return number

    # --- the end

    def end(self, transaction: TransactionId, *, committed: bool) -> Ending | None:
        """Let the entries of a transaction be read, or never; None: there are none here."""
        opened = self._forget(transaction)
        if opened is None:
            return None
        if committed:
            self.committed_total += 1
        else:
            self.aborted_total += 1
        span = None if opened.first is None else Span(opened.first, opened.last)
        if span is not None and not committed:
            self.aborted[opened.number] = span
        self._wake()
        return Ending(opened.number, span)

    async def save_aborted(self, transaction: TransactionId, ending: Ending) -> None:
        """Write down where the entries of an aborted transaction lie."""
        number, span = ending
        if span is None:
            await self._store.drop_buffers(self._topic, [number])
            return
        record = BufferRecord(
            most=transaction.most,
            least=transaction.least,
            first_ledger=span.first.ledger,
            first_entry=span.first.entry,
            aborted=True,
            last_ledger=span.last.ledger,
            last_entry=span.last.entry,
        )
        await self._store.save_buffer(self._topic, number, record)

    async def trimmed(self) -> None:
        """Forget aborted transactions whose entries are gone."""
        first = self._log.first
        gone = [number for number, span in self.aborted.items() if span.last < first]
        if gone:
            await self._store.drop_buffers(self._topic, gone)
            for number in gone:
                self.aborted.pop(number, None)

    def _forget(self, transaction: TransactionId) -> Opened | None:
        opened = self.open.pop(transaction, None)
        if opened is not None:
            self._by_number.pop(opened.number, None)
            self._places.pop(transaction, None)
        return opened


class VisibleLog:
    """A log as far as it may be read. Implements `reading.Log`."""

    __slots__ = ("_buffer", "_log")

    def __init__(self, log: Log, buffer: TransactionBuffer) -> None:
        self._log = log
        self._buffer = buffer

    @property
    def waiting(self) -> bool:
        """Whether there is an end that is not the end of the log."""
        return self._buffer.stable is not None

    @property
    def first(self) -> EntryId:
        """The position of the first entry; `end` if there is none."""
        return min(self._log.first, self.end)

    @property
    def end(self) -> EntryId:
        """The position from which on nothing may be read yet."""
        end, stable = self._log.end, self._buffer.stable
        return end if stable is None or stable > end else stable

    @property
    def stored_end(self) -> EntryId:
        """The position after the last entry, whether it may be read yet or not."""
        return self._log.end

    @property
    def last(self) -> EntryId:
        """The last entry that may be read, or EARLIEST."""
        return self._log.previous_position(self.end)

    @property
    def next_index(self) -> int:
        """Messages taken so far, those that may not be read yet included."""
        return self._log.next_index

    @property
    def bytes_total(self) -> int:
        """Bytes of all bodies."""
        return self._log.bytes_total

    def next_position(self, position: EntryId) -> EntryId:
        """Return the first entry at or after a position, or the end of the log."""
        return self._log.next_position(position)

    def previous_position(self, position: EntryId) -> EntryId:
        """Return the last entry before a position, or EARLIEST."""
        return self._log.previous_position(position)

    def distance(self, first: EntryId, end: EntryId) -> int:
        """Count the entries in [first, end)."""
        return self._log.distance(first, end)

    def read_cached(
        self, position: EntryId, entries_max: int, bytes_max: int
    ) -> tuple[EntryId, Run] | None:
        """Return entries from a position on, and the id of the first, if they are in memory."""
        at = self._log.next_position(position)
        room = self._room(at, entries_max)
        return self._log.read_cached(at, room, bytes_max) if room else None

    async def read(
        self, position: EntryId, entries_max: int, bytes_max: int
    ) -> tuple[EntryId, Run] | Gap:
        """Return entries from a position on, and the id of the first; none at the end."""
        at = self._log.next_position(position)
        room = self._room(at, entries_max)
        return await self._log.read(at, room, bytes_max) if room else (at, NO_ENTRIES)

    async def find_time(self, publish_ms: int) -> EntryId:
        """Return the first entry published since a time, or the end."""
        return min(await self._log.find_time(publish_ms), self.end)

    def hidden(self, at: EntryId, run: Run) -> Sequence[int]:
        """Return the rows of a run that belong to aborted transactions."""
        return self._buffer.hidden(at, run)

    def _room(self, at: EntryId, entries_max: int) -> int:
        end = self.end
        if at >= end:
            return 0
        return min(entries_max, end.entry - at.entry) if at.ledger == end.ledger else entries_max


class DecidedLog:
    """What of a log is decided for good: aborted entries look like markers, others like any."""

    __slots__ = ("_log",)

    def __init__(self, log: VisibleLog) -> None:
        self._log = log

    @property
    def last(self) -> EntryId:
        """The last entry of which that can be said, or EARLIEST."""
        return self._log.last

    async def read(
        self, position: EntryId, entries_max: int, bytes_max: int
    ) -> tuple[EntryId, Run] | Gap:
        """Return entries from a position on, and the id of the first; none at the end."""
        found = await self._log.read(position, entries_max, bytes_max)
        if isinstance(found, Gap):
            return found
        at, run = found
        flags = run.u32(FLAGS).tolist()
        if not any(each & _TRANSACTIONAL for each in set(flags)):
            return found
        hidden = set(self._log.hidden(at, run))
        run = Run(bytearray(run.rows), run.buffer, run.base)
        column, numbers = run.u32(FLAGS), run.u32(TRANSACTION)
        for row, each in enumerate(flags):
            if each & _TRANSACTIONAL:
                column[row] = each & ~_TRANSACTIONAL | (_MARKER if row in hidden else 0)
                numbers[row] = 0
        return at, run
