"""The subscriptions of one topic by name: made once however many ask, and gone for good.

add ──▶ being made ──on disk──▶ there ──remove──▶ being deleted ──off the disk──▶ gone
└─ everybody who asks meanwhile waits for the same one      └─ nobody gets in
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from magnetar.broker.entry import EntryId
from magnetar.broker.port import NotAllowedError, ServiceNotReadyError
from magnetar.broker.topics.memory_topic import MemorySubscription
from magnetar.broker.topics.subscriptions.checkpoints import Owner
from magnetar.broker.topics.subscriptions.subscription import Subscription
from magnetar.broker.topics.surroundings import Surroundings

AnySubscription = Subscription | MemorySubscription


class Wanted(NamedTuple):
    """What a new subscription is to be."""

    name: str
    start: EntryId
    properties: Mapping[str, str] = {}
    durable: bool = True
    ack_set: Sequence[int] = ()
    compacted: bool = False


class Subscribed(Owner, Protocol):
    """The topic, as it is seen here."""

    @property
    def stored(self) -> bool: ...
    @property
    def closed(self) -> bool: ...
    def demand_open(self) -> None: ...
    def took_in(self, subscription: Subscription) -> None: ...
    def let_go(self, subscription: AnySubscription) -> None: ...
    def note_idle(self) -> None: ...


class Subscriptions(dict[str, AnySubscription]):
    """Those that are there, by name."""

    __slots__ = ("_around", "_creating", "_deleting", "_topic", "_unused_since_s")

    def __init__(self, topic: Subscribed, around: Surroundings) -> None:
        super().__init__()
        self._topic = topic
        self._around = around
        self._creating: dict[str, asyncio.Task[AnySubscription]] | None = None
        self._deleting: set[str] | None = None
        self._unused_since_s: dict[str, float] | None = None

    async def add(self, wanted: Wanted) -> AnySubscription:
        """Make a subscription once, however many ask for it at the same time."""
        if self._creating is None:
            self._creating = {}
        task = self._creating.get(wanted.name)
        if task is None:
            limit = self._topic.rules.subscriptions_max
            if 0 < limit <= len(self) + len(self._creating):
                raise NotAllowedError(f"topic {self._topic.name} has {limit} subscriptions already")
            task = self._around.loop.create_task(self._add_once(wanted))
            self._creating[wanted.name] = task
        return await asyncio.shield(task)

    async def _add_once(self, wanted: Wanted) -> AnySubscription:
        try:
            subscription = self[wanted.name] = await self._made(wanted)
            return subscription
        finally:
            if self._creating is not None:
                self._creating.pop(wanted.name, None)
                self._creating = self._creating or None

    async def _made(self, wanted: Wanted) -> AnySubscription:
        name, start, properties, durable, ack_set, compacted = wanted
        topic, checkpoints = self._topic, self._around.checkpoints
        if not topic.stored:
            clock = self._around.clock
            memory = MemorySubscription(topic.name, name, clock, self.forget, durable=durable)
            memory.properties = dict(properties)
            topic.demand_open()
            return memory
        if durable:
            subscription = await checkpoints.create(
                topic, name, start, properties, compacted=compacted
            )
        else:
            subscription = await checkpoints.temporary(
                topic, name, start, ack_set, compacted=compacted
            )
        if topic.closed:
            checkpoints.forget([subscription])
        topic.demand_open()
        topic.took_in(subscription)
        return subscription

    async def remove(self, subscription: AnySubscription) -> None:
        """Forget a subscription; first its durable record, so that it cannot come back."""
        if self._deleting is None:
            self._deleting = set()
        self._deleting.add(subscription.name)
        try:
            if isinstance(subscription, Subscription) and subscription.durable:
                await self._around.checkpoints.delete(subscription)
            self.forget(subscription)
            subscription.end_consumers(None)
        finally:
            self._deleting.discard(subscription.name)
            self._deleting = self._deleting or None

    def forget(self, subscription: AnySubscription) -> None:
        """Forget a subscription of which nothing is on disk (any more)."""
        if self.get(subscription.name) is subscription:
            del self[subscription.name]
            if self._unused_since_s is not None:
                self._unused_since_s.pop(subscription.name, None)
            self._topic.let_go(subscription)
        self._topic.note_idle()

    def demand_kept(self, subscription: AnySubscription) -> None:
        """Check that a subscription is not being deleted.

        Raises:
            ServiceNotReadyError: it is.
        """
        if self._deleting and subscription.name in self._deleting:
            raise ServiceNotReadyError(f"subscription {subscription.name!r} is being deleted")

    def unused_for(self, subscription: AnySubscription, now_s: float) -> float:
        """Return how long a subscription has been seen without consumers, in seconds."""
        since = self._unused_since_s
        if subscription.consumers:
            if since is not None:
                since.pop(subscription.name, None)
            return 0.0
        if since is None:
            since = self._unused_since_s = {}
        return now_s - since.setdefault(subscription.name, now_s)
