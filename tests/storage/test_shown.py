"""What is shown of ledgers: both caches together, and what grows per second."""

from dataclasses import dataclass, field

from magnetar.broker.clock import ManualClock
from magnetar.broker.metrics import Metrics
from magnetar.broker.storage.read_cache import CacheFigures
from magnetar.broker.storage.shown import show_as_bookie, show_cache


@dataclass
class Logs:
    figures: CacheFigures = field(default_factory=CacheFigures)
    cached_bytes: int = 30
    cached_entries: int = 3


@dataclass
class Ledgers:
    stored: Logs = field(default_factory=Logs)
    write_cache_bytes: int = 100
    write_cache_entries: int = 10
    waiting_records: int = 2
    flushed_entries: int = 1_000
    flushes: int = 4


def shown(metrics: Metrics) -> dict[str, float]:
    lines = "".join(metrics.render()).splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def test_the_cache_is_what_was_written_lately_and_what_was_read_back() -> None:
    metrics, clock, ledgers = Metrics(), ManualClock(), Ledgers()
    figures = ledgers.stored.figures
    show_cache(metrics, ledgers, clock)
    figures.inserted_entries, figures.evicted_entries, figures.evictions = 20, 17, 5
    found = shown(metrics)
    assert found["pulsar_ml_cache_used_size"] == 130
    assert found["pulsar_ml_cache_entries"] == 13
    inserted = found["pulsar_ml_cache_inserted_entries_total"]
    evicted = found["pulsar_ml_cache_evicted_entries_total"]
    assert (inserted, evicted) == (1_030, 1_017)
    assert inserted - evicted == found["pulsar_ml_cache_entries"]
    assert found["pulsar_ml_cache_evictions"] == 9


def test_hits_and_misses_are_per_second_and_not_mixed_up() -> None:
    metrics, clock, ledgers = Metrics(), ManualClock(), Ledgers()
    show_cache(metrics, ledgers, clock)
    figures = ledgers.stored.figures
    figures.hits, figures.hit_bytes, figures.misses, figures.miss_bytes = 10, 200, 30, 400
    clock.advance(10)
    found = shown(metrics)
    kinds = ("hits_rate", "hits_throughput", "misses_rate", "misses_throughput")
    assert [found[f"pulsar_ml_cache_{kind}"] for kind in kinds] == [1, 20, 3, 40]


def test_the_journal_and_the_caches_are_shown_as_a_bookie_shows_its_own() -> None:
    metrics, ledgers = Metrics(), Ledgers()
    commits = metrics.latencies("magnetar_storage_commit_seconds", "X.")
    accepted = metrics.counter("magnetar_storage_accepted_bytes_total", "X.")
    show_as_bookie(metrics, ledgers, commits, accepted)
    commits.record(0.002)
    accepted.value += 7
    ledgers.stored.figures.miss_bytes = 9
    found = shown(metrics)
    assert found['bookie_journal_JOURNAL_SYNC_count{success="true"}'] == 1
    assert found["bookie_journal_JOURNAL_QUEUE_SIZE"] == 2
    assert (found["bookie_WRITE_BYTES"], found["bookie_READ_BYTES"]) == (7, 9)
    assert (found["bookie_write_cache_size"], found["bookie_read_cache_size"]) == (100, 30)
