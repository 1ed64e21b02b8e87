"""Memory for blocks is used again, and never while somebody can still see what is in it."""

from magnetar.broker.storage.read_buffers import (
    FREE_BYTES_MAX,
    LARGER_MAX,
    LENT_MAX,
    POOLED_BYTES_MIN,
    ReadBuffers,
)

SIZE = 256 * 1024


def test_what_is_given_back_is_used_again_for_blocks_of_about_that_size() -> None:
    buffers = ReadBuffers()
    slab = buffers.take(SIZE)
    memory = slab.memory
    buffers.give_back(slab)
    assert buffers.free_bytes == SIZE
    assert buffers.take(int(SIZE / LARGER_MAX) - 1).memory is not memory, "too large for it"
    assert buffers.take(SIZE + 1).memory is not memory, "too small for it"
    assert buffers.take(SIZE - 10).memory is memory
    assert buffers.free_bytes == 0


def test_memory_that_a_reader_sees_is_not_written_over() -> None:
    buffers = ReadBuffers()
    slab = buffers.take(SIZE)
    slab.view[:4] = b"seen"
    reader = slab.view[:4]
    memory = slab.memory
    buffers.give_back(slab)
    assert buffers.free_bytes == 0
    other = buffers.take(SIZE)
    assert other.memory is not memory
    other.view[:4] = b"new."
    assert bytes(reader) == b"seen"
    reader.release()
    buffers.give_back(other)
    assert buffers.free_bytes == 2 * SIZE, "the reader is gone, so both are free"


def test_what_is_kept_is_bounded_and_small_blocks_are_none_of_it() -> None:
    buffers = ReadBuffers()
    for slab in [buffers.take(SIZE) for _ in range(2 * FREE_BYTES_MAX // SIZE)]:
        buffers.give_back(slab)
    assert buffers.free_bytes == FREE_BYTES_MAX
    small = buffers.take(POOLED_BYTES_MIN - 1)
    assert small.size == POOLED_BYTES_MIN - 1
    buffers.give_back(small)
    assert buffers.free_bytes == FREE_BYTES_MAX
    buffers.clear()
    assert buffers.free_bytes == 0


def test_readers_that_never_end_are_not_remembered_for_ever() -> None:
    buffers = ReadBuffers()
    readers = []
    for _ in range(LENT_MAX + 10):
        slab = buffers.take(POOLED_BYTES_MIN)
        readers.append(slab.view[:1])
        buffers.give_back(slab)
    assert len(buffers._lent) == LENT_MAX
