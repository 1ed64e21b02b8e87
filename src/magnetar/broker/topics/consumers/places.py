"""Places in a log: the entry there, how many messages lie before it, a cursor that starts there."""

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

from magnetar.broker.entry import EARLIEST, EntryFlags, EntryId, Envelope
from magnetar.broker.port import PersistenceError
from magnetar.broker.run import FLAGS, ROW, Run
from magnetar.broker.storage.errors import Gap, StorageError
from magnetar.broker.topics.compaction.compacted import ViewedLog
from magnetar.broker.topics.cursors.cursor import UNKNOWN, Cursor
from magnetar.broker.topics.cursors.reading import Log

logger = logging.getLogger(__name__)

ONE_ENTRY_BYTES = 1
"""When one entry is read: at least one is always returned, so any limit will do."""
SOME_ENTRIES = 1_000
SOME_BYTES = 1 << 20
"""Read at once where the last readable entry is looked for."""


class StoredEntry(NamedTuple):
    """An entry as it is stored, copied out of the log. For cold paths."""

    id: EntryId
    envelope: Envelope
    body: bytes

    def hidden(self, hidden: "Hidden") -> bool:
        """Return whether it belongs to an aborted transaction."""
        row = ROW.pack(*self.envelope)
        return bool(hidden(self.id, Run(row, self.body, self.envelope.offset)))


Hidden = Callable[[EntryId, Run], Sequence[int]]
"""Returns the rows of a run that belong to aborted transactions."""


def _nothing_hidden(at: EntryId, run: Run) -> Sequence[int]:  # noqa: ARG001 - a Hidden
    return ()


async def cursor_at(log: Log, start: EntryId, ack_set: Sequence[int] = ()) -> Cursor:
    """Return a new cursor whose first entry is the one at or after `start`.

    `EARLIEST` is the first entry that is kept, `LATEST` the end. With `ack_set`, only those
    messages of the batch at `start` are still to be acknowledged.
    """
    position = start_at(log, start)
    index = await index_at(log, position)
    cursor = Cursor(log.previous_position(position), UNKNOWN if index is None else index)
    if any(ack_set) and position == start:
        cursor.acknowledge_part(*position, ack_set, log)
    return cursor


async def index_at(log: Log, position: EntryId) -> int | None:
    """Return how many messages of the topic lie before an entry or the end of the log.

    None: it cannot be told, because an entry is damaged or cannot be read. Entries that only a
    compacted view has count as if they lay before everything else.
    """
    if isinstance(log, ViewedLog):
        return await index_at(log.log, log.log.next_position(position))
    try:
        if position < log.end:
            return (await read_one(log, position)).envelope.first_index
        last = log.last
        if last <= EARLIEST or last < log.first:
            return log.next_index
        envelope = (await read_one(log, last)).envelope
    except PersistenceError as error:
        logger.warning("cannot tell how many messages lie before %s: %s", position, error)
        return None
    return envelope.first_index + envelope.messages


async def read_one(log: Log, position: EntryId) -> StoredEntry:
    """Return the entry at a position.

    Raises:
        PersistenceError: it is damaged, gone, or could not be read.
    """
    found = await read_some(log, position, 1, ONE_ENTRY_BYTES)
    if isinstance(found, Gap):
        raise PersistenceError(f"entry {position} is damaged: {found.reason}")
    at, run = found
    if at != position or not run.count:
        raise PersistenceError(f"entry {position} is not there")
    return StoredEntry(at, run.envelope(0), bytes(run.body(0)))


async def read_some(
    log: Log, position: EntryId, entries_max: int, bytes_max: int
) -> tuple[EntryId, Run] | Gap:
    """Read entries from a position on, from memory or disk; damage comes as a gap.

    Raises:
        PersistenceError: the disk did not let us.
    """
    try:
        found = log.read_cached(position, entries_max, bytes_max)
        return found or await log.read(position, entries_max, bytes_max)
    except StorageError as error:
        raise PersistenceError(f"cannot read entry {position}: {error}") from error


async def last_readable(
    log: Log, hidden: Hidden = _nothing_hidden
) -> tuple[EntryId, Envelope] | None:
    """Return the last entry that can be read, and that clients may see; None: there is none.

    Back in growing steps until something reads, forward over what lies between.

    Raises:
        PersistenceError: the disk did not let us read; try again.
    """
    end, position, step = log.end, log.last, 1
    while position > EARLIEST and position >= log.first:
        best = await _last_between(log, position, end, hidden)
        if best is not None:
            return best
        end, position, step = position, _back(log, position, step), 2 * step
    return None


async def _last_between(
    log: Log, position: EntryId, end: EntryId, hidden: Hidden
) -> tuple[EntryId, Envelope] | None:
    """Return the last entry of [position, end) that clients may see; None: there is none."""
    best: tuple[EntryId, Envelope] | None = None
    while EARLIEST < position < end:
        found = await read_some(log, position, SOME_ENTRIES, SOME_BYTES)
        if isinstance(found, Gap):
            last = found.last
        else:
            at, run = found
            if not run.count:
                break
            last = EntryId(at.ledger, at.entry + run.count - 1)
            unseen = set(hidden(at, run))
            flags = run.u32(FLAGS)
            for row in range(run.count - 1, -1, -1):
                if row not in unseen and not flags[row] & EntryFlags.MARKER:
                    best = EntryId(at.ledger, at.entry + row), run.envelope(row)
                    break
        position = log.next_position(EntryId(last.ledger, last.entry + 1))
    return best


def _back(log: Log, position: EntryId, step: int) -> EntryId:
    """Return the position so many entries earlier, or where its ledger begins; then one before."""
    if position.entry:
        return EntryId(position.ledger, max(position.entry - step, 0))
    return log.previous_position(position)


def start_at(log: Log, position: EntryId) -> EntryId:
    """Return the first entry at or after a position, within what the log has; else its end."""
    return log.next_position(min(max(position, log.first), log.end))
