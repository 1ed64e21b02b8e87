"""Rates that are set on a topic or a namespace, as clients notice them.

That no more passes than a rate allows, and everything in the end. How near to it one comes is
asked in tests/topics, of a clock that a test sets.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

import pulsar
import pytest
from pulsar import ConsumerType as Type

from magnetar.client.admin import Admin
from tests.conformance.talk import LIMIT_S, eventually, receive, send

RATE = 100
COUNT = 300


def topic_path(topic: str) -> str:
    return "/admin/v2/" + topic.replace("://", "/")


def limited(admin: Admin, topic: str, policy: str, **rate: int) -> None:
    """Make a topic for which a rate holds from its first message on."""
    admin.create_topic(topic)
    admin.json("POST", f"{topic_path(topic)}/{policy}", rate)
    admin.unload(topic)  # what loads it again reads what holds then


def seconds(work: Callable[[], object]) -> float:
    began_s = time.monotonic()
    work()
    return time.monotonic() - began_s


class Published:
    """Messages on their way, one after the other, and how long that took.

    Each waits for its receipt: what reaches the broker in one read of the socket is taken whole,
    and only the next read waits.
    """

    def __init__(self, producer: Any, count: int) -> None:
        self._took_s = 0.0
        self._thread = threading.Thread(target=self._publish, args=(producer, count), daemon=True)
        self._thread.start()

    def _publish(self, producer: Any, count: int) -> None:
        self._took_s = seconds(lambda: send(producer, count))

    def took_s(self) -> float:
        self._thread.join(LIMIT_S)
        assert not self._thread.is_alive()
        return self._took_s


def test_a_topic_is_published_to_as_fast_as_its_rate_allows_and_others_are_not_slowed(
    connect: Any, admin: Admin, topic: str
) -> None:
    fast, slow = connect(), connect()
    limited(admin, topic, "publishRate", publishThrottlingRateInMsg=RATE)
    producer = slow.create_producer(topic, batching_enabled=False)
    other = fast.create_producer(topic + "-other", batching_enabled=False)
    published = Published(producer, COUNT)
    # Its best, since a machine that does other things slows down everybody.
    best_s = min(seconds(lambda: send(other, 50)) for _ in range(5))
    assert best_s < 50 / RATE * 0.8, "slower than the rate of the other topic allows"
    assert published.took_s() >= COUNT / RATE * 0.9
    assert admin.stats(topic)["msgInCounter"] == COUNT


def test_a_rate_in_bytes_holds_for_the_mean(client: Any, admin: Admin, topic: str) -> None:
    limited(admin, topic, "publishRate", publishThrottlingRateInByte=100_000)
    producer = client.create_producer(topic, batching_enabled=False)

    def took_s() -> float:
        return seconds(lambda: [producer.send(bytes(10_000)) for _ in range(30)])

    assert took_s() >= 2.5
    admin.json("DELETE", f"{topic_path(topic)}/publishRate")
    eventually(lambda: took_s() < 2.0)


@pytest.mark.parametrize(
    ("kind", "policy"),
    [
        (Type.Exclusive, "dispatchRate"),
        (Type.Shared, "subscriptionDispatchRate"),
        (Type.KeyShared, "dispatchRate"),
    ],
)
def test_a_subscription_is_sent_messages_as_fast_as_its_rate_allows(
    client: Any, admin: Admin, topic: str, kind: Any, policy: str
) -> None:
    limited(admin, topic, policy, dispatchThrottlingRateInMsg=RATE, ratePeriodInSecond=1)
    send(client.create_producer(topic, batching_enabled=False), COUNT)
    consumer = client.subscribe(
        topic, "s", consumer_type=kind, initial_position=pulsar.InitialPosition.Earliest
    )
    took_s = seconds(lambda: receive(consumer, COUNT))
    assert took_s >= COUNT / RATE * 0.9


def test_a_consumer_that_subscribes_again_and_again_is_stopped(
    client: Any, admin: Admin, topic: str
) -> None:
    limited(admin, topic, "subscribeRate", subscribeThrottlingRatePerConsumer=3)
    for _ in range(3):
        client.subscribe(topic, "s", consumer_name="eager").close()
    with pytest.raises(pulsar.PulsarException):
        client.subscribe(topic, "s", consumer_name="eager")
    client.subscribe(topic, "s", consumer_name="other").close()
