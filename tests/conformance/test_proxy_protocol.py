"""A load balancer in front that says who is behind it, with TLS and without."""

import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from magnetar.broker.wire.pulsar import client_role
from magnetar.broker.wire.pulsar.frames import FrameReader
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from tests.conformance.talk import LIMIT_S, eventually
from tests.conformance.test_tls import PULSAR_TLS, Secure

V1 = b"PROXY TCP4 192.0.2.7 198.51.100.2 56627 6650\r\n"
V2 = b"\r\n\r\n\x00\r\nQUIT\n" + bytes.fromhex("21 11 000c c0000207 c6336402 dd33 19fa")


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    broker = Secure(tmp_path_factory.mktemp("behind"), 2, "--proxy-protocol", "--single-port")
    try:
        yield broker
    finally:
        broker.process.discard()


def dial(behind: Secure, port: int) -> socket.socket:
    return socket.create_connection(
        ("127.0.0.1", port + behind.process.ports.offset), timeout=LIMIT_S
    )


@pytest.mark.parametrize("header", [V1, V2], ids=["version 1", "version 2"])
@pytest.mark.parametrize("port", [6650, PULSAR_TLS])
def test_the_client_behind_the_proxy_is_shown(behind: Secure, port: int, header: bytes) -> None:
    topic = behind.topics()[0]
    with dial(behind, port) as sock:
        sock.sendall(header)
        talk = sock
        if port == PULSAR_TLS:
            talk = behind.papers.trust().wrap_socket(sock, server_hostname="localhost")
        talk.sendall(client_role.connect() + client_role.producer(1, 1, topic))
        reader = FrameReader()
        kinds: list[int] = []
        while len(kinds) < 2:
            data = talk.recv(65536)
            assert data, "the door closed"
            kinds += [frame.command.type for frame in reader.feed(data)]
        assert kinds == [api.BaseCommand.CONNECTED, api.BaseCommand.PRODUCER_SUCCESS]
        with behind.admin() as admin:
            (publisher,) = admin.stats(topic)["publishers"]
        # Where another process owns the topic, that one is seen through the first.
        assert publisher["address"] in {"192.0.2.7:56627", "?"}
        talk.close()


def test_whoever_comes_without_a_proxy_is_turned_away_and_named_in_the_log(
    behind: Secure,
) -> None:
    for port in (6650, PULSAR_TLS):
        with dial(behind, port) as sock:
            sock.sendall(client_role.connect())
            with suppress(ConnectionResetError):
                assert sock.recv(10) == b""
    eventually(lambda: "no PROXY header came first" in behind.process.log.read_text())
