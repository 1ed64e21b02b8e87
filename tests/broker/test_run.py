"""A run describes its entries by packed rows."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magnetar.broker.entry import EntryFlags
from magnetar.broker.run import (
    BROKER_TIME,
    FIRST_INDEX,
    LENGTH,
    MESSAGES,
    ROW,
    ROW_SIZE,
    SEQUENCE_ID,
    Run,
)

BODY_SIZES = st.lists(st.integers(0, 50), min_size=1, max_size=20)


def make_run(sizes: list[int], gap: int = 3, base: int = 1000) -> tuple[Run, list[bytes]]:
    """Build a run whose bodies lie `gap` bytes apart, and the bodies it should show."""
    rows, buffer, bodies = bytearray(), bytearray(), []
    for number, size in enumerate(sizes):
        buffer += b"?" * gap
        body = bytes([number % 251]) * size
        rows += ROW.pack(
            base + len(buffer), size, 7, number + 1, 0, 0, 0, 0, number, number, 5, 0, 0, 0
        )
        buffer += body
        bodies.append(body)
    return Run(rows, buffer, base), bodies


def test_a_row_is_eighty_bytes_as_drawn() -> None:
    assert ROW_SIZE == 80
    row = bytearray(ROW_SIZE)
    row[72:80] = struct.pack("<q", 99)
    assert Run(row, b"").envelope(0).broker_time_ms == 99


@given(BODY_SIZES)
def test_every_body_is_found_whatever_lies_between_them(sizes: list[int]) -> None:
    run, bodies = make_run(sizes)
    assert [bytes(run.body(row)) for row in range(run.count)] == bodies
    assert run.body_bytes() == sum(sizes)


@given(BODY_SIZES, st.data())
def test_a_slice_shows_the_same_entries_over_the_same_buffer(
    sizes: list[int], data: st.DataObject
) -> None:
    run, bodies = make_run(sizes)
    first = data.draw(st.integers(0, len(sizes) - 1))
    count = data.draw(st.integers(1, len(sizes) - first))
    part = run.slice(first, count)
    assert [bytes(part.body(row)) for row in range(part.count)] == bodies[first : first + count]


@given(BODY_SIZES, st.data())
def test_selected_rows_come_in_the_order_asked_for(sizes: list[int], data: st.DataObject) -> None:
    run, bodies = make_run(sizes)
    order = data.draw(st.lists(st.integers(0, len(sizes) - 1), min_size=1))
    chosen = run.select(order)
    assert [bytes(chosen.body(row)) for row in range(chosen.count)] == [
        bodies[row] for row in order
    ]


@given(BODY_SIZES, st.randoms())
def test_the_body_span_covers_every_body_in_any_order(sizes: list[int], random: object) -> None:
    run, bodies = make_run(sizes)
    order = list(range(run.count))
    random.shuffle(order)  # type: ignore[attr-defined]
    first, end = run.select(order).body_span()
    assert (first, end) == (3, len(run.buffer))
    assert len(bodies) == run.count


def test_stamping_counts_messages_not_entries() -> None:
    run, _ = make_run([4, 4, 4])
    assert run.stamp(first_index=100, broker_time_ms=42) == 100 + 1 + 2 + 3
    assert run.i64(FIRST_INDEX).tolist() == [100, 101, 103]
    assert run.i64(BROKER_TIME).tolist() == [42, 42, 42]
    assert run.i64(SEQUENCE_ID).tolist() == [0, 1, 2]


def test_stamping_a_slice_leaves_the_other_rows_alone() -> None:
    run, _ = make_run([4, 4, 4])
    run.slice(1, 1).stamp(first_index=50, broker_time_ms=42)
    assert run.i64(FIRST_INDEX).tolist() == [0, 50, 0]


def test_columns_read_and_write_through() -> None:
    run, _ = make_run([4, 5])
    assert run.u32(LENGTH).tolist() == [4, 5]
    run.u32(MESSAGES)[1] = 77
    assert run.envelope(1).messages == 77
    assert [envelope.length for envelope in run.envelopes()] == [4, 5]


def test_a_run_over_read_only_rows_cannot_be_stamped() -> None:
    run, _ = make_run([4])
    with pytest.raises(TypeError, match="read-only"):
        Run(bytes(run.rows), run.buffer, run.base).stamp(0, 0)


def test_flags_leave_the_low_byte_to_the_format_of_the_body() -> None:
    assert all(flag.value & 0xFF == 0 for flag in EntryFlags)
