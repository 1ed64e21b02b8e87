"""A client that calls an ASGI app directly, with paths exactly as a hostile peer sends them."""

import json
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp, Message


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
