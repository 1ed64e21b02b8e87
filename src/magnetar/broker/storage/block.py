"""Blocks: neighbouring entries of one ledger as they lie in an entry log.

    one block, little-endian, its start a multiple of 8 bytes from the start of its file
    ┌───────┬──────────┬──────┬────────┬─────────────┬───────┬──────┬──────────┬──────┐
    │ magic │ head_crc │ salt │ ledger │ first_entry │entries│ body │ body_crc │ pad  │
    │  u32  │   u32    │ u64  │  u64   │     u64     │  u32  │ u32  │   u32    │ u32  │
    ├───────┴──────────┴──────┴────────┴─────────────┴───────┴──────┴──────────┴──────┤
    │ rows, 80 bytes each (see `run`) │ bodies │ zeros up to 8 bytes                  │
    └─────────────────────────────────────────────────────────────────────────────────┘

`head_crc` covers everything from `salt` to the last row, `body_crc` the bodies. A row's
offset counts from the start of the bodies. Between two bodies there may be a few bytes
that belong to neither (what framed them on the wire), where copying them along was
cheaper than leaving them out. `salt` is random for each entry log: no body can pass for
a block, and a block of another file is recognised.

A block is the unit of reading, checking and caching. When only its bodies are damaged,
each entry's own checksum tells the good ones from the bad.
"""

import struct
from array import array
from collections.abc import Iterator, Sequence
from itertools import accumulate
from operator import add
from typing import NamedTuple

from crc32c import crc32c

from magnetar.broker.run import (
    CHECKSUM,
    FIRST_INDEX,
    LENGTH,
    MESSAGES,
    OFFSET,
    PUBLISH_TIME,
    ROW_SIZE,
    Bytes,
    Run,
)
from magnetar.broker.storage.cache import (
    FIRST_ROW_MASK,
    OFFSET_AND_LENGTH,
    PLACE_SHIFT,
    Generation,
    Tail,
    words,
)
from magnetar.broker.storage.errors import LedgerEnd

MAGIC = 0x3142474D
"""`MGB1` as it lies in the file."""
MAGIC_BYTES = MAGIC.to_bytes(4, "little")
HEADER = struct.Struct("<IIQQQIIII")
HEADER_SIZE = HEADER.size
CHECKED_FROM = 8
ALIGNMENT = 8

BODY_BYTES_TARGET = 192 * 1024
"""A block is closed when its bodies reach this; an entry that is larger lies alone."""
BODY_BYTES_MAX = 1 << 30
"""A claim beyond it is not a block."""
ROWS_MAX = 1 << 20
GAP_SHARE_MAX = 8
"""Bodies are copied as one piece while at most one byte in so many belongs to none of them."""
JOIN_BYTES_MAX = 4 * 1024
"""Bodies that average less than this, and do not lie side by side, are copied together."""

_WORDS = ROW_SIZE // 4
_LONGS = ROW_SIZE // 8


class BlockHeader(NamedTuple):
    """The fixed part of a block, as in the drawing."""

    magic: int
    head_crc: int
    salt: int
    ledger: int
    first_entry: int
    entries: int
    body: int
    body_crc: int
    pad: int

    @property
    def head_size(self) -> int:
        """Bytes before the bodies."""
        return HEADER_SIZE + self.entries * ROW_SIZE

    @property
    def size(self) -> int:
        """Bytes of the whole block, padding included."""
        return aligned(self.head_size + self.body)


class Block(NamedTuple):
    """A block read back and checked."""

    first_entry: int
    run: Run
    damaged: tuple[tuple[int, int], ...] = ()
    """First and last entry id of each range that does not read back, in order."""

    @property
    def end(self) -> int:
        """The entry id after the last one."""
        return self.first_entry + self.run.count


class BlockDamagedError(Exception):
    """Nothing in a block can be trusted."""


def aligned(size: int) -> int:
    """Return `size` rounded up to where the next block may start."""
    return size + (-size % ALIGNMENT)


def parse_header(data: bytes | memoryview, offset: int, salt: int) -> BlockHeader | None:
    """Read the fixed part of what may be a block of the file with this salt."""
    if len(data) - offset < HEADER_SIZE:
        return None
    header = BlockHeader._make(HEADER.unpack_from(data, offset))
    if header.magic != MAGIC or header.salt != salt:
        return None
    if not 0 < header.entries <= ROWS_MAX or header.body > BODY_BYTES_MAX:
        return None
    return header


def head_is_valid(header: BlockHeader, block: memoryview) -> bool:
    """Tell whether header and rows are as they were written."""
    return (
        len(block) >= header.head_size
        and crc32c(block[CHECKED_FROM : header.head_size]) == header.head_crc
    )


def decode(data: memoryview, salt: int, ledger: int, first_entry: int, count: int) -> Block:
    """Check the block in `data` and return its entries as views of it.

    Raises:
        BlockDamagedError: this is not that block, or its rows are damaged.
    """
    header = parse_header(data, 0, salt)
    if header is None:
        raise BlockDamagedError("there is no block where one should be")
    if (header.ledger, header.first_entry, header.entries) != (ledger, first_entry, count):
        raise BlockDamagedError(
            f"found ledger {header.ledger} from entry {header.first_entry},"
            f" expected ledger {ledger} from entry {first_entry}"
        )
    if not head_is_valid(header, data):
        raise BlockDamagedError("the checksum of the rows does not match")
    body = data[header.head_size : header.head_size + header.body]
    run = Run(data[HEADER_SIZE : header.head_size], body)
    if body_matches(header, data):
        return Block(first_entry, run)
    return Block(first_entry, run, tuple(damaged_ranges(run, first_entry)))


def body_matches(header: BlockHeader, data: memoryview) -> bool:
    """Tell whether the bodies are as they were written."""
    body = data[header.head_size : header.head_size + header.body]
    return len(body) == header.body and crc32c(body) == header.body_crc


def decode_unchecked(data: memoryview, header: BlockHeader) -> Run:
    """Return the entries of a block whose rows are known to be whole; bodies may be damaged."""
    body = data[header.head_size : header.head_size + header.body]
    return Run(data[HEADER_SIZE : header.head_size], body)


def damaged_ranges(run: Run, first_entry: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges of entries whose body does not match its checksum."""
    start = None
    for row in range(run.count):
        bad = crc32c(run.body(row)) != run.u32(CHECKSUM)[row]
        if bad and start is None:
            start = row
        elif not bad and start is not None:
            yield first_entry + start, first_entry + row - 1
            start = None
    if start is not None:
        yield first_entry + start, first_entry + run.count - 1


def encode(  # noqa: PLR0913, PLR0917 - the fields of one header
    salt: int,
    ledger: int,
    first_entry: int,
    rows: Bytes,
    bodies: Sequence[Bytes],
    keep_body_crc: int | None = None,
) -> tuple[bytes, bytes]:
    """Return what comes before rows and bodies in a block, and what comes behind.

    `keep_body_crc` is for the copy of a damaged block, which must stay visibly damaged.
    """
    body = body_crc = 0
    for piece in bodies:
        body += len(piece)
        if keep_body_crc is None:
            body_crc = crc32c(piece, body_crc)
    if keep_body_crc is not None:
        body_crc = keep_body_crc
    count = len(rows) // ROW_SIZE
    fields = salt, ledger, first_entry, count, body, body_crc, 0
    head_crc = crc32c(rows, crc32c(HEADER.pack(MAGIC, 0, *fields)[CHECKED_FROM:]))
    return HEADER.pack(MAGIC, head_crc, *fields), bytes(-(len(rows) + body) % ALIGNMENT)


class Draft(NamedTuple):
    """A block about to be written."""

    rows: memoryview
    bodies: list[Bytes]
    summary: LedgerEnd
    """Of this block's entries alone; `end` is the entry id after its last one."""


def drafts(generation: Generation, tail: Tail) -> Iterator[Draft]:
    """Yield the blocks of one ledger of the write cache, in the order of its entries."""
    pieces = _Pieces()
    rows, bodies, offsets, body = pieces.rows, pieces.bodies, pieces.offsets, 0
    records = generation.records
    ends = tail.firsts[1:]
    ends.append(tail.end)
    for first_entry, end, place in zip(tail.firsts, ends, tail.places, strict=True):
        record = records[place >> PLACE_SHIFT]
        if end - first_entry == 1:
            # Written out: with many topics this is most of what a flush does.
            view = record.view
            row_at = record.rows_at + (place & FIRST_ROW_MASK) * ROW_SIZE
            offset, length = OFFSET_AND_LENGTH.unpack_from(view, row_at)
            offset += record.body_at - record.base
            rows.append(view[row_at : row_at + ROW_SIZE])
            bodies.append(view[offset : offset + length])
            offsets.append(body)
            body += length
        else:
            run = record.run(place & FIRST_ROW_MASK, end - first_entry)
            for start, stop in _cuts(run, BODY_BYTES_TARGET - body):
                if rows and start:
                    yield pieces.draft(first_entry + start)
                    body = 0
                body = pieces.add(run.slice(start, stop - start), body)
        if body >= BODY_BYTES_TARGET:
            yield pieces.draft(end)
            body = 0
    if rows:
        yield pieces.draft(tail.end)


def _cuts(run: Run, room: int) -> Iterator[tuple[int, int]]:
    """Cut rows into ranges of at most the target's bytes, the first of at most `room`."""
    sizes = words(run.rows)[LENGTH::_WORDS]
    start = used = 0
    for row, size in enumerate(sizes):
        if row > start and used + size > room:
            yield start, row
            start, used, room = row, 0, BODY_BYTES_TARGET
        used += size
    yield start, len(sizes)


def summarise(run: Run, first_entry: int) -> LedgerEnd:
    """Return what the entries of one block come to."""
    times = run.i64(PUBLISH_TIME).tolist()
    indexes, counts = run.i64(FIRST_INDEX), run.u32(MESSAGES)
    return LedgerEnd(
        first_entry + run.count,
        indexes[0],
        indexes[-1] + counts[-1],
        run.body_bytes(),
        min(times),
        max(times),
    )


def together(first: LedgerEnd, then: LedgerEnd) -> LedgerEnd:
    """Return what neighbouring entries come to together."""
    if not first.end:
        return then
    if not then.end:
        return first
    return LedgerEnd(
        then.end,
        first.first_index,
        then.next_index,
        first.bytes + then.bytes,
        min(first.publish_first_ms, then.publish_first_ms),
        max(first.publish_last_ms, then.publish_last_ms),
    )


class _Pieces:
    """The pieces of one block, before they are put together."""

    def __init__(self) -> None:
        self.rows: list[memoryview] = []
        self.bodies: list[Bytes] = []
        self.offsets = array("I")
        """Where each body will lie among the bodies of the block."""

    def add(self, run: Run, body: int) -> int:
        """Add neighbouring entries of one record behind `body` bytes; return the new number."""
        rows = words(run.rows)
        offsets, sizes = rows[OFFSET::_WORDS], rows[LENGTH::_WORDS]
        body_bytes = sum(sizes)
        low = min(offsets)
        high: int = max(map(add, offsets, sizes))
        self.rows.append(run.rows)
        base, buffer = run.base, run.buffer
        if (high - low - body_bytes) * GAP_SHARE_MAX <= body_bytes:
            self.bodies.append(buffer[low - base : high - base])
            shift = body - low
            self.offsets.extend([offset + shift for offset in offsets])
            return body + high - low
        bodies = [
            buffer[offset - base : offset - base + size]
            for offset, size in zip(offsets, sizes, strict=True)
        ]
        if body_bytes < JOIN_BYTES_MAX * len(bodies):
            self.bodies.append(b"".join(bodies))
        else:
            self.bodies += bodies
        placed = array("I", accumulate(sizes, initial=body))
        end: int = placed.pop()
        self.offsets += placed
        return end

    def draft(self, end: int) -> Draft:
        """Put the block together, whose last entry lies before `end`, and begin the next one."""
        joined = b"".join(self.rows)
        rows, longs = array("I"), array("q")
        rows.frombytes(joined)
        longs.frombytes(joined)
        rows[OFFSET::_WORDS] = self.offsets
        times = longs[PUBLISH_TIME::_LONGS]
        summary = LedgerEnd(
            end,
            longs[FIRST_INDEX],
            longs[FIRST_INDEX - _LONGS] + rows[MESSAGES - _WORDS],
            sum(rows[LENGTH::_WORDS]),
            min(times),
            max(times),
        )
        draft = Draft(memoryview(rows).cast("B"), list(self.bodies), summary)
        self.rows.clear()
        self.bodies.clear()
        del self.offsets[:]
        return draft
