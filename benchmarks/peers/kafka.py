"""Apache Kafka: a single node without ZooKeeper, produce with acks=all, fetch, commit of offsets.

    request    size i32 | api i16 | version i16 | correlation i32 | client id | body
    batch      base offset i64 | size i32 | epoch i32 | magic 2 | crc32c u32 | attributes i16
               | last delta i32 | times 2 x i64 | producer i64 i16 i32 | count i32 | records
    record     size | 0 | time delta | offset delta | key -1 | value size | value | headers 0
               (all numbers of a record are zig-zag varints)

Unbatched means one record in one batch in one request, many requests in flight. A consumer commits
its offset with every answer. Source: Kafka's protocol guide, and its message format version 2.
Jars: org.apache.kafka:kafka_2.13 from Maven Central.
"""

import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from crc32c import crc32c

from benchmarks.peers.jars import LOGGING, class_path
from benchmarks.peers.loads import PeerLoad, main
from benchmarks.peers.server import AbsentError, Server, new_port
from magnetar.bench.load import RunError
from magnetar.bench.pipeline import Pipeline, pieces_of
from magnetar.bench.sockets import receive_now

KAFKA_VERSION = "3.9.1"
GENERATOR = ("-m", "benchmarks.peers.kafka")
PRODUCE, FETCH, OFFSET_COMMIT, FIND_COORDINATOR, CREATE_TOPICS = 0, 1, 8, 10, 19
ACKS_ALL, PRODUCE_TIMEOUT_MS = -1, 30_000
FETCH_BYTES = 4 * 1024 * 1024
SETTLED_S = 30.0
"""A new topic, or the first group, is not there at once."""
ERROR_AT = 18
"""In the answer to a Fetch, but for the topic's name: throttled, topics, length of the name,
partitions, partition."""
CONF = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
log.dirs={folder}/logs
num.partitions=1
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
message.max.bytes=8388608
queued.max.requests=500
{more}
"""


class Kafka(Server):
    """Apache Kafka as it comes, with the heap of its start script: it does not sync by itself."""

    name = "Apache Kafka, its default"
    acknowledged_means = "in the operating system's cache; synced when it likes"
    generator = GENERATOR
    able = frozenset({"publish", "latency", "consume", "fan-out", "batch-publish", "batch-consume"})
    more = ""
    memory = ("-Xms1g", "-Xmx1g")
    warms = True

    def url(self) -> str:
        return f"kafka://127.0.0.1:{self.port}"

    def command(self, folder: Path) -> Sequence[str]:
        path = class_path("org.apache.kafka", "kafka_2.13", KAFKA_VERSION, LOGGING)
        told = folder / "server.properties"
        told.write_text(
            CONF.format(port=self.port, controller=new_port(), folder=folder, more=self.more)
        )
        identity = "MkU3OEVBNTcwNTJENDM2Qk"
        formatting = ["java", "-cp", path, "kafka.tools.StorageTool", "format"]
        done = subprocess.run(
            [*formatting, "-t", identity, "-c", str(told)], capture_output=True, check=False
        )
        if done.returncode:
            raise AbsentError(f"Kafka cannot format its folder: {done.stderr.decode()[-300:]}")
        return ["java", "-cp", path, *self.memory, "-XX:+UseG1GC", "kafka.Kafka", str(told)]


class KafkaSynced(Kafka):
    """Apache Kafka with a sync for every append."""

    name = "Apache Kafka, flush per message"
    acknowledged_means = "synced to disk"
    more = "log.flush.interval.messages=1"
    able = frozenset({"publish", "latency", "batch-publish"})
    """Reading is the default's: what was synced when it was written makes no difference to it."""


# --- bytes -----------------------------------------------------------------------------------


def text(value: str) -> bytes:
    """Return a string."""
    return struct.pack(">h", len(value)) + value.encode()


def request(api: int, version: int, body: bytes) -> bytes:
    """Return one request."""
    head = struct.pack(">hhi", api, version, 7) + text("bench")
    return struct.pack(">i", len(head) + len(body)) + head + body


def zigzag(value: int) -> bytes:
    """Return a varint of a number that may be negative."""
    left, out = (value << 1) ^ (value >> 63), bytearray()
    while left >= 128:
        out.append(left & 127 | 128)
        left >>= 7
    out.append(left)
    return bytes(out)


def batch(count: int, size_bytes: int) -> bytes:
    """Return a record batch."""
    records = b""
    for number in range(count):
        record = (
            b"\0\0" + zigzag(number) + zigzag(-1) + zigzag(size_bytes) + b"x" * size_bytes + b"\0"
        )
        records += zigzag(len(record)) + record
    now = time.time_ns() // 1_000_000
    checked = struct.pack(">hiqqqhii", 0, count - 1, now, now, -1, -1, -1, count) + records
    rest = struct.pack(">ibI", -1, 2, crc32c(checked)) + checked
    return struct.pack(">qi", 0, len(rest)) + rest


def produce(topic: str, records: bytes) -> bytes:
    """Return a Produce request, version 3, for partition 0."""
    body = struct.pack(">hhii", -1, ACKS_ALL, PRODUCE_TIMEOUT_MS, 1) + text(topic)
    return request(PRODUCE, 3, body + struct.pack(">iii", 1, 0, len(records)) + records)


def fetch(topic: str, offset: int) -> bytes:
    """Return a Fetch request, version 4, for partition 0."""
    body = struct.pack(">iiiib", -1, 500, 1, FETCH_BYTES, 0) + struct.pack(">i", 1) + text(topic)
    return request(FETCH, 4, body + struct.pack(">iiqi", 1, 0, offset, FETCH_BYTES))


def commit(topic: str, group: str, offset: int) -> bytes:
    """Return an OffsetCommit request, version 2, of a consumer that is no member."""
    body = text(group) + struct.pack(">i", -1) + text("") + struct.pack(">q", -1)
    body += struct.pack(">i", 1) + text(topic) + struct.pack(">iiq", 1, 0, offset) + text("")
    return request(OFFSET_COMMIT, 2, body)


# --- connections ------------------------------------------------------------------------------


def dial(port: int) -> socket.socket:
    """Return a connection."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=30)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def ask(sock: socket.socket, what: bytes) -> bytes:
    """Return the body of the answer."""
    sock.sendall(what)
    head = sock.recv(8, socket.MSG_WAITALL)
    if len(head) < 8:
        raise RunError("Kafka closed the connection")
    return sock.recv(int.from_bytes(head[:4]) - 4, socket.MSG_WAITALL)


def fetch_error(answer: bytes, topic: str) -> int:
    """Return the error of the only partition in the answer to a Fetch."""
    at = ERROR_AT + len(topic)
    return int.from_bytes(answer[at : at + 2], signed=True)


def settled(error: Callable[[], int]) -> None:
    """Wait until Kafka answers without an error.

    Raises:
        RunError: it does not.
    """
    deadline = time.perf_counter() + SETTLED_S
    while (code := error()) != 0:
        if time.perf_counter() > deadline:
            raise RunError(f"Kafka goes on answering with error {code}")
        time.sleep(0.05)


class Publishing(Pipeline):
    """Counts answers to Produce: each is one request."""

    _partial = b""

    def count(self, data: bytes) -> int:
        data = self._partial + data
        position, answers = 0, 0
        while position + 4 <= len(data):
            following = position + 4 + int.from_bytes(data[position : position + 4])
            if following > len(data):
                break
            # size, correlation, 1 topic, its name, 1 partition, 0, error
            error_at = position + 14 + int.from_bytes(data[position + 12 : position + 14]) + 8
            if error := int.from_bytes(data[error_at : error_at + 2], signed=True):
                raise RunError(f"Kafka answered with error {error}")
            answers += 1
            position = following
        self._partial = data[position:]
        return answers


class Fetching:
    """Fetches from where it is, and commits that."""

    def __init__(self, port: int, topic: str, group: str, batch_messages: int) -> None:
        self.sock = dial(port)
        self._topic, self._group, self._batch = topic, group, batch_messages
        self._offset = 0
        self._data = bytearray()

    def begin(self) -> None:
        """Ask for the first messages."""
        self.sock.sendall(fetch(self._topic, 0))
        self.sock.setblocking(False)

    def receive(self) -> int:
        """Take what has arrived; return how many entries it completed."""
        self._data += receive_now(self.sock)
        entries = 0
        while len(self._data) >= 4:
            size = int.from_bytes(self._data[:4])
            if len(self._data) < 4 + size:
                break
            answer = bytes(self._data[8 : 4 + size])
            del self._data[: 4 + size]
            entries += self._take(answer)
        return entries

    def _take(self, answer: bytes) -> int:
        """Take one answer; a commit's is short, and holds only its error."""
        # Fetch: throttled i32, topics i32, name, partitions i32, partition i32, error i16,
        # high water i64, stable i64, aborted i32, size i32, batches
        head = ERROR_AT - 8 + len(self._topic)
        if len(answer) < head + 34:
            error = int.from_bytes(answer[-2:], signed=True)
            if error:
                raise RunError(f"Kafka answered a commit with error {error}")
            return 0
        if error := fetch_error(answer, self._topic):
            raise RunError(f"Kafka answered a fetch with error {error}")
        at, records, end = head + 34, 0, len(answer)
        while at + 61 <= end:
            size = int.from_bytes(answer[at + 8 : at + 12])
            if at + 12 + size > end:
                break
            records += int.from_bytes(answer[at + 57 : at + 61])
            at += 12 + size
        self._offset += records
        self.sock.setblocking(True)
        told = commit(self._topic, self._group, self._offset) if records else b""
        self.sock.sendall(fetch(self._topic, self._offset) + told)
        self.sock.setblocking(False)
        return records // self._batch


class KafkaLoad(PeerLoad):
    """Topics of one partition; as many groups as there are subscriptions."""

    def prepare(self) -> None:
        with dial(self.port) as sock:
            body = struct.pack(">i", 1) + text(self.name) + struct.pack(">ihii", 1, 1, 0, 0)
            answer = ask(sock, request(CREATE_TOPICS, 0, body + struct.pack(">i", 30_000)))
            if error := int.from_bytes(answer[-2:], signed=True):
                raise RunError(f"Kafka did not make the topic: error {error}")
            # The answer comes before the partition has a leader.
            settled(lambda: fetch_error(ask(sock, fetch(self.name, 0)), self.name))
            if self.load.mode == "consume":
                asked = request(FIND_COORDINATOR, 0, text("g"))
                settled(lambda: int.from_bytes(ask(sock, asked)[:2], signed=True))

    def pipelines(self) -> Sequence[Pipeline]:
        load = self.load
        one = produce(self.name, batch(load.batch, load.size_bytes))
        pieces = pieces_of([one], load.window)
        each = load.messages // load.batch // load.connections
        return [
            Publishing(dial(self.port), pieces, load.window, each) for _ in range(load.connections)
        ]

    def readers(self) -> Sequence[Fetching]:
        return [
            Fetching(self.port, self.name, f"g{number}", self.load.batch)
            for number in range(self.load.subscriptions)
        ]


if __name__ == "__main__":
    sys.exit(main(KafkaLoad))
