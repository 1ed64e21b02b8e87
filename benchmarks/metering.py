"""What metrics cost: counting on the way of a message, and one look at all of it.

    counting   (updates per run x their cost + updates per commit x their cost) / entries
               against the server's CPU per entry, at several loads
    a scrape   CPU of the process tree for one GET /metrics, with many topics, by what is shown

`python -m benchmarks.metering [--topics N] [--seconds S]`. How often runs and commits happen
per entry is what the broker itself counts during the load; what an update costs is measured in
this process, by the code that the broker runs. The first must stay below 2 %.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families as parse

from benchmarks.peers.pulsars import Magnetar
from benchmarks.reading import load, said
from magnetar.bench.accounting import cpu_s
from magnetar.broker.clock import SystemClock
from magnetar.broker.doors.pulsar.publish import Stopwatch
from magnetar.broker.latency import Latencies
from magnetar.broker.metrics import Counter
from magnetar.broker.topics.producers.tally import Tally, latency_bucket
from magnetar.client.admin import Admin

SHARE_MAX = 0.02
SCRAPES = 10
TIMED = 20_000
COUNTS = {
    "entries": "magnetar_publish_entries_total",
    "runs": "magnetar_publish_runs_total",
    "commits": "magnetar_storage_commit_seconds_count",
}


class Here(Magnetar):
    """This checkout, with compiled kernels if they are built."""

    kernels = False


def cost_s(update: Callable[[], object]) -> float:
    """Return the CPU time that an update takes, the best of some tries."""
    timer = timeit.Timer(update, timer=time.process_time)
    return min(timer.repeat(number=TIMED, repeat=7)) / TIMED


def of_a_run(entries: int) -> float:
    """Return what is counted for one run costs, in seconds: entries, bytes, sizes, two times."""
    watch = Stopwatch(SystemClock(), Latencies("x_seconds", "X."))
    counters = [Counter(name, "X.") for name in ("runs", "entries", "bytes", "accepted")]
    runs, taken, size_bytes, accepted = counters
    tally = Tally()

    def update() -> None:
        watch.started()
        runs.value += 1
        taken.value += entries
        size_bytes.value += 1024
        accepted.value += 1024
        tally.alike(entries, 1024, 1024)
        watch.stopped(entries, watch.read_at_s)

    return cost_s(update)


def of_a_commit() -> float:
    """Return what is counted for one commit that touches one topic costs, in seconds."""
    commits, durable = Latencies("x_seconds", "X."), Latencies("y_seconds", "Y.")
    tally = Tally()

    def update() -> None:
        commits.record(0.0012)
        tally.wrote(10, 1_500, latency_bucket(0.0015))
        durable.record(0.0015, 10)

    return cost_s(update)


def counted(admin: Admin) -> dict[str, float]:
    """Return how many entries, runs and commits the broker has counted."""
    sums = dict.fromkeys(COUNTS.values(), 0.0)
    for family in parse(admin.metrics()):
        for each in family.samples:
            if each.name in sums:
                sums[each.name] += each.value
    return {key: sums[name] for key, name in COUNTS.items()}


def counting(server: Magnetar, admin: Admin, name: str, work: dict[str, Any]) -> float:
    """Measure one load; return the part of its CPU that counting takes."""
    process = load("benchmarks.pulsar_load", {"port": server.port, "prefix": name} | work)
    said(process)
    before, cpu = counted(admin), cpu_s(server.pid)
    said(process)
    process.wait(60)
    cpu = cpu_s(server.pid) - cpu
    now = counted(admin)
    entries, runs, commits = (now[key] - before[key] for key in COUNTS)
    spent = runs * of_a_run(max(round(entries / max(runs, 1)), 1)) + commits * of_a_commit()
    print(
        f"{name:10} {entries:10,.0f} entries  {entries / max(runs, 1):7.1f} a run"
        f"  {entries / max(commits, 1):7.1f} a commit  {cpu / entries * 1e6:8.2f} us an entry"
        f"  of that counting {spent / entries * 1e6:6.3f} us: {spent / cpu:6.2%}",
        flush=True,
    )
    return spent / cpu


def scrapes(server: Magnetar, admin: Admin, topics: int) -> None:
    """Measure looks at a broker with many topics."""
    work = {"mode": "publish", "topics": topics, "seconds": 5.0, "window_entries": 1_000}
    process = load("benchmarks.pulsar_load", {"port": server.port, "prefix": "many"} | work)
    said(process)
    said(process)
    process.wait(60)
    for setting, value in (("metrics_of_topics", "true"), ("metrics_of_topics", "false")):
        admin.set_setting(setting, value)
        time.sleep(1.0)
        text = admin.metrics()
        cpu, began = cpu_s(server.pid), time.monotonic()
        for _ in range(SCRAPES):
            admin.metrics()
        seconds = (time.monotonic() - began) / SCRAPES
        spent = (cpu_s(server.pid) - cpu) / SCRAPES
        print(
            f"a scrape   {setting} {value:5}  {topics:,} topics  {len(text) / 2**20:6.2f} MiB"
            f"  {spent * 1000:8.1f} ms CPU  {seconds * 1000:8.1f} ms"
            f"  every 15 s: {spent / 15:.2%} of a core",
            flush=True,
        )


def main() -> int:
    """Measure, print, and fail if counting takes too much."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--topics", type=int, default=2_000)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="metering-"))
    server = Here()
    server.start(folder / "run")
    shares = []
    try:
        with Admin(f"http://127.0.0.1:{8080 + server.port - 6650}") as admin:
            print(f"a run: {of_a_run(1) * 1e6:.2f} us; a commit: {of_a_commit() * 1e6:.2f} us")
            for name, work in (
                ("deep", {"mode": "publish", "size_bytes": 1024}),
                ("small", {"mode": "publish", "size_bytes": 100}),
                ("batches", {"mode": "publish", "size_bytes": 1024, "batch": 100}),
                ("single", {"mode": "latency", "size_bytes": 1024, "rate": 1_000.0}),
            ):
                shares.append(counting(server, admin, name, work | {"seconds": options.seconds}))
            scrapes(server, admin, options.topics)
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    return int(max(shares) > SHARE_MAX)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.TimeoutExpired as error:
        sys.exit(f"a load does not end: {error}")
