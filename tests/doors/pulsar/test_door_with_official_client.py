"""The official client through the door, with a fake core behind it."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pulsar
import pytest

from tests.doors.pulsar.conftest import Rig

TIMEOUT_MS = 5_000

quiet = logging.getLogger("pulsar-client-in-tests")
quiet.setLevel(logging.CRITICAL)


@pytest.fixture
async def client(rig: Rig) -> AsyncIterator[pulsar.Client]:
    client = pulsar.Client(rig.port.url, operation_timeout_seconds=5, logger=quiet)
    yield client
    await asyncio.to_thread(client.close)


async def test_what_is_produced_is_consumed(rig: Rig, client: pulsar.Client) -> None:
    def talk() -> list[bytes]:
        consumer = client.subscribe("t", "s", consumer_type=pulsar.ConsumerType.Shared)
        producer = client.create_producer("t")
        for number in range(20):
            producer.send(b"message %d" % number)
        received = []
        for _ in range(20):
            message = consumer.receive(TIMEOUT_MS)
            consumer.acknowledge(message)
            received.append(message.data())
        consumer.close()
        producer.close()
        return received

    assert await asyncio.to_thread(talk) == [b"message %d" % number for number in range(20)]
    await rig.until(lambda: rig.port.subscribed[0].closed and rig.port.opened[0].closed)
    assert rig.port.topic("t").subscriptions["s"].acknowledged == set(range(20))


async def test_batches_compressed_and_chunked_messages_come_back_untouched(
    rig: Rig, client: pulsar.Client
) -> None:
    large = bytes(range(256)) * 45_000  # more than two entries' worth

    def talk() -> None:
        consumer = client.subscribe("t", "s")
        batching = client.create_producer(
            "t", batching_enabled=True, compression_type=pulsar.CompressionType.LZ4
        )
        for number in range(100):
            batching.send_async(b"%d" % number, None, properties={"n": str(number)})
        batching.flush()
        chunking = client.create_producer("t", batching_enabled=False, chunking_enabled=True)
        chunking.send(large)
        for number in range(100):
            message = consumer.receive(TIMEOUT_MS)
            assert (message.data(), message.properties()["n"]) == (b"%d" % number, str(number))
            consumer.acknowledge(message)
        assert consumer.receive(TIMEOUT_MS).data() == large

    await asyncio.to_thread(talk)
    assert len(rig.port.topic("t").rows) < 60


async def test_a_reader_and_a_seek(rig: Rig, client: pulsar.Client) -> None:
    def talk() -> None:
        producer = client.create_producer("t")
        ids = [producer.send(b"%d" % number) for number in range(10)]
        reader = client.create_reader("t", pulsar.MessageId.earliest)
        assert [reader.read_next(TIMEOUT_MS).data() for _ in range(10)] == [
            b"%d" % number for number in range(10)
        ]
        assert not reader.has_message_available()
        reader.seek(ids[6])
        assert reader.has_message_available()
        assert reader.read_next(TIMEOUT_MS).data() == b"7"  # not inclusive

    await asyncio.to_thread(talk)


async def test_an_error_of_the_broker_becomes_the_clients_own(
    rig: Rig, client: pulsar.Client
) -> None:
    def talk() -> None:
        client.subscribe("t", "s")
        with pytest.raises(pulsar.ConsumerBusy):
            client.subscribe("t", "s")

    await asyncio.to_thread(talk)
