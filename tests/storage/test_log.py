"""The log of a partition: positions, rolling, trimming, reading past ledgers and gaps."""

import asyncio
import contextlib
import errno
from typing import Any

import pytest
from crc32c import crc32c
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from magnetar.broker.entry import EARLIEST, LATEST, EntryId
from magnetar.broker.metadata import paths
from magnetar.broker.metadata.chains import Chain, Dropped, drop_changes
from magnetar.broker.metadata.memory import MemoryStore
from magnetar.broker.metadata.store import Delete, Put, StoreError
from magnetar.broker.run import PUBLISH_TIME, Run
from magnetar.broker.storage.errors import Gap, StorageError
from magnetar.broker.storage.log import Log
from magnetar.broker.storage.record import Part
from magnetar.names import TopicName
from tests.storage.disk import SimulatedDisk
from tests.storage.rig import DATA, Rig, run_of, small_config

TOPIC = TopicName.parse("persistent://public/default/t")


class Partition:
    """One log on one disk with its metadata, and the glue that the core is in a broker."""

    def __init__(self, disk: SimulatedDisk, store: MemoryStore, **limits: Any) -> None:
        self.disk = disk
        self.store = store
        self.rig = Rig(disk, small_config(**{"ledger_entries_max": 10, **limits}))
        self.chain = Chain(store, TOPIC)
        self.log = Log(self.rig.ledgers, self.chain, self.rig.config, self.rig.clock)
        self.rig.ledgers.on_commit = self._committed
        self.stored: list[tuple[EntryId, bytes]] = []
        self.failed = 0

    @classmethod
    async def new(cls, disk: SimulatedDisk | None = None, **limits: Any) -> "Partition":
        store = MemoryStore()
        await store.commit([Put(paths.topic(TOPIC), b"{}")])
        return await cls(disk or SimulatedDisk(), store, **limits).start()

    async def start(self) -> "Partition":
        ends = {record.ledger: record.end_entry for record in await self.chain.load()}
        await self.rig.recover(recorded_end=ends.get)
        await self.log.load()
        return self

    async def restart(self) -> "Partition":
        """Be killed, and come back."""
        self.rig.abandon()
        again = Partition(self.disk, self.store, ledger_entries_max=10)
        return await again.start()

    async def publish(self, *bodies: bytes, publish_ms: int = 1_000) -> list[EntryId]:
        """Store entries as one run; return their ids once they are durable or have failed."""
        if not self.log.ready:
            await self.log.open()
        run = run_of(bodies, publish_ms=publish_ms)
        self.log.next_index = run.stamp(self.log.next_index, 7)
        ledger, first = self.log.reserve(len(bodies))
        times = run.i64(PUBLISH_TIME)
        self.log.wrote(len(bodies), sum(map(len, bodies)), min(times), max(times))
        ids = [EntryId(ledger, first + at) for at in range(len(bodies))]
        token = (ledger, first + len(bodies), list(zip(ids, bodies, strict=True)))
        self.rig.ledgers.append(run, [Part(ledger, first, 0, len(bodies), "p")], token)
        await self.rig.settle()
        await turns()
        return ids

    def _committed(self, tokens: Any, error: StorageError | None) -> None:
        for ledger, end, stored in tokens:
            if error is not None:
                self.failed += 1
                continue
            self.log.committed(ledger, end)
            self.stored += stored

    async def everything(self, start: EntryId = EARLIEST) -> list[tuple[EntryId, bytes]]:
        """Read the log to its end as a subscription does, gaps left out."""
        found: list[tuple[EntryId, bytes]] = []
        position = self.log.next_position(start)
        while position < self.log.end:
            got = self.log.read_cached(position, 4, 1 << 20)
            if got is None:
                read = await self.log.read(position, 4, 1 << 20)
                if isinstance(read, Gap):
                    position = self.log.next_position(
                        EntryId(read.last.ledger, read.last.entry + 1)
                    )
                    continue
                got = read
            at, run = got
            if not run.count:
                break
            for row in range(run.count):
                body = bytes(run.body(row))
                assert crc32c(body) == run.u32(2)[row]
                found.append((EntryId(at.ledger, at.entry + row), body))
            position = self.log.next_position(EntryId(at.ledger, at.entry + run.count))
        return found


async def turns(count: int = 6) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_an_empty_log_begins_where_it_ends() -> None:
    log = (await Partition.new()).log
    assert log.first == log.end
    assert log.last == EARLIEST
    assert log.next_position(EARLIEST) == log.end
    assert log.distance(EARLIEST, LATEST) == 0
    assert not log.ready
    assert await log.read(log.end, 10, 10) == (log.end, await nothing(log))


async def nothing(log: Log) -> Run:
    found = await log.read(log.end, 1, 1)
    assert not isinstance(found, Gap)
    assert found[1].count == 0
    return found[1]


async def test_ledgers_roll_and_positions_cross_them() -> None:
    part = await Partition.new()
    for number in range(25):
        await part.publish(b"%d" % number)
    log = part.log
    assert [info.entries for info in log.ledger_infos()] == [10, 10, 5]
    assert [info.sealed for info in log.ledger_infos()] == [True, True, False]
    assert await part.everything() == part.stored
    first, second, third = (info.ledger for info in log.ledger_infos())
    assert first < second < third
    assert log.next_position(EntryId(first, 10)) == EntryId(second, 0)
    assert log.next_position(EntryId(second, 3)) == EntryId(second, 3)
    assert log.next_position(LATEST) == log.end == EntryId(third, 5)
    assert log.previous_position(EntryId(second, 0)) == EntryId(first, 9)
    assert log.previous_position(EntryId(first, 0)) == EARLIEST
    assert log.last == EntryId(third, 4)
    assert log.distance(EntryId(first, 3), EntryId(third, 1)) == 18
    assert log.distance(EARLIEST, log.end) == 25
    assert log.next_index == 25
    assert log.bytes_total == sum(len(body) for _, body in part.stored)


async def test_a_full_ledger_is_recorded_in_the_metadata() -> None:
    part = await Partition.new()
    for _ in range(11):
        await part.publish(b"body", publish_ms=500)
    await turns(20)
    record = (await part.chain.load())[0]
    assert (record.end_entry, record.first_index, record.next_index) == (10, 0, 10)
    assert (record.bytes, record.first_publish_ms, record.last_publish_ms) == (40, 500, 500)


async def test_the_next_ledger_is_there_before_the_last_is_full() -> None:
    part = await Partition.new()
    for _ in range(10):
        await part.publish(b"x")
        assert part.log.ready
    assert part.log.end.entry in {0, 10}


async def test_many_calls_to_open_make_one_ledger() -> None:
    part = await Partition.new()
    await asyncio.gather(*(part.log.open() for _ in range(20)))
    assert len(await part.chain.load()) == 1


async def test_a_restart_brings_everything_back_and_goes_on() -> None:
    part = await Partition.new()
    for number in range(13):
        await part.publish(b"before %d" % number)
    again = await part.restart()
    assert await again.everything() == part.stored
    assert again.log.next_index == 13
    assert all(info.sealed for info in again.log.ledger_infos())
    (position,) = await again.publish(b"after")
    assert position > part.stored[-1][0]
    assert await again.everything() == [*part.stored, (position, b"after")]
    run = await again.log.read(position, 1, 1 << 20)
    assert not isinstance(run, Gap)
    assert run[1].envelope(0).first_index == 13


async def test_messages_that_never_became_durable_leave_no_gap_in_the_index() -> None:
    part = await Partition.new()
    await part.publish(*[b"x"] * 7)
    await part.chain.extend(9, 0, part.log._epoch)  # two more were on their way by then
    again = await part.restart()
    assert again.log.next_index == 7
    await again.publish(b"y")
    assert again.log.next_index == 8
    assert (await again.restart()).log.next_index == 8


async def test_idle_restarts_leave_no_empty_ledgers_behind() -> None:
    part = await Partition.new()
    for _ in range(8):
        await part.publish(b"x")  # near the limit: the next one is fetched
    for _ in range(4):
        part = await part.restart()
        await part.log.open()
    part = await part.restart()
    assert len(await part.chain.load()) == 1
    assert part.log.next_index == 8


async def test_trimming_drops_whole_ledgers_and_writes_tombstones() -> None:
    part = await Partition.new()
    for number in range(25):
        await part.publish(b"%d" % number)
    await turns(20)
    infos = part.log.ledger_infos()
    assert await part.log.trim(EntryId(infos[1].ledger, 4)) == [infos[0].ledger]
    assert part.log.first == EntryId(infos[1].ledger, 0)
    assert await Dropped(part.store).list() == [infos[0].ledger]
    assert await part.everything() == part.stored[10:]
    assert part.log.distance(EARLIEST, part.log.end) == 15
    assert part.log.next_position(EntryId(infos[0].ledger, 3)) == EntryId(infos[1].ledger, 0)
    again = await part.restart()
    assert await again.everything() == part.stored[10:]
    assert again.log.next_index == 25


async def test_the_index_survives_a_trim_of_everything() -> None:
    part = await Partition.new()
    for _ in range(20):
        await part.publish(b"x")
    await turns(20)
    await part.log.trim(part.log.end)
    again = await part.restart()
    assert again.log.next_index == 20


async def test_old_ledgers_are_sealed_so_that_they_can_be_trimmed() -> None:
    part = await Partition.new(ledger_age_s_max=60)
    await part.publish(b"x")
    part.log.roll_if_old()
    assert part.log.ready
    part.rig.clock.advance(61)
    part.log.roll_if_old()
    await turns(20)
    assert not part.log.ready
    assert [info.sealed for info in part.log.ledger_infos()] == [True]
    await part.publish(b"y")
    assert await part.everything() == part.stored


async def test_finding_a_time() -> None:
    part = await Partition.new()
    ids = [(await part.publish(b"x", publish_ms=1_000 + 10 * n))[0] for n in range(35)]
    for flushed in (False, True):
        if flushed:
            await part.rig.ledgers.flush()
        assert await part.log.find_time(0) == ids[0]
        assert await part.log.find_time(1_000 + 10 * 17) == ids[17]
        assert await part.log.find_time(1_000 + 10 * 17 - 5) == ids[17]
        assert await part.log.find_time(10_000) == part.log.end


async def test_an_entry_is_found_by_the_index_of_a_message() -> None:
    part = await Partition.new()
    ids = [(await part.publish(b"m%d" % n))[0] for n in range(25)]
    for flushed in (False, True):
        if flushed:
            await part.rig.ledgers.flush()
        assert [await part.log.find_index(n) for n in range(25)] == ids
        assert await part.log.find_index(25) == EARLIEST


async def test_a_damaged_range_reads_as_a_gap() -> None:
    part = await Partition.new()
    ids = [(await part.publish(b"<entry %d>" % n))[0] for n in range(15)]
    await part.rig.ledgers.flush()
    name = next(name for name in part.disk.names if name.endswith(".log"))
    content = bytearray(part.disk.names[name].data)
    content[content.index(b"<entry 4>") + 1] ^= 1
    part.disk.replace(name, content)
    found = await part.log.read(ids[4], 10, 1 << 20)
    assert isinstance(found, Gap)
    assert (found.first, found.last) == (ids[4], ids[4])
    assert await part.everything() == part.stored[:4] + part.stored[5:]


async def test_after_a_failed_sync_the_log_goes_on_in_another_ledger() -> None:
    part = await Partition.new()
    await part.publish(b"a")
    await part.publish(b"b")
    broken = True

    def fail(step: int, what: str, path: str) -> int | None:
        return errno.EIO if broken and what == "sync" and "/journal/" in path else None

    part.disk.fail = fail
    await part.publish(b"lost")
    assert part.failed == 1
    broken = False
    await turns(20)
    assert not part.log.ready
    assert part.log.next_index == 2
    (position,) = await part.publish(b"c")
    assert [body for _, body in await part.everything()] == [b"a", b"b", b"c"]
    first = (await part.chain.load())[0]
    assert (first.end_entry, first.next_index) == (2, 2)
    again = await part.restart()
    assert [body for _, body in await again.everything()] == [b"a", b"b", b"c"]
    found = await again.log.read(position, 1, 1 << 20)
    assert not isinstance(found, Gap)
    assert found[1].envelope(0).first_index == 2


async def test_after_a_full_disk_the_same_ledger_goes_on() -> None:
    part = await Partition.new(ledger_entries_max=1000)
    await part.publish(b"a")
    await part.rig.ledgers.flush()
    part.disk.capacity = 0
    part.disk.names = {n: i for n, i in part.disk.names.items() if "spare" not in n}
    part.rig.ledgers._journal._spares.clear()  # type: ignore[union-attr]
    failed_at = await part.publish(b"refused", b"refused")
    assert part.failed == 1
    assert part.log.next_index == 1
    part.disk.capacity = None
    assert (await part.publish(b"b"))[0] == failed_at[0]
    assert [body for _, body in await part.everything()] == [b"a", b"b"]


async def test_metadata_that_fails_leaves_the_log_usable_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    part = await Partition.new()
    honest = part.store.commit

    async def fail(changes: Any) -> Any:
        raise StoreError("the disk is full")

    monkeypatch.setattr(part.store, "commit", fail)
    with pytest.raises(StoreError):
        await part.log.open()
    monkeypatch.setattr(part.store, "commit", honest)
    await part.publish(b"a")
    for _ in range(7):
        await part.publish(b"b")
    monkeypatch.setattr(part.store, "commit", fail)
    for _ in range(2):
        await part.publish(b"c")
    monkeypatch.setattr(part.store, "commit", honest)
    await part.publish(b"d")
    await turns(20)
    assert await part.everything() == part.stored
    again = await part.restart()
    assert await again.everything() == part.stored


async def test_a_closed_log_is_taken_over_by_another_process() -> None:
    part = await Partition.new()
    for number in range(12):
        await part.publish(b"%d" % number)
    await part.log.close()
    await part.rig.ledgers.flush()
    taker = Partition(part.disk, part.store, worker=1, workers=2)
    await taker.rig.recover(1)
    await taker.log.load()
    assert await taker.everything() == part.stored
    (position,) = await taker.publish(b"from the taker")
    assert position > part.stored[-1][0]
    with pytest.raises(StoreError):
        await part.log.open()


# --- against a plain model -------------------------------------------------------------

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.lists(st.binary(max_size=40), min_size=1, max_size=6)),
        st.tuples(st.sampled_from(["flush", "restart", "trim", "fail", "reclaim", "age"])),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS, data=st.data())
def test_the_log_agrees_with_a_plain_list(steps: list[Any], data: st.DataObject) -> None:
    asyncio.run(play(steps, data))


async def play(steps: list[Any], data: st.DataObject) -> None:
    part = await Partition.new()
    model: list[tuple[EntryId, bytes]] = []
    indexes: list[int] = []
    for step in steps:
        if step[0] == "publish":
            before = len(part.stored)
            await part.publish(*step[1])
            model += part.stored[before:]
        elif step[0] == "flush":
            await part.rig.ledgers.flush()
        elif step[0] == "restart":
            part = await part.restart()
        elif step[0] == "age":
            part.rig.clock.advance(1 << 20)
            part.log.roll_if_old()
        elif step[0] == "trim":
            at = data.draw(st.sampled_from([EARLIEST, *(entry for entry, _ in model), LATEST]))
            dropped = await part.log.trim(at)
            model = [(entry, body) for entry, body in model if entry.ledger not in dropped]
        elif step[0] == "reclaim":
            dropped_now = set(await Dropped(part.store).list())
            await part.rig.ledgers.stored.reclaim(dropped_now.__contains__)
        elif step[0] == "fail":
            part.disk.fail = lambda step, what, path: errno.EIO if what == "sync" else None
            before = len(part.stored)
            with contextlib.suppress(StorageError, StoreError):
                await part.publish(b"may fail")
            part.disk.fail = lambda step, what, path: None
            model += part.stored[before:]
            await turns(20)
        assert await part.everything() == model
        check_positions(part.log, model, data)
        indexes.append(part.log.next_index)
    assert indexes == sorted(indexes)
    part.rig.abandon()


def check_positions(log: Log, model: list[tuple[EntryId, bytes]], data: st.DataObject) -> None:
    ids = [entry for entry, _ in model]
    assert log.distance(EARLIEST, log.end) == len(ids)
    assert log.last == (ids[-1] if ids else EARLIEST)
    assert log.first == (ids[0] if ids else log.end)
    if not ids:
        return
    some = data.draw(st.sampled_from(ids))
    probe = EntryId(some.ledger, some.entry + data.draw(st.integers(-2, 3)))
    assert log.next_position(probe) == next((i for i in ids if i >= probe), log.end)
    assert log.previous_position(probe) == max((i for i in ids if i < probe), default=EARLIEST)
    other = data.draw(st.sampled_from(ids))
    low, high = sorted((probe, other))
    assert log.distance(low, high) == sum(low <= i < high for i in ids)


def test_the_data_folder_of_the_tests_is_not_real() -> None:
    assert not DATA.exists()


async def test_closing_the_log_of_a_deleted_topic_leaves_nothing_open() -> None:
    part = await Partition.new()
    await part.publish(b"x")
    (record,) = await part.chain.load()
    await part.store.commit(
        [Delete(paths.topic(TOPIC)), *drop_changes(paths.ledgers(TOPIC), [record.ledger])]
    )
    await part.log.close()
    assert not part.rig.ledgers._writers
    await part.rig.ledgers.flush()
    await part.rig.ledgers.stored.reclaim(lambda ledger: True)
    assert not part.rig.ledgers.holds(record.ledger)
