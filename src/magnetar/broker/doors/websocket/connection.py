"""One WebSocket client: its socket, its frames, its session.

    opening ──▶ open ──close frame from either side, or silence for two intervals──▶ closed

    frames ──▶ texts ──▶ Session.decode, handle ··· flush                   once per read
    socket ◀── one write per connection and turn ◀── Line.send

What a client does not read is bounded by not giving it more, and a client that sends without
reading its answers is not read from.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from magnetar.broker.access.authorize import Access
from magnetar.broker.config import KIB, MIB
from magnetar.broker.doors.handshake import Headers, acceptance, refusal
from magnetar.broker.doors.websocket.errors import EXPECTED, reason_of, status_of
from magnetar.broker.doors.websocket.line import CloseCode, Hold, Session
from magnetar.broker.doors.websocket.login import Identify, LogIn, address_of
from magnetar.broker.doors.websocket.options import options_of
from magnetar.broker.metrics import Counter

if TYPE_CHECKING:
    from websockets.protocol import Protocol as Frames

    from magnetar.broker.doors.websocket.sessions import Sessions

logger = logging.getLogger(__name__)

OPEN_TIMEOUT_S = 30.0
"""For producers or consumers to be opened, before the handshake is answered with 504."""
CLOSE_TIMEOUT_S = 5.0
"""For a client to answer a close frame."""
EARLY_BYTES_MAX = 64 * KIB
"""What a client may send before it has its answer, which it should not."""
PARTIAL_BYTES_MAX = 256 * MIB
"""Texts of all connections that are not whole yet."""
DECODED_INLINE_BYTES_MAX = 256 * KIB
"""Larger texts are decoded in a thread."""
SWEEPS_PER_INTERVAL = 4
CLOSE_REASON_BYTES_MAX = 120


_CONT, _TEXT, _BINARY, _CLOSE = 0, 1, 2, 8
"""Opcodes. Source: RFC 6455, section 5.2."""


class House(Protocol):
    """The door, as a connection sees it."""

    loop: asyncio.AbstractEventLoop
    access: Access | None
    identify: Identify | None
    unsent_max: int
    partial_bytes: int
    """Of texts that are not whole yet, of all connections."""
    opened: Counter
    refused: Counter

    async def sessions(self) -> "Sessions": ...
    async def close_session(self, session: Session) -> None: ...
    def end(self, session: Session) -> None: ...
    def written(self, connection: "Connection", /) -> None: ...
    def gone(self, connection: "Connection", /) -> None: ...


class Connection(asyncio.Protocol):
    """One client: its socket, its frames, its session."""

    def __init__(
        self, door: House, transport: asyncio.Transport, target: bytes, headers: Headers
    ) -> None:
        self._door = door
        self._transport = transport
        self._target = target
        self._headers = headers
        self.address = address_of(headers)
        self.login = LogIn(door.access, door.identify)
        self._session: Session | None = None
        self._frames: Frames | None = None
        self._early = bytearray()
        self._parts: list[bytes] = []
        self._partial = 0
        self._texts: deque[bytes] = deque()
        self._decoding: asyncio.Task[None] | None = None
        self._holds = 0
        self._paused = False
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._turned_away = False
        self._ending = False
        self._heard = True
        self._silent_sweeps = 0
        self._unsent = 0
        transport.set_write_buffer_limits(high=door.unsent_max, low=door.unsent_max // 2)
        self._opening: asyncio.Task[None] | None = door.loop.create_task(self._open())

    # --- the handshake

    async def _open(self) -> None:
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                answer = acceptance(self._headers)
                path, _, query = self._target.decode("latin-1").partition("?")
                await self.login.begin(self._headers, query)
                options = options_of(path, query)
                await self.login.demand(options)
                sessions = await self._door.sessions()
                self._session = sessions.session(self, options)
                await self._session.open()
        except (*EXPECTED, TimeoutError) as error:
            self._turn_away(error, reason_of(error))
            return
        except Exception as error:
            logger.exception("%s: a WebSocket could not be opened", self.address)
            self._turn_away(error, "the broker failed on this; its log says why")
            return
        self._opening = None
        self._frames = sessions.frames()
        self._door.opened.value += 1
        self._transport.write(answer)
        early, self._early = bytes(self._early), bytearray()
        self.data_received(early)  # and if there is none, the session begins to send

    def _turn_away(self, error: Exception, reason: str) -> None:
        self._opening = None
        status = status_of(error)
        logger.log(
            logging.WARNING if status == 500 else logging.INFO, "%s: %s", self.address, reason
        )
        self._door.refused.value += 1
        self._transport.write(refusal(status, reason))
        self._transport.close()
        self._end_session()

    # --- the loop calls these

    def data_received(self, data: bytes) -> None:
        self._heard = True
        frames = self._frames
        if frames is None:
            self._early += data
            if len(self._early) > EARLY_BYTES_MAX:
                self.abort()
            return
        frames.receive_data(data)
        for frame in frames.events_received():
            self._take_frame(frame)
        self._collect()
        self._count_partial(len(frames.reader.buffer) + sum(map(len, self._parts)))
        if self._session is not None and not self._ending:
            self._guard(self._session.flush)

    def eof_received(self) -> None:
        """Close: a client that sends no more wants no more."""

    def pause_writing(self) -> None:
        """Do nothing: `congested` knows."""

    def resume_writing(self) -> None:
        self.release(Hold.ANSWERS)
        self._resume_session()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            logger.info("lost %s: %s", self.address, exc)
        self._ending = True
        self._out.clear()
        self._texts.clear()
        self._count_partial(0)
        if self._opening is not None:
            self._opening.cancel()
        if self._decoding is not None:
            self._decoding.cancel()
        self._end_session()
        self._door.gone(self)

    # --- frames

    def _take_frame(self, frame: Any) -> None:
        """Take one event of the library: a frame, without its mask."""
        if self._ending:
            return
        if frame.opcode in {_TEXT, _CONT}:
            self._parts.append(frame.data)
            if frame.fin:
                text = frame.data if len(self._parts) == 1 else b"".join(self._parts)
                self._parts = []
                self._take_text(bytes(text))
        elif frame.opcode == _BINARY:
            self.fail(CloseCode.UNSUPPORTED, "messages are texts here, in JSON")
        elif frame.opcode == _CLOSE:
            self._ending = True
            self._end_session()

    def _take_text(self, text: bytes) -> None:
        session = self._session
        if session is None:
            return
        if self._decoding is None and len(text) <= DECODED_INLINE_BYTES_MAX:
            self._guard(lambda: session.handle(session.decode(text)))
            return
        self._texts.append(text)
        self.hold(Hold.DECODING)
        if self._decoding is None:
            self._decoding = self._door.loop.create_task(self._decode(session))

    async def _decode(self, session: Session) -> None:
        """Handle the texts that wait, in their order."""
        try:
            while self._texts and not self._ending:
                text = self._texts.popleft()
                if len(text) > DECODED_INLINE_BYTES_MAX:
                    decoded = await asyncio.to_thread(session.decode, text)
                else:
                    decoded = session.decode(text)
                session.handle(decoded)
            session.flush()
        except Exception:
            logger.exception("closing %s: the session failed", self.address)
            self.abort()
        finally:
            self._decoding = None
            self.release(Hold.DECODING)

    def _count_partial(self, size: int) -> None:
        self._door.partial_bytes += size - self._partial
        self._partial = size
        if size and self._door.partial_bytes > PARTIAL_BYTES_MAX:
            self.fail(CloseCode.LATER, "too many large messages are on their way; try again later")

    # --- the session calls these

    @property
    def caller(self) -> str:
        """The client's log-in, for a port that passes requests on."""
        return self.login.carried

    @property
    def owner(self) -> str:
        """The client's role; empty while nobody logs in."""
        return self.login.owner

    @property
    def congested(self) -> bool:
        """Whether more than enough is waiting for this client."""
        return self._waiting() > self._door.unsent_max

    def send(self, text: bytes) -> None:
        """Send a text soon, after what was sent before; never blocks."""
        if self._frames is None or self._ending:
            return
        self._frames.send_text(text)
        self._collect()
        if self.congested:
            self._turned_away = True

    def hold(self, reason: int) -> None:
        """Take nothing more from the client before every reason was released."""
        self._holds |= reason
        if not self._paused and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def release(self, reason: int) -> None:
        """Take back one reason."""
        self._holds &= ~reason
        if self._paused and not self._holds and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    def fail(self, code: int, reason: str) -> None:
        """End the connection, after what was sent before."""
        if self._ending or self._frames is None:
            return
        logger.info("closing %s: %s", self.address, reason)
        self._ending = True
        told = reason.encode()[:CLOSE_REASON_BYTES_MAX].decode(errors="ignore")
        self._frames.send_close(code, told)
        self._collect()
        self.flush()
        self._end_session()
        self._holds = 0
        self.release(0)  # to hear the answer
        self._door.loop.call_later(CLOSE_TIMEOUT_S, self._transport.close)

    # --- the door calls these

    def flush(self) -> None:
        """Hand everything sent since the last turn to the transport."""
        out, self._out, self._out_bytes = self._out, [], 0
        ended = False
        if b"" in out:  # the library's sign for the end of the stream
            out.remove(b"")
            ended = True
        if out and not self._transport.is_closing():
            self._transport.writelines(out)
        if ended:
            self._transport.close()
        elif self._waiting() > 2 * self._door.unsent_max:
            self.hold(Hold.ANSWERS)
        elif self._turned_away and not self.congested:
            self._resume_session()

    def sweep(self) -> None:
        """Notice silence: ask after one interval without a sign of life, close after two."""
        unsent = self._waiting()
        draining, self._unsent = unsent < self._unsent, unsent
        waiting_for_us = self._holds & ~Hold.ANSWERS
        if self._heard or draining or waiting_for_us or self._frames is None:
            self._heard = False
            self._silent_sweeps = 0
            return
        self._silent_sweeps += 1
        if self._silent_sweeps == SWEEPS_PER_INTERVAL and not self._ending:
            self._frames.send_ping(b"")
            self._collect()
        elif self._silent_sweeps > 2 * SWEEPS_PER_INTERVAL:
            logger.info("closing %s: nothing arrived for two keep-alive intervals", self.address)
            self.abort()

    def look_at_rights(self) -> None:
        """End if the client may not have this any more."""
        if self._frames is not None and (why := self.login.complaint()):
            self.fail(CloseCode.POLICY, why)

    async def say_goodbye(self) -> None:
        """Take nothing more, answer what was taken, then close."""
        if self._frames is None:
            self.abort()
            return
        self.hold(Hold.CLOSING)
        session, self._session = self._session, None
        if session is not None:
            await self._door.close_session(session)
        self.fail(CloseCode.GOING_AWAY, "the broker is being stopped; connect again")

    def abort(self) -> None:
        """Close now."""
        self._transport.abort()

    # --- inside

    def _collect(self) -> None:
        """Take what the library wants to send."""
        if self._frames is None:
            return
        if data := self._frames.data_to_send():
            if not self._out:
                self._door.written(self)
            self._out += data
            self._out_bytes += sum(map(len, data))

    def _resume_session(self) -> None:
        if self._turned_away and not self.congested and self._session is not None:
            self._turned_away = False
            self._guard(self._session.resume)

    def _waiting(self) -> int:
        return self._transport.get_write_buffer_size() + self._out_bytes

    def _end_session(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            self._door.end(session)

    def _guard(self, call: Callable[[], None]) -> None:
        """Call into the session from a place whose caller must not see it fail."""
        try:
            call()
        except Exception:  # a bug; it costs this connection and no other
            logger.exception("closing %s: the session failed", self.address)
            self.abort()
