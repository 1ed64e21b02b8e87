"""What a door sees when there are several processes: every topic, whoever owns it.

    topic ──mine?──▶ yes: the log of this process
                     no:  remote, by the wire to its owner

    run ──▶ no producer elsewhere (nearly always): passed straight on
            some: rows of topics here │ rows of topics elsewhere, each in their order

Where names are concerned (look-ups, partitions, lists), and schemas, every process knows the same
facts, so those questions are never passed on. Looked-up clients come to the owner itself; who comes
elsewhere, because only one port can be reached or because it insists, is served all the same.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

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
    SubscribeRequest,
    TopicNews,
    VersionedSchema,
)
from magnetar.broker.remote.producer import RemoteProducer
from magnetar.broker.remote.remote import Remote
from magnetar.broker.run import PRODUCER, Run
from magnetar.names import NamespaceName, TopicName


class Ownership(Protocol):
    """Which process serves which topic."""

    def mine(self, topic: TopicName) -> bool: ...
    def worker_of(self, topic: TopicName) -> int: ...


class Front:
    """The port of one process among several. Implements `port.Port`."""

    def __init__(self, here: Port, remote: Remote, ownership: Ownership) -> None:
        """Put the log of this process and the topics of the others behind one port."""
        self._here = here
        self._remote = remote
        self._ownership = ownership

    async def locate(self, topic: TopicName, listener: str | None = None) -> Location:
        """Return where a topic is served, as `port.Port.locate` says."""
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
        if self._ownership.mine(request.topic):
            return await self._here.open_producer(request, events)
        worker = self._ownership.worker_of(request.topic)
        return await self._remote.open_producer(worker, request, events)

    async def subscribe(self, request: SubscribeRequest, events: ConsumerEvents) -> Consumer:
        """Open a consumer where its topic is."""
        if self._ownership.mine(request.topic):
            return await self._here.subscribe(request, events)
        worker = self._ownership.worker_of(request.topic)
        return await self._remote.subscribe(worker, request, events)

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


def _selected(run: Run, rows: Sequence[int]) -> Run:
    """Return some rows of a run as one that can be written: the log stamps them."""
    selected = run.select(rows)
    return Run(bytearray(selected.rows), selected.buffer, selected.base, selected.transactions)
