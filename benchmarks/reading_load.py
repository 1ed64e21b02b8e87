"""Consumers that only count, and writers on a schedule: the load of `benchmarks.reading`.

    readers   so many consumers, each with a connection and a subscription of its own
    writers   messages in groups on a fixed schedule, and the time until each is durable

A consumer walks from frame to frame and acknowledges everything with every second FLOW, as a
client does that acknowledges cumulatively. `python -m benchmarks.reading_load '<Work as JSON>'`
prints one JSON object.
"""

import json
import selectors
import socket
import sys
import time
from dataclasses import dataclass
from typing import Any

from benchmarks.pipeline import RECEIVE_BYTES, cpu_s, say_measuring
from benchmarks.pulsar_load import (
    MESSAGE,
    PERMITS,
    PING,
    PONG_FRAME,
    SIZES,
    Load,
    ask,
    command_frame,
    connect,
    flow,
    look_up,
    open_producers,
    send_frame,
)
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api

HEAD_BYTES = 10
"""What has to be there of a frame to know what it is."""
TICK_S = 0.001
"""Writers send one group each tick."""


@dataclass(frozen=True, slots=True)
class Work:
    """What to do."""

    mode: str
    port: int
    topic: str
    consumers: int = 1
    messages: int = 0
    """How many each consumer reads; 0: it begins again until it is ended."""
    latest: bool = False
    own_ids: bool = False
    """Consumer ids differ, as those of one client do."""
    apart: int = 0
    """Messages that the next consumer starts behind the one before."""
    rate: float = 1_000.0
    seconds: float = 5.0
    size_bytes: int = 1024
    batch: int = 1


class Consumer:
    """One subscription that is read as fast as it comes."""

    def __init__(self, work: Work, number: int) -> None:
        self.work = work
        self.received = 0
        self._id = number if work.own_ids else 0
        self._skip = 0
        self._left = b""
        self._settled = 0
        self._newest: api.MessageIdData | None = None
        self.sock = connect(work.port)
        look_up(self.sock, work.topic)
        where = api.CommandSubscribe.Latest if work.latest else api.CommandSubscribe.Earliest
        subscribe = api.CommandSubscribe(
            topic=work.topic,
            subscription=f"reading-{number}-{time.time_ns()}",
            subType=api.CommandSubscribe.Exclusive,
            consumer_id=self._id,
            request_id=3,
            consumer_name="reading",
            initialPosition=where,
            durable=work.messages != 0,
        )
        if not work.messages:
            subscribe.start_message_id.SetInParent()
            subscribe.start_message_id.ledgerId = subscribe.start_message_id.entryId = 2**64 - 1
        ask(self.sock, api.BaseCommand(type=api.BaseCommand.SUBSCRIBE, subscribe=subscribe))

    def begin(self) -> None:
        """Ask for the first messages."""
        self.sock.sendall(flow(self._id, PERMITS))

    def take(self) -> None:
        """Count what has arrived."""
        data = self.sock.recv(RECEIVE_BYTES)
        if not data:
            raise SystemExit("the broker closed the connection")
        if self._left:
            data, self._left = self._left + data, b""
        position, end = self._skip, len(data)
        newest = -1
        while position + HEAD_BYTES <= end:
            total, size = SIZES.unpack_from(data, position)
            kind = data[position + 9]
            if kind == MESSAGE:
                self.received += self.work.batch
                if position + 8 + size <= end:
                    newest = position
            elif kind == PING:
                self.sock.sendall(PONG_FRAME)
            position += 4 + total
        if position < end:
            self._left, self._skip = data[position:], 0
        else:
            self._skip = position - end
        if newest >= 0:
            size = SIZES.unpack_from(data, newest)[1]
            command = api.BaseCommand.FromString(data[newest + 8 : newest + 8 + size])
            self._newest = command.message.message_id
        if self.received - self._settled >= PERMITS // 2:
            self._settle()

    def _settle(self) -> None:
        assert self._newest is not None
        ack = api.CommandAck(
            consumer_id=self._id, ack_type=api.CommandAck.Cumulative, message_id=[self._newest]
        )
        frames = command_frame(api.BaseCommand(type=api.BaseCommand.ACK, ack=ack))
        self.sock.sendall(frames + flow(self._id, self.received - self._settled))
        self._settled = self.received


def readers(work: Work) -> dict[str, Any]:
    """Read with all consumers at once."""
    consumers = [Consumer(work, number) for number in range(work.consumers)]
    selector = selectors.DefaultSelector()
    waiting = list(consumers)
    start, cpu = time.monotonic(), cpu_s()
    say_measuring()

    def begin() -> None:
        each = waiting.pop(0)
        selector.register(each.sock, selectors.EVENT_READ, each)
        each.begin()

    begin()
    left = len(consumers)
    while left:
        while waiting and (
            not work.apart or consumers[0].received >= work.apart * (len(consumers) - len(waiting))
        ):
            begin()
        for key, _ in selector.select(1.0):
            each = key.data
            before = each.received
            each.take()
            if work.messages and before < work.messages <= each.received:
                left -= 1
                selector.unregister(each.sock)
    return {
        "messages": work.messages * len(consumers),
        "seconds": time.monotonic() - start,
        "client_cpu_s": cpu_s() - cpu,
    }


def writers(work: Work) -> dict[str, Any]:
    """Send on schedule; report the time from when a message should have left to its receipt."""
    name = work.topic.rpartition("-")[0].rpartition("/")[2]
    pipeline = open_producers(Load("publish", work.port, work.size_bytes, prefix=name), 0)
    sock, selector = pipeline.sock, selectors.DefaultSelector()
    selector.register(sock, selectors.EVENT_READ)
    group = max(1, round(work.rate * TICK_S))
    piece = send_frame(0, 0, work.size_bytes, 1) * group
    count, interval = int(work.seconds * work.rate) // group, group / work.rate
    sent = answered = 0
    delays_ms: list[float] = []
    start = time.perf_counter()
    say_measuring()
    while answered < count * group:
        now, due = time.perf_counter(), start + sent * interval
        if sent < count and now >= due:
            sock.setblocking(True)
            sock.sendall(piece)
            sock.setblocking(False)
            sent += 1
        elif selector.select(max(0.0, due - now) if sent < count else 1.0):
            received = time.perf_counter()
            answers = pipeline.receive()
            delays_ms += [
                (received - start - number // group * interval) * 1000
                for number in range(answered, answered + answers)
            ]
            answered += answers
    measured = sorted(delays_ms[len(delays_ms) // 10 :])
    quantiles = {"p50_ms": 0.5, "p99_ms": 0.99, "p999_ms": 0.999}
    return {"messages": answered, "seconds": work.seconds} | {
        name: measured[int(part * (len(measured) - 1))] for name, part in quantiles.items()
    }


MODES = {"readers": readers, "writers": writers}


if __name__ == "__main__":
    wanted = Work(**json.loads(sys.argv[1]))
    socket.setdefaulttimeout(60)
    print(json.dumps(MODES[wanted.mode](wanted)), flush=True)
