"""An ASGI client that sends paths exactly as a hostile peer does, and contexts for the app."""

import json
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp, Message

from magnetar.broker.clock import ManualClock
from magnetar.broker.config import BrokerConfig
from magnetar.broker.doors.admin.context import Context
from magnetar.broker.doors.admin.http.siblings import Siblings
from magnetar.broker.files import DiskFiles
from magnetar.broker.host import Host
from magnetar.broker.metadata.first_start import prepare
from magnetar.broker.metadata.live_settings import LiveSettings
from magnetar.broker.metadata.memory import MemoryStore
from magnetar.broker.metadata.namespaces import Namespaces
from magnetar.broker.metadata.partitions import Partitions
from magnetar.broker.metadata.placement import Placement
from magnetar.broker.metadata.store import Store
from magnetar.broker.metadata.tenants import Clusters, Tenants
from magnetar.broker.metrics import Metrics
from magnetar.broker.ownership import Address, Ownership
from tests.doors.admin.processes import Processes, started


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    pieces: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def reason(self) -> str:
        return str(self.json["reason"])


Ask = Callable[..., Awaitable[Answer]]


@pytest.fixture
def ask() -> Ask:
    async def call(
        app: ASGIApp,
        method: str,
        target: str,
        body: object = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        path, _, query = target.partition("?")
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        all_headers = {"host": "localhost:8080", **(headers or {})}
        if content:
            all_headers.setdefault("content-type", "application/json")
            all_headers.setdefault("content-length", str(len(content)))
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(k.lower().encode(), v.encode()) for k, v in all_headers.items()],
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "http",
            "client": None,
            "server": None,
            "root_path": "",
        }
        waiting: list[Message] = [{"type": "http.request", "body": content, "more_body": False}]
        sent: list[Message] = []

        async def receive() -> Message:
            return waiting.pop() if waiting else {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            sent.append(message)

        await app(scope, receive, send)
        start, *rest = sent
        return Answer(
            start["status"],
            {k.decode().lower(): v.decode("latin-1") for k, v in start["headers"]},
            b"".join(message.get("body", b"") for message in rest),
            sum(bool(message.get("body")) for message in rest),
        )

    return call


@pytest.fixture
def run_folder() -> Iterator[Path]:
    """A folder whose name is short enough for Unix sockets in it."""
    with tempfile.TemporaryDirectory(prefix="mag") as folder:
        yield Path(folder)


ADDRESS = Address("pulsar://localhost:6650", "http://localhost:8080")


@pytest.fixture
def new_context() -> Callable[..., Context]:
    """Make a context over a store; the catalog is up to the test."""

    def make(store: Store, catalog: Any = None, **changed: Any) -> Context:
        siblings = changed.pop("siblings", None) or Siblings(["/nowhere"], own=0)
        worker = changed.pop("worker", 0)
        config = BrokerConfig(data=Path("/data"), worker=worker, workers=len(siblings))
        parts: dict[str, Any] = {
            "catalog": catalog,
            "partitions": Partitions(store),
            "namespaces": Namespaces(store),
            "tenants": Tenants(store),
            "clusters": Clusters(store),
            "placement": Placement(store),
            "ownership": Ownership(worker, [ADDRESS] * len(siblings)),
            "siblings": siblings,
            "settings": LiveSettings(store, config),
            "config": config,
            "metrics": Metrics(),
            "clock": ManualClock(),
            "host": Host(DiskFiles(), ManualClock()),
            "address": ADDRESS,
            "version": "0.0.1",
        }
        return Context(**(parts | changed))

    return make


@pytest.fixture
async def store() -> Store:
    """Metadata as they are after a first start, in memory."""
    store = MemoryStore()
    await prepare(store, "standalone")
    return store


@pytest.fixture
async def one(run_folder: Path) -> AsyncIterator[Processes]:
    """One broker process with real topics."""
    async with started(run_folder, 1) as processes:
        yield processes


@pytest.fixture
async def two(run_folder: Path) -> AsyncIterator[Processes]:
    """Two broker processes with real topics."""
    async with started(run_folder, 2) as processes:
        yield processes


@pytest.fixture(params=[1, 2])
async def any_number(request: pytest.FixtureRequest, run_folder: Path) -> AsyncIterator[Processes]:
    """One broker process, then two: nobody outside must see a difference."""
    async with started(run_folder, request.param) as processes:
        yield processes
