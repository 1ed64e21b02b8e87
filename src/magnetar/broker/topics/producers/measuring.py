"""The rows of a published run, before they are stored: ordered, measured, stamped. Pure.

    |a|b|a|c| ──gathered──▶ |a|a|b|c|, measured ──stamp──▶ index and broker's time are in

For each entry, so columns at a time; `_positions.pyx` does the same in compiled code.
"""

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, chain, islice
from operator import lt
from struct import Struct
from typing import NamedTuple

from magnetar.broker.entry import EntryFlags
from magnetar.broker.run import (
    BROKER_TIME,
    FIRST_INDEX,
    FLAGS,
    HIGHEST_SEQUENCE_ID,
    LENGTH,
    MESSAGES,
    PRODUCER,
    PUBLISH_TIME,
    ROW,
    ROW_SIZE,
    SEQUENCE_ID,
    Bytes,
)

CHUNK = EntryFlags.CHUNK.value
_WORDS = ROW_SIZE // 4
_LONGS = ROW_SIZE // 8
_put_place = Struct("<qq").pack_into
"""Index and broker's time, which are neighbours."""
_each_row = Struct(f"{ROW_SIZE}s").iter_unpack


class Taken(NamedTuple):
    """What was taken of one producer: neighbouring rows."""

    slot: int
    first_row: int
    entries: int
    messages: int
    size_bytes: int
    publish_first_ms: int
    publish_last_ms: int
    chunks: int
    smallest: int
    """Bytes of the smallest body."""
    largest: int


Place = tuple[int, int, int]
"""First row, rows, and the index of the first message in them."""


def gathered(rows: memoryview) -> tuple[bytearray | None, list[Taken]]:
    """Order rows by slot, each producer's in the order it sent them, and measure them.

    Returns the ordered rows, None if they were in order, and what there is of each producer.
    """
    if len(rows) == ROW_SIZE:
        return None, [_one(rows)]
    moved: bytearray | None = None
    columns = _Columns(rows)
    slots = columns.slots.tolist()
    count = len(slots)
    if slots.count(slots[0]) == count:
        return None, [columns.taken(slots[0], 0, count)]
    ordered = sorted(slots)
    if ordered != slots:
        each = list(chain.from_iterable(_each_row(rows)))
        order = sorted(range(count), key=slots.__getitem__)
        # The topic has to stamp them: they must be writable.
        moved = bytearray().join([each[row] for row in order])
        columns = _Columns(moved)
    found: list[Taken] = []
    at = 0
    while at < count:
        slot = ordered[at]
        end = at + 1
        if end < count and ordered[end] == slot:
            end = bisect_right(ordered, slot, end)
        found.append(columns.taken(slot, at, end))
        at = end
    return moved, found


def _one(rows: memoryview) -> Taken:
    """Measure one row: producers that do not batch, over many connections, send runs of one."""
    _, size, _, messages, _, flags, slot, _, _, _, time_ms, _, _, _ = ROW.unpack_from(rows)
    chunks = 1 if flags & CHUNK else 0
    return Taken(slot, 0, 1, messages, size, time_ms, time_ms, chunks, size, size)


class _Columns:
    """The columns of rows that are measured, copied out in C."""

    __slots__ = ("flags", "messages", "sizes", "slots", "times")

    def __init__(self, rows: Bytes) -> None:
        words, longs = array("I"), array("q")
        words.frombytes(rows)
        longs.frombytes(rows)
        self.slots = words[PRODUCER::_WORDS]
        self.messages = words[MESSAGES::_WORDS]
        self.sizes = words[LENGTH::_WORDS]
        self.flags = words[FLAGS::_WORDS]
        self.times = longs[PUBLISH_TIME::_LONGS]

    def taken(self, slot: int, first: int, end: int) -> Taken:
        """Measure neighbouring rows of one producer."""
        if end - first == 1:
            # Producers that do not batch, over many topics, have groups of one row.
            size, time_ms = self.sizes[first], self.times[first]
            chunks = 1 if self.flags[first] & CHUNK else 0
            return Taken(
                slot, first, 1, self.messages[first], size, time_ms, time_ms, chunks, size, size
            )
        sizes, times = self.sizes[first:end].tolist(), self.times[first:end].tolist()
        smallest, largest = min(sizes), max(sizes)
        flags = self.flags[first:end]
        chunks = 0
        if any(each & CHUNK for each in set(flags)):
            chunks = sum(1 for each in flags if each & CHUNK)
        return Taken(
            slot,
            first,
            end - first,
            sum(self.messages[first:end]),
            smallest * len(sizes) if smallest == largest else sum(sizes),
            min(times),
            max(times),
            chunks,
            smallest,
            largest,
        )


def stamp(rows: memoryview, places: Sequence[Place], now_ms: int) -> None:
    """Fill in what the topics decided about groups of rows.

    Raises:
        ValueError: a group is not in the run.
    """
    number = len(rows) // ROW_SIZE
    for first, count, index in places:
        if not 0 <= first <= first + count <= number:
            raise ValueError("a group outside of its run")
        if count == 1:
            _put_place(rows, first * ROW_SIZE + FIRST_INDEX * 8, index, now_ms)
            continue
        group = rows[first * ROW_SIZE : (first + count) * ROW_SIZE]
        messages = group.cast("I")[MESSAGES::_WORDS].tolist()
        indexes = array("q", accumulate(messages, initial=index))
        indexes.pop()
        longs = group.cast("q")
        longs[FIRST_INDEX::_LONGS] = memoryview(indexes)
        longs[BROKER_TIME::_LONGS] = memoryview(array("q", (now_ms,)) * count)


def stamped(rows: memoryview, first_index: int, now_ms: int) -> Taken:
    """Fill in what the topic decides about rows of one producer, and measure them."""
    if len(rows) == ROW_SIZE:
        _put_place(rows, FIRST_INDEX * 8, first_index, now_ms)
        return _one(rows)
    columns = _Columns(rows)
    count = len(columns.slots)
    if not count:
        raise ValueError("no rows")
    stamp(rows, ((0, count, first_index),), now_ms)
    return columns.taken(columns.slots[0], 0, count)


def rising(rows: memoryview, pushed: int) -> int | None:
    """Return the highest sequence id of rows that are all new, whole and in order; else None.

    Nearly every run is like this: nothing chunked, nothing sent twice.
    """
    words, longs = array("I"), array("q")
    words.frombytes(rows)
    longs.frombytes(rows)
    first, last = longs[SEQUENCE_ID::_LONGS], longs[HIGHEST_SEQUENCE_ID::_LONGS]
    if (
        not first
        or first[0] <= pushed
        or any(flags & CHUNK for flags in set(words[FLAGS::_WORDS]))
        or not all(map(lt, last, islice(first, 1, None)))
        or not all(map(lt, first, islice(first, 1, None)))
    ):
        return None
    return max(last[-1], first[-1])
