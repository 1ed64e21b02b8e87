"""What a process tree has used, as Linux counts it.

    /proc/<pid>/stat  fields 14 to 17   user and system time, its own and of children that ended
    /proc/<pid>/smaps_rollup  Pss       memory, shared pages divided among their users
    /proc/net/tcp, /proc/<pid>/fd       who listens on a port
    /sys/dev/block/<major>:<minor>/stat, field 7   sectors of 512 bytes the disk has written

Not `write_bytes` of /proc/<pid>/io: where the file system keeps large folios, it counts a whole
one each time a part of it is written anew, which made half a megabyte per sync look like one.
Source: proc(5), Linux's Documentation/block/stat.rst.
"""

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

SECTOR_BYTES = 512
LISTENING = "0A"
"""State of a socket in /proc/net/tcp."""


def parents() -> dict[int, int]:
    """Return the parent of every process."""
    found: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it ended while we looked
                found[int(entry.name)] = int(_stat(int(entry.name))[1])
    return found


def _stat(pid: int) -> list[str]:
    """Return the fields of a process behind its name: the first is its state."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def tree(root: int) -> list[int]:
    """Return the process and all its living descendants."""
    children: dict[int, list[int]] = {}
    for child, parent in parents().items():
        children.setdefault(parent, []).append(child)
    found, queue = [root], [root]
    while queue:
        for child in children.get(queue.pop(), []):
            found.append(child)
            queue.append(child)
    return found


def cpu_s(root: int) -> float:
    """Return the CPU seconds of the tree below `root` so far, with those of children that ended."""
    ticks = 0
    for pid in tree(root):
        with suppress(OSError):
            ticks += sum(map(int, _stat(pid)[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def proportional_set_bytes(root: int) -> int:
    """Return the memory of the tree, shared pages divided among their users."""
    total = 0
    for pid in tree(root):
        with suppress(OSError):
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            _, found, rest = text.partition("\nPss:")
            total += int(rest.split()[0]) * 1024 if found else 0
    return total


def disk_written_bytes(folder: Path) -> int | None:
    """Return what the disk below `folder` has written so far; None: it keeps no count."""
    return _written(folder.stat().st_dev)


def _written(device: int) -> int | None:
    try:
        text = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat").read_text()
    except OSError:
        return None
    return int(text.split()[6]) * SECTOR_BYTES


def folder_written_to(root: int) -> Path | None:
    """Return a folder on the disk that the tree has its files on; None: it has none open."""
    for pid in tree(root):
        for link in _open_files(pid):
            with suppress(OSError):
                found = Path(link).stat()
                if stat.S_ISREG(found.st_mode) and _written(found.st_dev) is not None:
                    return Path(link).parent
    return None


def _open_files(pid: int) -> Iterator[str]:
    with suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                link = str(entry.readlink())
                if link.startswith("/") and not link.endswith(".log"):
                    yield link


def is_local(host: str) -> bool:
    """Return whether a host is this machine, by its loopback address."""
    try:
        return socket.gethostbyname(host).startswith("127.")
    except OSError:
        return host == "::1"


def root_of_port(port: int) -> int | None:
    """Return the process whose tree serves a port of this machine; None: it cannot be seen.

    Several processes may listen on it together; then it is the one from which they all come.
    """
    inodes = _listening_on(port)
    listening = {
        pid for pid in parents() if inodes and any(each in inodes for each in _sockets(pid))
    }
    if not listening:
        return None
    above = parents()
    shared = set.intersection(*({pid, *_ancestors(pid, above)} for pid in listening))
    root = max(shared, key=lambda pid: len(_ancestors(pid, above)), default=0)
    return root if root > 1 else None


def _ancestors(pid: int, above: dict[int, int]) -> list[int]:
    found: list[int] = []
    while (pid := above.get(pid, 0)) > 0 and pid not in found:
        found.append(pid)
    return found


def _listening_on(port: int) -> set[str]:
    found: set[str] = set()
    for name in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTENING and fields[1].endswith(f":{port:04X}"):
                    found.add(f"socket:[{fields[9]}]")
    return found


def _sockets(pid: int) -> Iterator[str]:
    with suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                yield str(entry.readlink())
