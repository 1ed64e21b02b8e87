"""How busy the machine is, in percent, as Pulsar's load balancer is told.

    /proc/stat                  cpu: user nice system idle iowait irq softirq steal
    cgroup  cpu.max, cpu.stat   instead, where the container may use less than the machine
    /proc/meminfo, memory.max   how much memory there is
    /sys/class/net/*/           bytes that came and went, and the speed of the line in Mbit/s

A percentage is that of the time between two looks, which happen when somebody asks and are some
seconds apart. What this machine does not tell is None: Linux in a virtual machine knows no
speed of its line, and macOS has none of these files.

Source: Linux' proc(5) and cgroup-v2; Pulsar's host usage for Linux looks at the same.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from magnetar.broker.clock import Clock
from magnetar.broker.files import Files

WINDOW_S_MIN = 5.0
"""Percentages over less than this say more about the moment of asking."""

T = TypeVar("T")

_PROC = Path("/proc")
_CGROUP = Path("/sys/fs/cgroup")
_LINES = Path("/sys/class/net")
_IDLE = (3, 4)
_TIMES = 8
_MEGABIT_BYTES = 125_000


class Usage(NamedTuple):
    """Percent of what there is; None: this machine does not tell."""

    cpu: float | None = None
    bandwidth_in: float | None = None
    bandwidth_out: float | None = None


class _Look(NamedTuple):
    """Counters of the machine at one moment."""

    at_s: float
    cpu: tuple[float, float] | None
    """Seconds used, and seconds there were."""
    line: tuple[int, int, int] | None
    """Bytes in, bytes out, bytes per second that the lines can carry."""


class Host:
    """The machine, seen from one process."""

    def __init__(self, files: Files, clock: Clock) -> None:
        self._files = files
        self._clock = clock
        self._before: _Look | None = None
        self._usage = Usage()

    def usage(self) -> Usage:
        """Return how much was used between the last two looks."""
        now_s = self._clock.monotonic()
        before = self._before
        if before is None:
            self._before = self._look(now_s)
        elif now_s - before.at_s >= WINDOW_S_MIN:
            self._before = self._look(now_s)
            self._usage = between(before, self._before)
        return self._usage

    def memory_bytes(self) -> int | None:
        """Return how much memory there is for this container, or this machine."""
        limit = self._read(_CGROUP / "memory.max", lambda text: int(text.strip()))
        whole = self._read(_PROC / "meminfo", lambda text: int(text.split()[1]) * 1024)
        found = [each for each in (limit, whole) if each]
        return min(found) if found else None

    def open_files(self) -> int | None:
        """Return how many descriptors this process has open."""
        return len(self._files.list(_PROC / "self" / "fd")) or None

    def _look(self, now_s: float) -> _Look:
        return _Look(now_s, self._cpu(now_s), self._line())

    def _cpu(self, now_s: float) -> tuple[float, float] | None:
        cores = self._read(_CGROUP / "cpu.max", cores_allowed)
        if cores:
            used = self._read(_CGROUP / "cpu.stat", lambda text: int(text.split()[1]) / 1e6)
            if used is not None:
                return used, now_s * cores
        return self._read(_PROC / "stat", cpu_times)

    def _line(self) -> tuple[int, int, int] | None:
        came = went = speed = 0
        for name in self._files.list(_LINES):
            megabits = self._read(_LINES / name / "speed", int)
            if not megabits or megabits < 0:
                continue
            speed += megabits * _MEGABIT_BYTES
            came += self._read(_LINES / name / "statistics" / "rx_bytes", int) or 0
            went += self._read(_LINES / name / "statistics" / "tx_bytes", int) or 0
        return (came, went, speed) if speed else None

    def _read(self, path: Path, parse: Callable[[str], T]) -> T | None:
        """Return what a file of the kernel says; None: it is not there, or says something else."""
        try:
            return parse(self._files.read(path).decode("ascii"))
        except (OSError, ValueError, IndexError):
            return None


def cpu_times(text: str) -> tuple[float, float]:
    """Return seconds used and seconds there were, given /proc/stat."""
    times = [int(each) for each in text.split("\n", 1)[0].split()[1 : 1 + _TIMES]]
    ticks = os.sysconf("SC_CLK_TCK")
    total = sum(times)
    return (total - sum(times[each] for each in _IDLE)) / ticks, total / ticks


def cores_allowed(text: str) -> float:
    """Return how many cores a cgroup may use, given `cpu.max`.

    Raises:
        ValueError: as many as there are.
    """
    quota, period = text.split()
    return int(quota) / int(period)


def between(before: _Look, now: _Look) -> Usage:
    """Return what was used between two looks."""
    cpu = came = went = None
    if before.cpu is not None and now.cpu is not None:
        cpu = _percent(now.cpu[0] - before.cpu[0], now.cpu[1] - before.cpu[1])
    if before.line is not None and now.line is not None:
        whole = now.line[2] * (now.at_s - before.at_s)
        came = _percent(now.line[0] - before.line[0], whole)
        went = _percent(now.line[1] - before.line[1], whole)
    return Usage(cpu, came, went)


def _percent(part: float, whole: float) -> float:
    return min(max(100 * part / whole, 0.0), 100.0) if whole > 0 else 0.0
