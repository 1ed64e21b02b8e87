"""The pulse of a process: how late its event loop is, and when a minute is over.

    every INTERVAL_S    asked for ──▶ came: the difference is how long something held the loop
    every WINDOW_S      each histogram begins another minute

One timer, four times a second: what it costs is some microseconds of CPU in a second.
"""

import asyncio

from magnetar.broker.clock import Clock
from magnetar.broker.metrics import Metrics

INTERVAL_S = 0.25
WINDOW_S = 60.0


class Pulse:
    """Beats as long as the process serves."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock, metrics: Metrics) -> None:
        self._loop = loop
        self._now = clock.monotonic
        self._metrics = metrics
        self._lag = metrics.latencies(
            "magnetar_loop_lag_seconds", "How much later than asked for the event loop ran a timer."
        )
        self._timer: asyncio.TimerHandle | None = None
        self._turn_at_s = 0.0

    def start(self) -> None:
        """Begin to beat."""
        self._turn_at_s = self._now() + WINDOW_S
        self._ask()

    def stop(self) -> None:
        """Beat no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ask(self) -> None:
        # Not the loop's own clock: uvloop's counts milliseconds.
        self._timer = self._loop.call_later(INTERVAL_S, self._beat, self._now() + INTERVAL_S)

    def _beat(self, asked_for_s: float) -> None:
        now_s = self._now()
        self._lag.record(now_s - asked_for_s)
        if now_s >= self._turn_at_s:
            self._turn_at_s = now_s + WINDOW_S
            for each in self._metrics.all_latencies:
                each.turn()
        self._ask()
