"""The log of one partition: a chain of ledgers, written at its end, read anywhere.

    links    7: entries 0..99     9: 0..249    12: 0..17 ─▶      (14, fetched ahead)
             sealed, recorded     sealed       current           next
    position EntryId(9, 250) and EntryId(12, 0) mean the same entry

A ledger is sealed when it is full or old; the next one is fetched ahead of that, so that
publishing does not wait for the metadata. The first is opened when somebody publishes.
Ids come from one counter in the metadata, so that (ledger, entry) sorts in log order.

A ledger that had to be sealed by a failed sync is recorded as ended before anything else
is taken: what a crash brings back from beyond that end is then known not to count.

The newest ledger with entries is never trimmed: it is what remembers the next index.
"""

import asyncio
import logging
from asyncio import Task
from bisect import bisect_left
from collections import deque
from collections.abc import Coroutine
from typing import Any, NamedTuple

from magnetar.broker.clock import Clock
from magnetar.broker.config import BrokerConfig
from magnetar.broker.entry import EARLIEST, EntryId
from magnetar.broker.metadata.chains import Chain, LedgerRecord
from magnetar.broker.metadata.store import StoreError
from magnetar.broker.port import TopicNotFoundError
from magnetar.broker.run import FIRST_INDEX, PUBLISH_TIME, Run
from magnetar.broker.storage.errors import (
    Gap,
    LedgerNotFoundError,
    QuarantinedError,
    StorageError,
)
from magnetar.broker.storage.ledgers import Ledgers

logger = logging.getLogger(__name__)

FETCH_AHEAD = 4
"""The next ledger is fetched when less than one part in so many of this one is left."""
NO_ENTRIES = Run(b"", b"")


class LedgerInfo(NamedTuple):
    """One ledger of a log, for statistics and retention."""

    ledger: int
    entries: int
    """Durable entries."""
    bytes: int
    first_publish_ms: int
    last_publish_ms: int
    sealed: bool


class _Link:
    """One ledger of the chain."""

    __slots__ = (
        "appended",
        "bytes",
        "cut_off",
        "end",
        "first_index",
        "first_publish_ms",
        "last_publish_ms",
        "ledger",
        "next_index",
        "opened_s",
        "recorded",
        "sealed",
    )

    def __init__(self, ledger: int, first_index: int) -> None:
        self.ledger = ledger
        self.first_index = first_index
        self.next_index = first_index
        """Messages of the topic up to the last durable entry."""
        self.end = 0
        """The entry id after the last durable one."""
        self.appended = 0
        """The entry id after the last one handed out."""
        self.bytes = 0
        self.first_publish_ms = 0
        self.last_publish_ms = 0
        self.opened_s = 0.0
        self.sealed = False
        self.recorded = False
        self.cut_off = False
        """Durable entries at its end are lost: nothing tells how many messages they were."""

    def record(self, worker: int) -> LedgerRecord:
        """Return what the metadata is to keep."""
        return LedgerRecord(
            ledger=self.ledger,
            first_index=self.first_index,
            worker=worker,
            end_entry=self.end,
            next_index=self.next_index,
            bytes=self.bytes,
            first_publish_ms=self.first_publish_ms,
            last_publish_ms=self.last_publish_ms,
        )


class Log:
    """The ledgers of one partition in order."""

    def __init__(self, ledgers: Ledgers, chain: Chain, config: BrokerConfig, clock: Clock) -> None:
        self.next_index = 0
        """Messages taken so far. Whoever stamps a run sets it to what `Run.stamp` returned."""
        self._ledgers = ledgers
        self._chain = chain
        self._config = config
        self._clock = clock
        self._links: list[_Link] = []
        self._ids: list[int] = []
        self._before: list[int] | None = None
        self._current: _Link | None = None
        self._next: int | None = None
        self._epoch: int | None = None
        self._opening: Task[None] | None = None
        self._fetching: Task[None] | None = None
        self._sealing: list[_Link] = []
        self._seal_lock = asyncio.Lock()
        self._tasks: set[Task[None]] = set()
        self._pending: deque[tuple[int, int, int]] = deque()
        """Ledger, end and next index of what was handed out and is not durable yet."""
        self._durable_index = 0

    async def load(self) -> None:
        """Take the chain over: read it, and seal what the last process left open.

        Raises:
            StorageError: a ledger's end could not be read.
            StoreError: the metadata could not be read or changed.
        """
        self._epoch = await self._chain.take(self._config.worker)
        records = await self._chain.load()
        links: list[_Link] = []
        for record in records:
            link = await self._load_link(record, links[-1] if links else None)
            links.append(link)
        keep = max((at for at, link in enumerate(links) if link.end), default=len(links) - 1)
        empty = [link for at, link in enumerate(links) if not link.end and at != keep]
        if empty:
            await self._chain.drop([link.ledger for link in empty], self._epoch)
        self._links = [link for link in links if link not in empty]
        for link in self._links:
            if not link.recorded:
                await self._chain.seal(link.record(self._config.worker), self._epoch)
                link.recorded = True
                self._ledgers.ended(link.ledger)
        self._ids = [link.ledger for link in self._links]
        self._before = None
        self.next_index = self._durable_index = links[-1].next_index if links else 0

    async def _load_link(self, record: LedgerRecord, previous: _Link | None) -> _Link:
        link = _Link(record.ledger, record.first_index)
        if previous is not None:
            # The record holds the index as it was when the ledger was fetched: too low if it was
            # fetched ahead, too high if what was on its way then never became durable.
            index = previous.next_index
            first_index = max(index, record.first_index) if previous.cut_off else index
            link.first_index = link.next_index = first_index
        link.sealed = True
        if record.end_entry is not None:
            link.recorded = True
            link.end = record.end_entry
            link.first_index = record.first_index
            link.next_index = record.next_index or record.first_index
            link.bytes = record.bytes
            link.first_publish_ms = record.first_publish_ms
            link.last_publish_ms = record.last_publish_ms
        else:
            found = await self._ledgers.stored.end_of(record.ledger)
            link.end = max(found.end, self._ledgers.stored.lost_end(record.ledger))
            link.cut_off = link.end > found.end
            if found.end:
                link.bytes = found.bytes
                link.first_index, link.next_index = found.first_index, found.next_index
                link.first_publish_ms = found.publish_first_ms
                link.last_publish_ms = found.publish_last_ms
        link.appended = link.end
        return link

    async def close(self) -> None:
        """Take nothing more; return when all ends are recorded in the metadata.

        After a `flush` of the ledgers another process can take over.
        """
        current, self._current = self._current, None
        if current is not None:
            self._seal_later(current)
        for task in (self._opening, self._fetching):
            if task is not None:
                await asyncio.gather(task, return_exceptions=True)
        if self._current is not None:  # a task had opened one meanwhile
            self._seal_later(self._current)
            self._current = None
        try:
            await self._record_seals()
            if self._next is not None:
                unused, self._next = self._next, None
                await self._chain.drop([unused], self._epoch)
        except TopicNotFoundError:
            logger.info("the topic is deleted; its ledgers need no end")
            for link in self._sealing:
                await self._ledgers.seal(link.ledger)
                self._ledgers.ended(link.ledger)
        if self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- writing

    @property
    def ready(self) -> bool:
        """Whether there is an open ledger with room: `reserve` may be called."""
        current, config = self._current, self._config
        return (
            current is not None
            and current.appended < config.ledger_entries_max
            and current.bytes < config.ledger_bytes_max
        )

    async def open(self) -> None:
        """Make the log ready. Many calls at once are one.

        Raises:
            StoreError: the metadata could not be changed.
        """
        if self.ready:
            return
        if self._opening is None or self._opening.done():
            self._opening = asyncio.get_running_loop().create_task(self._open())
        await asyncio.shield(self._opening)

    def reserve(self, entries: int) -> tuple[int, int]:
        """Return the ledger and the first of so many entry ids. Only while `ready`."""
        current = self._current
        assert current is not None, "open first"
        first = current.appended
        current.appended = first + entries
        return current.ledger, first

    def wrote(
        self, entries: int, size_bytes: int, publish_first_ms: int, publish_last_ms: int
    ) -> None:
        """Count what was reserved and stamped; may close the ledger."""
        current = self._current
        assert current is not None, "reserve first"
        appended = current.appended
        if appended == entries or publish_first_ms < current.first_publish_ms:
            current.first_publish_ms = publish_first_ms
        current.last_publish_ms = max(current.last_publish_ms, publish_last_ms)
        current.bytes += size_bytes
        self._pending.append((current.ledger, appended, self.next_index))
        config = self._config
        if (
            appended * 2 < config.ledger_entries_max
            and current.bytes * 2 < config.ledger_bytes_max
            and self._clock.monotonic() - current.opened_s < config.ledger_age_s_max
        ):
            return  # more than half of it is left, which is the usual thing
        self._look_ahead(current)

    def _look_ahead(self, current: _Link) -> None:
        """Fetch the next ledger while there is room in this one; switch to it when there is not."""
        left = self._room_left(current)
        if left <= 1 / FETCH_AHEAD and self._next is None:
            self._fetch_ahead()
        if left <= 0 and self._next is not None:
            self._switch()

    def take(  # noqa: PLR0913, PLR0917 - what `reserve` and `wrote` are told, at once
        self,
        entries: int,
        messages: int,
        size_bytes: int,
        publish_first_ms: int,
        publish_last_ms: int,
        now_s: float,
    ) -> tuple[int, int, int] | None:
        """Reserve entry ids and indexes for rows, and count them, in one step.

        Returns ledger, first entry id and first index; None: not `ready`, open first.
        """
        link, config = self._current, self._config
        if link is None:
            return None
        first, size = link.appended, link.bytes
        entries_max, bytes_max = config.ledger_entries_max, config.ledger_bytes_max
        if first >= entries_max or size >= bytes_max:
            return None
        if not first or publish_first_ms < link.first_publish_ms:
            link.first_publish_ms = publish_first_ms
        link.last_publish_ms = max(link.last_publish_ms, publish_last_ms)
        index = self.next_index
        self.next_index = next_index = index + messages
        link.appended = end = first + entries
        link.bytes = size = size + size_bytes
        ledger = link.ledger
        self._pending.append((ledger, end, next_index))
        if (
            end * 2 >= entries_max
            or size * 2 >= bytes_max
            or now_s - link.opened_s >= config.ledger_age_s_max
        ):
            self._look_ahead(link)
        return ledger, first, index

    def committed(self, ledger: int, end_entry: int) -> None:
        """Take note that a ledger is durable up to `end_entry`."""
        link = self._current
        if link is None or link.ledger != ledger:
            link = self._link(ledger)
        if link is None or end_entry <= link.end:
            return
        link.end = end_entry
        if link is not self._links[-1]:
            self._before = None
        pending = self._pending
        while pending:
            place, end, index = pending[0]
            if place > ledger or (place == ledger and end > end_entry):
                break
            pending.popleft()
            self._durable_index = link.next_index = index

    def roll_if_old(self) -> None:
        """Seal the current ledger if it is older than allowed, so that it can be trimmed."""
        current = self._current
        if current is not None and current.appended and self._room_left(current) <= 0:
            if self._next is not None:
                self._switch()
            else:
                self._current = None
                self._seal_later(current)

    # --- asking

    @property
    def epoch(self) -> int | None:
        """What says that this process may change what belongs to the partition."""
        return self._epoch

    @property
    def first(self) -> EntryId:
        """The position of the first entry; `end` if there is none."""
        return self.next_position(EARLIEST)

    @property
    def end(self) -> EntryId:
        """The position after the last durable entry."""
        if not self._links:
            return EntryId(0, 0)
        last = self._links[-1]
        return EntryId(last.ledger, last.end)

    @property
    def last(self) -> EntryId:
        """The last durable entry, or EARLIEST."""
        return self.previous_position(self.end)

    @property
    def bytes_total(self) -> int:
        """Bytes of all bodies."""
        return sum(link.bytes for link in self._links)

    def ledger_infos(self) -> list[LedgerInfo]:
        """Return all ledgers, oldest first."""
        return [
            LedgerInfo(
                link.ledger,
                link.end,
                link.bytes,
                link.first_publish_ms,
                link.last_publish_ms,
                link.sealed,
            )
            for link in self._links
        ]

    def next_position(self, position: EntryId) -> EntryId:
        """Return the first entry at or after a position, or the end."""
        ids, links = self._ids, self._links
        at = bisect_left(ids, position.ledger)
        if at < len(ids) and ids[at] == position.ledger:
            entry = max(position.entry, 0)
            if entry < links[at].end:
                return EntryId(position.ledger, entry)
            at += 1
        while at < len(ids):
            if links[at].end:
                return EntryId(ids[at], 0)
            at += 1
        return self.end

    def previous_position(self, position: EntryId) -> EntryId:
        """Return the last entry before a position, or EARLIEST."""
        ids, links = self._ids, self._links
        at = bisect_left(ids, position.ledger)
        if at < len(ids) and ids[at] == position.ledger:
            entry = min(position.entry, links[at].end)
            if entry > 0:
                return EntryId(position.ledger, entry - 1)
        for before in range(at - 1, -1, -1):
            if links[before].end:
                return EntryId(ids[before], links[before].end - 1)
        return EARLIEST

    def distance(self, first: EntryId, end: EntryId) -> int:
        """Count the entries in [first, end)."""
        return max(self._rank(end) - self._rank(first), 0)

    # --- reading

    def read_cached(
        self, position: EntryId, entries_max: int, bytes_max: int
    ) -> tuple[EntryId, Run] | None:
        """Return entries from a position on, and the id of the first, if they are in memory."""
        at = self.next_position(position)
        link = self._link(at.ledger)
        if link is None or at.entry >= link.end:
            return None
        entries_max = min(entries_max, link.end - at.entry)
        run = self._ledgers.read_cached(at.ledger, at.entry, entries_max, bytes_max)
        return None if run is None else (at, run)

    async def read(
        self, position: EntryId, entries_max: int, bytes_max: int
    ) -> tuple[EntryId, Run] | Gap:
        """Return entries from a position on, and the id of the first; none at the end.

        Where entries were lost, return the gap instead: the caller counts and passes it.

        Raises:
            StorageError: the disk did not let us read; try again.
        """
        at = self.next_position(position)
        link = self._link(at.ledger)
        if link is None or at.entry >= link.end:
            return at, NO_ENTRIES
        end = link.end
        try:
            run = await self._ledgers.read(
                at.ledger, at.entry, min(entries_max, end - at.entry), bytes_max
            )
        except QuarantinedError as error:
            return Gap(at, EntryId(at.ledger, min(error.last, end - 1)), error.reason)
        except LedgerNotFoundError as error:
            return Gap(at, EntryId(at.ledger, end - 1), str(error))
        return at, run

    async def find_time(self, publish_ms: int) -> EntryId:
        """Return the first entry published at or after a time, or the end.

        Within a ledger publish times are taken to rise, as Pulsar does.
        """
        for link in list(self._links):
            if link.end and link.last_publish_ms >= publish_ms:
                entry = await self._find_in(link, publish_ms)
                if entry < link.end:
                    return EntryId(link.ledger, entry)
        return self.end

    async def find_index(self, index: int) -> EntryId:
        """Return the entry that holds the message of an index; EARLIEST: there is none.

        Indexes count all messages that the partition ever took.
        """
        for link in list(self._links):
            if link.end and link.first_index <= index < link.next_index:
                entry = await self._halve(link, 0, FIRST_INDEX, index + 1) - 1
                return EntryId(link.ledger, max(entry, 0))
        return EARLIEST

    async def _find_in(self, link: _Link, publish_ms: int) -> int:
        if link.first_publish_ms >= publish_ms:
            return 0
        return await self._halve(link, 0, PUBLISH_TIME, publish_ms)

    async def _halve(self, link: _Link, low: int, column: int, value: int) -> int:
        """Return the first entry from `low` on whose column is not below a value; else the end."""
        high = link.end
        while low < high:
            middle = (low + high) // 2
            found = await self.read(EntryId(link.ledger, middle), 1, 1)
            if isinstance(found, Gap):
                if found.last.entry + 1 >= high:
                    high = middle
                else:
                    low = found.last.entry + 1
            elif found[1].i64(column)[0] < value:
                low = middle + 1
            else:
                high = middle
        return low

    # --- trimming

    async def trim(self, before: EntryId) -> list[int]:
        """Drop whole sealed ledgers below a position from the chain; return which.

        Raises:
            StoreError: the metadata could not be changed; nothing was dropped.
        """
        newest = max((at for at, link in enumerate(self._links) if link.end), default=0)
        dropped = []
        for link in self._links[:newest]:
            if not link.recorded or (link.ledger, link.end) > before:
                break
            dropped.append(link.ledger)
        if dropped:
            await self._chain.drop(dropped, self._epoch)
            self._forget(set(dropped))
            self._ledgers.forget(dropped)
        return dropped

    def _forget(self, ledgers: set[int]) -> None:
        self._links = [link for link in self._links if link.ledger not in ledgers]
        self._ids = [link.ledger for link in self._links]
        self._before = None

    # --- rolling

    def _room_left(self, link: _Link) -> float:
        """Return which part of a ledger is left; 0 or less: it is full, or too old."""
        config = self._config
        age = self._clock.monotonic() - link.opened_s
        return min(
            1 - link.appended / config.ledger_entries_max,
            1 - link.bytes / config.ledger_bytes_max,
            0 if age >= config.ledger_age_s_max and link.appended else 1,
        )

    async def _open(self) -> None:
        await self._record_seals()
        if self.ready:
            return
        if self._fetching is not None and not self._fetching.done():
            await self._fetching
            if self.ready:
                return
        if self._next is None:
            self._next = await self._extend()
        self._switch()

    def _fetch_ahead(self) -> None:
        if self._fetching is None or self._fetching.done():
            self._fetching = asyncio.get_running_loop().create_task(self._fetch())

    async def _fetch(self) -> None:
        try:
            fetched = await self._extend()
        except StoreError:
            logger.warning("the next ledger could not be fetched ahead", exc_info=True)
            return
        self._next = fetched
        current = self._current
        if current is not None and self._room_left(current) <= 0:
            self._switch()

    async def _extend(self) -> int:
        return await self._chain.extend(self.next_index, self._config.worker, self._epoch)

    def _switch(self) -> None:
        """Make the ledger that was fetched the current one."""
        old, ledger = self._current, self._next
        assert ledger is not None
        self._next = None
        link = _Link(ledger, self.next_index)
        link.opened_s = self._clock.monotonic()
        self._ledgers.create(ledger, self._cut)
        self._links.append(link)
        self._ids.append(ledger)
        self._before = None
        self._current = link
        if old is not None:
            self._seal_later(old)

    def _seal_later(self, link: _Link) -> None:
        link.sealed = True
        self._sealing.append(link)
        self._start(self._record_in_background())

    async def _record_in_background(self) -> None:
        try:
            await self._record_seals()
        except (StoreError, StorageError):
            logger.warning("a ledger's end could not be recorded yet", exc_info=True)

    async def _record_seals(self) -> None:
        """Seal what is to be sealed, and record where it ends, in order."""
        async with self._seal_lock:
            while self._sealing:
                link = self._sealing[0]
                end = await self._ledgers.seal(link.ledger)
                self.committed(link.ledger, end)
                if link.end or not any(each.end for each in self._links):
                    await self._chain.seal(link.record(self._config.worker), self._epoch)
                    link.recorded = True
                else:
                    await self._chain.drop([link.ledger], self._epoch)
                    self._forget({link.ledger})
                self._ledgers.ended(link.ledger)
                self._sealing.pop(0)

    def _cut(self, ledger: int, end: int, sealed: bool) -> None:
        """Take back what was handed out beyond `end`: it could not be made durable."""
        link = self._link(ledger)
        if link is None:
            return
        link.appended = end
        self._pending.clear()
        self.next_index = self._durable_index
        last = self._links[-1]
        last.first_index = min(last.first_index, self.next_index)
        if sealed and link is self._current:
            self._current = None
            self._seal_later(link)

    # --- positions

    def _link(self, ledger: int) -> _Link | None:
        links = self._links
        if links and links[-1].ledger == ledger:
            return links[-1]
        at = bisect_left(self._ids, ledger)
        return links[at] if at < len(links) and links[at].ledger == ledger else None

    def _rank(self, position: EntryId) -> int:
        """Count the entries before a position."""
        before = self._before
        if before is None:
            total = 0
            before = self._before = []
            for link in self._links:
                before.append(total)
                total += link.end
        at = bisect_left(self._ids, position.ledger)
        if at == len(before):
            return before[-1] + self._links[-1].end if before else 0
        if self._ids[at] != position.ledger:
            return before[at]
        return before[at] + min(max(position.entry, 0), self._links[at].end)

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
