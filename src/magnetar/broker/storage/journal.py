"""The journal: one sync makes the entries of many topics durable.

    journal/<worker>/<file:016x>.journal    START, then records up to where the old bytes begin
                     spare-<file:016x>.journal    flushed; waits to be written over

    write ──▶ fits? ──yes──▶ one pwritev, one sync ──▶ durable
                └──no──▶ rename a spare (or make a file and reserve its room), sync the folder

A file is preallocated, written from its start, and never longer than what was reserved:
a sync has no metadata to commit. When everything in it lies in entry logs it becomes a
spare. What a file held before stays behind what is written to it now; `record` says how
the two are told apart.

A write or sync that fails is not tried again. The file is left as it is, the next write
opens a new one, and its START says that what the old one holds beyond the last
successful sync does not exist. No room for a new file is another matter: nothing was
written, and the same records may be written later.

Called by one thread. Recycling may happen on another.
"""

import errno
import logging
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from magnetar.broker.files import File, Files
from magnetar.broker.storage.cache import CachedRecord, Generation
from magnetar.broker.storage.packing import finish
from magnetar.broker.storage.record import HEADER_SIZE, mark, start

logger = logging.getLogger(__name__)

SUFFIX = ".journal"
SPARE_PREFIX = "spare-"
SPARES_MAX = 4
"""Spare files kept; more are removed."""

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


class JournalError(Exception):
    """Records could not be made durable."""

    def __init__(self, cause: OSError, *, written: bool) -> None:
        super().__init__(str(cause))
        self.written = written
        """Some of the bytes may have reached the disk: their entry ids must not be used again."""
        self.full = not written and cause.errno in NO_ROOM


class Journal:
    """Writes records to the files of one folder, in order; durable when `write` returns."""

    def __init__(  # noqa: PLR0913 - built in one place
        self,
        folder: Path,
        files: Files,
        file_bytes: int,
        *,
        next_file: int,
        last_number: int,
        new_salt: Callable[[], int],
    ) -> None:
        self._folder = folder
        self._files = files
        self._file_bytes = file_bytes
        self._next_file = next_file
        self._number = last_number
        self._durable = last_number
        self._new_salt = new_salt
        self._spares: deque[Path] = deque(
            folder / name for name in files.list(folder) if name.startswith(SPARE_PREFIX)
        )
        self._file: File | None = None
        self._path = folder
        self._failed: set[Path] = set()
        """Files with which the disk had trouble: never written again."""
        self._generation: Generation | None = None
        self._position = 0
        self._size = 0
        self._file_number = 0
        self._salt = 0
        self._start: bytearray | None = None
        self._marked = True
        self.bytes_written = 0
        self.files_begun = 0
        """Files of which the first records are durable."""
        self.durable_at: tuple[int, int] | None = None
        """File and number of the last durable record; None: nothing was written yet."""

    def write(self, records: Sequence[CachedRecord], first: int = 0) -> int:
        """Write records from `first` on, as many as fit into one file, and sync.

        Returns the index after the last record that is durable now.

        Raises:
            JournalError: none of the records from `first` on is durable.
        """
        if not self._fits(records[first]):
            try:
                self._open_next(records[first])
            except OSError as error:
                self.abandon()
                raise JournalError(error, written=False) from error
        assert self._file is not None
        pieces: list[memoryview | bytearray] = [self._start] if self._start is not None else []
        position = self._position + sum(map(len, pieces))
        index = first
        view = None
        begin = end = 0
        while index < len(records):
            record = records[index]
            if record.generation is not self._generation or position + record.size > self._size:
                break
            self._finish(record)
            position += record.size
            if record.view is view and record.start == end:
                end += record.size
            else:
                if view is not None:
                    pieces.append(view[begin:end])
                view, begin, end = record.view, record.start, record.start + record.size
            index += 1
        if view is not None:
            pieces.append(view[begin:end])
        self._commit(pieces, position)
        return index

    def mark(self) -> None:
        """Write down, without a sync, that everything so far is durable.

        After a pause this is what shows a damaged last record for what it is. A failure
        costs nothing but that, so it is left to the next write to find out.
        """
        if self._marked or self._file is None or self._position + HEADER_SIZE > self._size:
            return
        record = mark(self._file_number, self._salt, self._number, self._durable)
        try:
            self._file.pwritev([record], self._position)
        except OSError:
            logger.warning("journal: could not write a mark", exc_info=True)
            return
        self._position += HEADER_SIZE
        self._marked = True

    def abandon(self) -> None:
        """Leave the file as it is; the next write opens a new one."""
        if self._file is not None:
            self._file.close()
        self._file = None
        self._number = self._durable

    def close(self) -> None:
        """Close the file. Everything in it is durable."""
        self.mark()
        if self._file is not None:
            self._file.close()
            self._file = None

    def recycle(self, paths: Sequence[Path]) -> None:
        """Take back files whose records are all in entry logs, oldest first.

        Each step is durable before the next, so that a START never goes before the files
        it speaks about.
        """
        for path in paths:
            own = path.parent == self._folder and path not in self._failed
            if own and len(self._spares) < SPARES_MAX:
                spare = path.with_name(SPARE_PREFIX + path.name)
                self._files.rename(path, spare)
                self._files.sync_dir(path.parent)
                self._spares.append(spare)
            else:
                self._files.remove(path)
                self._files.sync_dir(path.parent)
                self._failed.discard(path)

    # --- one file

    def _fits(self, record: CachedRecord) -> bool:
        return (
            self._file is not None
            and record.generation is self._generation
            and self._position + record.size <= self._size
        )

    def _finish(self, record: CachedRecord) -> None:
        self._number += 1
        finish(
            record.view[record.start : record.start + record.size],
            record.kind,
            self._file_number,
            self._salt,
            self._number,
            self._durable,
            len(record.parts),
            record.directory_size,
            record.row_count,
            record.base,
            record.body_size,
        )

    def _commit(self, pieces: Sequence[memoryview | bytearray], position: int) -> None:
        assert self._file is not None
        try:
            self._file.pwritev(pieces, self._position)
            self._file.sync()
        except OSError as error:
            # What has reached the disk is unknown, and a second sync may say that all is
            # well although the pages were dropped. So: never again this file.
            self._failed.add(self._path)
            self.abandon()
            raise JournalError(error, written=True) from error
        self.bytes_written += position - self._position
        self._position = position
        self._durable = self._number
        if self._start is not None:
            assert self._generation is not None
            self._generation.durable_files.append(self._file_number)
            self.files_begun += 1
        self.durable_at = (self._file_number, self._number)
        self._start = None
        self._marked = False

    def _open_next(self, record: CachedRecord) -> None:
        """Make the next file current and put its START in front of the next write."""
        if self._file is not None:
            self._file.close()
            self._file = None
        path = self._folder / f"{self._next_file:016x}{SUFFIX}"
        self._next_file += 1
        self._size = max(self._file_bytes, record.size + HEADER_SIZE)
        self._file = self._spare(path) or self._new_file(path)
        self._files.sync_dir(self._folder)
        self._path = path
        self._generation = record.generation
        record.generation.files.append(path)
        self._file_number = self._next_file - 1
        self._salt = self._new_salt()
        self._position = 0
        self._number += 1
        self._start = start(self._file_number, self._salt, self._number, self._durable, self._size)

    def _spare(self, path: Path) -> File | None:
        """Give a spare file its new name; None if there is none of the right size."""
        while self._spares:
            spare = self._spares.popleft()
            file = self._files.open(spare, write=True)
            if file.size() == self._size:
                self._files.rename(spare, path)
                return file
            file.close()
            if self._size > self._file_bytes:
                self._spares.append(spare)
                return None
            self._files.remove(spare)
        return None

    def _new_file(self, path: Path) -> File:
        file = self._files.open(path, write=True, create=True)
        try:
            file.preallocate(self._size)
            file.sync()
        except OSError:
            file.close()
            self._files.remove(path)
            raise
        return file


def file_number(name: str) -> int | None:
    """Return the number in the name of a journal file; None if it is something else."""
    stem, dot, suffix = name.partition(".")
    if dot + suffix != SUFFIX or len(stem) != 16:
        return None
    try:
        return int(stem, 16)
    except ValueError:
        return None
