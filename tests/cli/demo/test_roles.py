"""Who takes part in the demo, without a broker."""

from collections.abc import Callable
from typing import Any

import pulsar
import pytest
from hypothesis import given
from hypothesis import strategies as st

from magnetar.cli.demo.readings import (
    Mean,
    Reading,
    decode_mean,
    decode_reading,
    encode,
    hourly_means,
)
from magnetar.cli.demo.roles import (
    Alerts,
    Consuming,
    Deliveries,
    HourlyMeans,
    Outbox,
    Publisher,
    Worker,
)

HOUR_MS = 3_600_000


class Message:
    def __init__(self, reading: Reading, place: int) -> None:
        self.reading, self.place = reading, place

    def data(self) -> bytes:
        return encode(self.reading)

    def message_id(self) -> int:
        return self.place


class Consumer:
    """Delivers what it was given, and stops its role when nothing is left."""

    def __init__(self, readings: list[Reading]) -> None:
        self._waiting = [Message(each, place) for place, each in enumerate(readings)]
        self.role: Consuming | None = None
        self.acknowledged: list[Any] = []
        self.acknowledged_up_to: list[int] = []

    def receive(self, _: int) -> Message:
        if self._waiting:
            return self._waiting.pop(0)
        assert self.role is not None
        self.role.stopping.set()
        raise pulsar.Timeout("Pulsar error: TimeOut")

    def acknowledge(self, message: Any) -> None:
        self.acknowledged.append(message.place if isinstance(message, Message) else message)

    def acknowledge_cumulative(self, place: int) -> None:
        self.acknowledged_up_to.append(place)


class Producer:
    """Keeps what is sent; acknowledges at once, or when told to."""

    def __init__(self, *, at_once: bool = True) -> None:
        self.bodies: list[bytes] = []
        self._at_once = at_once
        self._waiting: list[Callable[..., None]] = []

    def send_async(self, body: bytes, callback: Callable[..., None], **_: Any) -> None:
        self.bodies.append(body)
        self._waiting.append(callback)
        if self._at_once:
            self.answer()

    def answer(self, result: Any = pulsar.Result.Ok) -> None:
        waiting, self._waiting = self._waiting, []
        for callback in waiting:
            callback(result, None)


class Cluster:
    """Opens one producer."""

    def __init__(self, *, at_once: bool = True) -> None:
        self.made = Producer(at_once=at_once)

    def producer(self, *_: Any, **__: Any) -> Producer:
        return self.made


def readings(*temperatures: float, step_ms: int = HOUR_MS // 2) -> list[Reading]:
    return [Reading(n, n * step_ms, f) for n, f in enumerate(temperatures)]


def played(
    kind: Any, delivered: list[Reading], cluster: Cluster, total: int
) -> tuple[Any, Consumer]:
    """Let a role play until nothing is left."""
    consumer = Consumer(delivered)
    role = kind(cluster, consumer, Deliveries(total), "t")
    consumer.role = role
    role.play()
    role.settle()
    return role, consumer


def test_each_hour_becomes_a_mean_when_the_next_begins() -> None:
    every = readings(10, 20, 30, 50, 70)
    cluster = Cluster()
    _, consumer = played(HourlyMeans, every, cluster, 5)
    assert [decode_mean(each) for each in cluster.made.bodies] == [
        Mean(0, 2, 15.0),
        Mean(HOUR_MS, 2, 40.0),
        Mean(2 * HOUR_MS, 1, 70.0),
    ]
    assert consumer.acknowledged_up_to == [1, 3, 4]


@given(st.lists(st.floats(-50, 150), min_size=1, max_size=40), st.data())
def test_the_means_are_the_same_however_often_the_broker_starts_over(
    temperatures: list[float], data: st.DataObject
) -> None:
    """A redelivery starts again anywhere at or before what was delivered last."""
    every = readings(*temperatures, step_ms=HOUR_MS // 3)
    delivered, position = list[Reading](), 0
    while position < len(every):
        upto = data.draw(st.integers(position + 1, len(every)))
        back = data.draw(st.integers(0, position))
        delivered += every[back:upto]
        position = upto
    cluster = Cluster()
    role, _ = played(HourlyMeans, delivered, cluster, len(every))
    found = {mean.hour_ms: mean for mean in map(decode_mean, cluster.made.bodies)}
    assert found == hourly_means(every)
    assert len(cluster.made.bodies) == len(found)
    assert role.deliveries.total == len(delivered)
    assert role.deliveries.missing == 0


def test_an_input_is_not_acknowledged_before_its_result_is_durable() -> None:
    cluster = Cluster(at_once=False)
    role, consumer = played(HourlyMeans, readings(10, 20, 30), cluster, 3)
    assert consumer.acknowledged_up_to == []
    cluster.made.answer()
    role.settle()
    assert consumer.acknowledged_up_to == [2]

    cluster = Cluster(at_once=False)
    role, consumer = played(Alerts, readings(99, 101, 100), cluster, 3)
    assert consumer.acknowledged == [0, 2]
    cluster.made.answer()
    role.settle()
    assert consumer.acknowledged == [0, 2, 1]


def test_every_reading_above_the_limit_becomes_one_alert() -> None:
    every = readings(99, 101, 100, 102)
    cluster = Cluster()
    played(Alerts, [*every, every[1]], cluster, 4)
    assert [decode_reading(each).number for each in cluster.made.bodies] == [1, 3]


def test_an_alert_whose_acknowledgement_was_lost_is_acknowledged_when_it_comes_again() -> None:
    every = readings(101)
    again = [every[0], every[0]]
    cluster = Cluster()
    _, consumer = played(Alerts, again, cluster, 1)
    assert len(cluster.made.bodies) == 1
    assert consumer.acknowledged == [0, 1]

    cluster = Cluster(at_once=False)  # its alert is not durable yet: once it is, one is enough
    role, consumer = played(Alerts, again, cluster, 1)
    assert consumer.acknowledged == []
    cluster.made.answer()
    role.settle()
    assert consumer.acknowledged == [0]


def test_workers_of_one_queue_count_together() -> None:
    every = readings(1, 2, 3)
    shared = Deliveries(3)
    done = []
    for part in ([every[0], every[2]], [every[1], every[2]]):
        consumer = Consumer(part)
        worker = Worker("w", Cluster(), consumer, shared)  # type: ignore[arg-type]
        consumer.role = worker
        worker.play()
        done.append(worker.done)
        assert len(consumer.acknowledged) == 2
    assert done == [2, 1]
    assert (shared.total, shared.distinct, shared.again, shared.missing) == (4, 3, 1, 0)


def test_the_publisher_stops_at_a_refusal_and_says_which() -> None:
    cluster = Cluster(at_once=False)
    publisher = Publisher(cluster, "t", readings(1, 2, 3))  # type: ignore[arg-type]
    publisher.outbox.send(b"")
    cluster.made.answer(pulsar.Result.TopicTerminated)
    publisher.run()
    assert len(cluster.made.bodies) == 1
    with pytest.raises(Exception, match="closed for good"):
        publisher.check()


def test_what_goes_wrong_in_a_thread_reaches_the_main_one() -> None:
    class Broken(Consumer):
        def receive(self, _: int) -> Message:
            raise pulsar.AlreadyClosed("Pulsar error: AlreadyClosed")

    worker = Worker("w", Cluster(), Broken([]), Deliveries(1))  # type: ignore[arg-type]
    worker.run()
    with pytest.raises(pulsar.AlreadyClosed):
        worker.check()


def test_an_outbox_gives_each_token_once_and_in_order() -> None:
    producer = Producer(at_once=False)
    outbox = Outbox(producer)
    for token in range(3):
        outbox.send(b"", token)
    assert not outbox.done
    assert outbox.settled() == []
    producer.answer()
    assert outbox.done
    assert outbox.settled() == [0, 1, 2]
    assert outbox.settled() == []
