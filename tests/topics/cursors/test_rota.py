"""Passes come in turn, and the loop looks at its sockets in between, however many there are."""

import pytest

from magnetar.broker.clock import ManualClock
from magnetar.broker.topics.cursors.rota import PAUSE_S, PUBLISHING_S, TURN_S, Rota


class Turns:
    """An event loop whose turns are taken by hand."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.soon: list[object] = []
        self.later: list[object] = []
        self.committed_s = -PUBLISHING_S
        self.old_entries = 0
        self.rota = Rota(self, self.clock, self)
        self.done: list[int] = []

    def call_later(self, delay: float, callback: object, /) -> None:
        assert delay == PAUSE_S
        self.later.append(callback)

    def pause(self) -> None:
        """Let the pause be over."""
        self.clock.advance(PAUSE_S)
        self.soon, self.later = self.soon + self.later, []

    def call_soon(self, callback: object, /) -> None:
        self.soon.append(callback)

    def turn(self) -> list[int]:
        """Take one turn; return which passes were made."""
        soon, self.soon = self.soon, []
        for each in soon:
            assert callable(each)
            each()
        done, self.done = self.done, []
        return done

    def add(self, number: int, seconds: float, *, again: bool = False, old: int = 0) -> None:
        """Add a pass that takes some time, and comes again if it is to."""

        def make_pass() -> None:
            self.done.append(number)
            self.clock.advance(seconds)
            self.old_entries += old
            if again:
                self.add(number, seconds, again=True, old=old)

        self.rota.add(make_pass)


def test_short_passes_are_all_made_in_one_turn() -> None:
    turns = Turns()
    for number in range(20):
        turns.add(number, TURN_S / 100)
    assert len(turns.soon) == 1
    assert turns.turn() == list(range(20))
    assert turns.soon == [], "nothing is asked of the loop while nothing waits"


def test_a_turn_ends_when_its_time_is_up_and_those_who_wait_are_next() -> None:
    turns = Turns()
    for number in range(10):
        turns.add(number, TURN_S * 0.6, again=True)
    seen = []
    for _ in range(10):
        before = turns.clock.monotonic()
        seen += turns.turn()
        assert turns.clock.monotonic() - before < 2 * TURN_S
    assert seen == [*range(10), *range(10)], "first come, first served, nobody twice before all"


def test_who_wants_more_gets_it_in_the_next_turn_not_in_this_one() -> None:
    turns = Turns()
    turns.add(1, 0.0, again=True)
    assert turns.turn() == [1]
    assert turns.turn() == [1]


def test_a_pass_can_tell_that_the_time_is_up() -> None:
    turns = Turns()
    assert turns.rota.is_over, "outside of a turn there is no time to take"
    seen: list[bool] = []

    def look() -> None:
        seen.append(turns.rota.is_over)
        turns.clock.advance(TURN_S)
        seen.append(turns.rota.is_over)

    turns.rota.add(look)
    turns.turn()
    assert seen == [False, True]


def test_a_bug_in_one_pass_does_not_keep_the_others_waiting() -> None:
    turns = Turns()

    def fail() -> None:
        raise ZeroDivisionError

    turns.rota.add(fail)
    turns.add(1, 0.0)
    with pytest.raises(ZeroDivisionError):
        turns.turn()
    assert turns.turn() == [1]


def test_old_entries_wait_a_moment_after_each_full_turn_while_somebody_publishes() -> None:
    turns = Turns()
    turns.add(1, TURN_S, again=True, old=100)
    assert turns.turn() == [1]
    assert turns.later == [], "nobody publishes"
    for _ in range(3):
        turns.committed_s = turns.clock.monotonic()
        assert turns.turn() == [1]
        turns.add(2, 0.0)
        assert (turns.soon, len(turns.later)) == ([], 1), "what comes meanwhile waits, too"
        turns.pause()
        assert turns.turn() == [1]
        turns.pause()
        assert turns.turn() == [2, 1]
        turns.pause()
    turns.clock.advance(PUBLISHING_S)
    assert turns.turn() == [1]
    assert turns.later == [], "the last commit is too long ago"


def test_new_entries_and_short_turns_do_not_wait() -> None:
    turns = Turns()
    turns.committed_s = turns.clock.monotonic()
    turns.add(1, TURN_S, again=True)
    assert turns.turn() == [1]
    assert turns.later == []
    turns = Turns()
    turns.committed_s = turns.clock.monotonic()
    turns.add(1, TURN_S / 10, again=True, old=100)
    assert turns.turn() == [1]
    assert turns.later == []
