"""Finding a broker, introducing oneself, and finding out who serves which topic.

    Lines ── dial the cluster ──▶ CONNECT, log in ──▶ PARTITIONED_METADATA, LOOKUP per topic
                                                         └─▶ the owner's address: one more line

A topic is produced to and read where a look-up says. All questions of one kind go out together,
ASKED_AT_ONCE at a time: ten thousand topics are not twenty thousand round trips.
"""

import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from google.protobuf.message import DecodeError

from magnetar.bench.load import Load, RunError, Where
from magnetar.broker.wire.pulsar import client_role, commands
from magnetar.broker.wire.pulsar.frames import FrameError, FrameReader
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.client.address import AddressError, service_addresses
from magnetar.client.credentials import tls_trouble

DIAL_TIMEOUT_S = 5.0
ASKED_AT_ONCE = 200
REDIRECTIONS_MAX = 20
START_ONE = "start one with `magnetar standalone`, or name another address with --url"
Commands = api.BaseCommand


class Line:
    """One connection that has introduced itself."""

    def __init__(self, where: Where, address: tuple[str, int], proxied_to: str = "") -> None:
        """Dial, shake hands and log in.

        Raises:
            RunError: nobody answers there, or the broker does not want us.
        """
        self.sock = _dialled(where, address)
        self._reader = FrameReader()
        self._answers: list[api.BaseCommand] = []
        method, data = _log_in(where)
        self.sock.sendall(
            client_role.connect(
                "magnetar-bench", auth_method=method, auth_data=data, proxied_to=proxied_to
            )
        )
        answer = self.receive()
        if answer.type == Commands.AUTH_CHALLENGE:
            raise RunError("the broker asks for another kind of log-in")
        if answer.type != Commands.CONNECTED:
            raise RunError(f"the broker refused the connection: {_reason(answer)}")

    def receive(self) -> api.BaseCommand:
        """Return the next command that is not about the connection itself."""
        while True:
            while self._answers:
                command = self._answers.pop(0)
                if command.type == Commands.PING:
                    self.sock.sendall(commands.pong())
                else:
                    return command
            try:
                data = self.sock.recv(1 << 16)
                frames = self._reader.feed(data)
            except TimeoutError:
                raise RunError("the broker did not answer in time", "see its log") from None
            except (OSError, FrameError, DecodeError) as error:
                raise RunError(f"whoever listens there is no Pulsar broker: {error}") from error
            if not data:
                raise RunError("the broker closed the connection", "see its log")
            self._answers += [frame.command for frame in frames]

    def ask(self, frames: Sequence[bytes]) -> list[api.BaseCommand]:
        """Send requests, and return the answers, as many, in the order in which they came.

        Raises:
            RunError: one was refused.
        """
        answers: list[api.BaseCommand] = []
        for first in range(0, len(frames), ASKED_AT_ONCE):
            group = frames[first : first + ASKED_AT_ONCE]
            self.sock.sendall(b"".join(group))
            for _ in group:
                answer = self.receive()
                if answer.type == Commands.ERROR:
                    raise RunError(f"the broker refused: {_reason(answer)}")
                answers.append(answer)
        return answers


def _reason(answer: api.BaseCommand) -> str:
    if answer.type == Commands.ERROR:
        return f"{answer.error.message} ({api.ServerError.Name(answer.error.error)})"
    return f"it answered {Commands.Type.Name(answer.type)}"


def _log_in(where: Where) -> tuple[str, bytes]:
    """Return the method of authentication and what is shown."""
    if where.token is not None:
        return "token", where.token.encode()
    if where.basic is not None:
        return "basic", where.basic.encode()
    return ("tls", b"") if where.certificate is not None else ("", b"")


def _dialled(where: Where, address: tuple[str, int]) -> socket.socket:
    host, port = address
    try:
        sock = socket.create_connection(address, timeout=DIAL_TIMEOUT_S)
    except OSError as error:
        raise RunError(
            f"no broker answers at {host}:{port} ({error.strerror or error})",
            START_ONE,
            nobody_answers=True,
        ) from error
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if where.url.startswith("pulsar+ssl://"):
        try:
            sock = where.credentials().tls().wrap_socket(sock, server_hostname=host)
        except ssl.SSLError as error:
            raise RunError(*tls_trouble(error, host), nobody_answers=True) from error
        except OSError as error:
            raise RunError(f"{host}:{port}: {error}", nobody_answers=True) from error
    return sock


class Owner(NamedTuple):
    """Where a topic is served."""

    address: tuple[str, int]
    proxied_to: str = ""
    """Host and port behind a proxy at that address."""


class Lines:
    """All connections of a generator, and which topic is served where."""

    def __init__(self, load: Load) -> None:
        """Dial the first address that answers.

        Raises:
            RunError: none does.
        """
        self._where, self._silence_s = load.where, load.silence_s
        self._made: dict[tuple[int, Owner], Line] = {}
        addresses = service_addresses(load.where.url)
        for number, address in enumerate(addresses):
            try:
                self._first = Line(load.where, address)
            except RunError as error:
                if not error.nobody_answers or number == len(addresses) - 1:
                    raise
            else:
                self._address = address
                break
        self._first.sock.settimeout(self._silence_s)

    def to(self, slot: int, owner: Owner) -> Line:
        """Return the connection of this number to this owner; dialled when first asked for."""
        line = self._made.get((slot, owner))
        if line is None:
            if not self._made and owner == Owner(self._address):
                line = self._first
            else:
                line = Line(self._where, owner.address, owner.proxied_to)
                line.sock.settimeout(self._silence_s)
            self._made[slot, owner] = line
        return line

    def owners(self, topics: Sequence[str]) -> Iterator[tuple[str, Owner]]:
        """Yield each topic, as it is called where it is served, and where that is.

        Some brokers create a topic when they are asked for its partitions, others in the look-up.
        """
        asked = [client_role.partitions(number, topic) for number, topic in enumerate(topics)]
        names = list(topics)
        for answer in self._first.ask(asked):
            metadata = answer.partitionMetadataResponse
            if metadata.response == api.CommandPartitionedTopicMetadataResponse.Failed:
                raise RunError(f"{topics[metadata.request_id]}: {metadata.message}")
            if metadata.partitions:
                names[metadata.request_id] += "-partition-0"
        asked = [client_role.lookup(number, topic) for number, topic in enumerate(names)]
        for answer in self._first.ask(asked):
            topic = names[answer.lookupTopicResponse.request_id]
            yield topic, self._owner(topic, answer.lookupTopicResponse)

    def _owner(self, topic: str, told: api.CommandLookupTopicResponse) -> Owner:
        through = self._address
        for _ in range(REDIRECTIONS_MAX):
            if told.response == api.CommandLookupTopicResponse.Failed:
                raise RunError(f"{topic}: {told.message} ({api.ServerError.Name(told.error)})")
            tls = self._where.url.startswith("pulsar+ssl://")
            url = (told.brokerServiceUrlTls if tls else "") or told.brokerServiceUrl
            try:
                address = service_addresses(url)[0]
            except AddressError as error:
                raise RunError(f"{topic}: the look-up named no usable address: {error}") from error
            if told.proxy_through_service_url:
                return Owner(through, f"{address[0]}:{address[1]}")
            if told.response == api.CommandLookupTopicResponse.Connect:
                return Owner(address)
            line, through = Line(self._where, address), address
            asked = client_role.lookup(0, topic, authoritative=told.authoritative)
            (answer,) = line.ask([asked])
            line.sock.close()
            told = answer.lookupTopicResponse
        raise RunError(f"{topic}: the look-up went round in circles")

    def close(self) -> None:
        """Hang up."""
        for line in {self._first, *self._made.values()}:
            with suppress(OSError):
                line.sock.close()
