"""The families that topics, their clients and their namespaces have, and where their numbers are.

    Series = a family + where its number is in what admin REST shows of a topic, or of a part of it

Names, labels and units are Pulsar's: `TopicStats`, `NamespaceStatsAggregator` and
`ManagedLedgerMetrics` of its broker, and their output. Where a family is one of the topics, there
is none of namespaces: otherwise a sum over all samples would count everything twice.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from magnetar.broker.doors.admin.http.exposition import Family
from magnetar.broker.topics.producers.tally import (
    LATENCY_BOUNDS_MS,
    LATENCY_SUM,
    SIZE_BOUNDS_BYTES,
    SIZES_FROM,
    WINDOW_S,
)

Stats = Mapping[str, Any]


class Series(NamedTuple):
    """One family of samples, and where its number is in the statistics."""

    family: Family
    read: str | Callable[[Stats], float]
    more: str = ""
    """Further labels, as they stand between the braces."""
    adds_up: bool = True
    """Whether the number of a namespace is the sum of those of its topics."""


def number(series: Series, stats: Stats) -> float:
    """Return the number of a series."""
    value = series.read(stats) if callable(series.read) else stats.get(series.read, 0)
    return float(value or 0)


def _gauge(name: str, help_text: str, read: str | Callable[[Stats], float]) -> Series:
    return Series(Family(name, help_text, "gauge"), read)


def _counter(name: str, help_text: str, read: str | Callable[[Stats], float]) -> Series:
    return Series(Family(name, help_text, "counter"), read)


def _parts(stats: Stats) -> list[Stats]:
    return list(stats["subscriptions"].values())


def backlog(stats: Stats) -> float:
    """Return the backlog of all subscriptions of a topic, in messages."""
    return float(sum(each["msgBacklog"] for each in _parts(stats)))


def _consumers(stats: Stats) -> float:
    return sum(len(each["consumers"]) for each in stats["subscriptions"].values())


TOPIC = (
    Series(
        Family("pulsar_average_msg_size", "Average size of a message, in bytes.", "gauge"),
        "averageMsgSize",
        adds_up=False,
    ),
    _gauge("pulsar_consumers_count", "Connected consumers.", _consumers),
    _counter("pulsar_in_bytes_total", "Bytes published.", "bytesInCounter"),
    _counter("pulsar_in_messages_total", "Messages published.", "msgInCounter"),
    _gauge("pulsar_msg_backlog", "Messages not acknowledged, of all subscriptions.", backlog),
    _counter("pulsar_out_bytes_total", "Bytes delivered.", "bytesOutCounter"),
    _counter("pulsar_out_messages_total", "Messages delivered.", "msgOutCounter"),
    _gauge("pulsar_producers_count", "Connected producers.", lambda s: len(s["publishers"])),
    _gauge(
        "pulsar_delayed_message_index_size_bytes",
        "Memory of what waits for its time.",
        lambda s: sum(each.get("delayedMessageIndexSizeInBytes", 0) for each in _parts(s)),
    ),
    _gauge(
        "pulsar_publish_rate_limit_times",
        "How often producers were kept waiting because of a rate.",
        "publishRateLimitedTimes",
    ),
    _gauge("pulsar_rate_in", "Messages published per second.", "msgRateIn"),
    _gauge("pulsar_rate_out", "Messages delivered per second.", "msgRateOut"),
    _gauge("pulsar_storage_backlog_size", "Bytes of the backlog.", "backlogSize"),
    _gauge("pulsar_storage_logical_size", "Bytes stored, without copies.", "storageSize"),
    _gauge("pulsar_storage_offloaded_size", "Bytes moved to a tier.", "offloadedStorageSize"),
    _gauge("pulsar_storage_read_rate", "Entries delivered per second.", "storageReadRate"),
    _gauge("pulsar_storage_size", "Bytes stored.", "storageSize"),
    _gauge("pulsar_storage_write_rate", "Entries stored per second.", "storageWriteRate"),
    _gauge("pulsar_subscriptions_count", "Subscriptions.", lambda s: len(s["subscriptions"])),
    _gauge("pulsar_throughput_in", "Bytes published per second.", "msgThroughputIn"),
    _gauge("pulsar_throughput_out", "Bytes delivered per second.", "msgThroughputOut"),
    _counter("pulsar_txn_tb_aborted_total", "Transactions aborted here.", "abortedTxnCount"),
    _gauge("pulsar_txn_tb_active_total", "Transactions open here.", "ongoingTxnCount"),
    _counter("pulsar_txn_tb_committed_total", "Transactions committed here.", "committedTxnCount"),
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
            "Time until the entries of the last minute were durable, µs as in Pulsar.",
            lambda counted: float(counted["counts"][LATENCY_SUM]),
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


def _ranges(name: str, help_text: str, bounds: Sequence[float], first: int) -> list[Series]:
    """Return one series per bucket, as Pulsar's managed ledgers show them: entries per second."""
    edges = [0.0, *map(float, bounds)]
    series = [
        Series(Family(name, help_text, "gauge"), _per_second(slot), f'quantile="{low}_{high}"')
        for slot, (low, high) in enumerate(pairwise(edges), first)
    ]
    overflow = Family(f"{name}_OVERFLOW", help_text, "gauge")
    return [*series, Series(overflow, _per_second(first + len(bounds)))]


def _per_second(slot: int) -> Callable[[Stats], float]:
    def read(sums: Stats) -> float:
        counts = sums["counts"]
        return counts[slot] / WINDOW_S if counts else 0.0

    return read


_M = "pulsar_ml_"
MANAGED_LEDGERS = (
    _gauge(_M + "AddEntryBytesRate", "Bytes stored per second.", "msgThroughputIn"),
    *_ranges(
        _M + "AddEntryLatencyBuckets",
        "Entries per second of the last minute by time until they were durable, ms.",
        LATENCY_BOUNDS_MS,
        first=0,
    ),
    _gauge(_M + "AddEntryMessagesRate", "Entries stored per second.", "storageWriteRate"),
    *_ranges(
        _M + "EntrySizeBuckets",
        "Entries per second of the last minute by size, bytes.",
        SIZE_BOUNDS_BYTES,
        first=SIZES_FROM,
    ),
    _gauge(_M + "MarkDeleteRate", "Moves of mark-delete per second.", "markDeleteRate"),
    _gauge(_M + "NumberOfMessagesInBacklog", "Messages not acknowledged.", "msgBacklog"),
    _gauge(_M + "ReadEntriesBytesRate", "Bytes delivered per second.", "msgThroughputOut"),
    _gauge(_M + "ReadEntriesRate", "Entries delivered per second.", "storageReadRate"),
    _gauge(_M + "StoredMessagesSize", "Bytes stored.", "storageSize"),
)
"""Of the topics of a namespace that are stored. Each bucket is a series of one family."""


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


def _sum_of(key: str) -> Callable[[Stats], float]:
    return lambda stats: sum(each.get(key, 0) for each in _parts(stats))


NAMESPACE = (
    *(
        each._replace(
            family=each.family._replace(kind="gauge"),
            more='remote_cluster="local"' if each.family.name == "pulsar_msg_backlog" else "",
        )
        for each in TOPIC
        if each.adds_up
    ),
    _gauge(_C + "msg_ack_rate", "Messages acknowledged per second.", _sum_of("messageAckRate")),
    _gauge(_S + "delayed", "Messages that wait for their time.", _sum_of("msgDelayed")),
)
"""Of whole namespaces, where topics are not shown singly. Sums of what is loaded, so all gauges."""

_B = "pulsar_bundle_"
BUNDLE = (
    _gauge(_B + "consumer_count", "Connected consumers.", _consumers),
    _gauge(_B + "msg_rate_in", "Messages published per second.", "msgRateIn"),
    _gauge(_B + "msg_rate_out", "Messages delivered per second.", "msgRateOut"),
    _gauge(_B + "msg_throughput_in", "Bytes published per second.", "msgThroughputIn"),
    _gauge(_B + "msg_throughput_out", "Bytes delivered per second.", "msgThroughputOut"),
    _gauge(_B + "producer_count", "Connected producers.", lambda s: len(s["publishers"])),
    _gauge(_B + "topics_count", "Topics.", lambda _: 1.0),
)
