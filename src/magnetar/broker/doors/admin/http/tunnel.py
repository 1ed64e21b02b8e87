"""WebSockets on the public port: handed on to the broker process that serves the topic.

    client ──head──▶ Host, Origin, owner of the topic ──▶ the same head over its Unix socket
    client ◀═════════════ bytes, either way ════════════▶ broker process

Nothing of a WebSocket is understood here, not even its handshake: the process at the other end
answers that. Whichever side takes bytes slowly slows the other one down.
"""

import asyncio
import json
import logging
import zlib
from urllib.parse import unquote

import msgspec

from magnetar.broker.assignment import Assignment
from magnetar.broker.config import KIB
from magnetar.broker.doors.admin.errors import Refusal
from magnetar.broker.doors.admin.http.guard import Guard, grouped
from magnetar.broker.doors.admin.http.siblings import (
    CALLER_HEADER,
    HERE,
    PEER_HEADER,
    Peer,
    Siblings,
)
from magnetar.broker.doors.certificates import verified_name
from magnetar.broker.doors.handshake import Headers, refusal
from magnetar.broker.ownership import Table
from magnetar.names import Domain, InvalidNameError, TopicName

logger = logging.getLogger(__name__)

TUNNELS_MAX = 8_192
"""Two descriptors each. The broker processes have limits of their own, lower ones by default."""
UNSENT_BYTES_MAX = 64 * KIB
CONNECT_TIMEOUT_S = 5.0
DRAIN_S = 2.0
"""For what is still on its way when the processes behind have hung up."""

WS = "/ws/"


class Tunnels:
    """All tunnels of the public port. Implements `handshake.Upgrades`."""

    def __init__(
        self,
        siblings: Siblings,
        guard: Guard,
        table: Table | None = None,
        tunnels_max: int = TUNNELS_MAX,
    ) -> None:
        """Without a table: that of a first start."""
        self._siblings = siblings
        self._table = table or Table(Assignment.fresh(len(siblings)))
        self._guard = guard
        self._tunnels_max = tunnels_max
        self._tunnels: set[Tunnel] = set()
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._tunnels)

    def take(
        self, transport: asyncio.Transport, target: bytes, headers: Headers
    ) -> asyncio.Protocol:
        """Begin a tunnel, or refuse it."""
        try:
            path = self._checked(target, headers)
        except Refusal as error:
            transport.write(refusal(error.status, str(error)))
            transport.close()
            return asyncio.Protocol()
        worker = worker_for(path, self._table, len(self._siblings))
        tunnel = Tunnel(self, transport)
        self._tunnels.add(tunnel)
        self._empty.clear()
        tunnel.begin(self._siblings.path(worker), worker, _head(transport, target, headers))
        return tunnel

    def _checked(self, target: bytes, headers: Headers) -> str:
        """Return the path of a WebSocket that may be opened.

        Raises:
            Refusal: it may not.
        """
        path = _path(target)
        self._guard.check_host(grouped(headers))
        if len(self._tunnels) >= self._tunnels_max:
            raise Refusal(503, f"{self._tunnels_max} WebSockets are open, which is the limit")
        return path

    def gone(self, tunnel: "Tunnel") -> None:
        """Forget a tunnel."""
        self._tunnels.discard(tunnel)
        if not self._tunnels:
            self._empty.set()

    async def stop(self) -> None:
        """Wait for a moment until all have ended, then cut those that have not."""
        try:
            async with asyncio.timeout(DRAIN_S):
                await self._empty.wait()
        except TimeoutError:
            for tunnel in list(self._tunnels):
                tunnel.abort()


class Tunnel(asyncio.Protocol):
    """One tunnel: this object reads the client, `_FarEnd` reads the broker process."""

    def __init__(self, tunnels: Tunnels, transport: asyncio.Transport) -> None:
        self._tunnels = tunnels
        self._near = transport
        self._far: asyncio.Transport | None = None
        self._connecting: asyncio.Task[None] | None = None
        transport.set_write_buffer_limits(high=UNSENT_BYTES_MAX)
        transport.pause_reading()

    def begin(self, path: str, worker: int, head: bytes) -> None:
        """Connect to a broker process, and pass the head of the request on."""
        loop = asyncio.get_running_loop()
        self._connecting = loop.create_task(self._connect(path, worker, head))

    async def _connect(self, path: str, worker: int, head: bytes) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                far, _ = await loop.create_unix_connection(lambda: _FarEnd(self._near), path)
        except (OSError, TimeoutError) as error:
            why = f"broker process {worker} does not answer ({error}); it is being restarted"
            self._near.write(refusal(503, why))
            self._near.close()
            return
        finally:
            self._connecting = None
        self._far = far
        far.set_write_buffer_limits(high=UNSENT_BYTES_MAX)
        far.write(head)
        if self._near.is_closing():
            far.close()
        else:
            self._near.resume_reading()

    # --- the loop calls these about the client

    def data_received(self, data: bytes) -> None:
        if self._far is not None:
            self._far.write(data)

    def eof_received(self) -> None:
        """Close: who sends no more wants no more."""

    def pause_writing(self) -> None:
        if self._far is not None and not self._far.is_closing():
            self._far.pause_reading()

    def resume_writing(self) -> None:
        if self._far is not None and not self._far.is_closing():
            self._far.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - it is gone
        if self._connecting is not None:
            self._connecting.cancel()
        if self._far is not None:
            self._far.close()
        self._tunnels.gone(self)

    def abort(self) -> None:
        """End it now."""
        self._near.abort()


class _FarEnd(asyncio.Protocol):
    """The broker process's side of a tunnel."""

    def __init__(self, near: asyncio.Transport) -> None:
        self._near = near

    def data_received(self, data: bytes) -> None:
        self._near.write(data)

    def eof_received(self) -> None:
        """Close: a process that hangs up has said everything."""

    def pause_writing(self) -> None:
        if not self._near.is_closing():
            self._near.pause_reading()

    def resume_writing(self) -> None:
        if not self._near.is_closing():
            self._near.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - it is gone
        self._near.close()


def worker_for(path: str, table: Table, count: int) -> int:
    """Return the process that owns the topic of a path; one chosen by the path for the others.

    Any process would do: what it does not own it reaches by way of its siblings.
    """
    segments = path.split("/")[1:]
    if len(segments) >= 7 and segments[1] == "v2" and segments[3] in list(Domain):
        domain, tenant, namespace, local = map(unquote, segments[3:7])
        try:
            return table.worker_of(TopicName.parse(f"{domain}://{tenant}/{namespace}/{local}"))
        except InvalidNameError:
            pass  # the process that is asked says so
    return zlib.crc32(path.encode("latin-1")) % count


def _path(target: bytes) -> str:
    """Return the path of a request's target.

    Raises:
        Refusal: 400 or 404, it is nothing that could be passed on.
    """
    text = target.decode("latin-1")
    if not text.isascii() or not text.isprintable() or " " in text:
        raise Refusal(400, "the address has characters that must be escaped")
    path = text.partition("?")[0]
    if not path.startswith(WS):
        raise Refusal(404, "there is no WebSocket here; those of Pulsar begin with /ws/v2/")
    return path


def _head(transport: asyncio.Transport, target: bytes, headers: Headers) -> bytes:
    """Return the head of a request as it is passed on."""
    peer = transport.get_extra_info("peername")
    address = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else ""
    told = Peer(address, verified_name(transport))
    ours = {each.encode() for each in (HERE, CALLER_HEADER, PEER_HEADER)}
    lines = [b"GET %b HTTP/1.1\r\n" % target]
    lines += [b"%b: %b\r\n" % pair for pair in headers if pair[0] not in ours]
    # What is not ASCII is escaped: a header has one encoding, and this is none of its.
    shown = json.dumps(msgspec.to_builtins(told)).encode("ascii")
    lines.append(b"%b: %b\r\n\r\n" % (PEER_HEADER.encode(), shown))
    return b"".join(lines)
