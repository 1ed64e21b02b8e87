"""A disk in memory that records every operation and can be cut off at any of them.

What is durable, and what a power loss does to the rest:

    write ─▶ pending of its file ──sync──▶ durable        lost, torn, reordered or zeroed
    create, rename, remove ─▶ pending of its folder ──sync_dir──▶ durable
                                                          any first part of them is kept

A sync that fails drops the pending writes for good although they still read back: the next
sync succeeds and means nothing. That is what Linux does.
"""

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

from magnetar.broker.files import Buffer, File, FileLockedError, Space

SECTOR = 512
PAGE = 4096


class Pending(NamedTuple):
    """A change of a file that no sync has followed. `data` None: only the size changes."""

    offset: int
    data: bytes | None
    cut: bool = False
    """The size becomes `offset` exactly; otherwise the file only grows."""


class Inode:
    """A file's contents: as they read now, and as they were at the last sync."""

    def __init__(self, content: bytes = b"") -> None:
        self.data = bytearray(content)
        self.durable = bytearray(content)
        self.pending: list[Pending] = []
        self.synced = 0

    def change(self, change: Pending) -> None:
        apply(self.data, change)
        self.pending.append(change)

    def sync(self, first: int | None = None) -> None:
        """Make pending changes durable; only the first so many if that is told."""
        for change in self.pending[:first]:
            apply(self.durable, change)
            self.synced += 1
        del self.pending[:first]


def apply(content: bytearray, change: Pending) -> None:
    """Make a change to a file's contents."""
    if change.cut:
        del content[change.offset :]
    end = change.offset + len(change.data or b"")
    if len(content) < end:
        content.extend(bytes(end - len(content)))
    if change.data:
        content[change.offset : end] = change.data


class NameChange(NamedTuple):
    """Changes of names that happen together, or not at all. None: the name is gone."""

    folder: str
    names: tuple[tuple[str, Inode | None], ...]


class Event(NamedTuple):
    """One operation, for the replay."""

    what: str
    inode: Inode | None = None
    change: Pending | None = None
    names: NameChange | None = None
    note: object = None


class SimulatedFile:
    """An open file of the simulated disk."""

    def __init__(self, disk: "SimulatedDisk", inode: Inode, path: str) -> None:
        self._disk = disk
        self._inode = inode
        self._path = path
        self._locked = False

    def pread(self, size: int, offset: int) -> bytes:
        self._disk.step("read", self._path)
        return bytes(self._inode.data[offset : offset + size])

    def preadv(self, buffers: Sequence[bytearray | memoryview], offset: int) -> int:
        data = self.pread(sum(map(len, buffers)), offset)
        at = 0
        for buffer in buffers:
            piece = data[at : at + len(buffer)]
            buffer[: len(piece)] = piece
            at += len(piece)
        return at

    def pwritev(self, buffers: Sequence[Buffer], offset: int) -> None:
        data = b"".join(buffers)
        self._disk.step("write", self._path)
        self._disk.take_room(self._inode, offset + len(data))
        self._disk.change(self._inode, Pending(offset, data))

    def sync(self) -> None:
        try:
            self._disk.step("sync", self._path)
        except OSError:
            self._inode.pending.clear()
            self._disk.trace.append(Event("sync failed", self._inode))
            raise
        if self._disk.skip_sync:
            return
        self._inode.sync()
        self._disk.trace.append(Event("sync", self._inode))

    def truncate(self, size: int) -> None:
        self._disk.step("truncate", self._path)
        self._disk.change(self._inode, Pending(size, None, cut=True))

    def preallocate(self, size: int) -> None:
        self._disk.step("preallocate", self._path)
        self._disk.take_room(self._inode, size)
        grown = size - len(self._inode.data)
        if grown > 0:
            self._disk.change(self._inode, Pending(len(self._inode.data), bytes(grown)))

    def size(self) -> int:
        return len(self._inode.data)

    def close(self) -> None:
        if self._locked:
            self._disk.locks.pop(self._path, None)
            self._locked = False


class SimulatedDisk:
    """A file system in memory."""

    def __init__(self) -> None:
        self.names: dict[str, Inode] = {}
        self.durable_names: dict[str, Inode] = {}
        self.pending_names: list[NameChange] = []
        self.folders: set[str] = {"/"}
        self.locks: dict[str, str] = {}
        self.trace: list[Event] = []
        self.steps = 0
        self.fail: Callable[[int, str, str], int | None] = lambda step, what, path: None
        """Given the number, kind and path of a call, which error it ends with."""
        self.capacity: int | None = None
        self.skip_sync = False

    # --- what tests do

    def step(self, what: str, path: str) -> None:
        """Count a call, and let it fail if it is to."""
        self.steps += 1
        error = self.fail(self.steps, what, path)
        if error is not None:
            raise OSError(error, os.strerror(error), path)

    def note(self, note: object) -> None:
        """Put something into the trace between two operations."""
        self.trace.append(Event("note", note=note))

    @property
    def used(self) -> int:
        """Bytes in all files that have a name."""
        return sum(len(inode.data) for inode in set(self.names.values()))

    def take_room(self, inode: Inode, size: int) -> None:
        grown = size - len(inode.data)
        if self.capacity is not None and grown > 0 and self.used + grown > self.capacity:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def change(self, inode: Inode, change: Pending) -> None:
        inode.change(change)
        self.trace.append(Event("write", inode, change))

    def change_names(self, folder: Path, *names: tuple[str, Inode | None]) -> None:
        change = NameChange(str(folder), names)
        rename(self.names, change)
        self.pending_names.append(change)
        self.trace.append(Event("names", names=change))

    def contents(self) -> dict[str, bytes]:
        """Return all files."""
        return {name: bytes(inode.data) for name, inode in self.names.items()}

    def replace(self, path: Path | str, content: Buffer) -> None:
        """Change a file behind everybody's back, durably."""
        inode = self.names[str(path)]
        inode.data[:] = content
        inode.durable[:] = content

    def clone(self) -> "SimulatedDisk":
        """Return an independent disk with the same contents, all durable."""
        return disk_of(self.contents(), self.folders)

    def start_trace(self) -> int:
        """Begin the trace with what is durable now; return how many events that takes."""
        self.trace = []
        for name, inode in self.durable_names.items():
            change = NameChange("start", ((name, inode),))
            self.trace.append(Event("names", names=change))
            self.trace.append(Event("write", inode, Pending(0, bytes(inode.durable))))
            self.trace.append(Event("sync", inode))
        self.trace.append(Event("sync_dir", note="start"))
        return len(self.trace)

    # --- Files

    def open(self, path: Path, *, write: bool = False, create: bool = False) -> File:
        self.step("open", str(path))
        if create:
            if str(path) in self.names:
                raise FileExistsError(errno.EEXIST, "exists", str(path))
            if str(path.parent) not in self.folders:
                raise FileNotFoundError(errno.ENOENT, "no folder", str(path))
            self.change_names(path.parent, (str(path), Inode()))
        return SimulatedFile(self, self._inode(path), str(path))

    def make_dir(self, path: Path) -> None:
        self.step("make_dir", str(path))
        for each in (path, *path.parents):
            self.folders.add(str(each))

    def list(self, path: Path) -> list[str]:
        self.step("list", str(path))
        prefix = f"{path}/"
        found = {
            name.removeprefix(prefix).split("/")[0]
            for name in (*self.names, *self.folders)
            if name.startswith(prefix) and name != prefix
        }
        return sorted(found)

    def exists(self, path: Path) -> bool:
        return str(path) in self.names or str(path) in self.folders

    def is_dir(self, path: Path) -> bool:
        return str(path) in self.folders

    def rename(self, old: Path, new: Path) -> None:
        self.step("rename", str(old))
        inode = self._inode(old)
        self.change_names(new.parent, (str(old), None), (str(new), inode))

    def remove(self, path: Path) -> None:
        self.step("remove", str(path))
        self._inode(path)
        self.change_names(path.parent, (str(path), None))

    def remove_dir(self, path: Path) -> None:
        self.step("remove_dir", str(path))
        assert not self.list(path)
        self.folders.discard(str(path))

    def link(self, source: Path, target: Path) -> None:
        self.step("link", str(source))
        self.change_names(target.parent, (str(target), self._inode(source)))

    def copy(self, source: Path, target: Path) -> int:
        data = self.read(source)
        file = self.open(target, create=True)
        file.pwritev([data], 0)
        file.sync()
        return len(data)

    def read(self, path: Path) -> bytes:
        self.step("read", str(path))
        return bytes(self._inode(path).data)

    def write_whole(self, path: Path, data: Buffer) -> None:
        new = path.with_name(path.name + ".tmp")
        if str(new) in self.names:
            self.remove(new)
        file = self.open(new, create=True)
        file.pwritev([data], 0)
        file.sync()
        self.rename(new, path)
        self.sync_dir(path.parent)

    def sync_dir(self, path: Path) -> None:
        self.step("sync_dir", str(path))
        if self.skip_sync:
            return
        sync_names(self.durable_names, self.pending_names, str(path))
        self.trace.append(Event("sync_dir", note=str(path)))

    def lock(self, path: Path, holder: str) -> File:
        if str(path) in self.locks:
            raise FileLockedError(path, self.locks[str(path)])
        self.locks[str(path)] = holder
        file = SimulatedFile(self, self.names.setdefault(str(path), Inode()), str(path))
        file._locked = True
        return file

    def space(self, path: Path) -> Space:
        total = self.capacity or 1 << 40
        return Space(total, max(total - self.used, 0))

    def _inode(self, path: Path) -> Inode:
        inode = self.names.get(str(path))
        if inode is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return inode


def rename(names: dict[str, Inode], change: NameChange) -> None:
    """Change names."""
    for name, inode in change.names:
        if inode is None:
            names.pop(name, None)
        else:
            names[name] = inode


def sync_names(durable: dict[str, Inode], pending: list[NameChange], folder: str) -> None:
    """Make the pending changes of one folder durable."""
    for change in [change for change in pending if change.folder == folder]:
        rename(durable, change)
        pending.remove(change)


def disk_of(contents: dict[str, bytes], folders: set[str]) -> SimulatedDisk:
    """Return a disk that holds these files durably."""
    disk = SimulatedDisk()
    disk.folders = set(folders)
    for name, content in contents.items():
        disk.names[name] = disk.durable_names[name] = Inode(content)
    return disk


# --- crash states ----------------------------------------------------------------------


class CrashState(NamedTuple):
    """What is on the disk after a power loss."""

    at: int
    """How many events of the trace had happened."""
    variant: str
    disk: SimulatedDisk
    notes: list[object]
    """The notes of the trace up to there."""


VARIANTS = ("lost", "kept", "prefix", "torn 512", "torn 4096", "reordered", "zeroed", "sectors")


def crash_states(
    trace: Sequence[Event],
    folders: set[str],
    random: Random,
    variants: Sequence[str] = VARIANTS,
    keep: float = 1.0,
) -> Iterator[CrashState]:
    """Yield, after every event, what a crash could leave: once per variant.

    `keep` is the share of the states to yield, chosen by `random`.
    """
    shadow: dict[int, Inode] = {}
    names: dict[str, Inode] = {}
    pending_names: list[NameChange] = []
    notes: list[object] = []

    def own(inode: Inode) -> Inode:
        return shadow.setdefault(id(inode), Inode())

    for at, event in enumerate(trace, 1):
        if event.what == "note":
            notes.append(event.note)
            continue
        if event.inode is not None:
            happen(own(event.inode), event)
        elif event.names is not None:
            changed = tuple((n, None if i is None else own(i)) for n, i in event.names.names)
            pending_names.append(NameChange(event.names.folder, changed))
        elif event.what == "sync_dir":
            sync_names(names, pending_names, str(event.note))
        for variant in variants:
            if keep < 1.0 and random.random() >= keep:
                continue
            disk = _crashed(names, pending_names, variant, random)
            disk.folders = set(folders)
            yield CrashState(at, variant, disk, list(notes))


def happen(inode: Inode, event: Event) -> None:
    """Let an event happen to a file."""
    if event.change is not None:
        inode.pending.append(event.change)
    elif event.what == "sync failed":
        inode.pending.clear()
    else:
        # A sync by another thread may have begun before the latest writes.
        inode.sync(event.note - inode.synced if isinstance(event.note, int) else None)


def _crashed(
    names: dict[str, Inode], pending: Sequence[NameChange], variant: str, random: Random
) -> SimulatedDisk:
    found = dict(names)
    by_folder: dict[str, list[NameChange]] = {}
    for change in pending:
        by_folder.setdefault(change.folder, []).append(change)
    for changes in by_folder.values():
        kept = {"lost": 0, "kept": len(changes)}.get(variant)
        for change in changes[: random.randint(0, len(changes)) if kept is None else kept]:
            rename(found, change)
    contents: dict[int, Inode] = {}
    disk = SimulatedDisk()
    for name, inode in found.items():
        if id(inode) not in contents:
            contents[id(inode)] = Inode(bytes(_content(inode, variant, random)))
        disk.names[name] = disk.durable_names[name] = contents[id(inode)]
    return disk


def _content(inode: Inode, variant: str, random: Random) -> bytearray:
    content = bytearray(inode.durable)
    pending = inode.pending
    if variant == "lost" or not pending:
        return content
    if variant == "prefix":
        pending = pending[: random.randint(0, len(pending))]
    for at, change in enumerate(pending):
        apply(content, _survivor(content, change, variant, random, last=at == len(pending) - 1))
    return content


def _survivor(
    before: bytearray, change: Pending, variant: str, random: Random, *, last: bool
) -> Pending:
    """Return what is left of one write."""
    data = change.data
    nothing = Pending(0, None)
    if data is None:
        return nothing if variant == "reordered" and random.random() < 0.5 else change
    if variant == "reordered":
        return change if random.random() < 0.5 else nothing
    if variant == "zeroed":
        return change if random.random() < 0.5 else change._replace(data=bytes(len(data)))
    if variant.startswith("torn") and last:
        unit = int(variant.split()[1])
        # Tears happen at the sectors of the disk, wherever the write began.
        ends = range(unit - change.offset % unit, len(data), unit)
        cut = random.choice([0, *ends]) if ends else 0
        return change._replace(data=data[:cut]) if cut else nothing
    if variant == "sectors":
        return change._replace(data=_mixed(before, change, data, random))
    return change


def _mixed(before: bytearray, change: Pending, data: bytes, random: Random) -> bytes:
    """Return the write with some of its sectors as they were before."""
    mixed = bytearray(data)
    at = 0
    while at < len(data):
        end = min(at + SECTOR - (change.offset + at) % SECTOR, len(data))
        if random.random() < 0.5:
            old = bytes(before[change.offset + at : change.offset + end])
            mixed[at:end] = old + bytes(end - at - len(old))
        at = end
    return bytes(mixed)
