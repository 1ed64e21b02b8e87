"""The two implementations of what puts bytes together: whatever they are given, they do the same.

Tests of the modules that use them run on both (see conftest); here they are compared directly.
"""

import struct
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magnetar.broker.run import ROW, ROW_SIZE, Run
from magnetar.broker.storage import block, pages, record
from magnetar.broker.storage.cache import CachedRecord, Generation
from magnetar.broker.storage.errors import LedgerEnd
from magnetar.broker.storage.record import Kind, Part

U32, I63 = (1 << 32) - 1, (1 << 63) - 1
u32 = st.sampled_from([0, 1, U32 - 1, U32]) | st.integers(0, U32)
i64 = st.sampled_from([-I63 - 1, -1, 0, 1, I63]) | st.integers(-I63 - 1, I63)
u64 = st.sampled_from([0, 1, I63, 2 * I63 + 1]) | st.integers(0, 2 * I63 + 1)
index = st.sampled_from([-I63 - 1, 0, I63 - U32]) | st.integers(0, I63 - U32)
name = st.sampled_from(["", "p", "näme", "\ud800", "x" * 300]) | st.text(max_size=9)
part = st.builds(Part, u64, u64, u32, u32, name)


@st.composite
def runs(draw: st.DrawFn, sizes: Iterable[int] = (0, 1, 7, 100, 3000)) -> Run:
    """Runs with bodies of any size, with gaps or without, in any order, fields at their bounds."""
    base = draw(st.sampled_from([0, 100, U32 - (1 << 22)]))
    gap = draw(st.sampled_from([0, 1, 35, 900]))
    places: list[tuple[int, int]] = []
    end = draw(st.integers(0, 5))
    for size in draw(st.lists(st.sampled_from(list(sizes)), min_size=1, max_size=12)):
        places.append((end + gap, size))
        end += gap + size
    buffer = bytes(at * 7 & 255 for at in range(min(end, 997))) * (end // 997 + 1)
    rows = [
        ROW.pack(
            base + offset, size, *(draw(u32) for _ in range(6)), *(draw(i64) for _ in range(4)),
            draw(index), draw(i64),
        )
        for offset, size in draw(st.permutations(places))
    ]  # fmt: skip
    return Run(b"".join(rows), buffer[: end + draw(st.integers(0, 9))], base)


def outcome(call: Any, *arguments: Any) -> Any:
    """Return what a call returns; for errors, that it raised one."""
    try:
        return call(*arguments)
    except (ValueError, OverflowError, struct.error):
        return "refused"


def same_record(kernel: ModuleType, run: Run, parts: Sequence[Part], at: int, room: int) -> Any:
    found = []
    for each in (record, kernel):
        memory = bytearray(b"\xee") * (at + room)
        laid = outcome(each.lay, memoryview(memory), at, parts, run.rows, run.buffer, run.base)
        found.append((laid, memory))
    assert found[0] == found[1]
    return found[0][0]


@given(run=runs(), parts=st.lists(part, max_size=4), at=st.integers(0, 3), room=st.integers(0, 3))
def test_a_run_is_laid_down_alike(
    kernel: ModuleType, run: Run, parts: list[Part], at: int, room: int
) -> None:
    size = same_record(kernel, run, parts, 8 * at, 0).size
    for space in (size - 1, size, size + room):
        assert same_record(kernel, run, parts, 8 * at, space).size == size


@given(run=runs(), cut=st.integers(1, 4000), shift=st.integers(1, 200))
def test_rows_that_point_outside_are_refused_alike(
    kernel: ModuleType, run: Run, cut: int, shift: int
) -> None:
    _, high = run.body_span()
    short = Run(run.rows, run.buffer[: max(high - cut, 0)], run.base)
    moved = Run(run.rows, run.buffer, min(run.base + shift + len(run.buffer), U32))
    for each in (short, moved):
        same_record(kernel, each, [Part(1, 0, 0, run.count, "")], 0, 1 << 17)
    assert same_record(kernel, Run(b"", b"abc"), [], 0, 1 << 12) == "refused"


@given(
    numbers=st.tuples(st.sampled_from(Kind), u64, u64, u64, u64),
    parts=u32,
    sizes=st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 90_000)),
    base=u32,
    fill=st.integers(0, 255),
)
def test_a_record_is_finished_alike(
    kernel: ModuleType,
    numbers: tuple[int, ...],
    parts: int,
    sizes: tuple[int, int, int],
    base: int,
    fill: int,
) -> None:
    directory, rows, body = 8 * sizes[0], sizes[1], sizes[2]
    size = record.HEADER_SIZE + directory + rows * ROW_SIZE + body
    found = []
    for each in (record, kernel):
        memory = bytearray([fill]) * size
        each.finish(memoryview(memory), *numbers, parts, directory, rows, base, body)
        found.append(memory)
    assert found[0] == found[1]
    with pytest.raises(ValueError, match="larger"):
        kernel.finish(memoryview(found[1])[1:], *numbers, parts, directory, rows, base, body)


def generation_of(layout: Sequence[tuple[Run, Sequence[int]]]) -> Generation:
    """Return a generation: each run with the ledgers of stretches of its rows."""
    generation = Generation()
    ends: dict[int, int] = {}
    for run, ledgers in layout:
        each, first, parts = -(-run.count // len(ledgers)), 0, []
        for ledger in ledgers:
            count = min(each, run.count - first)
            if count > 0:
                parts.append(Part(ledger, ends.setdefault(ledger, ledger % 3), first, count, ""))
                ends[ledger] += count
                first += count
        laid = record.lay(memoryview(b""), 0, parts, run.rows, run.buffer, run.base)
        view = memoryview(bytearray(laid.size + 8))
        record.lay(view, 8, parts, run.rows, run.buffer, run.base)
        found = CachedRecord(generation, view, 8, laid.size, Kind.RUN, None, parts)
        found.durable = True
        found.rows_at = 8 + record.HEADER_SIZE + laid.directory
        found.row_count, found.body_size = run.count, laid.body
        found.body_at, found.base = found.rows_at + len(run.rows), run.base + laid.low
        generation.records.append(found)
        for each_part in parts:
            generation.add_part(each_part, len(generation.records) - 1)
    return generation


def log_of(implementation: Any, generation: Generation) -> Any:
    """Return the bytes of a log, and what is said about its tables."""
    made = implementation.Pages(3, 17, I63)
    out = bytearray()
    for _ in made.fill(generation):
        if made.gathered >= pages.WRITE_BYTES:
            out += b"".join(made.take())
            assert made.size == len(out)
    tables, pieces = made.end()
    out += b"".join(pieces)
    assert tables.size == len(out)
    return tables, out


layouts = st.lists(
    st.tuples(runs(), st.lists(st.integers(1, 5), min_size=1, max_size=6, unique=True)), max_size=5
)


@given(layout=layouts)
def test_a_generation_becomes_the_same_log(
    kernel: ModuleType, layout: list[tuple[Run, list[int]]]
) -> None:
    generation = generation_of(layout)
    assert outcome(log_of, kernel, generation) == outcome(log_of, pages, generation)


@given(layout=st.lists(st.tuples(runs((90_000, 200_000, 5)), st.just([4])), max_size=3))
def test_large_bodies_go_into_the_same_blocks(
    kernel: ModuleType, layout: list[tuple[Run, list[int]]]
) -> None:
    generation = generation_of(layout)
    assert outcome(log_of, kernel, generation) == outcome(log_of, pages, generation)


@given(run=runs(), keep=st.none() | u32, pieces=st.integers(1, 3), first=st.integers(0, 1 << 40))
def test_a_copied_block_is_the_same(
    kernel: ModuleType, run: Run, keep: int | None, pieces: int, first: int
) -> None:
    summary = block.summarise(run, first)
    step = max(len(run.buffer) // pieces, 1)
    bodies = [run.buffer[at : at + step] for at in range(0, max(len(run.buffer), 1), step)]
    then = LedgerEnd(summary.end + run.count, *summary[1:])
    found = []
    for each in (pages, kernel):
        made = each.Pages(0, 1, 5)
        for ledger, total in ((7, summary), (7, then), (9, summary)):
            made.add(ledger, run.rows, bodies, total, keep)
        tables, rest = made.end()
        found.append((tables, b"".join(rest)))
    assert found[0] == found[1]


def test_a_generation_that_contradicts_itself_is_refused_not_followed(kernel: ModuleType) -> None:
    run = Run(ROW.pack(0, 5, *[0] * 12) * 3, b"12345")
    for damage in ("rows_at", "row_count", "body_at", "body_size"):
        for value in (-1, 1 << 40):
            generation = generation_of([(run, [1])])
            setattr(generation.records[0], damage, value)
            assert outcome(log_of, kernel, generation) == "refused"
    for places, firsts, end in (([1 << 24], [0], 3), ([0], [0], 4), ([2], [0], 2), ([0], [5], 5)):
        generation = generation_of([(run, [3])])
        tail = generation.tails[3]
        tail.places[0], tail.firsts[0], tail.end = places[0], firsts[0], end
        assert outcome(log_of, kernel, generation) == "refused"
