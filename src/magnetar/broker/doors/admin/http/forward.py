"""The public HTTP port: forwards each call to the broker process that can answer it.

    /admin/v2/{domain}/{tenant}/{namespace}/{topic}/...  ──▶ the process that owns the topic
    /metrics                                             ──▶ all of them, merged
    /admin/v2/brokers/health                             ──▶ all of them, must all be well
    /admin/v2/brokers/ready, /readyz                     ──▶ all of them, must all serve
    /healthz, /status.html                               ──▶ answered here
    /ws/..., with Upgrade: websocket                     ──▶ a tunnel to the same
    anything else                                        ──▶ process 0, or the next one alive

Runs in the supervisor, which knows nothing of topics. Bodies of requests are collected (they
are small and bounded), those of answers are passed on piece by piece, as slowly as the
client takes them.
"""

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AsyncExitStack

import msgspec
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from magnetar.broker.assignment import Assignment
from magnetar.broker.doors.admin.errors import Refusal, reason, refused
from magnetar.broker.doors.admin.http.exposition import CONTENT_TYPE, merged
from magnetar.broker.doors.admin.http.guard import Bodies, Guard
from magnetar.broker.doors.admin.http.server import CERTIFICATE, CONNECTIONS_MAX, HttpServer
from magnetar.broker.doors.admin.http.siblings import (
    PEER_HEADER,
    Exchange,
    Headers,
    Peer,
    SiblingDownError,
    Siblings,
    passed_on,
    reason_in,
)
from magnetar.broker.doors.admin.http.together import Totals
from magnetar.broker.doors.admin.http.tunnel import Tunnels
from magnetar.broker.doors.admin.routes import ADMIN, topic_of
from magnetar.broker.doors.certificates import Certificates
from magnetar.broker.ownership import Table

logger = logging.getLogger(__name__)

HEALTH = f"{ADMIN}/brokers/health"
READY = f"{ADMIN}/brokers/ready"
_ANSWERED_HERE = {"/healthz": "ok", "/status.html": "OK"}
_ASKED_OF_ALL = {HEALTH: HEALTH, READY: READY, "/readyz": READY}
BODY_TIMEOUT_S = 30.0
"""For a client to send the body of a request."""
SEND_TIMEOUT_S = 60.0
"""For a client to take the next piece of an answer."""


class Forward:
    """The app of the public port."""

    def __init__(self, siblings: Siblings, table: Table | None = None) -> None:
        """Without a table: that of a first start."""
        self._siblings = siblings
        self._table = table or Table(Assignment.fresh(len(siblings)))
        self._scrape = asyncio.Lock()
        self._totals = Totals()
        self._bodies = Bodies()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def send_in_time(message: object) -> None:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await send(message)  # type: ignore[arg-type]  # what starlette hands to a sender

        method = scope["method"]
        path = scope["raw_path"].decode("latin-1")
        try:
            async with AsyncExitStack() as stack:
                answer = await self._answer(stack, method, path, scope, receive)
                await answer(scope, receive, send_in_time)
        except SiblingDownError as error:
            # The answer had begun. uvicorn hangs up on one that stays unfinished, and that is
            # all there is left to say.
            logger.warning("%s %s: %s", method, path, error)
        except TimeoutError:
            logger.info("%s %s: the client does not read the answer", method, path)

    async def _answer(
        self, stack: AsyncExitStack, method: str, path: str, scope: Scope, receive: Receive
    ) -> Response:
        try:
            _check_path(path)
            if method in {"GET", "HEAD"}:  # uvicorn leaves out the body of an answer to HEAD
                own = await self._own_answer(stack, path, scope)
                if own is not None:
                    return own
            return await self._forward(stack, method, path, scope, receive)
        except SiblingDownError as error:
            return refused(Refusal(503, str(error)), f"{method} {path}")
        except (Refusal, TimeoutError) as error:
            return refused(error, f"{method} {path}")

    async def _own_answer(self, stack: AsyncExitStack, path: str, scope: Scope) -> Response | None:
        path = path.rstrip("/")
        if path.startswith(("/ws/v2/", "/ws/v3/")):
            raise Refusal(426, "this is the WebSocket API: connect with a WebSocket client")
        if path == "/metrics":
            return await self._metrics(stack, [*passed_on(scope["headers"]), _who(scope)])
        if path in _ANSWERED_HERE:
            return PlainTextResponse(_ANSWERED_HERE[path])
        if path in _ASKED_OF_ALL:
            ill = await self._ill(_ASKED_OF_ALL[path])
            return reason(503, "; ".join(ill)) if ill else PlainTextResponse("ok")
        return None

    async def _forward(
        self, stack: AsyncExitStack, method: str, path: str, scope: Scope, receive: Receive
    ) -> Response:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            body = await self._bodies.read(receive)
        query = scope["query_string"].decode("ascii")
        target = f"{path}?{query}" if query else path
        headers = [*passed_on(scope["headers"]), _who(scope)]
        topic = topic_of(method, path)
        count = len(self._siblings)
        candidates = range(count) if topic is None else [self._table.worker_of(topic)]
        down: SiblingDownError | None = None
        for worker in candidates:
            try:
                exchange = await stack.enter_async_context(
                    self._siblings.exchange(worker, method, target, headers, body)
                )
            except SiblingDownError as error:
                down = error
                if not error.untouched:
                    break  # it may have been carried out, so nobody else is asked
                continue
            return _passed_on(exchange)
        raise down or Refusal(503, "there is no broker process")

    async def _metrics(self, stack: AsyncExitStack, headers: Headers) -> Response:
        """Merge what all processes have to say. One that is down is left out.

        Each looks at the caller's credential itself; who may not see one may see none.
        """
        await stack.enter_async_context(self._scrape)
        exchanges: list[Exchange] = []
        for worker in range(len(self._siblings)):
            try:
                exchange = await stack.enter_async_context(
                    self._siblings.exchange(worker, "GET", "/metrics", headers)
                )
            except SiblingDownError:
                continue
            if exchange.status in {401, 403}:
                return _passed_on(exchange)
            if exchange.status == 200:
                exchanges.append(exchange)
        if not exchanges:
            raise Refusal(503, "no broker process answers; they are probably being restarted")
        return StreamingResponse(
            merged([exchange.body() for exchange in exchanges], self._totals),
            media_type=CONTENT_TYPE,
        )

    async def _ill(self, path: str) -> list[str]:
        """Ask every process how it is; return the complaints, each once."""
        workers = range(len(self._siblings))
        complaints = await asyncio.gather(*(self._ask(worker, path) for worker in workers))
        return list(dict.fromkeys(filter(None, complaints)))

    async def _ask(self, worker: int, path: str) -> str:
        try:
            answer = await self._siblings.call(worker, "GET", path)
        except SiblingDownError as error:
            return str(error)
        return "" if answer.status == 200 else reason_in(answer.body)


def _who(scope: Scope) -> tuple[bytes, bytes]:
    """Return the header that tells a broker process who is calling."""
    host, port = scope.get("client") or ("", 0)
    name = scope.get("state", {}).get(CERTIFICATE)
    # What is not ASCII is escaped: a header has one encoding, and this is none of its.
    told = json.dumps(msgspec.to_builtins(Peer(f"{host}:{port}" if host else "", name)))
    return PEER_HEADER.encode(), told.encode("ascii")


def _check_path(path: str) -> None:
    """Refuse a path that would not survive being sent on.

    Raises:
        Refusal: 400, it has characters that a path may not have.
    """
    if not path.isascii() or not path.isprintable() or " " in path:
        raise Refusal(400, "the path has characters that must be escaped")


def _passed_on(exchange: Exchange) -> Response:
    answer = StreamingResponse(_pieces(exchange), status_code=exchange.status)
    answer.raw_headers = passed_on(exchange.headers)
    return answer


async def _pieces(exchange: Exchange) -> AsyncIterator[bytes]:
    async for piece in exchange.body():
        yield piece


def public_siblings(workers: Sequence[str]) -> Siblings:
    """Return the processes as the public port calls them."""
    return Siblings(workers, calls_max=2 * CONNECTIONS_MAX)


async def serve_forward(  # noqa: PLR0913 - what a port is made of
    sockets: Sequence[socket.socket],
    workers: Sequence[str] | Siblings,
    *,
    hosts: Collection[str] | None = (),
    secure_sockets: Sequence[socket.socket] = (),
    certificates: Certificates | None = None,
    table: Table | None = None,
) -> HttpServer:
    """Serve the public port; return once it accepts. `await ....stop()` ends it.

    Args:
        sockets: Bound sockets; they are taken over.
        workers: Path of every broker process's Unix socket, in the order of their numbers; or
            what knows them, where they may change.
        hosts: Names allowed in the Host header beside the local ones; None: any.
        secure_sockets: Bound sockets for HTTPS, taken over too.
        certificates: What HTTPS needs.
        table: Which process has which topic.
    """
    siblings = workers if isinstance(workers, Siblings) else public_siblings(workers)
    table = table or Table(Assignment.fresh(len(siblings)))
    guard = Guard(Forward(siblings, table), hosts)
    server = HttpServer(guard, Tunnels(siblings, guard, table))
    await server.start(sockets=sockets)
    if certificates is not None:
        server.start_secure(secure_sockets, certificates)
    return server
