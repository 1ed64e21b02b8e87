"""Which ledger holds the compacted view of a topic."""

import pytest

from magnetar.broker.entry import EntryId
from magnetar.broker.metadata.chains import Chain, Dropped, LostOwnershipError
from magnetar.broker.metadata.compactions import CompactionRecord, Compactions, Source
from magnetar.broker.metadata.holdings import load_facts
from magnetar.broker.metadata.namespaces import Namespaces
from magnetar.broker.metadata.partitions import Partitions, TopicRecord
from magnetar.broker.metadata.store import Store
from magnetar.broker.metadata.tenants import Tenant, Tenants
from magnetar.broker.port import TopicNotFoundError
from magnetar.names import NamespaceName, TopicName

TOPIC = TopicName.parse("persistent://t/n/x")
DONE = CompactionRecord(
    worker=0,
    end_entry=3,
    bytes=30,
    horizon_ledger=1,
    horizon_entry=9,
    sources=[Source(1, 0, 10)],
)


@pytest.fixture
async def compactions(store: Store) -> Compactions:
    await Tenants(store).create("t", Tenant())
    await Namespaces(store).create(NamespaceName("t", "n"))
    await Partitions(store).create_topic(TOPIC, TopicRecord())
    return Compactions(store, TOPIC)


async def test_a_ledger_is_known_before_it_is_finished(
    store: Store, compactions: Compactions
) -> None:
    ledger = await compactions.begin(2, None)
    assert await compactions.load() == {ledger: CompactionRecord(worker=2)}
    fact = (await load_facts(store)).ledgers[ledger]
    assert (fact.worker, fact.end_entry) == (2, None)


async def test_its_number_is_one_that_no_other_ledger_gets(
    store: Store, compactions: Compactions
) -> None:
    chain = Chain(store, TOPIC)
    ids = [await compactions.begin(0, None), await chain.extend(0, 0)]
    ids += [await compactions.begin(0, None), await chain.extend(0, 0)]
    assert ids == sorted(set(ids))
    assert [each.ledger for each in await chain.load()] == ids[1::2]


async def test_the_new_view_replaces_the_old_one_in_one_commit(
    store: Store, compactions: Compactions
) -> None:
    first = await compactions.begin(0, None)
    await compactions.finish(first, DONE, [], None)
    second = await compactions.begin(0, None)
    await compactions.finish(second, DONE, [first], None)
    assert await compactions.load() == {second: DONE}
    assert await Dropped(store).list() == [first]
    assert DONE.horizon == EntryId(1, 9)
    assert (await load_facts(store)).sealed_ends[second] == 3


async def test_who_has_lost_the_topic_changes_nothing(
    store: Store, compactions: Compactions
) -> None:
    epoch = await Chain(store, TOPIC).take(0)
    ledger = await compactions.begin(0, epoch)
    await Chain(store, TOPIC).take(1)
    with pytest.raises(LostOwnershipError):
        await compactions.begin(0, epoch)
    with pytest.raises(LostOwnershipError):
        await compactions.finish(ledger, DONE, [], epoch)
    assert (await compactions.load())[ledger].end_entry is None


async def test_a_topic_that_is_gone_is_not_compacted(
    store: Store, compactions: Compactions
) -> None:
    ledger = await compactions.begin(0, None)
    await Partitions(store).delete_topic(TOPIC)
    assert await compactions.load() == {}
    assert await Dropped(store).list() == [ledger]
    with pytest.raises(TopicNotFoundError):
        await compactions.finish(ledger, DONE, [], None)
    with pytest.raises(TopicNotFoundError):
        await compactions.begin(0, None)


async def test_a_ledger_without_an_end_is_not_finished(compactions: Compactions) -> None:
    ledger = await compactions.begin(0, None)
    with pytest.raises(ValueError, match="no end"):
        await compactions.finish(ledger, CompactionRecord(worker=0), [], None)
