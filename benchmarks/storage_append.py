"""Does the number of topics cost anything? Appends runs to 1 topic and to 10,000, with sync.

    python benchmarks/storage_append.py [--entries 200000] [--bytes 1024] [--data DIR]

Prints entries per second, CPU per entry of the whole process (event loop, journal thread
and flush together) and the ratio of many topics to one. Many topics are the worst case:
every entry of a run goes to another topic.
"""

import argparse
import asyncio
import resource
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from crc32c import crc32c

from magnetar.broker.clock import SystemClock
from magnetar.broker.config import BrokerConfig
from magnetar.broker.files import DiskFiles
from magnetar.broker.metrics import Metrics
from magnetar.broker.run import ROW, Run
from magnetar.broker.storage.errors import StorageError
from magnetar.broker.storage.ledgers import Ledgers
from magnetar.broker.storage.record import Part

ENTRIES_PER_RUN = 250
RUNS_IN_FLIGHT_MAX = 64


class Result(NamedTuple):
    """One measurement."""

    entries_per_s: float
    cpu_us_per_entry: float


async def measure(data: Path, topics: int, entries: int, body_bytes: int) -> Result:
    """Append so many entries, spread over so many topics, and wait until all are durable."""
    loop = asyncio.get_running_loop()
    ledgers = Ledgers(BrokerConfig(data=data), DiskFiles(), SystemClock(), Metrics(), loop)
    await ledgers.recover([0])
    run = make_run(body_bytes)
    for ledger in range(1, topics + 1):
        ledgers.create(ledger)
    ends = [0] * (topics + 1)
    waiting = asyncio.Semaphore(RUNS_IN_FLIGHT_MAX)

    def committed(tokens: Sequence[object], error: StorageError | None) -> None:
        assert error is None, error
        for _ in tokens:
            waiting.release()

    ledgers.on_commit = committed
    started, used = time.perf_counter(), cpu_s()
    ledger = 0
    for _ in range(entries // ENTRIES_PER_RUN):
        await waiting.acquire()
        parts = []
        if topics == 1:
            parts.append(Part(1, ends[1], 0, ENTRIES_PER_RUN, "producer"))
            ends[1] += ENTRIES_PER_RUN
        else:
            for row in range(ENTRIES_PER_RUN):
                ledger = ledger % topics + 1
                parts.append(Part(ledger, ends[ledger], row, 1, "producer"))
                ends[ledger] += 1
        ledgers.append(run, parts, run)
        if ledgers.congested:
            clear = asyncio.Event()
            ledgers.call_when_clear(clear.set)
            await clear.wait()
    for _ in range(RUNS_IN_FLIGHT_MAX):
        await waiting.acquire()
    took, spent = time.perf_counter() - started, cpu_s() - used
    flushing = cpu_s()
    await ledgers.flush()
    spent += cpu_s() - flushing
    await ledgers.stop()
    return Result(entries / took, spent / entries * 1e6)


def make_run(body_bytes: int) -> Run:
    """Return a run of neighbouring entries, framed as a door leaves them."""
    frame = bytes(40)
    body = bytes(range(256)) * (body_bytes // 256 + 1)
    body = body[:body_bytes]
    checksum = crc32c(body)
    rows = bytearray()
    for at in range(ENTRIES_PER_RUN):
        offset = at * (len(frame) + body_bytes) + len(frame)
        rows += ROW.pack(offset, body_bytes, checksum, 1, 0, 0, 0, 0, at, at, 1, 0, at, 1)
    return Run(rows, (frame + body) * ENTRIES_PER_RUN)


def cpu_s() -> float:
    """Return the CPU seconds this process has used."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--entries", type=int, default=200_000)
    parser.add_argument("--bytes", type=int, default=1024)
    parser.add_argument("--topics", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=Path, help="a folder on the disk to measure")
    options = parser.parse_args()
    for number in range(options.rounds):
        found = []
        for topics in (1, options.topics):
            data = Path(tempfile.mkdtemp(dir=options.data))
            result = asyncio.run(measure(data, topics, options.entries, options.bytes))
            shutil.rmtree(data)
            found.append(result)
            print(
                f"round {number + 1}  {topics:6} topics  {result.entries_per_s:10,.0f} entries/s"
                f"  {result.cpu_us_per_entry:6.2f} us CPU per entry"
            )
        one, many = found
        print(
            f"round {number + 1}  ratio of entries/s {many.entries_per_s / one.entries_per_s:.2f},"
            f" of CPU {many.cpu_us_per_entry / one.cpu_us_per_entry:.2f}"
        )


if __name__ == "__main__":
    main()
