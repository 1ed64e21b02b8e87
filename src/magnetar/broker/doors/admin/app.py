"""The admin app of one broker process: finds the handler, calls it, prints what it says.

    Unix socket ──▶ HttpServer ──▶ AdminApp ──▶ Routes.find ──▶ handler(call) ──▶ Response
                                      ▲                            │ raises
                                      └──────── errors.refused ◀───┘

The table is put together here from those of the nouns. A handler may take at most
HANDLER_TIMEOUT_S; nothing holds the event loop for long, because whatever grows with the
number of topics is rendered in slices.
"""

import asyncio
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from magnetar.broker.access.caller import CALLER, LOCAL, NOBODY, Caller
from magnetar.broker.access.rights import AuthenticationError
from magnetar.broker.doors.admin.call import Call
from magnetar.broker.doors.admin.changes import is_change, noted
from magnetar.broker.doors.admin.context import Context
from magnetar.broker.doors.admin.errors import STATUS, Refusal, refused
from magnetar.broker.doors.admin.http.guard import read_body
from magnetar.broker.doors.admin.http.server import HttpServer
from magnetar.broker.doors.admin.http.siblings import SiblingDownError
from magnetar.broker.doors.admin.login import caller_of, unauthorized
from magnetar.broker.doors.admin.openapi import describing
from magnetar.broker.doors.admin.resources import (
    backlogs,
    bookies,
    broker_stats,
    brokers,
    clusters,
    compaction,
    isolation,
    lookup,
    messages,
    metrics,
    namespaces,
    partitions,
    permissions,
    policies,
    processes,
    quotas,
    ranges,
    resource_groups,
    schemas,
    settings,
    subscriptions,
    tenants,
    topics,
    transactions,
)
from magnetar.broker.doors.admin.routes import Match, Right, Route, Routes, demand_of
from magnetar.broker.doors.handshake import Upgrades
from magnetar.broker.topics.topic import TopicBusyError

HANDLER_TIMEOUT_S = 55.0
"""Below what callers wait for us, so that they learn the reason."""

Handler = Callable[[Call], Awaitable[Response]]

NOUNS = (
    backlogs,
    bookies,
    broker_stats,
    brokers,
    clusters,
    compaction,
    isolation,
    lookup,
    messages,
    metrics,
    namespaces,
    partitions,
    permissions,
    policies,
    processes,
    quotas,
    ranges,
    resource_groups,
    schemas,
    settings,
    subscriptions,
    tenants,
    topics,
    transactions,
)


_NAMED: list[Route[Handler]] = [route for noun in NOUNS for route in noun.ROUTES]
TABLE: list[Route[Handler]] = [*_NAMED, *describing(_NAMED)]
"""Every call there is."""

_STATUS = STATUS | {TopicBusyError: 409, SiblingDownError: 503}
"""The table, with the rows for what only a process that serves topics can raise."""


class AdminApp:
    """Answers admin REST for the topics of one process, and for what all processes share."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._routes: Routes[Handler] = Routes(TABLE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        response = await self._respond(Request(scope, receive))
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        # uvicorn leaves out the body of an answer to HEAD; everything else is as for GET.
        method = "GET" if request.method == "HEAD" else request.method
        path = request.scope["raw_path"].decode("latin-1")
        try:
            match, caller = await self._admit(request, method, path)
            async with asyncio.timeout(HANDLER_TIMEOUT_S):
                body = await read_body(request.receive)
                call = Call(request, match.parameters, body, self._context, caller)
                access = self._context.access
                if access and access.audit and is_change(call, method, match.right):
                    return await noted(access.audit, call, method, match.handler)
                return await match.handler(call)
        except AuthenticationError as error:
            access = self._context.access
            return unauthorized(error, access.authenticator.challenges if access else ())
        except Exception as error:  # noqa: BLE001 - what is in no row of the table is logged there
            return refused(error, f"{method} {path}", _STATUS)

    async def _admit(
        self, request: Request, method: str, path: str
    ) -> tuple[Match[Handler], Caller]:
        """Return what answers a call, and who makes it, if they may.

        Raises:
            Refusal: nothing answers it. Only who has logged in learns that.
            AuthenticationError: nobody knows who calls.
            AuthorizationError: the caller may not.
        """
        access = self._context.access
        if access is None:
            return self._routes.find(method, path), LOCAL
        try:
            match = self._routes.find(method, path)
        except Refusal:
            await caller_of(request.headers, access)
            raise
        if match.right is Right.OPEN:
            return match, NOBODY
        caller = await caller_of(request.headers, access)
        await access.authorize(caller, (demand_of(match),))
        CALLER.set(caller)
        return match, caller


async def serve_admin(
    context: Context, uds_path: str, upgrades: Upgrades | None = None
) -> HttpServer:
    """Serve admin REST on a Unix socket; return once it accepts. `await ....stop()` ends it.

    WebSocket connections go to `upgrades`, which is stopped with it.
    """
    server = HttpServer(AdminApp(context), upgrades)
    await server.start(uds_path=uds_path)
    return server
