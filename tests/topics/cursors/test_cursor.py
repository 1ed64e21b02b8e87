"""A cursor knows what is done, through holes, ledger ends and restarts."""

import sys
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magnetar.broker.clock import ManualClock
from magnetar.broker.entry import EARLIEST, EntryId
from magnetar.broker.topics.cursors.cursor import (
    UNKNOWN,
    Cursor,
    CursorFormatError,
    CursorPages,
    ones,
)
from magnetar.broker.topics.cursors.entry_set import Range
from tests.topics.memory_log import MemoryLog


def log_of(*sizes: int) -> MemoryLog:
    """Return a log whose ledgers 1, 3, 5 ... have the given sizes."""
    log = MemoryLog(ManualClock())
    for number, size in enumerate(sizes):
        if number:
            log.roll()
        for _ in range(size):
            log.append()
    return log


def test_the_mark_waits_for_the_gap_to_close() -> None:
    log, cursor = log_of(5), Cursor()
    cursor.acknowledge(1, 1, 1, log)
    assert cursor.mark_delete == EARLIEST
    cursor.acknowledge(1, 0, 1, log)
    assert cursor.mark_delete == EntryId(1, 1)


def test_the_mark_moves_on_from_the_end_of_a_ledger_to_the_next() -> None:
    log, cursor = log_of(3, 0, 4), Cursor()
    cursor.acknowledge(5, 0, 2, log)
    cursor.acknowledge(1, 1, 2, log)
    assert cursor.mark_delete == EARLIEST
    cursor.acknowledge(1, 0, 1, log)
    assert cursor.mark_delete == EntryId(5, 1)
    assert cursor.holes == 0
    assert cursor.backlog(log, log.end) == 2


def test_acknowledging_twice_is_harmless() -> None:
    log, cursor = log_of(10), Cursor()
    assert cursor.acknowledge(1, 4, 2, log) == 2
    assert cursor.acknowledge(1, 3, 4, log) == 2
    assert cursor.acknowledge(1, 0, 3, log) == 3
    assert cursor.acknowledge(1, 0, 7, log) == 0
    assert cursor.mark_delete == EntryId(1, 6)


def test_a_batch_is_done_when_every_message_of_it_is() -> None:
    log, cursor = log_of(2), Cursor()
    assert cursor.acknowledge_part(1, 0, (0b1011,), log) == 0
    assert cursor.acknowledge_part(1, 0, (0b0110,), log) == 0
    assert cursor.ack_sets == {EntryId(1, 0): (0b0010,)}
    assert cursor.mark_delete == EARLIEST
    assert cursor.acknowledge_part(1, 0, (0b1101,), log) == 1
    assert cursor.mark_delete == EntryId(1, 0)
    assert cursor.ack_sets == {}


def test_the_signed_words_of_the_protocol_are_counted_as_bits() -> None:
    assert ones((-1, 1)) == 65


def test_a_cumulative_acknowledgement_swallows_holes_and_ack_sets() -> None:
    log, cursor = log_of(5, 5), Cursor()
    cursor.acknowledge(1, 2, 1, log)
    cursor.acknowledge(3, 2, 1, log)
    cursor.acknowledge_part(1, 3, (1,), log)
    assert cursor.acknowledge_up_to(EntryId(3, 1), log) == 6
    assert cursor.mark_delete == EntryId(3, 2)
    assert cursor.ack_sets == {}
    assert cursor.backlog(log, log.end) == 2


def test_what_is_not_done_is_found_behind_whole_pages() -> None:
    log, cursor = log_of(20_000, 5), Cursor()
    cursor.acknowledge(1, 1, 19_999, log)
    cursor.acknowledge(3, 0, 2, log)
    assert cursor.next_unacknowledged(EntryId(1, 0), log) == EntryId(1, 0)
    assert cursor.next_unacknowledged(EntryId(1, 1), log) == EntryId(3, 2)
    cursor.acknowledge(3, 2, 3, log)
    assert cursor.next_unacknowledged(EntryId(1, 7), log) == log.end


def test_a_reset_forgets_everything_later() -> None:
    log, cursor = log_of(9), Cursor()
    cursor.acknowledge_up_to(EntryId(1, 5), log)
    cursor.acknowledge(1, 7, 1, log)
    cursor.take_changes()
    cursor.reset(EntryId(1, 1), 2)
    other = Cursor.restore(cursor.snapshot())
    for each in (cursor, other):
        assert each.mark_delete == EntryId(1, 1)
        assert list(each.ranges()) == []
        assert each.consumed == 2


def test_changes_older_than_the_snapshot_are_ignored() -> None:
    log, cursor = log_of(9), Cursor()
    cursor.acknowledge(1, 0, 3, log)
    old = cursor.take_changes()
    cursor.acknowledge(1, 3, 3, log)
    restored = Cursor.restore(cursor.snapshot())
    assert not restored.apply(old)
    assert restored.mark_delete == EntryId(1, 5)


def test_changes_that_were_lost_are_told_again() -> None:
    log, cursor, replica = log_of(9), Cursor(), Cursor()
    replica.version = 0
    replica.apply(cursor.take_changes())
    cursor.acknowledge(1, 5, 1, log)
    cursor.take_changes()
    cursor.acknowledge(1, 7, 1, log)
    cursor.changes_lost()
    replica.apply(cursor.take_changes())
    assert list(replica.ranges()) == [Range(1, 5, 1), Range(1, 7, 1)]


@pytest.mark.parametrize(
    "damage",
    [
        lambda good: good[:-1],
        lambda good: good + b"\0",
        lambda good: b"\x09" + good[1:],
        lambda good: b"",
        lambda good: good[:4] + b"\xff\xff\xff\xff" + good[8:],
        lambda good: good[:8] + b"\xff\xff\xff\xff" + good[12:],
    ],
)
def test_damaged_changes_are_refused(damage: Callable[[bytes], bytes]) -> None:
    log, cursor = log_of(9), Cursor()
    cursor.acknowledge(1, 5, 1, log)
    cursor.acknowledge_part(1, 6, (5,), log)
    with pytest.raises(CursorFormatError):
        Cursor.restore(damage(cursor.snapshot()))


class Model:
    """What a cursor means, as a plain set of entries and a plain dict of ack sets."""

    def __init__(self, log: MemoryLog) -> None:
        self.log = log
        self.acked: set[EntryId] = set()
        self.sets: dict[EntryId, int] = {}

    def acknowledge(self, position: EntryId) -> None:
        self.acked.add(position)
        self.sets.pop(position, None)

    def acknowledge_part(self, position: EntryId, bits: int) -> None:
        if position not in self.acked:
            self.sets[position] = self.sets.get(position, -1) & bits
            if not self.sets[position]:
                self.acknowledge(position)

    def check(self, cursor: Cursor) -> None:
        entries = self.log.entries()
        undone = [each for each in entries if each not in self.acked]
        assert [each for each in entries if not cursor.is_acknowledged(each)] == undone
        assert {key: words[0] for key, words in cursor.ack_sets.items()} == self.sets
        assert cursor.backlog(self.log, self.log.end) == len(undone)
        assert cursor.next_unacknowledged(EARLIEST, self.log) == (
            undone[0] if undone else self.log.end
        )
        # The mark is as far as it can be: its successor is not done.
        after = EntryId(cursor.mark_delete.ledger, cursor.mark_delete.entry + 1)
        assert self.log.next_position(after) == (undone[0] if undone else self.log.end)
        for ledger in {each.ledger for each in entries}:
            bits = cursor.acknowledged_bits(ledger, 2, 9)
            expected = [EntryId(ledger, 2 + i) in self.acked for i in range(9)]
            known = [EntryId(ledger, 2 + i) in entries for i in range(9)]
            got = [bool(bits >> i & 1) for i in range(9)]
            assert all(g == e for g, e, k in zip(got, expected, known, strict=True) if k)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("ack"), st.integers(0, 29), st.integers(1, 6)),
        st.tuples(st.just("upto"), st.integers(0, 29), st.just(0)),
        st.tuples(st.just("part"), st.integers(0, 29), st.integers(0, 7)),
        st.tuples(st.just("reset"), st.integers(0, 29), st.just(0)),
        st.tuples(st.just("persist"), st.just(0), st.just(0)),
        st.tuples(st.just("crash"), st.just(0), st.just(0)),
        st.tuples(st.just("save"), st.just(0), st.just(0)),
    ),
    max_size=40,
)


def move(verb: str, cursor: Cursor, model: Model, position: EntryId, number: int) -> None:
    """Do one thing to the cursor and to the model."""
    log, entries = model.log, model.log.entries()
    at = entries.index(position)
    if verb == "ack":
        for each in entries[at : at + number]:
            model.acknowledge(each)
        for ledger in sorted({each.ledger for each in entries[at : at + number]}):
            named = [e.entry for e in entries[at : at + number] if e.ledger == ledger]
            cursor.acknowledge(ledger, named[0], len(named), log)
    elif verb == "upto":
        cursor.acknowledge_up_to(position, log)
        for each in entries[: at + 1]:
            model.acknowledge(each)
    elif verb == "part":
        cursor.acknowledge_part(*position, (number,), log)
        model.acknowledge_part(position, number)
    else:
        cursor.reset(EntryId(position.ledger, position.entry - 1), 0)
        model.acked, model.sets = set(entries[:at]), {}


@settings(deadline=None)
@given(steps)
def test_the_cursor_agrees_with_a_plain_set_through_restarts(
    steps: list[tuple[str, int, int]],
) -> None:
    log = log_of(7, 1, 0, 12, 10)
    entries = log.entries()
    cursor, model = Cursor(), Model(log)
    journal: list[bytes] = [cursor.take_changes()]
    durable = (set(model.acked), dict(model.sets))
    store = Store()
    store.save(cursor.take_pages(everything=True))
    for verb, at, number in steps:
        position = entries[at]
        if verb == "persist":
            journal.append(cursor.take_changes())
            durable = (set(model.acked), dict(model.sets))
            assert not cursor.changed
        elif verb == "save":
            store.save(cursor.take_pages())
            model.check(store.load())
        elif verb == "crash":  # what was not persisted is forgotten
            cursor = Cursor.restore(journal[0])
            for changes in journal[1:]:
                cursor.apply(changes)
            model.acked, model.sets = set(durable[0]), dict(durable[1])
            store = Store()
            store.save(cursor.take_pages(everything=True))
        else:
            move(verb, cursor, model, position, number)
        model.check(cursor)
    model.check(Cursor.restore(cursor.snapshot()))


class Store:
    """Keeps pages apart, as metadata does."""

    def __init__(self) -> None:
        self.mark_delete = EARLIEST
        self.version = 0
        self.pages: dict[tuple[int, int], bytes] = {}

    def save(self, state: CursorPages) -> None:
        self.mark_delete, self.version, _ = state
        for key, page in state.pages.items():
            if page is None:
                self.pages.pop(key, None)
            else:
                self.pages[key] = page

    def load(self) -> Cursor:
        return Cursor.from_pages(self.mark_delete, self.version, self.pages)


def test_a_cursor_that_was_never_saved_does_not_know_how_much_was_consumed() -> None:
    assert Cursor.from_pages(EntryId(1, 4), 0, {}).consumed == UNKNOWN


def test_the_check_sees_a_mark_that_moves_too_far() -> None:
    log, cursor = log_of(9), Cursor()
    model = Model(log)
    cursor.acknowledge(1, 0, 3, log)
    for entry in range(2):
        model.acknowledge(EntryId(1, entry))
    with pytest.raises(AssertionError):
        model.check(cursor)


def test_a_million_holes_fit_into_a_few_megabytes() -> None:
    log = log_of(1)
    log.ledgers[0].rows *= 2_000_100
    cursor = Cursor(EntryId(1, 0))
    for entry in range(2, 2_000_002, 2):
        cursor.acknowledge(1, entry, 1, log)
    assert cursor.holes == 1_000_000
    pages = cursor._acked.pages
    held_bytes = sum(map(sys.getsizeof, pages.values())) + sys.getsizeof(pages) + 200 * len(pages)
    assert held_bytes < 2 * 2**20
    assert len(cursor.take_changes()) < 2**18 + 2**14
    cursor.acknowledge(1, 1, 1, log)
    assert cursor.mark_delete == EntryId(1, 2)


def test_a_million_neighbours_are_acknowledged_at_once() -> None:
    log = log_of(1)
    log.ledgers[0].rows *= 1_000_100
    cursor = Cursor()
    assert cursor.acknowledge(1, 1, 1_000_000, log) == 1_000_000
    assert list(cursor.ranges()) == [Range(1, 1, 1_000_000)]
    assert len(cursor.take_changes()) < 10_000
