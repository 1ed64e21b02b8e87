"""An entry's body opened up: for peeking and other cold paths. The broker itself never does.

    body      metadata_size u32 | MessageMetadata | payload
    payload   as the metadata says: encrypted(compressed(contents))
    contents  the message; or, if num_messages_in_batch is set, that many times
              size u32 | SingleMessageMetadata | payload_size bytes

Compression is of the contents as a whole: LZ4 a raw block, ZLIB a zlib stream, ZSTD a
frame, SNAPPY a raw block. What a message has of its own (key, properties, event time)
comes from its SingleMessageMetadata; the rest it shares with its batch. What is encrypted
stays closed: only its producers and consumers have the keys.
Source: the Pulsar binary protocol specification, "Message metadata" and "Batch messages".
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import cramjam
from google.protobuf.message import DecodeError

from magnetar.broker.run import Bytes
from magnetar.broker.wire.pulsar.generated.PulsarApi_pb2 import (
    LZ4,
    NONE,
    SNAPPY,
    ZLIB,
    ZSTD,
    CompressionType,
    KeyValue,
    MessageMetadata,
    SingleMessageMetadata,
)

CONTENTS_BYTES_MAX = 64 * 1024 * 1024
"""Nothing larger is decompressed, whatever the metadata claims. The broker's largest message."""

_U32 = struct.Struct(">I")
_Part = TypeVar("_Part", MessageMetadata, SingleMessageMetadata)


class BodyError(ValueError):
    """A body cannot be opened. Its producer wrote it so; the entry itself is whole."""


class Message(NamedTuple):
    """One message, with what it shares with its batch filled in."""

    batch_index: int
    """-1: not from a batch, or from one that could not be opened."""
    batch_size: int
    """Messages in the entry; 0: it is no batch."""
    key: str | None
    """As sent: base64 if `key_is_base64`."""
    key_is_base64: bool
    ordering_key: bytes | None
    properties: Mapping[str, str]
    event_time_ms: int
    """The application's time; 0: it set none."""
    publish_time_ms: int
    producer_name: str
    sequence_id: int
    payload: bytes
    null_value: bool = False
    """There is no payload at all, which is not the same as an empty one."""
    compacted_out: bool = False
    """A newer message of the same key is in the same batch."""
    encrypted: bool = False
    """`payload` is as it came: encrypted, compressed, and perhaps a whole batch."""


def split_body(body: Bytes) -> tuple[MessageMetadata, memoryview]:
    """Return the metadata and the payload of an entry's body.

    Raises:
        BodyError: it has no readable metadata.
    """
    part, payload = split_part(memoryview(body), "metadata")
    metadata = parse(MessageMetadata(), part)
    return metadata, payload


def messages(body: Bytes, contents_bytes_max: int = CONTENTS_BYTES_MAX) -> list[Message]:
    """Return the messages of an entry's body, in order.

    Raises:
        BodyError: the body does not add up, or decompresses to more than the limit.
    """
    return opened(*split_body(body), contents_bytes_max)


def opened(
    metadata: MessageMetadata, payload: memoryview, contents_bytes_max: int = CONTENTS_BYTES_MAX
) -> list[Message]:
    """Return the messages of a payload, in order: an entry's, or that of chunks put together.

    Raises:
        BodyError: it does not add up, or decompresses to more than the limit.
    """
    if metadata.encryption_keys:
        return [_alone(metadata, bytes(payload), encrypted=True)]
    contents = decompress(metadata, payload, contents_bytes_max)
    if not metadata.HasField("num_messages_in_batch"):
        return [_alone(metadata, bytes(contents), encrypted=False)]
    return list(_batched(metadata, contents))


def batch_contents(parts: Iterable[tuple[SingleMessageMetadata, bytes]]) -> bytes:
    """Return the contents of a batch, uncompressed. Fills in each `payload_size`."""
    pieces: list[bytes] = []
    for single, payload in parts:
        single.payload_size = len(payload)
        part = single.SerializeToString()
        pieces += (_U32.pack(len(part)), part, payload)
    return b"".join(pieces)


def compress(contents: Bytes, compression: CompressionType) -> bytes:
    """Return contents as they go into a payload. The metadata needs their original size too."""
    return bytes(_COMPRESS[compression](contents))


def _alone(metadata: MessageMetadata, payload: bytes, *, encrypted: bool) -> Message:
    """Return the one message of an entry that is no batch, or cannot be opened."""
    return Message(
        batch_index=-1,
        batch_size=(
            metadata.num_messages_in_batch if metadata.HasField("num_messages_in_batch") else 0
        ),
        key=_text(metadata.partition_key) if metadata.HasField("partition_key") else None,
        key_is_base64=metadata.partition_key_b64_encoded,
        ordering_key=metadata.ordering_key if metadata.HasField("ordering_key") else None,
        properties=_properties(metadata.properties),
        event_time_ms=metadata.event_time,
        publish_time_ms=metadata.publish_time,
        producer_name=_text(metadata.producer_name),
        sequence_id=metadata.sequence_id,
        payload=payload,
        null_value=metadata.null_value,
        encrypted=encrypted,
    )


def singles(
    metadata: MessageMetadata, contents: memoryview
) -> Iterator[tuple[memoryview, SingleMessageMetadata]]:
    """Yield each message of a batch, all its bytes, and what it says of itself.

    Raises:
        BodyError: the contents do not add up.
    """
    size = metadata.num_messages_in_batch
    for index in range(size):
        part, rest = split_part(contents, f"message {index} of {size}")
        single = parse(SingleMessageMetadata(), part)
        if not 0 <= single.payload_size <= len(rest):
            raise BodyError(
                f"message {index} of {size} claims {single.payload_size} bytes,"
                f" the batch has {len(rest)} left"
            )
        end = len(contents) - len(rest) + single.payload_size
        yield contents[:end], single
        contents = contents[end:]


def _batched(metadata: MessageMetadata, contents: memoryview) -> Iterator[Message]:
    """Yield the messages of a batch."""
    size = metadata.num_messages_in_batch
    for index, (whole, single) in enumerate(singles(metadata, contents)):
        yield Message(
            batch_index=index,
            batch_size=size,
            key=_text(single.partition_key) if single.HasField("partition_key") else None,
            key_is_base64=single.partition_key_b64_encoded,
            ordering_key=single.ordering_key if single.HasField("ordering_key") else None,
            properties=_properties(single.properties),
            event_time_ms=single.event_time,
            publish_time_ms=metadata.publish_time,
            producer_name=_text(metadata.producer_name),
            sequence_id=(
                single.sequence_id
                if single.HasField("sequence_id")
                else metadata.sequence_id + index
            ),
            payload=bytes(whole[len(whole) - single.payload_size :]),
            null_value=single.null_value,
            compacted_out=single.compacted_out,
        )


def decompress(
    metadata: MessageMetadata, payload: memoryview, contents_bytes_max: int
) -> memoryview:
    """Return the contents of a payload. Never takes more memory than the limit."""
    if metadata.compression == NONE:
        return payload
    size = metadata.uncompressed_size
    if size > contents_bytes_max:
        raise BodyError(f"contents of {size} bytes, the limit is {contents_bytes_max}")
    if not size:
        return memoryview(b"")
    contents = bytearray(size)
    try:
        written = _DECOMPRESS_INTO[metadata.compression](payload, contents)
    except cramjam.DecompressionError as error:
        name = CompressionType.Name(metadata.compression)
        raise BodyError(f"{name} contents of {size} bytes: {error}") from error
    if written != size:
        raise BodyError(f"contents of {size} bytes came out as {written}")
    return memoryview(contents)


def _lz4_into(payload: memoryview, contents: bytearray) -> int:
    # Without `output_len` the library looks for a size in front, which Pulsar does not write.
    return cramjam.lz4.decompress_block_into(payload, contents, output_len=len(contents))


_DECOMPRESS_INTO: Mapping[int, Callable[[memoryview, bytearray], int]] = {
    LZ4: _lz4_into,
    ZLIB: cramjam.zlib.decompress_into,
    ZSTD: cramjam.zstd.decompress_into,
    SNAPPY: cramjam.snappy.decompress_raw_into,
}

_COMPRESS: Mapping[int, Callable[[Bytes], Any]] = {
    NONE: bytes,
    LZ4: lambda contents: cramjam.lz4.compress_block(contents, store_size=False),
    ZLIB: cramjam.zlib.compress,
    ZSTD: cramjam.zstd.compress,
    SNAPPY: cramjam.snappy.compress_raw,
}


def split_part(content: memoryview, what: str) -> tuple[memoryview, memoryview]:
    """Split `size u32 | part | rest` into part and rest."""
    if len(content) < _U32.size:
        raise BodyError(f"{len(content)} bytes where the size of the {what} should be")
    (size,) = _U32.unpack_from(content)
    if size > len(content) - _U32.size:
        raise BodyError(f"the {what} claims {size} bytes, {len(content) - _U32.size} are left")
    return content[_U32.size : _U32.size + size], content[_U32.size + size :]


def parse(message: _Part, content: memoryview) -> _Part:
    """Fill a message from its bytes."""
    try:
        message.ParseFromString(bytes(content))
    except DecodeError as error:
        raise BodyError(f"{len(content)} bytes that protobuf cannot read") from error
    if not message.IsInitialized():
        raise BodyError(f"a {type(message).__name__} without a field that it must have")
    return message


def _properties(pairs: Sequence[KeyValue]) -> dict[str, str]:
    return {_text(pair.key): _text(pair.value) for pair in pairs}


def _text(value: str | bytes) -> str:
    """Return a text of the metadata. The runtime hands out what is not UTF-8 as bytes."""
    return value if isinstance(value, str) else bytes(value).decode(errors="replace")
