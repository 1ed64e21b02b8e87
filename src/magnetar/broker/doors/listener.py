"""The listener: accepts connections for one door, whatever protocol the door speaks.

    listening ──readable──▶ accept up to ACCEPTS_PER_TURN ──▶ door.connect() makes the protocol
        │                        │
        │                        ├─ too many connections: accept, close, count
        │                        ├─ door is crowded: they wait in the kernel's queue for a while
        │                        └─ no descriptors: refuse one by a spare descriptor, then pause
        └──drain──▶ listening sockets closed, door.close(), wait, door.abort()

    accepted ──▶ PROXY header, if one is expected ──▶ TLS handshake, on a TLS port ──▶ the door
                      PROXY_TIMEOUT_S                     HANDSHAKE_TIMEOUT_S

What happens before the door counts as starting: too many of them are as much of a crowd as
connections that have not introduced themselves, and the oldest make room. Where that is asked for,
one host may have only so many handshakes under way, so that it does not fill all the room.

The loops' own servers are not used. asyncio's leaves waiting clients hanging for a second when
descriptors run out, and uvloop's closes the listening socket for good. As NSQ's TCP server does,
a temporary error of `accept` is waited out; as nginx and libuv do, a spare descriptor is kept,
so that the first client turned away sees its connection closed instead of hanging.

It should not come to that: as Redis does, the process's soft limit of descriptors is raised as
far as needed and allowed, and when that is not enough, fewer connections are accepted, so that
files of the storage can always be opened.
"""

import asyncio
import contextlib
import errno
import logging
import resource
import socket
import ssl
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, Protocol

from magnetar.broker.access.attempts import UnderWay, host_of
from magnetar.broker.doors.certificates import (
    HANDSHAKE_TIMEOUT_S,
    SHUTDOWN_TIMEOUT_S,
    Certificates,
    handshake_failure,
)
from magnetar.broker.metrics import Counter, Metrics
from magnetar.broker.wire.proxy import ProxyHeader, ProxyHeaderError

logger = logging.getLogger(__name__)

ACCEPTS_PER_TURN = 64
"""Connections accepted per turn of the loop, so that a flood leaves time for the others."""

CROWDED_PAUSE_S = 0.02
"""How soon to look again when the door has too many connections that have not said who they are."""

STARTING_GRACE_S = 0.5
"""When the door is crowded, a handshake or a PROXY header that has had this long makes room."""

PROXY_TIMEOUT_S = 5.0
"""For a proxy to send its whole header."""

EXHAUSTED_PAUSE_S = 0.2
"""How soon to look again when there was no descriptor left."""

DESCRIPTORS_KEPT = 128
"""Descriptors that connections leave to files, SQLite, admin REST and the process itself: at
most 64 entry logs for reading, and some for each of the others."""


class _TooManyError(Exception):
    """One host has more handshakes under way than it may."""


_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Arrival(NamedTuple):
    """How a connection came in."""

    address: str = ""
    """Host and port of the client, as a proxy gave them; empty: as the socket has them."""
    sibling: bool = False
    """It came from a process of this broker, over a socket that nobody else can reach."""


class Entrance(NamedTuple):
    """Listening sockets of one kind."""

    sockets: Sequence[socket.socket]
    secure: bool = False
    """TLS is spoken there."""
    proxied: bool = False
    """A PROXY header comes first."""
    sibling: bool = False
    """Only processes of this broker can reach them."""


class Door(Protocol):
    """What a listener needs to know of a door."""

    @property
    def connections(self) -> int:
        """How many connections are open."""
        ...

    def connect(self, arrival: Arrival) -> asyncio.BaseProtocol:
        """Make the protocol object of a new connection."""
        ...

    def crowded(self, starting: int) -> bool:
        """Report whether too many connections have not introduced themselves yet.

        `starting` more have been accepted, and will be connected in a moment.
        """
        ...

    def close(self) -> None:
        """Ask every connection to end politely: say good-bye, send what is written, close."""
        ...

    async def emptied(self) -> None:
        """Return once no connection is open."""
        ...

    def abort(self) -> None:
        """End every connection now."""
        ...


class Listener:
    """Accepts connections on listening sockets for one door.

    The sockets may be shared with other processes that accept on them too.
    """

    def __init__(  # noqa: PLR0913 - what a listener is made of
        self,
        entrances: Sequence[Entrance],
        door: Door,
        *,
        connections_max: int,
        loop: asyncio.AbstractEventLoop,
        metrics: Metrics,
        certificates: Certificates | None = None,
        handshakes_per_host_max: int | None = None,
    ) -> None:
        """Accept on all sockets of the entrances; secure ones need certificates."""
        self._per_host_max = handshakes_per_host_max
        self._handshakes = UnderWay()
        self._entrances = {sock: each for each in entrances for sock in each.sockets}
        self._sockets = list(self._entrances)
        self._certificates = certificates
        self._door = door
        self._connections_max = connections_max
        self._loop = loop
        self._refused: Counter = metrics.counter(
            "magnetar_connections_refused_total", "Connections closed at once, for lack of room."
        )
        self._unfinished: Counter = metrics.counter(
            "magnetar_handshakes_failed_total",
            "Connections that ended before their TLS handshake or PROXY header was complete.",
        )
        self._starting: dict[asyncio.Task[object], float] = {}
        """What has been accepted and is not at the door yet, and since when; oldest first."""
        self._pauses: dict[socket.socket, asyncio.TimerHandle] = {}
        self._spare: socket.socket | None = None
        self._serving = False

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it listens: host and port of every socket."""
        return [each.getsockname()[:2] for each in self._sockets if each.family != socket.AF_UNIX]

    def start(self) -> None:
        """Begin to accept."""
        wanted = self._connections_max
        self._connections_max = connections_possible(wanted, _descriptors(wanted))
        if self._connections_max < wanted:
            logger.warning(
                "at most %d connections instead of %d: this process may have no more descriptors",
                self._connections_max,
                wanted,
            )
        self._serving = True
        for each in self._sockets:
            each.setblocking(False)
            self._loop.add_reader(each, self._accept, each)
        self._keep_spare()

    def add(self, entrances: Sequence[Entrance]) -> None:
        """Accept on further sockets, too."""
        for entrance in entrances:
            for each in entrance.sockets:
                self._entrances[each] = entrance
                self._sockets.append(each)
                each.setblocking(False)
                self._loop.add_reader(each, self._accept, each)

    def stop(self) -> None:
        """Accept no more and close the listening sockets. Open connections go on."""
        self._serving = False
        for pause in self._pauses.values():
            pause.cancel()
        self._pauses.clear()
        for each in self._sockets:
            self._loop.remove_reader(each)
            each.close()
        self._sockets.clear()
        if self._spare is not None:
            self._spare.close()
            self._spare = None

    async def drain(self, deadline_s: float) -> int:
        """Stop accepting, let the door say good-bye, and wait; then cut what is left.

        Returns how many connections had to be cut.
        """
        self.stop()
        if self._starting:
            await asyncio.wait(self._starting, timeout=deadline_s)
        self._door.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._door.emptied(), deadline_s)
        cut = self._door.connections
        self._door.abort()
        await asyncio.sleep(0)  # `connection_lost` of what was cut runs in the next turn
        return cut

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            if self._door.crowded(len(self._starting)):
                self._make_room()
                self._pause(listening, CROWDED_PAUSE_S)
                return
            try:
                connection, _ = listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._refuse_by_spare(listening, error)
                    return
                if not self._serving:
                    return
                # The client was gone before we came, or the network has an opinion. Next one.
                logger.info("a connection failed before it was accepted: %s", error)
                continue
            self._begin(connection, self._entrances[listening])

    def _begin(self, connection: socket.socket, entrance: Entrance) -> None:
        if self._door.connections + len(self._starting) >= self._connections_max:
            self._refused.value += 1
            connection.close()
            logger.warning(
                "a connection was closed at once: all %d are in use; connections_max is the limit",
                self._connections_max,
            )
            return
        connection.setblocking(False)
        if entrance.secure or entrance.proxied:
            task = self._loop.create_task(self._introduce(connection, entrance))
        else:
            connect = partial(self._door.connect, Arrival(sibling=entrance.sibling))
            start = self._loop.connect_accepted_socket(connect, connection)
            task = self._loop.create_task(start)
        self._starting[task] = self._loop.time()
        task.add_done_callback(self._started)

    async def _introduce(self, connection: socket.socket, entrance: Entrance) -> object:
        """Take what comes before the protocol, then hand the connection to the door."""
        address = ""
        try:
            address = _address_of(connection)
            if entrance.proxied:
                async with asyncio.timeout(PROXY_TIMEOUT_S):
                    address = await self._proxy_header(connection) or address
            connect = partial(self._door.connect, Arrival(address))
            if not entrance.secure:
                return await self._loop.connect_accepted_socket(connect, connection)
            assert self._certificates is not None
            host = host_of(address)
            self._demand_share(host)
            with self._handshakes.counted(host):
                return await self._loop.connect_accepted_socket(
                    connect,
                    connection,
                    ssl=self._certificates.context,
                    ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S,
                    ssl_shutdown_timeout=SHUTDOWN_TIMEOUT_S,
                )
        except _TooManyError as error:
            self._refused.value += 1
            logger.info("closing %s: %s", address, error)
        except ProxyHeaderError as error:
            self._failed(address, str(error))
        except (ssl.SSLError, OSError, TimeoutError) as error:
            self._failed(address, handshake_failure(error))
        except asyncio.CancelledError:
            self._unfinished.value += 1
            raise
        connection.close()
        return None

    def _demand_share(self, host: str) -> None:
        """Check that a host may have one more handshake under way.

        Raises:
            _TooManyError: it has as many as it may.
        """
        count = self._handshakes[host]
        if self._per_host_max is not None and count >= self._per_host_max:
            raise _TooManyError(f"{count} handshakes from {host} are under way")

    def _failed(self, address: str, why: str) -> None:
        self._unfinished.value += 1
        logger.info("closing %s: %s", address or "a connection", why)

    async def _proxy_header(self, connection: socket.socket) -> str:
        """Read the header that a proxy sends, and no byte more; return the client's address."""
        header = ProxyHeader()
        while not header.done:
            await self._readable(connection)
            arrived = connection.recv(header.room, socket.MSG_PEEK)
            if not arrived:
                raise ConnectionResetError("the proxy hung up")
            connection.recv(header.take(arrived))
        return str(header.source) if header.source else ""

    async def _readable(self, connection: socket.socket) -> None:
        """Return when something can be read."""
        readable = self._loop.create_future()
        self._loop.add_reader(connection, _settle, readable)
        try:
            await readable
        finally:
            self._loop.remove_reader(connection)

    def _make_room(self) -> None:
        """End what has had its time to get to the door."""
        too_old = self._loop.time() - STARTING_GRACE_S
        for task, since in self._starting.items():
            if since > too_old:
                break
            task.cancel()

    def _started(self, task: asyncio.Task[object]) -> None:
        del self._starting[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a connection could not be set up", exc_info=error)

    def _refuse_by_spare(self, listening: socket.socket, error: OSError) -> None:
        logger.warning("not accepting for %g s: %s", EXHAUSTED_PAUSE_S, error)
        if self._spare is not None:
            self._spare.close()
            self._spare = None
            try:
                connection, _ = listening.accept()
                connection.close()
                self._refused.value += 1
            except OSError:
                pass  # nobody waits any more, or another process was faster
            self._keep_spare()
        self._pause(listening, EXHAUSTED_PAUSE_S)

    def _keep_spare(self) -> None:
        if self._spare is None and self._sockets:
            try:
                self._spare = self._sockets[0].dup()
            except OSError:
                self._spare = None  # tried again after the next pause

    def _pause(self, listening: socket.socket, seconds: float) -> None:
        self._loop.remove_reader(listening)
        self._pauses[listening] = self._loop.call_later(seconds, self._resume, listening)

    def _resume(self, listening: socket.socket) -> None:
        del self._pauses[listening]
        self._keep_spare()
        self._loop.add_reader(listening, self._accept, listening)


def _address_of(connection: socket.socket) -> str:
    """Return the host and port at the other end."""
    peer = connection.getpeername()
    return f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "a process of this machine"


def _settle(readable: asyncio.Future[None]) -> None:
    if not readable.done():
        readable.set_result(None)


def connections_possible(wanted: int, descriptors: int) -> int:
    """Return how many of the wanted connections a limit of descriptors allows.

    A very low limit is shared in halves.
    """
    return min(wanted, max(descriptors - DESCRIPTORS_KEPT, descriptors // 2))


def _descriptors(connections: int) -> int:
    """Raise this process's limit for so many connections, if need be; return the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + DESCRIPTORS_KEPT
    if hard != resource.RLIM_INFINITY:
        needed = min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < needed:
        with contextlib.suppress(OSError, ValueError):  # macOS allows less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
            soft = needed
    return connections + DESCRIPTORS_KEPT if soft == resource.RLIM_INFINITY else soft
