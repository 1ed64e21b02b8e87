"""The rows of a published run, before they are stored: ordered, stamped, measured, cut. Pure.

|a|b|a|c| ──by_slot──▶ |a|a|b|c| ──stamped──▶ index and broker's time are in, sizes are known
number_rows: the transaction's number within the topic
"""

from array import array
from collections.abc import Mapping
from itertools import chain
from struct import Struct
from typing import NamedTuple

from magnetar.broker.entry import EntryFlags, TransactionId
from magnetar.broker.port import PortError
from magnetar.broker.run import (
    BROKER_TIME,
    FIRST_INDEX,
    FLAGS,
    LENGTH,
    MESSAGES,
    PUBLISH_TIME,
    ROW_SIZE,
    TRANSACTION,
    Run,
)
from magnetar.broker.topics.producers.producer import Numbers, OpenProducer

CHUNK = EntryFlags.CHUNK.value
_each_row = Struct(f"{ROW_SIZE}s").iter_unpack


class Rows(NamedTuple):
    """Rows of one producer within a published run."""

    producer: OpenProducer
    slot: int
    first_row: int
    """Where they start in the run that is reported."""
    run: Run


class Taken(NamedTuple):
    """What was taken of one producer."""

    entries: int
    messages: int
    size_bytes: int
    publish_first_ms: int
    publish_last_ms: int
    chunks: int


class Columns:
    """A run looked into column by column, for many small groups."""

    __slots__ = (
        "_run",
        "flags",
        "indexes",
        "messages",
        "now_ms",
        "sizes",
        "taken",
        "taken_bytes",
        "times_ms",
    )

    def __init__(self, run: Run, now_ms: int) -> None:
        self.messages: list[int] = run.u32(MESSAGES).tolist()
        self.sizes: list[int] = run.u32(LENGTH).tolist()
        self.times_ms: list[int] = run.i64(PUBLISH_TIME).tolist()
        self.flags: list[int] = run.u32(FLAGS).tolist()
        self.indexes: list[int] = []
        """Of the rows that were looked into and are not stamped yet: the last ones."""
        self.now_ms = now_ms
        self._run = run
        self.taken = 0
        self.taken_bytes = 0

    def stamp(self, end: int) -> None:
        """Fill in what the topics decided about the last rows before `end`."""
        count = len(self.indexes)
        if count:
            rows = slice(end - count, end)
            self._run.i64(FIRST_INDEX)[rows] = memoryview(array("q", self.indexes))
            self._run.i64(BROKER_TIME)[rows] = memoryview(array("q", (self.now_ms,)) * count)
            self.indexes.clear()


def stamped(run: Run, first_index: int, now_ms: int) -> Taken:
    """Fill in what the topic decides about rows, and measure them."""
    if run.count == 1:
        # Producers that do not batch, over many topics, make many runs of one row.
        words, longs = run.rows.cast("I"), run.rows.cast("q")
        longs[FIRST_INDEX], longs[BROKER_TIME] = first_index, now_ms
        time_ms = longs[PUBLISH_TIME]
        chunks = 1 if words[FLAGS] & CHUNK else 0
        return Taken(1, words[MESSAGES], words[LENGTH], time_ms, time_ms, chunks)
    messages = run.stamp(first_index, now_ms) - first_index
    times = run.i64(PUBLISH_TIME).tolist()
    flags = run.u32(FLAGS)
    chunks = sum(1 for flag in flags if flag & CHUNK) if flags[0] & CHUNK else 0
    return Taken(run.count, messages, run.body_bytes(), min(times), max(times), chunks)


def by_slot(run: Run, slots: list[int]) -> tuple[Run, list[int]]:
    """Return the rows ordered by slot, each producer's in the order it sent them, and the slots."""
    ordered = sorted(slots)
    if ordered == slots:
        return run, slots
    rows = list(chain.from_iterable(_each_row(run.rows)))
    order = sorted(range(run.count), key=slots.__getitem__)
    # The topic has to stamp them: they must be writable.
    moved = bytearray().join([rows[row] for row in order])
    return Run(moved, run.buffer, run.base, run.transactions), ordered


def transactions_of(run: Run) -> set[TransactionId]:
    """Return the transactions that rows of a published run are in."""
    if run.transactions is None:
        return set()
    return {run.transactions[number - 1] for number in run.u32(TRANSACTION).tolist() if number}


def number_rows(run: Run, numbers: Numbers | None) -> bool:
    """Put the topic's numbers of its transactions into rows; False: some have to join first."""
    column = run.u32(TRANSACTION)
    places: list[int] = column.tolist()
    used = set(places) - {0}
    if not used:
        return True
    if numbers is None or run.transactions is None:
        return False
    found = {place: numbers.number_of(run.transactions[place - 1]) for place in used}
    known = {place: number for place, number in found.items() if number is not None}
    if len(known) < len(found):
        return False
    known[0] = 0
    column[:] = memoryview(array("I", [known[place] for place in places]))
    return True


def stretches(
    run: Run, failed: Mapping[TransactionId, PortError]
) -> list[tuple[Run, PortError | None]]:
    """Cut a run where rows that are refused begin and end."""
    assert run.transactions is not None
    errors = [None, *(failed.get(each) for each in run.transactions)]
    by_row = [errors[number] for number in run.u32(TRANSACTION).tolist()]
    pieces: list[tuple[Run, PortError | None]] = []
    first = 0
    for row in range(1, run.count + 1):
        if row == run.count or by_row[row] is not by_row[first]:
            pieces.append((run.slice(first, row - first), by_row[first]))
            first = row
    return pieces
