"""Series are counted without ceremony and shown as Prometheus expects."""

import math

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from magnetar.broker.clock import ManualClock
from magnetar.broker.metrics import Metrics


def test_the_text_has_help_type_and_value() -> None:
    metrics = Metrics()
    metrics.counter("pulsar_in_total", "Messages taken.").value += 3
    metrics.gauge("pulsar_topics_count", "Topics loaded.", lambda: 2)
    assert "".join(metrics.render()) == (
        "# HELP pulsar_in_total Messages taken.\n# TYPE pulsar_in_total counter\n"
        "pulsar_in_total 3\n"
        "# HELP pulsar_topics_count Topics loaded.\n# TYPE pulsar_topics_count gauge\n"
        "pulsar_topics_count 2\n"
    )


def test_large_numbers_keep_all_their_digits() -> None:
    metrics = Metrics()
    metrics.gauge("cache_bytes", "Bytes.", lambda: 2_097_153)
    metrics.histogram("sync_ms", "Time of a sync.", [1]).observe(2_097_153.25)
    text = "".join(metrics.render())
    assert "cache_bytes 2097153\n" in text
    assert "sync_ms_sum 2097153.25\n" in text


def test_histogram_buckets_add_up_and_include_their_bound() -> None:
    metrics = Metrics()
    histogram = metrics.histogram("sync_ms", "Time of a sync.", [1, 10])
    for value in (0.5, 1, 5, 100):
        histogram.observe(value)
    lines = "".join(metrics.render()).splitlines()[2:]
    assert lines == [
        'sync_ms_bucket{le="1"} 2',
        'sync_ms_bucket{le="10"} 3',
        'sync_ms_bucket{le="+Inf"} 4',
        "sync_ms_sum 106.5",
        "sync_ms_count 4",
    ]


def test_growth_is_per_second_between_two_looks() -> None:
    metrics, clock, counts = Metrics(), ManualClock(), [100]
    metrics.growth("hits_rate", "Hits.", lambda: counts[0], clock)

    def shown() -> float:
        [family] = parse("".join(metrics.render()))
        return float(family.samples[0].value)

    assert shown() == 0
    counts[0] += 30
    clock.advance(0.5)
    assert shown() == 0, "too soon to tell"
    clock.advance(9.5)
    assert shown() == 3
    clock.advance(2)
    assert shown() == 0


def test_a_summary_is_in_milliseconds_as_pulsars_are() -> None:
    metrics = Metrics()
    latencies = metrics.latencies("magnetar_x_seconds", "X.")
    metrics.summary("pulsar_x", "X, ms.", latencies, 'success="true"')

    def shown() -> dict[str, float]:
        [family] = [each for each in parse("".join(metrics.render())) if each.name == "pulsar_x"]
        assert family.type == "summary"
        assert all(each.labels["success"] == "true" for each in family.samples)
        return {each.labels.get("quantile", each.name): each.value for each in family.samples}

    assert math.isnan(shown()["0.99"])
    for milliseconds in range(1, 101):
        latencies.record(milliseconds / 1000)
    found = shown()
    assert found["0.99"] == pytest.approx(99, rel=0.02)
    assert found["pulsar_x_count"] == 100
    assert found["pulsar_x_sum"] == pytest.approx(5050)


def test_what_is_counted_elsewhere_is_a_counter_too() -> None:
    metrics = Metrics()
    metrics.counted("evicted_total", "Evicted.", lambda: 7)
    [family] = parse("".join(metrics.render()))
    assert (family.type, family.samples[0].value) == ("counter", 7)
