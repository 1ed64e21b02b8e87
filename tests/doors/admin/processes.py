"""Broker processes as far as admin REST needs them: real topics, real storage, one event loop."""

import asyncio
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crc32c import crc32c

from magnetar.broker.clock import ManualClock
from magnetar.broker.config import BrokerConfig
from magnetar.broker.doors.admin.app import AdminApp
from magnetar.broker.doors.admin.context import Context
from magnetar.broker.doors.admin.http.forward import Forward
from magnetar.broker.doors.admin.http.server import HttpServer
from magnetar.broker.doors.admin.http.siblings import Siblings
from magnetar.broker.entry import EntryFlags, EntryId
from magnetar.broker.files import DiskFiles
from magnetar.broker.host import Host
from magnetar.broker.metadata import assignments
from magnetar.broker.metadata.first_start import prepare
from magnetar.broker.metadata.live_settings import LiveSettings
from magnetar.broker.metadata.memory import MemoryStore
from magnetar.broker.metadata.namespaces import Namespaces
from magnetar.broker.metadata.partitions import Partitions
from magnetar.broker.metadata.placement import Placement
from magnetar.broker.metadata.store import Store
from magnetar.broker.metadata.tenants import Clusters, Tenants
from magnetar.broker.metrics import Metrics
from magnetar.broker.moving import Moving
from magnetar.broker.ownership import Address, Ownership, owner_of
from magnetar.broker.port import (
    Group,
    PortError,
    Producer,
    ProducerRequest,
    Selection,
    SubscribeRequest,
)
from magnetar.broker.run import ROW, Run
from magnetar.broker.storage.ledgers import Ledgers
from magnetar.broker.topics.catalog import Catalog
from magnetar.broker.transactions.coordinator import Coordinator
from magnetar.broker.transactions.figures import Figures as TransactionFigures
from magnetar.broker.wire.pulsar.generated.PulsarApi_pb2 import MessageMetadata
from magnetar.broker.wire.pulsar.opened import open_body
from magnetar.names import TopicName


class Client:
    """A producer's or consumer's door, which remembers what it was told."""

    def __init__(self) -> None:
        self.reason: PortError | None = None
        self.ended = False
        self.received: list[EntryId] = []

    def closed(self, reason: PortError | None) -> None:
        self.reason, self.ended = reason, True

    def ready(self, topic_epoch: int) -> None: ...
    def active(self, active: bool) -> None: ...
    def end_of_topic(self) -> None: ...

    def deliver(self, run: Run, selection: Selection) -> bool:
        self.received += [
            EntryId(selection.ledger, selection.first_entry + row) for row in selection.rows
        ]
        return True


def body_of(metadata: MessageMetadata, payload: bytes) -> bytes:
    part = metadata.SerializeToString()
    return struct.pack(">I", len(part)) + part + payload


def run_of(bodies: Sequence[bytes], publish_ms: Sequence[int], messages: int = 1) -> Run:
    """A run as the walker of a door makes it."""
    rows, buffer = bytearray(), bytearray()
    flags = EntryFlags.BATCH if messages > 1 else 0
    for sequence_id, (body, time_ms) in enumerate(zip(bodies, publish_ms, strict=True)):
        rows += ROW.pack(
            len(buffer), len(body), crc32c(body), messages, 0, flags, 0, 0,
            sequence_id, sequence_id, time_ms, 0, 0, 0,
        )  # fmt: skip
        buffer += body
    return Run(rows, buffer)


async def nobody_to_start(_: Mapping[str, Any]) -> Mapping[str, Any]:
    """Stand in for the supervisor, which knows of no process of its own."""
    return {"processes": []}


@dataclass
class Process:
    """One broker process."""

    context: Context
    ledgers: Ledgers
    app: AdminApp
    server: HttpServer
    moving: Moving
    clients: list[Any] = field(default_factory=list)

    @property
    def catalog(self) -> Catalog:
        return self.context.catalog

    async def publish(self, topic: str, payloads: Sequence[bytes], first_ms: int = 1000) -> None:
        """Publish messages one millisecond apart, and wait until they are durable."""
        times = [first_ms + i for i in range(len(payloads))]
        bodies = [
            body_of(MessageMetadata(producer_name="p", sequence_id=i, publish_time=times[i]), each)
            for i, each in enumerate(payloads)
        ]
        await self.publish_run(topic, run_of(bodies, times))

    async def publish_run(self, topic: str, run: Run) -> None:
        request = ProducerRequest(topic=TopicName.parse(topic), name="p")
        producer = await self.catalog.open_producer(request, Client())
        left = run.count
        durable = asyncio.get_running_loop().create_future()

        def done(_: Run, groups: Sequence[Group]) -> None:
            nonlocal left
            left -= sum(group.count for group in groups)
            errors = [group.error for group in groups if group.error is not None]
            if not durable.done() and errors:
                durable.set_exception(errors[0])
            elif not durable.done() and not left:
                durable.set_result(None)

        self.catalog.publish(run, [producer], done)
        await durable
        await producer.close()

    async def producer(self, topic: str) -> Producer:
        request = ProducerRequest(topic=TopicName.parse(topic), name="stays")
        return await self.catalog.open_producer(request, Client())

    async def consumer(self, topic: str, subscription: str) -> Client:
        events = Client()
        request = SubscribeRequest(
            topic=TopicName.parse(topic), subscription=subscription, consumer_name="c"
        )
        consumer = await self.catalog.subscribe(request, events)
        self.clients.append(consumer)
        return events


class Processes:
    """All processes of one data folder, and the public port in front of them."""

    def __init__(self, processes: Sequence[Process], clock: ManualClock, store: Store) -> None:
        self.all = processes
        self.clock = clock
        self.store = store
        self.front = Forward(Siblings([_socket(each) for each in processes]))

    def owner(self, topic: str) -> Process:
        return self.all[owner_of(str(TopicName.parse(topic)), len(self.all))]


def _socket(process: Process) -> str:
    folder = process.context.config.data
    return str(folder / "run" / f"{process.context.config.worker}.sock")


@asynccontextmanager
async def started(folder: Path, workers: int) -> AsyncIterator[Processes]:
    """Start broker processes on a folder."""
    store, clock = MemoryStore(), ManualClock()
    await prepare(store, "standalone")
    await assignments.begin(store, workers)
    (folder / "run").mkdir()
    sockets = [str(folder / "run" / f"{i}.sock") for i in range(workers)]
    processes = [await _start(folder, i, sockets, store, clock) for i in range(workers)]
    try:
        yield Processes(processes, clock, store)
    finally:
        for process in processes:
            await process.server.stop()
            await process.moving.stop()
            await process.catalog.stop()
            await process.ledgers.stop()


async def _start(
    folder: Path, worker: int, sockets: list[str], store: Store, clock: ManualClock
) -> Process:
    loop = asyncio.get_running_loop()
    config = BrokerConfig(
        data=folder, worker=worker, workers=len(sockets), ledger_entries_max=5,
        journal_file_bytes=1024 * 1024, write_cache_bytes_max=8 * 1024 * 1024,
    )  # fmt: skip
    addresses = [
        Address(f"pulsar://localhost:{6660 + i}", "http://h:8080") for i in range(len(sockets))
    ]
    ownership, metrics = Ownership(worker, addresses), Metrics()
    ledgers = Ledgers(config, DiskFiles(), clock, metrics, loop)
    catalog = Catalog(
        ledgers=ledgers, store=store, ownership=ownership, config=config, clock=clock,
        loop=loop, metrics=metrics, open_body=open_body,
    )  # fmt: skip
    await catalog.recover(await ledgers.recover([worker]))
    moving = Moving(catalog, ownership, store, metrics)
    await moving.start()
    await catalog.start()
    coordinator = Coordinator(
        store, catalog, catalog, worker=worker, workers=len(sockets), clock=clock, loop=loop,
        figures=TransactionFigures(metrics),
    )  # fmt: skip
    context = Context(
        coordinator=coordinator,
        catalog=catalog,
        partitions=Partitions(store),
        namespaces=Namespaces(store),
        tenants=Tenants(store),
        clusters=Clusters(store),
        settings=LiveSettings(store, config),
        placement=Placement(store),
        ownership=ownership,
        siblings=Siblings(sockets, own=worker),
        config=config,
        metrics=metrics,
        clock=clock,
        host=Host(DiskFiles(), clock),
        address=Address("pulsar://localhost:6650", "http://localhost:8080"),
        version="0.0.1",
        moves=moving,
        ask_supervisor=nobody_to_start,
    )
    app = AdminApp(context)
    server = HttpServer(app)
    await server.start(uds_path=sockets[worker])
    return Process(context, ledgers, app, server, moving)
