"""Delayed entries come in order of time, never early, and cost 24 bytes each."""

import sys
from array import array
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magnetar.broker.clock import ManualClock
from magnetar.broker.topics.consumers import delayed
from magnetar.broker.topics.consumers.delayed import Delayed, SteadyTime


class MemorySpill:
    """A file in memory."""

    def __init__(self) -> None:
        self.buckets: dict[int, list[bytes]] = {}
        self.bytes_written = 0

    def append(self, bucket: int, entries: bytes) -> None:
        self.buckets.setdefault(bucket, []).append(entries)
        self.bytes_written += len(entries)

    def read(self, bucket: int) -> Iterator[bytes]:
        yield from self.buckets[bucket]

    def remove(self, bucket: int) -> None:
        del self.buckets[bucket]


def test_entries_come_in_order_of_time_and_then_of_position() -> None:
    index = Delayed(1000)
    for due_ms, ledger, entry in [(50, 1, 9), (20, 2, 0), (50, 1, 3), (20, 1, 7)]:
        index.add(due_ms, ledger, entry)
    assert index.take_due(19, 10) == []
    assert index.take_due(20, 10) == [(1, 7), (2, 0)]
    assert index.take_due(90, 10) == [(1, 3), (1, 9)]
    assert index.next_due_ms() is None


def test_no_more_is_taken_than_asked_for() -> None:
    index = Delayed(1000)
    for entry in range(10):
        index.add(5, 1, entry)
    assert index.take_due(9, 3) == [(1, 0), (1, 1), (1, 2)]
    assert len(index) == 7


# Times that fall into one bucket, into neighbours, and far apart.
times = st.one_of(st.integers(0, 40), st.integers(0, 100_000), st.integers(0, 1 << 40))
adds = st.tuples(st.just("add"), times, st.integers(1, 40))
takes = st.tuples(st.just("take"), times, st.integers(1, 60))


@settings(deadline=None, max_examples=300)
@given(st.lists(st.one_of(adds, adds, takes), max_size=60), st.sampled_from([10, 60, 1 << 20]))
def test_the_ladder_agrees_with_a_sorted_list(
    steps: list[tuple[str, int, int]], in_memory_max: int
) -> None:
    spill = MemorySpill()
    index = Delayed(in_memory_max, spill)
    plain: list[tuple[int, int, int]] = []
    now, entry = 0, 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delayed, "HEAP_MAX", 4)  # so that few entries climb all rungs
        for verb, time, count in steps:
            if verb == "add":
                for i in range(count):
                    due_ms = time + (i * 7919 % 50) * (i % 3)
                    index.add(due_ms, 1 + entry % 2, entry)
                    plain.append((due_ms, 1 + entry % 2, entry))
                    entry += 1
            else:
                now = max(now, time)
                plain.sort()
                expected = [each for each in plain if each[0] <= now][:count]
                plain = [each for each in plain if each not in expected]
                assert index.take_due(now, count) == [each[1:] for each in expected]
            assert len(index) == len(plain)
            next_ms = index.next_due_ms()
            assert (next_ms is None) == (not plain)
            if next_ms is not None:
                assert next_ms <= min(plain)[0]
        assert index.take_due(1 << 50, 10_000) == [each[1:] for each in sorted(plain)]
    assert not spill.buckets


def test_clearing_forgets_the_file_too() -> None:
    spill = MemorySpill()
    index = Delayed(10, spill)
    for entry in range(100):
        index.add(entry << 30, 1, entry)
    assert spill.buckets
    index.clear()
    assert not spill.buckets
    assert index.next_due_ms() is None


def test_without_a_file_the_index_says_when_it_is_full() -> None:
    index = Delayed(10)
    for entry in range(10):
        assert not index.full
        index.add(1000, 1, entry)
    assert index.full


def test_a_file_that_takes_nothing_leaves_the_entries_in_memory() -> None:
    class FullDisk(MemorySpill):
        full = True

        def append(self, bucket: int, entries: bytes) -> None:
            if self.full:
                raise OSError(28, "No space left on device")
            super().append(bucket, entries)

    spill = FullDisk()
    index = Delayed(10, spill)
    for entry in range(11):
        index.add(entry << 30, 1, entry)
    assert index.full
    spill.full = False
    index.add(11 << 30, 1, 11)
    assert not index.full
    assert index.take_due(1 << 40, 100) == [(1, entry) for entry in range(12)]


def test_what_the_file_lost_is_not_waited_for() -> None:
    spill = MemorySpill()
    index = Delayed(10, spill)
    for entry in range(40):
        index.add(entry << 30, 1, entry)
    lost = spill.buckets[max(spill.buckets)].pop()
    assert len(index.take_due(1 << 40, 100)) == 40 - len(lost) // 24
    assert len(index) == 0


def packed_bytes(index: Delayed) -> int:
    arrays: list[array[int]] = [b for rung in index._rungs for b in rung.buckets.values()]
    return sum(map(sys.getsizeof, arrays)) + 200 * len(index._heap)


@pytest.mark.parametrize("span_ms", [1, 60_000, 86_400_000])
def test_a_million_entries_fit_into_a_few_dozen_megabytes(span_ms: int) -> None:
    index = Delayed(2_000_000)
    for entry in range(1_000_000):
        index.add(1_000_000 + entry * 7919 % span_ms, 1, entry)
    assert packed_bytes(index) < 40 * 2**20
    before = index.take_due(1_000_000 + span_ms, 100)
    assert len(before) == 100
    assert packed_bytes(index) < 40 * 2**20


def test_a_jump_of_the_wall_clock_moves_nothing_that_waits() -> None:
    clock = ManualClock()
    time = SteadyTime(clock)
    due_ms = time.due_ms(clock.wall_ms() + 60_000)
    clock.advance(30)
    clock.set_wall_ms(clock.wall_ms() + 3_600_000)
    assert due_ms - time.now_ms() == 30_000
    assert time.due_ms(clock.wall_ms() + 5_000) - time.now_ms() == 5_000
    clock.set_wall_ms(clock.wall_ms() - 7_200_000)
    assert time.due_ms(clock.wall_ms() + 5_000) - time.now_ms() == 5_000
