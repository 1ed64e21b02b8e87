"""Policies: what holds for the topics of a namespace, or for one topic. Their JSON.

    namespaces/<tenant>/<namespace>     what a namespace says        `Policies`
    policies/<topic>                    what a topic says over it    `Policies` too

The JSON is Pulsar's `Policies` object, snake_case mixed with camelCase as in the real one.
A field that is None, or absent, is unset: what stands above it holds, in the end the broker's
own setting. Limits are checked where they are set (`doors/admin/policy_table`), not here: what
an older version stored must stay readable.
"""

from typing import Any

import msgspec

from magnetar.broker.metadata.documents import Document
from magnetar.broker.metadata.grants import Grants

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
    old_limit_bytes: int | str | None = msgspec.field(default=None, name="limit")
    """What `limitSize` was called once, and what holds where that is not there.

    Clients of that time say it as text too. Shown as well, as in Pulsar.
    """

    def __post_init__(self) -> None:
        if self.limit_bytes < 0 and self.old_limit_bytes is not None:
            self.limit_bytes = int(self.old_limit_bytes)
        self.old_limit_bytes = self.limit_bytes


class Persistence(Document):
    """Pulsar's quorums, which one machine has no use for. Accepted and shown."""

    ensemble: int = msgspec.field(default=1, name="bookkeeperEnsemble")
    write_quorum: int = msgspec.field(default=1, name="bookkeeperWriteQuorum")
    ack_quorum: int = msgspec.field(default=1, name="bookkeeperAckQuorum")
    mark_delete_rate: float = msgspec.field(default=0.0, name="managedLedgerMaxMarkDeleteRate")


class BookieAffinity(Document):
    """Which of Pulsar's bookies should hold a namespace. Accepted and shown."""

    primary: str | None = msgspec.field(default=None, name="bookkeeperAffinityGroupPrimary")
    secondary: str | None = msgspec.field(default=None, name="bookkeeperAffinityGroupSecondary")


class AutoTopicCreation(Document):
    """Whether asking for a topic makes it, and of which kind."""

    allowed: bool = msgspec.field(default=True, name="allowAutoTopicCreation")
    topic_type: str | None = msgspec.field(default=None, name="topicType")
    """`partitioned` or `non-partitioned`; None, or what is neither, is the latter."""
    partitions: int | None = msgspec.field(default=None, name="defaultNumPartitions")


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


class DispatchRate(Document):
    """How fast consumers get messages. -1 or 0: no limit of that kind."""

    messages_max: int = msgspec.field(default=UNLIMITED, name="dispatchThrottlingRateInMsg")
    bytes_max: int = msgspec.field(default=UNLIMITED, name="dispatchThrottlingRateInByte")
    relative: bool = msgspec.field(default=False, name="relativeToPublishRate")
    """The limit is what is published, and this much more."""
    period_s: int = msgspec.field(default=1, name="ratePeriodInSecond")


class PublishRate(Document):
    """How fast producers may publish to one topic, per second. -1 or 0: no limit of that kind."""

    messages_max: int = msgspec.field(default=UNLIMITED, name="publishThrottlingRateInMsg")
    bytes_max: int = msgspec.field(default=UNLIMITED, name="publishThrottlingRateInByte")


class SubscribeRate(Document):
    """How often one consumer may subscribe. -1 or 0: no limit."""

    subscribes_max: int = msgspec.field(
        default=UNLIMITED, name="subscribeThrottlingRatePerConsumer"
    )
    period_s: int = msgspec.field(default=30, name="ratePeriodInSecond")


class Policies(Document):
    """What a namespace, or a topic, says. None: unset."""

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
    grants: Grants | None = msgspec.field(default=None, name="auth_policies")
    subscription_auth_mode: str | None = None
    """`Prefix`: a subscription's name must begin with the role that consumes from it."""
    encryption_required: bool | None = None
    schema_strategy: str | None = msgspec.field(default=None, name="schema_compatibility_strategy")
    """Pulsar's name of one (`schema.compatibility.Strategy`)."""
    schema_strategy_legacy: str | None = msgspec.field(
        default=None, name="schema_auto_update_compatibility_strategy"
    )
    """The same in older words, such as `AutoUpdateDisabled`."""
    schema_required: bool | None = msgspec.field(default=None, name="schema_validation_enforced")
    """Producers without a schema are refused on topics that have one."""
    schema_updates_allowed: bool | None = msgspec.field(
        default=None, name="is_allow_auto_update_schema"
    )
    """Whether clients may add versions."""
    compaction_threshold: int | None = None
    message_bytes_max: int | None = msgspec.field(default=None, name="max_message_size")
    """Of topics only. 0: the broker's limit alone."""
    publish_rate: dict[str, PublishRate] | None = msgspec.field(
        default=None, name="publishMaxMessageRate"
    )
    """In this rate and those below, by cluster."""
    dispatch_rate: dict[str, DispatchRate] | None = msgspec.field(
        default=None, name="topicDispatchRate"
    )
    subscription_dispatch_rate: dict[str, DispatchRate] | None = msgspec.field(
        default=None, name="subscriptionDispatchRate"
    )
    own_dispatch_rates: dict[str, DispatchRate] | None = msgspec.field(
        default=None, name="subscriptionDispatchRates"
    )
    """Of topics only: by subscription, over what holds for all of them."""
    replicator_dispatch_rate: dict[str, DispatchRate] | None = msgspec.field(
        default=None, name="replicatorDispatchRate"
    )
    subscribe_rate: dict[str, SubscribeRate] | None = msgspec.field(
        default=None, name="clusterSubscribeRate"
    )
    deduplication_interval_s: int | None = msgspec.field(
        default=None, name="deduplicationSnapshotIntervalSeconds"
    )
    offload: dict[str, Any] | None = msgspec.field(default=None, name="offload_policies")
    """As it was set. Nothing is offloaded yet."""
    offload_threshold_bytes: int | None = msgspec.field(default=None, name="offload_threshold")
    offload_threshold_s: int | None = msgspec.field(
        default=None, name="offload_threshold_in_seconds"
    )
    offload_deletion_lag_ms: int | None = None
    pause_on_ack_state: bool | None = msgspec.field(
        default=None, name="dispatcherPauseOnAckStatePersistentEnabled"
    )
    bookie_affinity: BookieAffinity | None = msgspec.field(default=None, name="bookieAffinityGroup")
    anti_affinity_group: str | None = msgspec.field(default=None, name="antiAffinityGroup")
    resource_group: str | None = msgspec.field(default=None, name="resource_group_name")
    deleted: bool | None = None
    properties: dict[str, str] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.message_ttl_s is not None and self.message_ttl_s < 0:
            raise ValueError(f"message_ttl_in_seconds is {self.message_ttl_s}, allowed: 0 or more")
