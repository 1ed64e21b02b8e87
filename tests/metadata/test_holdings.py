"""What is written down of the disk's contents reads back, and says how far each ledger reaches."""

from magnetar.broker.metadata.holdings import (
    Facts,
    Held,
    LedgerFact,
    Synced,
    begin_holding,
    expected_ends,
    load_facts,
    save_held,
    save_synced,
)
from magnetar.broker.metadata.store import Store


async def test_what_was_written_down_is_read_again(store: Store) -> None:
    assert await load_facts(store) == Facts({}, set(), {}, {})
    await save_held(store, 0, Held(journal=[1], ends={7: 3}))
    await save_held(store, 0, Held(journal=[4, 5], ends={7: 1500, 2**63: 1}))
    await save_synced(store, 0, Synced(5, 8101))
    facts = await load_facts(store)
    assert facts.held == {0: Held(journal=[4, 5], ends={7: 1500, 2**63: 1})}
    assert facts.synced == {0: (5, 8101)}


async def test_a_start_takes_the_place_of_those_whose_journals_it_has_replayed(
    store: Store,
) -> None:
    for worker in range(4):
        await save_held(store, worker, Held(journal=[worker]))
        await save_synced(store, worker, Synced(worker, 1))
    await begin_holding(store, 0, Held(ends={7: 1}), replayed=[0, 2, 3])
    facts = await load_facts(store)
    assert facts.held == {0: Held(ends={7: 1}), 1: Held(journal=[1])}
    assert facts.synced == {1: (1, 1)}


def test_a_sealed_ledger_reaches_its_end_and_an_open_one_what_was_flushed() -> None:
    facts = Facts(
        {1: LedgerFact(0, 10), 2: LedgerFact(0), 3: LedgerFact(1, 5), 4: LedgerFact(0, 0)},
        {9},
        {0: Held(ends={2: 7, 1: 99, 9: 4, 3: 3}), 1: Held(ends={2: 8})},
        {},
    )
    assert expected_ends(facts, [0]) == {1: 10, 2: 7}
    assert expected_ends(facts, [0, 1]) == {1: 10, 2: 8, 3: 5}
    assert facts.sealed_ends == {1: 10, 3: 5, 4: 0}
    assert facts.known == {1, 2, 3, 4, 9}
