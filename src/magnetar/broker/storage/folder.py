"""The data folder: who may open it, and what it holds.

    DATA/FORMAT              `magnetar data folder, format 1`; written before anything else is
    DATA/LOCK                locked by the supervisor and its workers; holds the supervisor's pid
    DATA/metadata.sqlite     small facts
    DATA/journal/<worker>/   what was synced and is not yet in an entry log
    DATA/entries/            entry logs
    DATA/quarantine/         what could not be read, never deleted
    DATA/spill/<worker>/     delayed entries that memory has no room for; made anew at each start
    DATA/run/                Unix sockets

The lock's descriptor is inherited by the workers: it is held until the last process that may
write is gone, even when the supervisor was killed. A program that finds the lock held by a
dead supervisor's workers waits for them: they notice, and drain.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Self

from magnetar.broker.files import DiskFile, FileLockedError, Files

FORMAT_VERSION = 1
FORMAT_TEXT = "magnetar data folder, format "

ORPHANS_WAIT_S = 20.0
"""How long to wait for the workers of a supervisor that was killed. They have a flush to do."""
ORPHANS_POLL_S = 0.05

MEMORY_FILE_SYSTEMS = frozenset({"tmpfs", "ramfs"})
MOUNTS = Path("/proc/self/mounts")
SOCKET_PATH_BYTES_MAX = 100
"""A Unix socket's path may have 107 bytes; ours end in the worker's number."""


class FolderError(Exception):
    """The folder cannot be opened. The message says why and what to do."""


class DataFolder(NamedTuple):
    """An open and locked data folder."""

    path: Path
    files: Files
    lock: DiskFile

    @classmethod
    def open(
        cls, files: Files, path: Path, sleep: Callable[[float], None] = time.sleep
    ) -> "DataFolder":
        """Lock the folder, make it if it is new, and check its format.

        Raises:
            FolderError: another program has it, it is of a newer format, or it is no data folder.
        """
        path = path.absolute()
        try:
            files.make_dir(path)
            lock = _lock(files, path, sleep)
        except OSError as error:
            raise FolderError(f"cannot use {path} as data folder: {error.strerror}") from error
        folder = cls(path, files, lock)
        try:
            folder._check_format()
            files.make_dir(path / "run")
        except FolderError:
            lock.close()
            raise
        return folder

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.lock.close()

    @property
    def lock_fd(self) -> int:
        """The descriptor that holds the lock, for processes that must hold it too."""
        return self.lock.fileno()

    def admin_sockets(self, workers: int) -> list[str]:
        """Return the path of every worker's admin socket.

        Raises:
            FolderError: the folder's path is longer than a Unix socket's may be.
        """
        return self._sockets("worker", workers)

    def sibling_sockets(self, workers: int) -> list[str]:
        """Return the path of every worker's socket for its siblings' Pulsar connections.

        Raises:
            FolderError: the folder's path is longer than a Unix socket's may be.
        """
        return self._sockets("pulsar", workers)

    def _sockets(self, what: str, workers: int) -> list[str]:
        paths = [str(self.path / "run" / f"{what}-{number}.sock") for number in range(workers)]
        if any(len(os.fsencode(each)) > SOCKET_PATH_BYTES_MAX for each in paths):
            room = SOCKET_PATH_BYTES_MAX - len("/run/worker-0000.sock")
            raise FolderError(
                f"the path of the data folder is too long for the sockets in it: {self.path};"
                f" choose one of at most {room} bytes"
            )
        return paths

    def warnings(self) -> list[str]:
        """Return what a user should know about where the folder lies."""
        mounts = self.files.read(MOUNTS).decode() if self.files.exists(MOUNTS) else ""
        kind = _file_system(self.path, mounts)
        if kind in MEMORY_FILE_SYSTEMS:
            return [f"{self.path} is on {kind}, in memory: nothing there survives a power loss"]
        return []

    def _check_format(self) -> None:
        marker = self.path / "FORMAT"
        if self.files.exists(marker):
            check_format(self.path, self.files)
        else:
            # `FORMAT` is the first thing written, so without it the folder must be empty.
            strangers = set(self.files.list(self.path)) - {"LOCK", "FORMAT.tmp"}
            if strangers:
                raise FolderError(
                    f"{self.path} holds {', '.join(sorted(strangers)[:5])} but is no data folder:"
                    " its FORMAT file is missing. Name an empty folder, or put FORMAT back"
                )
            self.files.write_whole(marker, f"{FORMAT_TEXT}{FORMAT_VERSION}\n".encode())


def check_format(path: Path, files: Files) -> None:
    """Return if the folder's FORMAT file says that this version can read it.

    Raises:
        FolderError: a newer version wrote it, or something else did.
    """
    marker = path / "FORMAT"
    text = files.read(marker).decode(errors="replace").strip()
    version = text.removeprefix(FORMAT_TEXT)
    if version == text or not version.isdigit():
        raise FolderError(f"{marker} says {text[:80]!r}; expected {FORMAT_TEXT}{FORMAT_VERSION}")
    if int(version) != FORMAT_VERSION:
        raise FolderError(
            f"{path} is of format {version}, this version reads format {FORMAT_VERSION}."
            " Use the version of Magnetar that wrote it, or a newer one"
        )


def holds_entries(path: Path, files: Files) -> bool:
    """Tell whether there is a file of a journal, or an entry log: a broker has served from here.

    There is metadata before there is any of them.
    """
    journals = path / "journal"
    folders = [path / "entries", *(journals / name for name in files.list(journals))]
    return any(files.list(folder) for folder in folders)


def _lock(files: Files, path: Path, sleep: Callable[[float], None]) -> DiskFile:
    waited_s = 0.0
    while True:
        try:
            lock = files.lock(path / "LOCK", str(os.getpid()))
        except FileLockedError as error:
            if _alive(error.holder) or waited_s >= ORPHANS_WAIT_S:
                raise FolderError(
                    f"{path} is in use by process {error.holder}. Stop it first,"
                    " or name another folder with --data"
                ) from None
            sleep(ORPHANS_POLL_S)
            waited_s += ORPHANS_POLL_S
        else:
            assert isinstance(lock, DiskFile)
            return lock


def _alive(pid: str) -> bool:
    if not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _file_system(path: Path, mounts: str) -> str:
    """Return the kind of file system a path lies on, given the text of /proc/self/mounts."""
    best, kind = "", ""
    for line in mounts.splitlines():
        fields = line.split(" ")
        mount = fields[1].encode().decode("unicode_escape")
        inside = mount == "/" or path == Path(mount) or Path(mount) in path.parents
        if inside and len(mount) >= len(best):
            best, kind = mount, fields[2]
    return kind
