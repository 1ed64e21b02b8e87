"""Compaction while the power goes, or the disk fails: the old view or the new one, nothing else."""

import asyncio
import copy
import errno
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from magnetar.broker.clock import ManualClock
from magnetar.broker.metadata.compactions import Compactions
from magnetar.broker.metadata.holdings import load_facts
from magnetar.broker.metadata.memory import MemoryStore
from magnetar.broker.run import Run
from magnetar.broker.storage.ledgers import Ledgers
from magnetar.broker.storage.record import Part
from magnetar.broker.storage.stock import unowned
from magnetar.broker.topics.compaction.compacted import Status
from tests.storage.disk import VARIANTS, SimulatedDisk, crash_states
from tests.topics.compaction.test_compactor import T, compact, ended, publish, say, view
from tests.topics.whole_core import Core

DATA = Path("/data")
LATE_S = 0.002
FIRST = [(f"k{n % 9}", b"first %d" % n) for n in range(40)]
SECOND = [(f"k{n % 7}", b"second %d" % n if n % 5 else None) for n in range(40)]


def core_on(disk: SimulatedDisk, facts: MemoryStore | None = None) -> Core:
    return Core(DATA, ManualClock(), disk, facts, ledger_entries_max=10)


def last_values(*parts: Sequence[tuple[str, bytes | None]]) -> list[tuple[str, bytes | None]]:
    state: dict[str, bytes | None] = {}
    for part in parts:
        for key, value in part:
            state.pop(key, None)
            if value is not None:
                state[key] = value
    return list(state.items())


OLD = [*last_values(FIRST), *SECOND]
NEW = last_values(FIRST, SECOND)


async def cut(seed: int) -> bool:
    """Cut the power at some moment of a compaction; return whether the new view was there."""
    random = Random(seed)
    disk = SimulatedDisk()
    disk.start_trace()
    core = await core_on(disk).start()
    await publish(core, *say(*FIRST))
    await compact(core)
    if random.random() < 0.5:
        await core.ledgers.flush()
    await publish(core, *say(*SECOND))
    topic = await core.catalog.topic(T)
    core.catalog.compactor.start(topic)
    for _ in range(random.randint(0, 80)):
        await asyncio.sleep(0)
    facts = copy.deepcopy(core.facts._values), core.facts._last_change
    *_, state = crash_states(disk.trace, disk.folders, random, [random.choice(VARIANTS)])
    await core.stop()

    store = MemoryStore()
    store._values, store._last_change = facts
    state.disk.folders |= disk.folders
    core = await core_on(state.disk, store).start()
    found = await view(core)
    assert found in (OLD, NEW)
    assert not core.recovered.gaps
    assert not core.ledgers.stored.quarantined()
    assert len(await Compactions(core.store, T).load()) == 1
    await compact(core)
    assert await view(core, name="2") == NEW
    await core.ledgers.flush()
    assert unowned(await load_facts(core.store), core.ledgers.stored.ledgers()) == []
    await core.stop()
    return found == NEW


async def test_a_power_cut_leaves_the_old_view_or_the_new_one() -> None:
    ended_with = [await cut(seed) for seed in range(25)]
    assert 0 < sum(ended_with) < len(ended_with), "the cuts were not where it matters"


async def test_it_is_noticed_if_the_view_is_recorded_before_it_is_durable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Appends are late, and reported at once: the commit of the record overtakes them."""
    whole, sealed = Ledgers.append, Ledgers.seal
    ends: dict[int, int] = {}

    def append(self: Ledgers, run: Run, parts: Sequence[Part], token: Any) -> None:
        if parts[0].producer or not callable(token):
            whole(self, run, parts, token)
            return
        loop = asyncio.get_running_loop()
        ends[parts[0].ledger] = parts[0].first_entry + run.count
        loop.call_later(LATE_S, whole, self, run, parts, None)
        loop.call_soon(token, None)

    async def seal(self: Ledgers, ledger: int) -> int:
        return ends.pop(ledger) if ledger in ends else await sealed(self, ledger)

    monkeypatch.setattr(Ledgers, "append", append)
    monkeypatch.setattr(Ledgers, "seal", seal)
    for seed in range(60):
        try:
            await cut(seed)
        except AssertionError:
            return
    raise AssertionError("nobody noticed")


async def test_a_disk_that_fails_is_an_error_and_the_old_view_stays() -> None:
    disk = SimulatedDisk()
    core = await core_on(disk).start()
    await publish(core, *say(*FIRST))
    await compact(core)
    await publish(core, *say(*SECOND))
    broken = True

    def fail(step: int, what: str, path: str) -> int | None:
        return errno.EIO if broken and what == "sync" and "/journal/" in path else None

    disk.fail = fail
    topic = await core.catalog.topic(T)
    core.catalog.compactor.start(topic)
    await ended(topic)
    assert topic.compacted is not None
    assert topic.compacted.status is Status.ERROR
    assert topic.compacted.error
    broken = False
    assert await view(core) == OLD
    assert len(await Compactions(core.store, T).load()) == 1
    await core.catalog._duties.look_at_disk()
    await compact(core)
    assert await view(core, name="2") == NEW
    await core.stop()
