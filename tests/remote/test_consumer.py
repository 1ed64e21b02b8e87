"""What is consumed from a topic of a sibling: everything, in order, and no more than fits."""

import asyncio

import pytest

from magnetar.broker.entry import LATEST, EntryId
from magnetar.broker.port import (
    Acknowledged,
    ConsumerBusyError,
    KeyShared,
    NotAllowedError,
    Schema,
    SchemaType,
    ServiceNotReadyError,
    SubscriptionType,
)
from magnetar.broker.remote import consumer as module
from magnetar.broker.remote.consumer import RemoteConsumer
from magnetar.broker.run import ROW_SIZE
from tests.doors.fake_port import LEDGER, FakeConsumer
from tests.remote.conftest import ConsumerEars, House, MakeHouse, run_of


def permits_of(theirs: FakeConsumer) -> list[int]:
    """What the owner is allowed to send from now on, portion by portion."""
    granted: list[int] = []
    real = theirs.flow

    def flow(permits: int) -> None:
        granted.append(permits)
        real(permits)

    theirs.flow = flow  # type: ignore[method-assign]
    return granted


async def test_entries_arrive_as_they_were_stored_and_in_order(house: House) -> None:
    await house.fill(50, payload=b"y" * 200)
    consumer, ears = await house.far_consumer()
    consumer.flow(1_000)
    await house.until(lambda: len(ears.entries) == 50)
    assert ears.entries == list(range(50))
    assert ears.bodies == house.sibling.topic("far").bodies
    assert {selection.ledger for selection in ears.selections} == {LEDGER}
    assert len(ears.selections) < 50, "neighbours are delivered together"


async def test_nothing_comes_without_permits_and_never_more_than_those(house: House) -> None:
    await house.fill(30)
    consumer, ears = await house.far_consumer()
    await house.settle()
    assert ears.entries == []
    consumer.flow(7)
    await house.until(lambda: len(ears.entries) == 7)
    await house.settle()
    assert len(ears.entries) == 7


async def test_the_owner_is_granted_a_window_of_what_the_client_wants(house: House) -> None:
    payload = bytes(64 * 1024)
    await house.fill(40, payload=payload)
    consumer, ears = await house.far_consumer()
    granted = permits_of(house.sibling.subscribed[0])
    consumer.flow(40)
    await house.until(lambda: len(ears.entries) == 40)
    assert sum(granted) == 40
    assert max(granted) <= module.WINDOW_BYTES // module.ENTRY_BYTES_FIRST
    assert max(granted[2:]) * len(payload) <= module.WINDOW_BYTES


async def test_a_topic_that_keeps_nothing_gets_every_permit_at_once(house: House) -> None:
    consumer, _ = await house.far_consumer("non-persistent://public/default/far")
    consumer.flow(1_000)
    await house.until(lambda: house.sibling.subscribed[0].permits == 1_000)


async def test_who_had_no_room_once_is_granted_nothing_more(house: House) -> None:
    await house.fill(40, payload=bytes(64 * 1024))
    consumer, ears = await house.far_consumer()
    granted = permits_of(house.sibling.subscribed[0])
    ears.has_room = False
    consumer.flow(40)
    await house.settle()
    consumer.flow(40)
    await house.settle()
    assert granted == [module.WINDOW_BYTES // module.ENTRY_BYTES_FIRST]


async def test_a_client_without_room_is_granted_nothing_and_loses_nothing(house: House) -> None:
    await house.fill(200, payload=bytes(64 * 1024))  # the first window comes in several reads
    consumer, ears = await house.far_consumer()
    other, other_ears = await house.far_consumer()
    ears.has_room = False
    consumer.flow(100)
    await house.settle()
    taken = len(ears.entries)
    assert taken < 100
    assert house.remote._parking.bytes > 0
    other.flow(100)
    await house.until(lambda: len(other_ears.entries) == 100)
    assert len(ears.entries) == taken
    ears.has_room = True
    consumer.resume()
    await house.until(lambda: len(ears.entries) == 100)
    assert ears.entries == sorted(ears.entries)
    assert house.remote._parking.bytes == 0


async def test_resume_stops_at_the_next_false(house: House) -> None:
    await house.fill(60, payload=bytes(64 * 1024))
    consumer, ears = await house.far_consumer()
    ears.has_room = False
    consumer.flow(60)
    await house.settle()
    before = len(ears.selections)
    consumer.resume()
    assert len(ears.selections) == before + 1


async def test_who_parks_too_much_is_closed_and_the_others_go_on(house: House) -> None:
    house.remote._parking.bytes_max = 100_000
    await house.fill(30, payload=bytes(64 * 1024))
    consumer, ears = await house.far_consumer()
    ears.has_room = False
    consumer.flow(30)
    await house.until(lambda: bool(ears.reasons))
    assert isinstance(ears.reasons[0], ServiceNotReadyError)
    assert house.remote._parking.bytes == 0
    await house.until(lambda: house.sibling.subscribed[0].closed)
    other, other_ears = await house.far_consumer()
    other.flow(100)
    await house.until(lambda: len({*ears.entries, *other_ears.entries}) == 30)


async def test_acknowledgements_reach_the_owner_as_they_are(house: House) -> None:
    await house.fill(5)
    consumer, _ = await house.far_consumer()
    ids = [Acknowledged(LEDGER, 1), Acknowledged(LEDGER, 2, [-1, 5]), Acknowledged(-1, -1)]
    consumer.acknowledge(ids, cumulative=False)
    theirs = house.sibling.subscribed[0]
    await house.until(lambda: len(theirs.acks) == 3)
    assert [(each.ledger, each.entry, list(each.ack_set)) for each in theirs.acks] == [
        (LEDGER, 1, []),
        (LEDGER, 2, [-1, 5]),
        (-1, -1, []),
    ]


async def test_a_long_acknowledgement_goes_in_several_commands(house: House) -> None:
    consumer, _ = await house.far_consumer()
    many = [Acknowledged(LEDGER, entry, [-1] * 10) for entry in range(12_000)]
    consumer.acknowledge(many, cumulative=False)
    theirs = house.sibling.subscribed[0]
    await house.until(lambda: len(theirs.acks) == 12_000)
    assert [each.entry for each in theirs.acks] == list(range(12_000))


async def test_one_that_no_command_holds_costs_its_client_and_not_the_link(house: House) -> None:
    consumer, ears = await house.far_consumer()
    with pytest.raises(NotAllowedError, match="limit"):
        consumer.acknowledge([Acknowledged(LEDGER, 1, [-1] * 200_000)], cumulative=False)
    consumer.acknowledge([Acknowledged(LEDGER, 1)], cumulative=False)
    await house.until(lambda: len(house.sibling.subscribed[0].acks) == 1)
    assert not ears.reasons


async def test_what_was_stored_under_larger_limits_can_still_be_read(make_house: MakeHouse) -> None:
    house = make_house(message_bytes_max=1024)
    run = run_of((0, 0), payload=bytes(100_000))
    house.sibling.topic("far").append(run.rows[:ROW_SIZE], bytes(run.body(0)))
    consumer, ears = await house.far_consumer()
    consumer.flow(1)
    await house.until(lambda: len(ears.bodies) == 1)
    assert ears.bodies[0] == bytes(run.body(0))


async def test_under_small_limits_a_long_command_is_refused_here_and_not_by_the_owner(
    make_house: MakeHouse,
) -> None:
    house = make_house(message_bytes_max=1024)
    consumer, ears = await house.far_consumer()
    many = [Acknowledged(LEDGER, entry) for entry in range(2_000)]
    with pytest.raises(NotAllowedError, match="limit"):
        consumer.acknowledge(many, cumulative=False)
    consumer.acknowledge(many[:100], cumulative=False)
    await house.until(lambda: len(house.sibling.subscribed[0].acks) == 100)
    assert not ears.reasons


async def test_a_cumulative_acknowledgement_goes_where_it_makes_sense(house: House) -> None:
    await house.fill(5)
    shared, _ = await house.far_consumer()
    with pytest.raises(NotAllowedError, match="SHARED"):
        shared.acknowledge([Acknowledged(LEDGER, 3)], cumulative=True)
    await shared.close()
    alone, _ = await house.far_consumer(type=SubscriptionType.EXCLUSIVE)
    alone.acknowledge([Acknowledged(LEDGER, 3)], cumulative=True)
    subscription = house.sibling.topic("far").subscriptions["s"]
    await house.until(lambda: subscription.acknowledged == {0, 1, 2, 3})


async def test_what_is_redelivered_says_how_often_it_was_sent(house: House) -> None:
    await house.fill(3)
    consumer, ears = await house.far_consumer()
    consumer.flow(10)
    await house.until(lambda: len(ears.entries) == 3)
    consumer.redeliver([EntryId(LEDGER, 1)], None)
    await house.until(lambda: len(ears.entries) == 4)
    assert ears.entries[3] == 1
    assert dict(ears.selections[-1].redeliveries) == {0: 1}
    consumer.redeliver(None, None)
    await house.until(lambda: len(ears.entries) == 7)


async def test_redelivery_of_everything_forgets_what_is_parked(house: House) -> None:
    await house.fill(20, payload=bytes(64 * 1024))
    consumer, ears = await house.far_consumer()
    ears.has_room = False
    consumer.flow(30)
    await house.until(lambda: house.remote._parking.bytes > 0)
    consumer.redeliver(None, None)
    assert house.remote._parking.bytes == 0
    seen = len(ears.entries)
    ears.has_room = True
    consumer.resume()
    consumer.flow(30)
    await house.until(lambda: sorted(set(ears.entries[seen:])) == list(range(20)))
    await house.settle()
    left = consumer._wanted + consumer._granted
    assert left == 60 - len(ears.entries), "the client's permits still hold"


async def test_everything_that_was_asked_for_is_asked_of_the_owner(house: House) -> None:
    await house.far_consumer(
        type=SubscriptionType.KEY_SHARED,
        consumer_name="me",
        priority=2,
        durable=False,
        from_earliest=False,
        start=LATEST,
        start_ack_set=(3, -1),
        rollback_seconds=9,
        read_compacted=True,
        create_topic=False,
        key_shared=KeyShared([(0, 10), (20, 30)], sticky=True, allow_out_of_order=True),
        properties={"a": "b"},
        metadata={"c": "d"},
        epoch=4,
        schema=Schema(SchemaType.AUTO_CONSUME),
    )
    asked = house.sibling.subscribed[0].request
    assert asked.schema == Schema(SchemaType.AUTO_CONSUME)
    assert (asked.type, asked.consumer_name, asked.priority) == (
        SubscriptionType.KEY_SHARED,
        "me",
        2,
    )
    assert not asked.durable
    assert not asked.from_earliest
    assert asked.start == LATEST
    assert list(asked.start_ack_set) == [3, -1]
    assert asked.rollback_seconds == 9
    assert asked.read_compacted
    assert not asked.create_topic
    assert asked.key_shared == KeyShared([(0, 10), (20, 30)], sticky=True, allow_out_of_order=True)
    assert (asked.properties, asked.metadata, asked.epoch) == ({"a": "b"}, {"c": "d"}, 4)


async def test_who_is_served_of_an_exclusive_subscription_is_told(house: House) -> None:
    _, ears = await house.far_consumer(type=SubscriptionType.FAILOVER)
    _, other = await house.far_consumer(type=SubscriptionType.FAILOVER)
    await house.until(lambda: ears.said == [True] and other.said == [False])


async def test_the_end_of_a_topic_comes_behind_what_is_parked(house: House) -> None:
    await house.fill(20, payload=bytes(16 * 1024))
    consumer, ears = await house.far_consumer()
    ears.has_room = False
    consumer.flow(20)
    await house.settle()
    house.sibling.subscribed[0].events.end_of_topic()
    await house.settle()
    assert "end" not in ears.said
    ears.has_room = True
    consumer.resume()
    await house.until(lambda: "end" in ears.said)


async def test_a_seek_closes_the_consumer_without_a_reason_and_then_returns(house: House) -> None:
    await house.fill(5)
    consumer, ears = await house.far_consumer()
    await consumer.seek(EntryId(LEDGER, 2), [7], None)
    assert ears.reasons == [None]
    assert house.sibling.subscribed[0].seeks == [(EntryId(LEDGER, 2), (7,), None)]
    again, ears = await house.far_consumer()
    again.flow(10)
    await house.until(lambda: ears.entries == [2, 3, 4])
    await again.seek(None, (), 1_700_000_000_000)
    assert house.sibling.subscribed[1].seeks == [(None, (), 1_700_000_000_000)]


async def test_the_last_message_is_what_the_owner_says(house: House) -> None:
    consumer, _ = await house.far_consumer()
    assert (await consumer.last_message()).entry == EntryId(-1, -1)
    await house.fill(5)
    last = await consumer.last_message()
    assert last.entry == EntryId(LEDGER, 4)
    assert last.batch_size == 0


async def test_figures_are_those_the_owner_reported_last(house: House) -> None:
    await house.fill(5)
    consumer, _ = await house.far_consumer(consumer_name="me", client_address="1.2.3.4:5")
    first = consumer.stats()
    assert (first.name, first.backlog, first.address) == ("me", 0, "1.2.3.4:5")
    await house.until(lambda: consumer.stats().backlog == 5)
    figures = consumer.stats()
    assert (figures.message_rate, figures.byte_rate, figures.ack_rate) == (1.5, 2.5, 0.5)
    assert figures.address == "1.2.3.4:5"


async def test_unsubscribing_needs_the_subscription_for_oneself_or_force(house: House) -> None:
    consumer, ears = await house.far_consumer()
    other, other_ears = await house.far_consumer()
    with pytest.raises(ConsumerBusyError, match="connected"):
        await consumer.unsubscribe(force=False)
    await other.close()
    await consumer.unsubscribe(force=False)
    assert "s" not in house.sibling.topic("far").subscriptions
    assert not ears.reasons
    assert not other_ears.reasons


async def test_what_a_closed_consumer_had_goes_to_another(house: House) -> None:
    await house.fill(20)
    consumer, ears = await house.far_consumer()
    consumer.flow(20)
    await house.until(lambda: len(ears.entries) == 20)
    await consumer.close()
    await consumer.close()
    _, other = await _with_permits(house)
    await house.until(lambda: sorted(other.entries) == list(range(20)))


async def test_a_lost_sibling_closes_its_consumers(make_house: MakeHouse) -> None:
    house = make_house()
    consumer, ears = await house.far_consumer()
    house.cut()
    await house.until(lambda: bool(ears.reasons))
    assert isinstance(ears.reasons[0], ServiceNotReadyError)
    await consumer.close()
    with pytest.raises(ServiceNotReadyError):
        await consumer.last_message()


async def test_one_that_nobody_waits_for_any_more_is_closed_once_it_is_open(house: House) -> None:
    house.sibling.gate = asyncio.Event()
    opening = asyncio.create_task(house.far_consumer())
    await house.settle()
    opening.cancel()
    await asyncio.wait([opening])
    house.sibling.gate.set()
    await house.until(lambda: bool(house.sibling.subscribed))
    await house.until(lambda: house.sibling.subscribed[0].closed)


async def _with_permits(house: House) -> tuple[RemoteConsumer, ConsumerEars]:
    consumer, ears = await house.far_consumer()
    consumer.flow(1_000)
    return consumer, ears
