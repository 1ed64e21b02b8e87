"""The two replies that come in thousands: SEND_RECEIPT and MESSAGE.

    SEND_RECEIPT  size u32 | size u32 | 08 07 3a n | 08 producer 10 sequence
                  1a n | 08 ledger 10 entry                [20 highest sequence, if it differs]
    MESSAGE       size u32 | size u32 | 08 09 4a n | 08 consumer
                  12 n | 08 ledger 10 entry [18 partition]
                  [18 redeliveries] [20 word of the ack set]* [28 epoch] | 0e 01 | crc32c u32 | body

One call writes all receipts of a commit for one connection, or one selection for one
consumer. Fields that are the same in every frame are encoded once; the body and its
checksum go out as they were stored.

A producer that does not batch numbers its entries 1, 2, 3, as the log does. Receipts for
such a stretch are one template, repeated, into which the digits are written column by
column: thousands of frames in a few strided copies. So are the heads of many messages.
"""

import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate, chain
from operator import add
from struct import Struct
from typing import NamedTuple

from magnetar.broker.port import Group, Selection
from magnetar.broker.run import (
    CHECKSUM,
    HIGHEST_SEQUENCE_ID,
    LENGTH,
    OFFSET,
    SEQUENCE_ID,
    Bytes,
    Run,
)
from magnetar.broker.wire.pulsar.fields import encode_varint
from magnetar.broker.wire.pulsar.frames import CHECKSUM_MAGIC

JOIN_BYTES_MAX = 4 * 1024
"""Bodies that average less than this are copied into few large pieces; larger ones are not."""
JOINED_BYTES_MAX = 96 * 1024
"""Size of one such piece. From 128 KiB on, C allocators fetch fresh pages for every allocation,
and faulting those in costs far more than the copy."""
STRETCH_MIN = 12
"""From so many consecutive receipts on, writing columns is faster than writing frames."""

_pack_u32 = Struct(">I").pack
_pack_sizes = Struct(">II").pack
_MAGIC = Struct(">H").pack(CHECKSUM_MAGIC)

_DIGITS_MORE = bytes(range(128, 256))
_DIGITS_LAST = bytes(range(128))

# Everything before the producer id, by the size of the receipt's contents.
_RECEIPT_HEADS = tuple(
    _pack_sizes(size + 8, size + 4) + bytes((0x08, 0x07, 0x3A, size, 0x08)) for size in range(128)
)
# The start of the message id within it, by the sizes of ledger and entry id together.
_ID_HEADS = tuple(bytes((0x1A, size + 2, 0x08)) for size in range(32))


# --- receipts ----------------------------------------------------------------------------


def encode_receipts(producer_ids: Sequence[int], run: Run, groups: Sequence[Group]) -> bytes:
    """Return a SEND_RECEIPT for every row of `groups`, in their order.

    `producer_ids[slot]` is what the client calls the producer of a group. Groups that were
    refused are not for here. Rows of a group with `ledger` -1 get the id -1:-1.
    """
    lowest = run.i64(SEQUENCE_ID).tolist()
    highest = run.i64(HIGHEST_SEQUENCE_ID).tolist()
    receipts: list[Bytes] = []
    for slot, first, count, ledger_id, entry_id, _ in groups:
        producer = encode_varint(producer_ids[slot])
        end = first + count
        if (
            count >= STRETCH_MIN
            and ledger_id >= 0
            and lowest[first] >= 0
            and lowest[first:end] == list(range(lowest[first], lowest[first] + count))
            and lowest[first:end] == highest[first:end]
        ):
            _stretch(receipts, producer, count, ledger_id, entry_id, lowest[first])
            continue
        ledger = encode_varint(ledger_id)
        if count == 1 and ledger_id >= 0 and lowest[first] == highest[first]:
            # Without batches, over many topics: most groups are one row.
            sequence, entry = encode_varint(lowest[first]), encode_varint(entry_id)
            size = len(producer) + len(sequence) + len(ledger) + len(entry) + 6
            receipts += (
                _RECEIPT_HEADS[size],
                producer,
                b"\x10",
                sequence,
                _ID_HEADS[len(ledger) + len(entry)],
                ledger,
                b"\x10",
                entry,
            )
            continue
        start = producer + b"\x10"
        # The contents without the ids: 08 producer 10, then 1a n 08 ledger 10.
        fixed = len(producer) + len(ledger) + 6
        for row in range(first, end):
            sequence = encode_varint(lowest[row])
            entry = encode_varint(entry_id + row - first if ledger_id >= 0 else -1)
            more = b"" if highest[row] == lowest[row] else b"\x20" + encode_varint(highest[row])
            receipts += (
                _RECEIPT_HEADS[fixed + len(sequence) + len(entry) + len(more)],
                start,
                sequence,
                _ID_HEADS[len(ledger) + len(entry)],
                ledger,
                b"\x10",
                entry,
                more,
            )
    return b"".join(receipts)


def _stretch(  # noqa: PLR0913, PLR0917 - a group, taken apart
    receipts: list[Bytes],
    producer: bytes,
    left: int,
    ledger_id: int,
    entry_id: int,
    sequence_id: int,
) -> None:
    """Append `left` receipts for sequence ids and entry ids that both count up by one."""
    ledger = encode_varint(ledger_id)
    while left:
        # As long as neither number grows by a byte, all frames have the same size.
        sequence, entry = encode_varint(sequence_id), encode_varint(entry_id)
        count = min(left, (1 << 7 * len(sequence)) - sequence_id, (1 << 7 * len(entry)) - entry_id)
        template = b"".join(
            (
                _RECEIPT_HEADS[len(producer) + len(sequence) + len(ledger) + len(entry) + 6],
                producer,
                b"\x10",
                sequence,
                _ID_HEADS[len(ledger) + len(entry)],
                ledger,
                b"\x10",
                entry,
            )
        )
        size = len(template)
        frames = bytearray(template) * count
        entry_at = size - len(entry)
        sequence_at = entry_at - len(ledger) - 4 - len(sequence)
        _count_up(frames, sequence_at, size, sequence_id, len(sequence), count)
        _count_up(frames, entry_at, size, entry_id, len(entry), count)
        receipts.append(frames)
        sequence_id += count
        entry_id += count
        left -= count


def _count_up(  # noqa: PLR0913, PLR0917 - where, what and how often
    frames: bytearray, at: int, step: int, first: int, size: int, count: int
) -> None:
    """Write the varints `first`, `first + 1`, ... of `size` bytes each `step` bytes from `at`."""
    last = first + count - 1
    for place in range(size):
        shift = 7 * place
        if first >> shift == last >> shift:
            return  # this digit and all higher ones are those of the template
        digits = _DIGITS_LAST if place == size - 1 else _DIGITS_MORE
        if place == 0:
            turns = (first & 127) + count
            column = (digits * (turns // 128 + 1))[first & 127 : turns]
        else:
            unit = 1 << shift
            skipped = first & unit - 1
            column = b"".join(
                digits[value & 127 : (value & 127) + 1] * unit
                for value in range(first >> shift, (last >> shift) + 1)
            )[skipped : skipped + count]
        frames[at + place :: step] = column


# --- messages ----------------------------------------------------------------------------


def encode_messages(
    consumer_id: int, partition: int, run: Run, selection: Selection
) -> list[Bytes]:
    """Return the MESSAGE frames of a selection as buffers to be written one after the other.

    Small bodies are copied into buffers of up to `JOINED_BYTES_MAX`; large ones are views of the
    run's buffer. `partition` is -1 on a topic that is no partition.
    """
    rows = selection.rows
    offsets = _pick(run.u32(OFFSET), rows)
    lengths = _pick(run.u32(LENGTH), rows)
    checksums = _pick(run.u32(CHECKSUM), rows)
    join = sum(lengths) < JOIN_BYTES_MAX * len(rows)
    start_of_id = b"\x08" + encode_varint(selection.ledger) + b"\x10"
    end_of_id = b"" if partition == -1 else b"\x18" + encode_varint(partition)
    epoch = b"" if selection.epoch is None else b"\x28" + encode_varint(selection.epoch)
    consumer = b"\x08" + encode_varint(consumer_id)
    redeliveries, ack_sets = selection.redeliveries, selection.ack_sets
    plain = not redeliveries and not ack_sets
    if plain and join and len(rows) >= STRETCH_MIN:
        places = [offset - run.base for offset in offsets]
        frame = _Frame(consumer + b"\x12", start_of_id, end_of_id, end_of_id + epoch + _MAGIC)
        heads = _heads(frame, selection, lengths, checksums)
        return _joined(heads, run.buffer, places, lengths)
    around: dict[int, tuple[int, bytes, bytes]] = {}
    buffer, base, first_entry = run.buffer, run.base, selection.first_entry
    buffers: list[Bytes] = []
    pieces: list[Bytes] = []
    gathered = 0
    for row, offset, length, checksum in zip(rows, offsets, lengths, checksums, strict=True):
        entry = encode_varint(first_entry + row)
        if plain and len(entry) in around:
            command_size, before, after = around[len(entry)]
        else:
            extra = epoch if plain else _delivery(row, redeliveries, ack_sets) + epoch
            after = end_of_id + extra + _MAGIC
            id_size = encode_varint(len(start_of_id) + len(entry) + len(end_of_id))
            before = consumer + b"\x12" + id_size + start_of_id
            size = len(before) + len(entry) + len(end_of_id) + len(extra)
            before = b"\x08\x09\x4a" + encode_varint(size) + before
            command_size = len(before) + len(entry) + len(end_of_id) + len(extra)
            before = _pack_u32(command_size) + before
            around[len(entry)] = command_size, before, after
        total_size = command_size + 10 + length
        start = offset - base
        if join and gathered + total_size > JOINED_BYTES_MAX and pieces:
            buffers.append(b"".join(pieces))
            pieces.clear()
            gathered = 0
        pieces += (_pack_u32(total_size), before, entry, after, _pack_u32(checksum))
        if join:
            pieces.append(buffer[start : start + length])
            gathered += total_size
        else:
            buffers += (b"".join(pieces), buffer[start : start + length])
            pieces.clear()
    if pieces:
        buffers.append(b"".join(pieces))
    return buffers


class _Frame(NamedTuple):
    """What is the same in all MESSAGE frames of a selection."""

    consumer: bytes
    start_of_id: bytes
    end_of_id: bytes
    after: bytes
    """Everything between the entry id and the checksum, the end of the id included."""


def _heads(
    frame: _Frame, selection: Selection, lengths: Sequence[int], checksums: Sequence[int]
) -> list[bytes]:
    """Return what comes before each body, made of columns like a stretch of receipts."""
    rows, first_entry = selection.rows, selection.first_entry
    heads: list[bytes] = []
    at = 0
    while at < len(rows):
        first = first_entry + rows[at]
        entry = encode_varint(first)
        end = bisect_left(rows, (1 << 7 * len(entry)) - first_entry, at)
        id_size = len(frame.start_of_id) + len(entry) + len(frame.end_of_id)
        before = frame.consumer + encode_varint(id_size) + frame.start_of_id
        size = len(before) + len(entry) + len(frame.after) - len(_MAGIC)
        before = b"\x08\x09\x4a" + encode_varint(size) + before
        size = len(before) + len(entry) + len(frame.after) - len(_MAGIC)
        template = bytes(4) + _pack_u32(size) + before + entry + frame.after + bytes(4)
        step = len(template)
        frames = bytearray(template) * (end - at)
        _fill_in(frames, 0, step, [step - 4 + length for length in lengths[at:end]])
        _fill_in(frames, step - 4, step, checksums[at:end])
        entry_at = 8 + len(before)
        if rows[end - 1] - rows[at] == end - 1 - at:
            _count_up(frames, entry_at, step, first, len(entry), end - at)
        else:
            for place in range(len(entry)):
                more = 0 if place == len(entry) - 1 else 128
                shift = 7 * place
                frames[entry_at + place :: step] = bytes(
                    [first_entry + row >> shift & 127 | more for row in rows[at:end]]
                )
        heads += chain.from_iterable(Struct(f"{step}s").iter_unpack(frames))
        at = end
    return heads


def _fill_in(frames: bytearray, at: int, step: int, values: Sequence[int]) -> None:
    """Write numbers of 4 bytes, the highest first, each `step` bytes from `at`."""
    column = array("I", values)
    if sys.byteorder == "little":
        column.byteswap()
    data = column.tobytes()
    for place in range(4):
        frames[at + place :: step] = data[place::4]


def _joined(
    heads: Sequence[bytes], buffer: memoryview, places: Sequence[int], lengths: Sequence[int]
) -> list[Bytes]:
    """Return frames in buffers of `JOINED_BYTES_MAX`, or of one frame where that is larger."""
    pieces: list[Bytes] = [b""] * (2 * len(heads))
    pieces[::2] = heads
    pieces[1::2] = [buffer[at : at + size] for at, size in zip(places, lengths, strict=True)]
    ends = list(accumulate(map(add, map(len, heads), lengths)))
    buffers: list[Bytes] = []
    first = taken = 0
    while first < len(ends):
        after = max(bisect_right(ends, taken + JOINED_BYTES_MAX), first + 1)
        buffers.append(b"".join(pieces[2 * first : 2 * after]))
        first, taken = after, ends[after - 1]
    return buffers


def _delivery(
    row: int, redeliveries: Mapping[int, int], ack_sets: Mapping[int, Sequence[int]]
) -> bytes:
    """Return the fields that tell what happened to an entry in earlier deliveries."""
    count = redeliveries.get(row, 0)
    return b"".join(
        (
            b"\x18" + encode_varint(count) if count else b"",
            *(b"\x20" + encode_varint(word) for word in ack_sets.get(row, ())),
        )
    )


def _pick(column: memoryview, rows: Sequence[int]) -> list[int]:
    """Return a column's values in the given rows."""
    if isinstance(rows, range):
        return column[rows.start : rows.stop : rows.step].tolist()
    return [column[row] for row in rows]
