"""Compacted topics with the official client: readers, consumers and table views."""

from typing import Any

import pulsar
import pytest

from magnetar.client.admin import Admin
from tests.conformance.conftest import Restartable
from tests.conformance.talk import RECEIVE_MS, eventually, receive

EARLIEST = pulsar.MessageId.earliest
State = dict[str, str]


def put(producer: Any, *pairs: tuple[str, str | None]) -> None:
    for key, value in pairs:
        body = None if value is None else value.encode()
        producer.send_async(body, lambda *_: None, partition_key=key)
    producer.flush()


def compact(admin: Admin, topic: str) -> None:
    admin.compact(topic)
    eventually(lambda: admin.compaction(topic)[0] != "RUNNING")
    assert admin.compaction(topic) == ("SUCCESS", "")


def said(message: Any) -> tuple[str, str]:
    return message.partition_key(), bytes(message.data()).decode()


def read_all(client: Any, topic: str, **options: Any) -> list[tuple[str, str]]:
    reader = client.create_reader(topic, EARLIEST, is_read_compacted=True, **options)
    found = []
    while reader.has_message_available():
        found.append(said(reader.read_next(RECEIVE_MS)))
    reader.close()
    return found


@pytest.mark.parametrize(
    "codec",
    [
        pulsar.CompressionType.NONE,
        pulsar.CompressionType.LZ4,
        pulsar.CompressionType.ZLib,
        pulsar.CompressionType.ZSTD,
        pulsar.CompressionType.SNAPPY,
    ],
)
def test_a_reader_sees_the_last_message_of_every_key_also_from_batches(
    client: Any, admin: Admin, topic: str, codec: Any
) -> None:
    producer = client.create_producer(
        topic,
        batching_enabled=True,
        batching_max_publish_delay_ms=1000,
        compression_type=codec,
    )
    put(producer, ("a", "1"), ("b", "1"), ("c", "1"), ("a", "2"))
    put(producer, ("b", "2"), ("d", "1"))
    compact(admin, topic)
    assert read_all(client, topic) == [("c", "1"), ("a", "2"), ("b", "2"), ("d", "1")]
    put(producer, ("c", None), ("e", "1"))
    assert read_all(client, topic)[-1] == ("e", "1")
    compact(admin, topic)
    assert read_all(client, topic) == [("a", "2"), ("b", "2"), ("d", "1"), ("e", "1")]


def test_a_table_view_begins_with_the_view(client: Any, admin: Admin, topic: str) -> None:
    producer = client.create_producer(topic)
    put(producer, *((f"k{n % 20}", str(n)) for n in range(200)))
    compact(admin, topic)
    put(producer, ("k0", "new"), ("k1", ""))
    table = client.create_table_view(topic)
    assert len(table) == 19
    assert table.get("k0") == b"new"
    assert table.get("k7") == b"187"
    put(producer, ("late", "x"))
    eventually(lambda: table.get("late") == b"x")
    table.close()


def test_a_subscription_goes_on_behind_what_it_acknowledged(
    client: Any, admin: Admin, topic: str
) -> None:
    options = {"is_read_compacted": True, "initial_position": pulsar.InitialPosition.Earliest}
    producer = client.create_producer(topic, batching_enabled=False)
    put(producer, *((f"k{n % 3}", str(n)) for n in range(12)))
    compact(admin, topic)
    consumer = client.subscribe(topic, "s", **options)
    first = receive(consumer, 1)[0]
    assert said(first) == ("k0", "9")
    consumer.acknowledge(first)
    consumer.close()
    again = client.subscribe(topic, "s", **options)
    assert [said(each) for each in receive(again, 2)] == [("k1", "10"), ("k2", "11")]
    again.acknowledge_cumulative(receive_last(again, producer))
    eventually(lambda: admin.stats(topic)["subscriptions"]["s"]["msgBacklog"] == 0)


def receive_last(consumer: Any, producer: Any) -> Any:
    put(producer, ("k9", "last"))
    return receive(consumer, 1)[0]


def test_every_partition_is_compacted_by_the_name_of_the_topic(
    client: Any, admin: Admin, topic: str
) -> None:
    admin.create_topic(topic, 4)
    producer = client.create_producer(topic)
    put(producer, *((f"k{n % 16}", str(n)) for n in range(64)))
    compact(admin, topic)
    consumer = client.subscribe(
        topic,
        "s",
        is_read_compacted=True,
        initial_position=pulsar.InitialPosition.Earliest,
    )
    found = dict(said(each) for each in receive(consumer, 16))
    assert found == {f"k{n}": str(48 + n) for n in range(16)}


def test_a_view_and_its_ids_survive_a_kill(restartable: Restartable) -> None:
    topic = "persistent://public/default/compacted"
    client = restartable.client()
    producer = client.create_producer(topic, batching_enabled=False)
    put(producer, *((f"k{n % 5}", str(n)) for n in range(50)))
    with restartable.admin() as admin:
        compact(admin, topic)
    expected = [(f"k{n % 5}", str(n)) for n in range(45, 50)]
    assert read_all(client, topic) == expected
    restartable.crash()
    assert read_all(restartable.client(), topic) == expected


def test_a_reader_of_a_view_may_seek(client: Any, admin: Admin, topic: str) -> None:
    producer = client.create_producer(topic, batching_enabled=False)
    put(producer, *((f"k{n % 4}", str(n)) for n in range(12)))
    compact(admin, topic)
    reader = client.create_reader(topic, EARLIEST, is_read_compacted=True)
    first = [reader.read_next(RECEIVE_MS) for _ in range(4)]
    assert [said(each)[1] for each in first] == ["8", "9", "10", "11"]
    assert not reader.has_message_available()
    reader.seek(first[2].message_id())
    again = []
    while reader.has_message_available():
        again.append(said(reader.read_next(RECEIVE_MS))[1])
    assert again[-1] == "11"
    assert len(again) <= 2
    reader.seek(EARLIEST)
    assert [said(reader.read_next(RECEIVE_MS))[1] for _ in range(4)] == ["8", "9", "10", "11"]
    reader.seek(1)
    assert said(reader.read_next(RECEIVE_MS))[1] == "8"


def test_nothing_is_available_in_a_view_of_which_all_was_deleted(
    client: Any, admin: Admin, topic: str
) -> None:
    producer = client.create_producer(topic, batching_enabled=False)
    put(producer, ("a", "1"), ("a", None))
    compact(admin, topic)
    assert read_all(client, topic) == []
    put(producer, ("b", "1"))
    assert read_all(client, topic) == [("b", "1")]


def test_a_kill_while_it_runs_leaves_a_table_that_is_right(restartable: Restartable) -> None:
    topic = "persistent://public/default/busy"
    expected = {f"k{n * n % 5003}": str(n) for n in range(30_000)}
    client = restartable.client()
    producer = client.create_producer(topic, batching_enabled=True, block_if_queue_full=True)
    put(producer, *((f"k{n * n % 5003}", str(n)) for n in range(30_000)))
    for _ in range(2):
        with restartable.admin() as admin:
            admin.compact(topic)
            assert admin.compaction(topic)[0] == "RUNNING"
        restartable.crash()
        found = read_all(restartable.client(), topic)
        assert dict(found) == expected
    with restartable.admin() as admin:
        compact(admin, topic)
    found = read_all(restartable.client(), topic)
    assert dict(found) == expected
    assert len(found) == len(expected)
