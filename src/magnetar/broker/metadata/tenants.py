"""Tenants and who may use them, and the clusters they may use.

JSON field names are those of Pulsar's admin REST (TenantInfo, ClusterData).
"""

from collections.abc import Callable

import msgspec

from magnetar.broker.metadata import facts, paths
from magnetar.broker.metadata.documents import Document
from magnetar.broker.metadata.facts import NotEmptyError, NotFoundError
from magnetar.broker.metadata.store import CheckEmpty, ConflictError, Delete, Store
from magnetar.broker.port import NamespaceNotFoundError
from magnetar.names import check_tenant


class TenantNotFoundError(NotFoundError, NamespaceNotFoundError):
    """There is no such tenant."""


class Cluster(Document):
    """Where a cluster can be reached."""

    service_url: str | None = msgspec.field(default=None, name="serviceUrl")
    service_url_tls: str | None = msgspec.field(default=None, name="serviceUrlTls")
    broker_service_url: str | None = msgspec.field(default=None, name="brokerServiceUrl")
    broker_service_url_tls: str | None = msgspec.field(default=None, name="brokerServiceUrlTls")
    peers: list[str] | None = msgspec.field(default=None, name="peerClusterNames")
    """Clusters that could serve in its place; none of a namespace's clusters may be a peer."""


class Tenant(Document):
    """Who may administer a tenant, and on which clusters."""

    admin_roles: list[str] = msgspec.field(default_factory=list, name="adminRoles")
    allowed_clusters: list[str] = msgspec.field(default_factory=list, name="allowedClusters")


class Clusters:
    """The clusters this one knows, itself included."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def list(self) -> list[str]:
        """Return the names, sorted."""
        return [key.removeprefix(paths.CLUSTERS) for key in await self._store.keys(paths.CLUSTERS)]

    async def get(self, name: str) -> Cluster:
        """Return one cluster.

        Raises:
            NotFoundError: there is none of that name.
        """
        cluster = await facts.read(self._store, paths.cluster(name), Cluster)
        if cluster is None:
            raise NotFoundError(f"cluster {name} does not exist")
        return cluster

    async def create(self, name: str, cluster: Cluster) -> None:
        """Add a cluster.

        Raises:
            AlreadyExistsError: there is one of that name.
            InvalidNameError: a cluster cannot be called that.
        """
        key = paths.cluster(check_tenant(name))
        await facts.create(self._store, f"cluster {name}", key, cluster)

    async def replace(self, name: str, cluster: Cluster) -> None:
        """Change where a cluster is.

        Raises:
            NotFoundError: there is none of that name.
        """
        await facts.replace(self._store, f"cluster {name}", paths.cluster(name), cluster)

    async def update(self, name: str, change: Callable[[Cluster], None]) -> Cluster:
        """Let `change` edit what is known of a cluster in place; return it as stored.

        Raises:
            NotFoundError: there is none of that name.
        """
        return await facts.revise(
            self._store, f"cluster {name}", paths.cluster(name), Cluster, change
        )

    async def delete(self, name: str) -> None:
        """Forget a cluster.

        Raises:
            NotFoundError: there is none of that name.
        """
        await self.get(name)
        await self._store.commit([Delete(paths.cluster(name))])


class Tenants:
    """All tenants."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def list(self) -> list[str]:
        """Return the names, sorted."""
        return [key.removeprefix(paths.TENANTS) for key in await self._store.keys(paths.TENANTS)]

    async def get(self, name: str) -> Tenant:
        """Return one tenant.

        Raises:
            TenantNotFoundError: there is none of that name.
        """
        tenant = await facts.read(self._store, paths.tenant(name), Tenant)
        if tenant is None:
            raise TenantNotFoundError(f"tenant {name} does not exist")
        return tenant

    async def create(self, name: str, tenant: Tenant) -> None:
        """Add a tenant.

        Raises:
            AlreadyExistsError: there is one of that name.
            InvalidNameError: a tenant cannot be called that.
        """
        key = paths.tenant(check_tenant(name))
        await facts.create(self._store, f"tenant {name}", key, tenant)

    async def replace(self, name: str, tenant: Tenant) -> None:
        """Change who may use a tenant.

        Raises:
            NotFoundError: there is none of that name.
        """
        await facts.replace(self._store, f"tenant {name}", paths.tenant(name), tenant)

    async def delete(self, name: str) -> None:
        """Remove a tenant that has no namespaces.

        Raises:
            TenantNotFoundError: there is none of that name.
            NotEmptyError: it has namespaces.
        """
        await self.get(name)
        key, namespaces = paths.tenant(name), f"{paths.NAMESPACES}{name}/"
        try:
            await self._store.commit([CheckEmpty(namespaces), Delete(key)])
        except ConflictError:
            raise NotEmptyError(f"tenant {name} still has namespaces") from None
