"""Sequences read further and further ahead; reads at random bring nothing that nobody asked for."""

from array import array
from itertools import pairwise
from random import Random

from magnetar.broker.storage.read_ahead import READ_BYTES, SEQUENCES_MAX, ReadAhead
from magnetar.broker.storage.segment import BlockIndex

CACHE = 128 << 20
SIZE = 200_000
PER_BLOCK = 190


def index_of(blocks: int) -> BlockIndex:
    numbers = range(blocks)
    return BlockIndex(
        array("Q", (PER_BLOCK * number for number in numbers)),
        array("Q", (64 + SIZE * number for number in numbers)),
        array("I", [PER_BLOCK] * blocks),
        array("I", [SIZE] * blocks),
    )


def read_on(ahead: ReadAhead, index: BlockIndex, reads: int, cache: int = CACHE) -> list[int]:
    """Read from the start on; return how many blocks each read brought."""
    brought, first = [], 0
    for _ in range(reads):
        last = ahead.plan("log", index, first, 100, cache)
        brought.append(last - first + 1)
        first = last + 1
    return brought


def test_a_sequence_reads_ahead_twice_as_far_each_time_up_to_a_bound() -> None:
    assert read_on(ReadAhead(), index_of(100), 6) == [1, 2, 3, 5, 5, 5]
    assert 5 * SIZE <= READ_BYTES < 6 * SIZE


def test_how_far_a_sequence_looks_at_first_is_a_setting() -> None:
    index = index_of(100)
    assert ReadAhead().plan("log", index, 0, 1, CACHE) == 0
    assert ReadAhead().plan("log", index, 0, 400, CACHE) == 2
    assert ReadAhead().plan("log", index, 0, 5_000, CACHE) == 4


def test_reads_at_random_bring_one_block_each() -> None:
    ahead, index, random = ReadAhead(), index_of(10_000), Random(1)
    places = random.sample(range(1, 10_000, 3), 500)
    assert [ahead.plan("log", index, place, 100, CACHE) for place in places] == places
    assert len(ahead) <= SEQUENCES_MAX


def test_many_sequences_do_not_read_ahead_more_than_the_cache_has_room_for() -> None:
    ahead, index = ReadAhead(), index_of(10_000)
    first = [90 * number for number in range(1, 101)]
    for _ in range(6):
        last = [ahead.plan("log", index, each, 5_000, 32 << 20) for each in first]
        first = [each + 1 for each in last]
    assert sum(last) - sum(first) + 2 * len(first) <= 100 * 2
    alone = ReadAhead()
    assert max(read_on(alone, index, 8, 32 << 20)) == 5, "one alone goes as far as it may"
    assert max(read_on(ReadAhead(), index, 8, 1 << 20)) == 1, "a small cache has room for none"


def test_the_use_of_the_last_block_but_one_lets_a_sequence_read_on() -> None:
    ahead, index = ReadAhead(), index_of(100)
    starts = [0]
    for _ in range(5):
        starts.append(ahead.plan("log", index, starts[-1], 100, CACHE) + 1)
    for first, after in pairwise(starts):
        for number in range(first, after):
            due = ahead.due(("log", index.offsets[number]))
            expected = after if after - first > 1 and number == after - 2 else None
            assert due == expected
            assert ahead.due(("log", index.offsets[number])) is None, "once"


def test_a_log_that_is_gone_is_forgotten() -> None:
    ahead = ReadAhead()
    read_on(ahead, index_of(100), 3)
    assert len(ahead)
    assert ahead.triggers
    ahead.drop_log("another")
    assert len(ahead)
    ahead.drop_log("log")
    assert (len(ahead), ahead.triggers) == (0, 0)


def test_blocks_that_are_no_neighbours_on_the_disk_are_not_read_together() -> None:
    index = index_of(10)
    index.offsets[2] += 4096
    assert ReadAhead().plan("log", index, 0, 5_000, CACHE) == 1
