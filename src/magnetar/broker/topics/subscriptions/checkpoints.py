"""How subscriptions and deduplication survive: notes in the journal, snapshots in the metadata.

    acknowledgement ──▶ cursor changed ──cursor_interval_ms──▶ note, rides the next commit
                                        │
          before journal files are reused, at unload and stop
                                        ▼
                               snapshot in the metadata: changed pages only

    start: snapshot + the journal's notes (`recovered`) = the cursor as it was

A note holds what changed since the last one, so that a busy cursor with a million holes
costs a few hundred bytes per interval. Nothing is done for a cursor that does not change.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple, Protocol

from magnetar.broker.entry import EntryId
from magnetar.broker.metadata.cursors import CursorRecord, Cursors, save_cursors
from magnetar.broker.metadata.sequences import Checkpoint, save_sequences
from magnetar.broker.metadata.store import Store
from magnetar.broker.metrics import Metrics
from magnetar.broker.topics.consumers.consumer import Limits
from magnetar.broker.topics.consumers.delayed import Spill
from magnetar.broker.topics.consumers.places import cursor_at
from magnetar.broker.topics.cursors.cursor import Cursor
from magnetar.broker.topics.cursors.reading import Ground, Log
from magnetar.broker.topics.limits.policies import Rules
from magnetar.broker.topics.producers.deduplication import Sequences
from magnetar.broker.topics.subscriptions.recovered import cursor_of, snapshot_of
from magnetar.broker.topics.subscriptions.subscription import Home, Subscription
from magnetar.names import TopicName

logger = logging.getLogger(__name__)

CURSORS_PER_TURN = 200
"""Cursors whose snapshot is taken, or note written, in one turn of the event loop."""


class Notebook(Protocol):
    """Where notes go: the ledgers of this process."""

    def note(self, key: int, payload: bytes, token: object | None = None) -> None: ...


class Spills(Protocol):
    """Where delayed entries go that are too many for the memory."""

    def __call__(self, topic: TopicName, subscription: str) -> Spill | None: ...


class Owner(Home, Protocol):
    """A topic, as its subscriptions are kept."""

    name: TopicName
    rules: Rules

    @property
    def log(self) -> Log: ...
    def log_for(self, *, compacted: bool) -> Log:
        """Return the log as a new subscription sees it."""
        ...

    @property
    def is_terminated(self) -> bool: ...


class _Kept(NamedTuple):
    """A durable subscription and what names it on disk."""

    topic: TopicName
    record: CursorRecord


def no_spill(topic: TopicName, subscription: str) -> Spill | None:  # noqa: ARG001 - a Spills
    """Keep all delayed entries in memory."""
    return None


class Checkpoints:
    """Keeps the durable subscriptions of all topics of a process, and deduplication's state."""

    def __init__(
        self,
        notebook: Notebook,
        store: Store,
        ground: Ground,
        metrics: Metrics,
        spills: Spills = no_spill,
    ) -> None:
        self._notebook = notebook
        self._store = store
        self._ground = ground
        self._spills = spills
        self._kept: dict[Subscription, _Kept] = {}
        self._changed: dict[Subscription, None] = {}
        """To be noted in the journal."""
        self._unsaved: dict[Subscription, None] = {}
        """To be saved in the metadata before the journal forgets."""
        self._save_all = set[Subscription]()
        """A save of these failed half-way: the next one writes every page."""
        self._under_way = 0
        """Notes that wait for their commit."""
        self._scheduled = False
        self._stopped = False
        self._notes = metrics.counter("magnetar_cursor_notes_total", "Cursor changes written.")
        self._note_bytes = metrics.counter(
            "magnetar_cursor_note_bytes_total", "Bytes of cursor changes written."
        )
        self._snapshots = metrics.counter(
            "magnetar_cursor_snapshots_total", "Cursors saved in the metadata."
        )
        metrics.gauge(
            "magnetar_cursors_unwritten",
            "Cursors that changed and are not durable yet as they are.",
            lambda: self.unwritten,
        )
        metrics.gauge(
            "magnetar_cursors_unsaved",
            "Cursors that changed since they were saved in the metadata.",
            lambda: len(self._unsaved),
        )

    @property
    def unwritten(self) -> int:
        """How many changes of cursors are not durable yet."""
        return len(self._changed) + self._under_way

    def cursor_of(self, subscription: Subscription) -> int | None:
        """Return the number that names a subscription's cursor on disk; None: it has none."""
        kept = self._kept.get(subscription)
        return None if kept is None else kept.record.id

    # --- subscriptions come and go ------------------------------------------------------

    async def load(self, topic: Owner) -> list[Subscription]:
        """Return the durable subscriptions of a topic as they were."""
        cursors = Cursors(self._store, topic.name)
        return [
            self._keep(topic, record, cursor_of(record, await cursors.pages(record.id)))
            for record in await cursors.load()
        ]

    async def create(
        self,
        topic: Owner,
        name: str,
        start: EntryId,
        properties: Mapping[str, str],
        *,
        compacted: bool = False,
    ) -> Subscription:
        """Make a durable subscription; it is on disk when this returns."""
        cursor = await cursor_at(topic.log_for(compacted=compacted), start)
        record = await Cursors(self._store, topic.name).create(
            name, cursor.mark_delete, self._ground.clock.wall_ms(), properties
        )
        subscription = self._keep(topic, record, cursor)
        self.changed(subscription)
        return subscription

    async def temporary(
        self,
        topic: Owner,
        name: str,
        start: EntryId,
        ack_set: Sequence[int],
        *,
        compacted: bool = False,
    ) -> Subscription:
        """Make a subscription that lasts as long as its consumers."""
        cursor = await cursor_at(topic.log_for(compacted=compacted), start, ack_set)
        return Subscription(
            name,
            topic.name,
            topic.log,
            cursor,
            self._ground,
            topic,
            durable=False,
            created_ms=self._ground.clock.wall_ms(),
            limits=limits_of(topic.rules),
            spill=self._spills(topic.name, name),
            terminated=topic.is_terminated,
        )

    async def delete(self, subscription: Subscription) -> None:
        """Remove a durable subscription from disk, for good."""
        kept = self._kept.get(subscription)
        if kept is not None:
            await Cursors(self._store, kept.topic).delete(kept.record.id)
            self.forget([subscription])

    async def set_properties(
        self, subscription: Subscription, properties: Mapping[str, str]
    ) -> None:
        """Replace what was noted about a subscription. Durable when it returns, if it is."""
        kept = self._kept.get(subscription)
        if kept is not None:
            # What a snapshot writes from now on is right, also one that is taken meanwhile.
            kept.record.properties.clear()
            kept.record.properties.update(properties)
            await Cursors(self._store, kept.topic).set_properties(kept.record.id, properties)
        subscription.properties = dict(properties)

    def forget(self, subscriptions: Iterable[Subscription]) -> None:
        """Write nothing more of these: they are deleted, saved, or their topic is gone."""
        for each in subscriptions:
            self._kept.pop(each, None)
            self._changed.pop(each, None)
            self._unsaved.pop(each, None)
            self._save_all.discard(each)

    def _keep(self, topic: Owner, record: CursorRecord, cursor: Cursor) -> Subscription:
        name = record.subscription
        subscription = Subscription(
            name,
            topic.name,
            topic.log,
            cursor,
            self._ground,
            topic,
            properties=record.properties,
            created_ms=record.created_ms,
            limits=limits_of(topic.rules),
            spill=self._spills(topic.name, name),
            terminated=topic.is_terminated,
        )
        self._kept[subscription] = _Kept(topic.name, record)
        return subscription

    # --- notes --------------------------------------------------------------------------

    def changed(self, subscription: Subscription) -> None:
        """Write down what changed in a cursor, soon, together with others."""
        if subscription not in self._kept:
            return
        self._changed[subscription] = None
        self._unsaved[subscription] = None
        if not self._scheduled and not self._stopped:
            self._scheduled = True
            delay_s = self._ground.config.cursor_interval_ms / 1000
            self._ground.loop.call_later(delay_s, self._write_notes)

    def _write_notes(self) -> None:
        self._scheduled = False
        if self._stopped:
            return
        due = list(islice(self._changed, CURSORS_PER_TURN))
        for subscription in due:
            del self._changed[subscription]
            self._write_note(subscription)
        if self._changed:
            self._scheduled = True
            self._ground.loop.call_soon(self._write_notes)

    def _write_note(self, subscription: Subscription) -> None:
        payload = subscription.take_changes()
        # Also if a snapshot was taken since it was told: this may be newer.
        self._unsaved[subscription] = None
        token = partial(self._noted, subscription)
        self._under_way += 1
        self._notebook.note(self._kept[subscription].record.id, payload, token)
        self._notes.value += 1
        self._note_bytes.value += len(payload)

    def _noted(self, subscription: Subscription, error: Exception | None) -> None:
        """Take the news that a note is durable, or is not."""
        self._under_way -= 1
        if error is not None and subscription in self._kept:
            subscription.changes_lost()

    # --- snapshots ----------------------------------------------------------------------

    async def save_cursors(self, of: Iterable[Subscription] | None = None) -> None:
        """Save what changed in cursors, all or some, in the metadata; return when it is there.

        Raises:
            StoreError: it could not be saved; the next call tries again.
        """
        wanted = list(self._unsaved) if of is None else [e for e in of if e in self._unsaved]
        for start in range(0, len(wanted), CURSORS_PER_TURN):
            due = [each for each in wanted[start : start + CURSORS_PER_TURN] if each in self._kept]
            snapshots = []
            for subscription in due:
                self._unsaved.pop(subscription, None)
                topic, record = self._kept[subscription]
                snapshots.append(
                    snapshot_of(
                        topic,
                        record,
                        subscription.cursor,
                        everything=subscription in self._save_all,
                    )
                )
            try:
                await save_cursors(self._store, snapshots)
            except BaseException:
                still = [each for each in due if each in self._kept]
                self._unsaved.update(dict.fromkeys(still))
                self._save_all.update(still)
                raise
            self._save_all.difference_update(due)
            self._snapshots.value += len(due)

    async def save_sequences(self, of: Iterable[tuple[TopicName, Sequences | None]]) -> None:
        """Save what deduplication must not forget of these topics; return when it is there.

        Raises:
            StoreError: it could not be saved; the next call tries again.
        """
        taken = [
            (sequences, Checkpoint(topic, changed))
            for topic, sequences in of
            if sequences is not None and (changed := sequences.unsaved())
        ]
        try:
            await save_sequences(self._store, [checkpoint for _, checkpoint in taken])
        except BaseException:
            for sequences, checkpoint in taken:
                sequences.save_failed(checkpoint.highest)
            raise

    def stop(self) -> None:
        """Write no more notes; what changed has been saved."""
        self._stopped = True


def limits_of(rules: Rules) -> Limits:
    """Return what holds for the subscriptions of a topic."""
    return Limits(
        rules.unacked_per_consumer_max, rules.unacked_per_subscription_max, rules.delayed_delivery
    )
