"""Reclamation: the space of dropped ledgers goes back to the disk.

    live bytes of a log          what happens
    none                         unlinked
    less than half               its live blocks move to a new log, then it is unlinked
    more than 16 small logs      their live blocks move to one new log, then they are unlinked

Only a ledger that is positively known as dropped is garbage. A log is unlinked after the
new one is durable; a crash in between leaves both, and the next start removes the old one.
A block is checked while it is copied, and a log with a block that does not read back is
left alone. At most so many bytes are rewritten in one call, so that this never competes
with publishing for long. While a backup is made nothing is unlinked: it holds the lock.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from magnetar.broker.files import FileLockedError
from magnetar.broker.storage.block import BlockDamagedError
from magnetar.broker.storage.errors import QuarantinedError
from magnetar.broker.storage.flush import CopiedBlock, write_blocks
from magnetar.broker.storage.index import Extents, Place
from magnetar.broker.storage.segment import LogFolder, LogName, Table
from magnetar.broker.storage.shelf import Shelf

logger = logging.getLogger(__name__)

SMALL_LOG_BYTES = 4 << 20
SMALL_LOGS_MAX = 16
"""More logs than this below `SMALL_LOG_BYTES` are merged."""
REWRITE_BYTES_MAX = 64 << 20
"""Live bytes moved in one call."""
NOTHING: frozenset[int] = frozenset()
T = TypeVar("T")
LEDGERS_PER_SLICE = 2_000
"""Ledgers asked about before the event loop gets its turn."""


class Reclaimed(NamedTuple):
    """What one call did."""

    unlinked: int = 0
    """Logs removed, rewritten ones included."""
    rewritten: int = 0
    """Logs whose live blocks moved to a new one."""
    bytes_freed: int = 0
    bytes_written: int = 0


class OnPool(Protocol):
    """Runs a function on a thread."""

    def __call__(self, function: Callable[..., T], /, *arguments: object) -> Awaitable[T]: ...


class Reclaimer:
    """Finds and removes garbage among the logs that some workers have written."""

    def __init__(
        self,
        logs: LogFolder,
        extents: Extents,
        shelf: Shelf,
        workers: Iterable[int],
    ) -> None:
        self._logs = logs
        self._files = logs.files
        self._extents = extents
        self._shelf = shelf
        self._workers = frozenset(workers)

    async def reclaim(
        self, lock: Path, is_dropped: Callable[[int], bool], on_pool: OnPool
    ) -> Reclaimed:
        """Do one round. On the event loop; what touches the disk runs on the pool."""
        dropped = await self._dropped(is_dropped)
        tables = [table for table in self._extents.tables() if self._is_ours(table)]
        empty, sources = await on_pool(choose, tables, dropped)
        if not empty and not sources:
            return Reclaimed()
        try:
            held = self._files.lock(lock, "reclaim")
        except FileLockedError:
            logger.info("reclaim waits for a backup")
            return Reclaimed()
        try:
            fresh: Table | None = None
            if sources:
                places = await self._live_places(sources, dropped)
                fresh = await on_pool(self._rewrite, places)
            if fresh is not None:
                for _ in self._extents.adding(fresh):
                    await asyncio.sleep(0)
            else:
                sources = []
            gone = [*empty, *sources]
            for table in gone:
                self._extents.remove(table.name)
                self._shelf.forget(table.name)
            await on_pool(self._unlink, gone)
        finally:
            held.close()
        written = 0 if fresh is None else fresh.size
        return Reclaimed(len(gone), len(sources), sum(table.size for table in gone), written)

    async def _dropped(self, is_dropped: Callable[[int], bool]) -> frozenset[int]:
        found = []
        for at, ledger in enumerate(self._extents.ledgers()):
            if is_dropped(ledger):
                found.append(ledger)
            if at % LEDGERS_PER_SLICE == LEDGERS_PER_SLICE - 1:
                await asyncio.sleep(0)
        return frozenset(found)

    def _is_ours(self, table: Table) -> bool:
        name = LogName.parse(table.name)
        return name is not None and name.worker in self._workers

    async def _live_places(self, sources: Sequence[Table], dropped: frozenset[int]) -> list[Place]:
        """Return the extents to move, in order, each entry once."""
        names = {table.name for table in sources}
        places = []
        ledgers = {ledger for table in sources for ledger in table.ledgers}
        for at, ledger in enumerate(sorted(ledgers - dropped)):
            places += [each for each in self._extents.of(ledger) if each.table.name in names]
            if at % LEDGERS_PER_SLICE == LEDGERS_PER_SLICE - 1:
                await asyncio.sleep(0)
        return places

    def _rewrite(self, places: Sequence[Place]) -> Table | None:
        """Copy extents to a new log; None if one does not read back. On the pool."""
        reads: list[Callable[[], CopiedBlock]] = []
        try:
            for place in places:
                reads += self._shelf.copies(place)
            return write_blocks(self._logs, reads)
        except (BlockDamagedError, QuarantinedError) as error:
            logger.warning("logs are left as they are: %s", error)
            return None

    def _unlink(self, tables: Sequence[Table]) -> None:
        for table in tables:
            self._files.remove(self._logs.path / table.name)
        self._files.sync_dir(self._logs.path)


def choose(tables: Sequence[Table], dropped: frozenset[int]) -> tuple[list[Table], list[Table]]:
    """Return the logs that hold nothing, and those to rewrite together now, emptiest first."""
    live = {table.name: _live_bytes(table, dropped) for table in tables}
    empty = [table for table in tables if not live[table.name]]
    tables = [table for table in tables if live[table.name]]
    half = [table for table in tables if live[table.name] * 2 < _live_bytes(table, NOTHING)]
    small = [table for table in tables if table.size < SMALL_LOG_BYTES]
    wanted = half
    if len(small) > SMALL_LOGS_MAX:
        wanted = half + [table for table in small if table not in half]
    chosen: list[Table] = []
    room = REWRITE_BYTES_MAX
    for table in sorted(wanted, key=lambda table: live[table.name]):
        if chosen and live[table.name] > room:
            break
        chosen.append(table)
        room -= live[table.name]
    return empty, chosen


def _live_bytes(table: Table, dropped: frozenset[int]) -> int:
    """Return the bytes of the entries that count; an empty body counts as one byte."""
    return sum(
        size or 1
        for ledger, size in zip(table.ledgers, table.bytes, strict=True)
        if ledger not in dropped
    )
