"""The registry: which schemas a topic has, and who may add one.

    put ──▶ fingerprint ──▶ known? ──yes──▶ its version
                               │ no
                               ▼
            goes with what is there, as the strategy demands? ──no──▶ IncompatibleSchemaError
                               │ yes
                               ▼
            one commit, that fails if somebody else was faster ──▶ the new version

A topic, its partitions and its non-persistent twin share one schema. Every process reads and
writes the same metadata, so it does not matter which one is asked, and a change is seen at once by
all of them. Nothing is kept in memory but fingerprints of definitions. As Pulsar's registry.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from weakref import WeakValueDictionary

from magnetar.broker.clock import Clock
from magnetar.broker.metadata.schemas import Definition, Schemas, Versions
from magnetar.broker.metadata.store import ConflictError, CorruptMetadataError, Store
from magnetar.broker.metrics import Metrics
from magnetar.broker.port import (
    IncompatibleSchemaError,
    Schema,
    SchemaNotFoundError,
    SchemaType,
    VersionedSchema,
)
from magnetar.broker.schema.compatibility import (
    Demand,
    Strategy,
    demanded,
    demanded_of_consumer,
)
from magnetar.broker.schema.judge import Judge
from magnetar.broker.schema.work import Budget
from magnetar.names import TopicName

VERSIONS_MAX = 1_000
"""Versions of one schema. Strategies that look at all of them read each."""

ATTEMPTS_MAX = 20
"""Times that a change is tried again because somebody else changed the same schema first."""

LATENCY_MS = (0.5, 1, 5, 10, 20, 50, 100, 200, 1000, 5000)

NO_VERSION = -1
"""Pulsar's number for a schema that a topic has not."""


class _Operation:
    """How long one kind of operation takes, and how often it fails."""

    def __init__(self, metrics: Metrics, word: str, text: str) -> None:
        self._latency = metrics.histogram(
            f"pulsar_schema_{word}_ops_latency", f"Milliseconds to {text} a schema.", LATENCY_MS
        )
        self._failed = metrics.counter(
            f"pulsar_schema_{word}_ops_failed_total", f"Attempts to {text} a schema that failed."
        )

    @contextmanager
    def measured(self, clock: Clock) -> Iterator[None]:
        """Measure what is done within."""
        start_s = clock.monotonic()
        try:
            yield
        except Exception:
            self._failed.value += 1
            raise
        self._latency.observe(1000 * (clock.monotonic() - start_s))


class _Figures:
    """What the registry counts, under the names of Pulsar's."""

    def __init__(self, metrics: Metrics) -> None:
        self.get = _Operation(metrics, "get", "look up")
        self.put = _Operation(metrics, "put", "add")
        self.delete = _Operation(metrics, "del", "delete")
        self.compatible = metrics.counter(
            "pulsar_schema_compatible_total", "Schemas found to go with those before them."
        )
        self.incompatible = metrics.counter(
            "pulsar_schema_incompatible_total", "Schemas refused for those before them."
        )


class Registry:
    """The schemas of all topics."""

    def __init__(self, store: Store, clock: Clock, metrics: Metrics) -> None:
        self._schemas = Schemas(store)
        self._clock = clock
        self._judge = Judge()
        self._turns: WeakValueDictionary[TopicName, asyncio.Lock] = WeakValueDictionary()
        self._figures = _Figures(metrics)

    def stop(self) -> None:
        """Judge nothing more."""
        self._judge.stop()

    # --- what there is ----------------------------------------------------------------------

    async def has(self, topic: TopicName) -> bool:
        """Return whether a topic has a schema."""
        return bool((await self._schemas.versions(topic)).live)

    async def get(self, topic: TopicName, version: int | None = None) -> VersionedSchema:
        """Return a topic's schema; None: the latest version.

        Raises:
            SchemaNotFoundError: it has none, or not this version.
        """
        with self._figures.get.measured(self._clock):
            versions = await self._schemas.versions(topic)
            numbers = [each.version for each in versions.live]
            if not numbers:
                raise SchemaNotFoundError(f"topic {topic} has no schema")
            if version is not None and version not in numbers:
                raise SchemaNotFoundError(f"topic {topic} has no version {version} of its schema")
            return await self._read(topic, numbers[-1] if version is None else version)

    async def all(self, topic: TopicName) -> list[VersionedSchema]:
        """Return all versions of a topic's schema, the oldest first; none: it has no schema."""
        with self._figures.get.measured(self._clock):
            versions = await self._schemas.versions(topic)
            return [await self._read(topic, each.version) for each in versions.live]

    async def find(self, topic: TopicName, schema: Schema) -> int:
        """Return the version under which a topic has a schema; `NO_VERSION`: it has it not.

        Raises:
            InvalidSchemaError: the definition is none.
        """
        fingerprint = await self._judge.fingerprint(schema)
        found = (await self._schemas.versions(topic)).record.find(fingerprint)
        return NO_VERSION if found is None else found

    # --- adding -----------------------------------------------------------------------------

    async def put(
        self, topic: TopicName, schema: Schema, strategy: Strategy, *, may_add: bool = True
    ) -> int:
        """Return the version of a schema, which is added if the topic has it not.

        Raises:
            InvalidSchemaError: the definition is none.
            IncompatibleSchemaError: it does not go with what is there, or nothing may be added.
            NamespaceNotFoundError: the namespace is missing.
        """
        fingerprint = await self._judge.fingerprint(schema)
        known = (await self._schemas.versions(topic)).record.find(fingerprint)
        if known is not None:
            return known
        if not may_add:
            raise IncompatibleSchemaError(
                f"topic {topic} has not this schema, and clients may not add one in this namespace"
            )
        with self._figures.put.measured(self._clock):
            async with self._turn(topic):
                return await self._add(topic, schema, fingerprint, strategy)

    async def _add(
        self, topic: TopicName, schema: Schema, fingerprint: str, strategy: Strategy
    ) -> int:
        definition = Definition(
            type=schema.type.name,
            data=schema.data,
            properties=dict(schema.properties),
            name=schema.name,
            created_ms=self._clock.wall_ms(),
        )
        for attempt in range(ATTEMPTS_MAX):
            seen = await self._schemas.versions(topic)
            known = seen.record.find(fingerprint)
            if known is not None:
                return known
            if len(seen.live) >= VERSIONS_MAX:
                raise IncompatibleSchemaError(
                    f"topic {topic} has {VERSIONS_MAX} versions of its schema, which is the limit"
                )
            await self._demand(topic, seen, schema, strategy, demanded(strategy))
            try:
                return await self._schemas.add(topic, seen, fingerprint, definition)
            except ConflictError:
                if attempt == ATTEMPTS_MAX - 1:
                    raise
        raise AssertionError("the loop above returns or raises")

    # --- checking ---------------------------------------------------------------------------

    async def check(self, topic: TopicName, schema: Schema, strategy: Strategy) -> None:
        """Do nothing if a schema could be added.

        Raises:
            InvalidSchemaError: the definition is none.
            IncompatibleSchemaError: it does not go with what is there.
        """
        fingerprint = await self._judge.fingerprint(schema)
        seen = await self._schemas.versions(topic)
        if seen.record.find(fingerprint) is None:
            await self._demand(topic, seen, schema, strategy, demanded(strategy))

    async def check_consumer(self, topic: TopicName, schema: Schema, strategy: Strategy) -> None:
        """Do nothing if a consumer with this schema can read what is in a topic.

        Raises:
            InvalidSchemaError: the definition is none.
            IncompatibleSchemaError: it cannot, or the topic has no schema at all.
        """
        fingerprint = await self._judge.fingerprint(schema)
        if strategy is Strategy.ALWAYS_COMPATIBLE:
            return
        seen = await self._schemas.versions(topic)
        if seen.latest is None:
            raise IncompatibleSchemaError(
                f"topic {topic} is in use without a schema, so what it holds are plain bytes;"
                f" a consumer with a {schema.type.name} schema cannot give it one"
            )
        if seen.latest.fingerprint != fingerprint:
            await self._demand(topic, seen, schema, strategy, demanded_of_consumer(strategy))

    async def _demand(
        self,
        topic: TopicName,
        seen: Versions,
        schema: Schema,
        strategy: Strategy,
        demand: Demand,
    ) -> None:
        if strategy is Strategy.ALWAYS_COMPATIBLE or not seen.live:
            return
        why, against = await self._objection(topic, seen, schema, strategy, demand)
        if not why:
            self._figures.compatible.value += 1
            return
        self._figures.incompatible.value += 1
        raise IncompatibleSchemaError(
            f"the schema is not compatible with version {against} of topic {topic}"
            f" ({strategy.value}): {why}"
        )

    async def _objection(
        self, topic: TopicName, seen: Versions, schema: Schema, strategy: Strategy, demand: Demand
    ) -> tuple[str, int]:
        """Return why a schema does not go with those before it, and with which; empty: it does."""
        latest = seen.live[-1].version
        if strategy is Strategy.ALWAYS_INCOMPATIBLE:
            return "no other schema is taken", latest
        budget = Budget()
        for each in reversed(seen.live) if demand.all_versions else seen.live[-1:]:
            old = (await self._read(topic, each.version)).schema
            why = await self._judge.compare(schema, old, demand, budget)
            if why:
                return why, each.version
        return "", latest

    # --- deleting ---------------------------------------------------------------------------

    async def delete(self, topic: TopicName, *, force: bool = False) -> int:
        """Delete a topic's schema, and return the number that this takes.

        What comes next may be anything. With `force` the numbers begin at 0 again, so messages
        that are still there may name a schema that they were not written with.

        Raises:
            SchemaNotFoundError: it has none.
        """
        with self._figures.delete.measured(self._clock):
            async with self._turn(topic):
                return await self._delete(topic, force=force)

    async def _delete(self, topic: TopicName, *, force: bool) -> int:
        for attempt in range(ATTEMPTS_MAX):
            seen = await self._schemas.versions(topic)
            if seen.stored_as is None or (not seen.live and not force):
                raise SchemaNotFoundError(f"topic {topic} has no schema")
            try:
                if force:
                    await self._schemas.forget(topic)
                    return seen.record.next
                return await self._schemas.hide(topic, seen)
            except ConflictError:
                if attempt == ATTEMPTS_MAX - 1:
                    raise
        raise AssertionError("the loop above returns or raises")

    async def forget(self, topic: TopicName) -> None:
        """Forget that a topic ever had a schema, because the topic is gone."""
        await self._schemas.forget(topic)

    # --- the rest ---------------------------------------------------------------------------

    async def _read(self, topic: TopicName, version: int) -> VersionedSchema:
        found = await self._schemas.definition(topic, version)
        if found is None:  # it was deleted a moment ago
            raise SchemaNotFoundError(f"topic {topic} has no version {version} of its schema")
        if found.type not in SchemaType.__members__:
            raise CorruptMetadataError(
                f"version {version} of the schema of {topic} has the type {found.type!r}"
            )
        schema = Schema(SchemaType[found.type], found.data, found.properties, found.name)
        return VersionedSchema(version, schema, found.created_ms)

    @asynccontextmanager
    async def _turn(self, topic: TopicName) -> AsyncIterator[None]:
        """Let those of this process who change one schema do so one after the other."""
        lock = self._turns.setdefault(topic.base, asyncio.Lock())
        async with lock:
            yield
