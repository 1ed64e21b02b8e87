"""Partitioned topics: many logs under one name."""

from typing import Any

import pulsar
import pytest
from pulsar import ConsumerType as Type

from magnetar.client.admin import Admin
from tests.conformance.talk import assert_quiet, receive, send, take, text, texts


def test_the_partitions_of_a_topic_are_numbered_and_an_ordinary_topic_is_its_own(
    client: Any, admin: Admin, topic: str
) -> None:
    admin.create_topic(topic, 3)
    assert client.get_topic_partitions(topic) == [f"{topic}-partition-{i}" for i in range(3)]
    assert client.get_topic_partitions(f"{topic}-ordinary") == [f"{topic}-ordinary"]


def test_messages_are_spread_and_each_names_its_partition(
    client: Any, admin: Admin, topic: str
) -> None:
    admin.create_topic(topic, 3)
    consumer = client.subscribe(topic, "s", consumer_type=Type.Shared)
    send(client.create_producer(topic), 30)
    messages = receive(consumer, 30)
    assert {each.topic_name() for each in messages} == {f"{topic}-partition-{i}" for i in range(3)}
    for message in messages:
        partition = message.message_id().partition()
        assert message.topic_name() == f"{topic}-partition-{partition}"
        consumer.acknowledge(message)
    assert_quiet(consumer, 50)


def test_a_key_always_goes_to_the_same_partition_and_stays_in_order(
    client: Any, admin: Admin, topic: str
) -> None:
    admin.create_topic(topic, 4)
    consumer = client.subscribe(topic, "s")
    producer = client.create_producer(topic)
    for number in range(60):
        producer.send(b"%d" % number, partition_key=f"key {number % 6}")
    by_key: dict[str, list[tuple[int, int]]] = {}
    for message in receive(consumer, 60):
        place = (message.message_id().partition(), int(text(message)))
        by_key.setdefault(message.partition_key(), []).append(place)
    assert len(by_key) == 6
    for places in by_key.values():
        assert len({partition for partition, _ in places}) == 1
        assert places == sorted(places)


def test_a_producer_may_keep_to_one_partition(client: Any, admin: Admin, topic: str) -> None:
    admin.create_topic(topic, 3)
    consumer = client.subscribe(topic, "s")
    mode = pulsar.PartitionsRoutingMode.UseSinglePartition
    send(client.create_producer(topic, message_routing_mode=mode), 10)
    messages = receive(consumer, 10)
    assert len({each.topic_name() for each in messages}) == 1
    assert [text(each) for each in messages] == texts(range(10))


def test_a_producer_may_choose_the_partition_of_each_message(
    client: Any, admin: Admin, topic: str
) -> None:
    admin.create_topic(topic, 5)
    producer = client.create_producer(
        topic, message_router=lambda message, count: int(text(message)) * 2 % count
    )
    send(producer, 10)
    consumer = client.subscribe(topic, "s", initial_position=pulsar.InitialPosition.Earliest)
    for message in receive(consumer, 10):
        assert message.message_id().partition() == int(text(message)) * 2 % 5


def test_one_partition_can_be_used_as_a_topic(client: Any, admin: Admin, topic: str) -> None:
    admin.create_topic(topic, 2)
    whole = client.subscribe(topic, "whole")
    part = client.subscribe(f"{topic}-partition-1", "part")
    send(client.create_producer(f"{topic}-partition-1"), 3)
    assert take(whole, 3) == take(part, 3) == texts(range(3))


def test_a_partition_past_the_last_does_not_exist(client: Any, admin: Admin, topic: str) -> None:
    admin.create_topic(topic, 2)
    with pytest.raises(pulsar.PulsarException):
        client.create_producer(f"{topic}-partition-2")
    assert admin.partitions(topic) == 2


def test_a_partition_that_is_not_used_yet_need_not_be_connected_to(
    client: Any, admin: Admin, topic: str
) -> None:
    admin.create_topic(topic, 4)
    producer = client.create_producer(topic, lazy_start_partitioned_producers=True)
    consumer = client.subscribe(topic, "s")
    send(producer, 8)
    assert sorted(take(consumer, 8), key=int) == texts(range(8))


def test_a_topic_can_get_more_partitions_and_keeps_what_it_has(
    client: Any, admin: Admin, topic: str
) -> None:
    admin.create_topic(topic, 2)
    admin.create_subscription(topic, "s", "earliest")
    send(client.create_producer(topic), 4)
    admin.update_partitions(topic, 4)
    assert len(client.get_topic_partitions(topic)) == 4
    send(client.create_producer(topic), range(4, 12))
    consumer = client.subscribe(topic, "s", consumer_type=Type.Shared)
    assert sorted(take(consumer, 12), key=int) == texts(range(12))


def test_a_subscription_of_a_partitioned_topic_is_there_on_every_partition(
    client: Any, admin: Admin, topic: str
) -> None:
    admin.create_topic(topic, 3)
    client.subscribe(topic, "s", consumer_type=Type.Failover)
    assert [admin.subscriptions(name) for name in admin.partition_names(topic)] == [["s"]] * 3


def test_where_topics_are_made_with_partitions_asking_for_one_makes_them(
    client: Any, admin: Admin, namespace: str
) -> None:
    admin.set_policy(
        namespace,
        "autoTopicCreation",
        {
            "allowAutoTopicCreation": True,
            "topicType": "partitioned",
            "defaultNumPartitions": 3,
        },
    )
    topic = f"persistent://{namespace}/t"
    consumer = client.subscribe(topic, "s")
    send(client.create_producer(topic), 6)
    assert sorted(take(consumer, 6)) == texts(range(6))
    assert admin.partitions(topic) == 3
