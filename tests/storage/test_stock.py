"""What is missing is named, what nobody owns is kept, and nothing else is said."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magnetar.broker.entry import EntryId
from magnetar.broker.metadata import paths
from magnetar.broker.metadata.chains import Chain, drop_changes, reserve_ledgers_up_to
from magnetar.broker.metadata.holdings import Facts, Held, LedgerFact, load_facts
from magnetar.broker.metadata.memory import MemoryStore
from magnetar.broker.metadata.store import Put, StoreUnavailableError
from magnetar.broker.storage.errors import REST_OF_LEDGER, Gap, StorageError
from magnetar.broker.storage.log import Log
from magnetar.broker.storage.record import Part
from magnetar.broker.storage.stock import Stock, shortage, unowned, unowned_text
from magnetar.broker.storage.verify import Contents, Verified, no_progress, verify_folder
from magnetar.names import TopicName
from tests.storage.disk import SimulatedDisk
from tests.storage.rig import DATA, Rig, run_of, small_config

TOPIC = TopicName.parse("persistent://public/default/t")
OTHER = TopicName.parse("persistent://public/default/other")


class Broker:
    """One process as far as it stores: ledgers, metadata, the record of what is held."""

    def __init__(self, disk: SimulatedDisk, store: MemoryStore, **settings: Any) -> None:
        self.disk = disk
        self.store = store
        self.rig = Rig(disk, small_config(**settings))
        self.logs: dict[TopicName, Log] = {}
        self.rig.ledgers.on_commit = lambda tokens, error: None

    async def start(self) -> "Broker":
        facts = await load_facts(self.store)
        ledgers = self.rig.ledgers
        recovered = await ledgers.recover(
            sorted({self.rig.config.worker, *range(self.rig.config.workers, 4)})
            if self.rig.config.worker == 0
            else [self.rig.config.worker],
            facts.sealed_ends.get,
            facts.synced,
        )
        await reserve_ledgers_up_to(self.store, recovered.highest_ledger)
        self.stock = Stock(self.store, ledgers, self.rig.config.worker)
        await self.stock.take(recovered, self.rig.config.workers)
        return self

    async def publish(self, topic: TopicName, count: int) -> int:
        """Publish so many entries; return the ledger of the last one."""
        log = await self.log(topic)
        await log.open()
        for _ in range(count):
            if not log.ready:
                await log.open()
            ledger, first = log.reserve(1)
            run = run_of([b"%d:%d" % (ledger, first)])
            log.next_index += 1
            self.rig.ledgers.append(run, [Part(ledger, first, 0, 1, "p")], None)
            log.wrote(1, len(run.buffer), 1, 1)
            await self.rig.settle()
            log.committed(ledger, first + 1)
        return ledger

    async def log(self, topic: TopicName) -> Log:
        if topic not in self.logs:
            await self.store.commit([Put(paths.topic(topic), b"{}")])
            chain = Chain(self.store, topic)
            log = Log(self.rig.ledgers, chain, self.rig.config, self.rig.clock)
            await log.load()
            self.logs[topic] = log
        return self.logs[topic]

    async def flush(self) -> None:
        await self.rig.ledgers.flush()

    async def stop(self) -> None:
        for log in self.logs.values():
            await log.close()
        await self.stock.stop()
        await self.rig.ledgers.stop()

    async def kill(self) -> None:
        await self.stock.stop()
        self.rig.abandon()

    async def again(self, store: MemoryStore | None = None) -> "Broker":
        return await Broker(self.disk, store or self.store).start()

    @property
    def lost(self) -> list[tuple[EntryId, EntryId]]:
        return [(gap.first, gap.last) for gap in self.rig.ledgers.stored.quarantined()]

    async def read(self, topic: TopicName) -> list[EntryId | Gap]:
        """Read a topic from its start, passing gaps as a consumer does."""
        log = await self.log(topic)
        found: list[EntryId | Gap] = []
        at = log.first
        while at < log.end:
            item = await log.read(at, 100, 1 << 20)
            if isinstance(item, Gap):
                found.append(item)
                at = EntryId(item.last.ledger, item.last.entry + 1)
            else:
                first, run = item
                found += [EntryId(first.ledger, first.entry + row) for row in range(run.count)]
                for row in range(run.count):
                    body = b"%d:%d" % (first.ledger, first.entry + row)
                    assert bytes(run.body(row)) == body, "another topic's entry"
                at = EntryId(first.ledger, first.entry + run.count)
            at = log.next_position(at)
        return found


async def new() -> Broker:
    return await Broker(SimulatedDisk(), MemoryStore()).start()


async def copy_of(store: MemoryStore) -> MemoryStore:
    """Return the metadata as a copy of the file would hold it."""
    copy = MemoryStore()
    await copy.commit([Put(key, found.value) for key, found in await store.scan("")])
    return copy


def files(disk: SimulatedDisk, folder: str) -> list[str]:
    return sorted(
        name
        for name in disk.names
        if name.startswith(f"{DATA}/{folder}/") and "spare-" not in name and "." in Path(name).name
    )


async def doctor(broker: Broker) -> Verified:
    facts = await load_facts(broker.store)
    return verify_folder(DATA, broker.disk, no_progress, lambda: facts)


async def test_whatever_way_it_ends_a_start_has_nothing_to_say(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = await new()
    for round_number in range(6):
        await broker.publish(TOPIC, 5)
        await broker.flush()
        await broker.publish(TOPIC, 3)
        await (broker.stop() if round_number % 2 else broker.kill())
        assert (await doctor(broker)).sound
        broker = await broker.again()
    assert len(await broker.read(TOPIC)) == 6 * 8
    assert broker.lost == []
    assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []


# --- entry logs


async def test_the_entries_of_a_removed_log_are_named_and_passed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = await new()
    ledger = await broker.publish(TOPIC, 5)
    await broker.stop()
    [name] = files(broker.disk, "entries")
    broker.disk.remove(Path(name))
    found = await doctor(broker)
    assert not found.sound
    assert [str(gap) for each in found.findings for gap in each.gaps] == [
        f"{ledger}:0 to {ledger}:4"
    ]
    broker = await broker.again()
    assert broker.lost == [(EntryId(ledger, 0), EntryId(ledger, 4))]
    assert f"{ledger}:0 to {ledger}:4" in caplog.text
    await broker.publish(TOPIC, 2)
    gap, *rest = await broker.read(TOPIC)
    assert isinstance(gap, Gap)
    assert gap[:2] == broker.lost[0]
    assert len(rest) == 2


async def test_of_a_ledger_that_was_still_open_what_was_flushed_is_known() -> None:
    broker = await new()
    ledger = await broker.publish(TOPIC, 5)
    await broker.flush()
    [name] = files(broker.disk, "entries")
    await broker.publish(TOPIC, 3)
    await broker.kill()
    broker.disk.remove(Path(name))
    assert not (await doctor(broker)).sound
    broker = await broker.again()
    assert broker.lost == [(EntryId(ledger, 0), EntryId(ledger, 4))]
    gap, *rest = await broker.read(TOPIC)
    assert isinstance(gap, Gap)
    assert rest == [(ledger, 5), (ledger, 6), (ledger, 7)]


async def test_an_open_ledger_of_which_nothing_is_left_is_a_gap_and_not_forgotten() -> None:
    broker = await new()
    ledger = await broker.publish(TOPIC, 5)
    await broker.flush()
    await broker.kill()
    [name] = files(broker.disk, "entries")
    broker.disk.remove(Path(name))
    broker = await broker.again()
    [gap] = await broker.read(TOPIC)
    assert isinstance(gap, Gap)
    assert gap[:2] == (EntryId(ledger, 0), EntryId(ledger, 4))
    await broker.kill()
    broker = await broker.again()
    assert len(broker.lost) == 1, "told once"


@pytest.mark.parametrize("cut", ["half", "empty"])
async def test_of_a_log_that_was_cut_every_lost_range_is_named(cut: str) -> None:
    broker = await new()
    topics = [TopicName.parse(f"persistent://public/default/{n}") for n in range(4)]
    ledgers = [await broker.publish(topic, 6) for topic in topics]
    await broker.stop()
    [name] = files(broker.disk, "entries")
    content = broker.disk.names[name].data
    broker.disk.replace(name, bytes(content[: len(content) // 2] if cut == "half" else b""))
    in_doctor = {gap[:2] for each in (await doctor(broker)).findings for gap in each.gaps}
    broker = await broker.again()
    for topic in topics:
        assert all(isinstance(each, (EntryId, Gap)) for each in await broker.read(topic))
    assert set(broker.lost) == in_doctor
    gone = {(EntryId(ledger, 0), EntryId(ledger, 5)) for ledger in ledgers}
    if cut == "half":
        gone = {each for each in gone if each[0].ledger in ledgers[2:]}
    assert gone <= in_doctor
    assert not (await doctor(broker)).sound


async def test_what_no_topic_has_any_more_is_no_loss(caplog: pytest.LogCaptureFixture) -> None:
    broker = await new()
    ledger = await broker.publish(TOPIC, 5)
    await broker.stop()
    await broker.store.commit(drop_changes(paths.ledgers(TOPIC), [ledger]))
    assert (await doctor(broker)).sound, "dropped, and still there"
    [name] = files(broker.disk, "entries")
    broker.disk.remove(Path(name))
    assert (await doctor(broker)).sound, "dropped, and gone"
    broker = await broker.again()
    assert broker.lost == []
    assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []


# --- journals


def remove(disk: SimulatedDisk, name: str) -> None:
    disk.remove(Path(name))


def empty(disk: SimulatedDisk, name: str) -> None:
    disk.replace(name, b"")


def zero(disk: SimulatedDisk, name: str) -> None:
    disk.replace(name, bytes(len(disk.names[name].data)))


def cut_off(disk: SimulatedDisk, name: str) -> None:
    content = bytes(disk.names[name].data)
    disk.replace(name, content[: len(content.rstrip(b"\0")) * 2 // 3])


def zero_tail(disk: SimulatedDisk, name: str) -> None:
    content = bytes(disk.names[name].data)
    used = len(content.rstrip(b"\0")) * 2 // 3
    disk.replace(name, content[:used] + bytes(len(content) - used))


@pytest.mark.parametrize("damage", [remove, empty, zero, cut_off, zero_tail])
async def test_a_lost_journal_is_told_with_the_ledgers_that_were_open(
    damage: Callable[[SimulatedDisk, str], None], caplog: pytest.LogCaptureFixture
) -> None:
    broker = await new()
    ledger = await broker.publish(TOPIC, 4)
    await broker.flush()
    assert await broker.publish(TOPIC, 6) == ledger
    broker.stock._time_is_up()
    await broker.kill()
    [name] = files(broker.disk, "journal")
    damage(broker.disk, name)
    assert not (await doctor(broker)).sound
    broker = await broker.again()
    assert "journal file" in caplog.text
    [(first, last)] = broker.lost
    assert first.ledger == ledger
    assert first.entry == 4 if damage not in {cut_off, zero_tail} else 4 < first.entry < 10
    assert last == EntryId(ledger, REST_OF_LEDGER)
    assert f"{first} and all that followed" in caplog.text
    read = await broker.read(TOPIC)
    assert read == [EntryId(ledger, entry) for entry in range(first.entry)]
    assert not (await doctor(broker)).sound
    await broker.publish(TOPIC, 1)
    await broker.stop()
    caplog.clear()
    await broker.again()
    assert not [each for each in caplog.records if each.levelno >= logging.ERROR], "told once"


async def test_a_journal_that_was_flushed_may_go() -> None:
    broker = await new()
    await broker.publish(TOPIC, 4)
    await broker.flush()
    await broker.kill()
    for name in list(broker.disk.names):
        if "/journal/" in name and name.endswith(".journal"):
            broker.disk.remove(Path(name))
    assert (await doctor(broker)).sound
    assert (await broker.again()).lost == []


async def test_damage_at_the_end_is_known_for_damage_once_the_end_was_written_down() -> None:
    broker = await new()
    ledger = await broker.publish(TOPIC, 4)
    broker.stock._time_is_up()
    await broker.kill()
    [name] = files(broker.disk, "journal")
    content = bytearray(broker.disk.names[name].data)
    content[content.rindex(b"%d:3" % ledger)] ^= 1
    broker.disk.replace(name, bytes(content))
    found = await doctor(broker)
    assert [gap[:2] for each in found.findings for gap in each.gaps] == [
        (EntryId(ledger, 3), EntryId(ledger, 3))
    ]
    assert (await broker.again()).lost == [(EntryId(ledger, 3), EntryId(ledger, 3))]


async def test_without_that_record_it_looks_like_what_a_crash_cuts_off(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = await new()
    ledger = await broker.publish(TOPIC, 4)
    await broker.kill()
    [name] = files(broker.disk, "journal")
    content = bytearray(broker.disk.names[name].data)
    content[content.rindex(b"%d:3" % ledger)] ^= 1
    broker.disk.replace(name, bytes(content))
    assert (await doctor(broker)).sound
    broker = await broker.again()
    assert "or damaged soon after" in caplog.text
    assert (await doctor(broker)).sound


# --- metadata that is older than the disk


async def test_what_nobody_owns_is_told_kept_and_never_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = await new()
    before = await copy_of(broker.store)
    known = await broker.publish(TOPIC, 3)
    await broker.stop()
    stale = await copy_of(broker.store)
    broker = await broker.again()
    flushed = await broker.publish(OTHER, 5)
    await broker.flush()
    unflushed = await broker.publish(TOPIC, 2)
    await broker.kill()

    broker.store = stale
    found = await doctor(broker)
    assert found.unowned == {flushed: 5, unflushed: 2}
    assert not found.sound
    broker = await broker.again()
    assert f"{flushed} (5 entries), {unflushed} (2 entries)" in caplog.text
    fresh = await broker.publish(OTHER, 4)
    assert fresh > max(flushed, unflushed)
    assert await broker.read(OTHER) == [EntryId(fresh, entry) for entry in range(4)]
    assert await broker.read(TOPIC) == [EntryId(known, entry) for entry in range(3)]
    await broker.rig.ledgers.stored.reclaim({known}.__contains__)
    assert broker.rig.ledgers.stored.entries(flushed) == 5, "kept"
    await broker.stop()

    broker = await broker.again(before)
    assert await broker.publish(OTHER, 1) > fresh


async def test_a_ledger_that_the_old_metadata_knows_as_open_gets_its_longer_end() -> None:
    broker = await new()
    ledger = await broker.publish(TOPIC, 3)
    stale = await copy_of(broker.store)
    await broker.flush()
    assert await broker.publish(TOPIC, 4) == ledger
    await broker.stop()
    broker = await broker.again(stale)
    assert await broker.read(TOPIC) == [EntryId(ledger, entry) for entry in range(7)]


async def test_an_id_that_only_the_quarantine_knows_is_not_given_out_again() -> None:
    broker = await new()
    before = await copy_of(broker.store)
    ledger = await broker.publish(TOPIC, 3)
    await broker.stop()
    [name] = files(broker.disk, "entries")
    broker.disk.remove(Path(name))
    broker = await broker.again()
    await broker.stop()
    broker = await broker.again(before)
    assert await broker.publish(OTHER, 1) > ledger


# --- several processes


async def test_the_first_process_answers_for_those_that_are_gone() -> None:
    disk, store = SimulatedDisk(), MemoryStore()
    second = await Broker(disk, store, worker=1, workers=2).start()
    ledger = await second.publish(TOPIC, 4)
    await second.kill()
    [name] = files(disk, "journal")
    disk.remove(Path(name))
    alone = await Broker(disk, store).start()
    assert alone.lost == [(EntryId(ledger, 0), EntryId(ledger, REST_OF_LEDGER))]
    assert (await load_facts(store)).held.keys() == {0}


async def test_nobody_answers_for_a_process_that_is_there() -> None:
    disk, store = SimulatedDisk(), MemoryStore()
    second = await Broker(disk, store, worker=1, workers=2).start()
    await second.publish(TOPIC, 4)
    first = await Broker(disk, store, worker=0, workers=2).start()
    assert first.lost == []
    assert (await load_facts(store)).held[1].journal == [1]
    await second.kill()


# --- the record


async def test_a_journal_file_is_not_used_again_before_that_is_written_down() -> None:
    broker = await new()
    await broker.publish(TOPIC, 4)
    await broker.stock.stop()
    commit = broker.store.commit

    async def refuse(changes: object) -> list[int | None]:
        raise StoreUnavailableError("the disk is full")

    broker.store.commit = refuse  # type: ignore[method-assign]
    with pytest.raises(StorageError, match="written down"):
        await broker.flush()
    [name] = files(broker.disk, "journal")
    broker.store.commit = commit  # type: ignore[method-assign]
    await broker.flush()
    assert name not in files(broker.disk, "journal")
    assert (await load_facts(broker.store)).held[0].journal == []


async def test_a_flushed_file_is_on_record_until_it_cannot_be_replayed_any_more() -> None:
    broker = await new()
    await broker.publish(TOPIC, 4)
    on_record: list[Held] = []

    async def before_recycling() -> None:
        await write_down()
        on_record.append((await load_facts(broker.store)).held[0])

    write_down = broker.rig.ledgers.write_down
    broker.rig.ledgers.write_down = before_recycling
    await broker.flush()
    await asyncio.gather(*broker.stock._tasks)
    on_record.append((await load_facts(broker.store)).held[0])
    assert [(held.journal, held.old) for held in on_record] == [([], [1]), ([], [])]


async def test_the_record_of_open_ledgers_does_not_grow_with_those_that_ended() -> None:
    broker = await Broker(SimulatedDisk(), MemoryStore(), ledger_entries_max=3).start()
    for _ in range(10):
        await broker.publish(TOPIC, 3)
        await broker.flush()
    await broker.stop()
    assert (await load_facts(broker.store)).held[0] == Held()


# --- comparing


ends = st.integers(0, 12)
ranges = st.lists(st.tuples(ends, ends).map(sorted), max_size=4)


@given(end=ends, there=ranges, known=ranges)
def test_what_is_short_agrees_with_plain_sets(
    end: int, there: list[list[int]], known: list[list[int]]
) -> None:
    contents = Contents()
    for first, after in there:
        contents.add(7, first, after)
    quarantined = [Gap(EntryId(7, low), EntryId(7, high), "") for low, high in known]
    facts = Facts({7: LedgerFact(0, end)}, set(), {}, {})
    found = shortage(facts, [0], contents.missing, {}, quarantined)
    missing = set(range(end))
    missing -= {entry for first, after in there for entry in range(first, after)}
    assert contents.count(7) == len({e for first, after in there for e in range(first, after)})
    missing -= {entry for low, high in known for entry in range(low, high + 1)}
    told = [e for gap in found.gaps for e in range(gap.first.entry, gap.last.entry + 1)]
    assert told == sorted(missing)


def test_only_what_is_neither_owned_nor_dropped_is_unowned() -> None:
    facts = Facts({1: LedgerFact(0)}, {2}, {}, {})
    assert unowned(facts, [1, 2, 3]) == [3]
    assert unowned_text({3: 1_500}).endswith("3 (1,500 entries)")
    assert unowned_text(dict.fromkeys(range(60), 1)).endswith("and 10 more")
