"""Whatever a power loss leaves, everything acknowledged is there, and nothing else is wrong.

What the storage has written down of its own contents (see `stock`) is taken as durable the moment
it is asked for, which is the earliest moment possible: no crash may make a loss of it.

`TESTS_CRASH_STATES` sets how many states are tried, `TESTS_CRASH_SEEDS` on how many different
days; each failure names its seed and state.
"""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from random import Random

import pytest

from magnetar.broker.metadata.holdings import Facts, Held, LedgerFact
from magnetar.broker.storage import pages, segment
from magnetar.broker.storage import record as record_format
from magnetar.broker.storage.errors import StorageError
from magnetar.broker.storage.ledgers import Ledgers
from magnetar.broker.storage.stock import shortage
from tests.storage.disk import VARIANTS, CrashState, SimulatedDisk, SimulatedFile, crash_states
from tests.storage.rig import Rig

STATES = int(os.environ.get("TESTS_CRASH_STATES", "6000"))
SEEDS = int(os.environ.get("TESTS_CRASH_SEEDS", "10"))
SECOND_CRASHES = 3
"""Crashes tried after each recovery, while the recovered store is used."""

Scenario = Callable[[Rig, Random], Awaitable[None]]


async def busy_day(rig: Rig, random: Random) -> None:
    """Append, roll, flush, seal and reclaim, in an order that the seed decides."""
    live = [1, 2, 3]
    next_ledger = 4
    dropped: set[int] = set()
    rig.create(*live)
    for step in range(14):
        for _ in range(random.randint(1, 3)):
            chosen = random.sample(live, random.randint(1, len(live)))
            rig.append(*((ledger, random.randint(1, 9)) for ledger in chosen))
        if random.random() < 0.3:
            rig.ledgers.note(step, b"a note")
        if random.random() < 0.7:
            await rig.settle()
        what = random.random()
        if what < 0.25:
            await rig.ledgers.flush()
        elif what < 0.4:
            old = live.pop(random.randrange(len(live)))
            end = await rig.ledgers.seal(old)
            rig.files.note(("sealed", (old, end)))  # type: ignore[attr-defined]
            rig.ledgers.ended(old)
            if random.random() < 0.5:
                dropped.add(old)
                rig.files.note(("dropped", old))  # type: ignore[attr-defined]
            rig.create(next_ledger)
            live.append(next_ledger)
            next_ledger += 1
        elif what < 0.5 and dropped:
            await rig.ledgers.stored.reclaim(dropped.__contains__)
    await rig.settle()


async def record(scenario: Scenario, seed: int, *, skip_sync: bool = False) -> SimulatedDisk:
    """Run a scenario and return the disk with its trace and the acknowledgements in it."""
    disk = SimulatedDisk()
    disk.skip_sync = skip_sync
    rig = Rig(disk)
    rig.on_acknowledged = lambda acknowledged: disk.note(("acknowledged", acknowledged))
    await rig.recover()
    write_down(rig, disk)
    await scenario(rig, Random(seed))
    disk.note(("appended", dict(rig.appended)))
    rig.abandon()
    return disk


def write_down(rig: Rig, disk: SimulatedDisk) -> None:
    """Keep the record of what must be on the disk, as `Stock` does, without any delay."""

    def durable() -> None:
        disk.note(("held", rig.ledgers.held()))
        disk.note(("synced", rig.ledgers.synced))

    async def before_recycling() -> None:
        disk.note(("held", rig.ledgers.held()))

    rig.ledgers.on_durable = durable
    rig.ledgers.write_down = before_recycling
    disk.note(("held", rig.ledgers.held()))
    disk.note(("synced", None))


def written_down(state: CrashState) -> Facts:
    """Return what the metadata would know at the moment of the crash."""
    facts = Facts({}, set(), {}, {})
    for note in state.notes:
        assert isinstance(note, tuple)
        what, value = note
        if what == "held":
            journal, ends = value
            facts.held[0] = Held(journal=journal, ends=ends)
        elif what == "synced":
            facts.synced.clear()
            if value is not None:
                facts.synced[0] = value
        elif what == "sealed":
            facts.ledgers[value[0]] = LedgerFact(0, value[1])
        elif what == "dropped":
            facts.ledgers.pop(value, None)
            facts.dropped.add(value)
    for ledger in facts.held[0].ends if facts.held else ():
        if ledger not in facts.dropped:
            facts.ledgers.setdefault(ledger, LedgerFact(0))
    return facts


def told(state: CrashState) -> tuple[dict[int, int], set[int]]:
    """Return what had been acknowledged and what had been dropped before the crash."""
    acknowledged: dict[int, int] = {}
    dropped: set[int] = set()
    for note in state.notes:
        assert isinstance(note, tuple)
        if note[0] == "acknowledged":
            acknowledged = note[1]
        elif note[0] == "dropped":
            dropped.add(note[1])
    return acknowledged, dropped


async def check(state: CrashState, acknowledged: dict[int, int], gone: set[int]) -> Rig:
    """Recover and compare with what had been acknowledged. `gone` may be missing."""
    rig = Rig(state.disk)
    facts = written_down(state)
    recovered = await rig.recover(synced=facts.synced)
    assert recovered.gaps == []
    short = shortage(facts, [0], rig.ledgers.stored.missing, recovered.journals)
    assert not short, f"a false alarm: {short}"
    for ledger, end in acknowledged.items():
        if ledger in gone:
            continue
        assert rig.ledgers.durable_end(ledger) >= end, f"ledger {ledger} lost entries"
        await rig.check(ledger)
    return rig


async def use_and_crash_again(
    rig: Rig, disk: SimulatedDisk, started: int, gone: set[int], random: Random
) -> int:
    """Go on with a recovered store, crash again somewhere, recover again."""
    # What recovery kept is durable now, so it must be there the next time as well.
    kept = {ledger: rig.ledgers.durable_end(ledger) for ledger in rig.ledgers.stored.ledgers()}
    disk.note(("acknowledged", kept))
    rig.on_acknowledged = lambda more: disk.note(("acknowledged", {**kept, **more}))
    write_down(rig, disk)
    rig.create(100, 101)
    rig.append((100, 5), (101, 3))
    await rig.settle()
    if random.random() < 0.5:
        await rig.ledgers.flush()
    rig.append((101, 4), (100, 2))
    await rig.settle()
    for ledger in (100, 101):
        await rig.check(ledger)
    states = [
        state
        for state in crash_states(disk.trace, disk.folders, random, keep=0.1)
        if state.at > started
    ]
    states = random.sample(states, min(SECOND_CRASHES, len(states)))
    for second in states:
        acknowledged, _ = told(second)
        (await check(second, acknowledged, gone)).abandon()
    return len(states)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(SEEDS))
async def test_a_crash_at_any_write_loses_nothing_acknowledged(seed: int) -> None:
    disk = await record(busy_day, seed)
    random = Random(seed)
    events = sum(1 for event in disk.trace if event.what != "note")
    keep = min(1.0, STATES / SEEDS / (events * len(VARIANTS)))
    tried = 0
    for state in crash_states(disk.trace, disk.folders, random, keep=keep):
        acknowledged, gone = told(state)
        again = random.random() < 0.2
        started = state.disk.start_trace() if again else 0
        try:
            rig = await check(state, acknowledged, gone)
            tried += 1
            if again:
                tried += await use_and_crash_again(rig, state.disk, started, gone, random)
            rig.abandon()
        except (AssertionError, StorageError) as error:
            where = f"seed {seed}, event {state.at}, {state.variant}"
            raise AssertionError(f"after a crash at {where}: {error}") from error
    assert tried >= min(STATES / SEEDS, events * len(VARIANTS)) * 0.5


# --- negative controls: the tests above see what they are meant to see -----------------


async def violations(disk: SimulatedDisk, random: Random, keep: float) -> int:
    """Count the crash states that break the promise."""
    found = 0
    for state in crash_states(disk.trace, disk.folders, random, keep=keep):
        acknowledged, gone = told(state)
        try:
            (await check(state, acknowledged, gone)).abandon()
        except (AssertionError, StorageError, UnicodeDecodeError):
            found += 1
    return found


async def test_without_syncs_the_loss_is_seen() -> None:
    disk = await record(busy_day, 1, skip_sync=True)
    assert await violations(disk, Random(1), keep=0.1) > 10


async def test_without_the_sync_of_the_journal_the_loss_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def sync(file: SimulatedFile) -> None:
        if not file._path.endswith(".journal"):
            honest(file)

    honest = SimulatedFile.sync
    monkeypatch.setattr(SimulatedFile, "sync", sync)
    disk = await record(busy_day, 2)
    assert await violations(disk, Random(2), keep=0.1) > 10


async def test_without_the_sync_of_folders_the_loss_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(SimulatedDisk, "sync_dir", lambda disk, path: None)
    disk = await record(busy_day, 3)
    assert await violations(disk, Random(3), keep=0.1) > 10


async def test_a_file_that_is_used_again_before_that_is_written_down_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(rig: Rig, disk: SimulatedDisk) -> None:
        honest(rig, disk)
        rig.ledgers.write_down = no_record

    async def no_record() -> None:
        pass

    honest = write_down
    monkeypatch.setattr(sys.modules[__name__], "write_down", never)
    disk = await record(busy_day, 5)
    assert await violations(disk, Random(5), keep=0.1) > 10


async def test_an_end_that_is_written_down_before_its_entry_log_is_durable_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def early(ledgers: Ledgers) -> tuple[list[int], dict[int, int]]:
        journal, _ = honest(ledgers)
        return journal, {ledger: writer.end for ledger, writer in ledgers._writers.items()}

    honest = Ledgers.held
    monkeypatch.setattr(Ledgers, "held", early)
    disk = await record(unsynced_ends, 6)
    monkeypatch.undo()
    assert await violations(disk, Random(6), keep=0.6) > 10


async def unsynced_ends(rig: Rig, random: Random) -> None:
    """Write to one ledger while more is on its way than is durable."""
    rig.create(1)
    for _ in range(20):
        rig.append((1, 3))
        await asyncio.sleep(0)
        rig.append((1, 2))
    await rig.settle()


async def test_a_journal_file_that_is_written_down_before_it_holds_anything_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def early(ledgers: Ledgers) -> tuple[list[int], dict[int, int]]:
        journal, ends = honest(ledgers)
        assert ledgers._journal is not None
        return [*journal, ledgers._journal._next_file], ends

    honest = Ledgers.held
    monkeypatch.setattr(Ledgers, "held", early)
    disk = await record(busy_day, 7)
    monkeypatch.undo()
    assert await violations(disk, Random(7), keep=0.1) > 10


async def test_without_the_checksums_of_the_journal_wrong_bytes_are_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = await record(busy_day, 4)
    monkeypatch.setattr(record_format, "head_is_valid", lambda header, data: True)
    monkeypatch.setattr(record_format, "body_is_valid", lambda header, data: True)
    monkeypatch.setattr(segment, "Pages", pages.Pages)  # the compiled one refuses such rows itself
    assert await violations(disk, Random(4), keep=0.2) > 0
