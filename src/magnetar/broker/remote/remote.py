"""Topics that siblings own: the part of the port that concerns one topic, by the wire.

    open_producer(worker, ...) ──▶ pool of the worker ──▶ link ──▶ RemoteProducer
    subscribe(worker, ...)     ──▶ another pool       ──▶ link ──▶ RemoteConsumer
    publish(run, producers)    ──▶ rows by producer   ──▶ SENDs on their links

A sibling is reached at a Unix socket in the data folder, which nobody but the broker can open,
by our own codec in the client role. All producers of this process share one link to it, all
consumers another, so that what is read never waits for what is written; a pool grows only when
a link has as many producers or consumers as a connection may have. Nothing is dialled before
somebody needs it. As Apache Pulsar's proxy does, entries pass through as they are; unlike
there, many clients share a connection.
"""

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

from magnetar.broker.clock import Clock
from magnetar.broker.config import BrokerConfig
from magnetar.broker.entry import TransactionId
from magnetar.broker.metrics import Metrics
from magnetar.broker.port import (
    ConsumerEvents,
    Group,
    Producer,
    ProducerEvents,
    ProducerRequest,
    PublishDone,
    ServiceNotReadyError,
    SubscribeRequest,
)
from magnetar.broker.remote import requests
from magnetar.broker.remote.consumer import Parking, RemoteConsumer
from magnetar.broker.remote.link import Link
from magnetar.broker.remote.producer import RemoteProducer
from magnetar.broker.run import PRODUCER, Run
from magnetar.broker.wire.pulsar.frames import FRAME_OVERHEAD_MAX
from magnetar.names import TopicName

SETTLE_TIMEOUT_S = 30.0
"""How long a sibling may take for its part of a transaction; it is asked again then."""


class Pool:
    """The links to one sibling for one purpose."""

    def __init__(self, new_link: Callable[[Callable[[Link], None]], Link], path: str) -> None:
        self._new_link = new_link
        self._path = path
        self._dialling: set[asyncio.Task[None]] = set()
        self.links: list[Link] = []

    async def take(self, endpoints_max: int) -> Link:
        """Return an open link with a place reserved on it. Whoever took it gives the place back.

        Raises:
            ServiceNotReadyError: the sibling cannot be reached.
        """
        link = next((each for each in self.links if each.endpoints < endpoints_max), None)
        if link is None:
            link = self._new_link(self.links.remove)
            self.links.append(link)
            task = link.loop.create_task(link.dial(self._path))
            self._dialling.add(task)
            task.add_done_callback(self._dialling.discard)
        link.endpoints += 1
        try:
            await asyncio.shield(link.opened)
        except BaseException:
            link.endpoints -= 1
            raise
        return link

    async def close(self) -> None:
        """Close every link."""
        for each in list(self.links):
            each.close()
        for task in self._dialling:
            task.cancel()
        await asyncio.gather(*self._dialling, return_exceptions=True)


class Remote:
    """Everything that siblings own, as one port."""

    def __init__(  # noqa: PLR0913 - what links are made of
        self,
        siblings: Sequence[str],
        config: BrokerConfig,
        *,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        metrics: Metrics,
        version: str,
    ) -> None:
        """Take the Unix socket of every worker, by number, this one's own included."""
        self._config = config
        self._clock = clock
        self._loop = loop
        self._parking = Parking()
        self._full: list[Link] = []
        """The links that the last publish found congested."""
        self.producers = 0
        """Producers that are open. 0: no run can have anything for a sibling."""
        new_link = partial(
            Link,
            loop,
            f"Magnetar {version}, worker {config.worker}",
            keep_alive_s=config.keep_alive_s,
            frame_bytes_max=config.message_bytes_max + FRAME_OVERHEAD_MAX,
        )

        self._new_link: Callable[[Callable[[Link], None]], Link] = lambda lost: new_link(lost=lost)
        self._publishing: list[Pool] = []
        self._consuming: list[Pool] = []
        self._closing: set[asyncio.Task[None]] = set()
        self.meet(siblings)
        self._entries = metrics.counter(
            "magnetar_remote_published_entries_total", "Entries passed on to a sibling process."
        )
        metrics.gauge(
            "magnetar_remote_links",
            "Connections to sibling processes.",
            lambda: sum(len(each.links) for each in (*self._publishing, *self._consuming)),
        )
        metrics.gauge(
            "magnetar_remote_parked_bytes",
            "Bytes from sibling processes that clients do not take.",
            lambda: self._parking.bytes,
        )

    def meet(self, siblings: Sequence[str]) -> None:
        """Take the sockets of all workers there are from now on; links to others are closed."""
        for pools in (self._publishing, self._consuming):
            for path in siblings[len(pools) :]:
                pools.append(Pool(self._new_link, path))
            for left in pools[len(siblings) :]:
                task = self._loop.create_task(left.close())
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
            del pools[len(siblings) :]

    async def _link(self, pools: Sequence[Pool], worker: int) -> Link:
        if worker >= len(pools):
            raise ServiceNotReadyError("the process that serves the topic has left; try again")
        return await pools[worker].take(self._config.endpoints_per_connection_max)

    async def stop(self) -> None:
        """Close every link."""
        await asyncio.gather(*(each.close() for each in (*self._publishing, *self._consuming)))
        await asyncio.gather(*self._closing)

    async def open_producer(
        self, worker: int, request: ProducerRequest, events: ProducerEvents
    ) -> Producer:
        """Open a producer of a topic that a worker owns.

        Raises:
            PortError: what the owner raises, or it cannot be reached.
        """
        link = await self._link(self._publishing, worker)
        producer = RemoteProducer(link, events, self._producer_left)
        self.producers += 1
        await producer.open(request)
        return producer

    async def subscribe(
        self, worker: int, request: SubscribeRequest, events: ConsumerEvents
    ) -> RemoteConsumer:
        """Open a consumer of a topic that a worker owns.

        Raises:
            PortError: what the owner raises, or it cannot be reached.
        """
        link = await self._link(self._consuming, worker)
        consumer = RemoteConsumer(link, request, events, self._parking, self._clock.wall_ms())
        await consumer.open()
        return consumer

    async def settle(self, worker: int, topic: TopicName, transaction: TransactionId) -> None:
        """Have a worker do for the entries of a topic what is decided.

        Raises:
            PortError: it cannot, or cannot be reached.
        """
        await self._ask(worker, lambda number: requests.settle(number, topic, transaction))

    async def settle_subscription(
        self, worker: int, topic: TopicName, subscription: str, transaction: TransactionId
    ) -> None:
        """Have a worker do for the acknowledgements of a subscription what is decided.

        Raises:
            PortError: it cannot, or cannot be reached.
        """
        await self._ask(
            worker,
            lambda number: requests.settle_subscription(number, topic, subscription, transaction),
        )

    async def _ask(self, worker: int, command: Callable[[int], bytes]) -> None:
        link = await self._link(self._publishing, worker)
        try:
            async with asyncio.timeout(SETTLE_TIMEOUT_S):
                await link.ask(command)
        except TimeoutError as error:
            raise ServiceNotReadyError(f"worker {worker} does not answer") from error
        finally:
            link.endpoints -= 1

    def publish(self, run: Run, producers: Sequence[Producer | None], done: PublishDone) -> bool:
        """Send a run to the owners of its topics, as `port.Port.publish` says."""
        touched: dict[Link, None] = {}
        refused: list[Group] = []
        run, stretches = by_slot(run)
        for slot, first_row, count in stretches:
            # What comes back through the port went out through it.
            producer = cast("RemoteProducer", producers[slot])
            touched[producer.link] = None
            group = producer.publish(run, slot, first_row, count, done)
            if group is not None:
                refused.append(group)
        self._entries.value += run.count
        for link in touched:
            link.flush()  # now: the buffer is the door's again when this returns
        self._full = [link for link in touched if link.congested]
        if refused:
            self._loop.call_soon(done, run, refused)
        return not self._full

    @property
    def congested(self) -> bool:
        """Whether what the last publish touched should get no more for now."""
        return any(link.congested for link in self._full)

    def call_when_clear(self, callback: Callable[[], None]) -> None:
        """Call once, soon, when what the last publish touched may get more."""
        for link in self._full:
            if link.congested:
                link.call_when_clear(callback)
                return
        self._loop.call_soon(callback)

    def _producer_left(self) -> None:
        self.producers -= 1


def by_slot(run: Run) -> tuple[Run, list[tuple[int, int, int]]]:
    """Return the rows ordered by slot, each slot's in their order, and where each slot has which.

    That is slot, first row and count.
    """
    slots: list[int] = run.u32(PRODUCER).tolist()
    ordered = sorted(slots)
    if ordered != slots:
        run = run.select(sorted(range(run.count), key=slots.__getitem__))
    stretches: list[tuple[int, int, int]] = []
    first = 0
    while first < len(ordered):
        count = bisect_right(ordered, ordered[first], first) - first
        stretches.append((ordered[first], first, count))
        first += count
    return run, stretches
