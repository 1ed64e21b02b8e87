"""Live topics: those that exist only while they are in somebody's memory.

    live/<topic>      written by the topic's owner when it loads it, removed when it unloads it

A non-persistent topic has no record, and yet a client that asks any process for the topics of
a namespace must be told of it. So its owner says here that it is there. What a process that
died has left behind, the next owner removes before it serves.
"""

from collections.abc import Callable

from magnetar.broker.metadata import paths
from magnetar.broker.metadata.store import Delete, Put, Store
from magnetar.names import Domain, NamespaceName, TopicName


class Live:
    """All topics of which there is nothing but what is in memory."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def add(self, topic: TopicName) -> None:
        """Say that a topic is there now.

        Raises:
            StoreUnavailableError: the disk refused.
        """
        await self._store.commit([Put(paths.live(topic), b"")])

    async def remove(self, topic: TopicName) -> None:
        """Say that it is gone. There need not be one.

        Raises:
            StoreUnavailableError: the disk refused.
        """
        await self._store.commit([Delete(paths.live(topic))])

    async def remove_all(self, of: Callable[[TopicName], bool]) -> None:
        """Say of all topics that fit that they are gone: at the start of their owner.

        Raises:
            StoreUnavailableError: the disk refused.
        """
        keys = await self._store.keys(paths.LIVE)
        stale = [Delete(key) for key in keys if of(paths.topic_name(paths.LIVE, key))]
        if stale:
            await self._store.commit(stale)

    async def has(self, topic: TopicName) -> bool:
        """Return whether a topic is there, in whatever process."""
        return await self._store.get(paths.live(topic)) is not None

    async def list(self, namespace: NamespaceName) -> list[TopicName]:
        """Return those of a namespace, in whatever process, sorted by name."""
        prefix = paths.in_namespace(paths.LIVE, namespace, Domain.NON_PERSISTENT.value)
        return [paths.topic_name(paths.LIVE, key) for key in await self._store.keys(prefix)]
