"""Compaction sees what is committed, and nothing of what is open or aborted."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from magnetar.broker.entry import TransactionId
from magnetar.broker.port import PortError
from tests.topics.bodies import Said, run_of, single
from tests.topics.compaction.test_compactor import compact, reader
from tests.transactions.bank import Bank, in_transactions


@pytest.fixture
async def bank(tmp_path: Path) -> AsyncIterator[Bank]:
    bank = await Bank.on(tmp_path / "data", ledger_entries_max=10)
    yield bank
    await bank.stop()


async def say(bank: Bank, key: str, value: bytes, within: TransactionId | None = None) -> None:
    client = await bank.core.producer("t")
    run = in_transactions(run_of([single(Said(key, value))]), [within])
    [(_, place)] = await client.post(run)
    assert not isinstance(place, PortError), place
    await client.producer.close()


async def view(bank: Bank) -> list[tuple[str | None, bytes | None]]:
    door = await reader(bank.core)
    found = [(each.key, each.value) for each in await door.settled()]
    await door.listener.consumer.close()
    return found


async def test_an_aborted_value_replaces_none_and_a_committed_one_does(bank: Bank) -> None:
    kept, dropped = await bank.begin(), await bank.begin()
    await say(bank, "a", b"1")
    await say(bank, "b", b"1")
    await say(bank, "a", b"2", dropped)
    await say(bank, "b", b"2", kept)
    await bank.abort(dropped)
    await bank.commit(kept)
    await compact(bank.core)
    assert await view(bank) == [("a", b"1"), ("b", b"2")]
    bank = await bank.restarted()
    assert await view(bank) == [("a", b"1"), ("b", b"2")]
    await bank.stop()


async def test_compaction_stops_where_an_open_transaction_begins(bank: Bank) -> None:
    await say(bank, "a", b"1")
    open_ = await bank.begin()
    await say(bank, "a", b"2", open_)
    await say(bank, "c", b"1")
    topic = await compact(bank.core)
    assert topic.compacted is not None
    assert topic.compacted.view is not None
    assert topic.compacted.view.places == 1
    assert await view(bank) == [("a", b"1")]
    await bank.commit(open_)
    assert await view(bank) == [("a", b"1"), ("a", b"2"), ("c", b"1")]
    await compact(bank.core)
    assert await view(bank) == [("a", b"2"), ("c", b"1")]


async def test_a_survivor_is_not_taken_for_an_aborted_entry_by_its_number(bank: Bank) -> None:
    """The column with a transaction's number holds something else in a compacted ledger."""
    dropped = [await bank.begin() for _ in range(8)]
    for number, transaction in enumerate(dropped):
        await say(bank, f"k{number}", b"1")
        await say(bank, f"k{number}", b"2", transaction)
        await bank.abort(transaction)
    await compact(bank.core)
    assert await view(bank) == [(f"k{number}", b"1") for number in range(8)]
