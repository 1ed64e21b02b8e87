"""Packed sets and maps of entries mean what plain ones mean."""

from hypothesis import given
from hypothesis import strategies as st

from magnetar.broker.entry import EntryId
from magnetar.broker.topics.cursors.entry_set import (
    FULL,
    PAGE_ENTRIES,
    EntryMap,
    EntrySet,
    Range,
    runs_of_zeros,
)

# Close to the border of a page, where mistakes live.
entries = st.one_of(
    st.integers(0, 20),
    st.integers(PAGE_ENTRIES - 10, PAGE_ENTRIES + 10),
    st.integers(2 * PAGE_ENTRIES - 5, 2 * PAGE_ENTRIES + 5),
)
counts = st.one_of(st.integers(1, 12), st.just(PAGE_ENTRIES), st.just(PAGE_ENTRIES + 3))
ledgers = st.integers(1, 3)
ranges = st.tuples(ledgers, entries, counts)


@given(
    st.lists(st.tuples(st.sampled_from(["add", "discard", "up_to"]), ranges), max_size=25), ranges
)
def test_a_packed_set_agrees_with_a_plain_set(
    steps: list[tuple[str, tuple[int, int, int]]], window: tuple[int, int, int]
) -> None:
    packed, plain = EntrySet(), set[tuple[int, int]]()
    for verb, (ledger, first, count) in steps:
        named = {(ledger, entry) for entry in range(first, first + count)}
        if verb == "add":
            assert packed.add(ledger, first, count) == len(named - plain)
            plain |= named
        elif verb == "discard":
            assert packed.discard(ledger, first, count) == len(named & plain)
            plain -= named
        else:
            below = {each for each in plain if each <= (ledger, first)}
            assert packed.discard_up_to(EntryId(ledger, first)) == len(below)
            plain -= below
    assert len(packed) == len(plain)
    listed = [
        (r.ledger, entry) for r in packed.ranges() for entry in range(r.first, r.first + r.length)
    ]
    assert listed == sorted(plain)
    assert packed.range_count() == len(list(packed.ranges()))
    ledger, first, count = window
    expected = sum(1 << i for i in range(count) if (ledger, first + i) in plain)
    assert packed.bits(ledger, first, count) == expected
    assert ((ledger, first) in packed) == ((ledger, first) in plain)
    found = packed.first()
    assert (found is None) == (not plain)
    if found is not None:
        assert (found.ledger, found.first) == min(plain)


def test_whole_pages_share_one_object() -> None:
    packed = EntrySet()
    packed.add(1, 0, 100 * PAGE_ENTRIES)
    packed.add(2, 0, PAGE_ENTRIES - 1)
    packed.add(2, PAGE_ENTRIES - 1)
    assert all(page is FULL for page in packed.pages.values())
    assert list(packed.ranges()) == [Range(1, 0, 100 * PAGE_ENTRIES), Range(2, 0, PAGE_ENTRIES)]


def test_zeros_of_a_window_come_as_runs() -> None:
    assert list(runs_of_zeros(0b0110, 6)) == [(0, 1), (3, 3)]
    assert list(runs_of_zeros(0, 3)) == [(0, 3)]
    assert list(runs_of_zeros(0b111, 3)) == []


numbers = st.integers(0, 9)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), ledgers, entries, numbers),
            st.tuples(st.just("many"), ledgers, entries, st.integers(1, 700)),
            st.tuples(st.just("pop"), ledgers, entries, counts),
            st.tuples(st.just("up_to"), ledgers, entries, st.just(0)),
        ),
        max_size=20,
    ),
    ranges,
)
def test_a_packed_map_agrees_with_a_plain_dict(
    steps: list[tuple[str, int, int, int]], window: tuple[int, int, int]
) -> None:
    packed, plain = EntryMap("H"), dict[tuple[int, int], int]()
    for verb, ledger, first, number in steps:
        if verb == "put":
            packed.put(ledger, first, number)
            plain[ledger, first] = number
        elif verb == "many":
            values = [(first + i) % 5 for i in range(number)]
            packed.put_range(ledger, first, values)
            plain.update({(ledger, first + i): value for i, value in enumerate(values)})
        elif verb == "pop":
            named = [(ledger, first + i) for i in range(number)]
            assert packed.pop_range(ledger, first, number) == sum(plain.pop(n, 0) for n in named)
        else:
            named = [each for each in plain if each <= (ledger, first)]
            assert packed.pop_up_to(EntryId(ledger, first)) == sum(plain.pop(n) for n in named)
    ledger, first, count = window
    expected = [plain.get((ledger, first + i), 0) for i in range(count)]
    assert (packed.window(ledger, first, count) or [0] * count) == expected
    assert packed.get(ledger, first) == expected[0]
    assert bool(packed.pages) == any(plain.values())


def test_a_number_too_large_for_its_map_becomes_the_largest() -> None:
    packed = EntryMap("H")
    packed.put(1, 1, 70_000)
    assert packed.get(1, 1) == 65_535
