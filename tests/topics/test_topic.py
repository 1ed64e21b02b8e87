"""A topic: who may publish to it, who may subscribe, what is shown of it."""

import asyncio
from pathlib import Path

import pytest

from magnetar.broker.entry import EARLIEST, EntryId
from magnetar.broker.metadata.partitions import Partitions, TopicRecord
from magnetar.broker.port import (
    AccessMode,
    ConsumerBusyError,
    MetadataError,
    NotAllowedError,
    ProducerBusyError,
    ProducerFencedError,
    SubscriptionType,
)
from magnetar.broker.topics.topic import Topic
from magnetar.names import TopicName
from tests.topics.whole_core import Core, enact_policies, run_of

T = TopicName.parse("t")


async def topic_of(core: Core) -> Topic:
    return await core.catalog.topic(T)


# --- producers


async def test_producers_without_a_name_get_one_that_nobody_has_or_had(tmp_path: Path) -> None:
    names: list[str] = []
    for _ in range(2):
        core = await Core(tmp_path / "data").start()
        names += [(await core.producer("t")).producer.name for _ in range(3)]
        await core.stop()
    assert len(set(names)) == 6
    assert all(name.startswith("standalone-") for name in names)


async def test_two_producers_of_one_name_do_not_meet(core: Core) -> None:
    first = await core.producer("t", "p")
    with pytest.raises(ProducerBusyError):
        await core.producer("t", "p")
    await core.producer("other", "p")
    await first.producer.close()
    await core.producer("t", "p")


async def test_the_epoch_of_exclusive_producers_goes_on_after_a_restart(tmp_path: Path) -> None:
    core = await Core(tmp_path / "data").start()
    first = await core.producer("t", "p", access_mode=AccessMode.EXCLUSIVE)
    assert first.producer.topic_epoch == 0
    await core.stop()
    core = await Core(tmp_path / "data").start()
    second = await core.producer("t", "q", access_mode=AccessMode.EXCLUSIVE)
    assert second.producer.topic_epoch == 1
    await second.producer.close()
    with pytest.raises(ProducerFencedError):
        await core.producer("t", "p", access_mode=AccessMode.EXCLUSIVE, topic_epoch=0)
    await core.stop()


async def test_fencing_lets_what_was_published_before_be_stored_and_nothing_after(
    core: Core,
) -> None:
    old = await core.producer("t", "old")
    await old.send("first")
    posted = old.post(run_of(["before"], [1]))
    new = await core.producer("t", "new", access_mode=AccessMode.EXCLUSIVE_WITH_FENCING)
    late = old.post(run_of(["after"], [2]))
    await new.send("mine")
    assert isinstance((await posted)[0][1], EntryId)
    assert isinstance((await late)[0][1], ProducerFencedError)
    listener = await core.consumer("t", from_earliest=True)
    assert await listener.bodies(3) == ["first", "before", "mine"]


async def test_a_waiting_producer_is_told_when_its_turn_comes(core: Core) -> None:
    first = await core.producer("t", access_mode=AccessMode.EXCLUSIVE)
    waiting = await core.producer("t", access_mode=AccessMode.WAIT_FOR_EXCLUSIVE)
    assert not waiting.producer.ready
    await first.producer.close()
    await asyncio.wait_for(waiting.door.told.wait(), 30)
    assert waiting.door.epochs == [1]
    await waiting.send("mine")


async def test_an_initial_subscription_is_there_before_the_producer(core: Core) -> None:
    producer = await core.producer("t", initial_subscription="dead letters")
    await producer.send("a")
    await core.producer("t", initial_subscription="dead letters")
    assert await (await core.consumer("t", "dead letters")).bodies(1) == ["a"]


async def test_where_encryption_is_required_plain_producers_are_refused(core: Core) -> None:
    await core.producer("t")
    await enact_policies(core, encryption_required=True)
    with pytest.raises(MetadataError):
        await core.producer("t")
    await core.producer("t", encrypted=True)


async def test_a_namespace_may_limit_the_producers_of_a_topic(core: Core) -> None:
    await enact_policies(core, producers_per_topic_max=2)
    first = await core.producer("t")
    await core.producer("t")
    with pytest.raises(ProducerBusyError):
        await core.producer("t")
    await first.producer.close()
    await core.producer("t")


async def test_a_producer_that_closed_is_gone_when_it_says_so(core: Core) -> None:
    producer = await core.producer("t")
    posted = producer.post(run_of(["a", "b"]))
    await producer.producer.close()
    assert posted.done()
    assert len((await topic_of(core)).producers) == 0


# --- deduplication


async def test_deduplication_survives_a_restart(tmp_path: Path) -> None:
    core = await Core(tmp_path / "data", deduplication=True).start()
    producer = await core.producer("t", "p")
    await producer.send("a", "b", "c")
    await core.stop()
    core = await Core(tmp_path / "data", deduplication=True).start()
    producer = await core.producer("t", "p")
    assert producer.producer.last_sequence_id == 2
    again = await producer.send("b", "c", "d", first_sequence_id=1)
    assert again[:2] == [EARLIEST, EARLIEST]
    assert await (await core.consumer("t", from_earliest=True)).bodies(4) == ["a", "b", "c", "d"]
    await core.stop()


async def test_deduplication_survives_a_crash_with_and_without_a_flush(tmp_path: Path) -> None:
    core = await Core(tmp_path / "data", deduplication=True).start()
    producer = await core.producer("t", "p")
    await producer.send("a", "b")
    await core.ledgers.flush()
    await producer.send("c", first_sequence_id=2)
    once = await core.crashed(tmp_path / "once").start()
    await core.stop()
    # A second crash before anybody loaded the topic.
    twice = await once.crashed(tmp_path / "twice").start()
    await once.stop()
    producer = await twice.producer("t", "p")
    assert producer.producer.last_sequence_id == 2
    await producer.send("a", "b", "c", "d")
    assert await (await twice.consumer("t", from_earliest=True)).bodies(4) == ["a", "b", "c", "d"]
    await twice.stop()


async def test_without_deduplication_a_producer_is_told_no_sequence_id(core: Core) -> None:
    producer = await core.producer("t", "p")
    await producer.send("a", "a")
    assert producer.producer.last_sequence_id == -1


async def test_deduplication_is_switched_on_and_off_while_a_topic_is_used(core: Core) -> None:
    producer = await core.producer("t", "p")
    await producer.send("a")
    await enact_policies(core, deduplication=True)
    await producer.send("b", first_sequence_id=1)
    assert await producer.send("b", first_sequence_id=1) == [EARLIEST]
    assert (await topic_of(core)).stats()["deduplicationStatus"] == "Enabled"
    await enact_policies(core, deduplication=False)
    assert await producer.send("b", first_sequence_id=1) != [EARLIEST]


async def test_a_topic_may_say_for_itself_whether_it_deduplicates(core: Core) -> None:
    producer = await core.producer("t", "p")

    def change(record: TopicRecord) -> None:
        record.deduplication = True

    await Partitions(core.store).update_topic(T, change)
    await core.settled()
    await producer.send("a")
    assert await producer.send("a") == [EARLIEST]


# --- consumers


async def test_a_namespace_may_limit_consumers_and_subscriptions(core: Core) -> None:
    shared = SubscriptionType.SHARED
    await enact_policies(
        core,
        consumers_per_topic_max=3,
        consumers_per_subscription_max=2,
        subscriptions_per_topic_max=2,
    )
    await core.consumer("t", "a", type=shared)
    await core.consumer("t", "a", type=shared)
    with pytest.raises(ConsumerBusyError):
        await core.consumer("t", "a", type=shared)
    await core.consumer("t", "b", type=shared)
    with pytest.raises(ConsumerBusyError):
        await core.consumer("t", "b", type=shared)
    await enact_policies(core, consumers_per_topic_max=0)
    with pytest.raises(NotAllowedError):
        await core.consumer("t", "c", type=shared)


async def test_a_namespace_may_switch_subscription_types_off(core: Core) -> None:
    await enact_policies(core, subscription_types_enabled=["Shared"])
    with pytest.raises(NotAllowedError):
        await core.consumer("t")
    await core.consumer("t", type=SubscriptionType.SHARED)


async def test_many_consumers_that_ask_at_once_share_one_new_subscription(core: Core) -> None:
    shared = SubscriptionType.SHARED
    await asyncio.gather(*(core.consumer("t", "s", type=shared) for _ in range(10)))
    assert len((await topic_of(core)).subscriptions["s"].consumers) == 10


async def test_limits_hold_also_when_everybody_asks_at_once(core: Core) -> None:
    shared = SubscriptionType.SHARED
    await enact_policies(core, consumers_per_subscription_max=3)
    asked = await asyncio.gather(
        *(core.consumer("t", "s", type=shared) for _ in range(10)), return_exceptions=True
    )
    assert sum(isinstance(each, ConsumerBusyError) for each in asked) == 7


async def test_a_reader_and_a_durable_consumer_that_ask_at_once_do_not_share(core: Core) -> None:
    asked = await asyncio.gather(
        core.consumer("t", "s"), core.consumer("t", "s", durable=False), return_exceptions=True
    )
    assert sum(isinstance(each, NotAllowedError) for each in asked) == 1


async def test_limits_of_unacknowledged_messages_change_while_consumers_are_there(
    core: Core,
) -> None:
    await enact_policies(core, unacked_per_consumer_max=5)
    listener = await core.consumer("t", type=SubscriptionType.SHARED)
    await (await core.producer("t")).send(*(f"m{i}" for i in range(20)))
    await listener.bodies(5)
    await core.settled()
    assert len(listener.door.bodies) == 5
    await enact_policies(core, unacked_per_consumer_max=100)
    await listener.bodies(20)


# --- what is in it


async def test_any_entry_can_be_looked_at_acknowledged_or_not(core: Core) -> None:
    places = await (await core.producer("t")).send("a", "b", "c")
    topic = await topic_of(core)
    found = await topic.entry(places[1])
    assert found is not None
    assert (found.id, found.body, found.envelope.sequence_id) == (places[1], b"b", 1)
    assert await topic.entry(EntryId(places[2].ledger, 3)) is None
    assert await topic.entry(EntryId(places[0].ledger + 1, 0)) is None
    assert await topic.entry(EARLIEST) is None


async def test_entries_are_counted_from_either_end_over_ledgers(tmp_path: Path) -> None:
    core = await Core(tmp_path / "data", ledger_entries_max=2).start()
    producer = await core.producer("t")
    for i in range(7):
        await producer.send(f"m{i}", first_sequence_id=i)
    topic = await core.catalog.topic(T)
    assert len(topic.log.ledger_infos()) >= 4

    async def body(number: int, *, from_end: bool) -> str | None:
        found = await topic.nth_entry(number, from_end=from_end)
        return None if found is None else found.body.decode()

    assert [await body(n, from_end=False) for n in range(1, 9)] == [
        *(f"m{i}" for i in range(7)),
        None,
    ]
    assert [await body(n, from_end=True) for n in range(1, 9)] == [
        *(f"m{i}" for i in reversed(range(7))),
        None,
    ]
    assert await body(0, from_end=False) is None
    await core.stop()


# --- what is shown

TOPIC_KEYS = [
    "msgRateIn",
    "msgThroughputIn",
    "msgRateOut",
    "msgThroughputOut",
    "bytesInCounter",
    "msgInCounter",
    "bytesOutCounter",
    "msgOutCounter",
    "averageMsgSize",
    "msgChunkPublished",
    "storageSize",
    "backlogSize",
    "offloadedStorageSize",
    "ongoingTxnCount",
    "abortedTxnCount",
    "committedTxnCount",
    "lastOffloadLedgerId",
    "waitingPublishers",
    "topicEpoch",
    "deduplicationStatus",
    "ownerBroker",
    "topicCreationTimeStamp",
    "lastPublishTimeStamp",
    "compaction",
    "publishers",
    "subscriptions",
    "replication",
]
PUBLISHER_KEYS = [
    "producerId",
    "producerName",
    "accessMode",
    "msgRateIn",
    "msgThroughputIn",
    "averageMsgSize",
    "chunkedMessageRate",
    "supportsPartialProducer",
    "address",
    "connectedSince",
    "clientVersion",
    "metadata",
]
INTERNAL_KEYS = [
    "entriesAddedCounter",
    "numberOfEntries",
    "totalSize",
    "currentLedgerEntries",
    "currentLedgerSize",
    "lastLedgerCreatedTimestamp",
    "lastConfirmedEntry",
    "state",
    "waitingCursorsCount",
    "pendingAddEntriesCount",
    "ledgers",
    "cursors",
    "schemaLedgers",
    "compactedLedger",
]


async def test_statistics_are_those_of_the_moment_under_pulsars_names(core: Core) -> None:
    listener = await core.consumer("t", "s")
    producer = await core.producer("t", "p", client_address="127.0.0.1:5")
    places = await producer.send("aaaa", "bb")
    await listener.bodies(2)
    listener.acknowledge(places[0])
    stats = (await topic_of(core)).stats()
    assert set(TOPIC_KEYS) <= set(stats)
    assert (stats["msgInCounter"], stats["bytesInCounter"], stats["averageMsgSize"]) == (2, 6, 3)
    assert (stats["msgOutCounter"], stats["storageSize"]) == (2, 6)
    assert stats["subscriptions"]["s"]["msgBacklog"] == 1
    [publisher] = stats["publishers"]
    assert set(PUBLISHER_KEYS) <= set(publisher)
    assert (publisher["producerName"], publisher["accessMode"]) == ("p", "Shared")
    assert publisher["address"] == "127.0.0.1:5"


async def test_internal_statistics_show_ledgers_and_cursors(core: Core) -> None:
    await core.consumer("t", "s", from_earliest=True)
    places = await (await core.producer("t")).send("a", "b")
    stats = await (await topic_of(core)).internal_stats()
    assert set(INTERNAL_KEYS) <= set(stats)
    assert stats["lastConfirmedEntry"] == str(places[-1])
    assert (stats["numberOfEntries"], stats["currentLedgerEntries"]) == (2, 2)
    assert list(stats["cursors"]) == ["s"]
    assert [each["ledgerId"] for each in stats["ledgers"]] == [places[0].ledger]


async def test_a_topic_without_an_entry_shows_statistics_too(core: Core) -> None:
    await core.consumer("t", "s")
    topic = await topic_of(core)
    assert topic.stats()["subscriptions"]["s"]["msgBacklog"] == 0
    assert (await topic.internal_stats())["lastConfirmedEntry"] == "-1:-1"
    assert await topic.nth_entry(1, from_end=True) is None
