"""Verification of a data folder: every byte is read and checked, nothing is changed.

    journal/<worker>/*    every record up to the end; what a crash cut off is no damage
    entries/*.log         trailer, tables, hash of the whole file, every block, every entry
    quarantine/*          listed

May run beside a broker: a file that vanishes meanwhile was flushed or rewritten.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from magnetar.broker.entry import EntryId
from magnetar.broker.files import File, Files
from magnetar.broker.run import Run
from magnetar.broker.storage import block
from magnetar.broker.storage.errors import FormatError, Gap
from magnetar.broker.storage.ledgers import ENTRIES_FOLDER, JOURNAL_FOLDER, QUARANTINE_FOLDER
from magnetar.broker.storage.quarantine import Quarantine, Report
from magnetar.broker.storage.record import Part
from magnetar.broker.storage.recovery import JournalFile, Replay, Sink, list_journal
from magnetar.broker.storage.segment import (
    UNFINISHED,
    LogDamagedError,
    LogName,
    check_whole,
    load_table,
    read_block_index,
    read_trailer,
    rebuild_table,
)

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

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong and nothing was ever put aside because entries were lost."""
        return not self.findings and not any(report.gaps for report in self.quarantine)


def no_progress(_done: int, _total: int) -> None:
    """Tell nobody."""


def verify_folder(data: Path, files: Files, progress: Progress = no_progress) -> Verified:
    """Read and check a data folder.

    Raises:
        FormatError: a newer version wrote it.
        OSError: the folder cannot be read.
    """
    return _Verifier(data, files, progress).verify()


class _Replayed:
    """What one reading of a journal found."""

    def __init__(self) -> None:
        self.entries = 0
        self.ledgers: set[int] = set()
        self.lost: list[tuple[Path, str]] = []
        self.gaps: list[Gap] = []

    def take(self, _: Run, parts: Sequence[Part]) -> None:
        """Count the entries of a run."""
        for part in parts:
            self.ledgers.add(part.ledger)
            self.entries += part.count


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

    def verify(self) -> Verified:
        journals = self._journals()
        logs = self._logs()
        self._total = sum(map(self._size, [f.path for folder in journals for f in folder] + logs))
        self._progress(0, self._total)
        for folder in journals:
            self._check_journal(folder)
        for path in logs:
            self._check_log(path)
        quarantine = Quarantine(self._files, self._data / QUARANTINE_FOLDER)
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
        )

    def _journals(self) -> list[list[JournalFile]]:
        found = []
        root = self._data / JOURNAL_FOLDER
        for worker in self._files.list(root):
            journal, unknown = list_journal(self._files, root / worker)
            found.append(journal)
            for name in unknown:
                self._find(root / worker / name, "not a file of the journal")
        return found

    def _logs(self) -> list[Path]:
        folder = self._data / ENTRIES_FOLDER
        found = []
        for name in self._files.list(folder):
            if LogName.parse(name) is not None:
                found.append(folder / name)
            elif LogName.parse(name.removesuffix(UNFINISHED)) is None:
                self._find(folder / name, "not an entry log")
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
            tail=lambda _path, _start, _end: None,
            gap=found.gaps.append,
        )
        try:
            Replay(self._files, journal, sink, sync=False).run()
        except FileNotFoundError:
            return _Replayed()  # flushed meanwhile: its entries are in an entry log
        return found

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


def gaps_of(ledger: int, damaged: Iterable[tuple[int, int]], problem: str) -> list[Gap]:
    """Return ranges of entries of one ledger as gaps."""
    return [Gap(EntryId(ledger, low), EntryId(ledger, high), problem) for low, high in damaged]


__all__ = ["Finding", "FormatError", "Progress", "Verified", "no_progress", "verify_folder"]
