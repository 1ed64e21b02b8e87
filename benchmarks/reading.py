"""What reading costs: fan-out, catching up, and what it does to the writers.

    tail      1 and 10 consumers of what is published meanwhile
    old       1 and 10 consumers of what lies in entry logs, from a cold page cache
    apart     the same, each a few thousand messages behind the one before
    writers   time to receipt on a fixed schedule, beside 0, 1 and 10 readers of old data

`python -m benchmarks.reading [--trees A B] [--rounds N] [--only TEXT]`. `--trees` are checkouts
of this project, measured in turn in every round; medians are printed. Server CPU is that of the
whole process tree per delivered message; disk is what the processes had to read from it.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.peers.pulsars import Magnetar
from magnetar.bench.accounting import cpu_s, proportional_set_bytes, tree

TOPIC = "persistent://public/default/old-0"
TAIL_TOPIC = "persistent://public/default/tail-0"
WRITE_CACHE_BYTES = 128 << 20
LOAD_TIMEOUT_S = 240.0


class Tree(Magnetar):
    """A checkout of this project, serving a folder that is there already."""

    kernels = False  # as they are in that checkout

    def __init__(self, source: Path, settings: dict[str, str]) -> None:
        super().__init__()
        self._source = source
        self._settings = settings

    def environment(self, folder: Path) -> dict[str, str]:  # noqa: ARG002 - the base's signature
        return {"PYTHONPATH": str(self._source / "src")} | self._settings

    def start_on(self, folder: Path) -> None:
        """Start on a folder with what is in it, none of it in the page cache."""
        home = folder / f"run-{time.monotonic_ns()}"
        forget_pages(folder)
        self.start(home)

    def command(self, folder: Path) -> list[str]:
        return [
            str(folder.parent / "data") if each == str(folder / "data") else each
            for each in super().command(folder)
        ]


def forget_pages(folder: Path) -> None:
    """Drop what the kernel keeps of the files of a folder."""
    for path in folder.rglob("*"):
        if path.is_file():
            fd = os.open(path, os.O_RDONLY)
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


def disk_read_bytes(root: int) -> int:
    """Return what a process tree has read from the disk."""
    total = 0
    for pid in tree(root):
        text = Path(f"/proc/{pid}/io").read_text()
        total += int(text.split("\nread_bytes: ")[1].split()[0])
    return total


def load(module: str, work: dict[str, Any]) -> subprocess.Popen[str]:
    """Start a load."""
    return subprocess.Popen(
        [sys.executable, "-m", module, json.dumps(work)], stdout=subprocess.PIPE, text=True
    )


def said(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for the next line of a load."""
    assert process.stdout
    line = process.stdout.readline()
    if not line:
        raise SystemExit("a load has ended early")
    found: dict[str, Any] = json.loads(line)
    return found


def publish(server: Magnetar, prefix: str, messages: int, size: int, batch: int) -> dict[str, Any]:
    """Publish as fast as the server takes it."""
    process = load(
        "benchmarks.pulsar_load",
        {
            "mode": "publish", "port": server.port, "prefix": prefix, "messages": messages,
            "size_bytes": size, "batch": batch, "warm_up_s": 0.0,
        },
    )  # fmt: skip
    said(process)
    found = said(process)
    process.wait(LOAD_TIMEOUT_S)
    return found


def measure(server: Magnetar, work: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Run readers; with `latest`, publish as soon as they wait."""
    process = load("benchmarks.reading_load", {"mode": "readers", "port": server.port} | work)
    said(process)
    cpu, disk = cpu_s(server.pid), disk_read_bytes(server.pid)
    if work.get("latest"):
        publish(server, "tail", work["messages"], options.size, options.batch)
    found = said(process)
    process.wait(LOAD_TIMEOUT_S)
    delivered = found["messages"]
    return {
        "cpu_us": (cpu_s(server.pid) - cpu) / delivered * 1e6,
        "msg_s": delivered / found["seconds"],
        "disk_mb": (disk_read_bytes(server.pid) - disk) / 1e6,
        "client_us": found["client_cpu_s"] / delivered * 1e6,
        "pss_mb": proportional_set_bytes(server.pid) / 1e6,
    }


def beside(server: Magnetar, rate: float, consumers: int, seconds: float) -> dict[str, Any]:
    """Measure writers beside so many readers of old data at full speed."""
    reader = None
    if consumers:
        endless = {
            "mode": "readers", "port": server.port, "topic": TOPIC, "messages": 0,
            "consumers": consumers,
        }  # fmt: skip
        reader = load("benchmarks.reading_load", endless)
        said(reader)
        time.sleep(0.5)
    try:
        work = {
            "mode": "writers", "port": server.port, "topic": TAIL_TOPIC, "rate": rate,
            "seconds": seconds,
        }  # fmt: skip
        process = load("benchmarks.reading_load", work)
        said(process)
        disk = disk_read_bytes(server.pid)
        found = said(process)
        process.wait(LOAD_TIMEOUT_S)
        found["disk_mb"] = (disk_read_bytes(server.pid) - disk) / 1e6
    finally:
        if reader is not None:
            reader.kill()
            reader.wait()
    return found


def one_round(source: Path, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one checkout once."""
    settings = {"MAGNETAR_WRITE_CACHE_BYTES_MAX": str(WRITE_CACHE_BYTES)}
    rows: dict[str, Any] = {}
    kinds: dict[str, dict[str, Any]] = {
        "tail": {"topic": TAIL_TOPIC, "latest": True},
        "tail, ids": {"topic": TAIL_TOPIC, "latest": True, "own_ids": True},
        "old": {"topic": TOPIC},
        "old, ids": {"topic": TOPIC, "own_ids": True},
        "apart": {"topic": TOPIC, "apart": 5_000},
    }
    for kind, work in kinds.items():
        for consumers in (1, 10):
            name = f"{kind} {consumers}"
            if options.only not in name or (consumers == 1 and kind in {"apart", "old, ids"}):
                continue
            server = Tree(source, settings)
            server.start_on(folder)
            try:
                rows[name] = measure(
                    server,
                    work
                    | {
                        "consumers": consumers, "messages": options.messages,
                        "size_bytes": options.size, "batch": options.batch,
                    },
                    options,
                )  # fmt: skip
            finally:
                server.stop()
            shown = "  ".join(f"{key} {value:,.2f}" for key, value in rows[name].items())
            print(f"{source.name:10} {name:12} {shown}", flush=True)
    if options.only in "writers":
        server = Tree(source, settings)
        server.start_on(folder)
        try:
            rate = options.rate or publish(server, "tail", 200_000, 1024, 1)["messages"]
            for consumers in (0, 1, 10, 0, 1, 10):
                name = f"writers, {consumers}"
                found = beside(server, rate, consumers, options.seconds)
                before = rows.setdefault(name, found)
                rows[name] = {key: min(found[key], before[key]) for key in found}
                shown = "  ".join(f"{key} {value:,.2f}" for key, value in found.items())
                print(f"{source.name:10} {name:14} {shown}", flush=True)
        finally:
            server.stop()
    return rows


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="benchmarks.reading", description=__doc__)
    parser.add_argument("--trees", type=Path, nargs="*", default=[Path.cwd()])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--messages", type=int, default=300_000)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rate", type=float, default=20_000)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--only", default="")
    parser.add_argument("--folder", type=Path, help="where to work, kept for the next time")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="reading-"))
    if not (folder / "data").exists():
        server = Tree(options.trees[0], {})
        server.start_on(folder)
        publish(server, "old", 2 * options.messages, options.size, options.batch)
        server.stop()
    seen: list[dict[str, Any]] = []
    try:
        for number in range(options.rounds):
            seen += [
                {"tree": source.name} | one_round(source, folder, options)
                for source in options.trees[:: 1 if number % 2 else -1]
            ]
    finally:
        if options.folder is None:
            shutil.rmtree(folder)
    print()
    for source in options.trees:
        mine = [each for each in seen if each["tree"] == source.name]
        for name in [key for key in mine[0] if key != "tree"]:
            values = {key: median(each[name][key] for each in mine) for key in mine[0][name]}
            shown = "  ".join(f"{key} {value:,.2f}" for key, value in values.items())
            print(f"{source.name:10} {name:14} {shown}")


if __name__ == "__main__":
    main()
