"""Restarts: what the official client finds after the broker was stopped or killed.

Each sentence has a broker of its own; that nothing acknowledged is lost under load, however
often it is killed, is in test_kill_loop.
"""

import time
from datetime import timedelta
from typing import Any

import pulsar
import pytest
from pulsar import ConsumerType as Type
from pulsar import ProducerAccessMode as Mode

from tests.conformance.conftest import Restartable
from tests.conformance.talk import (
    RECEIVE_MS,
    acknowledgements_are_durable,
    assert_quiet,
    eventually,
    receive,
    send,
    take,
    text,
    texts,
)

EARLIEST = pulsar.MessageId.earliest
ORDINARY = "persistent://public/default/ordinary"
DELAYED = "persistent://public/default/delayed"
CHUNKED = "persistent://public/default/chunked"
PARTED = "persistent://public/default/parted"
ONCE = "persistent://public/once/once"


def backlog(broker: Restartable, topic: str) -> int:
    with broker.admin() as admin:
        return int(admin.stats(topic)["subscriptions"]["s"]["msgBacklog"])


def unacknowledged(broker: Restartable, topic: str) -> int:
    with broker.admin() as admin:
        return int(admin.stats(topic)["subscriptions"]["s"]["unackedMessages"])


@pytest.mark.parametrize("how", ["restart", "crash"])
def test_everything_is_as_it_was_before(restartable: Restartable, how: str) -> None:
    """One broker for all of it, so that one restart is enough."""
    client = restartable.client()
    with restartable.admin() as admin:
        admin.create_namespace("public/once")
        admin.set_policy("public/once", "deduplication", value=True)
        admin.create_topic(PARTED, 4)

    # Shared, with holes among the acknowledgements, and a batch half done.
    consumer = client.subscribe(ORDINARY, "s", consumer_type=Type.Shared)
    send(client.create_producer(ORDINARY), 10)
    for message in receive(consumer, 10):
        if int(text(message)) % 3:
            consumer.acknowledge(message)
    partly = client.subscribe(
        f"{ORDINARY}-batch", "s", consumer_type=Type.Shared, batch_index_ack_enabled=True
    )
    batching = client.create_producer(
        f"{ORDINARY}-batch", batching_enabled=True, batching_max_publish_delay_ms=10_000
    )
    for number in range(4):
        batching.send_async(b"%d" % number, None)
    batching.flush()
    for message in receive(partly, 4)[1:3]:
        partly.acknowledge(message)
    # Delayed, with something due while the broker is away and something due after.
    client.subscribe(DELAYED, "s", consumer_type=Type.Shared)
    delaying = client.create_producer(DELAYED)
    sent = time.time()
    for delay_s in (4, 0.2):
        delaying.send(b"%g" % delay_s, deliver_after=timedelta(seconds=delay_s))
    # Chunks, partitions, deduplication.
    large = bytes(range(256)) * 24_000
    client.create_producer(CHUNKED, chunking_enabled=True).send(large)
    send(client.create_producer(PARTED), 20)
    numbering = client.create_producer(ONCE, producer_name="p")
    for number in (1, 2, 3):
        numbering.send(b"%d" % number, sequence_id=number)
    eventually(lambda: backlog(restartable, ORDINARY) == 4)
    eventually(lambda: unacknowledged(restartable, f"{ORDINARY}-batch") == 2)
    with restartable.admin() as admin:
        eventually(lambda: acknowledgements_are_durable(admin))
    client.shutdown()

    getattr(restartable, how)()

    client = restartable.client()
    again = client.subscribe(ORDINARY, "s", consumer_type=Type.Shared)
    assert take(again, 4) == texts(range(0, 10, 3))
    assert_quiet(again, 50)
    assert take(client.create_reader(ORDINARY, EARLIEST), 10) == texts(range(10))
    partly = client.subscribe(
        f"{ORDINARY}-batch", "s", consumer_type=Type.Shared, batch_index_ack_enabled=True
    )
    assert take(partly, 2) == ["0", "3"]
    assert client.create_reader(CHUNKED, EARLIEST).read_next(RECEIVE_MS).data() == large
    assert len(client.get_topic_partitions(PARTED)) == 4
    assert sorted(take(client.create_reader(PARTED, EARLIEST), 20), key=int) == texts(range(20))
    numbering = client.create_producer(ONCE, producer_name="p")
    assert numbering.last_sequence_id() == 3
    for number in (2, 3, 4):
        numbering.send(b"%d" % number, sequence_id=number)
    assert take(client.create_reader(ONCE, EARLIEST), 4) == texts(range(1, 5))
    waiting = client.subscribe(DELAYED, "s", consumer_type=Type.Shared)
    # In either order: on a busy machine both are due before the broker is back.
    assert sorted(take(waiting, 2), key=float) == ["0.2", "4"]
    assert time.time() - sent >= 3.9


def test_clients_that_stay_go_on_by_themselves(restartable: Restartable) -> None:
    client = restartable.client()
    consumer = client.subscribe(ORDINARY, "s", consumer_type=Type.Failover)
    reader = client.create_reader(ORDINARY, EARLIEST)
    producer = client.create_producer(ORDINARY)
    send(producer, 5)
    assert take(consumer, 5) == take(reader, 5) == texts(range(5))
    restartable.crash()
    send(producer, range(5, 10))
    fresh: list[str] = []
    while not fresh or fresh[-1] != "9":
        fresh += take(consumer, 1)
    assert list(dict.fromkeys(texts(range(5)) + fresh)) == texts(range(10))
    assert take(reader, 5) == texts(range(5, 10))


def test_who_was_exclusive_keeps_its_topic_and_who_was_fenced_stays_out(
    restartable: Restartable,
) -> None:
    first, second, third = (restartable.client() for _ in range(3))
    fenced = first.create_producer(ORDINARY, producer_name="1", access_mode=Mode.Exclusive)
    fenced.send(b"old")
    exclusive = second.create_producer(
        ORDINARY, producer_name="2", access_mode=Mode.ExclusiveWithFencing
    )
    exclusive.send(b"new")
    restartable.crash()
    exclusive.send(b"still mine")
    with pytest.raises(pulsar.PulsarException):
        fenced.send(b"not any more")
    with pytest.raises(pulsar.ProducerFenced):
        third.create_producer(ORDINARY, access_mode=Mode.Exclusive)
    reader = third.create_reader(ORDINARY, EARLIEST)
    assert take(reader, 3) == ["old", "new", "still mine"]


def _names(client: Any) -> set[str]:
    return {client.create_producer(ORDINARY).producer_name() for _ in range(3)}


def test_names_that_the_broker_gave_are_not_given_again(restartable: Restartable) -> None:
    client = restartable.client()
    before = _names(client)
    client.shutdown()
    restartable.restart()
    assert not before & _names(restartable.client())
