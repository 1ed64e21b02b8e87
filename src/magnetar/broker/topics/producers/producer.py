"""An open producer, and the inlet of a topic that it publishes into.

    door ── Run ──▶ Publisher ── by producer ──▶ Inlet ── entry ids ──▶ log
                                                  │ no ledger open yet
                                                  ▼
                                                 held groups, in order

A producer is refused for good after its first refused group: what it sends next must not
be stored before what was refused, or order and deduplication would break. Its client is
told to come again, and resends from the first entry that was not confirmed.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Mapping
from itertools import accumulate
from typing import NamedTuple, Protocol

from magnetar.broker.entry import EARLIEST, TransactionId
from magnetar.broker.port import (
    PortError,
    ProducerEvents,
    ProducerRequest,
    PublishDone,
    ThrottledEvents,
)
from magnetar.broker.run import OFFSET, Run
from magnetar.broker.topics.figures import Rate
from magnetar.broker.topics.limits.gate import Gate
from magnetar.broker.topics.producers.deduplication import NO_SEQUENCE, Sequences
from magnetar.broker.topics.producers.tally import Tally

NOT_STORED = EARLIEST.ledger
"""The ledger of a receipt for what was not written: duplicates, and non-persistent topics."""


class AppendLog(Protocol):
    """What publishing needs of the log of a partition."""

    next_index: int

    @property
    def ready(self) -> bool: ...
    async def open(self) -> None: ...
    def reserve(self, entries: int) -> tuple[int, int]: ...
    def wrote(
        self, entries: int, size_bytes: int, publish_first_ms: int, publish_last_ms: int
    ) -> None: ...
    def take(  # noqa: PLR0913, PLR0917 - what `reserve` and `wrote` are told, at once
        self,
        entries: int,
        messages: int,
        size_bytes: int,
        publish_first_ms: int,
        publish_last_ms: int,
        now_s: float,
    ) -> tuple[int, int, int] | None: ...
    def committed(self, ledger: int, end_entry: int) -> None: ...


class Numbers(Protocol):
    """What publishing needs of the transactions of a topic."""

    def number_of(self, transaction: TransactionId, /) -> int | None: ...
    def stored(self, run: Run, ledger: int, entry: int, /) -> None: ...


Join = Callable[
    [Collection[TransactionId]], Coroutine[None, None, Mapping[TransactionId, PortError]]
]
"""Lets a topic take part in transactions; returns why not, for those where that cannot be."""


class Held(NamedTuple):
    """Rows of one producer that wait for a ledger to be opened, with bodies of their own."""

    run: Run
    producer: "OpenProducer"
    slot: int
    done: PublishDone
    size_bytes: int
    error: PortError | None = None
    """They are refused once it is their turn."""


class Inlet:
    """The end of a topic that producers write into."""

    __slots__ = (
        "bytes_in",
        "chunks_in",
        "entries_in",
        "entry_rates",
        "gate",
        "held",
        "join",
        "last_publish_ms",
        "log",
        "messages_in",
        "offer",
        "opening",
        "rate",
        "refusal",
        "sequences",
        "tally",
        "throttled",
        "transactions",
        "wake",
    )

    def __init__(
        self,
        *,
        log: AppendLog | None,
        wake: Callable[[], None],
        offer: Callable[[Run], None] | None = None,
        sequences: Sequences | None = None,
        join: Join | None = None,
    ) -> None:
        """Give a log, or for a topic that keeps nothing the function that hands a run out."""
        self.log = log
        self.wake = wake
        self.offer = offer
        self.sequences = sequences
        self.join = join
        self.transactions: Numbers | None = None
        """None: nothing was published in a transaction since the topic was loaded."""
        self.refusal: PortError | None = None
        """Why nothing may be published at the moment; None if it may."""
        self.gate: Gate | None = None
        """What is asked of each message; None: nothing."""
        self.held: deque[Held] | None = None
        self.opening: asyncio.Task[None] | None = None
        self.entries_in = 0
        self.messages_in = 0
        self.bytes_in = 0
        self.chunks_in = 0
        self.last_publish_ms = 0
        self.throttled = 0
        """How often a producer was kept waiting because of a rate."""
        self.rate: Rate | None = None
        self.entry_rates: Rate | None = None
        self.tally: Tally | None = None
        """None: nothing was stored since the topic was loaded."""

    def count(self, entries: int, messages: int, size_bytes: int, wall_ms: int) -> None:
        """Count what was taken."""
        self.entries_in += entries
        self.messages_in += messages
        self.bytes_in += size_bytes
        self.last_publish_ms = wall_ms


class OpenProducer:
    """A producer that a door has opened. Implements `port.Producer`."""

    __slots__ = (
        "_idle",
        "_leave",
        "bytes_in",
        "chunks_in",
        "closed",
        "connected_since_ms",
        "events",
        "inlet",
        "messages_in",
        "name",
        "number",
        "pending",
        "rate",
        "ready",
        "refusal",
        "request",
        "schema_version",
        "throttle",
        "topic_epoch",
    )

    def __init__(
        self,
        inlet: Inlet,
        request: ProducerRequest,
        name: str,
        events: ProducerEvents,
        leave: Callable[["OpenProducer"], None],
    ) -> None:
        """Take what the client asked for; `leave` is called once, when it is over."""
        self.number = 0
        self.inlet = inlet
        self.request = request
        self.name = name
        self.events = events
        self.connected_since_ms = 0
        self.topic_epoch: int | None = None
        self.schema_version: int | None = None
        self.ready = True
        self.refusal: PortError | None = None
        """Why this producer may not publish any more; None while it may."""
        self.closed = False
        """The client closed it. What it published before is still stored."""
        self.pending = 0
        """Groups that were published and not yet reported."""
        self.messages_in = 0
        self.bytes_in = 0
        self.chunks_in = 0
        self.rate: Rate | None = None
        self.throttle = events.throttle if isinstance(events, ThrottledEvents) else None
        """Asks the door to take nothing from the client for some seconds."""
        self._leave: Callable[[OpenProducer], None] | None = leave
        self._idle: asyncio.Future[None] | None = None

    @property
    def last_sequence_id(self) -> int:
        """The highest durable sequence id of this name; -1: none, or deduplication is off."""
        sequences = self.inlet.sequences
        return NO_SEQUENCE if sequences is None else sequences.durable(self.name)

    @property
    def open(self) -> bool:
        """Whether the producer belongs to its topic."""
        return self._leave is not None

    def reported(self, groups: int = 1) -> None:
        """Count groups as reported to the door."""
        self.pending -= groups
        if self._idle is not None and not self.pending and not self._idle.done():
            self._idle.set_result(None)

    def take_back(self, entries: int, messages: int, size_bytes: int, chunks: int) -> None:
        """Uncount what was taken and could not be stored."""
        inlet = self.inlet
        self.messages_in -= messages
        self.bytes_in -= size_bytes
        self.chunks_in -= chunks
        inlet.entries_in -= entries
        inlet.messages_in -= messages
        inlet.bytes_in -= size_bytes
        inlet.chunks_in -= chunks

    def end(self, reason: PortError) -> None:
        """Close the producer from the broker's side, and tell its door why."""
        if self.refuse(reason):
            self.events.closed(reason)

    def refuse(self, reason: PortError) -> bool:
        """Leave the topic and refuse what comes from now on; return False if it had left before."""
        if self.refusal is None:
            self.refusal = reason
        return self._depart()

    async def close(self) -> None:
        """Leave the topic; return once everything published is durable or refused."""
        self.closed = True
        self._depart()
        await self.idle()

    def idle(self) -> asyncio.Future[None]:
        """Return what is done once everything published so far, and since, is reported."""
        future = self._idle
        if future is None or (future.done() and self.pending):
            future = self._idle = asyncio.get_running_loop().create_future()
        if not self.pending and not future.done():
            future.set_result(None)
        return future

    def _depart(self) -> bool:
        leave, self._leave = self._leave, None
        if leave is None:
            return False
        leave(self)
        return True


def detached(run: Run) -> Run:
    """Return a copy of a run that does not need the buffer it was read into."""
    bodies = [bytes(run.body(row)) for row in range(run.count)]
    copy = Run(bytearray(run.rows), b"".join(bodies), transactions=run.transactions)
    offsets = list(accumulate(map(len, bodies), initial=0))
    column = copy.u32(OFFSET)
    for row in range(copy.count):
        column[row] = offsets[row]
    return copy
