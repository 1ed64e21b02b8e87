"""Key_Shared: many consumers, and each key in order."""

from typing import Any

import pulsar
import pytest
from pulsar import ConsumerType as Type
from pulsar import KeySharedMode as Mode

from tests.conformance.conftest import Connect
from tests.conformance.talk import (
    RECEIVE_MS,
    assert_quiet,
    receive,
    send,
    take,
    take_all,
    texts,
)

MANY_KEYS = 40
"""So many that no consumer, whatever its name hashes to, is left without one."""


def policy(mode: Any, *ranges: tuple[int, int], out_of_order: bool = False) -> Any:
    return pulsar.ConsumerKeySharedPolicy(
        key_shared_mode=mode,
        allow_out_of_order_delivery=out_of_order,
        sticky_ranges=list(ranges) or None,
    )


def publish(producer: Any, numbers: range, keys: int) -> None:
    for number in numbers:
        producer.send_async(b"%d" % number, None, partition_key=f"key {number % keys}")
    producer.flush()


@pytest.mark.parametrize("out_of_order", [False, True])
def test_each_key_has_one_consumer_and_keeps_its_order(
    connect: Connect, client: Any, topic: str, out_of_order: bool
) -> None:
    rule = policy(Mode.AutoSplit, out_of_order=out_of_order)
    consumers = [
        connect().subscribe(topic, "s", consumer_type=Type.KeyShared, key_shared_policy=rule)
        for _ in range(3)
    ]
    publish(client.create_producer(topic), range(200), keys=20)
    got = take_all(*consumers, count=200)
    keys = [{int(each) % 20 for each in mine} for mine in got]
    assert sum(map(len, keys)) == 20
    assert sum(1 for mine in keys if mine) >= 2
    for mine in got:
        for key in range(20):
            of_key = [int(each) for each in mine if int(each) % 20 == key]
            assert of_key == sorted(of_key)


def test_a_key_does_not_move_to_a_newcomer_before_its_old_messages_are_done(
    connect: Connect, client: Any, topic: str
) -> None:
    first = client.subscribe(topic, "s", consumer_type=Type.KeyShared)
    producer = client.create_producer(topic)
    publish(producer, range(80), keys=MANY_KEYS)
    held = receive(first, 80)
    newcomer = connect().subscribe(topic, "s", consumer_type=Type.KeyShared)
    publish(producer, range(80, 160), keys=MANY_KEYS)
    assert_quiet(newcomer, 500)
    for message in held:
        first.acknowledge(message)
    mine, theirs = take_all(first, newcomer, count=80)
    assert theirs
    keys, others = ({int(each) % MANY_KEYS for each in side} for side in (mine, theirs))
    assert not keys & others


def test_the_keys_of_one_who_leaves_go_to_the_others_in_order(
    connect: Connect, client: Any, topic: str
) -> None:
    other = connect()
    leaving = other.subscribe(topic, "s", consumer_type=Type.KeyShared)
    staying = client.subscribe(topic, "s", consumer_type=Type.KeyShared)
    publish(client.create_producer(topic), range(120), keys=MANY_KEYS)
    mine, theirs = take_all(staying, leaving, count=120, acknowledge=False)
    assert theirs
    other.shutdown()
    again = take(staying, len(theirs))
    assert sorted(again, key=int) == sorted(theirs, key=int)
    for key in range(MANY_KEYS):
        of_key = [int(each) for each in again if int(each) % MANY_KEYS == key]
        assert of_key == sorted(of_key)
    assert mine is not None


def test_the_ordering_key_counts_before_the_partition_key(
    connect: Connect, client: Any, topic: str
) -> None:
    consumers = [connect().subscribe(topic, "s", consumer_type=Type.KeyShared) for _ in range(2)]
    producer = client.create_producer(topic)
    for number in range(20):
        producer.send(b"%d" % number, partition_key=f"{number}", ordering_key="always the same")
    got = take_all(*consumers, count=20)
    assert sorted(map(len, got)) == [0, 20]
    assert texts(range(20)) in got


def test_a_message_with_an_ordering_key_shows_it(client: Any, topic: str) -> None:
    consumer = client.subscribe(topic, "s", consumer_type=Type.KeyShared)
    client.create_producer(topic).send(b"x", ordering_key="k")
    assert consumer.receive(RECEIVE_MS).ordering_key() == "k"


def test_messages_without_a_key_are_delivered_too(
    connect: Connect, client: Any, topic: str
) -> None:
    consumers = [connect().subscribe(topic, "s", consumer_type=Type.KeyShared) for _ in range(2)]
    send(client.create_producer(topic), 30)
    got = take_all(*consumers, count=30)
    assert sorted(int(each) for mine in got for each in mine) == list(range(30))


def test_batches_made_by_key_keep_each_key_with_its_consumer(
    connect: Connect, client: Any, topic: str
) -> None:
    consumers = [connect().subscribe(topic, "s", consumer_type=Type.KeyShared) for _ in range(2)]
    producer = client.create_producer(
        topic, batching_enabled=True, batching_type=pulsar.BatchingType.KeyBased
    )
    publish(producer, range(100), keys=10)
    one, other = take_all(*consumers, count=100)
    assert not {int(each) % 10 for each in one} & {int(each) % 10 for each in other}


def test_consumers_may_say_which_hashes_they_serve(
    connect: Connect, client: Any, topic: str
) -> None:
    consumers = [
        connect().subscribe(
            topic, "s", consumer_type=Type.KeyShared,
            key_shared_policy=policy(Mode.Sticky, hashes, out_of_order=True),
        )
        for hashes in ((0, 30_000), (30_001, 65_535))
    ]  # fmt: skip
    publish(client.create_producer(topic), range(100), keys=20)
    one, other = take_all(*consumers, count=100)
    assert one
    assert other
    assert not {int(each) % 20 for each in one} & {int(each) % 20 for each in other}


def test_two_consumers_cannot_serve_the_same_hashes(
    connect: Connect, client: Any, topic: str
) -> None:
    client.subscribe(
        topic, "s", consumer_type=Type.KeyShared,
        key_shared_policy=policy(Mode.Sticky, (0, 40_000)),
    )  # fmt: skip
    with pytest.raises(pulsar.PulsarException):
        connect().subscribe(
            topic, "s", consumer_type=Type.KeyShared,
            key_shared_policy=policy(Mode.Sticky, (40_000, 65_535)),
        )  # fmt: skip


def test_what_nobody_serves_waits_for_somebody_who_does(
    connect: Connect, client: Any, topic: str
) -> None:
    lower = client.subscribe(
        topic, "s", consumer_type=Type.KeyShared,
        key_shared_policy=policy(Mode.Sticky, (0, 32_767)),
    )  # fmt: skip
    publish(client.create_producer(topic), range(100), keys=20)
    early = take(lower, 1)
    while True:
        try:
            message = lower.receive(300)
        except pulsar.Timeout:
            break
        early.append(message.data().decode())
        lower.acknowledge(message)
    assert 0 < len(early) < 100
    upper = connect().subscribe(
        topic, "s", consumer_type=Type.KeyShared,
        key_shared_policy=policy(Mode.Sticky, (32_768, 65_535)),
    )  # fmt: skip
    # What had not come to the first in time comes now.
    late, rest = take_all(upper, lower, count=100 - len(early))
    assert sorted(map(int, early + late + rest)) == list(range(100))
    assert late
    assert not {int(each) % 20 for each in early + rest} & {int(each) % 20 for each in late}
