"""Redelivery: refused, forgotten, given up, or put off."""

import time
from datetime import timedelta
from typing import Any

import pulsar
import pytest
from pulsar import ConsumerType as Type

from tests.conformance.conftest import Connect
from tests.conformance.talk import RECEIVE_MS, assert_quiet, receive, send, take, text, texts

SHARING = pytest.mark.parametrize("kind", [Type.Shared, Type.KeyShared], ids=lambda kind: kind.name)
IN_ORDER = pytest.mark.parametrize(
    "kind", [Type.Exclusive, Type.Failover], ids=lambda kind: kind.name
)


@SHARING
def test_each_refusal_raises_the_redelivery_count_by_one(
    client: Any, topic: str, kind: Any
) -> None:
    consumer = client.subscribe(
        topic, "s", consumer_type=kind, negative_ack_redelivery_delay_ms=100
    )
    sent = client.create_producer(topic).send(b"x")
    for count in range(4):
        message = consumer.receive(RECEIVE_MS)
        assert (text(message), message.redelivery_count()) == ("x", count)
        assert message.message_id() == sent
        consumer.negative_acknowledge(message if count % 2 else message.message_id())
    assert take(consumer, 1) == ["x"]
    assert_quiet(consumer)


def test_refused_messages_come_again_in_order_before_new_ones(client: Any, topic: str) -> None:
    consumer = client.subscribe(topic, "s", negative_ack_redelivery_delay_ms=300)
    producer = client.create_producer(topic)
    send(producer, 10)
    for message in receive(consumer, 10):
        consumer.negative_acknowledge(message)
    assert take(consumer, 10) == texts(range(10))
    assert_quiet(consumer)


def test_a_refused_batch_comes_again(client: Any, topic: str) -> None:
    consumer = client.subscribe(
        topic, "s", consumer_type=Type.Shared, negative_ack_redelivery_delay_ms=100
    )
    producer = client.create_producer(topic, batching_enabled=True)
    for number in range(5):
        producer.send_async(b"%d" % number, None)
    producer.flush()
    for message in receive(consumer, 5):
        consumer.negative_acknowledge(message)
    assert take(consumer, 5) == texts(range(5))


def test_what_nobody_acknowledges_in_time_comes_again(client: Any, topic: str) -> None:
    consumer = client.subscribe(
        topic, "s", consumer_type=Type.Shared, unacked_messages_timeout_ms=10_000
    )
    send(client.create_producer(topic), 3)
    forgotten, *others = receive(consumer, 3)
    for message in others:
        consumer.acknowledge(message)
    again = consumer.receive(10_000 + RECEIVE_MS)
    assert (text(again), again.redelivery_count()) == (text(forgotten), 1)


@SHARING
def test_a_consumer_may_ask_for_everything_it_has_not_acknowledged(
    client: Any, connect: Connect, topic: str, kind: Any
) -> None:
    consumer = client.subscribe(topic, "s", consumer_type=kind)
    send(client.create_producer(topic), 10)
    for message in receive(consumer, 10)[:4]:
        consumer.acknowledge(message)
    consumer.redeliver_unacknowledged_messages()
    messages = receive(consumer, 6)
    assert [text(each) for each in messages] == texts(range(4, 10))
    assert {each.redelivery_count() for each in messages} == {1}


@IN_ORDER
def test_where_there_is_one_reader_everything_from_the_first_gap_comes_again_in_order(
    client: Any, topic: str, kind: Any
) -> None:
    consumer = client.subscribe(topic, "s", consumer_type=kind)
    producer = client.create_producer(topic)
    send(producer, 10)
    messages = receive(consumer, 10)
    for number in (0, 1, 5):
        consumer.acknowledge(messages[number])
    consumer.redeliver_unacknowledged_messages()
    send(producer, [10])
    assert take(consumer, 8) == texts([2, 3, 4, 6, 7, 8, 9, 10])
    assert_quiet(consumer, 50)


def test_after_so_many_attempts_a_message_goes_to_the_dead_letters(client: Any, topic: str) -> None:
    policy = pulsar.ConsumerDeadLetterPolicy(3, f"{topic}-dead", "init")
    consumer = client.subscribe(topic, "s", consumer_type=Type.Shared, dead_letter_policy=policy)
    dead = client.subscribe(f"{topic}-dead", "s", consumer_type=Type.Shared)
    send(client.create_producer(topic), 10, properties={"sensor": "a"})
    for attempt in range(4):
        assert [each.redelivery_count() for each in receive(consumer, 10)] == [attempt] * 10
        consumer.redeliver_unacknowledged_messages()
    letters = receive(dead, 10)
    assert sorted(text(each) for each in letters) == texts(range(10))
    assert letters[0].properties()["sensor"] == "a"
    assert letters[0].properties()["REAL_TOPIC"] == topic
    assert_quiet(dead)
    assert_quiet(consumer)


def test_dead_letters_have_a_topic_named_after_the_subscription(client: Any, topic: str) -> None:
    consumer = client.subscribe(
        topic, "s", consumer_type=Type.Shared, negative_ack_redelivery_delay_ms=50,
        dead_letter_policy=pulsar.ConsumerDeadLetterPolicy(1),
    )  # fmt: skip
    dead = client.subscribe(f"{topic}-s-DLQ", "undertaker")
    client.create_producer(topic).send(b"hopeless")
    for _ in range(2):
        consumer.negative_acknowledge(consumer.receive(RECEIVE_MS))
    assert take(dead, 1) == ["hopeless"]


def test_a_message_can_be_put_off_through_a_retry_letter_topic(client: Any, topic: str) -> None:
    """What clients with retry letters do: publish it again, delayed, beside the topic itself."""
    retry = f"{topic}-s-RETRY"
    consumer = client.subscribe([topic, retry], "s", consumer_type=Type.Shared)
    client.create_producer(topic).send(b"later, please")
    message = consumer.receive(RECEIVE_MS)
    letters = client.create_producer(retry)
    began = time.time()
    letters.send(
        message.data(),
        properties={"RECONSUMETIMES": "1", "REAL_TOPIC": topic, "DELAY_TIME": "700"},
        deliver_after=timedelta(milliseconds=700),
    )
    consumer.acknowledge(message)
    again = consumer.receive(RECEIVE_MS)
    assert time.time() - began >= 0.69
    assert text(again) == "later, please"
    assert again.topic_name() == retry
    assert again.properties()["RECONSUMETIMES"] == "1"
