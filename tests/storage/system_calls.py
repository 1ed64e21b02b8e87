r"""System calls as strace writes them down -> the events of the simulated disk.

    12 pwrite64(7</data/metadata.sqlite-wal>, "\x37\x7f...", 24, 0 <unfinished ...>
    13 fdatasync(9</data/journal/0/0000000000000001.journal>) = 0
    12 <... pwrite64 resumed>) = 24

Threads run at the same time. A write counts from where it begins, because from then on its
bytes may be on the disk; a sync makes durable what was written before it began, and only
once it has returned.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.storage.disk import Event, Inode, NameChange, Pending

TRACED = (
    "write,pwrite64,pwritev,pwritev2,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,"
    "ftruncate,fallocate,openat,link,linkat"
)
OPTIONS = ["-f", "-qq", "-xx", "-y", "-s", "100000000", "-e", f"trace={TRACED}"]

LINE = re.compile(r"^(?:(\d+) +)?(\w+)\((.*)$", re.DOTALL)
RESUMED = re.compile(r"^(?:(\d+) +)?<\.\.\. (\w+) resumed>(.*)$", re.DOTALL)
UNFINISHED = "<unfinished ...>"
RESULT = re.compile(r"^.*\) += (-?\d+)", re.DOTALL)
DESCRIPTOR = re.compile(r"^(\d+)<([^>]*)>")
NOT_NUMBERS = re.compile(r'"[^"]*"|<[^>]*>|\) += .*$', re.DOTALL)
STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
NUMBER = re.compile(r"(?<!\w)\d+(?!\w)")

WRITES = frozenset({"write", "pwrite64", "pwritev", "pwritev2"})
SYNCS = frozenset({"fsync", "fdatasync"})
STANDARD_OUTPUT = 1


class Call(NamedTuple):
    """One system call, or its beginning."""

    thread: str
    name: str
    arguments: str
    result: int | None
    """None: it has begun."""
    resumed: bool = False


def calls(lines: Iterable[str]) -> Iterator[Call]:
    """Yield calls; one that was interrupted comes twice: when it begins and when it returns."""
    begun: dict[str, str] = {}
    for line in lines:
        resumed = RESUMED.match(line)
        if resumed:
            thread, name, rest = resumed[1] or "", resumed[2], resumed[3]
            whole = begun.pop(thread, "") + rest
            result = RESULT.match(rest)
            if result is not None:
                yield Call(thread, name, whole, int(result[1]), resumed=True)
            continue
        found = LINE.match(line)
        if not found:
            continue
        thread, name, rest = found[1] or "", found[2], found[3]
        if UNFINISHED in rest:
            begun[thread] = rest.split(UNFINISHED)[0].rstrip()
            yield Call(thread, name, begun[thread], None)
        else:
            result = RESULT.match(rest)
            if result is not None:
                yield Call(thread, name, rest, int(result[1]))


def text_of(escaped: str) -> bytes:
    """Return what strace wrote as two hexadecimal digits a byte."""
    return bytes.fromhex(escaped.replace("\\x", ""))


def numbers_of(arguments: str) -> list[int]:
    """Return the plain numbers among the arguments."""
    return [int(found) for found in NUMBER.findall(NOT_NUMBERS.sub("", arguments))]


class Recorder:
    """Turns calls on files below one folder into events; what goes to standard output is a note."""

    def __init__(self, folder: Path) -> None:
        self.events: list[Event] = []
        self.folders: set[str] = {str(folder)}
        self._folder = str(folder)
        self._names: dict[str, Inode] = {}
        self._positions: dict[str, int] = {}
        self._syncing: dict[str, tuple[Inode, int]] = {}
        self._writes: dict[int, int] = {}

    def record(self, lines: Iterable[str]) -> list[Event]:
        """Return the events of a whole trace."""
        for call in calls(lines):
            if call.result is not None and call.result < 0:
                continue
            if call.name in WRITES:
                if not call.resumed:
                    self._write(call)
            elif call.name in SYNCS:
                self._sync(call)
            elif call.result is not None:
                self._change(call)
        return self.events

    def _file(self, arguments: str) -> tuple[int, str, Inode | None]:
        found = DESCRIPTOR.match(arguments)
        assert found, arguments[:80]
        path = text_of(found[2]).decode()
        return int(found[1]), path, self._names.get(path)

    def _ours(self, path: str) -> bool:
        return path.startswith(self._folder) and not path.endswith("-shm")

    def _write(self, call: Call) -> None:
        number, path, inode = self._file(call.arguments)
        data = b"".join(map(text_of, STRING.findall(call.arguments)))
        if number == STANDARD_OUTPUT:
            self.events.append(Event("note", note=data))
        if inode is None or not self._ours(path):
            return
        if call.name == "write":
            offset = self._positions[path]
            self._positions[path] = offset + len(data)
        else:
            numbers = numbers_of(call.arguments.split("],")[-1])
            # The offset is the last argument of pwrite64, and the second after pwritev's buffers.
            offset = numbers[1] if call.name.startswith("pwritev") else numbers[-1]
        self._add(inode, Pending(offset, data))

    def _sync(self, call: Call) -> None:
        _, path, inode = self._file(call.arguments)
        if inode is None:
            if call.result is not None and path in self.folders:
                self.events.append(Event("sync_dir", note=path))
            return
        if call.result is None:
            self._syncing[call.thread] = (inode, self._writes.get(id(inode), 0))
            return
        before = self._writes.get(id(inode), 0)
        if call.resumed:
            _, before = self._syncing.pop(call.thread)
        self.events.append(Event("sync", inode, note=before))

    def _add(self, inode: Inode, change: Pending) -> None:
        self._writes[id(inode)] = self._writes.get(id(inode), 0) + 1
        self.events.append(Event("write", inode, change))

    def _change(self, call: Call) -> None:
        texts = [text_of(found).decode() for found in STRING.findall(call.arguments)]
        if call.name == "openat":
            self._open(texts[0], call.arguments)
        elif call.name.startswith("rename"):
            old, new = texts
            inode = self._names.pop(old)
            self._names[new] = inode
            self._positions[new] = self._positions.pop(old, 0)
            self._rename((old, None), (new, inode))
        elif call.name.startswith("unlink"):
            if self._names.pop(texts[0], None) is not None:
                self._rename((texts[0], None))
        elif call.name.startswith("link"):
            self._names[texts[1]] = self._names[texts[0]]
            self._rename((texts[1], self._names[texts[0]]))
        else:
            self._resize(call)

    def _open(self, path: str, arguments: str) -> None:
        if not self._ours(path):
            return
        if "O_DIRECTORY" in arguments:
            self.folders.add(path)
            return
        self._positions[path] = 0
        if path not in self._names and "O_CREAT" in arguments:
            self._names[path] = Inode()
            self._rename((path, self._names[path]))
        elif path in self._names and "O_TRUNC" in arguments:
            self._add(self._names[path], Pending(0, None, cut=True))
        self.folders.add(str(Path(path).parent))

    def _resize(self, call: Call) -> None:
        _, path, inode = self._file(call.arguments)
        if inode is None or not self._ours(path):
            return
        sizes = numbers_of(call.arguments)
        if call.name == "ftruncate":
            self._add(inode, Pending(sizes[-1], None, cut=True))
        else:
            self._add(inode, Pending(sizes[-2] + sizes[-1], b""))

    def _rename(self, *names: tuple[str, Inode | None]) -> None:
        folder = str(Path(names[-1][0]).parent)
        self.events.append(Event("names", names=NameChange(folder, names)))
