"""Tokens of an OpenID Connect issuer (OAuth 2.0): verified with the keys that it publishes.

    token "iss" ──▶ one of ours? ──▶ GET <issuer>/.well-known/openid-configuration
                                        └─ "jwks_uri" ──▶ GET ──▶ keys, kept KEYS_S

A token with a key id that is not known makes us look once more, at most every RETRY_S: issuers
change keys. Only the issuers in the settings are ever asked, over HTTPS, or plain HTTP to this
machine; redirects are not followed, answers are bounded in size and time, and whatever is not an
RSA or elliptic-curve signing key is left out. While an issuer cannot be reached, the keys last
seen from it go on working for KEYS_KEPT_S, and nobody waits for it whose key is known.
Source: OpenID Connect Discovery 1.0; RFC 7517; Apache Pulsar's AuthenticationProviderOpenID.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPException
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import msgspec

from magnetar.broker.access.keys import RSA_ALGORITHMS, RSA_BITS_MIN, Key
from magnetar.broker.access.rights import AuthenticationError
from magnetar.broker.clock import Clock
from magnetar.broker.config import KIB, ConfigError

logger = logging.getLogger(__name__)

KEYS_S = 300.0
"""How long published keys are taken for the newest."""
UNASKED_S_MAX = 2 * KEYS_S
"""How long they are used without asking first, while new ones are fetched."""
KEYS_KEPT_S = 24 * 3600.0
"""How long they are used while the issuer does not answer."""
RETRY_S = 10.0
"""How long to wait before an issuer is asked again that failed, or did not know a key."""
TIMEOUT_S = 4.0
"""For one answer of an issuer, and within it for each piece."""
THREADS_MAX = 4
"""For issuers that do not answer: they must not use up those of everybody."""
ANSWER_BYTES_MAX = 512 * KIB
KEYS_MAX = 100

_CURVES = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}


class _KeySet(msgspec.Struct):
    """What `jwks_uri` leads to."""

    keys: list[Any]


Fetch = Callable[[str], bytes]


@dataclass(slots=True)
class Issuer:
    """One issuer, and the keys it was last seen to publish."""

    url: str
    keys: Sequence[Key] = ()
    fetched_s: float = float("-inf")
    tried_s: float = float("-inf")
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    looking: asyncio.Task[None] | None = None
    """Fetches new keys while the old ones are used."""


class Issuers:
    """The issuers whose tokens are taken."""

    def __init__(
        self,
        urls: Sequence[str],
        audiences: Sequence[str],
        clock: Clock,
        *,
        claim: str = "sub",
        fetch: Fetch | None = None,
    ) -> None:
        """Take the issuers' addresses, and the audiences of which a token must name one.

        Raises:
            ConfigError: an address is neither HTTPS nor on this machine, or there is no audience.
        """
        if not audiences:
            raise ConfigError(
                "oidc_audiences is empty: an issuer's tokens for other services would be taken"
            )
        self.audiences = list(audiences)
        self.claim = claim
        self._clock = clock
        self._fetch = fetch or fetch_json
        self._issuers = {url: Issuer(check_url("oidc_issuers", url)) for url in urls}
        self._threads = ThreadPoolExecutor(max(1, min(len(urls), THREADS_MAX)), "issuers")

    def of(self, token: str) -> str | None:
        """Return the issuer that a token names, if it is one of ours. Nothing is verified yet."""
        import jwt  # noqa: PLC0415 - only with log-in

        try:
            claims = jwt.decode(token, options={"verify_signature": False})
        except jwt.InvalidTokenError:
            return None
        named = claims.get("iss")
        return named if isinstance(named, str) and named in self._issuers else None

    async def keys(self, name: str, token: str) -> Sequence[Key]:
        """Return the keys that an issuer publishes.

        Raises:
            AuthenticationError: it does not answer, and has not for long.
        """
        import jwt  # noqa: PLC0415 - only with log-in

        issuer = self._issuers[name]
        key_id = jwt.get_unverified_header(token).get("kid")
        known = self._usable(issuer) and any(key.id == key_id for key in issuer.keys)
        # After a long silence a key may have been withdrawn long ago, so that is looked at first.
        if known and self._clock.monotonic() - issuer.tried_s <= UNASKED_S_MAX:
            if self._stale(issuer, key_id) and issuer.looking is None:
                issuer.looking = asyncio.get_running_loop().create_task(self._look_aside(issuer))
            return issuer.keys
        async with issuer.lock:  # everybody who needs them waits for one fetch
            if self._stale(issuer, key_id):
                await self._look(issuer)
        if not self._usable(issuer):
            raise AuthenticationError("the issuer of the token cannot be reached; try again")
        return issuer.keys

    def _usable(self, issuer: Issuer) -> bool:
        return bool(issuer.keys) and self._clock.monotonic() - issuer.fetched_s <= KEYS_KEPT_S

    async def _look_aside(self, issuer: Issuer) -> None:
        try:
            async with issuer.lock:
                await self._look(issuer)
        finally:
            issuer.looking = None

    def _stale(self, issuer: Issuer, key_id: object) -> bool:
        now = self._clock.monotonic()
        if now - issuer.tried_s < RETRY_S:
            return False
        return now - issuer.fetched_s > KEYS_S or all(key.id != key_id for key in issuer.keys)

    async def _look(self, issuer: Issuer) -> None:
        issuer.tried_s = self._clock.monotonic()
        try:
            loop = asyncio.get_running_loop()
            issuer.keys = await loop.run_in_executor(self._threads, self._published, issuer.url)
        except (OSError, ValueError, HTTPException) as error:
            logger.warning("the keys of %s cannot be read: %s", issuer.url, error)
            return
        issuer.fetched_s = self._clock.monotonic()

    def _published(self, issuer: str) -> list[Key]:
        place = issuer.rstrip("/") + "/.well-known/openid-configuration"
        told: dict[str, Any] = msgspec.json.decode(self._fetch(place), type=dict[str, Any])
        if told.get("issuer") != issuer:
            raise ValueError("its configuration is another issuer's")
        url = check_url("jwks_uri", str(told.get("jwks_uri")))
        listed = msgspec.json.decode(self._fetch(url), type=_KeySet).keys
        keys = [key for each in listed[:KEYS_MAX] if (key := published_key(each)) is not None]
        if not keys:
            raise ValueError("it publishes no key that tokens may be signed with")
        return keys


def published_key(told: object) -> Key | None:
    """Return a key from its JSON form; None: it is not one to verify tokens with."""
    import jwt  # noqa: PLC0415 - only with log-in

    if not isinstance(told, dict) or told.get("use", "sig") != "sig":
        return None
    kind = told.get("kty")
    algorithms: Sequence[str] = ()
    if kind == "RSA":
        algorithms = RSA_ALGORITHMS
    elif kind == "EC" and told.get("crv") in _CURVES:
        algorithms = (_CURVES[told["crv"]],)
    if "alg" in told:
        algorithms = [each for each in algorithms if each == told["alg"]]
    if not algorithms:
        return None
    try:
        key = jwt.PyJWK(told, algorithm=algorithms[0]).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
    if hasattr(key, "private_numbers"):  # published by mistake; whoever has it can be anybody
        return None
    if kind == "RSA" and key.key_size < RSA_BITS_MIN:
        return None
    key_id = told.get("kid")
    return Key(key_id if isinstance(key_id, str) else None, key, algorithms)


def check_url(setting: str, url: str) -> str:
    """Return an address that may be asked for keys.

    Raises:
        ConfigError: it is neither HTTPS nor on this machine.
    """
    parts = urlsplit(url)
    if parts.hostname and not parts.username:
        if parts.scheme == "https":
            return url
        if parts.scheme == "http" and _is_loopback(parts.hostname):
            return url
    raise ConfigError(f"{setting}: {url[:200]!r}: expected https://, or http:// on this machine")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def fetch_json(url: str) -> bytes:
    """Return what an address answers. Blocks; TLS certificates are verified.

    Raises:
        OSError: it does not answer, or not with 200.
        ValueError: the answer is too long.
    """
    from urllib.request import (  # noqa: PLC0415 - only with issuers
        HTTPRedirectHandler,
        Request,
        build_opener,
    )

    class NoRedirects(HTTPRedirectHandler):
        """Leaves a redirect unanswered, which makes it an error: it may lead anywhere."""

        def redirect_request(self, *_: Any, **__: Any) -> Request | None:
            return None

    request = Request(url, headers={"Accept": "application/json"})  # noqa: S310 - see `check_url`
    until = time.monotonic() + TIMEOUT_S  # noqa: TID251 - waits for another process
    body = bytearray()
    with build_opener(NoRedirects()).open(request, timeout=TIMEOUT_S) as answer:
        while piece := answer.read1(ANSWER_BYTES_MAX):
            body += piece
            if len(body) > ANSWER_BYTES_MAX:
                raise ValueError(f"an answer of more than {ANSWER_BYTES_MAX} bytes")
            if time.monotonic() > until:  # noqa: TID251
                raise TimeoutError(f"no whole answer within {TIMEOUT_S:g} s")
    return bytes(body)
