"""What a crash left in the journal is in the metadata before anybody serves a topic."""

from magnetar.broker.entry import EARLIEST, EntryId
from magnetar.broker.metadata.chains import Chain
from magnetar.broker.metadata.cursors import Cursors
from magnetar.broker.metadata.memory import MemoryStore
from magnetar.broker.metadata.namespaces import Namespaces
from magnetar.broker.metadata.partitions import Partitions, TopicRecord
from magnetar.broker.metadata.sequences import Checkpoint, load_sequences, save_sequences
from magnetar.broker.metadata.tenants import Tenant, Tenants
from magnetar.broker.storage.ledgers import Recovered
from magnetar.broker.topics.cursors.cursor import Cursor
from magnetar.broker.topics.subscriptions.recovered import cursor_of, save_recovered
from magnetar.names import NamespaceName, TopicName

TOPIC = TopicName.parse("orders")
OTHER = TopicName.parse("other")


class Flat:
    """One ledger without an end."""

    def next_position(self, position: EntryId) -> EntryId:
        return EntryId(max(position.ledger, 1), max(position.entry, 0))

    def distance(self, first: EntryId, end: EntryId) -> int:
        return max(end.entry - first.entry, 0)


async def store_with_topics() -> MemoryStore:
    store = MemoryStore()
    await Tenants(store).create("public", Tenant())
    await Namespaces(store).create(NamespaceName("public", "default"))
    for name in (TOPIC, OTHER):
        await Partitions(store).create_topic(name, TopicRecord())
    return store


def recovered(
    notes: list[tuple[int, bytes]] | None = None,
    producers: dict[int, dict[str, int]] | None = None,
    highest_ledger: int = 0,
) -> Recovered:
    return Recovered({}, producers or {}, notes or [], [], 0, 0.0, highest_ledger=highest_ledger)


async def reread(store: MemoryStore, topic: TopicName, number: int) -> Cursor:
    cursors = Cursors(store, topic)
    [record] = [each for each in await cursors.load() if each.id == number]
    return cursor_of(record, await cursors.pages(number))


async def test_the_notes_of_a_cursor_are_applied_in_their_order() -> None:
    store = await store_with_topics()
    record = await Cursors(store, TOPIC).create("s", EARLIEST, 0)
    cursor = cursor_of(record, {})
    notes = []
    for entry in (0, 1, 5, 7):
        cursor.acknowledge(1, entry, 1, Flat())
        notes.append((record.id, cursor.take_changes()))
    await save_recovered(store, recovered(notes))
    again = await reread(store, TOPIC, record.id)
    assert again.mark_delete == EntryId(1, 1)
    assert [tuple(each) for each in again.ranges()] == [(1, 5, 1), (1, 7, 1)]


async def test_recovering_twice_is_the_same_as_once() -> None:
    store = await store_with_topics()
    record = await Cursors(store, TOPIC).create("s", EARLIEST, 0)
    cursor = cursor_of(record, {})
    cursor.acknowledge(1, 3, 2, Flat())
    notes = [(record.id, cursor.take_changes())]
    cursor.acknowledge(1, 0, 3, Flat())
    notes.append((record.id, cursor.take_changes()))
    await save_recovered(store, recovered(notes))
    await save_recovered(store, recovered(notes[:1]))
    again = await reread(store, TOPIC, record.id)
    assert again.mark_delete == EntryId(1, 4)
    assert again.holes == 0


async def test_a_cursor_that_was_deleted_stays_deleted() -> None:
    store = await store_with_topics()
    cursors = Cursors(store, TOPIC)
    record = await cursors.create("s", EARLIEST, 0)
    cursor = cursor_of(record, {})
    cursor.acknowledge(1, 3, 2, Flat())
    await cursors.delete(record.id)
    await save_recovered(store, recovered([(record.id, cursor.take_changes())]))
    assert await cursors.load() == []


async def test_a_note_that_cannot_be_read_costs_only_its_own_acknowledgements() -> None:
    store = await store_with_topics()
    record = await Cursors(store, TOPIC).create("s", EARLIEST, 0)
    cursor = cursor_of(record, {})
    cursor.acknowledge(1, 0, 2, Flat())
    await save_recovered(
        store, recovered([(record.id, b"\xff" * 9), (record.id, cursor.take_changes())])
    )
    assert (await reread(store, TOPIC, record.id)).mark_delete == EntryId(1, 1)


async def test_producers_keep_the_highest_of_checkpoint_and_journal() -> None:
    store = await store_with_topics()
    await save_sequences(store, [Checkpoint(TOPIC, {"a": 10, "b": 1})])
    chain = Chain(store, TOPIC)
    ledgers = [await chain.extend(0, 0), await chain.extend(5, 0)]
    elsewhere = await Chain(store, OTHER).extend(0, 0)
    await save_recovered(
        store,
        recovered(
            producers={
                ledgers[0]: {"a": 9, "c": 4},
                ledgers[1]: {"b": 7, "c": 6},
                elsewhere: {"a": 99},
                12345: {"a": 98},
            }
        ),
    )
    assert await load_sequences(store, TOPIC) == {"a": 10, "b": 7, "c": 6}
    assert await load_sequences(store, OTHER) == {"a": 99}


async def test_ledger_ids_found_on_the_disk_are_not_given_out_again() -> None:
    store = await store_with_topics()
    await save_recovered(store, recovered(highest_ledger=41))
    assert await Chain(store, TOPIC).extend(0, 0) == 42


async def test_cursor_ids_found_in_the_journal_are_not_given_out_again() -> None:
    store = await store_with_topics()
    await save_recovered(store, recovered(notes=[(41, b"")]))
    assert (await Cursors(store, TOPIC).create("s", EARLIEST, 0)).id == 42
