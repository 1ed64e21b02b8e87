"""RabbitMQ: persistent messages with publisher confirms, and consumers that acknowledge.

    method frame   1 | channel u16 | size u32 | class u16 | method u16 | arguments | 0xce
    header frame   2 | channel u16 | size u32 | class u16 | 0 u16 | body size u64 | flags .. | 0xce
    body frame     3 | channel u16 | size u32 | bytes | 0xce

A confirm (basic.ack, 60.80) carries a delivery tag and whether it covers all earlier ones; so does
what a consumer says. Fan-out is a fanout exchange with a queue per consumer: each stores the
message. Source: the AMQP 0-9-1 specification, sections 2.3 and 4.2, and RabbitMQ's confirms.
Debian: rabbitmq-server.
"""

import socket
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.loads import PeerLoad, main
from benchmarks.peers.server import AbsentError, Server, new_port
from magnetar.bench.load import RunError
from magnetar.bench.pipeline import Pipeline, pieces_of
from magnetar.bench.sockets import receive_now

CONFIRM, DELIVER, CHANNEL_CLOSE, CONNECTION_CLOSE = (60, 80), (60, 60), (20, 40), (10, 50)
FRAME_BYTES_MAX = 131072
PREFETCH = 1_000
GENERATOR = ("-m", "benchmarks.peers.rabbitmq")
PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")


class RabbitClassic(Server):
    """Durable classic queues, persistent messages, publisher confirms."""

    name = "RabbitMQ classic queue"
    acknowledged_means = "written, synced in batches a few hundred ms apart"
    generator = GENERATOR
    able = frozenset({"publish", "latency", "consume", "fan-out"})
    queue_type = "classic"

    def url(self) -> str:
        return f"amqp://127.0.0.1:{self.port}/{self.queue_type}"

    def command(self, folder: Path) -> Sequence[str]:  # noqa: ARG002 - it is told by environment
        if not PROGRAM.exists():
            raise AbsentError(f"{PROGRAM} is not there; apt-get install rabbitmq-server")
        return [str(PROGRAM)]

    def environment(self, folder: Path) -> dict[str, str]:
        (folder / "rabbitmq.conf").write_text(
            "disk_free_limit.absolute = 100MB\nvm_memory_high_watermark.absolute = 4GB\n"
        )
        return {
            "HOME": str(folder),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "logs"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"bench{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(new_port()),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(new_port()),
        }


class RabbitQuorum(RabbitClassic):
    """Quorum queues with one member: their log is synced before a confirm."""

    name = "RabbitMQ quorum queue"
    acknowledged_means = "synced to disk (one member)"
    queue_type = "quorum"


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    """Return one frame."""
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def method(channel: int, class_id: int, method_id: int, arguments: bytes = b"") -> bytes:
    """Return one method frame."""
    return frame(1, channel, struct.pack(">HH", class_id, method_id) + arguments)


def short(text: str) -> bytes:
    """Return a short string."""
    return bytes([len(text)]) + text.encode()


def table(entries: dict[str, str]) -> bytes:
    """Return a field table with long strings as values."""
    body = b"".join(
        short(key) + b"S" + struct.pack(">I", len(value)) + value.encode()
        for key, value in entries.items()
    )
    return struct.pack(">I", len(body)) + body


class Channel:
    """One connection with one channel, for what waits for its answer."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.sendall(b"AMQP\x00\x00\x09\x01")
        self._wait()
        plain = b"\0guest\0guest"
        told = table({}) + short("PLAIN") + struct.pack(">I", len(plain)) + plain + short("en_US")
        self.sock.sendall(method(0, 10, 11, told))
        self._wait()
        self.sock.sendall(method(0, 10, 31, struct.pack(">HIH", 2047, FRAME_BYTES_MAX, 0)))
        self.ask(method(0, 10, 40, short("/") + b"\0\0"))
        self.ask(method(1, 20, 10, b"\0"))

    def ask(self, request: bytes) -> None:
        """Send a method, and wait until it is done.

        Raises:
            RunError: RabbitMQ closes the channel instead.
        """
        self.sock.sendall(request)
        payload = self._wait()
        if struct.unpack_from(">HH", payload) in {CHANNEL_CLOSE, CONNECTION_CLOSE}:
            raise RunError(f"RabbitMQ answered {payload[6:200]!r}")

    def _wait(self) -> bytes:
        header = self.sock.recv(7, socket.MSG_WAITALL)
        size = struct.unpack(">BHI", header)[2]
        return self.sock.recv(size + 1, socket.MSG_WAITALL)[:-1]


def message(exchange: str, key: str, size_bytes: int) -> bytes:
    """Return the frames of one persistent message."""
    header = struct.pack(">HHQH", 60, 0, size_bytes, 0x1000) + b"\x02"  # delivery-mode 2
    most = FRAME_BYTES_MAX - 8
    bodies = b"".join(
        frame(3, 1, b"x" * min(most, size_bytes - at)) for at in range(0, size_bytes, most)
    )
    publish = method(1, 60, 40, b"\0\0" + short(exchange) + short(key) + b"\0")
    return publish + frame(2, 1, header) + bodies


class Publishing(Pipeline):
    """Counts publisher confirms."""

    _partial = b""
    _up_to = 0

    def count(self, data: bytes) -> int:
        before, data = self._confirmed(), self._partial + data
        position = 0
        while position + 8 <= len(data):
            size = struct.unpack_from(">I", data, position + 3)[0]
            if position + 8 + size > len(data):
                break
            if data[position] == 1:
                self._take(data, position + 7)
            position += 8 + size
        self._partial = data[position:]
        return self._confirmed() - before

    def _take(self, data: bytes, at: int) -> None:
        kind = struct.unpack_from(">HH", data, at)
        if kind in {CHANNEL_CLOSE, CONNECTION_CLOSE}:
            raise RunError(f"RabbitMQ answered {data[at + 6 : at + 200]!r}")
        if kind != CONFIRM:
            return
        tag, multiple = struct.unpack_from(">QB", data, at + 4)
        if multiple:
            self._up_to = max(self._up_to, tag)
            self._single = {each for each in self._out_of_order() if each > self._up_to}
        else:
            self._out_of_order().add(tag)

    def _out_of_order(self) -> set[int]:
        if not hasattr(self, "_single"):
            self._single = set[int]()
        return self._single

    def _confirmed(self) -> int:
        single = self._out_of_order()
        while self._up_to + 1 in single:
            self._up_to += 1
            single.discard(self._up_to)
        return self._up_to + len(single)


class Consuming:
    """Counts deliveries, and acknowledges all of a read by its last tag."""

    def __init__(self, port: int, queue: str) -> None:
        channel = Channel(port)
        self.sock = channel.sock
        self._queue = queue
        self._partial = b""
        channel.ask(method(1, 60, 10, struct.pack(">IHB", 0, PREFETCH, 0)))

    def begin(self) -> None:
        """Ask for the first messages."""
        told = b"\0\0" + short(self._queue) + short("c") + b"\0" + table({})
        self.sock.sendall(method(1, 60, 20, told))
        self.sock.setblocking(False)

    def receive(self) -> int:
        """Take what has arrived; return how many messages began in it."""
        data = receive_now(self.sock)
        if not data:
            return 0
        data = self._partial + data if self._partial else data
        position, count, last = 0, 0, 0
        while position + 8 <= len(data):
            size = int.from_bytes(data[position + 3 : position + 7])
            if position + 8 + size > len(data):
                break
            if data[position] == 1 and data[position + 7 : position + 11] == b"\0\x3c\0\x3c":
                tag_at = position + 12 + data[position + 11]
                last = int.from_bytes(data[tag_at : tag_at + 8])
                count += 1
            position += 8 + size
        self._partial = data[position:]
        if count:
            self.sock.setblocking(True)
            self.sock.sendall(method(1, 60, 80, struct.pack(">QB", last, 1)))
            self.sock.setblocking(False)
        return count


class RabbitLoad(PeerLoad):
    """One queue; for fan-out an exchange with a queue per subscription."""

    def _queues(self) -> list[str]:
        return [f"{self.name}-{number}" for number in range(self.load.subscriptions)]

    def prepare(self) -> None:
        channel = Channel(self.port)
        declared = b"\0\0" + short(self.name) + short("fanout") + b"\x02" + table({})
        channel.ask(method(1, 40, 10, declared))
        for queue in self._queues():
            told = b"\0\0" + short(queue) + b"\x02" + table({"x-queue-type": self.kind})
            channel.ask(method(1, 50, 10, told))
            bound = b"\0\0" + short(queue) + short(self.name) + short("") + b"\0" + table({})
            channel.ask(method(1, 50, 20, bound))
        channel.sock.close()

    def pipelines(self) -> Sequence[Pipeline]:
        load = self.load
        direct = load.subscriptions == 1
        one = message("" if direct else self.name, self._queues()[0], load.size_bytes)
        pieces, made = pieces_of([one], load.window), list[Pipeline]()
        for _ in range(load.connections):
            channel = Channel(self.port)
            channel.ask(method(1, 85, 10, b"\0"))
            each = load.messages // load.connections
            made.append(Publishing(channel.sock, pieces, load.window, each))
        return made

    def readers(self) -> Sequence[Consuming]:
        return [Consuming(self.port, queue) for queue in self._queues()]

    def tidy(self) -> None:
        channel = Channel(self.port)
        for queue in self._queues():
            channel.ask(method(1, 50, 40, b"\0\0" + short(queue) + b"\0"))
        channel.sock.close()


if __name__ == "__main__":
    sys.exit(main(RabbitLoad))
