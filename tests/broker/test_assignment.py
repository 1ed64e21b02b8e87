"""Few topics move when the number of processes changes, and none is without one."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magnetar.broker import assignment
from magnetar.broker.assignment import (
    SHARES,
    Assignment,
    Change,
    TooManyPinsError,
    evened,
    share_of,
)

COUNTS = st.integers(1, 9)
TOPIC = "persistent://public/default/orders"


def spread(table: Assignment) -> list[int]:
    return sorted(Counter(table.shares).values())


@given(COUNTS, st.lists(COUNTS, min_size=1, max_size=6))
def test_after_every_change_all_processes_have_about_as_much_and_the_others_nothing(
    first: int, counts: list[int]
) -> None:
    table = Assignment.fresh(first)
    for count in counts:
        table = table.changed(evened(table, count))
        assert table.suits(count)
        assert set(table.shares) == set(range(count))


@given(COUNTS, COUNTS)
def test_nothing_moves_but_what_has_to(before: int, after: int) -> None:
    table = Assignment.fresh(before)
    moved = evened(table, after).shares
    assert all(table.shares[share] != to for share, to in moved.items())
    if after > before:
        assert {*moved.values()} <= set(range(before, after)), "only new ones get something"
    most, fewest = max(before, after), min(before, after)
    assert len(moved) <= SHARES * (most - fewest) // most + most


def test_of_two_processes_that_become_three_a_third_of_the_topics_move() -> None:
    moved = evened(Assignment.fresh(2), 3).shares
    assert len(moved) == SHARES // 3
    control = sum(share % 2 != share % 3 for share in range(SHARES))
    assert control > SHARES // 2, "the negative control: a remainder would move most of them"


def test_growing_one_by_one_ends_as_a_start_with_two_or_four() -> None:
    table = Assignment.fresh(1)
    table = table.changed(evened(table, 2))
    assert table == Assignment.fresh(2)
    assert table.changed(evened(table, 4)) == Assignment.fresh(4)


def test_a_topic_that_was_moved_by_hand_stays_there_until_its_process_leaves() -> None:
    table = Assignment.fresh(3)
    home = table.worker_of(TOPIC)
    pinned = (home + 1) % 3
    table = table.changed(Change(pins={TOPIC: pinned}))
    assert table.worker_of(TOPIC) == pinned
    assert table.shares[share_of(TOPIC)] == home
    table = table.changed(evened(table, 4))
    assert table.worker_of(TOPIC) == pinned
    table = table.changed(evened(table, pinned or 1))
    assert table.worker_of(TOPIC) in range(pinned or 1)
    assert table.suits(pinned or 1)


def test_moving_a_topic_back_to_its_share_needs_no_note() -> None:
    table = Assignment.fresh(2)
    home = table.worker_of(TOPIC)
    away = table.changed(Change(pins={TOPIC: 1 - home}))
    assert away.changed(Change(pins={TOPIC: home})) == table


def test_more_topics_moved_by_hand_than_are_kept_track_of_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(assignment, "PINS_MAX", 2)
    names = [f"{TOPIC}-{number}" for number in range(9)]
    table = Assignment.fresh(2)
    two = {name: 1 - table.worker_of(name) for name in names[:2]}
    table = table.changed(Change(pins=two))
    with pytest.raises(TooManyPinsError, match="at most 2"):
        table.changed(Change(pins={names[2]: 1 - table.worker_of(names[2])}))


@pytest.mark.parametrize(
    "table",
    [
        Assignment.fresh(3),
        Assignment(shares=(0,) * SHARES),
        Assignment(shares=(0, 1) * 10),
        Assignment(shares=Assignment.fresh(2).shares, pins={TOPIC: 2}),
    ],
)
def test_a_table_of_other_processes_does_not_suit_two(table: Assignment) -> None:
    assert not table.suits(2)
    assert Assignment.fresh(2).suits(2)
