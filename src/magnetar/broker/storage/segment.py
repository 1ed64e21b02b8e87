"""Entry logs: immutable files of blocks, sorted by ledger. Writes and reads their format.

    entries/<worker>-<number:016x>-<salt:08x>.log          little-endian
    ┌────────┬─ ledger 7 ─┬─ ledger 9 ──────┬─────────────┬─────────┬─────────┐
    │ header │ block ...  │ block block ... │ block index │ extents │ trailer │
    └────────┴────────────┴─────────────────┴─────────────┴─────────┴─────────┘
    header       magic 8s | version u32 | crc u32 | worker u64 | number u64 | salt u64
    block        see `block`
    block index  one item per block: first_entry u64 | offset u64 | count u32 | size u32
    extent       neighbouring entries of one ledger, in order of (ledger, first_entry):
                 ledger, first_entry, count, bytes, first_index, next_index,
                 publish_first_ms, publish_last_ms (8 x u64/i64)
                 | first_block u32 | blocks u32 | index_crc u32 | crc u32
    trailer      index_at u64 | extents_at u64 | blocks u32 | extents u32 | tables_crc u32
                 | file_crc u32 | heads sha256 | salt u64 | version u32 | crc u32 | magic 8s

An entry log is written under a name ending in `.tmp`, synced, renamed, and its folder
synced: a file with the right name is whole, or was damaged later. `file_crc` covers every
byte before the trailer; `heads` is the hash of all blocks' headers, which hold the
checksums of everything else in them.

The salt is in the name too: a number used again after a restart is another file.
"""

import hashlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from crc32c import crc32c

from magnetar.broker.files import File, Files
from magnetar.broker.run import Bytes
from magnetar.broker.storage import block
from magnetar.broker.storage.cache import Generation
from magnetar.broker.storage.errors import EMPTY_LEDGER, FormatError, LedgerEnd
from magnetar.broker.storage.packing import Pages
from magnetar.broker.storage.pages import (
    EXTENT,
    EXTENT_FIELDS,
    HEADER,
    INDEX_ITEM,
    MAGIC,
    TRAILER,
    VERSION,
    WRITE_BYTES,
)

SUFFIX = ".log"
UNFINISHED = ".tmp"

HEADER_SIZE = HEADER.size
SCAN_BYTES = 1 << 20
"""How much is read at once where the whole file is."""


class LogDamagedError(Exception):
    """The header, the tables or the trailer of an entry log do not read back."""


class LogName(NamedTuple):
    """What the name of an entry log says."""

    worker: int
    number: int
    salt: int

    def __str__(self) -> str:
        return f"{self.worker}-{self.number:016x}-{self.salt & 0xFFFFFFFF:08x}{SUFFIX}"

    @classmethod
    def parse(cls, name: str) -> "LogName | None":
        """Read a name; None if it is not that of an entry log. Holds 32 bits of the salt."""
        stem, dot, suffix = name.partition(".")
        fields = stem.split("-")
        if dot + suffix != SUFFIX or len(fields) != 3:
            return None
        try:
            return cls(int(fields[0]), int(fields[1], 16), int(fields[2], 16))
        except ValueError:
            return None


class LogFolder(NamedTuple):
    """Where entry logs are written, and how the next one is called."""

    files: Files
    path: Path
    new_name: Callable[[], LogName]


class BlockIndex(NamedTuple):
    """Where the blocks of one extent lie, as columns."""

    firsts: "array[int]"
    offsets: "array[int]"
    counts: "array[int]"
    sizes: "array[int]"


class Table:
    """What is kept in memory of one entry log: a few columns, one item per extent."""

    __slots__ = (
        "blocks",
        "bytes",
        "counts",
        "extents_at",
        "first_blocks",
        "firsts",
        "index_at",
        "ledgers",
        "name",
        "rebuilt",
        "salt",
        "size",
    )

    def __init__(self, name: str, salt: int, size: int, index_at: int, extents_at: int) -> None:
        self.name = name
        self.salt = salt
        self.size = size
        self.index_at = index_at
        self.extents_at = extents_at
        self.ledgers = array("Q")
        self.firsts = array("Q")
        self.counts = array("Q")
        self.bytes = array("Q")
        self.first_blocks = array("I")
        self.blocks = array("I")
        self.rebuilt: list[tuple[LedgerEnd, BlockIndex]] | None = None
        """What lies in the tables of the file, if those had to be found out by reading it all."""

    def add(self, fields: tuple[int, ...]) -> None:
        """Add one extent, as unpacked."""
        self.ledgers.append(fields[0])
        self.firsts.append(fields[1])
        self.counts.append(fields[2])
        self.bytes.append(fields[3])
        self.first_blocks.append(fields[8])
        self.blocks.append(fields[9])

    def add_all(self, extents: bytes) -> None:
        """Add extents as they lie in the file, whose checksums were just made."""
        longs, words = array("Q"), array("I")
        longs.frombytes(extents)
        words.frombytes(extents)
        step = EXTENT.size // 8
        self.ledgers += longs[0::step]
        self.firsts += longs[1::step]
        self.counts += longs[2::step]
        self.bytes += longs[3::step]
        self.first_blocks += words[16 :: 2 * step]
        self.blocks += words[17 :: 2 * step]


class LogWriter:
    """Writes one entry log. Blocks come in order of (ledger, first entry)."""

    def __init__(self, logs: LogFolder) -> None:
        name = logs.new_name()
        self._files = logs.files
        self._folder = logs.path
        self._name = str(name)
        self._salt = name.salt
        self._path = logs.path / (self._name + UNFINISHED)
        self._file = logs.files.open(self._path, create=True)
        self._pages = Pages(name.worker, name.number, name.salt)
        self._position = 0

    def add_generation(self, generation: Generation) -> Iterator[None]:
        """Add all that a generation holds; yield when others should have their turn."""
        for _ in self._pages.fill(generation):
            self._write_enough()
            yield

    def add_block(
        self,
        ledger: int,
        rows: Bytes,
        bodies: Sequence[Bytes],
        summary: LedgerEnd,
        keep_body_crc: int | None = None,
    ) -> None:
        """Add one block; `summary` is that of its entries."""
        self._pages.add(ledger, rows, bodies, summary, keep_body_crc)
        self._write_enough()

    def finish(self) -> Table:
        """Make the file durable under its name, and return its table."""
        tables, pieces = self._pages.end()
        self._write(pieces)
        table = Table(self._name, self._salt, tables.size, tables.index_at, tables.extents_at)
        table.add_all(tables.extents)
        self._file.sync()
        self._file.close()
        self._files.rename(self._path, self._folder / self._name)
        self._files.sync_dir(self._folder)
        return table

    def give_up(self) -> None:
        """Remove the unfinished file."""
        self._file.close()
        if self._files.exists(self._path):
            self._files.remove(self._path)

    def _write_enough(self) -> None:
        if self._pages.gathered >= WRITE_BYTES:
            self._write(self._pages.take())

    def _write(self, pieces: Sequence[Bytes]) -> None:
        self._file.pwritev(pieces, self._position)
        self._position += sum(map(len, pieces))


# --- reading the tables ----------------------------------------------------------------


class Trailer(NamedTuple):
    """The end of an entry log, as in the drawing."""

    index_at: int
    extents_at: int
    blocks: int
    extents: int
    tables_crc: int
    file_crc: int
    heads: bytes
    salt: int
    version: int
    crc: int
    magic: bytes


def read_trailer(file: File) -> Trailer:
    """Read and check the trailer.

    Raises:
        LogDamagedError: there is none, or it is damaged.
        FormatError: a newer version wrote it.
    """
    at = file.size() - TRAILER.size
    if at < HEADER_SIZE:
        raise LogDamagedError(f"{file.size()} bytes are too few for an entry log")
    data = file.pread(TRAILER.size, at)
    trailer = Trailer._make(TRAILER.unpack(data))
    if trailer.magic != MAGIC:
        raise LogDamagedError("there is no trailer")
    if crc32c(TRAILER.pack(*trailer[:-2], 0, MAGIC)) != trailer.crc:
        raise LogDamagedError("the checksum of the trailer does not match")
    if trailer.version != VERSION:
        raise FormatError(f"an entry log of format {trailer.version}; this version reads {VERSION}")
    tables = trailer.blocks * INDEX_ITEM.size + trailer.extents * EXTENT.size
    if trailer.index_at + tables != at:
        raise LogDamagedError("the tables are not where the trailer says")
    return trailer


def load_table(file: File, name: str) -> Table:
    """Read what is kept in memory of an entry log.

    Raises:
        LogDamagedError: an extent or the trailer is damaged.
        FormatError: a newer version wrote it.
    """
    trailer = read_trailer(file)
    table = Table(name, trailer.salt, file.size(), trailer.index_at, trailer.extents_at)
    data = file.pread(trailer.extents * EXTENT.size, trailer.extents_at)
    for at in range(0, trailer.extents * EXTENT.size, EXTENT.size):
        table.add(_unpack_extent(data[at : at + EXTENT.size]))
    return table


def read_summary(file: File, table: Table, row: int) -> LedgerEnd:
    """Read what the entries of one extent come to.

    Raises:
        LogDamagedError: the extent is damaged.
    """
    if table.rebuilt is not None:
        return table.rebuilt[row][0]
    fields = _unpack_extent(file.pread(EXTENT.size, table.extents_at + row * EXTENT.size))
    _, first, count, size, first_index, next_index, publish_first, publish_last, *_ = fields
    return LedgerEnd(first + count, first_index, next_index, size, publish_first, publish_last)


def read_block_index(file: File, table: Table, row: int) -> BlockIndex:
    """Read where the blocks of one extent lie.

    Raises:
        LogDamagedError: the block index or the extent is damaged.
    """
    if table.rebuilt is not None:
        return table.rebuilt[row][1]
    fields = _unpack_extent(file.pread(EXTENT.size, table.extents_at + row * EXTENT.size))
    first_block, count, index_crc = fields[8:11]
    at = table.index_at + first_block * INDEX_ITEM.size
    data = file.pread(count * INDEX_ITEM.size, at)
    if len(data) != count * INDEX_ITEM.size or crc32c(data) != index_crc:
        raise LogDamagedError("the checksum of a block index does not match")
    longs, words = array("Q"), array("I")
    longs.frombytes(data)
    words.frombytes(data)
    return BlockIndex(longs[0::3], longs[1::3], words[4::6], words[5::6])


def _unpack_extent(data: bytes) -> tuple[int, ...]:
    if len(data) != EXTENT.size:
        raise LogDamagedError("the table of extents is cut short")
    fields = EXTENT.unpack(data)
    if crc32c(data[: EXTENT_FIELDS.size]) != fields[-1]:
        raise LogDamagedError("the checksum of an extent does not match")
    return fields


# --- reading it all --------------------------------------------------------------------


class Found(NamedTuple):
    """A block found by reading a file from its start."""

    offset: int
    header: block.BlockHeader
    data: memoryview


def scan_blocks(file: File, salt: int) -> Iterator[Found]:
    """Yield the blocks whose rows are whole, looking beyond whatever is damaged."""
    end = file.size()
    at = HEADER_SIZE
    while at < end:
        found = _block_at(file, at, end, salt)
        if found is not None:
            yield found
            at += found.header.size
            continue
        at = _next_magic(file, at + block.ALIGNMENT, end)


def _block_at(file: File, at: int, end: int, salt: int) -> Found | None:
    header = block.parse_header(file.pread(block.HEADER_SIZE, at), 0, salt)
    if header is None or at + header.head_size > end:
        return None
    data = memoryview(file.pread(header.size, at))
    return Found(at, header, data) if block.head_is_valid(header, data) else None


def _next_magic(file: File, at: int, end: int) -> int:
    """Return where the next block may start, or `end`."""
    while at < end:
        data = file.pread(SCAN_BYTES, at)
        found = data.find(block.MAGIC_BYTES)
        while found >= 0:
            if (at + found) % block.ALIGNMENT == 0:
                return at + found
            found = data.find(block.MAGIC_BYTES, found + 1)
        at += max(block.ALIGNMENT, len(data) - len(block.MAGIC_BYTES) + 1)
        at -= at % block.ALIGNMENT
    return end


def find_salt(file: File) -> int | None:
    """Return the salt of a file whose trailer cannot be read; None if nothing tells it."""
    head = file.pread(HEADER_SIZE, 0)
    if len(head) == HEADER_SIZE:
        magic, version, crc, worker, number, salt = HEADER.unpack(head)
        if crc == crc32c(HEADER.pack(magic, version, 0, worker, number, salt)):
            return int(salt)
    data = file.pread(block.HEADER_SIZE, HEADER_SIZE)
    if len(data) == block.HEADER_SIZE:
        first = block.BlockHeader._make(block.HEADER.unpack(data))
        if first.magic == block.MAGIC:
            return first.salt
    return None


def rebuild_table(file: File, name: str) -> Table:
    """Make the table of a damaged entry log by reading all its blocks.

    Raises:
        LogDamagedError: not even the salt can be told, so no block can be trusted.
    """
    salt = find_salt(file)
    if salt is None:
        raise LogDamagedError("neither trailer, header nor first block can be read")
    table = Table(name, salt, file.size(), 0, 0)
    table.rebuilt = []
    ledger, total = -1, EMPTY_LEDGER
    for found in scan_blocks(file, salt):
        header = found.header
        run = block.decode_unchecked(found.data, header)
        summary = block.summarise(run, header.first_entry)
        if header.ledger != ledger or header.first_entry != total.end:
            ledger, total = header.ledger, EMPTY_LEDGER
            index = BlockIndex(array("Q"), array("Q"), array("I"), array("I"))
            table.rebuilt.append((total, index))
            table.add((ledger, header.first_entry, 0, 0, 0, 0, 0, 0, 0, 0))
        total = block.together(total, summary)
        index.firsts.append(header.first_entry)
        index.offsets.append(found.offset)
        index.counts.append(header.entries)
        index.sizes.append(header.size)
        table.rebuilt[-1] = (total, index)
        table.counts[-1] += header.entries
        table.bytes[-1] = total.bytes
        table.blocks[-1] += 1
    return table


def check_whole(file: File, trailer: Trailer) -> list[str]:
    """Compare the hashes of the whole file; return what does not match."""
    crc = 0
    end = file.size() - TRAILER.size
    for at in range(0, end, SCAN_BYTES):
        crc = crc32c(file.pread(min(SCAN_BYTES, end - at), at), crc)
    wrong = [] if crc == trailer.file_crc else ["the checksum of the whole file does not match"]
    index = file.pread(trailer.blocks * INDEX_ITEM.size, trailer.index_at)
    heads = hashlib.sha256()
    for _, offset, _, _ in INDEX_ITEM.iter_unpack(index):
        heads.update(file.pread(block.HEADER_SIZE, offset))
    if heads.digest() != trailer.heads:
        wrong.append("the hash of the blocks' headers does not match")
    return wrong
