"""Reads of old data: each block once for all who wait, gone in time, and never what is damaged."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

import pytest

from magnetar.broker.storage.errors import QuarantinedError, StorageError
from magnetar.broker.storage.pools import Pools
from magnetar.broker.storage.record import Part
from tests.storage.disk import SimulatedDisk
from tests.storage.rig import InlineExecutor, Rig, run_of, small_config
from tests.waiting import until

ENTRIES = 64
BODY = 64 * 1024
LONG = 1 << 20


class HeldExecutor(Executor):
    """Runs nothing before it is let go."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()

        def run() -> None:
            try:
                future.set_result(fn(*args, **kwargs))
            except Exception as error:  # noqa: BLE001 - whoever waits for the future gets it
                future.set_exception(error)

        self.waiting.append(run)
        return future

    async def run(self) -> None:
        """Let everything go until nothing more comes."""
        for _ in range(20):
            await asyncio.sleep(0)
            waiting, self.waiting = self.waiting, []
            for each in waiting:
                each()


async def stored(disk: SimulatedDisk, pools: Pools | None = None, **settings: Any) -> Rig:
    """Return ledgers 1 and 2 of 4 MiB each, in entry logs."""
    options = {} if pools is None else {"pools": pools}
    rig = Rig(disk, small_config(**settings), **options)
    await rig.recover()
    for ledger in (1, 2):
        rig.create(ledger)
        for entry in range(ENTRIES):
            body = bytes([ledger, entry]) * (BODY // 2)
            rig.ledgers.append(run_of([body]), [Part(ledger, entry, 0, 1, "p")], {})
    await rig.ledgers.flush()
    return rig


def reads_of(disk: SimulatedDisk) -> list[str]:
    """Return a list to which every read of an entry log is added from now on."""
    found: list[str] = []

    def look(step: int, what: str, path: str) -> None:
        if what == "read" and path.endswith(".log"):
            found.append(path)

    disk.fail = look
    return found


async def read(rig: Rig, entry: int, ledger: int = 1) -> bytes:
    run = await rig.ledgers.read(ledger, entry, 1, LONG)
    return bytes(run.body(0)[:2])


async def test_ten_readers_of_one_place_read_the_disk_once() -> None:
    disk, reads = SimulatedDisk(), HeldExecutor()
    pools = Pools(asyncio.get_running_loop(), reads, InlineExecutor())
    rig = await stored(disk, pools)
    seen = reads_of(disk)
    waiting = [asyncio.ensure_future(read(rig, 0)) for _ in range(10)]
    await reads.run()
    assert await asyncio.gather(*waiting) == [bytes([1, 0])] * 10
    assert len(seen) == 3, "the extent, its block index, and the block"
    figures = rig.ledgers.stored.figures
    assert (figures.misses, figures.hits) == (10, 0)
    seen.clear()
    await read(rig, 0)
    assert (figures.misses, figures.hits, seen) == (10, 1, [])


async def test_a_reader_that_leaves_takes_nothing_from_those_who_wait_with_it() -> None:
    disk, reads = SimulatedDisk(), HeldExecutor()
    pools = Pools(asyncio.get_running_loop(), reads, InlineExecutor())
    rig = await stored(disk, pools)
    first, second = (asyncio.ensure_future(read(rig, 9)) for _ in range(2))
    for _ in range(3):
        await asyncio.sleep(0)
        for each in reads.waiting[:1]:
            reads.waiting.remove(each)
            each()
    await asyncio.sleep(0)
    first.cancel()
    await reads.run()
    assert await second == bytes([1, 9])


async def test_readers_one_behind_the_other_read_the_disk_hardly_more_than_one() -> None:
    disk = SimulatedDisk()
    rig = await stored(disk)
    seen = reads_of(disk)
    for entry in range(ENTRIES):
        await read(rig, entry)
    alone = len(seen)
    rig = await stored(SimulatedDisk())
    assert isinstance(rig.files, SimulatedDisk)
    seen = reads_of(rig.files)
    for entry in range(ENTRIES + 10):
        for behind in range(10):
            if 0 <= entry - behind < ENTRIES:
                assert await read(rig, entry - behind) == bytes([1, entry - behind])
    assert len(seen) <= alone * 1.2


async def test_blocks_that_nobody_has_used_for_a_while_leave_and_their_memory_too() -> None:
    rig = await stored(SimulatedDisk(), read_cache_ttl_ms=100.0)
    logs = rig.ledgers.stored
    await read(rig, 0)
    rig.clock.advance(0.09)
    await read(rig, 0)
    rig.clock.advance(0.09)
    await asyncio.sleep(0.12)
    assert logs.cached_bytes > 0, "it was used in between"
    assert logs.cached_entries > 0
    rig.clock.advance(0.02)
    await until(lambda: not logs.cached_bytes)
    assert logs.figures.evicted_entries == logs.figures.inserted_entries > 0
    assert logs._shelf._buffers.free_bytes == 0
    assert logs._cold._timer is None, "nothing is looked at while nothing is there"


async def test_settings_hold_at_once() -> None:
    rig = await stored(SimulatedDisk(), read_cache_ttl_ms=600_000.0)
    logs = rig.ledgers.stored
    for entry in range(ENTRIES):
        await read(rig, entry)
    assert logs.cached_bytes > 2 << 20
    rig.config.read_cache_bytes_max = 1 << 20
    rig.ledgers.settings_changed()
    assert logs.cached_bytes <= 1 << 20 == logs.cache_bytes_max
    rig.clock.advance(1.0)
    rig.config.read_cache_ttl_ms = 100.0
    rig.ledgers.settings_changed()
    assert logs.cached_bytes == 0


async def test_a_ledger_that_is_dropped_leaves_the_cache_and_its_neighbour_stays() -> None:
    rig = await stored(SimulatedDisk())
    logs = rig.ledgers.stored
    await read(rig, 0)
    alone = logs.cached_bytes
    await read(rig, 0, ledger=2)
    assert logs.cached_bytes == 2 * alone
    rig.ledgers.forget([1])
    assert logs.cached_bytes == alone
    assert logs.read_cached(1, 0, 1, LONG) is None
    assert logs.read_cached(2, 0, 1, LONG) is not None
    await logs.reclaim(lambda ledger: ledger == 2)
    assert logs.cached_bytes == 0


async def test_damage_is_found_and_what_is_whole_around_it_is_served() -> None:
    disk = SimulatedDisk()
    rig = await stored(disk)
    (name,) = rig.ledgers.stored.extents.names()
    path = next(each for each in disk.names if each.endswith(name))
    content = bytearray(disk.names[path].data)
    content[content.find(bytes([1, 7]) * 100) + 10] ^= 1
    disk.replace(path, content)
    for _ in range(2):
        with pytest.raises(QuarantinedError) as lost:
            await read(rig, 7)
        assert lost.value.last == 7
        assert rig.ledgers.stored.read_cached(1, 6, 9, LONG) is not None
        with pytest.raises(QuarantinedError):
            rig.ledgers.stored.read_cached(1, 7, 1, LONG)
    assert await read(rig, 6) == bytes([1, 6])
    assert await read(rig, 8) == bytes([1, 8])


async def test_a_cache_too_small_for_all_readers_costs_speed_and_never_progress() -> None:
    disk, reads = SimulatedDisk(), HeldExecutor()
    pools = Pools(asyncio.get_running_loop(), reads, InlineExecutor())
    rig = await stored(disk, pools, read_cache_bytes_max=1 << 20)
    places = list(range(0, ENTRIES, 3)) * 2
    waiting = [asyncio.ensure_future(read(rig, entry)) for entry in places]
    await reads.run()
    assert await asyncio.gather(*waiting) == [bytes([1, entry]) for entry in places]
    assert rig.ledgers.stored.cached_bytes <= 1 << 20


async def test_a_failing_read_is_told_to_all_who_wait_and_the_next_one_is_a_new_one() -> None:
    disk = SimulatedDisk()
    rig = await stored(disk)
    await read(rig, 63)  # so that the index is known
    failing = True

    def fail(step: int, what: str, path: str) -> int | None:
        return 5 if failing and what == "read" and path.endswith(".log") else None

    disk.fail = fail
    found = await asyncio.gather(*(read(rig, 0) for _ in range(3)), return_exceptions=True)
    assert [type(each) for each in found] == [StorageError] * 3
    failing = False
    assert await read(rig, 0) == bytes([1, 0])


async def test_a_sequence_is_read_ahead_of_its_reader() -> None:
    disk = SimulatedDisk()
    rig = await stored(disk)
    figures = rig.ledgers.stored.figures
    for entry in range(ENTRIES):
        await read(rig, entry)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert figures.hits + figures.misses == ENTRIES
    assert figures.misses <= 4, "only where a sequence begins is there anything to wait for"


async def test_what_a_reader_holds_stays_as_it_is_while_its_memory_is_wanted() -> None:
    rig = await stored(SimulatedDisk(), read_cache_bytes_max=1 << 20)
    held = [await rig.ledgers.read(1, entry, 1, LONG) for entry in range(6)]
    for entry in range(ENTRIES):
        await read(rig, entry, ledger=2)
    assert [bytes(run.body(0)[:2]) for run in held] == [bytes([1, entry]) for entry in range(6)]
