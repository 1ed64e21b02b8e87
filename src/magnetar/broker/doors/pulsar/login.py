"""One client's log-in: how it begins, how it is renewed, and when it is over.

    CONNECT ──▶ credentials ──▶ caller ──▶ CONNECTED
                     └─▶ ERROR AuthenticationError, close

    every credential_check_s:
        still good ─────────────────────────────────────────────▶ nothing
        over ──client can refresh──▶ AUTH_CHALLENGE ──▶ AUTH_RESPONSE ──▶ the same role: goes on
          │                               └─ nothing by the next check ─┐  another: close
          └──client cannot─────────────────────────────────────────────▶ close

A token that ends is therefore noticed within one interval, and its connection is closed within
the next. A revoked one is not asked for a successor. Source: Apache Pulsar's ServerCnx, and
its AuthData for the challenge: clients know it by its text.
"""

from dataclasses import replace
from enum import Enum, auto

from magnetar.broker.access.authentication import Authenticator, Credentials
from magnetar.broker.access.caller import Caller, caller_from_text
from magnetar.broker.access.rights import AuthenticationError
from magnetar.broker.wire.pulsar.client_role import CALLER_KEY
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api

REFRESH = b"PulsarAuthRefresh"
"""What a challenge for fresh credentials says."""

_METHODS = {api.AuthMethodNone: "", api.AuthMethodYcaV1: "", api.AuthMethodAthens: "athenz"}
"""How clients before protocol version 4 name their method."""


class Verdict(Enum):
    """What is to be done about a connection after its credential was looked at."""

    GOOD = auto()
    CHALLENGE = auto()
    CLOSE = auto()


class LogIn:
    """The log-in of one connection."""

    __slots__ = ("_authenticator", "_can_refresh", "_challenged", "_shown", "method")

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator
        self._shown = Credentials("")
        self._can_refresh = False
        self._challenged = False
        self.method = ""
        """How the client logs in, by its own word."""

    async def begin(
        self, connect: api.CommandConnect, address: str, certificate: str | None
    ) -> Caller:
        """Return who sends CONNECT.

        Raises:
            AuthenticationError: nobody knows.
        """
        self._can_refresh = connect.feature_flags.supports_auth_refresh
        self.method = connect.auth_method_name or _METHODS.get(connect.auth_method, "")
        self._shown = Credentials(
            self.method,
            connect.auth_data,
            common_name=certificate,
            address=address,
            original=connect.original_principal or None,
            original_method=connect.original_auth_method,
            original_data=connect.original_auth_data.encode(),
        )
        caller = await self._authenticator.authenticate(self._shown)
        self._shown = self._shown._replace(data=b"", original_data=b"")
        return caller

    async def renew(self, response: api.CommandAuthResponse, caller: Caller) -> Caller:
        """Return the caller with its fresh credential.

        Raises:
            AuthenticationError: it is not good, or somebody else's.
        """
        shown = self._shown._replace(
            method=response.response.auth_method_name or self.method,
            data=response.response.auth_data,
        )
        renewed = await self._authenticator.authenticate(shown)
        if renewed.names != caller.names:
            raise AuthenticationError("the fresh credential is another role's")
        self._challenged = False
        return renewed

    def look(self, caller: Caller) -> Verdict:
        """Return what is to be done about the connection now."""
        if not self._challenged and self._authenticator.still(caller):
            return Verdict.GOOD
        if self._challenged or not self._can_refresh or not self._authenticator.expired(caller):
            return Verdict.CLOSE
        self._challenged = True
        return Verdict.CHALLENGE

    def speaking(self, caller: Caller, original: str) -> Caller:
        """Return the caller of one command that says for whom it is asked.

        Raises:
            AuthenticationError: the client may not speak for others.
        """
        return self._authenticator.speaking_for(replace(caller, original=None), original)


def original_principal(command: api.BaseCommand) -> str:
    """Return for whom a command says that it is asked; empty: it does not say."""
    match command.type:
        case api.BaseCommand.LOOKUP:
            return command.lookupTopic.original_principal
        case api.BaseCommand.PARTITIONED_METADATA:
            return command.partitionMetadata.original_principal
        case _:
            return ""


def carried(command: api.BaseCommand) -> Caller | None:
    """Take from a sibling's command in whose name it is sent; None: in the broker's own."""
    match command.type:
        case api.BaseCommand.PRODUCER:
            metadata = command.producer.metadata
        case api.BaseCommand.SUBSCRIBE:
            metadata = command.subscribe.metadata
        case _:
            return None
    for index, each in enumerate(metadata):
        if each.key == CALLER_KEY:
            caller = caller_from_text(each.value)
            del metadata[index]
            return caller
    return None
