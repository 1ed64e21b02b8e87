"""The bridge to a cluster: the official client and admin REST, opened in one place."""

import pulsar
import pytest

from magnetar.client.address import AddressError, admin_url_beside, service_addresses
from magnetar.client.cluster import Cluster, SubscriptionType, message_id

TIMEOUT_MS = 5000


def test_what_is_published_is_consumed_and_acknowledged(cluster: Cluster, topic: str) -> None:
    consumer = cluster.consumer(topic, "s")
    producer = cluster.producer(topic)
    for number in range(10):
        producer.send(f"{number}".encode())
    for number in range(10):
        message = consumer.receive(TIMEOUT_MS)
        assert message.data() == f"{number}".encode()
        consumer.acknowledge(message)


def test_a_new_subscription_starts_where_it_is_told(cluster: Cluster, topic: str) -> None:
    producer = cluster.producer(topic)
    producer.send(b"before")
    earliest = cluster.consumer(topic, "earliest", start="earliest")
    latest = cluster.consumer(topic, "latest")
    producer.send(b"after")
    assert earliest.receive(TIMEOUT_MS).data() == b"before"
    assert latest.receive(TIMEOUT_MS).data() == b"after"


def test_a_consumer_may_start_at_a_time_or_a_message(cluster: Cluster, topic: str) -> None:
    producer = cluster.producer(topic)
    ids = [producer.send(f"{number}".encode()) for number in range(3)]
    at_time = cluster.consumer(topic, "time", start=1)
    assert at_time.receive(TIMEOUT_MS).data() == b"0"
    at_message = cluster.consumer(topic, "message", start=ids[1])
    assert at_message.receive(TIMEOUT_MS).data() in {b"1", b"2"}  # clients before 3.5 exclude it


def test_a_reader_may_start_at_any_message(cluster: Cluster, topic: str) -> None:
    producer = cluster.producer(topic)
    ids = [producer.send(f"{number}".encode()) for number in range(3)]
    assert cluster.reader(topic, ids[1]).read_next(TIMEOUT_MS).data() == b"1"
    again = message_id(ids[2].ledger_id(), ids[2].entry_id())
    assert cluster.reader(topic, again).read_next(TIMEOUT_MS).data() == b"2"
    assert cluster.reader(topic).read_next(TIMEOUT_MS).data() == b"0"


@pytest.mark.parametrize("kind", [SubscriptionType.SHARED, SubscriptionType.KEY_SHARED])
def test_two_consumers_may_share_a_subscription(
    cluster: Cluster, topic: str, kind: SubscriptionType
) -> None:
    consumers = [cluster.consumer(topic, "s", kind, receiver_queue_size=5) for _ in range(2)]
    producer = cluster.producer(topic)
    for number in range(40):
        producer.send(f"{number}".encode(), partition_key=f"{number}")
    received = set[bytes]()
    while len(received) < 40:
        for consumer in consumers:
            try:
                message = consumer.receive(100)
            except pulsar.Timeout:
                continue
            received.add(message.data())
            consumer.acknowledge(message)
    assert received == {f"{number}".encode() for number in range(40)}


def test_an_exclusive_subscription_takes_one_consumer(cluster: Cluster, topic: str) -> None:
    cluster.consumer(topic, "s")
    with pytest.raises(pulsar.ConsumerBusy):
        cluster.consumer(topic, "s")


def test_admin_rest_is_found_beside_the_broker(cluster: Cluster, topic: str) -> None:
    with cluster.admin() as admin:
        admin.create_topic(topic)
        assert topic in admin.topics("public/default")


def test_closing_twice_is_fine_and_it_opens_again(cluster: Cluster, topic: str) -> None:
    cluster.producer(topic).send(b"x")
    cluster.close()
    cluster.close()
    cluster.producer(topic).send(b"y")


@pytest.mark.parametrize(
    ("url", "admin_url"),
    [
        ("pulsar://localhost:6650", "http://localhost:8080"),
        ("pulsar://localhost", "http://localhost:8080"),
        ("pulsar://broker.example:16650", "http://broker.example:18080"),
        ("pulsar://[::1]:6651", "http://[::1]:8081"),
        ("pulsar+ssl://a.example:6651,b.example:6651", "https://a.example:8443"),
        ("pulsar://a:65000", "http://a:8080"),
    ],
)
def test_the_admin_address_moves_with_the_pulsar_address(url: str, admin_url: str) -> None:
    assert admin_url_beside(url) == admin_url


@pytest.mark.parametrize(
    "url", ["", "localhost:6650", "http://localhost:8080", "pulsar://", "pulsar://a:b"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(AddressError):
        Cluster(url)


def test_several_hosts_are_tried_in_the_order_given() -> None:
    assert service_addresses("pulsar://a:1,b/") == [("a", 1), ("b", 6650)]
