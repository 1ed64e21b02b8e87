"""Entries that must wait for their time.

    (due ms i64, ledger i64, entry i64) = 24 bytes in packed arrays, one array per bucket of time

    rung 0   2^22 ms each  [ ][ ][ ][ ][ ][ ] ...        the farthest may lie in a file (`Spill`)
    rung 1   2^16 ms each   └─[ ][ ][ ]                  the nearest bucket, split, when it is large
    rung 2   2^10 ms ...        └─[ ][ ]
    heap     a few thousand       └─ * * *               the next ones, in order of time, position
    width 1 ms                       {  }                many of one millisecond: a bitmap

A ladder queue (Tang, Goh and Thng, 2005): what is far away is only thrown into its bucket,
and sorted when its turn comes, a few thousand at a time. So a million entries cost 24 bytes
each, and adding one costs the same whatever the backlog.

The index is not persistent: mark-delete cannot pass a waiting entry, so reading the log from
there builds it again.
"""

import heapq
import logging
from array import array
from collections.abc import Iterator
from typing import Protocol

from magnetar.broker.clock import Clock
from magnetar.broker.topics.cursors.entry_set import EntrySet

logger = logging.getLogger(__name__)

FIRST_SHIFT = 22
"""Buckets of the first rung are 2^22 ms = 70 minutes wide."""
STEP = 6
"""A bucket is split into at most 2^6 narrower ones."""
HEAP_MAX = 4_096
"""A bucket with at most this many entries is sorted at once instead of split."""
_ITEMS = 3
_CHUNK_ENTRIES = 8_192
SPILL_ENTRIES = 32_768
"""Entries in one write to the file, and one read: 768 KiB."""
JUMP_MS = 20
"""A change of the wall clock against the monotonic one by more than this is a jump."""

Due = tuple[int, int, int]
"""(when in ms, ledger, entry)"""


class Spill(Protocol):
    """A file, or the like, for what is far away. Buckets are numbered by the caller."""

    def append(self, bucket: int, entries: bytes) -> None:
        """Add to a bucket.

        Raises:
            OSError: there is no room.
        """

    def read(self, bucket: int) -> Iterator[bytes]:
        """Yield all that was added to a bucket, in pieces of whole entries."""
        ...

    def remove(self, bucket: int) -> None:
        """Forget a bucket."""


class SteadyTime:
    """Milliseconds that follow the wall clock as it was first seen, and none of its jumps.

    An entry that was told to come in an hour comes in an hour, though somebody sets the
    clock meanwhile. What is indexed after a jump is understood by the new clock.
    """

    __slots__ = ("_clock", "_skew_ms", "_start_ms")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._start_ms = clock.wall_ms() - round(clock.monotonic() * 1000)
        self._skew_ms = 0

    def now_ms(self) -> int:
        """Return the time now."""
        return self._start_ms + round(self._clock.monotonic() * 1000)

    def due_ms(self, wall_ms: int) -> int:
        """Return when a wall clock that is not set again will show `wall_ms`."""
        skew_ms = self._clock.wall_ms() - self.now_ms()
        if abs(skew_ms - self._skew_ms) > JUMP_MS:
            self._skew_ms = skew_ms
        return wall_ms - self._skew_ms


class _Rung:
    """Buckets of one width. Everything due before `start_ms` is further down."""

    __slots__ = ("buckets", "shift", "spilled", "start_ms")

    def __init__(self, shift: int, start_ms: int) -> None:
        self.shift = shift
        self.start_ms = start_ms
        self.buckets: dict[int, array[int]] = {}
        self.spilled: dict[int, int] = {}
        """Bucket -> how many of its entries lie in the file."""

    def lowest(self) -> int | None:
        """Return the number of the next bucket; None: the rung is empty."""
        if not self.buckets and not self.spilled:
            return None
        return min((*self.buckets, *self.spilled))


class Delayed:
    """The entries of one subscription that wait for their time."""

    __slots__ = (
        "_heap",
        "_in_memory",
        "_in_memory_max",
        "_rungs",
        "_same",
        "_same_depth",
        "_same_ms",
        "_spill",
        "_spill_failed",
        "count",
    )

    def __init__(self, in_memory_max: int, spill: Spill | None = None) -> None:
        self.count = 0
        self._in_memory = 0
        self._in_memory_max = in_memory_max
        self._spill = spill
        self._spill_failed = False
        self._rungs = [_Rung(FIRST_SHIFT, 0)]
        self._heap: list[Due] = []
        # Many entries of one millisecond, which is the first one after the heap's.
        self._same: EntrySet | None = None
        self._same_ms = 0
        self._same_depth = 0

    def __len__(self) -> int:
        return self.count

    @property
    def full(self) -> bool:
        """Whether no more should be added: memory is used up, and no file takes anything."""
        return (
            self._spill is None or self._spill_failed
        ) and self._in_memory >= self._in_memory_max

    @property
    def in_memory_bytes(self) -> int:
        """About how many bytes the index takes."""
        return self._in_memory * 24

    def add(self, due_ms: int, ledger: int, entry: int) -> None:
        """Let an entry wait. It must not be waiting already."""
        self.count += 1
        self._in_memory += 1
        if self._same is not None and due_ms == self._same_ms:
            self._same.add(ledger, entry)
        else:
            for rung in self._rungs:
                if due_ms >= rung.start_ms:
                    self._throw(rung, due_ms, ledger, entry)
                    break
            else:
                heapq.heappush(self._heap, (due_ms, ledger, entry))
                if len(self._heap) > 4 * HEAP_MAX:
                    self._raise_heap()
        if self._in_memory > self._in_memory_max and self._spill is not None:
            self._spill_farthest(self._spill)

    def next_due_ms(self) -> int | None:
        """Return when to look again; nothing is due earlier. None: nothing waits."""
        if self._heap:
            return self._heap[0][0]
        if self._same is not None and self._same_is_next():
            return self._same_ms
        for rung in reversed(self._rungs):
            lowest = rung.lowest()
            if lowest is not None:
                return lowest << rung.shift
        return None

    def take_due(self, now_ms: int, entries_max: int) -> list[tuple[int, int]]:
        """Take out entries whose time has come, in order of time and then of position."""
        taken: list[tuple[int, int]] = []
        while len(taken) < entries_max:
            due_ms = self.next_due_ms()
            if due_ms is None or due_ms > now_ms:
                break
            if self._heap:
                taken.append(heapq.heappop(self._heap)[1:])
            elif self._same is not None and self._same_is_next():
                self._take_same(self._same, taken, entries_max)
            else:
                self._descend()
        self.count -= len(taken)
        self._in_memory -= len(taken)
        return taken

    def clear(self) -> None:
        """Forget everything that waits."""
        for rung in self._rungs:
            for number in rung.spilled:
                assert self._spill is not None
                self._spill.remove(_spill_key(rung, number))
        self.count = self._in_memory = 0
        self._rungs = [_Rung(FIRST_SHIFT, 0)]
        self._heap = []
        self._same = None

    # --- inside

    def _throw(self, rung: _Rung, due_ms: int, ledger: int, entry: int) -> None:
        number = due_ms >> rung.shift
        bucket = rung.buckets.get(number)
        if bucket is None:
            bucket = rung.buckets[number] = array("q")
        bucket.extend((due_ms, ledger, entry))

    def _same_is_next(self) -> bool:
        """Whether no rung was made since, of entries that are due earlier."""
        return all(rung.lowest() is None for rung in self._rungs[self._same_depth :])

    def _take_same(self, same: EntrySet, taken: list[tuple[int, int]], entries_max: int) -> None:
        found = same.first()
        assert found is not None
        count = min(found.length, entries_max - len(taken))
        taken += [(found.ledger, entry) for entry in range(found.first, found.first + count)]
        same.discard(found.ledger, found.first, count)
        if not same.count:
            self._same = None

    def _descend(self) -> None:
        """Bring the next bucket one step nearer."""
        while self._rungs[-1].lowest() is None and len(self._rungs) > 1:
            self._rungs.pop()
        rung = self._rungs[-1]
        number = rung.lowest()
        if number is None:
            return
        size = len(rung.buckets.get(number, ())) // _ITEMS + rung.spilled.get(number, 0)
        shift = self._narrower(rung, number)
        rung.start_ms = (number + 1) << rung.shift
        pieces = self._pieces(rung, number)
        if size <= HEAP_MAX or (rung.shift == 0 and self._same is not None):
            for piece in pieces:
                self._heap += _entries(piece)
            heapq.heapify(self._heap)
        elif rung.shift == 0:
            self._same = same = EntrySet()
            self._same_ms, self._same_depth = number, len(self._rungs)
            for piece in pieces:
                for _, ledger, entry in _entries(piece):
                    same.add(ledger, entry)
        else:
            self._split(pieces, _Rung(shift, number << rung.shift))

    def _narrower(self, rung: _Rung, number: int) -> int:
        """Return how wide (2^shift ms) the buckets should be that one bucket is split into."""
        bucket = rung.buckets.get(number)
        if bucket is None or number in rung.spilled:
            return max(rung.shift - STEP, 0)
        times = bucket[::_ITEMS]
        return max(min((max(times) - min(times)).bit_length(), rung.shift) - STEP, 0)

    def _split(self, pieces: "Iterator[array[int]]", below: _Rung) -> None:
        self._rungs.append(below)
        for piece in pieces:
            for due_ms, ledger, entry in _entries(piece):
                self._throw(below, due_ms, ledger, entry)
            if self._in_memory > self._in_memory_max and self._spill is not None:
                self._spill_farthest(self._spill)

    def _pieces(self, rung: _Rung, number: int) -> "Iterator[array[int]]":
        """Yield and forget a bucket in pieces, so that it is never there twice."""
        # Taken out first: what is spilled meanwhile must not be this.
        bucket = rung.buckets.pop(number, None)
        if number in rung.spilled:
            assert self._spill is not None
            missing = rung.spilled.pop(number)
            for data in self._spill.read(_spill_key(rung, number)):
                piece = array("q")
                piece.frombytes(data)
                missing -= len(piece) // _ITEMS
                self._in_memory += len(piece) // _ITEMS
                yield piece
            self._spill.remove(_spill_key(rung, number))
            self.count -= missing  # damaged; they come when the topic is loaded again
        while bucket:
            piece = bucket[-_ITEMS * _CHUNK_ENTRIES :]
            del bucket[-_ITEMS * _CHUNK_ENTRIES :]
            yield piece

    def _raise_heap(self) -> None:
        """Too much has come in that is due soon: make a rung of it."""
        first_ms = self._heap[0][0]
        shift = max((max(self._heap)[0] - first_ms).bit_length() - STEP, 0)
        rung = _Rung(shift, first_ms >> shift << shift)
        self._rungs.append(rung)
        heap, self._heap = self._heap, []
        for due_ms, ledger, entry in heap:
            self._throw(rung, due_ms, ledger, entry)

    def _spill_farthest(self, spill: Spill) -> None:
        for rung in self._rungs:
            if rung.buckets:
                number = max(rung.buckets)
                bucket = rung.buckets[number]
                while bucket:
                    piece = bucket[-_ITEMS * SPILL_ENTRIES :]
                    try:
                        spill.append(_spill_key(rung, number), piece.tobytes())
                    except OSError as error:
                        self._spill_failed = True
                        logger.warning("delayed entries stay in memory: %s", error)
                        return
                    self._spill_failed = False
                    size = len(piece) // _ITEMS
                    rung.spilled[number] = rung.spilled.get(number, 0) + size
                    self._in_memory -= size
                    del bucket[-_ITEMS * SPILL_ENTRIES :]
                del rung.buckets[number]
                return


def _spill_key(rung: _Rung, number: int) -> int:
    return number << 5 | rung.shift


def _entries(piece: "array[int]") -> list[Due]:
    return list(zip(piece[::_ITEMS], piece[1::_ITEMS], piece[2::_ITEMS], strict=True))
