"""How long things took: a log-linear histogram, from which p99 comes out within 2 %.

    seconds   2^-20 ........ 2^-19 ........ 2^-18 ...            ... 2^6 ........ 2^7
    slots       │ 32 equal parts │ 32 equal parts │      ...          │ 32 equal parts │
                0               32               64                  832            863

Every power of two is divided into equal parts, so a slot is at most 1/32 as wide as where it
begins, and its middle is off by at most 1/64. What is shorter than a microsecond counts in the
first slot, what takes two minutes and more in the last. One array of counts and no object per
observation; two histograms are merged by adding their counts, whoever made them. The idea is
HdrHistogram's; the slot comes from the number's own exponent and mantissa.

What is shown is what happened in the last whole minute, as with Pulsar's buckets; Prometheus
gets the counts since the start, in parts of four to a power of two.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from math import ceil, frexp
from typing import NamedTuple

PARTS = 32
"""Slots to a power of two."""

_EXPONENT_MIN, _EXPONENT_MAX = -19, 7
SHORTEST_S, LONGEST_S = 2.0 ** (_EXPONENT_MIN - 1), 2.0**_EXPONENT_MAX
SLOTS = (_EXPONENT_MAX - _EXPONENT_MIN + 1) * PARTS

# Of a mantissa from 0.5 up to 1, `int(mantissa * 2 * PARTS)` is PARTS up to 2 * PARTS.
_FIRST = _EXPONENT_MIN * PARTS + PARTS

QUANTILES = (0.5, 0.9, 0.99, 0.999)
"""What is shown of every histogram."""

_SHOWN_PARTS = 4
_SHOWN_FROM, _SHOWN_TO = 2.0**-15, 2.0**5

Counts = Sequence[int]


def slot_of(seconds: float) -> int:
    """Return the slot that a duration counts in."""
    if seconds < SHORTEST_S:
        return 0
    if seconds >= LONGEST_S:
        return SLOTS - 1
    mantissa, exponent = frexp(seconds)
    return exponent * PARTS + int(mantissa * (2 * PARTS)) - _FIRST


def begin_of(slot: int) -> float:
    """Return the shortest duration that counts in a slot, in seconds."""
    octave, part = divmod(slot, PARTS)
    return float((1 + part / PARTS) * 2.0 ** (octave + _EXPONENT_MIN - 1))


def quantile(counts: Counts, wanted: float) -> float | None:
    """Return the duration that so large a part (0 to 1) stays at or below; None: no counts."""
    total = sum(counts)
    if not total:
        return None
    rank = max(1, ceil(total * wanted))
    for slot, count in enumerate(counts):
        rank -= count
        if rank <= 0:
            return (begin_of(slot) + begin_of(slot + 1)) / 2
    raise AssertionError("ranks end with the counts")


def merged(histograms: Iterable[Counts]) -> list[int]:
    """Return the counts of several histograms together."""
    total = [0] * SLOTS
    for counts in histograms:
        total = [ours + theirs for ours, theirs in zip(total, counts, strict=True)]
    return total


def packed(counts: Counts) -> dict[str, int]:
    """Return the counts that are not 0, by slot, for JSON."""
    return {str(slot): count for slot, count in enumerate(counts) if count}


def unpacked(pairs: Iterable[tuple[str, int]]) -> list[int]:
    """Return what was packed."""
    counts = [0] * SLOTS
    for slot, count in pairs:
        counts[int(slot)] = count
    return counts


class Bucket(NamedTuple):
    """How many took at most so long."""

    seconds: float
    so_many: int


def cumulative(counts: Counts) -> Iterator[Bucket]:
    """Yield buckets as Prometheus has them, without the last one, which has everything."""
    first, last = slot_of(_SHOWN_FROM), slot_of(_SHOWN_TO)
    so_far = sum(counts[:first])
    step = PARTS // _SHOWN_PARTS
    yield Bucket(begin_of(first), so_far)
    for slot in range(first, last, step):
        so_far += sum(counts[slot : slot + step])
        yield Bucket(begin_of(slot + step), so_far)


class Latencies:
    """What was observed since the start, and in the last whole minute."""

    __slots__ = ("_before", "_shown", "counts", "help", "name", "total_s")

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.help = text
        self.counts = array("Q", bytes(8 * SLOTS))
        self.total_s = 0.0
        self._before: Counts | None = None
        self._shown: Counts | None = None

    def record(self, seconds: float, times: int = 1) -> None:
        """Count something that took so long, so many times."""
        # `slot_of`, written out: a call costs as much as all of this.
        if SHORTEST_S <= seconds < LONGEST_S:
            mantissa, exponent = frexp(seconds)
            slot = exponent * PARTS + int(mantissa * (2 * PARTS)) - _FIRST
        else:
            slot = 0 if seconds < SHORTEST_S else SLOTS - 1
        self.counts[slot] += times
        self.total_s += seconds * times

    def turn(self) -> None:
        """End a minute, and begin the next one."""
        self._shown = self._since()
        self._before = self.counts[:]

    @property
    def recent(self) -> Counts:
        """The counts of the last whole minute; before one is over, of what there is so far."""
        return self._since() if self._shown is None else self._shown

    def _since(self) -> Counts:
        if self._before is None:
            return self.counts[:]
        return [now - then for now, then in zip(self.counts, self._before, strict=True)]
