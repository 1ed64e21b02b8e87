"""Who gets which entry, for each type of subscription."""

from collections import Counter
from itertools import groupby, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magnetar.broker.topics.consumers.dispatch import (
    SLOTS,
    Candidate,
    Halves,
    HashRing,
    KeyedState,
    RangeOverlapError,
    Slot,
    StickyRanges,
    active_consumer,
    assign_keyed,
    assign_shared,
    slot_of,
    slot_without_key,
)

# --- exclusive and failover


def test_the_best_priority_is_active_whatever_the_names() -> None:
    candidates = [Candidate(1, "a", priority=1), Candidate(2, "z", priority=0)]
    assert active_consumer(candidates, "t", -1) == 2
    assert active_consumer(candidates, "t", 5) == 2


def test_partitions_spread_over_consumers_by_name() -> None:
    candidates = [Candidate(1, "c"), Candidate(2, "a"), Candidate(3, "b")]
    assert [active_consumer(candidates, "t", i) for i in range(4)] == [2, 3, 1, 2]


def test_topics_without_partitions_spread_over_consumers() -> None:
    candidates = [Candidate(number, f"c{number}") for number in range(3)]
    chosen = Counter(active_consumer(candidates, f"topic-{i}", -1) for i in range(300))
    assert set(chosen) == {0, 1, 2}


def test_nobody_is_active_when_nobody_is_there() -> None:
    assert active_consumer([], "t", -1) is None


# --- shared


def rows_of(messages: list[int], slots: list[Slot], turn: int = 0) -> dict[int, list[int]]:
    return {each.consumer: list(each.rows) for each in assign_shared(messages, slots, turn)[0]}


def test_shared_serves_lower_priorities_only_when_the_best_is_full() -> None:
    slots = [Slot(1, permits=1, priority=0), Slot(2, permits=5, priority=1)]
    assert rows_of([1, 1, 1], slots) == {1: [0], 2: [1, 2]}


def test_few_rows_are_split_evenly() -> None:
    slots = [Slot(1, 100), Slot(2, 100)]
    assert rows_of([1] * 10, slots) == {1: [0, 1, 2, 3, 4], 2: [5, 6, 7, 8, 9]}


def test_single_rows_go_in_turn() -> None:
    turn, got = 0, []
    for _ in range(6):
        assigned, turn, _ = assign_shared([1], [Slot(1, 9), Slot(2, 9), Slot(3, 9)], turn)
        got.append(assigned[0].consumer)
    assert got == [1, 2, 3, 1, 2, 3]


@pytest.mark.parametrize("turn_max", [1, 7, 200])
def test_nobody_gets_more_neighbours_at_once_than_is_set(turn_max: int) -> None:
    assigned, _, taken = assign_shared([1] * 600, [Slot(1, 999), Slot(2, 999)], 0, turn_max)
    assert taken == 600
    rows = {each.consumer: set(each.rows) for each in assigned}
    owners = [1 if row in rows[1] else 2 for row in range(600)]
    assert max(len(list(same)) for _, same in groupby(owners)) == turn_max


def test_one_consumer_gets_neighbours_as_one_range() -> None:
    assigned, _, taken = assign_shared([1] * 250, [Slot(7, 1000)], 0)
    assert assigned[0].rows == range(250)
    assert taken == assigned[0].messages == 250


def test_a_batch_is_sent_whole_to_a_consumer_with_one_permit() -> None:
    assigned, _, taken = assign_shared([10, 10], [Slot(1, 1)], 0)
    assert (list(assigned[0].rows), assigned[0].messages, taken) == ([0], 10, 1)


@given(
    st.lists(st.integers(1, 5), max_size=300),
    st.lists(st.tuples(st.integers(-3, 90), st.integers(0, 2)), max_size=5),
    st.integers(0, 1000),
)
def test_shared_gives_each_row_to_one_consumer_with_room(
    messages: list[int], consumers: list[tuple[int, int]], turn: int
) -> None:
    slots = [Slot(number, *each) for number, each in enumerate(consumers)]
    assigned, _, taken = assign_shared(messages, slots, turn)
    given_rows = sorted(row for each in assigned for row in each.rows)
    assert given_rows == list(range(taken))
    for each in assigned:
        permits = slots[each.consumer].permits
        counts = [messages[row] for row in each.rows]
        assert sum(counts) == each.messages
        assert sum(counts[:-1]) < permits, "nothing was sent without a permit"
        assert list(each.rows) == sorted(each.rows)
    if taken < len(messages):
        used = {each.consumer: each.messages for each in assigned}
        assert all(used.get(slot.consumer, 0) >= slot.permits for slot in slots)


# --- key_shared


def test_slot_zero_is_reserved() -> None:
    assert [slot_of(0), slot_of(SLOTS), slot_of(SLOTS + 5)] == [1, 1, 5]


def test_entries_without_a_key_spread() -> None:
    ring = HashRing([(number, f"c{number}") for number in range(4)])
    got = Counter(ring.owner(slot_without_key(i)) for i in range(4000))
    assert all(500 < count < 1600 for count in got.values())


def test_every_slot_has_one_owner_and_the_ranges_say_who() -> None:
    ring = HashRing([(number, f"c{number}") for number in range(5)])
    named = {
        slot: owner
        for owner, ranges in ring.ranges().items()
        for low, high in ranges
        for slot in range(low, high + 1)
    }
    assert [named[slot] for slot in range(SLOTS)] == [ring.owner(slot) for slot in range(SLOTS)]


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=6))
def test_no_slot_moves_between_consumers_that_stay(names: list[str]) -> None:
    consumers = list(enumerate(names))
    before, after = HashRing(consumers), HashRing([*consumers, (99, "new")])
    for slot in range(0, SLOTS, 97):
        assert after.owner(slot) in (before.owner(slot), 99)


def test_twins_of_one_name_share() -> None:
    ring = HashRing([(1, "same"), (2, "same")])
    assert len({ring.owner(slot) for slot in range(0, SLOTS, 50)}) == 2


def test_who_joins_halves_the_longest_range() -> None:
    assert Halves([]).owner(5) is None
    assert Halves([]).ranges() == {}
    assert Halves([7]).ranges() == {7: [(0, SLOTS - 1)]}
    assert Halves([7, 8]).ranges() == {8: [(0, 32_767)], 7: [(32_768, SLOTS - 1)]}
    three = Halves([7, 8, 9])
    assert three.ranges() == {9: [(0, 16_383)], 8: [(16_384, 32_767)], 7: [(32_768, SLOTS - 1)]}
    for slot, owner in ((0, 9), (16_383, 9), (16_384, 8), (32_768, 7), (SLOTS - 1, 7)):
        assert three.owner(slot) == owner


@given(st.integers(1, 300))
def test_halves_cover_every_slot_once(count: int) -> None:
    ranges = sorted(each for mine in Halves(range(count)).ranges().values() for each in mine)
    assert len(ranges) == count
    assert ranges[0][0] == 0
    assert ranges[-1][1] == SLOTS - 1
    assert all(end + 1 == start for (_, end), (start, _) in pairwise(ranges))


def test_sticky_consumers_get_what_they_declared_and_nothing_else() -> None:
    owners = StickyRanges([(1, [(0, 9), (20, 29)]), (2, [(10, 19)])])
    assert [owners.owner(slot) for slot in (0, 9, 10, 19, 20, 29, 30)] == [1, 1, 2, 2, 1, 1, None]
    assert owners.ranges() == {1: [(0, 9), (20, 29)], 2: [(10, 19)]}


@pytest.mark.parametrize(
    "ranges", [[(0, 10), (10, 20)], [(5, 4)], [(-1, 4)], [(0, SLOTS)], [(0, 90), (20, 30)]]
)
def test_sticky_ranges_that_overlap_or_are_none_are_refused(ranges: list[tuple[int, int]]) -> None:
    with pytest.raises(RangeOverlapError):
        StickyRanges(enumerate([[each] for each in ranges]))


WHOLE = StickyRanges([(1, [(0, 99)]), (2, [(100, SLOTS - 1)])])


def test_a_slot_is_not_given_to_its_new_owner_while_the_old_one_holds_it() -> None:
    found = assign_keyed([0, 1], [5, 6], [1, 1], KeyedState(WHOLE, {1: 9}, {5: 2}))
    assert [(each.consumer, each.rows) for each in found.assignments] == [(1, [1])]
    assert found.waiting == [0]


def test_whatever_shares_a_slot_with_a_waiting_row_waits_behind_it() -> None:
    found = assign_keyed([3, 4, 5], [5, 105, 5], [1, 1, 1], KeyedState(WHOLE, {1: 0, 2: 9}))
    assert [(each.consumer, each.rows) for each in found.assignments] == [(2, [4])]
    assert found.waiting == [3, 5]
    found = assign_keyed([3], [5], [1], KeyedState(WHOLE, {1: 9}, {}, {5}))
    assert found.waiting == [3]


@given(
    st.lists(st.tuples(st.integers(1, 200), st.integers(1, 4)), max_size=60),
    st.dictionaries(st.integers(1, 2), st.integers(-2, 30)),
    st.dictionaries(st.integers(1, 200), st.integers(1, 2), max_size=20),
)
def test_key_shared_never_sends_a_slot_past_an_earlier_entry_of_it(
    rows: list[tuple[int, int]], permits: dict[int, int], holders: dict[int, int]
) -> None:
    slots, messages = [row[0] for row in rows], [row[1] for row in rows]
    found = assign_keyed(range(len(rows)), slots, messages, KeyedState(WHOLE, permits, holders))
    sent = {row: each.consumer for each in found.assignments for row in each.rows}
    assert sorted([*sent, *found.waiting]) == list(range(len(rows)))
    for row, consumer in sent.items():
        assert WHOLE.owner(slots[row]) == consumer
        assert holders.get(slots[row], consumer) == consumer
        assert not any(slots[other] == slots[row] for other in found.waiting if other < row)
    for each in found.assignments:
        assert each.messages - messages[each.rows[-1]] < permits[each.consumer]
