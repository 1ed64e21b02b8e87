"""Schemas as they are kept: per topic one list of versions, and each version by itself.

    schemas/<schema>                 {"next": 5, "live": [{"version": 3, "fingerprint": ...}, ...]}
    definitions/<schema>/<version>   {"type": "AVRO", "data": "<base64>", ...}

Versions count from 0. Deleting a schema takes a number, too, and everything before it can no
longer be seen; so a number never means two things, unless the whole list is forgotten with its
topic. Both keys are written in one commit that fails if somebody else was faster: two who add
the same schema at once cannot make two versions of it.
"""

from collections.abc import Sequence

import msgspec

from magnetar.broker.metadata import facts, paths
from magnetar.broker.metadata.documents import Document, decode, encode
from magnetar.broker.metadata.store import (
    PRESENT,
    Change,
    Check,
    ConflictError,
    Delete,
    DeleteAll,
    Put,
    Store,
    numbered,
)
from magnetar.broker.port import NamespaceNotFoundError
from magnetar.names import NamespaceName, TopicName


class LiveVersion(msgspec.Struct):
    """A version that can be seen."""

    version: int
    fingerprint: str
    """Two schemas that say the same have the same."""


class SchemaVersions(Document):
    """Which versions a topic's schema has."""

    next: int = 0
    """The number of the next version, or of the next deletion."""
    live: list[LiveVersion] = msgspec.field(default_factory=list)

    def find(self, fingerprint: str) -> int | None:
        """Return the latest version that says the same; None: there is none."""
        for each in reversed(self.live):
            if each.fingerprint == fingerprint:
                return each.version
        return None


class Definition(Document):
    """One version."""

    type: str
    """Its name in admin REST."""
    data: bytes = b""
    properties: dict[str, str] = msgspec.field(default_factory=dict)
    name: str = ""
    created_ms: int = 0


class Versions:
    """What was read of a topic's schema, and can be written on."""

    def __init__(self, record: SchemaVersions, stored_as: int | None) -> None:
        self.record = record
        self.stored_as = stored_as
        """The version of the key when it was read; None: there was none."""

    @property
    def live(self) -> Sequence[LiveVersion]:
        """What can be seen, the latest last."""
        return self.record.live

    @property
    def latest(self) -> LiveVersion | None:
        """The latest; None: the topic has no schema."""
        return self.record.live[-1] if self.record.live else None


class Schemas:
    """All schemas."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def versions(self, topic: TopicName) -> Versions:
        """Return which versions there are."""
        key = paths.schema(topic)
        found = await self._store.get(key)
        if found is None:
            return Versions(SchemaVersions(), None)
        return Versions(decode(key, found.value, SchemaVersions), found.version)

    async def definition(self, topic: TopicName, version: int) -> Definition | None:
        """Return one version; None: it is gone."""
        key = numbered(paths.definitions(topic), version)
        return await facts.read(self._store, key, Definition)

    async def add(
        self, topic: TopicName, seen: Versions, fingerprint: str, definition: Definition
    ) -> int:
        """Add a version, and return its number.

        Raises:
            ConflictError: the versions are no longer those that were seen.
            NamespaceNotFoundError: the namespace is missing.
        """
        number = seen.record.next
        after = SchemaVersions(
            next=number + 1,
            live=[*seen.record.live, LiveVersion(number, fingerprint)],
            unknown=seen.record.unknown,
        )
        key = numbered(paths.definitions(topic), number)
        await self._write(topic, seen, after, [Put(key, encode(definition))])
        return number

    async def hide(self, topic: TopicName, seen: Versions) -> int:
        """Delete what there is so far, and return the number that this takes.

        Raises:
            ConflictError: the versions are no longer those that were seen.
        """
        number = seen.record.next
        after = SchemaVersions(next=number + 1, unknown=seen.record.unknown)
        await self._write(topic, seen, after, [DeleteAll(paths.definitions(topic))])
        return number

    async def forget(self, topic: TopicName) -> None:
        """Forget that the topic ever had a schema: versions begin at 0 again."""
        await self._store.commit(forget_changes(topic))

    async def _write(
        self, topic: TopicName, seen: Versions, after: SchemaVersions, more: Sequence[Change]
    ) -> None:
        key, namespace = paths.schema(topic), paths.namespace(topic.namespace_name)
        changes = [
            Check(namespace, PRESENT),
            Check(key, seen.stored_as),
            Put(key, encode(after)),
            *more,
        ]
        try:
            await self._store.commit(changes)
        except ConflictError as error:
            if error.key != namespace:
                raise
            raise NamespaceNotFoundError(
                f"namespace {topic.namespace_name} does not exist"
            ) from None


def forget_changes(topic: TopicName) -> list[Change]:
    """Return what removes a topic's schema with all versions, as a part of another commit."""
    return [Delete(paths.schema(topic)), DeleteAll(paths.definitions(topic))]


def forget_all_changes(namespace: NamespaceName) -> list[Change]:
    """Return what removes every schema of a namespace, as a part of another commit."""
    return [DeleteAll(prefix) for prefix in paths.schemas_in(namespace)]
