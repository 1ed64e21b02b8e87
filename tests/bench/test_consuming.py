"""Messages are counted and acknowledged without being decoded."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from magnetar.bench.consuming import Reading, acknowledgement
from magnetar.bench.load import Load, RunError, Where
from magnetar.broker.entry import EntryId
from magnetar.broker.wire.pulsar import client_role, commands
from magnetar.broker.wire.pulsar.frames import FrameReader, encode_payload_frame
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api


class Held:
    """What a `Reading` needs of a line."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        yield ours, theirs


def reading(sock: socket.socket, consumers: int, **changed: Any) -> Reading:
    where = Where(url="pulsar://x:1")
    told: dict[str, Any] = {"mode": "consume", "where": where, "prefix": "t", "permits": 4}
    return Reading(Held(sock), consumers, Load(**told | changed))  # type: ignore[arg-type]  # all it takes of it


def message(consumer: int, ledger: int, entry: int, payload: bytes = b"hello") -> bytes:
    command = api.BaseCommand(type=api.BaseCommand.MESSAGE)
    command.message.consumer_id = consumer
    command.message.message_id.ledgerId = ledger
    command.message.message_id.entryId = entry
    return encode_payload_frame(command, b"\x0a\x00", payload)


def said(sock: socket.socket) -> list[api.BaseCommand]:
    return [frame.command for frame in FrameReader().feed(sock.recv(1 << 20))]


@pytest.mark.parametrize("step", [1, 5, 33, 100_000])
def test_every_entry_is_acknowledged_by_its_own_id_however_it_is_cut(
    ends: tuple[socket.socket, socket.socket], step: int
) -> None:
    ours, theirs = ends
    wanted = [(c, ledger, e) for c in (0, 200) for ledger in (1, 2**50) for e in range(3)]
    data = b"".join(message(*each) for each in wanted)
    it = reading(ours, 201)
    it.begin()
    theirs.recv(1 << 20)
    for at in range(0, len(data), step):
        theirs.setblocking(True)
        theirs.sendall(data[at : at + step])
        it.receive()
    acks = [each.ack for each in said(theirs) if each.type == api.BaseCommand.ACK]
    found = [(a.consumer_id, i.ledgerId, i.entryId) for a in acks for i in a.message_id]
    assert sorted(found) == sorted(wanted)
    assert it.entries == len(wanted)


def test_more_is_asked_for_when_half_has_come(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    it = reading(ours, 1, batch=2)
    it.begin()
    assert [each.flow.messagePermits for each in said(theirs)] == [4]
    theirs.sendall(message(0, 1, 0))
    it.receive()
    _, flow = said(theirs)
    assert flow.flow.messagePermits == 2


def test_a_cumulative_acknowledgement_names_the_last_only() -> None:
    ids = [b"\x04\x08\x01\x10\x00", b"\x04\x08\x01\x10\x01"]
    (one,) = FrameReader().feed(acknowledgement(300, ids[-1:], cumulative=True))
    assert (
        one.command
        == FrameReader().feed(client_role.ack(300, [EntryId(1, 1)], cumulative=True))[0].command
    )


def test_a_consumer_that_is_closed_ends_the_run(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    it = reading(ours, 1)
    it.begin()
    theirs.sendall(commands.ping() + commands.close_consumer(0))
    with pytest.raises(RunError, match="closed a consumer"):
        it.receive()
