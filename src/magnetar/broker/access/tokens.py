"""Signed tokens (JWT): a role, for a while, by whoever has the key.

    header.payload.signature      {"alg": "HS256", "kid": "2026"} . {"sub": "role", "exp": ...}

    the keys whose id is the token's "kid", or else all ──▶ signature, by an algorithm of the key
    exp, nbf, aud (if one is asked for)                 ──▶ valid now, and for us
    jti, role                                           ──▶ not revoked
    the claim that names the role                       ──▶ Caller

A token whose issuer (`iss`) is one that we trust to publish its own keys goes to `issuers`.
Source: RFC 7519; Apache Pulsar's AuthenticationProviderToken for claim and audience.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from magnetar.broker.access.authentication import Credentials, ExpiredError
from magnetar.broker.access.caller import Caller
from magnetar.broker.access.issuers import Issuers
from magnetar.broker.access.keys import Key
from magnetar.broker.access.revocations import Revocations
from magnetar.broker.access.rights import AuthenticationError
from magnetar.broker.clock import Clock


class Tokens:
    """Logs in by token."""

    def __init__(  # noqa: PLR0913 - what is asked of a token
        self,
        load_keys: Callable[[], Sequence[Key]],
        *,
        clock: Clock,
        claim: str = "sub",
        audience: str = "",
        audience_claim: str = "aud",
        revocations: Revocations | None = None,
        issuers: Issuers | None = None,
    ) -> None:
        """Take what reads the keys; it is called again now and then.

        Raises:
            ConfigError: they cannot be read.
        """
        import jwt  # noqa: F401, PLC0415 - now: it takes 80 ms, and the first client need not wait

        self._load_keys = load_keys
        self._keys = load_keys()
        self._clock = clock
        self._claim = claim
        self._audience = audience
        self._audience_claim = audience_claim
        self._revocations = revocations
        self._issuers = issuers

    async def authenticate(self, credentials: Credentials) -> Caller:
        """Return whose token it is.

        Raises:
            AuthenticationError: it is not good.
        """
        try:
            token = credentials.data.decode("ascii").strip()
        except UnicodeDecodeError:
            raise AuthenticationError("the token is malformed") from None
        if not token:
            raise AuthenticationError("there is no token")
        keys, issuer = self._keys, None
        if self._issuers is not None:
            issuer = self._issuers.of(token)
        if issuer is not None and self._issuers is not None:
            keys = await self._issuers.keys(issuer, token)
            caller = self._caller(
                verified(
                    token, keys, self._clock, issuer=issuer, audiences=self._issuers.audiences
                ),
                self._issuers.claim,
            )
        else:
            caller = self._caller(self._verified(token, keys), self._claim)
        if self._revocations is not None and self._revocations.has(caller):
            raise AuthenticationError("the token has been revoked")
        return caller

    def still(self, caller: Caller) -> bool:
        """Return whether a caller has not been revoked."""
        return self._revocations is None or not self._revocations.has(caller)

    async def refresh(self) -> None:
        """Read the keys and the revocations again."""
        if self._revocations is not None:
            await self._revocations.refresh()
        self._keys = await asyncio.to_thread(self._load_keys)

    def _verified(self, token: str, keys: Sequence[Key]) -> Mapping[str, Any]:
        claims = verified(token, keys, self._clock)
        if self._audience:
            told = claims.get(self._audience_claim)
            if self._audience not in (told if isinstance(told, list) else [told]):
                raise AuthenticationError("the token is for another audience")
        return claims

    def _caller(self, claims: Mapping[str, Any], claim: str) -> Caller:
        role = claims.get(claim)
        if isinstance(role, list) and role:
            role = role[0]
        if not isinstance(role, str) or not role:
            raise AuthenticationError(f"the token has no claim {claim!r} that names a role")
        token_id, expires = claims.get("jti"), claims.get("exp")
        return Caller(
            role,
            "token",
            expires_ms=None if expires is None else int(expires * 1000),
            token_id=token_id if isinstance(token_id, str) else None,
        )


def verified(
    token: str,
    keys: Sequence[Key],
    clock: Clock,
    *,
    issuer: str | None = None,
    audiences: Sequence[str] = (),
) -> Mapping[str, Any]:
    """Return what a token claims, if one of the keys signed it and it is valid now.

    Raises:
        ExpiredError: it was good once.
        AuthenticationError: it is not good. No message quotes the token.
    """
    import jwt  # noqa: PLC0415 - only with log-in

    try:
        key_id = jwt.get_unverified_header(token).get("kid")
    except jwt.InvalidTokenError:
        raise AuthenticationError("the token is malformed") from None
    named = [key for key in keys if key.id is not None and key.id == key_id]
    options: Any = {"verify_exp": False, "verify_nbf": False, "verify_iat": False}
    options |= {"verify_aud": bool(audiences), "verify_sub": False, "verify_jti": False}
    for key in named or keys:
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key.key,
                algorithms=list(key.algorithms),
                audience=list(audiences) or None,
                issuer=issuer,
                options=options,
            )
        except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError, jwt.InvalidKeyError):
            continue
        except jwt.InvalidAudienceError:
            raise AuthenticationError("the token is for another audience") from None
        except (jwt.InvalidTokenError, ValueError, TypeError):
            raise AuthenticationError("the token is malformed") from None
        _check_times(claims, clock.wall_ms() / 1000)
        return claims
    raise AuthenticationError("no key of this broker has signed the token")


def _check_times(claims: Mapping[str, Any], now_s: float) -> None:
    for name in ("exp", "nbf"):
        value = claims.get(name)
        if value is None:
            continue
        # True is an int to Python, and NaN compares as never over.
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**53:
            raise AuthenticationError(f"the token's {name} is no time")
    if claims.get("exp") is not None and claims["exp"] <= now_s:
        raise ExpiredError("the token has expired")
    if claims.get("nbf") is not None and claims["nbf"] > now_s:
        raise AuthenticationError("the token is not valid yet")
