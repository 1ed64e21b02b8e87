"""Blocks hold exactly their entries, however those lay in the journal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magnetar.broker.run import LENGTH, Run
from magnetar.broker.storage import block
from magnetar.broker.storage.block import (
    BODY_BYTES_TARGET,
    BlockDamagedError,
    decode,
    drafts,
    encode,
    summarise,
    together,
)
from magnetar.broker.storage.cache import CachedRecord, Generation
from magnetar.broker.storage.errors import EMPTY_LEDGER, LedgerEnd
from magnetar.broker.storage.record import Kind, Part
from tests.storage.rig import run_of

SALT = 77


def cached(generation: Generation, run: Run, *parts: Part) -> None:
    """Put a run into a generation as an append does."""
    data = memoryview(bytes(run.rows) + bytes(run.buffer))
    record = CachedRecord(generation, data, 0, len(data), Kind.RUN, None, parts)
    record.durable = True
    record.row_count = run.count
    record.base = run.base
    record.body_at = len(run.rows)
    record.body_size = len(run.buffer)
    generation.records.append(record)
    for part in parts:
        generation.add_part(part, len(generation.records) - 1)


def bytes_of(ledger: int, first_entry: int, draft: block.Draft) -> bytearray:
    header, padding = encode(SALT, ledger, first_entry, draft.rows, draft.bodies)
    return bytearray().join((header, draft.rows, *draft.bodies, padding))


def blocks_of(generation: Generation, ledger: int) -> list[block.Block]:
    found = []
    for draft in drafts(generation, generation.tails[ledger]):
        first = draft.summary.end - len(draft.rows) // 80
        out = bytes_of(ledger, first, draft)
        assert len(out) % 8 == 0
        read = decode(memoryview(out), SALT, ledger, first, len(draft.rows) // 80)
        assert summarise(read.run, first) == draft.summary
        found.append(read)
    return found


@given(
    runs=st.lists(
        st.tuples(
            st.lists(st.integers(0, 3000), min_size=1, max_size=12), st.sampled_from([0, 3, 900])
        ),
        min_size=1,
        max_size=8,
    )
)
def test_entries_come_back_from_blocks(runs: list[tuple[list[int], int]]) -> None:
    generation = Generation()
    wanted: list[bytes] = []
    for sizes, framed in runs:
        bodies = [bytes([len(wanted) + at & 255]) * size for at, size in enumerate(sizes)]
        run = run_of(bodies, index=len(wanted), framed=framed)
        cached(generation, run, Part(5, len(wanted), 0, len(bodies), ""))
        wanted += bodies
    found = blocks_of(generation, 5)
    assert [bytes(b.run.body(row)) for b in found for row in range(b.run.count)] == wanted
    assert [b.first_entry for b in found][1:] == [b.end for b in found][:-1]
    total = EMPTY_LEDGER
    for each in found:
        total = together(total, summarise(each.run, each.first_entry))
    size = sum(map(len, wanted))
    times = 1_000, 1_000 + len(wanted) - 1
    assert total == LedgerEnd(len(wanted), 0, len(wanted), size, *times)


def test_a_long_run_is_cut_into_blocks_of_the_target_size() -> None:
    generation = Generation()
    cached(generation, run_of([bytes(1000)] * 1000), Part(1, 0, 0, 1000, ""))
    found = blocks_of(generation, 1)
    sizes = [sum(each.run.u32(LENGTH)) for each in found]
    assert max(sizes) <= BODY_BYTES_TARGET
    assert min(sizes[:-1]) > BODY_BYTES_TARGET - 1001


def test_what_framed_the_bodies_is_left_out_when_it_is_much() -> None:
    for framed, kept in ((4, True), (400, False)):
        generation = Generation()
        cached(generation, run_of([b"x" * 100] * 50, framed=framed), Part(1, 0, 0, 50, ""))
        (found,) = blocks_of(generation, 1)
        assert (len(found.run.buffer) > 5000) is kept


def test_rows_in_another_order_than_their_bodies() -> None:
    generation = Generation()
    run = run_of([b"one", b"two", b"three", b"four"]).select([2, 0, 3, 1])
    cached(generation, run, Part(1, 0, 0, 4, ""))
    (found,) = blocks_of(generation, 1)
    bodies = [bytes(found.run.body(row)) for row in range(4)]
    assert bodies == [b"three", b"one", b"four", b"two"]


def encoded(count: int = 6) -> bytearray:
    run = run_of([b"body %d" % n for n in range(count)], framed=0)
    generation = Generation()
    cached(generation, run, Part(9, 40, 0, count, ""))
    (draft,) = drafts(generation, generation.tails[9])
    return bytes_of(9, 40, draft)


def test_a_block_in_the_wrong_place_is_not_served() -> None:
    data = memoryview(encoded())
    assert decode(data, SALT, 9, 40, 6).end == 46
    for salt, ledger, first, count in ((1, 9, 40, 6), (SALT, 8, 40, 6), (SALT, 9, 41, 6)):
        with pytest.raises(BlockDamagedError):
            decode(data, salt, ledger, first, count)
    with pytest.raises(BlockDamagedError, match="no block"):
        decode(data[:10], SALT, 9, 40, 6)


def test_damaged_bodies_are_told_apart_from_good_ones() -> None:
    data = encoded()
    for body in (b"body 1", b"body 2", b"body 5"):
        data[data.index(body)] ^= 1
    assert decode(memoryview(data), SALT, 9, 40, 6).damaged == ((41, 42), (45, 45))


def test_damaged_rows_cost_the_block() -> None:
    data = encoded()
    data[block.HEADER_SIZE + 100] ^= 1
    with pytest.raises(BlockDamagedError, match="rows"):
        decode(memoryview(data), SALT, 9, 40, 6)


def test_a_block_cut_short_is_damaged_not_wrong() -> None:
    data = memoryview(encoded())
    found = decode(data[:-8], SALT, 9, 40, 6)
    assert found.damaged == ((45, 45),)
