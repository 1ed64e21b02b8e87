"""Namespaces and their policies."""

import asyncio
from typing import Any

import pytest

from magnetar.broker.metadata.documents import InvalidDocumentError
from magnetar.broker.metadata.facts import AlreadyExistsError, NotEmptyError
from magnetar.broker.metadata.namespaces import Namespaces
from magnetar.broker.metadata.partitions import Partitions, TopicRecord
from magnetar.broker.metadata.policies import AutoTopicCreation, BacklogQuota, Policies, Retention
from magnetar.broker.metadata.store import Store
from magnetar.broker.metadata.tenants import Tenant, TenantNotFoundError, Tenants
from magnetar.broker.port import NamespaceNotFoundError
from magnetar.names import NamespaceName, TopicName

NAME = NamespaceName("t", "n")

PULSARS_OWN_JSON: dict[str, Any] = {
    "auth_policies": {
        "namespace_auth": {"anna": ["produce"]},
        "destination_auth": {},
        "subscription_auth_roles": {},
    },
    "replication_clusters": ["standalone"],
    "bundles": {"boundaries": ["0x00000000", "0xffffffff"], "numBundles": 1},
    "backlog_quota_map": {
        "destination_storage": {
            "limit": 1073741824,
            "limitSize": 1073741824,
            "limitTime": -1,
            "policy": "producer_exception",
        }
    },
    "persistence": {
        "bookkeeperEnsemble": 3,
        "bookkeeperWriteQuorum": 2,
        "bookkeeperAckQuorum": 2,
        "managedLedgerMaxMarkDeleteRate": 1.5,
    },
    "retention_policies": {"retentionTimeInMinutes": 60, "retentionSizeInMB": -1},
    "message_ttl_in_seconds": 3600,
    "deduplicationEnabled": True,
    "autoTopicCreationOverride": {
        "allowAutoTopicCreation": True,
        "topicType": "partitioned",
        "defaultNumPartitions": 3,
    },
    "autoSubscriptionCreationOverride": {"allowAutoSubscriptionCreation": False},
    "max_producers_per_topic": 5,
    "max_consumers_per_subscription": 7,
    "schema_compatibility_strategy": "FULL",
    "schema_validation_enforced": False,
    "topicDispatchRate": {
        "standalone": {
            "dispatchThrottlingRateInMsg": 10,
            "dispatchThrottlingRateInByte": -1,
            "relativeToPublishRate": False,
            "ratePeriodInSecond": 1,
        }
    },
    "properties": {"team": "sensors"},
}


@pytest.fixture
async def namespaces(store: Store) -> Namespaces:
    await Tenants(store).create("t", Tenant())
    return Namespaces(store)


def test_pulsars_own_json_goes_in_and_comes_out_whole() -> None:
    policies = Policies.from_dict(PULSARS_OWN_JSON)
    assert policies.to_dict() == PULSARS_OWN_JSON
    assert policies.retention == Retention(time_min=60, size_mib=-1)
    assert policies.backlog_quotas["destination_storage"].limit_bytes == 1 << 30
    assert policies.deduplication is True
    assert policies.message_ttl_s == 3600
    assert policies.auto_topic_creation is not None
    assert policies.auto_topic_creation.partitions == 3
    assert policies.producers_per_topic_max == 5


def test_nothing_set_is_none_everywhere() -> None:
    policies = Policies()
    assert policies.retention is None
    assert policies.deduplication is None
    assert policies.message_ttl_s is None
    assert policies.to_dict() == {
        "replication_clusters": [],
        "backlog_quota_map": {},
        "properties": {},
    }


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"retentionTimeInMinutes": 0, "retentionSizeInMB": 10}, "both zero or both not"),
        ({"retentionTimeInMinutes": 10, "retentionSizeInMB": 0}, "both zero or both not"),
        ({"retentionTimeInMinutes": -2, "retentionSizeInMB": -1}, "-1"),
        ({"retentionTimeInMinutes": "x", "retentionSizeInMB": -1}, "int"),
    ],
)
def test_retention_that_makes_no_sense_is_refused_with_the_reason(
    data: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidDocumentError, match=reason):
        Retention.from_dict(data)
    with pytest.raises(InvalidDocumentError, match=reason):
        Policies.from_dict({"retention_policies": data})


@pytest.mark.parametrize(
    "data",
    [{"topicType": 5}, {"defaultNumPartitions": "four"}, {"allowAutoTopicCreation": 1}],
)
def test_automatic_topics_that_make_no_sense_are_refused(data: dict[str, Any]) -> None:
    with pytest.raises(InvalidDocumentError):
        AutoTopicCreation.from_dict(data)


async def test_a_namespace_is_created_listed_and_deleted(
    store: Store, namespaces: Namespaces
) -> None:
    await Tenants(store).create("tt", Tenant())
    for name in (NamespaceName("tt", "a"), NAME, NamespaceName("t", "a")):
        await namespaces.create(name)
    assert [str(name) for name in await namespaces.list("t")] == ["t/a", "t/n"]
    assert [str(name) for name in await namespaces.list()] == ["t/a", "t/n", "tt/a"]
    assert await namespaces.exists(NAME)
    await namespaces.delete(NAME)
    assert not await namespaces.exists(NAME)


async def test_a_namespace_needs_its_tenant_and_is_created_once(namespaces: Namespaces) -> None:
    with pytest.raises(TenantNotFoundError, match="tenant x does not exist"):
        await namespaces.create(NamespaceName("x", "n"))
    await namespaces.create(NAME)
    with pytest.raises(AlreadyExistsError, match="namespace t/n already exists"):
        await namespaces.create(NAME)


async def test_a_namespace_that_is_not_there_is_said_to_be_missing(namespaces: Namespaces) -> None:
    for refused in (namespaces.get(NAME), namespaces.delete(NAME), namespaces.update(NAME, print)):
        with pytest.raises(NamespaceNotFoundError, match="namespace t/n does not exist"):
            await refused


@pytest.mark.parametrize("domain", ["persistent", "non-persistent"])
@pytest.mark.parametrize("partitions", [0, 2])
async def test_a_namespace_with_topics_stays(
    store: Store, namespaces: Namespaces, domain: str, partitions: int
) -> None:
    await namespaces.create(NAME)
    topic = TopicName.parse(f"{domain}://t/n/x")
    if partitions:
        await Partitions(store).create_partitioned(topic, partitions, created_ms=1)
    else:
        await Partitions(store).create_topic(topic, TopicRecord())
    with pytest.raises(NotEmptyError, match="still has topics"):
        await namespaces.delete(NAME)


async def test_policies_change_field_by_field_and_rivals_lose_nothing(
    namespaces: Namespaces,
) -> None:
    await namespaces.create(NAME, Policies.from_dict(PULSARS_OWN_JSON))

    def set_ttl(policies: Policies) -> None:
        policies.message_ttl_s = 5

    def set_quota(policies: Policies) -> None:
        policies.backlog_quotas["message_age"] = BacklogQuota(limit_seconds=60)

    await asyncio.gather(namespaces.update(NAME, set_ttl), namespaces.update(NAME, set_quota))
    policies = await namespaces.get(NAME)
    assert policies.message_ttl_s == 5
    assert policies.backlog_quotas.keys() == {"destination_storage", "message_age"}
    assert policies.to_dict()["schema_compatibility_strategy"] == "FULL"


async def test_what_a_change_raises_comes_out_and_nothing_is_stored(namespaces: Namespaces) -> None:
    await namespaces.create(NAME)

    def refuse(policies: Policies) -> None:
        policies.message_ttl_s = 5
        raise ValueError("planted")

    with pytest.raises(ValueError, match="planted"):
        await namespaces.update(NAME, refuse)
    assert (await namespaces.get(NAME)).message_ttl_s is None


async def test_a_watcher_hears_which_namespaces_changed(namespaces: Namespaces) -> None:
    heard: list[NamespaceName] = []
    stop = namespaces.watch(heard.extend)
    await namespaces.create(NAME)
    await namespaces.update(NAME, lambda policies: None)
    await namespaces.delete(NAME)
    stop()
    await namespaces.create(NAME)
    assert heard == [NAME, NAME, NAME]
