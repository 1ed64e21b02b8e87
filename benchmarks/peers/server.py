"""One program under measurement: started on an empty folder, held still, stopped by its id.

    launch ──▶ ready ──▶ pause ⇄ resume (SIGSTOP, SIGCONT, the whole process tree) ──▶ stop

While one server is measured the others stand still, so that what they do when idle is not in its
way. Every server binds loopback only. One that is not installed says what it needs, and is
reported as absent.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from magnetar.bench.accounting import tree
from magnetar.bench.running import PULSAR_GENERATOR
from magnetar.cli.demo.broker import free_ports
from magnetar.client.address import PULSAR_PORT

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 30.0


class AbsentError(Exception):
    """A server is not on this machine; the message says what it needs."""


class Server(ABC):
    """One program."""

    name: str
    acknowledged_means: str
    generator: Sequence[str] = PULSAR_GENERATOR
    able: frozenset[str] = frozenset(
        {"publish", "latency", "consume", "fan-out", "topics", "idle"}
        | {"batch-publish", "batch-consume"}
    )
    """Kinds of work it can be given."""
    warms = False
    """Whether it becomes faster while it runs: a Java program, whose code is compiled by use."""

    def __init__(self) -> None:
        self.port = new_port()
        self.folder = Path()
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self, folder: Path) -> Sequence[str]:
        """Return the command line that serves from `folder` on `self.port`.

        Raises:
            AbsentError: something has to be installed first.
        """

    def environment(self, folder: Path) -> dict[str, str]:  # noqa: ARG002 - for those that need it
        """Return environment variables to add."""
        return {}

    def url(self) -> str:
        """Where a generator finds it."""
        return f"pulsar://127.0.0.1:{self.port}"

    def ready(self) -> bool:
        """Return whether it serves."""
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    @property
    def pid(self) -> int:
        """The root of the process tree."""
        assert self._process
        return self._process.pid

    def start(self, folder: Path) -> None:
        """Start on an empty folder; return when it serves."""
        self.launch(folder)
        self.wait()

    def launch(self, folder: Path) -> None:
        """Start on an empty folder; `wait` tells when it serves.

        Raises:
            AbsentError: something has to be installed first.
        """
        folder.mkdir(parents=True)
        self.folder = folder
        command = self.command(folder)
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=folder,
                env=os.environ | self.environment(folder),
                start_new_session=True,
            )

    def wait(self) -> None:
        """Return when it serves.

        Raises:
            SystemExit: it does not.
        """
        assert self._process
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            if self.ready():
                return
            time.sleep(0.05)
        self.stop()
        log = (self.folder / "log").read_text(errors="replace")
        raise SystemExit(f"{self.name} did not start:\n{log[-3000:]}")

    def pause(self) -> None:
        """Let it stand still."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        for pid in tree(self.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def stop(self) -> None:
        """Ask it to leave; kill it if it does not. Remove its folder."""
        if self._process is None:
            return
        self.resume()
        family = tree(self.pid)
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pid in family:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        self._process = None


def remove(folder: Path) -> None:
    """Remove a folder that a server used."""
    shutil.rmtree(folder, ignore_errors=True)


def new_port() -> int:
    """Return a port that is free right now."""
    return PULSAR_PORT + free_ports(workers=1).offset


def installed(program: str, package: str) -> str:
    """Return where a program is.

    Raises:
        AbsentError: it is not there.
    """
    found = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if found is None:
        raise AbsentError(f"{program} is not installed; {package}")
    return found
