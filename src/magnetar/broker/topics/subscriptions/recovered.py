"""What the journal knew about cursors and producers, made durable in the metadata.

    notes      (cursor id, changes) ...      ──▶ applied to the cursor's last snapshot, in order
    producers  ledger -> name -> highest id  ──▶ merged into the topic's sequences

Runs between the replay of the journal and the first topic that is served, because whoever
serves a topic from now on, in this process or another, reads the metadata only. Only topics
that the journal mentions are touched, and none that another process has taken since: who hands
a topic over has saved all it knew, and who has it now may be serving it. Doing it again does no
harm: a change that the snapshot holds already is older than it, and of two sequence ids the
higher one stays.
"""

import logging
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet

from magnetar.broker.metadata import paths
from magnetar.broker.metadata.chains import reserve_ledgers_up_to
from magnetar.broker.metadata.cursors import CursorRecord, Cursors, CursorSnapshot, save_cursors
from magnetar.broker.metadata.facts import raise_counter
from magnetar.broker.metadata.sequences import Checkpoint, load_sequences, save_sequences
from magnetar.broker.metadata.store import Store, number_of
from magnetar.broker.storage.ledgers import Recovered
from magnetar.broker.topics.cursors.cursor import Cursor, CursorFormatError
from magnetar.broker.topics.producers.deduplication import merge
from magnetar.names import TopicName

logger = logging.getLogger(__name__)

BATCH_CURSORS = 1_000
"""Cursors whose pages are in memory at the same time."""

CHAINS = paths.LEDGERS
CURSORS = "cursors/"


async def save_recovered(store: Store, recovered: Recovered) -> None:
    """Make durable what came out of the journal.

    No id that has left a trace on the disk is given out again, whatever the metadata counts:
    it may be a copy that is older than the disk.
    """
    await reserve_ledgers_up_to(store, recovered.highest_ledger)
    if recovered.notes:
        highest = max(cursor for cursor, _ in recovered.notes)
        await raise_counter(store, paths.CURSOR_COUNTER, highest)
    if not recovered.producers and not recovered.notes:
        return
    elsewhere = await _elsewhere(store, recovered.journals)
    if recovered.producers:
        await _save_producers(store, recovered.producers, elsewhere)
    if recovered.notes:
        await _save_notes(store, recovered.notes, elsewhere)


async def _elsewhere(store: Store, journals: Collection[int]) -> set[str]:
    """Return the keys, without their kind, of topics that other workers have taken."""
    if not journals:
        return set()
    return {
        key.removeprefix(paths.OWNERS)
        for key, owner in await store.scan(paths.OWNERS)
        if int(owner.value) not in journals
    }


async def _save_producers(
    store: Store, producers: Mapping[int, Mapping[str, int]], elsewhere: AbstractSet[str]
) -> None:
    found: dict[TopicName, list[Mapping[str, int]]] = defaultdict(list)
    for key in await store.keys(CHAINS):
        names = producers.get(number_of(key))
        if names and _part(CHAINS, key) not in elsewhere:
            found[_topic_of(CHAINS, key)].append(names)
    checkpoints = [
        Checkpoint(topic, merge(await load_sequences(store, topic), *maps))
        for topic, maps in found.items()
    ]
    await save_sequences(store, checkpoints)


async def _save_notes(
    store: Store, notes: Sequence[tuple[int, bytes]], elsewhere: AbstractSet[str]
) -> None:
    by_cursor: dict[int, list[bytes]] = defaultdict(list)
    for cursor, changes in notes:
        by_cursor[cursor].append(changes)
    mentioned: dict[TopicName, set[int]] = defaultdict(set)
    for key in await store.keys(CURSORS):
        if number_of(key) in by_cursor and _part(CURSORS, key) not in elsewhere:
            mentioned[_topic_of(CURSORS, key)].add(number_of(key))
    snapshots: list[CursorSnapshot] = []
    for topic, wanted in mentioned.items():
        cursors = Cursors(store, topic)
        for record in await cursors.load():
            if record.id in wanted:
                pages = await cursors.pages(record.id)
                snapshots.append(_replayed(topic, record, pages, by_cursor[record.id]))
        if len(snapshots) >= BATCH_CURSORS:
            await save_cursors(store, snapshots)
            snapshots = []
    await save_cursors(store, snapshots)


def _replayed(
    topic: TopicName,
    record: CursorRecord,
    pages: Mapping[tuple[int, int], bytes],
    notes: Sequence[bytes],
) -> CursorSnapshot:
    cursor = cursor_of(record, pages)
    for changes in notes:
        try:
            cursor.apply(changes)
        except CursorFormatError:
            # Entries that were acknowledged come again. Refusing to start would help nobody.
            logger.exception("topic %s: changes of cursor %r are lost", topic, record.subscription)
    return snapshot_of(topic, record, cursor)


def cursor_of(record: CursorRecord, pages: Mapping[tuple[int, int], bytes]) -> Cursor:
    """Return a cursor as it was when its last snapshot was taken."""
    return Cursor.from_pages(record.mark, record.version, pages)


def snapshot_of(
    topic: TopicName, record: CursorRecord, cursor: Cursor, *, everything: bool = False
) -> CursorSnapshot:
    """Return what has to be written of a cursor; it counts as taken from now on."""
    state = cursor.take_pages(everything=everything)
    now = CursorRecord(
        id=record.id,
        subscription=record.subscription,
        mark_ledger=state.mark_delete.ledger,
        mark_entry=state.mark_delete.entry,
        version=state.version,
        properties=record.properties,
        created_ms=record.created_ms,
    )
    return CursorSnapshot(topic, now, state.pages, all_pages=everything)


def _topic_of(kind: str, key: str) -> TopicName:
    return paths.topic_name(kind, key.rpartition("/")[0])


def _part(kind: str, key: str) -> str:
    """Return the part of a key that stands for the topic."""
    return key.removeprefix(kind).rpartition("/")[0]
