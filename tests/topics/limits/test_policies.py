"""What holds for a topic: the broker's settings with the namespace's policies over them."""

from pathlib import Path
from typing import Any

from magnetar.broker.config import LIVE, BrokerConfig
from magnetar.broker.metadata.policies import Policies
from magnetar.broker.topics.limits.backlog import Quota, QuotaPolicy, Retention
from magnetar.broker.topics.limits.policies import RULING, overlaid, rules_of


def config(**settings: Any) -> BrokerConfig:
    return BrokerConfig(data=Path("data"), **settings)


def policies(**fields: Any) -> Policies:
    return Policies.from_dict(fields)


def test_without_policies_the_settings_of_the_broker_hold() -> None:
    rules = rules_of(config(message_ttl_s=7, deduplication=True), Policies())
    assert rules.retention == Retention(-1, -1)
    assert (rules.ttl_s, rules.deduplication, rules.auto_topic_creation) == (7, True, True)
    assert rules.unacked_per_consumer_max == 50_000
    assert rules.quotas == ()


def test_a_policy_of_the_namespace_wins_over_the_setting() -> None:
    rules = rules_of(
        config(message_ttl_s=7, deduplication=True),
        policies(
            message_ttl_in_seconds=0,
            deduplicationEnabled=False,
            retention_policies={"retentionTimeInMinutes": 5, "retentionSizeInMB": -1},
        ),
    )
    assert (rules.ttl_s, rules.deduplication) == (0, False)
    assert rules.retention == Retention(5, -1)


def test_a_topic_wins_over_its_namespace() -> None:
    namespace = policies(message_ttl_in_seconds=5, deduplicationEnabled=False)
    topic = policies(deduplicationEnabled=True, max_producers_per_topic=0)
    rules = rules_of(config(), namespace, topic)
    assert (rules.ttl_s, rules.deduplication, rules.producers_max) == (5, True, 0)
    nothing = rules_of(config(), namespace, Policies())
    assert nothing == rules_of(config(), namespace)


def test_a_topic_has_the_backlog_quotas_of_its_namespace_but_for_kinds_of_its_own() -> None:
    def quotas(**limits: int) -> Policies:
        return policies(backlog_quota_map={kind: {"limitSize": n} for kind, n in limits.items()})

    both = overlaid(quotas(destination_storage=1, message_age=2), quotas(message_age=3))
    assert {kind: each.limit_bytes for kind, each in both.backlog_quotas.items()} == {
        "destination_storage": 1,
        "message_age": 3,
    }


def test_a_limit_of_zero_on_a_topic_lifts_that_of_its_namespace() -> None:
    namespace = policies(max_producers_per_topic=3, message_ttl_in_seconds=9)
    topic = policies(max_producers_per_topic=0, message_ttl_in_seconds=0)
    rules = rules_of(config(), namespace, topic)
    assert (rules.producers_max, rules.ttl_s) == (0, 0)


def test_a_topics_schema_strategy_wins_unless_it_leaves_it_to_the_namespace() -> None:
    config = BrokerConfig(data=Path("/data"), schema_strategy="BACKWARD")
    namespace = Policies(schema_strategy="FORWARD")
    for own, strategy in ((None, "FORWARD"), ("UNDEFINED", "FORWARD"), ("FULL", "FULL")):
        rules = rules_of(config, namespace, Policies(schema_strategy=own))
        assert rules.schema_strategy.value == strategy
    assert rules_of(config, Policies()).schema_strategy.value == "BACKWARD"
    older = Policies(schema_strategy_legacy="AlwaysCompatible")
    assert rules_of(config, older).schema_strategy.value == "ALWAYS_COMPATIBLE"


def test_topics_made_by_asking_are_partitioned_if_the_namespace_says_so() -> None:
    wanted = {"allowAutoTopicCreation": True, "topicType": "partitioned", "defaultNumPartitions": 4}
    assert rules_of(config(), policies(autoTopicCreationOverride=wanted)).auto_topic_partitions == 4
    plain = {"allowAutoTopicCreation": False, "topicType": "non-partitioned"}
    rules = rules_of(config(auto_topic_partitions=3), policies(autoTopicCreationOverride=plain))
    assert (rules.auto_topic_partitions, rules.auto_topic_creation) == (0, False)


def test_a_quota_whose_policy_is_unknown_refuses_producers_which_loses_nothing() -> None:
    quotas = {
        "destination_storage": {"limitSize": 10, "policy": "something_new"},
        "message_age": {"limitTime": 20, "policy": "consumer_backlog_eviction"},
    }
    assert rules_of(config(), policies(backlog_quota_map=quotas)).quotas == (
        Quota(QuotaPolicy.HOLD, 10, -1),
        Quota(QuotaPolicy.EVICTION, -1, 20),
    )


def test_idle_topics_stay_unless_it_is_switched_on() -> None:
    assert rules_of(config(), Policies()).delete_inactive_after_s == 0
    assert rules_of(config(delete_inactive_topics=True), Policies()).delete_inactive_after_s == 60
    inactive = {
        "inactiveTopicDeleteMode": "delete_when_subscriptions_caught_up",
        "maxInactiveDurationSeconds": 5,
        "deleteWhileInactive": True,
    }
    rules = rules_of(config(), policies(inactive_topic_policies=inactive))
    assert (rules.delete_inactive_after_s, rules.delete_inactive_with_subscriptions) == (5, True)


def test_topics_are_told_of_every_live_setting_that_rules_are_made_of() -> None:
    read = set[str]()

    class Watched(BrokerConfig):
        def __getattribute__(self, name: str) -> Any:
            read.add(name)
            return super().__getattribute__(name)

    watched = Watched(data=Path("data"))
    read.clear()
    rules_of(watched, Policies())
    rates = {name for name in LIVE if "_rate_" in name}
    assert read & set(LIVE) | rates == RULING
