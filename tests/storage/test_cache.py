"""The write cache serves what is durable, and forgets what will never be."""

from magnetar.broker.storage.cache import Generation, within
from magnetar.broker.storage.record import Part
from tests.storage.rig import body_of, run_of
from tests.storage.test_block import cached


def filled() -> Generation:
    generation = Generation()
    cached(generation, run_of([body_of(1, e) for e in (0, 1, 2)]), Part(1, 0, 0, 3, ""))
    cached(
        generation,
        run_of([body_of(1, 3), body_of(2, 8), body_of(2, 9)]),
        Part(1, 3, 0, 1, ""),
        Part(2, 8, 1, 2, ""),
    )
    cached(
        generation,
        run_of([body_of(2, 10), body_of(1, 4)]),
        Part(2, 10, 0, 1, ""),
        Part(1, 4, 1, 1, ""),
    )
    return generation


def test_entries_are_found_from_any_of_them_on() -> None:
    generation = filled()
    for ledger, first, end in ((1, 0, 5), (2, 8, 11)):
        for entry in range(first, end):
            run = generation.read(ledger, entry, 99, 1 << 20)
            assert run is not None
            assert bytes(run.body(0)) == body_of(ledger, entry)
        assert generation.read(ledger, end, 1, 1) is None
    assert generation.read(2, 7, 1, 1) is None
    assert generation.read(3, 0, 1, 1) is None


def test_only_what_is_durable_is_served() -> None:
    generation = filled()
    generation.records[-1].durable = False
    assert generation.read(1, 4, 1, 1) is None
    assert generation.durable_end(1) == 4
    assert generation.durable_end(2) == 10
    for record in generation.records:
        record.durable = False
    assert generation.durable_end(1) is None


def test_what_failed_is_cut_off_each_ledger() -> None:
    generation = filled()
    for record in generation.records[1:]:
        record.durable = False
    assert generation.drop_undurable() == {1: 3, 2: 8}
    assert len(generation.records) == 1
    assert list(generation.tails) == [1]
    assert generation.tails[1].end == 3
    assert generation.drop_undurable() == {}


def test_a_limit_of_bytes_lets_at_least_one_entry_through() -> None:
    run = run_of([b"12345", b"12345", b"12345"])
    assert [within(run, limit).count for limit in (0, 5, 9, 10, 14, 15, 99)] == [
        1, 1, 1, 2, 2, 3, 3,
    ]  # fmt: skip


def test_who_reads_the_same_chunk_shares_what_is_known_of_it() -> None:
    generation = filled()
    first, second = generation.read(1, 0, 2, 1 << 20), generation.read(1, 1, 9, 1 << 20)
    assert first is not None
    assert second is not None
    assert first.whole is second.whole
    other = generation.read(1, 3, 9, 1 << 20)
    assert other is not None
    assert other.whole is not first.whole


def test_a_chunk_that_failed_is_not_remembered_in_place_of_the_one_that_follows() -> None:
    generation = filled()
    assert generation.read(1, 4, 9, 1 << 20) is not None
    generation.records[-1].durable = False
    generation.drop_undurable()
    assert generation.read(1, 4, 9, 1 << 20) is None
    cached(generation, run_of([b"sent again"]), Part(1, 4, 0, 1, ""))
    run = generation.read(1, 4, 9, 1 << 20)
    assert run is not None
    assert bytes(run.body(0)) == b"sent again"
