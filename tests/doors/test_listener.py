"""The listener: limits, running out of descriptors, draining."""

import asyncio
import errno
import resource
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import cast

import pytest

from magnetar.broker.doors import listener as listener_module
from magnetar.broker.doors.listener import (
    DESCRIPTORS_KEPT,
    Arrival,
    Entrance,
    Listener,
    connections_possible,
)
from magnetar.broker.metrics import Metrics


class EchoDoor:
    """A door that says every byte back."""

    def __init__(self) -> None:
        self.open: set[asyncio.Transport] = set()
        self.full = False
        self.polite = True
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def connections(self) -> int:
        return len(self.open)

    def connect(self, arrival: Arrival) -> asyncio.BaseProtocol:
        return _Echo(self)

    def crowded(self, starting: int) -> bool:
        return self.full

    def close(self) -> None:
        if self.polite:
            for each in self.open:
                each.write(b"bye")
                each.close()

    async def emptied(self) -> None:
        await self._empty.wait()

    def abort(self) -> None:
        for each in self.open:
            each.abort()

    def changed(self) -> None:
        (self._empty.clear if self.open else self._empty.set)()


class _Echo(asyncio.Protocol):
    def __init__(self, door: EchoDoor) -> None:
        self._door = door

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's for TLS is none of asyncio's own classes.
        self._transport = cast("asyncio.Transport", transport)
        self._door.open.add(self._transport)
        self._door.changed()

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._door.open.discard(self._transport)
        self._door.changed()


class FailingSocket(socket.socket):
    """A listening socket whose `accept` fails as often as it is told."""

    failures = 0

    def accept(self) -> tuple[socket.socket, object]:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


@pytest.fixture
def door() -> EchoDoor:
    return EchoDoor()


Dial = Callable[[tuple[str, int]], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


@pytest.fixture
async def dial(door: EchoDoor) -> AsyncIterator[Dial]:
    """Opens connections, and closes them when the test is over."""
    writers: list[asyncio.StreamWriter] = []

    async def connect(
        address: tuple[str, int],
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*address)
        writers.append(writer)
        return reader, writer

    yield connect
    for writer in writers:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
    door.abort()
    await door.emptied()


@pytest.fixture
async def listener(door: EchoDoor) -> AsyncIterator[Listener]:
    listener = make([listen()], door)
    listener.start()
    yield listener
    listener.stop()


def listen() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def make(sockets: list[socket.socket], door: EchoDoor, connections_max: int = 3) -> Listener:
    return Listener(
        [Entrance(sockets)],
        door,
        connections_max=connections_max,
        loop=asyncio.get_running_loop(),
        metrics=Metrics(),
    )


async def echo(dial: Dial, listener: Listener) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await dial(listener.addresses[0])
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
    return reader, writer


async def test_a_connection_reaches_the_door(listener: Listener, dial: Dial) -> None:
    await echo(dial, listener)


async def test_connections_beyond_the_limit_are_closed_at_once_and_the_log_says_why(
    listener: Listener, dial: Dial, caplog: pytest.LogCaptureFixture
) -> None:
    kept = [await echo(dial, listener) for _ in range(3)]
    assert "connections_max" not in caplog.text
    reader, _writer = await dial(listener.addresses[0])
    assert await reader.read() == b""
    assert "all 3 are in use; connections_max is the limit" in caplog.text
    kept[0][1].close()
    await asyncio.sleep(0.02)
    await echo(dial, listener)


async def test_a_crowded_door_lets_newcomers_wait(
    listener: Listener, door: EchoDoor, dial: Dial
) -> None:
    door.full = True
    reader, writer = await dial(listener.addresses[0])
    writer.write(b"x")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.readexactly(1), 0.05)
    door.full = False
    assert await asyncio.wait_for(reader.readexactly(1), 30) == b"x"


async def test_without_descriptors_it_refuses_one_client_and_comes_back(
    door: EchoDoor, dial: Dial, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listener_module, "EXHAUSTED_PAUSE_S", 0.05)
    bound = listen()
    failing = FailingSocket(fileno=bound.detach())
    listener = make([failing], door)
    listener.start()
    failing.failures = 1
    reader, _writer = await dial(listener.addresses[0])
    assert await reader.read() == b"", "the first one is turned away, not left hanging"
    await echo(dial, listener)
    assert len([r for r in caplog.records if "Too many open files" in r.message]) == 1
    listener.stop()


async def test_without_descriptors_it_does_not_spin(
    door: EchoDoor, dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener_module, "EXHAUSTED_PAUSE_S", 0.05)
    bound = listen()
    failing = FailingSocket(fileno=bound.detach())
    listener = make([failing], door)
    listener.start()
    failing.failures = 1_000_000
    await dial(listener.addresses[0])
    await asyncio.sleep(0.2)
    assert 1_000_000 - failing.failures < 20
    listener.stop()


async def test_draining_lets_the_door_say_goodbye(listener: Listener, dial: Dial) -> None:
    address = listener.addresses[0]
    reader, _ = await echo(dial, listener)
    assert await listener.drain(1.0) == 0
    assert await reader.read() == b"bye"
    with pytest.raises(ConnectionError):
        await dial(address)


async def test_draining_cuts_what_does_not_go_by_itself(
    listener: Listener, door: EchoDoor, dial: Dial
) -> None:
    door.polite = False
    reader, _ = await echo(dial, listener)
    assert await listener.drain(0.05) == 1
    assert await reader.read() == b""
    assert door.connections == 0


async def test_when_the_process_is_really_out_of_descriptors_clients_are_served_later(
    door: EchoDoor, dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener_module, "EXHAUSTED_PAUSE_S", 0.05)
    listener = make([listen()], door)
    listener.start()
    clients = [socket.create_connection(listener.addresses[0]) for _ in range(2)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(each.name) for each in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))
    hoard: list[socket.socket] = []
    try:
        with suppress(OSError):
            while True:
                hoard.append(clients[0].dup())
        await asyncio.sleep(0.02)
        assert not door.connections
    finally:
        for each in hoard:
            each.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    await echo(dial, listener)
    for client in clients:
        client.close()
    listener.stop()


@pytest.mark.parametrize(
    ("wanted", "descriptors", "possible"),
    [
        (10_000, 1_048_576, 10_000),
        (10_000, 1_024, 1_024 - DESCRIPTORS_KEPT),
        (10_000, 256, 128),
        (10_000, 64, 32),
        (3, 64, 3),
    ],
)
def test_connections_leave_descriptors_to_the_storage(
    wanted: int, descriptors: int, possible: int
) -> None:
    assert connections_possible(wanted, descriptors) == possible


async def test_a_low_limit_of_descriptors_is_raised_as_far_as_needed(door: EchoDoor) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, hard))
    try:
        listener = make([listen()], door, connections_max=500)
        listener.start()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (500 + DESCRIPTORS_KEPT, hard)
        listener.stop()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# --- a proxy in front ------------------------------------------------------------------

BEHIND = b"PROXY TCP4 192.0.2.1 198.51.100.2 56627 6650\r\n"


class Announced(EchoDoor):
    """A door that remembers whom it was told about."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def connect(self, arrival: Arrival) -> asyncio.BaseProtocol:
        self.addresses.append(arrival.address)
        return super().connect(arrival)


@pytest.fixture
async def proxied() -> AsyncIterator[tuple[Listener, Announced]]:
    door = Announced()
    listener = Listener(
        [Entrance([listen()], proxied=True)],
        door,
        connections_max=100,
        loop=asyncio.get_running_loop(),
        metrics=Metrics(),
    )
    listener.start()
    yield listener, door
    await listener.drain(0.2)


async def test_the_client_is_who_the_proxy_says(proxied: tuple[Listener, Announced]) -> None:
    listener, door = proxied
    reader, writer = await asyncio.open_connection(*listener.addresses[0])
    writer.write(BEHIND + b"hello")
    assert await reader.readexactly(5) == b"hello"
    assert door.addresses == ["192.0.2.1:56627"]
    writer.close()


async def test_a_header_that_comes_byte_by_byte_is_read_and_nothing_behind_it(
    proxied: tuple[Listener, Announced],
) -> None:
    listener, door = proxied
    reader, writer = await asyncio.open_connection(*listener.addresses[0])
    for each in BEHIND:
        writer.write(bytes([each]))
        await asyncio.sleep(0.001)
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
    assert door.addresses == ["192.0.2.1:56627"]
    writer.close()


async def test_a_proxy_that_speaks_for_itself_is_who_it_is(
    proxied: tuple[Listener, Announced],
) -> None:
    listener, door = proxied
    reader, writer = await asyncio.open_connection(*listener.addresses[0])
    writer.write(b"PROXY UNKNOWN\r\nhello")
    assert await reader.readexactly(5) == b"hello"
    assert door.addresses[0].startswith("127.0.0.1:")
    writer.close()


@pytest.mark.parametrize("sent", [b"hello", BEHIND[:-2] + b"x" * 100, b""])
async def test_whoever_sends_no_header_is_turned_away(
    proxied: tuple[Listener, Announced],
    monkeypatch: pytest.MonkeyPatch,
    sent: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(listener_module, "PROXY_TIMEOUT_S", 0.2)
    listener, door = proxied
    with caplog.at_level("INFO"):
        reader, writer = await asyncio.open_connection(*listener.addresses[0])
        writer.write(sent)
        with suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 30) == b""
    assert not door.addresses
    assert "closing 127.0.0.1:" in caplog.text
    writer.close()
