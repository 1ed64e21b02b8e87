"""Keeping a window of requests in flight on several sockets, and counting the answers.

    pieces ──▶ socket ──▶ server        at most `window` requests unanswered per socket
    count  ◀── socket ◀── server        a piece's time: from its first byte to its last answer

The generator sends prepared pieces of many requests and only counts what comes back. That costs
so little that the server is the limit; a generator that did more would measure itself.
"""

import json
import selectors
import socket
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from magnetar.bench.histogram import Histogram
from magnetar.bench.load import RunError
from magnetar.bench.sockets import cpu_s, receive_now, send_now

PIECE_BYTES = 256 * 1024
"""Requests are handed to the kernel in pieces of about this size."""


class Piece(NamedTuple):
    """Requests that are sent together."""

    data: bytes
    ends: Sequence[int]
    """Where each of them ends."""

    @property
    def requests(self) -> int:
        """How many they are."""
        return len(self.ends)


def pieces_of(requests: Sequence[bytes], window: int) -> list[Piece]:
    """Join requests to pieces; a few requests are repeated until they fill one."""
    each = max(1, min(PIECE_BYTES // len(requests[0]), window // 4))
    whole = [requests[i % len(requests)] for i in range(max(each, len(requests)))]
    groups = [whole[i : i + each] for i in range(0, len(whole), each)]
    return [Piece(b"".join(group), list(accumulate(map(len, group)))) for group in groups]


class Pipeline(ABC):
    """One connected socket with the pieces it sends in turn."""

    def __init__(
        self, sock: socket.socket, pieces: Sequence[Piece], window: int, limit: int = 0
    ) -> None:
        self.sock = sock
        self.limit = limit
        """Requests to send in all; 0: no end."""
        self.begun = 0
        self.answered = 0
        self.times = Histogram()
        self._pieces = pieces
        self._next_piece = 0
        self._window = window
        self._unsent = memoryview(b"")
        self._unanswered: deque[tuple[int, int, float]] = deque()
        sock.setblocking(False)

    @abstractmethod
    def count(self, data: bytes) -> int:
        """Return how many requests the bytes answer; what is not whole must be remembered."""

    def receive(self) -> int:
        """Read what has arrived; return how many requests it answers."""
        data = receive_now(self.sock)
        if not data:
            return 0
        answered = self.count(data)
        self.answered += answered
        now = time.perf_counter()
        while self._unanswered and self._unanswered[0][0] <= self.answered:
            _, requests, since = self._unanswered.popleft()
            self.times.add(now - since, requests)
        return answered

    @property
    def done(self) -> bool:
        """Whether everything was sent and answered, where there is an end."""
        return bool(self.limit) and self.answered >= self.limit

    def wants_to_send(self) -> bool:
        """Return whether there is something to send and room for it."""
        if self._unsent:
            return True
        room = self.begun - self.answered + self._pieces[self._next_piece].requests <= self._window
        return room and (not self.limit or self.begun < self.limit)

    def send(self) -> None:
        """Send the rest of a piece, or begin the next one."""
        if not self._unsent:
            piece = self._pieces[self._next_piece]
            self._next_piece = (self._next_piece + 1) % len(self._pieces)
            requests = piece.requests
            if self.limit:
                requests = min(requests, self.limit - self.begun)
            self._unsent = memoryview(piece.data)[: piece.ends[requests - 1]]
            self.begun += requests
            self._unanswered.append((self.begun, requests, time.perf_counter()))
        self._unsent = send_now(self.sock, self._unsent)

    def send_one(self) -> None:
        """Send the first request of the next piece, and wait until it is gone."""
        piece = self._pieces[self._next_piece]
        self._next_piece = (self._next_piece + 1) % len(self._pieces)
        self.begun += 1
        self.say(piece.data[: piece.ends[0]])

    def say(self, data: bytes) -> None:
        """Send something between two pieces; it is small, and read by somebody who waits."""
        self.sock.setblocking(True)
        self.sock.sendall(self._unsent)
        self.sock.sendall(data)
        self.sock.setblocking(False)
        self._unsent = memoryview(b"")


def keep_full(
    pipelines: Sequence[Pipeline], warm_up_s: float, seconds: float, silence_s: float = 30.0
) -> dict[str, Any]:
    """Keep every window full for a time, or until all pipelines are done.

    Raises:
        RunError: nobody answered any more.
    """
    selector = selectors.DefaultSelector()
    for pipeline in pipelines:
        selector.register(pipeline.sock, selectors.EVENT_READ | selectors.EVENT_WRITE, pipeline)
    start = heard = time.perf_counter()
    warm, measured_from, counted, cpu = False, start, 0, cpu_s()
    while True:
        now = time.perf_counter()
        if not warm and now - start >= warm_up_s:
            warm, measured_from, counted, cpu = True, now, 0, cpu_s()
            forget_times(pipelines)
            say_measuring()
        if all(pipeline.done for pipeline in pipelines):
            break
        if counted and not pipelines[0].limit and now - start >= warm_up_s + seconds:
            break  # a server so slow that it has answered nothing yet is waited for
        if now - heard > silence_s:
            raise RunError(f"the broker has said nothing for {silence_s:g} s", "see its log")
        if answered := _turn(selector):
            counted, heard = counted + answered, now
    return {
        "requests": counted,
        "seconds": time.perf_counter() - measured_from,
        "generator_cpu_s": cpu_s() - cpu,
        "times": times_of(pipelines),
    }


def _turn(selector: selectors.BaseSelector) -> int:
    """Read and send where it can be done; return how many requests were answered."""
    answered = 0
    for key, events in selector.select(0.5):
        pipeline: Pipeline = key.data
        if events & selectors.EVENT_READ:
            answered += pipeline.receive()
        if events & selectors.EVENT_WRITE and pipeline.wants_to_send():
            pipeline.send()
        write = selectors.EVENT_WRITE if pipeline.wants_to_send() else 0
        if key.events != selectors.EVENT_READ | write:
            selector.modify(pipeline.sock, selectors.EVENT_READ | write, pipeline)
    return answered


def forget_times(pipelines: Iterable[Pipeline]) -> None:
    """Begin to measure times anew."""
    for pipeline in pipelines:
        pipeline.times = Histogram()


def times_of(pipelines: Iterable[Pipeline]) -> dict[int, int]:
    """Return the times of all pipelines in one histogram's buckets."""
    together = Histogram()
    for pipeline in pipelines:
        together.counts.update(pipeline.times.counts)
    return dict(together.counts)


def say_measuring() -> None:
    """Tell whoever started this process that what happens from now on counts."""
    say({"measuring": True})


def say(what: dict[str, Any]) -> None:
    """Tell whoever started this process something."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()
