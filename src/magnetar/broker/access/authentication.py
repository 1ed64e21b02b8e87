"""Who is calling: credentials in, a caller out, or a refusal that says nothing.

    method      data                   provider            role
    token       a signed token         tokens, issuers     a claim of it
    basic       user:password          passwords           the user
    tls         a client certificate   certificates        its common name
    none, ...   nothing we know        -                   the anonymous role, if there is one

A known method with a wrong credential is refused, also where there is an anonymous role: who
tries to log in and fails must learn that, but not at once if it happens too often (`attempts`).

A proxy logs in with a role of its own and names whom it speaks for. It must be listed as a
proxy, must name somebody, and cannot speak for another proxy; what it forwards of the client's
own credentials is verified again. The rules are Apache Pulsar's (`isValidOriginalPrincipal`),
refused names included.
"""

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple, Protocol

from magnetar.broker.access.attempts import Attempts
from magnetar.broker.access.audit import Audit
from magnetar.broker.access.caller import Caller
from magnetar.broker.access.rights import AuthenticationError
from magnetar.broker.clock import Clock
from magnetar.broker.metrics import Metrics

logger = logging.getLogger(__name__)

CREDENTIAL_BYTES_MAX = 16 * 1024
"""Of a token, or of a user's name with the password."""

REFRESH_INTERVAL_S = 5.0
"""How often keys, passwords and revocations are looked at for changes."""

ROLE_LENGTH_MAX = 1_024

NO_CREDENTIALS = frozenset({"", "none"})


class Credentials(NamedTuple):
    """What somebody shows to prove who they are."""

    method: str
    data: bytes = b""
    common_name: str | None = None
    """Of the client certificate that TLS has verified."""
    address: str = ""
    """Where it comes from: host and port."""
    original: str | None = None
    """Whom it says that it speaks for."""
    original_method: str = ""
    original_data: bytes = b""


class Provider(Protocol):
    """Knows one kind of credential."""

    async def authenticate(self, credentials: Credentials) -> Caller:
        """Return who that is.

        Raises:
            AuthenticationError: nobody, or nobody any more.
        """
        ...

    def still(self, caller: Caller) -> bool:
        """Return whether a caller that this provider made has not been revoked since."""
        ...

    async def refresh(self) -> None:
        """Look for changed files. What cannot be read any more stays as it was."""
        ...


class Authenticator:
    """All the ways to log in that are switched on."""

    def __init__(
        self,
        providers: Mapping[str, Provider],
        *,
        clock: Clock,
        metrics: Metrics,
        anonymous: str | None = None,
        proxies: Collection[str] = (),
    ) -> None:
        """Take the providers by the name of their method."""
        self._providers = providers
        self._clock = clock
        self._anonymous = anonymous
        self._proxies = frozenset(proxies)
        self._attempts = Attempts(clock)
        self.audit: Audit | None = None
        """Where refusals are noted."""
        self._refreshing: asyncio.Task[None] | None = None
        self._succeeded = metrics.counter(
            "pulsar_authentication_success_total", "Log-ins that succeeded."
        )
        self._failed = metrics.counter(
            "pulsar_authentication_failures_total", "Log-ins that were refused."
        )
        self._expired = metrics.counter(
            "pulsar_expired_token_total", "Credentials that were, or had become, too old."
        )

    @property
    def challenges(self) -> Sequence[str]:
        """How a client may log in over HTTP, as WWW-Authenticate says it."""
        words = {"token": 'Bearer realm="magnetar"', "basic": 'Basic realm="magnetar"'}
        return [words[each] for each in self._providers if each in words] or [words["token"]]

    def start(self) -> None:
        """Follow changes of files from now on."""
        self._refreshing = asyncio.get_running_loop().create_task(self._refresh())

    async def stop(self) -> None:
        """Follow no more."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            with suppress(asyncio.CancelledError):
                await self._refreshing

    async def authenticate(self, credentials: Credentials) -> Caller:
        """Return who shows these credentials.

        Raises:
            AuthenticationError: they are not good enough.
        """
        try:
            caller = await self._identify(credentials)
            caller = await self._with_original(caller, credentials)
        except AuthenticationError as error:
            self._failed.value += 1
            if isinstance(error, ExpiredError):
                self._expired.value += 1
            self._attempts.failed(credentials.address)
            if self.audit is not None:
                self.audit.refused(credentials.method, credentials.address, str(error))
            logger.info("log-in from %s refused: %s", credentials.address or "?", error)
            # Now, and not before the next attempt: others behind the same address do not suffer.
            await self._attempts.wait(credentials.address)
            raise
        self._succeeded.value += 1
        return caller

    def expired(self, caller: Caller) -> bool:
        """Return whether the credential of a caller has ended."""
        return caller.expires_ms is not None and caller.expires_ms <= self._clock.wall_ms()

    def still(self, caller: Caller) -> bool:
        """Return whether a caller may stay: neither expired nor revoked."""
        if self.expired(caller):
            self._expired.value += 1
            return False
        provider = self._providers.get(caller.method)
        return provider is None or provider.still(caller)

    async def _identify(self, credentials: Credentials) -> Caller:
        method = credentials.method
        if len(credentials.data) > CREDENTIAL_BYTES_MAX:
            raise AuthenticationError(
                f"a credential of {len(credentials.data)} bytes,"
                f" the limit is {CREDENTIAL_BYTES_MAX}"
            )
        if method in NO_CREDENTIALS and credentials.common_name and "tls" in self._providers:
            method = "tls"
        provider = self._providers.get(method)
        if provider is not None:
            caller = await provider.authenticate(credentials)
            if not 0 < len(caller.role) <= ROLE_LENGTH_MAX or not caller.role.isprintable():
                raise AuthenticationError("the credential names nobody")
            return replace(caller, address=credentials.address)
        if self._anonymous is not None:
            return Caller(self._anonymous, "anonymous", address=credentials.address)
        raise AuthenticationError(
            "log in: this broker takes " + (", ".join(self._providers) or "nobody")
        )

    async def _with_original(self, caller: Caller, credentials: Credentials) -> Caller:
        original = credentials.original or None
        if credentials.original_data and caller.role in self._proxies:
            told = credentials._replace(
                method=credentials.original_method or caller.method,
                data=credentials.original_data,
                common_name=None,
            )
            client = await self._identify(told)
            # What is shown for both is good for as long as both are.
            ends = [each for each in (caller.expires_ms, client.expires_ms) if each is not None]
            caller = replace(caller, expires_ms=min(ends, default=None))
            original = client.role
        return self.speaking_for(caller, original)

    def speaking_for(self, caller: Caller, original: str | None) -> Caller:
        """Return a caller that speaks for somebody, if it may.

        Raises:
            AuthenticationError: it is no proxy, or a proxy that speaks for nobody.
        """
        if caller.role not in self._proxies:
            if original is None or original == caller.role:
                return caller
            raise AuthenticationError("only a proxy may speak for somebody else")
        if not original or original in self._proxies:
            raise AuthenticationError("a proxy must say for whom it speaks, and not for a proxy")
        return replace(caller, original=original)

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_INTERVAL_S)
            for method, provider in self._providers.items():
                try:
                    await provider.refresh()
                except Exception:  # one that cannot look again must not keep the others from it
                    logger.exception("what %s log-in goes by could not be read again", method)


class ExpiredError(AuthenticationError):
    """The credential was good once."""
