"""What several processes say about the whole broker, added up under Pulsar's own labels.

    pulsar_x{cluster="c",worker="0",rest} 3 ─┐
    pulsar_x{cluster="c",worker="1",rest} 4 ─┴─▶ pulsar_x{cluster="c",rest} 7

    gauge      the sum; of a share of the machine (`SHARES`), which all of them see, the largest
    counter    the sum, and what a process had counted before it was restarted stays in it
    quantile   of a summary: the largest, because quantiles cannot be added

Only names that Pulsar has are added up, so that they look as those of one Pulsar broker do; our
own and those of the operating system keep the label `worker`. A process that is down takes its
gauges along and leaves its counters. Lines without the label pass as they are.
"""

from math import isnan

PREFIXES = (b"pulsar_", b"bookie_")
"""Names that are Pulsar's or BookKeeper's."""

SHARES = frozenset(
    {
        b"pulsar_lb_cpu_usage",
        b"pulsar_lb_bandwidth_in_usage",
        b"pulsar_lb_bandwidth_out_usage",
    }
)
"""Gauges of the machine, not of the process."""

REMEMBERED_MAX = 20_000
"""Counters whose past is remembered; the others are only added up."""

_WORKER = b'worker="'


class _Counted:
    """What one process says of one counter."""

    __slots__ = ("before", "last")

    def __init__(self) -> None:
        self.before = 0.0
        """What it had counted when it was restarted."""
        self.last = 0.0

    def take(self, value: float) -> None:
        if value < self.last:
            self.before += self.last
        self.last = value


class Totals:
    """The counters of the broker, which outlive its processes."""

    def __init__(self) -> None:
        self._counters: dict[bytes, dict[bytes, dict[bytes, _Counted]]] = {}
        self._remembered = 0

    def family(self, name: bytes, head: bytes) -> "Addition | None":
        """Return what adds up the samples of a family; None: they stay apart."""
        if not name.startswith(PREFIXES):
            return None
        return Addition(self, name, head.rstrip().rsplit(b" ", 1)[-1])

    def count(self, family: bytes, key: bytes, worker: bytes, value: float) -> bool:
        """Take the value of a counter; False: no room to remember it."""
        workers = self._counters.setdefault(family, {}).setdefault(key, {})
        counted = workers.get(worker)
        if counted is None:
            if self._remembered >= REMEMBERED_MAX:
                return False
            self._remembered += 1
            counted = workers[worker] = _Counted()
        counted.take(value)
        return True

    def counted(self, family: bytes) -> dict[bytes, float]:
        """Return the sums of what was ever counted, by sample."""
        return {
            key: sum(each.before + each.last for each in workers.values())
            for key, workers in self._counters.get(family, {}).items()
        }


class Addition:
    """Adds up the samples of one family."""

    def __init__(self, totals: Totals, name: bytes, kind: bytes) -> None:
        self._totals = totals
        self._name = name
        self._grows = kind != b"gauge"
        self._largest = name in SHARES
        self._summary = kind == b"summary"
        self._sums: dict[bytes, float] = {}

    def take(self, lines: bytes) -> bytes:
        """Take whole lines; return those that are not about a process."""
        if _WORKER not in lines:
            return lines
        apart = []
        for line in lines.splitlines(keepends=True):
            start = line.find(_WORKER)
            if start < 0:
                apart.append(line)
                continue
            end = line.index(b'"', start + len(_WORKER))
            key, _, value = (line[:start] + line[end + 1 :]).rpartition(b" ")
            key = key.replace(b",,", b",", 1).replace(b"{,", b"{", 1).replace(b",}", b"}", 1)
            self._add(key, line[start + len(_WORKER) : end], float(value))
        return b"".join(apart)

    def _add(self, key: bytes, worker: bytes, value: float) -> None:
        largest = self._largest or (self._summary and b'quantile="' in key)
        if self._grows and not largest and self._totals.count(self._name, key, worker, value):
            return
        so_far = self._sums.get(key)
        if so_far is None or isnan(so_far):
            self._sums[key] = value
        elif not isnan(value):
            self._sums[key] = max(so_far, value) if largest else so_far + value

    def result(self) -> bytes:
        """Return the samples of the whole broker."""
        sums = self._sums
        if self._grows:
            for key, value in self._totals.counted(self._name).items():
                sums[key] = sums.get(key, 0) + value
        return b"".join([b"%s %s\n" % (key, _text(value)) for key, value in sums.items()])


def _text(value: float) -> bytes:
    return (str(int(value)) if value.is_integer() else repr(value)).encode()
