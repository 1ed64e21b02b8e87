"""What is published to a topic of a sibling: confirmed in order, or refused and closed."""

import asyncio
from collections.abc import Sequence

import pytest

from magnetar.broker.port import (
    AccessMode,
    Group,
    NotAllowedError,
    PersistenceError,
    ProducerBusyError,
    Schema,
    SchemaType,
    ServiceNotReadyError,
    TopicTerminatedError,
)
from magnetar.broker.run import Run
from tests.remote.conftest import House, MakeHouse, Receipts, run_of

TYPED = Schema(SchemaType.JSON, b"{}", {"c": "d"}, "Order")


async def test_entries_reach_the_owner_as_they_are_and_receipts_come_back(house: House) -> None:
    producer, _ = await house.far_producer()
    receipts = Receipts()
    run = run_of((0, 5), (0, 6), (0, 7), payload=b"x" * 300)
    bodies = [bytes(run.body(row)) for row in range(3)]
    assert house.front.publish(run, [producer], receipts.done)
    await house.until(lambda: len(receipts.told) == 3)
    assert receipts.told == [(0, 5, 0), (0, 6, 1), (0, 7, 2)]
    assert receipts.calls == 1
    stored = house.sibling.topic("far")
    assert stored.bodies == bodies
    assert house.here.published_runs == 0


async def test_the_buffer_is_free_when_publish_returns(house: House) -> None:
    producer, _ = await house.far_producer()
    receipts = Receipts()
    run = run_of((0, 1), payload=b"a" * 100)
    house.front.publish(run, [producer], receipts.done)
    run.buffer[:] = bytes(len(run.buffer))
    await house.until(lambda: bool(receipts.told))
    assert house.sibling.topic("far").bodies[0].endswith(b"a" * 100)


async def test_what_the_door_knows_of_a_producer_is_what_the_owner_said(house: House) -> None:
    producer, _ = await house.far_producer()
    theirs = house.sibling.opened[0]
    assert producer.name == theirs.name
    assert producer.ready
    assert producer.last_sequence_id == -1
    with pytest.raises(ProducerBusyError, match=theirs.name):
        await house.producer("far", name=theirs.name)


async def test_everything_that_was_asked_for_is_asked_of_the_owner(house: House) -> None:
    await house.producer(
        "far",
        name="mine",
        user_provided_name=False,
        epoch=3,
        access_mode=AccessMode.EXCLUSIVE,
        topic_epoch=4,
        encrypted=True,
        initial_subscription="first",
        metadata={"a": "b"},
        schema=TYPED,
    )
    asked = house.sibling.opened[0].request
    assert asked.name == "mine"
    assert not asked.user_provided_name
    assert (asked.epoch, asked.access_mode, asked.topic_epoch) == (3, AccessMode.EXCLUSIVE, 4)
    assert asked.encrypted
    assert asked.initial_subscription == "first"
    assert asked.metadata == {"a": "b"}
    assert asked.schema == TYPED


async def test_the_version_of_a_schema_comes_from_the_owner(house: House) -> None:
    plain, _ = await house.producer("far")
    typed = [(await house.producer("far", schema=TYPED))[0] for _ in range(2)]
    assert [plain.schema_version, *(each.schema_version for each in typed)] == [None, 0, 1]


async def test_rows_of_several_producers_keep_the_order_of_each(house: House) -> None:
    first, _ = await house.far_producer("far-a")
    second, _ = await house.far_producer("far-b")
    receipts = Receipts()
    rows = [(slot, sequence) for sequence in range(20) for slot in (0, 1)]
    for at in range(0, 40, 10):
        house.front.publish(run_of(*rows[at : at + 10]), [first, second], receipts.done)
    await house.until(lambda: len(receipts.told) == 40)
    assert receipts.of(0) == receipts.of(1) == [(number, number) for number in range(20)]


async def test_a_refusal_names_its_rows_and_no_others(house: House) -> None:
    producer, _ = await house.far_producer()
    receipts = Receipts()
    house.front.publish(run_of((0, 0)), [producer], receipts.done)
    await house.until(lambda: len(receipts.told) == 1)
    house.sibling.failures["publish"] = TopicTerminatedError("closed for good")
    house.front.publish(run_of((0, 1), (0, 2)), [producer], receipts.done)
    await house.until(lambda: len(receipts.told) == 3)
    assert receipts.told[0] == (0, 0, 0)
    assert [(slot, sequence) for slot, sequence, _ in receipts.told[1:]] == [(0, 1), (0, 2)]
    assert {type(became) for _, _, became in receipts.told[1:]} == {TopicTerminatedError}


async def test_a_lost_sibling_closes_the_producer_before_it_refuses_the_rest(
    house: House,
) -> None:
    producer, ears = await house.far_producer()
    order: list[str] = []
    receipts = Receipts()
    house.sibling.hold = True

    def done(run: Run, groups: Sequence[Group]) -> None:
        order.append("refused")
        receipts.done(run, groups)

    house.front.publish(run_of((0, 0), (0, 1)), [producer], done)
    await house.until(lambda: bool(house.sibling.held))
    ears.closed = lambda reason: order.append("closed")  # type: ignore[method-assign]
    house.cut()
    await house.until(lambda: len(receipts.told) == 2)
    assert order == ["closed", "refused"]
    assert {type(became) for _, _, became in receipts.told} == {ServiceNotReadyError}
    assert house.remote.producers == 0


async def test_after_a_loss_the_next_producer_dials_anew(house: House) -> None:
    _, ears = await house.far_producer()
    house.cut()
    await house.until(lambda: bool(ears.reasons))
    again, _ = await house.far_producer()
    receipts = Receipts()
    house.front.publish(run_of((0, 0)), [again], receipts.done)
    await house.until(lambda: len(receipts.told) == 1)


async def test_a_producer_that_the_owner_closes_is_closed_here(house: House) -> None:
    producer, ears = await house.far_producer()
    other, _ = await house.far_producer("far-other")
    receipts = Receipts()
    house.sibling.hold = True
    house.front.publish(run_of((0, 0)), [producer], receipts.done)
    await house.until(lambda: bool(house.sibling.held))
    house.sibling.opened[0].events.closed(PersistenceError("the disk is full"))
    await house.until(lambda: bool(ears.reasons))
    assert isinstance(receipts.told[0][2], ServiceNotReadyError)
    house.front.publish(run_of((0, 1)), [producer], receipts.done)
    await house.until(lambda: len(receipts.told) == 2)
    assert isinstance(receipts.told[1][2], ServiceNotReadyError)
    house.sibling.hold = False
    house.sibling.commit()
    house.front.publish(run_of((0, 0)), [other], receipts.done)
    await house.until(lambda: len(receipts.told) == 3)
    assert receipts.told[2][2] == 0


async def test_close_waits_for_what_was_published(house: House) -> None:
    producer, ears = await house.far_producer()
    receipts = Receipts()
    house.sibling.hold = True
    house.front.publish(run_of((0, 0), (0, 1)), [producer], receipts.done)
    closing = asyncio.create_task(producer.close())
    await house.settle()
    assert not closing.done()
    house.sibling.commit()
    await closing
    assert receipts.told == [(0, 0, 0), (0, 1, 1)]
    assert not ears.reasons
    assert house.remote.producers == 0


async def test_close_returns_when_the_sibling_is_lost_meanwhile(house: House) -> None:
    producer, ears = await house.far_producer()
    receipts = Receipts()
    house.sibling.hold = True
    house.front.publish(run_of((0, 0)), [producer], receipts.done)
    closing = asyncio.create_task(producer.close())
    await house.settle()
    house.cut()
    await asyncio.wait_for(closing, 30)
    assert isinstance(receipts.told[0][2], ServiceNotReadyError)
    assert not ears.reasons, "who closes need not be told"


async def test_a_producer_that_waits_its_turn_hears_when_it_comes(house: House) -> None:
    theirs: list[object] = []
    real = house.sibling.open_producer

    async def not_yet(request: object, events: object) -> object:
        producer = await real(request, events)  # type: ignore[arg-type]
        producer.ready = False  # type: ignore[misc]
        theirs.append(events)
        return producer

    house.sibling.open_producer = not_yet  # type: ignore[assignment, method-assign]
    producer, ears = await house.producer("far", access_mode=AccessMode.WAIT_FOR_EXCLUSIVE)
    assert not producer.ready
    theirs[0].ready(7)  # type: ignore[attr-defined]
    await house.until(lambda: ears.epochs == [7])
    assert producer.ready
    assert producer.topic_epoch == 7


async def test_an_entry_too_large_for_the_shared_link_costs_only_itself(
    make_house: MakeHouse,
) -> None:
    house = make_house(message_bytes_max=1024)
    producer, ears = await house.far_producer()
    receipts = Receipts()
    house.sibling.hold = True
    house.front.publish(run_of((0, 0)), [producer], receipts.done)
    for sequence in range(1, 2_000):
        run = run_of((0, sequence), payload=b"x" * 11_400)
        house.front.publish(run, [producer], receipts.done)
    house.front.publish(run_of((0, 2_000)), [producer], receipts.done)
    await house.until(lambda: len(house.sibling.held) > 0)
    await house.settle()
    assert not receipts.told, "the refusal must not overtake what is on its way"
    house.sibling.hold = False
    house.sibling.commit()
    await house.until(lambda: len(receipts.told) == 2_001)
    assert [sequence for _, sequence, _ in receipts.told] == list(range(2_001))
    assert {type(became) for _, _, became in receipts.told[1:-1]} == {NotAllowedError}
    assert receipts.told[-1][2] == 1
    assert not ears.reasons
