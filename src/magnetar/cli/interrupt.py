"""Ctrl-C between two steps instead of in the middle of one.

    first Ctrl-C     the work in hand is finished, then the command ends
    second Ctrl-C    at once, as usual

For commands that must not stop between doing a thing and saying that it is done.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event


@contextmanager
def between_steps() -> Iterator[Callable[[], bool]]:
    """Hold back the first Ctrl-C; yields what tells whether there was one. Main thread only."""
    asked = Event()
    previous = signal.getsignal(signal.SIGINT)

    def note(*_: object) -> None:
        asked.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, note)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, previous)
