"""The pages of an entry log: the bytes of its file, in the order in which they are written.

    fill   a generation of the write cache, ledger by ledger ─┐
    add    a block that is copied from another log ───────────┴─▶ pieces ──take──▶ the file's writer
    end    block index, extents, trailer: see `segment`, which draws them

    pieces ▣▣▣▣▣▣▣▣ ▢ ▣▣ ▢    ▣ copied together, in memory that is used again
                              ▢ large bodies, as they lie in the slabs: not copied at all

Opens no file, and does no more than a slice at a time: whoever writes the file decides when
others get their turn.
"""

import hashlib
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from crc32c import crc32c

from magnetar.broker.run import ROW_SIZE, Bytes
from magnetar.broker.storage import block
from magnetar.broker.storage.cache import Generation
from magnetar.broker.storage.errors import EMPTY_LEDGER, LedgerEnd

MAGIC = b"MGNTRLOG"
VERSION = 1

HEADER = struct.Struct("<8sIIQQQ")
INDEX_ITEM = struct.Struct("<QQII")
EXTENT = struct.Struct("<4Q4qIIII")
EXTENT_FIELDS = struct.Struct("<4Q4qIII")
"""The same without its checksum."""
TRAILER = struct.Struct("<QQIIII32sQII8s")

WRITE_BYTES = 1 << 20
"""Blocks are gathered up to this before they are written."""
BLOCKS_PER_SLICE = 32
"""Blocks made between two turns of others; small ones take about 10 microseconds each."""
VIEW_BYTES_MIN = 16 * 1024
"""Bodies from this size on are written from where they lie; what is smaller is copied together,
because each piece of a write costs something too."""


class Tables(NamedTuple):
    """Where the tables of a finished log are, and what is in the one that is kept in memory."""

    index_at: int
    extents_at: int
    extents: bytes
    size: int
    """Of the whole file."""


def header(worker: int, number: int, salt: int) -> bytes:
    """Return what a log begins with."""
    crc = crc32c(HEADER.pack(MAGIC, VERSION, 0, worker, number, salt))
    return HEADER.pack(MAGIC, VERSION, crc, worker, number, salt)


def trailer(  # noqa: PLR0913, PLR0917 - its fields
    index_at: int,
    extents_at: int,
    blocks: int,
    extents: int,
    tables_crc: int,
    file_crc: int,
    heads: bytes,
    salt: int,
) -> bytes:
    """Return what a log ends with."""
    fields = index_at, extents_at, blocks, extents, tables_crc, file_crc, heads, salt, VERSION
    return TRAILER.pack(*fields, crc32c(TRAILER.pack(*fields, 0, MAGIC)), MAGIC)


class Pages:
    """The bytes of one entry log. Blocks come in order of (ledger, first entry)."""

    def __init__(self, worker: int, number: int, salt: int) -> None:
        self._salt = salt
        self._position = 0
        self._crc = 0
        self._heads = hashlib.sha256()
        self._new_heads = bytearray()
        self._memory = memoryview(bytearray(WRITE_BYTES))
        self._begun = self._used = 0
        self._pieces: list[Bytes] = []
        self._index: list[bytes] = []
        self._extents: list[bytes] = []
        self._ledger = -1
        self._first = 0
        self._first_block = 0
        self._sum = EMPTY_LEDGER
        self.gathered = 0
        """Bytes made and not taken yet."""
        self._put(header(worker, number, salt))

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._position + self.gathered

    def fill(self, generation: Generation) -> Iterator[None]:
        """Add all that a generation holds; yield between slices, or when enough is there to take.

        Every record of it must be durable.
        """
        made = 0
        for ledger in sorted(generation.tails):
            for draft in block.drafts(generation, generation.tails[ledger]):
                self.add(ledger, draft.rows, draft.bodies, draft.summary)
                made += 1
                if made == BLOCKS_PER_SLICE or self.gathered >= WRITE_BYTES:
                    made = 0
                    yield

    def add(
        self,
        ledger: int,
        rows: Bytes,
        bodies: Sequence[Bytes],
        summary: LedgerEnd,
        keep_body_crc: int | None = None,
    ) -> None:
        """Add one block; `summary` is that of its entries."""
        count = len(rows) // ROW_SIZE
        first = summary.end - count
        if ledger != self._ledger or first != self._sum.end:
            self._close_extent()
            self._ledger, self._first = ledger, first
            self._first_block = len(self._index)
        self._sum = block.together(self._sum, summary)
        at = self.size
        head, padding = block.encode(self._salt, ledger, first, rows, bodies, keep_body_crc)
        self._put(head)
        self._put(rows)
        for body in bodies:
            self._put(body)
        if padding:
            self._put(padding)
        self._new_heads += head
        self._index.append(INDEX_ITEM.pack(first, at, count, self.size - at))

    def take(self) -> list[Bytes]:
        """Return what is to be written next. It must be written before anything else is added."""
        self._cut()
        pieces, self._pieces = self._pieces, []
        for piece in pieces:
            self._crc = crc32c(piece, self._crc)
        self._heads.update(self._new_heads)
        self._new_heads.clear()
        self._position += self.gathered
        self._begun = self._used = self.gathered = 0
        return pieces

    def end(self) -> tuple[Tables, list[Bytes]]:
        """Return what the file ends with: its tables, and the pieces to be written last."""
        self._close_extent()
        index_at = self.size
        index, extents = b"".join(self._index), b"".join(self._extents)
        self._put(index)
        self._put(extents)
        pieces = self.take()
        extents_at = index_at + len(index)
        last = trailer(
            index_at, extents_at, len(self._index), len(self._extents),
            crc32c(extents, crc32c(index)), self._crc, self._heads.digest(), self._salt,
        )  # fmt: skip
        pieces.append(last)
        return Tables(index_at, extents_at, extents, self._position + len(last)), pieces

    def _put(self, data: Bytes) -> None:
        """Add bytes behind those that were added before."""
        size = len(data)
        self.gathered += size
        room = len(self._memory) - self._used
        if size >= VIEW_BYTES_MIN or size > room:
            self._cut()
            self._pieces.append(data)
            return
        self._memory[self._used : self._used + size] = data
        self._used += size

    def _cut(self) -> None:
        """Make a piece of what was copied together."""
        if self._used > self._begun:
            self._pieces.append(self._memory[self._begun : self._used])
            self._begun = self._used

    def _close_extent(self) -> None:
        if self._ledger < 0:
            return
        index = self._index[self._first_block :]
        total = self._sum
        fields = (
            self._ledger, self._first, total.end - self._first, total.bytes,
            total.first_index, total.next_index, total.publish_first_ms, total.publish_last_ms,
            self._first_block, len(index), crc32c(b"".join(index)),
        )  # fmt: skip
        extent = EXTENT_FIELDS.pack(*fields)
        self._extents.append(extent + crc32c(extent).to_bytes(4, "little"))
        self._ledger = -1
        self._sum = EMPTY_LEDGER
