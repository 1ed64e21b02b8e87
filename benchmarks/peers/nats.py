r"""NATS JetStream: a file stream, publishes with acknowledgements, push consumers.

    PUB <subject> <inbox> <size>\r\n<payload>\r\n   ──▶ MSG <inbox> 1 <size>\r\n{"stream":...}\r\n
    MSG <subject> 1 <reply> <size>\r\n<payload>\r\n ──▶ PUB <reply> 4\r\n+ACK\r\n

A consumer acknowledges all of a read by its last message (AckAll), the cheapest way it has.
Source: NATS' client protocol and JetStream's wire API. 2.10 or newer, for `sync_interval: always`:
`go install github.com/nats-io/nats-server/v2@latest`, in the PATH or in Go's folder of programs.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.loads import PeerLoad, main
from benchmarks.peers.server import AbsentError, Server
from magnetar.bench.load import Load, RunError
from magnetar.bench.pipeline import Pipeline, pieces_of
from magnetar.bench.sockets import receive_now

ACK_PENDING = 1_000
GENERATOR = ("-m", "benchmarks.peers.nats")
ANSWER, ERROR = b'{"stream"', b'"error"'
INSTALL = "go install github.com/nats-io/nats-server/v2@latest"


class Nats(Server):
    """NATS JetStream as it comes: written, synced every two minutes."""

    name = "NATS JetStream, its default"
    acknowledged_means = "in the operating system's cache; synced every two minutes"
    generator = GENERATOR
    able = frozenset({"publish", "latency", "consume", "fan-out"})
    sync = "2m"

    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def command(self, folder: Path) -> Sequence[str]:
        told = folder / "nats.conf"
        told.write_text(
            f'listen: "127.0.0.1:{self.port}"\nmax_payload: 8MB\nmax_pending: 256MB\n'
            f'jetstream {{ store_dir: "{folder}/store", sync_interval: "{self.sync}" }}\n'
        )
        return [newest(), "-c", str(told)]


class NatsSynced(Nats):
    """NATS JetStream with a sync before every answer."""

    name = "NATS JetStream, sync always"
    acknowledged_means = "synced to disk"
    sync = "always"
    able = frozenset({"publish", "latency"})
    """Reading is the default's: what was synced when it was written makes no difference to it."""


def newest() -> str:
    """Return a server of 2.10 or newer.

    Raises:
        AbsentError: there is none.
    """
    places = [os.environ.get("GOBIN", ""), str(Path.home() / "go" / "bin"), os.environ["PATH"]]
    found = shutil.which("nats-server", path=os.pathsep.join([*places, "/usr/sbin"]))
    if found is None:
        raise AbsentError(f"nats-server is not installed; {INSTALL}")
    told = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    version = told.rpartition("v")[2].strip().split(".")
    if [int(part) for part in version[:2]] < [2, 10]:
        raise AbsentError(f"{told.strip()} is older than 2.10; {INSTALL}")
    return found


class Line:
    """One connection, for what waits for its answer."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._data = b""
        self._until(b"\r\n")  # INFO
        self.sock.sendall(b'CONNECT {"verbose":false,"pedantic":false,"headers":true}\r\nPING\r\n')
        self._until(b"PONG\r\n")

    def _until(self, end: bytes) -> bytes:
        while end not in self._data:
            data = self.sock.recv(1 << 16)
            if not data:
                raise RunError("NATS closed the connection")
            self._data += data
        found, _, self._data = self._data.partition(end)
        return found

    def ask(self, subject: str, what: dict[str, Any]) -> dict[str, Any]:
        """Call JetStream's API.

        Raises:
            RunError: it refuses.
        """
        body = json.dumps(what).encode()
        self.sock.sendall(b"SUB api 9\r\nPUB $JS.API.%b api %d\r\n%b\r\n" % (
            subject.encode(), len(body), body
        ))  # fmt: skip
        size = int(self._until(b"\r\n").split()[-1])
        while len(self._data) < size + 2:
            self._data += self.sock.recv(1 << 16)
        answer: dict[str, Any] = json.loads(self._data[:size])
        self._data = self._data[size + 2 :]
        self.sock.sendall(b"UNSUB 9\r\n")
        if "error" in answer:
            raise RunError(f"NATS answered {answer['error']}")
        return answer


class Publishing(Pipeline):
    """Counts the answers to publishes."""

    _tail = b""

    def count(self, data: bytes) -> int:
        data = self._tail + data
        if ERROR in data:
            raise RunError(f"NATS answered {data[data.index(ERROR) :][:200]!r}")
        if b"PING\r\n" in data:
            self.say(b"PONG\r\n")
        self._tail = data[-(len(ANSWER) - 1) :]
        return data.count(ANSWER)


class Consuming:
    """Counts messages, and acknowledges all of a read by its last."""

    def __init__(self, load: Load, port: int, stream: str, number: int) -> None:
        line = Line(port)
        self.sock = line.sock
        self._size, self._partial = load.size_bytes, b""
        deliver = f"deliver.{stream}.{number}"
        self.sock.sendall(f"SUB {deliver} 1\r\n".encode())
        self._port, self._stream, self._deliver = port, stream, deliver

    def begin(self) -> None:
        """Make the consumer: it sends at once."""
        self.sock.setblocking(False)
        told = {"deliver_subject": self._deliver, "ack_policy": "all", "deliver_policy": "all"}
        config = {**told, "max_ack_pending": ACK_PENDING}
        asked = {"stream_name": self._stream, "config": config}
        Line(self._port).ask(f"CONSUMER.CREATE.{self._stream}", asked)

    def receive(self) -> int:
        """Take what has arrived; return how many messages it completed."""
        data = receive_now(self.sock)
        if not data:
            return 0
        data = self._partial + data if self._partial else data
        position, count, last = 0, 0, b""
        while True:
            end = data.find(b"\n", position)
            if end < 0:
                break
            if data.startswith(b"MSG", position):
                if end + 1 + self._size + 2 > len(data):
                    break
                last = data[position : end - 1]
                count += 1
                position = end + 1 + self._size + 2
            else:
                position = end + 1
        self._partial = data[position:]
        if count:
            self.sock.setblocking(True)
            self.sock.sendall(b"PUB %b 4\r\n+ACK\r\n" % last.split()[3])
            self.sock.setblocking(False)
        return count


class NatsLoad(PeerLoad):
    """One stream with one subject; as many consumers as there are subscriptions."""

    def prepare(self) -> None:
        stream = {
            "name": self.name,
            "subjects": [self.name],
            "storage": "file",
            "retention": "limits",
            "discard": "old",
            "num_replicas": 1,
        }
        Line(self.port).ask(f"STREAM.CREATE.{self.name}", stream)

    def pipelines(self) -> Sequence[Pipeline]:
        load, made = self.load, list[Pipeline]()
        payload = b"x" * load.size_bytes
        for number in range(load.connections):
            line, inbox = Line(self.port), f"acks.{self.name}.{number}"
            line.sock.sendall(f"SUB {inbox} 1\r\n".encode())
            one = f"PUB {self.name} {inbox} {len(payload)}\r\n".encode() + payload + b"\r\n"
            pieces, each = pieces_of([one], load.window), load.messages // load.connections
            made.append(Publishing(line.sock, pieces, load.window, each))
        return made

    def readers(self) -> Sequence[Consuming]:
        count = self.load.subscriptions
        return [Consuming(self.load, self.port, self.name, number) for number in range(count)]

    def tidy(self) -> None:
        Line(self.port).ask(f"STREAM.DELETE.{self.name}", {})


if __name__ == "__main__":
    sys.exit(main(NatsLoad))
