"""Requests whose answers take time: each a task, none in the way of the others.

    command ──▶ start(work, refuse) ──▶ task ──▶ answer, or refuse(code, message)
                     │
                     └─ too many in flight: the connection is not read until half are answered

Answers of different requests may overtake each other; the client matches them by request id.
What must keep its order, everything about one producer or consumer id, is chained by whoever
starts the requests (`Endpoint.turn`).
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from magnetar.broker.doors.pulsar.errors import server_error
from magnetar.broker.port import PortError
from magnetar.broker.run import Bytes
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.names import InvalidNameError

logger = logging.getLogger(__name__)

REQUESTS_IN_FLIGHT_MAX = 1_000
"""Requests of one connection that may wait for their answers at a time. Ten thousand topics'
worth of look-ups may be sent at once; they are then taken from the socket as answers go out."""

Work = Coroutine[Any, Any, Bytes | None]
"""Does what a request asks, and returns the answer, or sends it itself and returns None."""

Refuse = Callable[[api.ServerError, str], bytes]
"""Makes the answer of a request that failed."""


class Line(Protocol):
    """The connection, as a session sees it."""

    @property
    def address(self) -> str:
        """The client's host and port."""
        ...

    @property
    def certificate(self) -> str | None:
        """The common name in the client's certificate, verified by TLS; None: it showed none."""
        ...

    @property
    def sibling(self) -> bool:
        """Whether the client is a process of this very broker."""
        ...

    @property
    def held(self) -> bool:
        """Whether nothing more is to be taken from the connection for now."""
        ...

    def hold(self, reason: int) -> None:
        """Take nothing more from the connection before every reason was released."""
        ...

    def release(self, reason: int) -> None: ...

    def send(self, data: Bytes) -> None:
        """Send soon, after what was sent before; never blocks."""
        ...

    def deliver(self, buffers: Sequence[Bytes]) -> bool:
        """Send soon; False: more than enough is waiting for this client already."""
        ...

    @property
    def congested(self) -> bool:
        """Whether more than enough is waiting for this client."""
        ...

    def introduced(self) -> None:
        """Note that the client has said who it is."""
        ...

    def close(self) -> None:
        """Close once everything sent has left, or has had its time."""
        ...

    def abort(self) -> None:
        """Close now."""
        ...


class Hold:
    """Reasons for not reading from a connection, one bit each."""

    PUBLISHING = 1
    """The log has too much waiting for the disk."""
    PENDING = 2
    """This connection has too much waiting for the disk."""
    REQUESTS = 4
    ANSWERS = 8
    """The client does not read what it asked for."""
    TURN = 16
    """It is the turn of others; the rest of what was read comes in the next turn of the loop."""
    CLOSING = 32
    RATE = 64
    """A producer has sent more than its topic's rate allows."""
    RIGHTS = 128
    """It is being found out whether the client may do what it asks, or who it is."""


class Requests:
    """The requests of one connection that are not answered yet."""

    __slots__ = (
        "_line",
        "_loop",
        "_tasks",
    )

    def __init__(self, line: Line, loop: asyncio.AbstractEventLoop) -> None:
        self._line = line
        self._loop = loop
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, work: Work, refuse: Refuse) -> asyncio.Task[None]:
        """Begin a request; its answer is sent when it is known."""
        task = self._loop.create_task(self._answer(work, refuse))
        self._tasks.add(task)
        task.add_done_callback(self._done)
        if len(self._tasks) >= REQUESTS_IN_FLIGHT_MAX:
            self._line.hold(Hold.REQUESTS)
        return task

    async def _answer(self, work: Work, refuse: Refuse) -> None:
        try:
            answer = await work
        except (PortError, InvalidNameError) as error:
            answer = refuse(server_error(error), str(error))
        except Exception:  # a bug behind this one request; the connection has done nothing wrong
            logger.exception("a request of %s failed", self._line.address)
            answer = refuse(api.UnknownError, "the broker failed on this; its log says why")
        if answer is not None:
            self._line.send(answer)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if len(self._tasks) <= REQUESTS_IN_FLIGHT_MAX // 2:
            self._line.release(Hold.REQUESTS)
