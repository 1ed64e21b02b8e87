"""Which process owns which topic, and the address that leads a client there.

    topic ──crc32c(full name) % workers──▶ worker ──▶ its address

Every topic, or partition of one, has exactly one owner among the processes of a data
folder; nobody else appends to it. The rule needs no table and no agreement: all processes
are told the same number of workers when they start. A look-up answers with the owner's
address, so that nothing is proxied.
"""

from collections.abc import Mapping, Sequence

from crc32c import crc32c

from magnetar.broker import channel
from magnetar.broker.port import Location, NotAllowedError
from magnetar.names import TopicName

Address = channel.Address
"""Where clients reach one worker, as the supervisor says."""


def owner_of(topic: str, workers: int) -> int:
    """Return the number of the worker that owns a topic, given its full name."""
    return crc32c(topic.encode()) % workers


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
        self._addresses = addresses
        self._listeners = listeners or {}

    def worker_of(self, topic: TopicName) -> int:
        """Return the number of the worker that owns the topic."""
        return owner_of(str(topic), len(self._addresses))

    def mine(self, topic: TopicName) -> bool:
        """Return whether this worker owns the topic."""
        return self.worker_of(topic) == self.worker

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
