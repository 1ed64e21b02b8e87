"""A whole core on a folder: files, ledgers, metadata and catalog, as one process has them."""

import asyncio
import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from crc32c import crc32c

from magnetar.broker.clock import Clock, SystemClock
from magnetar.broker.config import BrokerConfig
from magnetar.broker.entry import EntryId
from magnetar.broker.files import DiskFiles
from magnetar.broker.metadata.first_start import prepare
from magnetar.broker.metadata.holdings import load_facts
from magnetar.broker.metadata.memory import MemoryStore
from magnetar.broker.metadata.namespaces import Namespaces
from magnetar.broker.metadata.policies import Policies
from magnetar.broker.metadata.sqlite import SqliteStore
from magnetar.broker.metadata.store import Store
from magnetar.broker.metrics import Metrics
from magnetar.broker.port import (
    Acknowledged,
    Consumer,
    Group,
    Location,
    PortError,
    Producer,
    ProducerRequest,
    Selection,
    SubscribeRequest,
)
from magnetar.broker.run import ROW, Run
from magnetar.broker.storage.ledgers import Ledgers
from magnetar.broker.storage.pools import READ_THREADS
from magnetar.broker.storage.stock import Stock
from magnetar.broker.topics.catalog import Catalog
from magnetar.broker.wire.pulsar.opened import open_body
from magnetar.names import NamespaceName, TopicName
from tests.storage.disk import SimulatedDisk
from tests.storage.rig import inline_pools
from tests.waiting import LIMIT_S, until

DEFAULT = NamespaceName("public", "default")


class SingleOwner:
    """One process owns everything."""

    def mine(self, topic: TopicName) -> bool:
        return True

    def location(self, topic: TopicName, listener: str | None = None) -> Location:
        return Location("pulsar://127.0.0.1:6650", "http://127.0.0.1:8080", here=True)


@dataclass
class ProducerDoor:
    """Remembers what it was told about a producer."""

    epochs: list[int] = field(default_factory=list)
    reasons: list[PortError] = field(default_factory=list)
    told: asyncio.Event = field(default_factory=asyncio.Event)

    def ready(self, topic_epoch: int) -> None:
        self.epochs.append(topic_epoch)
        self.told.set()

    def closed(self, reason: PortError) -> None:
        self.reasons.append(reason)


class ConsumerDoor:
    """Remembers what a consumer was sent."""

    def __init__(self) -> None:
        self.received: list[tuple[EntryId, bytes]] = []
        self.redelivered: dict[EntryId, int] = {}
        self.closed_with: list[PortError | None] = []
        self.ended = False
        self.is_active: bool | None = None
        self.arrived = asyncio.Event()

    def deliver(self, run: Run, selection: Selection) -> bool:
        for row in selection.rows:
            at = EntryId(selection.ledger, selection.first_entry + row)
            self.received.append((at, bytes(run.body(row))))
            self.redelivered[at] = selection.redeliveries.get(row, 0)
        self.arrived.set()
        return True

    def active(self, active: bool) -> None:
        self.is_active = active

    def end_of_topic(self) -> None:
        self.ended = True
        self.arrived.set()

    def closed(self, reason: PortError | None) -> None:
        self.closed_with.append(reason)
        self.arrived.set()

    @property
    def bodies(self) -> list[str]:
        return [body.decode() for _, body in self.received]

    async def wait_for(self, count: int, timeout_s: float = LIMIT_S) -> list[str]:
        """Return the bodies once there are `count`."""

        async def enough() -> None:
            while len(self.received) < count:
                self.arrived.clear()
                await self.arrived.wait()

        await asyncio.wait_for(enough(), timeout_s)
        return self.bodies


def run_of(bodies: Sequence[str], sequence_ids: Sequence[int] | None = None) -> Run:
    """A run of one producer in slot 0, as a walker makes it. The checksum is not looked at."""
    packed, buffer = bytearray(), bytearray()
    for number, text in enumerate(bodies):
        body = text.encode()
        sequence_id = number if sequence_ids is None else sequence_ids[number]
        packed += ROW.pack(
            len(buffer), len(body), crc32c(body), 1, 0, 0, 0, 0, sequence_id, sequence_id,
            1_700_000_000_000 + sequence_id, 0, 0, 0,
        )  # fmt: skip
        buffer += body
    return Run(packed, buffer)


ROUNDS, TURNS = 4, 5


class Core:
    """The core of one process on one folder."""

    def __init__(
        self,
        data: Path,
        clock: Clock | None = None,
        disk: SimulatedDisk | None = None,
        facts: MemoryStore | None = None,
        **settings: Any,
    ) -> None:
        """Use a folder; or, with `disk`, a simulated one, and metadata in memory."""
        self.disk = disk
        self.facts = facts or MemoryStore()
        self.config = BrokerConfig(
            data=data,
            **{
                "journal_file_bytes": 1024 * 1024,
                "expiry_interval_s": 3600,
                "reclaim_interval_s": 3600,
                **settings,
            },
        )
        self.clock = clock or SystemClock()
        self.owner = SingleOwner()

    async def start(self) -> "Core":
        """Recover, then serve."""
        loop = asyncio.get_running_loop()
        self.metrics = Metrics()
        self.store: Store
        if self.disk is not None:
            self.store = self.facts
            self.ledgers = Ledgers(
                self.config,
                self.disk,
                self.clock,
                self.metrics,
                loop,
                threaded=False,
                pools=inline_pools(),
            )
        else:
            self.config.data.mkdir(exist_ok=True)
            files = DiskFiles()
            self.store = await SqliteStore.open(self.config.data / "metadata.sqlite", files)
            self.ledgers = Ledgers(self.config, files, self.clock, self.metrics, loop)
        await prepare(self.store, self.config.cluster)
        self.catalog = Catalog(
            ledgers=self.ledgers,
            store=self.store,
            ownership=self.owner,
            config=self.config,
            clock=self.clock,
            loop=loop,
            metrics=self.metrics,
            open_body=open_body,
        )
        facts = await load_facts(self.store)
        self.recovered = await self.ledgers.recover(
            [self.config.worker], facts.sealed_ends.get, facts.synced
        )
        await self.catalog.recover(self.recovered)
        self.stock = Stock(self.store, self.ledgers, self.config.worker)
        await self.stock.take(self.recovered, self.config.workers)
        await self.catalog.start()
        return self

    def crashed(self, data: Path) -> "Core":
        """Return a core on a copy of the folder as a power loss would leave it now."""
        shutil.copytree(self.config.data, data)
        core = Core(data, self.clock)
        settings = {each.name: getattr(self.config, each.name) for each in fields(self.config)}
        core.config = BrokerConfig(**{**settings, "data": data})
        return core

    async def settled(self) -> None:
        """Let everything that is on its way arrive, however slow disk and machine are.

        What all threads were asked for is done, and what that leads to has had its turns of the
        event loop; again and again.
        """
        for _ in range(ROUNDS):
            await self.store.get("nothing")
            await self.ledgers._settle()
            if self.disk is None:
                await self._threads_are_idle()
            for _ in range(TURNS):
                await asyncio.sleep(0.001)

    async def _threads_are_idle(self) -> None:
        """Return once all that was asked of the threads that read and flush is done."""
        pools, together = self.ledgers._pools, threading.Barrier(READ_THREADS)
        waiting = [pools.read(together.wait, LIMIT_S) for _ in range(READ_THREADS)]
        await asyncio.gather(*waiting, pools.write(lambda: None))

    async def noted(self) -> None:
        """Wait until all acknowledgements are durable."""
        await until(lambda: not self.catalog.checkpoints.unwritten)

    async def stop(self) -> None:
        """Drain and close, as SIGTERM does."""
        await self.catalog.stop()
        await self.stock.stop()
        try:
            await self.ledgers.stop()
        finally:
            await self.store.close()

    # --- clients

    async def producer(self, topic: str, name: str | None = None, **options: Any) -> "Client":
        """Open a producer."""
        client = Client(self)
        request = ProducerRequest(TopicName.parse(topic), name, **options)
        client.producer = await self.catalog.open_producer(request, client.door)
        return client

    async def consumer(
        self,
        topic: str,
        subscription: str = "s",
        permits: int = 1000,
        **options: Any,
    ) -> "Listener":
        """Open a consumer that is allowed to get messages."""
        door = ConsumerDoor()
        request = SubscribeRequest(TopicName.parse(topic), subscription, **options)
        consumer = await self.catalog.subscribe(request, door)
        consumer.flow(permits)
        return Listener(door, consumer)


class Client:
    """A producer with its door."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.door = ProducerDoor()
        self.producer: Producer

    def post(self, run: Run) -> "asyncio.Future[list[tuple[int, EntryId | PortError]]]":
        """Publish a run; the result is (sequence id, where it lies or why not) of every row."""
        future: asyncio.Future[list[tuple[int, EntryId | PortError]]] = (
            asyncio.get_running_loop().create_future()
        )
        found: list[tuple[int, EntryId | PortError]] = []

        def done(reported: Run, groups: Sequence[Group]) -> None:
            for _, first_row, count, ledger, first_entry, error in groups:
                for i in range(count):
                    sequence_id = reported.envelope(first_row + i).sequence_id
                    place = EntryId(ledger, first_entry + (i if ledger >= 0 else 0))
                    found.append((sequence_id, error or place))
            if len(found) == run.count and not future.done():
                future.set_result(found)

        self.core.catalog.publish(run, [self.producer], done)
        return future

    async def send(self, *bodies: str, first_sequence_id: int = 0) -> list[EntryId]:
        """Publish bodies and return where they lie, once they are durable."""
        ids = range(first_sequence_id, first_sequence_id + len(bodies))
        found = await asyncio.wait_for(self.post(run_of(bodies, ids)), LIMIT_S)
        for _, place in found:
            if isinstance(place, PortError):
                raise place
        return [place for _, place in found if isinstance(place, EntryId)]


class Listener:
    """A consumer with its door."""

    def __init__(self, door: ConsumerDoor, consumer: Consumer) -> None:
        self.door = door
        self.consumer = consumer

    def acknowledge(self, *places: EntryId, cumulative: bool = False) -> None:
        self.consumer.acknowledge([Acknowledged(*each) for each in places], cumulative=cumulative)

    async def bodies(self, count: int) -> list[str]:
        return await self.door.wait_for(count)


async def set_policies(core: Core, **fields: Any) -> None:
    """Set policies of the namespace in which topics with short names are."""

    def change(policies: Policies) -> None:
        for name, value in fields.items():
            setattr(policies, name, value)

    await Namespaces(core.store).update(DEFAULT, change)


async def enact_policies(core: Core, **fields: Any) -> None:
    """Set them, and wait until they hold for topics in memory."""
    await set_policies(core, **fields)
    await core.settled()
