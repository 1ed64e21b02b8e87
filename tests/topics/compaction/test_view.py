"""The compacted view and the log before which it stands, against plain lists."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magnetar.broker.clock import ManualClock
from magnetar.broker.entry import EARLIEST, EntryId
from magnetar.broker.metadata.compactions import CompactionRecord, Source
from magnetar.broker.run import ROW, ROW_SIZE, Run
from magnetar.broker.storage.errors import QuarantinedError
from magnetar.broker.topics.compaction.compacted import Compacted, ViewedLog
from magnetar.broker.topics.compaction.surviving import spread
from magnetar.broker.topics.compaction.view import View
from tests.topics.memory_log import MemoryLog

EXTENT = 10


class Entries:
    """A compacted ledger in memory, some places of it damaged."""

    def __init__(self, ids: Sequence[EntryId], damaged: tuple[int, int] | None = None) -> None:
        self.rows = b"".join(
            ROW.pack(at, 1, 0, 1, 0, 0, 0, each.entry, 0, 0, _time(each), 0, 0, 0)
            for at, each in enumerate(ids)
        )
        self.buffer = bytes(len(ids))
        self.damaged = damaged

    def read_cached(self, ledger: int, entry: int, entries_max: int, bytes_max: int) -> Run | None:
        if self.damaged and self.damaged[0] <= entry <= self.damaged[1]:
            return None
        end = entry + entries_max
        if self.damaged and entry < self.damaged[0]:
            end = min(end, self.damaged[0])
        return Run(self.rows[entry * ROW_SIZE : end * ROW_SIZE], self.buffer)

    async def read(self, ledger: int, entry: int, entries_max: int, bytes_max: int) -> Run:
        found = self.read_cached(ledger, entry, entries_max, bytes_max)
        if found is None:
            assert self.damaged
            raise QuarantinedError(ledger, entry, self.damaged[1], "flipped")
        return found


def _time(at: EntryId) -> int:
    return at.ledger * 1000 + at.entry * 10


def view_of(ids: Sequence[EntryId], damaged: tuple[int, int] | None = None) -> View:
    sources = [
        Source(ledger, next(at for at, each in enumerate(ids) if each.ledger == ledger), EXTENT)
        for ledger in sorted({each.ledger for each in ids})
    ]
    last = ids[-1] if ids else EARLIEST
    record = CompactionRecord(
        worker=0,
        end_entry=len(ids),
        horizon_ledger=last.ledger,
        horizon_entry=EXTENT - 1,
        sources=sources,
    )
    return View(99, record, Entries(ids, damaged))


IDS = st.sets(
    st.builds(EntryId, st.sampled_from([2, 5, 6]), st.integers(0, EXTENT - 1)), min_size=1
).map(sorted)


@given(IDS, st.integers(0, 8), st.integers(-1, EXTENT))
async def test_a_position_is_found_by_halving(ids: list[EntryId], ledger: int, entry: int) -> None:
    view, position = view_of(ids), EntryId(ledger, entry)
    place = await view.find(position)
    assert place == sum(each < position for each in ids)
    assert await view.id_at(place) == next((each for each in ids if each >= position), None)


@given(IDS, st.integers(0, 8000))
async def test_a_time_is_found_by_halving(ids: list[EntryId], publish_ms: int) -> None:
    found = await view_of(ids).find_time(publish_ms)
    assert found == next((each for each in ids if _time(each) >= publish_ms), None)


@given(IDS, st.data())
async def test_every_stretch_has_its_ids(ids: list[EntryId], data: st.DataObject) -> None:
    view = view_of(ids)
    place = data.draw(st.integers(0, len(ids) - 1))
    count = data.draw(st.integers(1, 20))
    found = view.read_cached(place, count, 1 << 20)
    assert found is not None
    assert found.ids == ids[place : place + count]


@given(IDS, st.data())
async def test_halving_never_passes_what_can_be_read(
    ids: list[EntryId], data: st.DataObject
) -> None:
    first = data.draw(st.integers(0, len(ids) - 1))
    last = data.draw(st.integers(first, len(ids) - 1))
    view = view_of(ids, damaged=(first, last))
    position = data.draw(st.builds(EntryId, st.integers(1, 7), st.integers(0, EXTENT)))
    place, wanted = await view.find(position), sum(each < position for each in ids)
    assert place == wanted or first <= place <= wanted
    assert await view.id_at(first) is None


@given(st.sets(st.integers(0, 300), min_size=1).map(sorted), st.integers(0, 3))
def test_survivors_spread_out_keep_their_rows_and_the_rest_is_void(
    entries: list[int], skipped: int
) -> None:
    ids = [EntryId(1, 1000 + n) for n in range(skipped)] + [EntryId(2, each) for each in entries]
    whole = view_of(ids).read_cached(0, len(ids), 1 << 20)
    assert whole is not None
    rows = [each - entries[0] for each in entries]
    wide = spread(whole.run, skipped, rows)
    assert wide.count == rows[-1] + 1
    for at, row in enumerate(rows):
        assert wide.envelope(row) == whole.run.envelope(skipped + at)
    void = set(range(wide.count)) - set(rows)
    assert {wide.envelope(row)[:4] for row in void} <= {(0, 0, 0, 1)}


# --- the log as a compacted reader sees it


@pytest.fixture
def log() -> MemoryLog:
    """Three ledgers; the view has survivors of two that are gone."""
    log = MemoryLog(ManualClock(), ledger_entries_max=EXTENT, first_ledger=7)
    for number in range(25):
        log.append(b"%d" % number)
    return log


GONE = [EntryId(2, 3), EntryId(5, 1), EntryId(5, 9)]


def viewed(log: MemoryLog, ids: Sequence[EntryId] = GONE) -> ViewedLog:
    return ViewedLog(log, Compacted(view_of(ids), lambda _: []))


def everything(log: MemoryLog) -> list[EntryId]:
    gone = [EntryId(ledger, entry) for ledger in (2, 5) for entry in range(EXTENT)]
    position, kept = log.first, []
    while position < log.end:
        kept.append(position)
        position = log.next_position(EntryId(position.ledger, position.entry + 1))
    return gone + kept


async def test_ledgers_that_only_the_view_has_count_as_if_they_were_there(log: MemoryLog) -> None:
    seen, ids = viewed(log), everything(log)
    assert (seen.first, seen.end, seen.last) == (ids[0], log.end, ids[-1])
    positions = [EARLIEST, *ids, EntryId(2, EXTENT), EntryId(3, 4), EntryId(5, EXTENT), seen.end]
    for position in positions:
        after = [each for each in ids if each >= position]
        before = [each for each in ids if each < position]
        assert seen.next_position(position) == (after[0] if after else seen.end)
        assert seen.previous_position(position) == (before[-1] if before else EARLIEST)
        assert seen.distance(position, seen.end) == len(after)
        assert seen.distance(ids[0], position) == len(before)


async def test_a_time_before_the_log_is_looked_for_in_the_view(log: MemoryLog) -> None:
    seen = viewed(log)
    assert await seen.find_time(0) == GONE[0]
    assert await seen.find_time(_time(GONE[1])) == GONE[1]


async def test_without_anything_gone_it_is_the_log(log: MemoryLog) -> None:
    for seen in (
        ViewedLog(log, Compacted(None, lambda _: [])),
        viewed(log, [log.first, EntryId(log.first.ledger, 5)]),
    ):
        assert (seen.first, seen.last, seen.next_index) == (log.first, log.last, log.next_index)
        assert seen.next_position(EARLIEST) == log.first
        assert seen.previous_position(log.first) == EARLIEST
        assert seen.distance(EARLIEST, log.end) == 25
        assert seen.read_cached(log.first, 1, 1) is not None
        await asyncio.sleep(0)
