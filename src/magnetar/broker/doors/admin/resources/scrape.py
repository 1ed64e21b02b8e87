"""One look at all topics of a process, as rows of numbers that are written family by family.

    topic ──stats()──▶ topics on:   rows of the topic, its subscriptions, its clients
          a few in each turn        rows of its namespace's managed ledgers
                         topics off: sums of its namespace

A row is a string of labels and some packed numbers: a few hundred bytes for each topic. As in
Pulsar there are series of topics or of namespaces, never both; settings choose, and say whether
producers, consumers and bundles are shown. Producers and consumers are shown while there are few,
because every one is a series of its own; the buckets of write latency and entry size, which are
twenty series per topic, are those of namespaces once many topics are published to.
"""

import asyncio
from array import array
from collections import defaultdict
from collections.abc import Iterator, Sequence
from operator import add
from typing import NamedTuple

from magnetar.broker.doors.admin.bundles import Bundles
from magnetar.broker.doors.admin.context import Context
from magnetar.broker.doors.admin.http.exposition import labels, sample
from magnetar.broker.doors.admin.resources.series import (
    BUNDLE,
    COMPACTION,
    CONSUMER,
    MANAGED_LEDGERS,
    NAMESPACE,
    PRODUCER,
    SUBSCRIPTION,
    TALLY,
    TOPIC,
    Series,
    Stats,
    backlog,
    number,
)
from magnetar.broker.port import NamespaceNotFoundError
from magnetar.broker.topics.topic import Topic
from magnetar.names import NamespaceName

TOPICS_PER_TURN = 10
"""Topics whose statistics are taken in one turn of the loop."""
SAMPLES_PER_TURN = 500
CLIENTS_MAX = 1_000
"""With more producers and consumers than this, none of them is shown singly."""

TALLIES_MAX = 500
"""With more topics that are published to than this, buckets are those of whole namespaces."""

Pairs = list[tuple[str, str]]


class Written(NamedTuple):
    """The samples of one family, or some of them."""

    name: str
    head: str
    pieces: Iterator[str]


class Rows:
    """The numbers of many things of one kind, and the labels of each."""

    def __init__(self, series: Sequence[Series]) -> None:
        self.series = series
        self._labels: list[str] = []
        self._numbers = array("d")

    def __len__(self) -> int:
        return len(self._labels)

    def add(self, text: str, stats: Stats) -> None:
        """Add something, given its labels and what is known of it."""
        self._labels.append(text)
        self._numbers.extend([number(each, stats) for each in self.series])

    def add_numbers(self, text: str, numbers: Sequence[float]) -> None:
        """Add something whose numbers are known."""
        self._labels.append(text)
        self._numbers.extend(numbers)

    def total(self, name: str) -> float:
        """Return the sum of a family."""
        column = next(i for i, each in enumerate(self.series) if each.family.name == name)
        return sum(self._numbers[column :: len(self.series)])

    def written(self) -> Iterator[Written]:
        """Yield the families, one or several times for each."""
        for column, each in enumerate(self.series):
            yield Written(each.family.name, each.family.head(), self._pieces(column))

    def _pieces(self, column: int) -> Iterator[str]:
        series = self.series[column]
        name, more = series.family.name, f",{series.more}" if series.more else ""
        numbers = self._numbers[column :: len(self.series)]
        for start in range(0, len(self._labels), SAMPLES_PER_TURN):
            end = start + SAMPLES_PER_TURN
            yield "".join(
                [
                    sample(name, text + more, int(value) if value.is_integer() else value)
                    for text, value in zip(self._labels[start:end], numbers[start:end], strict=True)
                ]
            )


class _Namespace:
    """Sums over the topics of one namespace that are loaded."""

    __slots__ = ("numbers", "stored", "tally", "topics")

    def __init__(self) -> None:
        self.topics = 0
        self.numbers: list[float] = [0.0] * len(NAMESPACE)
        self.stored: dict[str, float] | None = None
        """What Pulsar sums over its managed ledgers; None: no topic of it is stored."""
        self.tally: list[int] | None = None


class Scrape:
    """What is known of all topics at one time."""

    def __init__(self, context: Context) -> None:
        config = context.config
        self._context = context
        self._cluster: Pairs = [("cluster", context.cluster)]
        self.process: Pairs = [*self._cluster, ("worker", str(config.worker))]
        """The labels of what several processes have to say, and is added up."""
        self._singly = config.metrics_of_topics
        self._producers_shown = self._singly and config.metrics_of_producers
        self._consumers_shown = self._singly and config.metrics_of_consumers
        self.totals = Rows(TOPIC)
        self._subscriptions = Rows(SUBSCRIPTION)
        self._producers = Rows(PRODUCER)
        self._consumers = Rows(CONSUMER)
        self._compactions = Rows(COMPACTION)
        self._tallies = Rows(TALLY)
        self._bundles: dict[tuple[str, str], list[float]] = {}
        self._bundles_of: dict[NamespaceName, Bundles | None] = {}
        self._namespaces: dict[str, _Namespace] = defaultdict(_Namespace)
        self._now_s = context.clock.monotonic()
        self.stored_topics = 0
        self._clients = 0

    @property
    def topics_per_namespace(self) -> Iterator[tuple[str, int]]:
        """Yield every namespace with loaded topics, and how many."""
        return ((name, each.topics) for name, each in sorted(self._namespaces.items()))

    async def collect(self) -> None:
        """Take the statistics of all topics, a few in each turn of the loop."""
        for count, topic in enumerate(self._context.catalog.loaded(), start=1):
            self._take(topic)
            if self._context.config.metrics_of_bundles:
                await self._take_bundle(topic)
            if count % TOPICS_PER_TURN == 0:
                await asyncio.sleep(0)

    def _take(self, topic: Topic) -> None:
        name, namespace = str(topic.name), str(topic.name.namespace_name)
        stats = topic.stats()
        sums = self._namespaces[namespace]
        sums.topics += 1
        tally = None if topic.inlet.tally is None else topic.inlet.tally.read(self._now_s)
        if tally is not None:
            sums.tally = list(map(add, sums.tally or [0] * len(tally), tally))
        if topic.name.persistent:
            self.stored_topics += 1
            rates = dict(
                zip(
                    ("storageWriteRate", "storageReadRate", "markDeleteRate"),
                    topic.entry_rates(),
                    strict=True,
                )
            )
            stats = {**stats, **rates}
            _add_stored(sums, stats)
        pairs = [*self._cluster, ("namespace", namespace), ("topic", name)]
        text = labels(pairs)
        self.totals.add(text, stats)
        if not self._singly:
            sums.numbers = list(map(add, sums.numbers, (number(s, stats) for s in NAMESPACE)))
            return
        if topic.compacted is not None:
            self._compactions.add(text, topic.compacted.figures(self._now_s))
        if tally is not None and len(self._tallies) <= TALLIES_MAX:
            self._tallies.add(text, {"counts": tally})
        self._take_parts(text, stats)

    def _take_parts(self, topic: str, stats: Stats) -> None:
        """Take subscriptions and clients, given the labels of their topic."""
        if self._producers_shown:
            for producer in self._few(stats["publishers"]):
                self._producers.add(f"{topic},{labels(_ids('producer', producer))}", producer)
        for name, subscription in stats["subscriptions"].items():
            text = f"{topic},{labels([('subscription', name)])}"
            self._subscriptions.add(text, subscription)
            if self._consumers_shown:
                for consumer in self._few(subscription["consumers"]):
                    self._consumers.add(f"{text},{labels(_ids('consumer', consumer))}", consumer)

    def _few(self, clients: Sequence[Stats]) -> Sequence[Stats]:
        """Return the clients to show singly: none of them, once there are too many."""
        self._clients += len(clients)
        return clients if self._clients <= CLIENTS_MAX else ()

    async def _take_bundle(self, topic: Topic) -> None:
        namespace = topic.name.namespace_name
        if namespace not in self._bundles_of:
            try:
                self._bundles_of[namespace] = await self._context.bundles(namespace)
            except NamespaceNotFoundError:
                self._bundles_of[namespace] = None  # it is being deleted
        bundles = self._bundles_of[namespace]
        if bundles is None or topic.closed:
            return
        stats = topic.stats()
        key = str(namespace), bundles.of_topic(topic.name)
        so_far = self._bundles.get(key, [0.0] * len(BUNDLE))
        self._bundles[key] = list(map(add, so_far, (number(each, stats) for each in BUNDLE)))

    def written(self) -> Iterator[Written]:
        """Yield all families of topics and namespaces, in no order."""
        if self._singly:
            yield from self.totals.written()
            yield from self._subscriptions.written()
            yield from self._compactions.written()
            if self._clients <= CLIENTS_MAX:
                yield from self._producers.written()
                yield from self._consumers.written()
        else:
            yield from self._of_namespaces().written()
        yield from self._buckets().written()
        yield from self._managed_ledgers().written()
        if self._bundles:
            yield from self._of_bundles().written()

    def _of_namespaces(self) -> Rows:
        rows = Rows(NAMESPACE)
        for namespace, sums in sorted(self._namespaces.items()):
            rows.add_numbers(self._about(namespace), sums.numbers)
        return rows

    def _buckets(self) -> Rows:
        if self._singly and len(self._tallies) <= TALLIES_MAX:
            return self._tallies
        rows = Rows(TALLY)
        for namespace, sums in sorted(self._namespaces.items()):
            if sums.tally is not None:
                rows.add(self._about(namespace), {"counts": sums.tally})
        return rows

    def _managed_ledgers(self) -> Rows:
        rows = Rows(MANAGED_LEDGERS)
        for namespace, sums in sorted(self._namespaces.items()):
            if sums.stored is not None:
                # Pulsar names a managed ledger's namespace with its domain.
                about = self._about(f"{namespace}/persistent")
                rows.add(about, {**sums.stored, "counts": sums.tally})
        return rows

    def _of_bundles(self) -> Rows:
        rows = Rows(BUNDLE)
        for (namespace, bundle), numbers in sorted(self._bundles.items()):
            rows.add_numbers(labels([*self.process, ("bundle", f"{namespace}/{bundle}")]), numbers)
        return rows

    def _about(self, namespace: str) -> str:
        return labels([*self.process, ("namespace", namespace)])


_SUMMED = (
    "markDeleteRate",
    "msgThroughputIn",
    "msgThroughputOut",
    "storageReadRate",
    "storageSize",
    "storageWriteRate",
)


def _add_stored(sums: _Namespace, stats: Stats) -> None:
    if sums.stored is None:
        sums.stored = dict.fromkeys((*_SUMMED, "msgBacklog"), 0.0)
    for key in _SUMMED:
        sums.stored[key] += stats.get(key, 0)
    sums.stored["msgBacklog"] += backlog(stats)


def _ids(kind: str, client: Stats) -> Pairs:
    return [
        (f"{kind}_name", str(client.get(f"{kind}Name", ""))),
        (f"{kind}_id", str(client.get(f"{kind}Id", ""))),
    ]
