"""Running a generator beside a server, and reading the server's counters around what counts.

    start generator ──▶ "measuring" ──▶ counters ──▶ the end ──▶ the server rests ──▶ counters

What a broker does later because of the load, such as moving its journal into entry logs, belongs
to it: the second reading waits until the process tree uses next to nothing, REST_S_MAX at most.
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from magnetar.bench.accounting import (
    cpu_s,
    disk_written_bytes,
    folder_written_to,
    is_local,
    proportional_set_bytes,
    root_of_port,
)
from magnetar.bench.histogram import Histogram
from magnetar.bench.load import Load, RunError
from magnetar.client.address import service_addresses

PULSAR_GENERATOR = ("-m", "magnetar.bench.generator")
REST_CPU = 0.03
"""Part of a core below which a server rests."""
REST_SAMPLE_S = 0.25
RESTS = 2
"""So many samples in a row."""
REST_S_MAX = 20.0
END_LIMIT_S = 120.0
"""What a run may take beyond its time, for its preparation."""
CLIENT_BOUND = 0.5
"""A generator that needs more than this part of the server's CPU measures itself."""


class Server(NamedTuple):
    """A server on this machine, whose work can be counted."""

    pid: int
    folder: Path | None
    """On the disk that it writes to."""

    @classmethod
    def of(cls, pid: int) -> "Server":
        """Return the server that is this process and all below it."""
        return cls(pid, folder_written_to(pid))


def server_at(url: str) -> Server | None:
    """Return the server behind an address; None: it is elsewhere, or belongs to another user."""
    host, port = service_addresses(url)[0]
    root = root_of_port(port) if is_local(host) else None
    return Server.of(root) if root is not None else None


class Counters(NamedTuple):
    """What only goes up while a server works."""

    cpu_s: float
    written_bytes: int | None

    @classmethod
    def of(cls, server: Server) -> "Counters":
        """Read them."""
        written = disk_written_bytes(server.folder) if server.folder is not None else None
        return cls(cpu_s(server.pid), written)


def run(
    load: Load,
    server: Server | None = None,
    generator: Sequence[str] = PULSAR_GENERATOR,
    rest_s: float = REST_S_MAX,
) -> dict[str, Any]:
    """Run one load to its end; return its figures. `rest_s`: how long to wait for the server then.

    Raises:
        RunError: the generator came to no end.
    """
    memory = 0
    with subprocess.Popen(  # noqa: S603 - this interpreter, and a module of ours
        [sys.executable, *generator], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin
        assert process.stdout
        timeout = threading.Timer(END_LIMIT_S + 2 * load.seconds, process.kill)
        timeout.start()
        try:
            process.stdin.write(msgspec.json.encode(load))
            process.stdin.close()
            before = Counters.of(server) if server else None
            result: dict[str, Any] = {}
            for line in process.stdout:
                result = json.loads(line)
                if "measuring" in result:
                    before = Counters.of(server) if server else None
        except BaseException:
            process.kill()  # Ctrl-C: nobody would wait for it
            raise
        finally:
            timeout.cancel()
    if "error" in result:
        raise RunError(
            result["error"], result["advice"], nobody_answers=result.get("nobody_answers", False)
        )
    if process.returncode or "messages" not in result:
        raise RunError(f"the load generator ended with code {process.returncode}")
    if server is None or before is None:
        return figures(load, result)
    memory = proportional_set_bytes(server.pid)
    rested = rest(server, rest_s)
    return (
        figures(load, result)
        | server_figures(load, result, before, Counters.of(server), memory)
        | {"server_rested": rested}
    )


def rest(server: Server, limit_s: float = REST_S_MAX) -> bool:
    """Wait until a server has nothing to do; return whether it came to that."""
    deadline, in_a_row, used = time.perf_counter() + limit_s, 0, cpu_s(server.pid)
    while in_a_row < RESTS:
        if time.perf_counter() > deadline:
            return False
        time.sleep(REST_SAMPLE_S)
        before, used = used, cpu_s(server.pid)
        in_a_row = in_a_row + 1 if used - before <= REST_CPU * REST_SAMPLE_S + 0.01 else 0
    return True


def figures(load: Load, result: dict[str, Any]) -> dict[str, Any]:
    """Return what the generator itself can say."""
    messages, seconds = result["messages"], result["seconds"]
    times = Histogram({int(bucket): count for bucket, count in result["times"].items()})
    return {
        "messages": messages,
        "seconds": round(seconds, 3),
        "messages_per_s": messages / seconds,
        "mib_per_s": messages * load.size_bytes / seconds / 2**20,
        "generator_cpu_us": result["generator_cpu_s"] / max(1, messages) * 1e6,
        **times.figures(),
        "times_ms": times.steps(),
    }


def server_figures(
    load: Load, result: dict[str, Any], before: Counters, after: Counters, memory_bytes: int
) -> dict[str, Any]:
    """Return what the load has cost the server."""
    messages = max(1, result["messages"])
    used = after.cpu_s - before.cpu_s
    told: dict[str, Any] = {
        "server_cpu_us": used / messages * 1e6,
        "server_memory_bytes": memory_bytes,
        # At a fixed rate nobody is the limit.
        "client_bound": load.mode != "latency" and result["generator_cpu_s"] > CLIENT_BOUND * used,
    }
    if before.written_bytes is not None and after.written_bytes is not None:
        written = after.written_bytes - before.written_bytes
        told["written_bytes"] = written
        told["written_per_byte"] = written / (messages * load.size_bytes)
    return told


def conditions(load: Load) -> dict[str, Any]:
    """Return what a reader of the results needs to repeat them. No credential is among it."""
    left_out = {"where", "prefix", "silence_s"}
    return {
        "url": load.where.url,
        **{
            name: value for name, value in msgspec.to_builtins(load).items() if name not in left_out
        },
        "entries_in_flight_per_connection": load.window,
    }
