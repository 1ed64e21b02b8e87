"""Versions of a topic's schema: added, found, refused, deleted, and all of that at once."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from magnetar.broker.clock import ManualClock
from magnetar.broker.metadata.namespaces import Namespaces
from magnetar.broker.metadata.partitions import Partitions, TopicRecord
from magnetar.broker.metadata.store import Store
from magnetar.broker.metrics import Metrics
from magnetar.broker.port import (
    IncompatibleSchemaError,
    InvalidSchemaError,
    NamespaceNotFoundError,
    Schema,
    SchemaNotFoundError,
    SchemaType,
)
from magnetar.broker.schema import registry as registry_module
from magnetar.broker.schema.compatibility import Strategy
from magnetar.broker.schema.registry import NO_VERSION, Registry
from magnetar.names import NamespaceName, TopicName

TOPIC = TopicName.parse("persistent://t/n/orders")
CLOCK = ManualClock()
TEXT = Schema(SchemaType.STRING)
NUMBER = Schema(SchemaType.INT32)


def avro(**fields: Any) -> Schema:
    """A record with fields of these types; `(type, default)` for one with a default."""
    described = [
        {"name": name, "type": type_[0], "default": type_[1]}
        if isinstance(type_, tuple)
        else {"name": name, "type": type_}
        for name, type_ in fields.items()
    ]
    definition = {"type": "record", "name": "R", "fields": described}
    return Schema(SchemaType.AVRO, json.dumps(definition).encode(), {"who": "me"}, "R")


@pytest.fixture
async def registry(store: Store) -> AsyncIterator[Registry]:
    registry = Registry(store, CLOCK, Metrics())
    yield registry
    registry.stop()


async def put(registry: Registry, schema: Schema, strategy: Strategy = Strategy.FULL) -> int:
    return await registry.put(TOPIC, schema, strategy)


async def test_versions_count_from_zero_and_the_same_schema_keeps_its_own(
    registry: Registry,
) -> None:
    one, two = avro(a="int"), avro(a="int", b=("int", 0))
    assert [await put(registry, each) for each in (one, two, one, two)] == [0, 1, 0, 1]
    latest = await registry.get(TOPIC)
    assert (latest.version, latest.schema) == (1, two)
    assert latest.created_ms == CLOCK.wall_ms()
    assert (await registry.get(TOPIC, 0)).schema == one
    assert [each.version for each in await registry.all(TOPIC)] == [0, 1]
    assert [await registry.find(TOPIC, each) for each in (one, two, TEXT)] == [0, 1, NO_VERSION]


async def test_a_topic_without_a_schema_says_so(registry: Registry) -> None:
    assert not await registry.has(TOPIC)
    assert await registry.all(TOPIC) == []
    with pytest.raises(SchemaNotFoundError):
        await registry.get(TOPIC)
    await put(registry, TEXT)
    assert await registry.has(TOPIC)
    with pytest.raises(SchemaNotFoundError, match="version 7"):
        await registry.get(TOPIC, 7)


async def test_partitions_and_the_non_persistent_twin_share_one_schema(registry: Registry) -> None:
    await put(registry, TEXT)
    for name in ("persistent://t/n/orders-partition-3", "non-persistent://t/n/orders"):
        assert (await registry.get(TopicName.parse(name))).schema == TEXT


async def test_a_schema_needs_a_namespace(registry: Registry) -> None:
    with pytest.raises(NamespaceNotFoundError):
        await registry.put(TopicName.parse("persistent://t/missing/x"), TEXT, Strategy.FULL)


# --- who is let in ------------------------------------------------------------------------------

NARROW, WIDE = avro(a="int"), avro(a="long")
LESS, MORE = avro(a="int"), avro(a="int", b="int")
DEFAULTED = avro(a="int", b=("int", 0))


@pytest.mark.parametrize(
    ("strategy", "old", "new", "taken"),
    [
        (Strategy.FULL, LESS, DEFAULTED, True),
        (Strategy.FULL, DEFAULTED, LESS, True),
        (Strategy.FULL, LESS, MORE, False),
        (Strategy.FULL, MORE, LESS, False),
        (Strategy.FULL, NARROW, WIDE, False),
        (Strategy.BACKWARD, LESS, MORE, False),
        (Strategy.BACKWARD, MORE, LESS, True),
        (Strategy.BACKWARD, NARROW, WIDE, True),
        (Strategy.BACKWARD, WIDE, NARROW, False),
        (Strategy.FORWARD, LESS, MORE, True),
        (Strategy.FORWARD, MORE, LESS, False),
        (Strategy.FORWARD, WIDE, NARROW, True),
        (Strategy.ALWAYS_COMPATIBLE, LESS, TEXT, True),
        (Strategy.ALWAYS_COMPATIBLE, TEXT, NUMBER, True),
        (Strategy.ALWAYS_INCOMPATIBLE, LESS, DEFAULTED, False),
        (Strategy.FULL, TEXT, NUMBER, False),
        (Strategy.FULL, TEXT, LESS, False),
        (Strategy.UNDEFINED, LESS, DEFAULTED, True),
    ],
)
async def test_a_strategy_decides_who_is_taken(
    registry: Registry, strategy: Strategy, old: Schema, new: Schema, taken: bool
) -> None:
    await put(registry, old)
    if taken:
        await registry.check(TOPIC, new, strategy)
        assert await put(registry, new, strategy) == 1
        return
    with pytest.raises(IncompatibleSchemaError):
        await registry.check(TOPIC, new, strategy)
    with pytest.raises(IncompatibleSchemaError, match="version 0"):
        await put(registry, new, strategy)
    assert (await registry.get(TOPIC)).version == 0
    assert await put(registry, old, strategy) == 0


@pytest.mark.parametrize(
    ("strategy", "taken"),
    [
        (Strategy.BACKWARD, True),
        (Strategy.BACKWARD_TRANSITIVE, False),
        (Strategy.FORWARD, True),
        (Strategy.FORWARD_TRANSITIVE, False),
        (Strategy.FULL, True),
        (Strategy.FULL_TRANSITIVE, False),
    ],
)
async def test_transitive_strategies_look_at_all_versions(
    registry: Registry, strategy: Strategy, taken: bool
) -> None:
    """The field b is text, then gone, then a number: each step is fine, the whole way is not."""
    for each in (avro(a="int", b=("string", "")), avro(a="int")):
        await put(registry, each)
    back = avro(a="int", b=("int", 0))
    if taken:
        assert await put(registry, back, strategy) == 2
    else:
        with pytest.raises(IncompatibleSchemaError, match="version 0"):
            await put(registry, back, strategy)


async def test_clients_may_not_add_where_that_is_switched_off(registry: Registry) -> None:
    with pytest.raises(IncompatibleSchemaError, match="may not add"):
        await registry.put(TOPIC, TEXT, Strategy.FULL, may_add=False)
    await put(registry, TEXT)
    assert await registry.put(TOPIC, TEXT, Strategy.FULL, may_add=False) == 0


async def test_a_definition_that_is_none_is_refused(registry: Registry) -> None:
    with pytest.raises(InvalidSchemaError):
        await put(registry, Schema(SchemaType.AVRO, b"{"))
    assert not await registry.has(TOPIC)


async def test_a_topic_has_no_more_versions_than_the_limit(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_module, "VERSIONS_MAX", 2)
    await put(registry, TEXT)
    await put(registry, NUMBER, Strategy.ALWAYS_COMPATIBLE)
    with pytest.raises(IncompatibleSchemaError, match="limit"):
        await put(registry, LESS, Strategy.ALWAYS_COMPATIBLE)


# --- consumers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "stored", "consumer", "welcome"),
    [
        (Strategy.FULL, LESS, LESS, True),
        (Strategy.FULL, NARROW, WIDE, True),
        (Strategy.FULL, WIDE, NARROW, False),
        (Strategy.FORWARD, NARROW, WIDE, True),
        (Strategy.FORWARD, WIDE, NARROW, False),
        (Strategy.FORWARD_TRANSITIVE, WIDE, NARROW, False),
        (Strategy.FULL_TRANSITIVE, NARROW, WIDE, False),
        (Strategy.ALWAYS_INCOMPATIBLE, LESS, LESS, True),
        (Strategy.ALWAYS_INCOMPATIBLE, LESS, DEFAULTED, False),
        (Strategy.ALWAYS_COMPATIBLE, LESS, TEXT, True),
        (Strategy.FULL, LESS, TEXT, False),
    ],
)
async def test_a_consumer_must_read_what_is_there(
    registry: Registry, strategy: Strategy, stored: Schema, consumer: Schema, welcome: bool
) -> None:
    await put(registry, stored)
    if welcome:
        await registry.check_consumer(TOPIC, consumer, strategy)
    else:
        with pytest.raises(IncompatibleSchemaError):
            await registry.check_consumer(TOPIC, consumer, strategy)


async def test_a_consumer_cannot_give_plain_bytes_a_schema(registry: Registry) -> None:
    with pytest.raises(IncompatibleSchemaError, match="plain bytes"):
        await registry.check_consumer(TOPIC, TEXT, Strategy.FULL)
    await registry.check_consumer(TOPIC, TEXT, Strategy.ALWAYS_COMPATIBLE)


# --- deleting -----------------------------------------------------------------------------------


async def test_a_deleted_schema_takes_a_number_and_anything_may_follow(registry: Registry) -> None:
    await put(registry, TEXT)
    assert await registry.delete(TOPIC) == 1
    assert not await registry.has(TOPIC)
    for version in (None, 0, 1):
        with pytest.raises(SchemaNotFoundError):
            await registry.get(TOPIC, version)
    with pytest.raises(SchemaNotFoundError):
        await registry.delete(TOPIC)
    assert await put(registry, NUMBER) == 2
    assert await put(registry, NUMBER) == 2
    assert [each.version for each in await registry.all(TOPIC)] == [2]


async def test_force_forgets_that_there_was_a_schema(registry: Registry) -> None:
    await put(registry, TEXT)
    await registry.delete(TOPIC)
    await registry.delete(TOPIC, force=True)
    with pytest.raises(SchemaNotFoundError):
        await registry.delete(TOPIC, force=True)
    assert await put(registry, NUMBER) == 0


async def test_a_topic_takes_its_schema_with_it_and_a_partition_does_not(
    registry: Registry, store: Store
) -> None:
    topics = Partitions(store)
    await topics.create_topic(TOPIC, TopicRecord())
    await put(registry, TEXT)
    await topics.delete_topic(TOPIC)
    assert not await registry.has(TOPIC)

    await topics.create_partitioned(TOPIC, 2, 0)
    await put(registry, TEXT)
    await topics.delete_topic(TOPIC.partition_name(1))
    assert await registry.has(TOPIC)
    await topics.delete_topic(TOPIC.partition_name(0))
    await topics.delete_partitioned(TOPIC)
    assert not await registry.has(TOPIC)


async def test_a_namespace_takes_its_schemas_with_it(registry: Registry, store: Store) -> None:
    await put(registry, TEXT)
    await Namespaces(store).delete(NamespaceName("t", "n"))
    assert not await registry.has(TOPIC)
    assert [key for key in await store.keys("") if "orders" in key] == []


# --- at once ------------------------------------------------------------------------------------


async def test_many_who_add_one_schema_at_once_make_one_version(store: Store) -> None:
    """Each registry is what one process has: only the metadata is between them."""
    registries = [Registry(store, CLOCK, Metrics()) for _ in range(4)]
    schemas = [avro(a="int", **{f"f{number}": ("int", 0)}) for number in range(3)]
    versions = await asyncio.gather(
        *(
            registry.put(TOPIC, schema, Strategy.FULL)
            for _ in range(5)
            for registry in registries
            for schema in schemas
        )
    )
    assert sorted(set(versions)) == [0, 1, 2]
    found = await registries[0].all(TOPIC)
    assert len({each.schema.data for each in found}) == len(found) == 3
    assert [versions[i] for i in range(3)] == [versions[i] for i in range(3, 6)]
    for each in registries:
        each.stop()


async def test_of_two_that_do_not_go_together_only_one_is_taken(store: Store) -> None:
    registries = [Registry(store, CLOCK, Metrics()) for _ in range(2)]
    answers = await asyncio.gather(
        *(
            registry.put(TOPIC, schema, Strategy.FULL)
            for registry, schema in zip(registries, (TEXT, NUMBER), strict=True)
        ),
        return_exceptions=True,
    )
    assert sorted(isinstance(each, IncompatibleSchemaError) for each in answers) == [False, True]
    assert len(await registries[0].all(TOPIC)) == 1
    for each in registries:
        each.stop()


async def test_what_is_done_is_counted(store: Store) -> None:
    metrics = Metrics()
    registry = Registry(store, CLOCK, metrics)
    await put(registry, LESS)
    await put(registry, DEFAULTED)
    with pytest.raises(IncompatibleSchemaError):
        await put(registry, TEXT)
    await registry.get(TOPIC)
    await registry.delete(TOPIC)
    shown = "".join(metrics.render())
    for line in (
        "pulsar_schema_compatible_total 1",
        "pulsar_schema_incompatible_total 1",
        "pulsar_schema_put_ops_latency_count 2",
        "pulsar_schema_put_ops_failed_total 1",
        "pulsar_schema_get_ops_latency_count 1",
        "pulsar_schema_del_ops_latency_count 1",
    ):
        assert f"{line}\n" in shown
    registry.stop()
