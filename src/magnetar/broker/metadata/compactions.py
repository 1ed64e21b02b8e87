"""Compactions: which ledger holds the compacted view of a topic, and how far that goes.

    compacted/<topic>/<ledger>   JSON. Without an end: it is being written, or was when a
                                 process died. With one: the view. There is one view at most.

A compacted ledger is known here before its first byte is written, so that a leftover of a
crash is found and dropped, and never mistaken for something unknown. A finished one takes
the place of the former in one commit, which also marks that as garbage (`chains`): whenever
a crash comes, there is either the old view or the new one.
"""

from collections.abc import Sequence

import msgspec

from magnetar.broker.entry import EARLIEST, EntryId
from magnetar.broker.metadata import paths
from magnetar.broker.metadata.chains import commit_as_owner, drop_changes
from magnetar.broker.metadata.documents import decode, encode
from magnetar.broker.metadata.store import (
    PRESENT,
    Append,
    Check,
    Put,
    Store,
    number_of,
    numbered,
)
from magnetar.names import TopicName


class Source(msgspec.Struct, array_like=True, frozen=True):
    """A ledger of the topic that has survivors."""

    ledger: int
    first: int
    """The entry of the compacted ledger where its survivors begin."""
    extent: int
    """How many entries it has, or had before the horizon."""


class CompactionRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One compacted ledger."""

    worker: int
    """The process that writes it, or wrote it."""
    end_entry: int | None = None
    """Entries in it; None: it is not finished."""
    bytes: int = 0
    horizon_ledger: int = EARLIEST.ledger
    horizon_entry: int = EARLIEST.entry
    """The last entry of the topic that was considered."""
    sources: list[Source] = []
    last_batch: int = 0
    """Of the last survivor: the batch index after that of its last message that is left; 0: it is
    no batch."""
    removed: int = 0
    """Messages that were left out."""
    finished_ms: int = 0
    duration_ms: int = 0

    @property
    def horizon(self) -> EntryId:
        """The last entry of the topic that was considered."""
        return EntryId(self.horizon_ledger, self.horizon_entry)


class Compactions:
    """The compacted ledgers of one topic."""

    def __init__(self, store: Store, topic: TopicName) -> None:
        self._store = store
        self._topic = topic
        self._prefix = paths.compacted(topic)

    async def load(self) -> dict[int, CompactionRecord]:
        """Return all that are known, by ledger."""
        return {
            number_of(key): decode(key, found.value, CompactionRecord)
            for key, found in await self._store.scan(self._prefix)
        }

    async def begin(self, worker: int, epoch: int | None) -> int:
        """Make a new ledger known; return its id.

        Raises:
            TopicNotFoundError: the topic does not exist (any more).
            LostOwnershipError: another process has taken the topic since.
        """
        fresh = encode(CompactionRecord(worker=worker))
        added = Append(paths.LEDGER_COUNTER, self._prefix, fresh)
        *_, ledger = await commit_as_owner(self._store, self._topic, epoch, added)
        assert ledger is not None
        return ledger

    async def finish(
        self, ledger: int, record: CompactionRecord, former: Sequence[int], epoch: int | None
    ) -> None:
        """Make a finished ledger the view, and drop the former ones, all in one commit.

        Raises:
            TopicNotFoundError: the topic, or the ledger, does not exist any more.
            LostOwnershipError: another process has taken the topic since.
        """
        if record.end_entry is None:
            raise ValueError(f"compacted ledger {ledger} has no end")
        key = numbered(self._prefix, ledger)
        view = Check(key, PRESENT), Put(key, encode(record))
        former_ones = drop_changes(self._prefix, former)
        await commit_as_owner(self._store, self._topic, epoch, *view, *former_ones)

    async def drop(self, ledgers: Sequence[int], epoch: int | None) -> None:
        """Forget ledgers, and mark them as garbage.

        Raises:
            LostOwnershipError: another process has taken the topic since.
        """
        await commit_as_owner(self._store, self._topic, epoch, *drop_changes(self._prefix, ledgers))
