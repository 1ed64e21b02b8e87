"""Which topics there are: asked of the metadata, and made as their namespaces say.

    name                      there is it if
    persistent topic          it has a record
    partition                 it has a record; of a non-persistent topic: its index is in range
    partitioned topic         it has a record of its own kind; used through its partitions only
    non-persistent topic      some process has it in memory

A topic that is not there may be made by asking for it, where the namespace allows that.
System topics (`TopicName.system`) are always made when needed, count towards no limit, and are
listed only for who asks for them too.
"""

from collections.abc import Mapping

from magnetar.broker.clock import Clock
from magnetar.broker.config import BrokerConfig
from magnetar.broker.metadata.facts import AlreadyExistsError
from magnetar.broker.metadata.live import Live
from magnetar.broker.metadata.namespaces import Namespaces
from magnetar.broker.metadata.partitions import Partitions, TopicRecord
from magnetar.broker.metadata.policies import Policies
from magnetar.broker.metadata.store import Store
from magnetar.broker.port import ListMode, NotAllowedError, TopicNotFoundError
from magnetar.broker.topics.limits.policies import Rules, rules_of
from magnetar.names import NamespaceName, TopicName


class Existence:
    """What the metadata says about topics and namespaces."""

    def __init__(self, store: Store, config: BrokerConfig, clock: Clock) -> None:
        self.namespaces = Namespaces(store)
        self.partitions = Partitions(store)
        self.live = Live(store)
        self._config = config
        self._clock = clock
        self._rules: dict[NamespaceName, tuple[Policies, Rules]] = {}
        self._forgotten = 0

    # --- namespaces ---------------------------------------------------------------------

    async def rules_of(self, namespace: NamespaceName) -> Rules:
        """Return what holds in a namespace.

        Raises:
            NamespaceNotFoundError: the tenant or the namespace is missing.
        """
        return (await self._known(namespace))[1]

    async def rules_for(self, topic: TopicName, own: Policies | None) -> Rules:
        """Return what holds for a topic that says this itself.

        Raises:
            NamespaceNotFoundError: the tenant or the namespace is missing.
        """
        policies, rules = await self._known(topic.namespace_name)
        return rules if own is None else rules_of(self._config, policies, own)

    async def said_by(self, topic: TopicName, record: TopicRecord | None) -> Policies | None:
        """Return what a topic says itself; None: nothing."""
        own = await self.partitions.policies.get(topic)
        if record is not None and own.deduplication is None:
            own.deduplication = record.deduplication  # as older versions wrote it
        return None if own == Policies() else own

    async def _known(self, namespace: NamespaceName) -> tuple[Policies, Rules]:
        known = self._rules.get(namespace)
        if known is None:
            before = self._forgotten
            policies = await self.namespaces.get(namespace)
            known = policies, rules_of(self._config, policies)
            if before == self._forgotten:
                # Otherwise policies changed while these were read: they may be the old ones.
                self._rules[namespace] = known
        return known

    def forget_rules(self, namespace: NamespaceName) -> None:
        """Read a namespace's policies anew next time: they have changed."""
        self._forgotten += 1
        self._rules.pop(namespace, None)

    def forget_all_rules(self) -> None:
        """Make all rules anew next time: the broker's settings have changed."""
        self._forgotten += 1
        self._rules.clear()

    async def shrinking(self) -> list[TopicName]:
        """Return the topics of which something may go although nobody touches them."""
        found: list[TopicName] = []
        for namespace in await self.namespaces.list():
            if (await self.rules_of(namespace)).shrinks:
                found += await self.partitions.list_topics(namespace)
                continue
            said = await self.partitions.policies.list(namespace)
            some = {base for base, own in said if (await self.rules_for(base, own)).shrinks}
            if some:
                topics = await self.partitions.list_topics(namespace)
                found += [topic for topic in topics if topic.base in some]
        return found

    # --- topics -------------------------------------------------------------------------

    async def count(self, topic: TopicName, *, create: bool) -> int:
        """Return how many partitions a topic has, as `port.Port.partitions` says."""
        rules = await self.rules_of(topic.namespace_name)
        record = await self.partitions.partitioned(topic)
        if record is not None:
            return record.partitions
        if await self.is_there(topic) or await self._in_range(topic):
            return 0
        if not create or not _may_create(topic, rules):
            raise missing(topic, creation_off=create)
        if not rules.auto_topic_partitions or topic.partition >= 0:
            return 0  # made when the first client opens it
        try:
            await self.create_partitioned(topic, rules.auto_topic_partitions)
        except AlreadyExistsError:
            return await self.count(topic, create=False)  # two asked at the same time
        return rules.auto_topic_partitions

    async def list(
        self, namespace: NamespaceName, mode: ListMode, *, system: bool = False
    ) -> list[str]:
        """Return the topics of a namespace, as `port.Port.topics` says; `system`: those too.

        Non-persistent ones are listed while they are loaded, in whatever process serves them.
        """
        await self.rules_of(namespace)
        names: list[TopicName] = []
        if mode is not ListMode.NON_PERSISTENT:
            names += await self.partitions.list_topics(namespace)
        if mode is not ListMode.PERSISTENT:
            names += await self.live.list(namespace)
        return sorted(str(name) for name in names if system or not name.system)

    async def demand(self, name: TopicName, *, create: bool) -> None:
        """Make sure that there is a topic of this name that can be loaded.

        Raises:
            TopicNotFoundError: there is none, and it may not be made.
            NotAllowedError: it is partitioned, or the namespace is full.
        """
        rules = await self.rules_of(name.namespace_name)
        if await self.partitions.partitioned(name) is not None:
            raise NotAllowedError(f"topic {name} is partitioned: use one of its partitions")
        if await self.is_there(name):
            return
        # A partition that is in range belongs to a topic that was created; only its record is
        # missing, because it was deleted alone, or is of a non-persistent topic.
        in_range = await self._in_range(name)
        if not in_range and not (create and _may_create(name, rules)):
            raise missing(name, creation_off=create)
        if not name.persistent:
            return
        if not in_range and not name.system:
            await self._check_room(name.namespace_name, rules, 1)
        try:
            await self.partitions.create_topic(name, TopicRecord(created_ms=self._clock.wall_ms()))
        except AlreadyExistsError:
            return  # two asked at the same time

    async def create(self, name: TopicName, properties: Mapping[str, str] | None = None) -> None:
        """Create an ordinary persistent topic.

        Raises:
            AlreadyExistsError: there is a topic of that name, partitioned or not.
            NamespaceNotFoundError: the namespace is missing.
        """
        rules = await self.rules_of(name.namespace_name)
        await self._check_room(name.namespace_name, rules, 1)
        record = TopicRecord(created_ms=self._clock.wall_ms(), properties=dict(properties or {}))
        await self.partitions.create_topic(name, record)

    async def create_partitioned(
        self, name: TopicName, partitions: int, properties: Mapping[str, str] | None = None
    ) -> None:
        """Create a partitioned topic.

        Raises:
            AlreadyExistsError: there is a topic of that name, partitioned or not.
            NamespaceNotFoundError: the namespace is missing.
        """
        rules = await self.rules_of(name.namespace_name)
        await self._check_room(name.namespace_name, rules, partitions)
        await self.partitions.create_partitioned(
            name, partitions, self._clock.wall_ms(), properties
        )

    async def is_there(self, name: TopicName) -> bool:
        """Return whether a topic or partition can be asked for without making it."""
        if not name.persistent:
            return await self.live.has(name)
        return await self.partitions.topic(name) is not None

    async def _in_range(self, name: TopicName) -> bool:
        """Return whether a name is that of a partition of a partitioned topic.

        Raises:
            TopicNotFoundError: it would be, if there were as many.
        """
        if name.partition < 0:
            return False
        base = await self.partitions.partitioned(name.base)
        if base is None:
            return False
        if name.partition >= base.partitions:
            raise TopicNotFoundError(
                f"topic {name} does not exist: {name.base} has {base.partitions} partitions"
            )
        return True

    async def _check_room(self, namespace: NamespaceName, rules: Rules, wanted: int) -> None:
        if not rules.topics_max:
            return
        topics = await self.partitions.list_topics(namespace)
        there = sum(not topic.system for topic in topics)
        if there + wanted > rules.topics_max:
            raise NotAllowedError(
                f"namespace {namespace} has {there} topics, the limit is {rules.topics_max}"
            )


def missing(name: TopicName, *, creation_off: bool = False) -> TopicNotFoundError:
    """Return the error for a topic that is not there; `creation_off`: the asking was to make it."""
    if creation_off:
        return TopicNotFoundError(
            f"topic {name} does not exist, and creating topics by asking for them is switched off"
        )
    return TopicNotFoundError(f"topic {name} does not exist")


def _may_create(name: TopicName, rules: Rules) -> bool:
    return rules.auto_topic_creation or name.system
