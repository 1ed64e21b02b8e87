"""Resource groups: rates that the topics of several namespaces have in common.

    resource-groups/<name>     JSON: `ResourceGroup`

A namespace names the group it belongs to among its policies.
"""

from collections.abc import Callable, Sequence

import msgspec

from magnetar.broker.metadata import facts, paths
from magnetar.broker.metadata.documents import Document, decode, encode
from magnetar.broker.metadata.facts import NotEmptyError, NotFoundError
from magnetar.broker.metadata.namespaces import Namespaces
from magnetar.broker.metadata.store import PRESENT, Check, ConflictError, Delete, Put, Store


class ResourceGroup(Document):
    """What the members of a group together may do, per second. -1, 0 or unset: no limit."""

    publish_messages: int | None = msgspec.field(default=None, name="publishRateInMsgs")
    publish_bytes: int | None = msgspec.field(default=None, name="publishRateInBytes")
    dispatch_messages: int | None = msgspec.field(default=None, name="dispatchRateInMsgs")
    dispatch_bytes: int | None = msgspec.field(default=None, name="dispatchRateInBytes")


class ResourceGroups:
    """All resource groups."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._namespaces = Namespaces(store)

    async def list(self) -> list[str]:
        """Return the names, sorted."""
        keys = await self._store.keys(paths.RESOURCE_GROUPS)
        return [key.removeprefix(paths.RESOURCE_GROUPS) for key in keys]

    async def all(self) -> dict[str, ResourceGroup]:
        """Return every group by its name."""
        return {
            key.removeprefix(paths.RESOURCE_GROUPS): decode(key, found.value, ResourceGroup)
            for key, found in await self._store.scan(paths.RESOURCE_GROUPS)
        }

    async def get(self, name: str) -> ResourceGroup:
        """Return one group.

        Raises:
            NotFoundError: there is none of that name.
        """
        found = await facts.read(self._store, paths.resource_group(name), ResourceGroup)
        if found is None:
            raise NotFoundError(f"resource group {name} does not exist")
        return found

    async def put(self, name: str, group: ResourceGroup) -> None:
        """Make a group, or change what is said of it; what is unset stays as it is."""
        key = paths.resource_group(name)
        before = await facts.read(self._store, key, ResourceGroup)
        said = {} if before is None else before.to_dict()
        merged = ResourceGroup.from_dict(said | group.to_dict())
        await self._store.commit([Put(key, encode(merged))])

    async def delete(self, name: str) -> None:
        """Remove a group that no namespace belongs to.

        Raises:
            NotFoundError: there is none of that name.
            NotEmptyError: a namespace belongs to it.
        """
        for namespace in await self._namespaces.list():
            if (await self._namespaces.get(namespace)).resource_group == name:
                raise NotEmptyError(f"namespace {namespace} belongs to resource group {name}")
        key = paths.resource_group(name)
        try:
            await self._store.commit([Check(key, PRESENT), Delete(key)])
        except ConflictError:
            raise NotFoundError(f"resource group {name} does not exist") from None

    def watch(self, callback: Callable[[Sequence[str]], None]) -> Callable[[], None]:
        """Tell which groups were made, changed or removed; return how to stop that."""
        return self._store.watch(
            paths.RESOURCE_GROUPS,
            lambda keys: callback([key.removeprefix(paths.RESOURCE_GROUPS) for key in keys]),
        )
