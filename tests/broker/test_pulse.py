"""The pulse: what holds the loop is seen, and minutes end."""

import asyncio
import time

import pytest

from magnetar.broker import pulse
from magnetar.broker.clock import ManualClock, SystemClock
from magnetar.broker.latency import quantile
from magnetar.broker.metrics import Metrics
from magnetar.broker.pulse import Pulse

HOLD_S = 0.2


async def test_what_holds_the_loop_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "INTERVAL_S", 0.01)
    metrics = Metrics()
    beating = Pulse(asyncio.get_running_loop(), SystemClock(), metrics)
    beating.start()
    await asyncio.sleep(0.03)
    time.sleep(HOLD_S)  # noqa: ASYNC251 - the point of it
    await asyncio.sleep(0.03)
    beating.stop()
    (lag,) = metrics.all_latencies
    longest = quantile(lag.counts, 1)
    assert longest is not None
    assert longest > HOLD_S / 2
    counted = sum(lag.counts)
    await asyncio.sleep(0.03)
    assert sum(lag.counts) == counted, "one that was stopped beats no more"


async def test_every_histogram_begins_another_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "INTERVAL_S", 0.001)
    metrics, clock = Metrics(), ManualClock()
    latencies = metrics.latencies("x_seconds", "X.")
    beating = Pulse(asyncio.get_running_loop(), clock, metrics)
    beating.start()
    latencies.record(0.5)
    assert sum(latencies.recent) == 1
    clock.advance(pulse.WINDOW_S)
    await asyncio.sleep(0.02)
    latencies.record(0.5)
    assert sum(latencies.recent) == 1, "what came after the minute is not shown in it"
    beating.stop()
