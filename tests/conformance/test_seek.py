"""Seek: back, forward, by message and by time."""

import time
from typing import Any

import pulsar
import pytest
from pulsar import ConsumerType as Type

from magnetar.client.admin import Admin
from tests.conformance.conftest import Connect
from tests.conformance.talk import assert_quiet, receive, send, take, text, texts

EARLIEST, LATEST = pulsar.MessageId.earliest, pulsar.MessageId.latest
ANY_TYPE = pytest.mark.parametrize(
    "kind", [Type.Exclusive, Type.Failover, Type.Shared, Type.KeyShared], ids=lambda kind: kind.name
)


@ANY_TYPE
def test_a_consumer_goes_to_any_message_and_on_from_there(
    client: Any, topic: str, kind: Any
) -> None:
    consumer = client.subscribe(topic, "s", consumer_type=kind)
    ids = send(client.create_producer(topic), 20)
    take(consumer, 20)
    consumer.seek(EARLIEST)
    assert take(consumer, 20) == texts(range(20))
    consumer.seek(ids[12])
    assert take(consumer, 7) == texts(range(13, 20))
    consumer.seek(pulsar.MessageId(ledger_id=ids[5].ledger_id(), entry_id=ids[5].entry_id()))
    assert take(consumer, 14) == texts(range(6, 20))
    assert_quiet(consumer, 50)


def test_inclusive_means_the_message_itself(client: Any, topic: str) -> None:
    consumer = client.subscribe(topic, "s", start_message_id_inclusive=True)
    ids = send(client.create_producer(topic), 10)
    take(consumer, 10)
    consumer.seek(ids[6])
    assert take(consumer, 4) == texts(range(6, 10))


def test_to_the_latest_means_that_only_what_follows_is_received(client: Any, topic: str) -> None:
    consumer = client.subscribe(topic, "s")
    producer = client.create_producer(topic)
    send(producer, 10)
    consumer.seek(LATEST)
    send(producer, ["after"])
    assert take(consumer, 1) == ["after"]


def test_a_time_means_the_first_message_published_then_or_later(client: Any, topic: str) -> None:
    consumer = client.subscribe(topic, "s", consumer_type=Type.Shared)
    producer = client.create_producer(topic)
    times = []
    for number in range(10):
        producer.send(b"%d" % number)
        time.sleep(0.01)
    for message in receive(consumer, 10):
        times.append(message.publish_timestamp())
        consumer.acknowledge(message)
    for number in (3, 0, 9):
        consumer.seek(times[number])
        assert take(consumer, 10 - number) == texts(range(number, 10))
    consumer.seek(times[0] - 3_600_000)
    assert take(consumer, 10) == texts(range(10))
    consumer.seek(times[9] + 3_600_000)
    producer.send(b"after")
    assert take(consumer, 1) == ["after"]


@pytest.mark.parametrize(
    "wrong", [pytest.param(1.0, id="a float"), pytest.param("earliest", id="a word")]
)
def test_what_is_neither_a_message_nor_a_time_is_refused(
    client: Any, topic: str, wrong: object
) -> None:
    consumer = client.subscribe(topic, "s")
    with pytest.raises(ValueError, match="seek"):
        consumer.seek(wrong)


def test_a_position_beyond_the_end_is_the_end_and_one_before_the_start_is_the_start(
    client: Any, topic: str
) -> None:
    consumer = client.subscribe(topic, "s")
    producer = client.create_producer(topic)
    send(producer, 5)
    take(consumer, 5)
    consumer.seek(pulsar.MessageId(ledger_id=2**40, entry_id=0))
    send(producer, ["after"])
    assert take(consumer, 1) == ["after"]
    consumer.seek(pulsar.MessageId(ledger_id=0, entry_id=0))
    assert take(consumer, 6) == [*texts(range(5)), "after"]


@pytest.mark.parametrize("inclusive", [False, True])
def test_a_reader_goes_to_any_message_and_any_time(
    client: Any, topic: str, inclusive: bool
) -> None:
    producer = client.create_producer(topic)
    reader = client.create_reader(topic, LATEST, start_message_id_inclusive=inclusive)
    ids = send(producer, 20)
    messages = receive(reader, 20)
    at = 0 if inclusive else 1
    for number in (11, 3, 18):
        reader.seek(ids[number])
        assert reader.has_message_available()
        assert take(reader, 1) == [str(number + at)]
    reader.seek(messages[0].publish_timestamp())
    assert take(reader, 20) == texts(range(20))


def test_after_a_seek_to_the_end_there_is_nothing_until_something_comes(
    client: Any, topic: str
) -> None:
    producer = client.create_producer(topic)
    reader = client.create_reader(topic, EARLIEST)
    producer.send(b"0")
    assert reader.has_message_available()
    reader.seek(LATEST)
    assert not reader.has_message_available()
    producer.send(b"1")
    assert reader.has_message_available()
    assert take(reader, 1) == ["1"]


def test_a_reader_goes_into_the_middle_of_a_batch(client: Any, topic: str) -> None:
    producer = client.create_producer(
        topic, batching_enabled=True, batching_max_publish_delay_ms=5_000
    )
    reader = client.create_reader(topic, EARLIEST)
    for number in range(10):
        producer.send_async(b"%d" % number, None)
    producer.flush()
    messages = receive(reader, 10)
    reader.seek(messages[6].message_id())
    assert take(reader, 3) == texts(range(7, 10))


def test_who_shares_a_subscription_is_moved_with_it(
    client: Any, connect: Connect, topic: str
) -> None:
    one = client.subscribe(topic, "s", consumer_type=Type.Shared, receiver_queue_size=4)
    other = connect().subscribe(topic, "s", consumer_type=Type.Shared, receiver_queue_size=4)
    send(client.create_producer(topic), 20)
    seen: set[str] = set()
    while len(seen) < 20:
        for consumer in (one, other):
            try:
                message = consumer.receive(50)
            except pulsar.Timeout:
                continue
            seen.add(text(message))
            consumer.acknowledge(message)
    one.seek(EARLIEST)
    again: set[str] = set()
    while len(again) < 20:
        for consumer in (one, other):
            try:
                message = consumer.receive(50)
            except pulsar.Timeout:
                continue
            again.add(text(message))
            consumer.acknowledge(message)
    assert again == seen


def test_a_subscription_of_a_partitioned_topic_goes_back_in_time_on_all_partitions(
    client: Any, admin: Admin, topic: str
) -> None:
    admin.create_topic(topic, 3)
    consumer = client.subscribe(topic, "s", consumer_type=Type.Shared)
    send(client.create_producer(topic), 30)
    first_ms = min(each.publish_timestamp() for each in receive(consumer, 30))
    consumer.seek(first_ms)
    assert sorted(take(consumer, 30), key=int) == texts(range(30))
