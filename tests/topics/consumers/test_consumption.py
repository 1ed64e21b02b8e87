"""The number of consumed messages is exact, or says that it is an estimate."""

import pytest

from magnetar.broker.entry import EARLIEST, LATEST, EntryId
from magnetar.broker.topics.consumers.consumption import SIZE_PAGES_MAX, Consumption
from magnetar.broker.topics.consumers.places import cursor_at, index_at
from magnetar.broker.topics.cursors.cursor import Cursor
from magnetar.broker.topics.cursors.entry_set import PAGE_ENTRIES
from tests.topics.stage import Stage


async def test_a_new_cursor_knows_what_lies_before_it() -> None:
    stage = Stage(ledger_entries_max=4)
    entries = stage.publish(9, messages=3)
    assert (await cursor_at(stage.log, EARLIEST)).consumed == 0
    assert (await cursor_at(stage.log, entries[5])).consumed == 15
    assert (await cursor_at(stage.log, LATEST)).consumed == 27
    await stage.log.trim(entries[8])
    assert (await cursor_at(stage.log, EARLIEST)).consumed == 24


async def test_an_index_in_a_damaged_place_is_not_known(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage()
    entries = stage.publish(3, messages=3)
    stage.log.damage(entries[1], entries[1])
    assert await index_at(stage.log, entries[1]) is None
    assert await index_at(stage.log, entries[2]) == 6


async def test_what_will_be_consumed_counts_holes_beyond_the_position() -> None:
    stage = Stage()
    entries = stage.publish(10, messages=3)
    cursor = Cursor(EARLIEST, 0)
    consumption = Consumption(cursor, stage.log)
    cursor.acknowledge(1, 2, 1, stage.log)
    cursor.acknowledge(1, 7, 2, stage.log)
    assert await consumption.after(entries[4]) == 5 * 3 + 2 * 3
    assert await consumption.after(entries[7]) == 9 * 3


def test_sizes_beyond_the_limit_are_forgotten_and_the_figure_is_an_estimate() -> None:
    stage = Stage()
    cursor = Cursor(EARLIEST, 0)
    consumption = Consumption(cursor, stage.log)
    for page in range(SIZE_PAGES_MAX):
        consumption.note_sizes(1, page * PAGE_ENTRIES, [5])
    assert not cursor.estimated
    consumption.note_sizes(2, 0, [5])
    assert cursor.estimated
    assert len(consumption.extras.pages) == SIZE_PAGES_MAX


def test_the_first_unacknowledged_entry_sets_an_estimate_right() -> None:
    stage = Stage()
    entries = stage.publish(4, messages=5)
    cursor = Cursor(EntryId(1, 1), 2)
    cursor.estimated = True
    consumption = Consumption(cursor, stage.log)
    for position in (entries[3], entries[2]):
        found = stage.log.read_cached(position, 1, 1)
        assert found is not None
        consumption.note_index(*found)
    assert (cursor.consumed, cursor.estimated) == (10, False)
