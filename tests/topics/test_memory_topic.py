"""Non-persistent topics hand on what is published while somebody has room for it."""

import asyncio
from pathlib import Path

import pytest

from magnetar.broker.clock import ManualClock
from magnetar.broker.entry import EARLIEST, EntryFlags
from magnetar.broker.port import (
    ConsumerAssignError,
    ConsumerBusyError,
    KeyShared,
    ListMode,
    NotAllowedError,
    SubscriptionType,
)
from magnetar.broker.run import FLAGS, KEY_HASH, MESSAGES, Run
from magnetar.broker.topics.topic import Topic
from magnetar.names import NamespaceName, TopicName
from tests.topics.whole_core import Core, Listener, run_of

NAME = "non-persistent://public/default/t"
T = TopicName.parse(NAME)
SHARED = SubscriptionType.SHARED
KEY_SHARED = SubscriptionType.KEY_SHARED
FAILOVER = SubscriptionType.FAILOVER


async def topic_of(core: Core) -> Topic:
    return await core.catalog.topic(T)


def keyed(run: Run, hashes: list[int]) -> Run:
    """Give each row of a run a key with this hash."""
    for row, key_hash in enumerate(hashes):
        run.u32(KEY_HASH)[row] = key_hash
        run.u32(FLAGS)[row] = EntryFlags.KEYED
    return run


async def test_every_subscription_gets_what_is_published_while_it_listens(core: Core) -> None:
    producer = await core.producer(NAME)
    await producer.send("before")
    one, two = await core.consumer(NAME, "one"), await core.consumer(NAME, "two")
    assert await producer.send("a", "b") == [EARLIEST, EARLIEST]
    assert one.door.bodies == two.door.bodies == ["a", "b"]


async def test_nothing_reaches_the_disk(core: Core) -> None:
    await core.consumer(NAME)
    before = core.ledgers._submitted
    await (await core.producer(NAME)).send(*("x" * 1000 for _ in range(100)))
    assert core.ledgers._submitted == before


async def test_entries_have_ids_of_their_own(core: Core) -> None:
    listener = await core.consumer(NAME)
    producer = await core.producer(NAME)
    await producer.send("a", "b")
    await producer.send("c")
    assert len({at for at, _ in listener.door.received}) == 3


async def test_what_a_consumer_has_no_permits_for_is_dropped_and_counted(core: Core) -> None:
    listener = await core.consumer(NAME, permits=2)
    producer = await core.producer(NAME)
    await producer.send("a", "b", "c", "d")
    listener.consumer.flow(1)
    await producer.send("e", "f")
    assert listener.door.bodies == ["a", "b", "e"]
    stats = (await topic_of(core)).stats()["subscriptions"]["s"]
    assert (stats["msgOutCounter"], stats["msgDropCount"]) == (3, 3)


async def test_permits_count_messages_and_a_batch_is_whole(core: Core) -> None:
    listener = await core.consumer(NAME, permits=3)
    run = run_of(["a", "b", "c"])
    for row in range(3):
        run.u32(MESSAGES)[row] = 2
    await (await core.producer(NAME)).post(run)
    assert listener.door.bodies == ["a", "b"]
    assert listener.consumer.stats().permits == -1


async def test_a_congested_consumer_gets_nothing_until_it_resumes(core: Core) -> None:
    listener = await core.consumer(NAME)
    producer = await core.producer(NAME)
    deliver = listener.door.deliver
    listener.door.deliver = lambda run, selection: deliver(run, selection) and False  # type: ignore[method-assign]
    await producer.send("a")
    await producer.send("b")
    assert listener.door.bodies == ["a"]
    listener.consumer.resume()
    await producer.send("c")
    assert listener.door.bodies == ["a", "c"]


async def test_what_is_handed_out_outlives_the_buffer_it_was_read_into(core: Core) -> None:
    listener = await core.consumer(NAME)
    runs: list[Run] = []
    deliver = listener.door.deliver
    listener.door.deliver = lambda run, s: (runs.append(run), deliver(run, s))[1]  # type: ignore[method-assign, func-returns-value, assignment]
    run = run_of(["abc"])
    posted = (await core.producer(NAME)).post(run)
    run.buffer[:] = b"???"
    await posted
    assert bytes(runs[0].body(0)) == b"abc"


async def test_exclusive_lets_one_consumer_in(core: Core) -> None:
    await core.consumer(NAME)
    with pytest.raises(ConsumerBusyError):
        await core.consumer(NAME)
    with pytest.raises(ConsumerBusyError):
        await core.consumer(NAME, type=SHARED)


async def test_shared_deals_entries_among_its_consumers(core: Core) -> None:
    listeners = [await core.consumer(NAME, type=SHARED) for _ in range(3)]
    await (await core.producer(NAME)).send(*(f"m{i}" for i in range(300)))
    got = [listener.door.bodies for listener in listeners]
    assert sorted(body for bodies in got for body in bodies) == sorted(f"m{i}" for i in range(300))
    assert all(bodies for bodies in got)


async def test_failover_serves_one_and_another_when_it_leaves(core: Core) -> None:
    listeners = {
        name: await core.consumer(NAME, type=FAILOVER, consumer_name=name) for name in ("a", "b")
    }
    producer = await core.producer(NAME)
    await producer.send("one")
    [active] = [name for name, each in listeners.items() if each.door.is_active]
    [standby] = [name for name in listeners if name != active]
    assert listeners[standby].door.is_active is False
    await listeners[active].consumer.close()
    await producer.send("two")
    assert listeners[active].door.bodies == ["one"]
    assert listeners[standby].door.bodies == ["two"]
    assert listeners[standby].door.is_active


async def test_key_shared_keeps_a_key_with_one_consumer(core: Core) -> None:
    listeners = [
        await core.consumer(NAME, type=KEY_SHARED, consumer_name=f"c{i}") for i in range(3)
    ]
    hashes = [i % 50 * 1_000_003 for i in range(500)]
    await (await core.producer(NAME)).post(keyed(run_of([str(h) for h in hashes]), hashes))
    seen = [set(listener.door.bodies) for listener in listeners]
    assert sum(len(listener.door.bodies) for listener in listeners) == 500
    assert len(set.union(*seen)) == sum(len(each) for each in seen) == 50


async def test_sticky_ranges_that_overlap_are_refused(core: Core) -> None:
    def sticky(low: int, high: int) -> KeyShared:
        return KeyShared(ranges=[(low, high)], sticky=True)

    low = await core.consumer(NAME, type=KEY_SHARED, key_shared=sticky(0, 99))
    with pytest.raises(ConsumerAssignError):
        await core.consumer(NAME, type=KEY_SHARED, key_shared=sticky(50, 150))
    high = await core.consumer(NAME, type=KEY_SHARED, key_shared=sticky(100, 65535))
    with pytest.raises(ConsumerAssignError):
        await core.consumer(NAME, type=KEY_SHARED)
    await (await core.producer(NAME)).post(keyed(run_of(["low", "high"]), [5, 5000]))
    assert (low.door.bodies, high.door.bodies) == (["low"], ["high"])


async def test_cumulative_acknowledgement_on_shared_is_refused_here_too(core: Core) -> None:
    listener: Listener = await core.consumer(NAME, type=SHARED)
    listener.acknowledge(EARLIEST)
    with pytest.raises(NotAllowedError):
        listener.acknowledge(EARLIEST, cumulative=True)


async def test_there_is_no_last_message_and_no_ledger(core: Core) -> None:
    listener = await core.consumer(NAME)
    with pytest.raises(NotAllowedError):
        await listener.consumer.last_message()
    assert (await (await topic_of(core)).internal_stats())["ledgers"] == []
    with pytest.raises(NotAllowedError):
        await (await topic_of(core)).terminate()


async def test_a_durable_subscription_stays_while_the_topic_is_loaded_others_do_not(
    core: Core,
) -> None:
    durable = await core.consumer(NAME, "durable")
    reader = await core.consumer(NAME, "reader", durable=False)
    await durable.consumer.close()
    await reader.consumer.close()
    topic = await topic_of(core)
    assert list(topic.subscriptions) == ["durable"]
    await core.catalog.delete_subscription(T, "durable")
    assert list(topic.subscriptions) == []


async def test_unsubscribing_beside_others_needs_force(core: Core) -> None:
    one = await core.consumer(NAME, type=SHARED)
    two = await core.consumer(NAME, type=SHARED)
    with pytest.raises(ConsumerBusyError):
        await one.consumer.unsubscribe(force=False)
    await one.consumer.unsubscribe(force=True)
    assert two.door.closed_with == [None]


async def test_a_topic_that_nobody_uses_any_more_is_forgotten(tmp_path: Path) -> None:
    clock = ManualClock()
    core = await Core(tmp_path / "data", clock).start()
    namespace = NamespaceName("public", "default")
    producer = await core.producer(NAME)
    clock.advance(100)
    await core.catalog._duties.keep_up()
    assert await core.catalog.topics(namespace, ListMode.NON_PERSISTENT) == [NAME]
    await producer.producer.close()
    clock.advance(61)
    await core.catalog._duties.keep_up()
    assert await core.catalog.topics(namespace, ListMode.NON_PERSISTENT) == []
    await core.stop()


async def test_clients_of_an_unloaded_topic_are_told(core: Core) -> None:
    listener, producer = await core.consumer(NAME), await core.producer(NAME)
    await core.catalog.unload(T)
    assert len(listener.door.closed_with) == len(producer.door.reasons) == 1
    await asyncio.sleep(0)
    assert list(core.catalog.loaded()) == []
