"""Rates on a whole core: who is kept waiting, and what is sent when."""

import asyncio
from collections.abc import Callable

import pytest

from magnetar.broker.metadata.policies import (
    DelayedDelivery,
    DispatchRate,
    Policies,
    PublishRate,
    SubscribeRate,
)
from magnetar.broker.port import MetadataError, NotAllowedError, SubscriptionType
from magnetar.broker.topics.limits.rates import BURST, Limit
from magnetar.names import TopicName
from tests.topics.whole_core import Client, Core, enact_policies

T = TopicName.parse("t")


async def set_on_topic(core: Core, **fields: object) -> None:
    def change(policies: Policies) -> None:
        for name, value in fields.items():
            setattr(policies, name, value)

    await core.catalog._existence.partitions.policies.update(T, change)
    await core.settled()


def stopwatch() -> Callable[[], float]:
    """Return what tells how long ago it was made, in seconds."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    return lambda: loop.time() - began_s


async def listening(core: Core, topic: str = "t") -> tuple[Client, list[float]]:
    """A producer whose door writes down how long it is to wait."""
    client = await core.producer(topic)
    waits: list[float] = []
    client.producer.throttle = waits.append  # type: ignore[attr-defined]
    await client.send("first", first_sequence_id=0)
    return client, waits


async def test_a_producer_that_is_too_fast_waits_until_its_debt_is_paid(core: Core) -> None:
    client, waits = await listening(core)
    await set_on_topic(core, publish_rate={"standalone": PublishRate(messages_max=100)})
    await client.send(*map(str, range(50)), first_sequence_id=1)
    assert waits[0] == 0.0  # be ready
    assert 0.3 < waits[-1] < 0.51
    assert (await core.catalog.topic(T)).stats()["publishRateLimitedTimes"] >= 1


async def test_a_rate_of_one_topic_concerns_no_other(core: Core) -> None:
    client, waits = await listening(core, "other")
    await core.producer("t")
    await set_on_topic(core, publish_rate={"standalone": PublishRate(messages_max=1)})
    await client.send(*map(str, range(50)), first_sequence_id=1)
    assert waits == []
    other = await core.catalog.topic(TopicName.parse("other"))
    assert other.inlet.gate is None
    assert other.stats()["publishRateLimitedTimes"] == 0


async def test_producers_are_at_ease_when_the_rate_is_lifted(core: Core) -> None:
    client, waits = await listening(core)
    await enact_policies(core, publish_rate={"standalone": PublishRate(bytes_max=100)})
    await client.send("x" * 1000, first_sequence_id=1)
    assert waits[-1] > 8
    await enact_policies(core, publish_rate=None)
    assert waits[-1] < 0
    count = len(waits)
    await client.send("x" * 1000, first_sequence_id=2)
    assert len(waits) == count


async def test_topics_that_share_a_limit_are_measured_together(core: Core) -> None:
    one, waits = await listening(core, "one")
    two, _ = await listening(core, "two")
    await enact_policies(core, resource_group="gold")
    core.catalog.shared.limit_group("gold", Limit(messages=100), Limit())
    passed_s = stopwatch()
    await one.send(*map(str, range(30)), first_sequence_id=1)
    await two.send(*map(str, range(30)), first_sequence_id=1)
    await one.send("x", first_sequence_id=31)
    assert 0.6 - BURST - passed_s() < waits[-1] < 0.62
    assert len(waits) > 1


@pytest.mark.parametrize("kind", list(SubscriptionType))
async def test_a_subscription_gets_what_the_rate_allows_and_then_all(
    core: Core, kind: SubscriptionType
) -> None:
    client, _ = await listening(core)
    await client.send(*map(str, range(59)), first_sequence_id=1)
    await set_on_topic(core, dispatch_rate={"standalone": DispatchRate(messages_max=100)})
    passed_s = stopwatch()
    listener = await core.consumer("t", from_earliest=True, type=kind)
    for count in (10, 20, 40, 60):
        await listener.bodies(count)
        assert len(listener.door.received) <= 100 * (passed_s() + BURST) + 1
    assert passed_s() > 0.4


async def test_bytes_are_counted_too(core: Core) -> None:
    client, _ = await listening(core)
    await client.send(*("x" * 1000 for _ in range(20)), first_sequence_id=1)
    await set_on_topic(
        core, subscription_dispatch_rate={"standalone": DispatchRate(bytes_max=10_000)}
    )
    passed_s = stopwatch()
    listener = await core.consumer("t", from_earliest=True, type=SubscriptionType.SHARED)
    await listener.bodies(4)
    assert len(listener.door.received) <= 10 * (passed_s() + BURST) + 2
    await set_on_topic(core, subscription_dispatch_rate=None)
    await listener.bodies(21)


async def test_one_subscription_may_be_slower_than_the_others(core: Core) -> None:
    client, _ = await listening(core)
    await client.send(*map(str, range(49)), first_sequence_id=1)
    await set_on_topic(core, own_dispatch_rates={"slow": DispatchRate(messages_max=20)})
    passed_s = stopwatch()
    slow = await core.consumer("t", "slow", from_earliest=True)
    fast = await core.consumer("t", "fast", from_earliest=True)
    await fast.bodies(50)
    await slow.bodies(5)
    assert len(slow.door.received) <= 20 * (passed_s() + BURST) + 2


async def test_a_producer_that_does_not_encrypt_goes_when_it_has_to(core: Core) -> None:
    plain = await core.producer("t", "plain")
    secret = await core.producer("t", "secret", encrypted=True)
    await enact_policies(core, encryption_required=True)
    assert [type(reason) for reason in plain.door.reasons] == [MetadataError]
    assert secret.door.reasons == []
    await secret.send("x")


async def test_a_message_that_is_too_large_or_delayed_for_too_long_is_refused_alone(
    core: Core,
) -> None:
    client, _ = await listening(core)
    await set_on_topic(
        core, message_bytes_max=10, delayed_delivery=DelayedDelivery(delay_ms_max=1000)
    )
    await client.send("x" * 10, first_sequence_id=1)
    with pytest.raises(NotAllowedError, match="11 bytes, the limit of this topic is 10"):
        await client.send("x" * 11, first_sequence_id=2)
    await client.send("after", first_sequence_id=3)


async def test_a_consumer_may_subscribe_only_so_often(core: Core) -> None:
    await core.producer("t")
    await set_on_topic(core, subscribe_rate={"standalone": SubscribeRate(subscribes_max=2)})
    for _ in range(2):
        await (await core.consumer("t", consumer_name="eager")).consumer.close()
    with pytest.raises(NotAllowedError, match="wait"):
        await core.consumer("t", consumer_name="eager")
    await core.consumer("t", consumer_name="patient")
