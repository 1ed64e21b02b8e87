"""A disk made from a system-call trace, and every state in which a power loss may leave it.

    strace ──▶ operations: write, truncate, sync, create, remove, sync of the folder, receipt
    Disk   ──▶ what is durable, and what is only pending since the last sync

After a power loss the durable part is there. Of the pending writes any may have reached the
disk, in any order, the last one perhaps only in part (sectors of 512 bytes); of the pending
names likewise. The shared-memory file of SQLite is not on the disk at all.
"""

import random
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

SECTOR = 512

CALL = re.compile(r"^(?:\d+ +)?(\w+)\((.*)\) += +(-?\d+)")
FILE = re.compile(r"^\d+<([^>]*)>(?:, )?")
TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')

TRACED = "openat,write,pwrite64,fsync,fdatasync,ftruncate,unlink,unlinkat"


class Operation(NamedTuple):
    """One system call that matters. `path` is the name of a file in the folder."""

    call: str
    path: str
    offset: int = 0
    data: bytes = b""


@dataclass
class File:
    """The bytes of one file."""

    durable: bytes = b""
    pending: list[Operation] = field(default_factory=list)

    def content(self, survivors: Sequence[Operation]) -> bytes:
        """Return the bytes if just these pending operations reached the disk."""
        data = bytearray(self.durable)
        for operation in survivors:
            if operation.call == "truncate":
                data = data[: operation.offset].ljust(operation.offset, b"\0")
                continue
            end = operation.offset + len(operation.data)
            data = data.ljust(end, b"\0")
            data[operation.offset : end] = operation.data
        return bytes(data)


class Disk:
    """One folder: what is durable in it, and what is pending."""

    def __init__(self, *, syncs_work: bool = True) -> None:
        self.syncs_work = syncs_work
        self.files: dict[str, File] = {}
        """What a running program sees: name -> file."""
        self.names: dict[str, File] = {}
        """The names that survive a power loss for certain."""

    def apply(self, operation: Operation) -> None:
        """Do what the program did."""
        match operation.call:
            case "create":
                self.files.setdefault(operation.path, File())
            case "remove":
                self.files.pop(operation.path, None)
            case "sync" if self.syncs_work:
                file = self.files[operation.path]
                file.durable, file.pending = file.content(file.pending), []
            case "sync_folder" if self.syncs_work:
                self.names = dict(self.files)
            case "write" | "truncate":
                self.files[operation.path].pending.append(operation)
            case _:
                pass

    def states(self, seed: int, count: int) -> Iterator[dict[str, bytes]]:
        """Yield folders as a power loss may leave them: the two extremes, and some between."""
        dice = random.Random(seed)
        yield {name: file.durable for name, file in self.names.items()}
        yield {name: file.content(file.pending) for name, file in self.files.items()}
        for _ in range(count):
            names = self.names if dice.random() < 0.5 else self.files
            yield {name: file.content(_survivors(file, dice)) for name, file in names.items()}


def _survivors(file: File, dice: random.Random) -> list[Operation]:
    share = dice.choice([0.2, 0.5, 0.9])
    chosen = [operation for operation in file.pending if dice.random() < share]
    if chosen and chosen[-1].call == "write":
        sectors = len(chosen[-1].data) // SECTOR
        torn = SECTOR * dice.randint(0, sectors)
        chosen[-1] = chosen[-1]._replace(data=chosen[-1].data[:torn])
    return chosen


def trace(command: Sequence[str], folder: Path, strace: str) -> list[Operation]:
    """Run a program that works in `folder`; return what it did there, and its receipts.

    A receipt is what it writes to its standard output, as `Operation("receipt", text)`.
    """
    log = folder.with_name(folder.name + ".trace")
    options = ["-f", "-y", "-xx", "-s", "10000000", "-e", f"trace={TRACED}", "-o", str(log)]
    subprocess.run([strace, *options, *command], check=True, stdout=subprocess.DEVNULL, timeout=60)
    return list(_operations(log.read_text().splitlines(), folder))


def _operations(lines: Sequence[str], folder: Path) -> Iterator[Operation]:
    for line in lines:
        found = CALL.match(line)
        if found and int(found[3]) >= 0 and (operation := _operation(found[1], found[2], folder)):
            yield operation


def _operation(call: str, arguments: str, folder: Path) -> Operation | None:
    texts = [bytes.fromhex(text.replace("\\x", "")) for text in TEXT.findall(arguments)]
    if call == "write" and arguments.startswith("1<"):
        return Operation("receipt", texts[0].decode())
    if call in {"openat", "unlink", "unlinkat"}:
        path, ours = _place(texts[0].decode(), folder)
        kind = {"openat": "create" if "O_CREAT" in arguments else ""}.get(call, "remove")
        return Operation(kind, path.name) if ours and kind else None
    described = FILE.match(arguments)
    path, ours = _place(_unhex(described[1]) if described else "", folder)
    if path == folder and "sync" in call:
        return Operation("sync_folder", "")
    return _change(call, path.name, texts, arguments) if ours else None


def _change(call: str, name: str, texts: list[bytes], arguments: str) -> Operation:
    last = arguments.rpartition(", ")[2]
    match call:
        case "pwrite64":
            return Operation("write", name, int(last), texts[0])
        case "ftruncate":
            return Operation("truncate", name, int(last))
        case "fsync" | "fdatasync":
            return Operation("sync", name)
        case _:
            raise AssertionError(f"a call the model does not know: {call}({arguments[:100]}")


def _place(name: str, folder: Path) -> tuple[Path, bool]:
    """Return a path, and whether it is a file on the modelled disk."""
    path = Path(name)
    return path, path.parent == folder and not path.name.endswith("-shm")


def _unhex(text: str) -> str:
    return bytes.fromhex(text.replace("\\x", "")).decode() if "\\x" in text else text
