"""What a generator is asked to do: everything that a reader of the results needs to repeat it.

    publish   keep a window of entries in flight on every connection, count receipts
    consume   publish a backlog, then read it, and acknowledge every entry
    latency   one message at a time on a fixed schedule, time from when it was due to its receipt

It travels to the generator's process as one JSON document, on its standard input: a token must
not stand in a command line, which everybody on the machine can read.
"""

from pathlib import Path
from typing import Literal

import msgspec

from magnetar.client.credentials import Credentials

ENTRY_BYTES_MAX = 5 * 1024 * 1024 - 4096
"""What brokers take as one entry by default, and room for metadata."""
Mode = Literal["publish", "consume", "latency"]
Acknowledge = Literal["individual", "cumulative"]


class LoadError(ValueError):
    """What was asked for cannot be done. The message says why."""


class RunError(Exception):
    """A run came to no end. The message says why, `advice` what to do about it."""

    def __init__(self, message: str, advice: str = "", *, nobody_answers: bool = False) -> None:
        super().__init__(message)
        self.advice = advice
        self.nobody_answers = nobody_answers


class Where(msgspec.Struct, frozen=True, kw_only=True):
    """A cluster, and what is shown to it."""

    url: str
    token: str | None = None
    basic: str | None = None
    certificate: str | None = None
    key: str | None = None
    trust: str | None = None

    @classmethod
    def of(cls, url: str, credentials: Credentials) -> "Where":
        """Return the same, with the token as it is now."""
        texts = {
            name: str(path) if (path := getattr(credentials, name)) is not None else None
            for name in ("certificate", "key", "trust")
        }
        return cls(url=url, token=credentials.current_token(), basic=credentials.basic, **texts)

    def credentials(self) -> Credentials:
        """Return who asks."""
        paths = {
            name: Path(text) if (text := getattr(self, name)) is not None else None
            for name in ("certificate", "key", "trust")
        }
        return Credentials(token=self.token, basic=self.basic, **paths)


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """One run of the generator."""

    mode: Mode
    where: Where
    prefix: str
    """`persistent://tenant/namespace/name`; topics are called by that and a number."""
    size_bytes: int = 1024
    batch: int = 1
    """Messages per entry; 1 is unbatched."""
    connections: int = 1
    topics: int = 1
    seconds: float = 10.0
    warm_up_s: float = 1.0
    messages: int = 0
    """How many to publish or consume; 0: `publish` goes by the time."""
    window_entries: int = 4_000
    """Entries in flight per connection, as far as `window_bytes` lets them be."""
    window_bytes: int = 4 * 1024 * 1024
    rate: float = 1_000.0
    """Messages per second, for `latency`."""
    subscriptions: int = 1
    """Of every topic; each gets everything, on a connection of its own."""
    shared: bool = True
    """Shared subscriptions; else Exclusive ones."""
    acknowledge: Acknowledge = "individual"
    permits: int = 1_000
    """What a consumer asks for ahead: the clients' default."""
    silence_s: float = 30.0
    """A broker that says nothing for so long has stopped."""

    @property
    def entry_bytes(self) -> int:
        """Payload of one entry."""
        return self.size_bytes * self.batch

    @property
    def window(self) -> int:
        """Entries in flight on one connection."""
        return max(1, min(self.window_entries, self.window_bytes // max(1, self.entry_bytes)))

    def topic(self, number: int) -> str:
        """Return the name of one of the topics."""
        return f"{self.prefix}-{number}"

    def check(self) -> None:
        """Refuse what cannot be done.

        Raises:
            LoadError: two settings contradict each other.
        """
        if self.entry_bytes > ENTRY_BYTES_MAX:
            raise LoadError(
                f"{self.batch} messages of {self.size_bytes} bytes are one entry of"
                f" {self.entry_bytes:,}, and brokers take {ENTRY_BYTES_MAX:,}"
            )
        if self.mode == "consume" and self.messages < self.batch * self.topics:
            raise LoadError(
                f"{self.messages:,} messages do not fill one entry of {self.batch} on each of"
                f" {self.topics:,} topics"
            )
        if self.shared and self.acknowledge == "cumulative":
            raise LoadError("Shared subscriptions cannot be acknowledged cumulatively")
