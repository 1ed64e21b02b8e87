"""The client for asyncio says the same things without blocking."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pulsar
import pulsar.asyncio
import pytest

from magnetar.client.admin import Admin
from tests.above.conftest import Addresses
from tests.conformance.talk import LIMIT_S, text, texts


@pytest.fixture
async def client(addresses: Addresses) -> AsyncIterator[Any]:
    client = pulsar.asyncio.Client(addresses.url, operation_timeout_seconds=30)
    yield client
    await client.close()


async def take(source: Any, count: int) -> list[str]:
    messages = [await asyncio.wait_for(source.receive(), LIMIT_S) for _ in range(count)]
    for message in messages:
        await source.acknowledge(message)
    return [text(message) for message in messages]


async def send(producer: Any, numbers: range) -> list[Any]:
    return list(await asyncio.gather(*(producer.send(b"%d" % number) for number in numbers)))


async def test_what_is_sent_at_once_travels_together_and_arrives_in_order(
    client: Any, topic: str
) -> None:
    consumer = await client.subscribe(topic, "s")
    producer = await client.create_producer(topic, producer_name="p")
    ids = await send(producer, range(5))
    assert {(each.ledger_id(), each.entry_id()) for each in ids} == {
        (ids[0].ledger_id(), ids[0].entry_id())
    }
    assert [each.batch_index() for each in ids] == list(range(5))
    assert producer.last_sequence_id() == 4
    assert await take(consumer, 5) == texts(range(5))


async def test_what_was_acknowledged_does_not_come_again(client: Any, topic: str) -> None:
    consumer = await client.subscribe(topic, "s")
    producer = await client.create_producer(topic, batching_enabled=False)
    await send(producer, range(6))
    messages = [await consumer.receive() for _ in range(6)]
    await consumer.acknowledge_cumulative(messages[2])
    await consumer.acknowledge(messages[4])
    await consumer.close()
    again = await client.subscribe(topic, "s")
    assert await take(again, 2) == ["3", "5"]


async def test_refused_messages_come_again(client: Any, topic: str) -> None:
    consumer = await client.subscribe(
        topic, "s", consumer_type=pulsar.ConsumerType.Shared,
        negative_ack_redelivery_delay_ms=100,
    )  # fmt: skip
    producer = await client.create_producer(topic)
    await send(producer, range(3))
    for _ in range(3):
        await consumer.negative_acknowledge(await consumer.receive())
    assert sorted(await take(consumer, 3)) == texts(range(3))


async def test_seek_by_message_and_by_time(client: Any, topic: str) -> None:
    consumer = await client.subscribe(topic, "s")
    producer = await client.create_producer(topic, batching_enabled=False)
    ids = [await producer.send(b"%d" % number) for number in range(5)]
    messages = [await consumer.receive() for _ in range(5)]
    await consumer.seek(ids[2])
    assert await take(consumer, 2) == ["3", "4"]
    await consumer.seek(messages[0].publish_timestamp())
    assert await take(consumer, 5) == texts(range(5))
    assert pulsar.MessageId.wrap(await consumer.get_last_message_id()) == ids[-1]


async def test_a_reader_reads(client: Any, topic: str) -> None:
    producer = await client.create_producer(topic)
    await send(producer, range(3))
    reader = await client.create_reader(topic, pulsar.MessageId.earliest)
    assert await reader.has_message_available()
    assert [text(await reader.read_next()) for _ in range(3)] == texts(range(3))
    assert not await reader.has_message_available()


async def test_several_topics_and_partitions(client: Any, admin: Admin, topic: str) -> None:
    admin.create_topic(topic, 3)
    assert len(await client.get_topic_partitions(topic)) == 3
    consumer = await client.subscribe(
        [topic, f"{topic}-other"], "s", consumer_type=pulsar.ConsumerType.Shared
    )
    for name in (topic, f"{topic}-other"):
        await send(await client.create_producer(name), range(6))
    assert sorted(await take(consumer, 12)) == sorted(texts(range(6)) * 2)


@pytest.mark.parametrize(
    ("name", "result"),
    [("nobody/default/t", pulsar.Result.TopicNotFound), ("a/b", pulsar.Result.InvalidTopicName)],
)
async def test_a_refusal_has_a_reason(client: Any, name: str, result: Any) -> None:
    with pytest.raises(pulsar.asyncio.PulsarException) as refused:
        await client.create_producer(name)
    assert refused.value.error() == result
