"""Broker entry metadata: what the broker knows of an entry, in front of what its producer wrote.

    MESSAGE   size u32 | size u32 | command | 0e 02 | size u32 | 08 time 10 index | 0e 01 | ...
                                              └────── only for clients that know it ──────┘

`time` is when the broker took the entry, in milliseconds since 1970; `index` is that of the last
message in it, counted from the first message that the topic ever took. The block is not part of
what the checksum covers. Source: the Pulsar binary protocol, BrokerEntryMetadata (PIP-70).
"""

from struct import Struct
from typing import NamedTuple

from magnetar.broker.port import Selection
from magnetar.broker.run import BROKER_TIME, FIRST_INDEX, MESSAGES, Bytes, Run
from magnetar.broker.wire.pulsar.codec import encode_messages
from magnetar.broker.wire.pulsar.fields import encode_varint
from magnetar.broker.wire.pulsar.frames import BROKER_METADATA_MAGIC
from magnetar.broker.wire.pulsar.generated.PulsarApi_pb2 import BrokerEntryMetadata
from magnetar.broker.wire.pulsar.replies import JOINED_BYTES_MAX

_HEAD = Struct(">HI")
_SIZES = Struct(">II")
_U32 = Struct(">I")


class EntryMetadata(NamedTuple):
    """One block, read."""

    broker_time_ms: int
    last_index: int
    """Of the last message in the entry."""
    end: int
    """Where the entry itself begins."""


def encode_block(broker_time_ms: int, index: int) -> bytes:
    """Return the block with its magic and size."""
    contents = b"\x08" + encode_varint(broker_time_ms) + b"\x10" + encode_varint(index)
    return _HEAD.pack(BROKER_METADATA_MAGIC, len(contents)) + contents


def read_block(view: memoryview, at: int, end: int) -> EntryMetadata | None:
    """Return the block at the head of `view[at:end]`; None: there is none.

    Raises:
        ValueError: it does not add up.
    """
    if end - at < _HEAD.size:
        return None
    magic, size = _HEAD.unpack_from(view, at)
    if magic != BROKER_METADATA_MAGIC:
        return None
    start = at + _HEAD.size
    if start + size > end:
        raise ValueError(f"{size} bytes of entry metadata, {end - start} are there")
    try:
        block = BrokerEntryMetadata.FromString(bytes(view[start : start + size]))
    except Exception as error:  # protobuf's own, which is no ValueError
        raise ValueError("entry metadata that protobuf cannot read") from error
    return EntryMetadata(block.broker_timestamp, block.index, start + size)


def encode_messages_with_block(
    consumer_id: int, partition: int, run: Run, selection: Selection
) -> list[Bytes]:
    """Return what `encode_messages` does, with a block in front of every entry."""
    times, firsts = run.i64(BROKER_TIME), run.i64(FIRST_INDEX)
    counts = run.u32(MESSAGES)
    buffers: list[Bytes] = []
    small: list[Bytes] = []
    gathered = 0
    for row in selection.rows:
        one = selection._replace(rows=range(row, row + 1))
        head, *rest = encode_messages(consumer_id, partition, run, one)
        block = encode_block(times[row], firsts[row] + counts[row] - 1)
        total_size, command_size = _SIZES.unpack_from(head)
        cut = _SIZES.size + command_size
        pieces: tuple[Bytes, ...] = (
            _U32.pack(total_size + len(block)),
            head[_U32.size : cut],
            block,
            head[cut:],
        )
        if rest or gathered > JOINED_BYTES_MAX:
            buffers.append(b"".join(small))
            small, gathered = [], 0
        small += pieces
        gathered += len(head) + len(block)
        if rest:
            buffers += [b"".join(small), *rest]
            small, gathered = [], 0
    buffers.append(b"".join(small))
    return [each for each in buffers if len(each)]
