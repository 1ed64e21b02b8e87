"""Non-persistent topics: what is published goes straight to whoever has room for it, or is gone.

    publish ──▶ MemoryFan ──▶ each MemorySubscription ──▶ consumers with permits
                                        └──▶ dropped, and counted

Nothing is stored, acknowledged or delivered twice. Entry ids count up from 0 in ledger 0
while the topic is loaded: they only tell entries apart. Who gets what among the consumers
of a subscription is decided as everywhere, by `dispatch`. As Pulsar's non-persistent topics.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from magnetar.broker.clock import Clock, iso_time
from magnetar.broker.entry import EntryFlags, EntryId, TransactionId
from magnetar.broker.port import (
    Acknowledged,
    ConsumerAssignError,
    ConsumerBusyError,
    ConsumerEvents,
    ConsumerStats,
    KeyShared,
    LastMessage,
    NotAllowedError,
    PortError,
    Selection,
    SubscribeRequest,
    SubscriptionType,
)
from magnetar.broker.run import FLAGS, KEY_HASH, LENGTH, MESSAGES, SEQUENCE_ID, Run
from magnetar.broker.topics.consumers.dispatch import (
    Assignment,
    Candidate,
    HashRing,
    KeyedState,
    Owners,
    RangeOverlapError,
    Slot,
    StickyRanges,
    active_consumer,
    assign_keyed,
    assign_shared,
    slot_of,
    slot_without_key,
)
from magnetar.broker.topics.figures import TYPE_NAMES, Rate
from magnetar.broker.topics.producers.producer import detached
from magnetar.names import TopicName

MEMORY_LEDGER = 0
"""The ledger in the ids of entries that lie in none."""

_KEYED = EntryFlags.KEYED.value


class MemoryConsumer:
    """A consumer of a non-persistent topic. Implements `port.Consumer`."""

    __slots__ = (
        "bytes_out",
        "congested",
        "connected_since_ms",
        "entries_out",
        "events",
        "last_flow_ms",
        "last_sent_ms",
        "messages_out",
        "number",
        "permits",
        "rate",
        "request",
        "subscription",
    )

    def __init__(
        self,
        subscription: "MemorySubscription",
        number: int,
        request: SubscribeRequest,
        events: ConsumerEvents,
    ) -> None:
        self.subscription = subscription
        self.number = number
        self.request = request
        self.events = events
        self.permits = 0
        self.congested = False
        self.messages_out = 0
        self.entries_out = 0
        self.bytes_out = 0
        self.last_flow_ms = 0
        self.last_sent_ms = 0
        clock = subscription.clock
        self.connected_since_ms = clock.wall_ms()
        self.rate = Rate(clock.monotonic(), 0, 0)

    @property
    def name(self) -> str:
        """The name the client gave."""
        return self.request.consumer_name

    @property
    def room(self) -> int:
        """Messages that may be sent now."""
        return 0 if self.congested else self.permits

    def flow(self, permits: int) -> None:
        """Allow more messages, from the next one published on."""
        self.permits += permits
        self.last_flow_ms = self.subscription.clock.wall_ms()

    def resume(self) -> None:
        """Take the connection as free again."""
        self.congested = False

    def acknowledge(
        self,
        ids: Sequence[Acknowledged],  # noqa: ARG002 - there is nothing to look them up in
        *,
        cumulative: bool,
    ) -> None:
        """Do nothing: there is nothing to keep.

        Raises:
            NotAllowedError: cumulative on a Shared or Key_Shared subscription.
        """
        kind = self.subscription.type
        if cumulative and kind in {SubscriptionType.SHARED, SubscriptionType.KEY_SHARED}:
            raise NotAllowedError(f"cumulative acknowledgement on a {kind.name} subscription")

    async def acknowledge_in(
        self,
        transaction: TransactionId,  # noqa: ARG002 - none of them is any good here
        ids: Sequence[Acknowledged],  # noqa: ARG002
        *,
        cumulative: bool,  # noqa: ARG002
    ) -> None:
        """Refuse: there is nothing to keep.

        Raises:
            NotAllowedError: always.
        """
        raise NotAllowedError("a topic that keeps nothing takes part in no transaction")

    def redeliver(self, ids: Sequence[EntryId] | None, epoch: int | None) -> None:
        """Do nothing: what was sent is gone."""

    async def seek(
        self, position: EntryId | None, ack_set: Sequence[int], time_ms: int | None
    ) -> None:
        """Do nothing: there is only what comes next."""

    async def last_message(self) -> LastMessage:
        """Refuse.

        Raises:
            NotAllowedError: always.
        """
        raise NotAllowedError("a non-persistent topic has no last message: nothing is stored")

    def stats(self) -> ConsumerStats:
        """Return the figures of CONSUMER_STATS."""
        clock = self.subscription.clock
        messages, size = self.rate.read(clock.monotonic(), self.messages_out, self.bytes_out)
        return ConsumerStats(
            name=self.name,
            type=self.subscription.type,
            permits=self.permits,
            unacked=0,
            blocked=False,
            backlog=0,
            message_rate=messages,
            byte_rate=size,
            redelivery_rate=0.0,
            ack_rate=0.0,
            expired_rate=0.0,
            address=self.request.client_address,
            connected_since_ms=self.connected_since_ms,
        )

    async def unsubscribe(self, *, force: bool) -> None:
        """Delete the subscription.

        Raises:
            ConsumerBusyError: others are connected, and `force` is off.
        """
        await self.subscription.unsubscribe(force=force)

    async def close(self) -> None:
        """Leave."""
        self.subscription.leave(self)

    def send(self, run: Run, first_entry: int, assignment: Assignment) -> None:
        """Deliver what dispatch assigned."""
        rows, messages = assignment.rows, assignment.messages
        lengths = run.u32(LENGTH)
        self.permits -= messages
        self.messages_out += messages
        self.entries_out += len(rows)
        self.bytes_out += sum([lengths[row] for row in rows])
        self.last_sent_ms = self.subscription.clock.wall_ms()
        if not self.events.deliver(run, Selection(MEMORY_LEDGER, first_entry, rows)):
            self.congested = True


class MemorySubscription:
    """A subscription that hands on what is published while somebody listens."""

    __slots__ = (
        "_next",
        "_remove",
        "_turn",
        "active",
        "bytes_out",
        "clock",
        "consumers",
        "created_ms",
        "drop_rate",
        "dropped",
        "durable",
        "key_shared",
        "messages_out",
        "name",
        "owners",
        "properties",
        "topic",
        "type",
    )

    def __init__(
        self,
        topic: TopicName,
        name: str,
        clock: Clock,
        remove: Callable[["MemorySubscription"], None],
        *,
        durable: bool,
    ) -> None:
        """Stay until `remove` is called with this: by unsubscribing, or for want of consumers."""
        self.topic = topic
        self.name = name
        self.clock = clock
        self.durable = durable
        self.properties: dict[str, str] = {}
        self.type = SubscriptionType.EXCLUSIVE
        self.consumers: dict[int, MemoryConsumer] = {}
        self.active: MemoryConsumer | None = None
        self.owners: Owners | None = None
        self.key_shared: KeyShared | None = None
        self.created_ms = clock.wall_ms()
        self.messages_out = 0
        self.bytes_out = 0
        self.dropped = 0
        self.drop_rate = Rate(clock.monotonic(), 0)
        self._remove = remove
        self._next = 0
        self._turn = 0

    # --- who listens --------------------------------------------------------------------

    def add_consumer(self, request: SubscribeRequest, events: ConsumerEvents) -> MemoryConsumer:
        """Let a consumer in.

        Raises:
            ConsumerBusyError: the subscription is taken, or is of another type.
            ConsumerAssignError: its key ranges do not fit those of the others.
        """
        if self.consumers:
            if request.type is not self.type:
                raise ConsumerBusyError(
                    f"subscription {self.name!r} is {self.type.name} and has consumers"
                )
            if self.type is SubscriptionType.EXCLUSIVE:
                raise ConsumerBusyError(f"subscription {self.name!r} has a consumer already")
        owners = self._owners_with(request)
        self.type, self.key_shared, self.owners = request.type, request.key_shared, owners
        consumer = MemoryConsumer(self, self._next, request, events)
        self.consumers[self._next] = consumer
        self._next += 1
        self._elect()
        return consumer

    def leave(self, consumer: MemoryConsumer) -> None:
        """Forget a consumer; a subscription that is not durable goes with its last one."""
        if self.consumers.pop(consumer.number, None) is None:
            return
        if self.type is SubscriptionType.KEY_SHARED:
            self.owners = self._owners_with(None)
        self._elect()
        if not self.consumers and not self.durable:
            self._remove(self)

    async def unsubscribe(self, *, force: bool) -> None:
        """Delete the subscription.

        Raises:
            ConsumerBusyError: more than one consumer is connected, and `force` is off.
        """
        if len(self.consumers) > 1 and not force:
            raise ConsumerBusyError(
                f"subscription {self.name!r} has {len(self.consumers)} consumers"
            )
        self._remove(self)
        self.end_consumers(None)

    def be_still(self) -> None:
        """Do nothing: what is not sent is not kept either."""

    def end_consumers(self, reason: PortError | None) -> None:
        """Close every consumer and tell its door why."""
        consumers, self.consumers = self.consumers, {}
        self.active = None
        for consumer in consumers.values():
            consumer.events.closed(reason)

    def _owners_with(self, request: SubscribeRequest | None) -> Owners | None:
        kind = self.type if request is None else request.type
        if kind is not SubscriptionType.KEY_SHARED:
            return None
        everybody = [(each.number, each.request) for each in self.consumers.values()]
        if request is not None:
            everybody.append((self._next, request))
        modes = {bool(each.key_shared and each.key_shared.sticky) for _, each in everybody}
        if len(modes) > 1:
            raise ConsumerAssignError(
                f"subscription {self.name!r} has consumers with sticky ranges and without"
            )
        if True not in modes:
            return HashRing((number, each.consumer_name) for number, each in everybody)
        try:
            return StickyRanges(
                (number, each.key_shared.ranges) for number, each in everybody if each.key_shared
            )
        except RangeOverlapError as error:
            raise ConsumerAssignError(str(error)) from None

    def _elect(self) -> None:
        """Choose the one consumer that is served, where it is one."""
        if self.type not in {SubscriptionType.EXCLUSIVE, SubscriptionType.FAILOVER}:
            self.active = None
            return
        number = active_consumer(
            [
                Candidate(each.number, each.name, each.request.priority)
                for each in self.consumers.values()
            ],
            str(self.topic.base),
            self.topic.partition,
        )
        chosen = None if number is None else self.consumers[number]
        if chosen is self.active:
            newest = next(reversed(self.consumers.values()), None)
            if newest is not None and newest is not chosen:
                newest.events.active(False)
            return
        self.active = chosen
        for each in self.consumers.values():
            each.events.active(each is chosen)

    # --- what is handed on --------------------------------------------------------------

    @property
    def thirsty(self) -> bool:
        """Whether any consumer has room."""
        return any(consumer.room > 0 for consumer in self.consumers.values())

    def offer(self, run: Run, first_entry: int) -> None:
        """Hand rows to the consumers that have room; drop the others."""
        messages = run.u32(MESSAGES).tolist()
        sent = 0
        for assignment in self._assign(run, messages):
            consumer = self.consumers[assignment.consumer]
            size_before = consumer.bytes_out
            consumer.send(run, first_entry, assignment)
            self.bytes_out += consumer.bytes_out - size_before
            sent += assignment.messages
        self.messages_out += sent
        self.dropped += sum(messages) - sent

    def drop(self, messages: int) -> None:
        """Count messages for which nobody had room."""
        self.dropped += messages

    def _assign(self, run: Run, messages: list[int]) -> Sequence[Assignment]:
        with_room = [
            Slot(each.number, each.room, each.request.priority)
            for each in self.consumers.values()
            if each.room > 0
        ]
        if self.type is SubscriptionType.SHARED:
            assignments, self._turn, _ = assign_shared(messages, with_room, self._turn)
            return assignments
        if self.type is SubscriptionType.KEY_SHARED and self.owners is not None:
            permits = {slot.consumer: slot.permits for slot in with_room}
            state = KeyedState(self.owners, permits)
            return assign_keyed(range(run.count), _slots(run), messages, state).assignments
        if self.active is None:
            return []
        only = [slot for slot in with_room if slot.consumer == self.active.number]
        return assign_shared(messages, only, 0)[0]

    # --- what is shown ------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """Return the figures under Pulsar's names."""
        now_s = self.clock.monotonic()
        consumers = [_consumer_stats(each) for each in self.consumers.values()]
        return {
            "type": TYPE_NAMES[self.type] if self.consumers else "None",
            "activeConsumerName": self.active.name if self.active else "",
            "msgRateOut": sum(each["msgRateOut"] for each in consumers),
            "msgThroughputOut": sum(each["msgThroughputOut"] for each in consumers),
            "bytesOutCounter": self.bytes_out,
            "msgOutCounter": self.messages_out,
            "msgRateRedeliver": 0.0,
            "msgBacklog": 0,
            "backlogSize": 0,
            "msgBacklogNoDelayed": 0,
            "msgDelayed": 0,
            "unackedMessages": 0,
            "msgDropRate": self.drop_rate.read(now_s, self.dropped)[0],
            "msgDropCount": self.dropped,
            "isDurable": self.durable,
            "isReplicated": False,
            "subscriptionProperties": self.properties,
            "consumers": consumers,
        }


class MemoryFan:
    """Hands what is published to a non-persistent topic to each of its subscriptions."""

    __slots__ = ("_next_entry", "_subscriptions")

    def __init__(self, subscriptions: Mapping[str, MemorySubscription]) -> None:
        """Look into this mapping whenever something is published."""
        self._subscriptions = subscriptions
        self._next_entry = 0

    def offer(self, run: Run) -> None:
        """Hand out a run; its buffer may be reused when this returns."""
        first_entry = self._next_entry
        self._next_entry += run.count
        copy: Run | None = None
        for subscription in list(self._subscriptions.values()):
            if not subscription.thirsty:
                subscription.drop(run.message_count())
                continue
            if copy is None:
                copy = detached(run)
            subscription.offer(copy, first_entry)


def _slots(run: Run) -> list[int]:
    """Return the hash slot of each row."""
    return [
        slot_of(key_hash) if flags & _KEYED else slot_without_key(sequence_id)
        for key_hash, flags, sequence_id in zip(
            run.u32(KEY_HASH), run.u32(FLAGS), run.i64(SEQUENCE_ID), strict=True
        )
    ]


def _consumer_stats(consumer: MemoryConsumer) -> dict[str, Any]:
    stats = consumer.stats()
    return {
        "consumerName": stats.name,
        "msgRateOut": stats.message_rate,
        "msgThroughputOut": stats.byte_rate,
        "bytesOutCounter": consumer.bytes_out,
        "msgOutCounter": consumer.messages_out,
        "msgRateRedeliver": 0.0,
        "availablePermits": stats.permits,
        "unackedMessages": 0,
        "avgMessagesPerEntry": consumer.messages_out // max(consumer.entries_out, 1),
        "blockedConsumerOnUnackedMsgs": False,
        "address": stats.address,
        "connectedSince": iso_time(stats.connected_since_ms),
        "clientVersion": consumer.request.client_version,
        "lastConsumedTimestamp": consumer.last_sent_ms,
        "lastConsumedFlowTimestamp": consumer.last_flow_ms,
        "metadata": dict(consumer.request.metadata),
    }
