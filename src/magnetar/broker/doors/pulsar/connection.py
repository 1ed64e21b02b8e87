"""One connection: receive buffers, writes, and when to stop reading. It knows no command.

    recv_into ──▶ get_buffer / buffer_updated ──▶ Session.receive(bytes) ──▶ position reached
                                                        │ send, deliver
    socket ◀── one write per connection and turn ◀──────┘

What is written in one turn of the loop leaves in one write. Reading stops while any reason
for that holds (`Hold`), and goes on with what was already in the buffer.

The shape is uvicorn's protocol classes and NSQ's protocol_v2: one object per connection that
owns the socket, and none of the meaning.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from struct import Struct
from typing import Protocol, cast

from magnetar.broker.config import KIB, BrokerConfig
from magnetar.broker.doors.certificates import foreign_hello, verified_name
from magnetar.broker.doors.listener import Arrival
from magnetar.broker.doors.pulsar.buffers import SMALL_FRAME_BYTES_MAX, Buffers, OutOfBuffersError
from magnetar.broker.doors.pulsar.requests import Hold
from magnetar.broker.doors.pulsar.session import Service, Session
from magnetar.broker.metrics import Counter
from magnetar.broker.run import Bytes
from magnetar.broker.wire.pulsar.connection import ProtocolError
from magnetar.broker.wire.pulsar.frames import FrameError

logger = logging.getLogger(__name__)

SWEEPS_PER_INTERVAL = 4
"""Timeouts are noticed within this fraction of their length."""

JOINED_WRITE_BYTES_MAX = 64 * KIB
"""Up to this size the pieces of one write are joined; larger ones are handed over as they are."""

FRAME_SIZE = Struct(">I")


class House(Protocol):
    """The door, as a connection sees it."""

    config: BrokerConfig
    loop: asyncio.AbstractEventLoop
    buffers: Buffers
    frame_bytes_max: int
    unsent_max: int
    service: Service
    broken: Counter

    def opened(self, connection: "Connection", /) -> None: ...
    def knows(self, connection: "Connection", /) -> bool: ...
    def introduced(self, connection: "Connection", /) -> None: ...
    def written(self, connection: "Connection", /) -> None: ...
    def closed(self, connection: "Connection", /) -> None: ...


class Connection(asyncio.BufferedProtocol):
    """One connection: receive buffers, writes, and when to stop reading."""

    __slots__ = (
        "_aborted",
        "_door",
        "_filled",
        "_frame_bytes",
        "_heard",
        "_holds",
        "_left",
        "_out",
        "_out_bytes",
        "_own",
        "_paused",
        "_silent_sweeps",
        "_transport",
        "_turned_away",
        "_unsent",
        "address",
        "certificate",
        "session",
        "sibling",
    )

    def __init__(self, door: House, arrival: Arrival) -> None:
        self._door = door
        self._transport: asyncio.Transport | None = None
        self.address = arrival.address
        self.sibling = arrival.sibling
        self.certificate: str | None = None
        self.session = Session(self, door.service)
        self._left = b""
        self._own: memoryview | None = None
        self._filled = 0
        self._frame_bytes = 0
        self._holds = 0
        self._paused = False
        self._out: list[Bytes] = []
        self._out_bytes = 0
        self._heard = True
        self._silent_sweeps = 0
        self._unsent = 0
        self._turned_away = False
        self._aborted = False

    # --- the loop calls these

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        if not self.address:
            self.address = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "?"
        self.certificate = verified_name(transport)
        unsent_max = self._door.config.write_buffer_bytes_per_connection_max
        transport.set_write_buffer_limits(high=unsent_max, low=unsent_max // 2)
        self._door.opened(self)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the loop's signature
        if self._own is not None:
            return self._own[self._filled :]
        shared, left = self._door.buffers.shared, self._left
        if left:
            shared[: len(left)] = left
            return shared[len(left) :]
        return shared

    def buffer_updated(self, nbytes: int) -> None:
        self._heard = True
        if self._own is None:
            self._advance(self._door.buffers.shared, len(self._left) + nbytes)
            return
        self._filled += nbytes
        if self._filled >= self._frame_bytes:
            self._advance(self._own, self._filled)

    def eof_received(self) -> None:
        """Close: a client that sends no more wants no more."""

    def pause_writing(self) -> None:
        """Do nothing: `congested` knows, also of what the transport has not been given yet."""

    def resume_writing(self) -> None:
        self.release(Hold.ANSWERS)
        self._resume_deliveries()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            logger.info("lost %s: %s", self.address, exc)
        self._aborted = True
        self._out.clear()
        self._left = b""
        self._give_back()
        self._door.closed(self)
        self.guard(self.session.closed)

    # --- the session calls these

    @property
    def held(self) -> bool:
        """Whether nothing more is to be taken from the connection for now."""
        return self._holds != 0

    def held_by(self, reasons: int) -> bool:
        """Return whether one of these reasons holds the connection."""
        return self._holds & reasons != 0

    def hold(self, reason: int) -> None:
        """Take nothing more from the connection before every reason was released."""
        self._holds |= reason
        transport = self._transport
        if not self._paused and transport is not None and not transport.is_closing():
            self._paused = True
            transport.pause_reading()

    def release(self, reason: int) -> None:
        """Take back one reason; without any left, go on where reading stopped."""
        if not self._holds & reason:
            return
        self._holds &= ~reason
        if not self._holds:
            # Not from here: whoever releases is in the middle of something else.
            self._door.loop.call_soon(self._go_on)

    def send(self, data: Bytes) -> None:
        """Send soon, after what was sent before; never blocks."""
        if self._aborted:
            return
        if not self._out:
            self._door.written(self)
        self._out.append(data)
        self._out_bytes += len(data)

    def deliver(self, buffers: Sequence[Bytes]) -> bool:
        """Send soon; False: more than enough is waiting for this client already."""
        for each in buffers:
            self.send(each)
        if self.congested:
            self._turned_away = True
            return False
        return True

    @property
    def congested(self) -> bool:
        """Whether more than enough is waiting for this client."""
        return self._waiting() > self._door.unsent_max

    def introduced(self) -> None:
        """Note that the client has said who it is."""
        self._door.introduced(self)

    def close(self) -> None:
        """Close once everything sent has left, or has had its time."""
        self.hold(Hold.CLOSING)
        self.flush()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close now."""
        self._holds |= Hold.CLOSING
        self._aborted = True
        if self._transport is not None:
            self._transport.abort()

    # --- the door calls these

    def flush(self) -> None:
        """Hand everything sent since the last turn to the transport."""
        out, size = self._out, self._out_bytes
        if not out or self._transport is None or self._transport.is_closing():
            return
        self._out, self._out_bytes = [], 0
        if len(out) == 1:
            self._transport.write(out[0])
        elif size <= JOINED_WRITE_BYTES_MAX:
            self._transport.write(b"".join(out))
        else:
            self._transport.writelines(out)
        if self._waiting() > 2 * self._door.unsent_max:
            # Deliveries stop at the mark. What makes it grow to twice that is answers to what
            # the client goes on asking without reading them.
            self.hold(Hold.ANSWERS)
        elif self._turned_away:
            # The socket took it all at once: no `resume_writing` will follow.
            self._resume_deliveries()

    def sweep(self) -> None:
        """Notice silence: ask after one interval without a sign of life, close after two."""
        unsent = self._waiting()
        draining = unsent < self._unsent
        waiting_for_us = self._holds & ~(Hold.ANSWERS | Hold.CLOSING)
        self._unsent = unsent
        if self._heard or draining or waiting_for_us:
            self._heard = False
            self._silent_sweeps = 0
            return
        self._silent_sweeps += 1
        if self._silent_sweeps == SWEEPS_PER_INTERVAL:
            self.session.ping()
        elif self._silent_sweeps > 2 * SWEEPS_PER_INTERVAL:
            logger.info("closing %s: nothing arrived for two keep-alive intervals", self.address)
            self.abort()

    # --- receiving

    def _go_on(self) -> None:
        """Handle what was left in the buffer when reading stopped, then read on."""
        if self._holds or self._aborted or self._transport is None:
            return
        if self._own is not None:
            if self._filled >= self._frame_bytes:
                self._advance(self._own, self._filled)
        elif self._left:
            shared = self._door.buffers.shared
            shared[: len(self._left)] = self._left
            self._advance(shared, len(self._left))
        if self._paused and not self.held and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    def _advance(self, buffer: memoryview, end: int) -> None:
        """Let the session take what it can of `buffer[:end]`, and keep the rest."""
        try:
            start = self.session.receive(buffer, 0, end)
            if not self._aborted:
                self._keep(buffer, start, end)
        except (FrameError, ProtocolError, OutOfBuffersError) as error:
            hello = "" if self._door.knows(self) else foreign_hello(bytes(buffer[:8]))
            logger.info("closing %s: %s", self.address, hello or error)
            self._door.broken.value += 1
            self.guard(partial(self.session.refuse, error))
            self.close()
        except Exception:  # a bug that this client found; the other connections have no part in it
            logger.exception("closing %s: the session failed", self.address)
            self.abort()

    def _keep(self, buffer: memoryview, start: int, end: int) -> None:
        tail = end - start
        frame_bytes = 0
        if tail >= FRAME_SIZE.size and not self._holds:
            frame_bytes = FRAME_SIZE.size + FRAME_SIZE.unpack_from(buffer, start)[0]
            if frame_bytes > self._door.frame_bytes_max:
                frame_bytes = 0  # nobody has looked at it yet; the walk will, and refuse it
        if max(frame_bytes, tail) <= SMALL_FRAME_BYTES_MAX:
            self._left = bytes(buffer[start:end])
            self._give_back()
            return
        own = self._own
        if own is None or len(own) < max(frame_bytes, tail):
            own = self._door.buffers.take(max(frame_bytes, tail))
            own[:tail] = buffer[start:end]
            self._give_back()
            self._own, self._left = own, b""
        elif start:
            own[:tail] = own[start:end]
        self._filled, self._frame_bytes = tail, frame_bytes

    def _give_back(self) -> None:
        if self._own is not None:
            self._door.buffers.give(self._own)
            self._own = None
        self._filled = self._frame_bytes = 0

    def _resume_deliveries(self) -> None:
        if self._turned_away and not self.congested:
            self._turned_away = False
            self.guard(self.session.resume)

    def _waiting(self) -> int:
        unsent = 0 if self._transport is None else self._transport.get_write_buffer_size()
        return unsent + self._out_bytes

    def guard(self, call: Callable[[], None]) -> None:
        """Call into the session from a place whose caller must not see it fail."""
        try:
            call()
        except Exception:  # a bug; it costs this connection and no other
            logger.exception("closing %s: the session failed", self.address)
            self.abort()
