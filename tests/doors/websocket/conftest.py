"""A WebSocket door behind an HTTP server, with a fake core behind it, on both event loops."""

import asyncio
import json
import tempfile
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvloop
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import ClientConnection, unix_connect
from websockets.exceptions import InvalidStatus

from magnetar.broker.access.authorize import Access
from magnetar.broker.clock import SystemClock
from magnetar.broker.config import BrokerConfig
from magnetar.broker.doors.admin.http.server import HttpServer
from magnetar.broker.doors.websocket.door import WebSocketDoor
from magnetar.broker.doors.websocket.login import Identify
from magnetar.broker.metrics import Metrics
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.broker.wire.pulsar.made import Made, made, run_of
from tests.doors.fake_port import LEDGER as LEDGER_OF_THE_FAKE
from tests.doors.fake_port import FakePort, FakeTopic

__all__ = ["LEDGER_OF_THE_FAKE"]

TOPIC = "persistent/public/default/t"
NAME = "persistent://public/default/t"
WAIT_S = 30.0


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run every test of this folder on both loops that a broker may run on."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def base64(data: bytes) -> str:
    return b64encode(data).decode()


def id_of(message: dict[str, Any]) -> api.MessageIdData:
    return api.MessageIdData.FromString(b64decode(message["messageId"]))


class Client:
    """One WebSocket, in JSON."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def tell(self, **message: Any) -> None:
        await self.socket.send(json.dumps(message))

    async def hear(self) -> dict[str, Any]:
        heard = await asyncio.wait_for(self.socket.recv(), WAIT_S)
        told: dict[str, Any] = json.loads(heard)
        return told

    async def publish(self, payload: bytes = b"x", **more: Any) -> dict[str, Any]:
        await self.tell(payload=base64(payload), **more)
        return await self.hear()

    async def receive(self, count: int = 1, *, ack: bool = False) -> list[dict[str, Any]]:
        received = []
        for _ in range(count):
            received.append(await self.hear())
            if ack:
                await self.ack(received[-1])
        return received

    async def ack(self, message: dict[str, Any]) -> None:
        await self.tell(messageId=message["messageId"])

    async def silence(self, seconds: float = 0.1) -> None:
        """Nothing is said for a while."""
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(self.socket.recv(), seconds)

    async def end(self) -> tuple[int | None, str | None]:
        """Wait until the door hangs up; return code and reason."""
        await asyncio.wait_for(self.socket.wait_closed(), WAIT_S)
        return self.socket.close_code, self.socket.close_reason


@dataclass
class Rig:
    """One door, the fake core, and the clients of a test."""

    port: FakePort
    door: WebSocketDoor
    path: str
    clients: list[ClientConnection] = field(default_factory=list)

    async def connect(self, target: str, **options: Any) -> Client:
        options.setdefault("max_size", 2**24)
        options.setdefault("compression", None)
        socket = await unix_connect(self.path, uri=f"ws://localhost/ws/{target}", **options)
        self.clients.append(socket)
        return Client(socket)

    async def producer(self, query: str = "", topic: str = TOPIC) -> Client:
        return await self.connect(f"v2/producer/{topic}?{query}")

    async def consumer(self, query: str = "", topic: str = TOPIC, name: str = "s") -> Client:
        return await self.connect(f"v2/consumer/{topic}/{name}?{query}")

    async def reader(self, query: str = "", topic: str = TOPIC) -> Client:
        return await self.connect(f"v2/reader/{topic}?{query}")

    async def refused(self, target: str, **options: Any) -> tuple[int, str]:
        """Return status and reason of a handshake that fails."""
        with pytest.raises(InvalidStatus) as caught:
            await self.connect(target, **options)
        response = caught.value.response
        return response.status_code, json.loads(bytes(response.body or b""))["reason"]

    def topic(self, name: str = NAME) -> FakeTopic:
        return self.port.topic(name)

    def store(self, *payloads: bytes, name: str = NAME, **metadata: Any) -> None:
        """Put entries into a topic, each one message."""
        for number, payload in enumerate(payloads):
            head = api.MessageMetadata(
                producer_name="p", sequence_id=number, publish_time=1_700_000_000_123, **metadata
            )
            self.put(made(head, payload), name)

    def put(self, entry: Made, name: str = NAME) -> None:
        run = run_of([(0, entry)])
        self.topic(name).append(run.rows, bytes(run.body(0)))
        self.dispatch()

    def dispatch(self) -> None:
        for topic in self.port.topic_table.values():
            for subscription in topic.subscriptions.values():
                subscription.dispatch()

    async def until(self, condition: Callable[[], bool], timeout_s: float = WAIT_S) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():  # noqa: ASYNC110 - a test looks from outside
                await asyncio.sleep(0.005)


async def nothing_here(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("no", status_code=404)(scope, receive, send)


@pytest.fixture
def run_folder() -> Iterator[Path]:
    """A folder whose path is short enough for a Unix socket."""
    with tempfile.TemporaryDirectory(prefix="ws-") as folder:
        yield Path(folder)


Serve = Callable[..., Any]


@pytest.fixture
async def serve(run_folder: Path) -> AsyncIterator[Serve]:
    """Open doors with settings of the test's own."""
    servers: list[HttpServer] = []
    rigs: list[Rig] = []

    async def serve(
        access: Access | None = None, identify: Identify | None = None, **settings: Any
    ) -> Rig:
        port = FakePort()
        config = BrokerConfig(data=run_folder, **settings)
        loop = asyncio.get_running_loop()
        door = WebSocketDoor(
            port,
            config,
            clock=SystemClock(),
            loop=loop,
            metrics=Metrics(),
            access=access,
            identify=identify,
        )
        server = HttpServer(nothing_here, door)
        path = str(run_folder / f"{len(servers)}.sock")
        await server.start(uds_path=path)
        servers.append(server)
        rigs.append(Rig(port, door, path))
        return rigs[-1]

    yield serve
    for rig in rigs:
        rig.port.clear()
        rig.port.hold = False
        rig.port.commit()
        for client in rig.clients:
            client.transport.abort()
    for server in servers:
        await server.stop()


@pytest.fixture
async def rig(serve: Serve) -> Rig:
    rig: Rig = await serve()
    return rig
