"""The shelf: reads from entry logs, verified, through bounded caches.

    ledger, entry ─▶ Extents ─▶ block index (LRU) ─▶ block (LRU, by bytes) ─▶ Run
                                      └──── file handles (LRU) ───┘

The look-ups run on the event loop; what touches the disk (`load_*`, `read_*`) runs on a
pool thread, and returns what the loop then adds. Every block is checked when it is read.
A read brings the blocks behind the one asked for along, up to a bound, if it looks like one
of a sequence: at the start of an extent, or where an earlier read ended. So does Linux. Delayed
entries come due in any order; for them, blocks behind would only push others out of the cache.

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
from typing import NamedTuple

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

logger = logging.getLogger(__name__)

HANDLES_MAX = 64
"""Entry logs held open at once."""
INDEX_ITEMS_MAX = 200_000
"""Blocks whose place is remembered; about 24 bytes each."""
READ_BYTES = 1 << 20
"""How much a cold read of a sequence brings: the block asked for and those behind it."""
SEQUENCES_MAX = 64
"""Sequences that are remembered. More would take reads at random for parts of one."""
FAILED_READS_MAX = 3
"""After so many failing reads of one block it counts as damaged."""


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


class Loaded(NamedTuple):
    """What one cold read brought."""

    places: BlockIndex
    first_block: int
    blocks: list[Block]


class Shelf:
    """The entry logs of a data folder, for reading."""

    def __init__(
        self, files: Files, folder: Path, quarantine: Quarantine, cache_bytes_max: int
    ) -> None:
        self._files = files
        self._folder = folder
        self._quarantine = quarantine
        self._cache_bytes_max = cache_bytes_max
        self._handles = Handles(files, folder)
        self._indexes: OrderedDict[tuple[str, int], BlockIndex] = OrderedDict()
        self._index_items = 0
        self._blocks: OrderedDict[tuple[str, int], Block] = OrderedDict()
        self._block_bytes = 0
        self._failed_reads: dict[tuple[str, int], int] = {}
        self._sequences: OrderedDict[tuple[str, int], None] = OrderedDict()
        """Where sequences would go on: the log, and the offset of the block after the last one."""

    @property
    def cached_bytes(self) -> int:
        """Bytes in the read cache."""
        return self._block_bytes

    # --- on the event loop

    def read_cached(self, place: Place, entry: int, entries_max: int, bytes_max: int) -> Run | None:
        """Return entries from `entry` on, out of one cached block; None if it is not cached.

        Raises:
            QuarantinedError: the entry is damaged.
        """
        index = self._indexes.get((place.table.name, place.row))
        if index is None:
            return None
        self._indexes.move_to_end((place.table.name, place.row))
        number = _block_of(index, place, entry)
        key = (place.table.name, index.offsets[number])
        found = self._blocks.get(key)
        if found is None:
            return None
        self._blocks.move_to_end(key)
        return cut(found, place.table.ledgers[place.row], entry, entries_max, bytes_max)

    def keep(self, place: Place, loaded: Loaded) -> None:
        """Add what a cold read brought to the caches."""
        key = (place.table.name, place.row)
        if key not in self._indexes:
            self._index_items += len(loaded.places.firsts)
        self._indexes[key] = loaded.places
        while self._index_items > INDEX_ITEMS_MAX and len(self._indexes) > 1:
            _, index = self._indexes.popitem(last=False)
            self._index_items -= len(index.firsts)
        for number, each in enumerate(loaded.blocks, loaded.first_block):
            where = (place.table.name, loaded.places.offsets[number])
            if where not in self._blocks:
                self._block_bytes += _bytes(each)
            self._blocks[where] = each
        self._drop_oldest()

    def limit_cache(self, bytes_max: int) -> None:
        """Keep at most so many bytes of blocks from now on."""
        self._cache_bytes_max = bytes_max
        self._drop_oldest()

    def _drop_oldest(self) -> None:
        while self._block_bytes > self._cache_bytes_max and len(self._blocks) > 1:
            _, old = self._blocks.popitem(last=False)
            self._block_bytes -= _bytes(old)

    def forget(self, name: str) -> None:
        """Forget a log that is gone."""
        self._handles.forget(name)
        for key in [key for key in self._indexes if key[0] == name]:
            self._index_items -= len(self._indexes.pop(key).firsts)
        for key in [key for key in self._sequences if key[0] == name]:
            self._sequences.pop(key, None)
        for key in [key for key in self._blocks if key[0] == name]:
            self._block_bytes -= _bytes(self._blocks.pop(key))

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

    def load(self, place: Place, entry: int) -> Loaded:
        """Read and check the block that holds an entry, and in a sequence some behind it."""
        with self._handles.use(place.table.name) as file:
            index = self._index(file, place)
            first = last = _block_of(index, place, entry)
            start = index.offsets[first]
            sequence = first == 0 or self._goes_on(place.table.name, start)
            while (
                sequence
                and last + 1 < len(index.firsts)
                and index.offsets[last + 1] + index.sizes[last + 1] - start <= READ_BYTES
            ):
                last += 1
            size = index.offsets[last] + index.sizes[last] - start
            try:
                data = memoryview(file.pread(size, start))
            except OSError:
                if last == first:
                    raise
                data, last = memoryview(file.pread(index.sizes[first], start)), first
            if last + 1 < len(index.firsts):
                self._sequences[place.table.name, index.offsets[last + 1]] = None
            numbers = range(first, last + 1)
            return Loaded(
                index, first, [self._check(data, start, place, index, each) for each in numbers]
            )

    def _goes_on(self, name: str, offset: int) -> bool:
        """Return whether an earlier read ended where this one begins."""
        while len(self._sequences) > SEQUENCES_MAX:
            self._sequences.popitem(last=False)
        return self._sequences.pop((name, offset), False) is None

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

    def count_failed_read(self, place: Place, entry: int) -> Loaded | None:
        """Count a read that failed; after a few, return its block as damaged."""
        reason = f"{FAILED_READS_MAX} reads failed"
        try:
            with self._handles.use(place.table.name) as file:
                index = self._index(file, place)
        except OSError:
            if self._fails_too_often((place.table.name, place.table.index_at)):
                ledger = place.table.ledgers[place.row]
                raise QuarantinedError(ledger, entry, place.end - 1, reason) from None
            return None
        number = _block_of(index, place, entry)
        if not self._fails_too_often((place.table.name, index.offsets[number])):
            return None
        return Loaded(index, number, [self._lost(place, index, number, b"", reason)])

    def _fails_too_often(self, where: tuple[str, int]) -> bool:
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

    def _check(
        self, data: memoryview, start: int, place: Place, index: BlockIndex, number: int
    ) -> Block:
        at = index.offsets[number] - start
        piece = data[at : at + index.sizes[number]]
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


def _block_of(index: BlockIndex, place: Place, entry: int) -> int:
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


def _bytes(found: Block) -> int:
    return len(found.run.rows) + len(found.run.buffer)
