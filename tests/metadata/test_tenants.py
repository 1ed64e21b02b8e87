"""Tenants and clusters."""

import pytest

from magnetar.broker.metadata.facts import AlreadyExistsError, NotEmptyError, NotFoundError
from magnetar.broker.metadata.namespaces import Namespaces
from magnetar.broker.metadata.store import Store
from magnetar.broker.metadata.tenants import (
    Cluster,
    Clusters,
    Tenant,
    TenantNotFoundError,
    Tenants,
)
from magnetar.names import InvalidNameError, NamespaceName


async def test_a_tenant_is_created_changed_listed_and_deleted(store: Store) -> None:
    tenants = Tenants(store)
    await tenants.create("b", Tenant(admin_roles=["anna"], allowed_clusters=["standalone"]))
    await tenants.create("a", Tenant())
    assert await tenants.list() == ["a", "b"]
    assert (await tenants.get("b")).admin_roles == ["anna"]
    await tenants.replace("b", Tenant.from_dict({"adminRoles": [], "allowedClusters": ["west"]}))
    assert (await tenants.get("b")).to_dict() == {"adminRoles": [], "allowedClusters": ["west"]}
    await tenants.delete("b")
    assert await tenants.list() == ["a"]


async def test_a_tenant_that_is_not_there_is_said_to_be_missing(store: Store) -> None:
    tenants = Tenants(store)
    with pytest.raises(TenantNotFoundError, match="tenant x does not exist"):
        await tenants.get("x")
    with pytest.raises(TenantNotFoundError, match="tenant x does not exist"):
        await tenants.delete("x")
    with pytest.raises(NotFoundError, match="tenant x does not exist"):
        await tenants.replace("x", Tenant())


async def test_a_tenant_is_created_once_and_under_a_name_that_can_be_one(store: Store) -> None:
    tenants = Tenants(store)
    await tenants.create("a", Tenant())
    with pytest.raises(AlreadyExistsError, match="tenant a already exists"):
        await tenants.create("a", Tenant())
    with pytest.raises(InvalidNameError):
        await tenants.create("a/b", Tenant())


async def test_a_tenant_with_namespaces_stays(store: Store) -> None:
    tenants, namespaces = Tenants(store), Namespaces(store)
    await tenants.create("a", Tenant())
    await tenants.create("ab", Tenant())
    await namespaces.create(NamespaceName("a", "n"))
    with pytest.raises(NotEmptyError, match="still has namespaces"):
        await tenants.delete("a")
    await namespaces.delete(NamespaceName("a", "n"))
    await namespaces.create(NamespaceName("ab", "n"))
    await tenants.delete("a")
    assert await tenants.list() == ["ab"]


async def test_a_cluster_is_created_changed_listed_and_deleted(store: Store) -> None:
    clusters = Clusters(store)
    data = {"serviceUrl": "http://w:8080", "authenticationPlugin": "x"}
    await clusters.create("west", Cluster.from_dict(data))
    assert await clusters.list() == ["west"]
    assert (await clusters.get("west")).to_dict() == data
    await clusters.replace("west", Cluster(broker_service_url="pulsar://w:6650"))
    assert (await clusters.get("west")).to_dict() == {"brokerServiceUrl": "pulsar://w:6650"}
    with pytest.raises(AlreadyExistsError, match="cluster west already exists"):
        await clusters.create("west", Cluster())
    await clusters.delete("west")
    for refused in (
        clusters.get("west"),
        clusters.delete("west"),
        clusters.replace("west", Cluster()),
    ):
        with pytest.raises(NotFoundError, match="cluster west does not exist"):
            await refused
