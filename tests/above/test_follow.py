"""Replaying a topic from anywhere, then keeping up with it."""

import itertools
import threading

from magnetar.cli.demo.broker import BrokerProcess
from magnetar.client.cluster import Cluster
from magnetar.client.follow import follow

COUNT = 50


def published(cluster: Cluster, topic: str, count: int = COUNT) -> list[bytes]:
    """Publish so many messages and return their bodies."""
    producer = cluster.producer(topic)
    bodies = [f"{number}".encode() for number in range(count)]
    for body in bodies:
        producer.send(body)
    producer.close()
    return bodies


def test_everything_is_replayed_in_order_however_often(cluster: Cluster, topic: str) -> None:
    bodies = published(cluster, topic)
    for _ in range(2):
        assert [each.data() for each in follow(cluster, topic, until_end=True)] == bodies


def test_what_was_acknowledged_is_replayed_too(cluster: Cluster, topic: str) -> None:
    consumer = cluster.consumer(topic, "s")
    bodies = published(cluster, topic)
    for _ in bodies:
        consumer.acknowledge(consumer.receive(5000))
    consumer.close()
    assert [each.data() for each in follow(cluster, topic, until_end=True)] == bodies


def test_following_starts_at_a_message_or_at_a_time(cluster: Cluster, topic: str) -> None:
    bodies = published(cluster, topic)
    messages = list(follow(cluster, topic, until_end=True))
    middle = messages[20]
    from_id = [each.data() for each in follow(cluster, topic, middle.message_id(), until_end=True)]
    assert from_id == bodies[20:]
    time_ms = middle.publish_timestamp()
    from_time = [each.data() for each in follow(cluster, topic, time_ms, until_end=True)]
    first = next(i for i, each in enumerate(messages) if each.publish_timestamp() >= time_ms)
    assert from_time == bodies[first:]


def test_an_empty_topic_ends_at_once(cluster: Cluster, topic: str) -> None:
    assert list(follow(cluster, topic, until_end=True)) == []


def test_it_keeps_up_with_what_is_published_later(cluster: Cluster, topic: str) -> None:
    bodies = published(cluster, topic)
    following = follow(cluster, topic)
    assert [next(following).data() for _ in bodies] == bodies
    late = published(cluster, topic, 5)
    assert [next(following).data() for _ in late] == late
    following.close()


def test_from_the_latest_only_what_comes_now_is_seen(cluster: Cluster, topic: str) -> None:
    published(cluster, topic)
    asked = itertools.count()

    def publish_once_it_listens() -> bool:
        if next(asked) == 1:
            published(cluster, topic, 1)
        return False

    following = follow(cluster, topic, "latest", stopped=publish_once_it_listens)
    assert next(following).data() == b"0"
    following.close()


def test_it_stops_when_told_to(cluster: Cluster, topic: str) -> None:
    stop = threading.Event()
    published(cluster, topic)
    seen = []
    for message in follow(cluster, topic, stopped=stop.is_set):
        seen.append(message)
        if len(seen) == 10:
            stop.set()
    assert len(seen) == 10


def test_it_survives_a_killed_broker(own_broker: BrokerProcess, topic: str) -> None:
    with Cluster(own_broker.ports.url) as cluster:
        bodies = published(cluster, topic)
        following = follow(cluster, topic)
        before = [next(following).data() for _ in range(20)]
        own_broker.kill()
        own_broker.start()
        after = published(cluster, topic, 5)
        rest = [next(following).data() for _ in range(COUNT - 20 + 5)]
        following.close()
    assert before + rest == bodies + after
