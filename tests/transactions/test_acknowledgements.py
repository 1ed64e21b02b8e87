"""Acknowledgements in transactions: they count when the transaction is committed."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from magnetar.broker.entry import EntryFlags, EntryId, TransactionId
from magnetar.broker.port import (
    Acknowledged,
    InvalidTransactionStatusError,
    NotAllowedError,
    SubscriptionType,
    TransactionConflictError,
    TransactionNotFoundError,
)
from magnetar.broker.run import FLAGS, MESSAGES, Run
from magnetar.names import TopicName
from tests.topics.whole_core import Listener, run_of
from tests.transactions.bank import Bank, Sender, ids

TOPIC = TopicName.parse("t")
SHARED, KEYED = SubscriptionType.SHARED, SubscriptionType.KEY_SHARED
ALL_TYPES = pytest.mark.parametrize("kind", list(SubscriptionType))


@pytest.fixture
async def bank(tmp_path: Path) -> AsyncIterator[Bank]:
    bank = await Bank.on(tmp_path / "data")
    yield bank
    await bank.stop()


async def hold(listener: Listener, transaction: TransactionId, *places: EntryId) -> None:
    await listener.consumer.acknowledge_in(transaction, ids(*places), cumulative=False)


async def hold_up_to(listener: Listener, transaction: TransactionId, place: EntryId) -> None:
    await listener.consumer.acknowledge_in(transaction, ids(place), cumulative=True)


def cursor_of(bank: Bank) -> object:
    return bank.core.catalog._topics[TOPIC].readers[0].cursor


def backlog(bank: Bank) -> int:
    return bank.core.catalog._topics[TOPIC].readers[0].backlog_entries


@ALL_TYPES
async def test_they_count_when_the_transaction_is_committed(
    bank: Bank, kind: SubscriptionType
) -> None:
    sender, listener = await bank.producer(), await bank.consumer(type=kind)
    places = await sender.send(*"abc")
    await listener.bodies(3)
    transaction = await bank.begin()
    await hold(listener, transaction, places[0], places[2])
    assert backlog(bank) == 3
    await bank.commit(transaction)
    assert backlog(bank) == 1


@ALL_TYPES
async def test_what_was_acknowledged_in_an_aborted_transaction_comes_again(
    bank: Bank, kind: SubscriptionType
) -> None:
    sender, listener = await bank.producer(), await bank.consumer(type=kind)
    places = await sender.send(*"abc")
    await listener.bodies(3)
    transaction = await bank.begin()
    await hold(listener, transaction, *places)
    await bank.abort(transaction)
    assert (await listener.bodies(6))[3:] == ["a", "b", "c"]
    assert backlog(bank) == 3


@ALL_TYPES
async def test_held_messages_go_to_nobody_until_it_is_decided(
    bank: Bank, kind: SubscriptionType
) -> None:
    sender, listener = await bank.producer(), await bank.consumer(type=kind)
    places = await sender.send(*"abc")
    await listener.bodies(3)
    transaction = await bank.begin()
    await hold(listener, transaction, places[1])
    listener.consumer.redeliver(None, None)
    assert (await listener.bodies(5))[3:] == ["a", "c"]
    await listener.consumer.close()
    again = await bank.consumer(type=kind)
    assert await again.bodies(2) == ["a", "c"]
    await asyncio.sleep(0.02)
    assert again.door.bodies == ["a", "c"]
    await bank.abort(transaction)
    await again.bodies(3)
    assert "b" in again.door.bodies[2:]


@pytest.mark.parametrize("kind", [SHARED, KEYED])
async def test_what_another_consumer_held_comes_to_who_is_there_when_it_is_aborted(
    bank: Bank, kind: SubscriptionType
) -> None:
    sender, first = await bank.producer(), await bank.consumer(type=kind)
    places = await sender.send(*"abcd")
    await first.bodies(4)
    transaction = await bank.begin()
    await hold(first, transaction, *places[:2])
    second = await bank.consumer(type=kind, permits=0)
    await first.consumer.close()
    second.consumer.flow(100)
    assert await second.bodies(2) == ["c", "d"]
    await bank.abort(transaction)
    assert sorted((await second.bodies(4))[2:]) == ["a", "b"]
    second.acknowledge(*places)
    assert backlog(bank) == 0


async def test_a_second_wish_for_the_same_message_is_a_conflict(bank: Bank) -> None:
    sender, listener = await bank.producer(), await bank.consumer(type=SHARED)
    held, done, free = await sender.send(*"abc")
    await listener.bodies(3)
    first, second = await bank.begin(), await bank.begin()
    await hold(listener, first, held)
    await hold(listener, first, held)  # the answer may have been lost
    listener.acknowledge(done)
    for place in (held, done, EntryId(done.ledger, 999)):
        with pytest.raises(TransactionConflictError):
            await hold(listener, second, free, place)
    with pytest.raises(TransactionConflictError):
        listener.acknowledge(held, free)
    assert backlog(bank) == 1  # the other one is acknowledged all the same
    await bank.abort(first)
    await bank.abort(second)
    listener.acknowledge(held)
    assert backlog(bank) == 0


async def test_a_conflict_holds_nothing_of_what_came_with_it(bank: Bank) -> None:
    sender, listener = await bank.producer(), await bank.consumer(type=SHARED)
    held, free = await sender.send(*"ab")
    await listener.bodies(2)
    first, second = await bank.begin(), await bank.begin()
    await hold(listener, first, held)
    with pytest.raises(TransactionConflictError):
        await hold(listener, second, free, held)
    listener.acknowledge(free)
    assert backlog(bank) == 1


async def test_only_an_open_transaction_can_hold_something(bank: Bank) -> None:
    sender, listener = await bank.producer(), await bank.consumer(type=SHARED)
    [place] = await sender.send("a")
    await listener.bodies(1)
    over = await bank.begin()
    await bank.commit(over)
    with pytest.raises(TransactionNotFoundError):
        await hold(listener, over, place)
    listener.acknowledge(place)  # nothing is held
    assert backlog(bank) == 0


async def test_a_reader_takes_part_in_no_transaction(bank: Bank) -> None:
    sender, reader = await bank.producer(), await bank.consumer(durable=False)
    [place] = await sender.send("a")
    await reader.bodies(1)
    with pytest.raises(NotAllowedError):
        await hold(reader, await bank.begin(), place)


# --- cumulative


async def test_a_cumulative_acknowledgement_holds_everything_up_to_it(bank: Bank) -> None:
    sender, listener = await bank.producer(), await bank.consumer()
    places = await sender.send(*"abcd")
    await listener.bodies(4)
    transaction, other = await bank.begin(), await bank.begin()
    await hold_up_to(listener, transaction, places[1])
    await hold_up_to(listener, transaction, places[0])
    await hold_up_to(listener, transaction, places[2])
    for wish in (hold(listener, other, places[1]), hold_up_to(listener, other, places[3])):
        with pytest.raises(TransactionConflictError):
            await wish
    with pytest.raises(TransactionConflictError):
        listener.acknowledge(places[3], cumulative=True)
    listener.consumer.redeliver(None, None)
    assert (await listener.bodies(5))[4:] == ["d"]
    await bank.commit(transaction)
    assert backlog(bank) == 1


async def test_an_aborted_cumulative_acknowledgement_comes_again(bank: Bank) -> None:
    sender, listener = await bank.producer(), await bank.consumer()
    places = await sender.send(*"abc")
    await listener.bodies(3)
    transaction = await bank.begin()
    await hold_up_to(listener, transaction, places[1])
    await bank.abort(transaction)
    assert (await listener.bodies(6))[3:] == ["a", "b", "c"]


@pytest.mark.parametrize("kind", [SHARED, KEYED])
async def test_shared_subscriptions_know_no_cumulative_acknowledgement(
    bank: Bank, kind: SubscriptionType
) -> None:
    sender, listener = await bank.producer(), await bank.consumer(type=kind)
    [place] = await sender.send("a")
    await listener.bodies(1)
    with pytest.raises(NotAllowedError):
        await hold_up_to(listener, await bank.begin(), place)


# --- messages of batches


async def send_batch(sender: Sender, messages: int) -> EntryId:
    run = run_of(["batch"])
    run.u32(MESSAGES)[0] = messages
    run.u32(FLAGS)[0] = EntryFlags.BATCH
    [(_, place)] = await sender.client.post(Run(run.rows, run.buffer))
    assert isinstance(place, EntryId)
    return place


def but(messages: Sequence[int], of: int) -> tuple[int, ...]:
    """The ack set that acknowledges some messages of a batch."""
    return ((1 << of) - 1 & ~sum(1 << each for each in messages),)


async def test_transactions_may_each_acknowledge_messages_of_one_batch(bank: Bank) -> None:
    sender, listener = await bank.producer(), await bank.consumer(type=SHARED)
    place = await send_batch(sender, 4)
    await listener.bodies(1)
    first, second, third = [await bank.begin() for _ in range(3)]

    async def hold_parts(transaction: TransactionId, *messages: int) -> None:
        wish = Acknowledged(*place, but(messages, 4))
        await listener.consumer.acknowledge_in(transaction, [wish], cumulative=False)

    await hold_parts(first, 0, 3)
    await hold_parts(second, 1)
    await hold_parts(second, 1)
    with pytest.raises(TransactionConflictError):
        await hold_parts(third, 1, 2)
    with pytest.raises(TransactionConflictError):
        await hold_parts(third, 3)
    with pytest.raises(TransactionConflictError):
        await hold(listener, third, place)
    await bank.commit(first)
    with pytest.raises(TransactionConflictError):
        await hold_parts(third, 0)
    await bank.abort(second)
    await hold_parts(third, 1, 2)
    await bank.commit(third)
    assert backlog(bank) == 0


async def test_a_batch_comes_again_without_the_messages_that_are_held(bank: Bank) -> None:
    sender, listener = await bank.producer(), await bank.consumer()
    place = await send_batch(sender, 4)
    await listener.bodies(1)
    transaction = await bank.begin()
    wish = Acknowledged(*place, but([1, 2], 4))
    await listener.consumer.acknowledge_in(transaction, [wish], cumulative=False)
    [subscription] = bank.core.catalog._topics[TOPIC].readers
    assert subscription.held is not None
    assert subscription.held.left(place, None, 4) == (0b1001,)
    rest = Acknowledged(*place, but([0, 3], 4))
    await listener.consumer.acknowledge_in(transaction, [rest], cumulative=False)
    listener.consumer.redeliver(None, None)
    await asyncio.sleep(0.02)
    assert len(listener.door.bodies) == 1
    await bank.abort(transaction)
    await listener.bodies(2)


# --- what counts as unacknowledged


def unacked(bank: Bank) -> int:
    """What the subscription counts; its consumers count the same together."""
    [subscription] = bank.core.catalog._topics[TOPIC].readers
    counted = sum(each.unacked_messages for each in subscription.consumers.values())
    assert subscription.delivery is not None
    assert counted == subscription.delivery.unacked_messages
    return counted


@pytest.mark.parametrize("kind", [SHARED, KEYED])
@pytest.mark.parametrize("committed", [True, False])
async def test_who_holds_much_in_a_transaction_goes_on_getting_messages(
    tmp_path: Path, kind: SubscriptionType, committed: bool
) -> None:
    bank = await Bank.on(tmp_path / "data", unacked_messages_per_consumer_max=3)
    sender, listener = await bank.producer(), await bank.consumer(type=kind)
    places = await sender.send(*"abcdef")
    transaction = await bank.begin()
    await listener.bodies(3)
    await asyncio.sleep(0.02)
    assert len(listener.door.bodies) == 3, "the limit"
    await hold(listener, transaction, *places[:3])
    await listener.bodies(6)
    assert unacked(bank) == 3
    if committed:
        await bank.commit(transaction)
        assert unacked(bank) == 3
        listener.acknowledge(*places[3:])
    else:
        await bank.abort(transaction)
        assert unacked(bank) == 3
        listener.acknowledge(*places[3:])
        assert sorted((await listener.bodies(9))[6:]) == ["a", "b", "c"]
        assert unacked(bank) == 3
        listener.acknowledge(*places[:3])
    assert (unacked(bank), backlog(bank)) == (0, 0)
    await bank.stop()


@pytest.mark.parametrize("end", ["commit", "abort", "nack, commit", "nack, abort", "leave, abort"])
async def test_messages_of_batches_that_are_held_do_not_count_either(bank: Bank, end: str) -> None:
    sender, listener = await bank.producer(), await bank.consumer(type=SHARED)
    place = await send_batch(sender, 4)
    await sender.send("x")
    await listener.bodies(2)
    assert unacked(bank) == 5
    transaction = await bank.begin()
    for message in (1, 2):
        wish = Acknowledged(*place, but([message], 4))
        await listener.consumer.acknowledge_in(transaction, [wish], cumulative=False)
    assert unacked(bank) == 3
    if "nack" in end:
        listener.consumer.redeliver([place], None)
        await listener.bodies(3)
        assert unacked(bank) == 3
    if "leave" in end:
        await listener.consumer.close()
        listener = await bank.consumer(type=SHARED)
        await listener.bodies(2)
        assert unacked(bank) == 3
    if "commit" in end:
        await bank.commit(transaction)
        await bank.core.settled()
        assert unacked(bank) == 3
    else:
        had = len(listener.door.bodies)
        await bank.abort(transaction)
        await listener.bodies(had + 1)
        assert unacked(bank) == 5
    rest = Acknowledged(*place, but([0, 1, 2, 3], 4))
    listener.consumer.acknowledge([rest], cumulative=False)
    assert unacked(bank) == 1
    await listener.consumer.close()


# --- on disk


async def test_what_is_held_survives_a_crash(bank: Bank, tmp_path: Path) -> None:
    sender, listener = await bank.producer(), await bank.consumer(type=SHARED)
    places = await sender.send(*"abcde")
    await listener.bodies(5)
    committed, aborted, open_ = [await bank.begin() for _ in range(3)]
    await hold(listener, committed, places[0])
    await hold(listener, aborted, places[1])
    await hold(listener, open_, places[2])
    await hold(listener, open_, places[3])
    await bank.commit(committed)
    await bank.abort(aborted)
    for number, wish in enumerate(("commit", "abort")):
        again = await bank.crashed(tmp_path / str(number))
        listener = await again.consumer(type=SHARED)
        assert await listener.bodies(2) == ["b", "e"]
        with pytest.raises(TransactionConflictError):
            listener.acknowledge(places[2])
        if wish == "commit":
            await again.commit(open_)
            assert backlog(again) == 2
        else:
            await again.abort(open_)
            assert sorted(await listener.bodies(4)) == ["b", "c", "d", "e"]
        await again.stop()


async def test_a_cumulative_one_and_parts_of_batches_survive_too(
    bank: Bank, tmp_path: Path
) -> None:
    sender, listener = await bank.producer(), await bank.consumer()
    [first] = await sender.send("a")
    batch = await send_batch(sender, 3)
    await listener.bodies(2)
    transaction, other = await bank.begin(), await bank.begin()
    await hold_up_to(listener, transaction, first)
    wish = Acknowledged(*batch, but([0, 1], 3))
    await listener.consumer.acknowledge_in(other, [wish], cumulative=False)
    again = await bank.crashed(tmp_path / "crashed")
    await again.commit(transaction)
    await again.commit(other)
    await again.consumer()
    assert backlog(again) == 1
    again = await again.restarted()
    listener = await again.consumer()
    wish = Acknowledged(*batch, but([2], 3))
    listener.consumer.acknowledge([wish], cumulative=False)
    assert backlog(again) == 0
    await again.stop()


async def test_a_subscription_that_is_deleted_takes_what_it_held_with_it(bank: Bank) -> None:
    sender, listener = await bank.producer(), await bank.consumer()
    [place] = await sender.send("a")
    await listener.bodies(1)
    transaction = await bank.begin()
    await hold(listener, transaction, place)
    await listener.consumer.unsubscribe(force=True)
    await bank.commit(transaction)
    assert await bank.coordinator.store.cursors_with_acks() == set()
    again = await bank.consumer()
    assert await again.bodies(1) == ["a"]


async def test_entries_and_acknowledgements_of_one_transaction_count_together(
    bank: Bank, tmp_path: Path
) -> None:
    """Consume, transform, produce: what is read is done exactly if what is written is seen."""
    source, target = await bank.producer("in"), await bank.producer("out")
    listener = await bank.consumer("in", type=SHARED)
    places = await source.send(*"012345")
    await listener.bodies(6)
    for number, place in enumerate(places):
        transaction = await bank.begin()
        await target.send(f"{number}!", within=transaction)
        await listener.consumer.acknowledge_in(transaction, ids(place), cumulative=False)
        await (bank.abort if number % 3 == 0 else bank.commit)(transaction)
    for again in (bank, await bank.crashed(tmp_path / "crashed")):
        assert await again.read("out") == ["1!", "2!", "4!", "5!"]
        left = await again.consumer("in", type=SHARED)
        await left.consumer.close()
        [subscription] = again.core.catalog._topics[TopicName.parse("in")].readers
        assert subscription.backlog_entries == 2
    await again.stop()


async def test_a_decision_beats_an_acknowledgement_that_is_on_its_way(bank: Bank) -> None:
    sender, listener = await bank.producer(), await bank.consumer(type=SHARED)
    places = await sender.send(*[str(i) for i in range(50)])
    await listener.bodies(50)
    transaction = await bank.begin()
    wishes = [asyncio.ensure_future(hold(listener, transaction, each)) for each in places]
    await asyncio.sleep(0)
    await bank.commit(transaction)
    outcomes = await asyncio.gather(*wishes, return_exceptions=True)
    refused = [each for each in outcomes if each is not None]
    assert all(
        isinstance(each, InvalidTransactionStatusError | TransactionNotFoundError)
        for each in refused
    )
    assert backlog(bank) == len(refused)
    [subscription] = bank.core.catalog._topics[TOPIC].readers
    assert subscription.held is not None
    assert len(subscription.held) == 0
