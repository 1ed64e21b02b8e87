"""Cursor snapshots."""

import pytest

from magnetar.broker.entry import EARLIEST, EntryId
from magnetar.broker.metadata import cursors as module
from magnetar.broker.metadata.cursors import CursorRecord, Cursors, CursorSnapshot, save_cursors
from magnetar.broker.metadata.namespaces import Namespaces
from magnetar.broker.metadata.partitions import Partitions, TopicRecord
from magnetar.broker.metadata.store import Store
from magnetar.broker.metadata.tenants import Tenant, Tenants
from magnetar.broker.port import TopicNotFoundError
from magnetar.names import NamespaceName, TopicName

TOPIC = TopicName.parse("persistent://t/n/x")


@pytest.fixture
async def cursors(store: Store) -> Cursors:
    await Tenants(store).create("t", Tenant())
    await Namespaces(store).create(NamespaceName("t", "n"))
    await Partitions(store).create_topic(TOPIC, TopicRecord())
    return Cursors(store, TOPIC)


async def test_a_cursor_is_created_where_it_was_put_and_found_again(cursors: Cursors) -> None:
    one = await cursors.create("a/b c", EntryId(3, 4), created_ms=9, properties={"k": "v"})
    two = await cursors.create("other", EARLIEST, created_ms=9)
    assert await cursors.load() == [one, two]
    assert one.mark == EntryId(3, 4)
    assert two.mark == EARLIEST
    assert two.id > one.id


async def test_a_snapshot_of_many_cursors_is_all_there(store: Store, cursors: Cursors) -> None:
    records = [await cursors.create(f"s{each}", EARLIEST, created_ms=1) for each in range(50)]
    moved = [
        CursorRecord(id=each.id, subscription=each.subscription, mark_ledger=1, mark_entry=each.id)
        for each in records
    ]
    await save_cursors(store, (CursorSnapshot(TOPIC, each, {(1, 9): b"x"}) for each in moved))
    assert await cursors.load() == moved
    assert await cursors.pages(records[7].id) == {(1, 9): b"x"}


async def test_only_changed_pages_are_touched(store: Store, cursors: Cursors) -> None:
    record = await cursors.create("s", EARLIEST, created_ms=1)
    await save_cursors(
        store, [CursorSnapshot(TOPIC, record, {(1, 0): b"a", (1, 1): b"b", (2, 0): b"c"})]
    )
    await save_cursors(store, [CursorSnapshot(TOPIC, record, {(1, 1): b"B", (2, 0): None})])
    assert await cursors.pages(record.id) == {(1, 0): b"a", (1, 1): b"B"}


async def test_after_a_reset_only_the_given_pages_are_left(store: Store, cursors: Cursors) -> None:
    record = await cursors.create("s", EARLIEST, created_ms=1)
    other = await cursors.create("t", EARLIEST, created_ms=1)
    for each in (record, other):
        await save_cursors(store, [CursorSnapshot(TOPIC, each, {(1, 0): b"a", (1, 1): b"b"})])
    await save_cursors(store, [CursorSnapshot(TOPIC, record, {(3, 0): b"z"}, all_pages=True)])
    assert await cursors.pages(record.id) == {(3, 0): b"z"}
    assert len(await cursors.pages(other.id)) == 2


async def test_a_deleted_cursor_is_not_brought_back_by_a_late_snapshot(
    store: Store, cursors: Cursors
) -> None:
    gone = await cursors.create("gone", EARLIEST, created_ms=1)
    stays = await cursors.create("stays", EARLIEST, created_ms=1)
    await save_cursors(store, [CursorSnapshot(TOPIC, gone, {(1, 0): b"a"})])
    await cursors.delete(gone.id)
    await save_cursors(
        store, [CursorSnapshot(TOPIC, each, {(1, 0): b"b"}) for each in (gone, stays)]
    )
    assert await cursors.load() == [stays]
    assert await cursors.pages(gone.id) == {}
    assert await cursors.pages(stays.id) == {(1, 0): b"b"}


async def test_a_topic_that_is_gone_gets_no_cursor(store: Store, cursors: Cursors) -> None:
    await Partitions(store).delete_topic(TOPIC)
    with pytest.raises(TopicNotFoundError, match="does not exist"):
        await cursors.create("s", EARLIEST, created_ms=1)


async def test_a_large_snapshot_is_spread_over_several_commits(
    store: Store, cursors: Cursors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SAVE_BYTES_MAX", 1000)
    records = [await cursors.create(f"s{each}", EARLIEST, created_ms=1) for each in range(10)]
    page = bytes(600)
    await save_cursors(store, [CursorSnapshot(TOPIC, each, {(1, 0): page}) for each in records])
    for record in records:
        assert await cursors.pages(record.id) == {(1, 0): page}
