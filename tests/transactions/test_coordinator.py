"""Opening, deciding and finishing transactions, and a crash at every step of it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from magnetar.broker.entry import TransactionId
from magnetar.broker.metadata.transactions import COORDINATORS, State
from magnetar.broker.port import (
    InvalidTransactionStatusError,
    NotAllowedError,
    SubscriptionType,
    TooManyRequestsError,
    TransactionCoordinatorNotFoundError,
    TransactionNotFoundError,
)
from magnetar.broker.transactions import coordinator as module
from magnetar.names import TopicName
from tests.transactions.bank import Bank, ids


@pytest.fixture
async def bank(tmp_path: Path) -> AsyncIterator[Bank]:
    bank = await Bank.on(tmp_path / "data")
    yield bank
    await bank.stop()


async def until_over(bank: Bank, *transactions: TransactionId) -> None:
    async with asyncio.timeout(30):
        for each in transactions:
            while each in {found.id for found in await bank.coordinator.store.of(each.most)}:
                await bank.coordinator.look()
                await asyncio.sleep(0.01)


async def test_every_transaction_has_a_number_of_its_own_through_restarts(bank: Bank) -> None:
    first = [await bank.begin() for _ in range(3)]
    bank = await bank.restarted()
    later = await bank.begin()
    assert len({*first, later}) == 4
    assert later > max(first)
    await bank.stop()


async def test_there_are_so_many_coordinators_and_more_if_asked_for(bank: Bank) -> None:
    await bank.coordinator.demand(COORDINATORS - 1)
    for wrong in (COORDINATORS, -1):
        with pytest.raises(TransactionCoordinatorNotFoundError):
            await bank.coordinator.demand(wrong)
    with pytest.raises(TransactionCoordinatorNotFoundError):
        await bank.coordinator.open(COORDINATORS, 1000, None)
    await bank.coordinator.store.scale(COORDINATORS + 1)
    assert (await bank.coordinator.open(COORDINATORS, 1000, None)).most == COORDINATORS
    for wrong in (COORDINATORS, 1000):
        with pytest.raises(NotAllowedError):
            await bank.coordinator.store.scale(wrong)


async def test_who_ends_it_again_gets_the_same_answer_and_no_other_end(bank: Bank) -> None:
    kept, dropped = await bank.begin(), await bank.begin()
    for _ in range(2):
        await bank.commit(kept)
        await bank.abort(dropped)
    with pytest.raises(InvalidTransactionStatusError):
        await bank.abort(kept)
    with pytest.raises(InvalidTransactionStatusError):
        await bank.commit(dropped)
    with pytest.raises(TransactionNotFoundError):
        await bank.commit(TransactionId(0, 12345))
    for damaged in (TransactionId(2**64 - 1, 0), TransactionId(0, 2**63)):
        with pytest.raises(TransactionNotFoundError):
            await bank.commit(damaged)


async def test_of_a_commit_and_an_abort_at_once_one_wins_and_the_other_is_told(
    bank: Bank,
) -> None:
    sender = await bank.producer()
    for number in range(10):
        transaction = await bank.begin()
        await sender.send(str(number), within=transaction)
        outcomes = await asyncio.gather(
            bank.commit(transaction), bank.abort(transaction), return_exceptions=True
        )
        [lost] = [each for each in outcomes if each is not None]
        assert isinstance(lost, InvalidTransactionStatusError)
        committed = outcomes[0] is None
        assert (str(number) in await bank.read()) is committed


async def test_somebody_elses_transaction_is_not_found(bank: Bank) -> None:
    transaction = await bank.begin(role="ann")
    for role in ("bob", None):
        with pytest.raises(TransactionNotFoundError):
            await bank.commit(transaction, role)
        with pytest.raises(TransactionNotFoundError):
            await bank.coordinator.add(transaction, 1, role)
    await bank.coordinator.add(transaction, 1, "ann")
    await bank.commit(transaction, "ann")


async def test_an_administrator_may_abort_anybodys(bank: Bank) -> None:
    transaction = await bank.begin(role="ann")
    await bank.coordinator.abort(transaction)
    with pytest.raises(InvalidTransactionStatusError):
        await bank.commit(transaction, "ann")


async def test_what_is_over_or_decided_takes_no_more_participants(bank: Bank) -> None:
    transaction = await bank.begin()
    with pytest.raises(NotAllowedError):
        await bank.coordinator.add(transaction, 10_001, None)
    await bank.commit(transaction)
    with pytest.raises(TransactionNotFoundError):
        await bank.coordinator.add(transaction, 1, None)


async def test_a_transaction_whose_time_is_up_is_aborted(bank: Bank) -> None:
    sender, listener = await bank.producer(), await bank.consumer()
    transaction = await bank.begin(ttl_ms=50)
    await sender.send("never", within=transaction)
    await sender.send("plain")
    await until_over(bank, transaction)
    assert await listener.bodies(1) == ["plain"]
    with pytest.raises(InvalidTransactionStatusError):
        await bank.commit(transaction)
    assert bank.coordinator._figures.timed_out.value == 1


async def test_time_runs_on_through_a_restart(bank: Bank, tmp_path: Path) -> None:
    sender = await bank.producer()
    transaction = await bank.begin(ttl_ms=100)
    await sender.send("never", within=transaction)
    again = await bank.crashed(tmp_path / "crashed")
    await until_over(again, transaction)
    assert await again.read() == []
    await again.stop()


@pytest.mark.parametrize("wish", [0, 10**15])
async def test_no_transaction_is_open_for_ever(bank: Bank, wish: int) -> None:
    transaction = await bank.begin(ttl_ms=wish)
    found = await bank.coordinator.store.find(transaction)
    assert found.record.ttl_ms == module.TTL_MS_MAX


async def test_one_coordinator_has_only_so_many(
    bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "OPEN_MAX", 3)
    monkeypatch.setattr(module, "COUNT_AGE_S", 0)
    opened = [await bank.begin() for _ in range(3)]
    with pytest.raises(TooManyRequestsError):
        await bank.begin()
    await bank.commit(opened[0])
    await bank.begin()


async def test_many_that_open_at_once_are_counted_once_and_none_is_let_by(
    bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A count reads a key of each; one for each who asks would be all of them, many times over."""
    monkeypatch.setattr(module, "OPEN_MAX", 30)
    store, counts = bank.coordinator.store, 0
    count = store.count

    async def counted(coordinator: int) -> int:
        nonlocal counts
        counts += 1
        await asyncio.sleep(0.01)
        return await count(coordinator)

    monkeypatch.setattr(store, "count", counted)
    begun = await asyncio.gather(*(bank.begin() for _ in range(200)), return_exceptions=True)
    refused = [each for each in begun if isinstance(each, TooManyRequestsError)]
    assert len(refused) == 200 - 30
    assert counts == 1


async def test_what_is_over_leaves_nothing_behind(bank: Bank) -> None:
    sender, listener = await bank.producer(), await bank.consumer(type=SubscriptionType.SHARED)
    places = await sender.send("a", "b")
    await listener.bodies(2)
    before = {key for key, _ in await bank.core.store.scan("")}
    for end, place in ((bank.commit, places[0]), (bank.abort, places[1])):
        transaction = await bank.begin()
        await sender.send("x", within=transaction)
        await listener.consumer.acknowledge_in(transaction, ids(place), cumulative=False)
        await end(transaction)
    left = {key for key, _ in await bank.core.store.scan("")} - before
    # Where the aborted entry lies, the counter, and the cursor as it is now.
    kinds = {each.split("/")[0] for each in left}
    assert kinds == {"counters", "pages", "transaction-buffers"}
    topic = bank.core.catalog._topics[TopicName.parse("t")]
    assert topic.transactions is not None
    assert not topic.transactions.open
    assert not bank.coordinator._deadlines
    assert not bank.coordinator._finishing


# --- a crash at every step

STEPS = ("decided", "told", "settled", "finished")


class CrashError(BaseException):
    """The process dies here."""


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("commit", [True, False], ids=["commit", "abort"])
@pytest.mark.parametrize("nth", [1, 2, 3])
async def test_a_crash_at_any_step_leaves_all_or_nothing(
    tmp_path: Path, step: str, commit: bool, nth: int
) -> None:
    """Three topics and a subscription; whatever was decided is decided for all of them."""
    seen: list[str] = []
    copies: list[Bank] = []
    bank = await Bank.on(tmp_path / "data")

    def reached(name: str) -> None:
        seen.append(name)
        if name == step and seen.count(name) == nth:
            copies.append(Bank(bank.core.crashed(tmp_path / "crashed")))

    topics = ["t1", "t2", "t3"]
    senders = [await bank.producer(each) for each in topics]
    [place] = await senders[0].send("input")
    listener = await bank.consumer("t1", type=SubscriptionType.SHARED)
    await listener.bodies(1)
    transaction = await bank.begin()
    for each in senders:
        await each.send("a", "b", within=transaction)
    await listener.consumer.acknowledge_in(transaction, ids(place), cumulative=False)
    bank.coordinator._reached = reached
    await (bank.commit if commit else bank.abort)(transaction)
    if nth > seen.count(step):
        await bank.stop()
        return
    again = await copies[0].start()
    await until_over(again, transaction)
    found = [await again.read(each) for each in topics]
    written = ["a", "b"] if commit else []
    assert found == [["input", *written], written, written]
    left = await again.consumer("t1", type=SubscriptionType.SHARED)
    await again.core.settled()
    assert ("input" in left.door.bodies) is not commit
    await again.stop()
    await bank.stop()


async def test_a_crash_before_the_decision_leaves_it_open(bank: Bank, tmp_path: Path) -> None:
    sender = await bank.producer()
    transaction = await bank.begin()
    await sender.send("a", within=transaction)
    again = await bank.crashed(tmp_path / "crashed")
    assert (await again.coordinator.store.find(transaction)).record.state is State.OPEN
    assert await again.read() == []
    await again.abort(transaction)
    assert await again.read() == []
    await again.stop()


async def test_what_could_not_be_finished_is_finished_later(
    bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender = await bank.producer()
    transaction = await bank.begin()
    await sender.send("a", within=transaction)
    settle, failures = bank.core.catalog.settle, iter([True, True, False])

    async def fails(topic: TopicName, transaction: TransactionId) -> None:
        if next(failures, False):
            raise TransactionNotFoundError("not now")
        await settle(topic, transaction)

    monkeypatch.setattr(bank.core.catalog, "settle", fails)
    await bank.commit(transaction)  # decided, and that is what counts
    assert await bank.read() == []
    await until_over(bank, transaction)
    assert await bank.read() == ["a"]


async def test_a_made_up_word_from_a_sibling_decides_nothing(bank: Bank) -> None:
    sender, listener = await bank.producer(), await bank.consumer(type=SubscriptionType.SHARED)
    [place] = await sender.send("a")
    await listener.bodies(1)
    transaction = await bank.begin()
    await sender.send("b", within=transaction)
    await listener.consumer.acknowledge_in(transaction, ids(place), cumulative=False)
    await bank.coordinator.settle(TopicName.parse("t"), transaction)
    await bank.coordinator.settle_subscription(TopicName.parse("t"), "s", transaction)
    assert await bank.read() == ["a"]
    await bank.commit(transaction)
    assert await bank.read() == ["a", "b"]
