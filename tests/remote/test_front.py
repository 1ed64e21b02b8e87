"""A door sees every topic, whoever owns it; and what is here costs nothing more."""

from collections.abc import Sequence
from typing import Any

import pytest

from magnetar.broker.port import (
    ListMode,
    NamespaceNotFoundError,
    Producer,
    PublishDone,
    ServiceNotReadyError,
    TopicNotFoundError,
)
from magnetar.broker.remote.producer import RemoteProducer
from magnetar.broker.run import Run
from magnetar.names import NamespaceName, TopicName
from tests.doors.fake_port import FakeProducer
from tests.remote.conftest import House, Receipts, run_of


async def test_a_topic_of_this_process_is_opened_in_this_process(house: House) -> None:
    producer, _ = await house.producer("near")
    assert isinstance(producer, FakeProducer)
    assert not house.sibling.opened
    assert not house.remote._publishing[1].links


async def test_a_run_for_this_process_alone_is_passed_on_untouched(house: House) -> None:
    passed: list[tuple[Any, ...]] = []
    real = house.here.publish

    def publish(run: Run, producers: Sequence[Producer | None], done: PublishDone) -> bool:
        passed.append((run, producers, done))
        return real(run, producers, done)

    house.here.publish = publish  # type: ignore[method-assign]
    producer, _ = await house.producer("near")
    await house.far_producer()
    receipts = Receipts()
    run, producers, done = run_of((0, 1), (0, 2)), [producer], receipts.done
    house.front.publish(run, producers, done)
    assert passed == [(run, producers, done)]
    assert passed[0][0] is run
    await house.until(lambda: len(receipts.told) == 2)


async def test_a_mixed_run_is_split_and_keeps_the_order_of_each_producer(house: House) -> None:
    near, _ = await house.producer("near")
    far, _ = await house.far_producer("far")
    farther, _ = await house.far_producer("farther")
    receipts = Receipts()
    producers = [near, far, farther]
    rows = [(sequence % 3, sequence // 3) for sequence in range(60)]
    for at in range(0, 60, 7):
        house.front.publish(run_of(*rows[at : at + 7]), producers, receipts.done)
    await house.until(lambda: len(receipts.told) == 60)
    for slot in range(3):
        assert receipts.of(slot) == [(number, number) for number in range(20)]
    assert len(house.here.topic("near").bodies) == 20
    assert len(house.sibling.topic("far").bodies) == 20
    assert len(house.sibling.topic("farther").bodies) == 20


async def test_the_rows_for_this_process_can_still_be_stamped(house: House) -> None:
    near, _ = await house.producer("near")
    far, _ = await house.far_producer()

    def stamp(run: Run) -> None:
        run.stamp(100, 5)

    house.here.on_publish = stamp
    receipts = Receipts()
    house.front.publish(run_of((0, 0), (1, 0), (0, 1)), [near, far], receipts.done)
    await house.until(lambda: len(receipts.told) == 3)


async def test_congestion_here_or_there_is_congestion(house: House) -> None:
    near, _ = await house.producer("near")
    far, _ = await house.far_producer()
    assert isinstance(far, RemoteProducer)
    receipts, clear = Receipts(), []
    far.link.pause_writing()
    assert not house.front.publish(run_of((1, 0)), [near, far], receipts.done)
    house.front.call_when_clear(lambda: clear.append("there"))
    house.here.congested = True
    assert not house.front.publish(run_of((0, 0), (1, 1)), [near, far], receipts.done)
    house.front.call_when_clear(lambda: clear.append("both"))
    await house.settle()
    assert not clear
    far.link.resume_writing()
    await house.settle()
    assert not clear, "the log of this process has still too much"
    house.here.clear()
    await house.settle()
    assert sorted(clear) == ["both", "there"]
    assert house.front.publish(run_of((0, 1), (1, 2)), [near, far], receipts.done)


async def test_a_sibling_that_is_lost_holds_nobody_up(house: House) -> None:
    far, _ = await house.far_producer()
    receipts, clear = Receipts(), []
    far.link.pause_writing()
    assert not house.front.publish(run_of((0, 0)), [far], receipts.done)
    house.front.call_when_clear(lambda: clear.append(True))
    house.cut()
    await house.settle()
    house.here.clear()
    await house.until(lambda: bool(clear))


async def test_names_are_asked_for_here(house: House) -> None:
    house.here.partitioned["persistent://public/default/far"] = 3
    topic = TopicName.parse("far")
    assert (await house.front.locate(topic)).url == house.here.url
    assert await house.front.partitions(topic, create=False) == 3
    assert await house.front.topics(NamespaceName.parse("public/default"), ListMode.ALL) == []
    assert not house.remote._publishing[1].links


async def test_a_refusal_of_the_owner_is_the_same_refusal_here(house: House) -> None:
    house.sibling.failures["open_producer"] = NamespaceNotFoundError("no such namespace")
    with pytest.raises(TopicNotFoundError, match="no such namespace"):
        await house.producer("far")
    house.sibling.failures["subscribe"] = ServiceNotReadyError("later")
    with pytest.raises(ServiceNotReadyError, match="later"):
        await house.far_consumer()
    assert house.remote.producers == 0
    assert [link.endpoints for link in house.remote._publishing[1].links] == [0]
    assert [link.endpoints for link in house.remote._consuming[1].links] == [0]
