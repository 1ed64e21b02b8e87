"""Who is calling. A value: made once at log-in, asked again and again.

    client ──────────────────────▶ role
    client ──▶ proxy ────────────▶ role of the proxy + original, the client it speaks for
    broker process ──▶ sibling ──▶ BROKER, or the caller it answers for

With log-in off everybody is LOCAL, and nobody asks what they may do.
"""

import json
from contextvars import ContextVar
from dataclasses import dataclass

import msgspec

BROKER_METHOD = "magnetar-sibling"
"""How BROKER is told from everybody else. No way to log in has this name."""


@dataclass(frozen=True, slots=True)
class Caller:
    """One logged-in client."""

    role: str
    method: str = ""
    """How it proved that: `token`, `basic`, `tls`, `anonymous`, ..."""
    original: str | None = None
    """Whom it speaks for, if it is a proxy. Both must be allowed what is asked."""
    expires_ms: int | None = None
    """When its credential ends, as milliseconds since 1970; None: it does not."""
    token_id: str | None = None
    """What its credential is called, so that it can be revoked."""
    address: str = ""
    """Where it calls from: host and port."""

    @property
    def names(self) -> tuple[str, ...]:
        """Every role that must be allowed what is asked."""
        return (self.role,) if self.original is None else (self.role, self.original)

    @property
    def principal(self) -> str:
        """The role that this is done for in the end."""
        return self.role if self.original is None else self.original

    @property
    def broker(self) -> bool:
        """Whether it is a broker process of this data folder, on its own behalf."""
        return self.method == BROKER_METHOD

    def __str__(self) -> str:
        return self.role if self.original is None else f"{self.original} by {self.role}"

    def to_text(self) -> str:
        """Return what a sibling has to know of this caller, as ASCII, fit for a header."""
        told = [self.role, self.method, self.original, self.expires_ms, self.address]
        return json.dumps(told, separators=(",", ":"))


def caller_from_text(text: str | bytes) -> Caller:
    """Read what `Caller.to_text` wrote.

    Raises:
        ValueError: it is not that.
    """
    told: tuple[str, str, str | None, int | None, str] = msgspec.json.decode(
        text, type=tuple[str, str, str | None, int | None, str]
    )
    role, method, original, expires_ms, address = told
    return Caller(role, method, original, expires_ms, None, address)


LOCAL = Caller("local", "none")
"""Everybody, while log-in is off."""

NOBODY = Caller("", "none")
"""Somebody who has not logged in, and may do nothing that needs it."""

BROKER = Caller("broker", BROKER_METHOD)
"""A broker process on its own behalf."""

CALLER: ContextVar[Caller] = ContextVar("caller", default=LOCAL)
"""In whose name this task works. Calls to sibling processes are made in the same name."""
