"""Receive memory: shared, pooled, fresh, and never more than agreed."""

import mmap
from pathlib import Path

import pytest

from magnetar.broker.doors.pulsar.buffers import (
    ARENA_BYTES,
    ARENAS_MAX,
    LARGE_KEPT_MAX,
    Buffers,
    OutOfBuffersError,
)

MIB = 1024 * 1024


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def test_arenas_are_reused() -> None:
    buffers = Buffers()
    first = buffers.take(100_000)
    assert len(first) == ARENA_BYTES
    buffers.give(first)
    assert buffers.take(ARENA_BYTES) is first


def test_when_the_arenas_are_out_others_get_what_they_need_and_no_more() -> None:
    buffers = Buffers()
    arenas = [buffers.take(1) for _ in range(ARENAS_MAX)]
    extra = buffers.take(100_000)
    assert len(extra) == 100_000
    buffers.give(extra)
    for each in arenas:
        buffers.give(each)
    assert buffers.own_bytes == 0
    assert len(buffers.take(100_000)) == ARENA_BYTES


def test_a_large_frame_gets_a_buffer_of_its_size() -> None:
    buffers = Buffers()
    assert len(buffers.take(ARENA_BYTES + 1)) == ARENA_BYTES + 1


def test_a_few_large_buffers_are_kept_for_the_next_large_frame() -> None:
    buffers = Buffers()
    held = [buffers.take(3 * MIB) for _ in range(LARGE_KEPT_MAX + 1)]
    for each in held:
        buffers.give(each)
    assert buffers.take(2 * MIB) in held
    assert len(buffers.take(4 * MIB)) == 4 * MIB
    assert len(buffers.take(1)) == ARENA_BYTES


def test_there_is_an_end_to_it() -> None:
    buffers = Buffers(own_bytes_max=10 * MIB)
    held = [buffers.take(4 * MIB), buffers.take(4 * MIB)]
    with pytest.raises(OutOfBuffersError, match="8388608 bytes"):
        buffers.take(4 * MIB)
    buffers.give(held.pop())
    buffers.take(4 * MIB)


def test_a_large_buffer_costs_nothing_before_it_is_written() -> None:
    buffers = Buffers()
    before = resident_bytes()
    held = [buffers.take(5 * MIB) for _ in range(40)]
    assert resident_bytes() - before < 20 * MIB
    for each in held:
        each[:] = b"x" * len(each)
    assert resident_bytes() - before > 150 * MIB, "the measure measures"
