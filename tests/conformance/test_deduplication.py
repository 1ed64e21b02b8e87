"""Deduplication: a message that is sent again is stored once.

The client takes a sequence id of 0 for none given, and counts on by itself.
"""

import time
from typing import Any

import pulsar
import pytest

from magnetar.client.admin import Admin
from tests.conformance.conftest import Connect
from tests.conformance.talk import LIMIT_S, RECEIVE_MS, assert_quiet, take, texts


@pytest.fixture
def topic(admin: Admin, namespace: str) -> str:
    """A topic of a namespace that deduplicates."""
    admin.set_policy(namespace, "deduplication", value=True)
    return f"persistent://{namespace}/t"


def send_numbered(producer: Any, *numbers: int) -> None:
    for number in numbers:
        producer.send(b"%d" % number, sequence_id=number)


def stored(client: Any, topic: str) -> list[str]:
    reader = client.create_reader(topic, pulsar.MessageId.earliest)
    found = []
    while reader.has_message_available():
        found += take(reader, 1)
    return found


def test_what_was_stored_is_not_stored_again(client: Any, topic: str) -> None:
    consumer = client.subscribe(topic, "s")
    producer = client.create_producer(topic, producer_name="p")
    assert producer.last_sequence_id() == -1
    send_numbered(producer, 0, 1, 2, 1, 2)
    assert producer.last_sequence_id() == 2
    assert take(consumer, 3) == texts(range(3))
    assert_quiet(consumer)


def test_a_producer_that_comes_back_is_told_how_far_it_was(client: Any, topic: str) -> None:
    first = client.create_producer(topic, producer_name="p")
    send_numbered(first, 0, 5, 9)
    first.close()
    again = client.create_producer(topic, producer_name="p")
    assert again.last_sequence_id() == 9
    send_numbered(again, 5, 9, 10)
    assert again.last_sequence_id() == 10
    assert stored(client, topic) == ["0", "5", "9", "10"]


def test_sequence_ids_are_counted_on_after_coming_back(client: Any, topic: str) -> None:
    for first in (0, 5):
        producer = client.create_producer(topic, producer_name="p")
        for number in range(first, first + 5):
            producer.send(b"%d" % number)
            assert producer.last_sequence_id() == number
        producer.close()
    assert stored(client, topic) == texts(range(10))


def test_producers_do_not_hide_each_others_messages(client: Any, topic: str) -> None:
    one, other = (client.create_producer(topic, producer_name=name) for name in ("1", "2"))
    send_numbered(one, 7)
    send_numbered(other, 3)
    send_numbered(one, 7)
    assert stored(client, topic) == ["7", "3"]


def test_how_far_a_producer_was_survives_that_the_topic_is_unloaded(
    client: Any, admin: Admin, topic: str
) -> None:
    first = client.create_producer(topic, producer_name="p")
    send_numbered(first, 0, 1, 2)
    first.close()
    admin.unload(topic)
    again = client.create_producer(topic, producer_name="p")
    assert again.last_sequence_id() == 2
    send_numbered(again, 1, 2, 3)
    assert stored(client, topic) == texts(range(4))


def test_a_batch_that_comes_again_is_recognised(client: Any, topic: str) -> None:
    def send_batch(numbers: range) -> None:
        producer = client.create_producer(
            topic, producer_name="p", batching_enabled=True, batching_max_publish_delay_ms=5_000
        )
        for number in numbers:
            producer.send_async(b"%d" % number, None, sequence_id=number)
        producer.flush()
        producer.close()

    send_batch(range(1, 6))
    send_batch(range(1, 6))
    send_batch(range(6, 9))
    assert stored(client, topic) == texts(range(1, 9))


def test_a_large_message_in_chunks_is_stored_whole_and_once(client: Any, topic: str) -> None:
    producer = client.create_producer(topic, producer_name="p", chunking_enabled=True)
    body = bytes(range(256)) * 24_000
    for sequence_id in (1, 1, 2):
        producer.send(body, sequence_id=sequence_id)
    reader = client.create_reader(topic, pulsar.MessageId.earliest)
    assert [reader.read_next(RECEIVE_MS).data() == body for _ in range(2)] == [True, True]
    assert not reader.has_message_available()


def test_switching_it_on_holds_for_topics_that_are_in_use(
    client: Any, connect: Connect, admin: Admin, namespace: str
) -> None:
    topic = f"persistent://{namespace}/before"
    producer = client.create_producer(topic, producer_name="p")
    send_numbered(producer, 0, 0)
    assert stored(client, topic) == ["0", "0"]
    admin.set_policy(namespace, "deduplication", value=True)
    number, end = 1, time.monotonic() + LIMIT_S
    send_numbered(producer, number, number)
    while stored(client, topic)[-2:] != texts([number - 1, number]):
        assert time.monotonic() < end, "it never took effect"
        number += 1
        send_numbered(producer, number, number)
