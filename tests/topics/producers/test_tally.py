"""Latencies and sizes fall into Pulsar's buckets, and the last minute is what is shown."""

from bisect import bisect_left

from hypothesis import given
from hypothesis import strategies as st

from magnetar.broker.topics.producers.tally import (
    LATENCY_BOUNDS_MS,
    LATENCY_SUM,
    SIZE_BOUNDS_BYTES,
    SIZES_FROM,
    SLOTS,
    WINDOW_S,
    Tally,
    latency_bucket,
)


def sizes_of(tally: Tally) -> list[int]:
    return tally.counts[SIZES_FROM:]


@given(
    st.lists(
        st.sampled_from([0, 1, 127, 128, 129, 512, 513, 1024, 102_400, 2**20, 2**20 + 1, 2**26]),
        min_size=1,
    )
)
def test_sizes_are_counted_as_a_plain_loop_would(sizes: list[int]) -> None:
    tally = Tally()
    tally.sizes(sizes)
    expected = [0] * (len(SIZE_BOUNDS_BYTES) + 1)
    for size in sizes:
        expected[next((i for i, b in enumerate(SIZE_BOUNDS_BYTES) if size <= b), -1)] += 1
    assert sizes_of(tally) == expected
    one_by_one = Tally()
    for size in sizes:
        assert one_by_one.alike(1, size, size)
    assert one_by_one.counts == tally.counts
    at_once = Tally()
    if not at_once.alike(len(sizes), min(sizes), max(sizes)):
        assert not any(at_once.counts)
        at_once.sizes(sizes)
    assert at_once.counts == tally.counts
    tally.take_back(sizes)
    assert not any(tally.counts)


@given(st.floats(0, 10))
def test_a_latency_is_in_the_bucket_of_the_first_bound_it_does_not_exceed(seconds: float) -> None:
    assert latency_bucket(seconds) == bisect_left([b / 1000 for b in LATENCY_BOUNDS_MS], seconds)


def test_the_bounds_belong_to_their_buckets_and_the_sum_is_in_microseconds() -> None:
    tally = Tally()
    for ms in (0.5, 0.51, 1000, 1001):
        tally.wrote(10, round(ms / 1000 * 1e6), latency_bucket(ms / 1000))
    assert tally.counts[:LATENCY_SUM] == [10, 10, 0, 0, 0, 0, 0, 0, 10, 10]
    assert tally.counts[LATENCY_SUM] == 10 * (500 + 510 + 1_000_000 + 1_001_000)
    assert sum(sizes_of(tally)) == 0


def test_the_last_whole_minute_is_shown_and_before_it_is_over_what_came_so_far() -> None:
    tally = Tally()

    def shown(now_s: float) -> int:
        window = tally.read(now_s)
        assert len(window) == SLOTS
        return window[SIZES_FROM]

    tally.sizes([1] * 5)
    assert shown(0) == 5
    tally.sizes([1] * 2)
    assert shown(30) == 7
    assert shown(WINDOW_S) == 7
    tally.sizes([1])
    assert shown(WINDOW_S + 59) == 7
    assert shown(2 * WINDOW_S) == 1
    assert shown(3 * WINDOW_S) == 0
