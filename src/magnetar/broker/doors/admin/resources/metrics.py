"""GET /metrics: Prometheus text under Pulsar's names, from the topics' own statistics.

    topics ──stats(), a slice per turn of the loop──▶ rows of numbers ─┐
    Metrics.render() ──▶ blocks of text ───────────────────────────────┼─▶ families, sorted by name
    the process ──▶ blocks of text ────────────────────────────────────┘

Series of one topic carry `cluster`, `namespace`, `topic` and, where there is one,
`subscription`. All others also carry `worker`, the number of the process, because several
processes answer as one target. Counters of a topic start at 0 when it is loaded.

Source: Pulsar's metrics reference. Producers and consumers are shown while there are few,
because every one is a series of its own; the buckets of write latency and entry size, which
are twenty series per topic, of whole namespaces once many topics are published to.
"""

import asyncio
import resource
from array import array
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from operator import add
from pathlib import Path
from typing import Any, NamedTuple

from starlette.responses import Response, StreamingResponse

from magnetar.broker.doors.admin.call import Call
from magnetar.broker.doors.admin.context import Context
from magnetar.broker.doors.admin.http.exposition import (
    CONTENT_TYPE,
    Family,
    labelled,
    labels,
    name_of,
    sample,
)
from magnetar.broker.doors.admin.routes import Right, Route, Text
from magnetar.broker.files import DiskFiles
from magnetar.broker.topics.producers.tally import LATENCY_SUM, SIZES_FROM

_MEMORY_STATUS = Path("/proc/self/statm")

TOPICS_PER_TURN = 20
"""Topics whose statistics are taken in one turn of the loop."""
SAMPLES_PER_TURN = 2_000
CLIENTS_MAX = 1_000
"""With more producers and consumers than this, none of them is shown singly."""

TALLIES_MAX = 500
"""With more topics that are published to than this, buckets are those of whole namespaces."""

Stats = Mapping[str, Any]


class Series(NamedTuple):
    """One family of samples, and where its number is in the statistics."""

    family: Family
    read: str | Callable[[Stats], float]


def _gauge(name: str, help_text: str, read: str | Callable[[Stats], float]) -> Series:
    return Series(Family(name, help_text, "gauge"), read)


def _counter(name: str, help_text: str, read: str | Callable[[Stats], float]) -> Series:
    return Series(Family(name, help_text, "counter"), read)


def _backlog(stats: Stats) -> float:
    return float(sum(each["msgBacklog"] for each in stats["subscriptions"].values()))


def _consumers(stats: Stats) -> float:
    return sum(len(each["consumers"]) for each in stats["subscriptions"].values())


TOPIC = (
    _gauge("pulsar_average_msg_size", "Average size of a message, in bytes.", "averageMsgSize"),
    _gauge("pulsar_consumers_count", "Connected consumers.", _consumers),
    _counter("pulsar_in_bytes_total", "Bytes published.", "bytesInCounter"),
    _counter("pulsar_in_messages_total", "Messages published.", "msgInCounter"),
    _gauge("pulsar_msg_backlog", "Messages not acknowledged, of all subscriptions.", _backlog),
    _counter("pulsar_out_bytes_total", "Bytes delivered.", "bytesOutCounter"),
    _counter("pulsar_out_messages_total", "Messages delivered.", "msgOutCounter"),
    _gauge("pulsar_producers_count", "Connected producers.", lambda s: len(s["publishers"])),
    _gauge("pulsar_rate_in", "Messages published per second.", "msgRateIn"),
    _gauge("pulsar_rate_out", "Messages delivered per second.", "msgRateOut"),
    _gauge("pulsar_storage_backlog_size", "Bytes of the backlog.", "backlogSize"),
    _gauge("pulsar_storage_logical_size", "Bytes stored, without copies.", "storageSize"),
    _gauge("pulsar_storage_offloaded_size", "Bytes moved to a tier.", "offloadedStorageSize"),
    _gauge("pulsar_storage_size", "Bytes stored.", "storageSize"),
    _gauge("pulsar_subscriptions_count", "Subscriptions.", lambda s: len(s["subscriptions"])),
    _gauge("pulsar_throughput_in", "Bytes published per second.", "msgThroughputIn"),
    _gauge("pulsar_throughput_out", "Bytes delivered per second.", "msgThroughputOut"),
)

_S = "pulsar_subscription_"

SUBSCRIPTION = (
    _gauge(f"{_S}back_log", "Messages not acknowledged.", "msgBacklog"),
    _gauge(f"{_S}back_log_no_delayed", "Backlog that is due.", "msgBacklogNoDelayed"),
    _gauge(
        f"{_S}blocked_on_unacked_messages",
        "1 while too many messages are unacknowledged.",
        "blockedSubscriptionOnUnackedMsgs",
    ),
    _gauge(f"{_S}consumers_count", "Connected consumers.", lambda s: len(s["consumers"])),
    _gauge(f"{_S}delayed", "Messages that wait for their time.", "msgDelayed"),
    _gauge(f"{_S}last_acked_timestamp", "Last acknowledgement, ms.", "lastAckedTimestamp"),
    _gauge(f"{_S}last_consumed_flow_timestamp", "Last permits, ms.", "lastConsumedFlowTimestamp"),
    _gauge(f"{_S}last_consumed_timestamp", "Last delivery, ms.", "lastConsumedTimestamp"),
    _gauge(f"{_S}last_expire_timestamp", "Last expiry, ms.", "lastExpireTimestamp"),
    _gauge(
        f"{_S}last_mark_delete_advanced_timestamp",
        "When mark-delete last moved, ms.",
        "lastMarkDeleteAdvancedTimestamp",
    ),
    _gauge(f"{_S}msg_ack_rate", "Messages acknowledged per second.", "messageAckRate"),
    _gauge(f"{_S}msg_drop_rate", "Messages per second that nobody had room for.", "msgDropRate"),
    _gauge(f"{_S}msg_rate_expired", "Messages expired per second.", "msgRateExpired"),
    _gauge(f"{_S}msg_rate_out", "Messages delivered per second.", "msgRateOut"),
    _gauge(f"{_S}msg_rate_redeliver", "Messages redelivered per second.", "msgRateRedeliver"),
    _gauge(f"{_S}msg_throughput_out", "Bytes delivered per second.", "msgThroughputOut"),
    _counter(f"{_S}total_msg_expired", "Messages expired.", "totalMsgExpired"),
    _gauge(f"{_S}unacked_messages", "Delivered, not acknowledged.", "unackedMessages"),
)

PRODUCER = (
    _gauge("pulsar_producer_msg_average_Size", "Average size of a message.", "averageMsgSize"),
    _gauge("pulsar_producer_msg_rate_in", "Messages published per second.", "msgRateIn"),
    _gauge("pulsar_producer_msg_throughput_in", "Bytes per second.", "msgThroughputIn"),
)

_C = "pulsar_consumer_"

CONSUMER = (
    _gauge(f"{_C}available_permits", "Messages it may still be sent.", "availablePermits"),
    _gauge(
        f"{_C}blocked_on_unacked_messages",
        "1 while too many messages are unacknowledged.",
        "blockedConsumerOnUnackedMsgs",
    ),
    _gauge(f"{_C}msg_ack_rate", "Messages acknowledged per second.", "messageAckRate"),
    _gauge(f"{_C}msg_rate_out", "Messages delivered per second.", "msgRateOut"),
    _gauge(f"{_C}msg_rate_redeliver", "Messages redelivered per second.", "msgRateRedeliver"),
    _gauge(f"{_C}msg_throughput_out", "Bytes delivered per second.", "msgThroughputOut"),
    _gauge(f"{_C}unacked_messages", "Delivered, not acknowledged.", "unackedMessages"),
)


NAMESPACE = (
    _gauge("pulsar_ml_AddEntryBytesRate", "Bytes stored per second.", "msgThroughputIn"),
    _gauge("pulsar_ml_AddEntryMessagesRate", "Messages stored per second.", "msgRateIn"),
    _gauge("pulsar_ml_NumberOfMessagesInBacklog", "Messages not acknowledged.", "msgBacklog"),
    _gauge("pulsar_ml_StoredMessagesSize", "Bytes stored.", "storageSize"),
)


def _slot(name: str, help_text: str, slots: slice) -> Series:
    def read(counted: Stats) -> float:
        return float(sum(counted["counts"][slots]))

    return _gauge(name, help_text, read)


def _buckets(name: str, what: str, bounds: Sequence[str], first: int) -> list[Series]:
    """Return one series per bucket, as Pulsar names them, and one for all together."""
    help_text = f"Entries of the last minute by {what}."
    names = [*(f"{name}_le_{bound}" for bound in bounds), f"{name}_le_overflow"]
    series = [
        _slot(each, help_text, slice(first + index, first + index + 1))
        for index, each in enumerate(names)
    ]
    whole = slice(first, first + len(names))
    return [*series, _slot(f"{name}_count", "Entries of the last minute.", whole)]


_LATENCIES = ("0_5", "1", "5", "10", "20", "50", "100", "200", "1000")


def _latencies(name: str) -> list[Series]:
    """Return the series of a write latency.

    What is beyond all buckets has two names: that of Pulsar's documentation, and that of Pulsar.
    """
    overflow = len(_LATENCIES)
    return [
        *_buckets(name, "time until they were durable, ms", _LATENCIES, first=0),
        _slot(
            f"{name}_overflow",
            "Entries of the last minute that took more than 1 s to be durable.",
            slice(overflow, overflow + 1),
        ),
        _gauge(
            f"{name}_sum",
            "Time until the entries of the last minute were durable, ms.",
            lambda counted: counted["counts"][LATENCY_SUM] / 1000,
        ),
    ]


TALLY = (
    *_latencies("pulsar_storage_write_latency"),
    *_buckets(
        "pulsar_entry_size",
        "size, bytes",
        ("128", "512", "1_kb", "2_kb", "4_kb", "16_kb", "100_kb", "1_mb"),
        first=SIZES_FROM,
    ),
)


_K = "pulsar_compaction_"
COMPACTION = (
    _counter(_K + "removed_event_count", "Messages left out.", "removed"),
    _counter(_K + "succeed_count", "Compactions that went well.", "succeeded"),
    _counter(_K + "failed_count", "Compactions that did not.", "failed"),
    _gauge(_K + "duration_time_in_mills", "How long the last one took.", "duration_ms"),
    _gauge(_K + "read_throughput", "Bytes per second it read.", "read_rate"),
    _gauge(_K + "write_throughput", "Bytes per second it wrote.", "write_rate"),
    _gauge(_K + "compacted_entries_count", "Entries of the view.", "entries"),
    _gauge(_K + "compacted_entries_size", "Bytes of the view.", "bytes"),
    *_latencies(_K + "latency"),
)


class _Rows:
    """The numbers of many things of one kind, and the labels of each; a few hundred bytes each."""

    def __init__(self, series: Sequence[Series]) -> None:
        self.series = series
        self._labels: list[str] = []
        self._numbers = array("d")

    def __len__(self) -> int:
        return len(self._labels)

    def add(self, text: str, stats: Stats) -> None:
        self._labels.append(text)
        self._numbers.extend(_read(each, stats) for each in self.series)

    def total(self, column: int) -> float:
        return sum(self._numbers[column :: len(self.series)])

    def text(self, column: int) -> Iterator[str]:
        """Yield the family of one column, in pieces."""
        family = self.series[column].family
        yield family.head()
        numbers = self._numbers[column :: len(self.series)]
        for start in range(0, len(self._labels), SAMPLES_PER_TURN):
            end = start + SAMPLES_PER_TURN
            yield "".join(
                [
                    sample(family.name, text, int(number) if number.is_integer() else number)
                    for text, number in zip(
                        self._labels[start:end], numbers[start:end], strict=True
                    )
                ]
            )


def _read(series: Series, stats: Stats) -> float:
    value = series.read(stats) if callable(series.read) else stats.get(series.read, 0)
    return float(value or 0)


class Scrape:
    """One look at everything this process knows."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._cluster = [("cluster", context.cluster)]
        self._process = [*self._cluster, ("worker", str(context.config.worker))]
        self._topics = _Rows(TOPIC)
        self._subscriptions = _Rows(SUBSCRIPTION)
        self._producers = _Rows(PRODUCER)
        self._consumers = _Rows(CONSUMER)
        self._compactions = _Rows(COMPACTION)
        self._tallies = _Rows(TALLY)
        self._tally_per_namespace: dict[str, list[int]] = {}
        self._now_s = context.clock.monotonic()
        self._topics_per_namespace: dict[str, int] = {}
        self._stored: dict[str, dict[str, float]] = {}
        """Sums over the persistent topics of a namespace."""
        self._stored_topics = 0
        self._clients = 0

    async def collect(self) -> None:
        """Take the statistics of all topics, a few in each turn of the loop."""
        for count, topic in enumerate(self._context.catalog.loaded(), start=1):
            name, namespace = str(topic.name), str(topic.name.namespace_name)
            stats = topic.stats()
            self._take(name, namespace, stats)
            if topic.compacted is not None:
                pairs = [*self._cluster, ("namespace", namespace), ("topic", name)]
                self._compactions.add(labels(pairs), topic.compacted.figures(self._now_s))
            if topic.name.persistent:
                self._add_stored(namespace, stats)
            if topic.inlet.tally is not None:
                self._add_tally(name, namespace, topic.inlet.tally.read(self._now_s))
            if count % TOPICS_PER_TURN == 0:
                await asyncio.sleep(0)

        if len(self._tallies) > TALLIES_MAX:
            self._tallies = _Rows(TALLY)
            for namespace, counts in sorted(self._tally_per_namespace.items()):
                pairs = [*self._process, ("namespace", namespace)]
                self._tallies.add(labels(pairs), {"counts": counts})

    def _add_stored(self, namespace: str, stats: Stats) -> None:
        sums = self._stored.setdefault(namespace, defaultdict(float))
        for key in ("msgThroughputIn", "msgRateIn", "storageSize"):
            sums[key] += stats.get(key, 0)
        sums["msgBacklog"] += _backlog(stats)
        self._stored_topics += 1

    def _add_tally(self, topic: str, namespace: str, counts: Sequence[int]) -> None:
        pairs = [*self._cluster, ("namespace", namespace), ("topic", topic)]
        if len(self._tallies) <= TALLIES_MAX:
            self._tallies.add(labels(pairs), {"counts": counts})
        so_far = self._tally_per_namespace.get(namespace, [0] * len(counts))
        self._tally_per_namespace[namespace] = list(map(add, so_far, counts))

    def _take(self, topic: str, namespace: str, stats: Stats) -> None:
        counts = self._topics_per_namespace
        counts[namespace] = counts.get(namespace, 0) + 1
        pairs = [*self._cluster, ("namespace", namespace), ("topic", topic)]
        self._topics.add(labels(pairs), stats)
        for producer in self._shown(stats["publishers"]):
            self._producers.add(labels([*pairs, *_ids("producer", producer)]), producer)
        for name, subscription in stats["subscriptions"].items():
            of_it = [*pairs, ("subscription", name)]
            self._subscriptions.add(labels(of_it), subscription)
            for consumer in self._shown(subscription["consumers"]):
                self._consumers.add(labels([*of_it, *_ids("consumer", consumer)]), consumer)

    def _shown(self, clients: Sequence[Stats]) -> Sequence[Stats]:
        """Return the clients to show singly: none of them, once there are too many."""
        self._clients += len(clients)
        return clients if self._clients <= CLIENTS_MAX else ()

    async def text(self) -> AsyncIterator[str]:
        """Yield all families, sorted by name as merging needs them."""
        families: list[tuple[str, Iterator[str]]] = [
            (name_of(block), iter([labelled(block, labels(self._process))]))
            for block in self._blocks()
        ]
        stored = _Rows(NAMESPACE)
        for namespace, sums in sorted(self._stored.items()):
            stored.add(labels([*self._process, ("namespace", namespace)]), sums)
        rows = [self._topics, self._subscriptions, self._compactions, self._tallies, stored]
        if self._clients <= CLIENTS_MAX:
            rows += [self._producers, self._consumers]
        for each in rows:
            families += [
                (series.family.name, each.text(column)) for column, series in enumerate(each.series)
            ]
        for _, pieces in sorted(families, key=lambda family: family[0]):
            for piece in pieces:
                yield piece
                await asyncio.sleep(0)

    def _blocks(self) -> Iterator[str]:
        yield from self._context.metrics.render()
        yield from process_blocks()
        yield self._topics_count()
        family = Family("pulsar_ml_count", "Topics in memory that are stored.", "gauge")
        yield _block(family, self._stored_topics)
        totals = {each.family.name: self._topics.total(i) for i, each in enumerate(TOPIC)}
        broker = "pulsar_broker_"
        for name, help_text, value in (
            ("topics_count", "Topics.", len(self._topics)),
            ("subscriptions_count", "Subscriptions.", totals["pulsar_subscriptions_count"]),
            ("producers_count", "Connected producers.", totals["pulsar_producers_count"]),
            ("consumers_count", "Connected consumers.", totals["pulsar_consumers_count"]),
            ("rate_in", "Messages published per second.", totals["pulsar_rate_in"]),
            ("rate_out", "Messages delivered per second.", totals["pulsar_rate_out"]),
            ("throughput_in", "Bytes published per second.", totals["pulsar_throughput_in"]),
            ("throughput_out", "Bytes delivered per second.", totals["pulsar_throughput_out"]),
            ("storage_size", "Bytes stored.", totals["pulsar_storage_size"]),
            ("msg_backlog", "Messages not acknowledged.", totals["pulsar_msg_backlog"]),
        ):
            yield _block(Family(broker + name, help_text, "gauge"), value)

    def _topics_count(self) -> str:
        family = Family("pulsar_topics_count", "Topics of a namespace.", "gauge")
        return family.head() + "".join(
            sample(family.name, labels([("namespace", namespace)]), count)
            for namespace, count in sorted(self._topics_per_namespace.items())
        )


def _ids(kind: str, client: Stats) -> list[tuple[str, str]]:
    return [
        (f"{kind}_name", str(client.get(f"{kind}Name", ""))),
        (f"{kind}_id", str(client.get(f"{kind}Id", ""))),
    ]


def _block(family: Family, value: float) -> str:
    return f"{family.head()}{family.name} {value!r}\n"


def process_blocks() -> Iterator[str]:
    """Yield what the operating system says about this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    seconds = usage.ru_utime + usage.ru_stime
    yield _block(
        Family("process_cpu_seconds_total", "User and system CPU time, seconds.", "counter"),
        round(seconds, 6),
    )
    yield _block(
        Family("process_max_resident_memory_bytes", "Most memory ever resident, bytes.", "gauge"),
        usage.ru_maxrss * 1024,
    )
    resident = resident_bytes()
    if resident is not None:
        name, help_text = "process_resident_memory_bytes", "Memory resident now, bytes."
        yield _block(Family(name, help_text, "gauge"), resident)


def resident_bytes() -> int | None:
    """Return how much memory of this process is resident; None: this system does not tell."""
    try:
        status = DiskFiles().open(_MEMORY_STATUS)
    except OSError:
        return None
    try:
        return int(status.pread(128, 0).split()[1]) * resource.getpagesize()
    finally:
        status.close()


async def metrics(call: Call) -> Response:
    """Return everything this process counts."""
    scrape = Scrape(call.context)
    await scrape.collect()
    return StreamingResponse(scrape.text(), media_type=CONTENT_TYPE)


ROUTES = [Route("GET", "/metrics", metrics, Right.METRICS, answer=Text)]
