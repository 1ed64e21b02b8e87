"""Readers: they start where they are told, see everything from there, and leave nothing behind."""

from typing import Any

import pulsar
import pytest

from magnetar.client.admin import Admin
from tests.conformance.talk import assert_quiet, eventually, receive, send, take, text, texts

EARLIEST, LATEST = pulsar.MessageId.earliest, pulsar.MessageId.latest


def test_from_the_earliest_a_reader_sees_everything_also_what_is_to_come(
    client: Any, topic: str
) -> None:
    reader = client.create_reader(topic, EARLIEST)
    producer = client.create_producer(topic)
    send(producer, 10)
    assert take(reader, 10) == texts(range(10))
    assert_quiet(reader, 50)
    send(producer, [10])
    assert take(reader, 1) == ["10"]


def test_from_the_latest_a_reader_sees_only_what_is_to_come(client: Any, topic: str) -> None:
    producer = client.create_producer(topic)
    send(producer, 10)
    reader = client.create_reader(topic, LATEST)
    send(producer, range(10, 20))
    assert take(reader, 10) == texts(range(10, 20))


def test_from_the_latest_inclusive_a_reader_begins_with_the_last_message(
    client: Any, topic: str
) -> None:
    producer = client.create_producer(topic)
    last = send(producer, 5)[-1]
    without = client.create_reader(topic, LATEST)
    assert not without.has_message_available()
    reader = client.create_reader(topic, LATEST, start_message_id_inclusive=True)
    assert reader.has_message_available()
    assert receive(reader, 1)[0].message_id() == last


@pytest.mark.parametrize("inclusive", [False, True])
def test_a_reader_starts_after_a_message_or_at_it(client: Any, topic: str, inclusive: bool) -> None:
    ids = send(client.create_producer(topic), 10)
    reader = client.create_reader(topic, ids[4], start_message_id_inclusive=inclusive)
    first = 4 if inclusive else 5
    assert take(reader, 10 - first) == texts(range(first, 10))
    assert_quiet(reader, 50)


@pytest.mark.parametrize("inclusive", [False, True])
def test_a_reader_starts_in_the_middle_of_a_batch(client: Any, topic: str, inclusive: bool) -> None:
    producer = client.create_producer(
        topic, batching_enabled=True, batching_max_publish_delay_ms=5_000
    )
    for number in range(10):
        producer.send_async(b"%d" % number, None)
    producer.flush()
    whole = client.create_reader(topic, EARLIEST)
    middle = receive(whole, 5)[-1].message_id()
    assert middle.batch_index() == 4
    reader = client.create_reader(topic, middle, start_message_id_inclusive=inclusive)
    first = 4 if inclusive else 5
    assert take(reader, 10 - first) == texts(range(first, 10))


def test_whether_there_is_more_to_read_is_known_at_any_time(client: Any, topic: str) -> None:
    producer = client.create_producer(topic)
    reader = client.create_reader(topic, LATEST)
    assert not reader.has_message_available()
    for first in (0, 5):
        send(producer, range(first, first + 5))
        assert reader.has_message_available()
        assert take(reader, 5) == texts(range(first, first + 5))
        assert not reader.has_message_available()


def test_a_new_topic_has_nothing_to_read(client: Any, topic: str) -> None:
    reader = client.create_reader(topic, EARLIEST)
    assert not reader.has_message_available()


def test_readers_do_not_disturb_each_other_and_leave_no_subscription(
    client: Any, admin: Admin, topic: str
) -> None:
    send(client.create_producer(topic), 10)
    readers = [client.create_reader(topic, EARLIEST) for _ in range(5)]
    for reader in readers:
        assert take(reader, 10) == texts(range(10))
        reader.close()
    eventually(lambda: admin.subscriptions(topic) == [])


def test_a_reader_is_connected_until_it_is_closed(client: Any, topic: str) -> None:
    reader = client.create_reader(topic, EARLIEST)
    assert reader.is_connected()
    reader.close()
    assert not reader.is_connected()


def test_a_listener_reads_along(client: Any, topic: str) -> None:
    heard: list[str] = []
    client.create_reader(topic, EARLIEST, reader_listener=lambda _, each: heard.append(text(each)))
    send(client.create_producer(topic), 10)
    eventually(lambda: heard == texts(range(10)))


def test_a_reader_of_a_partitioned_topic_reads_all_partitions(
    client: Any, admin: Admin, topic: str
) -> None:
    admin.create_topic(topic, 4)
    send(client.create_producer(topic), 40)
    reader = client.create_reader(topic, EARLIEST)
    assert sorted(take(reader, 40), key=int) == texts(range(40))
    assert not reader.has_message_available()


def test_a_reader_goes_on_after_its_topic_was_unloaded(
    client: Any, admin: Admin, topic: str
) -> None:
    producer = client.create_producer(topic)
    reader = client.create_reader(topic, EARLIEST)
    send(producer, 5)
    assert take(reader, 5) == texts(range(5))
    admin.unload(topic)
    send(producer, range(5, 10))
    assert take(reader, 5) == texts(range(5, 10))


def test_a_table_shows_the_latest_value_of_each_key(client: Any, topic: str) -> None:
    producer = client.create_producer(topic)
    send(producer, ["old"], partition_key="a")
    send(producer, ["gone soon"], partition_key="b")
    table = client.create_table_view(topic)
    assert (table.get("a"), table.get("b"), table.get("c")) == (b"old", b"gone soon", None)
    heard: dict[str, bytes] = {}
    table.for_each_and_listen(heard.__setitem__)
    producer.send(b"new", partition_key="a")
    producer.send(None, partition_key="b")
    producer.send(b"\xba\xd0", partition_key="c")
    eventually(lambda: len(table) == 2 and table.get("c") == b"\xba\xd0")
    assert (table.get("a"), table.get("b")) == (b"new", None)
    assert heard["a"] == b"new"
    table.close()
