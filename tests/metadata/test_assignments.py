"""The table that all processes share survives, and two that change it at once both succeed."""

import asyncio

import pytest

from magnetar.broker.assignment import Assignment, Change
from magnetar.broker.metadata import assignments, paths
from magnetar.broker.metadata.memory import MemoryStore
from magnetar.broker.metadata.store import ConflictError, Put


async def test_the_table_of_a_first_start_is_the_same_for_all() -> None:
    store = MemoryStore()
    assert await assignments.load(store) is None
    begun = await assignments.begin(store, 2)
    assert begun.table == Assignment.fresh(2)
    assert await assignments.load(store) == begun


async def test_a_table_that_suits_survives_a_restart_and_another_is_made_anew() -> None:
    store = MemoryStore()
    await assignments.begin(store, 2)
    changed = await assignments.change(store, Change(pins={"persistent://a/b/c": 1}))
    assert await assignments.begin(store, 2) == changed
    assert (await assignments.begin(store, 3)).table == Assignment.fresh(3)


async def test_changes_at_the_same_time_are_all_made() -> None:
    store = MemoryStore()
    await assignments.begin(store, 1)
    parts = [Change(shares={share: 1}) for share in range(8)]
    made = await asyncio.gather(*(assignments.change(store, part) for part in parts))
    assert len({each.version for each in made}) == 8
    found = await assignments.load(store)
    assert found is not None
    assert found.table.owned(1) == 8


async def test_whoever_watches_hears_of_a_change() -> None:
    store = MemoryStore()
    await assignments.begin(store, 1)
    heard: list[int] = []
    stop = assignments.watch(store, lambda: heard.append(1))
    await assignments.change(store, Change(shares={0: 1}))
    assert heard
    stop()
    await assignments.change(store, Change(shares={0: 0}))
    assert len(heard) == 1


async def test_a_change_that_others_keep_overtaking_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = MemoryStore()
    known = await assignments.begin(store, 1)

    async def stale(_: object) -> assignments.Known:
        await store.commit([Put(paths.ASSIGNMENT, b"{}")])
        return known

    monkeypatch.setattr(assignments, "load", stale)
    with pytest.raises(ConflictError):
        await assignments.change(store, Change(shares={0: 1}))
