"""A body as compaction sees it: whose key it has, and a batch without some of its messages.

    body ──▶ Opened ─┬─ one message         key, and whether it deletes its key
                     ├─ a chunk of one      uuid, number; the key is that of the whole
                     ├─ a batch             contents ──▶ key of each message
                     │                      contents + what to keep ──▶ a smaller body
                     └─ sealed              encrypted batch, or not readable: nobody can tell

A batch that loses messages keeps its number of messages, so that the others keep their index:
what is left out is empty and marked as compacted out, and the metadata lists what is left.
Source: the Pulsar binary protocol; what its compactor writes (RawBatchConverter) and what its
clients leave out.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence

from magnetar.broker.run import Bytes
from magnetar.broker.wire.pulsar.generated.PulsarApi_pb2 import (
    NONE,
    MessageMetadata,
    SingleMessageMetadata,
)
from magnetar.broker.wire.pulsar.metadata import (
    CONTENTS_BYTES_MAX,
    BodyError,
    compress,
    decompress,
    singles,
    split_body,
)

_U32 = struct.Struct(">I")
_GONE = SingleMessageMetadata(compacted_out=True, payload_size=0).SerializeToString()
_GONE_PIECE = _U32.pack(len(_GONE)) + _GONE

Keyed = tuple[bytes | None, bool]
"""The key of a message, and whether it deletes what the key had."""


class Opened:
    """What compaction wants to know of one body."""

    __slots__ = ("_metadata", "_payload")

    def __init__(self, metadata: MessageMetadata | None, payload: memoryview) -> None:
        """Look at a body that was split; without metadata it is one that cannot be read."""
        self._metadata = metadata
        self._payload = payload

    @property
    def sealed(self) -> bool:
        """Nobody can tell what is in it."""
        metadata = self._metadata
        return metadata is None or (self.batch and bool(metadata.encryption_keys))

    @property
    def batch(self) -> bool:
        """It holds messages with keys of their own."""
        return self._metadata is not None and self._metadata.HasField("num_messages_in_batch")

    @property
    def key(self) -> bytes | None:
        """The key of its one message, as sent."""
        metadata = self._metadata
        if metadata is None or not metadata.HasField("partition_key"):
            return None
        return _bytes(metadata.partition_key)

    @property
    def deletes(self) -> bool:
        """Its one message says that there is nothing under the key any more."""
        metadata = self._metadata
        if metadata is None:
            return False
        compressed = metadata.compression != NONE and not metadata.encryption_keys
        size = metadata.uncompressed_size if compressed else len(self._payload)
        return metadata.null_value or not size

    @property
    def chunk(self) -> tuple[str, int, int] | None:
        """The uuid of the message it is a piece of, which piece, and how many there are."""
        metadata = self._metadata
        if metadata is None or metadata.num_chunks_from_msg <= 1:
            return None
        return str(metadata.uuid), metadata.chunk_id, metadata.num_chunks_from_msg

    @property
    def contents_bytes(self) -> int:
        """How many bytes its contents have, as it claims."""
        metadata = self._metadata
        if metadata is None or metadata.compression == NONE:
            return len(self._payload)
        return metadata.uncompressed_size

    def contents(self) -> memoryview:
        """Return the contents, decompressed.

        Raises:
            BodyError: they do not decompress, or to more than `CONTENTS_BYTES_MAX`.
        """
        assert self._metadata is not None
        return decompress(self._metadata, self._payload, CONTENTS_BYTES_MAX)

    def keys(self, contents: memoryview) -> Iterator[Keyed | None]:
        """Yield the key of each message of a batch; None: it was compacted out before.

        Raises:
            BodyError: the contents do not add up.
        """
        assert self._metadata is not None
        for _, single in singles(self._metadata, contents):
            if single.compacted_out:
                yield None
            else:
                key = _bytes(single.partition_key) if single.HasField("partition_key") else None
                yield key, single.null_value or not single.payload_size

    def pieces(self, contents: memoryview, keep: Sequence[bool]) -> Iterator[bytes]:
        """Yield the contents of a batch piece by piece, with only those messages."""
        assert self._metadata is not None
        for (piece, _), wanted in zip(singles(self._metadata, contents), keep, strict=True):
            yield bytes(piece) if wanted else _GONE_PIECE

    def rewritten(self, pieces: Iterable[bytes], keep: Sequence[bool]) -> bytes:
        """Return the body that such pieces make, compressed as this one is."""
        assert self._metadata is not None
        contents = b"".join(pieces)
        metadata = MessageMetadata()
        metadata.CopyFrom(self._metadata)
        if metadata.compression != NONE:
            metadata.uncompressed_size = len(contents)
        del metadata.compacted_batch_indexes[:]
        metadata.compacted_batch_indexes.extend(
            index for index, wanted in enumerate(keep) if wanted
        )
        part = metadata.SerializeToString()
        payload = compress(contents, metadata.compression)
        return b"".join((_U32.pack(len(part)), part, payload))

    def survivors(self) -> list[int]:
        """Return which messages of a rewritten batch are left, as 64-bit words, 1 = left."""
        assert self._metadata is not None
        count = max(self._metadata.num_messages_in_batch, 0)
        words = -(-count // 64)
        bits = bytearray(8 * words)
        for index in self._metadata.compacted_batch_indexes:
            if 0 <= index < count:
                bits[index >> 3] |= 1 << (index & 7)
        return list(struct.unpack(f"<{words}q", bits))


def open_body(body: Bytes) -> Opened:
    """Look at a body. One that cannot be read at all is sealed."""
    try:
        return Opened(*split_body(body))
    except BodyError:
        return Opened(None, memoryview(b""))


def _bytes(text: str | bytes) -> bytes:
    """Return a text of the metadata. The runtime hands out what is not UTF-8 as bytes."""
    return text.encode() if isinstance(text, str) else bytes(text)
