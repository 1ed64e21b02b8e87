"""What holds for a topic: the broker's settings, with its namespace's policies over them. Pure.

One `Rules` object is shared by all topics of a namespace, unless a topic says something of
its own; a changed policy is a new object. A namespace's 0 means "no limit", as in Pulsar.
"""

from dataclasses import dataclass, replace
from typing import TypeVar

from magnetar.broker.config import BrokerConfig
from magnetar.broker.metadata.namespaces import BacklogQuota, Policies
from magnetar.broker.topics.backlog import Quota, QuotaPolicy, Retention

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for the topics of one namespace. In every limit 0 means that there is none."""

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

    @property
    def shrinks(self) -> bool:
        """Whether something may go from a topic although nobody touches it."""
        return bool(
            self.ttl_s
            or self.retention.time_min >= 0
            or self.retention.size_mib >= 0
            or self.delete_inactive_after_s
        )


INACTIVE_S = 60
"""How long a topic has to be idle before it is deleted, where that is on; Pulsar's default."""


def rules_of(config: BrokerConfig, policies: Policies) -> Rules:
    """Return what holds in a namespace with these policies."""
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
    )


def with_topic(rules: Rules, *, deduplication: bool | None) -> Rules:
    """Return the rules of a namespace with what one of its topics says over them."""
    if deduplication is None or deduplication == rules.deduplication:
        return rules
    return replace(rules, deduplication=deduplication)


def _quota(quota: BacklogQuota) -> Quota:
    known = {policy.value for policy in QuotaPolicy}
    # What a newer tool calls something else refuses producers, which loses nothing.
    policy = QuotaPolicy(quota.policy) if quota.policy in known else QuotaPolicy.HOLD
    return Quota(policy, quota.limit_bytes, quota.limit_seconds)


def _or(value: T | None, otherwise: T) -> T:
    return otherwise if value is None else value
