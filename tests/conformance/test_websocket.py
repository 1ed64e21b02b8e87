"""The WebSocket API of a whole broker, with the official client on the other side.

With one process and with two: a connection then lands where chance or its topic leads it.
"""

import asyncio
import json
import uuid
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pulsar
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from magnetar.cli.demo.broker import BrokerProcess
from magnetar.client.admin import Admin
from tests.above.conftest import Addresses, own_broker
from tests.conformance.conftest import Restartable
from tests.conformance.talk import LIMIT_S, RECEIVE_MS

__all__ = ["own_broker"]

WAIT_S = LIMIT_S


class Socket:
    """One WebSocket, in JSON."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    def tell(self, **message: Any) -> None:
        self._socket.send(json.dumps(message))

    def hear(self, timeout_s: float = WAIT_S) -> dict[str, Any]:
        heard: dict[str, Any] = json.loads(self._socket.recv(timeout_s))
        return heard

    def publish(self, payload: bytes, **more: Any) -> str:
        self.tell(payload=b64encode(payload).decode(), **more)
        answer = self.hear()
        assert answer["result"] == "ok", answer
        return str(answer["messageId"])

    def receive(self, *, ack: bool = True) -> dict[str, Any]:
        message = self.hear()
        if ack:
            self.tell(messageId=message["messageId"])
        return message

    def silent(self, seconds: float = 0.3) -> bool:
        try:
            self.hear(seconds)
        except TimeoutError:
            return True
        return False


@contextmanager
def opened(admin_url: str, target: str) -> Iterator[Socket]:
    url = admin_url.replace("http://", "ws://")
    with connect(f"{url}/ws/{target}", max_size=2**24) as socket:
        yield Socket(socket)


def path_of(topic: str) -> str:
    return topic.replace("://", "/")


def content(message: dict[str, Any]) -> bytes:
    return b64decode(message["payload"])


def test_what_is_published_by_websocket_is_received_by_the_official_client(
    addresses: Addresses, client: Any, topic: str
) -> None:
    consumer = client.subscribe(topic, "s")
    query = "batchingEnabled=true&compressionType=LZ4&batchingMaxMessages=3&producerName=web"
    with opened(addresses.admin_url, f"v2/producer/{path_of(topic)}?{query}") as producer:
        for number in range(6):
            producer.tell(
                payload=b64encode(b"%d" % number).decode(),
                properties={"n": number},
                key="k",
                eventTime="2026-01-01T00:00:00Z",
            )
        assert [producer.hear()["result"] for _ in range(6)] == ["ok"] * 6
    for number in range(6):
        message = consumer.receive(RECEIVE_MS)
        assert message.data() == b"%d" % number
        assert message.properties() == {"n": str(number)}
        assert (message.partition_key(), message.producer_name()) == ("k", "web")
        assert message.event_timestamp() == 1_767_225_600_000
        consumer.acknowledge(message)


@pytest.mark.parametrize(
    "options",
    [
        {"batching_enabled": False},
        {"batching_enabled": True, "compression_type": pulsar.CompressionType.ZSTD},
        {"batching_enabled": False, "chunking_enabled": True},
    ],
    ids=["single", "batched and compressed", "chunked"],
)
def test_what_the_official_client_publishes_is_received_by_websocket(
    addresses: Addresses, client: Any, topic: str, options: dict[str, Any]
) -> None:
    contents = [b"first", b"second", b"third"]
    if options.get("chunking_enabled"):
        contents.append(bytes(range(256)) * 30_000)
    with opened(addresses.admin_url, f"v2/consumer/{path_of(topic)}/s") as consumer:
        producer = client.create_producer(topic, **options)
        for each in contents:
            producer.send_async(each, None, properties={"a": "b"}, partition_key="k")
        producer.flush()
        for each in contents:
            message = consumer.receive()
            assert content(message) == each
            assert (message["properties"], message["key"]) == ({"a": "b"}, "k")


def test_acknowledgements_hold_between_both_kinds_of_clients(
    addresses: Addresses, client: Any, topic: str
) -> None:
    client.subscribe(topic, "s", pulsar.ConsumerType.Shared).close()
    producer = client.create_producer(
        topic, batching_enabled=True, batching_max_publish_delay_ms=1000
    )
    for number in range(4):
        producer.send_async(b"%d" % number, None)
    producer.flush()
    target = f"v2/consumer/{path_of(topic)}/s?subscriptionType=Shared"
    with opened(addresses.admin_url, target) as consumer:
        first, _, third, _ = [consumer.receive(ack=False) for _ in range(4)]
        consumer.tell(messageId=first["messageId"])
        consumer.tell(messageId=third["messageId"])
        consumer.tell(type="ping")
        assert consumer.hear() == {"result": "ok"}
    rest = client.subscribe(topic, "s", pulsar.ConsumerType.Shared)
    assert {rest.receive(RECEIVE_MS).data() for _ in range(2)} == {b"1", b"3"}


def test_a_negative_acknowledgement_leads_to_the_dead_letter_topic(
    addresses: Addresses, client: Any, topic: str
) -> None:
    dead = client.subscribe(f"{topic}-s-DLQ", "dead")
    query = "subscriptionType=Shared&maxRedeliverCount=2&negativeAckRedeliveryDelay=50"
    with opened(addresses.admin_url, f"v2/consumer/{path_of(topic)}/s?{query}") as consumer:
        client.create_producer(topic).send(b"poison")
        for count in range(3):
            message = consumer.receive(ack=False)
            assert message["redeliveryCount"] == count
            consumer.tell(type="negativeAcknowledge", messageId=message["messageId"])
        letter = dead.receive(RECEIVE_MS)
        assert letter.data() == b"poison"
        assert letter.properties()["REAL_TOPIC"] == topic
        assert consumer.silent()


def test_partitions_and_pull_mode_work_whichever_process_owns_what(
    addresses: Addresses, admin: Admin, topic: str
) -> None:
    admin.create_topic(topic, partitions=4)
    place = path_of(topic)
    target = f"v2/consumer/{place}/s?pullMode=true&subscriptionType=Shared"
    with (
        opened(addresses.admin_url, target) as consumer,
        opened(
            addresses.admin_url, f"v2/producer/{place}?messageRoutingMode=RoundRobinPartition"
        ) as producer,
    ):
        sent = {producer.publish(b"%d" % number) for number in range(12)}
        assert consumer.silent()
        consumer.tell(type="permit", permitMessages=12)
        assert {consumer.receive()["messageId"] for _ in range(12)} == sent
        assert consumer.silent(0.1)


def test_a_reader_reads_from_where_it_is_told(addresses: Addresses, topic: str) -> None:
    place = path_of(topic)
    with opened(addresses.admin_url, f"v2/producer/{place}") as producer:
        ids = [producer.publish(b"%d" % number) for number in range(4)]
    start = ids[1].replace("+", "%2B")
    with opened(addresses.admin_url, f"v2/reader/{place}?messageId={start}") as reader:
        assert [reader.receive()["messageId"] for _ in range(2)] == ids[2:]
    with opened(addresses.admin_url, f"v2/reader/{place}?messageId=earliest") as reader:
        assert [content(reader.receive()) for _ in range(4)] == [b"0", b"1", b"2", b"3"]


def test_topics_of_both_processes_come_over_one_connection(addresses: Addresses) -> None:
    topics = [f"persistent://public/default/{uuid.uuid4()}" for _ in range(6)]
    with opened(addresses.admin_url, f"v3/consumer/s?topics={','.join(topics)}") as consumer:
        for topic in topics:
            with opened(addresses.admin_url, f"v2/producer/{path_of(topic)}") as producer:
                producer.publish(topic.encode())
        assert {content(consumer.receive()).decode() for _ in topics} == set(topics)


def test_topics_of_both_processes_that_fit_a_pattern_come_as_they_are_made(
    addresses: Addresses,
) -> None:
    start = f"fits-{uuid.uuid4()}"
    topics = [f"persistent://public/default/{start}-{number}" for number in range(6)]
    pattern = f"persistent://public/default/{start}.*"
    with (
        Admin(addresses.admin_url) as admin,
        opened(addresses.admin_url, f"v3/consumer/s?topicsPattern={pattern}") as consumer,
    ):
        for topic in topics:  # none was there when the consumer came
            with opened(addresses.admin_url, f"v2/producer/{path_of(topic)}") as producer:
                producer.publish(topic.encode())
        assert {content(consumer.receive()).decode() for _ in topics} == set(topics)
        admin.delete_topic(topics[0], force=True)
        with opened(addresses.admin_url, f"v2/producer/{path_of(topics[1])}") as producer:
            producer.publish(b"still")
        assert content(consumer.receive()) == b"still"
        assert topics[0] not in admin.topics("public/default")


def test_what_was_answered_outlives_a_kill(restartable: Restartable, topic: str) -> None:
    admin_url = restartable.process.ports.admin_url
    place = path_of(topic)
    with opened(admin_url, f"v2/consumer/{place}/s"):
        pass
    with opened(admin_url, f"v2/producer/{place}?batchingEnabled=true") as producer:
        for number in range(50):
            producer.tell(payload=b64encode(b"%d" % number).decode())
        assert [producer.hear()["result"] for _ in range(50)] == ["ok"] * 50
        restartable.crash()
        with pytest.raises(ConnectionClosed):
            producer.hear()
    with opened(admin_url, f"v2/consumer/{place}/s") as consumer:
        received = [content(consumer.receive()) for _ in range(50)]
    assert received == [b"%d" % number for number in range(50)]


def test_clients_hear_good_bye_when_the_broker_is_stopped(own_broker: BrokerProcess) -> None:
    async def stopped() -> int | None:
        from websockets.asyncio.client import connect as connect_async

        url = own_broker.ports.admin_url.replace("http://", "ws://")
        async with connect_async(f"{url}/ws/v2/producer/persistent/public/default/t") as client:
            loop = asyncio.get_running_loop()
            stopping = loop.run_in_executor(None, own_broker.stop)
            await asyncio.wait_for(client.wait_closed(), WAIT_S)
            assert await stopping == 0
            return client.close_code

    assert asyncio.run(stopped()) == 1001
