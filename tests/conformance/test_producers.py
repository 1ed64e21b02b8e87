"""Producers: what the official client may rely on when it publishes."""

import gc
import threading
import time
from datetime import timedelta
from typing import Any

import pulsar
import pytest

from magnetar.client.admin import Admin
from tests.conformance.conftest import Connect
from tests.conformance.talk import RECEIVE_MS, assert_quiet, eventually, receive, send, take, texts

ENTRY_BYTES_MAX = 5 * 1024 * 1024


def test_a_message_is_received_under_the_id_it_was_sent_with(client: Any, topic: str) -> None:
    consumer = client.subscribe(topic, "s")
    sent = send(client.create_producer(topic), 5)
    messages = receive(consumer, 5)
    assert [message.message_id() for message in messages] == sent
    assert [message.topic_name() for message in messages] == [topic] * 5
    assert messages[0].encryption_context() is None


def test_message_ids_are_ordered_as_the_messages_are(client: Any, topic: str) -> None:
    ids = [pulsar.MessageId.wrap(each) for each in send(client.create_producer(topic), 5)]
    assert ids == sorted(ids)
    assert len(set(map(str, ids))) == 5


def test_receipts_come_in_the_order_of_the_messages_with_result_and_id(
    client: Any, topic: str
) -> None:
    producer = client.create_producer(topic, max_pending_messages=500)
    receipts: list[tuple[Any, Any, int]] = []
    for number in range(300):
        producer.send_async(
            b"%d" % number,
            lambda result, at, number=number: receipts.append((result, at, number)),
        )
    producer.flush()
    eventually(lambda: len(receipts) == 300)
    assert [number for _, _, number in receipts] == list(range(300))
    assert {result for result, _, _ in receipts} == {pulsar.Result.Ok}
    ids = [pulsar.MessageId.wrap(at) for _, at, _ in receipts]
    assert ids == sorted(ids)


def test_flush_returns_when_everything_sent_before_is_stored(
    client: Any, admin: Admin, topic: str
) -> None:
    producer = client.create_producer(topic, batching_enabled=True, block_if_queue_full=True)
    for number in range(2_000):
        producer.send_async(b"%d" % number, None)
    producer.flush()
    assert admin.stats(topic)["msgInCounter"] == 2_000


def test_a_producer_is_connected_until_it_is_closed_and_sends_nothing_then(
    client: Any, topic: str
) -> None:
    producer = client.create_producer(topic)
    assert producer.is_connected()
    producer.close()
    assert not producer.is_connected()
    with pytest.raises(pulsar.AlreadyClosed):
        producer.send(b"late")


def test_after_a_shutdown_of_the_client_nothing_can_be_sent(connect: Connect, topic: str) -> None:
    client = connect()
    producer = client.create_producer(topic)
    producer.send(b"in time")
    client.shutdown()
    with pytest.raises(pulsar.PulsarException):
        producer.send(b"late")


def test_a_producer_outlives_the_variable_that_held_its_client(
    connect: Connect, topic: str
) -> None:
    producer = connect().create_producer(topic)
    gc.collect()
    producer.send(b"still here")


def test_receivers_see_the_name_that_the_producer_was_given(client: Any, topic: str) -> None:
    consumer = client.subscribe(topic, "s", consumer_type=pulsar.ConsumerType.Shared)
    producer = client.create_producer(topic, producer_name="thermometer 1")
    producer.send(b"20")
    assert producer.producer_name() == "thermometer 1"
    assert consumer.receive(RECEIVE_MS).producer_name() == "thermometer 1"
    assert_quiet(consumer)


def test_producers_without_a_name_get_one_each(client: Any, topic: str) -> None:
    names = {client.create_producer(topic).producer_name() for _ in range(3)}
    assert len(names) == 3
    assert all(names)


def test_two_producers_of_one_name_cannot_be_there_at_once(
    client: Any, connect: Connect, topic: str
) -> None:
    first = client.create_producer(topic, producer_name="p")
    with pytest.raises(pulsar.ProducerBusy):
        connect().create_producer(topic, producer_name="p")
    first.close()
    connect().create_producer(topic, producer_name="p").send(b"my turn")


def test_sequence_ids_go_on_from_where_the_producer_begins(client: Any, topic: str) -> None:
    producer = client.create_producer(topic)
    assert producer.last_sequence_id() == -1
    for number in range(5):
        producer.send(b"x")
        assert producer.last_sequence_id() == number
    other = client.create_producer(topic, initial_sequence_id=41)
    other.send(b"x")
    assert other.last_sequence_id() == 42


def test_everything_said_about_a_message_arrives_with_it(client: Any, topic: str) -> None:
    consumer = client.subscribe(topic, "s")
    producer = client.create_producer(topic)
    before_ms = int(time.time() * 1000) - 1000
    producer.send(
        "20,5 °C".encode(),
        properties={"sensor": "a", "größe": "", "": "empty name"},
        partition_key="key",
        ordering_key="order",
        event_timestamp=1_234_567_890_123,
    )
    message = consumer.receive(RECEIVE_MS)
    assert message.data().decode() == "20,5 °C"
    assert message.properties() == {"sensor": "a", "größe": "", "": "empty name"}
    assert message.partition_key() == "key"
    assert message.ordering_key() == "order"
    assert message.event_timestamp() == 1_234_567_890_123
    assert before_ms < message.publish_timestamp() < before_ms + 60_000
    assert message.redelivery_count() == 0


def test_null_empty_and_something_are_three_things(client: Any, topic: str) -> None:
    consumer = client.subscribe(topic, "s")
    producer = client.create_producer(topic)
    producer.send(b"", partition_key="k")
    producer.send(None, partition_key="k", properties={"action": "delete"})
    producer.send(b"x", partition_key="k")
    empty, null, something = receive(consumer, 3)
    assert (empty.has_null_value(), empty.data()) == (False, b"")
    assert (null.has_null_value(), null.data()) == (True, b"")
    assert (null.properties(), null.partition_key()) == ({"action": "delete"}, "k")
    assert (something.has_null_value(), something.data()) == (False, b"x")


@pytest.mark.parametrize("size", [1, 4096, 65_536, 1_000_000, ENTRY_BYTES_MAX - 10_000])
def test_a_message_of_any_size_up_to_the_limit_arrives_whole(
    client: Any, topic: str, size: int
) -> None:
    consumer = client.subscribe(topic, "s")
    body = (b"%d," % size * (size // 2 + 1))[:size]
    client.create_producer(topic).send(body)
    assert consumer.receive(RECEIVE_MS).data() == body


def test_a_message_above_the_limit_is_refused_and_the_next_one_is_not(
    client: Any, topic: str
) -> None:
    consumer = client.subscribe(topic, "s")
    producer = client.create_producer(topic)
    with pytest.raises(pulsar.MessageTooBig):
        producer.send(bytes(ENTRY_BYTES_MAX + 1))
    producer.send(b"small")
    assert take(consumer, 1) == ["small"]


def test_many_producers_and_consumers_share_one_connection(client: Any, topic: str) -> None:
    topics = [f"{topic}-{number}" for number in range(20)]
    consumers = [client.subscribe(each, "s") for each in topics]
    producers = [client.create_producer(each) for each in topics]
    for number in range(10):
        for producer in producers:
            producer.send_async(b"%d" % number, None)
    for consumer in consumers:
        assert take(consumer, 10) == texts(range(10))


def test_clients_that_come_all_at_once_make_a_topic_once(connect: Connect, topic: str) -> None:
    errors: list[Exception] = []

    def come(number: int) -> None:
        try:
            connect().create_producer(topic).send(b"%d" % number)
        except pulsar.PulsarException as error:
            errors.append(error)

    threads = [threading.Thread(target=come, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    reader = connect().create_reader(topic, pulsar.MessageId.earliest)
    assert sorted(take(reader, 8)) == texts(range(8))


def test_sending_from_receipts_does_not_stand_still(client: Any, topic: str) -> None:
    producer = client.create_producer(topic)
    results: list[Any] = []

    def again(result: Any, _: Any) -> None:
        results.append(result)
        if len(results) < 30:
            producer.send_async(b"next", again)

    producer.send_async(b"first", again)
    eventually(lambda: len(results) == 30)
    assert set(results) == {pulsar.Result.Ok}


def test_a_producer_goes_on_while_its_topic_is_unloaded(
    client: Any, admin: Admin, topic: str
) -> None:
    consumer = client.subscribe(topic, "s")
    producer = client.create_producer(topic, block_if_queue_full=True)
    failures: list[Any] = []

    def done(result: Any, _: Any) -> None:
        if result != pulsar.Result.Ok:
            failures.append(result)

    for number in range(600):
        producer.send_async(b"%d" % number, done)
        if number in {100, 300}:
            admin.unload(topic)
    producer.flush()
    assert failures == []
    received: list[str] = []
    while not received or received[-1] != "599":
        received += take(consumer, 1)
    assert list(dict.fromkeys(received)) == texts(range(600))


def test_a_deleted_topic_is_made_anew_by_the_producer_that_comes_back(
    client: Any, admin: Admin, topic: str
) -> None:
    send(client.create_producer(topic), 3)
    admin.delete_topic(topic, force=True)
    send(client.create_producer(topic), ["after"])
    reader = client.create_reader(topic, pulsar.MessageId.earliest)
    assert take(reader, 1) == ["after"]
    assert not reader.has_message_available()


def test_a_topic_that_was_closed_for_good_takes_nothing_more_and_is_read_to_its_end(
    client: Any, admin: Admin, topic: str
) -> None:
    producer = client.create_producer(topic, send_timeout_millis=10_000)
    send(producer, 3)
    admin.terminate(topic)
    with pytest.raises(pulsar.PulsarException):
        producer.send(b"late")
    with pytest.raises(pulsar.PulsarException):
        client.create_producer(topic)
    reader = client.create_reader(topic, pulsar.MessageId.earliest)
    assert take(reader, 3) == texts(range(3))
    assert not reader.has_message_available()


def test_where_creation_is_off_a_topic_that_does_not_exist_is_refused(
    client: Any, admin: Admin, namespace: str
) -> None:
    admin.set_policy(namespace, "autoTopicCreation", {"allowAutoTopicCreation": False})
    with pytest.raises(pulsar.TopicNotFound):
        client.create_producer(f"{namespace}/t")
    with pytest.raises(pulsar.TopicNotFound):
        client.subscribe(f"{namespace}/t", "s")
    admin.create_topic(f"{namespace}/t")
    client.create_producer(f"{namespace}/t").send(b"x")


def test_a_message_may_say_when_it_is_due_in_two_ways(client: Any, topic: str) -> None:
    """On a subscription of one reader it comes at once: order is promised, delay is not."""
    consumer = client.subscribe(topic, "s")
    producer = client.create_producer(topic)
    producer.send(b"after", deliver_after=timedelta(hours=1))
    producer.send(b"at", deliver_at=int(time.time() * 1000) + 3_600_000)
    assert take(consumer, 2) == ["after", "at"]
