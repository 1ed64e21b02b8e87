"""A whole broker as a child process, with its settings, and what the system says about it.

    settings ──▶ magnetar.toml ──▶ magnetar standalone ──▶ supervisor ─┬─ worker 0
                                                                        └─ ...
    /proc/<pid>/status   VmRSS, VmHWM     memory now, and at its highest
    /proc/<pid>/clear_refs  "5"           begin to measure the highest anew
    /proc/<pid>/task/*/schedstat          CPU time of each thread

Source of the figures: proc(5), Linux's Documentation/scheduler/sched-stats.rst.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from time import perf_counter
from typing import Any

from magnetar.bench.accounting import cpu_s, tree
from magnetar.cli.demo.broker import BrokerProcess, free_ports
from magnetar.client.address import PULSAR_PORT
from magnetar.client.admin import Admin

MIB = 1 << 20
POLL_S = 0.02


class Child(BrokerProcess):
    """One `magnetar standalone` with settings of its own."""

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any] | None = None,
        *,
        workers: int = 1,
        before: Sequence[str] = (),
        room: int = 1,
    ) -> None:
        """Prepare it; `before` is what starts it, such as a shell that sets a limit first.

        There are ports for `room` workers, if there may be more of them later.
        """
        super().__init__(folder, free_ports(max(workers, room)), workers)
        self.data = folder / "data"
        told = folder / "magnetar.toml"
        lines = [f"{name} = {value}" for name, value in (settings or {}).items()]
        told.write_text("\n".join(["[settings]", *lines, ""]))
        self.command = self._command = [*before, *self._command, "--config", str(told)]

    def serve_by(self, workers: int) -> None:
        """Start with so many processes the next time."""
        at = self._command.index("--workers") + 1
        self.command = self._command = [*self._command[:at], str(workers), *self._command[at + 1 :]]

    @property
    def port(self) -> int:
        """Where it speaks Pulsar."""
        return PULSAR_PORT + self.ports.offset

    def workers(self) -> list[int]:
        """The processes that serve, in the order of their start."""
        return sorted(set(tree(self.pid)) - {self.pid})

    def worker(self) -> int:
        """The only process that serves."""
        (worker,) = self.workers()
        return worker

    def kill_supervisor(self) -> None:
        """End the supervisor alone with SIGKILL; its workers are orphans then."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def resident_bytes(self) -> int:
        """The worker's memory now."""
        return status_bytes(self.worker(), "VmRSS")

    def peak_bytes(self) -> int:
        """The worker's memory at its highest since it started, or since `forget_peak`."""
        return status_bytes(self.worker(), "VmHWM")

    def forget_peak(self) -> None:
        """Measure the highest from now on."""
        Path(f"/proc/{self.worker()}/clear_refs").write_text("5")

    def idle_cpu_percent(self, over_s: float) -> float:
        """How much of one core all its processes use while nobody asks for anything."""
        began, before = perf_counter(), cpu_s(self.pid)
        Event().wait(over_s)
        return 100 * (cpu_s(self.pid) - before) / (perf_counter() - began)

    def admin(self) -> Admin:
        """Admin REST of this broker."""
        return Admin(self.ports.admin_url)


@contextmanager
def running(child: Child) -> Iterator[Child]:
    """Start a broker, and leave nothing of it behind."""
    try:
        child.start()
        yield child
    finally:
        child.discard()


def runs(pid: int) -> bool:
    """Return whether a process is there. One that ended and waits to be collected is not."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def computed_s(pid: int) -> float:
    """Return the CPU seconds of all threads of a process so far, to the nanosecond."""
    files = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(file.read_text().split()[0]) for file in files) / 1e9


def status_bytes(pid: int, name: str) -> int:
    """Return one of the memory figures of a process."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.split(f"\n{name}:")[1].split()[0]) * 1024


def size_on_disk(folder: Path) -> int:
    """Return what the files of a folder take. One that goes away meanwhile does not count."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += path.stat().st_blocks * 512
    return total


def eventually(condition: Callable[[], bool], limit_s: float) -> float:
    """Wait until a condition holds; return how long that took.

    Raises:
        AssertionError: it did not within the limit.
    """
    began, pause = perf_counter(), Event()
    while not condition():
        assert perf_counter() - began < limit_s, f"not within {limit_s:g} s"
        pause.wait(POLL_S)
    return perf_counter() - began
