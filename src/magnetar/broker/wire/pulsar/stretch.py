"""Stretches: neighbouring SENDs of one producer, or ids of one ACK, that differ in little.

    size u32 | size u32 | 08 06 32 n 08 producer 10 | sequence | [18 messages] 0e 01 | crc32c u32
    ~~~~~~~~   ══════════════════════════════════     ~~~~~~~~   ═══════════════════   ~~~~~~~~~~
    | metadata_size u32 0a n name 10 | sequence | 18 time ... | payload      ═ the same in all
      ══════════════════════════════   ~~~~~~~~   ═══════════                ~ of each its own

A producer that does not batch sends many of these in a row. What the walker found out about the
first holds for all that follow it, as far as their bytes are the same: so they are not read field
by field, but compared with it, a few pieces each, and their rows are copies of its row with five
columns written over. Whatever is not the same ends the stretch, and is the walker's business; so
is everything that is wrong with a frame. The ids of an ACK, `1a n 08 ledger 10 entry`, are compared
column by column. See docs/performance.md before making it prettier.
"""

from array import array
from collections.abc import Callable
from functools import lru_cache
from struct import Struct
from typing import Any, NamedTuple

from crc32c import crc32c

from magnetar.broker.run import (
    CHECKSUM,
    HIGHEST_SEQUENCE_ID,
    LENGTH,
    OFFSET,
    ROW_SIZE,
    SEQUENCE_ID,
)

FRAMES_MIN = 8
"""Fewer frames than this are read faster one by one: to find out what is the same takes time."""

IDS_MIN = 8
"""The same for the ids of an ACK."""

_FORMS_MAX = 256
"""How many layouts are remembered, the most recently used ones."""

_WORDS = ROW_SIZE // 4
_HEAD = Struct(">II3sBB").unpack_from
_HEAD_SIZE = 13
_SEND = b"\x08\x06\x32"

# A sequence id of so many digits is read as one number, here as code, mask and value of the bits
# that tell where a varint ends. Three digits are read together with the tag before them.
_DIGITS = {
    1: ("B", 0x80, 0),
    2: ("H", 0x8080, 0x8000),
    3: ("I", 0xFF808080, 0x10808000),
    4: ("I", 0x80808080, 0x80808000),
}


class Stretch(NamedTuple):
    """Frames that were taken together."""

    rows: "array[int]"
    """Their rows, as 4-byte words."""
    frames: int
    end: int
    """Position after the last of them."""


class _Layout(NamedTuple):
    """Where the parts of a frame lie, counted from its first byte."""

    digits: int
    """Bytes of a sequence id."""
    sequence: int
    """Where it begins in the command."""
    command_end: int
    again: int
    """Where it begins in the metadata."""
    metadata_end: int


def take_alike(  # noqa: PLR0913, PLR0917 - called from the hottest loop
    buffer: memoryview, model: int, row: bytes, start: int, end: int, frame_bytes_max: int
) -> Stretch | None:
    """Take the whole frames of `buffer[start:end]` that are like the one at `model`.

    That is a SEND which the walker has read by hand and made `row` of. None: there are none.
    """
    layout = _layout(buffer, model)
    if layout is None:
        return None
    digits, _, command_end, _, metadata_end = layout
    _, mask, valid = _DIGITS[digits]
    unpack = _form(layout)
    _, command, _, more, _, metadata, _, rest = unpack(buffer, model)
    skipped = command_end + 6  # magic and checksum
    size_min = metadata_end - 4
    last = end - metadata_end
    bodies: list[int] = []
    lengths: list[int] = []
    checksums: list[int] = []
    sequences: list[int] = []
    while start <= last:
        size, head, sequence, tail, checksum, known, again, time = unpack(buffer, start)
        frame_end = start + 4 + size
        if (
            sequence != again
            or head != command
            or known != metadata
            or time != rest
            or tail != more
            or sequence & mask != valid
            or not size_min <= size <= frame_bytes_max
            or frame_end > end
        ):
            break
        body = start + skipped
        if crc32c(buffer[body:frame_end]) != checksum:
            break
        bodies.append(body)
        lengths.append(frame_end - body)
        checksums.append(checksum)
        sequences.append(sequence)
        start = frame_end
    if not bodies:
        return None
    rows = array("I", row) * len(bodies)
    rows[OFFSET::_WORDS] = array("I", bodies)
    rows[LENGTH::_WORDS] = array("I", lengths)
    rows[CHECKSUM::_WORDS] = array("I", checksums)
    # At most four digits: the upper half of the 8 bytes is 0, as in the row of the model.
    values = array("I", _values(sequences, digits))
    rows[2 * SEQUENCE_ID :: _WORDS] = rows[2 * HIGHEST_SEQUENCE_ID :: _WORDS] = values
    return Stretch(rows, len(bodies), start)


def read_ids_alike(buffer: memoryview, model: int, start: int, end: int) -> tuple[list[int], int]:
    """Return the entries of the ids in `buffer[start:end]` that are like the one before them.

    That one is `buffer[model:start]`, and has been read. The second result is where they end.
    """
    nothing = list[int](), start
    size = start - model
    first = bytes(buffer[model:start])
    entry_at = 3
    while entry_at < size and first[entry_at] > 127:  # the ledger id
        entry_at += 1
    entry_at += 2
    digits = size - entry_at
    if first[1] != size - 2 or first[2] != 0x08 or not 1 <= digits <= 3:
        return nothing
    count = (end - start) // size
    data = bytes(buffer[start : start + count * size])
    for place in range(entry_at):
        column = data[place::size]
        count = min(count, len(column) - len(column.lstrip(first[place : place + 1])))
    if not count or first[entry_at - 1] != 0x10:
        return nothing
    *lower, last = (data[entry_at + place : count * size : size] for place in range(digits))
    if max(last) > 127 or any(min(each) < 128 for each in lower):
        return nothing
    match lower:
        case [low]:
            entries = [a + (b << 7) - 0x80 for a, b in zip(low, last, strict=True)]
        case [low, more]:
            entries = [
                a + (b << 7) + (c << 14) - 0x4080 for a, b, c in zip(low, more, last, strict=True)
            ]
        case _:
            entries = list(last)
    return entries, start + count * size


def _layout(buffer: memoryview, model: int) -> _Layout | None:
    """Look where the parts of a SEND lie; None: it is not of the form drawn above."""
    _, command_size, kind, size, tag = _HEAD(buffer, model)
    if kind != _SEND or size != command_size - 4 or tag != 0x08:
        return None
    command_end = model + 8 + command_size
    at = model + _HEAD_SIZE
    while buffer[at] > 127:  # the producer id
        at += 1
    sequence = at + 2
    digits = _varint_size(buffer, sequence)
    more = buffer[sequence + digits : command_end]
    if buffer[at + 1] != 0x10 or not (len(more) == 0 or (len(more) == 2 and more[0] == 0x18)):
        return None
    metadata = command_end + 10
    if buffer[command_end] != 0x0E or buffer[command_end + 1] != 0x01 or buffer[metadata] != 0x0A:
        return None
    again = metadata + 3 + buffer[metadata + 1]
    metadata_end = metadata + int.from_bytes(buffer[metadata - 4 : metadata])
    if (
        buffer[metadata + 1] > 127
        or again + digits > metadata_end
        or buffer[again - 1] != 0x10
        or digits not in _DIGITS
        or _varint_size(buffer, again) != digits
    ):
        return None
    return _Layout(
        digits, sequence - model, command_end - model, again - model, metadata_end - model
    )


@lru_cache(_FORMS_MAX)
def _form(layout: _Layout) -> Callable[[memoryview, int], tuple[Any, ...]]:
    """Return what cuts a frame into the pieces of the drawing."""
    digits, sequence, command_end, again, metadata_end = layout
    code = _DIGITS[digits][0]
    tag = 1 if digits == 3 else 0
    return Struct(
        f">I{sequence - tag - 4}s{code}{command_end + 2 - sequence - digits}sI"
        f"{again - tag - command_end - 6}s{code}{metadata_end - again - digits}s"
    ).unpack_from


def _varint_size(buffer: memoryview, at: int) -> int:
    size = 1
    while buffer[at + size - 1] > 127:
        size += 1
    return size


def _values(sequences: list[int], digits: int) -> list[int]:
    """Return the numbers whose varints were read as one number each."""
    match digits:
        case 1:
            return sequences
        case 2:
            return [each >> 8 & 0x7F | each << 7 & 0x3F80 for each in sequences]
        case 3:
            return [
                each >> 16 & 0x7F | each >> 1 & 0x3F80 | each << 14 & 0x1FC000 for each in sequences
            ]
        case _:
            return [
                each >> 24 & 0x7F
                | each >> 9 & 0x3F80
                | each << 6 & 0x1FC000
                | each << 21 & 0xFE00000
                for each in sequences
            ]
