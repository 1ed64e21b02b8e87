"""Connections of people who never say who they are, slowly or in floods, on every door.

Rows N1, N2 and N3 of the test catalogue, at a tenth of their size: 300 slow connections to each
port, 5,000 half-finished handshakes, frames that claim to be too large. A client that is there
already must not notice, memory must stay, and nobody is waited for longer than ten seconds: so
it is alone on a machine. Here all of that may take longer by what other programs take.
"""

import itertools
import logging
import resource
import selectors
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from magnetar.broker.wire.pulsar import client_role
from magnetar.broker.wire.pulsar.frames import FrameReader
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.cli.demo.broker import group_members
from tests.conformance.child import MIB, status_bytes
from tests.conformance.conftest import new_client
from tests.conformance.talk import LIMIT_S, eventually
from tests.conformance.test_tls import HTTPS, PULSAR_TLS, Secure

logger = logging.getLogger(__name__)

SLOW, FLOOD, FLOOD_PER_S = 300, 5_000, 1_000
CLOSED_WITHIN_S = 10.0 + LIMIT_S
NOTICED = 10
"""So many times as long may a message take in the middle. The slowest ones say more about the
machine: they are written into the log."""
NOTICED_S = 0.1
"""Nobody notices less."""
FIRST_BYTES = {6650: b"\x00", PULSAR_TLS: b"\x16", 8080: b"G", HTTPS: b"\x16"}
HELLO = bytes.fromhex("1603010200010001fc0303") + bytes(40)
"""The beginning of a ClientHello that says it is longer."""


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8_192), hard))
    broker = Secure(tmp_path_factory.mktemp("strangers"), 1)
    try:
        yield broker
    finally:
        broker.process.discard()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Established:
    """A client that was there before, and goes on publishing."""

    def __init__(self, secure: Secure) -> None:
        self._client = new_client(
            secure.url,
            tls_trust_certs_file_path=str(secure.papers.ca),
            tls_validate_hostname=True,
        )
        topic = f"persistent://public/default/established-{time.time_ns()}"
        self._producer = self._client.create_producer(topic)
        self.took_s: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            began = time.perf_counter()
            self._producer.send(b"still there")
            self.took_s.append(time.perf_counter() - began)
            self._stop.wait(0.005)

    def median_s(self) -> float:
        took, self.took_s = sorted(self.took_s), []
        logger.warning("%d messages, p99 %.4f s", len(took), took[int(len(took) * 0.99)])
        return took[len(took) // 2]

    def warm_up(self) -> None:
        eventually(lambda: len(self.took_s) > 50)

    def end(self) -> None:
        self._stop.set()
        self._thread.join()
        self._client.close()


@pytest.fixture
def established(secure: Secure) -> Iterator[Established]:
    client = Established(secure)
    yield client
    client.end()


def dial(secure: Secure, port: int) -> socket.socket:
    return socket.create_connection(
        ("127.0.0.1", port + secure.process.ports.offset), timeout=LIMIT_S
    )


def all_closed(sockets: list[socket.socket], limit_s: float) -> float:
    """Return after how long the broker had closed all of them; it must be within the limit."""
    began = time.perf_counter()
    with selectors.DefaultSelector() as selector:
        for each in sockets:
            each.setblocking(False)
            selector.register(each, selectors.EVENT_READ)
        while selector.get_map():
            left = limit_s - (time.perf_counter() - began)
            assert left > 0, f"{len(selector.get_map())} are open after {limit_s:g} s"
            for key, _ in selector.select(left):
                ended = True
                with suppress(ConnectionError):
                    ended = not key.fileobj.recv(65536)  # type: ignore[union-attr]
                if ended:
                    selector.unregister(key.fileobj)
    for each in sockets:
        each.close()
    return time.perf_counter() - began


def memory(secure: Secure) -> int:
    return sum(status_bytes(pid, "VmRSS") for pid in group_members(secure.process.pid))


def test_slow_strangers_are_closed_in_time_and_others_do_not_notice(
    secure: Secure, established: Established
) -> None:
    established.warm_up()
    before_s = established.median_s()
    slow = [dial(secure, port) for _ in range(SLOW) for port in FIRST_BYTES]
    for sock, first in zip(slow, itertools.cycle(FIRST_BYTES.values()), strict=False):
        with suppress(OSError):
            sock.sendall(first)
    logger.warning("all closed after %.1f s", all_closed(slow, CLOSED_WITHIN_S))
    assert established.median_s() < max(NOTICED * before_s, NOTICED_S)


def test_half_finished_handshakes_cost_neither_memory_nor_the_others(
    secure: Secure, established: Established
) -> None:
    established.warm_up()
    before_s, before_bytes = established.median_s(), memory(secure)
    most_bytes = before_bytes
    open_sockets: list[socket.socket] = []
    began = time.perf_counter()
    for number in range(FLOOD):
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(("127.0.0.1", PULSAR_TLS + secure.process.ports.offset))
        with suppress(OSError):
            sock.send(HELLO)
        open_sockets.append(sock)
        if len(open_sockets) > 2_000:
            open_sockets.pop(0).close()
        if number % 500 == 0:
            most_bytes = max(most_bytes, memory(secure))
        ahead_s = number / FLOOD_PER_S - (time.perf_counter() - began)
        if ahead_s > 0.01:
            time.sleep(ahead_s)
    most_bytes = max(most_bytes, memory(secure))
    during_s = established.median_s()
    for each in open_sockets:
        each.close()
    newcomer = new_client(
        secure.url,
        tls_trust_certs_file_path=str(secure.papers.ca),
        tls_validate_hostname=True,
    )
    newcomer.create_producer(f"persistent://public/default/newcomer-{time.time_ns()}").send(b"x")
    newcomer.close()
    assert most_bytes - before_bytes < 100 * MIB
    assert during_s < max(NOTICED * before_s, NOTICED_S)


@pytest.mark.parametrize("claimed", [5 * MIB + 10 * 1024 + 1, 64 * MIB, 2**31, 2**32 - 1])
def test_a_frame_that_claims_too_much_is_refused_by_its_header(
    secure: Secure, claimed: int
) -> None:
    before = memory(secure)
    context = secure.papers.trust()
    with (
        dial(secure, PULSAR_TLS) as sock,
        context.wrap_socket(sock, server_hostname="localhost") as tls,
    ):
        reader = FrameReader()
        said: list[Any] = []
        tls.sendall(client_role.connect("oversize"))
        while not said:
            said += _commands(reader, tls.recv(65536))
        assert said[0].type == api.BaseCommand.CONNECTED
        tls.sendall(struct.pack(">II", claimed, 10) + bytes(100))
        said = []
        while data := tls.recv(65536):
            said += _commands(reader, data)
    assert said[-1].type == api.BaseCommand.ERROR
    assert memory(secure) - before < 4 * MIB


def _commands(reader: FrameReader, data: bytes) -> list[Any]:
    return [frame.command for frame in reader.feed(data)]
