"""Backlog quotas: looked at when they may be full, not some time later."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from magnetar.broker.clock import ManualClock
from magnetar.broker.metadata.policies import BacklogQuota, Policies
from magnetar.broker.port import QuotaExceededError
from magnetar.broker.topics.topic import Topic
from magnetar.names import TopicName
from tests.topics.whole_core import Core
from tests.waiting import until

T = TopicName.parse("t")
START_MS = 1_700_000_000_000  # what whole_core's runs are published at


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    # Nothing is done from time to time: whatever happens, happens because of the guard.
    core = await Core(tmp_path / "data", ManualClock()).start()
    core.clock.set_wall_ms(START_MS)  # type: ignore[attr-defined]
    yield core
    await core.stop()


async def limited(core: Core, **quota: object) -> Topic:
    kind = "message_age" if "limit_seconds" in quota else "destination_storage"

    def change(policies: Policies) -> None:
        policies.backlog_quotas = {kind: BacklogQuota(**quota)}  # type: ignore[arg-type]

    topic = await core.catalog.topic(T)
    await core.catalog._existence.partitions.policies.update(T, change)
    await core.settled()
    return topic


async def test_the_message_that_fills_a_quota_is_the_last_one(core: Core) -> None:
    producer = await core.producer("t")
    listener = await core.consumer("t", permits=0)
    await limited(core, limit_bytes=1000, policy="producer_exception")
    await producer.send(*("x" * 100 for _ in range(9)))
    await core.settled()
    assert producer.door.reasons == []
    [last] = await producer.send("x" * 100, first_sequence_id=9)
    await until(lambda: producer.door.reasons)
    assert isinstance(producer.door.reasons[0], QuotaExceededError)
    with pytest.raises(QuotaExceededError):
        await core.producer("t")
    listener.acknowledge(last, cumulative=True)
    again = await core.producer("t")
    await again.send("fits")


async def test_who_comes_when_there_is_room_again_is_let_in_at_once(core: Core) -> None:
    producer = await core.producer("t")
    listener = await core.consumer("t", permits=0)
    await limited(core, limit_bytes=100, policy="producer_request_hold")
    [place] = await producer.send("x" * 100)
    await core.settled()
    with pytest.raises(QuotaExceededError) as refused:
        await core.producer("t")
    assert refused.value.hold
    listener.acknowledge(place)
    await core.producer("t")


async def test_an_eviction_happens_while_producers_go_on(core: Core) -> None:
    producer = await core.producer("t")
    await core.consumer("t", "slow", permits=0)
    topic = await limited(core, limit_bytes=1000, policy="consumer_backlog_eviction")
    for number in range(50):
        await producer.send("x" * 100, first_sequence_id=number)
        await until(lambda: topic.subscriptions["slow"].stats()["backlogSize"] <= 1000)
    assert producer.door.reasons == []
    assert topic.subscriptions["slow"].stats()["backlogSize"] >= 800


async def test_nothing_is_computed_before_enough_has_come(core: Core) -> None:
    producer = await core.producer("t")
    await core.consumer("t", permits=0)
    topic = await limited(core, limit_bytes=1000, policy="producer_exception")
    await producer.send("x" * 100)
    await core.settled()
    assert topic.guard is not None
    assert topic.guard.look_at_bytes == 1000
    await producer.send(*("x" * 100 for _ in range(8)), first_sequence_id=1)
    await core.settled()
    assert topic.guard.look_at_bytes == 1000


async def test_the_age_of_the_oldest_message_counts_although_newer_ones_come(core: Core) -> None:
    producer = await core.producer("t")
    await core.consumer("t", permits=0)
    topic = await limited(core, limit_seconds=60, policy="producer_exception")
    await producer.send("old")
    core.clock.set_wall_ms(START_MS + 59_000)  # type: ignore[attr-defined]
    await producer.send("new", first_sequence_id=58_000)
    assert topic.guard is not None
    await topic.guard.look()
    await core.producer("t", "second")
    core.clock.set_wall_ms(START_MS + 61_000)  # type: ignore[attr-defined]
    with pytest.raises(QuotaExceededError):
        await core.producer("t", "third")


async def test_a_topic_that_was_full_before_a_restart_is_full_after_it(
    core: Core, tmp_path: Path
) -> None:
    producer = await core.producer("t")
    await core.consumer("t", permits=0)
    await limited(core, limit_bytes=100, policy="producer_exception")
    await producer.send("x" * 100)
    after = await core.crashed(tmp_path / "copy").start()
    with pytest.raises(QuotaExceededError):
        await after.producer("t")
    await after.stop()


async def test_a_quota_that_is_removed_lets_producers_in(core: Core) -> None:
    producer = await core.producer("t")
    await core.consumer("t", permits=0)
    topic = await limited(core, limit_bytes=100, policy="producer_exception")
    await producer.send("x" * 100)
    await core.settled()

    def remove(policies: Policies) -> None:
        policies.backlog_quotas = {}

    await core.catalog._existence.partitions.policies.update(T, remove)
    await core.settled()
    assert topic.guard is None
    await core.producer("t")
