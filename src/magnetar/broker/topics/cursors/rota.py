"""The passes of all subscriptions of a process, a bounded time of each turn of the event loop.

    wake ─▶ [ pass, pass, pass ... ] ─▶ first come, first served ─▶ the time is up: go on next turn,
                                                 in between, the loop looks at its sockets
                                         or after a pause: old entries, while somebody publishes

A consumer that reads old entries has always more to send. Ten of them with a pass each in every
turn would let a producer wait ten times as long as one of them, twice: before its entries are
taken, and before it is told that they are durable. So a turn ends after `TURN_S`, however many
wait, and one pass looks at the clock itself before it goes on.

Old entries can wait, producers cannot: while somebody publishes, a pause follows a turn that was
full and had old entries in it. What the loop is asked is then answered at once for most of the
time, and the processors have time for those who ask, too.
"""

from collections import deque
from collections.abc import Callable
from typing import Protocol

from magnetar.broker.clock import Clock

TURN_S = 0.0005
"""How long passes may go on before the loop looks at its sockets; one portion may come on top."""
PAUSE_S = 0.001
"""How long passes wait after such a turn. The loops' timers count in milliseconds."""
PUBLISHING_S = 0.05
"""Somebody publishes as long as the last commit is not longer ago."""


class Soon(Protocol):
    """What is needed of an event loop."""

    def call_soon(self, callback: Callable[[], None], /) -> object: ...
    def call_later(self, delay: float, callback: Callable[[], None], /) -> object: ...


class Storage(Protocol):
    """What is needed of the ledgers of a process."""

    @property
    def committed_s(self) -> float:
        """When entries last became durable, on the monotonic clock."""
        ...

    @property
    def old_entries(self) -> int:
        """How many entries were read out of entry logs so far."""
        ...


class Rota:
    """Whose pass is next."""

    __slots__ = ("_clock", "_loop", "_scheduled", "_storage", "_until_s", "_waiting")

    def __init__(self, loop: Soon, clock: Clock, storage: Storage | None = None) -> None:
        """Without `storage`, nobody publishes."""
        self._loop = loop
        self._clock = clock
        self._storage = storage
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
        now_s = self._clock.monotonic()
        self._until_s = now_s + TURN_S
        old_entries = 0 if self._storage is None else self._storage.old_entries
        try:
            for _ in range(len(self._waiting)):
                self._waiting.popleft()()
                if self.is_over:
                    break
        finally:  # a bug in one pass must not keep the others waiting
            self._scheduled = False
            if self.is_over and self._must_pause(old_entries, now_s):
                self._scheduled = True
                self._loop.call_later(PAUSE_S, self._turn)
            self._schedule()

    def _must_pause(self, old_entries: int, now_s: float) -> bool:
        storage = self._storage
        return (
            storage is not None
            and storage.old_entries > old_entries
            and now_s - storage.committed_s < PUBLISHING_S
        )
