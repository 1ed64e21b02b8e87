"""Measure Magnetar beside its peers, in one run, and write down what was seen.

`make bench` or `python -m benchmarks [--rounds N] [--seconds S] [--only TEXT]`

Every round starts every server on a fresh folder, one after the other and in turning order,
so that a slow minute of the machine hits all of them. What is shown are medians over the
rounds; server CPU is user and system time of the whole process tree during the measured
time, per message. A row in which the load generator used more than half of the server's
CPU is marked: its throughput is the generator's, only its CPU counts.
"""

import argparse
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks.accounting import cpu_s, disk_written_bytes, proportional_set_bytes
from benchmarks.report import write_report
from benchmarks.servers import ALL, Server

LOAD_TIMEOUT_S = 120.0
"""A load that takes longer has met a server that stopped answering."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One row of the table: what is done to a server."""

    name: str
    mode: str
    size_bytes: int
    batch: int = 1
    connections: int = 1
    topics: int = 1
    pulsar_only: bool = False


SCENARIOS = (
    Scenario("publish 100 B", "publish", 100),
    Scenario("publish 1 KB", "publish", 1024),
    Scenario("publish 128 KB", "publish", 128 * 1024),
    Scenario("publish 1 KB, batches of 100", "publish", 1024, batch=100, pulsar_only=True),
    Scenario("publish 100 B, batches of 100", "publish", 100, batch=100, pulsar_only=True),
    Scenario("publish 1 KB, 50 connections", "publish", 1024, connections=50),
    Scenario("publish 1 KB, 10,000 topics", "publish", 1024, topics=10_000, pulsar_only=True),
    Scenario("consume 100 B", "consume", 100, pulsar_only=True),
    Scenario("consume 1 KB", "consume", 1024, pulsar_only=True),
    Scenario("consume 128 KB", "consume", 128 * 1024, pulsar_only=True),
    Scenario("consume 1 KB, batches of 100", "consume", 1024, batch=100, pulsar_only=True),
    Scenario("latency at 1,000 msg/s, 1 KB", "latency", 1024, pulsar_only=True),
)

CONSUMED_BYTES = 200 * 1024 * 1024
CONSUMED_MESSAGES_MAX = 200_000


def main() -> int:
    """Run what was asked for; return the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="measured time of one load")
    parser.add_argument("--only", default="", help="only scenarios whose name contains this")
    parser.add_argument("--servers", default="", help="only servers whose name contains this")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/latest.json"))
    parser.add_argument("--report", type=Path, default=Path("docs/performance.md"))
    options = parser.parse_args()
    servers = [kind for kind in ALL if options.servers.lower() in kind.name.lower()]
    for kind in list(servers):
        if missing := kind().missing():
            print(f"leaving out {kind.name}: {missing}")
            servers.remove(kind)
    rows = [
        measured
        for scenario in SCENARIOS
        if options.only in scenario.name
        for measured in measure(scenario, servers, options.rounds, options.seconds)
    ]
    result = {
        "machine": machine(),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "rows": rows,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    if not options.only and not options.servers:
        write_report(result, options.report)
    return 0


def measure(
    scenario: Scenario, servers: list[type[Server]], rounds: int, seconds: float
) -> list[dict[str, Any]]:
    """Return one row per server, each with all its rounds and their medians."""
    able = [kind for kind in servers if not scenario.pulsar_only or "pulsar" in kind.load_module]
    seen: dict[str, list[dict[str, Any]]] = {kind.name: [] for kind in able}
    for number in range(rounds if able else 0):
        for kind in able[number % len(able) :] + able[: number % len(able)]:
            try:
                one = measure_once(scenario, kind(), seconds)
            except (subprocess.SubprocessError, SystemExit) as error:
                print(f"{scenario.name:34} {kind.name:40} FAILED: {str(error)[:200]}", flush=True)
                continue
            seen[kind.name].append(one)
            shown = "  ".join(f"{key} {value:,.2f}" for key, value in one.items())
            print(f"{scenario.name:34} {kind.name:40} {shown}", flush=True)
    return [
        {
            "scenario": asdict(scenario),
            "server": kind.name,
            "acknowledged_means": kind.acknowledged_means,
            "rounds": seen[kind.name],
            "failed_rounds": rounds - len(seen[kind.name]),
            "median": medians(seen[kind.name]),
        }
        for kind in able
    ]


def medians(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the median of each figure; nothing if no round came to its end."""
    return {key: median(each[key] for each in rounds) for key in rounds[0]} if rounds else {}


def measure_once(scenario: Scenario, server: Server, seconds: float) -> dict[str, float]:
    """Start the server, run the load, and return rates and CPU per message."""
    folder = Path(tempfile.mkdtemp(prefix="magnetar-bench-"))
    load: dict[str, Any] = {
        "mode": scenario.mode,
        "port": server.port,
        "size_bytes": scenario.size_bytes,
        "connections": scenario.connections,
        "seconds": seconds,
        "warm_up_s": 1.0,
        "window_entries": max(40, 4_000 // scenario.connections),
        "window_bytes": 4 * 1024 * 1024,
    }
    if "pulsar" in server.load_module:
        load |= {"batch": scenario.batch, "topics": scenario.topics}
    try:
        server.start(folder / "server")
        if scenario.mode == "consume":
            messages = min(CONSUMED_MESSAGES_MAX, CONSUMED_BYTES // scenario.size_bytes)
            messages -= messages % scenario.batch
            publish = {"mode": "publish", "messages": messages, "warm_up_s": 0.0}
            run_load(server, load | publish, folder)
            load["messages"] = messages
        return run_load(server, load, folder)
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


class Counters(NamedTuple):
    """What only goes up while a server works."""

    cpu_s: float
    disk_bytes: int | None

    @classmethod
    def now(cls, server: Server, folder: Path) -> "Counters":
        """Read them."""
        return cls(cpu_s(server.pid), disk_written_bytes(folder))


def run_load(server: Server, load: dict[str, Any], folder: Path) -> dict[str, float]:
    """Run one load generator to its end, reading the server's counters around its measured part."""
    process = subprocess.Popen(
        [sys.executable, "-m", server.load_module, json.dumps(load)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    before, result, memory = Counters.now(server, folder), None, 0
    timeout = threading.Timer(LOAD_TIMEOUT_S, process.kill)
    timeout.start()
    with process:
        for line in process.stdout:
            said = json.loads(line)
            if "measuring" in said:
                before = Counters.now(server, folder)
            elif "seconds" in said:
                result = said
        memory = proportional_set_bytes(server.pid)
    timeout.cancel()
    if process.returncode or result is None:
        raise subprocess.SubprocessError(f"the load ended with code {process.returncode}")
    after = Counters.now(server, folder)
    messages = result["messages"]
    figures = {
        "messages_per_s": messages / result["seconds"],
        "mib_per_s": messages * load["size_bytes"] / result["seconds"] / 2**20,
        "server_cpu_us": (after.cpu_s - before.cpu_s) / messages * 1e6,
        "memory_mib": memory / 2**20,
    }
    if before.disk_bytes is not None and after.disk_bytes is not None:
        written = after.disk_bytes - before.disk_bytes
        figures["written_per_byte"] = written / (messages * load["size_bytes"])
    if "client_cpu_s" in result:
        figures["client_cpu_us"] = result["client_cpu_s"] / messages * 1e6
    return figures | {key: value for key, value in result.items() if key.endswith("_ms")}


def machine() -> dict[str, Any]:
    """Return what a reader should know about where this ran."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "cpu": model,
        "cores": len(list(Path("/sys/devices/system/cpu").glob("cpu[0-9]*"))),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


if __name__ == "__main__":
    sys.exit(main())
