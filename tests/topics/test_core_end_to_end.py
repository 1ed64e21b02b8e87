"""The whole core on a real folder: what was published is there, whatever happens in between."""

from pathlib import Path

from tests.topics.whole_core import Core


async def test_what_is_published_is_delivered_in_order(core: Core) -> None:
    listener = await core.consumer("t")
    producer = await core.producer("t")
    places = await producer.send(*(f"m{i}" for i in range(100)))
    assert await listener.bodies(100) == [f"m{i}" for i in range(100)]
    assert [at for at, _ in listener.door.received] == places


async def test_nothing_is_lost_by_a_restart_and_cursors_are_kept(tmp_path: Path) -> None:
    core = await Core(tmp_path / "data").start()
    listener = await core.consumer("t", from_earliest=True)
    producer = await core.producer("t")
    places = await producer.send(*(f"m{i}" for i in range(50)))
    await listener.bodies(50)
    listener.acknowledge(*places[:20], *places[30:35])
    await core.stop()

    core = await Core(tmp_path / "data").start()
    left = [f"m{i}" for i in range(50) if not (i < 20 or 30 <= i < 35)]
    assert await (await core.consumer("t")).bodies(25) == left
    assert len(await (await core.consumer("t", "all", from_earliest=True)).bodies(50)) == 50
    await core.stop()


async def test_nothing_confirmed_is_lost_by_a_crash_and_cursors_are_a_moment_old(
    tmp_path: Path,
) -> None:
    core = await Core(tmp_path / "data").start()
    listener = await core.consumer("t", from_earliest=True)
    producer = await core.producer("t")
    places = await producer.send(*(f"m{i}" for i in range(50)))
    await listener.bodies(50)
    listener.acknowledge(*places[:20], *places[30:35])
    await core.noted()
    after = await core.crashed(tmp_path / "after").start()
    await core.stop()

    left = [f"m{i}" for i in range(50) if not (i < 20 or 30 <= i < 35)]
    again = await after.consumer("t")
    assert await again.bodies(25) == left
    await (await after.producer("t")).send("new")
    assert (await again.bodies(26))[-1] == "new"
    await after.stop()
