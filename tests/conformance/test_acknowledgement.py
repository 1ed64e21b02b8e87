"""Acknowledgement: one by one, all up to here, or single messages of a batch."""

from typing import Any

import pulsar
import pytest
from pulsar import ConsumerType as Type

from magnetar.client.admin import Admin
from tests.conformance.talk import assert_quiet, eventually, receive, send, take, text, texts


def backlog(admin: Admin, topic: str, subscription: str = "s") -> int:
    return int(admin.stats(topic)["subscriptions"][subscription]["msgBacklog"])


@pytest.mark.parametrize("by_id", [False, True], ids=["by message", "by id"])
def test_what_is_not_acknowledged_comes_again_and_nothing_else(
    client: Any, topic: str, by_id: bool
) -> None:
    consumer = client.subscribe(topic, "s")
    send(client.create_producer(topic), 10)
    for message in receive(consumer, 10)[::2]:
        consumer.acknowledge(message.message_id() if by_id else message)
    consumer.close()
    again = client.subscribe(topic, "s")
    assert take(again, 5) == texts(range(1, 10, 2))
    assert_quiet(again, 50)


@pytest.mark.parametrize("kind", [Type.Exclusive, Type.Failover], ids=lambda kind: kind.name)
def test_a_cumulative_acknowledgement_covers_everything_before_it(
    client: Any, topic: str, kind: Any
) -> None:
    consumer = client.subscribe(topic, "s", consumer_type=kind)
    send(client.create_producer(topic), 10)
    consumer.acknowledge_cumulative(receive(consumer, 10)[6])
    consumer.close()
    again = client.subscribe(topic, "s", consumer_type=kind)
    assert take(again, 3) == texts(range(7, 10))


@pytest.mark.parametrize("kind", [Type.Shared, Type.KeyShared], ids=lambda kind: kind.name)
def test_where_several_share_the_work_nobody_speaks_for_the_others(
    client: Any, admin: Admin, topic: str, kind: Any
) -> None:
    consumer = client.subscribe(topic, "s", consumer_type=kind)
    send(client.create_producer(topic), 2)
    last = receive(consumer, 2)[-1]
    for what in (last, last.message_id()):
        with pytest.raises(pulsar.CumulativeAcknowledgementNotAllowedError):
            consumer.acknowledge_cumulative(what)
    assert backlog(admin, topic) == 2


def test_acknowledging_twice_is_as_good_as_once(client: Any, admin: Admin, topic: str) -> None:
    consumer = client.subscribe(topic, "s")
    send(client.create_producer(topic), 3)
    first, second, _ = receive(consumer, 3)
    consumer.acknowledge(first)
    consumer.acknowledge(first)
    consumer.acknowledge_cumulative(second)
    consumer.acknowledge_cumulative(first)
    consumer.close()
    assert backlog(admin, topic) == 1


def test_an_acknowledgement_just_before_the_end_counts(
    client: Any, admin: Admin, topic: str
) -> None:
    consumer = client.subscribe(topic, "s", consumer_type=Type.Shared)
    send(client.create_producer(topic), 50)
    take(consumer, 50)
    consumer.close()
    assert backlog(admin, topic) == 0


def test_an_acknowledgement_after_the_end_is_refused_and_harms_nobody(
    client: Any, topic: str
) -> None:
    consumer = client.subscribe(topic, "s")
    producer = client.create_producer(topic)
    send(producer, 1)
    message = receive(consumer, 1)[0]
    consumer.close()
    with pytest.raises(pulsar.AlreadyClosed):
        consumer.acknowledge(message)
    again = client.subscribe(topic, "s")
    assert take(again, 1) == ["0"]


def test_single_messages_of_a_batch_can_be_acknowledged(client: Any, topic: str) -> None:
    producer = client.create_producer(
        topic, batching_enabled=True, batching_max_publish_delay_ms=10_000
    )
    consumer = client.subscribe(topic, "s", batch_index_ack_enabled=True)
    for number in range(5):
        producer.send_async(b"%d" % number, None)
    producer.flush()
    messages = receive(consumer, 5)
    assert {message.message_id().entry_id() for message in messages} == {0}
    for index in (0, 1, 3):
        consumer.acknowledge(messages[index])
    consumer.close()
    again = client.subscribe(topic, "s", batch_index_ack_enabled=True)
    assert [text(each) for each in receive(again, 2)] == ["2", "4"]
    assert_quiet(again)


def test_a_batch_counts_as_done_when_its_last_message_is(
    client: Any, admin: Admin, topic: str
) -> None:
    producer = client.create_producer(
        topic, batching_enabled=True, batching_max_publish_delay_ms=10_000
    )
    consumer = client.subscribe(topic, "s", batch_index_ack_enabled=True)
    for number in range(4):
        producer.send_async(b"%d" % number, None)
    producer.flush()
    consumer.acknowledge_cumulative(receive(consumer, 4)[2])
    consumer.close()
    again = client.subscribe(topic, "s", batch_index_ack_enabled=True)
    assert take(again, 1) == ["3"]
    eventually(lambda: backlog(admin, topic) == 0)


def test_without_batch_indexes_an_unfinished_batch_comes_again_whole(
    client: Any, topic: str
) -> None:
    producer = client.create_producer(
        topic, batching_enabled=True, batching_max_publish_delay_ms=10_000
    )
    consumer = client.subscribe(topic, "s")
    for number in range(3):
        producer.send_async(b"%d" % number, None)
    producer.flush()
    consumer.acknowledge(receive(consumer, 3)[0])
    consumer.close()
    again = client.subscribe(topic, "s")
    assert take(again, 3) == texts(range(3))


def test_an_id_that_was_written_down_can_be_acknowledged_later(client: Any, topic: str) -> None:
    topics = [f"{topic}-1", f"{topic}-2"]
    consumer = client.subscribe(topics, "s")
    producers = [client.create_producer(each) for each in topics]
    for producer in producers:
        send(producer, ["old"])
    written = {each.topic_name(): each.message_id().serialize() for each in receive(consumer, 2)}
    for name, data in written.items():
        consumer.acknowledge_cumulative(pulsar.MessageId.deserialize(data, topic=name))
    consumer.close()
    again = client.subscribe(topics, "s")
    send(producers[0], ["new"])
    assert take(again, 1) == ["new"]
    assert_quiet(again, 50)


def test_an_id_that_names_no_topic_says_nothing_to_a_consumer_of_several(
    client: Any, topic: str
) -> None:
    consumer = client.subscribe([f"{topic}-1", f"{topic}-2"], "s")
    sent = client.create_producer(f"{topic}-1").send(b"x")
    with pytest.raises(pulsar.OperationNotSupported):
        consumer.acknowledge(sent)


def test_acknowledgements_survive_that_the_topic_is_unloaded(
    client: Any, admin: Admin, topic: str
) -> None:
    consumer = client.subscribe(topic, "s", consumer_type=Type.Shared)
    send(client.create_producer(topic), 10)
    for message in receive(consumer, 10):
        if int(text(message)) % 3:
            consumer.acknowledge(message)
    eventually(lambda: backlog(admin, topic) == 4)
    admin.unload(topic)
    assert take(consumer, 4) == texts(range(0, 10, 3))
    assert_quiet(consumer, 50)


@pytest.mark.parametrize("end", [pulsar.MessageId.earliest, pulsar.MessageId.latest])
def test_an_id_comes_back_from_the_bytes_it_was_written_as(client: Any, end: Any) -> None:
    assert pulsar.MessageId.deserialize(end.serialize()) == end
