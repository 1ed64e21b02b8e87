"""Topics that are nowhere but in memory, and still seen by every process."""

from magnetar.broker.metadata.live import Live
from magnetar.broker.metadata.store import Store
from magnetar.names import NamespaceName, TopicName

NAMESPACE = NamespaceName("t", "n")
ONE = TopicName.parse("non-persistent://t/n/one")
TWO = TopicName.parse("non-persistent://t/n/two with blanks")


async def test_a_topic_is_listed_from_when_it_is_added_until_it_is_removed(store: Store) -> None:
    live, other_process = Live(store), Live(store)
    await live.add(TWO)
    await live.add(ONE)
    await live.add(ONE)
    assert await other_process.list(NAMESPACE) == [ONE, TWO]
    assert await other_process.has(ONE)
    await live.remove(ONE)
    assert await other_process.list(NAMESPACE) == [TWO]
    assert not await other_process.has(ONE)


async def test_removing_what_is_not_there_does_no_harm(store: Store) -> None:
    await Live(store).remove(ONE)


async def test_each_namespace_has_its_own(store: Store) -> None:
    await Live(store).add(ONE)
    assert await Live(store).list(NamespaceName("t", "n2")) == []


async def test_an_owner_removes_what_it_left_behind_and_nothing_else(store: Store) -> None:
    live = Live(store)
    await live.add(ONE)
    await live.add(TWO)
    await live.remove_all(lambda topic: topic == ONE)
    assert await live.list(NAMESPACE) == [TWO]
    await live.remove_all(lambda topic: topic == ONE)
