"""Calls to the broker processes of the same data folder, over their Unix sockets.

    this process ──HTTP/1.1, one connection per call──▶ DATA/run/worker-<i>.sock

The supervisor uses it to forward what comes in from outside; a broker process uses it for
the partitions and topics that others own. A connection per call costs a tenth of a
millisecond on a Unix socket, and saves a pool and its stale connections.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

import httptools
import msgspec

from magnetar.broker.access.caller import CALLER, Caller
from magnetar.broker.doors.admin.errors import Refusal
from magnetar.broker.doors.admin.http.spelling import Spelled

CALLS_MAX = 64
"""Calls under way at once from one process; more wait. Each holds one connection."""
READ_BYTES = 64 * 1024
ANSWER_BYTES_MAX = 16 * 1024 * 1024
"""Of an answer that is collected rather than passed on."""
TIMEOUT_S = 60.0
"""Without a single byte from the sibling."""

HERE = "x-magnetar-here"
"""Header of a call that concerns only what the called process owns. Never let in from outside."""

CALLER_HEADER = "x-magnetar-caller"
"""Header that says in whose name a sibling calls, as `Caller.to_text`. Never let in either."""

PEER_HEADER = "x-magnetar-peer"
"""Header that says who is at the other end of the public port (`Peer`). Never let in either."""


class Peer(msgspec.Struct, frozen=True):
    """The other end of a connection to the public port."""

    address: str = ""
    """Host and port."""
    common_name: str | None = None
    """Of the client's certificate, if TLS has verified one."""


Headers = Sequence[tuple[bytes, bytes]]


class SiblingDownError(Exception):
    """A broker process does not answer. It is being restarted, or it is gone."""

    def __init__(self, worker: int, why: object, *, untouched: bool = False) -> None:
        super().__init__(
            f"broker process {worker} does not answer ({why}); it is probably being restarted"
        )
        self.worker = worker
        self.untouched = untouched
        """Whether the call certainly never reached it, so that it can be made again."""


class Answer(NamedTuple):
    """A whole answer."""

    status: int
    headers: Headers
    body: bytes


class Exchange:
    """One call whose answer is read piece by piece."""

    def __init__(self, worker: int, reader: asyncio.StreamReader, *, bodyless: bool) -> None:
        """Read the answer to one call; `bodyless`: to HEAD, which only talks about a body."""
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self._worker = worker
        self._reader = reader
        self._bodyless = bodyless
        self._parser = httptools.HttpResponseParser(self)
        self._head = False
        self._complete = False
        self._pieces: list[bytes] = []

    # What the parser calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name if name.islower() else Spelled(name), value))

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self._head = True
        self._complete = self._bodyless

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        self._complete = True

    async def head(self) -> None:
        """Read until status and headers are there.

        Raises:
            SiblingDownError: the sibling hung up first.
        """
        while not self._head:
            await self._read()

    async def body(self) -> AsyncIterator[bytes]:
        """Yield the pieces of the body as they arrive.

        Raises:
            SiblingDownError: the sibling hung up in the middle.
        """
        while True:
            pieces, self._pieces = self._pieces, []
            for piece in pieces:
                yield piece
            if self._complete:
                return
            await self._read()

    async def _read(self) -> None:
        try:
            data = await asyncio.wait_for(self._reader.read(READ_BYTES), TIMEOUT_S)
        except TimeoutError:
            raise SiblingDownError(self._worker, f"silent for {TIMEOUT_S:.0f} s") from None
        except OSError as error:
            raise SiblingDownError(self._worker, error) from error
        if not data:
            raise SiblingDownError(self._worker, "it hung up")
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            raise SiblingDownError(self._worker, f"it does not speak HTTP: {error}") from error


class Siblings:
    """The broker processes of one data folder, by number."""

    def __init__(
        self, paths: Sequence[str], own: int | None = None, calls_max: int = CALLS_MAX
    ) -> None:
        """Take every process's Unix socket; `own` is this process, if it is one of them."""
        self._paths = list(paths)
        self._own = own
        self._calls = asyncio.Semaphore(calls_max)

    def __len__(self) -> int:
        return len(self._paths)

    def meet(self, paths: Sequence[str]) -> None:
        """Take the sockets of all processes there are from now on."""
        self._paths = list(paths)

    def path(self, worker: int) -> str:
        """Return where a process listens."""
        return self._paths[worker]

    @property
    def others(self) -> list[int]:
        """The numbers of all processes but this one."""
        return [worker for worker in range(len(self._paths)) if worker != self._own]

    @asynccontextmanager
    async def exchange(
        self, worker: int, method: str, target: str, headers: Headers = (), body: bytes = b""
    ) -> AsyncIterator[Exchange]:
        """Call a process; yields when status and headers of its answer are there.

        `target` is path and query as they go over the wire. The whole request is sent at once:
        bodies are bounded where they come in.

        Raises:
            SiblingDownError: it cannot be reached, or hangs up.
        """
        async with self._calls:
            try:
                path = self._paths[worker]
            except IndexError as error:
                raise SiblingDownError(worker, "it has left", untouched=True) from error
            try:
                reader, writer = await asyncio.open_unix_connection(path, limit=READ_BYTES)
            except OSError as error:
                raise SiblingDownError(worker, error.strerror or error, untouched=True) from error
            try:
                writer.write(_request(method, target, headers, body))
                exchange = Exchange(worker, reader, bodyless=method == "HEAD")
                await exchange.head()
                yield exchange
            finally:
                writer.transport.abort()

    async def call(
        self, worker: int, method: str, target: str, headers: Headers = (), body: bytes = b""
    ) -> Answer:
        """Call a process and collect its answer.

        Raises:
            SiblingDownError: it cannot be reached, or hangs up.
            Refusal: 502, its answer is longer than anything we would collect.
        """
        async with self.exchange(worker, method, target, headers, body) as exchange:
            collected = bytearray()
            async for piece in exchange.body():
                collected += piece
                if len(collected) > ANSWER_BYTES_MAX:
                    raise Refusal(502, f"an answer of more than {ANSWER_BYTES_MAX} bytes")
            return Answer(exchange.status, exchange.headers, bytes(collected))

    async def ask(self, worker: int, method: str, target: str, body: bytes = b"") -> object:
        """Call a process about what it owns; return the JSON value it answers, None for nothing.

        Raises:
            SiblingDownError: it cannot be reached, or hangs up.
            Refusal: it refused; with its status and reason.
        """
        headers = (*in_the_name_of(CALLER.get()), (b"content-type", b"application/json"))
        answer = await self.call(worker, method, target, headers, body)
        if 200 <= answer.status < 300:
            return msgspec.json.decode(answer.body) if answer.body else None
        raise Refusal(answer.status, reason_in(answer.body))


def in_the_name_of(caller: Caller) -> Headers:
    """Return the headers of a call to what another process owns, for whoever made the call here."""
    return (
        (HERE.encode(), b"1"),
        (CALLER_HEADER.encode(), caller.to_text().encode("ascii")),
    )


def reason_in(body: bytes) -> str:
    """Return the reason that the body of a refusal gives."""
    try:
        return str(msgspec.json.decode(body)["reason"])
    except (msgspec.DecodeError, TypeError, KeyError):
        return body[:200].decode("utf-8", "replace")


def _request(method: str, target: str, headers: Headers, body: bytes) -> bytes:
    lines = [f"{method} {target} HTTP/1.1\r\n".encode("ascii")]
    lines += [b"%b: %b\r\n" % header for header in headers if header[0] != b"content-length"]
    if not any(name.lower() == b"host" for name, _ in headers):
        lines.append(b"host: localhost\r\n")
    lines.append(b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body))
    return b"".join([*lines, body])


def passed_on(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the headers that may travel on: not those that belong to one connection."""
    return [(name, value) for name, value in headers if name.lower() not in _HOP_HEADERS]


_HOP_HEADERS = frozenset(
    {
        b"connection",
        b"expect",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        HERE.encode(),
        CALLER_HEADER.encode(),
        PEER_HEADER.encode(),
    }
)
