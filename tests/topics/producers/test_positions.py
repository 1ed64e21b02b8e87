"""Rows are ordered, measured and stamped as a loop over envelopes would, plain and compiled."""

import os
from importlib import import_module
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magnetar.broker.entry import EntryFlags
from magnetar.broker.run import ROW, Run
from magnetar.broker.topics.producers import measuring

KERNEL = "magnetar.broker.topics.producers._positions"
CHUNK = EntryFlags.CHUNK.value
U32, I63 = (1 << 32) - 1, (1 << 63) - 1
u32 = st.sampled_from([0, 1, U32 - 1, U32, CHUNK, U32 ^ CHUNK]) | st.integers(0, U32)
i64 = st.sampled_from([-I63 - 1, -1, 0, 1, I63]) | st.integers(-I63 - 1, I63)
slot = st.sampled_from([0, 1, 2, 7, U32])
row = st.builds(
    lambda words, place, longs: ROW.pack(*words[:6], place, words[6], *longs),
    st.tuples(*[u32] * 7),
    slot,
    st.tuples(*[i64] * 6),
)
rows = st.lists(row, min_size=1, max_size=30).map(lambda each: bytearray().join(each))
alike = st.lists(slot, min_size=1, max_size=4).map(
    lambda slots: bytearray().join(ROW.pack(*[3] * 6, at, *[1] * 7) for at in slots * 9)
)


@pytest.fixture(params=["plain", "compiled"], scope="module")
def positions(request: pytest.FixtureRequest) -> Any:
    if request.param == "plain":
        return measuring
    if os.environ.get("MAGNETAR_KERNELS") == "required":
        return import_module(KERNEL)
    return pytest.importorskip(KERNEL, reason="`make kernels` builds it")


def expected(run: Run, taken: Any) -> list[int]:
    """Measure a group one envelope after the other."""
    group = [run.envelope(at) for at in range(taken.first_row, taken.first_row + taken.entries)]
    assert {each.producer for each in group} == {taken.slot}
    lengths, times = [each.length for each in group], [each.publish_time_ms for each in group]
    return [
        sum(each.messages for each in group), sum(lengths), min(times), max(times),
        sum(1 for each in group if each.flags & CHUNK), min(lengths), max(lengths),
    ]  # fmt: skip


@given(data=rows | alike)
def test_rows_are_grouped_by_producer_and_measured(positions: Any, data: bytearray) -> None:
    given_rows = bytes(data)
    moved, groups = positions.gathered(memoryview(data))
    assert bytes(data) == given_rows
    run = Run(data if moved is None else moved, b"")
    before = list(Run(data, b"").envelopes())
    assert list(run.envelopes()) == sorted(before, key=lambda each: each.producer)
    assert (moved is None) == (run.rows == data)
    assert [each.slot for each in groups] == sorted({each.producer for each in before})
    assert [each.first_row for each in groups][1:] == [
        each.first_row + each.entries for each in groups
    ][:-1]
    assert sum(each.entries for each in groups) == run.count
    for each in groups:
        assert list(each[3:]) == expected(run, each)


@given(
    data=rows,
    now=i64,
    cuts=st.lists(st.integers(0, 30), max_size=4),
    index=st.integers(-I63, I63 - 31 * U32),
)
def test_rows_are_stamped_and_nothing_else_in_them_changes(
    positions: Any, data: bytearray, now: int, cuts: list[int], index: int
) -> None:
    before = list(Run(data, b"").envelopes())
    ends = sorted({min(cut, len(before)) for cut in cuts} | {len(before)})
    places, wanted, first = [], [], 0
    for end in ends:
        places.append((first, end - first, index))
        count = index
        for each in before[first:end]:
            wanted.append(each._replace(first_index=count, broker_time_ms=now))
            count += each.messages
        first = end
    positions.stamp(memoryview(data), places, now)
    assert list(Run(data, b"").envelopes()) == wanted


@given(data=rows, now=i64, index=st.integers(-I63, I63 - 31 * U32))
def test_one_producers_rows_are_stamped_and_measured_at_once(
    positions: Any, data: bytearray, now: int, index: int
) -> None:
    other = bytearray(data)
    taken = positions.stamped(memoryview(data), index, now)
    assert taken.entries == len(data) // ROW.size
    measuring.stamp(memoryview(other), [(0, taken.entries, index)], now)
    assert data == other
    assert taken == measuring.stamped(memoryview(other), index, now)


@given(
    ids=st.lists(st.tuples(st.integers(0, 9), st.integers(-1, 9), u32), max_size=6),
    rise=st.booleans(),
    pushed=st.integers(-1, 9),
)
def test_rows_are_rising_when_each_is_whole_and_above_all_before_it(
    positions: Any, ids: list[tuple[int, int, int]], rise: bool, pushed: int
) -> None:
    if rise:
        ids = [
            (20 + 10 * at + first, 20 + 10 * at + last, 0)
            for at, (first, last, _) in enumerate(ids)
        ]
    data = b"".join(
        ROW.pack(0, 0, 0, 1, 0, flags, 0, 0, first, last, 0, 0, 0, 0) for first, last, flags in ids
    )
    highest, fits = pushed, bool(ids)
    for first, last, flags in ids:
        fits = fits and first > highest and not flags & CHUNK
        highest = max(first, last)
    assert positions.rising(memoryview(data), pushed) == (highest if fits else None)


def test_an_index_beyond_63_bits_is_refused(positions: Any) -> None:
    data = bytearray(ROW.pack(0, 0, 0, 2, *[0] * 10) * 2)
    positions.stamp(memoryview(data), [(0, 2, I63 - 4)], 5)
    with pytest.raises(OverflowError):
        positions.stamp(memoryview(data), [(0, 2, I63 - 3)], 5)


def test_groups_outside_of_their_run_are_refused(positions: Any) -> None:
    data = bytearray(ROW.size * 3)
    for place in ((-1, 1, 0), (0, 4, 0), (3, 1, 0), (1, -1, 0), (1 << 40, 1, 0), (2, 1 << 60, 0)):
        with pytest.raises(ValueError, match="outside"):
            positions.stamp(memoryview(data), [place], 5)
    assert data == bytearray(ROW.size * 3)
    with pytest.raises(ValueError, match="no rows"):
        positions.stamped(memoryview(bytearray()), 0, 0)
    assert positions.rising(memoryview(b""), 0) is None
