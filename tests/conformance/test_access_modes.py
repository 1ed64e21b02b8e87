"""Access modes: one producer alone on its topic, waiting for that, or taking it over."""

import threading
from typing import Any

import pulsar
import pytest
from pulsar import ProducerAccessMode as Mode

from magnetar.client.admin import Admin
from tests.conformance.conftest import Connect
from tests.conformance.talk import LIMIT_S, RECEIVE_MS


def test_an_exclusive_producer_keeps_every_other_one_out(client: Any, topic: str) -> None:
    client.create_producer(topic, producer_name="1", access_mode=Mode.Exclusive)
    with pytest.raises(pulsar.ProducerFenced):
        client.create_producer(topic, producer_name="2", access_mode=Mode.Exclusive)
    with pytest.raises((pulsar.ProducerBusy, pulsar.ProducerFenced)):
        client.create_producer(topic, producer_name="3")


def test_where_others_are_nobody_becomes_exclusive(client: Any, topic: str) -> None:
    shared = client.create_producer(topic)
    with pytest.raises(pulsar.ProducerFenced):
        client.create_producer(topic, access_mode=Mode.Exclusive)
    shared.send(b"undisturbed")


def test_who_waits_becomes_exclusive_when_the_other_leaves(
    client: Any, connect: Connect, topic: str
) -> None:
    first = client.create_producer(topic, producer_name="1", access_mode=Mode.Exclusive)
    created: list[Any] = []
    other = connect()

    def wait() -> None:
        created.append(
            other.create_producer(topic, producer_name="2", access_mode=Mode.WaitForExclusive)
        )

    waiting = threading.Thread(target=wait)
    waiting.start()
    waiting.join(0.3)
    assert created == []
    first.close()
    waiting.join(LIMIT_S)
    created[0].send(b"my turn")
    assert created[0].producer_name() == "2"


def test_who_fences_takes_over_and_the_other_can_send_nothing_more(
    client: Any, connect: Connect, topic: str
) -> None:
    first = client.create_producer(topic, producer_name="1", access_mode=Mode.Exclusive)
    first.send(b"mine")
    second = connect().create_producer(
        topic, producer_name="2", access_mode=Mode.ExclusiveWithFencing
    )
    with pytest.raises((pulsar.ProducerFenced, pulsar.AlreadyClosed)):
        first.send(b"still mine?")
    second.send(b"no")
    reader = client.create_reader(topic, pulsar.MessageId.earliest)
    assert [reader.read_next(RECEIVE_MS).data() for _ in range(2)] == [b"mine", b"no"]


def test_an_exclusive_producer_keeps_its_place_through_an_unload(
    client: Any, admin: Admin, topic: str
) -> None:
    first = client.create_producer(topic, access_mode=Mode.Exclusive)
    first.send(b"before")
    admin.unload(topic)
    first.send(b"after")
    with pytest.raises(pulsar.ProducerFenced):
        client.create_producer(topic, access_mode=Mode.Exclusive)
