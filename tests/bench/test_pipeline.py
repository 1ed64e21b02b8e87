"""A window of requests in flight, kept full and never overrun."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from magnetar.bench.load import RunError
from magnetar.bench.pipeline import Pipeline, keep_full, pieces_of


class Lines(Pipeline):
    """Requests and answers are lines."""

    def count(self, data: bytes) -> int:
        return data.count(b"\n")


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def echo(sock: socket.socket, most: list[int]) -> None:
    """Answer everything; note how much came at once."""
    with suppress(OSError):
        while data := sock.recv(1 << 20):
            most.append(data.count(b"\n"))
            sock.sendall(data)


def test_exactly_as_many_requests_go_out_as_were_asked_for(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = ends
    came: list[int] = []
    threading.Thread(target=echo, args=(theirs, came), daemon=True).start()
    pipeline = Lines(ours, pieces_of([b"one\n", b"three\n"], 16), 16, limit=1_001)
    result = keep_full([pipeline], 0.0, 0.0)
    assert pipeline.done
    assert (pipeline.begun, pipeline.answered, sum(came)) == (1_001, 1_001, 1_001)
    assert max(came) <= 16
    assert sum(result["times"].values()) == 1_001
    assert result["generator_cpu_s"] >= 0


def test_a_time_limit_ends_it_too(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    threading.Thread(target=echo, args=(theirs, []), daemon=True).start()
    result = keep_full([Lines(ours, pieces_of([b"x\n"], 4), 4)], 0.05, 0.1)
    assert result["seconds"] >= 0.0999  # what a clock shows is rounded
    assert result["requests"] > 0


def test_whoever_stops_answering_is_not_waited_for_for_ever(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    with pytest.raises(RunError, match=r"said nothing for 0\.1 s"):
        keep_full([Lines(ends[0], pieces_of([b"x\n"], 4), 4)], 0.0, 60.0, silence_s=0.1)


def test_whoever_hangs_up_is_named(ends: tuple[socket.socket, socket.socket]) -> None:
    ends[1].close()
    with pytest.raises(RunError, match=r"closed the connection|connection was lost"):
        keep_full([Lines(ends[0], pieces_of([b"x\n"], 4), 4)], 0.0, 60.0)


def test_few_requests_are_repeated_to_pieces_and_many_are_all_sent() -> None:
    (piece,) = pieces_of([b"a" * 1_000], 100)
    assert piece.requests == 25
    assert piece.ends[-1] == len(piece.data) == 25_000
    many = pieces_of([b"%04d" % i for i in range(1_000)], 100)
    assert b"".join(each.data for each in many) == b"".join(b"%04d" % i for i in range(1_000))
