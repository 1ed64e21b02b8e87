"""Policies of a namespace, as far as a client notices them."""

import time
from typing import Any

import pulsar
import pytest
from pulsar import ConsumerType as Type

from magnetar.client.admin import Admin
from tests.conformance.talk import assert_quiet, eventually, receive, send, take, texts

EARLIEST = pulsar.InitialPosition.Earliest


def test_what_is_older_than_its_time_to_live_is_not_delivered(
    client: Any, admin: Admin, namespace: str
) -> None:
    topic = f"persistent://{namespace}/t"
    client.subscribe(topic, "s", consumer_type=Type.Shared).close()
    producer = client.create_producer(topic)
    send(producer, 5)
    admin.set_policy(namespace, "messageTTL", 1)

    def expired() -> bool:
        return bool(admin.stats(topic)["subscriptions"]["s"]["msgBacklog"] == 0)

    eventually(expired)
    send(producer, ["fresh"])
    consumer = client.subscribe(topic, "s", consumer_type=Type.Shared)
    assert take(consumer, 1) == ["fresh"]


def test_messages_can_be_skipped_expired_and_cleared_by_hand(
    client: Any, admin: Admin, topic: str
) -> None:
    consumer = client.subscribe(topic, "s", receiver_queue_size=1)
    consumer.close()
    send(client.create_producer(topic), 10)
    admin.skip(topic, "s", 3)
    again = client.subscribe(topic, "s")
    assert take(again, 1) == ["3"]
    again.close()
    admin.clear(topic, "s")
    last = client.subscribe(topic, "s")
    assert_quiet(last)


def test_a_reset_by_hand_sends_everything_again(client: Any, admin: Admin, topic: str) -> None:
    consumer = client.subscribe(topic, "s")
    send(client.create_producer(topic), 5)
    assert take(consumer, 5) == texts(range(5))
    admin.reset(topic, "s", 0)
    assert take(consumer, 5) == texts(range(5))


def test_a_subscription_made_by_hand_keeps_what_comes_before_its_first_consumer(
    client: Any, admin: Admin, topic: str
) -> None:
    admin.create_topic(topic)
    admin.create_subscription(topic, "s", "earliest")
    send(client.create_producer(topic), 5)
    consumer = client.subscribe(topic, "s")
    assert take(consumer, 5) == texts(range(5))


def test_a_topic_may_limit_how_many_consume_it(client: Any, admin: Admin, namespace: str) -> None:
    topic = f"persistent://{namespace}/t"
    admin.set_policy(namespace, "maxConsumersPerTopic", 2)
    for _ in range(2):
        client.subscribe(topic, "s", consumer_type=Type.Shared)
    with pytest.raises(pulsar.PulsarException):
        client.subscribe(topic, "s", consumer_type=Type.Shared)


def test_a_topic_may_limit_how_many_produce_to_it(
    client: Any, admin: Admin, namespace: str
) -> None:
    topic = f"persistent://{namespace}/t"
    admin.set_policy(namespace, "maxProducersPerTopic", 1)
    first = client.create_producer(topic)
    with pytest.raises(pulsar.PulsarException):
        client.create_producer(topic)
    first.close()
    client.create_producer(topic).send(b"x")


def test_acknowledged_messages_are_kept_unless_told_otherwise(
    client: Any, admin: Admin, topic: str
) -> None:
    consumer = client.subscribe(topic, "s")
    send(client.create_producer(topic), 5)
    take(consumer, 5)
    consumer.close()
    eventually(lambda: admin.stats(topic)["subscriptions"]["s"]["msgBacklog"] == 0)
    late = client.subscribe(topic, "late", initial_position=EARLIEST)
    assert len(receive(late, 5)) == 5


def test_a_producer_is_refused_while_the_backlog_quota_of_its_topic_is_full(
    client: Any, admin: Admin, topic: str
) -> None:
    admin.create_topic(topic)
    quota = {"limitSize": 100_000, "policy": "producer_exception"}
    admin.set_topic_policy(topic, "backlogQuota", quota)
    admin.unload(topic)  # what loads it again reads what holds then
    consumer = client.subscribe(topic, "s")
    producer = client.create_producer(topic, batching_enabled=False, send_timeout_millis=15_000)

    def fill() -> None:
        for _ in range(50):
            producer.send(bytes(10_000))
            time.sleep(0.01)

    with pytest.raises(pulsar.PulsarException):
        fill()
    stored = admin.stats(topic)["msgInCounter"]
    assert 10 <= stored <= 13
    receive(consumer, 1)
    for message in receive(consumer, stored - 1):
        consumer.acknowledge_cumulative(message)
    eventually(lambda: admin.stats(topic)["subscriptions"]["s"]["msgBacklog"] == 0)
    eventually(lambda: not _refused(client, topic))


def _refused(client: Any, topic: str) -> bool:
    try:
        client.create_producer(topic).send(b"fits")
    except pulsar.PulsarException:
        return True
    return False


def test_a_slow_subscription_loses_what_does_not_fit_its_quota_and_no_producer_notices(
    client: Any, admin: Admin, topic: str
) -> None:
    admin.create_topic(topic)
    quota = {"limitSize": 100_000, "policy": "consumer_backlog_eviction"}
    admin.set_topic_policy(topic, "backlogQuota", quota)
    admin.unload(topic)
    client.subscribe(topic, "slow").close()
    producer = client.create_producer(topic, batching_enabled=False)
    for number in range(40):
        producer.send(b"%05d" % number + bytes(5_000))
    eventually(lambda: admin.stats(topic)["subscriptions"]["slow"]["msgBacklog"] <= 20)
    slow = client.subscribe(topic, "slow")
    first = int(receive(slow, 1)[0].data()[:5])
    assert 19 <= first <= 24


def test_what_is_set_on_a_topic_and_on_the_broker_survives_a_crash(restartable: Any) -> None:
    topic = "persistent://public/default/orders"
    client = restartable.client()
    producer = client.create_producer(topic)
    with restartable.admin() as admin:
        admin.set_topic_policy(topic, "maxProducers", 1)
        admin.set_setting("dispatch_entries_max", "77")
    producer.send(b"x")
    restartable.crash()
    with restartable.admin() as admin:
        assert admin.topic_policy(topic, "maxProducers") == 1
        assert admin.settings(changed=True)["dispatch_entries_max"] == "77"
        eventually(lambda: admin.stats(topic)["publishers"])
        with pytest.raises(pulsar.PulsarException):
            restartable.client().create_producer(topic)
        admin.remove_topic_policy(topic, "maxProducers")
        eventually(lambda: not _refused(restartable.client(), topic))
