"""What every data folder has before anybody asked for anything."""

import asyncio

import pytest

from magnetar.broker.metadata.first_start import furnish_namespace, furnish_tenant, prepare
from magnetar.broker.metadata.memory import MemoryStore
from magnetar.broker.metadata.namespaces import Namespaces
from magnetar.broker.metadata.policies import Policies
from magnetar.broker.metadata.store import Store, Versioned
from magnetar.broker.metadata.tenants import Clusters, Tenant, Tenants
from magnetar.names import NamespaceName


async def test_clients_find_what_they_expect(store: Store) -> None:
    await prepare(store, "standalone")
    assert await Clusters(store).list() == ["standalone"]
    assert await Tenants(store).list() == ["public", "pulsar"]
    names = [str(name) for name in await Namespaces(store).list()]
    assert names == ["public/default", "public/functions", "pulsar/system"]
    policies = await Namespaces(store).get(NamespaceName("public", "default"))
    assert policies.replication_clusters == ["standalone"]


async def test_what_an_administrator_deleted_does_not_come_back(store: Store) -> None:
    await prepare(store, "standalone")
    await Namespaces(store).delete(NamespaceName("public", "functions"))
    await prepare(store, "standalone")
    assert not await Namespaces(store).exists(NamespaceName("public", "functions"))


@pytest.mark.parametrize("commits", range(6))
async def test_a_first_start_that_was_cut_short_is_made_good(commits: int) -> None:
    class Dying(MemoryStore):
        left = commits

        async def commit(self, changes: object) -> list[int | None]:
            if not self.left:
                raise OSError("planted")
            self.left -= 1
            return await super().commit(changes)  # type: ignore[arg-type]

    store = Dying()
    with pytest.raises(OSError, match="planted"):
        await prepare(store, "standalone")
    store.left = 100
    await prepare(store, "standalone")
    assert len(await Namespaces(store).list()) == 3
    assert await Clusters(store).list() == ["standalone"]


async def test_processes_that_start_together_do_not_trip_over_each_other() -> None:
    class Slow(MemoryStore):
        async def get(self, key: str) -> Versioned | None:
            found = await super().get(key)
            await asyncio.sleep(0)
            return found

    store = Slow()
    await asyncio.gather(prepare(store, "standalone"), prepare(store, "standalone"))
    assert await Clusters(store).list() == ["standalone"]


async def test_what_the_first_start_made_is_furnished_once_and_what_people_made_is_not() -> None:
    store = MemoryStore()
    await prepare(store, "c")
    tenants, namespaces = Tenants(store), Namespaces(store)
    wanted = Tenant(admin_roles=["anna"], allowed_clusters=["c"])
    assert await furnish_tenant(tenants, "public", wanted, "c")
    assert not await furnish_tenant(tenants, "public", Tenant(admin_roles=["eve"]), "c")
    assert not await furnish_tenant(tenants, "pulsar", wanted, "c")
    assert (await tenants.get("public")).admin_roles == ["anna"]

    default = NamespaceName("public", "default")
    policies = Policies(message_ttl_s=5)
    assert await furnish_namespace(namespaces, default, policies, "c")
    assert not await furnish_namespace(namespaces, default, Policies(message_ttl_s=9), "c")
    assert not await furnish_namespace(namespaces, NamespaceName("pulsar", "system"), policies, "c")
    assert (await namespaces.get(default)).message_ttl_s == 5
