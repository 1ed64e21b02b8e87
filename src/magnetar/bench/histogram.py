"""How long things took, in buckets that grow with the value: every quantile within 1.6 %.

    value (us)   bucket
    0 .. 127     its own
    128 .. 255   64 buckets of 2
    256 .. 511   64 buckets of 4          each doubling again 64, up to 2^40 us, twelve days

That is the log-linear form of HdrHistogram. Counting costs the same whatever was counted, and two
histograms of the same thing can be added.
"""

from collections import Counter
from collections.abc import Mapping

SUB_BUCKETS = 64
EXACT_US = 2 * SUB_BUCKETS
VALUE_US_MAX = 2**40
QUANTILES = {"p50_ms": 0.5, "p99_ms": 0.99, "p999_ms": 0.999}


def bucket_of(value_us: int) -> int:
    """Return the bucket of a value; those out of bounds count as the bound."""
    value = min(max(value_us, 0), VALUE_US_MAX)
    if value < EXACT_US:
        return value
    doublings = value.bit_length() - EXACT_US.bit_length() + 1
    return doublings * SUB_BUCKETS + (value >> doublings)


def middle_us(bucket: int) -> float:
    """Return the middle of a bucket."""
    if bucket < EXACT_US:
        return float(bucket)
    doublings = bucket // SUB_BUCKETS - 1
    first = (bucket - doublings * SUB_BUCKETS) << doublings
    return first + ((1 << doublings) - 1) / 2


class Histogram:
    """Times, counted."""

    def __init__(self, counts: Mapping[int, int] | None = None) -> None:
        self.counts = Counter(counts or {})
        """Bucket -> how many."""

    @property
    def count(self) -> int:
        """How many there were."""
        return self.counts.total()

    def add(self, seconds: float, count: int = 1) -> None:
        """Count a time, as often as it was seen."""
        self.counts[bucket_of(round(seconds * 1e6))] += count

    def quantile_ms(self, part: float) -> float | None:
        """Return the time that this part of all did not exceed; None: there were none."""
        left = part * self.count
        for bucket in sorted(self.counts):
            left -= self.counts[bucket]
            if left <= 0:
                return middle_us(bucket) / 1000
        return None

    def figures(self) -> dict[str, float]:
        """Return the quantiles that are reported, and the largest; nothing if there were none."""
        if not self.count:
            return {}
        found = {name: self.quantile_ms(part) or 0.0 for name, part in QUANTILES.items()}
        return found | {"max_ms": middle_us(max(self.counts)) / 1000}

    def steps(self) -> list[tuple[float, int]]:
        """Return (milliseconds, how many) of every bucket in use, for a plot."""
        return [(middle_us(bucket) / 1000, self.counts[bucket]) for bucket in sorted(self.counts)]
