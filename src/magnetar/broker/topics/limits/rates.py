"""Rates: how much may pass in a while. Pure; the clock is an argument.

    tokens ▲ burst ┄┄╭────╮       ╭──  refilled steadily, up to a fraction of one period's
           │     ╭───╯    │     ╭─╯
           0 ────╯────────┼─────╯────▶
           │              ╰─────╯      overdrawn by what came at once; paid back by waiting

What has arrived is never turned away for its rate: it is taken, and whoever sent it is asked
to wait until the debt is paid. So the mean is exact, however large the pieces are. What is to
be sent waits for at least one token. Looked to: Pulsar's asynchronous token bucket.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

BURST = 0.1
"""The part of one period's worth that may pass at once after a pause."""

PACE_S = 0.01
"""Nobody is woken sooner: then more than one message can go."""

RELATIVE_WAIT_S = 0.1
"""How soon to look again at a limit that grows with what is published."""

UNLIMITED = float("inf")

Flow = Callable[[float], tuple[float, ...]]
"""Returns messages and bytes per second at a time."""


class Limit(NamedTuple):
    """So much in a period. 0: no limit of that kind."""

    messages: float = 0
    bytes: float = 0
    period_s: float = 1
    relative: bool = False
    """The limit is what is published, and this much more."""
    burst: float = BURST

    @property
    def any(self) -> bool:
        """Whether there is a limit of either kind."""
        return self.messages > 0 or self.bytes > 0


NO_LIMIT = Limit()


class _Bucket:
    """Tokens of one kind."""

    __slots__ = ("burst", "rate", "tokens")

    def __init__(self) -> None:
        self.rate = 0.0
        self.burst = 0.0
        self.tokens = 0.0

    def set(self, amount: float, limit: Limit) -> None:
        before = self.rate
        self.rate = max(amount, 0) / limit.period_s
        # Above one, so that whoever comes late for the next token loses nothing by it.
        self.burst = max(amount * limit.burst, 2.0)
        # Neither a debt nor what was saved up outlives another limit.
        if not before or not self.rate:
            self.tokens = min(1.0, self.burst)
        else:
            self.tokens = max(min(self.tokens * self.rate / before, self.burst), -self.burst)

    def refill(self, passed_s: float, extra: float) -> None:
        self.tokens = min(self.tokens + (self.rate + extra) * passed_s, self.burst + extra * BURST)

    def wait_s(self, wanted: float) -> float:
        if not self.rate or self.tokens >= wanted:
            return 0.0
        return (wanted - self.tokens) / self.rate


class Meter:
    """Measures what passes one place against a limit, which may change."""

    __slots__ = ("_at_s", "_bytes", "_flow", "_messages", "limit")

    def __init__(self, now_s: float, limit: Limit = NO_LIMIT, flow: Flow | None = None) -> None:
        """Start at a time; `flow` is what a relative limit is relative to."""
        self._at_s = now_s
        self._messages, self._bytes = _Bucket(), _Bucket()
        self._flow = flow
        self.limit = NO_LIMIT
        self.set(limit)

    def set(self, limit: Limit) -> None:
        """Change the limit; what was counted so far stays counted."""
        if limit != self.limit:
            self.limit = limit
            self._messages.set(limit.messages, limit)
            self._bytes.set(limit.bytes, limit)

    def take(self, messages: int, size_bytes: int) -> None:
        """Count what has passed, or is about to."""
        if self._messages.rate:
            self._messages.tokens -= messages
        if self._bytes.rate:
            self._bytes.tokens -= size_bytes

    def room(self, now_s: float) -> tuple[float, float]:
        """Return how many messages and bytes may pass now."""
        self._refill(now_s)
        return (
            self._messages.tokens if self._messages.rate else UNLIMITED,
            self._bytes.tokens if self._bytes.rate else UNLIMITED,
        )

    def debt_s(self, now_s: float) -> float:
        """Return how long whoever has sent too much should wait."""
        self._refill(now_s)
        return max(self._messages.wait_s(0), self._bytes.wait_s(0))

    def wait_s(self, now_s: float) -> float:
        """Return how long it takes until something may be sent."""
        self._refill(now_s)
        wait_s = max(self._messages.wait_s(1), self._bytes.wait_s(1))
        return min(wait_s, RELATIVE_WAIT_S) if self.limit.relative else wait_s

    def _refill(self, now_s: float) -> None:
        passed_s = now_s - self._at_s
        if passed_s <= 0:
            return
        self._at_s = now_s
        messages = size = 0.0
        if self.limit.relative and self._flow is not None:
            messages, size = self._flow(now_s)[:2]
        self._messages.refill(passed_s, messages)
        self._bytes.refill(passed_s, size)


class Meters:
    """Several meters that the same things pass: each must have room."""

    __slots__ = ("_clock", "_meters")

    def __init__(self, clock: Callable[[], float], meters: Iterable[Meter]) -> None:
        """Tell the time with `clock`, in seconds."""
        self._clock = clock
        self._meters = tuple(meters)

    def take(self, messages: int, size_bytes: int) -> None:
        """Count what has passed, or is about to."""
        for meter in self._meters:
            meter.take(messages, size_bytes)

    def room(self) -> tuple[int, int]:
        """Return how many messages and bytes may be sent now; 0: none, not even one."""
        now_s = self._clock()
        rooms = [meter.room(now_s) for meter in self._meters]
        messages = min(room[0] for room in rooms)
        size = min(room[1] for room in rooms)
        if messages < 1 or size < 1:
            return 0, 0
        return int(min(messages, 1 << 40)), int(min(size, 1 << 60))

    def debt_s(self) -> float:
        """Return how long whoever has sent too much should wait; 0: not at all."""
        now_s = self._clock()
        return max(meter.debt_s(now_s) for meter in self._meters)

    def wait_s(self) -> float:
        """Return how long it takes until something may be sent."""
        now_s = self._clock()
        return max(PACE_S, *(meter.wait_s(now_s) for meter in self._meters))


class Turnstile:
    """So many times in a period for each of those who come. For few and rare things."""

    KEPT_MAX = 10_000
    """Who came longest ago is forgotten beyond this; all it costs is that it may come again."""

    __slots__ = ("_limit", "_meters")

    def __init__(self) -> None:
        self._limit = NO_LIMIT
        self._meters: dict[object, Meter] = {}

    def passes(self, who: object, limit: Limit, now_s: float) -> bool:
        """Return whether somebody may pass now; counts it if so."""
        if limit != self._limit:
            self._limit = limit
            self._meters.clear()
        meter = self._meters.pop(who, None)
        if meter is None:
            meter = Meter(now_s, limit._replace(burst=1.0))
            meter.take(1 - int(limit.messages), 0)  # all of a period's may come at once
            if len(self._meters) >= self.KEPT_MAX:
                del self._meters[next(iter(self._meters))]
        self._meters[who] = meter
        if meter.room(now_s)[0] < 1:
            return False
        meter.take(1, 0)
        return True
