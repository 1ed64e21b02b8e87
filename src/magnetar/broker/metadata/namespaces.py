"""Namespaces: which there are, and what each says (see `policies`)."""

import re
from collections.abc import Callable, Sequence
from contextlib import suppress

from magnetar.broker.metadata import facts, paths
from magnetar.broker.metadata.facts import NotEmptyError
from magnetar.broker.metadata.policies import Policies
from magnetar.broker.metadata.schemas import forget_all_changes
from magnetar.broker.metadata.store import (
    PRESENT,
    Check,
    CheckEmpty,
    ConflictError,
    Delete,
    DeleteAll,
    Store,
)
from magnetar.broker.metadata.tenants import TenantNotFoundError
from magnetar.broker.port import NamespaceNotFoundError
from magnetar.names import Domain, NamespaceName, TopicName


class Namespaces:
    """All namespaces."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def list(self, tenant: str | None = None) -> list[NamespaceName]:
        """Return the names, sorted; None: of all tenants."""
        prefix = paths.NAMESPACES if tenant is None else f"{paths.NAMESPACES}{tenant}/"
        return [_name(key) for key in await self._store.keys(prefix)]

    async def exists(self, name: NamespaceName) -> bool:
        """Return whether there is such a namespace."""
        return await self._store.get(paths.namespace(name)) is not None

    async def get(self, name: NamespaceName) -> Policies:
        """Return the policies of a namespace; the caller may keep and change the object.

        Raises:
            NamespaceNotFoundError: there is none of that name.
        """
        policies = await facts.read(self._store, paths.namespace(name), Policies)
        if policies is None:
            raise _missing(name)
        return policies

    async def create(self, name: NamespaceName, policies: Policies | None = None) -> None:
        """Add a namespace.

        Raises:
            TenantNotFoundError: the tenant is missing.
            AlreadyExistsError: there is one of that name.
        """
        key, tenant = paths.namespace(name), paths.tenant(name.tenant)
        try:
            await facts.create(
                self._store,
                f"namespace {name}",
                key,
                policies or Policies(),
                Check(tenant, PRESENT),
            )
        except ConflictError:
            raise TenantNotFoundError(f"tenant {name.tenant} does not exist") from None

    async def update(self, name: NamespaceName, change: Callable[[Policies], None]) -> Policies:
        """Let `change` edit the policies in place; return them as they are now stored.

        `change` may be called again if somebody else was faster; what it raises comes out.

        Raises:
            NamespaceNotFoundError: there is none of that name.
        """
        try:
            return await facts.revise(
                self._store, f"namespace {name}", paths.namespace(name), Policies, change
            )
        except facts.NotFoundError:
            raise _missing(name) from None

    async def forget_grants(self, topic: TopicName) -> None:
        """Take back what was granted on a topic, and on partitions of it: it was deleted.

        Whoever makes a topic of that name later has not granted it.
        """
        partition = re.compile(re.escape(str(topic)) + r"(-partition-[0-9]+)?")

        def gone(policies: Policies) -> list[str]:
            granted = policies.grants.topics if policies.grants is not None else {}
            return [name for name in granted if partition.fullmatch(name)]

        def change(policies: Policies) -> None:
            for name in gone(policies):
                assert policies.grants is not None
                del policies.grants.topics[name]

        with suppress(NamespaceNotFoundError):
            if gone(await self.get(topic.namespace_name)):
                await self.update(topic.namespace_name, change)

    async def delete(self, name: NamespaceName) -> None:
        """Remove a namespace that has no topics.

        Raises:
            NamespaceNotFoundError: there is none of that name.
            NotEmptyError: it has topics.
        """
        key = paths.namespace(name)
        kinds = (paths.TOPICS, paths.PARTITIONED)
        rooms = [paths.in_namespace(kind, name, d.value) for kind in kinds for d in Domain]
        try:
            await self._store.commit(
                [
                    Check(key, PRESENT),
                    *map(CheckEmpty, rooms),
                    Delete(key),
                    *(DeleteAll(paths.in_namespace(paths.POLICIES, name, d.value)) for d in Domain),
                    *forget_all_changes(name),
                ]
            )
        except ConflictError as error:
            if error.key == key:
                raise _missing(name) from None
            raise NotEmptyError(f"namespace {name} still has topics") from None

    def watch(self, callback: Callable[[Sequence[NamespaceName]], None]) -> Callable[[], None]:
        """Tell which namespaces were made, changed or deleted; return how to stop that."""
        return self._store.watch(
            paths.NAMESPACES, lambda keys: callback([_name(key) for key in keys])
        )


def _name(key: str) -> NamespaceName:
    return NamespaceName.parse(key.removeprefix(paths.NAMESPACES))


def _missing(name: NamespaceName) -> NamespaceNotFoundError:
    return NamespaceNotFoundError(f"namespace {name} does not exist")
