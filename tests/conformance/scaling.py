"""Streams of numbers through an official client, while the processes of a broker come and go.

Stream: a producer ──▶ topic ──▶ a consumer that acknowledges      numbers, in order
judged at the end: what was acknowledged arrived, in order; with deduplication, once
"""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pulsar

from tests.conformance.histories import lost, out_of_order

RATE = 300
"""Messages per second and stream."""
PENDING_MAX = 100
DRAIN_S = 30.0


class Stream:
    """One topic with its producer and its consumer."""

    def __init__(self, client: Any, topic: str) -> None:
        self.topic = topic
        self.sent = 0
        self.acknowledged: list[int] = []
        self.received: list[int] = []
        self._sending = threading.Event()
        self._reading = threading.Event()
        self._consumer = client.subscribe(
            topic, "all", initial_position=pulsar.InitialPosition.Earliest
        )
        self._producer = client.create_producer(
            topic,
            producer_name="numbers",
            send_timeout_millis=0,
            block_if_queue_full=True,
            max_pending_messages=PENDING_MAX,
        )
        self._threads = [
            threading.Thread(target=work, daemon=True) for work in (self._send, self._read)
        ]

    def start(self) -> None:
        """Let messages flow."""
        self._sending.set()
        self._reading.set()
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        """Stop sending, and wait until everything has arrived."""
        self._sending.clear()
        self._threads[0].join()
        self._producer.flush()
        deadline = time.perf_counter() + DRAIN_S
        while time.perf_counter() < deadline and lost(self.acknowledged, self.received):
            time.sleep(0.05)
        self._reading.clear()
        self._threads[1].join()

    def check(self) -> None:
        """See that nothing that was acknowledged is lost, and that order was kept."""
        assert self.acknowledged, f"{self.topic}: nothing was tested"
        assert not lost(self.acknowledged, self.received), self.topic
        assert not out_of_order(list(dict.fromkeys(self.received))), self.topic

    def _send(self) -> None:
        start = time.perf_counter()
        while self._sending.is_set():
            number = self.sent

            def sent(result: pulsar.Result, _: object, number: int = number) -> None:
                if result == pulsar.Result.Ok:
                    self.acknowledged.append(number)

            self._producer.send_async(str(number).encode(), sent, sequence_id=number)
            self.sent += 1
            ahead = start + self.sent / RATE - time.perf_counter()
            if ahead > 0:
                time.sleep(ahead)

    def _read(self) -> None:
        while self._reading.is_set():
            try:
                message = self._consumer.receive(timeout_millis=200)
            except pulsar.Timeout:
                continue
            self.received.append(int(message.data()))
            self._consumer.acknowledge(message)


@contextmanager
def flowing(url: str, topics: Sequence[str]) -> Iterator[list[Stream]]:
    """Keep streams flowing; on the way out, wait until all has arrived, and judge."""
    client = pulsar.Client(
        url,
        logger=pulsar.ConsoleLogger(pulsar.LoggerLevel.Error),
        operation_timeout_seconds=30,
    )
    try:
        streams = [Stream(client, topic) for topic in topics]
        for stream in streams:
            stream.start()
        yield streams
        for stream in streams:
            stream.finish()
        for stream in streams:
            stream.check()
    finally:
        client.close()


def stored(url: str, topic: str) -> list[int]:
    """Return the numbers that a topic holds, in order."""
    client = pulsar.Client(url, logger=pulsar.ConsoleLogger(pulsar.LoggerLevel.Error))
    found: list[int] = []
    try:
        reader = client.create_reader(topic, pulsar.MessageId.earliest)
        while reader.has_message_available():
            found.append(int(reader.read_next(10_000).data()))
    finally:
        client.close()
    return found
