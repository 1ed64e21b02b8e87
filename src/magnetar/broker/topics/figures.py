"""Figures as they are shown: rates from counters, times and types in Pulsar's words."""

from magnetar.broker.port import AccessMode, SubscriptionType

WINDOW_S_MIN = 1.0
"""A rate over less than this says more about the moment of asking than about the traffic."""

TYPE_NAMES = {
    SubscriptionType.EXCLUSIVE: "Exclusive",
    SubscriptionType.SHARED: "Shared",
    SubscriptionType.FAILOVER: "Failover",
    SubscriptionType.KEY_SHARED: "Key_Shared",
}

ACCESS_NAMES = {
    AccessMode.SHARED: "Shared",
    AccessMode.EXCLUSIVE: "Exclusive",
    AccessMode.WAIT_FOR_EXCLUSIVE: "WaitForExclusive",
    AccessMode.EXCLUSIVE_WITH_FENCING: "ExclusiveWithFencing",
}


class Rate:
    """How fast counters grew between the last two looks that were a window apart."""

    __slots__ = ("_at", "_counts", "_rates")

    def __init__(self, now_s: float, *counts: int) -> None:
        self._at = now_s
        self._counts = counts
        self._rates = (0.0,) * len(counts)

    def read(self, now_s: float, *counts: int) -> tuple[float, ...]:
        """Return the growth per second of each counter, in the order given."""
        passed_s = now_s - self._at
        if passed_s >= WINDOW_S_MIN:
            self._rates = tuple(
                max(now - before, 0) / passed_s
                for now, before in zip(counts, self._counts, strict=True)
            )
            self._at, self._counts = now_s, counts
        return self._rates
