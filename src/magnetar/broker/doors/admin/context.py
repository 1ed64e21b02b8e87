"""What the handlers of one process work with, and how they reach the other processes.

call about a partitioned topic ──▶ its partitions ─┬─ owned here ──▶ the handler's function
                                                   └─ elsewhere  ──▶ the same call to the owner
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote

from magnetar.broker.access.authorize import Access
from magnetar.broker.channel import RefusedError
from magnetar.broker.clock import Clock
from magnetar.broker.config import BrokerConfig
from magnetar.broker.doors.admin.bundles import Bundles
from magnetar.broker.doors.admin.errors import Refusal
from magnetar.broker.doors.admin.http.siblings import Siblings
from magnetar.broker.doors.admin.routes import ADMIN
from magnetar.broker.host import Host
from magnetar.broker.metadata.facts import NotEmptyError
from magnetar.broker.metadata.live_settings import LiveSettings
from magnetar.broker.metadata.namespaces import Namespaces
from magnetar.broker.metadata.partitions import Partitions
from magnetar.broker.metadata.placement import Placement
from magnetar.broker.metadata.tenants import Clusters, Tenants
from magnetar.broker.metrics import Metrics
from magnetar.broker.moving import Moves
from magnetar.broker.ownership import Address, Ownership
from magnetar.broker.port import ListMode, TopicNotFoundError
from magnetar.broker.topics.catalog import Catalog
from magnetar.broker.transactions.coordinator import Coordinator
from magnetar.names import Domain, NamespaceName, TopicName

T = TypeVar("T")

DELETE_ATTEMPTS_MAX = 3
"""Times that a namespace is emptied, because clients may create topics while it is."""
PARALLEL_MAX = 32
"""Partitions that one call works on at the same time."""


def _well() -> str:
    return ""


async def _no_supervisor(question: Mapping[str, Any]) -> Mapping[str, Any]:  # noqa: ARG001 - as one answers
    raise RefusedError("this process has no supervisor that could start or stop others")


@dataclass(frozen=True, kw_only=True)
class Context:
    """Everything a handler may use. Built once by `node`."""

    catalog: Catalog
    partitions: Partitions
    namespaces: Namespaces
    tenants: Tenants
    clusters: Clusters
    settings: LiveSettings
    placement: Placement
    ownership: Ownership
    siblings: Siblings
    config: BrokerConfig
    metrics: Metrics
    clock: Clock
    address: Address
    """Where clients reach the whole broker: the shared port, not this process's own."""
    version: str
    access: Access | None = None
    """Who may do what; None: log-in is off, and everybody may do everything."""
    coordinator: Coordinator | None = None
    """Of transactions; None: there are none."""
    host: Host
    """The machine."""
    complaint: Callable[[], str] = field(default=_well)
    """Returns why this process cannot do its work at the moment; empty: it can."""
    moves: Moves | None = None
    """Gives topics to other processes; None: there are none."""
    ask_supervisor: Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]] = field(
        default=_no_supervisor
    )
    """Asks whoever starts and stops the processes (see `scaling`)."""

    @property
    def cluster(self) -> str:
        """The name of this cluster."""
        return self.config.cluster

    @property
    def broker_id(self) -> str:
        """The broker as clients know it: host and HTTP port."""
        return self.address.netloc

    # --- namespaces -----------------------------------------------------------------------

    async def bundles(self, namespace: NamespaceName) -> Bundles:
        """Return the bundles a namespace is shown in."""
        policies = await self.namespaces.get(namespace)
        return Bundles.of(policies.unknown.get("bundles"))

    async def delete_namespace(self, namespace: NamespaceName) -> None:
        """Delete a namespace with all its topics, whoever owns them.

        Raises:
            NotEmptyError: clients kept creating topics in it.
        """
        await self.namespaces.get(namespace)
        for attempt in range(DELETE_ATTEMPTS_MAX):
            await self._delete_topics(namespace)
            try:
                await self.namespaces.delete(namespace)
            except NotEmptyError:
                if attempt == DELETE_ATTEMPTS_MAX - 1:
                    raise
            else:
                return

    async def delete_system_topics(self, namespace: NamespaceName) -> None:
        """Delete the topics of a namespace if nothing but system topics is left in it."""
        topics = await self.partitions.list_topics(namespace)
        if topics and all(topic.system for topic in topics):
            for name in await self.partitions.list_partitioned(namespace):
                if name.system:
                    await self.partitions.delete_partitioned(name)
            await in_parallel([self.delete_if_there(name, force=True) for name in topics])

    async def _delete_topics(self, namespace: NamespaceName) -> None:
        for domain in Domain:
            for name in await self.partitions.list_partitioned(namespace, domain):
                await self.partitions.delete_partitioned(name)
        in_memory = await self.catalog.topics(namespace, ListMode.NON_PERSISTENT)
        names = [
            *await self.partitions.list_topics(namespace),
            *map(TopicName.parse, in_memory),
        ]
        await in_parallel([self.delete_if_there(name, force=True) for name in names])

    async def delete_if_there(self, topic: TopicName, *, force: bool) -> None:
        """Delete an ordinary topic or one partition, wherever it is owned."""
        if self.ownership.mine(topic):
            with suppress(TopicNotFoundError):
                await self.catalog.delete(topic, force=force)
            return
        try:
            await self.ask_owner(topic, "DELETE", "?force=true" if force else "")
        except Refusal as refusal:
            if refusal.status != 404:
                raise

    # --- topics ---------------------------------------------------------------------------

    async def partition_names(self, topic: TopicName) -> list[TopicName] | None:
        """Return the names of a topic's partitions; None: it is not partitioned."""
        if topic.partition >= 0:
            return None
        record = await self.partitions.partitioned(topic)
        if record is None:
            return None
        return [topic.partition_name(index) for index in range(record.partitions)]

    async def ask_owner(
        self, topic: TopicName, method: str, tail: str, body: bytes = b""
    ) -> object:
        """Call the process that owns a topic; `tail` comes after the topic in the path."""
        target = f"{ADMIN}/{topic_path(topic)}{tail}"
        return await self.siblings.ask(self.ownership.worker_of(topic), method, target, body)


async def in_parallel(tasks: Sequence[Awaitable[T]]) -> list[T]:
    """Await all, a bounded number at once. The first error comes out once all have ended."""
    places = asyncio.Semaphore(PARALLEL_MAX)

    async def one(task: Awaitable[T]) -> T:
        async with places:
            return await task

    results = await asyncio.gather(*map(one, tasks), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]


def _quoted(namespace: NamespaceName) -> str:
    return f"{quote(namespace.tenant, safe='')}/{quote(namespace.namespace, safe='')}"


def topic_path(topic: TopicName) -> str:
    """Return a topic as it stands in a path."""
    return f"{topic.domain.value}/{_quoted(topic.namespace_name)}/{quote(topic.local, safe='')}"
