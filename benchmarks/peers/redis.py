r"""Redis streams: XADD, and consumer groups that read and acknowledge.

    XADD key * m <payload>                       ──▶ $<length>\r\n<id>\r\n
    XREADGROUP GROUP g c COUNT n STREAMS key >   ──▶ *1 *2 key *n (*2 id *2 m payload)
    XACK key g id ...                            ──▶ :<n>\r\n

With `appendfsync always` the answer leaves after the sync of everything that arrived in the same
turn of its event loop. Source: the description of the RESP2 protocol. Debian: redis-server.
"""

import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.loads import PeerLoad, main
from benchmarks.peers.server import Server, installed
from magnetar.bench.load import Load, RunError
from magnetar.bench.pipeline import Pipeline, pieces_of
from magnetar.bench.sockets import receive_now

READ_AT_ONCE = 500
GENERATOR = ("-m", "benchmarks.peers.redis")


class Redis(Server):
    """Redis streams with a sync before every answer."""

    name = "Redis streams, appendfsync always"
    acknowledged_means = "synced to disk"
    generator = GENERATOR
    able = frozenset({"publish", "latency", "consume", "fan-out"})

    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def command(self, folder: Path) -> Sequence[str]:
        return [
            *(installed("redis-server", "apt-get install redis-server"), "--port", str(self.port)),
            *("--bind", "127.0.0.1", "--dir", str(folder), "--save", "", "--appendonly", "yes"),
            *("--appendfsync", "always", "--auto-aof-rewrite-percentage", "0"),
        ]


def words(*parts: bytes | str) -> bytes:
    """Return one command."""
    raw = [part.encode() if isinstance(part, str) else part for part in parts]
    return b"*%d\r\n" % len(raw) + b"".join(b"$%d\r\n%b\r\n" % (len(p), p) for p in raw)


class Adding(Pipeline):
    """Counts the ids that XADD answers: two line ends each."""

    _lines = 0

    def count(self, data: bytes) -> int:
        if data.startswith(b"-"):
            raise RunError(f"Redis answered {data[:200]!r}")
        before = self._lines // 2
        self._lines += data.count(b"\n")
        return self._lines // 2 - before


class Group:
    """Reads a stream through a consumer group, and acknowledges all of an answer together."""

    def __init__(self, load: Load, port: int, key: str, group: str) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port))
        self._key, self._group, self._size = key, group, load.size_bytes
        self._data = b""

    def begin(self) -> None:
        """Ask for the first messages."""
        self._ask()
        self.sock.setblocking(False)

    def _ask(self, ids: Sequence[bytes] = ()) -> None:
        asked = words("XACK", self._key, self._group, *ids) if ids else b""
        asked += words(
            *("XREADGROUP", "GROUP", self._group, "c", "COUNT", str(READ_AT_ONCE)),
            *("STREAMS", self._key, ">"),
        )
        self.sock.setblocking(True)
        self.sock.sendall(asked)
        self.sock.setblocking(False)

    def receive(self) -> int:
        """Take what has arrived; return how many messages it completed."""
        self._data += receive_now(self.sock)
        ids = self._whole()
        if ids is None:
            return 0
        self._data = b""
        if ids:
            self._ask(ids)
        return len(ids)

    def _whole(self) -> list[bytes] | None:
        """Return the ids of an answer; None: more of it is to come."""
        data, at = self._data, 0
        if data.startswith(b":"):
            at = data.find(b"\n") + 1
            if not at:
                return None
        if data.startswith((b"*-1\r\n", b"$-1\r\n"), at):
            return []
        if data.startswith(b"-", at):
            raise RunError(f"Redis answered {data[at : at + 200]!r}")
        for _ in range(4):  # *1, *2, the key's length, the key
            at = data.find(b"\n", at) + 1
            if not at:
                return None
        end = data.find(b"\r", at)
        if end < 0:
            return None
        ids: list[bytes] = []
        count, at = int(data[at + 1 : end]), end + 2
        tail = len(b"*2\r\n$1\r\nm\r\n") + len(b"$%d\r\n" % self._size) + self._size + 2
        for _ in range(count):
            start = data.find(b"\n", at + 4) + 1  # behind *2 and the id's length
            end = data.find(b"\r", start)
            if not start or end < 0:
                return None
            ids.append(data[start:end])
            at = end + 2 + tail
        return ids if at <= len(data) else None


class RedisLoad(PeerLoad):
    """One stream; as many groups as there are subscriptions."""

    def prepare(self) -> None:
        groups = [
            words("XGROUP", "CREATE", self.name, f"g{number}", "0", "MKSTREAM")
            for number in range(self.load.subscriptions)
        ]
        with socket.create_connection(("127.0.0.1", self.port)) as sock:
            for each in groups:
                sock.sendall(each)
                if (answer := sock.recv(1000)) != b"+OK\r\n":
                    raise RunError(f"Redis answered {answer!r}")

    def pipelines(self) -> Sequence[Pipeline]:
        load = self.load
        request = words("XADD", self.name, "*", "m", b"x" * load.size_bytes)
        pieces = pieces_of([request], load.window)
        each = load.messages // load.connections
        return [
            Adding(socket.create_connection(("127.0.0.1", self.port)), pieces, load.window, each)
            for _ in range(load.connections)
        ]

    def readers(self) -> Sequence[Group]:
        return [
            Group(self.load, self.port, self.name, f"g{number}")
            for number in range(self.load.subscriptions)
        ]

    def tidy(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port)) as sock:
            sock.sendall(words("DEL", self.name))
            sock.recv(100)


if __name__ == "__main__":
    sys.exit(main(RedisLoad))
