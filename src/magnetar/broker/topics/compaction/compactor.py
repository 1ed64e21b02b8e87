"""Who compacts: one topic after the other, as many at once as a process may.

    start ──▶ RUNNING ── waits for its turn
                 │ begin        the ledger is known in the metadata          a crash: dropped
                 │ first pass                                                 at the next load
                 │ second pass  survivors ──▶ the ledger, run by run, each durable
                 │ seal
                 └ finish       one commit: the new view, the old one is garbage
    anything goes wrong ──▶ ERROR; the ledger that was begun is dropped, the old view stays

A compaction ends with its topic: whoever loads it next finds what was begun, and drops it.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from magnetar.broker.clock import Clock
from magnetar.broker.config import BrokerConfig
from magnetar.broker.entry import EARLIEST, EntryId
from magnetar.broker.metadata.compactions import CompactionRecord, Compactions, Source
from magnetar.broker.metadata.store import Store, StoreError
from magnetar.broker.metrics import Metrics
from magnetar.broker.port import NotAllowedError, PortError
from magnetar.broker.run import ROW_SIZE, Run
from magnetar.broker.storage.errors import StorageError
from magnetar.broker.storage.ledgers import Ledgers
from magnetar.broker.storage.log import Log
from magnetar.broker.storage.record import Part
from magnetar.broker.topics.compaction.compacted import Compacted, Status
from magnetar.broker.topics.compaction.passes import (
    READ_BYTES,
    READ_ENTRIES,
    Compaction,
    CompactionError,
    Opener,
    Survivor,
    Tally,
    ViewDamagedError,
)
from magnetar.broker.topics.compaction.view import View
from magnetar.broker.topics.cursors.transaction_buffer import DecidedLog
from magnetar.names import TopicName

logger = logging.getLogger(__name__)

AT_ONCE_MAX = 2
"""Compactions of one process that run at the same time; others wait."""
AGAIN_S = 60.0
"""How long a topic that could not be compacted is left alone, unless somebody asks."""
WAITING_MAX = 10_000
"""Compactions that wait for their turn."""


class AlreadyRunningError(PortError):
    """The topic is being compacted already."""


class Compactable(Protocol):
    """A topic, as it is compacted."""

    name: TopicName
    compacted: Compacted | None

    @property
    def log(self) -> Log: ...
    @property
    def decided(self) -> Log | DecidedLog: ...


class Compactor:
    """Compacts the topics of one process."""

    def __init__(  # noqa: PLR0913, PLR0917 - what it works with; a field is no step
        self,
        ledgers: Ledgers,
        store: Store,
        config: BrokerConfig,
        clock: Clock,
        metrics: Metrics,
        open_body: Opener | None,
        refusal: Callable[[], str],
    ) -> None:
        """Open bodies with `open_body`; `refusal` says why nothing can be stored, if so."""
        self._ledgers = ledgers
        self._store = store
        self._config = config
        self._clock = clock
        self._open_body = open_body
        self._refusal = refusal
        self._turns = asyncio.Semaphore(AT_ONCE_MAX)
        self._running = set[Compacted]()
        metrics.gauge(
            "magnetar_compactions_running",
            "Compactions that run or wait for their turn.",
            lambda: len(self._running),
        )
        self._read = metrics.counter(
            "magnetar_compaction_read_bytes_total", "Bytes that compaction has read."
        )
        self._written = metrics.counter(
            "magnetar_compaction_written_bytes_total", "Bytes that compaction has written."
        )
        self._lost = metrics.counter(
            "magnetar_compaction_lost_ranges_total", "Damage that compaction has left out."
        )

    # --- what a topic has

    async def load(self, topic: TopicName, log: Log) -> Compacted | None:
        """Return what a topic has of an earlier compaction; what a crash left is dropped.

        Raises:
            StoreError: the metadata could not be read or changed.
        """
        compactions = Compactions(self._store, topic)
        known = await compactions.load()
        if not known:
            return None
        finished = {ledger: each for ledger, each in known.items() if each.end_entry is not None}
        newest = max(finished, default=None)
        leftovers = [ledger for ledger in known if ledger != newest]
        if leftovers:
            logger.info("topic %s: %d unfinished compactions are dropped", topic, len(leftovers))
            await compactions.drop(leftovers, log.epoch)
            for ledger in leftovers:
                self._ledgers.ended(ledger)
        return None if newest is None else self._side(View(newest, known[newest], self._ledgers))

    def _side(self, view: View | None) -> Compacted:
        return Compacted(view, lambda body: self._opener(body).survivors())

    @property
    def _opener(self) -> Opener:
        if self._open_body is None:
            raise NotAllowedError("this process cannot open messages: nothing is compacted here")
        return self._open_body

    # --- starting and ending

    def start(self, topic: Compactable) -> None:
        """Compact a topic, soon.

        Raises:
            AlreadyRunningError: it is being compacted.
            NotAllowedError: the topic is not persistent, or too many wait.
        """
        log, opener = topic.log, self._opener
        if topic.compacted is None:
            topic.compacted = self._side(None)
        side = topic.compacted
        if side.running:
            raise AlreadyRunningError(f"topic {topic.name} is being compacted already")
        if len(self._running) >= WAITING_MAX:
            raise NotAllowedError(f"{WAITING_MAX} topics wait for compaction already")
        side.status, side.error = Status.RUNNING, ""
        self._running.add(side)
        side.task = asyncio.get_running_loop().create_task(self._guarded(topic, log, side, opener))

    async def stop(self, topic: Compactable) -> None:
        """Break off; return when nothing more is written."""
        side = topic.compacted
        if side is not None and side.task is not None and not side.task.done():
            side.task.cancel()
            await asyncio.wait([side.task])

    async def forget(self, topic: Compactable) -> None:
        """Drop the view of a topic, for good.

        Raises:
            StoreError: the metadata could not be changed; the view is still there.
        """
        await self.stop(topic)
        side = topic.compacted
        if side is not None and side.view is not None:
            log = topic.log
            await Compactions(self._store, topic.name).drop([side.view.ledger], log.epoch)
            side.view = None

    def is_due(self, topic: Compactable, threshold_bytes: int) -> bool:
        """Return whether more than so many bytes came since the last compaction."""
        side = topic.compacted
        if threshold_bytes <= 0 or self._open_body is None:
            return False
        if side is not None and (side.running or self._failed_lately(side)):
            return False
        horizon = EARLIEST if side is None or side.view is None else side.view.horizon
        fresh = 0
        for info in topic.log.ledger_infos():
            if info.ledger > horizon.ledger:
                fresh += info.bytes
            elif info.ledger == horizon.ledger and info.entries:
                fresh += info.bytes * (info.entries - horizon.entry - 1) // info.entries
        return fresh > threshold_bytes

    def _failed_lately(self, side: Compacted) -> bool:
        since_s = (self._clock.wall_ms() - side.failed_ms) / 1000
        return side.status is Status.ERROR and 0 <= since_s < AGAIN_S

    async def _guarded(self, topic: Compactable, log: Log, side: Compacted, opener: Opener) -> None:
        """Compact, and take note of how it went."""
        name = topic.name
        try:
            async with self._turns:
                began_s = self._clock.monotonic()
                tally = await self._compact(topic, log, side, opener)
            side.duration_ms = round(1000 * (self._clock.monotonic() - began_s))
        except asyncio.CancelledError:
            side.status, side.error = Status.ERROR, "the topic was closed meanwhile"
            raise
        except (CompactionError, PortError, StorageError) as error:
            logger.warning("topic %s could not be compacted: %s", name, error)
            self._failed(side, str(error))
        except Exception as error:  # a bug must not leave the topic RUNNING for ever
            logger.exception("topic %s could not be compacted", name)
            self._failed(side, f"{type(error).__name__}: see the log of the broker")
        else:
            if tally is not None:
                side.removed = tally.removed
                side.removed_total += tally.removed
                side.bytes_read = tally.bytes_read
            side.succeeded += 1
            side.finished_ms = self._clock.wall_ms()
            side.status = Status.SUCCESS
        finally:
            self._running.discard(side)

    def _failed(self, side: Compacted, why: str) -> None:
        side.failed_ms = self._clock.wall_ms()
        side.failed += 1
        side.status, side.error = Status.ERROR, why

    # --- one compaction

    async def _compact(
        self, topic: Compactable, log: Log, side: Compacted, opener: Opener
    ) -> Tally | None:
        """Make the next view; None: nothing came since the last one."""
        name, source, view = topic.name, topic.decided, side.view
        horizon = source.last
        if horizon == EARLIEST or (view is not None and horizon <= view.horizon):
            return None
        try:
            return await self._from(name, log, source, side, opener, view, horizon)
        except ViewDamagedError as error:
            assert view is not None
            complete = not view.record.sources or log.first <= (view.record.sources[0].ledger, 0)
            logger.warning("topic %s: %s; compacting without it", name, error)
            return await self._from(
                name,
                log,
                source,
                side,
                opener,
                None if complete else view,
                horizon,
                pass_damage=True,
            )

    async def _from(  # noqa: PLR0913, PLR0917 - what is read, up to where, and for whom
        self,
        name: TopicName,
        log: Log,
        source: Log | DecidedLog,
        side: Compacted,
        opener: Opener,
        view: View | None,
        horizon: EntryId,
        *,
        pass_damage: bool = False,
    ) -> Tally:
        compaction = Compaction(
            source,
            view,
            horizon,
            opener,
            self._clock,
            salt=secrets.token_bytes(16),
            memory_bytes_max=self._config.compaction_memory_bytes_max,
            retain_null_key=self._config.compaction_retain_null_key,
            pass_damage=pass_damage,
        )
        began_ms = self._clock.wall_ms()
        await compaction.first_pass()
        compactions = Compactions(self._store, name)
        ledger = await compactions.begin(self._config.worker, log.epoch)
        finished = False
        try:
            output = _Output(self._ledgers, ledger, self._refusal, self._clock, side.wrote)
            await output.take(compaction.second_pass())
            await output.seal()
            tally = compaction.tally
            now_ms = self._clock.wall_ms()
            record = CompactionRecord(
                worker=self._config.worker,
                end_entry=output.count,
                bytes=tally.bytes,
                horizon_ledger=horizon.ledger,
                horizon_entry=horizon.entry,
                sources=_sources(output.firsts, log, side.view, horizon),
                last_batch=output.last_batch,
                removed=tally.removed,
                finished_ms=now_ms,
                duration_ms=now_ms - began_ms,
            )
            former = [] if side.view is None else [side.view.ledger]
            await compactions.finish(ledger, record, former, log.epoch)
            finished = True
            self._ledgers.ended(ledger)
            side.view = View(ledger, record, self._ledgers)
        finally:
            if not finished:
                await self._abandon(compactions, ledger, log.epoch)
        self._read.value += tally.bytes_read * (compaction.rounds + 1)
        self._written.value += tally.bytes
        self._lost.value += len(tally.lost)
        for gap in tally.lost:
            logger.error("topic %s: compaction leaves out %s: %s", name, gap, gap.reason)
        logger.info(
            "topic %s: %d of %d messages survive up to %s",
            name,
            tally.kept,
            tally.messages,
            horizon,
        )
        return tally

    async def _abandon(self, compactions: Compactions, ledger: int, epoch: int | None) -> None:
        """Drop what was begun. What fails here is left to whoever loads the topic next."""
        try:
            await self._ledgers.seal(ledger)
            await compactions.drop([ledger], epoch)
            self._ledgers.ended(ledger)
        except (StoreError, StorageError, PortError) as error:
            logger.warning("compacted ledger %d is dropped later: %s", ledger, error)


class _Output:
    """Writes survivors into a ledger."""

    def __init__(
        self,
        ledgers: Ledgers,
        ledger: int,
        refusal: Callable[[], str],
        clock: Clock,
        wrote: Callable[[int, float], None],
    ) -> None:
        """Say `wrote`, with how many entries and how many seconds it took, after each write."""
        self._ledgers = ledgers
        self._ledger = ledger
        self._refusal = refusal
        self._clock = clock
        self._wrote = wrote
        self.count = 0
        self.firsts: list[tuple[int, int]] = []
        """Ledger of the topic, and where its survivors begin."""
        self.last_batch = 0
        self._rows = bytearray()
        self._bodies = bytearray()
        ledgers.create(ledger)

    async def take(self, survivors: AsyncIterator[Survivor]) -> None:
        """Write all, each run durable before the next one.

        Raises:
            StorageError: they could not be made durable.
        """
        async for at, row, body, last_batch in survivors:
            written = len(self._rows) // ROW_SIZE
            if not self.firsts or self.firsts[-1][0] != at.ledger:
                self.firsts.append((at.ledger, self.count + written))
            self._rows += len(self._bodies).to_bytes(4, "little") + row[4:]
            self._bodies += body
            self.last_batch = last_batch
            if len(self._bodies) >= READ_BYTES or written + 1 >= READ_ENTRIES:
                await self._write()
        if self._rows:
            await self._write()

    async def _write(self) -> None:
        refusal = self._refusal()
        if refusal:
            raise StorageError(refusal)
        loop = asyncio.get_running_loop()
        if self._ledgers.congested:
            clear = asyncio.Event()
            self._ledgers.call_when_clear(clear.set)
            await clear.wait()
        run = Run(self._rows, self._bodies)
        durable: asyncio.Future[None] = loop.create_future()

        def settled(error: Exception | None) -> None:
            if durable.done():
                return
            if error is None:
                durable.set_result(None)
            else:
                durable.set_exception(error)

        began_s = self._clock.monotonic()
        self._ledgers.append(run, [Part(self._ledger, self.count, 0, run.count, "")], settled)
        count = run.count
        del run  # its views lock the buffers
        self._rows, self._bodies = bytearray(), bytearray()
        await durable
        self._wrote(count, self._clock.monotonic() - began_s)
        self.count += count

    async def seal(self) -> None:
        """Close the ledger.

        Raises:
            StorageError: it has not got all that was written.
        """
        end = await self._ledgers.seal(self._ledger)
        if end != self.count:
            raise StorageError(f"compacted ledger {self._ledger} ends at {end}, not {self.count}")


def _sources(
    firsts: list[tuple[int, int]], log: Log, former: View | None, horizon: EntryId
) -> list[Source]:
    """Return the ledgers that have survivors, and how many entries each had up to the horizon."""
    extents = {} if former is None else {each.ledger: each.extent for each in former.record.sources}
    extents |= {info.ledger: info.entries for info in log.ledger_infos()}
    extents[horizon.ledger] = horizon.entry + 1
    return [Source(ledger, first, extents[ledger]) for ledger, first in firsts]
