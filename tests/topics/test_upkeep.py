"""What is done to topics from time to time: expiry, retention, quotas, idle topics, a full disk."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from magnetar.broker.clock import ManualClock
from magnetar.broker.entry import EARLIEST, EntryId
from magnetar.broker.metadata import paths
from magnetar.broker.metadata.holdings import Held, save_held
from magnetar.broker.metadata.policies import BacklogQuota, InactiveTopics, Retention
from magnetar.broker.metadata.store import Put, numbered
from magnetar.broker.port import PersistenceError, QuotaExceededError, TopicNotFoundError
from magnetar.broker.topics.duties import SETTLED_S
from magnetar.broker.topics.topic import Topic
from magnetar.broker.topics.upkeep import keep_up
from magnetar.names import TopicName
from tests.topics.whole_core import Core, enact_policies

T = TopicName.parse("t")
KEEP_NOTHING = Retention(time_min=0, size_mib=0)


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    core = await Core(tmp_path / "data", ManualClock(), ledger_entries_max=10).start()
    yield core
    await core.stop()


async def filled(core: Core, ledgers: int = 3) -> tuple[Topic, list[EntryId]]:
    """A topic with full ledgers and one begun, and where its entries lie."""
    producer = await core.producer("t", "filler")
    places: list[EntryId] = []
    for start in range(0, ledgers * 10 + 1, 10):
        bodies = [f"m{start + i}" for i in range(10 if start < ledgers * 10 else 1)]
        places += await producer.send(*bodies, first_sequence_id=start)
    await producer.producer.close()
    await core.settled()
    return await core.catalog.topic(T), places


# --- retention


async def test_by_default_nothing_is_ever_dropped(core: Core) -> None:
    topic, _ = await filled(core)
    core.clock.advance(10 * 365 * 86_400)  # type: ignore[attr-defined]
    assert await keep_up(topic, core.clock) == 0


async def test_without_retention_ledgers_go_as_soon_as_everybody_has_passed_them(
    core: Core,
) -> None:
    fast = await core.consumer("t", "fast", from_earliest=True)
    slow = await core.consumer("t", "slow", from_earliest=True)
    topic, places = await filled(core)
    await enact_policies(core, retention=KEEP_NOTHING)
    await slow.bodies(31)
    fast.acknowledge(places[-1], cumulative=True)
    slow.acknowledge(places[18], cumulative=True)
    assert await keep_up(topic, core.clock) == 1
    slow.acknowledge(places[-1], cumulative=True)
    assert await keep_up(topic, core.clock) == 2
    assert topic.log.first == places[30]


async def test_a_reader_does_not_hold_ledgers_back(core: Core) -> None:
    await core.consumer("t", "reader", durable=False, permits=0)
    topic, _ = await filled(core)
    await enact_policies(core, retention=KEEP_NOTHING)
    assert await keep_up(topic, core.clock) == 3


async def test_the_space_of_dropped_ledgers_is_given_back_and_the_rest_still_reads(
    core: Core,
) -> None:
    topic, _ = await filled(core)
    await core.ledgers.flush()
    await enact_policies(core, retention=KEEP_NOTHING)
    await keep_up(topic, core.clock)
    await core.ledgers.flush()
    await core.catalog._duties.reclaim()
    assert await core.catalog._duties._dropped.list() == []
    assert await (await core.consumer("t", "new", from_earliest=True)).bodies(1) == ["m30"]


async def test_topics_that_nobody_asks_for_shrink_too(tmp_path: Path) -> None:
    core = await Core(tmp_path / "data", ManualClock(), ledger_entries_max=10).start()
    await filled(core)
    await enact_policies(core, retention=KEEP_NOTHING)
    await core.stop()
    core = await Core(tmp_path / "data", ManualClock(), ledger_entries_max=10).start()
    await core.catalog._duties.keep_up()
    topic = await core.catalog.topic(T)
    assert len(topic.log.ledger_infos()) == 1
    await core.stop()


async def test_a_ledger_that_is_old_is_closed_so_that_it_can_be_dropped(core: Core) -> None:
    producer = await core.producer("t")
    await producer.send("a")
    core.clock.advance(core.config.ledger_age_s_max + 1)  # type: ignore[attr-defined]
    await enact_policies(core, retention=KEEP_NOTHING)
    topic = await core.catalog.topic(T)
    await keep_up(topic, core.clock)
    await core.settled()
    await producer.send("b", first_sequence_id=1)
    assert await keep_up(topic, core.clock) == 1


# --- time to live


async def test_what_is_older_than_the_time_to_live_counts_as_acknowledged(core: Core) -> None:
    listener = await core.consumer("t", permits=0, from_earliest=True)
    topic, _ = await filled(core)
    subscription = topic.subscriptions["s"]
    await enact_policies(core, message_ttl_s=60)
    core.clock.set_wall_ms(1_700_000_000_010 + 60_000)  # type: ignore[attr-defined]
    await keep_up(topic, core.clock)
    assert subscription.stats()["msgBacklog"] == 21
    assert subscription.stats()["totalMsgExpired"] == 10
    listener.consumer.flow(100)
    assert (await listener.bodies(21))[0] == "m10"


# --- quotas


async def test_a_full_quota_turns_producers_away_until_there_is_room(core: Core) -> None:
    producer = await core.producer("t", "p")
    listener = await core.consumer("t", from_earliest=True)
    topic, places = await filled(core)
    quota = BacklogQuota(limit_bytes=50, policy="producer_exception")
    await enact_policies(core, backlog_quotas={"destination_storage": quota})
    await keep_up(topic, core.clock)
    assert isinstance(producer.door.reasons[0], QuotaExceededError)
    with pytest.raises(QuotaExceededError) as refused:
        await core.producer("t")
    assert not refused.value.hold
    await listener.bodies(31)
    listener.acknowledge(places[-1], cumulative=True)
    await keep_up(topic, core.clock)
    await core.producer("t")


async def test_a_quota_may_ask_producers_to_wait(core: Core) -> None:
    await core.consumer("t", from_earliest=True, permits=0)
    topic, _ = await filled(core)
    quota = BacklogQuota(limit_bytes=50, policy="producer_request_hold")
    await enact_policies(core, backlog_quotas={"destination_storage": quota})
    await keep_up(topic, core.clock)
    with pytest.raises(QuotaExceededError) as refused:
        await core.producer("t")
    assert refused.value.hold
    await enact_policies(core, backlog_quotas={})
    await keep_up(topic, core.clock)
    await core.producer("t")


async def test_a_quota_may_move_slow_subscriptions_on_instead(core: Core) -> None:
    await core.consumer("t", "slow", from_earliest=True, permits=0)
    await core.consumer("t", "slower", from_earliest=True, permits=0)
    topic, _ = await filled(core)
    quota = BacklogQuota(limit_bytes=50, policy="consumer_backlog_eviction")
    await enact_policies(core, backlog_quotas={"destination_storage": quota})
    await keep_up(topic, core.clock)
    for name in ("slow", "slower"):
        assert 0 < topic.subscriptions[name].stats()["backlogSize"] <= 50
    await core.producer("t")


async def test_a_quota_may_limit_the_age_of_the_oldest_message(core: Core) -> None:
    await core.consumer("t", from_earliest=True, permits=0)
    topic, _ = await filled(core)
    quota = BacklogQuota(limit_seconds=60, policy="producer_exception")
    await enact_policies(core, backlog_quotas={"message_age": quota})
    core.clock.set_wall_ms(1_700_000_000_000 + 50_000)  # type: ignore[attr-defined]
    await keep_up(topic, core.clock)
    await core.producer("t")
    core.clock.set_wall_ms(1_700_000_000_000 + 70_000)  # type: ignore[attr-defined]
    await keep_up(topic, core.clock)
    with pytest.raises(QuotaExceededError):
        await core.producer("t")


# --- the disk


async def test_a_disk_that_is_nearly_full_refuses_producers_only(core: Core) -> None:
    listener = await core.consumer("t", from_earliest=True)
    producer = await core.producer("t")
    await producer.send("a")
    core.ledgers.disk_used_percent = lambda: 96.0  # type: ignore[method-assign]
    await core.catalog._duties.look_at_disk()
    with pytest.raises(PersistenceError):
        await producer.send("b", first_sequence_id=1)
    assert await listener.bodies(1) == ["a"]
    with pytest.raises(PersistenceError, match=r"the disk is 96\.0% full"):
        await core.producer("other")
    await core.producer("non-persistent://public/default/other")

    core.ledgers.disk_used_percent = lambda: 90.0  # type: ignore[method-assign]
    await core.catalog._duties.look_at_disk()
    await (await core.producer("t")).send("c")
    assert await listener.bodies(2) == ["a", "c"]


# --- subscriptions that nobody uses


async def test_a_reader_that_went_away_to_seek_and_never_came_back_is_forgotten(
    core: Core,
) -> None:
    await (await core.producer("t")).send("a")
    reader = await core.consumer("t", "reader", durable=False, start=EARLIEST)
    await reader.bodies(1)
    await reader.consumer.seek(EARLIEST, (), None)
    topic = await core.catalog.topic(T)
    await core.catalog._duties.keep_up()
    assert list(topic.subscriptions) == ["reader"]
    core.clock.advance(61)  # type: ignore[attr-defined]
    await core.catalog._duties.keep_up()
    assert list(topic.subscriptions) == []


async def test_durable_subscriptions_expire_only_where_that_is_set_and_unused(core: Core) -> None:
    used = await core.consumer("t", "used")
    await (await core.consumer("t", "unused")).consumer.close()
    topic = await core.catalog.topic(T)
    core.clock.advance(10_000)  # type: ignore[attr-defined]
    await core.catalog._duties.keep_up()
    await enact_policies(core, subscription_expiration_min=10)
    await core.catalog._duties.keep_up()
    core.clock.advance(599)  # type: ignore[attr-defined]
    await core.catalog._duties.keep_up()
    assert len(topic.subscriptions) == 2
    core.clock.advance(1)  # type: ignore[attr-defined]
    await core.catalog._duties.keep_up()
    assert list(topic.subscriptions) == ["used"]
    assert used.door.closed_with == []


# --- idle topics


async def test_idle_topics_stay_by_default(core: Core) -> None:
    await filled(core)
    core.clock.advance(1e6)  # type: ignore[attr-defined]
    await core.catalog._duties.keep_up()
    assert len(list(core.catalog.loaded())) == 1


async def test_idle_topics_go_where_that_is_switched_on(core: Core) -> None:
    await enact_policies(core, inactive_topics=InactiveTopics(seconds_max=60, enabled=True))
    producer = await core.producer("t")
    core.clock.advance(100)  # type: ignore[attr-defined]
    await core.catalog._duties.keep_up()
    await producer.producer.close()
    core.clock.advance(50)  # type: ignore[attr-defined]
    await core.catalog._duties.keep_up()
    await core.catalog.topic(T)
    core.clock.advance(11)  # type: ignore[attr-defined]
    await core.catalog._duties.keep_up()
    with pytest.raises(TopicNotFoundError):
        await core.catalog.topic(T)


async def test_a_topic_with_a_subscription_is_not_idle_unless_that_is_said(core: Core) -> None:
    await enact_policies(core, inactive_topics=InactiveTopics(seconds_max=60, enabled=True))
    await (await core.consumer("t", from_earliest=True)).consumer.close()
    core.clock.advance(100)  # type: ignore[attr-defined]
    await core.catalog._duties.keep_up()
    await core.catalog.topic(T)
    caught_up = InactiveTopics(
        mode="delete_when_subscriptions_caught_up", seconds_max=60, enabled=True
    )
    await enact_policies(core, inactive_topics=caught_up)
    await core.catalog._duties.keep_up()
    with pytest.raises(TopicNotFoundError):
        await core.catalog.topic(T)


# --- tombstones


async def test_with_several_processes_a_tombstone_stays_while_a_journal_may_bring_its_ledger_back(
    tmp_path: Path,
) -> None:
    core = await Core(tmp_path / "data", ManualClock(), workers=2).start()
    await (await core.producer("t")).send("x")
    await core.catalog.delete(T, force=True)
    await core.ledgers.flush()
    [mine] = await core.catalog._duties._dropped.list()
    elsewhere = mine + 1000
    await core.store.commit([Put(numbered(paths.DROPPED, elsewhere), b"")])

    async def left(elsewhere_holds: Held) -> list[int]:
        await save_held(core.store, 1, elsewhere_holds)
        core.clock.advance(SETTLED_S)  # type: ignore[attr-defined]
        await core.catalog._duties.reclaim()
        return await core.catalog._duties._dropped.list()

    assert await left(Held(journal=[4])) == [mine, elsewhere], "just dropped"
    for holds in (Held(journal=[4]), Held(journal=[4, 5]), Held(journal=[5], old=[4])):
        assert await left(holds) == [mine, elsewhere]
    assert await left(Held(journal=[5])) == []
    await core.stop()
