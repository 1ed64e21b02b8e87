"""How often somebody may fail to log in, and what they have under way, by where they come from.

    FAILURES_PER_MINUTE_MAX in a minute ──▶ every further failure is told only after DELAY_S

As a connection that has not logged in holds one of few places meanwhile, that bounds how many
guesses there are in a second. A success is told at once: whoever shares an address with somebody
who fails, behind a gateway or on the same machine, must not be slowed down by it.
Looked to: what sshd does between passwords.
"""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network

from magnetar.broker.clock import Clock

FAILURES_PER_MINUTE_MAX = 10
DELAY_S = 2.0
"""Below what a connection has to introduce itself, so that a late success is still possible."""
SOURCES_MAX = 10_000
"""Sources remembered. Who was quiet the longest is forgotten first."""
MINUTE_S = 60.0


class Attempts:
    """The failures of the last minute."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def delay_s(self, address: str) -> float:
        """Return how long a failure from there is kept back."""
        failures = self._failures.get(host_of(address))
        if failures is None:
            return 0.0
        since = self._clock.monotonic() - MINUTE_S
        while failures and failures[0] < since:
            failures.popleft()
        return DELAY_S if len(failures) >= FAILURES_PER_MINUTE_MAX else 0.0

    async def wait(self, address: str) -> None:
        """Wait as long as a failure from there is kept back."""
        if delay := self.delay_s(address):
            await asyncio.sleep(delay)

    def failed(self, address: str) -> None:
        """Count a failure."""
        source = host_of(address)
        failures = self._failures.setdefault(source, deque(maxlen=FAILURES_PER_MINUTE_MAX))
        failures.append(self._clock.monotonic())
        self._failures.move_to_end(source)
        if len(self._failures) > SOURCES_MAX:
            self._failures.popitem(last=False)


class UnderWay(Counter[str]):
    """How much of something each host has under way; nothing is kept of one that has none."""

    @contextmanager
    def counted(self, host: str) -> Iterator[None]:
        """Count one more of a host, for as long as it lasts."""
        self[host] += 1
        try:
            yield
        finally:
            self[host] -= 1
            if not self[host]:
                del self[host]


@lru_cache(maxsize=4096)
def host_of(address: str) -> str:
    """Return whom an address counts for: its host, or with IPv6 the /64 that one host may have."""
    host = address.rpartition(":")[0] or address
    if ":" not in host:
        return host
    try:
        found = IPv6Address(host.partition("%")[0].strip("[]"))
    except ValueError:
        return host
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(found) if found.is_loopback else str(IPv6Network((found, 64), strict=False))
