"""Times in buckets: cheap to count, exact enough to report."""

import random

import pytest

from magnetar.bench.histogram import EXACT_US, VALUE_US_MAX, Histogram, bucket_of, middle_us


def test_every_value_lies_within_a_percent_and_a_half_of_its_bucket() -> None:
    chance = random.Random(7)
    for value in [*range(5_000), *(chance.randrange(VALUE_US_MAX) for _ in range(5_000))]:
        assert middle_us(bucket_of(value)) == pytest.approx(value, rel=0.016, abs=0)


def test_buckets_grow_with_the_value_and_leave_no_gap() -> None:
    buckets = [bucket_of(value) for value in range(10 * EXACT_US)]
    assert sorted(buckets) == buckets
    assert set(buckets) == set(range(buckets[-1] + 1))


def test_what_is_out_of_bounds_counts_as_the_bound() -> None:
    assert bucket_of(-5) == 0
    assert bucket_of(VALUE_US_MAX * 2) == bucket_of(VALUE_US_MAX)


def test_quantiles_are_those_of_the_values_themselves() -> None:
    chance, histogram = random.Random(3), Histogram()
    times = sorted(chance.expovariate(1 / 0.004) for _ in range(20_000))
    for each in times:
        histogram.add(each)
    for part in (0.5, 0.99, 0.999):
        exact = times[int(part * len(times)) - 1] * 1000
        assert histogram.quantile_ms(part) == pytest.approx(exact, rel=0.02)
    assert histogram.figures()["max_ms"] == pytest.approx(times[-1] * 1000, rel=0.02)


def test_a_time_may_be_counted_many_times_at_once_and_steps_tell_how_many() -> None:
    histogram = Histogram()
    histogram.add(0.00005, 900)
    histogram.add(1.0, 100)
    assert histogram.count == 1000
    assert histogram.quantile_ms(0.5) == pytest.approx(0.05)
    assert [count for _, count in histogram.steps()] == [900, 100]


def test_of_nothing_there_are_no_figures() -> None:
    assert Histogram().figures() == {}
    assert Histogram().quantile_ms(0.5) is None
