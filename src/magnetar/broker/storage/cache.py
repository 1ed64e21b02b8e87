"""The write cache: entries that are in the journal, and in no entry log yet.

    Generation ─┬─ slabs      the bytes of its records
                ├─ records    one per run, note or mark, in the order of the journal
                ├─ tails      ledger -> Tail: packed arrays, one item per part
                │                firsts   first entry id of the part
                │                places   record number << 24 | its first row in the record
                └─ files      the journal files that hold the same records

A flush freezes the generation, writes it to an entry log and lets it go; what comes
meanwhile goes to the next one. Two exist at most. A journal file holds records of one
generation only, so it can be recycled when its generation has been flushed.

There is no object per entry, and none per part beyond two packed numbers.
"""

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from struct import Struct

from magnetar.broker.run import LENGTH, ROW_SIZE, Run
from magnetar.broker.storage.record import Kind, Part
from magnetar.broker.storage.slab import Slab, SlabPool

OFFSET_AND_LENGTH = Struct("<II")
"""The first two fields of a row."""
PLACE_SHIFT = 24
FIRST_ROW_MASK = (1 << PLACE_SHIFT) - 1
ROWS_PER_RECORD_MAX = FIRST_ROW_MASK
"""Entries in one run."""


class CachedRecord:
    """One record in memory: where its pieces lie in `view`, and what became of it."""

    __slots__ = (
        "base",
        "body_at",
        "body_size",
        "directory_size",
        "durable",
        "generation",
        "kind",
        "parts",
        "row_count",
        "rows_at",
        "size",
        "start",
        "token",
        "view",
    )

    def __init__(  # noqa: PLR0913, PLR0917 - made once per run: no object in between
        self,
        generation: "Generation",
        view: memoryview,
        start: int,
        size: int,
        kind: Kind,
        token: object,
        parts: Sequence[Part],
    ) -> None:
        self.generation = generation
        self.view = view
        self.start = start
        self.size = size
        self.kind = kind
        self.token = token
        self.parts = parts
        self.durable = False
        self.directory_size = 0
        self.rows_at = 0
        self.row_count = 0
        self.base = 0
        self.body_at = 0
        self.body_size = 0

    def run(self, first_row: int, count: int) -> Run:
        """Return neighbouring rows as views of the slab."""
        rows_at = self.rows_at + first_row * ROW_SIZE
        return Run(
            self.view[rows_at : rows_at + count * ROW_SIZE],
            self.view[self.body_at : self.body_at + self.body_size],
            self.base,
        )


class Tail:
    """The entries of one ledger in one generation."""

    __slots__ = ("end", "firsts", "ledger", "places", "recent")

    def __init__(self, ledger: int, end: int) -> None:
        self.ledger = ledger
        self.firsts = array("Q")
        self.places = array("Q")
        self.end = end
        """The entry id after the last one, durable or not."""
        self.recent: tuple[int, Run] | None = None
        """The chunk that was read last, as a run: all who follow share what is known of it."""

    def count(self, chunk: int) -> int:
        """Return how many entries a chunk holds."""
        firsts = self.firsts
        after = firsts[chunk + 1] if chunk + 1 < len(firsts) else self.end
        return after - firsts[chunk]


class Generation:
    """The write cache between two flushes."""

    def __init__(self) -> None:
        self.slabs: list[Slab] = []
        self.records: list[CachedRecord] = []
        self.tails: dict[int, Tail] = {}
        self.files: list[Path] = []
        self.durable_files: list[int] = []
        """Numbers of those with a record that is durable."""
        self.bytes = 0
        self.entries = 0
        self.submitted = 0
        """Records handed to the journal, notes included."""

    def new_slab(self, pool: SlabPool, size: int) -> Slab:
        """Add a slab with room for `size` bytes."""
        slab = pool.take(size)
        self.slabs.append(slab)
        self.bytes += slab.size
        return slab

    def add_part(self, part: Part, record_number: int) -> None:
        """Remember where a part lies. Parts of one ledger come in the order of their entries."""
        tail = self.tails.get(part.ledger)
        if tail is None:
            tail = self.tails[part.ledger] = Tail(part.ledger, part.first_entry)
        tail.firsts.append(part.first_entry)
        tail.places.append(record_number << PLACE_SHIFT | part.first_row)
        tail.end = part.first_entry + part.count

    def durable_end(self, ledger: int) -> int | None:
        """Return the entry id after the last durable entry here; None if there is none."""
        tail = self.tails.get(ledger)
        if tail is None:
            return None
        for chunk in range(len(tail.firsts) - 1, -1, -1):
            if self.records[tail.places[chunk] >> PLACE_SHIFT].durable:
                return tail.firsts[chunk] + tail.count(chunk)
        return None

    def read(self, ledger: int, entry: int, entries_max: int, bytes_max: int) -> Run | None:
        """Return durable entries from `entry` on, out of one part; None if it is not here."""
        tail = self.tails.get(ledger)
        if tail is None:
            return None
        chunk = bisect_right(tail.firsts, entry) - 1
        if chunk < 0:
            return None
        skipped = entry - tail.firsts[chunk]
        recent = tail.recent
        if recent is None or recent[0] != chunk:
            place = tail.places[chunk]
            record = self.records[place >> PLACE_SHIFT]
            if not record.durable:
                return None
            recent = tail.recent = chunk, record.run(place & FIRST_ROW_MASK, tail.count(chunk))
        run = recent[1]
        count = min(run.count - skipped, entries_max)
        if count <= 0:
            return None
        return within(run.slice(skipped, count) if count < run.count else run, bytes_max)

    def drop_undurable(self) -> dict[int, int]:
        """Forget every record that is not durable; return the end of each ledger it touched.

        Records become durable in order, so what is forgotten is the end of the list and,
        in each tail, the end of its arrays.
        """
        records = self.records
        keep = len(records)
        touched = set[int]()
        while keep and not records[keep - 1].durable:
            keep -= 1
            touched.update(part.ledger for part in records[keep].parts)
        ends = {ledger: self._cut_tail(ledger, keep) for ledger in touched}
        del records[keep:]
        return ends

    def _cut_tail(self, ledger: int, records_kept: int) -> int:
        tail = self.tails[ledger]
        tail.recent = None
        while tail.places and tail.places[-1] >> PLACE_SHIFT >= records_kept:
            tail.places.pop()
            tail.end = tail.firsts.pop()
        if not tail.places:
            del self.tails[ledger]
        return tail.end

    def release(self, pool: SlabPool) -> None:
        """Let go of everything. Readers keep what they hold."""
        self.tails = {}
        self.records = []
        self.bytes = 0
        slabs, self.slabs = self.slabs, []
        pool.give_back(slabs)


def within(run: Run, bytes_max: int) -> Run:
    """Return the first entries of a run that together have at most `bytes_max`, at least one."""
    if len(run.buffer) <= bytes_max or run.count <= 1:
        return run
    ends = list(accumulate(lengths(run.rows)))
    if ends[-1] <= bytes_max:
        return run
    return run.slice(0, max(1, bisect_right(ends, bytes_max)))


def span_bytes(run: Run) -> int:
    """Return how many bytes lie between the start of a run's first body and the end of its last."""
    (first, _), (last, size) = (
        OFFSET_AND_LENGTH.unpack_from(run.rows, at) for at in (0, len(run.rows) - ROW_SIZE)
    )
    return int(last + size - first)


def words(rows: memoryview) -> "array[int]":
    """Return rows as 4-byte words, copied: slices of the result are columns, made in C."""
    found = array("I")
    found.frombytes(rows)
    return found


def lengths(rows: memoryview) -> "array[int]":
    """Return the length column of rows."""
    return words(rows)[LENGTH :: ROW_SIZE // 4]
