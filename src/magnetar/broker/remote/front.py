"""What a door sees when there are several processes: every topic, whoever owns it.

    topic ──mine?──▶ yes: the log of this process
                     no:  remote, by the wire to its owner

    run ──▶ no producer elsewhere (nearly always): passed straight on
            some: rows of topics here │ rows of topics elsewhere, each in their order

Where names are concerned (look-ups, partitions, lists), and schemas, every process knows the same
facts, so those questions are never passed on. Looked-up clients come to the owner itself; who comes
elsewhere, because only one port can be reached or because it insists, is served all the same.

A topic may move while it is asked for. Who asks waits then; and who is told by the process that
was taken for the owner that it is not, looks who is, and tries there. What comes from a sibling is
never passed on again: two processes that know different things must not send it back and forth.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import NoReturn, Protocol, TypeVar

from magnetar.broker.port import (
    Consumer,
    ConsumerEvents,
    ListMode,
    Location,
    Port,
    Producer,
    ProducerEvents,
    ProducerRequest,
    PublishDone,
    Schema,
    ServiceNotReadyError,
    SubscribeRequest,
    TopicNews,
    VersionedSchema,
)
from magnetar.broker.remote.producer import RemoteProducer
from magnetar.broker.remote.remote import Remote
from magnetar.broker.run import PRODUCER, Run
from magnetar.names import NamespaceName, TopicName

T = TypeVar("T")

ROUTES_MAX = 4
"""Times that it is tried where a topic is said to be, because it moved meanwhile."""


class Ownership(Protocol):
    """Which process serves which topic."""

    @property
    def look(self) -> Callable[[], Awaitable[None]]:
        """Finds out whether a topic was moved."""
        ...

    def mine(self, topic: TopicName) -> bool: ...
    def worker_of(self, topic: TopicName) -> int: ...

    async def settled(self, topic: TopicName) -> None:
        """Return when the topic does not move at the moment."""
        ...


class Front:
    """The port of one process among several. Implements `port.Port`."""

    def __init__(self, here: Port, remote: Remote, ownership: Ownership) -> None:
        """Put the log of this process and the topics of the others behind one port."""
        self._here = here
        self._remote = remote
        self._ownership = ownership

    async def locate(self, topic: TopicName, listener: str | None = None) -> Location:
        """Return where a topic is served, as `port.Port.locate` says."""
        await self._ownership.settled(topic)
        return await self._here.locate(topic, listener)

    async def partitions(self, topic: TopicName, *, create: bool) -> int:
        """Return how many partitions a topic has, as `port.Port.partitions` says."""
        return await self._here.partitions(topic, create=create)

    async def topics(self, namespace: NamespaceName, mode: ListMode) -> list[str]:
        """Return the topics of a namespace, as `port.Port.topics` says."""
        return await self._here.topics(namespace, mode)

    def watch_topics(self, namespace: NamespaceName, news: TopicNews) -> Callable[[], None]:
        """Tell which topics of a namespace come and go, as `port.Port.watch_topics` says."""
        return self._here.watch_topics(namespace, news)

    async def schema(self, topic: TopicName, version: int | None) -> VersionedSchema:
        """Return a topic's schema, as `port.Port.schema` says."""
        return await self._here.schema(topic, version)

    async def create_schema(self, topic: TopicName, schema: Schema) -> int | None:
        """Add a schema, as `port.Port.create_schema` says."""
        return await self._here.create_schema(topic, schema)

    async def open_producer(self, request: ProducerRequest, events: ProducerEvents) -> Producer:
        """Open a producer where its topic is."""
        return await self._routed(
            request.topic,
            request.passed_on,
            lambda: self._here.open_producer(request, events),
            lambda worker: self._remote.open_producer(worker, request, events),
        )

    async def subscribe(self, request: SubscribeRequest, events: ConsumerEvents) -> Consumer:
        """Open a consumer where its topic is."""
        return await self._routed(
            request.topic,
            request.passed_on,
            lambda: self._here.subscribe(request, events),
            lambda worker: self._remote.subscribe(worker, request, events),
        )

    async def _routed(
        self,
        topic: TopicName,
        passed_on: bool,
        here: Callable[[], Awaitable[T]],
        there: Callable[[int], Awaitable[T]],
    ) -> T:
        """Do something where a topic is.

        Raises:
            PortError: it cannot be done there.
        """
        ownership = self._ownership
        for attempt in range(ROUTES_MAX):
            await ownership.settled(topic)
            worker, mine = ownership.worker_of(topic), ownership.mine(topic)
            try:
                if mine:
                    return await here()
                return await (_nowhere(topic) if passed_on else there(worker))
            except ServiceNotReadyError:
                await ownership.look()
                moved = ownership.worker_of(topic) != worker or ownership.mine(topic) != mine
                if not moved or attempt == ROUTES_MAX - 1:
                    raise
        raise AssertionError("the loop above returns or raises")

    def publish(self, run: Run, producers: Sequence[Producer | None], done: PublishDone) -> bool:
        """Store a run, as `port.Port.publish` says; what belongs elsewhere is sent there."""
        if not self._remote.producers:
            return self._here.publish(run, producers, done)
        slots: list[int] = run.u32(PRODUCER).tolist()
        elsewhere = {slot for slot in set(slots) if isinstance(producers[slot], RemoteProducer)}
        if not elsewhere:
            return self._here.publish(run, producers, done)
        rows = [row for row, slot in enumerate(slots) if slot not in elsewhere]
        if not rows:
            return self._remote.publish(run, producers, done)
        others = [row for row, slot in enumerate(slots) if slot in elsewhere]
        clear = self._here.publish(_selected(run, rows), producers, done)
        return self._remote.publish(_selected(run, others), producers, done) and clear

    def call_when_clear(self, callback: Callable[[], None]) -> None:
        """Call once, soon, when publishing may go on, here and elsewhere."""
        if self._remote.congested:
            self._remote.call_when_clear(partial(self._here.call_when_clear, callback))
        else:
            self._here.call_when_clear(callback)


async def _nowhere(topic: TopicName) -> NoReturn:
    raise ServiceNotReadyError(f"topic {topic} is served by another process: look it up")


def _selected(run: Run, rows: Sequence[int]) -> Run:
    """Return some rows of a run as one that can be written: the log stamps them."""
    selected = run.select(rows)
    return Run(bytearray(selected.rows), selected.buffer, selected.base, selected.transactions)
