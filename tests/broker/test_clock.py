"""Time is an argument."""

from magnetar.broker.clock import ManualClock, SystemClock


def test_a_manual_clock_moves_only_when_told() -> None:
    clock = ManualClock(wall_ms=1_000)
    assert (clock.wall_ms(), clock.monotonic()) == (1_000, 0.0)
    clock.advance(1.5)
    assert (clock.wall_ms(), clock.monotonic()) == (2_500, 1.5)


def test_a_jump_of_the_wall_clock_does_not_move_monotonic_time() -> None:
    clock = ManualClock()
    clock.advance(2)
    clock.set_wall_ms(5)
    assert (clock.wall_ms(), clock.monotonic()) == (5, 2.0)


def test_the_machine_has_a_wall_clock_in_milliseconds_and_a_monotonic_one_in_seconds() -> None:
    clock = SystemClock()
    assert clock.wall_ms() > 1_700_000_000_000
    assert clock.monotonic() <= clock.monotonic()
