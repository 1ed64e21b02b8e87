"""A subscription: a cursor, its consumers, and what is done to them.

    no consumer ──subscribe──▶ its type is that of the request ──▶ others of that type may join
         ▲                                                            │
         └──────── the last one leaves; the type may change ◀─────────┘

    acknowledge ──▶ consumer gives it back ──▶ cursor ──▶ `home.cursor_changed`, once until
                                                           `take_changes` was called
    new entries, permits, acknowledgements ──▶ wake ──▶ one pass per turn of the loop

How entries get to consumers is in `delivery`, what is acknowledged in `cursor`. Here are the
rules of attaching and the moves of the cursor (seek, skip, expire, clear).
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from magnetar.broker.entry import EARLIEST, EntryFlags, EntryId, TransactionId
from magnetar.broker.metadata.transactions import HeldAcks
from magnetar.broker.port import (
    Acknowledged,
    ConsumerAssignError,
    ConsumerBusyError,
    ConsumerEvents,
    ConsumerStats,
    KeyShared,
    LastMessage,
    MovingEvents,
    NotAllowedError,
    PersistenceError,
    PortError,
    ServiceNotReadyError,
    SubscribeRequest,
    SubscriptionType,
)
from magnetar.broker.run import Run
from magnetar.broker.storage.errors import StorageError
from magnetar.broker.topics.compaction.compacted import Compacted, ViewedLog
from magnetar.broker.topics.compaction.view import View
from magnetar.broker.topics.consumers.consumer import Limits, OpenConsumer
from magnetar.broker.topics.consumers.consumption import Consumption
from magnetar.broker.topics.consumers.delayed import Spill
from magnetar.broker.topics.consumers.delivery import Delivery
from magnetar.broker.topics.consumers.dispatch import (
    Halves,
    HashRing,
    Owners,
    RangeOverlapError,
    StickyRanges,
)
from magnetar.broker.topics.consumers.keyed_delivery import KeyedDelivery
from magnetar.broker.topics.consumers.places import (
    StoredEntry,
    index_at,
    last_readable,
    read_one,
    start_at,
)
from magnetar.broker.topics.consumers.shared_delivery import SharedDelivery
from magnetar.broker.topics.consumers.single_delivery import SingleDelivery
from magnetar.broker.topics.cursors.cursor import UNKNOWN, Cursor
from magnetar.broker.topics.cursors.held_acks import HeldAcknowledgements
from magnetar.broker.topics.cursors.reading import Ground, Log
from magnetar.broker.topics.cursors.transaction_buffer import VisibleLog
from magnetar.broker.topics.figures import TYPE_NAMES
from magnetar.broker.topics.limits.rates import Meters
from magnetar.broker.topics.subscriptions.passing import Passing
from magnetar.broker.topics.subscriptions.subscription_stats import (
    Figures,
    cursor_stats,
    subscription_stats,
)
from magnetar.broker.topics.subscriptions.transacting import acknowledge_in
from magnetar.names import TopicName

logger = logging.getLogger(__name__)

RETURN_TIMEOUT_S = 60.0
"""A subscription that is not durable is forgotten when nobody comes back after a reset."""

_NO_KEY_SHARED = KeyShared()


def _wants_keys(kind: SubscriptionType, request: SubscribeRequest | None) -> bool:
    """Whether the one consumer of a subscription wants only what has some keys."""
    if kind is not SubscriptionType.EXCLUSIVE or request is None:
        return False
    wanted = request.key_shared
    return wanted is not None and wanted.sticky and bool(wanted.ranges)


class Home(Protocol):
    """The topic, as its subscriptions see it."""

    @property
    def compacted(self) -> Compacted | None:
        """Its compacted side, if it has one."""
        ...

    def cursor_changed(self, subscription: "Subscription") -> None:
        """Call `take_changes` soon. Not repeated before that was called."""

    async def remove_subscription(self, subscription: "Subscription") -> None:
        """Delete the subscription for good, and its durable cursor."""

    def forget_subscription(self, subscription: "Subscription") -> None:
        """Forget a subscription that is not durable: its last consumer left."""

    async def hold_acks(
        self, subscription: "Subscription", transaction: TransactionId, number: int, acks: HeldAcks
    ) -> None:
        """Write down acknowledgements in a transaction, if it is open.

        Raises:
            TransactionNotFoundError, InvalidTransactionStatusError: it is not.
        """


class Subscription(Passing):
    """One subscription of one persistent topic."""

    __slots__ = (
        "_changes_told",
        "_closing",
        "_figures",
        "_home",
        "_kept",
        "_next_number",
        "_scheduled",
        "_spill",
        "_terminated",
        "consumption",
        "created_ms",
        "cursor",
        "delivery",
        "durable",
        "ground",
        "held",
        "key_shared",
        "limits",
        "log",
        "name",
        "properties",
        "reads_compacted",
        "throttle",
        "topic",
        "type",
    )

    def __init__(  # noqa: PLR0913, PLR0917 - what its topic knows of it
        self,
        name: str,
        topic: TopicName,
        log: Log,
        cursor: Cursor,
        ground: Ground,
        home: Home,
        *,
        durable: bool = True,
        properties: Mapping[str, str] | None = None,
        created_ms: int = 0,
        limits: Limits | None = None,
        spill: Spill | None = None,
        terminated: bool = False,
    ) -> None:
        """Take over a cursor, new (`cursor_at`) or restored.

        A restored cursor that is ahead of the log is set back to its end.
        """
        self.name = name
        self.topic = topic
        self.log = self._kept = log
        self.reads_compacted = False
        """Who came last wants the compacted view."""
        self.cursor = cursor
        self.ground = ground
        self.durable = durable
        self.properties = dict(properties or {})
        self.created_ms = created_ms
        config = ground.config
        self.limits = limits or Limits(
            config.unacked_messages_per_consumer_max, config.unacked_messages_per_subscription_max
        )
        self.throttle: Meters | None = None
        """What its messages are measured against; None: they go as fast as they can."""
        self.type = SubscriptionType.EXCLUSIVE
        self._home = home
        self._spill = spill
        self._terminated = terminated
        self.key_shared = _NO_KEY_SHARED
        self.delivery: Delivery | None = None
        self.consumption = Consumption(cursor, log)
        self.held: HeldAcknowledgements | None = None
        """What transactions hold; None: none has acknowledged anything since it was loaded."""
        self._figures: Figures | None = None
        self._next_number = 0
        self._scheduled = False
        self._changes_told = False
        self._closing = False
        if EARLIEST < cursor.mark_delete >= log.end > EntryId(0, 0):
            logger.error(
                "subscription %r of %s is at %s, beyond the end of its topic at %s: set back",
                name,
                topic,
                cursor.mark_delete,
                log.end,
            )
            cursor.reset(log.last, log.next_index)
        if cursor.consumed == UNKNOWN:
            # Right if every entry is one message; else the first read sets it right.
            cursor.consumed = max(log.next_index - self.backlog_entries, 0)

    def __repr__(self) -> str:
        return f"<Subscription {self.name!r} of {self.topic}>"

    def read_from(self, log: Log) -> None:
        """Read from another view of the same log from now on."""
        self._kept = log
        self._read_as(compacted=self.reads_compacted)
        self.consumption.read_from(self.log)
        if self.delivery is not None:
            self.delivery.read_from(self.log)

    def hidden(self, at: EntryId, run: Run) -> Sequence[int]:
        """Return the rows that belong to aborted transactions."""
        return self._kept.hidden(at, run) if isinstance(self._kept, VisibleLog) else ()

    # --- who is connected -----------------------------------------------------------------

    @property
    def consumers(self) -> Mapping[int, OpenConsumer]:
        """Everybody who is connected."""
        return {} if self.delivery is None else self.delivery.consumers

    @property
    def was_used(self) -> bool:
        """Whether anybody was ever connected since the topic was loaded."""
        return self._next_number > 0

    @property
    def mark_delete(self) -> EntryId:
        """The last entry of those that are acknowledged without a hole."""
        return self.cursor.mark_delete

    @property
    def active(self) -> OpenConsumer | None:
        """The one consumer that is served, on Exclusive and Failover."""
        return None if self.delivery is None else self.delivery.active

    def add_consumer(self, request: SubscribeRequest, events: ConsumerEvents) -> OpenConsumer:
        """Let a consumer in.

        `events.active` may be called before this returns; nothing else is.

        Raises:
            ConsumerBusyError: the subscription is taken, or is of another type.
            ConsumerAssignError: its key ranges do not fit those of the others.
            ServiceNotReadyError: the subscription is being reset; try again.
            NotAllowedError: a compacted read of a type that has no order.
        """
        if self._closing:
            raise ServiceNotReadyError(f"subscription {self.name!r} is being reset")
        self._demand_fitting(request)
        number = self._next_number
        owners = self._owners_with(number, request)
        self._read_as(compacted=request.read_compacted)
        delivery = self._delivery_for(request, owners)
        self._next_number += 1
        clock = self.ground.clock
        consumer = OpenConsumer(
            self, number, request, events, now_ms=clock.wall_ms(), now_s=clock.monotonic()
        )
        delivery.join(consumer)
        if owners is not None and isinstance(delivery, KeyedDelivery):
            delivery.change_owners(owners)
        elif isinstance(delivery, SingleDelivery):
            delivery.deliver_only(owners)
        self.wake()
        return consumer

    def leave(self, consumer: OpenConsumer) -> None:
        """Let a consumer go; doing it twice is harmless."""
        delivery = self.delivery
        if delivery is None or delivery.consumers.get(consumer.number) is not consumer:
            return
        delivery.leave(consumer)
        if isinstance(delivery, KeyedDelivery):
            owners = self._owners_with(None, None)
            assert owners is not None
            delivery.change_owners(owners)
        if delivery.consumers:
            self.wake()
        elif not self.durable:
            delivery.stop()
            self.delivery = None
            self._home.forget_subscription(self)
        elif delivery.forgettable:
            delivery.stop()
            self.delivery = None

    def be_still(self) -> None:
        """Have doors take and send nothing more; `end_consumers` follows."""
        for consumer in self.consumers.values():
            if isinstance(consumer.events, MovingEvents):
                consumer.events.moving()

    def end_consumers(self, reason: PortError | None) -> None:
        """Close every consumer and tell its door why. What was in memory only is forgotten."""
        delivery, self.delivery = self.delivery, None
        if delivery is None:
            return
        delivery.stop()
        for consumer in list(delivery.consumers.values()):
            consumer.events.closed(reason)

    async def unsubscribe(self, *, force: bool) -> None:
        """Delete the subscription and its cursor.

        Raises:
            ConsumerBusyError: others are connected, and `force` is off.
        """
        if len(self.consumers) > 1 and not force:
            raise ConsumerBusyError(
                f"subscription {self.name!r} has {len(self.consumers)} consumers"
            )
        await self._home.remove_subscription(self)

    def _demand_fitting(self, request: SubscribeRequest) -> None:
        shared = request.type in {SubscriptionType.SHARED, SubscriptionType.KEY_SHARED}
        if request.read_compacted and shared:
            raise NotAllowedError(f"a compacted read of a {TYPE_NAMES[request.type]} subscription")
        if not self.consumers:
            return
        if request.type is not self.type:
            raise ConsumerBusyError(
                f"subscription {self.name!r} is {TYPE_NAMES[self.type]} while it has consumers"
            )
        if self.type is SubscriptionType.EXCLUSIVE:
            raise ConsumerBusyError(f"exclusive subscription {self.name!r} has a consumer already")
        if self.type is SubscriptionType.KEY_SHARED:
            wanted, given = request.key_shared or _NO_KEY_SHARED, self.key_shared
            if wanted[1:] != given[1:]:
                raise ConsumerAssignError(
                    f"subscription {self.name!r}: all consumers split keys in the same way,"
                    f" here sticky={given.sticky}, out of order={given.allow_out_of_order}"
                )

    def _owners_with(self, number: int | None, request: SubscribeRequest | None) -> Owners | None:
        """Return who owns which slot once a consumer joined; None: all get, or one gets, all."""
        kind = self.type if request is None else request.type
        if kind is not SubscriptionType.KEY_SHARED and not _wants_keys(kind, request):
            return None
        everybody = [(each.number, each.request) for each in self.consumers.values()]
        if number is not None and request is not None:
            everybody.append((number, request))
        options = self.key_shared if request is None else request.key_shared or _NO_KEY_SHARED
        if not options.sticky:
            if not self.ground.config.key_shared_consistent_hashing:
                return Halves(sorted(number for number, _ in everybody))
            return HashRing((number, each.consumer_name) for number, each in everybody)
        try:
            return StickyRanges(
                (number, each.key_shared.ranges if each.key_shared else ())
                for number, each in everybody
            )
        except RangeOverlapError as error:
            raise ConsumerAssignError(str(error)) from None

    def _delivery_for(self, request: SubscribeRequest, owners: Owners | None) -> Delivery:
        """Return the delivery of the wanted type; one that nobody uses may be replaced."""
        delivery = self.delivery
        options = request.key_shared or _NO_KEY_SHARED
        if delivery is not None and (
            delivery.consumers or (self.type is request.type and options[1:] == self.key_shared[1:])
        ):
            return delivery
        if delivery is not None:
            delivery.stop()
        self.type, self.key_shared = request.type, options
        if request.type is SubscriptionType.SHARED:
            self.delivery = SharedDelivery(self, self._spill)
        elif owners is not None and request.type is SubscriptionType.KEY_SHARED:
            self.delivery = KeyedDelivery(
                self, self._spill, owners, allow_out_of_order=options.allow_out_of_order
            )
        else:
            self.delivery = SingleDelivery(
                self, request.type, str(self.topic.base), self.topic.partition
            )
        if self.held is not None:
            self.delivery.park(*self.held.everything())
        return self.delivery

    # --- the compacted view ---------------------------------------------------------------

    def _read_as(self, *, compacted: bool) -> None:
        side = self._home.compacted if compacted else None
        self.reads_compacted = compacted
        self.log = self._kept if side is None else ViewedLog(self._kept, side)

    @property
    def compacted(self) -> Compacted | None:
        """The compacted side of the topic, if there is one."""
        return self._home.compacted

    @property
    def view(self) -> View | None:
        """The compacted view of the topic, if there is one."""
        side = self.compacted
        return None if side is None else side.view

    @property
    def kept_from(self) -> EntryId:
        """The first entry that the log itself still has."""
        return self._kept.first

    # --- the turn of the loop -------------------------------------------------------------

    def wake(self) -> None:
        """Look soon whether something can be sent; many calls in one turn are one."""
        if not self._scheduled and self.delivery is not None and self.delivery.consumers:
            self._scheduled = True
            self.ground.rota.add(self._pass)

    def terminate(self) -> None:
        """The topic takes nothing more: tell consumers once they have everything."""
        self._terminated = True
        self.wake()

    def _pass(self) -> None:
        self._scheduled = False
        delivery = self.delivery
        if delivery is None:
            return
        if delivery.dispatch():
            self.wake()
        waiting = isinstance(self._kept, VisibleLog) and self._kept.waiting
        if self._terminated and delivery.caught_up and not waiting:
            for consumer in delivery.consumers.values():
                if not consumer.told_end:
                    consumer.told_end = True
                    consumer.events.end_of_topic()

    # --- what a consumer asks -------------------------------------------------------------

    def flow(self, consumer: OpenConsumer, permits: int) -> None:
        """Allow a consumer more messages."""
        if permits > 0 and self.consumers.get(consumer.number) is consumer:
            consumer.permits += permits
            consumer.last_flow_ms = self.ground.clock.wall_ms()
            self.figures.last_flow_ms = consumer.last_flow_ms
            self.wake()

    def resume(self, consumer: OpenConsumer) -> None:
        """A consumer's connection has room again."""
        consumer.congested = False
        self.wake()

    def redeliver(
        self, consumer: OpenConsumer, ids: Sequence[EntryId] | None, epoch: int | None
    ) -> None:
        """Send entries of a consumer again; None: all that it has."""
        delivery = self.delivery
        if delivery is None or delivery.consumers.get(consumer.number) is not consumer:
            return
        before = consumer.redelivered
        delivery.redeliver(consumer, ids, epoch)
        self.figures.redelivered += consumer.redelivered - before
        self.wake()

    async def acknowledge_in(
        self,
        transaction: TransactionId,
        consumer: OpenConsumer,
        ids: Sequence[Acknowledged],
        *,
        cumulative: bool,
    ) -> None:
        """Acknowledge entries once a transaction is committed, as `transacting` says."""
        if self.consumers.get(consumer.number) is consumer:
            await acknowledge_in(self, self._home, transaction, ids, cumulative=cumulative)

    # --- what the delivery asks (see `delivery.Account`) ----------------------------------

    @property
    def figures(self) -> "Figures":
        """Counters; made when first something is counted."""
        if self._figures is None:
            self._figures = Figures(self.ground.clock.monotonic())
        return self._figures

    def count_out(self, entries: int, messages: int, size: int) -> None:
        """Count what was sent."""
        figures = self.figures
        figures.entries_out += entries
        figures.messages_out += messages
        figures.bytes_out += size
        figures.last_sent_ms = self.ground.clock.wall_ms()

    # --- persisting -----------------------------------------------------------------------

    @property
    def changed(self) -> bool:
        """Whether there is something that `take_changes` did not return yet."""
        return self.durable and self.cursor.changed

    def take_changes(self) -> bytes:
        """Return what changed in the cursor since the last call; see `Cursor.take_changes`."""
        self._changes_told = False
        return self.cursor.take_changes()

    def changes_lost(self) -> None:
        """Report that what `take_changes` returned was not stored."""
        self.cursor.changes_lost()
        self._note_change()

    def _note_change(self) -> None:
        if self.durable and not self._changes_told and self.cursor.changed:
            self._changes_told = True
            self._home.cursor_changed(self)

    # --- moving the cursor ----------------------------------------------------------------

    async def seek(
        self, position: EntryId | None, ack_set: Sequence[int], time_ms: int | None
    ) -> None:
        """Reset to a position (inclusive) or a publish time. Every consumer is closed first.

        Raises:
            NotAllowedError: neither is given.
            ServiceNotReadyError: another reset is under way.
        """
        await self.reset(position=position, time_ms=time_ms, ack_set=ack_set)

    async def reset(
        self,
        *,
        position: EntryId | None = None,
        time_ms: int | None = None,
        ack_set: Sequence[int] = (),
    ) -> None:
        """Move to the entry at or after a position, or the first one published since a time.

        Raises:
            NotAllowedError: neither is given.
            ServiceNotReadyError: another reset is under way.
            PersistenceError: the log could not be read; nothing has moved.
        """
        if position is None and time_ms is None:
            raise NotAllowedError("a seek needs a position or a time")
        if self._closing:
            raise ServiceNotReadyError(f"subscription {self.name!r} is being reset already")
        self._closing = True
        self._read_as(compacted=self.reads_compacted)
        try:
            self.end_consumers(None)
            if position is None:
                position = await self._find_time(time_ms or 0)
            start = start_at(self.log, position)
            index = await index_at(self.log, start)
            consumed = self.cursor.consumed if index is None else index
            self.cursor.reset(self.log.previous_position(start), consumed)
            self.cursor.estimated = index is None
            self.consumption.clear()
            if any(ack_set) and start == position:
                self.cursor.acknowledge_part(*start, ack_set, self.log)
            self._note_change()
        finally:
            self._closing = False
            if not self.durable:
                self.ground.loop.call_later(RETURN_TIMEOUT_S, self._forget_if_idle)

    def _forget_if_idle(self) -> None:
        if not self.consumers and not self._closing:
            self._home.forget_subscription(self)

    # --- asking ---------------------------------------------------------------------------

    @property
    def backlog(self) -> int:
        """Messages that are not acknowledged, those of open transactions included, as in Pulsar."""
        if self.cursor.next_unacknowledged(EARLIEST, self.log) >= self._stored_end:
            return 0
        return max(self.log.next_index - self.cursor.consumed, 0)

    @property
    def backlog_entries(self) -> int:
        """Entries that are not acknowledged."""
        return self.cursor.backlog(self.log, self._stored_end)

    @property
    def _stored_end(self) -> EntryId:
        """The position after the last entry, whether it may be read yet or not."""
        kept = self._kept
        return kept.stored_end if isinstance(kept, VisibleLog) else kept.end

    @property
    def backlog_bytes(self) -> int:
        """About how many bytes the backlog has, as if all entries were of equal size."""
        entries = self.log.distance(self.log.first, self._stored_end)
        return self.log.bytes_total * self.backlog_entries // entries if entries else 0

    async def last_message(self) -> LastMessage:
        """Return the last message that can be read, and how far this subscription is.

        Raises:
            PersistenceError: the disk did not let us read.
        """
        view = self.view if self.reads_compacted else None
        if view is not None and self._kept.last <= view.horizon:
            return await self._last_survivor(view)
        found = await last_readable(self._kept, self.hidden)
        if found is None:
            return LastMessage(EARLIEST, 0, self.cursor.mark_delete)
        last, envelope = found
        batch_size = envelope.messages if envelope.flags & EntryFlags.BATCH else 0
        return LastMessage(last, batch_size, self.cursor.mark_delete)

    async def _last_survivor(self, view: View) -> LastMessage:
        try:
            last = await view.id_at(view.places - 1)
        except StorageError as error:
            raise PersistenceError(f"cannot read the compacted ledger: {error}") from error
        if last is None:
            return LastMessage(EARLIEST, 0, self.cursor.mark_delete)
        return LastMessage(last, view.record.last_batch, self.cursor.mark_delete)

    async def peek(self, number: int) -> StoredEntry | None:
        """Return the `number`-th entry of the backlog, the first is 1; None: it is shorter.

        Raises:
            PersistenceError: the entry could not be read.
        """
        position = self.cursor.next_unacknowledged(EARLIEST, self.log)
        left = number - 1
        while position < self.log.end and left:
            # Whole stretches at a time: up to the next hole, at most a page.
            length = min(left, 4096)
            bits = self.cursor.acknowledged_bits(*position, length)
            if bits:
                length = max((bits & -bits).bit_length() - 1, 1)
            end = EntryId(position.ledger, position.entry + length)
            left -= self.log.distance(position, end)
            position = self.cursor.next_unacknowledged(end, self.log)
        while position < self.log.end:
            entry = await read_one(self.log, position)
            if not entry.hidden(self.hidden):
                return entry
            after = EntryId(position.ledger, position.entry + 1)
            position = self.cursor.next_unacknowledged(after, self.log)
        return None

    def consumer_stats(self, consumer: OpenConsumer) -> ConsumerStats:
        """Return the figures of one consumer."""
        messages, size, redelivered, acked = consumer.rates(self.ground.clock.monotonic())
        return ConsumerStats(
            name=consumer.name,
            type=self.type,
            permits=consumer.permits,
            unacked=consumer.unacked_messages,
            blocked=consumer.blocked,
            backlog=self.backlog,
            message_rate=messages,
            byte_rate=size,
            redelivery_rate=redelivered,
            ack_rate=acked,
            expired_rate=0.0,
            address=consumer.request.client_address,
            connected_since_ms=consumer.connected_since_ms,
        )

    def stats(self) -> dict[str, Any]:
        """Return what admin REST shows of the subscription, under Pulsar's keys. Current."""
        return subscription_stats(self)

    def internal_stats(self) -> dict[str, Any]:
        """Return what admin REST shows of the cursor, under Pulsar's keys."""
        return cursor_stats(self)
