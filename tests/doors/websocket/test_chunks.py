"""Chunks: whole messages, strays, and how much may wait."""

from magnetar.broker.doors.websocket.chunks import (
    BYTES_MAX,
    MESSAGES_MAX,
    Chunked,
    Chunks,
    State,
)
from magnetar.broker.entry import EntryId
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api


def chunk(uuid: str, number: int, of: int, total: int = 10) -> api.MessageMetadata:
    return api.MessageMetadata(
        producer_name="p",
        uuid=uuid,
        chunk_id=number,
        num_chunks_from_msg=of,
        total_chunk_msg_size=total,
    )


def test_chunks_of_two_messages_that_come_mixed_are_put_together() -> None:
    chunks = Chunks()
    assert chunks.add(chunk("a", 0, 2), b"12", EntryId(1, 0)) is State.WAITING
    assert chunks.add(chunk("b", 0, 2), b"ab", EntryId(1, 1)) is State.WAITING
    assert chunks.add(chunk("a", 1, 2), b"3", EntryId(1, 2)) == Chunked(
        b"123", (EntryId(1, 0), EntryId(1, 2))
    )
    assert chunks.add(chunk("b", 1, 2), b"c", EntryId(1, 3)) == Chunked(
        b"abc", (EntryId(1, 1), EntryId(1, 3))
    )
    assert len(chunks) == 0


def test_a_chunk_that_does_not_follow_is_a_stray() -> None:
    chunks = Chunks()
    assert chunks.add(chunk("a", 1, 3), b"", EntryId(1, 1)) is State.STRAY
    assert chunks.add(chunk("a", 0, 3), b"", EntryId(1, 2)) is State.WAITING
    assert chunks.add(chunk("a", 2, 3), b"", EntryId(1, 3)) is State.STRAY
    assert chunks.add(chunk("a", 1, 3), b"", EntryId(1, 4)) is State.STRAY


def test_a_message_that_begins_again_replaces_what_was_there() -> None:
    chunks = Chunks()
    chunks.add(chunk("a", 0, 2), b"old", EntryId(1, 0))
    chunks.add(chunk("a", 0, 2), b"new", EntryId(1, 0))
    done = chunks.add(chunk("a", 1, 2), b"!", EntryId(1, 1))
    assert isinstance(done, Chunked)
    assert done.payload == b"new!"


def test_messages_that_wait_are_bounded_and_the_oldest_goes() -> None:
    chunks = Chunks()
    for number in range(MESSAGES_MAX + 1):
        chunks.add(chunk(str(number), 0, 2), b"x", EntryId(1, number))
    assert len(chunks) == MESSAGES_MAX
    assert chunks.add(chunk("0", 1, 2), b"", EntryId(1, 99)) is State.STRAY
    assert isinstance(chunks.add(chunk("1", 1, 2), b"", EntryId(1, 100)), Chunked)


def test_bytes_that_wait_are_bounded_whatever_a_producer_claims() -> None:
    chunks = Chunks()
    assert chunks.add(chunk("a", 0, 9, BYTES_MAX + 1), b"", EntryId(1, 0)) is State.TOO_LARGE
    half = bytes(BYTES_MAX // 2 + 1)
    assert chunks.add(chunk("b", 0, 9), half, EntryId(1, 1)) is State.WAITING
    assert chunks.add(chunk("b", 1, 9), half, EntryId(1, 2)) is State.TOO_LARGE
    assert len(chunks) == 0
