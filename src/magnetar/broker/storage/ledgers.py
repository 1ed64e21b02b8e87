"""The ledgers of one process: append, read, seal, flush, recover.

    append ─▶ slab ─▶ Committer ─▶ journal ─▶ on_commit          (commit)
               │ Generation                                       (cache)
               └──── flush ─▶ entry log ─▶ journal file recycled  (flush)
    read ─▶ Generation, else entry logs                           (entry_logs)

A ledger is a numbered run of entries with one writer. It knows no topic: which ledgers make
up a partition is `log`'s business, kept in the metadata.

Everything is called on the event loop. `append`, `note` and `read_cached` are plain calls
that never touch the disk; what does is a coroutine, and works on a thread.

When records cannot be made durable, everything that was on its way fails with them. If some
of their bytes may be on the disk, the ledgers they touched are sealed at their last durable
entry, because those entry ids must not be used twice; if not (no room for a journal file),
the ledgers are only cut back to there. Either way `on_cut` of the ledger says so first.
"""

import asyncio
import logging
import math
import secrets
from asyncio import AbstractEventLoop, Future
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from magnetar.broker.clock import Clock
from magnetar.broker.config import BrokerConfig
from magnetar.broker.files import Files
from magnetar.broker.metrics import Metrics
from magnetar.broker.run import ROW_SIZE, Run
from magnetar.broker.storage.cache import (
    PLACE_SHIFT,
    ROWS_PER_RECORD_MAX,
    CachedRecord,
    Generation,
    Tail,
    span_bytes,
)
from magnetar.broker.storage.commit import Committer
from magnetar.broker.storage.entry_logs import READ_ATTEMPTS_MAX, EntryLogs
from magnetar.broker.storage.errors import (
    Gap,
    LedgerEnd,
    LedgerSealedError,
    QuarantinedError,
    StorageError,
    StorageFullError,
)
from magnetar.broker.storage.journal import NO_ROOM, Journal, JournalError, file_number
from magnetar.broker.storage.packing import lay
from magnetar.broker.storage.pools import Pools
from magnetar.broker.storage.record import (
    HEADER_SIZE,
    RECORD_SIZE_MAX,
    Kind,
    Part,
    aligned,
)
from magnetar.broker.storage.recovery import Recovery, Restored
from magnetar.broker.storage.segment import Table
from magnetar.broker.storage.shown import show_as_bookie, show_cache
from magnetar.broker.storage.slab import SLAB_BYTES, Slab, SlabPool

logger = logging.getLogger(__name__)

JOURNAL_FOLDER = "journal"

SLABS_PER_CACHE = 16
"""A slab is at most this part of the write cache, so that a small cache still has several."""
FLUSH_RETRY_S = 1.0
"""Pause after a flush that failed."""

NOTHING_SYNCED: Mapping[int, tuple[int, int]] = {}
T = TypeVar("T")
OnCommit = Callable[[Sequence[object], StorageError | None], None]
OnCut = Callable[[int, int, bool], None]
"""Ledger, its end from now on, and whether it is sealed there."""


class Recovered(NamedTuple):
    """What a crash left."""

    ends: dict[int, LedgerEnd]
    """The ledgers that the journal had entries of."""
    producers: dict[int, dict[str, int]]
    """Ledger -> producer name -> highest sequence id in the journal."""
    notes: list[tuple[int, bytes]]
    """Key and payload, in the order in which they were written."""
    gaps: list[Gap]
    bytes_replayed: int
    seconds: float
    journals: Mapping[int, frozenset[int]] = {}
    """Worker whose journal was read -> the numbers of its files that hold records that count, and
    are whole up to their end."""
    highest_ledger: int = 0
    """No ledger above it has left a trace on the disk, readable or not."""


class _Writer:
    """A ledger that this process appends to."""

    __slots__ = ("end", "generation", "on_cut", "tail")

    def __init__(self, on_cut: OnCut | None) -> None:
        self.end = 0
        self.generation: Generation | None = None
        self.tail: Tail | None = None
        self.on_cut = on_cut


async def _nothing() -> None:
    """Stand in for `before_recycle` and `write_down` until somebody needs them."""


def _silent() -> None:
    """Stand in for `on_stuck` and its like until somebody asks."""


def _ignore(tokens: Sequence[object], error: StorageError | None) -> None:
    """Stand in for `on_commit` until somebody listens."""


def _no_end(_: int) -> int | None:
    """Stand in for the metadata where there is none."""
    return None


def _new_salt() -> int:
    return secrets.randbits(63) | 1


class Ledgers:
    """All ledgers that this process can read, and those that it writes."""

    def __init__(  # noqa: PLR0913, PLR0915 - the last three are for tests; a field is no step
        self,
        config: BrokerConfig,
        files: Files,
        clock: Clock,
        metrics: Metrics,
        loop: AbstractEventLoop,
        *,
        threaded: bool = True,
        new_salt: Callable[[], int] = _new_salt,
        pools: Pools | None = None,
    ) -> None:
        self.on_commit: OnCommit = _ignore
        """Called once per commit with the tokens of its records, in order. With an error:
        none of them is durable, and they may be sent again."""
        self.before_recycle: Callable[[], Awaitable[None]] = _nothing
        """Awaited before journal files are used again: what notes say must be safe by then."""
        self.write_down: Callable[[], Awaitable[None]] = _nothing
        """Awaited before journal files are used again: `held` says what must be safe by then."""
        self.on_durable: Callable[[], None] = _silent
        """Called once per commit: `held` and `synced` may have changed."""
        self.on_recycled: Callable[[], None] = _silent
        """Called when `old_journal_files` has become shorter."""
        self.on_stuck: Callable[[], None] = _silent
        """Called, soon, when `stuck` may have changed."""
        self.committed_s = -math.inf
        """When entries last became durable, on the monotonic clock."""
        self._journal_full = False
        self._flush_failed = False
        self._flush_full = False
        self._config = config
        self._files = files
        self._clock = clock
        self._loop = loop
        self._threaded = threaded
        self._new_salt = new_salt
        self._pools = pools or Pools.threads(loop)
        self._journals = config.data / JOURNAL_FOLDER
        self.stored = EntryLogs(config, files, metrics, self._pools, clock, new_salt)
        """What is flushed, by this process and by all others."""
        self._pool = SlabPool(min(SLAB_BYTES, config.write_cache_bytes_max // SLABS_PER_CACHE))
        self._generation = Generation()
        self._frozen: Generation | None = None
        self._slab: Slab | None = None
        self._writers: dict[int, _Writer] = {}
        self._sealing: dict[int, _Writer] = {}
        self._journal: Journal | None = None
        self._committer: Committer | None = None
        self._old_files: list[Path] = []
        self._open = set[int]()
        """Ledgers of which the metadata does not know the end yet."""
        self._flushed: dict[int, int] = {}
        """Where those of them end in the entry logs."""
        self._unsynced = 0
        self._submitted = self._settled = 0
        self._waiters: deque[tuple[int, Future[None]]] = deque()
        self._when_clear: list[Callable[[], None]] = []
        self._flush_lock = asyncio.Lock()
        self._flush_task: asyncio.Task[None] | None = None
        self._flush_timer: asyncio.TimerHandle | None = None
        self._flush_timed_s = 0.0
        """When the timer was started, in the loop's time."""
        self._stopped = False
        self.flushed_entries = self.flushes = 0
        self._count(metrics)

    def _count(self, metrics: Metrics) -> None:
        accepted = "Bytes of entries, envelopes included, that were taken for writing"
        self._accepted = metrics.counter("magnetar_storage_accepted_bytes_total", accepted)
        self._journal_bytes = metrics.counter(
            "magnetar_storage_journal_written_bytes_total", "Bytes written to the journal"
        )
        self._commits = metrics.latencies(
            "magnetar_storage_commit_seconds", "Write and sync of one commit"
        )
        self._failed_commits = metrics.counter(
            "magnetar_storage_failed_commits_total", "Commits of which nothing is durable"
        )
        metrics.gauge(
            "magnetar_storage_write_cache_bytes",
            "Bytes in the journal and in no entry log yet",
            lambda: self.write_cache_bytes,
        )
        show_as_bookie(metrics, self, self._commits, self._accepted)
        show_cache(metrics, self, self._clock)

    # --- start and stop

    async def recover(
        self,
        workers: Sequence[int],
        recorded_end: Callable[[int], int | None] = _no_end,
        synced: Mapping[int, tuple[int, int]] = NOTHING_SYNCED,
    ) -> Recovered:
        """Replay the journals of these workers into entry logs, and open our own.

        `recorded_end` is what the metadata knows of a sealed ledger; None for any other.
        Entries beyond it are ignored: their sync had failed. `synced`: worker -> a file of its
        journal, and a record in it that is known to have been durable. Our own worker's journal
        comes first, and must be among them the first time.

        Raises:
            StorageError: the disk does not let us. Nothing is lost by trying again.
        """
        started = self._clock.monotonic()
        own = self._config.worker
        assert self._committer is not None or own in workers
        try:
            restored = [
                await self._pools.write(self._recover_one, worker, recorded_end, synced.get(worker))
                for worker in sorted(workers, key=lambda worker: worker != own)
            ]
            quarantined = await self._pools.write(self.stored.quarantined)
        except OSError as error:
            raise StorageError(f"recovery failed: {error}") from error
        for each in restored:
            self._old_files += each.paths
        ledgers = sorted(set[int]().union(*(each.ledgers for each in restored)))
        ends = {ledger: await self.stored.end_of(ledger) for ledger in ledgers}
        producers: dict[int, dict[str, int]] = {}
        for each in restored:
            for ledger, found in each.producers.items():
                known = producers.setdefault(ledger, {})
                for name, sequence in found.items():
                    known[name] = max(sequence, known.get(name, sequence))
        gaps = sorted(gap for each in restored for gap in each.gaps)
        named = {gap.first.ledger for gap in [*gaps, *quarantined]}
        return Recovered(
            ends,
            producers,
            [note for each in restored for note in each.notes],
            gaps,
            sum(each.bytes for each in restored),
            self._clock.monotonic() - started,
            {each.worker: each.files for each in restored},
            max({*ledgers, *self.stored.ledgers(), *named}, default=0),
        )

    def _recover_one(
        self,
        worker: int,
        recorded_end: Callable[[int], int | None],
        synced: tuple[int, int] | None,
    ) -> Restored:
        """Load all entry logs if need be, then replay one journal. On the pool, before serving."""
        folder = self._journals / str(worker)
        own = worker == self._config.worker
        self.stored.load(worker, with_unknown=own and worker == 0)
        if own:
            self._files.make_dir(folder)
        recovery = Recovery(
            self.stored.logs,
            self.stored.quarantine,
            self.stored.extents,
            recorded_end,
            self._config.write_cache_bytes_max // 4,
        )
        restored = recovery.restore(folder, synced)
        self.stored.count_written(restored.tables)
        if own and self._committer is None:
            self._open_journal(folder, restored)
        return restored

    def _open_journal(self, folder: Path, restored: Restored) -> None:
        config = self._config
        self._journal = Journal(
            folder,
            self._files,
            config.journal_file_bytes,
            next_file=restored.next_file,
            last_number=restored.last_number,
            new_salt=self._new_salt,
        )
        self._committer = Committer(
            self._journal,
            self._loop,
            self._clock,
            self._done,
            window_s=config.journal_window_ms / 1000,
            window_bytes=config.journal_window_bytes,
            threaded=self._threaded,
        )

    def settings_changed(self) -> None:
        """Let hold what the config says now, where it is not read each time."""
        config = self._config
        if self._committer is not None:
            self._committer.window_s = config.journal_window_ms / 1000
            self._committer.window_bytes = config.journal_window_bytes
        self.stored.settings_changed()
        if self._flush_timer is not None:
            # From when it was started: who changes settings all the time must not put it off.
            self._flush_timer.cancel()
            self._flush_timer = self._loop.call_at(
                self._flush_timed_s + config.flush_interval_s, self._flush_soon
            )
        if self._half_full:
            self._flush_soon()
        self._call_if_clear()

    def settings_in_use(self) -> dict[str, bool | int | float | str]:
        """Return what of the live settings is in use here, where the config is not read anew."""
        found: dict[str, bool | int | float | str] = {
            "read_cache_bytes_max": self.stored.cache_bytes_max
        }
        if self._committer is not None:
            found["journal_window_ms"] = round(self._committer.window_s * 1000, 9)
            found["journal_window_bytes"] = self._committer.window_bytes
        return found

    async def stop(self) -> None:
        """Flush, then close.

        Raises:
            StorageError: not all could be flushed. It stays in the journal, for the next start.
        """
        if self._committer is None:
            return
        failure: StorageError | None = None
        if self._flush_timer is not None:
            self._flush_timer.cancel()
        self._stopped = True
        if self._flush_task is not None:
            await asyncio.gather(self._flush_task, return_exceptions=True)
        try:
            await self.flush()
        except StorageError as error:
            logger.exception("the last flush failed; the next start will read the journal")
            failure = error
        await self._settle()
        self._committer.stop()
        self._committer = None
        self.stored.close()
        self._pools.shutdown()
        if failure is not None:
            raise StorageError(f"stopped, and not all is in entry logs: {failure}") from failure

    # --- writing

    def create(self, ledger: int, on_cut: OnCut | None = None) -> None:
        """Begin to write a ledger that no process has written before."""
        self._writers[ledger] = _Writer(on_cut)
        self._open.add(ledger)

    def append(self, run: Run, parts: Sequence[Part], token: object) -> None:
        """Take entries; `on_commit` tells when they are durable, in the order of the calls.

        The run's buffer may be used again when this returns.

        Raises:
            LedgerSealedError: a ledger is not open for writing here. Nothing was taken.
        """
        assert self._committer is not None, "recover first"
        assert run.count <= ROWS_PER_RECORD_MAX
        writers = self._writers
        for part in parts:
            if part[0] not in writers:
                raise LedgerSealedError(f"ledger {part[0]} is not open for writing here")
        generation = self._generation
        slab = self._slab
        if slab is None:
            slab = self._slab = self._new_slab(HEADER_SIZE)
        start = slab.used
        laid = lay(slab.view, start, parts, run.rows, run.buffer, run.base)
        size, directory_size, low, body_size = laid
        assert size <= RECORD_SIZE_MAX
        if slab.size - start < size:
            slab = self._slab = self._new_slab(size)
            start = 0
            lay(slab.view, start, parts, run.rows, run.buffer, run.base)
        view = slab.view
        slab.used = start + size

        record = CachedRecord(generation, view, start, size, Kind.RUN, token, parts)
        record.directory_size = directory_size
        record.rows_at = rows_at = start + HEADER_SIZE + directory_size
        record.row_count = run.count
        record.base = run.base + low
        record.body_at = rows_at + run.count * ROW_SIZE
        record.body_size = body_size
        place = len(generation.records) << PLACE_SHIFT
        generation.records.append(record)
        for ledger, first_entry, first_row, entries, _ in parts:
            writer = writers[ledger]
            assert writer.end == first_entry, "entries of a ledger follow one another"
            tail = writer.tail
            if writer.generation is not generation or tail is None:
                tail = self._new_tail(writer, ledger)
            tail.firsts.append(first_entry)
            tail.places.append(place | first_row)
            tail.end = writer.end = first_entry + entries
        self._accepted.value += size
        generation.entries += record.row_count
        self._submit(record)

    def note(self, key: int, payload: bytes, token: object | None = None) -> None:
        """Write a small state down with the next commit.

        After a crash all notes since the last flush come back, in order.
        """
        assert self._committer is not None, "recover first"
        body_at = HEADER_SIZE + 8
        size = aligned(body_at + len(payload))
        slab = self._slab
        if slab is None or slab.size - slab.used < size:
            slab = self._slab = self._new_slab(size)
        start = slab.used
        data = key.to_bytes(8, "little") + payload
        data += bytes(size - HEADER_SIZE - len(data))
        slab.view[start + HEADER_SIZE : start + size] = data
        slab.used = start + size
        record = CachedRecord(self._generation, slab.view, start, size, Kind.NOTE, token, ())
        record.directory_size = 8
        record.body_at = start + body_at
        record.body_size = len(payload)
        self._submit(record)

    def durable_end(self, ledger: int) -> int:
        """Return the entry id after the last durable entry; 0 if there is none."""
        for generation in (self._generation, self._frozen):
            if generation is not None:
                end = generation.durable_end(ledger)
                if end is not None:
                    return end
        return self.stored.end(ledger)

    async def seal(self, ledger: int) -> int:
        """Append nothing more to a ledger; return its end once everything in it is durable."""
        writer = self._writers.pop(ledger, None)
        if writer is not None:
            self._sealing[ledger] = writer
        await self._settle()
        self._sealing.pop(ledger, None)
        return self.durable_end(ledger)

    # --- what must be on the disk: see `stock`

    def ended(self, ledger: int) -> None:
        """Take note that the metadata knows where a ledger ends, or that it is dropped."""
        self._open.discard(ledger)
        self._flushed.pop(ledger, None)

    def forget(self, ledgers: Iterable[int]) -> None:
        """Let go of what the read cache has of ledgers that nobody will read again."""
        self.stored.drop(ledgers)

    @property
    def old_entries(self) -> int:
        """How many entries were read out of entry logs so far."""
        return self.stored.figures.old

    def carry(self, ends: Mapping[int, int]) -> None:
        """Take over what was flushed of ledgers whose end the metadata does not know yet."""
        self._open.update(ends)
        self._flushed.update(ends)

    def held(self) -> tuple[list[int], dict[int, int]]:
        """Return which journal files hold what no entry log has, and where open ledgers end there.

        All of it is durable.
        """
        generations = [each for each in (self._frozen, self._generation) if each is not None]
        journal = [number for each in generations for number in each.durable_files]
        return journal, dict(self._flushed)

    @property
    def old_journal_files(self) -> list[int]:
        """Numbers of files of our journal that are flushed, and would still be replayed."""
        own = self._journals / str(self._config.worker)
        numbers = [file_number(path.name) for path in self._old_files if path.parent == own]
        return [number for number in numbers if number is not None]

    @property
    def journal_files_begun(self) -> int:
        """How many files of our journal have had a durable record since the start."""
        return 0 if self._journal is None else self._journal.files_begun

    @property
    def synced(self) -> tuple[int, int] | None:
        """File and number of the last durable record of our journal; None: there is none."""
        return None if self._journal is None else self._journal.durable_at

    def _note_flushed(self, table: Table) -> None:
        for ledger, first, entries in zip(table.ledgers, table.firsts, table.counts, strict=True):
            if ledger in self._open:
                self._flushed[ledger] = max(first + entries, self._flushed.get(ledger, 0))

    @property
    def write_cache_entries(self) -> int:
        """Entries in the journal and in no entry log yet."""
        frozen = 0 if self._frozen is None else self._frozen.entries
        return self._generation.entries + frozen

    @property
    def waiting_records(self) -> int:
        """Records that the next commit takes."""
        return 0 if self._committer is None else self._committer.waiting

    @property
    def write_cache_bytes(self) -> int:
        """Bytes of memory that hold entries which are in no entry log yet."""
        frozen = self._frozen.bytes if self._frozen is not None else 0
        return self._generation.bytes + frozen

    @property
    def congested(self) -> bool:
        """Whether publishing should pause: too much waits for the disk."""
        return self._unsynced > self._config.unsynced_bytes_max or (
            self._cache_full and not self._flush_failed
        )

    @property
    def full(self) -> bool:
        """The last attempt to write found no room on the disk."""
        return self._journal_full or self._flush_full

    @property
    def stuck(self) -> bool:
        """Whether publishing should be refused: the cache is full, and cannot be emptied.

        This is not congestion. A pause that may last until somebody cleans up the disk would
        leave producers in the dark.
        """
        return self._cache_full and self._flush_failed

    @property
    def _cache_full(self) -> bool:
        return self.write_cache_bytes > self._config.write_cache_bytes_max

    def call_when_clear(self, callback: Callable[[], None]) -> None:
        """Call once, soon, when there is no congestion."""
        if self.congested:
            self._when_clear.append(callback)
        else:
            self._loop.call_soon(callback)

    def _new_slab(self, size: int) -> Slab:
        slab = self._generation.new_slab(self._pool, size)
        if self.stuck:
            self._loop.call_soon(self.on_stuck)
        if self._half_full:
            self._flush_soon()
        return slab

    @property
    def _half_full(self) -> bool:
        return self._generation.bytes * 2 >= self._config.write_cache_bytes_max

    def _new_tail(self, writer: _Writer, ledger: int) -> Tail:
        tails = self._generation.tails
        if ledger not in tails:
            tails[ledger] = Tail(ledger, writer.end)
        tail = writer.tail = tails[ledger]
        writer.generation = self._generation
        return tail

    def _submit(self, record: CachedRecord) -> None:
        self._unsynced += record.size
        self._submitted += 1
        self._generation.submitted += 1
        if self._flush_timer is None:
            delay = self._config.flush_interval_s
            self._flush_timed_s = self._loop.time()
            self._flush_timer = self._loop.call_later(delay, self._flush_soon)
        assert self._committer is not None
        self._committer.submit(record)

    # --- commits

    def _done(
        self, records: Sequence[CachedRecord], error: JournalError | None, seconds: float
    ) -> None:
        """Take note of one commit. Called on the loop."""
        assert self._committer is not None
        assert self._journal is not None
        if error is not None:
            records = [*records, *self._committer.take_back()]
        size = 0
        tokens = []
        for record in records:
            size += record.size
            record.durable = error is None
            if record.token is not None:
                tokens.append(record.token)
                record.token = None
        self._unsynced -= size
        self._settled += len(records)
        if tokens:
            self.committed_s = self._clock.monotonic()
        try:
            if error is None:
                self._journal_full = False
                self._commits.record(seconds)
                self._journal_bytes.value = self._journal.bytes_written
                for record in records:
                    record.parts = ()
                self.on_commit(tokens, None)
                self.on_durable()
            else:
                self._fail(tokens, error)
        finally:  # a bug in a listener must not keep a flush waiting
            self._wake_waiters()
            self._call_if_clear()

    def _wake_waiters(self) -> None:
        while self._waiters and self._waiters[0][0] <= self._settled:
            waiter = self._waiters.popleft()[1]
            if not waiter.done():
                waiter.set_result(None)

    def _fail(self, tokens: Sequence[object], error: JournalError) -> None:
        self._failed_commits.value += 1
        self._journal_full = error.full
        if error.full:
            logger.warning("no room for a journal file; publishing goes on when there is")
        else:
            logger.error("journal: %s; a new file comes next", error, exc_info=error)
        ends: dict[int, int] = {}
        for generation in (self._frozen, self._generation):
            if generation is not None:
                for ledger, end in generation.drop_undurable().items():
                    ends[ledger] = min(end, ends.get(ledger, end))
        for ledger, end in ends.items():
            self._cut(ledger, end, sealed=error.written)
        text = f"not stored, and may be sent again: {error}"
        self.on_commit(tokens, StorageFullError(text) if error.full else StorageError(text))

    def _cut(self, ledger: int, end: int, *, sealed: bool) -> None:
        writer = self._writers.get(ledger) or self._sealing.get(ledger)
        if writer is None:
            return
        writer.end = end
        writer.generation = writer.tail = None
        if sealed:
            self._writers.pop(ledger, None)
        if writer.on_cut is not None:
            writer.on_cut(ledger, end, sealed)

    async def _settle(self) -> None:
        """Return when everything taken so far is durable or has failed."""
        if self._settled < self._submitted:
            waiter: Future[None] = self._loop.create_future()
            self._waiters.append((self._submitted, waiter))
            await waiter

    def _call_if_clear(self) -> None:
        if self._when_clear and not self.congested:
            callbacks, self._when_clear = self._when_clear, []
            for callback in callbacks:
                callback()

    # --- flush

    async def flush(self, *, recycle: bool = True) -> None:
        """Write everything taken so far to entry logs; then recycle the journal files of it.

        Without `recycle` that is left to the next flush.

        Raises:
            StorageError: it could not be written. It is still in the journal and in memory,
                and the next flush tries again.
        """
        async with self._flush_lock:
            if self._frozen is not None:
                await self._flush_frozen()
            if self._generation.submitted:
                self._frozen, self._generation = self._generation, Generation()
                self._slab = None
                self._restart_flush_timer()
                await self._flush_frozen()
            if self._old_files and recycle:
                await self._recycle()

    async def let_go(self) -> None:
        """Be done with the journals of other workers that were replayed here: they may come back.

        Raises:
            StorageError: the disk did not let us.
        """
        await self.flush()
        own = self._journals / str(self._config.worker)
        if any(path.parent != own for path in self._old_files):
            raise StorageError("journals of processes that are gone could not be removed yet")

    async def _flush_frozen(self) -> None:
        frozen = self._frozen
        assert frozen is not None
        await self._settle()
        try:
            table = await self.stored.write(frozen)
        except OSError as error:
            self._flush_went_wrong(error)
            raise StorageError(f"flush failed: {error}") from error
        if table is not None:
            self._note_flushed(table)
        self._frozen = None
        self._old_files += frozen.files
        self.flushed_entries += frozen.entries
        self.flushes += 1
        frozen.release(self._pool)
        if self._flush_failed:
            self._flush_failed = self._flush_full = False
            self._loop.call_soon(self.on_stuck)
        self._call_if_clear()

    def _flush_went_wrong(self, error: OSError) -> None:
        self._flush_failed = True
        self._flush_full = error.errno in NO_ROOM
        self._loop.call_soon(self.on_stuck)
        self._call_if_clear()

    async def _recycle(self) -> None:
        assert self._journal is not None
        paths = list(self._old_files)
        await self.before_recycle()
        await self.write_down()
        try:
            await self._pools.write(self._recycle_files, paths)
        except OSError as error:
            raise StorageError(f"journal files could not be recycled: {error}") from error
        self.on_recycled()

    def _recycle_files(self, paths: Sequence[Path]) -> None:
        """Recycle our files and remove those of workers that are gone, oldest first."""
        assert self._journal is not None
        for path in paths:
            if self._files.exists(path):
                self._journal.recycle([path])
            self._old_files.remove(path)
            own = path.parent == self._journals / str(self._config.worker)
            if not own and not any(path.parent == other.parent for other in self._old_files):
                for spare in self._files.list(path.parent):
                    self._files.remove(path.parent / spare)
                self._files.remove_dir(path.parent)

    def _flush_soon(self) -> None:
        """Start a flush in the background unless one runs."""
        if (self._flush_task is None or self._flush_task.done()) and not self._stopped:
            self._flush_task = self._loop.create_task(self._flush_in_background())

    async def _flush_in_background(self) -> None:
        while not self._stopped:
            try:
                await self.flush()
            except StorageError:
                logger.exception("flush failed; it is tried again")
                await asyncio.sleep(FLUSH_RETRY_S)
                continue
            if not self._half_full:
                return

    def _restart_flush_timer(self) -> None:
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None

    # --- reading

    def read_cached(self, ledger: int, entry: int, entries_max: int, bytes_max: int) -> Run | None:
        """Return durable entries from `entry` on that are in memory; None: use `read`.

        They are neighbours, and at least one; the limit of bytes may be passed by one entry.
        """
        try:
            return self._read_memory(ledger, entry, entries_max, bytes_max)
        except QuarantinedError:
            return None

    async def read(self, ledger: int, entry: int, entries_max: int, bytes_max: int) -> Run:
        """Return entries from `entry` on, from memory or from an entry log, checked.

        Raises:
            QuarantinedError: the entry is lost; it says how far the loss goes.
            LedgerNotFoundError: nothing at or after this entry is stored in the ledger.
            StorageError: the disk did not let us read; try again.
        """
        for _ in range(READ_ATTEMPTS_MAX):
            run = self._read_memory(ledger, entry, entries_max, bytes_max)
            if run is not None:
                return run
            run = await self.stored.read(ledger, entry, entries_max, bytes_max)
            if run is not None:
                return run
        raise StorageError(f"ledger {ledger}: entry {entry} could not be read")

    def _read_memory(self, ledger: int, entry: int, entries_max: int, bytes_max: int) -> Run | None:
        run = self._generation.read(ledger, entry, entries_max, bytes_max)
        if run is None and self._frozen is not None:
            run = self._frozen.read(ledger, entry, entries_max, bytes_max)
        if run is None:
            return self.stored.read_cached(ledger, entry, entries_max, bytes_max)
        figures = self.stored.figures
        figures.hits += run.count
        figures.hit_bytes += span_bytes(run)
        return run

    # --- space

    def holds(self, ledger: int) -> bool:
        """Tell whether anything of a ledger may still be stored: its tombstone is needed."""
        return (
            ledger in self._writers
            or bool(self._old_files)
            or ledger in self._generation.tails
            or (self._frozen is not None and ledger in self._frozen.tails)
            or self.stored.end(ledger) > 0
        )

    def disk_used_percent(self) -> float:
        """Return how full the file system is. Touches the disk: not for every entry."""
        space = self._files.space(self._config.data)
        return 100.0 * (1 - space.available / space.total) if space.total else 0.0
