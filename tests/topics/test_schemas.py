"""Who is let into a topic with which schema: the rules of PRODUCER and SUBSCRIBE."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from magnetar.broker.port import (
    Consumer,
    IncompatibleSchemaError,
    Producer,
    ProducerRequest,
    Schema,
    SchemaNotFoundError,
    SchemaType,
    SubscribeRequest,
    SubscriptionType,
    TopicNotFoundError,
)
from magnetar.names import TopicName
from tests.topics.whole_core import ConsumerDoor, Core, ProducerDoor, set_policies

TOPIC = TopicName.parse("persistent://public/default/t")
IN_MEMORY = TopicName.parse("non-persistent://public/default/t")
TEXT, NUMBER = Schema(SchemaType.STRING), Schema(SchemaType.INT32)
WHATEVER_THERE_IS = Schema(SchemaType.AUTO_CONSUME)
PLAIN = Schema(SchemaType.NONE)
RECORD = Schema(
    SchemaType.AVRO, b'{"type":"record","name":"R","fields":[{"name":"a","type":"int"}]}'
)


async def produce(core: Core, schema: Schema | None = None, topic: TopicName = TOPIC) -> Producer:
    return await core.catalog.open_producer(ProducerRequest(topic, schema=schema), ProducerDoor())


async def consume(
    core: Core, schema: Schema | None = None, topic: TopicName = TOPIC, name: str = "s"
) -> Consumer:
    request = SubscribeRequest(topic, name, SubscriptionType.SHARED, schema=schema)
    return await core.catalog.subscribe(request, ConsumerDoor())


async def until(true: Callable[[], bool]) -> None:
    end = asyncio.get_running_loop().time() + 5
    while not true():
        assert asyncio.get_running_loop().time() < end
        await asyncio.sleep(0)


async def versions(core: Core) -> list[SchemaType]:
    return [each.schema.type for each in await core.catalog.schemas.all(TOPIC)]


@pytest.mark.parametrize("topic", [TOPIC, IN_MEMORY])
async def test_a_producer_brings_a_schema_and_is_told_its_version(
    core: Core, topic: TopicName
) -> None:
    assert (await produce(core, topic=topic)).schema_version is None
    assert (await produce(core, TEXT, topic)).schema_version == 0
    assert (await produce(core, TEXT, topic)).schema_version == 0
    assert (await produce(core, PLAIN, topic)).schema_version is None
    with pytest.raises(IncompatibleSchemaError):
        await produce(core, NUMBER, topic)


async def test_a_consumer_brings_a_schema_to_a_topic_that_nobody_uses(core: Core) -> None:
    await consume(core, RECORD)
    assert await versions(core) == [SchemaType.AVRO]
    await consume(core, RECORD)
    for other in (TEXT, NUMBER):
        with pytest.raises(IncompatibleSchemaError):
            await consume(core, other)


@pytest.mark.parametrize("topic", [TOPIC, IN_MEMORY])
async def test_a_topic_in_use_without_a_schema_gets_none_from_a_consumer(
    core: Core, topic: TopicName
) -> None:
    user = await produce(core, topic=topic)
    with pytest.raises(IncompatibleSchemaError, match="plain bytes"):
        await consume(core, TEXT, topic)
    await user.close()
    reader = await consume(core, None, topic)
    with pytest.raises(IncompatibleSchemaError, match="plain bytes"):
        await consume(core, TEXT, topic)
    await reader.close()
    await consume(core, TEXT, topic)


async def test_entries_are_use_enough(core: Core) -> None:
    client = await core.producer(str(TOPIC))
    await client.send("1")
    await client.producer.close()
    with pytest.raises(IncompatibleSchemaError, match="plain bytes"):
        await consume(core, TEXT)
    assert (await produce(core, TEXT)).schema_version == 0
    await consume(core, TEXT)


async def test_who_takes_whatever_there_is_does_not_count(core: Core) -> None:
    await consume(core, WHATEVER_THERE_IS, name="a")
    assert await versions(core) == []
    await consume(core, TEXT, name="b")
    assert await versions(core) == [SchemaType.STRING]
    await consume(core, WHATEVER_THERE_IS, name="c")
    await consume(core, None, name="d")
    await consume(core, PLAIN, name="e")


async def test_a_definition_is_not_kept_for_every_consumer(core: Core) -> None:
    consumer: Any = await consume(core, RECORD)
    producer: Any = await produce(core, RECORD)
    assert consumer.request.schema == producer.request.schema == Schema(SchemaType.AVRO)


async def test_policies_hold_for_topics_that_are_loaded(core: Core) -> None:
    await produce(core, TEXT)
    await produce(core)
    await set_policies(core, schema_required=True)
    topic = await core.catalog.topic(TOPIC)
    await until(lambda: topic.rules.schema_required)
    with pytest.raises(IncompatibleSchemaError, match="without one"):
        await produce(core)
    await produce(core, topic=TopicName.parse("persistent://public/default/plain"))

    await set_policies(core, schema_required=None, schema_updates_allowed=False)
    await until(lambda: not topic.rules.schema_updates_allowed)
    await produce(core, TEXT)
    with pytest.raises(IncompatibleSchemaError, match="may not add"):
        await produce(core, NUMBER)
    with pytest.raises(IncompatibleSchemaError, match="may not add"):
        await core.catalog.create_schema(TOPIC, NUMBER)

    await set_policies(core, schema_updates_allowed=None, schema_strategy="ALWAYS_COMPATIBLE")
    await until(lambda: topic.rules.schema_updates_allowed)
    assert (await produce(core, NUMBER)).schema_version == 1


async def test_the_brokers_own_topics_take_everything(core: Core) -> None:
    await set_policies(core, schema_updates_allowed=False, schema_strategy="ALWAYS_INCOMPATIBLE")
    own = TopicName.parse("persistent://public/default/__changes")
    for version, schema in enumerate((TEXT, NUMBER, RECORD)):
        assert (await produce(core, schema, own)).schema_version == version


async def test_a_schema_is_created_for_a_topic_that_is_there(core: Core) -> None:
    with pytest.raises(TopicNotFoundError):
        await core.catalog.create_schema(TOPIC, TEXT)
    await core.catalog.create(TOPIC)
    with pytest.raises(SchemaNotFoundError):
        await core.catalog.schema(TOPIC, None)
    assert await core.catalog.create_schema(TOPIC, PLAIN) is None
    assert await core.catalog.create_schema(TOPIC, TEXT) == 0
    assert (await core.catalog.schema(TOPIC, 0)).schema == TEXT
    with pytest.raises(IncompatibleSchemaError):
        await core.catalog.create_schema(TOPIC, NUMBER)
    await core.catalog.create_partitioned(TopicName.parse("many"), 2)
    assert await core.catalog.create_schema(TopicName.parse("many-partition-1"), TEXT) == 0
    assert (await core.catalog.schema(TopicName.parse("many"), None)).schema == TEXT


@pytest.mark.parametrize("topic", [TOPIC, IN_MEMORY])
async def test_a_deleted_topic_starts_anew(core: Core, topic: TopicName) -> None:
    await produce(core, TEXT, topic)
    await core.catalog.delete(topic, force=True)
    assert await versions(core) == []
    assert (await produce(core, NUMBER, topic)).schema_version == 0


async def test_what_was_promised_survives_a_power_loss(core: Core, tmp_path: Path) -> None:
    await produce(core, TEXT)
    copy = await core.crashed(tmp_path / "copy").start()
    assert await versions(copy) == [SchemaType.STRING]
    with pytest.raises(IncompatibleSchemaError):
        await produce(copy, NUMBER)
    await copy.stop()
