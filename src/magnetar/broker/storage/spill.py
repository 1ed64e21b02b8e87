"""Where delayed entries wait that memory has no room for.

    DATA/spill/<worker>/<owner>-<bucket>.spill

    one chunk     size u32 | crc32c u32 | entries        repeated; little-endian

A cache, not a record: whoever spills builds its index again from the log after a restart, so
nothing here is synced, and what an earlier process left is removed at the start. A damaged
chunk is left out and reported; its entries come when their topic is loaded again.

Files are small in number (buckets are 70 minutes wide) and written in large pieces, to the
operating system's cache; that is quick enough for the event loop.
"""

import logging
import struct
from collections.abc import Iterator
from pathlib import Path

from crc32c import crc32c

from magnetar.broker.files import Files

logger = logging.getLogger(__name__)

CHUNK = struct.Struct("<II")
SUFFIX = ".spill"


class SpillFolder:
    """The spilled entries of one process."""

    def __init__(self, files: Files, folder: Path) -> None:
        """Take a folder of our own; `clear` must be called before the first use."""
        self._files = files
        self._folder = folder
        self._owners = 0

    def clear(self) -> None:
        """Make the folder, and remove what an earlier process left in it."""
        self._files.make_dir(self._folder)
        for name in self._files.list(self._folder):
            if name.endswith(SUFFIX):
                self._files.remove(self._folder / name)

    def owner(self) -> "SpillFile":
        """Return room for one more owner of buckets."""
        self._owners += 1
        return SpillFile(self._files, self._folder, self._owners)


class SpillFile:
    """The buckets of one owner, one file each."""

    __slots__ = ("_files", "_folder", "_owner", "_sizes")

    def __init__(self, files: Files, folder: Path, owner: int) -> None:
        self._files = files
        self._folder = folder
        self._owner = owner
        self._sizes: dict[int, int] = {}

    def append(self, bucket: int, entries: bytes) -> None:
        """Add to a bucket.

        Raises:
            OSError: there is no room on the disk.
        """
        fresh = bucket not in self._sizes
        size = self._sizes.get(bucket, 0)
        head = CHUNK.pack(len(entries), crc32c(entries))
        file = self._files.open(self._path(bucket), write=True, create=fresh)
        try:
            file.pwritev([head, entries], size)
        finally:
            file.close()
        self._sizes[bucket] = size + CHUNK.size + len(entries)

    def read(self, bucket: int) -> Iterator[bytes]:
        """Yield what was added to a bucket, chunk by chunk, in the order of adding."""
        if bucket not in self._sizes:
            return
        file = self._files.open(self._path(bucket))
        try:
            position = 0
            while position < self._sizes[bucket]:
                size, checksum = CHUNK.unpack(file.pread(CHUNK.size, position))
                position += CHUNK.size
                entries = file.pread(size, position)
                position += size
                if len(entries) == size and crc32c(entries) == checksum:
                    yield entries
                else:
                    path = self._path(bucket)
                    logger.error("%s is damaged: delayed entries wait for the next start", path)
        finally:
            file.close()

    def remove(self, bucket: int) -> None:
        """Forget a bucket."""
        if self._sizes.pop(bucket, None) is not None:
            self._files.remove(self._path(bucket))

    def _path(self, bucket: int) -> Path:
        return self._folder / f"{self._owner}-{bucket}{SUFFIX}"
