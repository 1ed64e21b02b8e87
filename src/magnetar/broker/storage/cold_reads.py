"""Reads from entry logs on their way: each block once, however many wait for it.

    read ─▶ cached? ──yes──▶ now
              └─no─▶ on its way? ──yes──▶ wait for it
                        └─no─▶ a flight: block and those behind it ··▶ thread ··▶ cache, all waiters
    a block that was read ahead is used ─▶ the next flight of its sequence, before anybody waits

What waits gets its block from the flight, not from the cache, so that a cache too small for all
that is going on costs speed and never progress. A flight is a task of its own: a reader that
leaves takes nothing from the others.

At most `pools.READ_THREADS` flights touch the disk at a time, each with one read of
`read_ahead.READ_BYTES`. So the reads of old data, however many, leave the disk to the journal's
syncs most of the time, and the memory they need is bounded.
"""

import asyncio
from asyncio import TimerHandle
from typing import Any

from magnetar.broker.clock import Clock
from magnetar.broker.config import BrokerConfig
from magnetar.broker.metrics import Counter
from magnetar.broker.run import Run
from magnetar.broker.storage.errors import StorageError
from magnetar.broker.storage.index import Place
from magnetar.broker.storage.pools import Pools
from magnetar.broker.storage.read_cache import Brought, Key
from magnetar.broker.storage.segment import BlockIndex
from magnetar.broker.storage.shelf import Shelf, block_of, cut

EXPIRE_STEP_S = 0.05
"""Blocks that were not used for long enough leave at most this much later."""
AHEAD_MAX = 4
"""Flights that nobody waits for yet, at a time."""

Flight = asyncio.Task[dict[Key, Brought]]


class ColdReads:
    """Brings blocks into the read cache, and lets them go when their time is over."""

    def __init__(
        self, shelf: Shelf, pools: Pools, config: BrokerConfig, clock: Clock, reads: Counter
    ) -> None:
        """Read settings where they are used: they may change. `reads` counts flights."""
        self._shelf = shelf
        self._pools = pools
        self._config = config
        self._clock = clock
        self._reads = reads
        self._searches: dict[Key, asyncio.Task[BlockIndex]] = {}
        """Block indexes on their way, by log and number of the extent."""
        self._flights: dict[Key, Flight] = {}
        self._ahead = 0
        """Flights that nobody waited for when they began."""
        self._timer: TimerHandle | None = None

    def read_cached(self, place: Place, entry: int, entries_max: int, bytes_max: int) -> Run | None:
        """Return entries from `entry` on that are in memory; None: `read` brings them.

        Raises:
            QuarantinedError: the entry is lost; it says how far the loss goes.
        """
        now_s = self._clock.monotonic()
        run = self._shelf.read_cached(place, entry, entries_max, bytes_max, now_s)
        if run is not None:
            figures = self._shelf.figures
            figures.hits += run.count
            figures.old += run.count
            figures.hit_bytes += _bytes_of(place, run.count)
            if self._shelf.ahead.triggers:
                self._look_ahead(place, entry)
        return run

    async def read(self, place: Place, entry: int, entries_max: int, bytes_max: int) -> Run:
        """Return entries from `entry` on, out of one block.

        Raises:
            QuarantinedError: the entry is lost; it says how far the loss goes.
            FileNotFoundError: the log is gone.
            StorageError: the disk did not let us read; try again.
        """
        index = await self._index(place, entry)
        number = block_of(index, place, entry)
        key = (place.table.name, index.offsets[number])
        cached = self.read_cached(place, entry, entries_max, bytes_max)
        if cached is not None:  # it came while the index was read
            return cached
        flight = self._flights.get(key)
        if flight is None:
            flight = self._take_off(place, index, number)
        brought = (await asyncio.shield(flight))[key]
        run = cut(brought.block, brought.ledger, entry, entries_max, bytes_max)
        figures = self._shelf.figures
        figures.misses += run.count
        figures.old += run.count
        figures.miss_bytes += _bytes_of(place, run.count)
        return run

    async def _index(self, place: Place, entry: int) -> BlockIndex:
        index = self._shelf.index(place)
        if index is not None:
            return index
        key = (place.table.name, place.row)
        search = self._searches.get(key)
        if search is None:
            search = self._pools.loop.create_task(self._search(place, entry))
            search.add_done_callback(_look_at)
            self._searches[key] = search
        return await asyncio.shield(search)

    async def _search(self, place: Place, entry: int) -> BlockIndex:
        try:
            index = await self._pools.read(self._shelf.load_index, place)
        except FileNotFoundError:
            raise
        except OSError as error:
            self._shelf.count_failed_index(place, entry)
            raise StorageError(f"{place.table.name} could not be read: {error}") from error
        finally:
            del self._searches[place.table.name, place.row]
        self._shelf.keep_index(place, index)
        return index

    # --- flights

    def _take_off(self, place: Place, index: BlockIndex, first: int) -> Flight:
        """Read a block and, in a sequence, those behind it that are neither here nor coming."""
        name, offsets, cache = place.table.name, index.offsets, self._shelf.cache
        entries = self._config.read_ahead_entries
        planned = self._shelf.ahead.plan(name, index, first, entries, cache.bytes_max)
        last = first
        while last < planned:
            key = (name, offsets[last + 1])
            if key in self._flights or key in cache:
                break
            last += 1
        flight = self._pools.loop.create_task(self._fly(place, index, first, last))
        flight.add_done_callback(_look_at)
        for number in range(first, last + 1):
            self._flights[name, offsets[number]] = flight
        return flight

    async def _fly(
        self, place: Place, index: BlockIndex, first: int, last: int
    ) -> dict[Key, Brought]:
        name = place.table.name
        try:
            self._reads.value += 1
            try:
                found = await self._pools.read(self._shelf.load, place, index, first, last)
            except FileNotFoundError:
                raise
            except OSError as error:
                given_up = await self._pools.read(
                    self._shelf.count_failed_read, place, index, first
                )
                if given_up is None:
                    raise StorageError(f"{name} could not be read: {error}") from error
                found = [given_up]
            if len(found) <= last - first:
                for number in range(first + len(found), last + 1):
                    del self._flights[name, index.offsets[number]]
                last = first + len(found) - 1
            brought = {
                (name, index.offsets[number]): each for number, each in enumerate(found, first)
            }
            now_s = self._clock.monotonic()
            for key, each in brought.items():
                self._shelf.cache.keep(key, each, now_s)
            if self._timer is None:
                self._expire_in(self._config.read_cache_ttl_ms / 1000)
            return brought
        finally:
            for number in range(first, last + 1):
                del self._flights[name, index.offsets[number]]

    def _look_ahead(self, place: Place, entry: int) -> None:
        """If a sequence has come to the place where it reads on, let it."""
        index = self._shelf.index(place)
        if index is None:
            return
        name = place.table.name
        number = self._shelf.ahead.due((name, index.offsets[block_of(index, place, entry)]))
        if number is None or self._ahead >= AHEAD_MAX:
            return
        following = (name, index.offsets[number])
        if following not in self._flights and following not in self._shelf.cache:
            self._ahead += 1
            self._take_off(place, index, number).add_done_callback(self._landed)

    def _landed(self, _: Flight) -> None:
        self._ahead -= 1

    # --- time

    def settings_changed(self) -> None:
        """Let hold what the config says now."""
        self._shelf.cache.limit(self._config.read_cache_bytes_max)
        if self._timer is not None:
            self._timer.cancel()
            self._expire()

    def stop(self) -> None:
        """Let go of everything."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for task in {*self._flights.values(), *self._searches.values()}:
            task.cancel()

    def _expire_in(self, seconds: float) -> None:
        self._timer = self._pools.loop.call_later(seconds, self._expire)

    def _expire(self) -> None:
        ttl_s = self._config.read_cache_ttl_ms / 1000
        now_s = self._clock.monotonic()
        oldest_s = self._shelf.expire(now_s - ttl_s)
        self._timer = None
        if oldest_s is not None:
            self._expire_in(max(oldest_s + ttl_s - now_s, EXPIRE_STEP_S))


def _bytes_of(place: Place, entries: int) -> int:
    """Return about how many bytes so many entries of an extent have."""
    return place.table.bytes[place.row] * entries // (place.table.counts[place.row] or 1)


def _look_at(task: asyncio.Task[Any]) -> None:
    """Take note of how a task ended: whoever waits for it is told, and that may be nobody."""
    if not task.cancelled():
        task.exception()
