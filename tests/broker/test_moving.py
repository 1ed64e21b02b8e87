"""A topic goes from one process to another with all that is known of it, and has one owner."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from magnetar.broker.assignment import SHARES, Assignment, Change, share_of
from magnetar.broker.entry import EARLIEST
from magnetar.broker.metadata import assignments
from magnetar.broker.metadata.chains import Chain
from magnetar.broker.metadata.store import StoreUnavailableError
from magnetar.broker.moving import TOPICS_PER_MOVE, parts
from magnetar.broker.port import (
    Acknowledged,
    Group,
    PortError,
    ProducerRequest,
    ServiceNotReadyError,
    SubscribeRequest,
    TopicMovedError,
)
from magnetar.broker.run import Run
from magnetar.broker.topics.handover import HandOverError
from magnetar.names import TopicName
from tests.doors.admin.processes import Client, Process, Processes, run_of, started

NAME = "persistent://public/default/orders"
TOPIC = TopicName.parse(NAME)


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[Processes]:
    async with started(tmp_path, 2) as processes:
        yield processes


class Moved(Client):
    """A door that knows how to wait for the end of a move."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def moving(self) -> None:
        self.said.append("moving")

    def closed(self, reason: PortError | None) -> None:
        super().closed(reason)
        self.said.append("closed")


async def created(processes: Processes) -> tuple[Process, Process]:
    """Make the topic, and return who has it and who has not."""
    owner = processes.owner(NAME)
    await owner.catalog.create(TOPIC)
    return owner, next(each for each in processes.all if each is not owner)


def to(process: Process) -> Change:
    return Change(pins={NAME: process.context.config.worker})


async def arrived(process: Process) -> None:
    await process.context.ownership.look()
    await process.context.ownership.settled(TOPIC)


async def outcome(process: Process, producer: object, run: Run) -> list[Group]:
    """Publish, and return what became of it."""
    told: list[Group] = []
    done = asyncio.get_running_loop().create_future()

    def news(_: Run, groups: object) -> None:
        told.extend(groups)  # type: ignore[arg-type]
        if sum(group.count for group in told) == run.count and not done.done():
            done.set_result(None)

    process.catalog.publish(run, [producer], news)  # type: ignore[list-item]
    await asyncio.wait_for(done, 5)
    return told


async def test_what_was_published_before_is_there_after_and_ids_go_on(two: Processes) -> None:
    old, new = await created(two)
    await old.publish(NAME, [b"a", b"b", b"c"])
    assert await old.moving.give(to(new)) == 1
    await arrived(new)
    await new.publish(NAME, [b"d"])
    topic = await new.catalog.topic(TOPIC)
    infos = topic.log.ledger_infos()
    assert [info.entries for info in infos] == [3, 1]
    assert infos[0].ledger < infos[1].ledger
    assert topic.log.next_index == 4, "messages are counted on"


async def test_what_was_acknowledged_stays_so_wherever_the_topic_goes(two: Processes) -> None:
    old, new = await created(two)
    await old.catalog.create_subscription(TOPIC, "s", EARLIEST)
    await old.publish(NAME, [b"a", b"b", b"c"])
    door = Moved()
    request = SubscribeRequest(topic=TOPIC, subscription="s", consumer_name="c")
    consumer = await old.catalog.subscribe(request, door)
    consumer.flow(10)
    for _ in range(50):
        await asyncio.sleep(0.01)
        if len(door.received) == 3:
            break
    first, _, third = door.received
    ids = [Acknowledged(first.ledger, first.entry), Acknowledged(third.ledger, third.entry)]
    consumer.acknowledge(ids, cumulative=False)
    await old.moving.give(to(new))
    await arrived(new)
    subscription = (await new.catalog.topic(TOPIC)).subscriptions["s"]
    assert subscription.backlog == 1  # type: ignore[union-attr]
    await new.moving.give(to(old))
    await arrived(old)
    subscription = (await old.catalog.topic(TOPIC)).subscriptions["s"]
    assert subscription.backlog == 1  # type: ignore[union-attr]


async def test_clients_hear_first_that_they_have_to_wait_and_then_where_to_go(
    two: Processes,
) -> None:
    old, new = await created(two)
    door = Moved()
    await old.catalog.open_producer(ProducerRequest(topic=TOPIC, name="p"), door)
    await old.moving.give(to(new))
    assert door.said == ["moving", "closed"]
    assert isinstance(door.reason, TopicMovedError)
    assert door.reason.url == new.context.ownership.location(TOPIC).url


async def test_who_gave_a_topic_away_acknowledges_nothing_of_it(two: Processes) -> None:
    old, new = await created(two)
    producer = await old.catalog.open_producer(ProducerRequest(topic=TOPIC, name="p"), Moved())
    run = run_of([b"body"], [1000])
    [stored] = await outcome(old, producer, run)
    assert stored.error is None, "the negative control: before the move it does"
    await old.moving.give(to(new))
    [refused] = await outcome(old, producer, run_of([b"body"], [1001]))
    assert isinstance(refused.error, ServiceNotReadyError)
    with pytest.raises(ServiceNotReadyError):
        await old.catalog.open_producer(ProducerRequest(topic=TOPIC, name="q"), Moved())
    await arrived(new)
    assert (await new.catalog.topic(TOPIC)).log.next_index == 1


async def test_who_lost_a_topic_without_giving_it_away_acknowledges_nothing_either(
    two: Processes,
) -> None:
    old, _ = await created(two)
    door = Client()
    producer = await old.catalog.open_producer(ProducerRequest(topic=TOPIC, name="p"), door)
    [stored] = await outcome(old, producer, run_of([b"body"], [1000]))
    assert stored.error is None, "the negative control: as long as it has the epoch, it does"
    await Chain(two.store, TOPIC).take(1 - old.context.config.worker)
    for _ in range(50):
        await asyncio.sleep(0.01)
        if door.ended:
            break
    assert door.ended
    [refused] = await outcome(old, producer, run_of([b"body"], [1001]))
    assert isinstance(refused.error, ServiceNotReadyError)


async def test_a_move_that_cannot_be_written_down_leaves_the_topic_where_it_is(
    two: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = await created(two)
    door = Moved()
    await old.catalog.open_producer(ProducerRequest(topic=TOPIC, name="p"), door)

    async def no_disk(*_: object) -> assignments.Known:
        raise StoreUnavailableError("no disk")

    with monkeypatch.context() as patched:
        patched.setattr(assignments, "change", no_disk)
        with pytest.raises(HandOverError, match="no disk"):
            await old.moving.give(to(new))
    assert isinstance(door.reason, ServiceNotReadyError)
    assert not isinstance(door.reason, TopicMovedError)
    await old.publish(NAME, [b"still here"])
    await old.moving.give(to(new))
    await arrived(new)
    assert (await new.catalog.topic(TOPIC)).log.next_index == 1


async def test_nobody_gives_away_what_is_not_his(two: Processes) -> None:
    old, new = await created(two)
    assert await new.moving.give(Change(pins={NAME: old.context.config.worker})) == 0
    assert await new.moving.give(to(new)) == 0
    assert old.context.ownership.mine(TOPIC)


async def test_topics_that_are_not_loaded_move_with_their_share(two: Processes) -> None:
    old, new = await created(two)
    await old.publish(NAME, [b"a"])
    await old.catalog.unload(TOPIC)
    worker = new.context.config.worker
    assert await old.moving.give(Change(shares={share_of(NAME): worker})) == 0
    await arrived(new)
    assert (await new.catalog.topic(TOPIC)).log.next_index == 1


def test_what_moves_together_is_bounded_and_nothing_is_left_out() -> None:
    names = [f"persistent://public/default/t-{number}" for number in range(500)]
    change = Change(shares=dict.fromkeys(range(SHARES), 1), pins=dict.fromkeys(names[:100], 1))
    found = list(parts(change, names))
    table = Assignment.fresh(1)
    for part in found:
        before, table = table, table.changed(part)
        moved = sum(before.worker_of(name) != table.worker_of(name) for name in names)
        assert moved <= TOPICS_PER_MOVE
    assert table.owned(1) == SHARES
    assert len(found) > 10
