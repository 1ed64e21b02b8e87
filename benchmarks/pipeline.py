"""Keeping a window of requests in flight on several sockets, and counting the answers.

    pieces ──▶ socket ──▶ server        at most `window` requests unanswered per socket
    count  ◀── socket ◀── server

Every generator here sends prepared pieces of many requests and only counts what comes back.
That costs so little that the server is the limit; a generator that did not would measure
itself.
"""

import json
import selectors
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from resource import RUSAGE_SELF, getrusage
from typing import Any, NamedTuple

RECEIVE_BYTES = 1 << 20
PIECE_BYTES = 256 * 1024
"""Requests are handed to the kernel in pieces of about this size."""


class Piece(NamedTuple):
    """Requests that are sent together."""

    data: bytes
    requests: int


def pieces_of(requests: Sequence[bytes], window: int) -> list[Piece]:
    """Join requests to pieces; a few requests are repeated until they fill one."""
    each = max(1, min(PIECE_BYTES // len(requests[0]), window // 4))
    whole = [requests[i % len(requests)] for i in range(max(each, len(requests)))]
    groups = [whole[i : i + each] for i in range(0, len(whole), each)]
    return [Piece(b"".join(group), len(group)) for group in groups]


class Pipeline(ABC):
    """One connected socket with the pieces it sends in turn."""

    def __init__(self, sock: socket.socket, pieces: Sequence[Piece], window: int) -> None:
        self.sock = sock
        self.begun = 0
        self.answered = 0
        self._pieces = pieces
        self._next_piece = 0
        self._window = window
        self._unsent = memoryview(b"")
        self._partial = b""
        sock.setblocking(False)

    @abstractmethod
    def count(self, data: bytes) -> tuple[int, int]:
        """Return how many requests the bytes answer, and how many bytes that took."""

    def receive(self) -> int:
        """Read what has arrived; return how many requests it answers."""
        try:
            data = self.sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return 0
        if not data:
            raise SystemExit("the server closed the connection")
        data = self._partial + data if self._partial else data
        answered, taken = self.count(data)
        self._partial = data[taken:]
        self.answered += answered
        return answered

    def wants_to_send(self, limit: int) -> bool:
        """Return whether there is something to send and room for it. `limit` 0: no end."""
        if self._unsent:
            return True
        room = self.begun - self.answered + self._pieces[self._next_piece].requests <= self._window
        return room and (not limit or self.begun < limit)

    def send(self) -> None:
        """Send the rest of a piece, or begin the next one."""
        if not self._unsent:
            piece = self._pieces[self._next_piece]
            self._next_piece = (self._next_piece + 1) % len(self._pieces)
            self._unsent = memoryview(piece.data)
            self.begun += piece.requests
        with suppress(BlockingIOError):
            self._unsent = self._unsent[self.sock.send(self._unsent) :]


def keep_full(
    pipelines: Sequence[Pipeline], warm_up_s: float, seconds: float, limit: int = 0
) -> dict[str, Any]:
    """Keep every window full for a time, or until each pipeline has `limit` answers."""
    selector = selectors.DefaultSelector()
    for pipeline in pipelines:
        selector.register(pipeline.sock, selectors.EVENT_READ | selectors.EVENT_WRITE, pipeline)
    start = time.monotonic()
    warm, measured_from, counted, cpu = False, start, 0, cpu_s()
    while True:
        now = time.monotonic()
        if not warm and now - start >= warm_up_s:
            warm, measured_from, counted, cpu = True, now, 0, cpu_s()
            say_measuring()
        if limit and all(pipeline.answered >= limit for pipeline in pipelines):
            break
        if not limit and now - start >= warm_up_s + seconds:
            break
        for key, events in selector.select(1.0):
            pipeline = key.data
            if events & selectors.EVENT_READ:
                counted += pipeline.receive()
            if events & selectors.EVENT_WRITE and pipeline.wants_to_send(limit):
                pipeline.send()
            write = selectors.EVENT_WRITE if pipeline.wants_to_send(limit) else 0
            if key.events != selectors.EVENT_READ | write:
                selector.modify(pipeline.sock, selectors.EVENT_READ | write, pipeline)
    return {
        "requests": counted,
        "seconds": time.monotonic() - measured_from,
        "client_cpu_s": cpu_s() - cpu,
    }


def say_measuring() -> None:
    """Tell the runner that what happens from now on counts."""
    print(json.dumps({"measuring": True}), flush=True)


def cpu_s() -> float:
    """Return the CPU time this process has used."""
    used = getrusage(RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
