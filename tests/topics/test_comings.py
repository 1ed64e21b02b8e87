"""Topics that come and go are told to whoever watches their namespace."""

import asyncio
from collections.abc import Mapping

import pytest

from magnetar.broker.metadata.first_start import prepare
from magnetar.broker.metadata.memory import MemoryStore
from magnetar.broker.metadata.partitions import Partitions, TopicRecord
from magnetar.broker.metadata.store import StoreUnavailableError
from magnetar.broker.topics import comings as comings_module
from magnetar.broker.topics.comings import Comings
from magnetar.names import NamespaceName, TopicName
from tests.topics.whole_core import Core

DEFAULT = NamespaceName("public", "default")


class Ear:
    """What one watcher was told, in order."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, bool]] = []
        self.calls = 0

    def __call__(self, news: Mapping[str, bool]) -> None:
        self.calls += 1
        self.heard += [(name.rpartition("/")[2], there) for name, there in news.items()]

    async def until(self, *wanted: tuple[str, bool]) -> None:
        async with asyncio.timeout(30):
            while not set(wanted) <= set(self.heard):  # noqa: ASYNC110 - heard in a callback
                await asyncio.sleep(0.005)


def topic(name: str) -> TopicName:
    return TopicName.parse(name)


async def test_a_topic_that_is_made_or_deleted_is_told(core: Core) -> None:
    ear = Ear()
    core.catalog.watch_topics(DEFAULT, ear)
    await core.catalog.create(topic("a"))
    await ear.until(("a", True))
    await core.catalog.delete(topic("a"))
    await ear.until(("a", False))


async def test_every_partition_is_told(core: Core) -> None:
    ear = Ear()
    core.catalog.watch_topics(DEFAULT, ear)
    await core.catalog.create_partitioned(topic("p"), 3)
    await ear.until(*((f"p-partition-{i}", True) for i in range(3)))
    assert ("p", True) not in ear.heard


async def test_a_non_persistent_topic_is_told_while_somebody_uses_it(core: Core) -> None:
    ear = Ear()
    core.catalog.watch_topics(DEFAULT, ear)
    name = topic("non-persistent://public/default/n")
    await core.producer(str(name))
    await ear.until(("n", True))
    await core.catalog.unload(name)
    await ear.until(("n", False))


async def test_other_namespaces_system_topics_and_who_stopped_hear_nothing(core: Core) -> None:
    ear, elsewhere, stopped = Ear(), Ear(), Ear()
    core.catalog.watch_topics(DEFAULT, ear)
    core.catalog.watch_topics(NamespaceName("public", "functions"), elsewhere)
    core.catalog.watch_topics(DEFAULT, stopped)()
    await core.catalog.create(topic("__change_events"))
    await core.catalog.create(topic("a"))
    await ear.until(("a", True))
    assert (ear.heard, elsewhere.heard, stopped.heard) == ([("a", True)], [], [])


async def test_changes_that_come_close_together_are_told_together(core: Core) -> None:
    ear = Ear()
    core.catalog.watch_topics(DEFAULT, ear)
    await asyncio.gather(*(core.catalog.create(topic(f"t{i}")) for i in range(50)))
    await ear.until(*((f"t{i}", True) for i in range(50)))
    assert ear.calls <= 5


async def test_a_watcher_that_fails_keeps_no_other_from_hearing(core: Core) -> None:
    def fail(_: Mapping[str, bool]) -> None:
        raise RuntimeError("deaf")

    ear = Ear()
    core.catalog.watch_topics(DEFAULT, fail)
    core.catalog.watch_topics(DEFAULT, ear)
    await core.catalog.create(topic("a"))
    await ear.until(("a", True))


async def test_news_that_cannot_be_looked_up_are_told_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(comings_module, "RETRY_S", 0.01)
    store, failures = MemoryStore(), [StoreUnavailableError("locked")]

    async def is_there(_: TopicName) -> bool:
        if failures:
            raise failures.pop()
        return True

    comings, ear = Comings(store, is_there, asyncio.get_running_loop()), Ear()
    stop = comings.watch(DEFAULT, ear)
    await store_topic(store, "a")
    await ear.until(("a", True))
    stop()
    comings.stop()


async def store_topic(store: MemoryStore, name: str) -> None:
    await prepare(store, "standalone")
    await Partitions(store).create_topic(topic(name), TopicRecord())
