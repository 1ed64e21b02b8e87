"""Topics: which exist, how many partitions they have, and what holds for each.

A partitioned topic is one record, and one topic record per partition. An ordinary topic is
one topic record. A name is either partitioned or ordinary, never both.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import msgspec

from magnetar.broker.entry import EntryId
from magnetar.broker.metadata import facts, paths
from magnetar.broker.metadata.chains import drop_changes
from magnetar.broker.metadata.documents import encode
from magnetar.broker.metadata.facts import AlreadyExistsError, NotFoundError
from magnetar.broker.metadata.schemas import forget_changes
from magnetar.broker.metadata.store import (
    PRESENT,
    Change,
    Check,
    ConflictError,
    Delete,
    DeleteAll,
    Put,
    Store,
    number_of,
)
from magnetar.broker.metadata.topic_policies import TopicPolicies
from magnetar.broker.port import NamespaceNotFoundError, TopicNotFoundError
from magnetar.names import Domain, NamespaceName, TopicName

S = TypeVar("S", bound=msgspec.Struct)

PARTITIONS_MAX = 10_000
"""Partitions of one topic. Each is a topic of its own; all are made in one commit."""


class PartitionedRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A partitioned topic."""

    partitions: int
    created_ms: int = 0
    properties: dict[str, str] = {}


class TopicRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One topic, or one partition."""

    created_ms: int = 0
    properties: dict[str, str] = {}
    topic_epoch: int | None = None
    """Raised by each exclusive producer; None before the first."""
    terminated_at: EntryId | None = None
    """The last entry of a topic that was closed for good."""
    deduplication: bool | None = None
    """None: as its namespace says, or the topic in `policies`, where newer versions write it."""


class Partitions:
    """All topics."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.policies = TopicPolicies(store)

    # --- partitioned topics

    async def partitioned(self, topic: TopicName) -> PartitionedRecord | None:
        """Return what is known of a partitioned topic; None: it is not one."""
        return await facts.read(self._store, paths.partitioned(topic), PartitionedRecord)

    async def create_partitioned(
        self,
        topic: TopicName,
        partitions: int,
        created_ms: int,
        properties: Mapping[str, str] | None = None,
    ) -> None:
        """Add a partitioned topic and, if it is persistent, all its partitions.

        Raises:
            AlreadyExistsError: there is a topic of that name, partitioned or not.
            NamespaceNotFoundError: the namespace is missing.
            ValueError: the number of partitions is out of bounds.
        """
        _check_partitions(partitions)
        record = PartitionedRecord(
            partitions=partitions, created_ms=created_ms, properties=dict(properties or {})
        )
        await self._create(
            topic,
            paths.partitioned(topic),
            record,
            [
                Check(paths.topic(topic), None),
                *_partition_changes(topic, range(partitions), created_ms),
            ],
        )

    async def grow(self, topic: TopicName, partitions: int, created_ms: int) -> None:
        """Give a partitioned topic more partitions.

        Raises:
            TopicNotFoundError: it is not a partitioned topic.
            ValueError: it has as many already, or the number is out of bounds.
        """
        _check_partitions(partitions)

        def change(record: PartitionedRecord) -> Sequence[Change]:
            if partitions <= record.partitions:
                raise ValueError(
                    f"topic {topic} has {record.partitions} partitions; the number can only grow"
                )
            fresh = range(record.partitions, partitions)
            record.partitions = partitions
            return _partition_changes(topic, fresh, created_ms)

        await self._revise(topic, paths.partitioned(topic), PartitionedRecord, change)

    async def update_partitioned(
        self, topic: TopicName, change: Callable[[PartitionedRecord], None]
    ) -> PartitionedRecord:
        """Let `change` edit the record in place; return it as stored.

        Raises:
            TopicNotFoundError: it is not a partitioned topic.
        """
        return await self._revise(topic, paths.partitioned(topic), PartitionedRecord, change)

    async def delete_partitioned(self, topic: TopicName) -> None:
        """Forget that a topic is partitioned. Its partitions are deleted one by one, before.

        Raises:
            TopicNotFoundError: it is not a partitioned topic.
        """
        key = paths.partitioned(topic)
        try:
            await self._store.commit([Check(key, PRESENT), Delete(key), *_shared_changes(topic)])
        except ConflictError:
            raise TopicNotFoundError(f"partitioned topic {topic} does not exist") from None

    async def list_partitioned(
        self, namespace: NamespaceName, domain: Domain = Domain.PERSISTENT
    ) -> list[TopicName]:
        """Return the partitioned topics of a namespace, sorted by name."""
        return await self._list(paths.PARTITIONED, namespace, domain)

    # --- topics and partitions

    async def topic(self, topic: TopicName) -> TopicRecord | None:
        """Return what is known of a topic or partition; None: it does not exist."""
        return await facts.read(self._store, paths.topic(topic), TopicRecord)

    async def create_topic(self, topic: TopicName, record: TopicRecord) -> None:
        """Add an ordinary topic, or one partition of a partitioned one.

        Raises:
            AlreadyExistsError: there is a topic of that name, partitioned or not.
            NamespaceNotFoundError: the namespace is missing.
        """
        await self._create(
            topic, paths.topic(topic), record, [Check(paths.partitioned(topic), None)]
        )

    async def update_topic(
        self, topic: TopicName, change: Callable[[TopicRecord], None]
    ) -> TopicRecord:
        """Let `change` edit the record in place; return it as stored.

        Raises:
            TopicNotFoundError: it does not exist.
        """
        return await self._revise(topic, paths.topic(topic), TopicRecord, change)

    async def delete_topic(self, topic: TopicName) -> list[int]:
        """Remove a topic with its chain, cursors and sequences; return its ledgers.

        All in one commit. The ledgers are dropped (see `chains`): their space is freed later.

        Raises:
            TopicNotFoundError: it does not exist.
        """
        ledgers = [number_of(key) for key in await self._store.keys(paths.ledgers(topic))]
        compacted = [number_of(key) for key in await self._store.keys(paths.compacted(topic))]
        cursors = [number_of(key) for key in await self._store.keys(paths.cursors(topic))]
        try:
            await self._store.commit(
                [
                    Check(paths.topic(topic), PRESENT),
                    *drop_changes(paths.ledgers(topic), ledgers),
                    *drop_changes(paths.compacted(topic), compacted),
                    *(DeleteAll(paths.pages(cursor)) for cursor in cursors),
                    DeleteAll(paths.cursors(topic)),
                    DeleteAll(paths.sequences(topic)),
                    DeleteAll(paths.transaction_buffers(topic)),
                    *(DeleteAll(paths.all_transaction_acks(cursor)) for cursor in cursors),
                    Delete(paths.owner(topic)),
                    Delete(paths.topic(topic)),
                    *([] if topic.partition >= 0 else _shared_changes(topic)),
                ]
            )
        except ConflictError:
            raise TopicNotFoundError(f"topic {topic} does not exist") from None
        return [*ledgers, *compacted]

    async def list_topics(
        self, namespace: NamespaceName, domain: Domain = Domain.PERSISTENT
    ) -> list[TopicName]:
        """Return the topics and partitions of a namespace, sorted by name."""
        return await self._list(paths.TOPICS, namespace, domain)

    def watch(self, callback: Callable[[Sequence[TopicName]], None]) -> Callable[[], None]:
        """Tell which topics, partitioned or not, were made, changed or deleted."""
        stops = [self._watch(kind, callback) for kind in (paths.TOPICS, paths.PARTITIONED)]

        def stop() -> None:
            for each in stops:
                each()

        return stop

    def _watch(
        self, kind: str, callback: Callable[[Sequence[TopicName]], None]
    ) -> Callable[[], None]:
        return self._store.watch(
            kind, lambda keys: callback([paths.topic_name(kind, key) for key in keys])
        )

    async def _create(
        self, topic: TopicName, key: str, record: msgspec.Struct, more: Sequence[Change]
    ) -> None:
        namespace = paths.namespace(topic.namespace_name)
        try:
            await facts.create(
                self._store, f"topic {topic}", key, record, Check(namespace, PRESENT), *more
            )
        except ConflictError as error:
            if error.key == namespace:
                raise NamespaceNotFoundError(
                    f"namespace {topic.namespace_name} does not exist"
                ) from None
            raise AlreadyExistsError(f"topic {topic} already exists") from None

    async def _revise(
        self,
        topic: TopicName,
        key: str,
        kind: type[S],
        change: Callable[[S], Sequence[Change] | None],
    ) -> S:
        try:
            return await facts.revise(self._store, f"topic {topic}", key, kind, change)
        except NotFoundError as error:
            raise TopicNotFoundError(str(error)) from None

    async def _list(self, kind: str, namespace: NamespaceName, domain: Domain) -> list[TopicName]:
        keys = await self._store.keys(paths.in_namespace(kind, namespace, domain.value))
        return [paths.topic_name(kind, key) for key in keys]


def _check_partitions(partitions: int) -> None:
    if not 1 <= partitions <= PARTITIONS_MAX:
        raise ValueError(f"{partitions} partitions, allowed: 1 to {PARTITIONS_MAX}")


def _shared_changes(topic: TopicName) -> list[Change]:
    """Return what removes what all partitions of a topic have in common: policies and schema."""
    return [Delete(paths.policies(topic)), *forget_changes(topic)]


def _partition_changes(topic: TopicName, indexes: Sequence[int], created_ms: int) -> list[Change]:
    """Make the records of persistent partitions; the others live in memory only."""
    if not topic.persistent:
        return []
    record = encode(TopicRecord(created_ms=created_ms))
    return [Put(paths.topic(topic.partition_name(index)), record) for index in indexes]
