"""Names: how topics may be called, and by which address a broker is found."""

from typing import Any

import pulsar
import pytest

from magnetar.client.admin import Admin
from tests.above.conftest import Addresses
from tests.conformance.conftest import Connect
from tests.conformance.talk import receive, send, take, texts


def test_a_short_name_means_a_topic_of_the_default_namespace(client: Any, topic: str) -> None:
    local = topic.rpartition("/")[2]
    consumer = client.subscribe(local, "s")
    assert consumer.topic() == topic
    for name in (local, f"public/default/{local}", topic):
        producer = client.create_producer(name)
        assert producer.topic() == topic
        send(producer, [name])
    assert len(take(consumer, 3)) == 3


@pytest.mark.parametrize(
    "ending",
    [
        "a b",
        "ünïcode 温度",
        "50%",
        "a%20b",
        "semi;colon",
        "a+b",
        "a&b=c?d#e",
        "{}[]|^~",
        "'quoted\"",
    ],
)
def test_a_topic_may_have_any_name_that_is_text(
    client: Any, admin: Admin, topic: str, ending: str
) -> None:
    name = f"{topic}-{ending}"
    consumer = client.subscribe(name, "s")
    send(client.create_producer(name), 3)
    messages = receive(consumer, 3)
    assert {each.topic_name() for each in messages} == {name}
    assert admin.stats(name)["msgInCounter"] == 3
    assert name in admin.topics("public/default")


@pytest.mark.parametrize("name", ["a b", "süß", "a/b", "50%", "a.b:c"])
def test_a_subscription_may_have_any_name_that_is_text(
    client: Any, admin: Admin, topic: str, name: str
) -> None:
    consumer = client.subscribe(topic, name)
    send(client.create_producer(topic), 1)
    assert take(consumer, 1) == ["0"]
    assert admin.subscriptions(topic) == [name]
    consumer.unsubscribe()
    assert admin.subscriptions(topic) == []


@pytest.mark.parametrize(
    "name", ["ftp://public/default/t", "persistent://public/t", "a/b", "public//t"]
)
def test_a_name_that_is_none_is_refused(client: Any, name: str) -> None:
    with pytest.raises(pulsar.PulsarException):
        client.create_producer(name)
    with pytest.raises(pulsar.PulsarException):
        client.subscribe(name, "s")


@pytest.mark.parametrize("name", ["nobody/default/t", "public/nothing/t"])
def test_a_tenant_or_namespace_that_does_not_exist_is_refused(client: Any, name: str) -> None:
    with pytest.raises(pulsar.TopicNotFound):
        client.create_producer(name)
    with pytest.raises(pulsar.TopicNotFound):
        client.subscribe(name, "s")


def test_after_a_refusal_everything_else_on_the_connection_goes_on(client: Any, topic: str) -> None:
    consumer = client.subscribe(topic, "s")
    producer = client.create_producer(topic)
    for name in ("nobody/default/t", "public/nothing/t"):
        with pytest.raises(pulsar.PulsarException):
            client.create_producer(name)
    send(producer, 3)
    assert take(consumer, 3) == texts(range(3))
    assert consumer.is_connected()


def test_topics_are_looked_up_over_http_as_well(
    connect: Connect, addresses: Addresses, admin: Admin, topic: str
) -> None:
    client = connect(addresses.admin_url)
    admin.create_topic(topic, 3)
    assert len(client.get_topic_partitions(topic)) == 3
    consumer = client.subscribe(topic, "s", consumer_type=pulsar.ConsumerType.Shared)
    send(client.create_producer(topic), 9)
    assert sorted(take(consumer, 9)) == texts(range(9))
    odd = f"{topic} ünïcode?"
    reader = client.create_reader(odd, pulsar.MessageId.earliest)
    send(client.create_producer(odd), 1)
    assert take(reader, 1) == ["0"]


def test_over_http_a_namespace_that_does_not_exist_is_refused(
    connect: Connect, addresses: Addresses
) -> None:
    with pytest.raises(pulsar.PulsarException):
        connect(addresses.admin_url).create_producer("public/nothing/t")


def test_a_listener_that_nobody_configured_is_refused(connect: Connect, topic: str) -> None:
    with pytest.raises(pulsar.PulsarException):
        connect(listener_name="moon").create_producer(topic)


def test_an_address_that_is_none_is_refused(connect: Connect) -> None:
    with pytest.raises(ValueError, match="scheme"):
        connect("nonsense")


def test_a_connection_that_nobody_answers_fails(connect: Connect, topic: str) -> None:
    with pytest.raises(pulsar.PulsarException):
        pulsar.Client("pulsar://127.0.0.1:1", operation_timeout_seconds=1).create_producer(topic)
