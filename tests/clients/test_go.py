"""The official Go client."""

import pytest

from magnetar.cli.demo.broker import BrokerProcess
from tests.clients.conftest import CACHE, HERE, needs, prepare, run


@pytest.mark.timeout(900)
def test_the_go_client_finds_nothing_wrong(broker: BrokerProcess) -> None:
    needs("go")
    source = HERE / "go"
    folder = prepare(
        "go",
        list(source.iterdir()),
        [["go", "build", "-C", str(source), "-o", str(CACHE / "go" / "script"), "."]],
        GOMODCACHE=str(CACHE / "go-modules"),
        GOCACHE=str(CACHE / "go-build"),
        GOFLAGS="-modcacherw",
    )
    assert not run([str(folder / "script"), broker.ports.url, broker.ports.admin_url], folder)
