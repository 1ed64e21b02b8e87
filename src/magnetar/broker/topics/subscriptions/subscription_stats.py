"""What is shown of a subscription: counters, and the tables of admin REST under Pulsar's keys.

Everything is current, nothing is sampled; rates are over the time between two looks.
Two keys are ours: `gapsPassed` and `gapEntriesPassed` count quarantined damage that
consumers were led past.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from magnetar.broker.entry import EARLIEST, EntryId
from magnetar.broker.port import KeyShared, SubscriptionType
from magnetar.broker.topics.consumers.consumer import OpenConsumer
from magnetar.broker.topics.consumers.delivery import Delivery
from magnetar.broker.topics.consumers.keyed_delivery import KeyedDelivery
from magnetar.broker.topics.cursors.cursor import Cursor
from magnetar.broker.topics.cursors.reading import Ground, Log
from magnetar.broker.topics.figures import TYPE_NAMES, Rate

HOLES_SHOWN_MAX = 100
"""Ranges of acknowledged entries that are shown one by one."""


class Figures:
    """What a subscription counted since it was loaded."""

    __slots__ = (
        "advances",
        "bytes_out",
        "entries_out",
        "expired",
        "gap_entries",
        "gaps_passed",
        "last_acked_ms",
        "last_advanced_ms",
        "last_expired_ms",
        "last_flow_ms",
        "last_sent_ms",
        "messages_out",
        "rate",
        "redelivered",
    )

    def __init__(self, now_s: float) -> None:
        self.entries_out = 0
        self.messages_out = 0
        self.bytes_out = 0
        self.redelivered = 0
        self.expired = 0
        self.gaps_passed = 0
        self.gap_entries = 0
        self.advances = 0
        """How often mark-delete moved."""
        self.last_acked_ms = 0
        self.last_advanced_ms = 0
        self.last_expired_ms = 0
        self.last_flow_ms = 0
        self.last_sent_ms = 0
        self.rate = Rate(now_s, 0, 0, 0, 0, 0)


def owner_ranges(delivery: Delivery | None) -> dict[int, list[str]]:
    """Return the key hash ranges of each consumer as Pulsar prints them."""
    if not isinstance(delivery, KeyedDelivery):
        return {}
    return {
        number: [f"[{low}, {high}]" for low, high in ranges]
        for number, ranges in delivery.owners.ranges().items()
    }


class Shown(Protocol):
    """A subscription, as far as it is shown."""

    cursor: Cursor
    durable: bool
    delivery: Delivery | None
    ground: Ground
    key_shared: KeyShared
    log: Log
    properties: dict[str, str]
    type: SubscriptionType

    @property
    def active(self) -> OpenConsumer | None: ...
    @property
    def backlog(self) -> int: ...
    @property
    def backlog_bytes(self) -> int: ...
    @property
    def consumers(self) -> Mapping[int, OpenConsumer]: ...
    @property
    def figures(self) -> Figures: ...
    @property
    def was_used(self) -> bool: ...


def subscription_stats(of: Shown) -> dict[str, Any]:
    """Return what admin REST shows of a subscription."""
    figures, delivery, cursor = of.figures, of.delivery, of.cursor
    now_s = of.ground.clock.monotonic()
    consumers = list(of.consumers.values())
    acked = sum(each.acked for each in consumers)
    messages_rate, bytes_rate, redelivery_rate, expired_rate, ack_rate = figures.rate.read(
        now_s,
        figures.messages_out,
        figures.bytes_out,
        figures.redelivered,
        figures.expired,
        acked,
    )
    ranges = owner_ranges(delivery)
    active = of.active
    backlog = of.backlog
    delayed = 0 if delivery is None else delivery.delayed_count
    keyed = of.type is SubscriptionType.KEY_SHARED and delivery is not None
    return {
        "type": "None" if not of.was_used else TYPE_NAMES[of.type],
        "activeConsumerName": "" if active is None else active.name,
        "msgRateOut": messages_rate,
        "msgThroughputOut": bytes_rate,
        "bytesOutCounter": figures.bytes_out,
        "msgOutCounter": figures.messages_out,
        "msgRateRedeliver": redelivery_rate,
        "messageAckRate": max(ack_rate, 0.0),
        "chunkedMessageRate": 0,
        "msgBacklog": backlog,
        "backlogSize": of.backlog_bytes,
        "earliestMsgPublishTimeInBacklog": 0,
        "msgBacklogNoDelayed": max(backlog - delayed, 0),
        "msgDelayed": delayed,
        "unackedMessages": 0 if delivery is None else delivery.unacked_messages,
        "blockedSubscriptionOnUnackedMsgs": delivery is not None and delivery.blocked,
        "msgRateExpired": expired_rate,
        "totalMsgExpired": figures.expired,
        "lastExpireTimestamp": figures.last_expired_ms,
        "lastConsumedFlowTimestamp": figures.last_flow_ms,
        "lastConsumedTimestamp": figures.last_sent_ms,
        "lastAckedTimestamp": figures.last_acked_ms,
        "lastMarkDeleteAdvancedTimestamp": figures.last_advanced_ms,
        "isDurable": of.durable,
        "isReplicated": False,
        "allowOutOfOrderDelivery": keyed and of.key_shared.allow_out_of_order,
        "keySharedMode": (("STICKY" if of.key_shared.sticky else "AUTO_SPLIT") if keyed else None),
        "consumersAfterMarkDeletePosition": {},
        "nonContiguousDeletedMessagesRanges": cursor.range_count,
        "nonContiguousDeletedMessagesRangesSerializedSize": 0,
        "delayedMessageIndexSizeInBytes": 0 if delivery is None else delivery.delayed_bytes,
        "subscriptionProperties": dict(of.properties),
        "filterProcessedMsgCount": 0,
        "filterAcceptedMsgCount": 0,
        "filterRejectedMsgCount": 0,
        "filterRescheduledMsgCount": 0,
        "gapsPassed": figures.gaps_passed,
        "gapEntriesPassed": figures.gap_entries,
        "consumers": [
            each.figures(now_s) | {"keyHashRanges": ranges.get(each.number, [])}
            for each in consumers
        ],
    }


def cursor_stats(of: Shown) -> dict[str, Any]:
    """Return what admin REST shows of a subscription's cursor."""
    cursor, delivery = of.cursor, of.delivery
    read = (
        cursor.next_unacknowledged(EARLIEST, of.log) if delivery is None else delivery.read_position
    )
    shown = []
    for count, (ledger, first, length) in enumerate(cursor.ranges()):
        if count == HOLES_SHOWN_MAX:
            shown.append("...")
            break
        shown.append(f"({ledger}:{first - 1}..{ledger}:{first + length - 1}]")
    return {
        "markDeletePosition": str(cursor.mark_delete),
        "readPosition": str(read),
        "waitingReadOp": delivery is not None and read >= of.log.end,
        "pendingReadOps": 0,
        "messagesConsumedCounter": cursor.consumed,
        "cursorLedger": -1,
        "cursorLedgerLastEntry": -1,
        "individuallyDeletedMessages": f"[{','.join(shown)}]",
        "lastLedgerSwitchTimestamp": "",
        "state": "Open" if of.durable else "NoLedger",
        "active": bool(of.consumers),
        "numberOfEntriesSinceFirstNotAckedMessage": of.log.distance(
            EntryId(cursor.mark_delete.ledger, cursor.mark_delete.entry + 1), read
        ),
        "totalNonContiguousDeletedMessagesRange": cursor.holes,
        "properties": {},
    }
