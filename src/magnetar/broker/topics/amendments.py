"""Amendments: what changes in policies, records and settings comes to hold for topics in memory.

    a namespace's policies ──┐
    a topic's own, record  ──┼─ watches ──▶ Rules, of each topic concerned ──▶ Topic.apply
    settings               ──┘
    resource groups        ──────────────▶ Shared: rates that topics have in common

Nobody waits for this. Whoever loads a topic while something changes looks again: see `seen`.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence

from magnetar.broker.config import BrokerConfig
from magnetar.broker.metadata.resource_groups import ResourceGroup, ResourceGroups
from magnetar.broker.metadata.sequences import load_sequences
from magnetar.broker.metadata.store import Store
from magnetar.broker.port import NamespaceNotFoundError
from magnetar.broker.topics.existence import Existence
from magnetar.broker.topics.limits.policies import Rules
from magnetar.broker.topics.limits.rates import Limit
from magnetar.broker.topics.producers.deduplication import Sequences
from magnetar.broker.topics.producers.pacing import Shared
from magnetar.broker.topics.subscriptions.checkpoints import Checkpoints
from magnetar.broker.topics.topic import Topic
from magnetar.names import NamespaceName, TopicName

logger = logging.getLogger(__name__)


class Amendments:
    """Keeps what holds for the topics of a process up to date."""

    def __init__(  # noqa: PLR0913 - what it brings together
        self,
        topics: Mapping[TopicName, Topic],
        existence: Existence,
        groups: ResourceGroups,
        shared: Shared,
        checkpoints: Checkpoints,
        *,
        store: Store,
        config: BrokerConfig,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """`topics` are those in memory, now and later."""
        self._topics = topics
        self._existence = existence
        self._groups = groups
        self._shared = shared
        self._checkpoints = checkpoints
        self._store = store
        self._config = config
        self._loop = loop
        self._tasks: set[asyncio.Task[None]] = set()
        self._watches: list[Callable[[], None]] = []
        self._stopping = False
        self.seen = 0
        """How often a policy, or the record of a topic, has changed."""
        self._limit_broker()

    async def start(self) -> None:
        """Begin to watch."""
        self._watches += [
            self._existence.namespaces.watch(self._namespaces_changed),
            self._existence.partitions.watch(self._topics_changed),
            self._existence.partitions.policies.watch(self._topic_policies_changed),
            self._groups.watch(self._groups_changed),
        ]
        await self._apply_groups()

    async def stop(self) -> None:
        """Watch no more."""
        self._stopping = True
        for stop in self._watches:
            stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def look_again(self, topic: Topic) -> None:
        """Let hold what the metadata say about a topic: they may have changed as it was loaded."""
        self._soon(self._apply_record(topic))

    # --- resource groups ----------------------------------------------------------------

    def _groups_changed(self, names: Sequence[str]) -> None:
        self._soon(self._apply_groups(names))

    async def _apply_groups(self, names: Sequence[str] = ()) -> None:
        """Let hold what the metadata say about resource groups; of those named, also nothing."""
        found = await self._groups.all()
        for name in {*found, *names}:
            group = found.get(name) or ResourceGroup()
            self._shared.limit_group(
                name,
                Limit(max(group.publish_messages or 0, 0), max(group.publish_bytes or 0, 0)),
                Limit(max(group.dispatch_messages or 0, 0), max(group.dispatch_bytes or 0, 0)),
            )

    # --- settings -----------------------------------------------------------------------

    def meet(self, workers: int) -> None:
        """Share all rates with so many processes from now on."""
        self._shared.meet(workers)
        self._soon(self._apply_groups())
        self.settings_changed()

    def settings_changed(self) -> None:
        """Let hold what the config says now, where it is not read each time."""
        self._limit_broker()
        self._existence.forget_all_rules()
        for namespace in {topic.name.namespace_name for topic in those_in(self._topics)}:
            self._soon(self._apply_rules(namespace))

    def _limit_broker(self) -> None:
        config = self._config
        self._shared.limit_broker(
            Limit(config.publish_rate_messages_max, config.publish_rate_bytes_max),
            Limit(config.dispatch_rate_messages_max, config.dispatch_rate_bytes_max),
        )

    # --- policies -----------------------------------------------------------------------

    def _namespaces_changed(self, names: Sequence[NamespaceName]) -> None:
        """Apply new policies to the topics that are loaded."""
        self.seen += 1
        for name in names:
            self._existence.forget_rules(name)
            if any(topic.name.namespace_name == name for topic in those_in(self._topics)):
                self._soon(self._apply_rules(name))

    async def _apply_rules(self, namespace: NamespaceName) -> None:
        try:
            for topic in those_in(self._topics):
                if topic.name.namespace_name == namespace:
                    rules = await self._existence.rules_for(topic.name, topic.own)
                    await self._apply_to(topic, rules)
        except NamespaceNotFoundError:
            return  # its topics went before it

    def _topics_changed(self, names: Sequence[TopicName]) -> None:
        self.seen += 1
        for name in names:
            topic = self._topics.get(name)
            if topic is not None and not topic.closed:
                self._soon(self._apply_record(topic))

    def _topic_policies_changed(self, bases: Sequence[TopicName]) -> None:
        self.seen += 1
        for base in bases:
            self._soon(self._apply_policies(base))

    async def _apply_policies(self, base: TopicName) -> None:
        """Let hold what a topic says itself now, also for those of its partitions that are here."""
        record = await self._existence.partitions.partitioned(base)
        names = [base]
        if record is not None:
            names = [base.partition_name(index) for index in range(record.partitions)]
        for name in names:
            topic = self._topics.get(name)
            if topic is not None and not topic.closed:
                await self._apply_record(topic)

    async def _apply_record(self, topic: Topic) -> None:
        """Let hold what the metadata now say about one topic."""
        existence, name = self._existence, topic.name
        record = await existence.partitions.topic(name) if name.persistent else None
        if record is not None:
            topic.properties = record.properties
        elif name.persistent:
            return  # it was deleted
        topic.own = await existence.said_by(name, record)
        try:
            await self._apply_to(topic, await existence.rules_for(name, topic.own))
        except NamespaceNotFoundError:
            return

    async def _apply_to(self, topic: Topic, rules: Rules) -> None:
        """Let rules hold for a topic that is being used."""
        topic.apply(rules)
        inlet, wanted = topic.inlet, topic.rules.deduplication
        if not topic.name.persistent or wanted == (inlet.sequences is not None):
            return
        if wanted:
            sequences = Sequences(await load_sequences(self._store, topic.name))
            if topic.rules.deduplication and inlet.sequences is None:
                inlet.sequences = sequences
        else:
            await self._checkpoints.save_sequences([(topic.name, inlet.sequences)])
            if not topic.rules.deduplication:
                inlet.sequences = None

    def _soon(self, work: Coroutine[None, None, None]) -> None:
        """Do something in the background; what it raises is logged."""
        if self._stopping:
            work.close()
            return
        task = self._loop.create_task(self._logged(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _logged(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except Exception:  # it serves nobody in particular, so nobody else would say so
            logger.exception("a changed policy could not be applied")


def those_in(topics: Mapping[TopicName, Topic]) -> Iterator[Topic]:
    """Yield topics. Some may come and go between two of them."""
    for name in list(topics):
        topic = topics.get(name)
        if topic is not None:
            yield topic
