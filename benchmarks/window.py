"""What the group-commit window does: latency, CPU and syncs at a steady rate.

`python -m benchmarks.window [--windows 0 1 5] [--rounds N] [--seconds S] [--rate R]`. One broker
serves all rounds; in each, every window is set by admin REST and measured in turn, so that a slow
minute of the machine hits all of them. Medians are printed. Server CPU is that of the whole
process tree per message, less what it needs when nobody publishes.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.peers.pulsars import Magnetar
from magnetar.client.address import HTTP_PORT, PULSAR_PORT
from magnetar.client.admin import Admin

SYNCS = "magnetar_storage_commit_seconds_count"
LOAD_TIMEOUT_S = 120.0
TAKE_OVER_S = 1.0
"""Until a setting is in use."""


def main() -> None:
    """Measure, and print one line per window."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--windows", nargs="+", type=float, default=[0, 1, 5])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--rate", type=float, default=1_000)
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="magnetar-window-"))
    server = Magnetar()
    server.start(folder / "one")
    try:
        report(measure(server, asked))
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def measure(server: Magnetar, asked: argparse.Namespace) -> dict[float, list[dict[str, float]]]:
    """Return what was seen for each window, once per round."""
    url = f"http://127.0.0.1:{server.port - PULSAR_PORT + HTTP_PORT}"
    found: dict[float, list[dict[str, float]]] = {window: [] for window in asked.windows}
    with Admin(url) as admin:
        for turn in range(asked.rounds):
            order = asked.windows[turn % len(found) :] + asked.windows[: turn % len(found)]
            for window in order:
                admin.set_setting("journal_window_ms", str(window))
                time.sleep(TAKE_OVER_S)
                found[window].append(once(server, url, asked))
    return found


def once(server: Magnetar, url: str, asked: argparse.Namespace) -> dict[str, float]:
    """Publish at a steady rate; return latency, CPU and syncs of it."""
    syncs = count_of(url, SYNCS)
    told = load(server, asked)
    found = {name: told[name] for name in ("p50_ms", "p99_ms", "server_cpu_us")}
    return found | {"syncs": (count_of(url, SYNCS) - syncs) / told["messages"]}


def load(server: Magnetar, asked: argparse.Namespace) -> dict[str, Any]:
    """Run `magnetar bench latency`; return what it says."""
    command = [
        *(sys.executable, "-m", "magnetar", "bench", "latency", "--output", "json"),
        *("--url", f"pulsar://127.0.0.1:{server.port}", "--server-pid", str(server.pid)),
        *("--rate", str(asked.rate), "--seconds", str(asked.seconds)),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=LOAD_TIMEOUT_S, check=True, env=os.environ
    )
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def count_of(url: str, name: str) -> float:
    """Return a counter of the broker."""
    with urllib.request.urlopen(f"{url}/metrics") as answer:  # noqa: S310 - http, see above
        lines = answer.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def report(found: dict[float, list[dict[str, float]]]) -> None:
    """Print medians over the rounds."""
    print("window ms   p50 ms   p99 ms   CPU us/message   syncs/message")
    for window, rounds in found.items():
        p50, p99, cpu, syncs = (
            median(each[what] for each in rounds)
            for what in ("p50_ms", "p99_ms", "server_cpu_us", "syncs")
        )
        print(f"{window:9g} {p50:8.2f} {p99:8.2f} {cpu:16.1f} {syncs:15.2f}")


if __name__ == "__main__":
    main()
