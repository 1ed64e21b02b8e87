"""A rate made from a counter, at the moment somebody asks."""

WINDOW_S_MIN = 1.0
"""A rate over less than this says more about the moment of asking than about the traffic."""


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
                (now - before) / passed_s for now, before in zip(counts, self._counts, strict=True)
            )
            self._at, self._counts = now_s, counts
        return self._rates
