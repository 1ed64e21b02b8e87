"""Patterns: one consumer for all topics whose names fit."""

import re
from typing import Any
from urllib.parse import urlsplit

import pytest
from pulsar import ConsumerType as Type
from pulsar import RegexSubscriptionMode as Mode

from magnetar.broker.wire.pulsar.frames import encode_command
from magnetar.broker.wire.pulsar.generated.PulsarApi_pb2 import BaseCommand
from magnetar.client.admin import Admin
from tests.above.conftest import Addresses
from tests.conformance.conftest import Connect
from tests.conformance.line import Line
from tests.conformance.talk import assert_quiet, receive, send, take, text


def test_all_topics_that_fit_are_read_and_no_other(
    client: Any, admin: Admin, namespace: str
) -> None:
    for name, partitions in (("log-a", 0), ("log-b", 3), ("other-log-c", 0)):
        admin.create_topic(f"{namespace}/{name}", partitions)
    consumer = client.subscribe(
        re.compile(f"persistent://{namespace}/log-.*"), "s", consumer_type=Type.Shared
    )
    for name in ("log-a", "log-b", "other-log-c"):
        send(client.create_producer(f"{namespace}/{name}"), [f"{name} {i}" for i in range(6)])
    assert sorted(take(consumer, 12)) == [f"log-{x} {i}" for x in "ab" for i in range(6)]
    assert_quiet(consumer)


@pytest.mark.parametrize(
    ("mode", "wanted"),
    [
        (Mode.PersistentOnly, {"p1", "p2"}),
        (Mode.NonPersistentOnly, {"n1", "n2", "n3"}),
        (Mode.AllTopics, {"p1", "p2", "n1", "n2", "n3"}),
    ],
    ids=["persistent", "non-persistent", "all"],
)
def test_a_pattern_means_stored_topics_or_those_in_memory_or_both(
    client: Any, connect: Connect, namespace: str, mode: Any, wanted: set[str]
) -> None:
    """Those in memory are there while somebody uses them, in whatever process."""
    names = {
        **{f"p{i}": f"persistent://{namespace}/t-p{i}" for i in (1, 2)},
        **{f"n{i}": f"non-persistent://{namespace}/t-n{i}" for i in (1, 2, 3)},
        "no": f"persistent://{namespace}/no-t",
    }
    producers = {word: client.create_producer(name) for word, name in names.items()}
    consumer = connect().subscribe(
        re.compile(f"{namespace}/t-.*"), "s", consumer_type=Type.Shared,
        regex_subscription_mode=mode,
    )  # fmt: skip
    for word, producer in producers.items():
        send(producer, [word])
    messages = receive(consumer, len(wanted))
    assert {text(each) for each in messages} == wanted
    assert {each.topic_name() for each in messages} == {names[word] for word in wanted}
    assert_quiet(consumer, 50)


def test_who_watches_is_told_of_topics_as_they_come_and_go(
    addresses: Addresses, admin: Admin, namespace: str
) -> None:
    """By frames: the clients for C++ and Python ask again every minute instead."""
    port = urlsplit(addresses.url).port
    assert port is not None
    pattern = f"persistent://{namespace}/log-.*"
    wanted = {f"persistent://{namespace}/log-{i}" for i in range(6)}
    with Line(port) as line:
        watch = BaseCommand(type=BaseCommand.WATCH_TOPIC_LIST)
        watch.watchTopicList.request_id, watch.watchTopicList.watcher_id = 1, 7
        watch.watchTopicList.namespace, watch.watchTopicList.topics_pattern = namespace, pattern
        told = line.ask(encode_command(watch), BaseCommand.WATCH_TOPIC_LIST_SUCCESS)
        assert list(told.watchTopicListSuccess.topic) == []
        for name in (*wanted, f"persistent://{namespace}/other"):
            admin.create_topic(name)
        assert heard(line, len(wanted)) == (wanted, set())
        for name in wanted:
            admin.delete_topic(name)
        assert heard(line, len(wanted)) == (set(), wanted)


def heard(line: Line, count: int) -> tuple[set[str], set[str]]:
    """Return the next so many topics that a watcher is told of: those that came, and went."""
    new, deleted = set[str](), set[str]()
    while len(new) + len(deleted) < count:
        update = line.frame().command.watchTopicUpdate
        assert update.watcher_id == 7
        new.update(update.new_topics)
        deleted.update(update.deleted_topics)
    return new, deleted


def test_a_topic_that_is_deleted_is_let_go_and_the_others_are_read_on(
    client: Any, admin: Admin, namespace: str
) -> None:
    kept = client.create_producer(f"{namespace}/log-kept")
    admin.create_topic(f"{namespace}/log-deleted")
    consumer = client.subscribe(re.compile(f"{namespace}/log-.*"), "s")
    admin.delete_topic(f"{namespace}/log-deleted", force=True)
    send(kept, 3)
    assert take(consumer, 3) == ["0", "1", "2"]
