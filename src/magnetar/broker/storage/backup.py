"""Backup of a data folder while it is written to, and restore.

    1  reclaim.lock      from here on no entry log is unlinked
    2  metadata          which ledgers make up which topic, and how far cursors are
    3  journal           what is not in an entry log yet, up to now
    4  entry logs        everything that left the journal before step 3 is in one of them
    5  FORMAT            last: a backup that was cut off cannot be opened by mistake

The order is the proof. What was acknowledged before the backup began is in the journal at
step 3 or in an entry log at step 4, because a flush makes the entry log durable before it
recycles the journal. What the metadata names at step 2 is in one of them too, because
nothing is unlinked; what came after step 2 the copy does not know, and a topic ends where
its journal was at step 3. If a flush recycles journal files between steps 2 and 3, the
cursors noted in them would be missing, so both steps are done again.

Recovery does the rest when the copy is opened. Entry logs never change, so on the same file
system the copy is a second name of the same file.
"""

import contextlib
import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from magnetar.broker.files import File, FileLockedError, Files
from magnetar.broker.storage.entry_logs import (
    ENTRIES_FOLDER,
    LOCK_OF_RECLAIM,
    QUARANTINE_FOLDER,
)
from magnetar.broker.storage.ledgers import JOURNAL_FOLDER
from magnetar.broker.storage.replay import Found, JournalFile, list_journal, walk
from magnetar.broker.storage.segment import LogName
from magnetar.broker.storage.verify import Progress, no_progress

FORMAT_FILE = "FORMAT"
METADATA_FILE = "metadata.sqlite"
COPY_BYTES = 1 << 20
ATTEMPTS_MAX = 5
"""How often metadata and journal are copied again because a flush came in between."""
LOCK_ATTEMPTS_MAX = 600
LOCK_PAUSE_S = 0.1


class BackupError(Exception):
    """The copy was not made. The message says why and what to do."""


class Copied(NamedTuple):
    """What was copied."""

    files: int
    bytes: int
    """Bytes that the files hold, whether copied or given a second name."""


def backup(  # noqa: PLR0913, PLR0917 - two folders, and all that touches the outside
    data: Path,
    target: Path,
    files: Files,
    sleep: Callable[[float], None],
    progress: Progress,
    copy_metadata: Callable[[Path, Path], None],
) -> Copied:
    """Copy a data folder, also while a broker writes to it.

    The copy is consistent at one point in time, not before this call began.
    `copy_metadata` copies the metadata file as of one moment, in place of an older copy.

    Raises:
        BackupError: the source is no data folder, the target is not empty, or the lock is held.
    """
    if not files.exists(data / FORMAT_FILE):
        raise BackupError(f"{data} is no data folder: it has no {FORMAT_FILE} file")
    _demand_empty(files, target)
    copier = _Copier(files, progress)
    lock = _lock(data / LOCK_OF_RECLAIM, files, sleep)
    try:
        for _ in range(ATTEMPTS_MAX):
            before = _journals(files, data)
            copy_metadata(data / METADATA_FILE, target / METADATA_FILE)
            # Again: the metadata may name a file that was begun after `before` was listed.
            copier.journal(_journals(files, data), target / JOURNAL_FOLDER)
            if all(files.exists(each.path) for each in before):
                break
            _remove_journal(files, target / JOURNAL_FOLDER)
        else:
            raise BackupError(
                "the journal is flushed faster than it can be copied; try again at a quieter time"
            )
        copier.logs(data / ENTRIES_FOLDER, target / ENTRIES_FOLDER)
        copier.folder(data / QUARANTINE_FOLDER, target / QUARANTINE_FOLDER)
    finally:
        lock.close()
    files.write_whole(target / FORMAT_FILE, files.read(data / FORMAT_FILE))
    return copier.copied()


def restore(source: Path, data: Path, files: Files, progress: Progress = no_progress) -> Copied:
    """Make a data folder of a backup. The backup stays as it is.

    Raises:
        BackupError: the source is no finished backup, or the target is not empty.
    """
    if not files.exists(source / FORMAT_FILE):
        raise BackupError(f"{source} is no finished backup: it has no {FORMAT_FILE} file")
    _demand_empty(files, data)
    copier = _Copier(files, progress)
    folders = [source / ENTRIES_FOLDER, source / QUARANTINE_FOLDER]
    folders += [source / JOURNAL_FOLDER / name for name in files.list(source / JOURNAL_FOLDER)]
    for folder in folders:
        copier.folder(folder, data / folder.relative_to(source))
    copier.file(source / METADATA_FILE, data / METADATA_FILE)
    files.sync_dir(data)
    files.write_whole(data / FORMAT_FILE, files.read(source / FORMAT_FILE))
    return copier.copied()


def _demand_empty(files: Files, folder: Path) -> None:
    strangers = files.list(folder)
    if strangers:
        raise BackupError(f"{folder} is not empty: it holds {', '.join(strangers[:5])}")
    files.make_dir(folder)


def _lock(path: Path, files: Files, sleep: Callable[[float], None]) -> File:
    for _ in range(LOCK_ATTEMPTS_MAX):
        try:
            return files.lock(path, "backup")
        except FileLockedError:
            sleep(LOCK_PAUSE_S)
    raise BackupError(f"{path} is locked: another backup runs")


def _journals(files: Files, data: Path) -> list[JournalFile]:
    root = data / JOURNAL_FOLDER
    return [each for name in files.list(root) for each in list_journal(files, root / name)[0]]


def _remove_journal(files: Files, root: Path) -> None:
    """Remove the copy of a journal that is about to be copied again."""
    for worker in files.list(root):
        for name in files.list(root / worker):
            files.remove(root / worker / name)


class _Copier:
    """Copies files and counts."""

    def __init__(self, files: Files, progress: Progress) -> None:
        self._files = files
        self._progress = progress
        self._count = 0
        self._bytes = 0

    def copied(self) -> Copied:
        return Copied(self._count, self._bytes)

    def journal(self, journal: list[JournalFile], root: Path) -> None:
        """Copy journal files up to the end of their last record."""
        for each in journal:
            target = root / each.path.parent.name
            self._files.make_dir(target)
            with contextlib.suppress(FileNotFoundError):  # recycled: the caller will notice
                self._journal_file(each, target / each.path.name)
            self._files.sync_dir(target)

    def logs(self, source: Path, target: Path) -> None:
        """Give every entry log a second name, or copy it."""
        self._files.make_dir(target)
        names = [name for name in self._files.list(source) if LogName.parse(name)]
        for name in names:
            try:
                self._files.link(source / name, target / name)
            except OSError as error:
                if error.errno not in {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP}:
                    raise
                self._files.copy(source / name, target / name)
            self._add(target / name)
        self._files.sync_dir(target)

    def folder(self, source: Path, target: Path) -> None:
        """Copy the files of a folder."""
        names = self._files.list(source)
        if names:
            self._files.make_dir(target)
        for name in names:
            if not self._files.is_dir(source / name):
                self.file(source / name, target / name)
        if names:
            self._files.sync_dir(target)

    def file(self, source: Path, target: Path) -> None:
        """Copy one file."""
        self._files.copy(source, target)
        self._add(target)

    def _journal_file(self, source: JournalFile, target: Path) -> None:
        """Copy the records that are there now; what is being written comes too late.

        First where the last whole record ends, then the bytes up to there: a record before
        it that was seen half written is whole by the time it is copied.
        """
        reader = self._files.open(source.path)
        try:
            end = _end_of_records(reader, source.number)
            writer = self._files.open(target, create=True)
            try:
                writer.truncate(reader.size())
                for at in range(0, end, COPY_BYTES):
                    writer.pwritev([reader.pread(min(COPY_BYTES, end - at), at)], at)
                writer.sync()
            finally:
                writer.close()
        finally:
            reader.close()
        self._add(target)

    def _add(self, path: Path) -> None:
        file = self._files.open(path)
        try:
            self._bytes += file.size()
        finally:
            file.close()
        self._count += 1
        self._progress(self._bytes, self._bytes)


def _end_of_records(file: File, number: int) -> int:
    """Return where the records of a journal file end that are whole by now."""

    def ends() -> Iterator[int]:
        for item in walk(file, number):
            if isinstance(item, Found):
                yield item.position + item.header.size

    return max(ends(), default=0)
