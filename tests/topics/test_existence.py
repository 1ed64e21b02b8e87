"""Which topics there are, and which are made by asking for them."""

import asyncio
from pathlib import Path

import pytest

from magnetar.broker.clock import ManualClock
from magnetar.broker.config import BrokerConfig
from magnetar.broker.metadata.documents import encode
from magnetar.broker.metadata.facts import AlreadyExistsError
from magnetar.broker.metadata.first_start import prepare
from magnetar.broker.metadata.memory import MemoryStore
from magnetar.broker.metadata.partitions import Partitions
from magnetar.broker.metadata.policies import AutoTopicCreation, Policies
from magnetar.broker.metadata.store import Put, Versioned
from magnetar.broker.port import (
    ListMode,
    NamespaceNotFoundError,
    NotAllowedError,
    TopicNotFoundError,
)
from magnetar.broker.topics.existence import Existence
from magnetar.names import NamespaceName, TopicName
from tests.topics.whole_core import DEFAULT, Core, set_policies


def named(text: str) -> TopicName:
    return TopicName.parse(text)


# --- which topics there are


async def test_a_topic_is_made_by_asking_for_it(core: Core) -> None:
    await core.producer("t")
    assert await core.catalog.topics(DEFAULT, ListMode.ALL) == ["persistent://public/default/t"]


async def test_where_creation_is_off_a_topic_has_to_be_created_first(core: Core) -> None:
    await set_policies(core, auto_topic_creation=AutoTopicCreation(allowed=False))
    with pytest.raises(TopicNotFoundError):
        await core.producer("t")
    with pytest.raises(TopicNotFoundError):
        await core.catalog.partitions(named("t"), create=True)
    await core.catalog.create(named("t"))
    await core.producer("t")


async def test_a_consumer_may_ask_not_to_create_the_topic(core: Core) -> None:
    with pytest.raises(TopicNotFoundError):
        await core.consumer("t", create_topic=False)
    assert await core.catalog.topics(DEFAULT, ListMode.ALL) == []


async def test_a_tenant_or_namespace_that_is_missing_is_named(core: Core) -> None:
    for name in ("nobody/default/t", "public/nothing/t"):
        with pytest.raises(NamespaceNotFoundError):
            await core.catalog.locate(named(name))
        with pytest.raises(NamespaceNotFoundError):
            await core.catalog.partitions(named(name), create=True)
        with pytest.raises(NamespaceNotFoundError):
            await core.producer(name)
    with pytest.raises(NamespaceNotFoundError):
        await core.catalog.topics(NamespaceName("public", "nothing"), ListMode.ALL)


async def test_creating_a_topic_twice_is_refused(core: Core) -> None:
    await core.catalog.create(named("t"), {"owner": "me"})
    with pytest.raises(AlreadyExistsError):
        await core.catalog.create(named("t"))
    assert (await core.catalog.topic(named("t"))).properties == {"owner": "me"}


async def test_listing_shows_partitions_and_hides_system_topics(core: Core) -> None:
    await core.catalog.create_partitioned(named("p"), 2)
    await core.producer("__change_events")
    await core.producer("non-persistent://public/default/n")
    persistent = [f"persistent://public/default/p-partition-{i}" for i in range(2)]
    memory = ["non-persistent://public/default/n"]
    assert await core.catalog.topics(DEFAULT, ListMode.PERSISTENT) == persistent
    assert await core.catalog.topics(DEFAULT, ListMode.NON_PERSISTENT) == memory
    assert await core.catalog.topics(DEFAULT, ListMode.ALL) == sorted(persistent + memory)


async def test_a_non_persistent_topic_is_listed_only_while_it_is_loaded(core: Core) -> None:
    name = named("non-persistent://public/default/n")
    await core.producer(str(name))
    await core.catalog.unload(name)
    assert await core.catalog.topics(DEFAULT, ListMode.ALL) == []
    await core.producer(str(name))
    assert await core.catalog.topics(DEFAULT, ListMode.ALL) == [str(name)]
    await core.catalog.delete(name, force=True)
    assert await core.catalog.topics(DEFAULT, ListMode.ALL) == []


async def test_a_non_persistent_topic_is_not_listed_after_a_crash(
    core: Core, tmp_path: Path
) -> None:
    await core.producer("non-persistent://public/default/n")
    after = await core.crashed(tmp_path / "copy").start()
    assert await after.catalog.topics(DEFAULT, ListMode.ALL) == []
    await after.stop()


async def test_topics_of_one_namespace_are_not_listed_in_another(core: Core) -> None:
    await core.producer("public/functions/t")
    assert await core.catalog.topics(DEFAULT, ListMode.ALL) == []


async def test_a_namespace_may_limit_its_topics(core: Core) -> None:
    await set_policies(core, topics_per_namespace_max=2)
    await core.producer("a")
    await core.catalog.create(named("b"))
    with pytest.raises(NotAllowedError):
        await core.producer("c")
    await core.producer("a")


# --- partitioned topics


async def test_a_partitioned_topic_tells_how_many_partitions_it_has(core: Core) -> None:
    await core.catalog.create_partitioned(named("p"), 3)
    assert await core.catalog.partitions(named("p"), create=False) == 3
    assert await core.catalog.partitions(named("p-partition-2"), create=False) == 0


async def test_an_ordinary_topic_has_no_partitions(core: Core) -> None:
    assert await core.catalog.partitions(named("t"), create=True) == 0
    with pytest.raises(TopicNotFoundError):
        await core.catalog.partitions(named("t"), create=False)
    await core.producer("t")
    assert await core.catalog.partitions(named("t"), create=False) == 0


async def test_a_partition_past_the_end_does_not_exist(core: Core) -> None:
    await core.catalog.create_partitioned(named("p"), 3)
    with pytest.raises(TopicNotFoundError):
        await core.catalog.partitions(named("p-partition-3"), create=True)
    with pytest.raises(TopicNotFoundError):
        await core.producer("p-partition-3")
    await core.producer("p-partition-2")


async def test_a_partitioned_topic_is_used_through_its_partitions(core: Core) -> None:
    await core.catalog.create_partitioned(named("p"), 3)
    with pytest.raises(NotAllowedError):
        await core.producer("p")


async def test_topics_may_be_partitioned_by_asking_for_them_however_many_ask(core: Core) -> None:
    partitioned = AutoTopicCreation(topic_type="partitioned", partitions=4)
    await set_policies(core, auto_topic_creation=partitioned)
    asked = await asyncio.gather(
        *(core.catalog.partitions(named("p"), create=True) for _ in range(5))
    )
    assert asked == [4] * 5


async def test_partitions_that_were_added_can_be_used_at_once(core: Core) -> None:
    await core.catalog.create_partitioned(named("p"), 1)
    await Partitions(core.store).grow(named("p"), 2, 0)
    assert await core.catalog.partitions(named("p"), create=False) == 2
    await core.producer("p-partition-1")


async def test_partitions_of_a_non_persistent_topic_are_there_without_being_stored(
    core: Core,
) -> None:
    name = "non-persistent://public/default/p"
    await core.catalog.create_partitioned(named(name), 2)
    assert await core.catalog.partitions(named(f"{name}-partition-1"), create=False) == 0
    await core.producer(f"{name}-partition-1")
    with pytest.raises(TopicNotFoundError):
        await core.producer(f"{name}-partition-2")


# --- policies


async def test_policies_that_change_while_they_are_read_are_read_again() -> None:
    class SlowStore(MemoryStore):
        async def get(self, key: str) -> Versioned | None:
            found = await super().get(key)
            await asyncio.sleep(0.001)
            return found

    store = SlowStore()
    await prepare(store, "standalone")
    existence = Existence(store, BrokerConfig(data=Path("data")), ManualClock())
    reading = asyncio.ensure_future(existence.rules_of(DEFAULT))
    await asyncio.sleep(0)

    def change(policies: Policies) -> None:
        policies.message_ttl_s = 7

    store.watch("namespaces/", lambda _: existence.forget_rules(DEFAULT))
    key = f"namespaces/{DEFAULT}"
    policies = Policies()
    change(policies)
    await store.commit([Put(key, encode(policies))])
    await reading
    assert (await existence.rules_of(DEFAULT)).ttl_s == 7
