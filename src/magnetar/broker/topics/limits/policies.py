"""What holds for a topic. Pure.

    the topic's own policies      policy by policy, the first of these that says something;
    over its namespace's          backlog quotas: of each kind
    over the broker's settings

One `Rules` object is shared by all topics of a namespace, unless a topic says something of
its own; a changed policy is a new object. A limit of 0 means that there is none, as in Pulsar.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from magnetar.broker.config import BrokerConfig
from magnetar.broker.metadata.policies import (
    BacklogQuota,
    DispatchRate,
    Policies,
    PublishRate,
    SubscribeRate,
)
from magnetar.broker.schema.compatibility import Strategy, effective
from magnetar.broker.topics.limits.backlog import Quota, QuotaPolicy, Retention
from magnetar.broker.topics.limits.rates import NO_LIMIT, Limit

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for the topics of one namespace, or for one topic. In every limit 0 is none."""

    retention: Retention
    ttl_s: int
    quotas: tuple[Quota, ...]
    deduplication: bool
    encryption_required: bool
    auto_topic_creation: bool
    auto_topic_partitions: int
    """Partitions of a topic made by asking for it; 0: an ordinary topic."""
    auto_subscription_creation: bool
    producers_max: int
    consumers_max: int
    consumers_per_subscription_max: int
    subscriptions_max: int
    topics_max: int
    unacked_per_consumer_max: int
    unacked_per_subscription_max: int
    subscription_expiration_s: int
    subscription_types: frozenset[str] | None
    """Pulsar's names of the types that may be used; None: all."""
    delete_inactive_after_s: int
    """0: a topic that nobody uses stays."""
    delete_inactive_with_subscriptions: bool
    """Also while it has subscriptions, if they are caught up."""
    delayed_delivery: bool
    delay_ms_max: int
    message_bytes_max: int
    publish_rate: Limit
    dispatch_rate: Limit
    """Of all subscriptions together,"""
    subscription_dispatch_rate: Limit
    """and of each of them,"""
    own_dispatch_rates: Mapping[str, Limit]
    """but for those that have one of their own."""
    subscribe_rate: Limit
    """Of each consumer."""
    resource_group: str
    """Whose rates it shares with others; empty: nobody's."""
    schema_strategy: Strategy
    schema_required: bool
    """Producers without a schema are refused on topics that have one."""
    schema_updates_allowed: bool
    """Whether clients may add versions of a schema."""
    compaction_threshold_bytes: int = 0
    """Compact when so many bytes came since the last time; 0: only when asked."""

    @property
    def shrinks(self) -> bool:
        """Whether something may go from a topic although nobody touches it."""
        return bool(
            self.ttl_s
            or self.retention.time_min >= 0
            or self.retention.size_mib >= 0
            or self.delete_inactive_after_s
            or any(quota.policy is QuotaPolicy.EVICTION for quota in self.quotas)
        )


_UNSAID: tuple[object, ...] = ([], {}, Strategy.UNDEFINED.value)
"""Values of a topic's policies that leave it to its namespace."""

INACTIVE_S = 60
"""How long a topic has to be idle before it is deleted, where that is on; Pulsar's default."""


RULING = frozenset(
    {
        "auto_subscription_creation", "auto_topic_creation", "auto_topic_partitions",
        "compaction_threshold_bytes", "delete_inactive_topics", "dispatch_rate_bytes_max",
        "dispatch_rate_messages_max", "publish_rate_bytes_max", "publish_rate_messages_max",
        "schema_required", "schema_strategy", "schema_updates_allowed",
        "unacked_messages_per_consumer_max", "unacked_messages_per_subscription_max",
    }
)  # fmt: skip
"""Live settings that rules are made of, or the rates of the broker: topics must be told."""


def rules_of(config: BrokerConfig, namespace: Policies, topic: Policies | None = None) -> Rules:
    """Return what holds in a namespace; or for a topic that says something itself."""
    policies = namespace if topic is None else overlaid(namespace, topic)
    retention = Retention(config.retention_time_min, config.retention_size_mib)
    if policies.retention is not None:
        retention = Retention(policies.retention.time_min, policies.retention.size_mib)
    creation = policies.auto_topic_creation
    partitions = config.auto_topic_partitions
    if creation is not None and creation.topic_type is not None:
        partitioned = creation.topic_type == "partitioned"
        partitions = (creation.partitions or 0) if partitioned else 0
    subscribing = policies.auto_subscription_creation
    inactive = policies.inactive_topics
    delete_after_s = INACTIVE_S if config.delete_inactive_topics else 0
    if inactive is not None:
        delete_after_s = inactive.seconds_max if inactive.enabled else 0
    types = policies.subscription_types_enabled
    return Rules(
        retention=retention,
        ttl_s=_or(policies.message_ttl_s, config.message_ttl_s),
        quotas=tuple(_quota(quota) for quota in policies.backlog_quotas.values()),
        deduplication=_or(policies.deduplication, config.deduplication),
        encryption_required=bool(policies.encryption_required),
        auto_topic_creation=config.auto_topic_creation if creation is None else creation.allowed,
        auto_topic_partitions=partitions,
        auto_subscription_creation=(
            config.auto_subscription_creation if subscribing is None else subscribing.allowed
        ),
        producers_max=policies.producers_per_topic_max or 0,
        consumers_max=policies.consumers_per_topic_max or 0,
        consumers_per_subscription_max=policies.consumers_per_subscription_max or 0,
        subscriptions_max=policies.subscriptions_per_topic_max or 0,
        topics_max=policies.topics_per_namespace_max or 0,
        unacked_per_consumer_max=_or(
            policies.unacked_per_consumer_max, config.unacked_messages_per_consumer_max
        ),
        unacked_per_subscription_max=_or(
            policies.unacked_per_subscription_max, config.unacked_messages_per_subscription_max
        ),
        subscription_expiration_s=60 * (policies.subscription_expiration_min or 0),
        subscription_types=frozenset(types) if types else None,
        delete_inactive_after_s=delete_after_s,
        delete_inactive_with_subscriptions=(
            inactive is not None and inactive.mode == "delete_when_subscriptions_caught_up"
        ),
        delayed_delivery=policies.delayed_delivery is None or policies.delayed_delivery.active,
        delay_ms_max=_longest_delay(policies),
        message_bytes_max=policies.message_bytes_max or 0,
        publish_rate=_publish_limit(policies.publish_rate, config.cluster),
        dispatch_rate=_dispatch_limit(policies.dispatch_rate, config.cluster),
        subscription_dispatch_rate=_dispatch_limit(
            policies.subscription_dispatch_rate, config.cluster
        ),
        own_dispatch_rates={
            name: _dispatch_limit({config.cluster: rate}, config.cluster)
            for name, rate in (policies.own_dispatch_rates or {}).items()
        },
        subscribe_rate=_subscribe_limit(policies.subscribe_rate, config.cluster),
        resource_group=policies.resource_group or "",
        compaction_threshold_bytes=_or(
            policies.compaction_threshold, config.compaction_threshold_bytes
        ),
        schema_strategy=effective(
            policies.schema_strategy,
            config.schema_strategy,
            legacy=policies.schema_strategy_legacy,
        ),
        schema_required=_or(policies.schema_required, config.schema_required),
        schema_updates_allowed=_or(policies.schema_updates_allowed, config.schema_updates_allowed),
    )


def overlaid(namespace: Policies, topic: Policies) -> Policies:
    """Return the policies of a namespace with what one of its topics says over them."""
    said = {each.name: getattr(topic, each.name) for each in msgspec.structs.fields(Policies)}
    own: dict[str, Any] = {
        name: value for name, value in said.items() if value is not None and value not in _UNSAID
    }
    own["backlog_quotas"] = {**namespace.backlog_quotas, **topic.backlog_quotas}
    return msgspec.structs.replace(namespace, **own)


def _longest_delay(policies: Policies) -> int:
    delayed = policies.delayed_delivery
    return max(delayed.delay_ms_max, 0) if delayed is not None and delayed.active else 0


def _publish_limit(rates: Mapping[str, PublishRate] | None, cluster: str) -> Limit:
    rate = (rates or {}).get(cluster)
    if rate is None:
        return NO_LIMIT
    return Limit(max(rate.messages_max, 0), max(rate.bytes_max, 0))


def _dispatch_limit(rates: Mapping[str, DispatchRate] | None, cluster: str) -> Limit:
    rate = (rates or {}).get(cluster)
    if rate is None:
        return NO_LIMIT
    messages, size = max(rate.messages_max, 0), max(rate.bytes_max, 0)
    return Limit(messages, size, max(rate.period_s, 1), rate.relative)


def _subscribe_limit(rates: Mapping[str, SubscribeRate] | None, cluster: str) -> Limit:
    rate = (rates or {}).get(cluster)
    if rate is None or rate.subscribes_max <= 0:
        return NO_LIMIT
    return Limit(rate.subscribes_max, 0, max(rate.period_s, 1))


def _quota(quota: BacklogQuota) -> Quota:
    known = {policy.value for policy in QuotaPolicy}
    # What a newer tool calls something else refuses producers, which loses nothing.
    policy = QuotaPolicy(quota.policy) if quota.policy in known else QuotaPolicy.HOLD
    return Quota(policy, quota.limit_bytes, quota.limit_seconds)


def _or(value: T | None, otherwise: T) -> T:
    return otherwise if value is None else value
