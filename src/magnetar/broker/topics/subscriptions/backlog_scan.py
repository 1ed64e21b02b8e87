"""A look through the backlog of one subscription: how many entries and messages it really has.

    first unacknowledged entry ──▶ SOME_ENTRIES at a time, from memory or disk ──▶ end
                                     └─ too many, or too long: broken off, and said so

What statistics show is counted along the way; this counts what is there. Acknowledged parts of
batches are left out, markers and damaged entries are not counted.
"""

from collections.abc import Sequence
from typing import NamedTuple

from magnetar.broker.entry import EARLIEST, EntryFlags, EntryId
from magnetar.broker.run import FLAGS, MESSAGES
from magnetar.broker.storage.errors import Gap
from magnetar.broker.topics.consumers.places import SOME_BYTES, SOME_ENTRIES, read_some
from magnetar.broker.topics.subscriptions.subscription import Subscription

ENTRIES_MAX = 1_000_000
"""Entries looked at for one analysis."""
SECONDS_MAX = 30.0

_WORD = 2**64 - 1


class Scan(NamedTuple):
    """What was found."""

    entries: int
    messages: int
    complete: bool
    """False: it was broken off."""


async def scan(subscription: Subscription, start: EntryId = EARLIEST) -> Scan:
    """Count the backlog of a subscription, from an entry on.

    Raises:
        PersistenceError: the disk did not let us read.
    """
    log, cursor, clock = subscription.log, subscription.cursor, subscription.ground.clock
    until_s = clock.monotonic() + SECONDS_MAX
    entries = messages = seen = 0
    position = cursor.next_unacknowledged(start, log)
    while position < log.end:
        if seen >= ENTRIES_MAX or clock.monotonic() > until_s:
            return Scan(entries, messages, complete=False)
        found = await read_some(log, position, SOME_ENTRIES, SOME_BYTES)
        if isinstance(found, Gap):
            after = EntryId(found.last.ledger, found.last.entry + 1)
        else:
            at, run = found
            acknowledged = cursor.acknowledged_bits(at.ledger, at.entry, run.count)
            counts, flags = run.u32(MESSAGES), run.u32(FLAGS)
            for row in range(run.count):
                if acknowledged >> row & 1 or flags[row] & EntryFlags.MARKER:
                    continue
                words = cursor.ack_sets.get(EntryId(at.ledger, at.entry + row))
                entries += 1
                messages += counts[row] if words is None else _ones(words)
            seen += run.count
            after = EntryId(at.ledger, at.entry + run.count)
        position = cursor.next_unacknowledged(after, log)
    return Scan(entries, messages, complete=True)


def _ones(words: Sequence[int]) -> int:
    return sum((word & _WORD).bit_count() for word in words)
