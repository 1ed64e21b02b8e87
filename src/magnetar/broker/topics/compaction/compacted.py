"""The compacted side of one topic: its view, the run that makes the next one, what is shown.

    NOT_RUN ──start──▶ RUNNING ──▶ SUCCESS     the view is the new one
                          └──────▶ ERROR       the view is the old one, or none

Most topics have none of this: it is made when a topic is first compacted, or loaded with a
view. `ViewedLog` is the log as a compacted reader sees it: where the log itself was trimmed,
the ledgers that the view has survivors of still count as being there.
"""

import asyncio
from bisect import bisect_left
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from magnetar.broker.entry import EARLIEST, EntryId
from magnetar.broker.run import Run
from magnetar.broker.storage.errors import Gap
from magnetar.broker.topics.compaction.view import Survivors, View
from magnetar.broker.topics.cursors.reading import Log
from magnetar.broker.topics.producers.tally import Tally, latency_bucket


class Status(StrEnum):
    """How the last compaction went. Values are Pulsar's LongRunningProcessStatus."""

    NOT_RUN = "NOT_RUN"
    RUNNING = "RUNNING"
    SUCCESS = "SUCCESS"
    ERROR = "ERROR"


class Compacted:
    """What a topic knows of its compaction."""

    __slots__ = (
        "bytes_read",
        "duration_ms",
        "error",
        "failed",
        "failed_ms",
        "finished_ms",
        "removed",
        "removed_total",
        "status",
        "succeeded",
        "survivors",
        "tally",
        "task",
        "view",
    )

    def __init__(self, view: View | None, survivors: Survivors) -> None:
        self.view = view
        self.survivors = survivors
        """Tells what is left of a batch, given its body."""
        self.status = Status.NOT_RUN
        self.error = ""
        self.task: asyncio.Task[None] | None = None
        self.removed = 0 if view is None else view.record.removed
        self.finished_ms = 0 if view is None else view.record.finished_ms
        self.duration_ms = 0 if view is None else view.record.duration_ms
        self.failed_ms = 0
        self.bytes_read = 0
        self.removed_total = 0
        """Messages left out since the topic was loaded; below: compactions."""
        self.succeeded = self.failed = 0
        self.tally = Tally()
        """How long it took until what was written was durable."""

    @property
    def running(self) -> bool:
        """Whether one is being made, or waits for its turn."""
        return self.task is not None and not self.task.done()

    @property
    def needs(self) -> EntryId | None:
        """The last entry that compaction has no need of any more; None: it never ran.

        What comes later must not be trimmed: Pulsar's `__compaction` cursor.
        """
        if self.view is not None:
            return self.view.horizon
        return EARLIEST if self.running else None

    def stats(self) -> dict[str, Any]:
        """Return what is shown among the statistics of the topic, under Pulsar's names."""
        return {
            "lastCompactionRemovedEventCount": self.removed,
            "lastCompactionSucceedTimestamp": self.finished_ms,
            "lastCompactionFailedTimestamp": self.failed_ms,
            "lastCompactionDurationTimeInMills": self.duration_ms,
        }

    def wrote(self, entries: int, seconds: float) -> None:
        """Count entries of a view that took so long to be durable."""
        self.tally.wrote(entries, round(seconds * 1e6), latency_bucket(seconds))

    def figures(self, now_s: float) -> dict[str, float | Sequence[int]]:
        """Return what metrics show."""
        view, seconds = self.view, self.duration_ms / 1000
        size = 0 if view is None else view.record.bytes
        return {
            "removed": self.removed_total,
            "succeeded": self.succeeded,
            "failed": self.failed,
            "duration_ms": self.duration_ms,
            "read_rate": self.bytes_read / seconds if seconds else 0.0,
            "write_rate": size / seconds if seconds else 0.0,
            "entries": 0 if view is None else view.places,
            "bytes": size,
            "counts": self.tally.read(now_s),
        }

    def ledger(self) -> dict[str, Any]:
        """Return what is shown of the compacted ledger, under Pulsar's names."""
        view = self.view
        return {
            "ledgerId": -1 if view is None else view.ledger,
            "entries": -1 if view is None else view.places,
            "size": -1 if view is None else view.record.bytes,
            "offloaded": False,
            "underReplicated": False,
        }


NOT_COMPACTED = Compacted(None, lambda _: ())


class ViewedLog:
    """The log of a topic, and before it the ledgers that only the view has anything of."""

    __slots__ = ("_compacted", "log")

    def __init__(self, log: Log, compacted: Compacted) -> None:
        self.log = log
        self._compacted = compacted

    @property
    def first(self) -> EntryId:
        """The first position that there is something at, or was."""
        ledgers = self._gone()[0]
        return EntryId(ledgers[0], 0) if ledgers else self.log.first

    @property
    def end(self) -> EntryId:
        """The position after the last durable entry."""
        return self.log.end

    @property
    def last(self) -> EntryId:
        """The last durable entry."""
        return self.previous_position(self.end)

    @property
    def next_index(self) -> int:
        """Messages taken so far."""
        return self.log.next_index

    @property
    def bytes_total(self) -> int:
        """Bytes of all bodies in the log."""
        return self.log.bytes_total

    def next_position(self, position: EntryId, /) -> EntryId:
        """Return the first entry at or after a position, or the end."""
        if position >= self.log.first:
            return self.log.next_position(position)
        ledgers, extents = self._gone()
        at = bisect_left(ledgers, position.ledger)
        if at < len(ledgers) and ledgers[at] == position.ledger:
            if position.entry < extents[at]:
                return EntryId(position.ledger, max(position.entry, 0))
            at += 1
        return EntryId(ledgers[at], 0) if at < len(ledgers) else self.log.next_position(position)

    def previous_position(self, position: EntryId, /) -> EntryId:
        """Return the last entry before a position, or EARLIEST."""
        found = self.log.previous_position(position)
        if found != EARLIEST:
            return found
        ledgers, extents = self._gone()
        at = bisect_left(ledgers, position.ledger)
        if at < len(ledgers) and ledgers[at] == position.ledger and position.entry > 0:
            return EntryId(position.ledger, min(position.entry, extents[at]) - 1)
        return EntryId(ledgers[at - 1], extents[at - 1] - 1) if at else EARLIEST

    def distance(self, first: EntryId, end: EntryId, /) -> int:
        """Count the entries in [first, end)."""
        gone = 0
        if first < self.log.first:
            for ledger, extent in zip(*self._gone(), strict=True):
                low = max(first.entry, 0) if ledger == first.ledger else 0
                high = min(max(end.entry, 0), extent) if ledger == end.ledger else extent
                if first.ledger <= ledger <= end.ledger:
                    gone += max(high - low, 0)
        return gone + self.log.distance(first, end)

    def read_cached(
        self, position: EntryId, entries_max: int, bytes_max: int, /
    ) -> tuple[EntryId, Run] | None:
        """Return entries of the log, if they are in memory."""
        return self.log.read_cached(position, entries_max, bytes_max)

    async def read(
        self, position: EntryId, entries_max: int, bytes_max: int, /
    ) -> tuple[EntryId, Run] | Gap:
        """Return entries of the log."""
        return await self.log.read(position, entries_max, bytes_max)

    async def find_time(self, publish_ms: int, /) -> EntryId:
        """Return the first entry published at or after a time, or the end."""
        view = self._compacted.view
        if view is not None and self._gone()[0]:
            found = await view.find_time(publish_ms)
            if found is not None and found < self.log.first:
                return found
        return await self.log.find_time(publish_ms)

    def _gone(self) -> tuple[list[int], list[int]]:
        """Return the ledgers that were trimmed and have survivors, and how many entries each had.

        Whole ledgers only are trimmed, so those of the view before the first one of the log are.
        """
        view, first = self._compacted.view, self.log.first.ledger
        if view is None or not view.record.sources or view.record.sources[0].ledger >= first:
            return [], []
        gone = [source for source in view.record.sources if source.ledger < first]
        return [source.ledger for source in gone], [source.extent for source in gone]
