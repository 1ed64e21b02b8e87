"""From entries that came to texts that are sent: in order, and no more than the client wants.

    Source.deliver ──▶ entries ──read──▶ texts ──while the client wants and takes──▶ Line.send
                                │
                                ├─ broken      acknowledged, as libraries do
                                ├─ encrypted   as the client asked: passed on, left, acknowledged
                                └─ chunk       kept until its message is whole

Large entries are opened in a thread, one at a time, so that their order is kept. How many bytes
wait here is bounded: beyond that the sources are told that there is no room.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

from magnetar.broker.config import KIB
from magnetar.broker.doors.websocket.chunks import Chunked, State
from magnetar.broker.doors.websocket.intake import (
    Entry,
    Kind,
    Read,
    Text,
    read,
    read_payload,
    wanted_count,
)
from magnetar.broker.doors.websocket.line import Line
from magnetar.broker.doors.websocket.options import CryptoFailure
from magnetar.broker.doors.websocket.source import Source
from magnetar.broker.entry import EntryId
from magnetar.broker.port import Acknowledged, Selection
from magnetar.broker.run import MESSAGES, Run

logger = logging.getLogger(__name__)

INLINE_BYTES_MAX = 64 * KIB
INLINE_MESSAGES_MAX = 200
"""What is opened on the event loop. More takes milliseconds, and goes to a thread."""

STRAY_CHUNK_AGE_MS = 60_000
"""Chunks that lost their beginning are acknowledged when they are so old: Java's time."""


class _Queued(NamedTuple):
    """One entry that came."""

    source: Source
    entry: Entry
    messages: int


class Wants(Protocol):
    """Decides what of the messages is sent, and is told what was."""

    def wanted(self) -> bool:
        """Whether the client may get another message."""
        ...

    def filtered(self, source: Source, text: Text) -> bool:
        """Whether a message is not for the client. The callee sees to what becomes of it."""
        ...

    def sent(self, source: Source, text: Text) -> None:
        """Note that a message was sent."""
        ...

    def progress(self) -> None:
        """Let more come, as far as there is room for it."""
        ...


class Inbox:
    """The queue of one connection."""

    def __init__(  # noqa: PLR0913 - what it is wired to
        self,
        line: Line,
        wants: Wants,
        *,
        bytes_max: int,
        crypto_failure: CryptoFailure,
        loop: asyncio.AbstractEventLoop,
        now_ms: Callable[[], int],
    ) -> None:
        self._line = line
        self._wants = wants
        self._bytes_max = bytes_max
        self._crypto_failure = crypto_failure
        self._loop = loop
        self._now_ms = now_ms
        self._entries: deque[_Queued] = deque()
        self._texts: deque[tuple[Source, Text]] = deque()
        self._bytes = 0
        self._reading: asyncio.Task[None] | None = None
        self._read_from: Source | None = None
        """Whose entry is read in a thread; None: nobody's, or its source was lost meanwhile."""
        self._scheduled = False

    @property
    def full(self) -> bool:
        """Whether more than enough waits here, or for the client's socket."""
        return self._bytes > self._bytes_max or self._line.congested

    def add(self, source: Source, run: Run, selection: Selection) -> bool:
        """Take entries; False: that is enough for now.

        They are sent in the next turn: their subscription is in the middle of something.
        """
        counts = run.u32(MESSAGES)
        for row in selection.rows:
            ack_set = selection.ack_sets.get(row, ())
            entry = Entry(
                run.body(row),
                EntryId(selection.ledger, selection.first_entry + row),
                source.partition,
                selection.redeliveries.get(row, 0),
                ack_set,
            )
            messages = wanted_count(ack_set) if ack_set else counts[row]
            source.granted -= messages
            source.queued += messages
            self._bytes += len(entry.body)
            self._entries.append(_Queued(source, entry, messages))
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.pump)
        return not self.full

    def forget(self, source: Source) -> None:
        """Drop everything of a source."""
        kept = deque(each for each in self._entries if each.source is not source)
        self._bytes -= sum(len(e.entry.body) for e in self._entries if e.source is source)
        self._entries = kept
        self._texts = deque(each for each in self._texts if each[0] is not source)
        if self._read_from is source:
            self._read_from = None
        source.queued = 0

    def pump(self) -> None:
        """Send what may be sent."""
        self._scheduled = False
        while not self._line.congested and self._wants.wanted() and self._next_text():
            source, text = self._texts.popleft()
            source.queued -= 1
            self._line.send(text.text)
            self._wants.sent(source, text)
        self._wants.progress()

    def _next_text(self) -> bool:
        """Return whether a text is ready, after opening as many entries as that takes."""
        while not self._texts:
            if self._reading is not None or not self._entries:
                return False
            queued = self._entries.popleft()
            if _is_large(queued):
                self._read_from = queued.source
                self._reading = self._loop.create_task(self._read_apart(queued))
                return False
            self._take(queued, read(queued.entry))
        return True

    async def _read_apart(self, queued: _Queued) -> None:
        try:
            found = await asyncio.to_thread(read, queued.entry)
            if found.kind is Kind.CHUNK:
                found = await self._joined(queued, found)
            self._reading = None
            if self._read_from is queued.source:
                self._read_from = None
                self._take(queued, found)
            else:
                self._bytes -= len(queued.entry.body)
            self.pump()
        except Exception:  # a bug that this message found; the connection cannot go on in order
            logger.exception("a message of %s could not be shown", queued.source.request.topic)
            self._reading = None
            self._line.fail(1011, "a message could not be shown; the broker's log says why")

    async def _joined(self, queued: _Queued, found: Read) -> Read:
        """Put a large chunk to the others, and open what has become whole."""
        joined = self._join(queued, found)
        if isinstance(joined, Read):
            return joined
        assert found.metadata is not None
        return await asyncio.to_thread(
            read_payload, queued.entry, found.metadata, joined.payload, joined.entries
        )

    def _join(self, queued: _Queued, found: Read) -> Chunked | Read:
        assert found.metadata is not None
        if self._reading is not None and self._read_from is None:
            return Read(Kind.MESSAGES)
        result = queued.source.chunks.add(found.metadata, found.payload, queued.entry.id)
        if isinstance(result, Chunked):
            return result
        old = self._now_ms() - found.metadata.publish_time > STRAY_CHUNK_AGE_MS
        if result is State.TOO_LARGE or (result is State.STRAY and old):
            return Read(Kind.BROKEN, why=f"a chunk that cannot be put together ({result.name})")
        return Read(Kind.MESSAGES)

    def _take(self, queued: _Queued, found: Read) -> None:
        """Put the texts of an entry into the queue, or see to it that none come of it."""
        source, entry, messages = queued
        if found.kind is Kind.CHUNK:
            joined = self._join(queued, found)
            if isinstance(joined, Chunked):
                assert found.metadata is not None
                found = read_payload(entry, found.metadata, joined.payload, joined.entries)
            else:
                found = joined
        self._bytes -= len(entry.body)
        source.queued -= messages
        if found.kind is Kind.BROKEN:
            topic = source.request.topic
            logger.warning("%s: entry %s is passed over: %s", topic, entry.id, found.why)
            source.acknowledge([Acknowledged(*entry.id)])
            return
        if found.kind is Kind.ENCRYPTED and self._crypto_failure is not CryptoFailure.CONSUME:
            if self._crypto_failure is CryptoFailure.DISCARD:
                source.acknowledge([Acknowledged(*entry.id)])
            return
        for text in found.texts:
            if not source.is_behind(text) and not self._wants.filtered(source, text):
                source.queued += 1
                self._texts.append((source, text))


def _is_large(queued: _Queued) -> bool:
    size = len(queued.entry.body)
    return size > INLINE_BYTES_MAX or queued.messages > INLINE_MESSAGES_MAX
