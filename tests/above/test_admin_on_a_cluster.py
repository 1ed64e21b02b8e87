"""The admin REST client against a whole cluster, beside the official client."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pulsar
import pytest

from magnetar.client.admin import Admin
from magnetar.client.cluster import Cluster
from magnetar.client.rest import AdminError
from magnetar.client.stored import MessageId


@pytest.fixture
def admin(cluster: Cluster) -> Iterator[Admin]:
    with cluster.admin() as admin:
        yield admin


@pytest.fixture
def publish(cluster: Cluster) -> Callable[..., None]:
    def send(topic: str, payloads: list[bytes], **options: Any) -> None:
        producer = cluster.client.create_producer(topic, **options)
        for payload in payloads:
            producer.send_async(payload, lambda *_: None)
        producer.flush()
        producer.close()

    return send


def backlog(admin: Admin, topic: str, subscription: str) -> int:
    return int(admin.stats(topic)["subscriptions"][subscription]["msgBacklog"])


def test_the_cluster_is_well_and_says_who_it_is(admin: Admin) -> None:
    assert admin.health() == "ok"
    assert admin.version()
    assert admin.clusters()
    assert len(admin.brokers()) >= 1
    assert "public" in admin.tenants()
    assert "public/default" in admin.namespaces("public")


def test_a_topic_lives_and_ends(admin: Admin, topic: str) -> None:
    admin.create_topic(topic)
    assert topic in admin.topics("public/default")
    assert admin.partitions(topic) == 0
    with pytest.raises(AdminError) as error:
        admin.create_topic(topic)
    assert error.value.status == 409
    admin.delete_topic(topic)
    with pytest.raises(AdminError) as error:
        admin.stats(topic)
    assert error.value.status == 404


def test_a_partitioned_topic_grows_and_ends(admin: Admin, topic: str) -> None:
    admin.create_topic(topic, 2)
    admin.update_partitions(topic, 3)
    assert admin.partitions(topic) == 3
    assert topic in admin.partitioned_topics("public/default")
    assert admin.partition_names(topic) == [f"{topic}-partition-{i}" for i in range(3)]
    admin.create_subscription(topic, "s")
    assert admin.subscriptions(topic) == ["s"]
    admin.delete_topic(topic, force=True)
    assert not [name for name in admin.topics("public/default") if name.startswith(topic)]


def test_a_backlog_is_skipped_expired_and_set_back(
    admin: Admin, topic: str, publish: Callable[..., None]
) -> None:
    admin.create_subscription(topic, "s", "earliest")
    before_ms = int(time.time() * 1000) - 1
    publish(topic, [b"%d" % i for i in range(10)], batching_enabled=False)
    assert backlog(admin, topic, "s") == 10
    admin.skip(topic, "s", 3)
    assert backlog(admin, topic, "s") == 7
    assert [message.payload for message in admin.peek(topic, "s", 2)] == [b"3", b"4"]
    admin.clear(topic, "s")
    assert backlog(admin, topic, "s") == 0
    admin.reset(topic, "s", before_ms)
    assert backlog(admin, topic, "s") == 10
    last = admin.last_message_id(topic)
    admin.reset(topic, "s", MessageId(last.ledger, last.entry))
    assert [message.payload for message in admin.peek(topic, "s", 5)] == [b"9"]
    admin.delete_subscription(topic, "s")
    assert admin.subscriptions(topic) == []


def test_messages_are_found_wherever_they_are(
    admin: Admin, topic: str, publish: Callable[..., None]
) -> None:
    publish(
        topic,
        [b"%d" % i for i in range(10)],
        batching_enabled=True,
        batching_max_publish_delay_ms=200,
        compression_type=pulsar.CompressionType.LZ4,
    )
    first = admin.examine(topic, 1)
    assert [message.payload for message in first] == [b"%d" % i for i in range(len(first))]
    assert [message.id.batch_index for message in first] == list(range(len(first)))
    place = first[0].id
    assert admin.entry(topic, place.ledger, place.entry) == first
    assert admin.message_id_at(topic, 0) == MessageId(place.ledger, place.entry)
    assert admin.backlog_size(topic, MessageId(place.ledger, place.entry - 1)) > 0
    with pytest.raises(AdminError) as error:
        admin.entry(topic, 2**40, 0)
    assert error.value.status == 404


def test_a_topic_in_use_is_not_deleted_and_a_consumer_is_not_robbed(
    admin: Admin, cluster: Cluster, topic: str
) -> None:
    consumer = cluster.client.subscribe(topic, "s")
    with pytest.raises(AdminError) as error:
        admin.delete_topic(topic)
    assert error.value.status == 409
    with pytest.raises(AdminError) as error:
        admin.delete_subscription(topic, "s")
    assert error.value.status == 412
    consumer.close()


def test_a_consumer_comes_back_after_its_topic_was_unloaded(
    admin: Admin, cluster: Cluster, topic: str, publish: Callable[..., None]
) -> None:
    consumer = cluster.client.subscribe(topic, "s")
    admin.unload(topic)
    publish(topic, [b"after"])
    assert consumer.receive(10_000).data() == b"after"
    consumer.close()


def test_a_terminated_topic_can_be_read_to_its_end(
    admin: Admin, topic: str, publish: Callable[..., None]
) -> None:
    publish(topic, [b"last"])
    assert admin.terminate(topic) == admin.last_message_id(topic)
    with pytest.raises(pulsar.PulsarException):
        publish(topic, [b"too late"])


def test_a_policy_holds_for_topics_that_are_in_use_within_a_second(
    admin: Admin, cluster: Cluster
) -> None:
    namespace = f"public/above-{time.time_ns()}"
    admin.create_namespace(namespace)
    topic = f"persistent://{namespace}/orders"
    producer = cluster.client.create_producer(topic, producer_name="first")
    admin.set_policy(namespace, "maxProducersPerTopic", 1)
    assert admin.policy(namespace, "maxProducersPerTopic") == 1
    time.sleep(1)
    with pytest.raises(pulsar.PulsarException):
        cluster.client.create_producer(topic, producer_name="second")
    admin.remove_policy(namespace, "maxProducersPerTopic")
    assert admin.policy(namespace, "maxProducersPerTopic") is None
    producer.close()
    admin.delete_namespace(namespace, force=True)
    assert namespace not in admin.namespaces("public")


def test_clients_that_look_up_over_http_find_their_topics(
    addresses: Any, topic: str, admin: Admin
) -> None:
    admin.create_topic(topic, 2)
    client = pulsar.Client(
        addresses.admin_url, logger=pulsar.ConsoleLogger(pulsar.LoggerLevel.Error)
    )
    consumer = client.subscribe(topic, "s")
    producer = client.create_producer(topic)
    producer.send(b"hello")
    assert consumer.receive(10_000).data() == b"hello"
    assert sorted(client.get_topic_partitions(topic)) == admin.partition_names(topic)
    client.close()


def test_metrics_count_what_was_published(
    admin: Admin, topic: str, publish: Callable[..., None]
) -> None:
    publish(topic, [b"x"] * 7)
    lines = [line for line in admin.metrics().splitlines() if f'topic="{topic}"' in line]
    (published,) = [line for line in lines if line.startswith("pulsar_in_messages_total{")]
    assert float(published.rsplit(" ", 1)[1]) == 7
