"""Who makes an HTTP call, and whether they may.

    public port ──▶ x-magnetar-peer: address, certificate ──▶ the process that answers
                    Authorization: Bearer ..., Basic ...        ├─▶ Authenticator ──▶ caller
    sibling     ──▶ x-magnetar-caller: in whose name  ─────────┘
                                                       caller + route ──▶ Access.authorize

Callers are identified where the call is answered: the supervisor, which owns the public port,
only passes on what it was shown. A process that passes a call on to a sibling says in whose
name, and the sibling judges by the same table: nobody is lent the rights of the broker. Both
headers are taken because only the broker itself can open the Unix sockets they come over; the
public port drops them from what clients send.
"""

from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Awaitable, Callable, Sequence

import msgspec
from starlette.datastructures import Headers
from starlette.responses import Response

from magnetar.broker.access.authentication import Credentials
from magnetar.broker.access.authorize import Access
from magnetar.broker.access.caller import Caller, caller_from_text
from magnetar.broker.access.rights import AuthenticationError
from magnetar.broker.doors.admin.errors import reason
from magnetar.broker.doors.admin.http.siblings import CALLER_HEADER, PEER_HEADER, Peer

ORIGINAL_HEADER = "x-original-principal"
"""Pulsar's name for whom a proxy speaks for."""


async def caller_of(headers: Headers, access: Access) -> Caller:
    """Return who makes a call.

    Raises:
        AuthenticationError: they do not say, or cannot prove it.
    """
    named = headers.get(CALLER_HEADER)
    if named is not None:
        return caller_from_text(named)
    return await access.authenticator.authenticate(credentials_of(headers))


def identification(
    access: Access,
) -> Callable[[Sequence[tuple[bytes, bytes]]], Awaitable[Caller]]:
    """Return what tells from raw headers who sends them, for a door that is no app."""

    async def identify(headers: Sequence[tuple[bytes, bytes]]) -> Caller:
        return await caller_of(Headers(raw=list(headers)), access)

    return identify


def credentials_of(headers: Headers) -> Credentials:
    """Return what a call shows to prove who makes it.

    Raises:
        AuthenticationError: it is unreadable.
    """
    peer = Peer()
    if (told := headers.get(PEER_HEADER)) is not None:
        peer = msgspec.json.decode(told, type=Peer)
    method, data = _authorization(headers)
    return Credentials(
        method,
        data,
        common_name=peer.common_name,
        address=peer.address,
        original=headers.get(ORIGINAL_HEADER),
    )


def _authorization(headers: Headers) -> tuple[str, bytes]:
    shown = headers.getlist("authorization")
    if not shown:
        return "", b""
    if len(shown) > 1:
        raise AuthenticationError(f"{len(shown)} Authorization headers, expected one")
    scheme, _, value = shown[0].strip().partition(" ")
    match scheme.lower():
        case "bearer":
            return "token", value.strip().encode("latin-1")
        case "basic":
            try:
                return "basic", b64decode(value.strip(), validate=True)
            except (Base64Error, ValueError):
                raise AuthenticationError("Authorization: Basic is not base64") from None
        case _:
            raise AuthenticationError("Authorization: expected Bearer or Basic")


def unauthorized(error: AuthenticationError, challenges: Sequence[str]) -> Response:
    """Return 401, and how a caller may log in."""
    answer = reason(401, str(error))
    for each in challenges:
        answer.headers.append("WWW-Authenticate", each)
    return answer
