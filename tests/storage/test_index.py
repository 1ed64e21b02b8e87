"""The places of entries agree with a plain model, whatever logs come and go."""

from hypothesis import given
from hypothesis import strategies as st

from magnetar.broker.storage.index import EXTENTS_PER_SLICE, Extents
from magnetar.broker.storage.segment import Table

LEDGER_MAX = 4
ENTRY_MAX = 40


def table_of(name: str, extents: list[tuple[int, int, int]]) -> Table:
    table = Table(name, 1, 1000, 0, 0)
    for ledger, first, count in sorted(extents):
        table.add((ledger, first, count, count * 10, 0, 0, 0, 0, 0, 1))
    return table


EXTENTS = st.lists(
    st.tuples(st.integers(1, LEDGER_MAX), st.integers(0, 30), st.integers(1, 10)),
    max_size=6,
    unique_by=lambda extent: extent[:2],
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from("abcdef"), EXTENTS),
        st.tuples(st.just("remove"), st.sampled_from("abcdef"), st.just([])),
    ),
    max_size=12,
)


@given(STEPS)
def test_places_agree_with_a_plain_model(
    steps: list[tuple[str, str, list[tuple[int, int, int]]]],
) -> None:
    extents = Extents()
    model: dict[str, list[tuple[int, int, int]]] = {}
    for what, name, found in steps:
        if what == "add":
            extents.add(table_of(name, found))
            model[name] = found
        elif name in model:
            extents.remove(name)
            del model[name]
        assert extents.names() == set(model)
        stored = {
            (ledger, entry)
            for rows in model.values()
            for ledger, first, count in rows
            for entry in range(first, first + count)
        }
        check(extents, stored)


def check(extents: Extents, stored: set[tuple[int, int]]) -> None:
    assert set(extents.ledgers()) == {ledger for ledger, _ in stored}
    for ledger in range(1, LEDGER_MAX + 1):
        mine = {entry for each, entry in stored if each == ledger}
        assert extents.end(ledger) == max(mine, default=-1) + 1
        for entry in range(ENTRY_MAX + 2):
            place = extents.find(ledger, entry)
            assert (place is not None) == (entry in mine)
            if place is not None:
                assert place.first <= entry < place.end
                assert place.table.ledgers[place.row] == ledger
        missing = {
            entry
            for first, end in extents.missing(ledger, 0, ENTRY_MAX)
            for entry in range(first, end)
        }
        assert missing == set(range(ENTRY_MAX)) - mine
        kept = extents.of(ledger)
        assert {e for place in kept for e in range(place.first, place.end)} == mine
        assert [place.first for place in kept] == sorted(place.first for place in kept)


def test_the_next_extent_tells_how_far_a_loss_goes() -> None:
    extents = Extents()
    extents.add(table_of("a", [(1, 0, 5), (1, 9, 2)]))
    assert extents.next_first(1, 5) == 9
    assert extents.next_first(1, 10) is None
    assert extents.next_first(2, 0) is None


def test_a_log_that_others_hold_too_is_known() -> None:
    extents = Extents()
    old = table_of("old", [(1, 0, 5), (2, 3, 5)])
    extents.add(old)
    extents.add(table_of("new", [(1, 0, 9)]))
    assert not extents.covered_by_others(old, frozenset({"new"}))
    extents.add(table_of("newer", [(2, 0, 8)]))
    assert extents.covered_by_others(old, frozenset({"new", "newer"}))


def test_a_large_table_is_added_in_slices_and_readable_meanwhile() -> None:
    extents = Extents()
    extents.add(table_of("a", [(1, 0, 5)]))
    size = 3 * EXTENTS_PER_SLICE
    turns = 0
    for _ in extents.adding(table_of("b", [(ledger, 5, 5) for ledger in range(1, size + 1)])):
        turns += 1
        assert extents.find(1, 3) is not None
    assert turns == 3
    assert extents.end(size) == 10
