"""Reads are from the cache, or one cold one at a time; each stream keeps its own."""

import asyncio

from magnetar.broker.entry import EARLIEST, EntryFlags, EntryId
from magnetar.broker.storage.errors import Gap
from magnetar.broker.topics.cursors.cursor import Cursor
from magnetar.broker.topics.cursors.reading import AGAIN, NEW, Portion, Reading
from tests.topics.stage import Stage


class Woken:
    """Counts what a reading reported."""

    def __init__(self, stage: Stage) -> None:
        self.times = 0
        self.gaps: list[Gap] = []
        self.reading = Reading(stage.log, stage.ground, self.wake, self.gaps.append)

    def wake(self) -> None:
        self.times += 1


async def test_cached_entries_are_there_at_once() -> None:
    stage = Stage()
    [first, *_] = stage.publish(9)
    woken = Woken(stage)
    found = woken.reading.read(NEW, first, 4)
    assert found is not None
    assert (found[0], found[1].count) == (first, 4)
    assert woken.reading.read(NEW, stage.log.end, 4) is None
    assert stage.log.reads == woken.times == 0


async def test_a_cold_read_wakes_and_serves_what_follows_too() -> None:
    stage = Stage()
    entries = stage.publish(9)
    stage.log.cold = True
    woken = Woken(stage)
    assert woken.reading.read(NEW, entries[2], 1) is None
    assert woken.reading.read(AGAIN, entries[7], 1) is None, "one at a time"
    await stage.settle()
    assert (stage.log.reads, woken.times) == (1, 1)
    for entry in entries[2:]:
        found = woken.reading.read(NEW, entry, 1)
        assert found is not None
        assert (found[0], found[1].count) == (entry, 1)


async def test_streams_do_not_throw_away_what_the_other_holds() -> None:
    stage = Stage(settings={"dispatch_entries_max": 3})
    entries = stage.publish(20)
    stage.log.cold = True
    woken = Woken(stage)
    for stream, entry in ((NEW, entries[10]), (AGAIN, entries[2])):
        woken.reading.read(stream, entry, 1)
        await asyncio.sleep(0)
        await stage.settle()
    for i in range(3):
        assert woken.reading.read(NEW, entries[10 + i], 1) is not None
        assert woken.reading.read(AGAIN, entries[2 + i], 1) is not None
    assert stage.log.reads == 2
    woken.reading.forget()
    assert woken.reading.read(NEW, entries[11], 1) is None


async def test_what_nobody_asks_for_is_let_go_when_its_time_is_over() -> None:
    stage = Stage()
    entries = stage.publish(9)
    stage.log.cold = True
    woken = Woken(stage)
    for _ in range(2):
        assert woken.reading.read(NEW, entries[0], 1) is None
        await stage.settle()
        assert woken.reading.read(NEW, entries[0], 1) is not None
        await stage.loop.advance(stage.ground.config.read_cache_ttl_ms / 1000 * 0.9)
        assert woken.reading.read(NEW, entries[1], 1) is not None, "not yet"
        await stage.loop.advance(stage.ground.config.read_cache_ttl_ms / 1000 * 0.2)
    assert woken.reading.read(NEW, entries[2], 1) is None
    assert woken.reading.busy, "it is read again"


async def test_damage_is_reported() -> None:
    stage = Stage()
    entries = stage.publish(5)
    stage.log.damage(entries[0], entries[3])
    woken = Woken(stage)
    assert woken.reading.read(NEW, entries[0], 9) is None
    await stage.settle()
    assert [(gap.first, gap.last) for gap in woken.gaps] == [(entries[0], entries[3])]


def portion(stage: Stage, cursor: Cursor) -> Portion:
    found = stage.log.read_cached(EARLIEST, 100, 1 << 20)
    assert found is not None
    return Portion(*found, cursor)


def test_a_portion_leaves_out_what_is_acknowledged_internal_or_later() -> None:
    stage = Stage()
    stage.publish(3)
    stage.publish(1, flags=EntryFlags.MARKER)
    stage.publish(2, deliver_at_ms=stage.clock.wall_ms() + 500)
    stage.publish(1, deliver_at_ms=stage.clock.wall_ms())
    cursor = Cursor()
    cursor.acknowledge(1, 1, 1, stage.log)
    rest = portion(stage, cursor)
    assert rest.special
    assert rest.leave_out_unseen([]) == [3]
    assert [row for row, _ in rest.later(stage.clock.wall_ms())] == [4, 5]
    assert list(rest.rows) == [0, 2, 6]


def test_a_portion_of_neighbours_is_a_range() -> None:
    stage = Stage()
    stage.publish(7)
    rest = portion(stage, Cursor())
    assert rest.rows == range(7)
    assert rest.single
    assert rest.message_counts(rest.rows) == [1] * 7


def test_acknowledged_messages_of_a_batch_do_not_count() -> None:
    stage = Stage()
    stage.publish(3, messages=6)
    cursor = Cursor()
    cursor.acknowledge_part(1, 1, (0b101,), stage.log)
    rest = portion(stage, cursor)
    assert rest.message_counts(rest.rows) == [6, 2, 6]
    assert rest.counts == [6, 6, 6]
    assert rest.ack_sets == {1: (0b101,)}
    assert EntryId(1, 1) in cursor.ack_sets
