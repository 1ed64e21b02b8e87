"""How many rows permits are enough for, and which of them are neighbours."""

from hypothesis import given
from hypothesis import strategies as st

from magnetar.broker.topics.consumers.delivery import neighbours
from magnetar.broker.topics.cursors.reading import fitting


@given(st.sets(st.integers(0, 40)))
def test_neighbours_cover_the_rows_in_the_fewest_runs(rows: set[int]) -> None:
    runs = list(neighbours(sorted(rows)))
    assert [first + i for first, count in runs for i in range(count)] == sorted(rows)
    ends = [first + count for first, count in runs]
    assert all(end < first for end, (first, _) in zip(ends, runs[1:], strict=False))


def test_a_range_is_one_run() -> None:
    assert list(neighbours(range(3, 9))) == [(3, 6)]
    assert list(neighbours(range(3, 3))) == []


@given(st.lists(st.integers(1, 9), min_size=1), st.integers(1, 60))
def test_the_entry_that_uses_up_the_last_permit_is_still_sent(
    messages: list[int], permits: int
) -> None:
    count, total = fitting(messages, permits)
    assert total == sum(messages[:count])
    assert sum(messages[: count - 1]) < permits
    assert count == len(messages) or total >= permits
