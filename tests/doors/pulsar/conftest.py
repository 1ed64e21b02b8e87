"""A Pulsar door on loopback with a fake core behind it, on both event loops."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvloop

from magnetar.broker.access.authorize import Access
from magnetar.broker.config import BrokerConfig
from magnetar.broker.doors.listener import Entrance, Listener
from magnetar.broker.doors.pulsar.door import PulsarDoor
from magnetar.broker.metrics import Metrics
from tests.doors.fake_port import FakePort
from tests.doors.raw_client import RawClient
from tests.waiting import LIMIT_S, until


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run every test of this folder on both loops that a broker may run on."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@dataclass
class Rig:
    """One door, its listener, the fake core, and the clients of a test."""

    port: FakePort
    door: PulsarDoor
    listener: Listener
    metrics: Metrics
    clients: list[RawClient] = field(default_factory=list)

    @property
    def address(self) -> tuple[str, int]:
        return self.listener.addresses[0]

    async def dial(self, *, sibling: bool = False, **options: Any) -> RawClient:
        """A connection that has not sent CONNECT; `sibling`: from a process of this broker."""
        address = self.listener.addresses[1] if sibling else self.address
        client = await RawClient.dial(address, **options)
        self.clients.append(client)
        return client

    async def client(self, **options: Any) -> RawClient:
        """A connection past CONNECT."""
        client = await self.dial(**options)
        await client.connect()
        return client

    def shrink_send_buffers(self) -> None:
        """Let the kernel take little from the door, so that what is unsent shows early."""
        for each in self.door._connections:
            assert each._transport is not None
            sock = each._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for something the door does on its own."""
        await until(condition)

    def metric(self, name: str) -> float:
        for text in self.metrics.render():
            for line in text.splitlines():
                if line.startswith(name + " "):
                    return float(line.split()[1])
        raise AssertionError(f"no metric {name}")


MakeRig = Callable[..., Rig]


@pytest.fixture
async def make_rig(tmp_path: Path) -> AsyncIterator[MakeRig]:
    """Starts doors with other settings than the defaults."""
    rigs: list[Rig] = []

    def make(access: Access | None = None, **settings: Any) -> Rig:
        port, metrics, loop = FakePort(), Metrics(), asyncio.get_running_loop()
        config = BrokerConfig(data=tmp_path, **settings)
        door = PulsarDoor(
            port, config, loop=loop, metrics=metrics, server_version="Magnetar-test", access=access
        )
        listener = Listener(
            [
                Entrance([socket.create_server(("127.0.0.1", 0))]),
                Entrance([socket.create_server(("127.0.0.1", 0))], sibling=True),
            ],
            door,
            connections_max=config.connections_max,
            loop=loop,
            metrics=metrics,
        )
        port.url = f"pulsar://127.0.0.1:{listener.addresses[0][1]}"
        listener.start()
        rigs.append(Rig(port, door, listener, metrics))
        return rigs[-1]

    yield make
    for rig in rigs:
        for client in rig.clients:
            client.close()
        if rig.port.gate is not None:
            rig.port.gate.set()
        rig.listener.stop()
        rig.door.abort()
        async with asyncio.timeout(LIMIT_S):
            await rig.door.emptied()
        await asyncio.sleep(0)


@pytest.fixture
async def rig(make_rig: MakeRig) -> Rig:
    return make_rig()
