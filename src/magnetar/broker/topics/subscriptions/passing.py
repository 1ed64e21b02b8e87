"""What a subscription passes over: entries that it acknowledges though nobody was sent them.

skip, clear    an administrator says so
expire         they are too old, or a quota is full
compacted      the compacted view has left them out, and that is what is read
damaged        survivors that the compacted ledger has lost
"""

import logging
from collections.abc import Sequence
from itertools import pairwise

from magnetar.broker.entry import EARLIEST, LATEST, EntryFlags, EntryId
from magnetar.broker.port import PersistenceError
from magnetar.broker.run import FIRST_INDEX, FLAGS, MESSAGES, Run
from magnetar.broker.storage.errors import StorageError
from magnetar.broker.topics.compaction.compacted import Compacted
from magnetar.broker.topics.subscriptions.acknowledging import Acknowledging
from magnetar.names import TopicName

logger = logging.getLogger(__name__)

_COMPACTED = EntryFlags.COMPACTED.value

COUNT_TRIES = 3
"""How often it is counted what lies before, when consumers acknowledge meanwhile."""


class Passing(Acknowledging):
    """The part of a subscription that moves on without delivering."""

    __slots__ = ()

    topic: TopicName
    durable: bool

    @property
    def compacted(self) -> Compacted | None:
        """The compacted side of the topic, if there is one."""
        raise NotImplementedError

    # --- by somebody's word, or by age

    async def skip(self, count: int) -> int:
        """Acknowledge the next `count` entries that are not; return how many there were."""
        skipped = 0
        while skipped < count:
            start = self.cursor.next_unacknowledged(EARLIEST, self.log)
            if start >= self.log.end:
                break
            # Neighbours up to the next hole or the end of the ledger, at most a page at a time.
            length = min(count - skipped, 4096)
            bits = self.cursor.acknowledged_bits(*start, length)
            if bits:
                length = (bits & -bits).bit_length() - 1
            while length > 1 and not self._exist(*start, length):
                length //= 2
            after = EntryId(start.ledger, start.entry + length)
            skipped += await self._skip_to(after)
        return skipped

    async def clear_backlog(self) -> int:
        """Acknowledge everything published so far; return how many entries that were."""
        return await self._skip_to(self.log.end)

    async def expire(self, seconds: int) -> int:
        """Acknowledge what was published longer ago; return how many entries that were."""
        if self.cursor.next_unacknowledged(EARLIEST, self.log) >= self.log.end:
            return 0
        before_ms = self.ground.clock.wall_ms() - seconds * 1000
        return self._expired(await self._skip_to(await self._find_time(before_ms)))

    async def expire_to(self, position: EntryId, *, inclusive: bool = True) -> int:
        """Acknowledge everything up to a position; return how many entries that were."""
        if inclusive and position < LATEST:
            position = EntryId(position.ledger, position.entry + 1)
        return self._expired(await self._skip_to(min(position, self.log.end)))

    def _expired(self, entries: int) -> int:
        self.figures.expired += entries
        self.figures.last_expired_ms = self.ground.clock.wall_ms()
        return entries

    async def _skip_to(self, end: EntryId) -> int:
        """Acknowledge everything before `end`; return how many entries were new."""
        position = self.log.previous_position(end)
        if position <= self.cursor.mark_delete:
            return 0
        for _ in range(COUNT_TRIES):
            version = self.cursor.version
            consumed = await self.consumption.after(position)
            if consumed is None or self.cursor.version == version:
                break
        else:
            consumed = None
        mark = self.cursor.mark_delete
        new = self._acknowledge_up_to(position)
        if not new:
            return 0
        self.cursor.estimated = consumed is None
        if consumed is not None:
            self.cursor.consumed = consumed
        if self.cursor.mark_delete != mark:
            self.figures.last_advanced_ms = self.ground.clock.wall_ms()
            self.figures.advances += 1
        self._note_change()
        self.wake()
        return new

    async def _find_time(self, time_ms: int) -> EntryId:
        try:
            return await self.log.find_time(time_ms)
        except StorageError as error:
            raise PersistenceError(f"cannot search {self.topic} by time: {error}") from error

    # --- by compaction

    def pass_compacted(self, first: EntryId, until: EntryId, messages: int | None) -> None:
        """Acknowledge what compaction has left out between two positions: so many messages.

        None: it is not known how many. A reader that is forgotten when it leaves has no use for
        any of that.
        """
        if not self.durable:
            return
        log, at = self.log, self.log.next_position(first)
        until = min(until, log.end)
        count, consumed, passed = log.distance(at, until), self.cursor.consumed, 0
        while at < until:
            end = until
            if at.ledger != until.ledger:
                last = log.previous_position(EntryId(at.ledger + 1, 0))
                end = EntryId(last.ledger, last.entry + 1)
            passed += self._pass_left_out(at, end.entry - at.entry)
            at = log.next_position(end)
        self._count_passed(consumed, passed, messages if passed == count else None)
        self._note_change()

    def pass_compacted_between(self, at: EntryId, rows: Sequence[int], run: Run) -> None:
        """Acknowledge what compaction has left out between these rows of a run."""
        if not self.durable:
            return
        indexes, counts = run.i64(FIRST_INDEX), run.u32(MESSAGES)
        for before, row in pairwise(rows):
            count = row - before - 1
            if count:
                consumed = self.cursor.consumed
                passed = self._pass_left_out(EntryId(at.ledger, at.entry + before + 1), count)
                messages = indexes[row] - indexes[before] - counts[before]
                self._count_passed(consumed, passed, messages if passed == count else None)

    def _pass_left_out(self, at: EntryId, count: int) -> int:
        """Acknowledge neighbouring entries that are in no view; return how many were new."""
        new = self.cursor.acknowledge(at.ledger, at.entry, count, self.log)
        if new:
            self.consumption.done(at.ledger, at.entry, count, new)
        return new

    def _count_passed(self, consumed: int, entries: int, messages: int | None) -> None:
        """Count entries that were passed and had so many messages; `consumed` were before."""
        if entries and messages is not None:
            self.cursor.consumed = consumed + messages
        elif entries:
            self.cursor.estimated = True

    def pass_compacted_messages(self, at: EntryId, run: Run) -> None:
        """Acknowledge what compaction has left out of batches."""
        side = self.compacted
        if side is None:
            return
        for row, flags in enumerate(run.u32(FLAGS).tolist()):
            if flags & _COMPACTED:
                words = side.survivors(run.body(row))
                self.cursor.acknowledge_part(at.ledger, at.entry + row, words, self.log)

    def count_lost(self, ledger: int, survivors: int) -> None:
        """Say that survivors are lost."""
        logger.error(
            "%r passes %d entries of the compacted ledger %d that are damaged and in quarantine",
            self,
            survivors,
            ledger,
        )
        self.figures.gaps_passed += 1
        self.figures.gap_entries += survivors
