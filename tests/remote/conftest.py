"""A sibling process as this one sees it: a real door on a Unix socket, a fake core behind it."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvloop

from magnetar.broker.clock import ManualClock
from magnetar.broker.config import BrokerConfig
from magnetar.broker.doors.listener import Entrance, Listener
from magnetar.broker.doors.pulsar.door import PulsarDoor
from magnetar.broker.metrics import Metrics
from magnetar.broker.port import (
    Group,
    PortError,
    Producer,
    ProducerRequest,
    Selection,
    SubscribeRequest,
    SubscriptionType,
)
from magnetar.broker.remote.consumer import RemoteConsumer
from magnetar.broker.remote.front import Front
from magnetar.broker.remote.producer import RemoteProducer
from magnetar.broker.remote.remote import Remote
from magnetar.broker.run import SEQUENCE_ID, Run
from magnetar.broker.wire.pulsar.walker import walk
from magnetar.names import TopicName
from tests.doors.fake_port import FakePort
from tests.doors.raw_client import send
from tests.waiting import until

SIBLING = 1
"""The worker that owns every topic whose name begins with `far`. This one is worker 0."""


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run every test of this folder on both loops that a broker may run on."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


class NameOwnership:
    """Who owns a topic is in its name."""

    def mine(self, topic: TopicName) -> bool:
        return not topic.local.startswith("far")

    def worker_of(self, topic: TopicName) -> int:
        return 0 if self.mine(topic) else SIBLING

    async def settled(self, topic: TopicName) -> None:
        """Return at once: nothing moves here."""

    async def look(self) -> None:
        """Find out nothing new."""


@dataclass
class ProducerEars:
    """What a door was told about a producer."""

    epochs: list[int] = field(default_factory=list)
    reasons: list[PortError] = field(default_factory=list)

    def ready(self, topic_epoch: int) -> None:
        self.epochs.append(topic_epoch)

    def closed(self, reason: PortError) -> None:
        self.reasons.append(reason)


@dataclass
class ConsumerEars:
    """What a door was told about a consumer, and delivered."""

    entries: list[int] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    selections: list[Selection] = field(default_factory=list)
    said: list[object] = field(default_factory=list)
    reasons: list[PortError | None] = field(default_factory=list)
    has_room: bool = True

    def deliver(self, run: Run, selection: Selection) -> bool:
        self.selections.append(selection)
        for row in selection.rows:
            self.entries.append(selection.first_entry + row)
            self.bodies.append(bytes(run.body(row)))
        return self.has_room

    def active(self, active: bool) -> None:
        self.said.append(active)

    def end_of_topic(self) -> None:
        self.said.append("end")

    def closed(self, reason: PortError | None) -> None:
        self.reasons.append(reason)


@dataclass
class Receipts:
    """What became of published rows: slot, sequence id, entry id or error."""

    told: list[tuple[int, int, int | PortError]] = field(default_factory=list)
    calls: int = 0

    def done(self, run: Run, groups: Sequence[Group]) -> None:
        self.calls += 1
        sequence_ids = run.i64(SEQUENCE_ID).tolist()
        for group in groups:
            for row in range(group.count):
                became: int | PortError = group.first_entry + row
                if group.error is not None:
                    became = group.error
                self.told.append((group.slot, sequence_ids[group.first_row + row], became))

    def of(self, slot: int) -> list[tuple[int, int | PortError]]:
        return [(sequence, became) for each, sequence, became in self.told if each == slot]


def run_of(*rows: tuple[int, int], payload: bytes = b"hello") -> Run:
    """A run as a walker makes it, given slot and sequence id of each row."""
    data = bytearray(b"".join(send(slot, sequence, payload) for slot, sequence in rows))
    run = walk(memoryview(data), 0, len(data), {slot: slot for slot, _ in rows}).run
    assert run is not None
    return run


@dataclass
class House:
    """Two processes: this one with its front, and the sibling behind a real door."""

    here: FakePort
    sibling: FakePort
    door: PulsarDoor
    listener: Listener
    remote: Remote
    front: Front
    metrics: Metrics

    async def producer(self, topic: str, **fields: Any) -> tuple[Producer, ProducerEars]:
        ears = ProducerEars()
        request = ProducerRequest(topic=TopicName.parse(topic), **fields)
        return await self.front.open_producer(request, ears), ears

    async def far_producer(self, topic: str = "far") -> tuple[RemoteProducer, ProducerEars]:
        producer, ears = await self.producer(topic)
        assert isinstance(producer, RemoteProducer)
        return producer, ears

    async def far_consumer(
        self, topic: str = "far", **fields: Any
    ) -> tuple[RemoteConsumer, ConsumerEars]:
        ears = ConsumerEars()
        fields.setdefault("type", SubscriptionType.SHARED)
        fields.setdefault("from_earliest", True)
        request = SubscribeRequest(topic=TopicName.parse(topic), subscription="s", **fields)
        consumer = await self.front.subscribe(request, ears)
        assert isinstance(consumer, RemoteConsumer)
        return consumer, ears

    async def fill(self, entries: int, topic: str = "far", payload: bytes = b"hello") -> None:
        """Store entries at the sibling."""
        producer, _ = await self.far_producer(topic)
        receipts = Receipts()
        for sequence in range(entries):
            run = run_of((0, sequence), payload=payload)
            self.front.publish(run, [producer], receipts.done)
        await producer.close()
        assert len(receipts.told) == entries

    def cut(self) -> None:
        """Let the sibling die: every connection ends, nothing is said."""
        self.door.abort()

    async def until(self, condition: Callable[[], object]) -> None:
        await until(condition)

    async def settle(self) -> None:
        """Let everything that is on its way arrive."""
        for _ in range(20):
            await asyncio.sleep(0.002)


MakeHouse = Callable[..., House]


@pytest.fixture
async def make_house(tmp_path: Path) -> AsyncIterator[MakeHouse]:
    """Builds such a pair with other settings than the defaults."""
    houses: list[House] = []

    def make(**settings: Any) -> House:
        loop = asyncio.get_running_loop()
        config = BrokerConfig(data=tmp_path, workers=2, **settings)
        sibling, metrics = FakePort(), Metrics()
        door = PulsarDoor(sibling, config, loop=loop, metrics=Metrics(), server_version="sibling")
        listening = socket.socket(socket.AF_UNIX)
        path = str(tmp_path / f"{len(houses)}.sock")
        listening.bind(path)
        listening.listen()
        listener = Listener(
            [Entrance([listening], sibling=True)],
            door,
            connections_max=100,
            loop=loop,
            metrics=Metrics(),
        )
        listener.start()
        remote = Remote(
            ["/nowhere", path],
            config,
            clock=ManualClock(),
            loop=loop,
            metrics=metrics,
            version="test",
        )
        here = FakePort()
        front = Front(here, remote, NameOwnership())
        houses.append(House(here, sibling, door, listener, remote, front, metrics))
        return houses[-1]

    yield make
    for house in houses:
        house.sibling.gate = None
        await house.remote.stop()
        await house.listener.drain(0.2)


@pytest.fixture
async def house(make_house: MakeHouse) -> House:
    return make_house()
