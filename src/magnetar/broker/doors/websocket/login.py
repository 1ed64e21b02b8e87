"""Who opens a WebSocket, and whether they may: asked before the upgrade, and again while it lasts.

    ?token=... or Authorization ──▶ identify ──▶ caller ──▶ Access.authorize(what the address asks)
                                       │                        │
                                      401                      403
    every credential_check_s, and when permissions change: still good, still allowed, else 1008

A browser cannot add headers to a WebSocket, so Pulsar takes the token as a parameter too. How
credentials are read from headers is told by whoever builds the door: it is admin REST's way.
"""

from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import parse_qsl

import msgspec

from magnetar.broker.access.authorize import Access
from magnetar.broker.access.caller import LOCAL, Caller
from magnetar.broker.access.rights import Demand, Right, SubscriptionOf
from magnetar.broker.doors.handshake import Headers
from magnetar.broker.doors.websocket.fitting import TopicPattern
from magnetar.broker.doors.websocket.options import ConsumerOptions, Options, ProducerOptions
from magnetar.names import TopicName

Identify = Callable[[Headers], Awaitable[Caller]]
"""Returns who sends these headers, or raises an AuthenticationError."""

PEER = b"x-magnetar-peer"
"""Header with the other end of the public port, from the process that has it."""

AUTHORIZATION = b"authorization"
BEARER = "Bearer "


class _Peer(msgspec.Struct):
    address: str = "?"


def address_of(headers: Headers) -> str:
    """Return where a client is, by the word of the public port."""
    for name, value in headers:
        if name == PEER:
            return msgspec.json.decode(value, type=_Peer).address
    return "?"


def with_token(headers: Headers, query: str) -> Headers:
    """Return the headers, with the token of the query in them if they have no credential."""
    if any(name == AUTHORIZATION for name, _ in headers):
        return headers
    for name, value in parse_qsl(query, errors="replace", encoding="latin-1"):
        if name == "token":
            token = value.removeprefix(BEARER).strip()
            return [*headers, (AUTHORIZATION, f"{BEARER}{token}".encode("latin-1", "replace"))]
    return headers


def demands_of(options: Options) -> Sequence[Demand]:
    """Return what somebody must be allowed to open this."""
    if isinstance(options, ProducerOptions):
        return (Demand(Right.PRODUCE, options.topic),)
    if isinstance(options, ConsumerOptions):
        demands = [
            Demand(Right.CONSUME, SubscriptionOf(topic, options.subscription))
            for topic in options.topics
        ]
        if options.pattern is not None:
            demands += _everywhere(options.pattern, options.subscription)
        if options.dead_letter_topic is not None:
            demands.append(Demand(Right.PRODUCE, options.dead_letter_topic))
        return demands
    return (Demand(Right.CONSUME, SubscriptionOf(options.topic, options.subscription)),)


def _everywhere(pattern: TopicPattern, subscription: str) -> Sequence[Demand]:
    """Return what is demanded for whatever fits a pattern: the right on the whole namespace.

    And that to use the subscription, which is asked as of a topic, here one that cannot be.
    """
    nothing = TopicName(pattern.domain, pattern.namespace.tenant, pattern.namespace.namespace, "")
    return (
        Demand(Right.CONSUME, pattern.namespace),
        Demand(Right.CONSUME, SubscriptionOf(nothing, subscription)),
    )


class LogIn:
    """The log-in of one connection; without `access` everybody is LOCAL."""

    def __init__(self, access: Access | None, identify: Identify | None) -> None:
        self._access = access
        self._identify = identify
        self._demands: Sequence[Demand] = ()
        self.caller = LOCAL

    @property
    def carried(self) -> str:
        """The caller, for a port that passes requests on."""
        return "" if self._access is None else self.caller.to_text()

    @property
    def owner(self) -> str:
        """The role that what is opened belongs to."""
        return "" if self._access is None else self.caller.principal

    async def begin(self, headers: Headers, query: str) -> None:
        """Find out who that is.

        Raises:
            AuthenticationError: nobody knows.
        """
        if self._access is not None and self._identify is not None:
            self.caller = await self._identify(with_token(headers, query))

    async def demand(self, options: Options) -> None:
        """Return if the caller may have what it asks for.

        Raises:
            AuthorizationError: it may not.
        """
        if self._access is not None:
            self._demands = demands_of(options)
            await self._access.authorize(self.caller, self._demands)

    def complaint(self) -> str:
        """Return why the connection has to end now; empty: it may stay."""
        access = self._access
        if access is None:
            return ""
        if not access.authenticator.still(self.caller):
            return "the credential is not good any more"
        if not access.allows(self.caller, self._demands):
            return "what this connection needs is not permitted any more"
        return ""
