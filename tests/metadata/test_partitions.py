"""Topics and partitioned topics."""

import pytest

from magnetar.broker.entry import EARLIEST, EntryId
from magnetar.broker.metadata.chains import Chain, Dropped
from magnetar.broker.metadata.cursors import Cursors, CursorSnapshot, save_cursors
from magnetar.broker.metadata.facts import AlreadyExistsError
from magnetar.broker.metadata.namespaces import Namespaces
from magnetar.broker.metadata.partitions import (
    PARTITIONS_MAX,
    PartitionedRecord,
    Partitions,
    TopicRecord,
)
from magnetar.broker.metadata.sequences import Checkpoint, load_sequences, save_sequences
from magnetar.broker.metadata.store import Store
from magnetar.broker.metadata.tenants import Tenant, Tenants
from magnetar.broker.port import NamespaceNotFoundError, TopicNotFoundError
from magnetar.names import Domain, NamespaceName, TopicName

NAME = NamespaceName("t", "n")
TOPIC = TopicName.parse("persistent://t/n/x")


@pytest.fixture
async def partitions(store: Store) -> Partitions:
    await Tenants(store).create("t", Tenant())
    await Namespaces(store).create(NAME)
    return Partitions(store)


def names(topics: list[TopicName]) -> list[str]:
    return [topic.local for topic in topics]


async def test_a_topic_is_created_found_and_listed(partitions: Partitions) -> None:
    record = TopicRecord(created_ms=5, properties={"a": "b"}, terminated_at=EntryId(1, 2))
    await partitions.create_topic(TOPIC, record)
    assert await partitions.topic(TOPIC) == record
    assert await partitions.partitioned(TOPIC) is None
    assert await partitions.list_topics(NAME) == [TOPIC]


async def test_a_partitioned_topic_comes_with_all_its_partitions(partitions: Partitions) -> None:
    await partitions.create_partitioned(TOPIC, 3, created_ms=5, properties={"a": "b"})
    assert await partitions.partitioned(TOPIC) == PartitionedRecord(
        partitions=3, created_ms=5, properties={"a": "b"}
    )
    assert await partitions.topic(TOPIC) is None
    assert await partitions.list_partitioned(NAME) == [TOPIC]
    assert names(await partitions.list_topics(NAME)) == [f"x-partition-{i}" for i in range(3)]


async def test_partitions_of_a_topic_in_memory_are_not_recorded(partitions: Partitions) -> None:
    topic = TOPIC._replace(domain=Domain.NON_PERSISTENT)
    await partitions.create_partitioned(topic, 3, created_ms=5)
    assert await partitions.list_partitioned(NAME, Domain.NON_PERSISTENT) == [topic]
    assert await partitions.list_topics(NAME, Domain.NON_PERSISTENT) == []
    assert await partitions.list_partitioned(NAME) == []


async def test_a_name_is_partitioned_or_not_but_never_both(partitions: Partitions) -> None:
    other = TopicName.parse("persistent://t/n/y")
    await partitions.create_topic(TOPIC, TopicRecord())
    await partitions.create_partitioned(other, 2, created_ms=1)
    for refused in (
        partitions.create_topic(TOPIC, TopicRecord()),
        partitions.create_topic(other, TopicRecord()),
        partitions.create_partitioned(TOPIC, 2, created_ms=1),
        partitions.create_partitioned(other, 2, created_ms=1),
    ):
        with pytest.raises(AlreadyExistsError, match="already exists"):
            await refused


async def test_a_topic_needs_its_namespace(partitions: Partitions) -> None:
    lost = TopicName.parse("persistent://t/none/x")
    for refused in (
        partitions.create_topic(lost, TopicRecord()),
        partitions.create_partitioned(lost, 2, created_ms=1),
    ):
        with pytest.raises(NamespaceNotFoundError, match="namespace t/none does not exist"):
            await refused


async def test_a_partitioned_topic_grows_and_never_shrinks(partitions: Partitions) -> None:
    await partitions.create_partitioned(TOPIC, 2, created_ms=1)
    await partitions.grow(TOPIC, 4, created_ms=2)
    record = await partitions.partitioned(TOPIC)
    assert record is not None
    assert record.partitions == 4
    assert names(await partitions.list_topics(NAME)) == [f"x-partition-{i}" for i in range(4)]
    for count in (4, 3):
        with pytest.raises(ValueError, match="can only grow"):
            await partitions.grow(TOPIC, count, created_ms=3)


@pytest.mark.parametrize("count", [0, -1, PARTITIONS_MAX + 1])
async def test_a_number_of_partitions_out_of_bounds_is_refused(
    partitions: Partitions, count: int
) -> None:
    with pytest.raises(ValueError, match=f"allowed: 1 to {PARTITIONS_MAX}"):
        await partitions.create_partitioned(TOPIC, count, created_ms=1)


async def test_ten_thousand_partitions_are_one_commit(partitions: Partitions) -> None:
    await partitions.create_partitioned(TOPIC, PARTITIONS_MAX, created_ms=1)
    assert len(await partitions.list_topics(NAME)) == PARTITIONS_MAX


async def test_records_change_in_place(partitions: Partitions) -> None:
    await partitions.create_topic(TOPIC, TopicRecord(created_ms=1))

    def terminate(record: TopicRecord) -> None:
        record.terminated_at = EntryId(3, 4)

    assert (await partitions.update_topic(TOPIC, terminate)).terminated_at == (3, 4)
    found = await partitions.topic(TOPIC)
    assert found is not None
    assert found.terminated_at == EntryId(3, 4)
    assert isinstance(found.terminated_at, EntryId)


async def test_what_is_not_there_is_said_to_be_missing(partitions: Partitions) -> None:
    for refused in (
        partitions.update_topic(TOPIC, lambda record: None),
        partitions.update_partitioned(TOPIC, lambda record: None),
        partitions.grow(TOPIC, 3, created_ms=1),
        partitions.delete_topic(TOPIC),
        partitions.delete_partitioned(TOPIC),
    ):
        with pytest.raises(TopicNotFoundError, match="does not exist"):
            await refused


async def test_a_deleted_topic_leaves_nothing_but_its_dropped_ledgers(
    store: Store, partitions: Partitions
) -> None:
    neighbour = TopicName.parse("persistent://t/n/xx")
    before = set(await store.keys(""))
    for topic in (TOPIC, neighbour):
        await partitions.create_topic(topic, TopicRecord())
        await Chain(store, topic).take(0)
    ledgers = [await Chain(store, TOPIC).extend(0, 0) for _ in range(2)]
    cursor = await Cursors(store, TOPIC).create("s", EARLIEST, created_ms=1)
    await save_cursors(store, [CursorSnapshot(TOPIC, cursor, {(1, 0): b"x"})])
    await save_sequences(store, [Checkpoint(TOPIC, {"p": 1}), Checkpoint(neighbour, {"p": 2})])

    assert await partitions.delete_topic(TOPIC) == ledgers

    assert await Dropped(store).list() == ledgers
    await Dropped(store).forget(ledgers)
    await partitions.delete_topic(neighbour)
    assert set(await store.keys("")) - before == {"counters/ledger", "counters/cursor"}


async def test_deleting_one_topic_leaves_its_neighbour_whole(
    store: Store, partitions: Partitions
) -> None:
    neighbour = TopicName.parse("persistent://t/n/xx")
    for topic in (TOPIC, neighbour):
        await partitions.create_topic(topic, TopicRecord())
    ledger = await Chain(store, neighbour).extend(0, 0)
    cursor = await Cursors(store, neighbour).create("s", EARLIEST, created_ms=1)
    await save_sequences(store, [Checkpoint(neighbour, {"p": 2})])
    await partitions.delete_topic(TOPIC)
    assert [each.ledger for each in await Chain(store, neighbour).load()] == [ledger]
    assert await Cursors(store, neighbour).load() == [cursor]
    assert await load_sequences(store, neighbour) == {"p": 2}


async def test_a_watcher_hears_of_both_kinds_of_topics(partitions: Partitions) -> None:
    heard: list[TopicName] = []
    stop = partitions.watch(heard.extend)
    await partitions.create_topic(TOPIC, TopicRecord())
    other = TopicName.parse("persistent://t/n/y")
    await partitions.create_partitioned(other, 1, created_ms=1)
    stop()
    await partitions.delete_topic(TOPIC)
    assert sorted(heard) == sorted([TOPIC, other, other.partition_name(0)])
