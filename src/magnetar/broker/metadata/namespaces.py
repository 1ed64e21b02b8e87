"""Namespaces and their policies.

The JSON is Pulsar's `Policies` object, snake_case mixed with camelCase as in the real one.
A field that is None, or absent, is unset: the broker's own setting applies. Fields that
this version does nothing with (rates, offload, schema and replication policies) are kept
and shown as they were set.
"""

from collections.abc import Callable, Sequence

import msgspec

from magnetar.broker.metadata import facts, paths
from magnetar.broker.metadata.documents import Document
from magnetar.broker.metadata.facts import NotEmptyError
from magnetar.broker.metadata.store import PRESENT, Check, CheckEmpty, ConflictError, Delete, Store
from magnetar.broker.metadata.tenants import TenantNotFoundError
from magnetar.broker.port import NamespaceNotFoundError
from magnetar.names import Domain, NamespaceName

UNLIMITED = -1


class Retention(Document):
    """How much of what everybody has acknowledged is kept. -1: no limit of that kind."""

    time_min: int = msgspec.field(default=0, name="retentionTimeInMinutes")
    size_mib: int = msgspec.field(default=0, name="retentionSizeInMB")

    def __post_init__(self) -> None:
        if self.time_min < UNLIMITED or self.size_mib < UNLIMITED:
            raise ValueError("retention must be -1 (no limit), 0 (keep nothing) or more")
        if (self.time_min == 0) != (self.size_mib == 0):
            raise ValueError("retention time and size must be both zero or both not")


class BacklogQuota(Document):
    """How large, or how old, a backlog may grow, and what happens then.

    The policies: `producer_request_hold`, `producer_exception`, `consumer_backlog_eviction`.
    """

    limit_bytes: int = msgspec.field(default=UNLIMITED, name="limitSize")
    limit_seconds: int = msgspec.field(default=UNLIMITED, name="limitTime")
    policy: str = "producer_request_hold"


class Persistence(Document):
    """Pulsar's quorums, which one machine has no use for. Accepted and shown."""

    ensemble: int = msgspec.field(default=1, name="bookkeeperEnsemble")
    write_quorum: int = msgspec.field(default=1, name="bookkeeperWriteQuorum")
    ack_quorum: int = msgspec.field(default=1, name="bookkeeperAckQuorum")
    mark_delete_rate: float = msgspec.field(default=0.0, name="managedLedgerMaxMarkDeleteRate")


class AutoTopicCreation(Document):
    """Whether asking for a topic makes it, and of which kind."""

    allowed: bool = msgspec.field(default=True, name="allowAutoTopicCreation")
    topic_type: str | None = msgspec.field(default=None, name="topicType")
    """`partitioned` or `non-partitioned`; None is the latter."""
    partitions: int | None = msgspec.field(default=None, name="defaultNumPartitions")

    def __post_init__(self) -> None:
        if self.topic_type not in {None, "partitioned", "non-partitioned"}:
            raise ValueError(f"topicType is {self.topic_type!r}: partitioned or non-partitioned")
        if self.topic_type == "partitioned" and (self.partitions or 0) < 1:
            raise ValueError("a partitioned topicType needs defaultNumPartitions of at least 1")


class AutoSubscriptionCreation(Document):
    """Whether subscribing makes the subscription."""

    allowed: bool = msgspec.field(default=True, name="allowAutoSubscriptionCreation")


class DelayedDelivery(Document):
    """Whether messages may be delayed, and by how much."""

    active: bool = True
    tick_ms: int = msgspec.field(default=1000, name="tickTime")
    delay_ms_max: int = msgspec.field(default=0, name="maxDeliveryDelayInMillis")
    """0: no limit."""


class InactiveTopics(Document):
    """When a topic that nobody uses is deleted."""

    mode: str = msgspec.field(
        default="delete_when_no_subscriptions", name="inactiveTopicDeleteMode"
    )
    """`delete_when_no_subscriptions` or `delete_when_subscriptions_caught_up`."""
    seconds_max: int = msgspec.field(default=60, name="maxInactiveDurationSeconds")
    enabled: bool = msgspec.field(default=False, name="deleteWhileInactive")


class Policies(Document):
    """What holds for all topics of one namespace. None: unset, the broker's setting applies."""

    replication_clusters: list[str] = msgspec.field(default_factory=list)
    retention: Retention | None = msgspec.field(default=None, name="retention_policies")
    message_ttl_s: int | None = msgspec.field(default=None, name="message_ttl_in_seconds")
    """0: messages do not expire."""
    backlog_quotas: dict[str, BacklogQuota] = msgspec.field(
        default_factory=dict, name="backlog_quota_map"
    )
    """By kind: `destination_storage` or `message_age`."""
    deduplication: bool | None = msgspec.field(default=None, name="deduplicationEnabled")
    auto_topic_creation: AutoTopicCreation | None = msgspec.field(
        default=None, name="autoTopicCreationOverride"
    )
    auto_subscription_creation: AutoSubscriptionCreation | None = msgspec.field(
        default=None, name="autoSubscriptionCreationOverride"
    )
    persistence: Persistence | None = None
    delayed_delivery: DelayedDelivery | None = msgspec.field(
        default=None, name="delayed_delivery_policies"
    )
    inactive_topics: InactiveTopics | None = msgspec.field(
        default=None, name="inactive_topic_policies"
    )
    producers_per_topic_max: int | None = msgspec.field(
        default=None, name="max_producers_per_topic"
    )
    """In this limit and those below, 0 means no limit."""
    consumers_per_topic_max: int | None = msgspec.field(
        default=None, name="max_consumers_per_topic"
    )
    consumers_per_subscription_max: int | None = msgspec.field(
        default=None, name="max_consumers_per_subscription"
    )
    subscriptions_per_topic_max: int | None = msgspec.field(
        default=None, name="max_subscriptions_per_topic"
    )
    topics_per_namespace_max: int | None = msgspec.field(
        default=None, name="max_topics_per_namespace"
    )
    unacked_per_consumer_max: int | None = msgspec.field(
        default=None, name="max_unacked_messages_per_consumer"
    )
    unacked_per_subscription_max: int | None = msgspec.field(
        default=None, name="max_unacked_messages_per_subscription"
    )
    subscription_expiration_min: int | None = msgspec.field(
        default=None, name="subscription_expiration_time_minutes"
    )
    """0: a subscription without consumers stays."""
    subscription_types_enabled: list[str] | None = None
    encryption_required: bool | None = None
    compaction_threshold: int | None = None
    deleted: bool | None = None
    properties: dict[str, str] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.message_ttl_s is not None and self.message_ttl_s < 0:
            raise ValueError(f"message_ttl_in_seconds is {self.message_ttl_s}, allowed: 0 or more")


class Namespaces:
    """All namespaces."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def list(self, tenant: str | None = None) -> list[NamespaceName]:
        """Return the names, sorted; None: of all tenants."""
        prefix = paths.NAMESPACES if tenant is None else f"{paths.NAMESPACES}{tenant}/"
        return [_name(key) for key in await self._store.keys(prefix)]

    async def exists(self, name: NamespaceName) -> bool:
        """Return whether there is such a namespace."""
        return await self._store.get(paths.namespace(name)) is not None

    async def get(self, name: NamespaceName) -> Policies:
        """Return the policies of a namespace; the caller may keep and change the object.

        Raises:
            NamespaceNotFoundError: there is none of that name.
        """
        policies = await facts.read(self._store, paths.namespace(name), Policies)
        if policies is None:
            raise _missing(name)
        return policies

    async def create(self, name: NamespaceName, policies: Policies | None = None) -> None:
        """Add a namespace.

        Raises:
            TenantNotFoundError: the tenant is missing.
            AlreadyExistsError: there is one of that name.
        """
        key, tenant = paths.namespace(name), paths.tenant(name.tenant)
        try:
            await facts.create(
                self._store,
                f"namespace {name}",
                key,
                policies or Policies(),
                Check(tenant, PRESENT),
            )
        except ConflictError:
            raise TenantNotFoundError(f"tenant {name.tenant} does not exist") from None

    async def update(self, name: NamespaceName, change: Callable[[Policies], None]) -> Policies:
        """Let `change` edit the policies in place; return them as they are now stored.

        `change` may be called again if somebody else was faster; what it raises comes out.

        Raises:
            NamespaceNotFoundError: there is none of that name.
        """
        try:
            return await facts.revise(
                self._store, f"namespace {name}", paths.namespace(name), Policies, change
            )
        except facts.NotFoundError:
            raise _missing(name) from None

    async def delete(self, name: NamespaceName) -> None:
        """Remove a namespace that has no topics.

        Raises:
            NamespaceNotFoundError: there is none of that name.
            NotEmptyError: it has topics.
        """
        key = paths.namespace(name)
        kinds = (paths.TOPICS, paths.PARTITIONED)
        rooms = [paths.in_namespace(kind, name, d.value) for kind in kinds for d in Domain]
        try:
            await self._store.commit([Check(key, PRESENT), *map(CheckEmpty, rooms), Delete(key)])
        except ConflictError as error:
            if error.key == key:
                raise _missing(name) from None
            raise NotEmptyError(f"namespace {name} still has topics") from None

    def watch(self, callback: Callable[[Sequence[NamespaceName]], None]) -> Callable[[], None]:
        """Tell which namespaces were made, changed or deleted; return how to stop that."""
        return self._store.watch(
            paths.NAMESPACES, lambda keys: callback([_name(key) for key in keys])
        )


def _name(key: str) -> NamespaceName:
    return NamespaceName.parse(key.removeprefix(paths.NAMESPACES))


def _missing(name: NamespaceName) -> NamespaceNotFoundError:
    return NamespaceNotFoundError(f"namespace {name} does not exist")
