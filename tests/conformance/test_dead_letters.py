"""Messages that cannot be used: dead letters, and retries, with the official client's settings."""

import time
from typing import Any

import pulsar
import pytest
from pulsar import ConsumerType as Type

from magnetar.client.admin import Admin
from tests.conformance.talk import RECEIVE_MS, assert_quiet, eventually, text

EARLIEST = pulsar.InitialPosition.Earliest
WAIT_MS = RECEIVE_MS
EARLY_MS = 10
"""What two readings of a clock may differ by."""


@pytest.mark.parametrize("kind", [Type.Shared, Type.KeyShared])
def test_what_nobody_can_use_ends_in_the_dead_letter_topic_and_the_rest_is_consumed(
    client: Any, admin: Admin, topic: str, kind: Any
) -> None:
    policy = pulsar.ConsumerDeadLetterPolicy(2, f"{topic}-dead", "undertaker")
    consumer = client.subscribe(
        topic, "s", consumer_type=kind, negative_ack_redelivery_delay_ms=100,
        dead_letter_policy=policy,
    )  # fmt: skip
    producer = client.create_producer(topic, batching_enabled=False)
    for number in range(10):
        producer.send(b"bad" if number == 3 else b"good", partition_key=f"k{number}")
    bad: list[int] = []
    good = 0
    while len(bad) < 3 or good < 9:
        message = consumer.receive(WAIT_MS)
        if text(message) == "bad":
            bad.append(message.redelivery_count())
            consumer.negative_acknowledge(message)
        else:
            good += 1
            consumer.acknowledge(message)
    assert bad == [0, 1, 2]
    dead = client.subscribe(f"{topic}-dead", "undertaker", initial_position=EARLIEST)
    buried = dead.receive(WAIT_MS)
    assert text(buried) == "bad"
    assert buried.partition_key() == "k3"
    assert buried.properties()["REAL_TOPIC"] == topic
    assert_quiet(consumer)
    eventually(lambda: admin.stats(topic)["subscriptions"]["s"]["msgBacklog"] == 0)


def test_dead_letters_of_partitions_go_to_one_topic(client: Any, admin: Admin, topic: str) -> None:
    admin.create_topic(topic, 3)
    policy = pulsar.ConsumerDeadLetterPolicy(1, initial_subscription_name="undertaker")
    consumer = client.subscribe(
        topic, "s", consumer_type=Type.Shared, negative_ack_redelivery_delay_ms=100,
        dead_letter_policy=policy,
    )  # fmt: skip
    producer = client.create_producer(topic, batching_enabled=False)
    for number in range(6):
        producer.send(b"%d" % number, partition_key=f"k{number}")
    dead = [f"{topic}-partition-{i}-s-DLQ" for i in range(3)]
    for _ in range(12):
        consumer.negative_acknowledge(consumer.receive(WAIT_MS))

    def buried() -> int:
        there = [name for name in admin.topics("public/default") if name.endswith("-s-DLQ")]
        mine = [name for name in there if name.startswith(topic)]
        return sum(admin.stats(name)["msgInCounter"] for name in mine)

    eventually(lambda: buried() == 6)
    assert dead
    eventually(lambda: admin.stats(topic)["subscriptions"]["s"]["msgBacklog"] == 0)


def test_what_is_to_be_tried_again_later_comes_back_then_and_with_its_history(
    client: Any, admin: Admin, topic: str
) -> None:
    """A retry letter is what a client makes of `reconsume_later`: published anew, delayed."""
    retry = f"{topic}-s-RETRY"
    consumer = client.subscribe([topic, retry], "s", consumer_type=Type.Shared)
    client.create_producer(topic).send(b"not now")
    again = client.create_producer(retry)
    due_ms = 0
    for tries in range(3):
        message = consumer.receive(WAIT_MS)
        assert time.time() * 1000 >= due_ms - EARLY_MS
        assert int(message.properties().get("RECONSUMETIMES", "0")) == tries
        assert message.topic_name() == (topic if tries == 0 else retry)
        due_ms = int(time.time() * 1000) + 500
        again.send(
            message.data(),
            deliver_at=due_ms,
            properties={"REAL_TOPIC": topic, "RECONSUMETIMES": str(tries + 1)},
        )
        consumer.acknowledge(message)
    consumer.acknowledge(consumer.receive(WAIT_MS))
    assert time.time() * 1000 >= due_ms - EARLY_MS

    def consumed() -> bool:
        stats = [admin.stats(name)["subscriptions"]["s"] for name in (topic, retry)]
        return all(each["msgBacklog"] == 0 for each in stats)

    eventually(consumed)
