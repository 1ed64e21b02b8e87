"""The official client against a whole broker, with one process and with two.

    addresses   a broker that all tests of a run share; each has topics of its own
    client      an official client of the test's own
    namespace   a namespace of the test's own, for policies
    restartable a broker of the test's own, to stop, kill and start

With MAGNETAR_URL and MAGNETAR_ADMIN_URL set, the shared broker is the cluster named there: the
same sentences can be put to Apache Pulsar.
"""

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pulsar
import pytest

from magnetar.cli.demo.broker import BrokerProcess, free_ports
from magnetar.client.admin import Admin
from tests.above.conftest import Addresses, addresses

__all__ = ["addresses"]

Connect = Callable[..., Any]


def new_client(url: str, **options: Any) -> Any:
    """An official client that keeps its opinion about vanishing brokers to itself."""
    log = pulsar.FileLogger(pulsar.LoggerLevel.Error, os.devnull)
    options.setdefault("operation_timeout_seconds", 30)
    return pulsar.Client(url, logger=log, **options)


@pytest.fixture
def connect(addresses: Addresses) -> Iterator[Connect]:
    """Return official clients, each with connections of its own."""
    with ExitStack() as opened:

        def connect(url: str = addresses.url, **options: Any) -> Any:
            client = new_client(url, **options)
            opened.callback(client.shutdown)
            return client

        yield connect


@pytest.fixture
def client(connect: Connect) -> Any:
    return connect()


@pytest.fixture
def admin(addresses: Addresses) -> Iterator[Admin]:
    with Admin(addresses.admin_url) as opened:
        yield opened


@pytest.fixture
def topic() -> str:
    """A topic that nobody else uses."""
    return f"persistent://public/default/{uuid.uuid4()}"


@pytest.fixture
def namespace(admin: Admin) -> Iterator[str]:
    name = f"public/{uuid.uuid4()}"
    admin.create_namespace(name)
    yield name
    admin.delete_namespace(name, force=True)


class Restartable:
    """A broker, and clients that are let go with it."""

    def __init__(self, folder: Path, workers: int) -> None:
        self.process = BrokerProcess(folder, free_ports(workers), workers)
        self._clients: list[Any] = []

    def client(self) -> Any:
        self._clients.append(new_client(self.process.ports.url))
        return self._clients[-1]

    def admin(self) -> Admin:
        return Admin(self.process.ports.admin_url)

    def restart(self) -> None:
        """Stop it as a service manager would, and start it on the same folder."""
        assert self.process.stop() == 0, self.process.log_end()
        self.process.start()

    def crash(self) -> None:
        """Kill all its processes at once, and start it on the same folder."""
        self.process.kill()
        self.process.start()

    def end(self) -> None:
        for client in self._clients:
            client.shutdown()
        self.process.discard()


@pytest.fixture(params=[1, 2], ids=["one process", "two processes"])
def restartable(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Restartable]:
    """A broker that a test may stop. Not there when the environment names a cluster."""
    if os.environ.get("MAGNETAR_URL"):
        pytest.skip("not with somebody else's cluster")
    broker = Restartable(tmp_path, request.param)
    broker.process.start()
    try:
        yield broker
    finally:
        broker.end()
