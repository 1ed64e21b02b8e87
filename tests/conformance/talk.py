"""What nearly every conversation with the official client needs.

    send(producer, 5)            publishes "0" to "4", returns their message ids
    take(consumer, 5)            receives five, acknowledges them, returns what they say
    assert_quiet(consumer)       nothing more comes

Consumers and readers look alike here: a reader has nothing to acknowledge.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any

import pulsar
import pytest

from magnetar.client.admin import Admin

LIMIT_S = 30.0
"""How long what must come to pass may take, on a machine that does other things too.

No promise: it only ends a test that would wait for ever. What must be fast is measured in
`benchmarks/`.
"""
RECEIVE_MS = round(LIMIT_S * 1000)
QUIET_MS = 200
"""How long to listen before believing that nothing comes."""


def send(producer: Any, numbers: int | Iterable[object], **options: Any) -> list[Any]:
    """Publish, one after the other; a number n stands for "0" to "n - 1"."""
    bodies = range(numbers) if isinstance(numbers, int) else numbers
    return [producer.send(str(body).encode(), **options) for body in bodies]


def receive(source: Any, count: int) -> list[Any]:
    """Return that many messages of a consumer or reader."""
    next_of = source.receive if hasattr(source, "receive") else source.read_next
    return [next_of(RECEIVE_MS) for _ in range(count)]


def text(message: Any) -> str:
    """Return what a message says."""
    return bytes(message.data()).decode()


def take(source: Any, count: int) -> list[str]:
    """Receive that many messages, acknowledge them, and return what they say."""
    messages = receive(source, count)
    if hasattr(source, "acknowledge"):
        for message in messages:
            source.acknowledge(message)
    return [text(message) for message in messages]


def texts(numbers: Iterable[object]) -> list[str]:
    """Return what `send` publishes for these."""
    return [str(number) for number in numbers]


def take_all(*sources: Any, count: int, acknowledge: bool = True) -> list[list[str]]:
    """Return what each of several consumers gets, until all of them together have `count`."""
    got: list[list[str]] = [[] for _ in sources]
    deadline = time.monotonic() + LIMIT_S
    while sum(map(len, got)) < count:
        assert time.monotonic() < deadline, f"only {got} of {count}"
        for source, mine in zip(sources, got, strict=True):
            try:
                message = source.receive(10)
            except pulsar.Timeout:
                continue
            mine.append(text(message))
            if acknowledge:
                source.acknowledge(message)
    return got


def assert_quiet(source: Any, for_ms: int = QUIET_MS) -> None:
    """Check that nothing comes."""
    next_of = source.receive if hasattr(source, "receive") else source.read_next
    with pytest.raises(pulsar.Timeout):
        next_of(for_ms)


def acknowledgements_are_durable(admin: Admin) -> bool:
    """Return whether everything that was acknowledged would survive a kill."""
    name = "magnetar_cursors_unwritten"
    lines = [line for line in admin.metrics().splitlines() if line.startswith(name)]
    assert lines, "asked of another broker"
    return not sum(float(line.split()[-1]) for line in lines)


def eventually(condition: Callable[[], object], limit_s: float = LIMIT_S) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)
