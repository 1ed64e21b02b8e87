"""A run describes its entries by packed rows."""

import gc
import struct
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magnetar.broker.entry import EntryFlags
from magnetar.broker.run import (
    BROKER_TIME,
    DELIVER_AT,
    FIRST_INDEX,
    FLAGS,
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


ROWS = st.lists(
    st.tuples(
        st.integers(0, 50), st.sampled_from([1, 1, 1, 7]), st.sampled_from([0, 0, 1 << 9]),
        st.sampled_from([0, 0, 0, 1 << 40]),
    ),
    min_size=1,
    max_size=40,
)  # fmt: skip


@given(ROWS, st.data())
def test_what_is_known_of_a_run_is_what_its_rows_say(
    rows: list[tuple[int, int, int, int]], data: st.DataObject
) -> None:
    run, bodies = make_run([size for size, *_ in rows])
    run.u32(MESSAGES)[:] = memoryview(array("I", [messages for _, messages, *_ in rows]))
    run.u32(FLAGS)[:] = memoryview(array("I", [flags for *_, flags, _ in rows]))
    run.i64(DELIVER_AT)[:] = memoryview(array("q", [at for *_, at in rows]))
    first = data.draw(st.integers(0, run.count - 1))
    count = data.draw(st.integers(0, run.count - first))
    part = run.slice(0, run.count).slice(first, count)
    assert part.whole is run
    assert part.facts is run.facts, "found out once for all parts"
    assert run.facts.single == all(messages == 1 for _, messages, *_ in rows)
    assert run.facts.timed == any(at for *_, at in rows)
    assert run.facts.flags == {flags for *_, flags, _ in rows}
    assert part.size_of(0, count) == sum(map(len, bodies[first : first + count]))


def test_a_run_does_not_keep_itself_alive() -> None:
    memory = bytearray(100)
    run = Run(bytes(ROW_SIZE), memory)
    part = run.slice(0, 1)
    assert not part.facts.single
    with pytest.raises(BufferError):
        memory.append(1)
    gc.disable()
    try:
        del run, part
        memory.append(1)  # which nobody sees, without any help of the collector
    finally:
        gc.enable()
