"""Where things should be placed in a cluster: kept and shown, as Pulsar's tools expect.

    placement/domains/<cluster>/<name>                brokers that fail together
    placement/isolation/<cluster>/<name>              which namespaces are for which brokers
    placement/quotas/<tenant>/<namespace>/<bundle>    what a bundle is thought to need
    placement/quotas/default/default/default          what any bundle is

Pulsar's load balancer spreads bundles over brokers by these. One broker serves them all, so
nothing here acts on them. JSON field names are those of Pulsar's admin REST.
"""

from typing import TypeVar

import msgspec

from magnetar.broker.metadata import facts, paths
from magnetar.broker.metadata.documents import Document, decode, encode
from magnetar.broker.metadata.store import CheckEmpty, Delete, DeleteAll, Put, Store
from magnetar.names import NamespaceName

D = TypeVar("D", bound=Document)

DEFAULT_BUNDLE = "default"
_DEFAULT_SCOPE = "default/default"


class FailureDomain(Document):
    """Brokers that fail together."""

    brokers: list[str] = msgspec.field(default_factory=list)


class FailoverPolicy(Document):
    """When an isolated namespace may move to its secondary brokers."""

    kind: str = msgspec.field(default="min_available", name="policy_type")
    parameters: dict[str, str] = msgspec.field(default_factory=dict)


class Isolation(Document):
    """Which brokers serve which namespaces, by regular expressions."""

    namespaces: list[str] = msgspec.field(default_factory=list)
    primary: list[str] = msgspec.field(default_factory=list)
    secondary: list[str] = msgspec.field(default_factory=list)
    failover: FailoverPolicy | None = msgspec.field(default=None, name="auto_failover_policy")


class ResourceQuota(Document):
    """What a bundle is thought to need. The defaults are Pulsar's."""

    rate_in: float = msgspec.field(default=40.0, name="msgRateIn")
    rate_out: float = msgspec.field(default=120.0, name="msgRateOut")
    bandwidth_in: float = msgspec.field(default=100_000.0, name="bandwidthIn")
    bandwidth_out: float = msgspec.field(default=300_000.0, name="bandwidthOut")
    memory: float = msgspec.field(default=80.0, name="memory")
    dynamic: bool = True


class Placement:
    """All of it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    # --- failure domains and isolation of a cluster

    async def domains(self, cluster: str) -> dict[str, FailureDomain]:
        """Return the failure domains of a cluster by name."""
        return await self._all(_domain(cluster), FailureDomain)

    async def set_domain(self, cluster: str, name: str, domain: FailureDomain) -> None:
        """Make a failure domain, or change it."""
        await self._put(_domain(cluster, name), domain)

    async def remove_domain(self, cluster: str, name: str) -> bool:
        """Forget a failure domain; return whether there was one."""
        return await self._remove(_domain(cluster, name))

    async def isolations(self, cluster: str) -> dict[str, Isolation]:
        """Return the isolation policies of a cluster by name."""
        return await self._all(_isolation(cluster), Isolation)

    async def set_isolation(self, cluster: str, name: str, isolation: Isolation) -> None:
        """Make an isolation policy, or change it."""
        await self._put(_isolation(cluster, name), isolation)

    async def remove_isolation(self, cluster: str, name: str) -> bool:
        """Forget an isolation policy; return whether there was one."""
        return await self._remove(_isolation(cluster, name))

    async def forget_cluster(self, cluster: str) -> None:
        """Forget what is left of a cluster.

        Raises:
            ConflictError: it has isolation policies.
        """
        await self._store.commit([CheckEmpty(_isolation(cluster)), DeleteAll(_domain(cluster))])

    # --- resource quotas

    async def quota(self, namespace: NamespaceName | None, bundle: str) -> ResourceQuota:
        """Return what a bundle needs; without a namespace, what any does."""
        found = await facts.read(self._store, _quota(namespace, bundle), ResourceQuota)
        if found is None and namespace is not None:
            return await self.quota(None, DEFAULT_BUNDLE)
        return found or ResourceQuota()

    async def set_quota(
        self, namespace: NamespaceName | None, bundle: str, quota: ResourceQuota
    ) -> None:
        """Say what a bundle needs; without a namespace, what any does."""
        await self._put(_quota(namespace, bundle), quota)

    async def remove_quota(self, namespace: NamespaceName, bundle: str) -> None:
        """Let a bundle need what any does."""
        await self._store.commit([Delete(_quota(namespace, bundle))])

    # --- all of them

    async def _all(self, prefix: str, kind: type[D]) -> dict[str, D]:
        return {
            key.removeprefix(prefix): decode(key, found.value, kind)
            for key, found in await self._store.scan(prefix)
        }

    async def _put(self, key: str, value: Document) -> None:
        await self._store.commit([Put(key, encode(value))])

    async def _remove(self, key: str) -> bool:
        there = await self._store.get(key) is not None
        await self._store.commit([Delete(key)])
        return there


def _domain(cluster: str, name: str = "") -> str:
    return f"{paths.PLACEMENT}domains/{cluster}/{name}"


def _isolation(cluster: str, name: str = "") -> str:
    return f"{paths.PLACEMENT}isolation/{cluster}/{name}"


def _quota(namespace: NamespaceName | None, bundle: str) -> str:
    return f"{paths.PLACEMENT}quotas/{namespace or _DEFAULT_SCOPE}/{bundle}"
