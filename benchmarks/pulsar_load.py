"""A load generator that speaks the Pulsar protocol over raw sockets.

The official Python client measures itself: its callbacks cost more than the broker does.
This program prepares every frame beforehand and only counts the answers, so that it needs
a fraction of the broker's time per message.

    publish   keep a window of entries in flight on every connection, count receipts
    consume   read what was published, acknowledge every entry
    latency   one message at a time on a fixed schedule, time from send to receipt

`python -m benchmarks.pulsar_load '<Load as JSON>'` prints one JSON object.
"""

import json
import selectors
import socket
import struct
import sys
import time
from dataclasses import dataclass
from typing import Any

from crc32c import crc32c

from benchmarks.pipeline import RECEIVE_BYTES, Pipeline, cpu_s, keep_full, pieces_of, say_measuring
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api

SEND_RECEIPT, MESSAGE, PING = 7, 9, 18
SIZE, SIZES = struct.Struct(">I"), struct.Struct(">II")
PERMITS = 1_000
"""What a consumer asks for ahead: the clients' default."""
SILENCE_TIMEOUT_S = 20.0
"""A broker that says nothing for so long has stopped."""


@dataclass(frozen=True, slots=True)
class Load:
    """What to do. Everything a reader of the results needs to repeat them."""

    mode: str
    port: int
    size_bytes: int = 1024
    batch: int = 1
    """Messages per entry; 1 is unbatched."""
    connections: int = 1
    topics: int = 1
    seconds: float = 5.0
    warm_up_s: float = 1.0
    window_bytes: int = 4 * 1024 * 1024
    """Bytes in flight per connection."""
    window_entries: int = 4_000
    rate: float = 1_000.0
    """Messages per second, for `latency`."""
    prefix: str = "bench"
    messages: int = 0
    """How many messages to consume, or to publish; 0: as many as the time allows."""


def command_frame(command: api.BaseCommand) -> bytes:
    """Return a frame without a payload."""
    body = command.SerializeToString()
    return struct.pack(">II", len(body) + 4, len(body)) + body


PONG_FRAME = command_frame(api.BaseCommand(type=api.BaseCommand.PONG, pong=api.CommandPong()))


def send_frame(producer_id: int, sequence_id: int, size_bytes: int, batch: int) -> bytes:
    """Return a SEND frame with `batch` messages of `size_bytes` each."""
    send = api.CommandSend(producer_id=producer_id, sequence_id=sequence_id)
    metadata = api.MessageMetadata(
        producer_name=f"load-{producer_id}", sequence_id=sequence_id, publish_time=1_700_000_000_000
    )
    payload = b"x" * size_bytes
    if batch > 1:
        send.num_messages = metadata.num_messages_in_batch = batch
        single = api.SingleMessageMetadata(payload_size=size_bytes).SerializeToString()
        payload = (struct.pack(">I", len(single)) + single + payload) * batch
    command = api.BaseCommand(type=api.BaseCommand.SEND, send=send).SerializeToString()
    head = metadata.SerializeToString()
    checked = struct.pack(">I", len(head)) + head + payload
    rest = struct.pack(">I", len(command)) + command + struct.pack(">HI", 0x0E01, crc32c(checked))
    return struct.pack(">I", len(rest) + len(checked)) + rest + checked


def ask(sock: socket.socket, command: api.BaseCommand) -> api.BaseCommand:
    """Send one command and wait for the next one."""
    sock.sendall(command_frame(command))
    answer = receive(sock)
    if answer.type in {api.BaseCommand.ERROR, api.BaseCommand.SEND_ERROR}:
        raise SystemExit(f"the broker answered {answer}")
    return answer


def receive(sock: socket.socket) -> api.BaseCommand:
    """Wait for one command, answering pings."""
    while True:
        total, size = struct.unpack(">II", receive_exactly(sock, 8))
        body = receive_exactly(sock, total - 4)
        command = api.BaseCommand.FromString(body[:size])
        if command.type != api.BaseCommand.PING:
            return command
        sock.sendall(PONG_FRAME)


def receive_some(sock: socket.socket) -> bytes:
    """Wait for whatever comes next."""
    data = sock.recv(RECEIVE_BYTES)
    if not data:
        raise SystemExit("the broker closed the connection")
    return data


def receive_exactly(sock: socket.socket, size: int) -> bytes:
    """Wait for `size` bytes."""
    parts = bytearray()
    while len(parts) < size:
        part = sock.recv(size - len(parts))
        if not part:
            raise SystemExit("the broker closed the connection")
        parts += part
    return bytes(parts)


def connect(port: int) -> socket.socket:
    """Open a connection and shake hands."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=SILENCE_TIMEOUT_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    answer = ask(
        sock,
        api.BaseCommand(
            type=api.BaseCommand.CONNECT,
            connect=api.CommandConnect(client_version="magnetar-load", protocol_version=19),
        ),
    )
    if answer.type != api.BaseCommand.CONNECTED:
        raise SystemExit(f"expected CONNECTED, got {answer}")
    return sock


def topic_of(load: Load, number: int) -> str:
    """Return the name of one of the topics of a load."""
    return f"persistent://public/default/{load.prefix}-{number}"


def look_up(sock: socket.socket, topic: str) -> None:
    """Ask as clients do: some brokers create the topic here."""
    ask(
        sock,
        api.BaseCommand(
            type=api.BaseCommand.PARTITIONED_METADATA,
            partitionMetadata=api.CommandPartitionedTopicMetadata(topic=topic, request_id=1),
        ),
    )
    ask(
        sock,
        api.BaseCommand(
            type=api.BaseCommand.LOOKUP,
            lookupTopic=api.CommandLookupTopic(topic=topic, request_id=1),
        ),
    )


class PulsarPipeline(Pipeline):
    """Counts receipts, and answers pings."""

    def count(self, data: bytes) -> tuple[int, int]:
        """Return how many receipts are whole."""
        position, end, receipts = 0, len(data), 0
        while position + 10 <= end:
            following = position + 4 + SIZE.unpack_from(data, position)[0]
            if following > end:
                break
            kind = data[position + 9]  # every command starts with its type: 0x08, type
            if kind == SEND_RECEIPT:
                receipts += 1
            elif kind == PING:
                self.sock.send(PONG_FRAME)
            else:
                raise SystemExit(f"unexpected answer {data[position:following]!r}")
            position = following
        return receipts, position


def open_producers(load: Load, number: int) -> PulsarPipeline:
    """Open one connection with its share of the topics, and prepare its frames."""
    sock = connect(load.port)
    mine = range(number, load.topics, load.connections) or range(number % load.topics, load.topics)
    frames: list[bytes] = []
    for producer_id, topic in enumerate(mine):
        name = topic_of(load, topic)
        look_up(sock, name)
        producer = api.CommandProducer(
            topic=name,
            producer_id=producer_id,
            request_id=2,
            producer_name=f"load-{number}-{producer_id}",
        )
        ask(sock, api.BaseCommand(type=api.BaseCommand.PRODUCER, producer=producer))
        frames.append(send_frame(producer_id, 0, load.size_bytes, load.batch))
    entry_bytes = load.size_bytes * load.batch
    window = max(1, min(load.window_entries, load.window_bytes // entry_bytes))
    return PulsarPipeline(sock, pieces_of(frames, window), window)


def publish(load: Load) -> dict[str, Any]:
    """Keep every connection's window full; count what is acknowledged after the warm-up."""
    pipelines = [open_producers(load, number) for number in range(load.connections)]
    limit = load.messages // load.batch // load.connections
    result = keep_full(pipelines, load.warm_up_s, load.seconds, limit)
    return result | {"messages": result["requests"] * load.batch}


def consume(load: Load) -> dict[str, Any]:
    """Read `load.messages` messages from the start of the topics, in one subscription each."""
    sock = connect(load.port)
    for number in range(load.topics):
        topic = topic_of(load, number)
        look_up(sock, topic)
        ask(
            sock,
            api.BaseCommand(
                type=api.BaseCommand.SUBSCRIBE,
                subscribe=api.CommandSubscribe(
                    topic=topic,
                    subscription="load",
                    subType=api.CommandSubscribe.Shared,
                    consumer_id=number,
                    request_id=3,
                    consumer_name="load",
                    initialPosition=api.CommandSubscribe.Earliest,
                ),
            ),
        )
    reading = Reading(sock, load.batch)
    start, cpu = time.monotonic(), cpu_s()
    say_measuring()
    sock.sendall(b"".join(flow(number, PERMITS) for number in range(load.topics)))
    while reading.received < load.messages:
        reading.take(receive_some(sock))
    return {
        "messages": reading.received,
        "seconds": time.monotonic() - start,
        "client_cpu_s": cpu_s() - cpu,
    }


class Reading:
    """What a consumer has received so far; acknowledges and grants permits as it goes."""

    def __init__(self, sock: socket.socket, batch: int) -> None:
        self.received = 0
        self._sock = sock
        self._batch = batch
        self._partial = b""
        self._since_flow: dict[int, int] = {}

    def take(self, data: bytes) -> None:
        """Count the messages that `data` completes, and acknowledge each entry."""
        data = self._partial + data if self._partial else data
        position, end = 0, len(data)
        ids: dict[int, list[api.MessageIdData]] = {}
        answers: list[bytes] = []
        while position + 10 <= end:
            total, size = SIZES.unpack_from(data, position)
            if position + 4 + total > end:
                break
            if data[position + 9] == MESSAGE:
                command = api.BaseCommand.FromString(data[position + 8 : position + 8 + size])
                ids.setdefault(command.message.consumer_id, []).append(command.message.message_id)
            elif data[position + 9] == PING:
                answers.append(PONG_FRAME)
            position += 4 + total
        self._partial = data[position:]
        for consumer_id, entries in ids.items():
            answers += self._settle(consumer_id, entries)
        if answers:
            self._sock.sendall(b"".join(answers))

    def _settle(self, consumer_id: int, entries: list[api.MessageIdData]) -> list[bytes]:
        messages = len(entries) * self._batch
        self.received += messages
        ack = api.CommandAck(
            consumer_id=consumer_id, ack_type=api.CommandAck.Individual, message_id=entries
        )
        frames = [command_frame(api.BaseCommand(type=api.BaseCommand.ACK, ack=ack))]
        self._since_flow[consumer_id] = self._since_flow.get(consumer_id, 0) + messages
        if self._since_flow[consumer_id] >= PERMITS // 2:
            frames.append(flow(consumer_id, self._since_flow.pop(consumer_id)))
        return frames


def flow(consumer_id: int, permits: int) -> bytes:
    """Return the frame that grants a consumer permits."""
    return command_frame(
        api.BaseCommand(
            type=api.BaseCommand.FLOW,
            flow=api.CommandFlow(consumer_id=consumer_id, messagePermits=permits),
        )
    )


def latency(load: Load) -> dict[str, Any]:
    """Send one message each 1/rate seconds; report the time to its receipt in milliseconds.

    The time counts from when a message should have left, so that a stall of the broker shows
    in every message that it held up, not in one.
    """
    pipeline = open_producers(load, 0)
    frame = send_frame(0, 0, load.size_bytes, 1)
    sock, selector = pipeline.sock, selectors.DefaultSelector()
    selector.register(sock, selectors.EVENT_READ)
    count, interval = int((load.seconds + load.warm_up_s) * load.rate), 1 / load.rate
    sent, delays_ms, cpu = 0, list[float](), cpu_s()
    start = time.perf_counter()
    say_measuring()
    while len(delays_ms) < count:
        now, due = time.perf_counter(), start + sent * interval
        if sent < count and now >= due:
            sock.setblocking(True)
            sock.sendall(frame)
            sock.setblocking(False)
            sent += 1
        elif selector.select(max(0.0, due - now) if sent < count else 1.0):
            received = time.perf_counter()
            for _ in range(pipeline.receive()):
                delays_ms.append((received - start - len(delays_ms) * interval) * 1000)
    measured = sorted(delays_ms[int(load.warm_up_s * load.rate) :])
    quantiles = {"p50_ms": 0.5, "p99_ms": 0.99, "p999_ms": 0.999}
    return {
        "messages": count,
        "seconds": load.seconds + load.warm_up_s,
        "client_cpu_s": cpu_s() - cpu,
    } | {name: measured[int(part * (len(measured) - 1))] for name, part in quantiles.items()}


MODES = {"publish": publish, "consume": consume, "latency": latency}


if __name__ == "__main__":
    wanted = Load(**json.loads(sys.argv[1]))
    print(json.dumps(MODES[wanted.mode](wanted)), flush=True)
