"""Things that happen a fixed time after they were noted, with one timer for all of them."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from magnetar.broker.doors.websocket.service import Service

T = TypeVar("T")

GRAIN_S = 0.01
"""What is due within this time of another thing happens together with it."""


class Later(Generic[T]):
    """Notes things, and hands them over when their time has come."""

    def __init__(
        self,
        delay_s: float,
        due: Callable[[Sequence[T]], None],
        service: Service,
    ) -> None:
        """Call `due` with everything that was noted `delay_s` ago."""
        self._delay_s = delay_s
        self._due = due
        self._service = service
        self._noted: deque[tuple[float, T]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, thing: T) -> None:
        """Note a thing."""
        self._noted.append((self._service.clock.monotonic() + self._delay_s, thing))
        if self._timer is None:
            self._timer = self._service.loop.call_later(self._delay_s, self._ring)

    def stop(self) -> None:
        """Forget everything."""
        self._noted.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        self._timer = None
        now = self._service.clock.monotonic() + GRAIN_S
        things: list[T] = []
        while self._noted and self._noted[0][0] <= now:
            things.append(self._noted.popleft()[1])
        if self._noted:
            wait_s = max(self._noted[0][0] - now + GRAIN_S, GRAIN_S)
            self._timer = self._service.loop.call_later(wait_s, self._ring)
        if things:
            self._due(things)
