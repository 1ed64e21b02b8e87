"""The read cache: blocks that were read back from entry logs, bounded in bytes and in time.

    keep ──▶ [ used longest ago  ...  used last ] ──▶ out   too many bytes; not used for a while;
               ▲                      get │                 its log or its ledger is gone
               └──────────────────────────┘

Consumers that follow each other closely find here what the first of them has brought from the
disk. Apache Pulsar's broker cache has the same two limits; its time runs from when an entry was
added, ours from when a block was last used.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import NamedTuple

from magnetar.broker.storage.block import Block
from magnetar.broker.storage.read_buffers import ReadBuffers
from magnetar.broker.storage.slab import Slab

Key = tuple[str, int]
"""The name of an entry log, and where in it a block begins."""


class Brought(NamedTuple):
    """One block from the disk, checked, and the memory it lies in."""

    ledger: int
    block: Block
    slab: Slab


class CacheFigures:
    """What became of reads. Counts only grow; they are in entries and bytes of entries."""

    __slots__ = (
        "evicted_entries",
        "evictions",
        "hit_bytes",
        "hits",
        "inserted_entries",
        "miss_bytes",
        "misses",
        "old",
    )

    def __init__(self) -> None:
        self.hits = 0
        """Entries that were read from memory: from the write cache or the read cache."""
        self.hit_bytes = 0
        self.misses = 0
        """Entries that had to be brought from the disk."""
        self.miss_bytes = 0
        self.old = 0
        """Those of both that came out of entry logs."""
        self.inserted_entries = 0
        self.evicted_entries = 0
        self.evictions = 0
        """Blocks that left the read cache, for whatever reason."""


class _Kept:
    """A block, its memory, and when it was used last."""

    __slots__ = ("brought", "used_s")

    def __init__(self, brought: Brought, used_s: float) -> None:
        self.brought = brought
        self.used_s = used_s


class ReadCache:
    """Blocks by where they lie. On the event loop."""

    def __init__(self, bytes_max: int, buffers: ReadBuffers, figures: CacheFigures) -> None:
        self.bytes = 0
        """Bytes of memory that the blocks lie in."""
        self.entries = 0
        self.figures = figures
        self.bytes_max = bytes_max
        self._buffers = buffers
        self._blocks: OrderedDict[Key, _Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._blocks)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._blocks)

    def __contains__(self, key: Key) -> bool:
        return key in self._blocks

    def get(self, key: Key, now_s: float) -> Block | None:
        """Return a block, and count it as used."""
        kept = self._blocks.get(key)
        if kept is None:
            return None
        kept.used_s = now_s
        self._blocks.move_to_end(key)
        return kept.brought.block

    def keep(self, key: Key, brought: Brought, now_s: float) -> None:
        """Add a block, in place of what was there."""
        if key in self._blocks:
            self._drop(key)
        self._blocks[key] = _Kept(brought, now_s)
        self.bytes += brought.slab.size
        self.entries += brought.block.run.count
        self.figures.inserted_entries += brought.block.run.count
        self._make_fit()

    def limit(self, bytes_max: int) -> None:
        """Keep at most so many bytes from now on."""
        self.bytes_max = bytes_max
        self._make_fit()

    def expire(self, before_s: float) -> float | None:
        """Drop what was not used since; return when the oldest of the rest was, if any is left."""
        while self._blocks:
            key, kept = next(iter(self._blocks.items()))
            if kept.used_s > before_s:
                return kept.used_s
            self._drop(key)
        return None

    def drop_log(self, name: str) -> None:
        """Drop the blocks of an entry log that is gone."""
        for key in [key for key in self._blocks if key[0] == name]:
            self._drop(key)

    def drop_ledgers(self, is_gone: Callable[[int], bool]) -> None:
        """Drop the blocks of ledgers that are gone."""
        blocks = self._blocks.items()
        for key in [key for key, kept in blocks if is_gone(kept.brought.ledger)]:
            self._drop(key)

    def _make_fit(self) -> None:
        """Drop what was used longest ago until the rest fits; the newest block stays."""
        while self.bytes > self.bytes_max and len(self._blocks) > 1:
            self._drop(next(iter(self._blocks)))

    def _drop(self, key: Key) -> None:
        block, slab = self._blocks.pop(key).brought[1:]
        self.bytes -= slab.size
        self.entries -= block.run.count
        self.figures.evicted_entries += block.run.count
        self.figures.evictions += 1
        del block
        self._buffers.give_back(slab)
