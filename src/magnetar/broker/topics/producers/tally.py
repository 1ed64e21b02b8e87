"""How long the entries of a topic took to be durable, and how large they are, in Pulsar's buckets.

    slot    0 ......... 9 | 10                   | 11 ......... 19
            write latency | sum of latencies, µs | entry sizes
            <= 0.5 ms ... |                      | <= 128 bytes ...

Sizes are counted when entries are taken, a run of one producer at a time; only a run whose
entries fall into different buckets is looked at entry by entry. Latencies are counted once per
topic and commit. What is shown is what came in the last whole minute, as in Pulsar. Source:
Pulsar's `ManagedLedgerMBeanImpl`.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

LATENCY_BOUNDS_MS = (0.5, 1, 5, 10, 20, 50, 100, 200, 1000)
SIZE_BOUNDS_BYTES = (128, 512, 1024, 2048, 4096, 16_384, 102_400, 1_048_576)
LATENCY_SUM = len(LATENCY_BOUNDS_MS) + 1
SIZES_FROM = LATENCY_SUM + 1
SLOTS = SIZES_FROM + len(SIZE_BOUNDS_BYTES) + 1
WINDOW_S = 60.0

_LATENCY_BOUNDS_S = tuple(bound / 1000 for bound in LATENCY_BOUNDS_MS)


class Tally:
    """What was counted of one topic since it was loaded."""

    __slots__ = ("_at_s", "_before", "_shown", "counts")

    def __init__(self) -> None:
        self.counts = [0] * SLOTS
        self._before: list[int] | None = None
        self._shown: list[int] | None = None
        self._at_s = 0.0

    def wrote(self, entries: int, took_us: int, bucket: int) -> None:
        """Count entries that took so long; `bucket` is that of `latency_bucket`."""
        counts = self.counts
        counts[bucket] += entries
        counts[LATENCY_SUM] += took_us * entries

    def alike(self, entries: int, smallest: int, largest: int) -> bool:
        """Count entries if they fall into one bucket; False: count their `sizes`."""
        low = bisect_left(SIZE_BOUNDS_BYTES, smallest)
        if smallest != largest and low != bisect_left(SIZE_BOUNDS_BYTES, largest):
            return False
        self.counts[SIZES_FROM + low] += entries
        return True

    def sizes(self, sizes: Sequence[int]) -> None:
        """Count some entries."""
        ordered = sorted(sizes)
        before = 0
        for bucket, bound in enumerate((*SIZE_BOUNDS_BYTES, ordered[-1])):
            upto = bisect_right(ordered, bound, before)
            self.counts[SIZES_FROM + bucket] += upto - before
            before = upto

    def take_back(self, sizes: Sequence[int]) -> None:
        """Uncount entries that were not stored after all."""
        for size_bytes in sizes:
            self.counts[SIZES_FROM + bisect_left(SIZE_BOUNDS_BYTES, size_bytes)] -= 1

    def read(self, now_s: float) -> Sequence[int]:
        """Return what was counted in the last whole minute; before one is over, so far."""
        if self._before is None:
            self._before, self._at_s = [0] * SLOTS, now_s
        if now_s - self._at_s < WINDOW_S and self._shown is not None:
            return self._shown
        window = [max(now - then, 0) for now, then in zip(self.counts, self._before, strict=True)]
        if now_s - self._at_s >= WINDOW_S:
            self._shown, self._before, self._at_s = window, self.counts[:], now_s
        return window


def latency_bucket(seconds: float) -> int:
    """Return the slot that a write of so many seconds is counted in."""
    return bisect_left(_LATENCY_BOUNDS_S, seconds)
