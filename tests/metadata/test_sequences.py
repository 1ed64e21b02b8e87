"""What deduplication must not forget."""

import pytest

from magnetar.broker.metadata import sequences as module
from magnetar.broker.metadata.namespaces import Namespaces
from magnetar.broker.metadata.partitions import Partitions, TopicRecord
from magnetar.broker.metadata.sequences import Checkpoint, load_sequences, save_sequences
from magnetar.broker.metadata.store import Store
from magnetar.broker.metadata.tenants import Tenant, Tenants
from magnetar.names import NamespaceName, TopicName

ONE, TWO = TopicName.parse("persistent://t/n/one"), TopicName.parse("persistent://t/n/two")


@pytest.fixture(autouse=True)
async def topics(store: Store) -> None:
    await Tenants(store).create("t", Tenant())
    await Namespaces(store).create(NamespaceName("t", "n"))
    for topic in (ONE, TWO):
        await Partitions(store).create_topic(topic, TopicRecord())


async def test_checkpoints_of_several_topics_add_up(store: Store) -> None:
    await save_sequences(store, [Checkpoint(ONE, {"a": 1, "b/c": 2}), Checkpoint(TWO, {"a": 7})])
    await save_sequences(store, [Checkpoint(ONE, {"a": 5, "": 0})])
    assert await load_sequences(store, ONE) == {"": 0, "a": 5, "b/c": 2}
    assert await load_sequences(store, TWO) == {"a": 7}


async def test_a_deleted_topic_is_left_out_of_a_late_checkpoint(store: Store) -> None:
    await Partitions(store).delete_topic(ONE)
    await save_sequences(store, [Checkpoint(ONE, {"a": 1}), Checkpoint(TWO, {"a": 2})])
    assert await load_sequences(store, ONE) == {}
    assert await load_sequences(store, TWO) == {"a": 2}


async def test_a_large_checkpoint_is_spread_over_several_commits(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SAVE_PRODUCERS_MAX", 3)
    highest = {f"p{each}": each for each in range(10)}
    await save_sequences(store, [Checkpoint(ONE, highest), Checkpoint(TWO, highest)])
    assert await load_sequences(store, ONE) == highest
    assert await load_sequences(store, TWO) == highest
