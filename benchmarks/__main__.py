"""Measure Magnetar beside its peers, in one run, and draw what was seen.

`make bench` or `python -m benchmarks [--form long] [--only TEXT] [--servers TEXT] [--draw]`

For every work, all servers that can do it are started on empty folders; those that run on Java are
used until their code is compiled. Then, round by round and in turning order, one at a time is
measured while the others stand still. What is shown are medians over the rounds; all rounds are in
benchmarks/results/. A run of some works or servers replaces their rows, and leaves the others.
"""

import argparse
import json
import platform
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.peers.kafka import Kafka, KafkaSynced
from benchmarks.peers.nats import Nats, NatsSynced
from benchmarks.peers.pulsars import ApachePulsar, Limit, Magnetar, MagnetarPlain, PulsarLite
from benchmarks.peers.rabbitmq import RabbitClassic, RabbitQuorum
from benchmarks.peers.redis import Redis
from benchmarks.peers.server import AbsentError, Server
from benchmarks.works import FORMS, WORKS, Form, Work
from magnetar.bench import running
from magnetar.bench.accounting import cpu_s, proportional_set_bytes
from magnetar.bench.histogram import Histogram, bucket_of
from magnetar.bench.load import Load, RunError, Where

SERVERS: Sequence[type[Server]] = (
    *(Magnetar, MagnetarPlain, Limit, PulsarLite, Redis, Nats, NatsSynced),
    *(RabbitClassic, RabbitQuorum, ApachePulsar, Kafka, KafkaSynced),
)
RESULTS = Path("benchmarks/results/latest.json")
AWAKE_S = 0.3
"""What a server gets to find itself again after it stood still."""
WARMING_S = 6.0
IDLE_S = {"short": 4.0, "long": 60.0}


def main() -> int:
    """Run what was asked for; return the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--form", choices=FORMS, default="short")
    parser.add_argument("--rounds", type=int, help="instead of the form's")
    parser.add_argument("--seconds", type=float, help="measured time of one load, likewise")
    parser.add_argument("--only", action="append", default=[], help="works whose name contains it")
    parser.add_argument("--servers", action="append", default=[], help="servers, likewise")
    parser.add_argument("--step", action="store_true", help="wait for a line before each work")
    parser.add_argument("--draw", action="store_true", help="measure nothing; draw what there is")
    parser.add_argument("--note", default="", help="what a reader should know of this run")
    parser.add_argument("--output", type=Path, default=RESULTS)
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and stop what was started
    if not asked.draw:
        form = FORMS[asked.form]
        form = Form(
            *(form.name, asked.seconds or form.seconds, form.warm_up_s, form.rest_s),
            asked.rounds or form.rounds,
        )
        works = [work for work in WORKS if chosen(work.name, asked.only)]
        kinds = [kind for kind in SERVERS if chosen(kind.name, asked.servers)]
        for work in works:
            able = [kind for kind in kinds if work.kind in kind.able]
            able = [kind for kind in able if not work.only or kind.name in work.only]
            rows, absent = measure(work, able, form, step=asked.step)
            for row in rows:
                row["note"] = asked.note
            keep(asked.output, rows, absent)
    from benchmarks.report import write_report  # noqa: PLC0415 - it needs matplotlib

    write_report(json.loads(asked.output.read_text()))
    return 0


def chosen(name: str, texts: Sequence[str]) -> bool:
    """Return whether a name is among what was asked for: by a part of it, or whole with a `=`."""
    return not texts or any(
        name == text[1:] if text.startswith("=") else text in name for text in texts
    )


def keep(path: Path, rows: Sequence[dict[str, Any]], absent: dict[str, str]) -> None:
    """Put rows into the file of results, in the place of older ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    result = json.loads(path.read_text()) if path.exists() else {}
    new = {(row["work"], row["server"]) for row in rows}
    old = [row for row in result.get("rows", []) if (row.get("work"), row["server"]) not in new]
    places = {work.name: number for number, work in enumerate(WORKS)}
    kinds = {kind.name: number for number, kind in enumerate(SERVERS)}
    kept = [row for row in [*old, *rows] if row.get("work") in places and row["server"] in kinds]
    kept.sort(key=lambda row: (places[row["work"]], kinds[row["server"]]))
    missing = {n: why for n, why in (result.get("absent", {}) | absent).items() if n in kinds}
    for row in rows:
        missing.pop(row["server"], None)
    path.write_text(json.dumps({"machine": machine(), "absent": missing, "rows": kept}, indent=1))


def measure(
    work: Work, kinds: Sequence[type[Server]], form: Form, *, step: bool
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Return a row per server, all its rounds and their medians; and who is absent, and why."""
    absent: dict[str, str] = {}
    folder = Path(tempfile.mkdtemp(prefix="magnetar-bench-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        servers = started(kinds, folder, stack, absent)
        if step:
            print(f"ready: {work.name}", flush=True)
            sys.stdin.readline()
        seen: dict[str, list[dict[str, Any]]] = {server.name: [] for server in servers}
        failed: dict[str, list[str]] = {server.name: [] for server in servers}
        for number in range(form.rounds if servers else 0):
            turn = number % len(servers)
            for server in servers[turn:] + servers[:turn]:
                server.resume()
                time.sleep(AWAKE_S)
                try:
                    seen[server.name].append(one_round(work, server, form))
                except (RunError, subprocess.SubprocessError) as error:
                    failed[server.name].append(str(error)[:300])
                server.pause()
                tell(work, server, seen[server.name], failed[server.name])
        if step:
            print(f"done: {work.name}", flush=True)
        rows = [
            row_of(work, server, form, seen[server.name], failed[server.name]) for server in servers
        ]
    return rows, absent


def started(
    kinds: Sequence[type[Server]], folder: Path, stack: ExitStack, absent: dict[str, str]
) -> list[Server]:
    """Start all servers together; return those that are there, each standing still."""
    servers: list[Server] = []
    for number, kind in enumerate(kinds):
        server = kind()
        try:
            server.launch(folder / str(number))
        except AbsentError as error:
            absent[kind.name] = str(error)
            print(f"absent: {kind.name}: {error}", flush=True)
            continue
        stack.callback(server.stop)
        servers.append(server)
    for server in list(servers):
        try:
            server.wait()
        except SystemExit as error:
            absent[server.name] = f"did not start: {str(error)[-300:]}"
            print(error, flush=True)
            servers.remove(server)
            continue
        if not server.warms:
            server.pause()
    for server in servers:
        if server.warms:
            warm(server)
            server.pause()
    return servers


def warm(server: Server) -> None:
    """Use a server until its code is compiled."""
    for mode, told in (
        ("publish", {"seconds": WARMING_S}),
        ("consume", {"messages": 30_000, "subscriptions": 2}),
        ("publish", {"seconds": WARMING_S / 2, "batch": 100}),
    ):
        try:
            running.run(load_of(server, {"mode": mode, **told}), None, server.generator)
        except RunError as error:
            print(f"{server.name} while it became warm: {error}", flush=True)


def load_of(server: Server, told: dict[str, Any]) -> Load:
    """Return a load on topics of its own."""
    prefix = f"persistent://public/default/bench-{secrets.token_hex(4)}"
    return Load(where=Where(url=server.url()), prefix=prefix, **told)


def one_round(work: Work, server: Server, form: Form) -> dict[str, Any]:
    """Return the figures of one load on one server."""
    seen = running.Server.of(server.pid)._replace(folder=server.folder)
    told = work.load(form)
    if work.kind == "idle":
        told["messages"] = told["topics"]
        running.run(load_of(server, told), None, server.generator)
        running.rest(seen, form.rest_s)
        before, start = cpu_s(server.pid), time.perf_counter()
        time.sleep(IDLE_S[form.name])
        used = (cpu_s(server.pid) - before) / (time.perf_counter() - start)
        memory = proportional_set_bytes(server.pid)
        return {"idle_cpu_percent": used * 100, "server_memory_bytes": memory}
    load = load_of(server, told)
    return running.run(load, seen, server.generator, form.rest_s) | {"window": load.window}


def tell(work: Work, server: Server, seen: list[dict[str, Any]], failed: list[str]) -> None:
    """Print what the last round was."""
    if failed:
        print(f"{work.name:34} {server.name:40} FAILED: {failed[-1]}", flush=True)
    if seen:
        names = (
            "messages_per_s",
            "server_cpu_us",
            "generator_cpu_us",
            "p99_ms",
            "idle_cpu_percent",
        )
        shown = "  ".join(f"{name} {seen[-1][name]:,.2f}" for name in names if name in seen[-1])
        print(f"{work.name:34} {server.name:40} {shown}", flush=True)


def row_of(
    work: Work, server: Server, form: Form, rounds: Sequence[dict[str, Any]], failed: list[str]
) -> dict[str, Any]:
    """Return one row: its conditions, every round, the medians."""
    times = Histogram()
    for each in rounds:
        for ms, count in each.pop("times_ms", ()):
            times.counts[bucket_of(round(ms * 1000))] += count
    bound = [each["client_bound"] for each in rounds if "client_bound" in each]
    return {
        "work": work.name,
        "kind": work.kind,
        "series": work.series,
        "at": work.at,
        "server": server.name,
        "acknowledged_means": server.acknowledged_means,
        "load": work.load(form),
        "form": form.name,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "rounds": list(rounds),
        "failed": failed,
        "client_bound": sum(bound) * 2 > len(bound),
        "median": medians(rounds),
        "times_ms": times.steps() if work.mode == "latency" else [],
    }


def medians(rounds: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the median of each figure; nothing if no round came to its end."""
    names = (
        [name for name, value in rounds[0].items() if type(value) in {int, float}] if rounds else []
    )
    return {name: median(each[name] for each in rounds if name in each) for name in names}


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
    }


if __name__ == "__main__":
    sys.exit(main())
