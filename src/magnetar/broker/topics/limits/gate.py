"""The gate of a topic: what is asked of each message there, where a policy asks anything.

    rows ──▶ too large? delayed for too long? ──▶ refused, these rows alone
      └────▶ counted against the rates ──▶ in debt ──▶ the producer's door stops reading

A topic without such policies has no gate, and pays nothing for those that have one.
"""

from collections.abc import Iterator
from typing import NamedTuple

from magnetar.broker.port import NotAllowedError, PortError
from magnetar.broker.run import DELIVER_AT, LENGTH, Run
from magnetar.broker.topics.limits.rates import Meters


class Gate(NamedTuple):
    """What holds at the inlet of one topic."""

    meters: Meters | None
    """None: messages may come as fast as they like."""
    message_bytes_max: int
    """0: no limit but the broker's."""
    delay_ms_max: int
    """0: messages may be delayed for as long as they like."""

    def judged(self, run: Run, now_ms: int) -> Iterator[tuple[int, int, PortError | None]]:
        """Yield first row and count of neighbours that may pass, or why they may not."""
        errors = self._errors(run, now_ms)
        first = 0
        for row in sorted(errors):
            if row > first:
                yield first, row - first, None
            yield row, 1, errors[row]
            first = row + 1
        if first < run.count:
            yield first, run.count - first, None

    def _errors(self, run: Run, now_ms: int) -> dict[int, PortError]:
        errors: dict[int, PortError] = {}
        limit = self.message_bytes_max
        if limit:
            sizes: list[int] = run.u32(LENGTH).tolist()
            if max(sizes) > limit:
                for row, size in enumerate(sizes):
                    if size > limit:
                        errors[row] = NotAllowedError(
                            f"a message of {size} bytes, the limit of this topic is {limit}"
                        )
        if self.delay_ms_max:
            latest = now_ms + self.delay_ms_max
            times: list[int] = run.i64(DELIVER_AT).tolist()
            if max(times) > latest:
                for row, time_ms in enumerate(times):
                    if time_ms > latest:
                        errors[row] = NotAllowedError(
                            f"a message delayed by {time_ms - now_ms} ms, the limit of this topic"
                            f" is {self.delay_ms_max} ms"
                        )
        return errors
