"""The passes of all subscriptions of a process, a bounded time of each turn of the event loop.

    wake ─▶ [ pass, pass, pass ... ] ─▶ first come, first served ─▶ the time is up: go on next turn
                                                 in between, the loop looks at its sockets

A consumer that reads old entries has always more to send. Ten of them with a pass each in every
turn would let a producer wait ten times as long as one of them, twice: before its entries are
taken, and before it is told that they are durable. So a turn ends after `TURN_S`, however many
wait, and one pass looks at the clock itself before it goes on.
"""

from collections import deque
from collections.abc import Callable
from typing import Protocol

from magnetar.broker.clock import Clock

TURN_S = 0.0005
"""How long passes may go on before the loop looks at its sockets; one portion may come on top."""


class Soon(Protocol):
    """What is needed of an event loop."""

    def call_soon(self, callback: Callable[[], None], /) -> object: ...


class Rota:
    """Whose pass is next."""

    __slots__ = ("_clock", "_loop", "_scheduled", "_until_s", "_waiting")

    def __init__(self, loop: Soon, clock: Clock) -> None:
        self._loop = loop
        self._clock = clock
        self._waiting: deque[Callable[[], None]] = deque()
        self._scheduled = False
        self._until_s = 0.0

    def add(self, make_pass: Callable[[], None]) -> None:
        """Call soon, after those that were added before."""
        self._waiting.append(make_pass)
        self._schedule()

    @property
    def is_over(self) -> bool:
        """Whether the time of this turn is up."""
        return self._clock.monotonic() >= self._until_s

    def _schedule(self) -> None:
        if self._waiting and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        self._until_s = self._clock.monotonic() + TURN_S
        try:
            for _ in range(len(self._waiting)):
                self._waiting.popleft()()
                if self.is_over:
                    break
        finally:  # a bug in one pass must not keep the others waiting
            self._schedule()
