"""Time is an argument."""

import pytest

from magnetar.broker.clock import ManualClock, SystemClock, iso_time


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


@pytest.mark.parametrize(
    ("milliseconds", "shown"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_700_000_000_123, "2023-11-14T22:13:20.123Z"),
        (-5, "1970-01-01T00:00:00.000Z"),
        (2**63 - 1, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_times_are_iso_8601_whatever_a_producer_claims(milliseconds: int, shown: str) -> None:
    assert iso_time(milliseconds) == shown
