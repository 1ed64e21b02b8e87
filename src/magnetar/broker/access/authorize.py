"""The one place that says yes or no, for every door.

    door ──▶ Access.allows(caller, demands)      from what this process knows; no waiting
                   │ no
                   ▼
             Access.authorize(caller, demands)   looks at the metadata again, then says no for good

Grants are kept in memory and follow the metadata: changes made by this process at once, those
of others within a second. A yes is therefore a dictionary look-up. A no is rare, and may rest
on news that has not arrived yet, so it costs a read before it is spoken.

The absent and the forbidden look alike: only what is granted is looked at, never whether the
thing exists, and the message is the same. With log-in off there is no `Access` at all.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from magnetar.broker.access.audit import Audit
from magnetar.broker.access.authentication import Authenticator
from magnetar.broker.access.caller import Caller
from magnetar.broker.access.permissions import (
    Known,
    NamespaceGrants,
    meets,
    resource_namespace,
    resource_tenant,
)
from magnetar.broker.access.rights import AuthorizationError, Demand, Right
from magnetar.broker.metadata import paths
from magnetar.broker.metadata.documents import decode
from magnetar.broker.metadata.grants import Grants
from magnetar.broker.metadata.policies import Policies
from magnetar.broker.metadata.store import CorruptMetadataError, Store, StoreError
from magnetar.broker.metadata.tenants import Tenant
from magnetar.names import InvalidNameError, NamespaceName

logger = logging.getLogger(__name__)


class Grantor:
    """What is granted to whom, as the metadata say, kept in memory."""

    def __init__(self, store: Store, known: Known) -> None:
        self._store = store
        self.known = known
        self._stops: list[Callable[[], None]] = []
        self._listeners: list[Callable[[], None]] = []
        self._looking: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Read everything, and follow it from now on."""
        for prefix in (paths.TENANTS, paths.NAMESPACES):
            self._stops.append(self._store.watch(prefix, self._changed))
            for key, found in await self._store.scan(prefix):
                self._take(key, found.value)

    async def stop(self) -> None:
        """Follow no more."""
        for stop in self._stops:
            stop()
        for task in self._looking:
            task.cancel()
        await asyncio.gather(*self._looking, return_exceptions=True)

    def when_changed(self, listener: Callable[[], None]) -> None:
        """Call back after what is granted has changed, for as long as this process runs."""
        self._listeners.append(listener)

    async def look(self, keys: Iterable[str]) -> None:
        """Read some keys again."""
        for key in keys:
            found = await self._store.get(key)
            self._take(key, None if found is None else found.value)

    def _changed(self, keys: Sequence[str]) -> None:
        task = asyncio.get_running_loop().create_task(self._look_and_tell(keys))
        self._looking.add(task)
        task.add_done_callback(self._looking.discard)

    async def _look_and_tell(self, keys: Sequence[str]) -> None:
        try:
            await self.look(keys)
        except StoreError:
            logger.exception("changed permissions could not be read")
            return
        for listener in self._listeners:
            listener()

    def _take(self, key: str, value: bytes | None) -> None:
        """Remember what a key says. What cannot be understood grants nothing."""
        try:
            if key.startswith(paths.TENANTS):
                self._take_tenant(key.removeprefix(paths.TENANTS), key, value)
            else:
                name = NamespaceName.parse(key.removeprefix(paths.NAMESPACES))
                self.known.namespaces.pop(name, None)
                if value is not None:
                    self.known.namespaces[name] = grants_of(decode(key, value, Policies))
        except (CorruptMetadataError, InvalidNameError):
            logger.exception("permissions under %s count as none", key)

    def _take_tenant(self, name: str, key: str, value: bytes | None) -> None:
        self.known.admins.pop(name, None)
        if value is not None:
            self.known.admins[name] = frozenset(decode(key, value, Tenant).admin_roles)


def grants_of(policies: Policies) -> NamespaceGrants:
    """Return what the policies of a namespace grant."""
    grants = policies.grants or Grants()
    return NamespaceGrants(
        namespace=_frozen(grants.namespace),
        topics={topic: _frozen(granted) for topic, granted in grants.topics.items()},
        subscriptions={name: frozenset(roles) for name, roles in grants.subscriptions.items()},
        prefix=policies.subscription_auth_mode == "Prefix",
    )


def _frozen(granted: dict[str, list[str]]) -> dict[str, frozenset[str]]:
    return {role: frozenset(actions) for role, actions in granted.items()}


class Access:
    """Who may do what."""

    def __init__(
        self, grantor: Grantor, authenticator: Authenticator, audit: Audit | None = None
    ) -> None:
        self.grantor = grantor
        self.authenticator = authenticator
        self.audit = audit
        authenticator.audit = audit

    async def start(self) -> None:
        """Read what is granted, and follow changes from now on."""
        await self.grantor.start()
        self.authenticator.start()

    async def stop(self) -> None:
        """Follow no more."""
        await self.authenticator.stop()
        await self.grantor.stop()
        if self.audit is not None:
            await self.audit.stop()

    def allows(self, caller: Caller, demands: Sequence[Demand]) -> bool:
        """Return whether a caller may do something, by what this process knows now."""
        if caller.broker:
            return True
        known = self.grantor.known
        return all(meets(name, each, known) for name in caller.names for each in demands)

    async def authorize(self, caller: Caller, demands: Sequence[Demand]) -> None:
        """Return if a caller may do something.

        Raises:
            AuthorizationError: it may not.
        """
        if self.allows(caller, demands):
            return
        with suppress(StoreError):  # then it stays as it is: denied
            await self.grantor.look(_keys(demands))
        if not self.allows(caller, demands):
            if self.audit is not None:
                self.audit.denied(caller, demands)
            raise AuthorizationError(refusal(caller, demands))


_IN_WORDS = {
    Right.LOOKUP: "look anything up",
    Right.READ: "see figures",
    Right.FUNCTIONS: "use functions",
    Right.SOURCES: "use sources",
    Right.SINKS: "use sinks",
    Right.PACKAGES: "use packages",
    Right.NAMESPACE: "administer topics and policies",
    Right.TENANT: "administer namespaces",
    Right.METRICS: "see the figures of the whole broker",
    Right.SUPERUSER: "do what only superusers may",
}
"""How a person is told which right is missing; the others are words already."""


def refusal(caller: Caller, demands: Sequence[Demand]) -> str:
    """Return how a caller is told that it may not do something."""
    rights = " and ".join(
        dict.fromkeys(_IN_WORDS.get(each.right, each.right.value) for each in demands)
    )
    return f"role {caller} has no permission to {rights} here, or there is no such thing"


def _keys(demands: Sequence[Demand]) -> list[str]:
    """Return where it is written whether somebody may do something."""
    keys: dict[str, None] = {}
    for each in demands:
        if each.resource is not None:
            keys[paths.tenant(resource_tenant(each.resource))] = None
        if (name := resource_namespace(each.resource)) is not None:
            keys[paths.namespace(name)] = None
    return list(keys)
