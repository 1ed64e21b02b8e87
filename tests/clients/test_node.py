"""pulsar-flex, an implementation of the protocol in JavaScript."""

import pytest

from magnetar.cli.demo.broker import BrokerProcess
from tests.clients.conftest import HERE, needs, prepare, run


@pytest.mark.timeout(900)
def test_pulsar_flex_finds_nothing_wrong(broker: BrokerProcess) -> None:
    needs("node", "npm")
    source = HERE / "node"
    folder = prepare(
        "node",
        [source / "package.json"],
        [
            ["cp", str(source / "package.json"), "."],
            ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"],
        ],
    )
    address = broker.ports.url.removeprefix("pulsar://")
    command = ["node", str(source / "script.js"), address, broker.ports.admin_url]
    assert not run(command, folder, NODE_PATH=str(folder / "node_modules"))
