"""Files: the only module that opens, writes, syncs or removes one (SQLite's own apart).

    storage ──▶ Files ──▶ DiskFiles   the real disk
                   └────▶ (tests)     a disk that fails, fills up, and loses what was not synced

What a caller may rely on after a power loss, and nothing more:

* bytes written before `File.sync` returned are there;
* a name created, renamed or removed before `Files.sync_dir` of its folder returned stays so.

Everything here blocks: callers on the event loop use a thread. No file is mapped into memory.
"""

import errno
import fcntl
import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

Buffer = bytes | bytearray | memoryview

BUFFERS_PER_CALL_MAX = 1024
"""Buffers in one system call (IOV_MAX on Linux and macOS)."""

COPY_BYTES = 1 << 20
"""Bytes copied at once between two files."""

NOT_SUPPORTED = frozenset({errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS})
"""What file systems answer that cannot reserve room."""

FOLDER_MODE = 0o700
FILE_MODE = 0o600


class FileLockedError(Exception):
    """Another process holds the lock. `holder` is what it wrote into the file, such as its pid."""

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(f"{path} is locked by {holder or 'another process'}")
        self.holder = holder


class Space(NamedTuple):
    """Bytes of the file system a path lies on."""

    total: int
    available: int


class File(Protocol):
    """One open file. Its methods may be called from several threads."""

    def pread(self, size: int, offset: int) -> bytes:
        """Return up to `size` bytes from `offset`; fewer only at the end of the file."""
        ...

    def preadv(self, buffers: Sequence[bytearray | memoryview], offset: int) -> int:
        """Fill buffers one after the other from `offset`; return how many bytes there were."""
        ...

    def pwritev(self, buffers: Sequence[Buffer], offset: int) -> None:
        """Write all buffers one after the other from `offset`. Durable only after `sync`."""
        ...

    def sync(self) -> None:
        """Return once everything written so far, and the file's size, is on the disk."""
        ...

    def truncate(self, size: int) -> None: ...

    def preallocate(self, size: int) -> None:
        """Reserve room so that writes below `size` bytes cannot run out of it."""
        ...

    def size(self) -> int: ...

    def close(self) -> None: ...


class Files(Protocol):
    """A file system."""

    def open(self, path: Path, *, write: bool = False, create: bool = False) -> File:
        """Open a file. `create` makes a new one and fails if the name is taken."""
        ...

    def make_dir(self, path: Path) -> None:
        """Make a folder with its parents, durably; fine if it is there."""
        ...

    def list(self, path: Path) -> list[str]:
        """Return the names in a folder, sorted; none if there is no such folder."""
        ...

    def exists(self, path: Path) -> bool: ...

    def is_dir(self, path: Path) -> bool: ...

    def rename(self, old: Path, new: Path) -> None:
        """Give a file another name, replacing what had it. Durable only after `sync_dir`."""
        ...

    def remove(self, path: Path) -> None: ...

    def remove_dir(self, path: Path) -> None:
        """Remove an empty folder."""
        ...

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name on the same file system."""
        ...

    def copy(self, source: Path, target: Path) -> int:
        """Copy a file's contents to a new, synced file; return the bytes copied."""
        ...

    def read(self, path: Path) -> bytes:
        """Return a whole small file."""
        ...

    def write_whole(self, path: Path, data: Buffer) -> None:
        """Write a small file so that after a crash it is there whole, or as it was before."""
        ...

    def sync_dir(self, path: Path) -> None:
        """Return once the names in a folder are on the disk."""
        ...

    def lock(self, path: Path, holder: str) -> File:
        """Lock a file for this process until it is closed, and write `holder` into it.

        Raises:
            FileLockedError: another process has it.
        """
        ...

    def space(self, path: Path) -> Space: ...


class DiskFile:
    """An open file of the machine."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        """Return the descriptor, for a process that has to hold the file too."""
        return self._fd

    def pread(self, size: int, offset: int) -> bytes:
        data = os.pread(self._fd, size, offset)
        if len(data) == size or not data:
            return data
        pieces = [data]
        missing = size - len(data)
        while missing:
            data = os.pread(self._fd, missing, offset + size - missing)
            if not data:
                break
            pieces.append(data)
            missing -= len(data)
        return b"".join(pieces)

    def preadv(self, buffers: Sequence[bytearray | memoryview], offset: int) -> int:
        left = [memoryview(buffer) for buffer in buffers]
        start = offset
        while left:
            count = os.preadv(self._fd, left[:BUFFERS_PER_CALL_MAX], offset)
            if not count:
                break
            offset += count
            while left and count >= len(left[0]):
                count -= len(left.pop(0))
            if count:
                left[0] = left[0][count:]
        return offset - start

    def pwritev(self, buffers: Sequence[Buffer], offset: int) -> None:
        for first in range(0, len(buffers), BUFFERS_PER_CALL_MAX):
            offset = self._write_some(list(buffers[first : first + BUFFERS_PER_CALL_MAX]), offset)

    def _write_some(self, buffers: list[Buffer], offset: int) -> int:
        """Write at most one call's worth of buffers, however often the kernel writes short."""
        while buffers:
            written = os.pwritev(self._fd, buffers, offset)
            offset += written
            while buffers and written >= len(buffers[0]):
                written -= len(buffers.pop(0))
            if buffers and written:
                buffers[0] = memoryview(buffers[0])[written:]
        return offset

    def sync(self) -> None:
        if sys.platform == "darwin":
            # There fsync leaves the bytes in the drive's own cache.
            fcntl.fcntl(self._fd, fcntl.F_FULLFSYNC)
        else:
            os.fdatasync(self._fd)

    def truncate(self, size: int) -> None:
        os.ftruncate(self._fd, size)

    def preallocate(self, size: int) -> None:
        if sys.platform != "darwin":
            try:
                os.posix_fallocate(self._fd, 0, size)
            except OSError as error:
                if error.errno not in NOT_SUPPORTED:
                    raise
            else:
                return
        zeros = bytes(COPY_BYTES)
        for offset in range(self.size(), size, COPY_BYTES):
            self.pwritev([zeros[: size - offset]], offset)

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class DiskFiles:
    """The file system of the machine."""

    def open(self, path: Path, *, write: bool = False, create: bool = False) -> File:
        flags = os.O_RDWR if write or create else os.O_RDONLY
        if create:
            flags |= os.O_CREAT | os.O_EXCL
        return DiskFile(os.open(path, flags | os.O_CLOEXEC, FILE_MODE))

    def make_dir(self, path: Path) -> None:
        missing = []
        while not path.exists():
            missing.append(path)
            path = path.parent
        for each in reversed(missing):
            each.mkdir(mode=FOLDER_MODE, exist_ok=True)
            self.sync_dir(each.parent)

    def list(self, path: Path) -> list[str]:
        try:
            return sorted(os.listdir(path))  # noqa: PTH208 - names, not paths
        except FileNotFoundError:
            return []

    def exists(self, path: Path) -> bool:
        return path.exists()

    def is_dir(self, path: Path) -> bool:
        return path.is_dir()

    def rename(self, old: Path, new: Path) -> None:
        old.replace(new)

    def remove(self, path: Path) -> None:
        path.unlink()

    def remove_dir(self, path: Path) -> None:
        path.rmdir()

    def link(self, source: Path, target: Path) -> None:
        os.link(source, target)

    def copy(self, source: Path, target: Path) -> int:
        with source.open("rb") as reader, open(target, "xb", opener=_private) as writer:
            shutil.copyfileobj(reader, writer, COPY_BYTES)
            writer.flush()
            os.fsync(writer.fileno())
            return writer.tell()

    def read(self, path: Path) -> bytes:
        return path.read_bytes()

    def write_whole(self, path: Path, data: Buffer) -> None:
        new = path.with_name(path.name + ".tmp")
        with open(new, "wb", opener=_private) as writer:
            writer.write(data)
            writer.flush()
            os.fsync(writer.fileno())
        new.replace(path)
        self.sync_dir(path.parent)

    def sync_dir(self, path: Path) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def lock(self, path: Path, holder: str) -> File:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            found = os.pread(fd, 256, 0).decode(errors="replace").strip()
            os.close(fd)
            raise FileLockedError(path, found) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, holder.encode(), 0)
        return DiskFile(fd)

    def space(self, path: Path) -> Space:
        found = os.statvfs(path)
        return Space(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, FILE_MODE)


def memory_bytes() -> int:
    """Return the memory that this process may use at most; 0: it cannot be told.

    That of the machine, or less where a container's limit is set (control groups, version 2).
    """
    try:
        found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0
    with suppress(OSError, ValueError):  # the file is not there, or says "max"
        found = min(found, int(Path("/sys/fs/cgroup/memory.max").read_text("ascii")))
    return max(found, 0)
