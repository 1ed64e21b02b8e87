"""What producer ids and consumer ids of a connection have in common: a life, and turns.

    opening ──▶ open ──by the client──▶ closing ──▶ (gone)
       │          ├─────by the broker──▶ closed
       │          └──its topic moves───▶ moving ──▶ closed
       └─ refused ─▶ (gone)

Requests about one id keep their order: what comes while another is in flight waits for it. So
a CLOSE finds what the PRODUCER before it has opened, and an id that is being closed can be
asked for again at once. Requests about different ids do not wait for each other.
"""

import asyncio
from enum import Enum, auto

from magnetar.broker.doors.pulsar.requests import Refuse, Requests, Work
from magnetar.broker.port import PortError, TopicMovedError
from magnetar.broker.run import Bytes


class Phase(Enum):
    """Where an id of a connection is in its life."""

    OPENING = auto()
    OPEN = auto()
    CLOSING = auto()
    """The client closed it; what it sent before is still answered."""
    MOVING = auto()
    """Its topic moves to another process: what it sent before is answered, nothing more is taken,
    and the client is told where to go once it can go there."""
    CLOSED = auto()
    """The broker closed it, or it never opened; nothing is answered any more."""


class Turns:
    """The requests about each id, one after the other."""

    __slots__ = (
        "_last",
        "_requests",
    )

    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        self._last: dict[int, asyncio.Task[None]] = {}

    def start(self, of: int, work: Work, refuse: Refuse) -> None:
        """Begin a request about id `of` when the ones before it are through."""
        task = self._requests.start(_after(self._last.get(of), work), refuse)
        self._last[of] = task
        task.add_done_callback(lambda done: self._done(of, done))

    async def through(self, of: int) -> None:
        """Wait until the requests about id `of` that are in flight now are through."""
        if (last := self._last.get(of)) is not None:
            await asyncio.wait({last})

    def _done(self, of: int, task: asyncio.Task[None]) -> None:
        if self._last.get(of) is task:
            del self._last[of]


async def _after(before: asyncio.Task[None] | None, work: Work) -> Bytes | None:
    if before is not None:
        await asyncio.wait({before})
    return await work


def place_of(reason: PortError | None) -> tuple[str, str]:
    """Return where a client may go on at once, without and with TLS; empty: it has to look up."""
    return (reason.url, reason.url_tls) if isinstance(reason, TopicMovedError) else ("", "")
