"""Which entries of transactions are delivered, and when."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from magnetar.broker.entry import EARLIEST, LATEST, EntryId, TransactionId
from magnetar.broker.port import NotAllowedError, SubscriptionType
from magnetar.broker.run import DELIVER_AT
from magnetar.broker.topics.topic import Topic
from magnetar.broker.topics.upkeep import trim
from magnetar.names import TopicName
from tests.topics.whole_core import run_of
from tests.transactions.bank import Bank, ids, in_transactions
from tests.waiting import until

TOPIC = TopicName.parse("t")


@pytest.fixture
async def bank(tmp_path: Path) -> AsyncIterator[Bank]:
    bank = await Bank.on(tmp_path / "data")
    yield bank
    await bank.stop()


ALL_TYPES = pytest.mark.parametrize("kind", list(SubscriptionType))


@ALL_TYPES
async def test_nothing_of_an_open_transaction_is_delivered_and_all_of_it_once_it_is_committed(
    bank: Bank, kind: SubscriptionType
) -> None:
    sender, listener = await bank.producer(), await bank.consumer(type=kind)
    transaction = await bank.begin()
    await sender.send("a", "b", within=transaction)
    await asyncio.sleep(0.02)
    assert listener.door.bodies == []
    await bank.commit(transaction)
    assert await listener.bodies(2) == ["a", "b"]


@ALL_TYPES
async def test_nothing_of_an_aborted_transaction_is_ever_delivered(
    bank: Bank, kind: SubscriptionType
) -> None:
    sender, listener = await bank.producer(), await bank.consumer(type=kind)
    transaction = await bank.begin()
    await sender.send("never", within=transaction)
    await sender.send("plain")
    await bank.abort(transaction)
    assert await listener.bodies(1) == ["plain"]
    assert await bank.read() == ["plain"]


async def test_what_comes_behind_the_first_entry_of_an_open_transaction_waits_for_it(
    bank: Bank,
) -> None:
    sender, listener = await bank.producer(), await bank.consumer()
    first, second = await bank.begin(), await bank.begin()
    await sender.send("0")
    await sender.send("a", within=first)
    await sender.send("1")
    await sender.send("b", within=second)
    await sender.send("2")
    await bank.commit(second)
    await asyncio.sleep(0.02)
    assert listener.door.bodies == ["0"]
    await bank.commit(first)
    assert await listener.bodies(5) == ["0", "a", "1", "b", "2"]


async def test_one_read_of_a_socket_may_hold_several_transactions(bank: Bank) -> None:
    sender, listener = await bank.producer(), await bank.consumer()
    first, second = await bank.begin(), await bank.begin()
    await sender.send("0", "a", "b", "1", "c", within=[None, first, second, None, first])
    await bank.abort(second)
    await bank.commit(first)
    assert await listener.bodies(4) == ["0", "a", "1", "c"]


async def test_what_was_held_until_a_transaction_joined_keeps_its_order(bank: Bank) -> None:
    sender, listener = await bank.producer(), await bank.consumer()
    transaction = await bank.begin()
    sent = [
        asyncio.ensure_future(sender.post(str(i), within=transaction if i % 2 else None))
        for i in range(20)
    ]
    await asyncio.gather(*sent)
    await bank.commit(transaction)
    assert await listener.bodies(20) == [str(i) for i in range(20)]


async def test_only_the_rows_of_a_transaction_that_is_over_are_refused(bank: Bank) -> None:
    sender, listener = await bank.producer(), await bank.consumer()
    over, open_ = await bank.begin(), await bank.begin()
    await bank.commit(over)
    unknown = TransactionId(0, 999)
    found = await sender.post(*"abcde", within=[None, over, open_, unknown, None])
    assert [isinstance(each, NotAllowedError) for each in found] == [0, 1, 0, 1, 0]
    await bank.commit(open_)
    assert await listener.bodies(3) == ["a", "c", "e"]
    await sender.send("f")
    assert (await listener.bodies(4))[-1] == "f"


async def test_a_send_that_comes_after_the_end_joins_nothing(bank: Bank) -> None:
    sender = await bank.producer()
    transaction = await bank.begin()
    await sender.send("in", within=transaction)
    await bank.abort(transaction)
    [refused] = await sender.post("late", within=transaction)
    assert isinstance(refused, NotAllowedError)
    assert await bank.read() == []


async def test_a_topic_that_keeps_nothing_takes_part_in_no_transaction(bank: Bank) -> None:
    sender = await bank.producer("non-persistent://public/default/t")
    transaction = await bank.begin()
    found = await sender.post("a", "b", within=[None, transaction])
    assert isinstance(found[1], NotAllowedError)


async def test_the_last_message_is_the_last_that_may_be_seen(bank: Bank) -> None:
    sender, listener = await bank.producer(), await bank.consumer()
    [seen] = await sender.send("seen")
    aborted, open_ = await bank.begin(), await bank.begin()
    await sender.send("no", "no", within=aborted)
    await bank.abort(aborted)
    assert (await listener.consumer.last_message()).entry == seen
    await sender.send("not yet", within=open_)
    [behind] = await sender.send("behind")
    assert (await listener.consumer.last_message()).entry == seen
    await bank.commit(open_)
    assert (await listener.consumer.last_message()).entry == behind


async def test_a_topic_with_nothing_but_aborted_entries_is_empty(bank: Bank) -> None:
    sender = await bank.producer()
    transaction = await bank.begin()
    await sender.send("a", "b", "c", within=transaction)
    await bank.abort(transaction)
    listener = await bank.consumer()
    assert (await listener.consumer.last_message()).entry == EARLIEST


async def test_a_new_subscription_at_the_end_gets_what_is_committed_later(bank: Bank) -> None:
    sender = await bank.producer()
    transaction = await bank.begin()
    await sender.send("before")
    await sender.send("a", within=transaction)
    listener = await bank.consumer(subscription="late", from_earliest=False)
    await bank.commit(transaction)
    assert await listener.bodies(1) == ["a"]


async def test_a_backlog_counts_what_may_not_be_read_yet(bank: Bank) -> None:
    sender, listener = await bank.producer(), await bank.consumer()
    topic = await bank.core.catalog.topic(TOPIC)
    [subscription] = topic.readers
    [seen] = await sender.send("seen")
    await listener.bodies(1)
    listener.consumer.acknowledge(ids(seen), cumulative=False)
    assert subscription.backlog == 0
    transaction = await bank.begin()
    await sender.send("a", within=transaction)
    await sender.send("behind")
    assert (subscription.backlog, subscription.backlog_entries) == (2, 2)
    assert subscription.stats()["backlogSize"] > 0
    await bank.consumer(subscription="late", from_earliest=False)
    late = next(each for each in topic.readers if each.name == "late")
    assert late.backlog == 2, "it will get what is committed"
    await bank.commit(transaction)
    assert await listener.bodies(3) == ["seen", "a", "behind"]
    listener.consumer.acknowledge(ids(listener.door.received[-1][0]), cumulative=True)
    assert (subscription.backlog, subscription.backlog_entries) == (0, 0)


async def test_neither_seek_nor_skip_nor_expiry_passes_an_open_transaction(bank: Bank) -> None:
    sender, listener = await bank.producer(), await bank.consumer()
    transaction = await bank.begin()
    await sender.send("0")
    await sender.send("a", within=transaction)
    await sender.send("1")
    topic = await bank.core.catalog.topic(TOPIC)
    [subscription] = topic.readers
    await subscription.clear_backlog()
    await subscription.expire(0)
    await subscription.expire_to(LATEST)
    await subscription.skip(100)
    await subscription.seek(LATEST, (), None)
    assert listener.door.closed_with
    again = await bank.consumer()
    await bank.commit(transaction)
    assert await again.bodies(2) == ["a", "1"]


async def test_peeking_shows_what_consumers_will_get(bank: Bank) -> None:
    sender = await bank.producer()
    await bank.consumer()
    topic = await bank.core.catalog.topic(TOPIC)
    [subscription] = topic.readers
    aborted, open_ = await bank.begin(), await bank.begin()
    await sender.send("no", "0", "yet", within=[aborted, None, open_])
    await bank.abort(aborted)
    found = await subscription.peek(1)
    assert found is not None
    assert found.body == b"0"
    assert await subscription.peek(3) is None


async def test_a_terminated_topic_ends_only_once_everything_is_decided(bank: Bank) -> None:
    sender, listener = await bank.producer(), await bank.consumer()
    transaction = await bank.begin()
    await sender.send("a", within=transaction)
    await (await bank.core.catalog.topic(TOPIC)).terminate()
    await asyncio.sleep(0.02)
    assert not listener.door.ended
    await bank.commit(transaction)
    await listener.bodies(1)
    await until(lambda: listener.door.ended)


async def test_what_is_decided_survives_a_restart(bank: Bank, tmp_path: Path) -> None:
    sender = await bank.producer()
    kept, dropped, open_ = [await bank.begin() for _ in range(3)]
    await sender.send(*"0ka1o2", within=[None, kept, dropped, None, open_, None])
    await bank.commit(kept)
    await bank.abort(dropped)
    assert await bank.read() == ["0", "k", "1"]
    crashed = await bank.crashed(tmp_path / "crashed")
    stopped = await (await bank.crashed(tmp_path / "stopped")).restarted()
    for again in (crashed, stopped):
        assert await again.read() == ["0", "k", "1"]
        sender = await again.producer()
        await sender.send("more", within=open_)
        await again.commit(open_)
        assert await again.read() == ["0", "k", "1", "o", "2", "more"]
        await again.stop()


async def test_aborted_entries_stay_hidden_through_restart_after_restart(
    bank: Bank, tmp_path: Path
) -> None:
    for round_ in range(4):
        sender = await bank.producer()
        transactions = [await bank.begin() for _ in range(3)]
        for number, transaction in enumerate(transactions):
            await sender.send(f"{round_}{number}", within=transaction)
        await bank.abort(transactions[0])
        await bank.commit(transactions[1])
        await bank.abort(transactions[2])
        bank = await (bank.restarted() if round_ % 2 else bank.crashed(tmp_path / str(round_)))
    assert await bank.read() == ["01", "11", "21", "31"]
    await bank.stop()


async def test_an_unloaded_topic_knows_its_transactions_when_it_is_loaded_again(
    bank: Bank,
) -> None:
    sender = await bank.producer()
    aborted, committed, open_ = [await bank.begin() for _ in range(3)]
    await sender.send("a", "c", "o", within=[aborted, committed, open_])
    await bank.abort(aborted)
    await bank.core.catalog.unload(TOPIC)
    await bank.commit(committed)
    assert await bank.read() == ["c"]
    await bank.commit(open_)
    assert await bank.read() == ["c", "o"]


async def test_aborted_transactions_are_forgotten_when_their_entries_are_trimmed(
    tmp_path: Path,
) -> None:
    bank = await Bank.on(
        tmp_path / "data", ledger_entries_max=4, retention_time_min=0, retention_size_mib=0
    )
    sender, listener = await bank.producer(), await bank.consumer()
    transaction = await bank.begin()
    await sender.send("a", within=transaction)
    await bank.abort(transaction)
    topic = await bank.core.catalog.topic(TOPIC)
    assert topic.transactions is not None
    assert len(topic.transactions.aborted) == 1
    for number in range(12):
        [place] = await sender.send(str(number))
        await listener.bodies(number + 1)
        listener.acknowledge(place)
    await _until_trimmed(bank, topic)
    assert topic.transactions.aborted == {}
    assert await topic._around.transactions.buffers(topic.name) == {}
    await bank.stop()


async def test_a_topic_without_transactions_is_read_from_its_log_itself(bank: Bank) -> None:
    sender = await bank.producer()
    await bank.consumer()
    await sender.send("a")
    topic = await bank.core.catalog.topic(TOPIC)
    assert topic.transactions is None
    assert all(each.log is topic.log for each in topic.readers)


async def _until_trimmed(bank: Bank, topic: Topic) -> None:
    while True:
        await trim(topic, bank.core.clock.wall_ms() + 10_000)
        if topic.transactions is None or not topic.transactions.aborted:
            return
        await asyncio.sleep(0.02)


async def test_an_aborted_transaction_of_many_entries_is_passed_in_one_step(
    bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender = await bank.producer()
    await bank.consumer(subscription="early", type=SubscriptionType.SHARED)
    transaction = await bank.begin()
    await sender.send(*[str(i) for i in range(500)], within=transaction)
    await sender.send("plain")
    topic = await bank.core.catalog.topic(TOPIC)
    [subscription] = topic.readers
    steps: list[int] = []
    passed = subscription.pass_over

    def counting(ledger: int, first: int, messages: Sequence[int]) -> None:
        steps.append(len(messages))
        passed(ledger, first, messages)

    monkeypatch.setattr(type(subscription), "pass_over", lambda _, *args: counting(*args))
    await bank.abort(transaction)
    await until(lambda: sum(steps) == 500)
    assert len(steps) <= 5
    assert subscription.backlog_entries == 1


async def test_a_message_that_was_sent_twice_is_stored_once_in_a_transaction_too(
    tmp_path: Path,
) -> None:
    bank = await Bank.on(tmp_path / "deduplicating", deduplication=True)
    sender = await bank.producer(name="p")
    transaction = await bank.begin()
    await sender.send("a", "b", within=transaction)
    sender._sequence_id = 0
    [first, second] = await sender.post("a", "b", within=transaction)
    assert isinstance(first, EntryId)
    assert isinstance(second, EntryId)
    assert (first.ledger, second.ledger) == (-1, -1)
    await bank.commit(transaction)
    assert await bank.read() == ["a", "b"]
    await bank.stop()


async def test_a_delayed_message_of_a_transaction_waits_for_both(bank: Bank) -> None:
    sender, listener = await bank.producer(), await bank.consumer(type=SubscriptionType.SHARED)
    kept, dropped = await bank.begin(), await bank.begin()
    due_ms = bank.core.clock.wall_ms() + 500
    for transaction in (kept, dropped):
        run = in_transactions(run_of(["later"]), [transaction])
        run.i64(DELIVER_AT)[0] = due_ms
        await sender.client.post(run)
    await bank.commit(kept)
    await bank.abort(dropped)
    early = list(listener.door.bodies)
    assert bank.core.clock.wall_ms() >= due_ms or early == []
    await listener.bodies(1)
    assert bank.core.clock.wall_ms() >= due_ms
    await bank.core.settled()
    assert listener.door.bodies == ["later"]
