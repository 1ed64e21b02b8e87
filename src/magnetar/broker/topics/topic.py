"""A topic, or one partition of a partitioned topic: its producers and its subscriptions.

    producers ──▶ inlet ──▶ log ──▶ subscriptions ──▶ consumers
                   │ no log: a non-persistent topic
                   └────────────────▲

    OPEN ──terminate──▶ refuses producers for good, can still be read
      └───close───────▶ CLOSED: its clients come back, and the topic is loaded anew, or is gone

A topic is only ever served by the process that owns it. As in NSQ's topic and channel,
what is published once is seen once by each subscription. How subscriptions are made
durable stands in `checkpoints`, what is shown of a topic in `topic_stats`, what is done to
it from time to time in `upkeep`.
"""

import asyncio
import logging
from collections.abc import Collection, Mapping
from typing import Any, cast

from magnetar.broker.entry import EARLIEST, LATEST, EntryId, TransactionId
from magnetar.broker.metadata.facts import AlreadyExistsError
from magnetar.broker.metadata.partitions import TopicRecord
from magnetar.broker.metadata.policies import Policies
from magnetar.broker.metadata.transactions import HeldAcks
from magnetar.broker.port import (
    Consumer,
    ConsumerBusyError,
    ConsumerEvents,
    MetadataError,
    MovingEvents,
    NotAllowedError,
    PersistenceError,
    PortError,
    ProducerBusyError,
    ProducerEvents,
    ProducerRequest,
    QuotaExceededError,
    ServiceNotReadyError,
    SubscribeRequest,
    SubscriptionNotFoundError,
    SubscriptionType,
    TopicTerminatedError,
)
from magnetar.broker.storage.errors import Gap, StorageError
from magnetar.broker.storage.log import Log
from magnetar.broker.topics.compaction.compacted import Compacted, ViewedLog
from magnetar.broker.topics.consumers.places import StoredEntry, read_one
from magnetar.broker.topics.cursors.reading import Log as ReadLog
from magnetar.broker.topics.cursors.transaction_buffer import (
    DecidedLog,
    TransactionBuffer,
    VisibleLog,
)
from magnetar.broker.topics.figures import TYPE_NAMES
from magnetar.broker.topics.limits.backlog import backlog_bytes
from magnetar.broker.topics.limits.gate import Gate
from magnetar.broker.topics.limits.policies import Rules
from magnetar.broker.topics.memory_topic import MemoryFan, MemorySubscription
from magnetar.broker.topics.participation import settle_acks, settle_entries
from magnetar.broker.topics.producers.access_modes import Producers
from magnetar.broker.topics.producers.pacing import Pacing, asks_nothing
from magnetar.broker.topics.producers.producer import Inlet, OpenProducer
from magnetar.broker.topics.quotas import QuotaGuard
from magnetar.broker.topics.subscription_names import AnySubscription, Subscriptions, Wanted
from magnetar.broker.topics.subscriptions.checkpoints import limits_of
from magnetar.broker.topics.subscriptions.subscription import Subscription
from magnetar.broker.topics.surroundings import Surroundings
from magnetar.broker.topics.topic_stats import (
    COMPACTION_CURSOR,
    compaction_cursor_stats,
    entry_rates,
    internal_stats,
    internal_stats_in_memory,
    spans_of,
    topic_stats,
)
from magnetar.names import TopicName

logger = logging.getLogger(__name__)

IN_ORDER = frozenset({SubscriptionType.EXCLUSIVE, SubscriptionType.FAILOVER})
"""The types of which one consumer gets everything, which a compacted view is for."""

SETTLE_TIMEOUT_S = 10.0
"""How long closing waits for what was published before. Commits take milliseconds."""


class TopicBusyError(NotAllowedError):
    """The topic has producers or consumers, and the call did not say `force`."""


BE_READY, AT_EASE = 0.0, -1.0
"""For doors in place of how long to wait: a rate is limited now, or no longer."""


class Topic:
    """One topic that this process serves."""

    __slots__ = (
        "_around",
        "_closed",
        "_log",
        "_numbers",
        "_pacing",
        "compacted",
        "created_ms",
        "guard",
        "idle_since_s",
        "inlet",
        "name",
        "own",
        "producers",
        "properties",
        "rules",
        "subscriptions",
        "terminated_at",
        "transactions",
        "visible",
    )

    def __init__(
        self,
        around: Surroundings,
        name: TopicName,
        record: TopicRecord,
        rules: Rules,
        log: Log | None,
    ) -> None:
        """Take what is known of a topic; without a log it is a non-persistent one."""
        self._around = around
        self.name = name
        self.rules = rules
        self.created_ms = record.created_ms
        self.properties = record.properties
        self.terminated_at = record.terminated_at
        self.own: Policies | None = None
        """What this topic says itself, over what its namespace says; None: nothing."""
        self.subscriptions = Subscriptions(self, around)
        self.producers = Producers(record.topic_epoch, self._save_epoch)
        self._log = log
        self.compacted: Compacted | None = None
        offer = None
        if log is None:
            offer = MemoryFan(cast("dict[str, MemorySubscription]", self.subscriptions)).offer
        self.inlet = Inlet(log=log, wake=self.wake, offer=offer, join=self._join)
        self.transactions: TransactionBuffer | None = None
        """None: none has entries here, or had since the topic was loaded."""
        self.visible: VisibleLog | None = None
        self._closed: PortError | None = None
        self._numbers = 0
        self._pacing: Pacing | None = None
        self.guard: QuotaGuard | None = None
        """Watches the backlog quotas; None: there are none."""
        self.idle_since_s = around.clock.monotonic()
        if self.terminated_at is not None:
            self.inlet.refusal = self._terminated()
        self.pace()

    def __repr__(self) -> str:
        return f"<Topic {self.name}>"

    @property
    def log(self) -> Log:
        """The log of a persistent topic.

        Raises:
            NotAllowedError: the topic is not persistent.
        """
        if self._log is None:
            raise NotAllowedError(f"topic {self.name} is not persistent: nothing of it is stored")
        return self._log

    def log_for(self, *, compacted: bool) -> ReadLog:
        """Return the log as a new subscription sees it."""
        if compacted and self.compacted is not None:
            return ViewedLog(self.readable, self.compacted)
        return self.readable

    @property
    def readable(self) -> ReadLog:
        """The log of a persistent topic as far as subscriptions may read it."""
        return self.visible or self.log

    @property
    def decided(self) -> Log | DecidedLog:
        """The log up to where everything is decided, without what was aborted: for compaction."""
        return self.log if self.visible is None else DecidedLog(self.visible)

    @property
    def closed(self) -> bool:
        """Whether this object is no longer the topic: it was unloaded or deleted."""
        return self._closed is not None

    @property
    def consumer_count(self) -> int:
        """How many consumers all subscriptions have together."""
        return sum(len(each.consumers) for each in self.subscriptions.values())

    @property
    def holds_data(self) -> bool:
        """Whether anything is in it; of one that keeps nothing, whether anything ever was."""
        return self.inlet.entries_in > 0 if self._log is None else self._log.bytes_total > 0

    def wake(self) -> None:
        """Tell every subscription that there is something new to read."""
        for subscription in self.subscriptions.values():
            if isinstance(subscription, Subscription):
                subscription.wake()
        if self.guard is not None:
            self.guard.published()

    @property
    def readers(self) -> list[Subscription]:
        """Return the subscriptions that read a log: all of a persistent topic."""
        return [each for each in self.subscriptions.values() if isinstance(each, Subscription)]

    @property
    def durable(self) -> list[Subscription]:
        """Return the subscriptions whose cursors hold back retention, and fill quotas."""
        return [each for each in self.readers if each.durable]

    # --- producers ----------------------------------------------------------------------

    async def open_producer(self, request: ProducerRequest, events: ProducerEvents) -> OpenProducer:
        """Let a producer in, or into the queue for exclusive access.

        Raises:
            ProducerBusyError: its name, or the topic, is taken; or there are too many.
            ProducerFencedError: it may not have the topic for itself, or no longer.
            TopicTerminatedError: the topic was closed for good.
            QuotaExceededError: a backlog quota is full.
            MetadataError: encryption is required, or a fact could not be written.
        """
        self.demand_open()
        if self.guard is not None and self.guard.due:
            await self.guard.look_quietly()
            self.demand_open()
        if self.inlet.refusal is not None:
            raise self.inlet.refusal
        rules = self.rules
        if rules.encryption_required and not request.encrypted:
            raise MetadataError(f"topic {self.name} takes encrypted messages only")
        if 0 < rules.producers_max <= len(self.producers):
            raise ProducerBusyError(
                f"topic {self.name} has {rules.producers_max} producers already"
            )
        name = request.name or self._around.names.next()
        producer = OpenProducer(self.inlet, request, name, events, self._producer_left)
        producer.number = self._numbers
        producer.connected_since_ms = self._around.clock.wall_ms()
        self._numbers += 1
        try:
            await self.producers.add(producer)
            if request.initial_subscription:
                await self._ensure_subscription(request.initial_subscription)
        except PortError as error:
            producer.refuse(error)
            raise
        if not producer.open:
            raise producer.refusal or self._closed or ServiceNotReadyError("closed meanwhile")
        if _is_paced(self.inlet.gate) and producer.throttle is not None:
            producer.throttle(BE_READY)
        return producer

    def _set_gate(self, gate: Gate | None) -> None:
        """Tell doors too whether clients may have to wait, before they send too much at once."""
        before, self.inlet.gate = self.inlet.gate, gate
        if _is_paced(before) != _is_paced(gate):
            for producer in self.producers:
                if producer.throttle is not None:
                    producer.throttle(BE_READY if _is_paced(gate) else AT_EASE)

    # --- transactions -----------------------------------------------------------------------

    def take_transactions(self, transactions: TransactionBuffer) -> None:
        """Let subscriptions read what transactions leave them, from now on."""
        self.transactions = self.inlet.transactions = transactions
        self.visible = VisibleLog(self.log, transactions)
        for each in self.readers:
            each.read_from(self.visible)

    async def _join(self, wanted: Collection[TransactionId]) -> Mapping[TransactionId, PortError]:
        if self.transactions is None:
            store = self._around.transactions
            self.take_transactions(TransactionBuffer(self.name, self.log, store, self.wake))
        assert self.transactions is not None
        return await self.transactions.join(wanted)

    async def settle(self, transaction: TransactionId) -> None:
        """Let the entries of a transaction be read, or never, if that is decided.

        Raises:
            StoreError: what is decided could not be read, or not be written down.
        """
        if self.transactions is not None:
            await settle_entries(self.transactions, transaction, self._around.transactions)

    async def settle_subscription(self, name: str, transaction: TransactionId) -> None:
        """Do for the acknowledgements of a subscription what is decided.

        Raises:
            StoreError: what is decided could not be read, or the cursor not be saved.
        """
        subscription = self.subscriptions.get(name)
        if not isinstance(subscription, Subscription):
            return
        around = self._around
        if await settle_acks(subscription, transaction, around.transactions, around.checkpoints):
            self.demand_open()  # else it may not have been saved: again, once it is loaded anew

    async def hold_acks(
        self, subscription: Subscription, transaction: TransactionId, number: int, acks: HeldAcks
    ) -> None:
        """Write down acknowledgements in a transaction, if it is open."""
        cursor = self._around.checkpoints.cursor_of(subscription)
        if cursor is None:
            raise NotAllowedError(f"subscription {subscription.name!r} is not durable")
        store = self._around.transactions
        found = await store.find_open(transaction)
        await store.hold(found, self.name, subscription.name, cursor, number, acks)

    def _producer_left(self, producer: OpenProducer) -> None:
        self.producers.left(producer)
        self.note_idle()

    async def _save_epoch(self, epoch: int) -> None:
        def change(record: TopicRecord) -> None:
            record.topic_epoch = epoch

        if self._log is not None:
            await self._around.partitions.update_topic(self.name, change)

    async def _ensure_subscription(self, name: str) -> None:
        try:
            await self.create_subscription(name, EARLIEST)
        except AlreadyExistsError:
            return

    # --- subscriptions ------------------------------------------------------------------

    async def subscribe(self, request: SubscribeRequest, events: ConsumerEvents) -> Consumer:
        """Let a consumer in, with a new subscription if there is none of that name.

        Raises:
            ConsumerBusyError: the subscription is taken, of another type, or there are too many.
            ConsumerAssignError: its key ranges do not fit those of the others.
            SubscriptionNotFoundError: there is none, and it may not be created.
            NotAllowedError: the request makes no sense on this topic.
        """
        self.demand_open()
        types = self.rules.subscription_types
        if types is not None and TYPE_NAMES[request.type] not in types:
            raise NotAllowedError(
                f"{TYPE_NAMES[request.type]} subscriptions are switched off for topic {self.name}"
            )
        if request.read_compacted and self._log is None:
            raise NotAllowedError(f"topic {self.name} is not persistent: it has no compacted view")
        if request.read_compacted and request.type not in IN_ORDER:
            raise NotAllowedError(f"a compacted read of a {TYPE_NAMES[request.type]} subscription")
        self._demand_patience(request)
        subscription = self.subscriptions.get(request.subscription)
        self._demand_room(subscription)
        if subscription is None:
            subscription = await self._create_for(request)
            # Others may have come meanwhile, and somebody else may have made it.
            self._demand_room(subscription)
        if subscription.durable != request.durable:
            kind = "durable" if subscription.durable else "not durable"
            raise NotAllowedError(f"subscription {request.subscription!r} exists, and is {kind}")
        self.subscriptions.demand_kept(subscription)
        return subscription.add_consumer(request, events)

    async def create_subscription(
        self, name: str, start: EntryId, properties: Mapping[str, str] | None = None
    ) -> AnySubscription:
        """Add a durable subscription whose first entry is the one at or after `start`.

        Raises:
            AlreadyExistsError: there is one of that name.
        """
        self.demand_open()
        if name in self.subscriptions:
            raise AlreadyExistsError(f"topic {self.name} has a subscription {name!r} already")
        return await self.subscriptions.add(Wanted(name, start, properties or {}))

    async def delete_subscription(self, name: str, *, force: bool = False) -> None:
        """Remove a subscription with its cursor.

        Raises:
            SubscriptionNotFoundError: there is none.
            ConsumerBusyError: it has consumers, and `force` is off.
        """
        subscription = self.subscriptions.get(name)
        if subscription is None:
            raise SubscriptionNotFoundError(f"topic {self.name} has no subscription {name!r}")
        if subscription.consumers and not force:
            raise ConsumerBusyError(
                f"subscription {name!r} has {len(subscription.consumers)} consumers"
            )
        await self.subscriptions.remove(subscription)

    async def set_subscription_properties(self, name: str, properties: Mapping[str, str]) -> None:
        """Replace what was noted about a subscription. Durable when it returns, if it is.

        Raises:
            SubscriptionNotFoundError: there is none.
        """
        subscription = self.subscriptions.get(name)
        if subscription is None:
            raise SubscriptionNotFoundError(f"topic {self.name} has no subscription {name!r}")
        if isinstance(subscription, Subscription):
            await self._around.checkpoints.set_properties(subscription, properties)
        else:
            subscription.properties = dict(properties)

    async def _create_for(self, request: SubscribeRequest) -> AnySubscription:
        """Make the subscription that a consumer asks for."""
        name = request.subscription
        if self._log is None:
            return await self.subscriptions.add(
                Wanted(name, LATEST, request.properties, durable=request.durable)
            )
        if not request.durable:
            start = request.start if request.start is not None else LATEST
            if request.from_earliest and request.start is None:
                start = EARLIEST
            if request.rollback_seconds:
                start = await self._rolled_back(request.rollback_seconds)
            return await self.subscriptions.add(
                Wanted(
                    name,
                    start,
                    durable=False,
                    ack_set=request.start_ack_set,
                    compacted=request.read_compacted,
                )
            )
        if not self.rules.auto_subscription_creation:
            raise SubscriptionNotFoundError(
                f"topic {self.name} has no subscription {name!r}, and creating one by"
                " subscribing is switched off"
            )
        start = EARLIEST if request.from_earliest else LATEST
        if request.rollback_seconds:
            start = await self._rolled_back(request.rollback_seconds)
        return await self.subscriptions.add(
            Wanted(name, start, request.properties, compacted=request.read_compacted)
        )

    async def _rolled_back(self, seconds: int) -> EntryId:
        try:
            return await self.log.find_time(self._around.clock.wall_ms() - seconds * 1000)
        except StorageError as error:
            raise PersistenceError(f"cannot search {self.name} by time: {error}") from error

    # --- what its subscriptions ask (see `subscription.Home`) -------------------------------

    def cursor_changed(self, subscription: Subscription) -> None:
        """Write down soon what changed in a cursor."""
        self._around.checkpoints.changed(subscription)
        if self.guard is not None:
            self.guard.acknowledged()

    async def remove_subscription(self, subscription: Subscription) -> None:
        """Delete a subscription for good."""
        await self.subscriptions.remove(subscription)

    def forget_subscription(self, subscription: Subscription) -> None:
        """Forget a subscription that is not durable: its last consumer left."""
        self.subscriptions.forget(subscription)

    def took_in(self, subscription: Subscription) -> None:
        """Let a new subscription read, as far and as fast as it may."""
        if self.visible is not None:
            subscription.read_from(self.visible)
        if self._pacing is not None:
            subscription.throttle = self._pacing.throttle(self.rules, subscription.name)

    def let_go(self, subscription: AnySubscription) -> None:
        """Forget what was kept for a subscription that is gone."""
        if self._pacing is not None:
            self._pacing.forget(subscription.name)

    def note_idle(self) -> None:
        """Remember that somebody has left just now."""
        self.idle_since_s = self._around.clock.monotonic()

    @property
    def stored(self) -> bool:
        """Whether anything of it is stored: it has a log."""
        return self._log is not None

    @property
    def is_terminated(self) -> bool:
        """Whether the topic was closed for good."""
        return self.terminated_at is not None

    # --- what is shown --------------------------------------------------------------------

    @property
    def slowest(self) -> EntryId | None:
        """The mark-delete position of the slowest durable subscription; None: there is none."""
        return min(
            (
                each.cursor.mark_delete
                for each in self.subscriptions.values()
                if isinstance(each, Subscription) and each.durable
            ),
            default=None,
        )

    @property
    def held_back_at(self) -> EntryId | None:
        """The last entry that nobody has need of any more; None: nobody has need of any.

        What compaction has not looked at must stay, as if it were a slow subscription.
        """
        needs = None if self.compacted is None else self.compacted.needs
        found = [each for each in (self.slowest, needs) if each is not None]
        return min(found, default=None)

    def stats(self) -> dict[str, Any]:
        """Return the figures of this moment, under Pulsar's names."""
        subscriptions = {name: each.stats() for name, each in self.subscriptions.items()}
        shown = topic_stats(self, self._log, subscriptions, self._around.clock)
        shown["ownerBroker"] = self._around.address_of(self.name)
        shown["quarantinedRanges"] = len(self._gaps())
        return shown

    def entry_rates(self) -> tuple[float, ...]:
        """Return entries stored, entries delivered and moves of mark-delete, all per second."""
        figures = [
            each.figures for each in self.subscriptions.values() if isinstance(each, Subscription)
        ]
        return entry_rates(self.inlet, figures, self._around.clock.monotonic())

    async def internal_stats(self) -> dict[str, Any]:
        """Return the ledgers and cursors, under Pulsar's names; in memory there are no ledgers."""
        if self._log is None:
            return internal_stats_in_memory(self.subscriptions)
        cursors = {
            name: each.internal_stats()
            for name, each in self.subscriptions.items()
            if isinstance(each, Subscription)
        }
        if self.compacted is not None and self.compacted.needs is not None:
            cursors[COMPACTION_CURSOR] = compaction_cursor_stats(self.log, self.compacted.needs)
        return internal_stats(self.log, cursors, self._gaps(), self.compacted)

    def _gaps(self) -> list[Gap]:
        """Return the ranges of entries that were stored and no longer read back."""
        gaps = self._around.quarantined()
        if not gaps or self._log is None:
            return []
        mine = {info.ledger for info in self._log.ledger_infos()}
        return [gap for gap in gaps if gap.first.ledger in mine]

    # --- what is in it ------------------------------------------------------------------

    async def entry(self, place: EntryId) -> StoredEntry | None:
        """Return one entry, acknowledged or not; None: there is none at this place.

        Raises:
            PersistenceError: it is damaged, or could not be read.
        """
        log = self.log
        if place < log.first or place >= log.end or log.next_position(place) != place:
            return None
        return await read_one(log, place)

    async def nth_entry(self, number: int, *, from_end: bool) -> StoredEntry | None:
        """Return the `number`-th entry from one end of the topic; 1 is the one at that end."""
        log = self.log
        entries = log.distance(log.first, log.end)
        if not 1 <= number <= entries:
            return None
        return await self.entry(self._at(entries - number if from_end else number - 1))

    def bytes_after(self, entry: EntryId) -> int:
        """Estimate how many bytes lie after an entry."""
        return backlog_bytes(spans_of(self.log), entry)

    def _at(self, rank: int) -> EntryId:
        """Return the entry before which there are `rank` others."""
        for span in spans_of(self.log):
            if rank < span.entries:
                return EntryId(span.ledger, rank)
            rank -= span.entries
        return self.log.end

    # --- closing ------------------------------------------------------------------------

    def apply(self, rules: Rules) -> None:
        """Let other rules hold from now on."""
        self.rules = rules
        if rules.encryption_required:
            self._end_unencrypted()
        limits = limits_of(rules)
        for subscription in self.readers:
            subscription.limits = limits
        self.pace()
        for subscription in self.readers:
            subscription.wake()

    def _end_unencrypted(self) -> None:
        """Close the producers that do not encrypt, as Pulsar does; they may not come back."""
        for producer in list(self.producers):
            if not producer.request.encrypted:
                producer.end(MetadataError(f"topic {self.name} takes encrypted messages only"))

    def _watch_quotas(self) -> None:
        """Watch the backlog quotas that the rules name."""
        wanted = bool(self.rules.quotas) and self._log is not None and self._closed is None
        if wanted and self.guard is None:
            self.guard = QuotaGuard(self, self._around.clock, self._around.loop)
        elif not wanted and self.guard is not None:
            self.guard.stop()
            self.guard = None
            if isinstance(self.inlet.refusal, QuotaExceededError):
                self.inlet.refusal = None
        elif self.guard is not None:
            self.guard.changed()

    def pace(self) -> None:
        """Let hold what the rules, and what topics have in common, say about rates and sizes."""
        self._watch_quotas()
        rules, shared = self.rules, self._around.shared
        if asks_nothing(rules, shared):
            if self._pacing is None:
                return
            self._pacing = None
            self._set_gate(None)
            for subscription in self.readers:
                subscription.throttle = None
            return
        pacing = self._pacing
        if pacing is None:
            pacing = self._pacing = Pacing(shared, self.inlet)
        self._set_gate(pacing.gate(rules))
        pacing.dispatch(rules)
        for subscription in self.readers:
            subscription.throttle = pacing.throttle(rules, subscription.name)

    async def terminate(self) -> EntryId:
        """Close the topic for good: nothing more is stored; return its last entry.

        Durable when it returns. Doing it twice is harmless.
        """
        self.demand_open()
        log = self.log
        if self.terminated_at is not None:
            return self.terminated_at
        before, self.inlet.refusal = self.inlet.refusal, self._terminated()
        try:
            await self._settle()
            last = log.last

            def change(record: TopicRecord) -> None:
                record.terminated_at = last

            await self._around.partitions.update_topic(self.name, change)
        except BaseException:
            self.inlet.refusal = before
            raise
        self.terminated_at = last
        for subscription in self.readers:
            subscription.terminate()
        return last

    async def close(self, reason: PortError) -> None:
        """Stop serving: what was published is reported, clients are told to come back.

        The log and the cursors are as they are; whoever closes a topic sees to them.
        """
        if not self._refuse_more(reason):
            return
        producers = list(self.producers)
        self.producers.end_all(reason)
        await self._settle(producers)
        for subscription in list(self.subscriptions.values()):
            subscription.end_consumers(reason)

    async def still(self, reason: PortError) -> None:
        """Close, but tell clients nothing yet: what was published is reported, no more is taken.

        `send_away` tells them, once there is somewhere to go.
        """
        if not self._refuse_more(reason):
            return
        producers = list(self.producers)
        for producer in producers:
            if isinstance(producer.events, MovingEvents):
                producer.events.moving()
        for subscription in self.subscriptions.values():
            subscription.be_still()
        await self._settle(producers)

    def send_away(self, reason: PortError) -> None:
        """Tell the clients of a topic that is still why they have to go, and perhaps where."""
        self.producers.end_all(reason)
        for subscription in list(self.subscriptions.values()):
            subscription.end_consumers(reason)

    def _refuse_more(self, reason: PortError) -> bool:
        """Take nothing any more; False: it was so already."""
        if self._closed is not None:
            return False
        self._closed = reason
        if self.guard is not None:
            self.guard.stop()
        self.inlet.refusal = self.inlet.refusal or reason
        return True

    async def delete_durable(self) -> None:
        """Remove a closed topic from metadata, with its ledgers and cursors."""
        if self._log is not None:
            await self._around.partitions.delete_topic(self.name)

    def demand_unused(self) -> None:
        """Check that nobody is connected.

        Raises:
            TopicBusyError: somebody is.
        """
        producers, consumers = len(self.producers), self.consumer_count
        if producers or consumers:
            raise TopicBusyError(
                f"topic {self.name} has {producers} producers and {consumers} consumers"
            )

    async def _settle(self, producers: list[OpenProducer] | None = None) -> None:
        """Wait until everything published so far is durable or refused."""
        waiting: list[asyncio.Future[None]] = [
            each.idle() for each in producers or list(self.producers) if each.pending
        ]
        if self.inlet.opening is not None:
            # What is held may belong to producers that have left; no ledger may be opened later.
            waiting.append(self.inlet.opening)
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=SETTLE_TIMEOUT_S)
            if late:
                logger.warning("topic %s: %d producers still have entries", self.name, len(late))

    def demand_open(self) -> None:
        """Check that this object is still the topic.

        Raises:
            ServiceNotReadyError: it was closed.
        """
        if self._closed is not None:
            raise ServiceNotReadyError(f"topic {self.name} was closed: {self._closed}")

    def _demand_room(self, subscription: AnySubscription | None) -> None:
        """Check that one more consumer may come."""
        rules = self.rules
        if 0 < rules.consumers_max <= self.consumer_count:
            raise ConsumerBusyError(
                f"topic {self.name} has {rules.consumers_max} consumers already"
            )
        limit = rules.consumers_per_subscription_max
        if subscription is not None and 0 < limit <= len(subscription.consumers):
            raise ConsumerBusyError(
                f"subscription {subscription.name!r} has {limit} consumers already"
            )

    def _demand_patience(self, request: SubscribeRequest) -> None:
        """Check that a consumer does not subscribe again and again."""
        limit = self.rules.subscribe_rate
        if not limit.any or self._pacing is None:
            return
        who = request.client_address.rpartition(":")[0], request.consumer_name
        if not self._pacing.turnstile.passes(who, limit, self._around.clock.monotonic()):
            raise NotAllowedError(
                f"consumer {request.consumer_name!r} has subscribed to topic {self.name}"
                f" {limit.messages:g} times in {limit.period_s:g} s, which is the limit; wait"
            )

    def _terminated(self) -> TopicTerminatedError:
        return TopicTerminatedError(f"topic {self.name} was terminated: it takes nothing more")


def _is_paced(gate: Gate | None) -> bool:
    return gate is not None and gate.meters is not None
