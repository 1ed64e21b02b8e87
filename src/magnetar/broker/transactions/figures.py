"""What is counted of transactions, under Pulsar's names."""

from bisect import bisect_left

from magnetar.broker.metrics import Metrics

LATENCY_BOUNDS_MS = (
    10,
    20,
    50,
    100,
    500,
    1_000,
    5_000,
    15_000,
    30_000,
    60_000,
    300_000,
    1_500_000,
    3_000_000,
)


class Figures:
    """Counters of one process."""

    def __init__(self, metrics: Metrics) -> None:
        self.created = metrics.counter("pulsar_txn_created_total", "Transactions opened.")
        self.committed = metrics.counter("pulsar_txn_committed_total", "Transactions committed.")
        self.aborted = metrics.counter("pulsar_txn_aborted_total", "Transactions aborted.")
        self.timed_out = metrics.counter(
            "pulsar_txn_timeout_total", "Transactions aborted because their time was up."
        )
        self.appended = metrics.counter(
            "pulsar_txn_append_log_total", "Changes of a transaction's state that were written."
        )
        name = "pulsar_txn_execution_latency_le"
        text = "Transactions that took up to so many milliseconds, and more than the bound before."
        self._latency = [
            *(metrics.counter(f"{name}_{bound}", text) for bound in LATENCY_BOUNDS_MS),
            metrics.counter(f"{name}_overflow", "Transactions that took longer."),
        ]

    def opened(self) -> None:
        """Count a transaction that was opened."""
        self.created.value += 1
        self.appended.value += 1

    def ended(self, *, committed: bool, timed_out: bool, took_ms: int) -> None:
        """Count a transaction that is over."""
        self.appended.value += 2
        if committed:
            self.committed.value += 1
        else:
            self.aborted.value += 1
            self.timed_out.value += timed_out
        self._latency[bisect_left(LATENCY_BOUNDS_MS, took_ms)].value += 1
