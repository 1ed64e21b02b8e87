"""The journal's records: bytes in, records out. Opens no file.

    one record, little-endian, its start a multiple of 8 bytes from the start of its file
    ┌────────┬──────────┬──────┬─────────┬──────────┬──────┬──────┬────────┬────────┐
    │ magic  │ head_crc │ kind │ version │ body_crc │ file │ salt │ number │ synced │
    │  u32   │   u32    │ u16  │   u16   │   u32    │ u64  │ u64  │  u64   │  u64   │
    ├────────┴┬─────────┴───┬──┴───┬─────┴┬─────────┴─┬────┴──────┴────────┴────────┘
    │ parts   │ directory   │ rows │ base │ body      │ pad  │   6 x u32
    │ (count) │ (bytes)     │(count)│     │ (bytes)   │      │
    ├─────────┴─────────────┴──────┴──────┴───────────┴──────┴───────────────────────┐
    │ directory │ rows, 80 bytes each (see `run`) │ body │ zeros up to 8 bytes       │
    └────────────────────────────────────────────────────────────────────────────────┘

`head_crc` covers everything from `kind` to the last row, `body_crc` the body: when only
bodies are damaged, the entries that are not can still be told from those that are.

Files are recycled, so old records lie behind the new ones. `file` and `salt` (random for
each use of a file) tell them apart, and keep a body from passing for a record.

`number` counts records without a gap within one use of a file. `synced` is the highest
number known to be durable when the record was written: what makes it possible to tell a
damaged record that had been acknowledged from one whose sync never returned.

    kind   directory                                  rows     body
    START  -                                          -        -       first in every file:
           numbers between its `synced` and its own do not exist, whatever lies in older files;
           `base` is the size of its file in bytes
    RUN    parts x (ledger, first_entry,              entries  as received, from the first
           first_row << 32 | count,                            body to the last; row.offset -
           characters in the producer's name),                 base is where one starts
           then the names, UTF-8, together
    NOTE   key u64                                    -        payload
    MARK   -                                          -        -       repeats the last number

A row's body is `body[row.offset - base:][:row.length]`. Rows no part points to are void.
"""

import struct
from array import array
from collections.abc import Sequence
from enum import IntEnum
from operator import add
from typing import NamedTuple

from crc32c import crc32c

from magnetar.broker.run import LENGTH, OFFSET, ROW_SIZE, Bytes, Run

MAGIC = 0x314A474D
"""`MGJ1` as it lies in the file."""
MAGIC_BYTES = MAGIC.to_bytes(4, "little")
VERSION = 1

HEADER = struct.Struct("<IIHHIQQQQIIIIII")
HEADER_SIZE = HEADER.size
HEAD_CRC = struct.Struct("<I")
HEAD_CRC_AT = 4
CHECKED_FROM = 8
"""Where in a record the bytes begin that `head_crc` covers."""

ALIGNMENT = 8
PART_WORDS = 4
PART_SIZE = PART_WORDS * 8

FIRST_ROW_SHIFT = 32
COUNT_MASK = (1 << FIRST_ROW_SHIFT) - 1

RECORD_SIZE_MAX = 1 << 30
"""Bytes. A claim beyond it is not a record."""


class Kind(IntEnum):
    """What a record holds."""

    START = 1
    RUN = 2
    NOTE = 3
    MARK = 4


class Part(NamedTuple):
    """Neighbouring rows of a run that are neighbouring entries of one ledger."""

    ledger: int
    first_entry: int
    first_row: int
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs here
    producer: str
    """The producer's name: deduplication learns from it after a crash. Empty: nothing to learn."""


class Header(NamedTuple):
    """The fixed part of a record, as in the drawing."""

    magic: int
    head_crc: int
    kind: int
    version: int
    body_crc: int
    file: int
    salt: int
    number: int
    synced: int
    parts: int
    directory: int
    rows: int
    base: int
    body: int
    pad: int

    @property
    def head_size(self) -> int:
        """Bytes before the body."""
        return HEADER_SIZE + self.directory + self.rows * ROW_SIZE

    @property
    def size(self) -> int:
        """Bytes of the whole record, padding included."""
        return aligned(self.head_size + self.body)


def aligned(size: int) -> int:
    """Return `size` rounded up to where the next record may start."""
    return size + (-size % ALIGNMENT)


def parse_header(data: Bytes, offset: int = 0) -> Header | None:
    """Read the fixed part of what may be a record; None if it cannot be one."""
    if len(data) - offset < HEADER_SIZE:
        return None
    header = Header._make(HEADER.unpack_from(data, offset))
    if header.magic != MAGIC or header.version != VERSION or header.size > RECORD_SIZE_MAX:
        return None
    return header


def head_is_valid(header: Header, record: memoryview) -> bool:
    """Tell whether the record's first `head_size` bytes are as they were written."""
    head = record[CHECKED_FROM : header.head_size]
    return (
        len(record) >= header.head_size
        and header.directory >= header.parts * PART_SIZE
        and crc32c(head) == header.head_crc
    )


def body_is_valid(header: Header, record: memoryview) -> bool:
    """Tell whether the record's body is as it was written."""
    body = record[header.head_size : header.head_size + header.body]
    return len(body) == header.body and crc32c(body) == header.body_crc


def encode_directory(parts: Sequence[Part]) -> bytes:
    """Return the directory of a run's record, padded to 8 bytes."""
    words: list[int] = []
    names: list[str] = []
    for ledger, first_entry, first_row, count, producer in parts:
        words += (ledger, first_entry, first_row << FIRST_ROW_SHIFT | count, len(producer))
        names.append(producer)
    text = "".join(names).encode("utf-8", "surrogatepass")
    return array("Q", words).tobytes() + text + bytes(-len(text) % ALIGNMENT)


class Laid(NamedTuple):
    """Where a run lies in the memory of its record."""

    size: int
    """Of the record, header and padding included."""
    directory: int
    low: int
    """Where in the run's buffer the record's body begins."""
    body: int


def lay(  # noqa: PLR0913, PLR0917 - a run, taken apart, and where it is to lie
    view: memoryview,
    at: int,
    parts: Sequence[Part],
    rows: memoryview,
    buffer: memoryview,
    base: int,
) -> Laid:
    """Write a run's record, but for its header, into `view` from `at` on.

    Where there is no room, nothing is written: the caller sees from the size, and comes again.

    Raises:
        ValueError: there are no rows, or one points outside of the run's buffer.
    """
    if not rows:
        raise ValueError("a record of no rows")
    # Columns of a copy are cut out in C; a strided view is read item by item.
    words = array("I")
    words.frombytes(rows)
    step = ROW_SIZE // 4
    offsets, lengths = words[OFFSET::step], words[LENGTH::step]
    low, high = min(offsets) - base, max(map(add, offsets, lengths)) - base
    if low < 0 or high > len(buffer):
        raise ValueError("a row points outside of its run")
    directory = encode_directory(parts)
    rows_at = at + HEADER_SIZE + len(directory)
    body_at = rows_at + len(rows)
    used = body_at + high - low
    laid = Laid(aligned(used - at), len(directory), low, high - low)
    end = at + laid.size
    if at >= 0 and end <= len(view):
        view[at + HEADER_SIZE : rows_at] = directory
        view[rows_at:body_at] = rows
        view[body_at:used] = buffer[low:high]
        view[used:end] = bytes(end - used)
    return laid


def decode_directory(header: Header, record: memoryview) -> list[Part]:
    """Return the parts of a run's record whose head is valid."""
    words_end = HEADER_SIZE + header.parts * PART_SIZE
    words = record[HEADER_SIZE:words_end].cast("Q").tolist()
    names = bytes(record[words_end : HEADER_SIZE + header.directory])
    text = names.decode("utf-8", "surrogatepass")
    parts = []
    at = 0
    for word in range(0, len(words), PART_WORDS):
        ledger, first_entry, rows, length = words[word : word + PART_WORDS]
        first_row, count = rows >> FIRST_ROW_SHIFT, rows & COUNT_MASK
        parts.append(Part(ledger, first_entry, first_row, count, text[at : at + length]))
        at += length
    return parts


def decode_run(header: Header, record: memoryview) -> Run:
    """Return the entries of a run's record, as views of it."""
    rows_at = HEADER_SIZE + header.directory
    body_at = header.head_size
    return Run(record[rows_at:body_at], record[body_at : body_at + header.body], header.base)


def decode_note(header: Header, record: memoryview) -> tuple[int, bytes]:
    """Return key and payload of a note's record."""
    key = int.from_bytes(record[HEADER_SIZE : HEADER_SIZE + 8], "little")
    return key, bytes(record[header.head_size : header.head_size + header.body])


def finish(  # noqa: PLR0913, PLR0917 - the fields of one header
    record: memoryview,
    kind: int,
    file: int,
    salt: int,
    number: int,
    synced: int,
    parts: int,
    directory: int,
    rows: int,
    base: int,
    body: int,
) -> None:
    """Write the header of a record whose directory, rows and body are in place."""
    body_at = HEADER_SIZE + directory + rows * ROW_SIZE
    body_crc = crc32c(record[body_at : body_at + body]) if body else 0
    HEADER.pack_into(
        record, 0, MAGIC, 0, kind, VERSION, body_crc,
        file, salt, number, synced, parts, directory, rows, base, body, 0,
    )  # fmt: skip
    HEAD_CRC.pack_into(record, HEAD_CRC_AT, crc32c(record[CHECKED_FROM:body_at]))


def start(file: int, salt: int, number: int, synced: int, file_bytes: int) -> bytearray:
    """Return the first record of a file."""
    record = bytearray(HEADER_SIZE)
    finish(memoryview(record), Kind.START, file, salt, number, synced, 0, 0, 0, file_bytes, 0)
    return record


def mark(file: int, salt: int, number: int, synced: int) -> bytearray:
    """Return a record that only says what is durable."""
    record = bytearray(HEADER_SIZE)
    finish(memoryview(record), Kind.MARK, file, salt, number, synced, 0, 0, 0, 0, 0)
    return record
