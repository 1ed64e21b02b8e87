"""Entries become texts for a client. Pure, and for large entries run in a thread.

    entry ──▶ metadata, payload ──▶ chunks put together ──▶ decompressed ──▶ batch opened
                                                                │
                                     one text per message ◀─────┘ without those that a client
                                                                  has acknowledged already

Nothing is decompressed beyond a limit, and no batch opened that claims more messages than a
limit: what cannot be opened is told apart, for its consumer to acknowledge, as libraries do.
"""

from collections.abc import Sequence
from enum import Enum, auto
from typing import NamedTuple

from magnetar.broker.doors.websocket.shapes import delivered, encryption_context, id_text
from magnetar.broker.entry import EntryId
from magnetar.broker.run import Bytes
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.broker.wire.pulsar.metadata import BodyError, Message, opened, split_body

BATCH_MESSAGES_MAX = 50_000
"""A batch that claims more is not opened: each message becomes objects, some hundred times the
six bytes that it may take."""

_U64 = 2**64 - 1


class Entry(NamedTuple):
    """One delivered entry."""

    body: Bytes
    id: EntryId
    partition: int
    """For the ids of its messages; -1: the topic is not partitioned."""
    redeliveries: int = 0
    ack_set: Sequence[int] = ()
    """Words of 64 bits, 1 = still to be acknowledged; empty: all are."""


class Text(NamedTuple):
    """One message, ready to be sent."""

    text: bytes
    entry: EntryId
    batch_index: int
    batch_size: int
    redeliveries: int
    message: Message
    chunks: tuple[EntryId, ...] = ()
    """All entries of a message that came in several."""

    def without_text(self, *, contents: bool) -> "Text":
        """Return what has to be remembered once it is sent, with or without its contents."""
        if contents:
            return self._replace(text=b"")
        return self._replace(text=b"", message=self.message._replace(payload=b"", properties={}))

    @property
    def entries(self) -> tuple[EntryId, ...]:
        """All entries that it came in."""
        return self.chunks or (self.entry,)

    @property
    def ends_entry(self) -> bool:
        """Whether nothing of its entry comes behind it."""
        return self.batch_index < 0 or self.batch_index == self.batch_size - 1


class Kind(Enum):
    """What an entry turned out to be."""

    MESSAGES = auto()
    ENCRYPTED = auto()
    BROKEN = auto()
    """It cannot be opened, and never will."""
    CHUNK = auto()
    """A part of a message."""


class Read(NamedTuple):
    """What an entry holds."""

    kind: Kind
    texts: Sequence[Text] = ()
    why: str = ""
    metadata: api.MessageMetadata | None = None
    payload: Bytes = b""
    """Of a chunk, for it to be put together with the others."""


def read(entry: Entry) -> Read:
    """Open an entry."""
    try:
        metadata, payload = split_body(entry.body)
    except BodyError as error:
        return Read(Kind.BROKEN, why=str(error))
    if metadata.num_chunks_from_msg > 1:
        return Read(Kind.CHUNK, metadata=metadata, payload=payload)
    return read_payload(entry, metadata, payload)


def read_payload(
    entry: Entry,
    metadata: api.MessageMetadata,
    payload: Bytes,
    chunks: tuple[EntryId, ...] = (),
) -> Read:
    """Open the payload of an entry, or of the chunks that ended with it."""
    if metadata.num_messages_in_batch > BATCH_MESSAGES_MAX:
        count = metadata.num_messages_in_batch
        return Read(Kind.BROKEN, why=f"a batch of {count} messages, {BATCH_MESSAGES_MAX} at most")
    try:
        messages = opened(metadata, memoryview(payload))
    except BodyError as error:
        return Read(Kind.BROKEN, why=str(error))
    encrypted = messages[0].encrypted if messages else False
    context = encryption_context(metadata) if encrypted else None
    texts = [
        Text(
            delivered(
                id_text(id_of(entry, message.batch_index, message.batch_size, chunks)),
                message,
                entry.redeliveries,
                context,
            ),
            entry.id,
            message.batch_index,
            message.batch_size,
            entry.redeliveries,
            message,
            chunks,
        )
        for message in messages
        if not message.compacted_out and is_wanted(entry.ack_set, message.batch_index)
    ]
    return Read(Kind.ENCRYPTED if encrypted else Kind.MESSAGES, texts)


def id_of(
    entry: Entry, batch_index: int, batch_size: int, chunks: tuple[EntryId, ...] = ()
) -> api.MessageIdData:
    """Return the id of a message."""
    found = api.MessageIdData(ledgerId=entry.id.ledger & _U64, entryId=entry.id.entry & _U64)
    if entry.partition >= 0:
        found.partition = entry.partition
    if batch_index >= 0:
        found.batch_index, found.batch_size = batch_index, batch_size
    if chunks:
        found.first_chunk_message_id.ledgerId = chunks[0].ledger & _U64
        found.first_chunk_message_id.entryId = chunks[0].entry & _U64
    return found


def is_wanted(ack_set: Sequence[int], batch_index: int) -> bool:
    """Return whether a message of a batch is still to be acknowledged."""
    if not ack_set or batch_index < 0:
        return True
    word, bit = divmod(batch_index, 64)
    return word < len(ack_set) and bool(ack_set[word] >> bit & 1)


def wanted_count(ack_set: Sequence[int]) -> int:
    """Return how many messages of a batch are still to be acknowledged."""
    return sum((word & _U64).bit_count() for word in ack_set)


def without(batch_index: int, batch_size: int) -> list[int]:
    """Return the ack set that acknowledges one message of a batch and no other."""
    bits = (1 << batch_size) - 1 & ~(1 << batch_index)
    words = [bits >> shift & _U64 for shift in range(0, batch_size, 64)]
    return [word - 2**64 if word >= 2**63 else word for word in words]
