"""Who may publish to a topic at the same time: producer names and access modes.

                     nobody there   shared ones there    an exclusive one there
    shared           in             in                   busy (also while others wait)
    exclusive        in, epoch+1    fenced               fenced
    wait             in, epoch+1    waits its turn       waits its turn
    with fencing     in, epoch+1    ends them all        ends it

The topic epoch counts the exclusive producers a topic has had. A producer that comes back
shows the epoch it had; if the topic has moved on since, somebody else held it in between,
and the producer is fenced. The epoch is durable before the producer is told. As Pulsar's
PIP-68 describes it.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator

from magnetar.broker.port import (
    AccessMode,
    MetadataError,
    PortError,
    ProducerBusyError,
    ProducerFencedError,
)
from magnetar.broker.topics.producers.producer import OpenProducer

logger = logging.getLogger(__name__)

WAITING_MAX = 1_000
"""Producers that may wait for exclusive access to one topic. More is a loop that never closes."""


class Producers:
    """The producers of one topic, by name."""

    __slots__ = ("_exclusive", "_members", "_promoting", "_save_epoch", "_waiting", "epoch")

    def __init__(self, epoch: int | None, save_epoch: Callable[[int], Awaitable[None]]) -> None:
        """Take the topic epoch of last time; `save_epoch` returns once the new one is durable."""
        self.epoch = epoch
        self._save_epoch = save_epoch
        self._members: dict[str, OpenProducer] = {}
        self._exclusive: OpenProducer | None = None
        self._waiting: deque[OpenProducer] | None = None
        self._promoting: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[OpenProducer]:
        return iter(list(self._members.values()))

    @property
    def waiting(self) -> int:
        """How many producers wait for exclusive access."""
        return len(self._waiting) if self._waiting else 0

    async def add(self, producer: OpenProducer) -> None:
        """Let a producer in, or into the queue (`ready` is then False).

        Raises:
            ProducerBusyError: the name is taken, or an exclusive producer is there.
            ProducerFencedError: it asked to be the only one, and is not or no longer.
            MetadataError: the new topic epoch could not be made durable.
        """
        resumes = self._replace_namesake(producer)
        mode = producer.request.access_mode
        if mode is AccessMode.SHARED:
            self._check_shared(producer)
            self._members[producer.name] = producer
            return
        if mode is AccessMode.EXCLUSIVE_WITH_FENCING:
            self._check_epoch(producer)
            self._fence_all(producer)
        elif not resumes and (self._members or self._exclusive is not None or self._waiting):
            self._check_not_alone(producer, mode)
            self._enqueue(producer)
            return
        self._check_epoch(producer)
        self._exclusive = producer
        self._members[producer.name] = producer
        await self._raise_epoch(producer)

    def left(self, producer: OpenProducer) -> None:
        """Forget a producer that closed or was closed; whoever waits may come in."""
        if self._members.get(producer.name) is producer:
            del self._members[producer.name]
        elif self._waiting and producer in self._waiting:
            self._waiting.remove(producer)
        if self._exclusive is producer:
            self._exclusive = None
        if not self._members and self._exclusive is None and self._waiting:
            self._promote()

    def end_all(self, reason: PortError) -> None:
        """Close every producer, those that wait first, so that none of them moves up."""
        waiting, self._waiting = self._waiting, None
        for producer in waiting or ():
            producer.end(reason)
        for producer in self:
            producer.end(reason)

    def _replace_namesake(self, producer: OpenProducer) -> bool:
        """End an older connection of the same producer, without letting anyone else move up.

        Returns whether that one had the topic for itself; the new one then takes its place.
        """
        name = producer.name
        other = self._members.get(name)
        if other is None and self._waiting:
            other = next((each for each in self._waiting if each.name == name), None)
        if other is None:
            return False
        ours = other.request.owner == producer.request.owner
        if other.request.epoch >= producer.request.epoch or not ours:
            raise ProducerBusyError(f"a producer named {name!r} is connected to the topic already")
        self._members.pop(name, None)
        was_exclusive = self._exclusive is other
        if was_exclusive:
            self._exclusive = None
        if self._waiting and other in self._waiting:
            self._waiting.remove(other)
        waiting, self._waiting = self._waiting, None
        other.end(ProducerBusyError(f"producer {name!r} has connected again"))
        self._waiting = waiting
        return was_exclusive

    def _check_shared(self, producer: OpenProducer) -> None:
        if self._exclusive is not None:
            raise ProducerBusyError(
                f"the topic has an exclusive producer, {self._exclusive.name!r};"
                f" {producer.name!r} may come in when it leaves"
            )
        if self._waiting:
            raise ProducerBusyError("a producer is waiting for exclusive access to the topic")

    def _check_not_alone(self, producer: OpenProducer, mode: AccessMode) -> None:
        if mode is AccessMode.EXCLUSIVE:
            others = ", ".join(repr(name) for name in list(self._members)[:3]) or "one that waits"
            raise ProducerFencedError(
                f"{producer.name!r} asked to be the only producer; there is {others}"
            )

    def _check_epoch(self, producer: OpenProducer) -> None:
        shown = producer.request.topic_epoch
        if shown is not None and self.epoch is not None and shown < self.epoch:
            raise ProducerFencedError(
                f"the topic is at epoch {self.epoch}, {producer.name!r} belongs to epoch {shown}:"
                " another exclusive producer was here in between"
            )

    def _fence_all(self, producer: OpenProducer) -> None:
        self.end_all(ProducerFencedError(f"fenced by producer {producer.name!r}"))
        self._exclusive = None

    def _enqueue(self, producer: OpenProducer) -> None:
        if self._waiting is None:
            self._waiting = deque()
        if len(self._waiting) >= WAITING_MAX:
            raise ProducerBusyError(
                f"{WAITING_MAX} producers wait for exclusive access to the topic already"
            )
        producer.ready = False
        self._waiting.append(producer)

    async def _raise_epoch(self, producer: OpenProducer) -> None:
        shown = producer.request.topic_epoch
        if shown is not None:
            epoch = max(shown, self.epoch or 0)
        else:
            epoch = 0 if self.epoch is None else self.epoch + 1
        if epoch != self.epoch:
            # Counted before it is durable: a newcomer during the write gets a higher one.
            before, self.epoch = self.epoch, epoch
            try:
                await self._save_epoch(epoch)
            except BaseException:
                if self.epoch == epoch:
                    self.epoch = before
                producer.refuse(MetadataError("the topic epoch could not be saved"))
                raise
        if not producer.open:
            # Fenced while its epoch was being written.
            raise producer.refusal or ProducerFencedError(f"producer {producer.name!r} was closed")
        producer.topic_epoch = epoch

    def _promote(self) -> None:
        """Let the next waiting producer in."""
        while self._waiting:
            producer = self._waiting.popleft()
            try:
                self._check_epoch(producer)
            except ProducerFencedError as error:
                producer.end(error)
                continue
            self._exclusive = producer
            self._members[producer.name] = producer
            self._promoting = asyncio.get_running_loop().create_task(self._announce(producer))
            return

    async def _announce(self, producer: OpenProducer) -> None:
        try:
            await self._raise_epoch(producer)
        except PortError as error:
            producer.end(error)
        except Exception:  # whatever the store raises: the client must come again, and may
            logger.exception("producer %s could not be let in", producer.name)
            producer.end(MetadataError("the topic epoch could not be saved"))
        else:
            producer.ready = True
            if producer.topic_epoch is not None:
                producer.events.ready(producer.topic_epoch)
