"""What compaction makes of transactions: what is committed counts, and nothing else."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from magnetar.broker.entry import EntryId, TransactionId
from magnetar.broker.port import PortError
from tests.topics.bodies import Said, run_of, single
from tests.topics.test_compactor import compact, view
from tests.topics.whole_core import Client
from tests.transactions.bank import Bank, in_transactions


@pytest.fixture
async def bank(tmp_path: Path) -> AsyncIterator[Bank]:
    bank = await Bank.on(tmp_path / "data")
    yield bank
    await bank.stop()


async def say(
    client: Client, number: int, within: TransactionId | None, *said: tuple[str, bytes]
) -> None:
    run = run_of([single(Said(*each)) for each in said], number)
    for _, place in await client.post(in_transactions(run, [within] * len(said))):
        assert not isinstance(place, PortError), place
        assert isinstance(place, EntryId)


async def test_what_was_aborted_does_not_survive_and_supersedes_nothing(bank: Bank) -> None:
    client = await bank.core.producer("t")
    committed, aborted = await bank.begin(), await bank.begin()
    await say(client, 0, committed, ("a", b"1"), ("b", b"1"))
    await say(client, 2, aborted, ("a", b"never"))
    await bank.commit(committed)
    await bank.abort(aborted)
    await say(client, 3, None, ("b", b"2"))
    await compact(bank.core)
    assert await view(bank.core) == [("a", b"1"), ("b", b"2")]


async def test_a_view_ends_before_what_is_not_decided(bank: Bank) -> None:
    client = await bank.core.producer("t")
    await say(client, 0, None, ("a", b"1"))
    transaction = await bank.begin()
    await say(client, 1, transaction, ("a", b"2"))
    await say(client, 2, None, ("b", b"1"))
    topic = await compact(bank.core)
    assert topic.compacted is not None
    assert topic.compacted.view is not None
    assert topic.compacted.view.horizon.entry == 0
    assert await view(bank.core) == [("a", b"1")]
    await bank.commit(transaction)
    assert await view(bank.core, name="2") == [("a", b"1"), ("a", b"2"), ("b", b"1")]
    await compact(bank.core)
    assert await view(bank.core, name="3") == [("a", b"2"), ("b", b"1")]
