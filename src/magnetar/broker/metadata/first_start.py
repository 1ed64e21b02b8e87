"""The first start: what every data folder has before anybody asked for anything."""

from contextlib import suppress

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
