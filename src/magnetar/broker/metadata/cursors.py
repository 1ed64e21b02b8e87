"""Cursors: how far each durable subscription is, as a snapshot.

    cursors/<topic>/<cursor>         name, mark-delete position, version, properties
    pages/<cursor>/<ledger>/<page>   acknowledged entries ahead of the mark, as opaque bytes

Changes between two snapshots ride in the journal; a snapshot is taken before the journal
files that hold them are reused. What has changed in many cursors goes into one commit, and
of a cursor with a million holes only the pages that changed.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from magnetar.broker.entry import EARLIEST, EntryId
from magnetar.broker.metadata import paths
from magnetar.broker.metadata.documents import decode, encode
from magnetar.broker.metadata.facts import commit_where_present, revise
from magnetar.broker.metadata.store import (
    PRESENT,
    Append,
    Change,
    Check,
    ConflictError,
    Delete,
    DeleteAll,
    Put,
    Store,
    number_of,
    numbered,
)
from magnetar.broker.port import TopicNotFoundError
from magnetar.names import TopicName

SAVE_BYTES_MAX = 8 * 2**20
"""One commit of `save_cursors` holds about this much, so that none holds up the others."""


class _Cursor(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What is stored under `cursors/<topic>/<cursor>`."""

    subscription: str
    mark_ledger: int
    mark_entry: int
    version: int = 0
    properties: dict[str, str] = {}
    created_ms: int = 0


class CursorRecord(msgspec.Struct, kw_only=True, frozen=True):
    """One durable subscription."""

    id: int
    """Unique among all cursors of all topics, for ever: it names the cursor in the journal."""
    subscription: str
    mark_ledger: int = EARLIEST.ledger
    mark_entry: int = EARLIEST.entry
    version: int = 0
    """Counts the changes of the cursor: a note in the journal with a lower one is older."""
    properties: dict[str, str] = {}
    created_ms: int = 0

    @property
    def mark(self) -> EntryId:
        """The mark-delete position: everything up to and including it is acknowledged."""
        return EntryId(self.mark_ledger, self.mark_entry)


class CursorSnapshot(NamedTuple):
    """What has changed in one cursor since its last snapshot."""

    topic: TopicName
    record: CursorRecord
    pages: Mapping[tuple[int, int], bytes | None] = {}
    """(ledger, page) -> bytes; None: the page is gone. Pages left out stay as they are."""
    all_pages: bool = False
    """True: `pages` is everything; whatever else is stored goes (after a reset, say)."""


class Cursors:
    """The durable subscriptions of one topic."""

    def __init__(self, store: Store, topic: TopicName) -> None:
        self._store = store
        self._topic = topic
        self._prefix = paths.cursors(topic)

    async def load(self) -> list[CursorRecord]:
        """Return all cursors, oldest first."""
        return [_record(key, found.value) for key, found in await self._store.scan(self._prefix)]

    async def pages(self, cursor: int) -> dict[tuple[int, int], bytes]:
        """Return the pages of one cursor by (ledger, page), in log order."""
        return {
            paths.page_of(key): found.value
            for key, found in await self._store.scan(paths.pages(cursor))
        }

    async def create(
        self,
        subscription: str,
        mark: EntryId,
        created_ms: int,
        properties: Mapping[str, str] | None = None,
    ) -> CursorRecord:
        """Add a cursor; return it with its id. It is durable then.

        The topic's owner makes sure that there is one per subscription.

        Raises:
            TopicNotFoundError: the topic does not exist (any more).
        """
        cursor = _Cursor(
            subscription=subscription,
            mark_ledger=mark.ledger,
            mark_entry=mark.entry,
            properties=dict(properties or {}),
            created_ms=created_ms,
        )
        try:
            _, number = await self._store.commit(
                [
                    Check(paths.topic(self._topic), PRESENT),
                    Append(paths.CURSOR_COUNTER, self._prefix, encode(cursor)),
                ]
            )
        except ConflictError:
            raise TopicNotFoundError(f"topic {self._topic} does not exist") from None
        assert number is not None
        return CursorRecord(id=number, **msgspec.structs.asdict(cursor))

    async def set_properties(self, cursor: int, properties: Mapping[str, str]) -> None:
        """Replace what was noted about a cursor. Durable when it returns.

        Raises:
            NotFoundError: it was deleted.
        """

        def change(stored: _Cursor) -> None:
            stored.properties = dict(properties)

        key = numbered(self._prefix, cursor)
        await revise(self._store, "the subscription", key, _Cursor, change)

    async def delete(self, cursor: int) -> None:
        """Remove a cursor with its pages."""
        await self._store.commit(
            [
                Delete(numbered(self._prefix, cursor)),
                DeleteAll(paths.pages(cursor)),
                DeleteAll(paths.all_transaction_acks(cursor)),
            ]
        )


async def save_cursors(store: Store, snapshots: Iterable[CursorSnapshot]) -> None:
    """Make snapshots of many cursors, of any topics, durable; return when all are.

    Each snapshot is whole or not there. A cursor that was deleted meanwhile stays deleted.
    """
    batch: dict[str, list[Change]] = {}
    size = 0
    for snapshot in snapshots:
        key = numbered(paths.cursors(snapshot.topic), snapshot.record.id)
        batch[key] = _changes(key, snapshot)
        size += sum(len(change.value) for change in batch[key] if isinstance(change, Put))
        if size >= SAVE_BYTES_MAX:
            await commit_where_present(store, batch)
            batch, size = {}, 0
    await commit_where_present(store, batch)


def _changes(key: str, snapshot: CursorSnapshot) -> list[Change]:
    record, prefix = snapshot.record, paths.pages(snapshot.record.id)
    fields = msgspec.structs.asdict(record)
    del fields["id"]  # it is in the key
    changes: list[Change] = [Put(key, encode(_Cursor(**fields)))]
    if snapshot.all_pages:
        changes.append(DeleteAll(prefix))
    for (ledger, page), value in snapshot.pages.items():
        place = paths.page(record.id, ledger, page)
        changes.append(Delete(place) if value is None else Put(place, value))
    return changes


def _record(key: str, value: bytes) -> CursorRecord:
    return CursorRecord(id=number_of(key), **msgspec.structs.asdict(decode(key, value, _Cursor)))
