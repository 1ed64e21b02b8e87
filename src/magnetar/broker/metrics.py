"""Counters, gauges and histograms, and the Prometheus text made of them.

Hot paths hold the object and add to a slot (`counter.value += n`): no lock, no label
look-up, no call. Everything runs on the event loop; a thread that must count returns its
figures with its result. Series with a label per topic are not kept here: they are made
from the topics' own statistics when somebody asks.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence

from magnetar.broker.clock import Clock
from magnetar.broker.latency import QUANTILES, Latencies, cumulative, quantile

_SUMMARY_QUANTILES = (0.5, 0.75, 0.95, 0.99, 0.999, 0.9999, 1.0)


class Counter:
    """A number that only grows."""

    __slots__ = ("help", "name", "value")

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.help = text
        self.value = 0


class Gauge:
    """A number that is asked for when it is shown."""

    __slots__ = ("help", "name", "read")

    def __init__(self, name: str, text: str, read: Callable[[], float]) -> None:
        self.name = name
        self.help = text
        self.read = read


class Growth:
    """How fast something grows: per second, between the last two looks."""

    WINDOW_S_MIN = 1.0
    """A rate over less than this says more about the moment of asking than about the traffic."""

    __slots__ = ("_at_s", "_before", "_clock", "_rate", "_read")

    def __init__(self, clock: Clock, read: Callable[[], float]) -> None:
        self._clock = clock
        self._read = read
        self._at_s = clock.monotonic()
        self._before = read()
        self._rate = 0.0

    def __call__(self) -> float:
        now_s = self._clock.monotonic()
        passed_s = now_s - self._at_s
        if passed_s >= self.WINDOW_S_MIN:
            now = self._read()
            self._rate = max(now - self._before, 0) / passed_s
            self._at_s, self._before = now_s, now
        return self._rate


class Summary:
    """Durations under one of Pulsar's names: milliseconds, quantiles of the last minute."""

    __slots__ = ("help", "labels", "latencies", "name")

    def __init__(self, name: str, text: str, latencies: Latencies, labels: str) -> None:
        self.name = name
        self.help = text
        self.latencies = latencies
        self.labels = labels
        """Beside the quantile, as they stand between the braces."""

    def render(self) -> str:
        """Return the Prometheus text."""
        lines = [_head(self.name, self.help, "summary")]
        more = f"{self.labels}," if self.labels else ""
        own = f"{{{self.labels}}}" if self.labels else ""
        recent = self.latencies.recent
        for each in _SUMMARY_QUANTILES:
            found = quantile(recent, each)
            shown = "NaN" if found is None else f"{1000 * found:.6g}"
            lines.append(f'{self.name}{{{more}quantile="{each}"}} {shown}\n')
        lines.append(f"{self.name}_count{own} {sum(self.latencies.counts)}\n")
        lines.append(f"{self.name}_sum{own} {1000 * self.latencies.total_s:.15g}\n")
        return "".join(lines)


class Histogram:
    """Counts of observations up to each bound."""

    __slots__ = ("bounds", "counts", "help", "name", "total")

    def __init__(self, name: str, text: str, bounds: Sequence[float]) -> None:
        self.name = name
        self.help = text
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one observation, in the unit of the bounds."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Metrics:
    """All series of one process that do not belong to a topic."""

    def __init__(self) -> None:
        self._counters: list[Counter] = []
        self._gauges: list[Gauge] = []
        self._read_counters: list[Gauge] = []
        self._summaries: list[Summary] = []
        self._histograms: list[Histogram] = []
        self.all_latencies: list[Latencies] = []

    def counter(self, name: str, text: str) -> Counter:
        """Make a counter; its name ends in `_total`."""
        counter = Counter(name, text)
        self._counters.append(counter)
        return counter

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Show what `read` returns under `name`."""
        self._gauges.append(Gauge(name, text, read))

    def growth(self, name: str, text: str, read: Callable[[], float], clock: Clock) -> None:
        """Show how much what `read` returns grows per second."""
        self.gauge(name, text, Growth(clock, read))

    def counted(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Show what `read` returns, which only grows."""
        self._read_counters.append(Gauge(name, text, read))

    def summary(self, name: str, text: str, latencies: Latencies, labels: str = "") -> None:
        """Show durations in milliseconds, too."""
        self._summaries.append(Summary(name, text, latencies, labels))

    def histogram(self, name: str, text: str, bounds: Sequence[float]) -> Histogram:
        """Make a histogram with the given upper bounds."""
        histogram = Histogram(name, text, bounds)
        self._histograms.append(histogram)
        return histogram

    def latencies(self, name: str, text: str) -> Latencies:
        """Make a histogram of durations; its name ends in `_seconds`."""
        latencies = Latencies(name, text)
        self.all_latencies.append(latencies)
        return latencies

    def render(self) -> Iterator[str]:
        """Yield the Prometheus text, one series with its samples at a time."""
        for counter in self._counters:
            yield _head(counter.name, counter.help, "counter") + f"{counter.name} {counter.value}\n"
        for each in self._read_counters:
            yield _head(each.name, each.help, "counter") + f"{each.name} {each.read():.15g}\n"
        for gauge in self._gauges:
            yield _head(gauge.name, gauge.help, "gauge") + f"{gauge.name} {gauge.read():.15g}\n"
        for histogram in self._histograms:
            lines = [_head(histogram.name, histogram.help, "histogram")]
            so_far = 0
            for bound, count in zip(histogram.bounds, histogram.counts, strict=False):
                so_far += count
                lines.append(f'{histogram.name}_bucket{{le="{bound:g}"}} {so_far}\n')
            so_far += histogram.counts[-1]
            lines.append(f'{histogram.name}_bucket{{le="+Inf"}} {so_far}\n')
            lines.append(f"{histogram.name}_sum {histogram.total:.15g}\n")
            lines.append(f"{histogram.name}_count {so_far}\n")
            yield "".join(lines)
        for summary in self._summaries:
            yield summary.render()
        for latencies in self.all_latencies:
            yield from _rendered(latencies)


def _rendered(latencies: Latencies) -> Iterator[str]:
    """Yield the counts since the start, and the quantiles of the last whole minute."""
    name = latencies.name
    lines = [_head(name, latencies.help, "histogram")]
    lines += [
        f'{name}_bucket{{le="{seconds:.10g}"}} {count}\n'
        for seconds, count in cumulative(latencies.counts)
    ]
    total = sum(latencies.counts)
    lines.append(f'{name}_bucket{{le="+Inf"}} {total}\n')
    lines.append(f"{name}_sum {latencies.total_s:.15g}\n{name}_count {total}\n")
    yield "".join(lines)
    recent, shown = latencies.recent, name.removesuffix("_seconds") + "_quantile_seconds"
    lines = [_head(shown, f"Of the last whole minute, within 2 %: {latencies.help}", "gauge")]
    for each in QUANTILES:
        lines.append(f'{shown}{{quantile="{each:g}"}} {quantile(recent, each) or 0:.6g}\n')
    yield "".join(lines)


def _head(name: str, text: str, kind: str) -> str:
    return f"# HELP {name} {text}\n# TYPE {name} {kind}\n"
