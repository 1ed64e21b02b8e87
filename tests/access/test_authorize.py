"""The one place that says yes or no: it follows the metadata, and gives nothing away."""

import asyncio

import pytest

from magnetar.broker.access.authorize import Access, Grantor
from magnetar.broker.access.caller import BROKER, NOBODY, Caller
from magnetar.broker.access.permissions import Known
from magnetar.broker.access.rights import AuthorizationError, Demand, Resource, Right, TenantName
from magnetar.broker.metadata import paths
from magnetar.broker.metadata.grants import Grants
from magnetar.broker.metadata.policies import Policies
from magnetar.broker.metadata.store import Put
from magnetar.broker.metadata.tenants import Tenant, Tenants
from magnetar.names import NamespaceName, TopicName
from tests.access.conftest import HERE, Guard, new_guard

TOPIC = TopicName.parse("persistent://here/ns/t")


def may(access: Access, role: str, right: Right, resource: Resource = TOPIC) -> bool:
    return access.allows(Caller(role), (Demand(right, resource),))


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_what_is_granted_at_the_start_holds(guard: Guard) -> None:
    access = guard.access
    assert may(access, "producer", Right.PRODUCE)
    assert not may(access, "producer", Right.CONSUME)
    assert may(access, "admin", Right.NAMESPACE, HERE)
    assert may(access, "root", Right.SUPERUSER, None)


async def test_a_change_of_grants_is_followed(guard: Guard) -> None:
    told: list[int] = []
    guard.access.grantor.when_changed(lambda: told.append(1))

    def change(policies: Policies) -> None:
        policies.grants = Grants(namespace={"late": ["produce"]})

    await guard.namespaces.update(HERE, change)
    await settled()
    assert may(guard.access, "late", Right.PRODUCE)
    assert not may(guard.access, "producer", Right.PRODUCE)
    assert told


async def test_administrators_come_and_go_with_their_tenant(guard: Guard) -> None:
    tenants = Tenants(guard.store)
    await tenants.create("new", Tenant(admin_roles=["anna"]))
    await settled()
    assert may(guard.access, "anna", Right.TENANT, TenantName("new"))
    await tenants.delete("new")
    await settled()
    assert not may(guard.access, "anna", Right.TENANT, TenantName("new"))


async def test_a_no_is_not_spoken_before_the_metadata_were_looked_at(guard: Guard) -> None:
    # As if another process had granted it a moment ago, and nobody told us yet.
    blind = Access(Grantor(guard.store, Known()), guard.access.authenticator)
    demand = (Demand(Right.PRODUCE, TOPIC),)
    assert not blind.allows(Caller("producer"), demand)
    await blind.authorize(Caller("producer"), demand)
    with pytest.raises(AuthorizationError):
        await blind.authorize(Caller("consumer"), demand)


async def test_the_absent_and_the_forbidden_are_refused_in_the_same_words(guard: Guard) -> None:
    said = set()
    for topic in ("there/ns/t", "there/absent/t", "absent/ns/t"):
        with pytest.raises(AuthorizationError) as refusal:
            await guard.access.authorize(
                Caller("producer"), (Demand(Right.PRODUCE, TopicName.parse(topic)),)
            )
        said.add(str(refusal.value))
    assert len(said) == 1


async def test_grants_that_cannot_be_read_grant_nothing(guard: Guard) -> None:
    await guard.store.commit([Put(paths.namespace(HERE), b'{"auth_policies": 7}')])
    await settled()
    assert not may(guard.access, "producer", Right.PRODUCE)
    assert may(guard.access, "admin", Right.PRODUCE), "the tenant is another fact"


def test_a_proxy_and_whom_it_speaks_for_must_both_be_allowed(guard: Guard) -> None:
    demand = (Demand(Right.PRODUCE, TOPIC),)
    assert not guard.access.allows(Caller("proxy", original="producer"), demand)
    assert not guard.access.allows(Caller("producer", original="stranger"), demand)
    assert guard.access.allows(Caller("producer", original="admin"), demand)


def test_the_broker_may_do_everything_and_nobody_nothing(guard: Guard) -> None:
    demand = (Demand(Right.SUPERUSER),)
    assert guard.access.allows(BROKER, demand)
    assert not guard.access.allows(NOBODY, demand)
    assert not guard.access.allows(Caller("broker", "token"), demand)


async def test_every_demand_must_be_met(guard: Guard) -> None:
    both = (Demand(Right.PRODUCE, TOPIC), Demand(Right.CONSUME, TOPIC))
    assert not guard.access.allows(Caller("producer"), both)
    assert guard.access.allows(Caller("on-topic"), both)


async def test_wildcards_are_a_setting(guard: Guard) -> None:
    def change(policies: Policies) -> None:
        policies.grants = Grants(namespace={"team-*": ["produce"]})

    await guard.namespaces.update(HERE, change)
    loose = new_guard(guard.store, wildcards=True)
    await loose.access.grantor.start()
    assert may(loose.access, "team-7", Right.PRODUCE)
    assert not may(guard.access, "team-7", Right.PRODUCE)
    await loose.access.grantor.stop()


def test_a_namespace_name_is_taken_literally(guard: Guard) -> None:
    for name in ("Here/ns", "here/NS", "here/ns.", "h\u0435re/ns"):  # the last e is Cyrillic
        assert not may(guard.access, "producer", Right.PRODUCE, NamespaceName.parse(name))
