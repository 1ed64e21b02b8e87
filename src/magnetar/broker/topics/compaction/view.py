"""The compacted view of a topic: its survivors, under the ids that they have always had.

    compacted ledger 31    place     0      1      2    |  3      4   |  5   ...
                           entry     4      9     17    |  0      2   |  6         RESERVED
    its record             ledger    7 ..................  9 .......... 12         sources

A place in the compacted ledger is the number of a survivor. A row there holds, in RESERVED,
which entry of its ledger it is; which ledger stands in the record, because there are few. The
survivors of one ledger lie together, in order, so that a position is found by halving.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from magnetar.broker.entry import EntryId
from magnetar.broker.metadata.compactions import CompactionRecord
from magnetar.broker.run import PUBLISH_TIME, RESERVED, Run
from magnetar.broker.storage.errors import QuarantinedError

_ONE_ENTRY_BYTES = 1


class Entries(Protocol):
    """What is needed of the ledgers of a process."""

    def read_cached(
        self, ledger: int, entry: int, entries_max: int, bytes_max: int, /
    ) -> Run | None: ...
    async def read(self, ledger: int, entry: int, entries_max: int, bytes_max: int, /) -> Run: ...


Survivors = Callable[[memoryview], Sequence[int]]
"""Which messages are left of a batch, given its body: words of 64 bits, 1 = left."""


class Stretch(NamedTuple):
    """Neighbouring places of a view, read."""

    place: int
    ids: list[EntryId]
    run: Run


class View:
    """One finished compaction. Never changes."""

    __slots__ = ("_entries", "_firsts", "_ids", "horizon", "ledger", "places", "record")

    def __init__(self, ledger: int, record: CompactionRecord, entries: Entries) -> None:
        self.ledger = ledger
        self.record = record
        self.horizon = record.horizon
        """The last entry that it speaks for; what comes later is in the log only."""
        self.places = record.end_entry or 0
        """How many survivors there are."""
        self._entries = entries
        self._ids = [source.ledger for source in record.sources]
        self._firsts = [source.first for source in record.sources]

    def ids(self, place: int, run: Run) -> list[EntryId]:
        """Return the ids that the rows of a run have, which begins at a place."""
        entries = run.u32(RESERVED).tolist()
        found: list[EntryId] = []
        at = bisect_right(self._firsts, place) - 1
        while len(found) < len(entries):
            end = self._firsts[at + 1] if at + 1 < len(self._firsts) else self.places
            part = entries[len(found) : end - place]
            found += [EntryId(self._ids[at], entry) for entry in part]
            at += 1
        return found

    def read_cached(self, place: int, entries_max: int, bytes_max: int) -> Stretch | None:
        """Return survivors from a place on, if they are in memory."""
        run = self._entries.read_cached(
            self.ledger, place, min(entries_max, self.places - place), bytes_max
        )
        return None if run is None else Stretch(place, self.ids(place, run), run)

    async def read(self, place: int, entries_max: int, bytes_max: int) -> Stretch:
        """Return survivors from a place on.

        Raises:
            QuarantinedError: they are lost; it says up to which place.
            StorageError: the disk did not let us read; try again.
        """
        run = await self._entries.read(
            self.ledger, place, min(entries_max, self.places - place), bytes_max
        )
        return Stretch(place, self.ids(place, run), run)

    async def find(self, position: EntryId) -> int:
        """Return the place of the first survivor at or after a position; `places`: there is none.

        Raises:
            StorageError: the disk did not let us read; try again.
        """
        at = bisect_left(self._ids, position.ledger)
        if at == len(self._ids):
            return self.places
        low = self._firsts[at]
        if self._ids[at] != position.ledger or position.entry <= 0:
            return low
        high = self._firsts[at + 1] if at + 1 < len(self._firsts) else self.places
        return await self._halve(low, high, RESERVED, position.entry)

    async def find_time(self, publish_ms: int) -> EntryId | None:
        """Return the first survivor published at or after a time; None: there is none.

        Publish times are taken to rise, as in a log.

        Raises:
            StorageError: the disk did not let us read; try again.
        """
        place = await self._halve(0, self.places, PUBLISH_TIME, publish_ms)
        return await self.id_at(place)

    async def id_at(self, place: int) -> EntryId | None:
        """Return the id of a survivor; None: there is none, or it is lost.

        Raises:
            StorageError: the disk did not let us read; try again.
        """
        if not 0 <= place < self.places:
            return None
        try:
            return (await self.read(place, 1, _ONE_ENTRY_BYTES)).ids[0]
        except QuarantinedError:
            return None

    async def _halve(self, low: int, high: int, column: int, value: int) -> int:
        """Return the first place in [low, high) whose column is not below a value; else `high`.

        Where that may be among what is lost, it is a place that is lost: whoever reads there
        learns of it, and misses nothing that is not.
        """
        while low < high:
            middle = (low + high) // 2
            found = await self._value(middle, column)
            if isinstance(found, QuarantinedError):
                below = await self._halve(low, middle, column, value)
                after = found.last + 1
                if below < middle:
                    return below
                beyond = await self._value(after, column) if after < high else found
                if isinstance(beyond, QuarantinedError) or beyond >= value:
                    return middle
                low = after + 1
            elif found < value:
                low = middle + 1
            else:
                high = middle
        return low

    async def _value(self, place: int, column: int) -> int | QuarantinedError:
        try:
            run = (await self.read(place, 1, _ONE_ENTRY_BYTES)).run
        except QuarantinedError as error:
            return error
        words = run.u32(column) if column == RESERVED else run.i64(column)
        return int(words[0])
