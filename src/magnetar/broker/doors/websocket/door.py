"""The WebSocket door: connections on one side, sessions on the other.

    handshake taken over from HTTP ──▶ options ──▶ session.open ──▶ 101, or 4xx, 5xx with a reason

What sessions need, and the websockets library, which takes frames apart and puts them together, is
loaded when the first client comes. As in the Pulsar door, one sweep over all connections keeps the
time.
"""

import asyncio
import logging
from typing import TYPE_CHECKING

from magnetar.broker.access.authorize import Access
from magnetar.broker.clock import Clock
from magnetar.broker.config import BrokerConfig
from magnetar.broker.doors.handshake import Headers, refusal
from magnetar.broker.doors.websocket.connection import SWEEPS_PER_INTERVAL, Connection
from magnetar.broker.doors.websocket.line import Session
from magnetar.broker.doors.websocket.login import Identify
from magnetar.broker.doors.websocket.service import Service
from magnetar.broker.metrics import Metrics
from magnetar.broker.port import Port

if TYPE_CHECKING:
    from magnetar.broker.doors.websocket.sessions import Sessions

logger = logging.getLogger(__name__)

DRAIN_S = 3.0
"""For all clients to hear good-bye."""
RIGHTS_DELAY_S = 0.1
"""Changes of permissions within this time are looked at together."""
CONNECTIONS_PER_TURN = 200
"""Connections whose rights are looked at in one turn of the loop."""


class WebSocketDoor:
    """Speaks Pulsar's WebSocket API on connections that an HTTP server hands over."""

    def __init__(  # noqa: PLR0913 - what a door is made of
        self,
        port: Port,
        config: BrokerConfig,
        *,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        metrics: Metrics,
        access: Access | None = None,
        identify: Identify | None = None,
    ) -> None:
        """Open the door.

        Args:
            port: What it stands in front of.
            config: The settings of the broker process.
            clock: Measures how long things wait.
            loop: The event loop.
            metrics: Where it counts.
            access: Who may do what; None: log-in is off.
            identify: Tells from headers who sends them.
        """
        self.access = access
        self.identify = identify
        self._looking: asyncio.Task[None] | None = None
        self._looking_at_rights = False
        if access is not None:
            access.grantor.when_changed(self._rights_changed)
        self._service = Service(port, config, clock, loop)
        self._config = config
        self.loop = loop
        self.unsent_max = config.write_buffer_bytes_per_connection_max
        self.partial_bytes = 0
        self._connections: set[Connection] = set()
        self._dirty: list[Connection] = []
        self._closing_sessions: set[asyncio.Task[None]] = set()
        self._sessions: Sessions | None = None
        self._sweep_s = config.keep_alive_s / SWEEPS_PER_INTERVAL
        self._sweeping: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()
        self._empty.set()
        metrics.gauge(
            "magnetar_websockets", "Open WebSocket connections.", lambda: len(self._connections)
        )
        self.opened = metrics.counter(
            "magnetar_websockets_opened_total", "WebSocket connections that were let in."
        )
        self.refused = metrics.counter(
            "magnetar_websockets_refused_total", "WebSocket connections that were not."
        )

    def take(
        self, transport: asyncio.Transport, target: bytes, headers: Headers
    ) -> asyncio.Protocol:
        """Take a connection over whose client asked for WebSocket."""
        if len(self._connections) >= self._config.websocket_connections_max:
            self.refused.value += 1
            limit = self._config.websocket_connections_max
            transport.write(refusal(503, f"{limit} WebSockets are open, which is the limit"))
            transport.close()
            return asyncio.Protocol()
        connection = Connection(self, transport, target, headers)
        self._connections.add(connection)
        self._empty.clear()
        if self._sweeping is None:
            self._sweeping = self.loop.call_later(self._sweep_s, self._sweep)
        if self.access is not None and self._looking is None:
            self._looking = self.loop.create_task(self._look_again_and_again())
        return connection

    async def stop(self) -> None:
        """Say good-bye to every client, and wait for a moment."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        if self._looking is not None:
            self._looking.cancel()
        farewells = [self.loop.create_task(each.say_goodbye()) for each in self._connections]
        if farewells:
            await asyncio.wait(farewells, timeout=DRAIN_S)
        try:
            async with asyncio.timeout(DRAIN_S):
                await self._empty.wait()
        except TimeoutError:
            for connection in list(self._connections):
                connection.abort()
        if self._closing_sessions:
            await asyncio.wait(self._closing_sessions, timeout=DRAIN_S)

    # --- connections call these

    async def sessions(self) -> "Sessions":
        """Return what makes sessions. The first time, it is loaded in a thread."""
        if self._sessions is None:
            self._sessions = await asyncio.to_thread(_load_sessions, self._service)
        return self._sessions

    def written(self, connection: Connection) -> None:
        """Note that a connection has something to write, once per turn."""
        if not self._dirty:
            self.loop.call_soon(self._write)
        self._dirty.append(connection)

    def end(self, session: Session) -> None:
        """Close a session whose connection is gone."""
        task = self.loop.create_task(self.close_session(session))
        self._closing_sessions.add(task)
        task.add_done_callback(self._closing_sessions.discard)

    async def close_session(self, session: Session) -> None:
        """Close a session; what goes wrong is logged."""
        try:
            await session.close()
        except Exception:
            logger.exception("a session could not be closed")

    def gone(self, connection: Connection) -> None:
        """Forget a connection."""
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()
            if self._sweeping is not None:
                self._sweeping.cancel()
                self._sweeping = None

    # --- log-in

    async def _look_again_and_again(self) -> None:
        """See now and then whether those who logged in may stay, as long as there are any."""
        while self._connections:
            await asyncio.sleep(self._config.credential_check_s)
            await self._look_at_rights()
        self._looking = None

    def _rights_changed(self) -> None:
        if not self._looking_at_rights and self._connections:
            self._looking_at_rights = True
            self.loop.create_task(self._look_soon())

    async def _look_soon(self) -> None:
        # What changes from here on has to be looked at once more.
        await asyncio.sleep(RIGHTS_DELAY_S)
        self._looking_at_rights = False
        await self._look_at_rights()

    async def _look_at_rights(self) -> None:
        for number, connection in enumerate(list(self._connections), 1):
            connection.look_at_rights()
            if number % CONNECTIONS_PER_TURN == 0:
                await asyncio.sleep(0)

    # --- the loop calls these

    def _write(self) -> None:
        dirty, self._dirty = self._dirty, []
        for connection in dirty:
            connection.flush()

    def _sweep(self) -> None:
        self._sweeping = self.loop.call_later(self._sweep_s, self._sweep)
        for connection in list(self._connections):
            connection.sweep()


def _load_sessions(service: Service) -> "Sessions":
    from magnetar.broker.doors.websocket.sessions import Sessions  # noqa: PLC0415 - see there

    return Sessions(service)
