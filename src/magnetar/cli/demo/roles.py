"""Who takes part in the demo: one who publishes, and three purposes of the same topic.

                          ┌─ hourly-means, Exclusive ─▶ HourlyMeans ─▶ topic hourly-means
    Publisher ─▶ readings ┼─ alerts, Failover ────────▶ Alerts ──────▶ topic alerts
                          └─ work, Shared ────────────▶ 4 x Worker

Each runs in a thread with a client of its own, as programs on other machines would. A kill
of the broker is nobody's business here: the official client reconnects and sends again what
was not acknowledged. Delivery is at least once, so every role counts what it sees by the
reading's number, and acts on the first time only.

A result is published before its input is acknowledged: an input whose result was lost in the
kill comes again.
"""

import threading
from collections import deque
from collections.abc import Sequence
from typing import Any

import pulsar

from magnetar.cli.demo.readings import Mean, Reading, decode_reading, encode, mean_of
from magnetar.cli.errors import client_error
from magnetar.client.cluster import Cluster, SubscriptionType

RECEIVE_MS = 100
PENDING_MAX = 1000
PREFETCH = 200
"""Messages a role's client fetches ahead; few, so that the four workers share evenly."""


class Deliveries:
    """Which readings were delivered, and how often again. The workers of a queue share one."""

    def __init__(self, expected: int) -> None:
        self._lock = threading.Lock()
        self._seen = bytearray(expected)
        self.total = 0
        self.distinct = 0

    def note(self, number: int) -> bool:
        """Count one delivery; return whether it is the first of that reading."""
        with self._lock:
            self.total += 1
            first = self._seen[number] == 0
            self.distinct += first
            self._seen[number] = 1
            return first

    @property
    def again(self) -> int:
        """Deliveries beyond the first of each reading."""
        return self.total - self.distinct

    @property
    def missing(self) -> int:
        """Readings that were never delivered."""
        return len(self._seen) - self.distinct


class Outbox:
    """Publishes, and remembers what the broker has acknowledged. Fed by two threads."""

    def __init__(self, producer: Any) -> None:
        self._producer = producer
        self._settled: deque[Any] = deque()
        self.sent = 0
        self.acknowledged = 0
        self.error = ""

    def send(self, body: bytes, token: object = None, **options: Any) -> None:
        """Publish; blocks while `PENDING_MAX` are not acknowledged yet."""
        self.sent += 1
        self._producer.send_async(body, lambda result, _: self._done(result, token), **options)

    def _done(self, result: Any, token: object) -> None:
        # Runs on the client's thread and must not raise: the client would end the program.
        if result.name == "Ok":
            self.acknowledged += 1
            self._settled.append(token)
        else:
            self.error = self.error or result.name

    def settled(self) -> list[Any]:
        """Return the tokens acknowledged since the last call, in order."""
        return [self._settled.popleft() for _ in range(len(self._settled))]

    @property
    def done(self) -> bool:
        """Whether everything sent was acknowledged."""
        return self.acknowledged == self.sent


class Role(threading.Thread):
    """A part of the demo with a thread and a client of its own."""

    def __init__(self, name: str, cluster: Cluster) -> None:
        super().__init__(name=name, daemon=True)
        self.cluster = cluster
        self.stopping = threading.Event()
        self.failure: Exception | None = None

    def run(self) -> None:
        """Play the part; what goes wrong is kept for whoever looks after the demo."""
        try:
            self.play()
        except Exception as error:  # noqa: BLE001 - raised again by `check` in the main thread
            self.failure = error

    def play(self) -> None:
        """Do what the role is for, until it is done or `stopping` is set."""
        raise NotImplementedError

    def check(self) -> None:
        """Raise what went wrong in the thread."""
        if self.failure is not None:
            raise self.failure


class Publisher(Role):
    """Publishes every reading once, as fast as the broker acknowledges them."""

    def __init__(self, cluster: Cluster, topic: str, readings: Sequence[Reading]) -> None:
        super().__init__("publisher", cluster)
        self._readings = readings
        self.outbox = Outbox(open_producer(cluster, topic, "sensor"))

    def play(self) -> None:
        for reading in self._readings:
            if self.stopping.is_set() or self.outbox.error:
                break
            self.outbox.send(encode(reading), event_timestamp=reading.time_ms)
        if self.outbox.error:
            raise client_error(self.outbox.error, "publishing the readings")


class Consuming(Role):
    """Receives readings through a subscription and handles each the first time it comes."""

    def __init__(
        self,
        name: str,
        cluster: Cluster,
        consumer: Any,
        deliveries: Deliveries,
    ) -> None:
        super().__init__(name, cluster)
        self.consumer = consumer
        self.deliveries = deliveries

    def play(self) -> None:
        while not self.stopping.is_set():
            try:
                message = self.consumer.receive(RECEIVE_MS)
            except pulsar.Timeout:
                self.settle()
                continue
            reading = decode_reading(message.data())
            first = self.deliveries.note(reading.number)
            self.handle(reading, message, first=first)
            self.settle()
        self.finish()

    def handle(self, reading: Reading, message: Any, *, first: bool) -> None:
        """Act on a reading and see that it is acknowledged."""
        raise NotImplementedError

    def settle(self) -> None:
        """Acknowledge inputs whose results are durable by now."""

    def finish(self) -> None:
        """Do what is left to do after the last reading."""


class Worker(Consuming):
    """One of several that share the work of a queue."""

    done = 0

    def handle(self, reading: Reading, message: Any, *, first: bool) -> None:  # noqa: ARG002
        self.done += first
        self.consumer.acknowledge(message)


class HourlyMeans(Consuming):
    """A tumbling window: the mean of each hour, published when the next hour begins."""

    def __init__(self, cluster: Cluster, consumer: Any, deliveries: Deliveries, topic: str) -> None:
        super().__init__("hourly means", cluster, consumer, deliveries)
        self.outbox = Outbox(open_producer(cluster, topic, "hourly-means"))
        self._hour_ms = -1
        self._window: list[float] = []
        self._last: Any = None

    def handle(self, reading: Reading, message: Any, *, first: bool) -> None:
        if not first:
            return  # came again after the kill: its window has it already
        if self._window and reading.hour_ms != self._hour_ms:
            self._close_window()
        self._hour_ms = reading.hour_ms
        self._window.append(reading.fahrenheit)
        self._last = message.message_id()

    def _close_window(self) -> None:
        # Acknowledges up to the last reading of the hour, once its mean is durable.
        self._publish(mean_of(self._hour_ms, self._window))
        self._window = []

    def _publish(self, mean: Mean) -> None:
        self.outbox.send(encode(mean), self._last, event_timestamp=mean.hour_ms)

    def settle(self) -> None:
        if settled := self.outbox.settled():
            self.consumer.acknowledge_cumulative(settled[-1])

    def finish(self) -> None:
        if self._window:
            self._close_window()


class Alerts(Consuming):
    """Publishes an alert for each reading above the limit."""

    def __init__(self, cluster: Cluster, consumer: Any, deliveries: Deliveries, topic: str) -> None:
        super().__init__("alerts", cluster, consumer, deliveries)
        self.outbox = Outbox(open_producer(cluster, topic, "alerts"))
        self._pending: set[int] = set()

    def handle(self, reading: Reading, message: Any, *, first: bool) -> None:
        if reading.alarming and first:
            self._pending.add(reading.number)
            token = (reading.number, message.message_id())
            self.outbox.send(encode(reading), token, event_timestamp=reading.time_ms)
        elif reading.number not in self._pending:
            # Not alarming; or it came again, because its acknowledgement died with the broker.
            self.consumer.acknowledge(message)

    def settle(self) -> None:
        for number, message_id in self.outbox.settled():
            self._pending.discard(number)
            self.consumer.acknowledge(message_id)


def open_producer(cluster: Cluster, topic: str, name: str) -> Any:
    """Open a producer that never gives up: it waits for the broker to come back."""
    return cluster.producer(
        topic,
        producer_name=name,
        send_timeout_millis=0,
        max_pending_messages=PENDING_MAX,
        block_if_queue_full=True,
    )


def open_consumer(cluster: Cluster, topic: str, subscription: str, kind: SubscriptionType) -> Any:
    """Open a consumer that starts with the first reading."""
    return cluster.consumer(topic, subscription, kind, "earliest", receiver_queue_size=PREFETCH)
