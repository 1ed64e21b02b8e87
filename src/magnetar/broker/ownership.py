"""Which process owns which topic, and the address that leads a client there.

    topic ──table of `assignment`──▶ worker ──▶ its address

    owned here    ──`giving`──▶ being handed over ──`learn`──▶ owned elsewhere
    owned elsewhere ──`learn`──▶ arriving ──`prepared`──▶ owned here

Every topic, or partition of one, has exactly one owner among the processes of a data folder;
nobody else appends to it. A look-up answers with the owner's address, so that nothing is
proxied. While a topic moves, which takes milliseconds, who asks for it waits.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit

from magnetar.broker import channel
from magnetar.broker.assignment import Assignment
from magnetar.broker.port import Location, NotAllowedError, ServiceNotReadyError
from magnetar.names import TopicName

Address = channel.Address
"""Where clients reach one worker, as the supervisor says."""

NOBODY = -1
"""Stands for other workers, where it does not matter which."""

SETTLE_TIMEOUT_S = 10.0
"""How long who asks for a topic waits for the end of its move."""


def owner_of(topic: str, workers: int) -> int:
    """Return the number of the worker that owns a topic, given its full name, at a first start."""
    return Assignment.fresh(workers).worker_of(topic)


class Table:
    """The assignment as one process knows it; an older one never takes the place of a newer."""

    def __init__(self, now: Assignment, version: int = 0) -> None:
        self.now = now
        self.version = version

    def worker_of(self, topic: TopicName) -> int:
        """Return the number of the worker that owns the topic."""
        return self.now.worker_of(str(topic))

    def learn(self, now: Assignment, version: int) -> bool:
        """Take a table, if it is newer; return whether it is."""
        if version <= self.version:
            return False
        self.now, self.version = now, version
        return True


class Ownership:
    """The assignment of topics to the workers of one data folder, as one of them sees it."""

    def __init__(
        self,
        worker: int,
        addresses: Sequence[Address],
        listeners: Mapping[str, Sequence[Address]] | None = None,
    ) -> None:
        """Take this worker's number and every worker's address.

        `listeners` are further addresses by name, for networks that see the machine under
        another one; each has an address per worker too.
        """
        self.worker = worker
        self.table = Table(Assignment.fresh(max(len(addresses), 1)))
        self._addresses = addresses
        self._listeners = listeners or {}
        self._before: Assignment | None = None
        """The table before topics came that are not prepared yet; None: there are none."""
        self._came = 0
        """The version of the table with which the last ones came."""
        self._after: Assignment | None = None
        """The table as it will be when what is being handed over is; None: nothing is."""
        self._settled: asyncio.Future[None] | None = None
        self.look: Callable[[], Awaitable[None]] = _nothing
        """Finds out whether the table has changed, for who was told that it must have."""

    # --- who owns what

    def worker_of(self, topic: TopicName) -> int:
        """Return the number of the worker that owns the topic."""
        return self.table.worker_of(topic)

    def mine(self, topic: TopicName) -> bool:
        """Return whether this worker owns the topic, and may serve it at this moment."""
        name, here = str(topic), self.worker
        if self.table.now.worker_of(name) != here:
            return False
        if self._after is not None and self._after.worker_of(name) != here:
            return False
        return self._before is None or self._before.worker_of(name) == here

    def location(self, topic: TopicName, listener: str | None = None) -> Location:
        """Return where the topic is served, as the given listener names it.

        Raises:
            NotAllowedError: there is no listener of that name.
        """
        addresses = self._addresses if listener is None else self._listeners.get(listener)
        if addresses is None:
            known = ", ".join(sorted(self._listeners)) or "none"
            raise NotAllowedError(f"there is no listener {listener!r}; known: {known}")
        worker = self.worker_of(topic)
        url, http_url, url_tls, http_url_tls = addresses[worker]
        return Location(
            url,
            http_url,
            here=worker == self.worker,
            url_tls=url_tls,
            http_url_tls=http_url_tls,
        )

    def worker_called(self, name: str) -> int | None:
        """Return the worker of a number, or of an address that look-ups tell; None: nobody."""
        for worker, address in enumerate(self._addresses):
            urls = (address.url, address.url_tls)
            if name in {str(worker), *urls, *(urlsplit(url).netloc for url in urls if url)}:
                return worker
        return None

    @property
    def named_listeners(self) -> bool:
        """Whether clients may know the workers under other addresses than `location` tells."""
        return bool(self._listeners)

    def meet(
        self, addresses: Sequence[Address], listeners: Mapping[str, Sequence[Address]]
    ) -> None:
        """Take the addresses of all workers there are from now on."""
        self._addresses, self._listeners = addresses, listeners

    # --- moves

    def learn(self, now: Assignment, version: int) -> bool:
        """Take a table; return whether topics have come, which wait to be `prepared`."""
        before, here = self.table.now, self.worker
        if not self.table.learn(now, version):
            return False
        if not _gains(before, now, here):
            return False
        self._came = version
        self._before = before if self._before is None else _both(self._before, before, here)
        return True

    def prepared(self, version: int) -> None:
        """Serve what has come, if nothing has come since that version."""
        if version >= self._came:
            self._before = None
            self._tell()

    @contextmanager
    def giving(self, after: Assignment) -> Iterator[None]:
        """Keep everybody from what is not ours in `after`, as long as this lasts."""
        assert self._after is None, "one move at a time"
        self._after = after
        try:
            yield
        finally:
            self._after = None
            self._tell()

    async def settled(self, topic: TopicName) -> None:
        """Return when a topic does not move, to or from here.

        Raises:
            ServiceNotReadyError: that takes too long.
        """
        if self._after is None and self._before is None:
            return
        try:
            async with asyncio.timeout(SETTLE_TIMEOUT_S):
                while self.worker_of(topic) == self.worker and not self.mine(topic):
                    if self._settled is None or self._settled.done():
                        self._settled = asyncio.get_running_loop().create_future()
                    await asyncio.shield(self._settled)
        except TimeoutError:
            raise ServiceNotReadyError(
                f"topic {topic} moves to another process; look it up again"
            ) from None

    def _tell(self) -> None:
        if self._settled is not None and not self._settled.done():
            self._settled.set_result(None)


def _gains(before: Assignment, after: Assignment, worker: int) -> bool:
    """Return whether a worker gets topics that it did not have."""
    shares = zip(before.shares, after.shares, strict=True)
    names = {*before.pins, *after.pins}
    return any(now == worker != earlier for earlier, now in shares) or any(
        after.worker_of(name) == worker != before.worker_of(name) for name in names
    )


def _both(one: Assignment, other: Assignment, worker: int) -> Assignment:
    """Return a table by which a worker has what it has by both."""
    shares = zip(one.shares, other.shares, strict=True)
    names = {*one.pins, *other.pins}
    both = {name: one.worker_of(name) == other.worker_of(name) == worker for name in names}
    return Assignment(
        shares=tuple(worker if a == b == worker else NOBODY for a, b in shares),
        pins={name: worker if has else NOBODY for name, has in both.items()},
    )


async def _nothing() -> None:
    """Stand in for `look` where the table never changes."""
