"""A broker of the demo's own: a child process in a folder and on ports that nobody uses.

    start ──▶ ready ──▶ kill (SIGKILL, supervisor and workers at once) ──▶ start again ──▶ stop

Ready means that all its processes say so, and killed that no process of it is left.
"""

import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Event
from time import perf_counter
from typing import NamedTuple

from magnetar.cli.errors import CommandError
from magnetar.client.address import HTTP_PORT, PULSAR_PORT
from magnetar.client.admin import Admin
from magnetar.client.rest import AdminError

PRIVATE_PULSAR_PORT = 6660
"""Where the first of several workers listens for itself, before any offset."""
POLL_S = 0.02
READY_LIMIT_S = 30.0
STOP_LIMIT_S = 20.0
LOG_LINES_SHOWN = 15


class Ports(NamedTuple):
    """Where the broker is."""

    offset: int

    @property
    def url(self) -> str:
        """For messages."""
        return f"pulsar://127.0.0.1:{PULSAR_PORT + self.offset}"

    @property
    def admin_url(self) -> str:
        """For admin REST."""
        return f"http://127.0.0.1:{HTTP_PORT + self.offset}"


FIRST_PORT, PORTS = 10_000, 20_000
"""The range to pick from; Linux gives outgoing connections 32,768 and more, macOS 49,152."""


def free_ports(workers: int, attempts: int = 100) -> Ports:
    """Find an offset at which all ports of a broker are free right now.

    Chance picks the first, so two demos started together do not collide. It does not pick from
    those that the system gives to outgoing connections: one of these might sit on our port at
    the moment the broker starts again.

    Raises:
        CommandError: none was found.
    """
    for _ in range(attempts):
        with ExitStack() as held, suppress(OSError, OverflowError):
            offset = FIRST_PORT + secrets.randbelow(PORTS) - PULSAR_PORT
            ours = [PULSAR_PORT, HTTP_PORT, *(PRIVATE_PULSAR_PORT + i for i in range(workers))]
            for port in ours:
                held.enter_context(_bound(port + offset))
            return Ports(offset)
    raise CommandError("found no free ports", "stop what listens on so many of them")


def _bound(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.bind(("127.0.0.1", port))
    except BaseException:
        sock.close()
        raise
    return sock


def wait_until(
    condition: Callable[[], bool],
    what: str,
    limit_s: float,
    clock: Callable[[], float] = perf_counter,
) -> None:
    """Return as soon as a condition holds.

    Raises:
        CommandError: it did not within the limit.
    """
    end, pause = clock() + limit_s, Event()
    while not condition():
        if clock() >= end:
            raise CommandError(f"{what}: not within {limit_s:g} s")
        pause.wait(POLL_S)


class BrokerProcess:
    """One `magnetar standalone`, in a session of its own, so that nobody else's Ctrl-C ends it."""

    def __init__(self, folder: Path, ports: Ports, workers: int = 1) -> None:
        self.ports = ports
        self.log = folder / "broker.log"
        self._command = [
            *(sys.executable, "-m", "magnetar", "standalone"),
            *("--data", str(folder / "data")),
            *("--port-offset", str(ports.offset)),
            *("--workers", str(workers)),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The supervisor's process id; 0: nothing runs."""
        return self._process.pid if self._process else 0

    def start(self) -> float:
        """Start it; return after how many seconds it was ready.

        Raises:
            CommandError: it ended, or was not ready in time. Holds the end of its log.
        """
        began = perf_counter()
        # What the caller set for a broker of its own does not concern this one.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MAGNETAR_")}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        process = self._process
        with Admin(self.ports.admin_url, timeout_s=2) as admin:

            def ready() -> bool:
                if process.poll() is not None:
                    raise CommandError(f"the broker ended at once:\n{self.log_end()}")
                try:
                    return admin.ready() == "ok"
                except AdminError:
                    return False

            wait_until(ready, "waiting for the broker to be ready", READY_LIMIT_S)
        return perf_counter() - began

    def kill(self) -> int:
        """End the supervisor and its workers with SIGKILL, all at once; return how many died.

        Raises:
            CommandError: some of them are still there.
        """
        assert self._process is not None
        members = group_members(self._process.pid)
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None
        wait_until(lambda: not any(map(_alive, members)), "killing the broker", STOP_LIMIT_S)
        return len(members)

    def stop(self) -> int:
        """Ask it to end, as a service manager would; return its exit code.

        Raises:
            CommandError: it did not end in time, and was killed.
        """
        if self._process is None:
            return 0
        self._process.terminate()
        try:
            code = self._process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise CommandError(f"the broker did not stop:\n{self.log_end()}") from None
        self._process = None
        return code

    def discard(self) -> None:
        """End it in whatever way works. For the way out after an error."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self.kill()

    def log_end(self) -> str:
        """Return the last lines that it wrote."""
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(f"    {line}" for line in lines[-LOG_LINES_SHOWN:])


def group_members(group: int) -> list[int]:
    """Return the processes of a process group. Without /proc, only the first of them."""
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):
            # pid (command) state parent group ...; the command may hold anything but is in ( ).
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) == group and fields[0] != "Z":
                found.append(int(folder.name))
    return found or [group]


def _alive(pid: int) -> bool:
    """Return whether a process runs. One that ended and waits to be collected does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    with suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True
