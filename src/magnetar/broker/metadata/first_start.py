"""The first start: what every data folder has before anybody asked for anything."""

from contextlib import suppress

import msgspec

from magnetar.broker.metadata.facts import AlreadyExistsError
from magnetar.broker.metadata.namespaces import Namespaces
from magnetar.broker.metadata.policies import Policies
from magnetar.broker.metadata.store import Store
from magnetar.broker.metadata.tenants import Cluster, Clusters, Tenant, Tenants
from magnetar.names import NamespaceName

TENANTS = ("public", "pulsar")
NAMESPACES = (
    NamespaceName("public", "default"),
    NamespaceName("public", "functions"),
    NamespaceName("pulsar", "system"),
)


async def prepare(store: Store, cluster: str) -> None:
    """Make the cluster, the tenants and the namespaces that clients expect, once.

    The cluster comes last: a start that is cut short is made good by the next one, and what
    an administrator deletes later does not come back.
    """
    clusters, tenants, namespaces = Clusters(store), Tenants(store), Namespaces(store)
    if cluster in await clusters.list():
        return
    # What exists already: from a start that was cut short, or by a process as fast as this one.
    for tenant in TENANTS:
        with suppress(AlreadyExistsError):
            await tenants.create(tenant, Tenant(allowed_clusters=[cluster]))
    for namespace in NAMESPACES:
        with suppress(AlreadyExistsError):
            await namespaces.create(namespace, Policies(replication_clusters=[cluster]))
    with suppress(AlreadyExistsError):
        await clusters.create(cluster, Cluster())


async def furnish_tenant(tenants: Tenants, name: str, tenant: Tenant, cluster: str) -> bool:
    """Give the tenant that the first start made its contents, if nobody has given it any yet.

    With log-in, Pulsar leaves it to the operator to make `public`, and set-up scripts do.
    Return False for any other tenant.
    """
    if name != TENANTS[0] or await tenants.get(name) != Tenant(allowed_clusters=[cluster]):
        return False
    await tenants.replace(name, tenant)
    return True


async def furnish_namespace(
    namespaces: Namespaces, name: NamespaceName, policies: Policies, cluster: str
) -> bool:
    """Do the same for a namespace that the first start made."""
    if name not in NAMESPACES[:2]:
        return False
    furnished = False

    def change(found: Policies) -> None:
        nonlocal furnished
        furnished = found == Policies(replication_clusters=[cluster])
        if furnished:
            for each in msgspec.structs.fields(Policies):
                setattr(found, each.name, getattr(policies, each.name))

    await namespaces.update(name, change)
    return furnished
