"""Chains of ledgers."""

import asyncio

import pytest

from magnetar.broker.metadata.chains import (
    Chain,
    Dropped,
    LedgerRecord,
    LostOwnershipError,
    reserve_ledgers_up_to,
)
from magnetar.broker.metadata.namespaces import Namespaces
from magnetar.broker.metadata.partitions import Partitions, TopicRecord
from magnetar.broker.metadata.store import Store
from magnetar.broker.metadata.tenants import Tenant, Tenants
from magnetar.broker.port import TopicNotFoundError
from magnetar.names import NamespaceName, TopicName

TOPIC = TopicName.parse("persistent://t/n/x")


@pytest.fixture
async def chain(store: Store) -> Chain:
    await Tenants(store).create("t", Tenant())
    await Namespaces(store).create(NamespaceName("t", "n"))
    await Partitions(store).create_topic(TOPIC, TopicRecord())
    return Chain(store, TOPIC)


async def test_a_chain_grows_link_by_link_and_ends_open(chain: Chain) -> None:
    first = await chain.extend(0, worker=1)
    end = LedgerRecord(
        ledger=first,
        first_index=0,
        worker=1,
        end_entry=10,
        next_index=25,
        bytes=999,
        first_publish_ms=5,
        last_publish_ms=9,
    )
    await chain.seal(end)
    second = await chain.extend(25, worker=1)
    assert second > first
    links = await chain.load()
    assert links == [end, LedgerRecord(ledger=second, first_index=25, worker=1)]
    assert [link.sealed for link in links] == [True, False]


async def test_ledger_ids_are_unique_among_all_topics_and_grow_along_each(
    store: Store, chain: Chain
) -> None:
    others = [TopicName.parse(f"persistent://t/n/o{each}") for each in range(5)]
    for topic in others:
        await Partitions(store).create_topic(topic, TopicRecord())
    chains = [chain, *(Chain(store, topic) for topic in others)]
    ids = [await asyncio.gather(*(each.extend(0, worker=0) for each in chains)) for _ in range(4)]
    assert sorted(each for round_of_ids in ids for each in round_of_ids) == list(range(1, 25))
    for each in chains:
        links = [link.ledger for link in await each.load()]
        assert links == sorted(links)
        assert len(links) == 4


async def test_who_lost_the_topic_can_neither_extend_seal_nor_drop(chain: Chain) -> None:
    old = await chain.take(worker=0)
    ledger = await chain.extend(0, 0, old)
    new = await chain.take(worker=1)
    end = LedgerRecord(ledger=ledger, first_index=0, worker=0, end_entry=1, next_index=1)
    for late in (chain.extend(1, 0, old), chain.seal(end, old), chain.drop([ledger], old)):
        with pytest.raises(LostOwnershipError, match="taken by another process"):
            await late
    await chain.seal(end, new)
    assert await chain.extend(1, 1, new) > ledger


async def test_a_topic_deleted_meanwhile_gets_no_new_ledger(store: Store, chain: Chain) -> None:
    ledger = await chain.extend(0, worker=0)
    await Partitions(store).delete_topic(TOPIC)
    end = LedgerRecord(ledger=ledger, first_index=0, worker=0, end_entry=1, next_index=1)
    for late in (chain.extend(1, worker=0), chain.seal(end), chain.take(worker=0)):
        with pytest.raises(TopicNotFoundError, match="does not exist"):
            await late
    assert await chain.load() == []


async def test_a_ledger_is_sealed_only_with_its_end(chain: Chain) -> None:
    ledger = await chain.extend(0, worker=0)
    with pytest.raises(ValueError, match="without its end"):
        await chain.seal(LedgerRecord(ledger=ledger, first_index=0, worker=0))


async def test_a_dropped_ledger_is_garbage_until_it_is_forgotten(
    store: Store, chain: Chain
) -> None:
    ledgers = [await chain.extend(0, worker=0) for _ in range(3)]
    await chain.drop(ledgers[:2])
    assert [link.ledger for link in await chain.load()] == ledgers[2:]
    dropped = Dropped(store)
    assert await dropped.list() == ledgers[:2]
    await dropped.forget(ledgers[:1])
    assert await dropped.list() == ledgers[1:2]


async def test_ids_found_on_disk_are_not_given_out_again(store: Store, chain: Chain) -> None:
    await chain.extend(0, worker=0)
    await reserve_ledgers_up_to(store, 41)
    await reserve_ledgers_up_to(store, 7)
    assert await chain.extend(0, worker=0) == 42
