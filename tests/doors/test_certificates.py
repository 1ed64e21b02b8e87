"""TLS doors: which handshakes succeed, what the others are told, and certificates that change."""

import asyncio
import contextlib
import logging
import socket
import ssl
import time
import warnings
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from magnetar.broker.doors import certificates as module
from magnetar.broker.doors import listener as listener_module
from magnetar.broker.doors.certificates import (
    CertificateError,
    Certificates,
    TlsFiles,
    common_name,
    foreign_hello,
)
from magnetar.broker.doors.listener import Arrival, Entrance, Listener
from magnetar.broker.files import DiskFiles
from magnetar.broker.metrics import Metrics
from tests.doors.papers import Papers
from tests.doors.test_listener import EchoDoor
from tests.waiting import LIMIT_S, until


class NamingDoor(EchoDoor):
    """An echo that remembers how many handshakes it is told are under way."""

    def __init__(self, starting_max: int = 1_000) -> None:
        super().__init__()
        self.starting_max = starting_max

    def crowded(self, starting: int) -> bool:
        return starting >= self.starting_max

    def names(self) -> list[str | None]:
        return [module.verified_name(each) for each in self.open]


class World:
    """A TLS port and a plain one, and the authority that both sides know."""

    def __init__(
        self, papers: Papers, files: TlsFiles, door: NamingDoor, per_host_max: int | None = None
    ) -> None:
        self.papers = papers
        self.door = door
        self.metrics = Metrics()
        self.certificates = Certificates(files, DiskFiles())
        secure, plain = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
        self.port, self.plain_port = secure.getsockname()[1], plain.getsockname()[1]
        self.listener = Listener(
            [Entrance([secure], secure=True), Entrance([plain])],
            door,
            connections_max=1_000,
            loop=asyncio.get_running_loop(),
            metrics=self.metrics,
            certificates=self.certificates,
            handshakes_per_host_max=per_host_max,
        )
        self.listener.start()
        self._writers: list[asyncio.StreamWriter] = []

    async def dial(
        self, context: ssl.SSLContext | None = None, name: str = "localhost"
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.wait_for(
            asyncio.open_connection(
                "127.0.0.1", self.port, ssl=context or self.papers.trust(), server_hostname=name
            ),
            5,
        )
        self._writers.append(writer)
        return reader, writer

    async def raw(self, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        self._writers.append(writer)
        return reader, writer

    def failed(self) -> float:
        return self.listener._unfinished.value

    async def end(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        await self.listener.drain(0.5)
        await self.certificates.stop()


MakeWorld = Callable[..., World]


@pytest.fixture
async def make_world(tmp_path: Path) -> AsyncIterator[MakeWorld]:
    made: list[World] = []

    def make(
        files: Callable[[Papers], TlsFiles] = Papers.server,
        starting_max: int = 1_000,
        per_host_max: int | None = None,
    ) -> World:
        papers = Papers(tmp_path / "papers")
        made.append(World(papers, files(papers), NamingDoor(starting_max), per_host_max))
        return made[-1]

    yield make
    for each in made:
        await each.end()


@pytest.fixture
async def world(make_world: MakeWorld) -> World:
    return make_world()


async def says_back(connection: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
    reader, writer = connection
    writer.write(b"hello")
    assert await asyncio.wait_for(reader.readexactly(5), 30) == b"hello"


# --- versions --------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_tls_1_2_and_1_3_are_spoken(world: World, version: ssl.TLSVersion) -> None:
    context = world.papers.trust()
    context.minimum_version = context.maximum_version = version
    connection = await world.dial(context)
    await says_back(connection)
    assert connection[1].get_extra_info("ssl_object").version() == version.name.replace("_", ".")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
async def test_older_versions_are_refused(
    world: World, version: ssl.TLSVersion, caplog: pytest.LogCaptureFixture
) -> None:
    context = world.papers.trust()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = context.maximum_version = version
    with caplog.at_level(logging.INFO), pytest.raises((ssl.SSLError, OSError)):
        await world.dial(context)
    await until(lambda: world.failed() == 1)
    assert "no TLS version from 1.2 on" in caplog.text


async def test_the_same_old_client_gets_in_where_old_versions_are_allowed(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: it is the door that refuses it, and not the client that cannot."""
    make_context = module.server_context

    def lax(*args: Any) -> ssl.SSLContext:
        context = make_context(*args)
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            context.minimum_version = ssl.TLSVersion.TLSv1
        return context

    monkeypatch.setattr(module, "server_context", lax)
    world = make_world()
    context = world.papers.trust()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    await says_back(await world.dial(context))


# --- what clients refuse ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "name", "why"),
    [
        (lambda papers: papers.server(expired=True), "localhost", "expired"),
        (lambda papers: papers.server(["elsewhere.example"]), "localhost", "mismatch"),
        (Papers.server, "elsewhere.example", "mismatch"),
    ],
    ids=["expired", "made for another host", "dialled by another name"],
)
async def test_a_client_that_checks_is_not_deceived(
    make_world: MakeWorld, files: Any, name: str, why: str
) -> None:
    world = make_world(files)
    with pytest.raises(ssl.SSLCertVerificationError, match=why):
        await world.dial(name=name)
    assert world.door.connections == 0


async def test_a_client_that_trusts_another_authority_is_not_deceived(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = Papers(tmp_path / "stranger", "another CA")

    def dial() -> None:  # as most clients do, and asyncio does not: it says why it leaves
        with socket.create_connection(("127.0.0.1", world.port)) as sock:
            stranger.trust().wrap_socket(sock, server_hostname="localhost")

    with caplog.at_level(logging.INFO):
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.to_thread(dial)
        await until(lambda: world.failed() == 1)
    assert "has it been given our CA" in caplog.text


# --- client certificates ---------------------------------------------------------------


def with_clients(papers: Papers) -> TlsFiles:
    return papers.server(clients=papers.ca)


async def test_the_name_in_a_verified_client_certificate_is_known(make_world: MakeWorld) -> None:
    world = make_world(with_clients)
    await says_back(await world.dial(world.papers.trust(world.papers.client("alice"))))
    assert world.door.names() == ["alice"]


async def test_a_client_without_a_certificate_may_come_and_has_no_name(
    make_world: MakeWorld,
) -> None:
    world = make_world(with_clients)
    await says_back(await world.dial())
    assert world.door.names() == [None]


async def test_without_a_client_authority_nobody_has_a_name(world: World) -> None:
    await says_back(await world.dial(world.papers.trust(world.papers.client("alice"))))
    assert world.door.names() == [None]


@pytest.mark.parametrize("kind", ["expired", "another authority's", "self-signed", "a server's"])
async def test_a_client_certificate_that_does_not_verify_ends_the_handshake(
    make_world: MakeWorld, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    world = make_world(with_clients)
    stranger = Papers(tmp_path / "stranger", "another CA")
    server = world.papers.server()
    shown = {
        "expired": lambda: world.papers.client("alice", expired=True),
        "another authority's": lambda: stranger.client("alice"),
        "self-signed": lambda: (stranger.ca, stranger.ca_key),
        "a server's": lambda: (server.certificate, server.key),
    }[kind]()
    with caplog.at_level(logging.INFO), contextlib.suppress(ssl.SSLError, OSError):
        # With TLS 1.3 a client learns that it was refused when it first reads.
        reader, _ = await world.dial(world.papers.trust(shown))
        assert await asyncio.wait_for(reader.read(1), 30) == b""
    await until(lambda: world.failed() == 1)
    assert "its certificate is not accepted" in caplog.text
    assert world.door.connections == 0


async def test_the_same_certificate_is_let_in_where_nobody_verifies(
    make_world: MakeWorld, tmp_path: Path
) -> None:
    """Negative control: without the check the client above would get through."""
    world = make_world(with_clients)
    world.certificates.context.verify_mode = ssl.CERT_NONE
    stranger = Papers(tmp_path / "stranger", "another CA")
    await says_back(await world.dial(world.papers.trust(stranger.client("alice"))))


def test_a_certificate_with_two_common_names_has_none() -> None:
    names = ((("commonName", "alice"),), (("commonName", "admin"),))
    assert common_name({"subject": names}) is None
    assert common_name({"subject": names[:1]}) == "alice"
    assert common_name({"subject": ((("commonName", ""),),)}) is None
    assert common_name({}) is None
    assert common_name(None) is None


# --- the wrong port --------------------------------------------------------------------


@pytest.mark.parametrize(
    "hello",
    [b"\x00\x00\x00\x3a\x00\x00\x00\x36\x08\x02\x12\x32" + bytes(50), b"GET / HTTP/1.1\r\n\r\n"],
    ids=["Pulsar", "HTTP"],
)
async def test_plain_bytes_on_a_tls_port_fail_fast_with_a_line_that_says_so(
    world: World,
    hello: bytes,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listener_module, "HANDSHAKE_TIMEOUT_S", 3600)  # it is not waited for
    good = await world.dial()
    with caplog.at_level(logging.INFO):
        reader, writer = await world.raw(world.port)
        writer.write(hello)
        await asyncio.wait_for(reader.read(), LIMIT_S)
        await until(lambda: world.failed() == 1)
    assert "it does not speak TLS" in caplog.text
    assert not [each for each in caplog.records if each.levelno > logging.INFO]
    await says_back(good)


@pytest.mark.parametrize(
    ("first", "told"),
    [
        (b"\x16\x03\x01\x02\x00\x01", "TLS"),
        (b"GET /admin", "HTTP"),
        (b"PROXY TCP4", "PROXY"),
        (b"\r\n\r\n\x00\r\nQUIT\n", "PROXY"),
        (b"\x00\x00\x00\x3a", ""),
        (b"", ""),
    ],
)
def test_what_came_to_the_wrong_port_is_told_by_its_first_bytes(first: bytes, told: str) -> None:
    assert told in foreign_hello(first)
    assert bool(foreign_hello(first)) is bool(told)


# --- time and number -------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01"], ids=["silent", "half a hello"])
async def test_a_handshake_that_does_not_end_is_ended(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(listener_module, "HANDSHAKE_TIMEOUT_S", 0.3)
    world = make_world()
    reader, writer = await world.raw(world.port)
    writer.write(sent)
    began = time.perf_counter()
    await asyncio.wait_for(reader.read(), LIMIT_S)
    assert time.perf_counter() - began > 0.2
    await until(lambda: world.failed() == 1)


async def test_half_finished_handshakes_are_bounded_and_make_room(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener_module, "STARTING_GRACE_S", 0.1)
    world = make_world(starting_max=8)
    for _ in range(30):
        await world.raw(world.port)
    most = 0

    def look() -> bool:
        nonlocal most
        most = max(most, len(world.listener._starting))
        return world.failed() >= 16

    good = asyncio.create_task(world.dial())
    await until(look)
    await says_back(await good)
    assert most <= 8


async def test_a_client_that_leaves_in_the_middle_costs_nothing(world: World) -> None:
    for _ in range(20):
        _, writer = await world.raw(world.port)
        writer.write(b"\x16\x03\x01")
        writer.transport.abort()
    await until(lambda: world.failed() == 20)
    await says_back(await world.dial())


# --- files that change -----------------------------------------------------------------


def serial(connection: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> str:
    return str(connection[1].get_extra_info("peercert")["serialNumber"])


async def test_a_new_certificate_is_shown_to_new_clients_and_costs_no_connection(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.05)
    world.certificates.watch()
    old = await world.dial()
    world.papers.server()
    before = world.certificates.context
    await until(lambda: world.certificates.context is not before)
    new = await world.dial()
    assert serial(new) != serial(old)
    await says_back(old)
    await says_back(new)


async def test_files_that_do_not_fit_together_change_nothing_until_they_do(world: World) -> None:
    old = await world.dial()
    files = world.papers.server()
    whole = files.key.read_bytes()
    files.key.write_bytes(b"")
    assert not world.certificates.look()
    assert serial(await world.dial()) == serial(old)
    files.key.unlink()
    assert not world.certificates.look()
    assert serial(await world.dial()) == serial(old)
    files.key.write_bytes(whole)
    assert world.certificates.look()
    assert serial(await world.dial()) != serial(old)
    assert not world.certificates.look()


async def test_a_new_authority_of_clients_holds_for_new_connections(
    make_world: MakeWorld, tmp_path: Path
) -> None:
    clients = tmp_path / "clients.pem"

    def files(papers: Papers) -> TlsFiles:
        clients.write_bytes(papers.ca.read_bytes())
        return papers.server(clients=clients)

    world = make_world(files)
    await says_back(await world.dial(world.papers.trust(world.papers.client("alice"))))
    other = Papers(tmp_path / "other", "another CA")
    clients.write_bytes(other.ca.read_bytes())
    assert world.certificates.look()
    await says_back(await world.dial(world.papers.trust(other.client("bob"))))
    assert sorted(map(str, world.door.names())) == ["alice", "bob"]


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda files: files.key.write_bytes(b"nothing"), "no certificate and its key"),
        (lambda files: files.certificate.write_bytes(b""), "no certificate and its key"),
        (lambda files: files.key.unlink(), "cannot read"),
        (lambda files: files.client_ca.write_bytes(b"x"), "holds no certificate"),
    ],
)
def test_files_that_cannot_be_used_are_named(tmp_path: Path, spoil: Any, told: str) -> None:
    papers = Papers(tmp_path)
    clients = tmp_path / "clients.pem"
    clients.write_bytes(papers.ca.read_bytes())
    files = papers.server(clients=clients)
    spoil(files)
    with pytest.raises(CertificateError, match=told) as error:
        Certificates(files, DiskFiles())
    assert str(tmp_path) in str(error.value)


def test_a_key_of_another_certificate_is_refused_with_both_names(tmp_path: Path) -> None:
    papers = Papers(tmp_path)
    files = papers.server()
    other = papers.client("other")
    with pytest.raises(CertificateError, match="is not that of the certificate"):
        Certificates(files._replace(key=other[1]), DiskFiles())


def test_a_key_with_a_password_is_refused_and_nobody_is_asked_for_it(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    files = Papers(tmp_path).server()
    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(CertificateError, match="password"):
        Certificates(files, DiskFiles())


async def test_one_host_does_not_fill_the_room_with_handshakes_that_go_nowhere(
    make_world: MakeWorld,
) -> None:
    world = make_world(starting_max=40, per_host_max=8)
    waiting = [await world.raw(world.port) for _ in range(60)]

    def closed() -> int:
        return sum(each.at_eof() or each.exception() is not None for each, _ in waiting)

    await until(lambda: closed() == 60 - 8)
    assert world.listener._handshakes == {"127.0.0.1": 8}
    other = socket.socket()  # another host
    other.bind(("127.0.0.2", 0))
    other.setblocking(False)
    await asyncio.get_running_loop().sock_connect(other, ("127.0.0.1", world.port))
    theirs = await asyncio.wait_for(
        asyncio.open_connection(sock=other, ssl=world.papers.trust(), server_hostname="localhost"),
        LIMIT_S,
    )
    await says_back(theirs)
    theirs[1].transport.abort()
    for _, each in waiting:
        each.transport.abort()
    async with asyncio.timeout(30):
        while world.listener._handshakes:  # noqa: ASYNC110 - the listener has no event for tests
            await asyncio.sleep(0.01)
    await says_back(await world.dial())


async def test_without_a_limit_a_host_may_have_as_many_as_there_is_room(
    make_world: MakeWorld,
) -> None:
    """The control of the one above."""
    world = make_world()
    waiting = [await world.raw(world.port) for _ in range(60)]
    await asyncio.sleep(0.1)
    assert world.listener._handshakes == {"127.0.0.1": 60}
    assert not any(reader.at_eof() for reader, _ in waiting)


async def test_a_connection_knows_that_it_came_from_a_sibling(tmp_path: Path) -> None:
    arrivals: list[Arrival] = []

    class Door(EchoDoor):
        def connect(self, arrival: Arrival) -> asyncio.BaseProtocol:
            arrivals.append(arrival)
            return super().connect(arrival)

    door, path = Door(), str(tmp_path / "s")
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(path)
    unix.listen()
    plain = socket.create_server(("127.0.0.1", 0))
    listener = Listener(
        [Entrance([unix], sibling=True), Entrance([plain])],
        door,
        connections_max=10,
        loop=asyncio.get_running_loop(),
        metrics=Metrics(),
    )
    listener.start()
    connections = [
        await asyncio.open_unix_connection(path),
        await asyncio.open_connection(*listener.addresses[0]),
    ]
    for each in connections:
        await says_back(each)
        each[1].transport.abort()
    assert [each.sibling for each in arrivals] == [True, False]
    await listener.drain(0.5)
