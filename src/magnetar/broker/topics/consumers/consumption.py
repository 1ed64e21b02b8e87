"""How many messages a subscription has consumed, without reading what nobody reads.

    entries      0      1      2      3      4      5           messages before entry i: its index
    messages     1      10     1      5      1      1
    acked        x      x      .      x      .      .           consumed = 1 + 10 + 5

The backlog in messages is what the log has taken minus what is consumed. An entry counts
all its messages until it is done. Sizes of batches are kept (as `extras`: messages beyond
the first) from when they are read until they are acknowledged, so topics without batches
cost nothing. Where a size is not known, an entry counts as one message and the figure is
`estimated`, until an index sets it right: that of the first unacknowledged entry, as long
as nothing beyond it is acknowledged.
"""

from collections.abc import Sequence

from magnetar.broker.entry import EntryId
from magnetar.broker.run import FIRST_INDEX, MESSAGES, Run
from magnetar.broker.topics.consumers.places import ONE_ENTRY_BYTES, index_at
from magnetar.broker.topics.cursors.cursor import Cursor
from magnetar.broker.topics.cursors.entry_set import EntryMap, runs_of_zeros
from magnetar.broker.topics.cursors.reading import Log

SIZE_PAGES_MAX = 256
"""Pages of 4,096 entries for which the sizes of unacknowledged batches are kept: 4 MiB."""
HOLES_COUNTED_MAX = 200
"""Ranges of acknowledged entries whose messages are counted by reading, on a cold path."""
LEARN_BYTES_MAX = 1 << 20
"""How much is looked at at once for the sizes of entries."""


class Consumption:
    """Keeps `Cursor.consumed` right."""

    __slots__ = ("_cursor", "_extras", "_log")

    def __init__(self, cursor: Cursor, log: Log) -> None:
        self._cursor = cursor
        self._log = log
        self._extras: EntryMap | None = None

    def read_from(self, log: Log) -> None:
        """Read from another view of the same log from now on."""
        self._log = log

    @property
    def extras(self) -> EntryMap:
        """Of unacknowledged batches that were read: how many messages beyond the first."""
        if self._extras is None:
            self._extras = EntryMap("I")
        return self._extras

    def done(self, ledger: int, first: int, count: int, new: int) -> None:
        """Count neighbouring entries that are done now; `new` of them were not before."""
        self._cursor.consumed += new
        if self._extras is not None:
            self._cursor.consumed += self._extras.pop_range(ledger, first, count)

    def done_up_to(self, position: EntryId, new: int) -> None:
        """Count everything up to a position as done; `new` entries were not before."""
        self._cursor.consumed += new
        if self._extras is not None:
            self._cursor.consumed += self._extras.pop_up_to(position)

    def clear(self) -> None:
        """Forget all sizes: the cursor was moved."""
        self._extras = None

    def note_sizes(self, ledger: int, first: int, counts: Sequence[int]) -> None:
        """Remember how many messages neighbouring entries hold, until they are acknowledged."""
        extras = self.extras
        extras.put_range(ledger, first, [each - 1 for each in counts])
        while len(extras.pages) > SIZE_PAGES_MAX:
            del extras.pages[min(extras.pages)]
            self._cursor.estimated = True

    def learn_sizes(self, ledger: int, first: int, count: int) -> None:
        """Entries are acknowledged that were not read since the start: ask the cache for them."""
        end = first + count
        while first < end:
            found = self._log.read_cached(EntryId(ledger, first), end - first, LEARN_BYTES_MAX)
            if found is None or found[0] != (ledger, first):
                self._cursor.estimated = True
                return
            run = found[1]
            for row, length in runs_of_zeros(
                self._cursor.acknowledged_bits(ledger, first, run.count), run.count
            ):
                counts = run.u32(MESSAGES).tolist()[row : row + length]
                if sum(counts) != length:
                    self.note_sizes(ledger, first + row, counts)
            first += run.count

    def note_index(self, at: EntryId, run: Run) -> None:
        """Take the chance to set the number of consumed messages right."""
        if self._cursor.estimated and not self._cursor.holes:
            mark = self._cursor.mark_delete
            if self._log.next_position(EntryId(mark.ledger, mark.entry + 1)) == at:
                self._cursor.consumed = run.i64(FIRST_INDEX)[0]
                self._cursor.estimated = False

    def learn_index(self, last: EntryId) -> None:
        """All up to `last` is acknowledged, and was not all read: ask the cache how much it is."""
        found = None if self._cursor.holes else self._log.read_cached(last, 1, ONE_ENTRY_BYTES)
        if found is None or found[0] != last:
            self._cursor.estimated = True
        else:
            envelope = found[1].envelope(0)
            self._cursor.consumed = envelope.first_index + envelope.messages
            self._cursor.estimated = False

    async def after(self, position: EntryId) -> int | None:
        """Return how many messages will be consumed once all up to `position` is acknowledged.

        None: it cannot be told, or would take too long.
        """
        if self._cursor.range_count > HOLES_COUNTED_MAX:
            return None
        holes = [
            each
            for each in self._cursor.ranges()
            if EntryId(each.ledger, each.first + each.length - 1) > position
        ]
        after = EntryId(position.ledger, position.entry + 1)
        total = await index_at(self._log, self._log.next_position(after))
        if total is None:
            return None
        for ledger, first, length in holes:
            start = max(EntryId(ledger, first), after)
            low = await index_at(self._log, start)
            high = await index_at(
                self._log, self._log.next_position(EntryId(ledger, first + length))
            )
            if low is None or high is None:
                return None
            total += high - low
        return total
