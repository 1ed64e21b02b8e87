"""One HTTP server inside a process that already has an event loop.

uvicorn speaks HTTP/1.1; this module gives it what a shared process needs: it starts and
stops without touching signals, and a client that sends its request head slowly, or without
end, is cut off instead of collected.

    connect ──▶ head (HEAD_BYTES_MAX, HEAD_TIMEOUT_S) ──▶ app ──▶ answer ──▶ idle ─┐
                  ▲                                                 IDLE_TIMEOUT_S │
                  └────────────────────────────────────────────────────────────────┘
"""

import asyncio
import socket
from collections.abc import Sequence
from typing import Any

from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

HEAD_BYTES_MAX = 64 * 1024
"""Request line and headers together. The longest legal names, each character escaped as three
in UTF-8, need about half of it."""
HEAD_TIMEOUT_S = 10.0
IDLE_TIMEOUT_S = 30.0
CONNECTIONS_MAX = 512
"""One more is answered with 503."""
STOP_TIMEOUT_S = 5.0
"""How long requests under way may take once the server stops."""


class _Protocol(HttpToolsProtocol):
    """uvicorn's protocol, with bounds on the head of a request."""

    _head_bytes = 0
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._got_head()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        self._head_bytes = 0
        if self._head_timer is None:
            self._await_head()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._got_head()
        super().on_headers_complete()

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > HEAD_BYTES_MAX:
            # The parser turns this into its own error, and uvicorn answers 400 and closes.
            raise ValueError(f"request head of more than {HEAD_BYTES_MAX} bytes")

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self.transport.abort)

    def _got_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class HttpServer:
    """Serves one app on given sockets, or on one Unix socket."""

    def __init__(self, app: ASGIApp) -> None:
        self._config = Config(
            app,
            http=_Protocol,
            ws="none",
            loop="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            limit_concurrency=CONNECTIONS_MAX,
            timeout_keep_alive=int(IDLE_TIMEOUT_S),
        )
        self._config.load()
        self._state = ServerState()
        self._servers: list[asyncio.Server] = []

    def _protocol(self) -> asyncio.Protocol:
        app_state: dict[str, Any] = {}
        return _Protocol(self._config, self._state, app_state)

    async def start(
        self, *, sockets: Sequence[socket.socket] = (), uds_path: str | None = None
    ) -> None:
        """Accept connections from now on. Bound sockets are taken over; a stale path is reused.

        The Unix socket is protected by its folder, which only the owner may enter.
        """
        loop = asyncio.get_running_loop()
        for sock in sockets:
            if sock.family != socket.AF_UNIX:
                # Accepted sockets inherit it. asyncio itself sets it only on sockets that were
                # made with their protocol named; without, an answer in two writes waits 40 ms.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._servers.append(await loop.create_server(self._protocol, sock=sock))
        if uds_path is not None:
            self._servers.append(await loop.create_unix_server(self._protocol, uds_path))

    async def stop(self) -> None:
        """Accept no more, let requests under way finish, then hang up. Safe to call twice."""
        for server in self._servers:
            server.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        under_way = list(self._state.tasks)
        if under_way:
            _, late = await asyncio.wait(under_way, timeout=STOP_TIMEOUT_S)
            for task in late:
                task.cancel()
        for connection in list(self._state.connections):
            connection.transport.abort()
        for server in self._servers:
            await server.wait_closed()
        self._servers.clear()
