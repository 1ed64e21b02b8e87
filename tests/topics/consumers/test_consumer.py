"""A consumer gets what it has permits for, unless too much is unacknowledged."""

from magnetar.broker.port import SubscriptionType
from tests.topics.stage import Guest, Stage


async def guest_with(permits: int) -> Guest:
    stage = Stage()
    return stage.join(await stage.subscription(), SubscriptionType.SHARED, permits=permits)


async def test_room_is_the_permits_or_what_is_left_to_the_limit() -> None:
    consumer = (await guest_with(50)).consumer
    consumer.unacked_messages = 80
    assert consumer.room(0) == 50
    assert consumer.room(100) == 20
    assert consumer.room(1_000) == 50


async def test_a_blocked_consumer_has_room_again_at_half_the_limit() -> None:
    consumer = (await guest_with(50)).consumer
    rooms = []
    for unacked in (100, 99, 51, 50, 99):
        consumer.unacked_messages = unacked
        rooms.append(consumer.room(100))
    assert rooms == [0, 0, 0, 50, 1]


async def test_a_congested_consumer_has_no_room() -> None:
    consumer = (await guest_with(50)).consumer
    consumer.congested = True
    assert consumer.room(0) == 0


async def test_permits_of_nobody_or_nothing_change_nothing() -> None:
    guest = await guest_with(5)
    guest.consumer.flow(-3)
    guest.consumer.flow(0)
    assert guest.consumer.permits == 5
