"""Policies of namespaces and topics: Pulsar's paths and JSON, and refusals that say what to do."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from magnetar.broker.doors.admin.app import AdminApp
from magnetar.broker.doors.admin.context import Context
from magnetar.broker.doors.admin.resources.policy_table import NOT_YET, POLICIES, Policy
from magnetar.broker.metadata.partitions import TopicRecord
from magnetar.broker.metadata.store import Store
from magnetar.names import TopicName
from tests.doors.admin.processes import Processes
from tests.tidy.policies_page import page

NS = "/admin/v2/namespaces/public/default"
TOPIC = "/admin/v2/persistent/public/default/orders"
ORDERS = TopicName.parse("orders")
ANY_LEVEL = [
    *((NS, policy.namespace, policy) for policy in POLICIES if policy.namespace),
    *((TOPIC, policy.topic, policy) for policy in POLICIES if policy.topic),
]
EACH = pytest.mark.parametrize(
    ("path", "policy"), [(f"{at}/{name}", policy) for at, name, policy in ANY_LEVEL]
)


@pytest.fixture
async def app(store: Store, new_context: Callable[..., Context]) -> AdminApp:
    context = new_context(store)
    await context.partitions.create_topic(ORDERS, TopicRecord())
    return AdminApp(context)


RATE = {
    "dispatchThrottlingRateInMsg": 100,
    "dispatchThrottlingRateInByte": -1,
    "relativeToPublishRate": False,
    "ratePeriodInSecond": 1,
}
OTHER = {"dispatchThrottlingRateInMsg": 3}
GOOD: dict[str, list[Any]] = {
    "retention": [
        {"retentionTimeInMinutes": 10, "retentionSizeInMB": -1},
        {"retentionTimeInMinutes": 0, "retentionSizeInMB": 0},
    ],
    "deduplication": [True, False],
    "persistence": [
        {
            "bookkeeperEnsemble": 3,
            "bookkeeperWriteQuorum": 2,
            "bookkeeperAckQuorum": 2,
            "managedLedgerMaxMarkDeleteRate": 1.5,
        }
    ],
    "auto_topic_creation": [
        {
            "allowAutoTopicCreation": True,
            "topicType": "partitioned",
            "defaultNumPartitions": 3,
        },
        {"allowAutoTopicCreation": False, "topicType": None, "defaultNumPartitions": None},
    ],
    "auto_subscription_creation": [{"allowAutoSubscriptionCreation": False}],
    "delayed_delivery": [{"active": False, "tickTime": 100, "maxDeliveryDelayInMillis": 0}],
    "inactive_topics": [
        {
            "inactiveTopicDeleteMode": "delete_when_subscriptions_caught_up",
            "maxInactiveDurationSeconds": 5,
            "deleteWhileInactive": True,
        }
    ],
    "subscription_types_enabled": [["Shared", "Failover"]],
    "subscription_auth_mode": ["Prefix", "None"],
    "encryption_required": [True],
    "replicator_dispatch_rate": [RATE],
    "dispatch_rate": [RATE],
    "subscription_dispatch_rate": [RATE | {"relativeToPublishRate": True}],
    "publish_rate": [{"publishThrottlingRateInMsg": 5, "publishThrottlingRateInByte": -1}],
    "subscribe_rate": [{"subscribeThrottlingRatePerConsumer": 5, "ratePeriodInSecond": 30}],
    "offload": [{"managedLedgerOffloadDriver": "filesystem"}],
    "pause_on_ack_state": [True],
    "anti_affinity_group": ["one"],
    "schema_strategy": ["FORWARD_TRANSITIVE"],
    "schema_strategy_legacy": ["AutoUpdateDisabled"],
    "schema_required": [True, False],
    "schema_updates_allowed": [True, False],
}
DISPATCH_BAD: list[tuple[Any, int]] = [
    ({"dispatchThrottlingRateInMsg": -2}, 412),
    ({"ratePeriodInSecond": 0}, 412),
    ({"ratePeriodInSecond": "x"}, 400),
]
BAD: dict[str, list[tuple[Any, int]]] = {
    "retention": [
        ({"retentionTimeInMinutes": 0, "retentionSizeInMB": 5}, 412),
        ({"retentionTimeInMinutes": -2, "retentionSizeInMB": -2}, 412),
        ({"retentionTimeInMinutes": "x"}, 400),
        (5, 400),
    ],
    "deduplication": [(1, 400), ("true", 400)],
    "auto_topic_creation": [
        ({"allowAutoTopicCreation": True, "topicType": "round"}, 412),
        ({"allowAutoTopicCreation": True, "topicType": "partitioned"}, 412),
    ],
    "subscription_types_enabled": [(["Sideways"], 400), ("Shared", 400)],
    "persistence": [
        ([], 400),
        ({"bookkeeperEnsemble": 1, "bookkeeperWriteQuorum": 2}, 412),
        ({"bookkeeperAckQuorum": 0}, 412),
    ],
    "auto_subscription_creation": [({"allowAutoSubscriptionCreation": "no"}, 400)],
    "delayed_delivery": [({"active": 3}, 400), ({"tickTime": -1}, 412)],
    "inactive_topics": [
        ({"maxInactiveDurationSeconds": "soon"}, 400),
        ({"inactiveTopicDeleteMode": "at_once"}, 412),
        ({"deleteWhileInactive": True, "maxInactiveDurationSeconds": 0}, 412),
    ],
    "subscription_auth_mode": [("prefix", 400), (1, 400)],
    "encryption_required": [("yes", 400)],
    "schema_strategy": [("SOMETIMES", 400), ("full", 400), (1, 400)],
    "schema_strategy_legacy": [("FULL", 400)],
    "schema_required": [("yes", 400)],
    "schema_updates_allowed": [("no", 400)],
    "replicator_dispatch_rate": DISPATCH_BAD,
    "dispatch_rate": DISPATCH_BAD,
    "subscription_dispatch_rate": DISPATCH_BAD,
    "publish_rate": [
        ({"publishThrottlingRateInByte": -2}, 412),
        ({"publishThrottlingRateInMsg": 1.5}, 400),
    ],
    "subscribe_rate": [({"ratePeriodInSecond": 0}, 412), (5, 400)],
    "offload": [([], 400)],
    "pause_on_ack_state": [(1, 400)],
    "anti_affinity_group": [("", 412), (5, 400)],
}
COUNTS_GOOD: list[Any] = [0, 5]
COUNTS_BAD: list[tuple[Any, int]] = [(-2, 412), (2**63, 412), ("five", 400), (1.5, 400), ({}, 400)]


async def is_unset(ask: Any, app: AdminApp, path: str, policy: Policy) -> bool:
    answer = await ask(app, "GET", path)
    return bool(answer.json == policy.unset if answer.body else policy.unset is None)


@EACH
async def test_a_policy_is_unset_set_shown_and_unset_again(
    ask: Any, app: AdminApp, path: str, policy: Policy
) -> None:
    assert await is_unset(ask, app, path, policy)
    for value in GOOD.get(policy.field, COUNTS_GOOD):
        for method in ("POST", "PUT"):
            assert (await ask(app, method, f"{path}?isGlobal=false", value)).status == 204
            assert (await ask(app, "GET", path)).json == value
            assert (await ask(app, "GET", f"{path}?applied=true")).json == value
    assert (await ask(app, "DELETE", path)).status == 204
    assert await is_unset(ask, app, path, policy)


@EACH
async def test_a_policy_with_a_wrong_value_changes_nothing(
    ask: Any, app: AdminApp, path: str, policy: Policy
) -> None:
    empty = 204 if policy.empty_unsets else 400
    for value, status in [
        *BAD.get(policy.field, COUNTS_BAD),
        (b"", empty),
        (b"{]", 400),
        (b'{"\xff":"\xff"}', 400),
    ]:
        headers = {"content-type": "application/json"}
        answer = await ask(app, "POST", path, value, headers)
        assert answer.status == status, value
        if status != 204:
            name, words = path.rpartition("/")[2], policy.words.partition("{")[0]
            assert name in answer.reason or (words and words in answer.reason)
        assert await is_unset(ask, app, path, policy)


async def test_a_namespace_is_not_made_for_another_cluster(ask: Any, app: AdminApp) -> None:
    path = "/admin/v2/namespaces/public/fresh"
    answer = await ask(app, "PUT", path, {"replication_clusters": ["mars"]})
    assert (answer.status, "replication is not supported" in answer.reason) == (412, True)
    assert (await ask(app, "GET", path)).status == 404
    assert (await ask(app, "PUT", path, {"replication_clusters": ["standalone"]})).status == 204


@pytest.mark.parametrize("name", ["retention", "dispatchRate", "backlogQuotaMap", "replication"])
async def test_a_policy_of_nothing_is_refused(ask: Any, app: AdminApp, name: str) -> None:
    for path, what in [
        ("namespaces/public/nothing", "Namespace does not exist"),
        ("persistent/public/nothing/t", "Namespace does not exist"),
        ("persistent/public/default/t", "topic persistent://public/default/t does not exist"),
        ("non-persistent/public/default/t", "topic non-persistent://public/default/t does"),
    ]:
        answer = await ask(app, "GET", f"/admin/v2/{path}/{name}")
        assert answer.status == 404
        assert answer.reason.startswith(what)


@pytest.mark.parametrize(
    ("at", "name"),
    [(at, name) for at, level in ((NS, "namespace"), (TOPIC, "topic")) for name in NOT_YET[level]],
)
async def test_a_policy_that_nobody_would_keep_is_refused_by_name(
    ask: Any, app: AdminApp, at: str, name: str
) -> None:
    assert (await ask(app, "GET", f"{at}/{name}")).status == 204
    answer = await ask(app, "POST", f"{at}/{name}", 1)
    assert (answer.status, answer.reason) == (
        405,
        f"the policy {name} is not supported by this broker",
    )


async def test_what_is_applied_is_the_topics_else_the_namespaces_else_the_brokers(
    ask: Any, app: AdminApp
) -> None:
    path = f"{TOPIC}/maxProducers"
    applied = f"{path}?applied=true"
    assert (await ask(app, "GET", applied)).json == 0
    await ask(app, "POST", f"{NS}/maxProducersPerTopic", 7)
    assert (await ask(app, "GET", applied)).json == 7
    assert (await ask(app, "GET", path)).status == 204
    await ask(app, "POST", path, 3)
    assert (await ask(app, "GET", applied)).json == 3
    await ask(app, "DELETE", path)
    assert (await ask(app, "GET", applied)).json == 7
    assert (await ask(app, "GET", f"{NS}/messageTTL?applied=true")).json == 0
    assert (await ask(app, "GET", f"{NS}/retention?applied=true")).json == {
        "retentionTimeInMinutes": -1,
        "retentionSizeInMB": -1,
    }


async def test_partitions_have_the_policies_of_their_topic(
    ask: Any, store: Store, app: AdminApp, new_context: Callable[..., Context]
) -> None:
    await new_context(store).partitions.create_partitioned(TopicName.parse("many"), 3, 0)
    many = "/admin/v2/persistent/public/default/many"
    assert (await ask(app, "POST", f"{many}-partition-1/maxConsumers", 4)).status == 204
    assert (await ask(app, "GET", f"{many}/maxConsumers")).json == 4
    assert (await ask(app, "GET", f"{many}-partition-2/maxConsumers")).json == 4


async def test_a_time_to_live_may_be_in_the_query_as_pulsars_tools_have_it(
    ask: Any, app: AdminApp
) -> None:
    path = f"{TOPIC}/messageTTL"
    assert (await ask(app, "POST", f"{path}?messageTTL=90")).status == 204
    assert (await ask(app, "GET", path)).json == 90
    assert (await ask(app, "POST", f"{path}?messageTTL=-1")).status == 412
    assert (await ask(app, "POST", f"{path}?messageTTL=soon")).status == 400


async def test_deduplication_that_an_older_version_switched_on_is_shown_and_can_be_unset(
    ask: Any, app: AdminApp, store: Store, new_context: Callable[..., Context]
) -> None:
    partitions = new_context(store).partitions

    def switch_on(record: TopicRecord) -> None:
        record.deduplication = True

    await partitions.update_topic(ORDERS, switch_on)
    path = f"{TOPIC}/deduplicationEnabled"
    assert (await ask(app, "GET", path)).json is True
    assert (await ask(app, "DELETE", path)).status == 204
    assert (await ask(app, "GET", path)).status == 204
    record = await partitions.topic(ORDERS)
    assert record is not None
    assert record.deduplication is None


# --- backlog quotas -----------------------------------------------------------------------


@pytest.mark.parametrize("at", [NS, TOPIC])
async def test_backlog_quotas_are_kept_by_kind(ask: Any, app: AdminApp, at: str) -> None:
    size = {"limit": 1024, "limitSize": 1024, "limitTime": -1, "policy": "producer_exception"}
    age = {"limit": -1, "limitSize": -1, "limitTime": 60, "policy": "consumer_backlog_eviction"}
    assert (await ask(app, "POST", f"{at}/backlogQuota", size)).status == 204
    kind = "?backlogQuotaType=message_age"
    assert (await ask(app, "POST", f"{at}/backlogQuota{kind}", age)).status == 204
    shown = (await ask(app, "GET", f"{at}/backlogQuotaMap")).json
    assert shown == {"destination_storage": size, "message_age": age}
    assert (await ask(app, "GET", f"{at}/backlogQuotaMap?applied=true")).json == shown
    assert (await ask(app, "DELETE", f"{at}/backlogQuota")).status == 204
    assert (await ask(app, "GET", f"{at}/backlogQuotaMap")).json == {"message_age": age}


@pytest.mark.parametrize(
    ("query", "body", "status"),
    [
        ("?backlogQuotaType=colour", {"limitSize": 1}, 412),
        ("", {"limitSize": 1, "policy": "shrug"}, 412),
        ("?backlogQuotaType=message_age", {"limitSize": 1}, 412),
        ("", b"", 400),
        ("", {"limitSize": "much"}, 400),
    ],
)
async def test_a_backlog_quota_that_cannot_be_is_refused(
    ask: Any, app: AdminApp, query: str, body: object, status: int
) -> None:
    for at in (NS, TOPIC):
        assert (await ask(app, "POST", f"{at}/backlogQuota{query}", body)).status == status
        assert (await ask(app, "GET", f"{at}/backlogQuotaMap")).json == {}


async def test_a_backlog_quota_may_be_in_the_words_of_older_tools(ask: Any, app: AdminApp) -> None:
    old = {"limit": 2048, "policy": "producer_exception"}
    assert (await ask(app, "POST", f"{NS}/backlogQuota", old)).status == 204
    shown = (await ask(app, "GET", f"{NS}/backlogQuotaMap")).json
    assert shown["destination_storage"]["limitSize"] == 2048
    as_text = {"limit": "4096", "policy": "producer_exception"}
    assert (await ask(app, "POST", f"{NS}/backlogQuota", as_text)).status == 204
    shown = (await ask(app, "GET", f"{NS}/backlogQuotaMap")).json
    assert shown["destination_storage"]["limitSize"] == 4096
    no_number = {"limit": "much", "policy": "producer_exception"}
    assert (await ask(app, "POST", f"{NS}/backlogQuota", no_number)).status in {400, 412}


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (f"{NS}/maxTopicsPerNamespace", -1, "maxTopicsPerNamespace must be 0 or more"),
        (f"{TOPIC}/maxProducers", -1, "maxProducers must be 0 or more"),
        (
            f"{NS}/subscriptionExpirationTime",
            -60,
            "Invalid value for subscription expiration time",
        ),
        (f"{NS}/offloadThresholdInSeconds", -60, "Invalid value for offloadThresholdInSecond"),
        (
            f"{NS}/autoTopicCreation",
            {"allowAutoTopicCreation": True, "topicType": "partitioned"},
            (
                "Invalid configuration for autoTopicCreationOverride. the detail is"
                " [defaultNumPartitions] cannot be null when the type is partitioned."
            ),
        ),
    ],
)
async def test_a_refusal_is_in_the_words_that_scripts_compare(
    ask: Any, app: AdminApp, path: str, value: object, reason: str
) -> None:
    answer = await ask(app, "POST", path, value)
    assert (answer.status, answer.reason) == (412, reason)


async def test_a_number_may_be_in_quotes(ask: Any, app: AdminApp) -> None:
    assert (await ask(app, "POST", f"{NS}/maxProducersPerTopic", "5")).status == 204
    assert (await ask(app, "GET", f"{NS}/maxProducersPerTopic")).json == 5
    for wrong in ("-5", "5 ", "0x5", ""):
        answer = await ask(app, "POST", f"{NS}/maxProducersPerTopic", wrong)
        assert answer.status in {400, 412}, wrong
    assert (await ask(app, "GET", f"{NS}/maxProducersPerTopic")).json == 5
    assert (await ask(app, "POST", f"{NS}/deduplication", "1")).status == 400


async def test_the_kind_of_topics_that_are_not_made_is_of_no_consequence(
    ask: Any, app: AdminApp
) -> None:
    off = {"allowAutoTopicCreation": False, "topicType": "", "defaultNumPartitions": None}
    assert (await ask(app, "POST", f"{NS}/autoTopicCreation", off)).status == 204
    on = {**off, "allowAutoTopicCreation": True}
    assert (await ask(app, "POST", f"{NS}/autoTopicCreation", on)).status == 412


@pytest.mark.parametrize("at", [NS, TOPIC])
async def test_retention_that_is_smaller_than_the_backlog_quota_is_refused_either_way(
    ask: Any, app: AdminApp, at: str
) -> None:
    kept = {"retentionTimeInMinutes": 60, "retentionSizeInMB": 10}
    assert (await ask(app, "POST", f"{at}/retention", kept)).status == 204
    large = {"limitSize": 10 * 2**20, "policy": "producer_exception"}
    answer = await ask(app, "POST", f"{at}/backlogQuota", large)
    assert answer.status == 412
    assert "raise retentionSizeInMB above the quota" in answer.reason
    small = {"limitSize": 9 * 2**20, "policy": "producer_exception"}
    assert (await ask(app, "POST", f"{at}/backlogQuota", small)).status == 204
    less = {"retentionTimeInMinutes": 60, "retentionSizeInMB": 5}
    assert (await ask(app, "POST", f"{at}/retention", less)).status == 412
    assert (await ask(app, "GET", f"{at}/retention")).json == kept
    old = {"limitTime": 3600, "policy": "producer_exception"}
    answer = await ask(app, "POST", f"{at}/backlogQuota?backlogQuotaType=message_age", old)
    assert answer.status == 412
    assert "raise retentionTimeInMinutes" in answer.reason
    # What keeps nothing, or everything, contradicts no quota.
    for minutes, mebibytes in ((0, 0), (-1, -1)):
        body = {"retentionTimeInMinutes": minutes, "retentionSizeInMB": mebibytes}
        assert (await ask(app, "POST", f"{at}/retention", body)).status == 204


async def test_a_topic_is_not_set_against_its_namespace(ask: Any, app: AdminApp) -> None:
    quota = {"limitSize": 10 * 2**20, "policy": "producer_exception"}
    assert (await ask(app, "POST", f"{NS}/backlogQuota", quota)).status == 204
    kept = {"retentionTimeInMinutes": 60, "retentionSizeInMB": 5}
    assert (await ask(app, "POST", f"{TOPIC}/retention", kept)).status == 412
    # What stood in contradiction before does not keep other policies from being set.
    assert (await ask(app, "DELETE", f"{NS}/backlogQuota")).status == 204
    assert (await ask(app, "POST", f"{TOPIC}/retention", kept)).status == 204
    assert (await ask(app, "POST", f"{NS}/backlogQuota", quota)).status == 204
    assert (await ask(app, "POST", f"{TOPIC}/maxProducers", 5)).status == 204


@pytest.mark.parametrize("at", [NS, TOPIC])
async def test_pulsars_clients_take_the_snapshot_interval_back_with_nothing(
    ask: Any, app: AdminApp, at: str
) -> None:
    path = f"{at}/deduplicationSnapshotInterval"
    for nothing in (b"", b"null"):
        assert (await ask(app, "POST", path, 7)).status == 204
        assert (await ask(app, "POST", path, nothing)).status == 204
        assert (await ask(app, "GET", path)).status == 204


async def test_one_subscription_may_have_a_rate_of_its_own(ask: Any, app: AdminApp) -> None:
    path = f"{TOPIC}/billing/dispatchRate"
    assert (await ask(app, "GET", path)).status == 204
    assert (await ask(app, "POST", path, RATE)).status == 204
    assert (await ask(app, "GET", path)).json == RATE
    assert (await ask(app, "GET", f"{TOPIC}/other/dispatchRate")).status == 204
    assert (await ask(app, "POST", path, {"ratePeriodInSecond": 0})).status == 412
    assert (await ask(app, "DELETE", path)).status == 204
    assert (await ask(app, "GET", path)).status == 204


async def test_a_subscription_without_a_rate_of_its_own_shows_what_holds_for_it(
    ask: Any, app: AdminApp
) -> None:
    path = f"{TOPIC}/billing/dispatchRate?applied=true"
    assert (await ask(app, "GET", path)).json["dispatchThrottlingRateInMsg"] == -1
    assert (await ask(app, "POST", f"{NS}/subscriptionDispatchRate", RATE)).status == 204
    assert (await ask(app, "GET", path)).json == RATE
    assert (await ask(app, "POST", f"{TOPIC}/billing/dispatchRate", RATE | OTHER)).status == 204
    assert (await ask(app, "GET", path)).json == RATE | OTHER


async def test_everything_that_is_set_on_a_topic_is_taken_back_at_once(
    ask: Any, app: AdminApp
) -> None:
    await ask(app, "POST", f"{TOPIC}/maxProducers", 5)
    await ask(app, "POST", f"{TOPIC}/billing/dispatchRate", RATE)
    await ask(app, "POST", f"{NS}/maxConsumersPerTopic", 7)
    assert (await ask(app, "DELETE", f"{TOPIC}/policies?authoritative=false")).status == 204
    assert (await ask(app, "GET", f"{TOPIC}/maxProducers")).status == 204
    assert (await ask(app, "GET", f"{TOPIC}/billing/dispatchRate")).status == 204
    assert (await ask(app, "GET", f"{TOPIC}/maxConsumers?applied=true")).json == 7
    missing = "/admin/v2/persistent/public/default/missing/policies"
    assert (await ask(app, "DELETE", missing)).status == 404


async def test_a_namespace_is_not_made_with_policies_that_cannot_be(
    ask: Any, app: AdminApp
) -> None:
    path = "/admin/v2/namespaces/public/fresh"
    for body in (
        {"message_ttl_in_seconds": -1},
        {"max_producers_per_topic": -1},
        {"backlog_quota_map": {"destination_storage": {"limitSize": 1, "policy": "shrug"}}},
        {"backlog_quota_map": {"colour": {"limitSize": 1}}},
        {
            "backlog_quota_map": {"destination_storage": {"limitSize": 2**30}},
            "retention_policies": {"retentionTimeInMinutes": 5, "retentionSizeInMB": 5},
        },
    ):
        assert (await ask(app, "PUT", path, body)).status == 412
    assert (await ask(app, "PUT", path, {"max_producers_per_topic": 1})).status == 204


# --- replication --------------------------------------------------------------------------


async def test_a_namespace_lives_on_this_cluster_only(ask: Any, app: AdminApp) -> None:
    assert (await ask(app, "GET", f"{NS}/replication")).json == ["standalone"]
    for at in (NS, TOPIC):
        assert (await ask(app, "POST", f"{at}/replication", ["standalone"])).status == 204
        assert (await ask(app, "POST", f"{at}/replication", ["standalone", "mars"])).status == 412
        assert (await ask(app, "GET", f"{at}/replication")).json == ["standalone"]
    assert (await ask(app, "DELETE", f"{TOPIC}/replication")).status == 204
    assert (await ask(app, "GET", f"{TOPIC}/replication")).status == 204


async def test_what_is_set_on_a_topic_goes_with_it(ask: Any, one: Processes) -> None:
    await ask(one.front, "PUT", TOPIC)
    assert (await ask(one.front, "POST", f"{TOPIC}/maxProducers", 1)).status == 204
    assert (await ask(one.front, "DELETE", TOPIC)).status == 204
    await ask(one.front, "PUT", TOPIC)
    assert (await ask(one.front, "GET", f"{TOPIC}/maxProducers")).status == 204


async def test_what_is_set_on_a_topic_holds_at_once_where_it_is_served(
    ask: Any, two: Processes
) -> None:
    many = "/admin/v2/persistent/public/default/many"
    await ask(two.front, "PUT", f"{many}/partitions", 4)
    names = [TopicName.parse(f"many-partition-{i}") for i in range(4)]
    topics = [await two.owner(str(name)).catalog.topic(name) for name in names]
    await ask(two.front, "POST", f"{many}/maxProducers", 3)
    await _turns()
    assert [topic.rules.producers_max for topic in topics] == [3] * 4
    await ask(two.front, "POST", f"{NS}/maxConsumersPerTopic", 2)
    await _turns()
    assert [(t.rules.producers_max, t.rules.consumers_max) for t in topics] == [(3, 2)] * 4
    await ask(two.front, "DELETE", f"{many}/maxProducers")
    await _turns()
    assert [topic.rules.producers_max for topic in topics] == [0] * 4


async def _turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_the_page_of_policies_is_what_the_table_says() -> None:
    written = Path(__file__).parents[4] / "docs" / "reference" / "policies.md"
    assert written.read_text() == page(), "run tests/tidy/policies_page.py again"
