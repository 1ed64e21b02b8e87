"""The log-linear histogram: against sorted lists."""

from array import array
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families as parse

from magnetar.broker.latency import (
    LONGEST_S,
    SHORTEST_S,
    SLOTS,
    Latencies,
    begin_of,
    cumulative,
    merged,
    packed,
    quantile,
    slot_of,
    unpacked,
)
from magnetar.broker.metrics import Metrics

DURATIONS = st.floats(SHORTEST_S, LONGEST_S, exclude_max=True)
PART = st.floats(0, 1)


def filled(durations: list[float]) -> Latencies:
    latencies = Latencies("x_seconds", "X.")
    for each in durations:
        latencies.record(each)
    return latencies


def exact(durations: list[float], part: float) -> float:
    return sorted(durations)[max(1, ceil(len(durations) * part)) - 1]


@given(st.lists(DURATIONS, min_size=1, max_size=300), PART)
def test_every_quantile_comes_out_within_two_percent(durations: list[float], part: float) -> None:
    assert quantile(filled(durations).counts, part) == pytest.approx(
        exact(durations, part), rel=1 / 64
    )


@given(st.lists(st.tuples(DURATIONS, st.integers(1, 50)), min_size=1, max_size=50), PART)
def test_counting_several_at_once_is_counting_each(
    pairs: list[tuple[float, int]], part: float
) -> None:
    latencies = Latencies("x_seconds", "X.")
    for seconds, times in pairs:
        latencies.record(seconds, times)
    each = [seconds for seconds, times in pairs for _ in range(times)]
    assert latencies.counts == filled(each).counts
    assert latencies.total_s == pytest.approx(sum(each))


@given(st.lists(st.lists(DURATIONS, max_size=50), min_size=1, max_size=4))
def test_histograms_of_several_processes_add_up_to_that_of_one(parts: list[list[float]]) -> None:
    sent = [packed(filled(part).counts) for part in parts]
    together = merged(unpacked(each.items()) for each in sent)
    assert together == list(filled([each for part in parts for each in part]).counts)


@given(DURATIONS)
def test_a_duration_lies_in_its_slot(seconds: float) -> None:
    slot = slot_of(seconds)
    assert begin_of(slot) <= seconds < begin_of(slot + 1)
    assert filled([seconds]).counts[slot] == 1, "what `record` does is what `slot_of` says"


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 1e-300, 1e-7])
def test_what_is_too_short_counts_in_the_first_slot(seconds: float) -> None:
    assert slot_of(seconds) == 0
    assert filled([seconds]).counts[0] == 1


@pytest.mark.parametrize("seconds", [LONGEST_S, 1e9, float("inf")])
def test_what_is_too_long_counts_in_the_last_slot(seconds: float) -> None:
    assert slot_of(seconds) == SLOTS - 1
    assert filled([seconds]).counts[-1] == 1


def test_nothing_observed_has_no_quantile() -> None:
    assert quantile(array("Q", bytes(8 * SLOTS)), 0.99) is None


def test_a_minute_shows_what_was_observed_in_it() -> None:
    latencies = filled([0.001] * 10)
    assert sum(latencies.recent) == 10, "the first minute is shown as far as it is over"
    latencies.turn()
    latencies.record(0.1)
    assert sum(latencies.recent) == 10, "a minute is shown once it is over"
    latencies.turn()
    assert quantile(latencies.recent, 0.5) == pytest.approx(0.1, rel=1 / 64)
    latencies.turn()
    assert sum(latencies.recent) == 0
    assert sum(latencies.counts) == 11


@given(st.lists(DURATIONS, max_size=100))
def test_the_buckets_of_prometheus_agree_with_a_count(durations: list[float]) -> None:
    for seconds, count in cumulative(filled(durations).counts):
        assert count == sum(each < seconds for each in durations)


def test_prometheus_reads_it() -> None:
    metrics = Metrics()
    latencies = metrics.latencies("magnetar_x_seconds", "How long x took.")
    for milliseconds in range(1, 1001):
        latencies.record(milliseconds / 1000)
    families = {each.name: each for each in parse("".join(metrics.render()))}
    assert families["magnetar_x_seconds"].type == "histogram"
    values = {each.name: each.value for each in families["magnetar_x_seconds"].samples}
    assert values["magnetar_x_seconds_count"] == 1000
    assert values["magnetar_x_seconds_sum"] == pytest.approx(500.5)
    shown = families["magnetar_x_quantile_seconds"].samples
    found = {each.labels["quantile"]: each.value for each in shown}
    assert found["0.99"] == pytest.approx(0.99, rel=0.05)
    assert found["0.5"] == pytest.approx(0.5, rel=0.05)
