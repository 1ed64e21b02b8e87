"""A consumer of a subscription: how much it may get, and what it has not acknowledged.

    flow ──▶ permits ──deliver──▶ unacknowledged ──▶ acknowledged, or back to the subscription
             messages              entries as bitmaps, their messages as one number

Exclusive and Failover consumers get everything in order: what is unacknowledged is then
simply what lies between the cursor and the read position, and nothing is kept here. Shared
and Key_Shared consumers keep a bitmap of what they have; it is bounded, because a consumer
with too many unacknowledged messages gets nothing more.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from magnetar.broker.clock import iso_time
from magnetar.broker.entry import EntryId, TransactionId
from magnetar.broker.port import (
    Acknowledged,
    ConsumerEvents,
    ConsumerStats,
    LastMessage,
    SubscribeRequest,
)
from magnetar.broker.topics.cursors.entry_set import EntrySet
from magnetar.broker.topics.figures import Rate


class Limits(NamedTuple):
    """What holds for a subscription and may change while it runs. In every limit 0 is none."""

    unacked_per_consumer_max: int
    unacked_per_subscription_max: int
    delayed_delivery: bool = True


class Host(Protocol):
    """The subscription, as its consumers see it."""

    def flow(self, consumer: "OpenConsumer", permits: int) -> None: ...
    def resume(self, consumer: "OpenConsumer") -> None: ...
    def acknowledge(
        self, consumer: "OpenConsumer", ids: Sequence[Acknowledged], *, cumulative: bool
    ) -> None: ...
    async def acknowledge_in(
        self,
        transaction: TransactionId,
        consumer: "OpenConsumer",
        ids: Sequence[Acknowledged],
        *,
        cumulative: bool,
    ) -> None: ...
    def redeliver(
        self, consumer: "OpenConsumer", ids: Sequence[EntryId] | None, epoch: int | None
    ) -> None: ...
    async def seek(
        self, position: EntryId | None, ack_set: Sequence[int], time_ms: int | None
    ) -> None: ...
    async def last_message(self) -> LastMessage: ...
    async def unsubscribe(self, *, force: bool) -> None: ...
    def leave(self, consumer: "OpenConsumer") -> None: ...
    def consumer_stats(self, consumer: "OpenConsumer") -> ConsumerStats: ...


class OpenConsumer:
    """One connected consumer. Implements `port.Consumer`; the subscription does the work."""

    __slots__ = (
        "_host",
        "acked",
        "blocked",
        "bytes_out",
        "congested",
        "connected_since_ms",
        "entries_out",
        "epoch",
        "events",
        "last_acked_ms",
        "last_flow_ms",
        "last_sent_ms",
        "messages_out",
        "number",
        "permits",
        "rate",
        "redelivered",
        "request",
        "told_end",
        "unacked",
        "unacked_messages",
    )

    def __init__(  # noqa: PLR0913 - who, for whom, and when
        self,
        host: Host,
        number: int,
        request: SubscribeRequest,
        events: ConsumerEvents,
        *,
        now_ms: int,
        now_s: float,
    ) -> None:
        """Join as `number`, which no other consumer of the subscription has or had."""
        self._host = host
        self.number = number
        self.request = request
        self.events = events
        self.permits = 0
        """Messages it has room for. The last batch may drive this below 0."""
        self.congested = False
        """Its connection has no room; nothing is sent before `resume`."""
        self.blocked = False
        """It has too many unacknowledged messages; nothing is sent before it has half as many."""
        self.told_end = False
        self.epoch = request.epoch
        self.unacked = EntrySet()
        self.unacked_messages = 0
        self.connected_since_ms = now_ms
        self.messages_out = 0
        self.entries_out = 0
        self.bytes_out = 0
        self.redelivered = 0
        self.acked = 0
        self.last_acked_ms = 0
        self.last_flow_ms = 0
        self.last_sent_ms = 0
        self.rate = Rate(now_s, 0, 0, 0, 0)

    def __repr__(self) -> str:
        return f"<OpenConsumer {self.number} {self.name!r}>"

    @property
    def name(self) -> str:
        """What the client calls itself; several consumers may have the same name."""
        return self.request.consumer_name

    # --- what a door calls

    def flow(self, permits: int) -> None:
        """Allow `permits` more messages."""
        self._host.flow(self, permits)

    def resume(self) -> None:
        """Take back the False of `deliver`: the connection has room again."""
        self._host.resume(self)

    def acknowledge(self, ids: Sequence[Acknowledged], *, cumulative: bool) -> None:
        """Acknowledge entries. Ids that are unknown or already acknowledged are no error.

        Raises:
            NotAllowedError: cumulative on a Shared or Key_Shared subscription.
        """
        self._host.acknowledge(self, ids, cumulative=cumulative)

    async def acknowledge_in(
        self, transaction: TransactionId, ids: Sequence[Acknowledged], *, cumulative: bool
    ) -> None:
        """Acknowledge entries if a transaction is committed, as `port.Consumer` says."""
        await self._host.acknowledge_in(transaction, self, ids, cumulative=cumulative)

    def redeliver(self, ids: Sequence[EntryId] | None, epoch: int | None) -> None:
        """Send entries again; None: everything this consumer has not acknowledged."""
        self._host.redeliver(self, ids, epoch)

    async def seek(
        self, position: EntryId | None, ack_set: Sequence[int], time_ms: int | None
    ) -> None:
        """Reset the subscription to a position (inclusive) or a publish time."""
        await self._host.seek(position, ack_set, time_ms)

    async def last_message(self) -> LastMessage:
        """Return where the topic ends, and how far the subscription is."""
        return await self._host.last_message()

    def stats(self) -> ConsumerStats:
        """Return the figures of this consumer."""
        return self._host.consumer_stats(self)

    async def unsubscribe(self, *, force: bool) -> None:
        """Delete the subscription and its cursor.

        Raises:
            ConsumerBusyError: others are connected, and `force` is off.
        """
        await self._host.unsubscribe(force=force)

    async def close(self) -> None:
        """Leave. What was delivered and not acknowledged goes back to the subscription."""
        self._host.leave(self)

    # --- what the subscription calls

    def room(self, unacked_max: int) -> int:
        """Return how many messages it may be sent now."""
        if self.congested:
            return 0
        if not unacked_max:
            return self.permits
        if self.blocked:
            if self.unacked_messages * 2 > unacked_max:
                return 0
            self.blocked = False
        if self.unacked_messages >= unacked_max:
            self.blocked = True
            return 0
        return min(self.permits, unacked_max - self.unacked_messages)

    def rates(self, now_s: float) -> tuple[float, ...]:
        """Return messages, bytes, redeliveries and acknowledgements per second."""
        return self.rate.read(
            now_s, self.messages_out, self.bytes_out, self.redelivered, self.acked
        )

    def figures(self, now_s: float) -> dict[str, Any]:
        """Return what admin REST shows of a consumer, under Pulsar's keys."""
        messages, size, redelivered, acked = self.rates(now_s)
        return {
            "consumerName": self.name,
            "msgRateOut": messages,
            "msgThroughputOut": size,
            "bytesOutCounter": self.bytes_out,
            "msgOutCounter": self.messages_out,
            "msgRateRedeliver": redelivered,
            "messageAckRate": acked,
            "chunkedMessageRate": 0.0,
            "availablePermits": self.permits,
            "unackedMessages": self.unacked_messages,
            "avgMessagesPerEntry": round(self.messages_out / max(self.entries_out, 1)),
            "blockedConsumerOnUnackedMsgs": self.blocked,
            "address": self.request.client_address,
            "connectedSince": iso_time(self.connected_since_ms),
            "clientVersion": self.request.client_version,
            "lastAckedTimestamp": self.last_acked_ms,
            "lastConsumedTimestamp": self.last_sent_ms,
            "lastConsumedFlowTimestamp": self.last_flow_ms,
            "metadata": dict(self.request.metadata),
        }
