"""The gate of a topic: single messages are refused, the others pass."""

from magnetar.broker.port import NotAllowedError
from magnetar.broker.run import DELIVER_AT
from magnetar.broker.topics.limits.gate import Gate
from tests.topics.whole_core import run_of

NOW_MS = 1_700_000_000_000


def judged(gate: Gate, *sizes: int, delays_ms: dict[int, int] | None = None) -> list[object]:
    run = run_of(["x" * size for size in sizes])
    for row, delay_ms in (delays_ms or {}).items():
        run.i64(DELIVER_AT)[row] = NOW_MS + delay_ms
    return [
        (first, count, type(error) if error is not None else None)
        for first, count, error in gate.judged(run, NOW_MS)
    ]


def test_what_is_too_large_is_refused_alone() -> None:
    gate = Gate(None, message_bytes_max=10, delay_ms_max=0)
    assert judged(gate, 1, 10, 3) == [(0, 3, None)]
    assert judged(gate, 1, 11, 3, 12) == [
        (0, 1, None),
        (1, 1, NotAllowedError),
        (2, 1, None),
        (3, 1, NotAllowedError),
    ]
    assert judged(gate, 11) == [(0, 1, NotAllowedError)]


def test_what_is_delayed_for_too_long_is_refused_alone() -> None:
    gate = Gate(None, message_bytes_max=0, delay_ms_max=1000)
    assert judged(gate, 1, 1, 1, delays_ms={0: 1000, 1: 1001}) == [
        (0, 1, None),
        (1, 1, NotAllowedError),
        (2, 1, None),
    ]


def test_without_limits_everything_passes() -> None:
    assert judged(Gate(None, 0, 0), 1, 100_000, delays_ms={0: 10**9}) == [(0, 2, None)]
