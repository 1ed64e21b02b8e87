"""The catalog: topics by name, made, loaded, listed and deleted as their namespaces say."""

import asyncio
from pathlib import Path

import pytest

from magnetar.broker.entry import EARLIEST, LATEST, EntryId
from magnetar.broker.metadata.facts import AlreadyExistsError
from magnetar.broker.metadata.store import StoreUnavailableError
from magnetar.broker.port import (
    ListMode,
    Location,
    NotAllowedError,
    PortError,
    ServiceNotReadyError,
    SubscriptionNotFoundError,
    TopicNotFoundError,
    TopicTerminatedError,
)
from magnetar.broker.storage.errors import StorageError
from magnetar.broker.topics.topic import TopicBusyError
from magnetar.names import TopicName
from tests.topics.whole_core import DEFAULT, Core, run_of
from tests.waiting import until


class Anything:
    """Equal to whatever it is compared with."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0


ANY = Anything()


def named(text: str) -> TopicName:
    return TopicName.parse(text)


# --- loading


async def test_a_topic_is_loaded_when_first_asked_for_and_once_however_many_ask(
    tmp_path: Path,
) -> None:
    core = await Core(tmp_path / "data").start()
    await (await core.producer("t")).send("one")
    await core.stop()
    core = await Core(tmp_path / "data").start()
    assert list(core.catalog.loaded()) == []
    topics = await asyncio.gather(*(core.catalog.topic(named("t")) for _ in range(20)))
    assert len({id(topic) for topic in topics}) == 1
    await core.stop()


async def test_what_lives_in_another_process_is_refused_with_a_hint(core: Core) -> None:
    class Elsewhere:
        def mine(self, topic: TopicName) -> bool:
            return False

        def location(self, topic: TopicName, listener: str | None = None) -> Location:
            return Location("pulsar://elsewhere:6650", "", here=False)

    core.catalog._ownership = Elsewhere()
    with pytest.raises(ServiceNotReadyError, match="look it up"):
        await core.producer("t")
    assert not (await core.catalog.locate(named("t"))).here


async def test_a_topic_that_cannot_be_loaded_is_tried_again_by_the_next_who_asks(
    core: Core,
) -> None:
    await core.producer("t")
    await core.catalog.unload(named("t"))
    load, calls = core.catalog.checkpoints.load, []

    async def fail_once(topic: object) -> list[object]:
        calls.append(topic)
        if len(calls) == 1:
            raise PortError("the disk said no")
        return await load(topic)  # type: ignore[arg-type, return-value]

    core.catalog.checkpoints.load = fail_once  # type: ignore[method-assign, assignment]
    with pytest.raises(PortError, match="the disk said no"):
        await core.producer("t")
    await core.producer("t")


# --- unload


async def test_after_an_unload_clients_come_back_and_go_on(core: Core) -> None:
    listener = await core.consumer("t", from_earliest=True)
    producer = await core.producer("t")
    places = await producer.send("a", "b", "c")
    await listener.bodies(3)
    listener.acknowledge(places[0], places[2])
    await core.catalog.unload(named("t"))
    assert isinstance(producer.door.reasons[0], ServiceNotReadyError)
    assert len(listener.door.closed_with) == 1
    assert list(core.catalog.loaded()) == []

    again = await core.consumer("t")
    await (await core.producer("t")).send("d", first_sequence_id=3)
    assert await again.bodies(2) == ["b", "d"]


async def test_everything_published_before_an_unload_is_reported(core: Core) -> None:
    producer = await core.producer("t")
    posted = [producer.post(run_of([f"m{i}"], [i])) for i in range(20)]
    await core.catalog.unload(named("t"))
    results = [place for future in posted for _, place in await future]
    stored = [place for place in results if isinstance(place, EntryId)]
    assert len(results) == 20
    # What was refused comes after everything that was stored.
    assert results[: len(stored)] == stored
    assert len(await (await core.consumer("t", from_earliest=True)).bodies(len(stored))) == len(
        stored
    )


async def test_what_a_producer_that_left_sent_first_is_not_lost_by_an_unload(core: Core) -> None:
    producer = await core.producer("t")
    posted = producer.post(run_of(["a", "b"]))
    closing = asyncio.ensure_future(producer.producer.close())
    await asyncio.sleep(0)
    await core.catalog.unload(named("t"))
    await closing
    results = [place for _, place in await posted]
    stored = [place for place in results if isinstance(place, EntryId)]
    again = await core.producer("t")
    await again.send("c")
    topic = await core.catalog.topic(named("t"))
    assert topic.log.distance(EARLIEST, topic.log.end) == len(stored) + 1


async def test_two_unloads_at_once_are_one(core: Core) -> None:
    await core.producer("t")
    await asyncio.gather(core.catalog.unload(named("t")), core.catalog.unload(named("t")))
    assert list(core.catalog.loaded()) == []


async def test_a_topic_whose_closing_fails_half_way_loses_nothing(tmp_path: Path) -> None:
    core = await Core(tmp_path / "data", deduplication=True).start()
    listener = await core.consumer("t", from_earliest=True)
    producer = await core.producer("t", "p")
    places = await producer.send("a", "b", "c")
    await listener.bodies(3)
    listener.acknowledge(places[0])
    commit = core.store.commit

    async def refuse(changes: object) -> list[int | None]:
        raise StoreUnavailableError("disk full")

    core.store.commit = refuse  # type: ignore[method-assign]
    await core.catalog.unload(named("t"))
    core.store.commit = commit  # type: ignore[method-assign]

    producer = await core.producer("t", "p")
    assert producer.producer.last_sequence_id == 2
    assert await producer.send("a", "b", "c", "d") == [EARLIEST, EARLIEST, EARLIEST, ANY]
    everything = await core.consumer("t", "new", from_earliest=True)
    assert await everything.bodies(4) == ["a", "b", "c", "d"]
    await core.stop()
    core = await Core(tmp_path / "data", deduplication=True).start()
    assert (await core.producer("t", "p")).producer.last_sequence_id == 3
    await core.stop()


async def test_a_stop_on_a_full_disk_leaves_everything_in_the_journal(tmp_path: Path) -> None:
    core = await Core(tmp_path / "data", deduplication=True).start()
    listener = await core.consumer("t", from_earliest=True)
    places = await (await core.producer("t", "p")).send("a", "b", "c")
    await listener.bodies(3)
    listener.acknowledge(places[0], places[1])
    await core.noted()

    async def refuse(changes: object) -> list[int | None]:
        raise StoreUnavailableError("disk full")

    core.store.commit = refuse  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailableError):
        await core.catalog.stop()
    with pytest.raises(StorageError, match="not all is in entry logs"):
        await core.ledgers.stop()
    await core.store.close()
    core = await Core(tmp_path / "data", deduplication=True).start()
    assert (await core.producer("t", "p")).producer.last_sequence_id == 2
    assert await (await core.consumer("t")).bodies(1) == ["c"]
    await core.stop()


# --- delete


async def test_a_topic_with_clients_is_deleted_only_by_force(core: Core) -> None:
    producer = await core.producer("t")
    with pytest.raises(TopicBusyError):
        await core.catalog.delete(named("t"))
    await producer.send("still there")
    await core.catalog.delete(named("t"), force=True)
    assert isinstance(producer.door.reasons[0], TopicNotFoundError)
    with pytest.raises(TopicNotFoundError):
        await core.catalog.topic(named("t"))


async def test_a_topic_made_again_is_empty(core: Core) -> None:
    producer = await core.producer("t")
    await producer.send("old")
    await core.consumer("t", "s")
    await core.catalog.delete(named("t"), force=True)
    await (await core.producer("t")).send("new")
    assert list((await core.catalog.topic(named("t"))).subscriptions) == []
    assert await (await core.consumer("t", "s", from_earliest=True)).bodies(1) == ["new"]


async def test_a_deleted_topic_stays_deleted_over_a_restart(tmp_path: Path) -> None:
    core = await Core(tmp_path / "data").start()
    await (await core.producer("t")).send("x")
    await core.catalog.delete(named("t"), force=True)
    await core.stop()
    core = await Core(tmp_path / "data").start()
    assert await core.catalog.topics(DEFAULT, ListMode.ALL) == []
    await core.stop()


async def test_the_space_of_a_deleted_topic_is_given_back(core: Core) -> None:
    await (await core.producer("t")).send(*("x" * 10_000 for _ in range(100)))
    await (await core.producer("kept")).send("y")
    await core.ledgers.flush()
    await core.catalog.delete(named("t"), force=True)
    before = used_bytes(core)
    await core.ledgers.flush()
    await core.catalog._duties.reclaim()
    assert used_bytes(core) < before - 900_000
    assert await core.catalog._duties._dropped.list() == []
    assert await (await core.consumer("kept", from_earliest=True)).bodies(1) == ["y"]


def used_bytes(core: Core) -> int:
    return sum(file.stat().st_size for file in (core.config.data / "entries").iterdir())


async def test_deleting_what_is_not_there_says_so(core: Core) -> None:
    with pytest.raises(TopicNotFoundError):
        await core.catalog.delete(named("t"))
    await core.producer("t")
    with pytest.raises(SubscriptionNotFoundError):
        await core.catalog.delete_subscription(named("t"), "s")


# --- terminate


async def test_a_terminated_topic_takes_nothing_more_and_can_be_read_to_its_end(
    tmp_path: Path,
) -> None:
    core = await Core(tmp_path / "data").start()
    listener = await core.consumer("t")
    producer = await core.producer("t")
    places = await producer.send("a", "b")
    assert await (await core.catalog.topic(named("t"))).terminate() == places[-1]
    with pytest.raises(TopicTerminatedError):
        await producer.send("c", first_sequence_id=2)
    with pytest.raises(TopicTerminatedError):
        await core.producer("t")
    assert await listener.bodies(2) == ["a", "b"]
    await until(lambda: listener.door.ended)
    await core.stop()

    core = await Core(tmp_path / "data").start()
    with pytest.raises(TopicTerminatedError):
        await core.producer("t")
    late = await core.consumer("t", "late", from_earliest=True)
    assert await late.bodies(2) == ["a", "b"]
    await until(lambda: late.door.ended)
    assert await (await core.catalog.topic(named("t"))).terminate() == places[-1]
    await core.stop()


# --- subscriptions


async def test_a_subscription_made_at_the_end_sees_only_what_comes_later(core: Core) -> None:
    producer = await core.producer("t")
    await producer.send("before")
    await core.catalog.create_subscription(named("t"), "s", LATEST)
    await producer.send("after", first_sequence_id=1)
    assert await (await core.consumer("t", "s")).bodies(1) == ["after"]


async def test_a_subscription_can_start_at_any_entry(core: Core) -> None:
    places = await (await core.producer("t")).send("a", "b", "c")
    await core.catalog.create_subscription(named("t"), "s", places[1], {"for": "billing"})
    listener = await core.consumer("t", "s")
    assert await listener.bodies(2) == ["b", "c"]
    subscription = (await core.catalog.topic(named("t"))).subscriptions["s"]
    assert subscription.properties == {"for": "billing"}


async def test_a_subscription_is_made_once(core: Core) -> None:
    await core.catalog.create_subscription(named("t"), "s", EARLIEST)
    with pytest.raises(AlreadyExistsError):
        await core.catalog.create_subscription(named("t"), "s", EARLIEST)


async def test_a_deleted_subscription_does_not_come_back(tmp_path: Path) -> None:
    core = await Core(tmp_path / "data").start()
    listener = await core.consumer("t", "s", from_earliest=True)
    places = await (await core.producer("t")).send("a", "b")
    await listener.bodies(2)
    listener.acknowledge(places[0])
    with pytest.raises(PortError):
        await core.catalog.delete_subscription(named("t"), "s")
    await core.catalog.delete_subscription(named("t"), "s", force=True)
    assert listener.door.closed_with == [None]
    await core.stop()
    core = await Core(tmp_path / "data").start()
    assert list((await core.catalog.topic(named("t"))).subscriptions) == []
    await core.stop()


async def test_readers_leave_nothing_behind(core: Core) -> None:
    await (await core.producer("t")).send("a", "b")
    reader = await core.consumer("t", "reader-1", durable=False, start=EARLIEST)
    assert await reader.bodies(2) == ["a", "b"]
    await reader.consumer.close()
    assert list((await core.catalog.topic(named("t"))).subscriptions) == []


async def test_a_durable_and_a_temporary_subscription_do_not_share_a_name(core: Core) -> None:
    await core.consumer("t", "s")
    with pytest.raises(NotAllowedError):
        await core.consumer("t", "s", durable=False)


async def test_subscribing_does_not_create_where_that_is_off(tmp_path: Path) -> None:
    core = await Core(tmp_path / "data", auto_subscription_creation=False).start()
    with pytest.raises(SubscriptionNotFoundError):
        await core.consumer("t", "s")
    await core.catalog.create_subscription(named("t"), "s", EARLIEST)
    await core.consumer("t", "s")
    await core.stop()
