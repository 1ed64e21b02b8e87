"""What a process tree has used, as Linux counts it.

    /proc/<pid>/stat  fields 14, 15     user and system time, in clock ticks
    /proc/<pid>/smaps_rollup  Pss       memory, shared pages divided among their users
    /sys/dev/block/<major>:<minor>/stat, field 7   sectors of 512 bytes the disk has written

Not `write_bytes` of /proc/<pid>/io: where the file system keeps large folios, it counts a whole
one each time a part of it is written anew, which made half a megabyte per sync look like one.
Source: proc(5), Linux's Documentation/block/stat.rst.
"""

import os
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


SECTOR_BYTES = 512


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


def cpu_s(root: int) -> float:
    """Return the CPU seconds of the tree below `root` so far. Processes that ended do not count."""
    ticks = 0
    for pid in tree(root):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS_PER_SECOND


def disk_written_bytes(folder: Path) -> int | None:
    """Return what the disk below `folder` has written so far; None: it keeps no count."""
    device = folder.stat().st_dev
    try:
        stat = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat").read_text()
    except OSError:
        return None
    return int(stat.split()[6]) * SECTOR_BYTES


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
