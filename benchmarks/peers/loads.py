"""What every generator of a peer has in common: its modes, and what travels over its pipe.

prepare   make streams, queues or topics, and what will read them
publish   `pipelines`, kept full          as with Pulsar: magnetar.bench
latency   the first of them, at a rate
consume   publish so many, then let `readers` read and acknowledge them
"""

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec

from magnetar.bench.consuming import read_all
from magnetar.bench.latency import at_rate
from magnetar.bench.load import Load, RunError
from magnetar.bench.pipeline import Pipeline, keep_full, say, say_measuring
from magnetar.bench.sockets import cpu_s


class PeerLoad(ABC):
    """One load on one peer."""

    def __init__(self, load: Load) -> None:
        self.load = load
        parts = urlsplit(load.where.url)
        assert parts.port
        self.port = parts.port
        self.kind = parts.path.strip("/")
        """What the address says beyond host and port, such as a kind of queue."""
        self.name = load.prefix.rpartition("/")[2]

    @abstractmethod
    def prepare(self) -> None:
        """Make what is published to, and what will read it."""

    @abstractmethod
    def pipelines(self) -> Sequence[Pipeline]:
        """Return what publishes, `load.messages` together if that is not 0."""

    @abstractmethod
    def readers(self) -> Sequence[Any]:
        """Return what reads: each has `sock`, `begin()` and `receive()`, as `Reading` has."""

    def tidy(self) -> None:  # noqa: B027 - most have nothing to do
        """Remove what was published, where it would be in the way of what comes next."""

    def publish(self) -> dict[str, Any]:
        """Publish as fast as the answers come."""
        self.prepare()
        load = self.load
        warm_up_s = 0.0 if load.messages else load.warm_up_s
        result = keep_full(self.pipelines(), warm_up_s, load.seconds, load.silence_s)
        return result | {"messages": result.pop("requests") * load.batch}

    def latency(self) -> dict[str, Any]:
        """Publish one message when it is due."""
        self.prepare()
        load, pipeline = self.load, self.pipelines()[0]
        return at_rate(pipeline, load.rate, load.warm_up_s, load.seconds, load.silence_s)

    def consume(self) -> dict[str, Any]:
        """Publish a backlog, then read it."""
        self.prepare()
        load = self.load
        keep_full(self.pipelines(), 0.0, 0.0, load.silence_s)
        readers = self.readers()
        cpu, start = cpu_s(), time.perf_counter()
        say_measuring()
        entries = load.messages // load.batch * load.subscriptions
        read_all(readers, entries, load.silence_s)
        return {
            "messages": entries * load.batch,
            "seconds": time.perf_counter() - start,
            "generator_cpu_s": cpu_s() - cpu,
            "times": {},
        }


def main(kind: type[PeerLoad]) -> int:
    """Do what standard input says; return the exit code."""
    load = msgspec.json.decode(sys.stdin.buffer.read(), type=Load)
    try:
        peer = kind(load)
        result = {"publish": peer.publish, "latency": peer.latency, "consume": peer.consume}[
            load.mode
        ]()
        peer.tidy()
        say(result)
    except (RunError, OSError) as error:
        say({"error": str(error), "advice": getattr(error, "advice", "")})
        return 1
    return 0
