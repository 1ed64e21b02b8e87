"""Chunks become messages again. Pure: no clock, no socket.

    chunk 0 ─┐
    chunk 1 ─┼─ same uuid, in order ──▶ payload as the producer cut it, metadata of the last
    chunk n ─┘
              a chunk that does not follow the one before ──▶ is not taken, and said so

How much may wait for its last chunk is bounded: beyond that the oldest is forgotten. Its chunks
stay unacknowledged, and come again. Source: the Pulsar binary protocol, batches and chunks.
"""

from enum import Enum, auto
from typing import NamedTuple

from magnetar.broker.entry import EntryId
from magnetar.broker.run import Bytes
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api

MESSAGES_MAX = 10
"""Messages of one consumer that wait for chunks. Java's number."""
BYTES_MAX = 64 * 1024 * 1024
"""Of all of them together, and so of the largest message that can be put together."""


class Chunked(NamedTuple):
    """A message put together."""

    payload: bytes
    entries: tuple[EntryId, ...]
    """All that it came in, the first first."""


class State(Enum):
    """What became of a chunk."""

    WAITING = auto()
    """More of its message must come."""
    STRAY = auto()
    """It does not follow what came before."""
    TOO_LARGE = auto()
    """Its message can never be put together here."""


class _Partial:
    """A message of which some chunks came."""

    __slots__ = ("entries", "payload")

    def __init__(self) -> None:
        self.payload = bytearray()
        self.entries: list[EntryId] = []


class Chunks:
    """The messages of one source that wait for chunks."""

    def __init__(self) -> None:
        self._partials: dict[str, _Partial] = {}

    def __len__(self) -> int:
        return len(self._partials)

    def clear(self) -> None:
        """Forget everything: it will come again."""
        self._partials.clear()

    def add(self, metadata: api.MessageMetadata, payload: Bytes, entry: EntryId) -> Chunked | State:
        """Take a chunk; return the message if this was its last."""
        uuid = f"{metadata.producer_name!s}/{metadata.uuid!s}"
        if metadata.total_chunk_msg_size > BYTES_MAX:
            self._partials.pop(uuid, None)
            return State.TOO_LARGE
        if metadata.chunk_id == 0:
            self._partials.pop(uuid, None)
            self._partials[uuid] = _Partial()
        partial = self._partials.get(uuid)
        if partial is None or len(partial.entries) != metadata.chunk_id:
            self._partials.pop(uuid, None)
            return State.STRAY
        partial.payload += payload
        partial.entries.append(entry)
        if metadata.chunk_id == metadata.num_chunks_from_msg - 1:
            del self._partials[uuid]
            return Chunked(bytes(partial.payload), tuple(partial.entries))
        self._make_room(uuid)
        return State.WAITING if uuid in self._partials else State.TOO_LARGE

    def _make_room(self, kept: str) -> None:
        while len(self._partials) > MESSAGES_MAX or (
            sum(len(each.payload) for each in self._partials.values()) > BYTES_MAX
        ):
            oldest = next((uuid for uuid in self._partials if uuid != kept), kept)
            del self._partials[oldest]
