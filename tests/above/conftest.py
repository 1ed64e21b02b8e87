"""A cluster to test against: the one in the environment, or a broker of our own.

With MAGNETAR_URL and MAGNETAR_ADMIN_URL set, these tests run against any Pulsar cluster.
Without, they start `magnetar standalone` in a temporary folder, with one broker process and
with two.
"""

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from magnetar.cli.demo.broker import BrokerProcess, free_ports
from magnetar.client.address import admin_url_beside
from magnetar.client.cluster import Cluster


class Addresses(NamedTuple):
    """Where the cluster is."""

    url: str
    admin_url: str


@pytest.fixture(scope="session", params=[1, 2], ids=["one process", "two processes"])
def addresses(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Addresses]:
    """The cluster that all tests share; each uses topics of its own."""
    url = os.environ.get("MAGNETAR_URL")
    if url:
        if request.param > 1:
            pytest.skip("the cluster in the environment has as many processes as it has")
        yield Addresses(url, os.environ.get("MAGNETAR_ADMIN_URL") or admin_url_beside(url))
        return
    workers: int = request.param
    broker = BrokerProcess(tmp_path_factory.mktemp("broker"), free_ports(workers), workers)
    try:
        broker.start()
        yield Addresses(broker.ports.url, broker.ports.admin_url)
        assert broker.stop() == 0, broker.log_end()
    finally:
        broker.discard()


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    """A broker that a test may kill. Not there when the environment names a cluster."""
    if os.environ.get("MAGNETAR_URL"):
        pytest.skip("not with somebody else's cluster")
    broker = BrokerProcess(tmp_path, free_ports(1))
    try:
        broker.start()
        yield broker
    finally:
        broker.discard()


@pytest.fixture
def cluster(addresses: Addresses) -> Iterator[Cluster]:
    """The cluster, with an official client of the test's own."""
    with Cluster(addresses.url, addresses.admin_url) as opened:
        yield opened


@pytest.fixture
def topic() -> str:
    """A topic that nobody else uses."""
    return f"persistent://public/default/above-{uuid.uuid4()}"


Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def magnetar(addresses: Addresses) -> Command:
    """Run a command line against the cluster, in a process of its own."""
    environment = {
        **os.environ,
        "MAGNETAR_URL": addresses.url,
        "MAGNETAR_ADMIN_URL": addresses.admin_url,
    }

    def run(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "magnetar", *arguments],
            input=given,
            capture_output=True,
            text=True,
            env=environment,
            timeout=60,
            check=False,
        )

    return run
