"""The Pulsar door: sockets on one side, sessions on the other. It knows no command.

    awaiting CONNECT ──introduced──▶ open ──close──▶ closing ──▶ closed
         │ connect_timeout_s           │ silent for 2 keep_alive_s         ▲
         └─────────────────────────────┴───────────────abort──────────────┘

Time is kept by one sweep over all connections, not by a timer for each: 10,000 idle connections
cost a flag each.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from magnetar.broker.access.attempts import host_of
from magnetar.broker.access.authorize import Access
from magnetar.broker.clock import Clock, SystemClock
from magnetar.broker.config import BrokerConfig
from magnetar.broker.doors.listener import Arrival
from magnetar.broker.doors.pulsar.buffers import Buffers
from magnetar.broker.doors.pulsar.connection import FRAME_SIZE, SWEEPS_PER_INTERVAL, Connection
from magnetar.broker.doors.pulsar.requests import Hold
from magnetar.broker.doors.pulsar.session import Service, Session
from magnetar.broker.metrics import Metrics
from magnetar.broker.port import Port, Transactions
from magnetar.broker.wire.pulsar.frames import FRAME_OVERHEAD_MAX

logger = logging.getLogger(__name__)

STRANGERS_MAX = 256
"""Connections that have not sent CONNECT. Beyond it the others wait in the kernel's queue."""

STRANGER_GRACE_S = 0.5
"""When there are too many strangers, one that has had this long makes room for the next."""

RIGHTS_DELAY_S = 0.1
"""Changes of permissions within this time are looked at together."""

SESSIONS_PER_TURN = 200
"""Sessions whose credentials or rights are looked at in one turn of the loop."""


class PulsarDoor:
    """Speaks the Pulsar binary protocol on whatever connections a listener accepts."""

    def __init__(  # noqa: PLR0913 - what a door is made of
        self,
        port: Port,
        config: BrokerConfig,
        *,
        loop: asyncio.AbstractEventLoop,
        metrics: Metrics,
        server_version: str,
        clock: Clock | None = None,
        access: Access | None = None,
        transactions: Transactions | None = None,
    ) -> None:
        """Without `transactions`, commands about them are refused."""
        self.config = config
        self.loop = loop
        self.buffers = Buffers()
        self.frame_bytes_max = FRAME_SIZE.size + config.message_bytes_max + FRAME_OVERHEAD_MAX
        self.unsent_max = config.write_buffer_bytes_per_connection_max
        self.service = Service(
            port,
            config,
            loop,
            metrics,
            server_version,
            access,
            transactions,
            clock=clock or SystemClock(),
        )
        self._connections: set[Connection] = set()
        self._strangers: dict[Connection, float] = {}
        self._dirty: list[Connection] = []
        self._empty = asyncio.Event()
        self._empty.set()
        self._sweep_s = config.keep_alive_s / SWEEPS_PER_INTERVAL
        self._greet_s = config.connect_timeout_s / SWEEPS_PER_INTERVAL
        self._sweeping = self._greeting = False
        self._access = access
        self._looking: asyncio.Task[None] | None = None
        self._looking_at_rights: asyncio.Task[None] | None = None
        if access is not None:
            access.grantor.when_changed(self._rights_changed)
        counter = metrics.counter
        metrics.gauge("pulsar_active_connections", "Open connections.", lambda: self.connections)
        metrics.gauge(
            "pulsar_broker_throttled_connections",
            "Connections not read from because of what waits for the disk or because of a rate.",
            lambda: self._held_by(Hold.PENDING | Hold.RATE),
        )
        metrics.gauge(
            "pulsar_broker_throttled_connections_global_limit",
            "Connections not read from because too much of all waits for the disk.",
            lambda: self._held_by(Hold.PUBLISHING),
        )
        self._created = counter("pulsar_connection_created_total_count", "Connections accepted.")
        self._succeeded = counter(
            "pulsar_connection_create_success_count", "Connections that completed CONNECT."
        )
        self._failed = counter(
            "pulsar_connection_create_fail_count", "Connections that ended before CONNECT."
        )
        self._closed = counter("pulsar_connection_closed_total_count", "Connections that ended.")
        self.broken = counter(
            "magnetar_connections_broken_total", "Connections closed for what they sent."
        )

    # --- the listener calls these

    def _held_by(self, reasons: int) -> int:
        return sum(each.held_by(reasons) for each in self._connections)

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    def connect(self, arrival: Arrival) -> Connection:
        """Make the protocol object of a new connection."""
        return Connection(self, arrival)

    def crowded(self, starting: int) -> bool:
        """Report whether too many connections have not introduced themselves yet.

        Those that had time for it then make room, as many as are needed for the next turn.
        """
        if len(self._strangers) + starting < STRANGERS_MAX:
            return False
        too_old = self.loop.time() - STRANGER_GRACE_S
        for each, since in list(self._strangers.items()):
            if since > too_old:
                break
            each.abort()
        return True

    def close(self) -> None:
        """Ask every connection to end politely."""
        for each in list(self._connections):
            each.session.drain()

    async def emptied(self) -> None:
        """Return once no connection is open."""
        await self._empty.wait()

    def abort(self) -> None:
        """End every connection now."""
        for each in list(self._connections):
            each.abort()

    # --- connections call these

    def opened(self, connection: Connection) -> None:
        """Count a connection that has just been accepted."""
        self._connections.add(connection)
        self._empty.clear()
        self._strangers[connection] = self.loop.time()
        self._created.value += 1
        if self._access is not None:
            self._watch_logins(connection)
        if not self._sweeping:
            self._sweeping = True
            self.loop.call_later(self._sweep_s, self._sweep)
        if not self._greeting:
            self._greeting = True
            self.loop.call_later(self._greet_s, self._greet)

    def knows(self, connection: Connection) -> bool:
        """Report whether a connection has sent CONNECT."""
        return connection not in self._strangers

    def introduced(self, connection: Connection) -> None:
        """Count a connection that has sent CONNECT."""
        if self._strangers.pop(connection, None) is not None:
            self._succeeded.value += 1

    def closed(self, connection: Connection) -> None:
        """Forget a connection."""
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()
        self._closed.value += 1
        if self._strangers.pop(connection, None) is not None:
            self._failed.value += 1

    # --- log-in

    def _watch_logins(self, connection: Connection) -> None:
        """Bound who has not logged in, by where they come from; look after those who have."""
        limit = self.config.strangers_per_address_max
        host = host_of(connection.address)
        if (
            not connection.sibling
            and sum(host_of(each.address) == host for each in self._strangers) > limit
        ):
            logger.info("closing %s: %d from there have not logged in", connection.address, limit)
            self.loop.call_soon(connection.abort)
        if self._looking is None:
            self._looking = self.loop.create_task(self._look_at_credentials())

    async def _look_at_credentials(self) -> None:
        """See now and then whether those who logged in may stay, as long as there are any."""
        while self._connections:
            await asyncio.sleep(self.config.credential_check_s)
            await self._each_session(Session.look_at_credential)
            await self._each_session(Session.look_at_rights)
        self._looking = None

    def _rights_changed(self) -> None:
        """Close what clients may not have any more, soon."""
        if self._looking_at_rights is None and self._connections:
            self._looking_at_rights = self.loop.create_task(self._look_at_rights())

    async def _look_at_rights(self) -> None:
        await asyncio.sleep(RIGHTS_DELAY_S)
        # What changes from here on has to be looked at once more.
        self._looking_at_rights = None
        await self._each_session(Session.look_at_rights)

    async def _each_session(self, look: Callable[[Session], None]) -> None:
        """Look at every session, a bounded number per turn of the loop."""
        for number, each in enumerate(list(self._connections), 1):
            each.guard(partial(look, each.session))
            if number % SESSIONS_PER_TURN == 0:
                await asyncio.sleep(0)

    def written(self, connection: Connection) -> None:
        """See that a connection is flushed at the end of this turn."""
        if not self._dirty:
            self.loop.call_soon(self._flush)
        self._dirty.append(connection)

    def _flush(self) -> None:
        dirty, self._dirty = self._dirty, []
        for each in dirty:
            each.flush()

    def _sweep(self) -> None:
        for each in list(self._connections):
            each.sweep()
        self._sweeping = bool(self._connections)
        if self._sweeping:
            self.loop.call_later(self._sweep_s, self._sweep)

    def _greet(self) -> None:
        """Close connections that had their time to send CONNECT."""
        too_old = self.loop.time() - self.config.connect_timeout_s
        for each, since in list(self._strangers.items()):
            if since > too_old:
                break
            logger.info("closing %s: no CONNECT in time", each.address)
            each.abort()
            # `connection_lost` comes in the next turn; do not close it twice meanwhile.
            self._strangers.pop(each, None)
            self._failed.value += 1
        self._greeting = bool(self._strangers)
        if self._greeting:
            self.loop.call_later(self._greet_s, self._greet)
