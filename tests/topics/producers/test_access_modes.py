"""Access modes: who may publish to a topic at the same time."""

import asyncio

import pytest

from magnetar.broker.port import (
    AccessMode,
    MetadataError,
    ProducerBusyError,
    ProducerFencedError,
    ProducerRequest,
)
from magnetar.broker.topics.producers.access_modes import Producers
from magnetar.broker.topics.producers.producer import Inlet, OpenProducer
from magnetar.names import TopicName
from tests.topics.stand_ins import ProducerDoor, ScriptedLog

TOPIC = TopicName.parse("t")
SHARED = AccessMode.SHARED
EXCLUSIVE = AccessMode.EXCLUSIVE
WAIT = AccessMode.WAIT_FOR_EXCLUSIVE
FENCING = AccessMode.EXCLUSIVE_WITH_FENCING


class Room:
    """The producers of one topic, and the epoch as it is on disk."""

    def __init__(self, epoch: int | None = None) -> None:
        self.durable_epoch = epoch
        self.disk = asyncio.Event()
        self.disk.set()
        self.error: Exception | None = None
        self.producers = Producers(epoch, self.save)
        self.doors: dict[str, ProducerDoor] = {}

    async def save(self, epoch: int) -> None:
        await self.disk.wait()
        if self.error is not None:
            raise self.error
        self.durable_epoch = epoch

    async def enter(
        self,
        name: str,
        mode: AccessMode = SHARED,
        *,
        epoch: int = 0,
        topic_epoch: int | None = None,
        owner: str = "",
    ) -> OpenProducer:
        door = self.doors[name] = ProducerDoor()
        request = ProducerRequest(
            TOPIC, name, access_mode=mode, epoch=epoch, topic_epoch=topic_epoch, owner=owner
        )
        inlet = Inlet(log=ScriptedLog(), wake=lambda: None)
        producer = OpenProducer(inlet, request, name, door, self.producers.left)
        await self.producers.add(producer)
        return producer

    def names(self) -> list[str]:
        return [producer.name for producer in self.producers]


async def soon() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_any_number_of_shared_producers_may_come_in() -> None:
    room = Room()
    for name in ("a", "b", "c"):
        assert (await room.enter(name)).topic_epoch is None
    assert room.names() == ["a", "b", "c"]


async def test_a_name_is_taken_while_its_producer_is_connected() -> None:
    room = Room()
    first = await room.enter("a")
    with pytest.raises(ProducerBusyError):
        await room.enter("a")
    assert room.names() == ["a"]
    await first.close()
    await room.enter("a")


async def test_a_producer_that_connects_again_replaces_its_older_connection() -> None:
    room = Room()
    await room.enter("a")
    old_door = room.doors["a"]
    again = await room.enter("a", epoch=1)
    assert list(room.producers) == [again]
    assert len(old_door.reasons) == 1
    with pytest.raises(ProducerBusyError):
        await room.enter("a", epoch=1)


@pytest.mark.parametrize("mode", [SHARED, EXCLUSIVE])
async def test_nobody_else_takes_the_place_of_a_producer_by_its_name(mode: AccessMode) -> None:
    room = Room()
    anna = await room.enter("a", mode, epoch=1, owner="anna")
    with pytest.raises(ProducerBusyError):
        await room.enter("a", mode, epoch=2**40, owner="mallory")
    assert list(room.producers) == [anna]
    again = await room.enter("a", mode, epoch=2, owner="anna")
    assert list(room.producers) == [again]


async def test_an_exclusive_producer_keeps_everybody_else_out() -> None:
    room = Room()
    await room.enter("a", EXCLUSIVE)
    with pytest.raises(ProducerBusyError):
        await room.enter("b", SHARED)
    with pytest.raises(ProducerFencedError):
        await room.enter("c", EXCLUSIVE)
    assert room.names() == ["a"]


async def test_an_exclusive_producer_cannot_join_shared_ones() -> None:
    room = Room()
    await room.enter("a")
    with pytest.raises(ProducerFencedError):
        await room.enter("b", EXCLUSIVE)
    assert room.names() == ["a"]


async def test_every_exclusive_producer_raises_the_epoch_and_it_is_durable_first() -> None:
    room = Room()
    room.disk.clear()
    entering = asyncio.ensure_future(room.enter("a", EXCLUSIVE))
    await soon()
    assert not entering.done()
    room.disk.set()
    first = await entering
    assert (first.topic_epoch, room.durable_epoch) == (0, 0)
    await first.close()
    assert (await room.enter("b", EXCLUSIVE)).topic_epoch == 1


async def test_the_topic_is_taken_while_the_epoch_is_being_written() -> None:
    room = Room()
    room.disk.clear()
    entering = asyncio.ensure_future(room.enter("a", EXCLUSIVE))
    await soon()
    with pytest.raises(ProducerFencedError):
        await room.enter("b", EXCLUSIVE)
    room.disk.set()
    assert (await entering).topic_epoch == 0


async def test_if_the_epoch_cannot_be_written_nobody_is_in() -> None:
    room = Room(epoch=4)
    room.error = MetadataError("disk full")
    with pytest.raises(MetadataError):
        await room.enter("a", EXCLUSIVE)
    assert room.names() == []
    room.error = None
    assert (await room.enter("b", EXCLUSIVE)).topic_epoch == 5


async def test_a_producer_that_comes_back_keeps_its_epoch() -> None:
    room = Room()
    first = await room.enter("a", EXCLUSIVE)
    await first.close()
    assert (await room.enter("a", EXCLUSIVE, epoch=1, topic_epoch=0)).topic_epoch == 0


@pytest.mark.parametrize("mode", [EXCLUSIVE, WAIT, FENCING])
async def test_a_producer_that_comes_back_after_another_one_is_fenced(mode: AccessMode) -> None:
    room = Room(epoch=3)
    with pytest.raises(ProducerFencedError):
        await room.enter("a", mode, epoch=1, topic_epoch=2)
    assert room.names() == []


async def test_the_epoch_goes_on_after_a_restart() -> None:
    assert (await Room(epoch=7).enter("a", EXCLUSIVE)).topic_epoch == 8


async def test_those_who_wait_come_in_one_by_one_in_their_order() -> None:
    room = Room()
    first = await room.enter("a", EXCLUSIVE)
    second, third = await room.enter("b", WAIT), await room.enter("c", WAIT)
    assert (second.ready, third.ready) == (False, False)
    await first.close()
    await soon()
    assert (second.ready, third.ready) == (True, False)
    assert room.doors["b"].epochs == [1]
    await second.close()
    await soon()
    assert third.ready
    assert room.doors["c"].epochs == [2]


async def test_a_waiting_producer_comes_in_at_once_when_nobody_is_there() -> None:
    producer = await Room().enter("a", WAIT)
    assert producer.ready
    assert producer.topic_epoch == 0


async def test_who_waits_waits_for_every_shared_producer_to_leave() -> None:
    room = Room()
    one, two = await room.enter("a"), await room.enter("b")
    waiting = await room.enter("c", WAIT)
    await one.close()
    await soon()
    assert not waiting.ready
    with pytest.raises(ProducerBusyError):
        await room.enter("d", SHARED)
    await two.close()
    await soon()
    assert waiting.ready


async def test_who_stops_waiting_is_not_let_in() -> None:
    room = Room()
    first = await room.enter("a", EXCLUSIVE)
    impatient, patient = await room.enter("b", WAIT), await room.enter("c", WAIT)
    await impatient.close()
    await first.close()
    await soon()
    assert patient.ready
    assert room.names() == ["c"]


async def test_fencing_ends_everybody_waiting_or_not_and_takes_over() -> None:
    room = Room()
    await room.enter("a", EXCLUSIVE)
    await room.enter("b", WAIT)
    winner = await room.enter("c", FENCING)
    await soon()
    assert room.names() == ["c"]
    assert winner.topic_epoch == 1
    for loser in ("a", "b"):
        assert [type(reason) for reason in room.doors[loser].reasons] == [ProducerFencedError]
    assert room.doors["b"].epochs == []


async def test_fencing_ends_shared_producers_too() -> None:
    room = Room()
    await room.enter("a")
    await room.enter("b")
    await room.enter("c", FENCING)
    assert room.names() == ["c"]
    assert isinstance(room.doors["b"].reasons[0], ProducerFencedError)


async def test_a_producer_fenced_while_its_epoch_is_written_does_not_come_in() -> None:
    room = Room()
    room.disk.clear()
    slow = asyncio.ensure_future(room.enter("a", EXCLUSIVE))
    await soon()
    fast = asyncio.ensure_future(room.enter("b", FENCING))
    await soon()
    room.disk.set()
    assert (await fast).topic_epoch == 1
    with pytest.raises(ProducerFencedError):
        await slow
    assert room.names() == ["b"]


async def test_an_exclusive_producer_that_reconnects_lets_nobody_slip_in_between() -> None:
    room = Room()
    first = await room.enter("a", EXCLUSIVE)
    waiting = await room.enter("b", WAIT)
    again = await room.enter("a", EXCLUSIVE, epoch=1, topic_epoch=first.topic_epoch)
    await soon()
    assert again.ready
    assert not waiting.ready
    assert room.names() == ["a"]
    await again.close()
    await soon()
    assert waiting.ready
