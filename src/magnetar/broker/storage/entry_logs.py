"""The entry logs of a data folder: what is flushed, whoever wrote it.

    write ─▶ a new entry log ─▶ Extents: which ledger lies where   (flush, index)
    read ──▶ Shelf, the read cache ─▶ blocks, checked              (shelf)
    lost ──▶ Quarantine: ranges that do not read back              (quarantine)
    reclaim ▶ logs without a live ledger are unlinked              (reclaim)

All processes share the folder; each writes logs of its own, reads those of all, and looks
again when it does not find what must be there.

Everything is called on the event loop, except what says otherwise. `read_cached` is a plain
call that never touches the disk; what does is a coroutine, and works on a thread.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from itertools import count

from magnetar.broker.clock import Clock
from magnetar.broker.config import BrokerConfig
from magnetar.broker.files import Files
from magnetar.broker.metrics import Metrics
from magnetar.broker.run import Run
from magnetar.broker.storage.block import together
from magnetar.broker.storage.cache import Generation
from magnetar.broker.storage.cold_reads import ColdReads
from magnetar.broker.storage.errors import (
    EMPTY_LEDGER,
    REST_OF_LEDGER,
    Gap,
    LedgerEnd,
    LedgerNotFoundError,
    QuarantinedError,
    StorageError,
)
from magnetar.broker.storage.flush import write_generation
from magnetar.broker.storage.index import Extents
from magnetar.broker.storage.pools import Pools
from magnetar.broker.storage.quarantine import Quarantine
from magnetar.broker.storage.read_cache import CacheFigures
from magnetar.broker.storage.reclaim import Reclaimed, Reclaimer
from magnetar.broker.storage.repair import load_logs
from magnetar.broker.storage.segment import LogDamagedError, LogFolder, LogName, Table
from magnetar.broker.storage.shelf import Shelf

logger = logging.getLogger(__name__)

ENTRIES_FOLDER = "entries"
QUARANTINE_FOLDER = "quarantine"
LOCK_OF_RECLAIM = "reclaim.lock"

READ_ATTEMPTS_MAX = 3
"""How often a read looks again when another process has moved what it was about to read."""


class EntryLogs:
    """Finds, reads, adds and gives back what lies in entry logs."""

    def __init__(  # noqa: PLR0913, PLR0917 - built in one place
        self,
        config: BrokerConfig,
        files: Files,
        metrics: Metrics,
        pools: Pools,
        clock: Clock,
        new_salt: Callable[[], int],
    ) -> None:
        """Know no log yet; `load` and `look_again` find them."""
        self._config = config
        self._files = files
        self._pools = pools
        self._new_salt = new_salt
        self._folder = config.data / ENTRIES_FOLDER
        self._numbers = count(1)
        self._reclaims: set[int] = set()
        self.logs = LogFolder(files, self._folder, self._new_name)
        self.quarantine = Quarantine(files, config.data / QUARANTINE_FOLDER)
        self.extents = Extents()
        self._shelf = Shelf(files, self._folder, self.quarantine, config.read_cache_bytes_max)
        self._count(metrics)
        self._cold = ColdReads(self._shelf, pools, config, clock, self._cold_reads)

    def _count(self, metrics: Metrics) -> None:
        self._written = metrics.counter(
            "magnetar_storage_entry_log_written_bytes_total", "Bytes written to entry logs"
        )
        self._cold_reads = metrics.counter(
            "magnetar_storage_cold_reads_total", "Reads that went to an entry log"
        )
        self._reclaimed = metrics.counter(
            "magnetar_storage_reclaimed_bytes_total", "Bytes of entry logs given back"
        )
        metrics.gauge(
            "magnetar_storage_read_cache_bytes",
            "Bytes of entry logs in memory",
            lambda: self.cached_bytes,
        )
        metrics.gauge(
            "magnetar_storage_quarantined_ranges",
            "Ranges of entries that were stored and do not read back",
            lambda: len(self.quarantined()),
        )

    def load(self, worker: int, *, with_unknown: bool) -> None:
        """Find all logs, after mending those that `worker` has written. On the pool.

        From then on `reclaim` gives back garbage in the logs of this worker, too.
        """
        self._reclaims.add(worker)
        self._files.make_dir(self._folder)
        tables = load_logs(
            self.logs, self._shelf, self.quarantine, worker, with_unknown=with_unknown
        )
        for table in tables:
            if self.extents.table(table.name) is None:
                self.extents.add(table)
        for gone in self.extents.names() - {table.name for table in tables}:
            self._forget(gone)
        numbers = [name.number for table in tables if (name := LogName.parse(table.name))]
        self._numbers = count(max([next(self._numbers), *(number + 1 for number in numbers)]))

    def reclaim_for(self, workers: Iterable[int]) -> None:
        """Give back garbage in the logs of these workers from now on, and of no others."""
        self._reclaims = set(workers)

    def close(self) -> None:
        """Let go of all files."""
        self._cold.stop()
        self._shelf.close()

    # --- what there is

    @property
    def cached_bytes(self) -> int:
        """Bytes of entry logs in memory."""
        return self._shelf.cache.bytes

    @property
    def cached_entries(self) -> int:
        """How many entries of entry logs are in memory."""
        return self._shelf.cache.entries

    @property
    def cache_bytes_max(self) -> int:
        """How many bytes of entry logs may be in memory."""
        return self._shelf.cache.bytes_max

    @property
    def figures(self) -> CacheFigures:
        """What became of reads, by entries and bytes."""
        return self._shelf.figures

    def settings_changed(self) -> None:
        """Let hold what the config says now, where it is not read each time."""
        self._cold.settings_changed()

    def drop(self, ledgers: Iterable[int]) -> None:
        """Let go of what is in memory of ledgers that nobody will read again."""
        self._shelf.cache.drop_ledgers(frozenset(ledgers).__contains__)

    def ledgers(self) -> list[int]:
        """Return the ledgers that something is stored of."""
        return self.extents.ledgers()

    def end(self, ledger: int) -> int:
        """Return the entry id after the last one that is stored; 0 if there is none."""
        return self.extents.end(ledger)

    def entries(self, ledger: int) -> int:
        """Return how many entries are stored of a ledger."""
        end = self.end(ledger)
        return end - sum(after - first for first, after in self.missing(ledger, end))

    def missing(self, ledger: int, end: int) -> list[tuple[int, int]]:
        """Return the parts of [0, end) that no entry log has, ends exclusive."""
        return list(self.extents.missing(ledger, 0, end))

    async def end_of(self, ledger: int) -> LedgerEnd:
        """Return what the entry logs hold of a ledger.

        Raises:
            StorageError: the disk did not let us read; try again.
        """
        if self._config.workers > 1 and not self.extents.of(ledger):
            await self._refresh()
        for _ in range(READ_ATTEMPTS_MAX):
            total = EMPTY_LEDGER
            try:
                for place in self.extents.of(ledger):
                    summary = await self._pools.read(self._shelf.load_summary, place)
                    total = together(total, summary)
            except FileNotFoundError:
                await self._refresh()
                continue
            except OSError as error:
                raise StorageError(f"ledger {ledger} could not be read: {error}") from error
            return total
        raise StorageError(f"ledger {ledger}: its entry logs change too fast to be read")

    async def look_again(self) -> None:
        """Find out what other processes have written, removed and put into quarantine.

        Raises:
            StorageError: the disk did not let us.
        """
        await self._refresh()
        try:
            await self._pools.write(self.quarantine.reload)
        except OSError as error:
            raise StorageError(f"the quarantine could not be read: {error}") from error

    async def _refresh(self) -> None:
        """Look for entry logs that other processes have written or removed."""
        try:
            names = set(await self._pools.read(self._shelf.names))
            for name in names - self.extents.names():
                try:
                    self.extents.add(await self._pools.read(self._shelf.load_table, name))
                except (FileNotFoundError, LogDamagedError):
                    logger.warning("entry log %s cannot be read", name, exc_info=True)
        except OSError as error:
            raise StorageError(f"{self._folder} could not be read: {error}") from error
        for name in self.extents.names() - names:
            self._forget(name)

    def _forget(self, name: str) -> None:
        self.extents.remove(name)
        self._shelf.forget(name)

    # --- what is lost

    def quarantined(self) -> list[Gap]:
        """Return every range of entries that was stored and does not read back."""
        return self.quarantine.gaps()

    def lost_end(self, ledger: int) -> int:
        """Return the entry id after the last one that is known to be lost; 0 if there is none."""
        return max(
            (
                gap.last.entry + 1
                for gap in self.quarantined()
                if gap.last.ledger == ledger and gap.last.entry != REST_OF_LEDGER
            ),
            default=0,
        )

    async def report_lost(self, name: str, gaps: Sequence[Gap], reason: str) -> None:
        """Put on record that entries are lost: they are gaps from now on."""
        await self._pools.write(self.quarantine.copy_bytes, name, b"", gaps, reason)

    # --- reading

    def read_cached(self, ledger: int, entry: int, entries_max: int, bytes_max: int) -> Run | None:
        """Return entries from `entry` on that are in the read cache; None: `read` finds them.

        Raises:
            QuarantinedError: the entry is lost; it says how far the loss goes.
        """
        place = self.extents.find(ledger, entry)
        if place is None:
            return None
        return self._cold.read_cached(place, entry, entries_max, bytes_max)

    async def read(self, ledger: int, entry: int, entries_max: int, bytes_max: int) -> Run | None:
        """Return entries from `entry` on; None: another process has moved them, look again.

        Raises:
            QuarantinedError: the entry is lost; it says how far the loss goes.
            LedgerNotFoundError: nothing at or after this entry is stored in the ledger.
            StorageError: the disk did not let us read; try again.
        """
        place = self.extents.find(ledger, entry)
        if place is None:
            await self._refresh()
            place = self.extents.find(ledger, entry)
        if place is None:
            raise self._not_there(ledger, entry)
        try:
            return await self._cold.read(place, entry, entries_max, bytes_max)
        except FileNotFoundError:
            await self._refresh()  # another process has rewritten this log
            return None

    def _not_there(self, ledger: int, entry: int) -> StorageError:
        after = self.extents.next_first(ledger, entry)
        if after is not None:
            return QuarantinedError(ledger, entry, after - 1, "lost from the journal")
        for gap in self.quarantined():
            if gap.first.ledger == ledger and gap.first.entry <= entry <= gap.last.entry:
                return QuarantinedError(ledger, entry, gap.last.entry, gap.reason)
        return LedgerNotFoundError(f"ledger {ledger} has no entry {entry} or later")

    # --- writing and giving back

    async def write(self, generation: Generation) -> Table | None:
        """Write a generation of the write cache to a new log; None: there was nothing in it.

        Raises:
            OSError: it is not there. The generation is as it was.
        """
        table = await self._pools.write(write_generation, self.logs, generation)
        if table is not None:
            for _ in self.extents.adding(table):
                await asyncio.sleep(0)
            self.count_written([table])
        return table

    def count_written(self, tables: Iterable[Table]) -> None:
        """Take note of the size of new logs."""
        self._written.value += sum(table.size for table in tables)

    async def reclaim(self, is_dropped: Callable[[int], bool]) -> Reclaimed:
        """Give back the space of ledgers that are known to be dropped, and only of those.

        Raises:
            StorageError: the disk did not let us. Nothing that is needed is gone.
        """
        self._shelf.cache.drop_ledgers(is_dropped)
        reclaimer = Reclaimer(self.logs, self.extents, self._shelf, self._reclaims)
        lock = self._config.data / LOCK_OF_RECLAIM
        try:
            done = await reclaimer.reclaim(lock, is_dropped, self._pools.write)
        except OSError as error:
            raise StorageError(f"space could not be reclaimed: {error}") from error
        self._written.value += done.bytes_written
        self._reclaimed.value += done.bytes_freed
        return done

    def _new_name(self) -> LogName:
        return LogName(self._config.worker, next(self._numbers), self._new_salt())
