"""One HTTP server inside a process that already has an event loop.

uvicorn speaks HTTP/1.1; this module gives it what a shared process needs: it starts and
stops without touching signals, and a client that sends its request head slowly, or without
end, is cut off instead of collected.

    connect ──▶ head (HEAD_BYTES_MAX, HEAD_TIMEOUT_S) ──▶ app ──▶ answer ──▶ idle ─┐
                  ▲  │                                              IDLE_TIMEOUT_S │
                  └──┼─────────────────────────────────────────────────────────────┘
                     └─ Upgrade: websocket ──▶ Upgrades.take, and HTTP is over

HTTPS connections are accepted by a listener, as those of other doors are, which sees to their
handshakes and to certificates that change; then they are like the others.

The parser reports a header, of the head or behind a chunked body, when its line ends, and keeps
what came of it until then. So what it took and did not report is counted too, read by read.
"""

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Sequence

from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from magnetar.broker.access.attempts import host_of
from magnetar.broker.doors.certificates import Certificates, foreign_hello, verified_name
from magnetar.broker.doors.handshake import Upgrades
from magnetar.broker.doors.listener import Arrival, Entrance, Listener
from magnetar.broker.metrics import Metrics

logger = logging.getLogger(__name__)

HEAD_BYTES_MAX = 64 * 1024
"""Request line and headers together. The longest legal names, each character escaped as three
in UTF-8, need about half of it."""
HEAD_TIMEOUT_S = 10.0
IDLE_TIMEOUT_S = 30.0
CONNECTIONS_MAX = 512
"""At that many, whoever has waited longest without a complete request makes room for a new one,
so that a monitor is served while others only hold connections. If nobody has, but another host
has more than half of them, that one loses one; else it gets 503."""
HANDSHAKES_MAX = 256
"""HTTPS connections whose handshake is under way. More wait in the kernel's queue."""
HANDSHAKES_PER_HOST_MAX = 64
"""... of one host."""
PIPELINED_MAX = 16
"""Requests that wait for the answer to an earlier one on the same connection. One read may hold
thousands, and each becomes many times as large once it is taken apart."""
STOP_TIMEOUT_S = 5.0
"""How long requests under way may take once the server stops."""


class _Protocol(HttpToolsProtocol):
    """uvicorn's protocol, with bounds on the head of a request, and on connections that wait."""

    _head_bytes = 0
    _unreported_bytes = 0
    """Received since the read in which a head, a piece of body or a request last was complete."""
    _head_timer: asyncio.TimerHandle | None = None
    _spoken = False
    """Whether anything came."""
    host = ""
    """Whom it counts for; empty: a process of this broker."""

    def __init__(
        self,
        config: Config,
        state: ServerState,
        waiting: "dict[_Protocol, None]",
        upgrades: Upgrades | None,
    ) -> None:
        """Share `waiting` with all connections: those without a complete request, oldest first."""
        super().__init__(config, state, {})
        self._waiting = waiting
        self._upgrades = upgrades

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # Every request of the connection has it in its scope's `state`.
        self.app_state = {CERTIFICATE: verified_name(transport)}
        self.host = host_of(f"{self.client[0]}:0") if self.client else ""
        self._await_head()
        if len(self.connections) >= CONNECTIONS_MAX:
            self._make_room()
        self._waiting[self] = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._got_head()
        self._waiting.pop(self, None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._spoken:
            self._spoken = True
            if data[:2] == b"\x16\x03":
                logger.info("closing %s: %s", self.client, foreign_hello(data))
                self.transport.write(NO_TLS)  # no TLS either, which its client will say
                self.transport.close()
                return
        self._unreported_bytes += len(data)
        super().data_received(data)
        if self._unreported_bytes > HEAD_BYTES_MAX and not self.transport.is_closing():
            self.send_400_response(f"request head of more than {HEAD_BYTES_MAX} bytes")

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= PIPELINED_MAX:
            # The parser turns this into its own error, and uvicorn answers 400 and closes.
            raise ValueError(f"more than {PIPELINED_MAX} requests wait for their answers")
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
        self._unreported_bytes = 0
        self._got_head()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unreported_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unreported_bytes = 0
        self._waiting.pop(self, None)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        if not self.pipeline and not self.transport.is_closing():
            self._waiting[self] = None
        super().on_response_complete()

    def _should_upgrade_to_ws(self) -> bool:
        return self._upgrades is not None

    def handle_websocket_upgrade(self) -> None:
        """Let somebody else have the connection. What uvicorn knows of it ends here."""
        assert self._upgrades is not None
        self._got_head()
        self._waiting.pop(self, None)
        self.connections.discard(self)
        taker = self._upgrades.take(self.transport, self.url, self.headers)
        self.transport.set_protocol(taker)

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > HEAD_BYTES_MAX:
            # The parser turns this into its own error, and uvicorn answers 400 and closes.
            raise ValueError(f"request head of more than {HEAD_BYTES_MAX} bytes")

    def _make_room(self) -> None:
        """Hang up on who has waited longest; those with a request under way are let finish."""
        oldest = next(iter(self._waiting), None) or self._one_of_a_crowd()
        if oldest is not None:
            self._waiting.pop(oldest, None)
            self.connections.discard(oldest)  # now, not when the loop comes to it
            oldest.transport.abort()

    def _one_of_a_crowd(self) -> "_Protocol | None":
        """Return a connection of another host, if that has more than half of all."""
        known = [each for each in self.connections if isinstance(each, _Protocol)]
        host, count = Counter(each.host for each in known).most_common(1)[0]
        if not host or host == self.host or count <= CONNECTIONS_MAX // 2:
            return None
        return next(each for each in known if each.host == host)

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self.transport.abort)

    def _got_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


NO_TLS = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"

CERTIFICATE = "certificate"
"""Key in a scope's `state`: the common name in the client's verified certificate, or None."""


class _SecureDoor:
    """The server as a listener sees it. Connections are the server's own business."""

    def __init__(self, server: "HttpServer") -> None:
        self._server = server

    @property
    def connections(self) -> int:
        """None of the listener's concern: the server makes room for new ones itself."""
        return 0

    def connect(self, arrival: Arrival) -> asyncio.BaseProtocol:  # noqa: ARG002 - as doors do
        return self._server.protocol()

    def crowded(self, starting: int) -> bool:
        return starting >= HANDSHAKES_MAX

    def close(self) -> None:
        """Do nothing: see `HttpServer.stop`."""

    async def emptied(self) -> None:
        """Return at once."""

    def abort(self) -> None:
        """Do nothing: see `HttpServer.stop`."""


class HttpServer:
    """Serves one app on given sockets, or on one Unix socket."""

    def __init__(self, app: ASGIApp, upgrades: Upgrades | None = None) -> None:
        """Serve `app`; give WebSocket connections to `upgrades`, if there is one."""
        self._upgrades = upgrades
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
        self._waiting: dict[_Protocol, None] = {}
        self._servers: list[asyncio.Server] = []
        self._secure: Listener | None = None

    def protocol(self) -> asyncio.Protocol:
        """Make the protocol object of a new connection."""
        return _Protocol(self._config, self._state, self._waiting, self._upgrades)

    async def start(
        self, *, sockets: Sequence[socket.socket] = (), uds_path: str | None = None
    ) -> None:
        """Accept connections from now on. Bound sockets are taken over; a stale path is reused.

        The Unix socket is protected by its folder, which only the owner may enter.
        """
        loop = asyncio.get_running_loop()
        for sock in sockets:
            _send_at_once(sock)
            self._servers.append(await loop.create_server(self.protocol, sock=sock))
        if uds_path is not None:
            self._servers.append(await loop.create_unix_server(self.protocol, uds_path))

    def start_secure(self, sockets: Sequence[socket.socket], certificates: Certificates) -> None:
        """Accept HTTPS connections too. Bound sockets are taken over."""
        for sock in sockets:
            _send_at_once(sock)
        self._secure = Listener(
            [Entrance(sockets, secure=True)],
            _SecureDoor(self),
            connections_max=CONNECTIONS_MAX,
            loop=asyncio.get_running_loop(),
            metrics=Metrics(),
            certificates=certificates,
            handshakes_per_host_max=HANDSHAKES_PER_HOST_MAX,
        )
        self._secure.start()

    async def stop(self) -> None:
        """Accept no more, let requests under way finish, then hang up. Safe to call twice."""
        if self._secure is not None:
            self._secure.stop()
        for server in self._servers:
            server.close()
        if self._upgrades is not None:
            await self._upgrades.stop()
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


def _send_at_once(sock: socket.socket) -> None:
    """Let what is written leave without waiting for more."""
    if sock.family != socket.AF_UNIX:
        # Accepted sockets inherit it. asyncio itself sets it only on sockets that were
        # made with their protocol named; without, an answer in two writes waits 40 ms.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
