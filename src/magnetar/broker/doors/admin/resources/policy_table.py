"""The table of policies: where each may be set, its JSON, and what holds while it is not set.

    Policy("ttl", ..., namespace="messageTTL", topic="messageTTL")
        │      GET, POST, PUT, DELETE  .../namespaces/{tenant}/{namespace}/messageTTL
        └────▶ GET, POST, PUT, DELETE  .../{domain}/{tenant}/{namespace}/{topic}/messageTTL

One line makes all of that (see `policies`), and the line of docs/reference/policies.md. The
field is one of `metadata.policies.Policies`, for namespaces and topics alike; what it does is
up to `topics.policies.Rules`. Paths, JSON and statuses are Pulsar's.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import msgspec

from magnetar.broker.config import BrokerConfig
from magnetar.broker.metadata.documents import Document
from magnetar.broker.metadata.policies import (
    AutoSubscriptionCreation,
    AutoTopicCreation,
    BacklogQuota,
    DelayedDelivery,
    DispatchRate,
    InactiveTopics,
    Persistence,
    Policies,
    PublishRate,
    Retention,
    SubscribeRate,
)
from magnetar.broker.schema.compatibility import Strategy
from magnetar.broker.topics.limits.policies import INACTIVE_S

COUNT_MAX = 2**31 - 1
LONG_MAX = 2**63 - 1
NAME_LENGTH_MAX = 256
MIB = 2**20

StrategyName = Literal[
    "UNDEFINED", "ALWAYS_INCOMPATIBLE", "ALWAYS_COMPATIBLE", "BACKWARD", "FORWARD", "FULL",
    "BACKWARD_TRANSITIVE", "FORWARD_TRANSITIVE", "FULL_TRANSITIVE",
]  # fmt: skip
LegacyStrategyName = Literal[
    "AutoUpdateDisabled", "Backward", "Forward", "Full", "AlwaysCompatible",
    "BackwardTransitive", "ForwardTransitive", "FullTransitive",
]  # fmt: skip
SubscriptionTypeName = Literal["Exclusive", "Shared", "Failover", "Key_Shared"]

QUOTA_KINDS = ("destination_storage", "message_age")
QUOTA_POLICIES = ("producer_request_hold", "producer_exception", "consumer_backlog_eviction")


NOT_NEGATIVE = "{name} must be 0 or more"


def _nothing(_: BrokerConfig) -> object:
    return None


def _right(_: Any) -> str:
    return ""


class Policy(NamedTuple):
    """One policy. It can be set where it has a name."""

    field: str
    """Of `Policies`."""
    shape: Any
    """Its JSON: a document, or a type."""
    does: str
    """For the reference page: what it does, in a sentence."""
    namespace: str = ""
    """The last segment of the path for a namespace; empty: it cannot be set there."""
    topic: str = ""
    """The same for one topic."""
    default: Callable[[BrokerConfig], object] = _nothing
    """What holds while nothing is set, as `?applied=true` shows it."""
    wrong: Callable[[Any], str] = _right
    """Returns what is wrong with a value of the right shape, or nothing."""
    words: str = "{name}: {wrong}"
    """How a refusal puts it. Scripts compare some of Pulsar's own words."""
    unset: object = None
    """What is shown while nothing is set, where Pulsar shows something."""
    empty_unsets: bool = False
    """POST without a body is how Pulsar's clients take it back."""
    by_cluster: bool = False
    """The field is a map with one value for each cluster; this cluster's is meant."""

    def get(self, policies: Policies, cluster: str) -> Any:
        """Return the value; None: it is not set."""
        value = getattr(policies, self.field)
        return (value or {}).get(cluster) if self.by_cluster else value

    def refusal(self, name: str, value: object) -> str:
        """Return why a value cannot be, as a refusal says it; nothing if it can."""
        complaint = self.wrong(value)
        return self.words.format(name=name, wrong=complaint) if complaint else ""

    def put(self, policies: Policies, cluster: str, value: object) -> None:
        """Set the value; None: it is not set any more."""
        if self.by_cluster:
            rest = {k: v for k, v in (getattr(policies, self.field) or {}).items() if k != cluster}
            value = rest | ({} if value is None else {cluster: value}) or None
        setattr(policies, self.field, value)


def between(low: int, high: int = COUNT_MAX) -> Callable[[int], str]:
    """Return a check that a number is within bounds."""

    def wrong(value: int) -> str:
        return "" if low <= value <= high else f"{value}, allowed: {low} to {high}"

    return wrong


def _bounded(**bounds: int) -> Callable[[Document], str]:
    """Return a check that fields of a document are at least so large."""

    def wrong(value: Document) -> str:
        names = {each.name: each.encode_name for each in msgspec.structs.fields(value)}
        for name, low in bounds.items():
            number = getattr(value, name)
            if not low <= number <= LONG_MAX:
                return f"{names[name]} is {number:g}, allowed: {low} or more"
        return ""

    return wrong


def _wrong_persistence(value: Persistence) -> str:
    if value.ensemble >= value.write_quorum >= value.ack_quorum >= 1:
        return "" if value.mark_delete_rate >= 0 else "managedLedgerMaxMarkDeleteRate is below 0"
    return (
        f"bookkeeperEnsemble {value.ensemble}, WriteQuorum {value.write_quorum} and AckQuorum"
        f" {value.ack_quorum}: none may be larger than the one before, or below 1"
    )


INACTIVE_MODES = ("delete_when_no_subscriptions", "delete_when_subscriptions_caught_up")


def _wrong_inactive(value: InactiveTopics) -> str:
    if value.mode not in INACTIVE_MODES:
        allowed = ", ".join(INACTIVE_MODES)
        return f"inactiveTopicDeleteMode is {value.mode!r}, allowed: {allowed}"
    if value.enabled and value.seconds_max < 1:
        return f"maxInactiveDurationSeconds is {value.seconds_max}, allowed: 1 or more"
    return ""


def _wrong_auto_topics(value: AutoTopicCreation) -> str:
    if not value.allowed:
        return ""  # of what kind they would be is of no consequence
    if value.topic_type not in {None, "partitioned", "non-partitioned"}:
        return f"Unknown topic type [{value.topic_type}]"
    partitions = value.partitions
    if value.topic_type != "partitioned":
        missing = "[defaultNumPartitions] is not allowed to be set when the type is non-partition."
        return "" if partitions is None else missing
    if partitions is None:
        return "[defaultNumPartitions] cannot be null when the type is partitioned."
    if partitions < 1:
        return "[defaultNumPartitions] cannot be less than 1 for partition type."
    return ""


def _wrong_name(value: str) -> str:
    return "" if 0 < len(value) <= NAME_LENGTH_MAX else f"allowed: 1 to {NAME_LENGTH_MAX} letters"


def _retention(config: BrokerConfig) -> Retention | None:
    time_min, size_mib = config.retention_time_min, config.retention_size_mib
    # One of them zero can be set for the broker: it means both.
    if not time_min or not size_mib:
        return Retention(time_min=0, size_mib=0)
    return Retention(time_min=time_min, size_mib=size_mib)


def _inactive(config: BrokerConfig) -> InactiveTopics:
    return InactiveTopics(seconds_max=INACTIVE_S, enabled=config.delete_inactive_topics)


POLICIES = (
    Policy(
        "retention",
        Retention,
        "Keeps what every subscription has acknowledged, up to a time and a size.",
        namespace="retention",
        topic="retention",
        default=_retention,
    ),
    Policy(
        "message_ttl_s",
        int,
        "Seconds after which a message counts as acknowledged on every subscription; 0: never.",
        namespace="messageTTL",
        topic="messageTTL",
        default=lambda config: config.message_ttl_s,
        wrong=between(0),
        words="Invalid value for message TTL",
    ),
    Policy(
        "deduplication",
        bool,
        "Stores a message that a producer sends twice only once.",
        namespace="deduplication",
        topic="deduplicationEnabled",
        default=lambda config: config.deduplication,
    ),
    Policy(
        "deduplication_interval_s",
        int,
        "Accepted and shown. What deduplication knows is durable with each message here.",
        namespace="deduplicationSnapshotInterval",
        topic="deduplicationSnapshotInterval",
        wrong=between(0),
        empty_unsets=True,
    ),
    Policy(
        "persistence",
        Persistence,
        "Accepted and shown: quorums of Pulsar's bookies, which one machine has no use for.",
        namespace="persistence",
        topic="persistence",
        default=lambda _: Persistence(),
        wrong=_wrong_persistence,
    ),
    Policy(
        "auto_topic_creation",
        AutoTopicCreation,
        "Whether asking for a topic makes it, and with how many partitions.",
        namespace="autoTopicCreation",
        default=lambda config: AutoTopicCreation(
            allowed=config.auto_topic_creation,
            topic_type="partitioned" if config.auto_topic_partitions else "non-partitioned",
            partitions=config.auto_topic_partitions or None,
        ),
        wrong=_wrong_auto_topics,
        words="Invalid configuration for autoTopicCreationOverride. the detail is {wrong}",
    ),
    Policy(
        "auto_subscription_creation",
        AutoSubscriptionCreation,
        "Whether subscribing makes the subscription.",
        namespace="autoSubscriptionCreation",
        topic="autoSubscriptionCreation",
        default=lambda config: AutoSubscriptionCreation(allowed=config.auto_subscription_creation),
    ),
    Policy(
        "delayed_delivery",
        DelayedDelivery,
        "Whether messages may be delayed.",
        namespace="delayedDelivery",
        topic="delayedDelivery",
        default=lambda _: DelayedDelivery(),
        wrong=_bounded(tick_ms=0, delay_ms_max=0),
    ),
    Policy(
        "inactive_topics",
        InactiveTopics,
        "Whether, and when, a topic that nobody uses is deleted.",
        namespace="inactiveTopicPolicies",
        topic="inactiveTopicPolicies",
        default=_inactive,
        wrong=_wrong_inactive,
    ),
    Policy(
        "producers_per_topic_max",
        int,
        "How many producers a topic may have; 0: any number.",
        namespace="maxProducersPerTopic",
        topic="maxProducers",
        default=lambda _: 0,
        wrong=between(0),
        words=NOT_NEGATIVE,
    ),
    Policy(
        "consumers_per_topic_max",
        int,
        "How many consumers a topic may have, over all subscriptions; 0: any number.",
        namespace="maxConsumersPerTopic",
        topic="maxConsumers",
        default=lambda _: 0,
        wrong=between(0),
        words=NOT_NEGATIVE,
    ),
    Policy(
        "consumers_per_subscription_max",
        int,
        "How many consumers a subscription may have; 0: any number.",
        namespace="maxConsumersPerSubscription",
        topic="maxConsumersPerSubscription",
        default=lambda _: 0,
        wrong=between(0),
        words=NOT_NEGATIVE,
    ),
    Policy(
        "subscriptions_per_topic_max",
        int,
        "How many subscriptions a topic may have; 0: any number.",
        namespace="maxSubscriptionsPerTopic",
        topic="maxSubscriptionsPerTopic",
        default=lambda _: 0,
        wrong=between(0),
        words=NOT_NEGATIVE,
    ),
    Policy(
        "topics_per_namespace_max",
        int,
        "How many topics, partitions counted, a namespace may have; 0: any number.",
        namespace="maxTopicsPerNamespace",
        default=lambda _: 0,
        wrong=between(0),
        words=NOT_NEGATIVE,
    ),
    Policy(
        "unacked_per_consumer_max",
        int,
        "A consumer with more unacknowledged messages gets nothing new; 0: no limit.",
        namespace="maxUnackedMessagesPerConsumer",
        topic="maxUnackedMessagesOnConsumer",
        default=lambda config: config.unacked_messages_per_consumer_max,
        wrong=between(0),
        words=NOT_NEGATIVE,
    ),
    Policy(
        "unacked_per_subscription_max",
        int,
        "The same for all consumers of a Shared or Key_Shared subscription together.",
        namespace="maxUnackedMessagesPerSubscription",
        topic="maxUnackedMessagesOnSubscription",
        default=lambda config: config.unacked_messages_per_subscription_max,
        wrong=between(0),
        words=NOT_NEGATIVE,
    ),
    Policy(
        "subscription_expiration_min",
        int,
        "Minutes after which a subscription without consumers is removed; 0: never.",
        namespace="subscriptionExpirationTime",
        topic="subscriptionExpirationTime",
        default=lambda _: 0,
        wrong=between(0),
        words="Invalid value for subscription expiration time",
    ),
    Policy(
        "subscription_types_enabled",
        list[SubscriptionTypeName],
        "The types of subscription that may be used; an empty list: all.",
        namespace="subscriptionTypesEnabled",
        topic="subscriptionTypesEnabled",
        default=lambda _: ["Exclusive", "Shared", "Failover", "Key_Shared"],
    ),
    Policy(
        "subscription_auth_mode",
        Literal["None", "Prefix"],
        "Prefix: the name of a subscription must begin with the role that consumes from it.",
        namespace="subscriptionAuthMode",
        default=lambda _: "None",
    ),
    Policy(
        "encryption_required",
        bool,
        "Lets in only producers that encrypt.",
        namespace="encryptionRequired",
        default=lambda _: False,
    ),
    Policy(
        "message_bytes_max",
        int,
        "The largest message of the topic, beside the broker's own limit; 0: that alone.",
        topic="maxMessageSize",
        default=lambda config: config.message_bytes_max,
        wrong=between(0),
    ),
    Policy(
        "publish_rate",
        PublishRate,
        "How fast may be published to each topic, by all its producers together. Who is too fast"
        " is kept waiting: the broker does not read from its connection.",
        namespace="publishRate",
        topic="publishRate",
        default=lambda _: PublishRate(),
        wrong=_bounded(messages_max=-1, bytes_max=-1),
        by_cluster=True,
    ),
    Policy(
        "dispatch_rate",
        DispatchRate,
        "How fast messages of each topic are sent, to all its subscriptions together.",
        namespace="dispatchRate",
        topic="dispatchRate",
        default=lambda _: DispatchRate(),
        wrong=_bounded(messages_max=-1, bytes_max=-1, period_s=1),
        by_cluster=True,
    ),
    Policy(
        "subscription_dispatch_rate",
        DispatchRate,
        "How fast messages are sent to each subscription.",
        namespace="subscriptionDispatchRate",
        topic="subscriptionDispatchRate",
        default=lambda _: DispatchRate(),
        wrong=_bounded(messages_max=-1, bytes_max=-1, period_s=1),
        by_cluster=True,
    ),
    Policy(
        "subscribe_rate",
        SubscribeRate,
        "How often a consumer, known by its name and address, may subscribe to each topic.",
        namespace="subscribeRate",
        topic="subscribeRate",
        default=lambda _: SubscribeRate(),
        wrong=_bounded(subscribes_max=-1, period_s=1),
        by_cluster=True,
    ),
    Policy(
        "replicator_dispatch_rate",
        DispatchRate,
        "Accepted and shown. Nothing is replicated to other clusters.",
        namespace="replicatorDispatchRate",
        topic="replicatorDispatchRate",
        default=lambda _: DispatchRate(),
        wrong=_bounded(messages_max=-1, bytes_max=-1, period_s=1),
        by_cluster=True,
    ),
    Policy(
        "offload",
        dict[str, Any],
        "Stored and shown. Nothing is offloaded in this version.",
        namespace="offloadPolicies",
        topic="offloadPolicies",
    ),
    Policy(
        "offload_threshold_bytes",
        int,
        "Stored and shown. Nothing is offloaded in this version.",
        namespace="offloadThreshold",
        default=lambda _: -1,
        wrong=between(-1, LONG_MAX),
    ),
    Policy(
        "compaction_threshold",
        int,
        "A topic that took more bytes since its last compaction is compacted; 0: never by itself.",
        namespace="compactionThreshold",
        topic="compactionThreshold",
        wrong=between(0, LONG_MAX),
        words=NOT_NEGATIVE,
    ),
    Policy(
        "offload_threshold_s",
        int,
        "Stored and shown. Nothing is offloaded in this version.",
        namespace="offloadThresholdInSeconds",
        default=lambda _: -1,
        wrong=between(-1, LONG_MAX),
        words="Invalid value for offloadThresholdInSecond",
    ),
    Policy(
        "offload_deletion_lag_ms",
        int,
        "Stored and shown. Nothing is offloaded in this version.",
        namespace="offloadDeletionLagMs",
        wrong=between(0, LONG_MAX),
    ),
    Policy(
        "pause_on_ack_state",
        bool,
        "Accepted and shown. Every acknowledgement is stored here, however scattered.",
        namespace="dispatcherPauseOnAckStatePersistent",
        topic="dispatcherPauseOnAckStatePersistent",
        default=lambda _: False,
    ),
    Policy(
        "schema_strategy",
        StrategyName,
        "How a new schema must go with those before it; `UNDEFINED`: as what stands above says.",
        namespace="schemaCompatibilityStrategy",
        topic="schemaCompatibilityStrategy",
        default=lambda config: config.schema_strategy,
        unset=Strategy.UNDEFINED.value,
    ),
    Policy(
        "schema_strategy_legacy",
        LegacyStrategyName,
        "The same in older words, where the other one says nothing.",
        namespace="schemaAutoUpdateCompatibilityStrategy",
    ),
    Policy(
        "schema_required",
        bool,
        "Refuses producers without a schema on topics that have one.",
        namespace="schemaValidationEnforced",
        topic="schemaValidationEnforced",
        default=lambda config: config.schema_required,
        unset=False,
    ),
    Policy(
        "schema_updates_allowed",
        bool,
        "Whether clients may add versions of a schema; over HTTP they can be added all the same.",
        namespace="isAllowAutoUpdateSchema",
        default=lambda config: config.schema_updates_allowed,
        unset=True,
    ),
    Policy(
        "anti_affinity_group",
        str,
        "Accepted and shown. There is one broker, so nothing can be kept apart.",
        namespace="antiAffinity",
        wrong=_wrong_name,
    ),
)

NOT_YET = {
    "namespace": ("entryFilters", "allowedTopicPropertyKeysForMetrics"),
    "topic": ("entryFilters",),
}
"""Pulsar's, which nothing here acts on. Asking is answered with `unset`, setting is refused."""


def wrong_with(policies: Policies, cluster: str) -> str:
    """Return what is wrong with policies that came all at once, or nothing."""
    for policy in POLICIES:
        value = policy.get(policies, cluster)
        name = policy.namespace or policy.topic
        complaint = "" if value is None else policy.refusal(name, value)
        if complaint:
            return complaint
    for kind, quota in policies.backlog_quotas.items():
        if kind not in QUOTA_KINDS:
            return f"backlogQuotaType is {kind!r}, allowed: {', '.join(QUOTA_KINDS)}"
        complaint = wrong_quota(kind, quota)
        if complaint:
            return complaint
    return contradiction(policies)


def wrong_quota(kind: str, quota: BacklogQuota) -> str:
    """Return what is wrong with a backlog quota, or nothing."""
    if quota.policy not in QUOTA_POLICIES:
        return f"policy is {quota.policy!r}, allowed: {', '.join(QUOTA_POLICIES)}"
    if kind == "message_age" and quota.limit_seconds <= 0:
        return f"limitTime is {quota.limit_seconds} s; message_age needs more than 0"
    return ""


def contradiction(policies: Policies) -> str:
    """Return what two policies contradict each other in, and what to do; nothing if none do.

    As in Pulsar: what nobody has consumed must fit into what is kept once everybody has.
    """
    kept, quotas = policies.retention, policies.backlog_quotas
    if kept is None or not kept.time_min or not kept.size_mib:
        return ""
    size = _quota(quotas, "destination_storage", "limit_bytes")
    if 0 <= kept.size_mib * MIB <= size:
        return (
            f"retention keeps {kept.size_mib} MiB, and the backlog quota allows {size} bytes;"
            " raise retentionSizeInMB above the quota, or lower the quota's limitSize"
        )
    age_s = _quota(quotas, "message_age", "limit_seconds")
    if 0 <= kept.time_min * 60 <= age_s:
        return (
            f"retention keeps {kept.time_min} minutes, and the backlog quota allows {age_s} s;"
            " raise retentionTimeInMinutes above the quota, or lower the quota's limitTime"
        )
    return ""


def _quota(quotas: Mapping[str, BacklogQuota], kind: str, limit: str) -> int:
    quota = quotas.get(kind)
    found = -1 if quota is None else int(getattr(quota, limit))
    return found if found > 0 else -1
