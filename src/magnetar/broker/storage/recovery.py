"""Recovery: from whatever a crash left of a journal to entry logs, and nothing lost.

    what counts (see `replay`) ──▶ a bounded Generation ──flush──▶ entry logs
    damaged, and was durable   ──▶ copied to quarantine, a gap is reported
    what a crash cut off       ──▶ copied to quarantine

What is kept goes through the ordinary flush; what an entry log holds already is skipped.
So recovery may be cut off anywhere and started again, and holds at most a bounded part of the
journal in memory. No file is changed: the journal is recycled later, when notes taken from it
are safe elsewhere.
"""

from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from magnetar.broker.entry import EntryId
from magnetar.broker.run import HIGHEST_SEQUENCE_ID, ROW_SIZE, Run
from magnetar.broker.storage.cache import CachedRecord, Generation
from magnetar.broker.storage.errors import Gap
from magnetar.broker.storage.flush import write_generation
from magnetar.broker.storage.index import Extents
from magnetar.broker.storage.journal import SPARE_PREFIX, file_number
from magnetar.broker.storage.quarantine import OF_JOURNAL, Quarantine
from magnetar.broker.storage.record import Kind, Part
from magnetar.broker.storage.replay import Replay, Sink, list_journal, read_patiently
from magnetar.broker.storage.segment import LogFolder, Table


class Restored(NamedTuple):
    """What came out of one journal folder."""

    worker: int
    tables: list[Table]
    """New entry logs."""
    producers: dict[int, dict[str, int]]
    notes: list[tuple[int, bytes]]
    gaps: list[Gap]
    ledgers: set[int]
    paths: list[Path]
    """The journal files read, oldest first; to be recycled when the notes are safe."""
    files: frozenset[int]
    """The numbers of those that are whole up to their end."""
    next_file: int
    last_number: int
    """The number of the last record that counts; 0: none. The next START follows it."""
    bytes: int


class Recovery:
    """Replays one journal folder into entry logs."""

    def __init__(
        self,
        logs: LogFolder,
        quarantine: Quarantine,
        extents: Extents,
        recorded_end: Callable[[int], int | None],
        memory_bytes: int,
    ) -> None:
        self._files = logs.files
        self._logs = logs
        self._quarantine = quarantine
        self._extents = extents
        self._recorded_end = recorded_end
        self._memory_bytes = memory_bytes
        self._generation = Generation()
        self._tables: list[Table] = []
        self._producers: dict[int, dict[str, int]] = {}
        self._notes: list[tuple[int, bytes]] = []
        self._gaps: list[Gap] = []
        self._positions: dict[int, int] = {}
        self._lost: list[tuple[Path, int, int, str]] = []

    def restore(self, folder: Path, synced: tuple[int, int] | None = None) -> Restored:
        """Replay a folder. Names that do not belong there go to quarantine.

        `synced`: file and number of a record that is known to have been durable.
        """
        journal, unknown = list_journal(self._files, folder)
        for name in unknown:
            self._quarantine.move(folder / name, "not a file of the journal")
        sink = Sink(self._run, self._note, self._add_lost, self._add_tail, self._gaps.append)
        replay = Replay(self._files, journal, sink, synced=synced)
        replay.run()
        self._flush()
        self._report()
        self._set_aside(replay.empty)
        for path, why in replay.void:
            self._quarantine.move(path, why)
        spares = [
            file_number(name.removeprefix(SPARE_PREFIX)) or 0
            for name in self._files.list(folder)
            if name.startswith(SPARE_PREFIX)
        ]
        numbers = [each.number for each in journal] + spares
        left_out = {*replay.empty, *(path for path, _ in replay.void)}
        kept = [each for each in journal if each.path not in left_out]
        return Restored(
            int(folder.name),
            self._tables,
            self._producers,
            self._notes,
            self._gaps,
            set(self._positions),
            [each.path for each in kept],
            frozenset(each.number for each in kept if each.path not in replay.short),
            max(numbers, default=0) + 1,
            replay.last_served,
            replay.bytes,
        )

    def _set_aside(self, paths: Sequence[Path]) -> None:
        """Make spares of files that hold nothing.

        It has to be done before the next START is written: from then on a file without a
        record that counts is one that lost them.
        """
        for path in paths:
            self._files.rename(path, path.with_name(SPARE_PREFIX + path.name))
            self._files.sync_dir(path.parent)

    def _note(self, key: int, payload: bytes) -> None:
        self._notes.append((key, payload))

    def _run(self, run: Run, parts: Sequence[Part]) -> None:
        kept: list[Part] = []
        for part in parts:
            end = self._recorded_end(part.ledger)
            count = part.count if end is None else min(part.count, end - part.first_entry)
            if count > 0:
                self._learn(run, part, count)
                kept += self._not_stored(part._replace(count=count))
        while kept:
            fitting = self._without_holes(kept)
            if fitting:
                self._cache(run, kept[:fitting])
                kept = kept[fitting:]
            if kept:
                self._flush()  # what comes next leaves a hole, and a tail has none
        if self._generation.bytes >= self._memory_bytes:
            self._flush()

    def _without_holes(self, parts: Sequence[Part]) -> int:
        """Return how many of the parts continue what the generation holds of their ledgers."""
        ends: dict[int, int] = {}
        for at, part in enumerate(parts):
            tail = self._generation.tails.get(part.ledger)
            end = ends.get(part.ledger, tail.end if tail is not None else part.first_entry)
            if end != part.first_entry:
                return at
            ends[part.ledger] = part.first_entry + part.count
        return len(parts)

    def _learn(self, run: Run, part: Part, count: int) -> None:
        """Take what deduplication and the gaps need from entries that count."""
        rows = run.rows[part.first_row * ROW_SIZE : (part.first_row + count) * ROW_SIZE]
        longs = array("q")
        longs.frombytes(rows)
        if part.producer:
            highest = max(longs[HIGHEST_SEQUENCE_ID :: ROW_SIZE // 8])
            known = self._producers.setdefault(part.ledger, {})
            known[part.producer] = max(known.get(part.producer, -1), highest)
        position = self._positions.get(part.ledger)
        if position is None:
            position = self._extents.end(part.ledger)
        if part.first_entry > position:
            self._add_gap(part.ledger, position, part.first_entry - 1)
        self._positions[part.ledger] = max(position, part.first_entry + count)

    def _not_stored(self, part: Part) -> Iterator[Part]:
        """Yield the pieces of a part that no entry log holds."""
        end = part.first_entry + part.count
        for first, after in self._extents.missing(part.ledger, part.first_entry, end):
            first_row = part.first_row + first - part.first_entry
            yield part._replace(first_entry=first, first_row=first_row, count=after - first)

    def _cache(self, run: Run, parts: list[Part]) -> None:
        generation = self._generation
        size = len(run.rows) + len(run.buffer)
        data = memoryview(b"".join((run.rows, run.buffer)))
        cached = CachedRecord(generation, data, 0, size, Kind.RUN, None, parts)
        cached.durable = True
        cached.row_count = run.count
        cached.base = run.base
        cached.body_at = len(run.rows)
        cached.body_size = len(run.buffer)
        number = len(generation.records)
        generation.records.append(cached)
        generation.bytes += size
        for part in parts:
            generation.add_part(part, number)

    def _flush(self) -> None:
        table = write_generation(self._logs, self._generation)
        self._generation = Generation()
        if table is not None:
            self._extents.add(table)
            self._tables.append(table)

    # --- what was lost

    def _add_gap(self, ledger: int, first: int, last: int) -> None:
        known = {gap.first for gap in self._gaps if gap.first.ledger == ledger}
        missing = [e for e in range(first, last + 1) if EntryId(ledger, e) not in known]
        start: int | None = None
        for at, entry in enumerate(missing):
            if start is None:
                start = entry
            if at + 1 == len(missing) or missing[at + 1] != entry + 1:
                gap = Gap(EntryId(ledger, start), EntryId(ledger, entry), "lost from the journal")
                self._gaps.append(gap)
                start = None

    def _add_lost(self, path: Path, start: int, end: int, reason: str) -> None:
        self._lost.append((path, start, end, reason))

    def _add_tail(self, path: Path, start: int, end: int, why: str) -> None:
        data = self._read(path, start, end)
        self._quarantine.copy_bytes(_name(path, start), data, (), why)

    def _report(self) -> None:
        """Put the damaged ranges into quarantine, with the entries that were lost."""
        for ledger, position in self._positions.items():
            end = self._recorded_end(ledger)
            if end is not None and position < end:
                self._add_gap(ledger, position, end - 1)
        gaps = self._gaps
        for path, start, end, reason in self._lost:
            data = self._read(path, start, end)
            self._quarantine.copy_bytes(_name(path, start), data, gaps, reason)

    def _read(self, path: Path, start: int, end: int) -> bytes:
        file = self._files.open(path)
        try:
            return read_patiently(file, end - start, start)
        finally:
            file.close()


def _name(path: Path, position: int) -> str:
    return f"{OF_JOURNAL}{path.parent.name}-{path.stem}-{position:x}"
