"""Series are counted without ceremony and shown as Prometheus expects."""

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
