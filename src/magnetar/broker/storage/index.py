"""Where each ledger's entries lie: ledger and entry -> extent of an entry log.

    Extents ── tables   table number -> Table (columns of one log: see `segment`)
            └─ places   ledger -> array of  table number << 32 | row  , by first entry

About 44 bytes per extent, 150 per ledger; which block holds an entry is read from the log's
own block index when somebody asks. Two logs may hold the same entries for a while (one
rewritten from the other, a crash before the old one was removed): either is good.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from magnetar.broker.storage.segment import Table

EXTENTS_PER_SLICE = 1_000
"""Extents added before somebody else gets a turn: about 2 ms."""
ROW_BITS = 32
ROW_MASK = (1 << ROW_BITS) - 1


class Place(NamedTuple):
    """One extent."""

    table: Table
    row: int

    @property
    def first(self) -> int:
        """Its first entry id."""
        return self.table.firsts[self.row]

    @property
    def end(self) -> int:
        """The entry id after its last entry."""
        return self.table.firsts[self.row] + self.table.counts[self.row]


class Extents:
    """All extents of all entry logs that this process knows of."""

    def __init__(self) -> None:
        self._tables: dict[int, Table] = {}
        self._numbers: dict[str, int] = {}
        self._places: dict[int, array[int]] = {}
        self._next = 0

    def names(self) -> set[str]:
        """Return the names of the logs."""
        return set(self._numbers)

    def tables(self) -> list[Table]:
        """Return the tables of all logs."""
        return list(self._tables.values())

    def table(self, name: str) -> Table | None:
        """Return the table of a log."""
        number = self._numbers.get(name)
        return None if number is None else self._tables[number]

    def ledgers(self) -> list[int]:
        """Return the ledgers with at least one extent."""
        return list(self._places)

    def add(self, table: Table) -> None:
        """Add the extents of a log."""
        for _ in self.adding(table):
            pass

    def adding(self, table: Table) -> Iterator[None]:
        """Add the extents of a log in slices, so that others get their turn in between."""
        if table.name in self._numbers:
            self.remove(table.name)
        number = self._next
        self._next += 1
        self._tables[number] = table
        self._numbers[table.name] = number
        for row, ledger in enumerate(table.ledgers):
            place = number << ROW_BITS | row
            places = self._places.get(ledger)
            if places is None:
                self._places[ledger] = array("Q", (place,))
            else:
                places.insert(bisect_right(places, table.firsts[row], key=self._first), place)
            if row % EXTENTS_PER_SLICE == EXTENTS_PER_SLICE - 1:
                yield

    def remove(self, name: str) -> None:
        """Forget a log."""
        number = self._numbers.pop(name)
        table = self._tables.pop(number)
        for ledger in set(table.ledgers):
            kept = array("Q", (p for p in self._places[ledger] if p >> ROW_BITS != number))
            if kept:
                self._places[ledger] = kept
            else:
                del self._places[ledger]

    def find(self, ledger: int, entry: int) -> Place | None:
        """Return an extent that holds the entry."""
        places = self._places.get(ledger)
        if places is None:
            return None
        for at in range(bisect_right(places, entry, key=self._first) - 1, -1, -1):
            place = self._place(places[at])
            if entry < place.end:
                return place
        return None

    def next_first(self, ledger: int, entry: int) -> int | None:
        """Return the first stored entry id at or after `entry` that begins an extent."""
        places = self._places.get(ledger)
        if places is None:
            return None
        at = bisect_left(places, entry, key=self._first)
        return self._first(places[at]) if at < len(places) else None

    def of(self, ledger: int) -> list[Place]:
        """Return the extents of a ledger, by first entry, without those another one covers."""
        kept: list[Place] = []
        for packed in self._places.get(ledger, ()):
            place = self._place(packed)
            if kept and place.end <= kept[-1].end:
                continue
            if kept and place.first == kept[-1].first:
                kept.pop()
            kept.append(place)
        return kept

    def end(self, ledger: int) -> int:
        """Return the entry id after the last one stored; 0 if there is none."""
        return max((self._place(p).end for p in self._places.get(ledger, ())), default=0)

    def missing(self, ledger: int, first: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield the parts of [first, end) that no extent holds."""
        for place in self.of(ledger):
            if place.end <= first:
                continue
            if place.first >= end:
                break
            if place.first > first:
                yield first, place.first
            first = place.end
        if first < end:
            yield first, end

    def covered_by_others(self, table: Table, names: frozenset[str]) -> bool:
        """Tell whether the logs named hold every entry of this one."""
        return all(
            any(
                self._place(p).table.name in names
                and self._place(p).first <= first
                and self._place(p).end >= first + count
                for p in self._places[ledger]
            )
            for ledger, first, count in zip(table.ledgers, table.firsts, table.counts, strict=True)
        )

    def _first(self, place: int) -> int:
        return self._tables[place >> ROW_BITS].firsts[place & ROW_MASK]

    def _place(self, packed: int) -> Place:
        return Place(self._tables[packed >> ROW_BITS], packed & ROW_MASK)
