"""The real readings, and what follows from them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magnetar.cli.demo.readings import (
    HOUR_MS,
    Mean,
    Reading,
    alerts,
    decode_mean,
    decode_reading,
    encode,
    hourly_means,
    load,
    mean_of,
)
from magnetar.cli.values import time_text

finite = st.floats(allow_nan=False, allow_infinity=False, width=64)


def test_the_file_holds_22695_readings_of_real_temperatures() -> None:
    readings = load()
    assert len(readings) == 22_695
    assert [each.number for each in readings] == list(range(22_695))
    assert time_text(readings[0].time_ms) == "2013-12-02T21:15:00.000Z"
    assert time_text(readings[-1].time_ms) == "2014-02-19T15:25:00.000Z"
    assert readings[0].fahrenheit == 73.96732207
    assert all(0 < each.fahrenheit < 120 for each in readings)


def test_the_file_has_1891_hours_and_1586_readings_above_the_limit() -> None:
    """Counted once by hand with awk, so that the demo's expectations are not only its own."""
    readings = load()
    assert len(hourly_means(readings)) == 1_891
    assert len(alerts(readings)) == 1_586


def test_hours_are_never_out_of_order_so_a_window_may_close_when_the_next_begins() -> None:
    hours = [each.hour_ms for each in load()]
    assert hours == sorted(hours)


@given(st.integers(0, 10**6), st.integers(0, 10**13), finite)
def test_a_reading_comes_back_from_its_message_bit_for_bit(n: int, ms: int, f: float) -> None:
    reading = Reading(n, ms, f)
    assert decode_reading(encode(reading)) == reading
    mean = Mean(ms, n, f)
    assert decode_mean(encode(mean)) == mean


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.randoms(use_true_random=False))
def test_the_mean_does_not_depend_on_the_order_of_arrival(values: list[float], rng: object) -> None:
    shuffled = list(values)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    assert mean_of(0, values) == mean_of(0, shuffled)


def test_an_hour_begins_on_the_hour() -> None:
    assert Reading(0, HOUR_MS + 1, 0.0).hour_ms == HOUR_MS
    assert Reading(0, HOUR_MS - 1, 0.0).hour_ms == 0


def test_exactly_at_the_limit_is_no_alert() -> None:
    assert not Reading(0, 0, 100.0).alarming
    assert Reading(0, 0, 100.00000001).alarming


def test_a_message_that_is_no_reading_is_refused() -> None:
    with pytest.raises(TypeError):
        decode_reading(b'{"number": 1}')
