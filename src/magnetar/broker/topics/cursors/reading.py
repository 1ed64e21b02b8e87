"""What a subscription reads: from the cache at once, else one cold read at a time.

    read(stream, position) ──▶ cache ──▶ a run, now
                                └─ not there ──▶ log.read ··▶ held, then `wake`, then asked again

Streams are the reasons to read (something new, something again, something that is due):
each holds at most one run that was read ahead, of at most `dispatch_bytes_max` bytes and for
`read_cache_ttl_ms`, so that they do not throw each other's away.
"""

import logging
from bisect import bisect_left
from collections.abc import Callable, Collection, Coroutine, Sequence
from itertools import accumulate
from typing import Any, Protocol

from magnetar.broker.clock import Clock
from magnetar.broker.config import BrokerConfig
from magnetar.broker.entry import EntryFlags, EntryId
from magnetar.broker.run import DELIVER_AT, FLAGS, LENGTH, MESSAGES, Run
from magnetar.broker.storage.errors import Gap, StorageError
from magnetar.broker.topics.cursors.cursor import Cursor, Ledgers, ones
from magnetar.broker.topics.cursors.entry_set import runs_of_zeros
from magnetar.broker.topics.cursors.held_acks import HeldAcknowledgements
from magnetar.broker.topics.cursors.rota import Rota

logger = logging.getLogger(__name__)

RETRY_S = 1.0
"""How long to wait after a read that failed: the disk may recover, and must not be hammered."""

NEW, AGAIN, DUE = range(3)
"""The streams."""

_MARKER = EntryFlags.MARKER.value
_SPECIAL = _MARKER | EntryFlags.TRANSACTIONAL.value


class Timer(Protocol):
    """A callback that has not been called yet."""

    def cancel(self) -> None: ...


class Loop(Protocol):
    """What is needed of an event loop."""

    def call_soon(self, callback: Callable[[], None], /) -> object: ...
    def call_later(self, delay: float, callback: Callable[[], None], /) -> Timer: ...
    def create_task(self, coroutine: Coroutine[Any, Any, None], /) -> object: ...


class Log(Ledgers, Protocol):
    """The log of one partition, as far as a subscription uses it. `storage.log.Log` is one."""

    @property
    def first(self) -> EntryId: ...
    @property
    def end(self) -> EntryId: ...
    @property
    def last(self) -> EntryId: ...
    @property
    def next_index(self) -> int: ...
    @property
    def bytes_total(self) -> int: ...
    def previous_position(self, position: EntryId, /) -> EntryId: ...
    def read_cached(
        self, position: EntryId, entries_max: int, bytes_max: int, /
    ) -> tuple[EntryId, Run] | None: ...
    async def read(
        self, position: EntryId, entries_max: int, bytes_max: int, /
    ) -> tuple[EntryId, Run] | Gap: ...
    async def find_time(self, publish_ms: int, /) -> EntryId: ...


class Ground(Protocol):
    """What all subscriptions of a process stand on."""

    @property
    def config(self) -> BrokerConfig: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def loop(self) -> Loop: ...
    @property
    def rota(self) -> Rota: ...


class Reading:
    """The reads of one subscription."""

    __slots__ = (
        "_config",
        "_held",
        "_letting_go",
        "_log",
        "_loop",
        "_on_gap",
        "_wake",
        "busy",
    )

    def __init__(
        self, log: Log, ground: Ground, wake: Callable[[], None], on_gap: Callable[[Gap], None]
    ) -> None:
        """Call `wake` when a cold read is done, and `on_gap` when it met damage."""
        self._log = log
        self._loop = ground.loop
        self._config = ground.config
        self._wake = wake
        self._on_gap = on_gap
        self._held: dict[int, tuple[EntryId, Run]] = {}
        self._letting_go: Timer | None = None
        self.busy = False

    def read(self, stream: int, position: EntryId, entries_max: int) -> tuple[EntryId, Run] | None:
        """Return entries from a position on, and the id of the first.

        None: there is nothing yet, or a cold read is on its way and will wake.
        """
        log = self._log
        found = self._from_held(stream, position, entries_max)
        if found is not None or position >= log.end:
            return found
        found = log.read_cached(position, entries_max, self._config.dispatch_bytes_max)
        if found is not None:
            return found
        existing = log.next_position(position)
        if existing >= log.end:
            return None
        if existing != position:  # it was the end of a ledger, or is trimmed
            found = self._from_held(stream, existing, entries_max)
        if found is None and not self.busy:
            self.busy = True
            self._loop.create_task(self._read(stream, existing))
        return found

    def _from_held(
        self, stream: int, position: EntryId, entries_max: int
    ) -> tuple[EntryId, Run] | None:
        held = self._held.get(stream)
        if held is None:
            return None
        at, run = held
        skip = position.entry - at.entry
        if at.ledger == position.ledger and 0 <= skip < run.count:
            return position, run.slice(skip, min(entries_max, run.count - skip))
        if position > at:  # it was read to its end
            del self._held[stream]
        return None

    def read_from(self, log: Log) -> None:
        """Read from another view of the same log from now on."""
        self._log = log

    def forget(self) -> None:
        """Let go of what was read ahead."""
        self._held.clear()
        if self._letting_go is not None:
            self._letting_go.cancel()
            self._letting_go = None

    def _hold(self, stream: int, found: tuple[EntryId, Run]) -> None:
        """Keep what a cold read brought, as long as the read cache would.

        It is there for its reader then even where the cache has no room; and a consumer that
        asks for nothing more does not keep the memory of a block for itself.
        """
        self._held[stream] = found
        if self._letting_go is None:
            self._letting_go = self._loop.call_later(
                self._config.read_cache_ttl_ms / 1000, self._let_go
            )

    def _let_go(self) -> None:
        self._letting_go = None
        self._held.clear()

    async def _read(self, stream: int, position: EntryId) -> None:
        try:
            found = await self._log.read(
                position, self._config.dispatch_entries_max, self._config.dispatch_bytes_max
            )
        except StorageError as error:
            if self._log.next_position(position) == position:
                logger.warning("cannot read entry %s, trying again: %s", position, error)
                self._loop.call_later(RETRY_S, self._try_again)
                return
        else:
            if isinstance(found, Gap):
                self._on_gap(found)
            else:
                self._hold(stream, found)
        self._try_again()

    def _try_again(self) -> None:
        self.busy = False
        self._wake()


# --- what of a run may be sent -----------------------------------------------------------


class Portion:
    """The rows of a run that are neither acknowledged nor internal, and their messages."""

    __slots__ = ("ack_sets", "at", "counts", "messages", "rows", "run", "single")

    def __init__(
        self, at: EntryId, run: Run, cursor: Cursor, held: HeldAcknowledgements | None = None
    ) -> None:
        self.at = at
        self.run = run
        single = run.facts.single
        self.counts: list[int] = [1] * run.count if single else run.u32(MESSAGES).tolist()
        """Messages in each row of the run."""
        self.single = single or sum(self.counts) == run.count
        """Every row is one message."""
        self.messages = self.counts
        """Messages in each row of the run that are not acknowledged."""
        self.ack_sets: dict[int, Sequence[int]] = {}
        acked = cursor.acknowledged_bits(at.ledger, at.entry, run.count)
        if held is not None:
            acked |= held.bits(at.ledger, at.entry, run.count)
        self.rows: Sequence[int] = (
            range(run.count)
            if not acked
            else [
                row
                for first, count in runs_of_zeros(acked, run.count)
                for row in range(first, first + count)
            ]
        )
        if cursor.ack_sets or (held is not None and held.has_parts):
            self._leave_out_parts(cursor, held)

    def _leave_out_parts(self, cursor: Cursor, held: HeldAcknowledgements | None) -> None:
        self.messages = self.counts.copy()
        whole: set[int] = set()
        for row in self.rows:
            at = EntryId(self.at.ledger, self.at.entry + row)
            words = cursor.ack_sets.get(at)
            if held is not None:
                words = held.left(at, words, self.counts[row])
            if words is not None:
                self.ack_sets[row] = words
                self.messages[row] = ones(words)
                if not self.messages[row]:
                    whole.add(row)
        if whole:
            self.rows = [row for row in self.rows if row not in whole]

    @property
    def special(self) -> bool:
        """Whether there are rows that may have to be left out: `leave_out_unseen` knows."""
        return any(each & _SPECIAL for each in self.run.facts.flags)

    def leave_out_unseen(self, hidden: Collection[int]) -> list[int]:
        """Take out the rows that are never delivered, and return them: markers and `hidden`."""
        flags = self.run.u32(FLAGS).tolist()
        unseen = {row for row, each in enumerate(flags) if each & _MARKER}.union(hidden)
        found = [row for row in self.rows if row in unseen]
        self.rows = [row for row in self.rows if row not in unseen]
        return found

    def left_out(self, first: int) -> list[int]:
        """Return the entries that are not to be sent, where row 0 is entry `first`."""
        if len(self.rows) == self.run.count:
            return []
        left = set(self.rows)
        return [first + row for row in range(self.run.count) if row not in left]

    def later(self, now_wall_ms: int) -> list[tuple[int, int]]:
        """Take out the rows whose time has not come; return them with their time, wall ms."""
        if not self.run.facts.timed:
            return []
        times = self.run.i64(DELIVER_AT).tolist()
        found = [(row, times[row]) for row in self.rows if times[row] > now_wall_ms]
        if found:
            self.rows = [row for row in self.rows if times[row] <= now_wall_ms]
        return found

    def fitting(self, rows: Sequence[int], permits: int) -> tuple[int, int]:
        """Return how many of some rows, and messages in them, `permits` are enough for."""
        if self.single and self.messages is self.counts:
            count = min(len(rows), max(permits, 1))
            return count, count
        return fitting(self.message_counts(rows), permits)

    def size_of(self, rows: Sequence[int]) -> int:
        """Return how many bytes the bodies of some rows have."""
        if isinstance(rows, range) and rows.step == 1:
            return self.run.size_of(rows.start, len(rows))
        lengths = self.run.u32(LENGTH).tolist()
        return sum([lengths[row] for row in rows])

    def message_counts(self, rows: Sequence[int]) -> list[int]:
        """Return how many messages each of some rows still is."""
        if rows == range(self.run.count):
            return self.messages
        return [self.messages[row] for row in rows]


def fitting(messages: Sequence[int], permits: int) -> tuple[int, int]:
    """Return how many entries, and messages in them, `permits` are enough for.

    The entry that uses the last permit up is still sent: a batch is never split.
    """
    total = sum(messages)
    if total <= permits:
        return len(messages), total
    sums = list(accumulate(messages))
    count = bisect_left(sums, permits) + 1
    return count, sums[count - 1]
