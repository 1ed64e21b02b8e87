"""What the ledgers of a process count, under the names of BookKeeper and of Pulsar's cache.

    bookie_*            only what means the same there: one journal, a write cache, a read cache
    pulsar_ml_cache_*   Pulsar's cache holds what was written lately and what was read back;
                        ours is both caches together

Source: BookKeeper's metrics reference; Pulsar's `ManagedLedgerCacheMetrics`.
"""

from collections.abc import Callable
from typing import Protocol

from magnetar.broker.clock import Clock
from magnetar.broker.latency import Latencies
from magnetar.broker.metrics import Counter, Metrics
from magnetar.broker.storage.read_cache import CacheFigures

_CACHE = "pulsar_ml_cache_"


class Stored(Protocol):
    """The entry logs."""

    @property
    def figures(self) -> CacheFigures: ...
    @property
    def cached_bytes(self) -> int: ...
    @property
    def cached_entries(self) -> int: ...


class Shown(Protocol):
    """The ledgers, as far as they are shown."""

    flushed_entries: int
    flushes: int

    @property
    def stored(self) -> Stored: ...
    @property
    def write_cache_bytes(self) -> int: ...
    @property
    def write_cache_entries(self) -> int: ...
    @property
    def waiting_records(self) -> int: ...


def show_as_bookie(metrics: Metrics, ledgers: Shown, commits: Latencies, accepted: Counter) -> None:
    """Show the journal and both caches."""
    text = "Write and sync of one commit, ms."
    metrics.summary("bookie_journal_JOURNAL_SYNC", text, commits, 'success="true"')
    for name, help_text, read in (
        ("journal_JOURNAL_QUEUE_SIZE", "Records for the next commit.", _waiting(ledgers)),
        ("write_cache_size", "Bytes not in entry logs yet.", lambda: ledgers.write_cache_bytes),
        ("read_cache_size", "Bytes read back.", lambda: ledgers.stored.cached_bytes),
    ):
        metrics.gauge(f"bookie_{name}", help_text, read)
    figures = ledgers.stored.figures
    metrics.counted("bookie_WRITE_BYTES", "Bytes taken for writing.", lambda: accepted.value)
    metrics.counted(
        "bookie_READ_BYTES", "Bytes of entries read from the disk.", lambda: figures.miss_bytes
    )


def _waiting(ledgers: Shown) -> Callable[[], float]:
    return lambda: ledgers.waiting_records


def show_cache(metrics: Metrics, ledgers: Shown, clock: Clock) -> None:
    """Show what is served from memory."""
    stored = ledgers.stored
    figures = stored.figures
    metrics.gauge(
        _CACHE + "used_size",
        "Bytes of entries in memory, written lately or read back.",
        lambda: ledgers.write_cache_bytes + stored.cached_bytes,
    )
    metrics.gauge(
        _CACHE + "entries",
        "Entries in memory.",
        lambda: ledgers.write_cache_entries + stored.cached_entries,
    )
    for name, help_text, read in (
        (
            "inserted_entries_total",
            "Entries that came into memory.",
            lambda: (
                figures.inserted_entries + ledgers.flushed_entries + ledgers.write_cache_entries
            ),
        ),
        (
            "evicted_entries_total",
            "Entries that left it.",
            lambda: figures.evicted_entries + ledgers.flushed_entries,
        ),
        ("evictions", "How often some left it.", lambda: figures.evictions + ledgers.flushes),
    ):
        metrics.counted(_CACHE + name, help_text, read)
    for name, help_text, read in (
        ("hits_rate", "Entries per second read from memory.", lambda: figures.hits),
        ("hits_throughput", "Bytes per second read from memory.", lambda: figures.hit_bytes),
        ("misses_rate", "Entries per second read from the disk.", lambda: figures.misses),
        ("misses_throughput", "Bytes per second read from the disk.", lambda: figures.miss_bytes),
    ):
        metrics.growth(_CACHE + name, help_text, read, clock)
