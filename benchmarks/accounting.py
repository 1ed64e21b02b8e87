"""What a process tree has used, as Linux counts it.

    /proc/<pid>/stat  fields 14, 15    user and system time, in clock ticks
    /proc/<pid>/io    write_bytes      bytes this process caused to be written to the disk
    /proc/<pid>/smaps_rollup  Pss      memory, shared pages divided among their users

Source: proc(5).
"""

import os
from pathlib import Path
from typing import NamedTuple

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Usage(NamedTuple):
    """Totals of a process tree since its start."""

    cpu_s: float
    written_bytes: int

    def since(self, earlier: "Usage") -> "Usage":
        """Return what was used after `earlier`."""
        return Usage(self.cpu_s - earlier.cpu_s, self.written_bytes - earlier.written_bytes)


def tree(root: int) -> list[int]:
    """Return the process and all its living descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:  # it ended while we looked
                continue
            parent = int(stat.rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    found, queue = [root], [root]
    while queue:
        for child in children.get(queue.pop(), []):
            found.append(child)
            queue.append(child)
    return found


def usage(root: int) -> Usage:
    """Return what the tree below `root` has used so far. Processes that ended do not count."""
    ticks = written = 0
    for pid in tree(root):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            io = Path(f"/proc/{pid}/io").read_text()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
        written += int(io.split("write_bytes:")[1].split()[0])
    return Usage(ticks / TICKS_PER_SECOND, written)


def proportional_set_bytes(root: int) -> int:
    """Return the memory of the tree, shared pages divided among their users."""
    total = 0
    for pid in tree(root):
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += int(text.split("\nPss:")[1].split()[0]) * 1024
    return total
