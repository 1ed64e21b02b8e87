"""Entries made by the broker's own doors: what a producer library would have sent.

    metadata + payload ──▶ body: metadata_size u32 | MessageMetadata | payload
    bodies             ──▶ run, ready to be published

For doors whose clients speak of messages and not of entries. The envelope is read from the
metadata as the walker reads it, so that an entry made here is like one that came in a SEND.
"""

from collections.abc import Sequence
from struct import Struct
from typing import NamedTuple

from crc32c import crc32c

from magnetar.broker.run import ROW, Bytes, Run
from magnetar.broker.wire.pulsar.generated.PulsarApi_pb2 import MessageMetadata
from magnetar.broker.wire.pulsar.walker import read_metadata

_U32 = Struct(">I")


class Made(NamedTuple):
    """One entry that waits to be published."""

    body: bytes
    messages: int
    sequence_id: int
    highest_sequence_id: int


def made(metadata: MessageMetadata, payload: Bytes, messages: int = 1) -> Made:
    """Return an entry. Of a batch, the metadata names the first and the last sequence id."""
    part = metadata.SerializeToString()
    highest = metadata.sequence_id
    if metadata.HasField("highest_sequence_id"):
        highest = metadata.highest_sequence_id
    body = b"".join((_U32.pack(len(part)), part, payload))
    return Made(body, messages, metadata.sequence_id, highest)


def run_of(entries: Sequence[tuple[int, Made]]) -> Run:
    """Return entries, each with the slot of its producer, as a run over a buffer of its own."""
    rows = bytearray()
    offset = 0
    for slot, entry in entries:
        view = memoryview(entry.body)
        (size,) = _U32.unpack_from(view)
        publish_time, deliver_at, key, flags, _ = read_metadata(
            view, _U32.size, _U32.size + size, 0, 0, 0
        )
        rows += ROW.pack(
            *(offset, len(view), crc32c(view), entry.messages, key, flags, slot, 0),
            *(entry.sequence_id, entry.highest_sequence_id, publish_time, deliver_at, 0, 0),
        )
        offset += len(view)
    if len(entries) == 1:
        return Run(rows, entries[0][1].body)
    return Run(rows, b"".join(entry.body for _, entry in entries))
