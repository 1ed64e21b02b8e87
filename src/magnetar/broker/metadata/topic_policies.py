"""What single topics say themselves, over what their namespaces say.

    policies/<topic>      `Policies`, by the topic's base name: partitions have it in common

A topic that says nothing has no record, so this costs nothing for all the others. The record
goes with its topic, and with its namespace.
"""

from collections.abc import Callable, Sequence

from magnetar.broker.metadata import facts, paths
from magnetar.broker.metadata.documents import decode, encode
from magnetar.broker.metadata.facts import REVISE_ATTEMPTS_MAX
from magnetar.broker.metadata.policies import Policies
from magnetar.broker.metadata.store import (
    PRESENT,
    Check,
    ConflictError,
    Delete,
    Put,
    Store,
)
from magnetar.broker.port import TopicNotFoundError
from magnetar.names import Domain, NamespaceName, TopicName

_NOTHING = Policies().to_dict()


class TopicPolicies:
    """All topics that say something themselves."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def get(self, topic: TopicName) -> Policies:
        """Return what a topic says; there need not be such a topic."""
        found = await facts.read(self._store, paths.policies(topic), Policies)
        return Policies() if found is None else found

    async def update(self, topic: TopicName, change: Callable[[Policies], None]) -> Policies:
        """Let `change` edit in place what a topic says; return it as it is now stored.

        `change` may be called again if somebody else was faster; what it raises comes out.

        Raises:
            TopicNotFoundError: there is no such topic.
        """
        key = paths.policies(topic)
        for attempt in range(REVISE_ATTEMPTS_MAX):
            anchor = await self.anchor(topic)
            found = await self._store.get(key)
            said = Policies() if found is None else decode(key, found.value, Policies)
            change(said)
            write = Put(key, encode(said)) if said.to_dict() != _NOTHING else Delete(key)
            before = Check(key, None if found is None else found.version)
            try:
                await self._store.commit([Check(anchor, PRESENT), before, write])
            except ConflictError:
                if attempt == REVISE_ATTEMPTS_MAX - 1:
                    raise
            else:
                return said
        raise AssertionError("the loop above returns or raises")

    async def anchor(self, topic: TopicName) -> str:
        """Return the key that is there as long as a topic is.

        Raises:
            TopicNotFoundError: there is no such topic.
        """
        single = paths.topic(topic) if topic.persistent else paths.live(topic)
        for key in (paths.partitioned(topic.base), single):
            if await self._store.get(key) is not None:
                return key
        raise TopicNotFoundError(f"topic {topic} does not exist")

    async def list(self, namespace: NamespaceName) -> list[tuple[TopicName, Policies]]:
        """Return which topics of a namespace say something, by base name, and what."""
        found: list[tuple[TopicName, Policies]] = []
        for domain in Domain:
            prefix = paths.in_namespace(paths.POLICIES, namespace, domain.value)
            for key, each in await self._store.scan(prefix):
                said = decode(key, each.value, Policies)
                found.append((paths.topic_name(paths.POLICIES, key), said))
        return found

    def watch(self, callback: Callable[[Sequence[TopicName]], None]) -> Callable[[], None]:
        """Tell which topics, by base name, say something else now; return how to stop that."""
        return self._store.watch(
            paths.POLICIES,
            lambda keys: callback([paths.topic_name(paths.POLICIES, key) for key in keys]),
        )
