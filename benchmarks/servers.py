"""Starting and stopping what is measured: Magnetar and its peers, each on a fresh folder.

Every server binds loopback only, logs into its folder, and is ended by its process id. A
peer that is not installed is left out with a line that says how to get it.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from magnetar.cli.demo.broker import free_ports
from magnetar.client.address import PULSAR_PORT

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 60.0


class Server(ABC):
    """One program under measurement."""

    name: str
    acknowledged_means: str
    load_module: str

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self.port = PULSAR_PORT + free_ports(workers=1).offset

    @abstractmethod
    def missing(self) -> str | None:
        """Return what has to be installed first; None: it can be started."""

    @abstractmethod
    def command(self, folder: Path) -> Sequence[str]:
        """Return the command line that serves from `folder` on `self.port`."""

    def environment(self, folder: Path) -> dict[str, str]:  # noqa: ARG002 - for those that need it
        """Return environment variables to add."""
        return {}

    @property
    def pid(self) -> int:
        """The root of the process tree."""
        assert self._process
        return self._process.pid

    def start(self, folder: Path) -> None:
        """Start on an empty folder; return when the port answers."""
        folder.mkdir(parents=True)
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                self.command(folder),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=folder,
                env=os.environ | self.environment(folder),
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        self.stop()
        raise SystemExit(f"{self.name} did not start:\n{(folder / 'log').read_text()[-2000:]}")

    def stop(self) -> None:
        """Ask it to leave; kill it if it does not."""
        assert self._process
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Magnetar(Server):
    """This project."""

    name = "Magnetar"
    acknowledged_means = "synced to disk"
    load_module = "benchmarks.pulsar_load"

    def __init__(self, workers: int = 1) -> None:
        super().__init__()
        self._workers = workers

    def missing(self) -> str | None:
        return None

    def command(self, folder: Path) -> Sequence[str]:
        offset = str(self.port - 6650)
        data = str(folder / "data")
        workers = str(self._workers)
        return [
            *(sys.executable, "-m", "magnetar", "standalone", "--data", data),
            *("--port-offset", offset, "--workers", workers),
        ]


class PulsarLite(Server):
    """An embedded broker with the Pulsar protocol, from PyPI."""

    name = "pulsar-lite"
    acknowledged_means = "in the operating system's cache; never synced"
    load_module = "benchmarks.pulsar_load"

    def missing(self) -> str | None:
        return None if find_spec("pulsar_lite") else "pip install pulsar-lite"

    def command(self, folder: Path) -> Sequence[str]:
        spec = find_spec("pulsar_lite")
        assert spec
        assert spec.origin
        binary = Path(spec.origin).parent / "bin" / "pulsar-lite"
        address = f"127.0.0.1:{self.port}"
        return [
            *(str(binary), "--addr", address, "--db-path", str(folder / "db")),
            *("--log-level", "error"),
        ]


class Redis(Server):
    """Redis streams with a sync before every answer."""

    name = "Redis streams, appendfsync always"
    acknowledged_means = "synced to disk"
    load_module = "benchmarks.redis_load"

    def missing(self) -> str | None:
        return None if shutil.which("redis-server") else "apt-get install redis-server"

    def command(self, folder: Path) -> Sequence[str]:
        return [
            *("redis-server", "--port", str(self.port), "--bind", "127.0.0.1"),
            *("--dir", str(folder), "--save", "", "--appendonly", "yes"),
            *("--appendfsync", "always", "--auto-aof-rewrite-percentage", "0"),
        ]


class RabbitMq(Server):
    """A durable classic queue, persistent messages, publisher confirms."""

    name = "RabbitMQ, durable classic queue, confirms"
    acknowledged_means = "written, synced in batches a few hundred ms apart"
    load_module = "benchmarks.amqp_load"
    program = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")

    def missing(self) -> str | None:
        return None if self.program.exists() else "apt-get install rabbitmq-server"

    def command(self, folder: Path) -> Sequence[str]:  # noqa: ARG002 - it is told by environment
        return [str(self.program)]

    def environment(self, folder: Path) -> dict[str, str]:
        return {
            "HOME": str(folder),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "logs"),
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"bench{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(PULSAR_PORT + free_ports(workers=1).offset),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(PULSAR_PORT + free_ports(workers=1).offset),
        }


ALL: Sequence[type[Server]] = (Magnetar, PulsarLite, Redis, RabbitMq)
