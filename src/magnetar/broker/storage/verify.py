"""Verification of a data folder: every byte is read and checked, nothing is changed.

    journal/<worker>/*    every record up to the end; what a crash cut off is no damage
    entries/*.log         trailer, tables, hash of the whole file, every block, every entry
    quarantine/*          listed
    metadata              what it says must be there (see `stock`), against what is

May run beside a broker: a file that vanishes meanwhile was flushed or rewritten. What seems to
be missing is looked for again, because entries move from the journal to entry logs, and from
one entry log to another, while we read.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from magnetar.broker.entry import EntryId
from magnetar.broker.files import File, Files
from magnetar.broker.metadata.holdings import Facts, Held
from magnetar.broker.run import Run
from magnetar.broker.storage import block
from magnetar.broker.storage.entry_logs import ENTRIES_FOLDER, QUARANTINE_FOLDER
from magnetar.broker.storage.errors import Gap
from magnetar.broker.storage.ledgers import JOURNAL_FOLDER
from magnetar.broker.storage.quarantine import Quarantine, Report
from magnetar.broker.storage.record import Part
from magnetar.broker.storage.replay import JournalFile, Replay, Sink, list_journal
from magnetar.broker.storage.segment import (
    UNFINISHED,
    LogDamagedError,
    LogName,
    Table,
    check_whole,
    load_table,
    read_block_index,
    read_trailer,
    rebuild_table,
)
from magnetar.broker.storage.stock import WHAT_IS_LOST, shortage, unowned

LOOKS_MAX = 4
"""How often the folder is looked through for what seems to be missing."""

ReadFacts = Callable[[], Facts | None]
"""Returns what the metadata says now; None: it cannot be read, which is found elsewhere."""

Progress = Callable[[int, int], None]
"""Bytes done, bytes in all."""


class Finding(NamedTuple):
    """Something wrong with one file."""

    file: str
    """Relative to the data folder."""
    problem: str
    gaps: list[Gap]
    """The entries that cannot be served because of it, as far as that can be told."""


class Verified(NamedTuple):
    """What a verification found."""

    journal_files: int
    journal_entries: int
    entry_logs: int
    blocks: int
    entries: int
    """In entry logs. An entry may be in the journal too."""
    ledgers: int
    bytes: int
    """Bytes read."""
    findings: list[Finding]
    quarantine: list[Report]
    """What recovery and reading have put aside before."""

    unowned: dict[int, int]
    """Ledgers that no topic has and nobody has dropped -> entries in entry logs."""

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong, and nothing was put aside but what a crash cuts off."""
        harmless = all(report.harmless for report in self.quarantine)
        return not self.findings and not self.unowned and harmless


def no_progress(_done: int, _total: int) -> None:
    """Tell nobody."""


def no_facts() -> Facts | None:
    """Know nothing."""
    return None


def verify_folder(
    data: Path,
    files: Files,
    progress: Progress = no_progress,
    read_facts: ReadFacts = no_facts,
) -> Verified:
    """Read and check a data folder.

    Raises:
        FormatError: a newer version wrote it.
        OSError: the folder cannot be read.
    """
    return _Verifier(data, files, progress).verify(read_facts)


class Contents:
    """Which entries a folder holds, in entry logs and journals, and which journal files count."""

    def __init__(self) -> None:
        self._ranges: dict[int, list[tuple[int, int]]] = {}
        self.journals: dict[int, set[int]] = {}
        """Worker -> numbers of the files with a record that counts, and whole up to their end."""

    def add(self, ledger: int, first: int, end: int) -> None:
        """Take note of neighbouring entries, the end exclusive."""
        ranges = self._ranges.setdefault(ledger, [])
        if ranges and ranges[-1][1] == first:
            ranges[-1] = ranges[-1][0], end
        else:
            ranges.append((first, end))

    def add_table(self, table: Table) -> None:
        """Take note of an entry log."""
        for ledger, first, count in zip(table.ledgers, table.firsts, table.counts, strict=True):
            self.add(ledger, first, first + count)

    @property
    def ledgers(self) -> list[int]:
        """Every ledger of which there is an entry."""
        return list(self._ranges)

    def missing(self, ledger: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield the parts of [0, end) that are not there."""
        at = 0
        for first, after in sorted(self._ranges.get(ledger, ())):
            if first >= end:
                break
            if first > at:
                yield at, first
            at = max(at, after)
        if at < end:
            yield at, end

    def count(self, ledger: int) -> int:
        """Return how many entries of a ledger there are."""
        end = max((after for _, after in self._ranges.get(ledger, ())), default=0)
        return end - sum(after - first for first, after in self.missing(ledger, end))


class _Replayed:
    """What one reading of a journal found."""

    def __init__(self) -> None:
        self.entries = 0
        self.ledgers: set[int] = set()
        self.lost: list[tuple[Path, str]] = []
        self.gaps: list[Gap] = []
        self.parts: list[tuple[int, int, int]] = []
        self.files: set[int] = set()

    def take(self, _: Run, parts: Sequence[Part]) -> None:
        """Count the entries of a run."""
        for part in parts:
            self.ledgers.add(part.ledger)
            self.entries += part.count
            self.parts.append((part.ledger, part.first_entry, part.first_entry + part.count))


class _Verifier:
    def __init__(self, data: Path, files: Files, progress: Progress) -> None:
        self._data = data
        self._files = files
        self._progress = progress
        self._findings: list[Finding] = []
        self._ledgers: set[int] = set()
        self._journal_entries = 0
        self._blocks = 0
        self._entries = 0
        self._done = 0
        self._total = 0
        self._facts: Facts | None = None
        self._contents = Contents()

    def verify(self, read_facts: ReadFacts) -> Verified:
        self._facts = before = read_facts()
        journals = self._journals()
        logs = self._logs()
        self._total = sum(map(self._size, [f.path for folder in journals for f in folder] + logs))
        self._progress(0, self._total)
        for folder in journals:
            self._check_journal(folder)
        for path in logs:
            self._check_log(path)
        quarantine = Quarantine(self._files, self._data / QUARANTINE_FOLDER)
        unowned_ledgers = self._take_stock(before, read_facts, quarantine.gaps())
        return Verified(
            sum(map(len, journals)),
            self._journal_entries,
            len(logs),
            self._blocks,
            self._entries,
            len(self._ledgers),
            self._done,
            self._findings,
            quarantine.reports(),
            unowned_ledgers,
        )

    # --- against the metadata

    def _take_stock(
        self, before: Facts | None, read_facts: ReadFacts, known: Sequence[Gap]
    ) -> dict[int, int]:
        """Find what should be there and is not; return what nobody owns."""
        contents = self._contents
        for look in range(LOOKS_MAX):
            after = read_facts()
            if before is None or after is None:
                return {}
            workers = sorted(before.held.keys() | {each.worker for each in before.ledgers.values()})
            short = shortage(
                _in_both(before, after), workers, contents.missing, contents.journals, known
            )
            strange = set(unowned(before, contents.ledgers)) & set(unowned(after, contents.ledgers))
            if look == LOOKS_MAX - 1 or not (short or strange):
                break
            before, contents = after, self._look_through()
        if short.gaps:
            place = self._data / ENTRIES_FOLDER
            self._find(place, "entries are missing that the metadata knows", short.gaps)
        for journal in short.journals:
            place = self._data / JOURNAL_FOLDER / str(journal.worker)
            self._find(place, f"{journal} {WHAT_IS_LOST}", short.doubtful)
        return {ledger: contents.count(ledger) for ledger in sorted(strange)}

    def _look_through(self) -> Contents:
        """Find out again what is there, without checking all of it."""
        self._contents = Contents()
        for journal in self._journals():
            self._add_journal(journal, self._replay(journal))
        for path in self._logs():
            with suppress(FileNotFoundError, LogDamagedError):  # moved on, or found before
                file = self._files.open(path)
                try:
                    self._contents.add_table(_table_of(file, path.name))
                finally:
                    file.close()
        return self._contents

    def _add_journal(self, journal: Sequence[JournalFile], found: "_Replayed") -> None:
        for ledger, first, end in found.parts:
            self._contents.add(ledger, first, end)
        if journal and (name := journal[0].path.parent.name).isdigit():
            self._contents.journals[int(name)] = found.files

    def _journals(self) -> list[list[JournalFile]]:
        found = []
        root = self._data / JOURNAL_FOLDER
        for worker in self._files.list(root):
            journal, unknown = list_journal(self._files, root / worker)
            found.append(journal)
            for name in unknown:
                self._find_once(root / worker / name, "not a file of the journal")
        return found

    def _logs(self) -> list[Path]:
        folder = self._data / ENTRIES_FOLDER
        found = []
        for name in self._files.list(folder):
            if LogName.parse(name) is not None:
                found.append(folder / name)
            elif LogName.parse(name.removesuffix(UNFINISHED)) is None:
                self._find_once(folder / name, "not an entry log")
        return found

    # --- journal

    def _check_journal(self, journal: Sequence[JournalFile]) -> None:
        found = self._replay(journal)
        if found.lost and journal:
            # Beside a broker, what was being written looked damaged: look again.
            folder = journal[0].path.parent
            found = self._replay(list_journal(self._files, folder)[0])
        for path, reason in found.lost:
            self._find(path, reason, found.gaps)
        self._add_journal(journal, found)
        self._ledgers.update(found.ledgers)
        self._journal_entries += found.entries
        for each in journal:
            self._count(self._size(each.path))

    def _replay(self, journal: Sequence[JournalFile]) -> "_Replayed":
        found = _Replayed()
        sink = Sink(
            run=found.take,
            note=lambda _key, _payload: None,
            lost=lambda path, _start, _end, reason: found.lost.append((path, reason)),
            tail=lambda _path, _start, _end, _why: None,
            gap=found.gaps.append,
        )
        replay = Replay(self._files, journal, sink, sync=False, synced=self._synced(journal))
        try:
            replay.run()
        except FileNotFoundError:
            return _Replayed()  # flushed meanwhile: its entries are in an entry log
        left_out = {*replay.empty, *replay.short, *(path for path, _ in replay.void)}
        found.files = {each.number for each in journal if each.path not in left_out}
        return found

    def _synced(self, journal: Sequence[JournalFile]) -> tuple[int, int] | None:
        """Return what the metadata knows to have been durable in a journal."""
        if self._facts is None or not journal or not journal[0].path.parent.name.isdigit():
            return None
        return self._facts.synced.get(int(journal[0].path.parent.name))

    # --- entry logs

    def _check_log(self, path: Path) -> None:
        try:
            file = self._files.open(path)
        except FileNotFoundError:
            return  # reclaimed meanwhile
        try:
            self._check_tables(path, file)
            self._count(file.size())
        except LogDamagedError as error:
            self._find(path, str(error))
        finally:
            file.close()

    def _check_tables(self, path: Path, file: File) -> None:
        try:
            table = load_table(file, path.name)
            for problem in check_whole(file, read_trailer(file)):
                self._find(path, problem)
        except LogDamagedError as error:
            self._find(path, str(error))
            table = rebuild_table(file, path.name)
        self._contents.add_table(table)
        for row, ledger in enumerate(table.ledgers):
            self._ledgers.add(ledger)
            self._entries += table.counts[row]
            try:
                index = read_block_index(file, table, row)
            except LogDamagedError as error:
                self._find(path, str(error))
                continue
            for first, offset, count, size in zip(*index, strict=True):
                self._blocks += 1
                data = memoryview(file.pread(size, offset))
                try:
                    damaged = block.decode(data, table.salt, ledger, first, count).damaged
                    problem = "entries do not match their checksums"
                except block.BlockDamagedError as error:
                    damaged = ((first, first + count - 1),)
                    problem = str(error)
                if damaged:
                    self._find(path, problem, gaps_of(ledger, damaged, problem))

    # --- telling

    def _find_once(self, path: Path, problem: str) -> None:
        name = str(path.relative_to(self._data))
        if not any((each.file, each.problem) == (name, problem) for each in self._findings):
            self._find(path, problem)

    def _find(self, path: Path, problem: str, gaps: Sequence[Gap] = ()) -> None:
        name = str(path.relative_to(self._data))
        self._findings.append(Finding(name, problem, list(gaps)))

    def _count(self, size: int) -> None:
        self._done += size
        self._progress(min(self._done, self._total), self._total)

    def _size(self, path: Path) -> int:
        try:
            file = self._files.open(path)
        except FileNotFoundError:
            return 0
        try:
            return file.size()
        finally:
            file.close()


def _in_both(before: Facts, after: Facts) -> Facts:
    """Return what the metadata said before the disk was read, and still says.

    What came later need not have been there; what is gone since may be gone from the disk.
    """
    held = {
        worker: Held(
            journal=[each for each in held.journal if each in after.held[worker].journal],
            ends=held.ends,
        )
        for worker, held in before.held.items()
        if worker in after.held
    }
    ledgers = {each: fact for each, fact in before.ledgers.items() if each in after.ledgers}
    return before._replace(ledgers=ledgers, held=held)


def _table_of(file: File, name: str) -> Table:
    """Return the table of an entry log, damaged or not.

    Raises:
        LogDamagedError: nothing of it can be read.
    """
    try:
        return load_table(file, name)
    except LogDamagedError:
        return rebuild_table(file, name)


def gaps_of(ledger: int, damaged: Iterable[tuple[int, int]], problem: str) -> list[Gap]:
    """Return ranges of entries of one ledger as gaps."""
    return [Gap(EntryId(ledger, low), EntryId(ledger, high), problem) for low, high in damaged]
