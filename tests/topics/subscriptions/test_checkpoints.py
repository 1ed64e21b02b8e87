"""Cursors and sequence ids are durable soon, and stay so when journal files are used again."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from magnetar.broker.metadata.store import Change, StoreUnavailableError
from magnetar.broker.port import SubscriptionType
from magnetar.names import TopicName
from tests.topics.whole_core import Core

T = TopicName.parse("t")


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    core = await Core(tmp_path / "data", cursor_interval_ms=5).start()
    yield core
    await core.stop()


async def left_after_crash(core: Core, data: Path, count: int) -> list[str]:
    """What a subscription gets after a crash at this moment."""
    after = await core.crashed(data).start()
    try:
        return await (await after.consumer("t", type=SubscriptionType.SHARED)).bodies(count)
    finally:
        await after.stop()


async def test_an_acknowledgement_is_durable_soon(core: Core, tmp_path: Path) -> None:
    listener = await core.consumer("t", from_earliest=True)
    places = await (await core.producer("t")).send("a", "b", "c")
    await listener.bodies(3)
    listener.acknowledge(places[1])
    await core.noted()
    assert await left_after_crash(core, tmp_path / "after", 2) == ["a", "c"]


async def test_many_acknowledgements_of_one_interval_are_one_note(core: Core) -> None:
    listener = await core.consumer("t", from_earliest=True)
    places = await (await core.producer("t")).send(*(f"m{i}" for i in range(100)))
    await listener.bodies(100)
    await core.noted()
    before = core.catalog.checkpoints._notes.value
    for place in places[1::2]:
        listener.acknowledge(place)
    await core.noted()
    assert core.catalog.checkpoints._notes.value == before + 1


async def test_cursors_survive_the_reuse_of_the_journal_that_held_them(
    core: Core, tmp_path: Path
) -> None:
    listener = await core.consumer("t", from_earliest=True, type=SubscriptionType.SHARED)
    places = await (await core.producer("t")).send("a", "b", "c", "d")
    await listener.bodies(4)
    listener.acknowledge(places[0], places[2])
    await core.noted()
    await core.ledgers.flush()
    assert core.recovered.notes == []
    listener.acknowledge(places[3])
    await core.noted()
    assert await left_after_crash(core, tmp_path / "after", 1) == ["b"]


async def test_an_acknowledgement_during_a_snapshot_is_part_of_the_next_one(
    core: Core, tmp_path: Path
) -> None:
    listener = await core.consumer("t", from_earliest=True, type=SubscriptionType.SHARED)
    places = await (await core.producer("t")).send("a", "b", "c")
    await listener.bodies(3)
    commit = core.store.commit

    async def slow(changes: Sequence[Change]) -> list[int | None]:
        listener.acknowledge(places[2])
        return await commit(changes)

    listener.acknowledge(places[0])
    core.store.commit = slow  # type: ignore[method-assign]
    await core.catalog.save_everything()
    core.store.commit = commit  # type: ignore[method-assign]
    await core.noted()
    await core.ledgers.flush()
    await core.catalog.save_everything()
    assert await left_after_crash(core, tmp_path / "after", 1) == ["b"]


async def test_a_snapshot_that_fails_is_taken_again_whole(core: Core, tmp_path: Path) -> None:
    listener = await core.consumer("t", from_earliest=True, type=SubscriptionType.SHARED)
    places = await (await core.producer("t")).send("a", "b", "c", "d")
    await listener.bodies(4)
    listener.acknowledge(places[1])
    await core.noted()
    commit = core.store.commit

    async def refuse(changes: Sequence[Change]) -> list[int | None]:
        raise StoreUnavailableError("disk full")

    core.store.commit = refuse  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailableError):
        await core.catalog.save_everything()
    core.store.commit = commit  # type: ignore[method-assign]
    listener.acknowledge(places[3])
    await core.catalog.save_everything()
    await core.ledgers.flush()
    assert await left_after_crash(core, tmp_path / "after", 2) == ["a", "c"]


async def test_a_note_that_could_not_be_written_is_written_again(
    core: Core, tmp_path: Path
) -> None:
    listener = await core.consumer("t", from_earliest=True, type=SubscriptionType.SHARED)
    places = await (await core.producer("t")).send("a", "b", "c")
    await listener.bodies(3)
    note, lost = core.ledgers.note, []

    def lose(key: int, payload: bytes, token: object | None = None) -> None:
        lost.append(payload)
        core.ledgers.note = note  # type: ignore[method-assign]
        assert callable(token)
        asyncio.get_running_loop().call_soon(token, OSError("EIO"))

    await core.noted()
    core.ledgers.note = lose  # type: ignore[method-assign]
    listener.acknowledge(places[1])
    await core.noted()
    assert len(lost) == 1
    assert await left_after_crash(core, tmp_path / "after", 2) == ["a", "c"]


async def test_subscriptions_keep_their_properties_and_their_backlog_over_a_crash(
    core: Core, tmp_path: Path
) -> None:
    listener = await core.consumer("t", from_earliest=True, properties={"team": "red"})
    places = await (await core.producer("t")).send("a", "b", "c")
    await listener.bodies(3)
    listener.acknowledge(places[0])
    await core.noted()
    after = await core.crashed(tmp_path / "after").start()
    subscription = (await after.catalog.topic(T)).subscriptions["s"]
    assert subscription.properties == {"team": "red"}
    assert subscription.stats()["msgBacklog"] == 2
    await after.stop()


async def test_a_clean_stop_needs_no_journal(core: Core, tmp_path: Path) -> None:
    listener = await core.consumer("t", from_earliest=True, type=SubscriptionType.SHARED)
    places = await (await core.producer("t")).send("a", "b", "c")
    await listener.bodies(3)
    listener.acknowledge(places[1])
    await core.stop()
    again = await Core(core.config.data, cursor_interval_ms=5).start()
    assert again.recovered.notes == []
    assert again.recovered.ends == {}
    assert await (await again.consumer("t", type=SubscriptionType.SHARED)).bodies(2) == ["a", "c"]
    await again.stop()
