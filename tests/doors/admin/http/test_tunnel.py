"""WebSockets through the public port: to the right process, guarded, bounded, and slowed down."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import unix_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from magnetar.broker.assignment import Assignment
from magnetar.broker.clock import SystemClock
from magnetar.broker.config import BrokerConfig
from magnetar.broker.doors.admin.http import tunnel as tunnel_module
from magnetar.broker.doors.admin.http.forward import Forward
from magnetar.broker.doors.admin.http.guard import Guard
from magnetar.broker.doors.admin.http.server import HttpServer
from magnetar.broker.doors.admin.http.siblings import Siblings
from magnetar.broker.doors.admin.http.tunnel import Tunnels, worker_for
from magnetar.broker.doors.websocket.door import WebSocketDoor
from magnetar.broker.metrics import Metrics
from magnetar.broker.ownership import Table, owner_of
from tests.doors.fake_port import FakePort

PRODUCER = "/ws/v2/producer/persistent/public/default"


async def nothing_here(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("no", status_code=404)(scope, receive, send)


class House:
    """A public port with two broker processes behind it."""

    def __init__(self, folder: Path) -> None:
        self.public = str(folder / "public.sock")
        self.paths = [str(folder / f"{number}.sock") for number in range(2)]
        self.ports = [FakePort(), FakePort()]
        self.doors: list[WebSocketDoor] = []
        self.workers: list[HttpServer] = []
        siblings = Siblings(self.paths)
        guard = Guard(Forward(siblings), ())
        self.tunnels = Tunnels(siblings, guard, tunnels_max=3)
        self.server = HttpServer(guard, self.tunnels)
        self._config = BrokerConfig(data=folder)

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        for path, port in zip(self.paths, self.ports, strict=True):
            door = WebSocketDoor(
                port, self._config, clock=SystemClock(), loop=loop, metrics=Metrics()
            )
            worker = HttpServer(nothing_here, door)
            await worker.start(uds_path=path)
            self.doors.append(door)
            self.workers.append(worker)
        await self.server.start(uds_path=self.public)

    async def stop(self) -> None:
        for worker in self.workers:
            await worker.stop()
        await self.server.stop()

    def connect(self, target: str, **options: object) -> Any:
        options.setdefault("compression", None)
        return unix_connect(self.public, uri=f"ws://localhost{target}", **options)


@pytest.fixture
async def house(run_folder: Path) -> AsyncIterator[House]:
    house = House(run_folder)
    await house.start()
    yield house
    await house.stop()


def topic_of(worker: int) -> str:
    return next(
        name
        for name in map(str, range(99))
        if owner_of(f"persistent://public/default/{name}", 2) == worker
    )


async def refused(house: House, target: str, **options: object) -> tuple[int, str]:
    with pytest.raises(InvalidStatus) as caught:
        await house.connect(target, **options)
    response = caught.value.response
    return response.status_code, json.loads(bytes(response.body or b""))["reason"]


@pytest.mark.parametrize("worker", [0, 1])
async def test_a_websocket_reaches_the_process_that_owns_its_topic(
    house: House, worker: int
) -> None:
    async with house.connect(f"{PRODUCER}/{topic_of(worker)}") as client:
        await client.send('{"payload":"eA=="}')
        assert json.loads(await client.recv())["result"] == "ok"
    assert len(house.ports[worker].opened) == 1
    assert not house.ports[1 - worker].opened


async def test_a_refusal_comes_through_as_the_process_gave_it(house: House) -> None:
    status, reason = await refused(house, "/ws/v2/producer/persistent/no/where/t")
    assert (status, "no/where" in reason) == (404, True)


@pytest.mark.parametrize(
    "path",
    [
        "/ws/v3/consumer/s",
        "/ws/v2/producer/persistent/a!/b/c",
        "/ws/v2/producer/never/a/b/c",
        "/ws",
    ],
)
def test_every_path_has_a_process_that_refuses_it(path: str) -> None:
    assert worker_for(path, Table(Assignment.fresh(2)), 2) in {0, 1}


async def test_a_page_of_another_site_gets_no_websocket(house: House) -> None:
    target = f"{PRODUCER}/t"
    assert (await refused(house, target, origin="http://evil.example"))[0] == 403
    async with house.connect(target, origin="http://localhost"):
        pass
    assert not house.ports[0].opened or not house.ports[1].opened


async def test_a_foreign_host_header_gets_no_websocket(house: House) -> None:
    with pytest.raises(InvalidStatus) as caught:
        await unix_connect(house.public, uri=f"ws://evil.example{PRODUCER}/t")
    assert caught.value.response.status_code == 403


async def test_there_are_websockets_below_their_path_only(house: House) -> None:
    assert (await refused(house, "/admin/v2/clusters"))[0] == 404


async def test_a_call_without_upgrade_is_told_what_is_there(house: House) -> None:
    reader, writer = await asyncio.open_unix_connection(house.public)
    writer.write(f"GET {PRODUCER}/t HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert (await reader.readline()).startswith(b"HTTP/1.1 426 ")
    writer.close()


async def test_a_process_that_is_down_is_a_503(house: House) -> None:
    await house.workers[1].stop()
    status, reason = await refused(house, f"{PRODUCER}/{topic_of(1)}")
    assert (status, "broker process 1" in reason) == (503, True)
    async with house.connect(f"{PRODUCER}/{topic_of(0)}"):
        pass


async def test_tunnels_are_bounded(house: House) -> None:
    clients = [await house.connect(f"{PRODUCER}/{number}") for number in range(3)]
    assert (await refused(house, f"{PRODUCER}/4"))[0] == 503
    await clients[0].close()
    async with asyncio.timeout(30):
        while len(house.tunnels) == 3:  # noqa: ASYNC110 - a test looks from outside
            await asyncio.sleep(0.01)
    async with house.connect(f"{PRODUCER}/4"):
        pass
    for client in clients:
        await client.close()


async def test_headers_of_ours_are_not_taken_from_outside(house: House) -> None:
    headers = {"x-magnetar-peer": "1.2.3.4:5", "x-magnetar-here": "1"}
    async with house.connect(f"{PRODUCER}/{topic_of(0)}", additional_headers=headers):
        assert "1.2.3.4" not in house.ports[0].opened[0].request.client_address


async def test_a_slow_client_slows_the_process_behind_the_tunnel(house: House) -> None:
    target = f"/ws/v2/producer/persistent/public/default/{topic_of(0)}"
    client = await house.connect(target, max_size=2**24)
    client.transport.pause_reading()
    padding = "x" * 100_000

    async def flood() -> None:
        for _ in range(1_000):
            await client.send(json.dumps({"payload": "?", "context": padding}))

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(flood(), 1.5)
    client.transport.abort()


async def test_a_process_that_dies_ends_its_websockets(house: House) -> None:
    client = await house.connect(f"{PRODUCER}/{topic_of(1)}")
    for connection in house.doors[1]._connections:
        connection.abort()
    with pytest.raises(ConnectionClosed):
        await asyncio.wait_for(client.recv(), 30)


async def test_stopping_does_not_wait_for_tunnels_for_ever(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunnel_module, "DRAIN_S", 0.1)
    client = await house.connect(f"{PRODUCER}/t")
    client.transport.pause_reading()
    await asyncio.wait_for(house.tunnels.stop(), 30)
    client.transport.abort()
