"""Time as an argument, so that tests can move it; and as text."""

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

TIME_MS_MAX = 253_402_300_799_999
"""The end of the calendar: the last millisecond of 9999."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Clock(Protocol):
    """What the broker may ask about time."""

    def wall_ms(self) -> int:
        """Return milliseconds since 1970, UTC. May jump in either direction."""
        ...

    def monotonic(self) -> float:
        """Return seconds since some moment. Never goes back; use it for every duration."""
        ...


class SystemClock:
    """The machine's clocks."""

    def wall_ms(self) -> int:
        """Return the machine's wall time."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Return the machine's monotonic time."""
        return time.monotonic()  # noqa: TID251 - this is the Clock


class ManualClock:
    """A clock that stands still until it is told to move. For tests."""

    def __init__(self, wall_ms: int = 1_700_000_000_000) -> None:
        self._wall_ms = wall_ms
        self._monotonic = 0.0

    def wall_ms(self) -> int:
        """Return the wall time it was moved to."""
        return self._wall_ms

    def monotonic(self) -> float:
        """Return the seconds it was advanced by so far."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks."""
        self._wall_ms += round(seconds * 1000)
        self._monotonic += seconds

    def set_wall_ms(self, wall_ms: int) -> None:
        """Let the wall clock jump; the monotonic one does not notice."""
        self._wall_ms = wall_ms


def iso_time(wall_ms: int) -> str:
    """Return a time as Pulsar prints it: ISO 8601, UTC, milliseconds.

    Producers may have claimed any number. What lies beyond the calendar becomes its end.
    """
    time_ = _EPOCH + timedelta(milliseconds=min(max(wall_ms, 0), TIME_MS_MAX))
    return time_.isoformat(timespec="milliseconds").replace("+00:00", "Z")
