"""The shelf: reads from entry logs, verified, through bounded caches.

    ledger, entry ─▶ Extents ─▶ block index (LRU) ─▶ block (`read_cache`) ─▶ Run
                                      └──── file handles (LRU) ───┘

The look-ups run on the event loop; what touches the disk (`load_*`) runs on a pool thread, and
returns what the loop then adds. Every block is checked once, on the thread that reads it. How
many blocks a read brings is up to `read_ahead`; each comes in a buffer of its own.

Damage is reported as exact ranges of entries; the file stays where it is, and a copy of
the damaged bytes goes to the quarantine.
"""

import logging
import threading
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from magnetar.broker.entry import EntryId
from magnetar.broker.files import File, Files
from magnetar.broker.run import ROW_SIZE, Run
from magnetar.broker.storage import block
from magnetar.broker.storage.block import Block, BlockDamagedError
from magnetar.broker.storage.cache import within
from magnetar.broker.storage.errors import Gap, LedgerEnd, QuarantinedError
from magnetar.broker.storage.flush import CopiedBlock
from magnetar.broker.storage.index import Place
from magnetar.broker.storage.quarantine import Quarantine
from magnetar.broker.storage.read_ahead import ReadAhead
from magnetar.broker.storage.read_buffers import ReadBuffers
from magnetar.broker.storage.read_cache import Brought, CacheFigures, Key, ReadCache
from magnetar.broker.storage.segment import (
    BlockIndex,
    LogDamagedError,
    LogName,
    Table,
    load_table,
    read_block_index,
    read_summary,
    rebuild_table,
)
from magnetar.broker.storage.slab import Slab

logger = logging.getLogger(__name__)

HANDLES_MAX = 64
"""Entry logs held open at once."""
INDEX_ITEMS_MAX = 200_000
"""Blocks whose place is remembered; about 24 bytes each."""
FAILED_READS_MAX = 3
"""After so many failing reads of one block it counts as damaged."""
FAILED_TOO_OFTEN = f"{FAILED_READS_MAX} reads failed"


class Handles:
    """Open entry logs: at most so many, and never closed under a reader."""

    def __init__(self, files: Files, folder: Path, handles_max: int = HANDLES_MAX) -> None:
        self._files = files
        self._folder = folder
        self._max = handles_max
        self._lock = threading.Lock()
        self._open: OrderedDict[str, tuple[File, list[int]]] = OrderedDict()

    @contextmanager
    def use(self, name: str) -> Iterator[File]:
        """Lend the open file.

        Raises:
            FileNotFoundError: there is no such log any more.
        """
        with self._lock:
            if name not in self._open:
                self._open[name] = (self._files.open(self._folder / name), [0])
            self._open.move_to_end(name)
            file, users = self._open[name]
            users[0] += 1
            self._trim()
        try:
            yield file
        finally:
            with self._lock:
                users[0] -= 1
                if not users[0] and self._open.get(name, (None,))[0] is not file:
                    file.close()

    def forget(self, name: str) -> None:
        """Close a log, now or when its last reader is done."""
        with self._lock:
            self._drop(name)

    def close(self) -> None:
        """Close all."""
        with self._lock:
            for name in list(self._open):
                self._drop(name)

    def _trim(self) -> None:
        while len(self._open) > self._max:
            self._drop(next(iter(self._open)))

    def _drop(self, name: str) -> None:
        file, users = self._open.pop(name, (None, [0]))
        if file is not None and not users[0]:
            file.close()


class Shelf:
    """The entry logs of a data folder, for reading."""

    def __init__(
        self, files: Files, folder: Path, quarantine: Quarantine, cache_bytes_max: int
    ) -> None:
        self._files = files
        self._folder = folder
        self._quarantine = quarantine
        self._handles = Handles(files, folder)
        self._indexes: OrderedDict[tuple[str, int], BlockIndex] = OrderedDict()
        self._index_items = 0
        self._buffers = ReadBuffers()
        self.figures = CacheFigures()
        self.cache = ReadCache(cache_bytes_max, self._buffers, self.figures)
        self.ahead = ReadAhead()
        self._failed_reads: dict[Key, int] = {}

    # --- on the event loop

    def index(self, place: Place) -> BlockIndex | None:
        """Return where the blocks of an extent lie; None: `load_index` knows."""
        key = (place.table.name, place.row)
        found = self._indexes.get(key)
        if found is not None:
            self._indexes.move_to_end(key)
        return found

    def keep_index(self, place: Place, index: BlockIndex) -> None:
        """Add a block index that was loaded."""
        key = (place.table.name, place.row)
        if key not in self._indexes:
            self._index_items += len(index.firsts)
        self._indexes[key] = index
        while self._index_items > INDEX_ITEMS_MAX and len(self._indexes) > 1:
            _, old = self._indexes.popitem(last=False)
            self._index_items -= len(old.firsts)

    def read_cached(
        self, place: Place, entry: int, entries_max: int, bytes_max: int, now_s: float
    ) -> Run | None:
        """Return entries from `entry` on, out of one cached block; None if it is not cached.

        Raises:
            QuarantinedError: the entry is damaged.
        """
        index = self.index(place)
        if index is None:
            return None
        number = block_of(index, place, entry)
        found = self.cache.get((place.table.name, index.offsets[number]), now_s)
        if found is None:
            return None
        return cut(found, place.table.ledgers[place.row], entry, entries_max, bytes_max)

    def expire(self, before_s: float) -> float | None:
        """Drop blocks not used since; return when the oldest of the rest was, if any is left."""
        oldest_s = self.cache.expire(before_s)
        if oldest_s is None:
            self._buffers.clear()
        return oldest_s

    def forget(self, name: str) -> None:
        """Forget a log that is gone."""
        self._handles.forget(name)
        for key in [key for key in self._indexes if key[0] == name]:
            self._index_items -= len(self._indexes.pop(key).firsts)
        self.ahead.drop_log(name)
        self.cache.drop_log(name)

    def close(self) -> None:
        """Close all files."""
        self._handles.close()

    # --- on a pool thread

    def names(self) -> list[str]:
        """Return the names of the entry logs in the folder."""
        return [name for name in self._files.list(self._folder) if LogName.parse(name)]

    def load_table(self, name: str) -> Table:
        """Read the table of a log; where it is damaged, find out by reading all blocks.

        Raises:
            FileNotFoundError: the log is gone.
            LogDamagedError: nothing of it can be read.
        """
        with self._handles.use(name) as file:
            try:
                return load_table(file, name)
            except LogDamagedError as error:
                logger.warning("entry log %s: %s; reading all of its blocks", name, error)
                return rebuild_table(file, name)

    def load_summary(self, place: Place) -> LedgerEnd:
        """Read what the entries of an extent come to."""
        with self._handles.use(place.table.name) as file:
            try:
                return read_summary(file, place.table, place.row)
            except LogDamagedError:
                return self._rebuilt(file, place)[0]

    def load_index(self, place: Place) -> BlockIndex:
        """Read where the blocks of an extent lie."""
        with self._handles.use(place.table.name) as file:
            return self._index(file, place)

    def load(self, place: Place, index: BlockIndex, first: int, last: int) -> list[Brought]:
        """Read neighbouring blocks at once, and check each; fewer than asked for if need be."""
        numbers = range(first, last + 1)
        slabs = [self._buffers.take(index.sizes[number]) for number in numbers]
        with self._handles.use(place.table.name) as file:
            try:
                left = _fill(file, slabs, index, numbers)
            except OSError:
                if last == first:
                    raise
                numbers = range(first, first + 1)
                left = _fill(file, slabs, index, numbers)
        ledger = place.table.ledgers[place.row]
        found: list[Brought] = []
        for number, slab in zip(numbers, slabs, strict=False):
            size = index.sizes[number]
            piece = slab.view[: max(0, min(size, left))]
            left -= size
            found.append(Brought(ledger, self._check(piece, place, index, number), slab))
        return found

    def copies(self, place: Place) -> list[Callable[[], CopiedBlock]]:
        """Return how to read each block of an extent, to write it somewhere else.

        Reading raises BlockDamagedError for a block that cannot be copied as it is.
        """
        with self._handles.use(place.table.name) as file:
            index = self._index(file, place)
        ledger = place.table.ledgers[place.row]

        def read(number: int) -> CopiedBlock:
            with self._handles.use(place.table.name) as file:
                data = memoryview(file.pread(index.sizes[number], index.offsets[number]))
            found = block.decode(
                data, place.table.salt, ledger, index.firsts[number], index.counts[number]
            )
            header = block.parse_header(data, 0, place.table.salt)
            assert header is not None, "it was decoded a moment ago"
            return CopiedBlock(ledger, found, header.body_crc if found.damaged else None)

        return [partial(read, number) for number in range(len(index.firsts))]

    def count_failed_index(self, place: Place, entry: int) -> None:
        """Count a read of an index that failed.

        Raises:
            QuarantinedError: it has failed too often.
        """
        if self._fails_too_often((place.table.name, place.table.index_at)):
            ledger = place.table.ledgers[place.row]
            raise QuarantinedError(ledger, entry, place.end - 1, FAILED_TOO_OFTEN)

    def count_failed_read(self, place: Place, index: BlockIndex, number: int) -> Brought | None:
        """Count a read of a block that failed; after a few, return it as damaged."""
        if not self._fails_too_often((place.table.name, index.offsets[number])):
            return None
        lost = self._lost(place, index, number, b"", FAILED_TOO_OFTEN)
        return Brought(place.table.ledgers[place.row], lost, Slab(0))

    def _fails_too_often(self, where: Key) -> bool:
        self._failed_reads[where] = self._failed_reads.get(where, 0) + 1
        return self._failed_reads[where] >= FAILED_READS_MAX

    def _index(self, file: File, place: Place) -> BlockIndex:
        found = self._indexes.get((place.table.name, place.row))
        if found is not None:
            return found
        try:
            return read_block_index(file, place.table, place.row)
        except LogDamagedError as error:
            logger.warning("entry log %s: %s; reading all of its blocks", place.table.name, error)
            return self._rebuilt(file, place)[1]

    def _rebuilt(self, file: File, place: Place) -> tuple[LedgerEnd, BlockIndex]:
        """Find out what one extent holds without the tables of the file."""
        rebuilt = rebuild_table(file, place.table.name)
        assert rebuilt.rebuilt is not None
        wanted = (place.table.ledgers[place.row], place.first, place.end)
        index = BlockIndex(array("Q"), array("Q"), array("I"), array("I"))
        total = None
        for row, (summary, blocks) in enumerate(rebuilt.rebuilt):
            if rebuilt.ledgers[row] == wanted[0] and wanted[1] <= rebuilt.firsts[row] < wanted[2]:
                total = summary if total is None else block.together(total, summary)
                for column, more in zip(index, blocks, strict=True):
                    column.extend(more)
        if total is None:
            raise QuarantinedError(wanted[0], wanted[1], wanted[2] - 1, "no block of it is left")
        return total, index

    def _check(self, piece: memoryview, place: Place, index: BlockIndex, number: int) -> Block:
        ledger = place.table.ledgers[place.row]
        try:
            found = block.decode(
                piece, place.table.salt, ledger, index.firsts[number], index.counts[number]
            )
        except BlockDamagedError as error:
            return self._lost(place, index, number, bytes(piece), str(error))
        if found.damaged:
            self._report(
                place, index.offsets[number], found.damaged, bytes(piece), "bodies damaged"
            )
        return found

    def _lost(
        self, place: Place, index: BlockIndex, number: int, data: bytes, reason: str
    ) -> Block:
        """Return a block none of whose entries can be served."""
        first, count = index.firsts[number], index.counts[number]
        damaged = ((first, first + count - 1),)
        self._report(place, index.offsets[number], damaged, data, reason)
        return Block(first, Run(bytes(count * ROW_SIZE), b""), damaged)

    def _report(
        self,
        place: Place,
        offset: int,
        damaged: Sequence[tuple[int, int]],
        data: bytes,
        reason: str,
    ) -> None:
        ledger = place.table.ledgers[place.row]
        gaps = [Gap(EntryId(ledger, low), EntryId(ledger, high), reason) for low, high in damaged]
        self._quarantine.copy_bytes(
            f"{place.table.name}-{offset:x}",
            data,
            gaps,
            f"{place.table.name} at {offset}: {reason}",
        )


def _fill(file: File, slabs: Sequence[Slab], index: BlockIndex, numbers: Sequence[int]) -> int:
    """Read neighbouring blocks into a buffer each; return how many bytes there were."""
    pieces = [
        slab.view[: index.sizes[number]] for slab, number in zip(slabs, numbers, strict=False)
    ]
    return file.preadv(pieces, index.offsets[numbers[0]])


def block_of(index: BlockIndex, place: Place, entry: int) -> int:
    """Return the number of the block within its extent that holds an entry.

    Raises:
        QuarantinedError: the block is lost, and so is its item in the index.
    """
    number = bisect_right(index.firsts, entry) - 1
    if number >= 0 and entry < index.firsts[number] + index.counts[number]:
        return number
    after = index.firsts[number + 1] if number + 1 < len(index.firsts) else place.end
    ledger = place.table.ledgers[place.row]
    raise QuarantinedError(ledger, entry, after - 1, "its block cannot be found")


def cut(found: Block, ledger: int, entry: int, entries_max: int, bytes_max: int) -> Run:
    """Return the entries of a block from `entry` on, up to the limits or the next damage.

    Raises:
        QuarantinedError: the entry itself is damaged.
    """
    end = found.end
    for low, high in found.damaged:
        if low <= entry <= high:
            raise QuarantinedError(ledger, entry, high, "it does not match its checksum")
        if low > entry:
            end = low
            break
    skipped = entry - found.first_entry
    return within(found.run.slice(skipped, min(end - entry, entries_max)), bytes_max)
