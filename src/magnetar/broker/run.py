"""The run: the entries of one socket read, or of one read from the log.

A run is the unit of work on every path. It is one buffer that holds the bodies, and
packed rows that say where each body lies and what its envelope is. There is no Python
object per entry.

    one row, 80 bytes, little-endian
    ┌────────┬────────┬──────────┬──────────┬──────────┬───────┬──────────┬──────────┐
    │ offset │ length │ checksum │ messages │ key_hash │ flags │ producer │ transact.│  8 x u32
    ├────────┴────────┼──────────┴──────────┼──────────┴───────┼──────────┴──────────┤
    │  sequence_id    │ highest_sequence_id │ publish_time_ms  │ deliver_at_ms       │  4 x i64
    ├─────────────────┼─────────────────────┼──────────────────┴─────────────────────┘
    │  first_index    │ broker_time_ms      │                                           2 x i64
    └─────────────────┴─────────────────────┘

Rows, and not one array per column, because a row is written by one `pack_into` and a
group of neighbouring rows goes to disk as one slice. A column is still one C call away:
a strided view, which can be listed, summed or assigned as a whole.

`first_index` and `broker_time_ms` are filled in by the topic; everything else by the door.
"""

import struct
from array import array
from collections.abc import Iterator, Sequence
from itertools import accumulate
from operator import add
from typing import NamedTuple

from magnetar.broker.entry import Envelope, TransactionId

Bytes = bytes | bytearray | memoryview
"""Anything a run may lie in."""

ROW = struct.Struct("<8I6q")
ROW_SIZE = ROW.size
_U32_PER_ROW = ROW_SIZE // 4
_I64_PER_ROW = ROW_SIZE // 8
_ONE = array("I", (1,)).tobytes()

# Column numbers for `Run.u32`: words of 4 bytes from the start of the row ...
OFFSET, LENGTH, CHECKSUM, MESSAGES, KEY_HASH, FLAGS, PRODUCER, TRANSACTION = range(8)
RESERVED = TRANSACTION
"""What the column is called where entries are in no transaction: in a compacted ledger."""
# ... and for `Run.i64`: words of 8 bytes from the start of the row.
SEQUENCE_ID, HIGHEST_SEQUENCE_ID, PUBLISH_TIME, DELIVER_AT, FIRST_INDEX, BROKER_TIME = range(4, 10)


class Facts(NamedTuple):
    """What the rows of a run are like, found out once for all who read parts of it."""

    single: bool
    """Every entry is one message."""
    timed: bool
    """Some have a time before which they are not to be delivered."""
    flags: frozenset[int]
    """Every combination of flags that occurs."""
    ends: "array[int]"
    """Bytes of bodies before each row, and in all."""


class Run:
    """Entries as packed rows over one buffer.

    The body of row `i` is `buffer[offset - base : offset - base + length]`. A run that a
    door publishes lends its buffer only until `publish` returns: the log has copied it by
    then. A run that the log hands out may be kept as long as its reader likes.
    """

    __slots__ = ("_facts", "_whole", "base", "buffer", "count", "first", "rows", "transactions")

    def __init__(  # noqa: PLR0913, PLR0917 - the last two are for `slice`
        self,
        rows: Bytes,
        buffer: Bytes,
        base: int = 0,
        transactions: Sequence[TransactionId] | None = None,
        whole: "Run | None" = None,
        first: int = 0,
    ) -> None:
        self.rows = memoryview(rows)
        self.buffer = memoryview(buffer)
        self.base = base
        self.count = len(self.rows) // ROW_SIZE
        self.transactions = transactions
        """What the column `TRANSACTION` counts, from 1, until the topic puts numbers of its own
        there. None: no row is in a transaction, or that was done."""
        self._whole = whole
        self.first = first
        """Where this run begins in the one that it is a part of: see `whole`."""
        self._facts: Facts | None = None

    def u32(self, column: int) -> memoryview:
        """Return one 4-byte column as a view that can be listed, summed or assigned."""
        return self.rows.cast("I")[column::_U32_PER_ROW]

    def i64(self, column: int) -> memoryview:
        """Return one 8-byte column as a view that can be listed, summed or assigned."""
        return self.rows.cast("q")[column::_I64_PER_ROW]

    def envelope(self, row: int) -> Envelope:
        """Return one row as an object. For cold paths."""
        return Envelope._make(ROW.unpack_from(self.rows, row * ROW_SIZE))

    def envelopes(self) -> Iterator[Envelope]:
        """Yield every row as an object. For cold paths."""
        return map(Envelope._make, ROW.iter_unpack(self.rows))

    def body(self, row: int) -> memoryview:
        """Return the bytes of one entry, as its protocol sent them."""
        u32 = self.rows.cast("I")
        start = u32[row * _U32_PER_ROW + OFFSET] - self.base
        return self.buffer[start : start + u32[row * _U32_PER_ROW + LENGTH]]

    def slice(self, first: int, count: int) -> "Run":
        """Return neighbouring rows as a run over the same buffer."""
        rows = self.rows[first * ROW_SIZE : (first + count) * ROW_SIZE]
        return Run(
            rows, self.buffer, self.base, self.transactions, self._whole or self, self.first + first
        )

    @property
    def whole(self) -> "Run":
        """The run that this one is a part of, from row `first` on; else itself."""
        return self._whole or self

    @property
    def facts(self) -> Facts:
        """What the rows of `whole` are like. Only for runs that nobody changes any more."""
        if self._whole is not None:
            return self._whole.facts
        if self._facts is None:
            self._facts = _look_at(self.rows)
        return self._facts

    def size_of(self, first: int, count: int) -> int:
        """Return how many bytes the bodies of neighbouring rows have, as `facts` knows."""
        ends, first = self.facts.ends, self.first + first
        return ends[first + count] - ends[first]

    def select(self, rows: Sequence[int]) -> "Run":
        """Return the given rows, in that order, as a run over the same buffer. Copies rows."""
        size = ROW_SIZE
        return Run(
            b"".join([self.rows[row * size : row * size + size] for row in rows]),
            self.buffer,
            self.base,
            self.transactions,
        )

    def body_span(self) -> tuple[int, int]:
        """Return where in `buffer` the first body starts and the last one ends."""
        # Columns of a copy are cut out in C; a strided view is read item by item.
        words = array("I")
        words.frombytes(self.rows)
        offsets, lengths = words[OFFSET::_U32_PER_ROW], words[LENGTH::_U32_PER_ROW]
        return min(offsets) - self.base, max(map(add, offsets, lengths)) - self.base

    def body_bytes(self) -> int:
        """Return how many bytes all bodies have together."""
        return sum(self.u32(LENGTH))

    def message_count(self) -> int:
        """Return how many messages all entries have together."""
        return sum(self.u32(MESSAGES))

    def stamp(self, first_index: int, broker_time_ms: int) -> int:
        """Fill in what the topic decides; return the index after the last message.

        The rows must be writable: the run is fresh from a walker.
        """
        counts = self.u32(MESSAGES).tolist()
        indexes = array("q", accumulate(counts, initial=first_index))
        next_index = indexes.pop()
        self.i64(FIRST_INDEX)[:] = memoryview(indexes)
        self.i64(BROKER_TIME)[:] = memoryview(array("q", (broker_time_ms,)) * self.count)
        return next_index


def _look_at(rows: memoryview) -> Facts:
    # Columns of a copy are cut out and compared in C.
    words = array("I")
    words.frombytes(rows)
    count = len(rows) // ROW_SIZE
    times = 2 * DELIVER_AT
    flags = words[FLAGS::_U32_PER_ROW]
    return Facts(
        words[MESSAGES::_U32_PER_ROW].tobytes() == _ONE * count,
        any(words[half::_U32_PER_ROW].tobytes().strip(b"\0") for half in (times, times + 1)),
        frozenset(flags[:1] if flags.tobytes() == flags[:1].tobytes() * count else flags),
        array("Q", accumulate(words[LENGTH::_U32_PER_ROW], initial=0)),
    )
