"""Consumers: who gets which message, and what becomes of it when they leave."""

from typing import Any

import pulsar
import pytest
from pulsar import ConsumerType as Type

from magnetar.client.admin import Admin
from tests.conformance.conftest import Connect
from tests.conformance.talk import (
    RECEIVE_MS,
    assert_quiet,
    eventually,
    receive,
    send,
    take,
    take_all,
    text,
    texts,
)

EARLIEST = pulsar.InitialPosition.Earliest
QUEUE = 5
ROUNDS_MAX = 10
"""Until it is settled who is served; a second is a long time here."""
ANY_TYPE = pytest.mark.parametrize(
    "kind", [Type.Exclusive, Type.Failover, Type.Shared, Type.KeyShared], ids=lambda kind: kind.name
)


@ANY_TYPE
def test_a_new_subscription_starts_at_the_end_or_at_the_beginning(
    client: Any, topic: str, kind: Any
) -> None:
    producer = client.create_producer(topic)
    send(producer, 5)
    from_start = client.subscribe(topic, "earliest", consumer_type=kind, initial_position=EARLIEST)
    from_end = client.subscribe(topic, "latest", consumer_type=kind)
    send(producer, range(5, 10))
    assert take(from_start, 10) == texts(range(10))
    assert take(from_end, 5) == texts(range(5, 10))
    assert_quiet(from_start, 50)
    assert_quiet(from_end, 50)


@ANY_TYPE
def test_a_subscription_goes_on_where_its_last_consumer_stopped(
    client: Any, topic: str, kind: Any
) -> None:
    producer = client.create_producer(topic)
    consumer = client.subscribe(topic, "s", consumer_type=kind)
    send(producer, 10)
    assert take(consumer, 4) == texts(range(4))
    receive(consumer, 3)  # and acknowledges none of them
    consumer.close()
    again = client.subscribe(topic, "s", consumer_type=kind, initial_position=EARLIEST)
    assert take(again, 6) == texts(range(4, 10))
    assert_quiet(again, 50)


@ANY_TYPE
def test_a_consumer_that_takes_one_message_at_a_time_gets_them_all(
    client: Any, topic: str, kind: Any
) -> None:
    """Its client keeps no queue: it grants one permit for each call of receive."""
    consumer = client.subscribe(topic, "s", consumer_type=kind, receiver_queue_size=0)
    producer = client.create_producer(topic)
    producer.send(b"0")
    message = consumer.receive()
    assert text(message) == "0"
    consumer.acknowledge(message)
    send(producer, range(1, 4))
    for number in range(1, 4):
        message = consumer.receive()
        assert text(message) == str(number)
        consumer.acknowledge(message)


def test_what_a_zero_queue_consumer_did_not_ask_for_is_left_to_others(
    client: Any, connect: Connect, topic: str
) -> None:
    idle = client.subscribe(topic, "s", consumer_type=Type.Shared, receiver_queue_size=0)
    busy = connect().subscribe(topic, "s", consumer_type=Type.Shared)
    send(client.create_producer(topic), 20)
    assert sorted(take(busy, 20), key=int) == texts(range(20))
    idle.close()


def test_a_small_receiver_queue_is_filled_again_and_again(client: Any, topic: str) -> None:
    consumer = client.subscribe(topic, "s", receiver_queue_size=1)
    send(client.create_producer(topic), 30)
    assert take(consumer, 30) == texts(range(30))


def test_an_exclusive_subscription_has_one_consumer(
    client: Any, connect: Connect, topic: str
) -> None:
    first = client.subscribe(topic, "s")
    with pytest.raises(pulsar.ConsumerBusy):
        connect().subscribe(topic, "s")
    with pytest.raises(pulsar.ConsumerBusy):
        client.subscribe(topic, "s", consumer_type=Type.Shared)
    first.close()
    connect().subscribe(topic, "s")


def test_a_subscription_changes_its_type_only_while_nobody_is_there(
    client: Any, topic: str
) -> None:
    shared = client.subscribe(topic, "s", consumer_type=Type.Shared)
    for other in (Type.Exclusive, Type.Failover, Type.KeyShared):
        with pytest.raises(pulsar.ConsumerBusy):
            client.subscribe(topic, "s", consumer_type=other)
    shared.close()
    client.subscribe(topic, "s", consumer_type=Type.KeyShared)


def test_consumers_of_a_shared_subscription_share_the_work(
    client: Any, connect: Connect, topic: str
) -> None:
    consumers = [
        each.subscribe(topic, "s", consumer_type=Type.Shared, receiver_queue_size=QUEUE)
        for each in (client, client, connect())
    ]
    send(client.create_producer(topic), 60)
    got = take_all(*consumers, count=60)
    assert sorted(int(each) for mine in got for each in mine) == list(range(60))
    # Of the rest, more goes to whoever asks for more: who is slow on a busy machine gets less.
    assert all(len(mine) >= QUEUE for mine in got), "each queue was filled before anybody took"


def test_what_a_shared_consumer_leaves_behind_goes_to_the_others(
    client: Any, connect: Connect, topic: str
) -> None:
    staying = client.subscribe(topic, "s", consumer_type=Type.Shared)
    other = connect()
    leaving = other.subscribe(topic, "s", consumer_type=Type.Shared)
    send(client.create_producer(topic), 20)
    mine, theirs = take_all(staying, leaving, count=20, acknowledge=False)
    assert theirs
    other.shutdown()
    assert sorted(take(staying, len(theirs)), key=int) == theirs
    assert_quiet(staying, 50)
    assert mine


def test_a_message_that_was_given_to_one_who_left_is_counted_as_redelivered(
    client: Any, connect: Connect, topic: str
) -> None:
    other = connect()
    consumer = other.subscribe(topic, "s", consumer_type=Type.Shared)
    client.create_producer(topic).send(b"x")
    assert consumer.receive(RECEIVE_MS).redelivery_count() == 0
    other.shutdown()
    again = client.subscribe(topic, "s", consumer_type=Type.Shared)
    assert again.receive(RECEIVE_MS).redelivery_count() == 1


def test_of_failover_consumers_one_is_served_and_the_next_takes_over_in_order(
    client: Any, connect: Connect, topic: str
) -> None:
    clients = {"a": connect(), "b": connect()}
    consumers = {
        name: each.subscribe(topic, "s", consumer_type=Type.Failover, consumer_name=name)
        for name, each in clients.items()
    }
    producer = client.create_producer(topic)
    # Which one is served is decided anew when the second comes, a second later at the most.
    send(producer, 1)
    take_all(*consumers.values(), count=1)
    assert_quiet(consumers["a"], 1_200)
    for first in range(10, 10 * ROUNDS_MAX, 10):
        send(producer, range(first, first + 10))
        one, other = take_all(*consumers.values(), count=10)
        if not one or not other:
            assert one + other == texts(range(first, first + 10))
            break
        for each in consumers.values():  # it was decided meanwhile: some may come twice
            assert_quiet_at_last(each)
    else:
        pytest.fail("it is never settled which one is served")
    active, standby = ("a", "b") if one else ("b", "a")
    clients[active].shutdown()
    send(producer, range(1000, 1010))
    assert take(consumers[standby], 10) == texts(range(1000, 1010))


def assert_quiet_at_last(consumer: Any) -> None:
    """Take what still comes, until nothing does."""

    def quiet() -> bool:
        try:
            consumer.acknowledge(consumer.receive(300))
        except pulsar.Timeout:
            return True
        return False

    eventually(quiet)


def test_a_listener_is_called_for_each_message_in_order(client: Any, topic: str) -> None:
    heard: list[str] = []

    def listen(consumer: Any, message: Any) -> None:
        heard.append(text(message))
        consumer.acknowledge(message)

    consumer = client.subscribe(topic, "s", message_listener=listen)
    producer = client.create_producer(topic)
    send(producer, 10)
    eventually(lambda: len(heard) == 10)
    consumer.pause_message_listener()
    send(producer, range(10, 15))
    consumer.resume_message_listener()
    eventually(lambda: len(heard) == 15)
    assert heard == texts(range(15))


def test_messages_may_be_received_by_the_dozen(client: Any, topic: str) -> None:
    consumer = client.subscribe(
        topic, "s", batch_receive_policy=pulsar.ConsumerBatchReceivePolicy(12, -1, RECEIVE_MS)
    )
    send(client.create_producer(topic), 24)
    for first in (0, 12):
        messages = consumer.batch_receive()
        assert [text(each) for each in messages] == texts(range(first, first + 12))


def test_a_consumer_is_connected_until_it_is_closed(client: Any, topic: str) -> None:
    consumer = client.subscribe(topic, "s", consumer_name="screen")
    assert consumer.is_connected()
    assert (consumer.consumer_name(), consumer.subscription_name()) == ("screen", "s")
    consumer.close()
    assert not consumer.is_connected()


def test_the_end_of_a_subscription_forgets_what_it_acknowledged(
    client: Any, admin: Admin, topic: str
) -> None:
    send(client.create_producer(topic), 3)
    consumer = client.subscribe(topic, "s", initial_position=EARLIEST)
    take(consumer, 3)
    consumer.unsubscribe()
    assert admin.subscriptions(topic) == []
    anew = client.subscribe(topic, "s", initial_position=EARLIEST)
    assert take(anew, 3) == texts(range(3))


def test_a_subscription_cannot_end_while_others_use_it(
    client: Any, admin: Admin, topic: str
) -> None:
    one, other = (client.subscribe(topic, "s", consumer_type=Type.Shared) for _ in range(2))
    with pytest.raises(pulsar.PulsarException):
        one.unsubscribe()
    assert admin.subscriptions(topic) == ["s"]
    client.create_producer(topic).send(b"x")
    assert sum(map(len, take_all(one, other, count=1))) == 1


def test_one_consumer_may_read_several_topics_of_several_namespaces(
    client: Any, topic: str, namespace: str
) -> None:
    topics = [f"{topic}-1", f"{topic}-2", f"{namespace}/t"]
    consumer = client.subscribe(topics, "s", consumer_type=Type.Shared, receiver_queue_size=10)
    for each in topics:
        send(client.create_producer(each), [f"{each} {number}" for number in range(20)])
    messages = receive(consumer, 60)
    for message in messages:
        consumer.acknowledge(message)
        assert text(message).startswith(message.topic_name().removeprefix("persistent://")) or text(
            message
        ).startswith(message.topic_name())
    assert len({text(each) for each in messages}) == 60
    assert_quiet(consumer, 50)


def test_the_last_message_id_is_that_of_the_last_message(client: Any, topic: str) -> None:
    consumer = client.subscribe(topic, "s")
    producer = client.create_producer(topic)
    for _ in range(3):
        sent = producer.send(b"x")
        assert consumer.get_last_message_id() == sent


def test_a_consumer_comes_back_after_its_topic_was_unloaded(
    client: Any, admin: Admin, topic: str
) -> None:
    consumer = client.subscribe(topic, "s", consumer_type=Type.Shared)
    producer = client.create_producer(topic)
    send(producer, 3)
    assert take(consumer, 3) == texts(range(3))
    eventually(lambda: admin.stats(topic)["subscriptions"]["s"]["msgBacklog"] == 0)
    admin.unload(topic)
    send(producer, range(3, 6))
    assert take(consumer, 3) == texts(range(3, 6))
    assert_quiet(consumer)


def test_the_numbers_about_a_subscription_are_current_at_once(
    client: Any, admin: Admin, topic: str
) -> None:
    def numbers() -> tuple[int, int]:
        stats = admin.stats(topic)["subscriptions"]["s"]
        return stats["msgBacklog"], stats["unackedMessages"]

    consumer = client.subscribe(topic, "s", consumer_type=Type.Shared)
    send(client.create_producer(topic), 10)
    messages = receive(consumer, 10)
    assert numbers() == (10, 10)
    for message in messages[:6]:
        consumer.acknowledge(message)
    eventually(lambda: numbers() == (4, 4))  # the client gathers them for a while


def test_a_producer_may_make_the_subscription_that_will_need_its_messages(
    client: Any, admin: Admin, topic: str
) -> None:
    """Dead letters: the topic is made by its first producer, and must not be empty for readers."""
    policy = pulsar.ConsumerDeadLetterPolicy(1, f"{topic}-dead", "undertaker")
    consumer = client.subscribe(
        topic, "s", consumer_type=Type.Shared, dead_letter_policy=policy,
        negative_ack_redelivery_delay_ms=50,
    )  # fmt: skip
    client.create_producer(topic).send(b"hopeless")
    for _ in range(2):
        consumer.negative_acknowledge(consumer.receive(RECEIVE_MS))
    eventually(lambda: _there(admin, f"{topic}-dead"))
    assert "undertaker" in admin.subscriptions(f"{topic}-dead")
    late = client.subscribe(f"{topic}-dead", "undertaker", consumer_type=Type.Shared)
    assert take(late, 1) == ["hopeless"]


def _there(admin: Admin, topic: str) -> bool:
    consumer_made = topic in admin.topics("public/default")
    return consumer_made and bool(admin.stats(topic)["msgInCounter"])
