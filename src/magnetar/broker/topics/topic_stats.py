"""What is shown of a topic, under Pulsar's names.

Counters are those of the moment, never sampled; rates are made when somebody asks. What is
not there yet (offload, transactions) is shown as Pulsar shows it when unused.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from magnetar.broker.clock import Clock, iso_time
from magnetar.broker.entry import EntryId
from magnetar.broker.storage.errors import Gap
from magnetar.broker.storage.log import Log
from magnetar.broker.topics.compaction.compacted import NOT_COMPACTED, Compacted
from magnetar.broker.topics.cursors.transaction_buffer import TransactionBuffer
from magnetar.broker.topics.figures import ACCESS_NAMES, Rate
from magnetar.broker.topics.limits.backlog import Span, backlog_bytes
from magnetar.broker.topics.producers.access_modes import Producers
from magnetar.broker.topics.producers.producer import Inlet, OpenProducer
from magnetar.broker.topics.subscriptions.subscription_stats import Figures

Json = dict[str, Any]

COMPACTION_CURSOR = "__compaction"
"""Under which name Pulsar shows how far compaction is."""


class Shown(Protocol):
    """What is looked at of a topic."""

    inlet: Inlet
    producers: Producers
    created_ms: int

    compacted: Compacted | None
    transactions: TransactionBuffer | None

    @property
    def slowest(self) -> EntryId | None: ...


def topic_stats(
    topic: Shown, log: Log | None, subscriptions: Mapping[str, Json], clock: Clock
) -> Json:
    """Return the statistics of a topic, given those of its subscriptions."""
    inlet, now_s = topic.inlet, clock.monotonic()
    if inlet.rate is None:
        inlet.rate = Rate(now_s, inlet.messages_in, inlet.bytes_in)
    rate, throughput = inlet.rate.read(now_s, inlet.messages_in, inlet.bytes_in)
    slowest = topic.slowest
    behind = 0 if log is None or slowest is None else backlog_bytes(spans_of(log), slowest)
    shown = list(subscriptions.values())
    return {
        "msgRateIn": rate,
        "msgThroughputIn": throughput,
        "msgRateOut": _sum(shown, "msgRateOut"),
        "msgThroughputOut": _sum(shown, "msgThroughputOut"),
        "bytesInCounter": inlet.bytes_in,
        "msgInCounter": inlet.messages_in,
        "bytesOutCounter": _sum(shown, "bytesOutCounter"),
        "msgOutCounter": _sum(shown, "msgOutCounter"),
        "averageMsgSize": inlet.bytes_in / inlet.messages_in if inlet.messages_in else 0.0,
        "msgChunkPublished": inlet.chunks_in > 0,
        "publishRateLimitedTimes": inlet.throttled,
        "storageSize": 0 if log is None else log.bytes_total,
        "backlogSize": behind,
        "offloadedStorageSize": 0,
        **_transaction_counts(topic.transactions),
        "lastOffloadLedgerId": 0,
        "lastOffloadSuccessTimeStamp": 0,
        "lastOffloadFailureTimeStamp": 0,
        "waitingPublishers": topic.producers.waiting,
        "topicEpoch": topic.producers.epoch,
        "deduplicationStatus": "Disabled" if inlet.sequences is None else "Enabled",
        "topicCreationTimeStamp": topic.created_ms,
        "lastPublishTimeStamp": inlet.last_publish_ms,
        "compaction": (topic.compacted or NOT_COMPACTED).stats(),
        "publishers": [producer_stats(each, clock) for each in topic.producers],
        "subscriptions": dict(subscriptions),
        "replication": {},
    }


def _transaction_counts(buffer: TransactionBuffer | None) -> Json:
    """Return how many transactions have entries in a topic, or had since it was loaded."""
    return {
        "ongoingTxnCount": 0 if buffer is None else len(buffer.open),
        "abortedTxnCount": 0 if buffer is None else buffer.aborted_total,
        "committedTxnCount": 0 if buffer is None else buffer.committed_total,
    }


def entry_rates(inlet: Inlet, figures: Iterable[Figures], now_s: float) -> tuple[float, ...]:
    """Return entries stored, entries delivered and moves of mark-delete, all per second."""
    delivered = advances = 0
    for each in figures:
        delivered += each.entries_out
        advances += each.advances
    if inlet.entry_rates is None:
        inlet.entry_rates = Rate(now_s, inlet.entries_in, delivered, advances)
    return inlet.entry_rates.read(now_s, inlet.entries_in, delivered, advances)


def producer_stats(producer: OpenProducer, clock: Clock) -> Json:
    """Return the statistics of one producer."""
    now_s = clock.monotonic()
    if producer.rate is None:
        producer.rate = Rate(now_s, producer.messages_in, producer.bytes_in, producer.chunks_in)
    rate, throughput, chunks = producer.rate.read(
        now_s, producer.messages_in, producer.bytes_in, producer.chunks_in
    )
    request = producer.request
    return {
        "producerId": producer.number,
        "producerName": producer.name,
        "accessMode": ACCESS_NAMES[request.access_mode],
        "msgRateIn": rate,
        "msgThroughputIn": throughput,
        "averageMsgSize": producer.bytes_in / max(producer.messages_in, 1),
        "chunkedMessageRate": chunks,
        "supportsPartialProducer": False,
        "address": request.client_address,
        "connectedSince": iso_time(producer.connected_since_ms),
        "clientVersion": request.client_version,
        "metadata": dict(request.metadata),
    }


def internal_stats(
    log: Log, cursors: Mapping[str, Json], gaps: Iterable[Gap], compacted: Compacted | None
) -> Json:
    """Return the ledgers and cursors of a topic.

    `quarantined` is ours: the ranges of entries that were stored and no longer read back.
    """
    spans = spans_of(log)
    current = spans[-1] if spans and not spans[-1].sealed else None
    return {
        "entriesAddedCounter": sum(span.entries for span in spans),
        "numberOfEntries": sum(span.entries for span in spans),
        "totalSize": log.bytes_total,
        "currentLedgerEntries": current.entries if current else 0,
        "currentLedgerSize": current.size_bytes if current else 0,
        "lastLedgerCreatedTimestamp": "",
        "waitingCursorsCount": 0,
        "pendingAddEntriesCount": 0,
        "lastConfirmedEntry": str(log.last),
        "state": "LedgerOpened" if log.ready else "ClosedLedger",
        "ledgers": [
            {
                "ledgerId": span.ledger,
                # As in Pulsar, the open ledger shows its entries under currentLedgerEntries.
                "entries": span.entries if span.sealed else 0,
                "size": span.size_bytes if span.sealed else 0,
                "offloaded": False,
                "metadata": "",
                "underReplicated": False,
            }
            for span in spans
        ],
        "cursors": dict(cursors),
        "schemaLedgers": [],
        "compactedLedger": (compacted or NOT_COMPACTED).ledger(),
        "quarantined": [
            {"first": str(gap.first), "last": str(gap.last), "reason": gap.reason} for gap in gaps
        ],
    }


def internal_stats_in_memory(subscriptions: Iterable[str]) -> Json:
    """Return the same of a topic of which nothing is stored: only its subscriptions have names."""
    return {
        "entriesAddedCounter": 0,
        "numberOfEntries": 0,
        "totalSize": 0,
        "currentLedgerEntries": 0,
        "currentLedgerSize": 0,
        "lastLedgerCreatedTimestamp": "",
        "waitingCursorsCount": 0,
        "pendingAddEntriesCount": 0,
        "lastConfirmedEntry": "-1:-1",
        "state": "None",
        "ledgers": [],
        "cursors": {name: {} for name in subscriptions},
        "schemaLedgers": [],
        "compactedLedger": NOT_COMPACTED.ledger(),
        "quarantined": [],
    }


def compaction_cursor_stats(log: Log, mark: EntryId) -> Json:
    """Return how far compaction is, as if it were a subscription's cursor."""
    after = EntryId(mark.ledger, mark.entry + 1)
    return {
        "markDeletePosition": str(mark),
        "readPosition": str(log.next_position(after)),
        "waitingReadOp": False,
        "pendingReadOps": 0,
        "messagesConsumedCounter": log.distance(log.first, after),
        "cursorLedger": -1,
        "cursorLedgerLastEntry": -1,
        "individuallyDeletedMessages": "[]",
        "lastLedgerSwitchTimestamp": "",
        "state": "Open",
        "active": False,
        "numberOfEntriesSinceFirstNotAckedMessage": 0,
        "totalNonContiguousDeletedMessagesRange": 0,
        "properties": {},
    }


def spans_of(log: Log) -> list[Span]:
    """Return the ledgers of a log, oldest first."""
    return [
        Span(info.ledger, info.entries, info.bytes, info.last_publish_ms, info.sealed)
        for info in log.ledger_infos()
    ]


def _sum(shown: Sequence[Json], key: str) -> Any:
    return sum(each.get(key, 0) for each in shown)
