"""Delayed delivery: not before its time, and not much later."""

import time
from datetime import timedelta
from typing import Any

import pytest
from pulsar import ConsumerType as Type

from magnetar.client.admin import Admin
from tests.conformance.talk import (
    LIMIT_S,
    RECEIVE_MS,
    assert_quiet,
    eventually,
    receive,
    send,
    take,
    text,
)

SHARING = pytest.mark.parametrize("kind", [Type.Shared, Type.KeyShared], ids=lambda kind: kind.name)
LATE_S = LIMIT_S
"""What a busy machine may add."""
LEADS_S = (1.0, 5.0, 20.0)
"""How long before the first is due; more where the machine is slow."""


@SHARING
@pytest.mark.parametrize("absolute", [False, True], ids=["after", "at"])
def test_a_message_comes_when_it_is_due(client: Any, topic: str, kind: Any, absolute: bool) -> None:
    consumer = client.subscribe(topic, "s", consumer_type=kind)
    producer = client.create_producer(topic)
    sent = time.time()
    if absolute:
        producer.send(b"x", deliver_at=int(sent * 1000) + 1_000)
    else:
        producer.send(b"x", deliver_after=timedelta(seconds=1))
    assert text(consumer.receive(RECEIVE_MS)) == "x"
    assert 0.9 < time.time() - sent < 1 + LATE_S


def test_messages_come_in_the_order_in_which_they_are_due(client: Any, topic: str) -> None:
    for lead_s in LEADS_S:
        own = f"{topic}-{lead_s:g}"
        consumer = client.subscribe(own, "s", consumer_type=Type.Shared)
        producer = client.create_producer(own)
        first_ms = int((time.time() + lead_s) * 1000)
        for later_ms in (1_000, 500, 0):
            producer.send(b"%d" % later_ms, deliver_at=first_ms + later_ms)
        send(producer, ["now"])
        now = take(consumer, 1)
        if time.time() * 1000 < first_ms:
            assert now == ["now"]
            assert take(consumer, 3) == ["0", "500", "1000"]
            return
    pytest.fail(f"this machine needs more than {LEADS_S[-1]:g} s for four messages")


def test_a_time_that_has_passed_means_now(client: Any, topic: str) -> None:
    consumer = client.subscribe(topic, "s", consumer_type=Type.Shared)
    client.create_producer(topic).send(b"x", deliver_at=1)
    assert take(consumer, 1) == ["x"]


def test_what_waits_is_backlog_and_is_not_in_the_way(client: Any, admin: Admin, topic: str) -> None:
    consumer = client.subscribe(topic, "s", consumer_type=Type.Shared)
    producer = client.create_producer(topic)
    for _ in range(50):
        producer.send_async(b"later", None, deliver_after=timedelta(hours=1))
    producer.flush()
    send(producer, 10)
    assert len(take(consumer, 10)) == 10
    assert_quiet(consumer)
    eventually(lambda: admin.stats(topic)["subscriptions"]["s"]["msgBacklog"] == 50)
    assert admin.stats(topic)["subscriptions"]["s"]["msgDelayed"] == 50


def test_what_waits_goes_on_waiting_when_its_topic_is_unloaded(
    client: Any, admin: Admin, topic: str
) -> None:
    consumer = client.subscribe(topic, "s", consumer_type=Type.Shared)
    sent = time.time()
    client.create_producer(topic).send(b"x", deliver_after=timedelta(seconds=1.5))
    admin.unload(topic)
    assert text(consumer.receive(RECEIVE_MS)) == "x"
    assert 1.4 < time.time() - sent < 1.5 + LATE_S


def test_a_consumer_that_comes_later_waits_too(client: Any, topic: str) -> None:
    client.subscribe(topic, "s", consumer_type=Type.Shared).close()
    sent = time.time()
    client.create_producer(topic).send(b"x", deliver_after=timedelta(seconds=1))
    consumer = client.subscribe(topic, "s", consumer_type=Type.Shared)
    message = receive(consumer, 1)[0]
    assert 0.9 < time.time() - sent < 1 + LATE_S
    assert message.redelivery_count() == 0
