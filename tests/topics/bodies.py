"""Bodies as Pulsar's clients write them, and runs of them."""

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from crc32c import crc32c

from magnetar.broker.entry import EntryFlags, EntryId
from magnetar.broker.run import ROW, Run
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.broker.wire.pulsar.metadata import batch_contents, compress, messages

_U32 = struct.Struct(">I")


class Written(NamedTuple):
    """One entry, not published yet."""

    body: bytes
    messages: int = 1
    flags: int = 0


class Said(NamedTuple):
    """One message: its key, and what it says; None deletes the key."""

    key: str | None
    value: bytes | None


def metadata(**fields: Any) -> api.MessageMetadata:
    return api.MessageMetadata(producer_name="p", sequence_id=0, publish_time=1, **fields)


def body_of(about: api.MessageMetadata, payload: bytes) -> bytes:
    part = about.SerializeToString()
    return _U32.pack(len(part)) + part + payload


def single(said: Said, compression: api.CompressionType = api.NONE, **fields: Any) -> Written:
    about = metadata(**fields)
    if said.key is not None:
        about.partition_key = said.key
    contents = said.value or b""
    about.null_value = said.value is None
    about.compression = compression
    if compression != api.NONE:
        about.uncompressed_size = len(contents)
    return Written(body_of(about, compress(contents, compression)))


def batch(
    said: Sequence[Said], compression: api.CompressionType = api.NONE, *, encrypted: bool = False
) -> Written:
    about = metadata(num_messages_in_batch=len(said), compression=compression)
    if said[0].key is not None:
        about.partition_key = said[0].key
    parts = []
    for each in said:
        one = api.SingleMessageMetadata(payload_size=0, null_value=each.value is None)
        if each.key is not None:
            one.partition_key = each.key
        parts.append((one, each.value or b""))
    contents = batch_contents(parts)
    if compression != api.NONE:
        about.uncompressed_size = len(contents)
    flags = EntryFlags.BATCH
    if encrypted:
        about.encryption_keys.add(key="k", value=b"v")
        flags |= EntryFlags.ENCRYPTED
    return Written(body_of(about, compress(contents, compression)), len(said), flags)


def chunks(said: Said, uuid: str, count: int) -> list[Written]:
    value = said.value or b""
    step = -(-len(value) // count)
    found = []
    for number in range(count):
        about = metadata(
            uuid=uuid,
            chunk_id=number,
            num_chunks_from_msg=count,
            total_chunk_msg_size=len(value),
        )
        if said.key is not None:
            about.partition_key = said.key
        flags = EntryFlags.CHUNK | (EntryFlags.LAST_CHUNK if number + 1 == count else 0)
        found.append(Written(body_of(about, value[number * step : (number + 1) * step]), 1, flags))
    return found


def run_of(written: Sequence[Written], first_sequence_id: int = 0) -> Run:
    """A run of one producer in slot 0, as a walker makes it."""
    packed, buffer = bytearray(), bytearray()
    for number, (body, count, flags) in enumerate(written, start=first_sequence_id):
        packed += ROW.pack(
            len(buffer), len(body), crc32c(body), count, 0, flags, 0, 0, number, number,
            1_700_000_000_000 + number, 0, 0, 0,
        )  # fmt: skip
        buffer += body
    return Run(packed, buffer)


class Read(NamedTuple):
    """One message as a reader makes it of what it gets."""

    id: EntryId
    batch_index: int
    key: str | None
    value: bytes | None


def read(id_: EntryId, body: bytes, left: Sequence[int] = ()) -> list[Read]:
    """Open an entry as a client does: what is compacted out or acknowledged is not shown."""
    found = []
    for each in messages(body):
        index = max(each.batch_index, 0)
        acked = bool(left) and not left[index // 64] >> index % 64 & 1
        if not each.compacted_out and not acked:
            value = None if each.null_value else each.payload
            found.append(Read(id_, each.batch_index, each.key, value))
    return found
