"""The catalog: every topic of this process by name; create, load, unload, list, delete.

    name ──▶ loaded? ──▶ Topic
               │ no
               ▼
             exists? ──no──▶ may it be made by asking for it? ──▶ record in the metadata
               │ yes                                                       │
               └──▶ load: record, policies, chain, cursors, sequences ◀────┘

A topic is loaded when somebody first asks for it, once however many ask, and a bounded
number at a time; so a start costs nothing per topic. Which process serves a topic is
decided elsewhere: `Ownership`. What is done again and again for all topics stands in
`duties`.

This is the port of the log of this process: a door need not know anything else.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from magnetar.broker.clock import Clock
from magnetar.broker.config import BrokerConfig
from magnetar.broker.entry import EntryId, TransactionId
from magnetar.broker.metadata import paths
from magnetar.broker.metadata.resource_groups import ResourceGroups
from magnetar.broker.metadata.store import Increment, Store, StoreError
from magnetar.broker.metadata.transactions import TransactionStore
from magnetar.broker.metrics import Metrics
from magnetar.broker.port import (
    Consumer,
    ConsumerEvents,
    ListMode,
    Location,
    PortError,
    Producer,
    ProducerEvents,
    ProducerRequest,
    PublishDone,
    Schema,
    ServiceNotReadyError,
    SubscribeRequest,
    TopicNews,
    TopicNotFoundError,
    VersionedSchema,
)
from magnetar.broker.run import Run
from magnetar.broker.schema.registry import Registry
from magnetar.broker.storage.errors import StorageError
from magnetar.broker.storage.ledgers import Ledgers, Recovered
from magnetar.broker.topics.amendments import Amendments, those_in
from magnetar.broker.topics.comings import Comings
from magnetar.broker.topics.compaction.compactor import Compactor
from magnetar.broker.topics.compaction.passes import Opener
from magnetar.broker.topics.cursors.rota import Rota
from magnetar.broker.topics.duties import Duties
from magnetar.broker.topics.existence import Existence, missing
from magnetar.broker.topics.handover import HandOver
from magnetar.broker.topics.limits.policies import Rules
from magnetar.broker.topics.loading import Loader
from magnetar.broker.topics.producers.pacing import Shared
from magnetar.broker.topics.producers.publishing import Publisher
from magnetar.broker.topics.schemas import add, admit_consumer, admit_producer, without_definition
from magnetar.broker.topics.subscription_names import AnySubscription
from magnetar.broker.topics.subscriptions.checkpoints import Checkpoints, Spills, no_spill
from magnetar.broker.topics.subscriptions.recovered import save_recovered
from magnetar.broker.topics.surroundings import ProducerNames, Surroundings
from magnetar.broker.topics.topic import Topic
from magnetar.broker.topics.trouble import Trouble
from magnetar.names import NamespaceName, TopicName

logger = logging.getLogger(__name__)

LOADS_MAX = 64
"""Topics that are loaded at the same time. The metadata has one thread; more would only wait."""

LOAD_ATTEMPTS_MAX = 3
"""Times that a topic is loaded because it was closed between being loaded and being used."""

SHRINK_INTERVAL_S = 60.0
"""How often all topics, loaded or not, are looked through for some that may shrink."""

SHRINK_LOADS_PER_ROUND = 200
"""Topics loaded for that in one round; a round comes every expiry_interval_s."""

PRODUCER_NAME_COUNTER = "counters/producer-names"


class Ownership(Protocol):
    """Which process serves which topic."""

    def mine(self, topic: TopicName) -> bool:
        """Return whether this process serves the topic."""
        ...

    def location(self, topic: TopicName, listener: str | None = None) -> Location:
        """Return where the topic is served."""
        ...


@dataclass(frozen=True, slots=True)
class _Ground:
    """What subscriptions stand on."""

    config: BrokerConfig
    clock: Clock
    loop: asyncio.AbstractEventLoop
    rota: Rota


class Catalog:
    """All topics that this process serves. Implements `port.Port`."""

    def __init__(  # noqa: PLR0913 - the parts of a process meet here
        self,
        *,
        ledgers: Ledgers,
        store: Store,
        ownership: Ownership,
        config: BrokerConfig,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        metrics: Metrics,
        spills: Spills = no_spill,
        open_body: Opener | None = None,
    ) -> None:
        """Take the parts; `start` must be awaited before anything else."""
        self._ledgers = ledgers
        self._store = store
        self._ownership = ownership
        self._config = config
        self._clock = clock
        self._loop = loop
        self._existence = Existence(store, config, clock)
        self._comings = Comings(store, self._existence.is_there, loop)
        self._topics: dict[TopicName, Topic] = {}
        self._loading: dict[TopicName, asyncio.Task[Topic]] = {}
        self._closing: dict[TopicName, asyncio.Task[None]] = {}
        self._fencing: set[asyncio.Task[None]] = set()
        self._stop_watch: Callable[[], None] | None = None
        self._loads = asyncio.Semaphore(LOADS_MAX)
        self._loader: Loader | None = None
        """None: the catalog has not started."""
        self._stopping = False
        self._to_shrink: deque[TopicName] = deque()
        self._look_again_s = 0.0
        self.schemas = Registry(store, clock, metrics)
        self.publisher = Publisher(
            ledgers, clock, loop, metrics, held_bytes_max=config.unsynced_bytes_max
        )
        self.trouble = Trouble(ledgers, store, clock, loop)
        self.publisher.on_failure = self.trouble.found
        ground = _Ground(config, clock, loop, Rota(loop, clock, ledgers))
        self.checkpoints = Checkpoints(ledgers, store, ground, metrics, spills)
        self.resource_groups = ResourceGroups(store)
        self.shared = Shared(clock.monotonic, config.workers)
        self.compactor = Compactor(
            ledgers, store, config, clock, metrics, open_body, lambda: self.trouble.reason
        )
        self._amendments = Amendments(
            self._topics,
            self._existence,
            self.resource_groups,
            self.shared,
            self.checkpoints,
            store=store,
            config=config,
            loop=loop,
        )
        self._duties = Duties(self, ledgers, store, config, clock)
        self.hand_over = HandOver(
            self._topics, self._loading, self._closing, ledgers, lambda: self._loader
        )
        ledgers.on_commit = self.publisher.committed
        ledgers.before_recycle = self._before_recycle
        metrics.gauge("magnetar_topics_loaded", "Topics in memory.", lambda: len(self._topics))
        metrics.gauge(
            "magnetar_storage_read_only",
            "1 while nothing can be stored.",
            lambda: bool(self.trouble.reason),
        )
        metrics.gauge(
            "pulsar_broker_topic_load_pending_requests",
            "Topics being read.",
            lambda: len(self._loading),
        )
        self._load_times = metrics.latencies(
            "magnetar_topic_load_seconds", "How long it took to read a topic."
        )
        text = "How long it took to read a topic, ms."
        metrics.summary("pulsar_topic_load_times", text, self._load_times)
        self._unloaded = metrics.counter(
            "magnetar_topics_unloaded_total", "Topics that left memory while the broker ran."
        )

    # --- start and stop -----------------------------------------------------------------

    async def recover(self, recovered: Recovered) -> None:
        """Make durable what the journal knew about cursors and producers, of any topics.

        To be called with what `Ledgers.recover` returned, before any process serves a topic:
        the topics may belong to another process by now.
        """
        await save_recovered(self._store, recovered)

    async def start(self) -> None:
        """Begin to serve."""
        await self._existence.live.remove_all(self._ownership.mine)
        [start] = await self._store.commit([Increment(PRODUCER_NAME_COUNTER)])
        assert start is not None
        around = Surroundings(
            config=self._config,
            clock=self._clock,
            loop=self._loop,
            partitions=self._existence.partitions,
            checkpoints=self.checkpoints,
            names=ProducerNames(self._config.cluster, start),
            quarantined=self._ledgers.stored.quarantined,
            address_of=self._address_of,
            shared=self.shared,
            transactions=TransactionStore(self._store),
        )
        loader = Loader(around, self._existence, self.compactor, self._ledgers, self._store)
        await loader.start()
        self._loader = loader
        self._stop_watch = self._store.watch(paths.OWNERS, self._owners_changed)
        await self._amendments.start()
        self._duties.start(self._loop)

    async def arrive(self) -> None:
        """Find out what has to be known of topics that come from another process."""
        if self._loader is not None:
            await self._ledgers.stored.look_again()
            await self._loader.start()

    async def stop(self) -> None:
        """Stop taking, say good-bye to every client, make everything durable.

        The ledgers are still open when this returns; flush and close them afterwards.
        """
        self._stopping = True
        if self._stop_watch is not None:
            self._stop_watch()
        await self._amendments.stop()
        await self._duties.stop()
        self._comings.stop()
        self.schemas.stop()
        for task in self._loading.values():
            task.cancel()
        await asyncio.gather(*self._loading.values(), return_exceptions=True)
        reason = ServiceNotReadyError("the broker is stopping")
        await asyncio.gather(*(topic.close(reason) for topic in self.loaded()))
        await asyncio.gather(*(self.compactor.stop(topic) for topic in self.loaded()))
        try:
            await self.save_everything()
        finally:
            self.checkpoints.stop()

    async def save_everything(self) -> None:
        """Make cursors and deduplication durable in the metadata, so that journal files may go.

        Raises:
            StoreError: the metadata could not be written; the next call tries again.
        """
        await self.checkpoints.save_cursors()
        left = {} if self._loader is None else self._loader.left
        await self.checkpoints.save_sequences(
            [*((topic.name, topic.inlet.sequences) for topic in self.loaded()), *left.items()]
        )

    async def _before_recycle(self) -> None:
        try:
            await self.save_everything()
        except StoreError as error:
            raise StorageError(f"cursors could not be saved: {error}") from error

    async def load_those_that_shrink(self) -> None:
        """Load some topics of which something may go although nobody asks for them.

        Without this, what was not touched since the start would never expire.
        """
        now_s = self._clock.monotonic()
        if not self._to_shrink and now_s >= self._look_again_s:
            self._look_again_s = now_s + SHRINK_INTERVAL_S
            self._to_shrink.extend(await self._existence.shrinking())
        for _ in range(min(len(self._to_shrink), SHRINK_LOADS_PER_ROUND)):
            name = self._to_shrink.popleft()
            if name not in self._topics and self._ownership.mine(name):
                try:
                    await self._get(name, create=False)
                except (PortError, StorageError) as error:
                    logger.warning("topic %s could not be loaded to expire: %s", name, error)

    def loaded(self) -> Iterator[Topic]:
        """Yield the topics in memory. The catalog may change between two of them."""
        return those_in(self._topics)

    # --- the port: look-ups -------------------------------------------------------------

    async def locate(self, topic: TopicName, listener: str | None = None) -> Location:
        """Return where a topic is served, as `port.Port.locate` says."""
        location = self._ownership.location(topic, listener)
        await self._existence.rules_of(topic.namespace_name)
        return location

    async def partitions(self, topic: TopicName, *, create: bool) -> int:
        """Return how many partitions a topic has, as `port.Port.partitions` says."""
        return await self._existence.count(topic, create=create)

    async def topics(
        self, namespace: NamespaceName, mode: ListMode, *, system: bool = False
    ) -> list[str]:
        """Return the topics of a namespace, as `port.Port.topics` says; `system`: those too."""
        return await self._existence.list(namespace, mode, system=system)

    def watch_topics(self, namespace: NamespaceName, news: TopicNews) -> Callable[[], None]:
        """Tell which topics of a namespace come and go, as `port.Port.watch_topics` says."""
        return self._comings.watch(namespace, news)

    # --- the port: clients --------------------------------------------------------------

    async def open_producer(self, request: ProducerRequest, events: ProducerEvents) -> Producer:
        """Open a producer, and the topic if need be.

        Raises:
            TopicNotFoundError: there is no such topic, and it may not be created.
            ServiceNotReadyError: the topic lives elsewhere; look it up again.
            PersistenceError: nothing can be stored at the moment.
            PortError: what `Topic.open_producer` raises.
        """
        if request.topic.persistent:
            await self.trouble.demand_none()
        for attempt in range(LOAD_ATTEMPTS_MAX):
            topic = await self._get(request.topic, create=True)
            if topic.closed and attempt < LOAD_ATTEMPTS_MAX - 1:
                continue
            break
        version = await admit_producer(topic, request.schema, self.schemas)
        request = replace(request, schema=without_definition(request.schema))
        producer = await topic.open_producer(request, events)
        producer.schema_version = version
        return producer

    async def subscribe(self, request: SubscribeRequest, events: ConsumerEvents) -> Consumer:
        """Open a consumer, and the topic and the subscription if need be.

        Raises:
            TopicNotFoundError: there is no such topic, and it may not be created.
            ServiceNotReadyError: the topic lives elsewhere; look it up again.
            PortError: what `Topic.subscribe` raises.
        """
        for attempt in range(LOAD_ATTEMPTS_MAX):
            topic = await self._get(request.topic, create=request.create_topic)
            if topic.closed and attempt < LOAD_ATTEMPTS_MAX - 1:
                continue
            break
        await admit_consumer(topic, request.schema, self.schemas)
        request = replace(request, schema=without_definition(request.schema))
        return await topic.subscribe(request, events)

    async def schema(self, topic: TopicName, version: int | None) -> VersionedSchema:
        """Return a topic's schema, as `port.Port.schema` says."""
        return await self.schemas.get(topic, version)

    async def create_schema(self, topic: TopicName, schema: Schema) -> int | None:
        """Add a schema, as `port.Port.create_schema` says."""
        await self._existence.count(topic, create=False)
        if not schema.declared:
            return None
        rules = await self.rules_for(topic)
        return await add(topic, schema, rules, self.schemas)

    def publish(self, run: Run, producers: Sequence[Producer | None], done: PublishDone) -> bool:
        """Store a run, as `port.Port.publish` says."""
        return self.publisher.publish(run, producers, done)

    def call_when_clear(self, callback: Callable[[], None]) -> None:
        """Call once, soon, when publishing may go on."""
        self.publisher.call_when_clear(callback)

    # --- the port: transactions -----------------------------------------------------------

    async def settle(self, topic: TopicName, transaction: TransactionId) -> None:
        """Do for the entries of a topic what is decided, as `port.Transactions.settle` says.

        A topic that is not loaded will look up what was decided when it is. One that is not ours
        may be loaded elsewhere.
        """
        if not self._ownership.mine(topic):
            raise ServiceNotReadyError(f"topic {topic} is served by another process: look it up")
        loading = self._loading.get(topic)
        if loading is not None:
            await asyncio.wait([loading])
        found = self._topics.get(topic)
        if found is not None:
            await found.settle(transaction)

    async def settle_subscription(
        self, topic: TopicName, subscription: str, transaction: TransactionId
    ) -> None:
        """Do for the acknowledgements of a subscription what is decided; durable then."""
        try:
            found = await self._get(topic, create=False)
        except TopicNotFoundError:
            return
        await found.settle_subscription(subscription, transaction)

    def _address_of(self, topic: TopicName) -> str:
        return self._ownership.location(topic).http_url.partition("://")[2]

    # --- administration -----------------------------------------------------------------

    async def topic(self, name: TopicName) -> Topic:
        """Return a topic that exists.

        Raises:
            TopicNotFoundError: it does not.
            ServiceNotReadyError: it lives elsewhere.
        """
        return await self._get(name, create=False)

    async def create(self, name: TopicName, properties: Mapping[str, str] | None = None) -> None:
        """Create an ordinary topic.

        Raises:
            AlreadyExistsError: there is a topic of that name, partitioned or not.
            NamespaceNotFoundError: the namespace is missing.
        """
        if name.persistent:
            await self._existence.create(name, properties)
        else:
            await self._get(name, create=True)

    async def create_partitioned(
        self, name: TopicName, partitions: int, properties: Mapping[str, str] | None = None
    ) -> None:
        """Create a partitioned topic.

        Raises:
            AlreadyExistsError: there is a topic of that name, partitioned or not.
            NamespaceNotFoundError: the namespace is missing.
        """
        await self._existence.create_partitioned(name, partitions, properties)

    async def delete(self, name: TopicName, *, force: bool = False) -> None:
        """Delete an ordinary topic or one partition, with everything in it.

        Raises:
            TopicNotFoundError: it does not exist.
            TopicBusyError: clients are connected, and `force` is off.
        """
        topic = await self._get(name, create=False)
        if not force:
            topic.demand_unused()
        await self._close(topic, TopicNotFoundError(f"topic {name} was deleted"), delete=True)
        if not name.persistent and name.partition < 0:  # others take their schemas with them
            await self.schemas.forget(name)

    async def keep_up(self) -> None:
        """Apply time to live, retention and quotas to every topic that is loaded, now."""
        await self._duties.keep_up()

    async def demand(self, name: TopicName) -> None:
        """See that a topic exists, without loading it.

        Raises:
            TopicNotFoundError: it does not.
            NamespaceNotFoundError: the namespace is missing.
        """
        await self._existence.rules_of(name.namespace_name)
        if not await self._existence.is_there(name):
            raise missing(name)

    async def unload(self, name: TopicName) -> None:
        """Close a topic, if it is loaded: its clients come back, and it is loaded anew."""
        topic = self._topics.get(name)
        if topic is not None:
            await self._close(topic, ServiceNotReadyError(f"topic {name} was unloaded"))

    async def create_subscription(
        self,
        topic: TopicName,
        name: str,
        start: EntryId,
        properties: Mapping[str, str] | None = None,
    ) -> AnySubscription:
        """Create a durable subscription that starts at an entry, at `EARLIEST` or at `LATEST`.

        Raises:
            TopicNotFoundError: the topic does not exist, and may not be created.
            AlreadyExistsError: there is a subscription of that name.
        """
        return await (await self._get(topic, create=True)).create_subscription(
            name, start, properties
        )

    async def delete_subscription(
        self, topic: TopicName, name: str, *, force: bool = False
    ) -> None:
        """Delete a subscription.

        Raises:
            TopicNotFoundError: the topic does not exist.
            SubscriptionNotFoundError: the subscription does not exist.
            ConsumerBusyError: it has consumers, and `force` is off.
        """
        await (await self._get(topic, create=False)).delete_subscription(name, force=force)

    # --- loading ------------------------------------------------------------------------

    async def _get(self, name: TopicName, *, create: bool) -> Topic:
        """Return the topic of a name, loaded, made if need be and allowed."""
        topic = self._topics.get(name)
        if topic is not None and not topic.closed:
            return topic
        if self._stopping or self._loader is None:
            raise ServiceNotReadyError("the broker is starting or stopping")
        if not self._ownership.mine(name):
            raise ServiceNotReadyError(f"topic {name} is served by another process: look it up")
        task = self._loading.get(name)
        if task is None:
            # Whether it may be made depends on who asks, so that is found out before.
            await self._existence.demand(name, create=create)
            task = self._loading.get(name)
        if task is None:
            if not self._ownership.mine(name):  # it was handed over meanwhile
                raise ServiceNotReadyError(f"topic {name} is served by another process now")
            task = self._loading[name] = self._loop.create_task(self._load_once(name))
            task.add_done_callback(_look_at)
        return await asyncio.shield(task)

    async def _load_once(self, name: TopicName) -> Topic:
        assert self._loader is not None
        try:
            async with self._loads:
                closing = self._closing.get(name)
                if closing is not None:
                    await asyncio.wait([closing])
                changes = self._amendments.seen
                begun_s = self._clock.monotonic()
                topic = await self._loader.load(name)
            self._load_times.record(self._clock.monotonic() - begun_s)
            self._topics[name] = topic
            if changes != self._amendments.seen:
                # What was read may be the old state, and nobody was there to be told of the new.
                self._amendments.look_again(topic)
            return topic
        finally:
            self._loading.pop(name, None)

    # --- closing ------------------------------------------------------------------------

    def _owners_changed(self, keys: Sequence[str]) -> None:
        """See whether one of the topics here was taken by another process."""
        for key in keys:
            topic = self._topics.get(paths.topic_name(paths.OWNERS, key))
            if topic is not None and not topic.closed:
                task = self._loop.create_task(self._fence(topic))
                self._fencing.add(task)
                task.add_done_callback(self._fencing.discard)

    async def _fence(self, topic: Topic) -> None:
        """Close a topic that is not ours any more: nothing of it is acknowledged, or saved.

        That is not how topics move: who has one gives it away. Should it be taken all the same,
        there must not be two who say that they have stored something.
        """
        assert self._loader is not None
        try:
            if not await self._loader.lost(topic):
                return
        except StoreError:
            logger.warning("it is not known who has topic %s", topic.name, exc_info=True)
            return
        logger.error("topic %s was taken by another process", topic.name)
        reason = ServiceNotReadyError(f"topic {topic.name} is served by another process")
        await self._close(topic, reason, save=False)

    async def _close(
        self, topic: Topic, reason: PortError, *, delete: bool = False, save: bool = True
    ) -> None:
        """Close a topic once, however many want to; return when it can be loaded anew."""
        name = topic.name
        task = self._closing.get(name)
        if task is None:
            task = self._loop.create_task(self._close_once(topic, reason, delete=delete, save=save))
            self._closing[name] = task
        await asyncio.shield(task)

    async def _close_once(
        self, topic: Topic, reason: PortError, *, delete: bool, save: bool
    ) -> None:
        name = topic.name
        try:
            assert self._loader is not None
            await self._loader.unload(topic, reason, delete=delete, save=save)
        finally:
            # Whatever went wrong, this object is closed: the next one who asks loads it anew.
            if self._topics.get(name) is topic:
                del self._topics[name]
                self._unloaded.value += not delete
            self._closing.pop(name, None)

    # --- policies -----------------------------------------------------------------------

    def meet(self, workers: int) -> None:
        """Share with so many processes from now on what all of them may do together."""
        self._amendments.meet(workers)

    def settings_changed(self) -> None:
        """Let hold what the config says now, where it is not read each time."""
        self._amendments.settings_changed()

    async def rules_for(self, topic: TopicName) -> Rules:
        """Return what holds for a topic, which need not be there.

        Raises:
            NamespaceNotFoundError: the tenant or the namespace is missing.
        """
        own = await self._existence.said_by(topic, None)
        return await self._existence.rules_for(topic, own)

    async def rules_of(self, namespace: NamespaceName) -> Rules:
        """Return what holds in a namespace.

        Raises:
            NamespaceNotFoundError: the tenant or the namespace is missing.
        """
        return await self._existence.rules_of(namespace)


def _look_at(task: asyncio.Task[Topic]) -> None:
    """Take the error of a task, though everybody who waited for it may have gone."""
    if not task.cancelled():
        task.exception()
