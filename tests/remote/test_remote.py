"""Few connections to a sibling, for as many producers and consumers as there are."""

import asyncio

import pytest

from magnetar.broker.port import ServiceNotReadyError
from magnetar.broker.remote import link as link_module
from magnetar.broker.remote.remote import by_slot
from magnetar.broker.run import PRODUCER, SEQUENCE_ID
from tests.remote.conftest import House, MakeHouse, Receipts, run_of


async def test_all_producers_share_a_link_and_all_consumers_another(house: House) -> None:
    await asyncio.gather(*(house.far_producer(f"far-{number}") for number in range(20)))
    await asyncio.gather(*(house.far_consumer(f"far-{number}") for number in range(20)))
    assert house.door.connections == 2
    assert house.remote.producers == 20


async def test_another_link_is_made_when_one_has_all_it_may_have(make_house: MakeHouse) -> None:
    house = make_house(endpoints_per_connection_max=3)
    opened = [await house.far_producer(f"far-{number}") for number in range(7)]
    assert house.door.connections == 3
    await opened[0][0].close()
    await house.far_producer("far-again")
    assert house.door.connections == 3


async def test_a_sibling_that_cannot_be_reached_is_not_ready(house: House) -> None:
    house.listener.stop()
    with pytest.raises(ServiceNotReadyError, match="cannot be reached"):
        await house.far_producer()
    assert house.remote._publishing[1].links == []
    assert house.remote.producers == 0


async def test_a_sibling_that_does_not_answer_is_waited_for_only_so_long(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As while it is being replaced: the port is open, and nobody accepts.
    for each in house.listener._sockets:
        asyncio.get_running_loop().remove_reader(each)
    monkeypatch.setattr(link_module.Link.dial, "__defaults__", (0.05,))
    with pytest.raises(ServiceNotReadyError, match="no answer"):
        await house.far_producer()


async def test_who_waits_for_a_sibling_being_replaced_is_served_by_the_next_one(
    house: House,
) -> None:
    for each in house.listener._sockets:
        asyncio.get_running_loop().remove_reader(each)
    opening = asyncio.create_task(house.far_producer())
    await house.settle()
    assert not opening.done()
    house.listener.start()
    producer, _ = await asyncio.wait_for(opening, 30)
    assert producer.ready


async def test_stopping_closes_every_link_and_tells_who_used_it(house: House) -> None:
    _, producer_ears = await house.far_producer()
    _, consumer_ears = await house.far_consumer()
    await house.remote.stop()
    assert len(producer_ears.reasons) == len(consumer_ears.reasons) == 1
    await house.until(lambda: house.door.connections == 0)


async def test_what_is_sent_on_is_counted(house: House) -> None:
    producer, _ = await house.far_producer()
    receipts = Receipts()
    house.front.publish(run_of((0, 0), (0, 1)), [producer], receipts.done)
    text = "".join(house.metrics.render())
    assert "magnetar_remote_published_entries_total 2\n" in text
    assert "magnetar_remote_links 1\n" in text


def test_rows_are_sorted_by_slot_and_keep_their_order_within() -> None:
    run, stretches = by_slot(run_of((2, 0), (0, 0), (2, 1), (0, 1), (1, 0)))
    assert run.u32(PRODUCER).tolist() == [0, 0, 1, 2, 2]
    assert run.i64(SEQUENCE_ID).tolist() == [0, 1, 0, 0, 1]
    assert stretches == [(0, 0, 2), (1, 2, 1), (2, 3, 2)]
    sorted_run = run_of((0, 0), (0, 1))
    assert by_slot(sorted_run)[0] is sorted_run
