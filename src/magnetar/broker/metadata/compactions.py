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
from magnetar.broker.metadata.chains import LostOwnershipError
from magnetar.broker.metadata.documents import decode, encode
from magnetar.broker.metadata.store import (
    PRESENT,
    Append,
    Change,
    Check,
    ConflictError,
    Delete,
    Put,
    Store,
    number_of,
    numbered,
)
from magnetar.broker.port import TopicNotFoundError
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
        *_, ledger = await self._commit(epoch, Append(paths.LEDGER_COUNTER, self._prefix, fresh))
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
        await self._commit(
            epoch, Check(key, PRESENT), Put(key, encode(record)), *self._dropping(former)
        )

    async def drop(self, ledgers: Sequence[int], epoch: int | None) -> None:
        """Forget ledgers, and mark them as garbage.

        Raises:
            LostOwnershipError: another process has taken the topic since.
        """
        await self._commit(epoch, *self._dropping(ledgers))

    def _dropping(self, ledgers: Sequence[int]) -> list[Change]:
        return drop_compacted(self._topic, ledgers)

    async def _commit(self, epoch: int | None, *changes: Change) -> list[int | None]:
        topic, owner = paths.topic(self._topic), paths.owner(self._topic)
        conditions = [Check(topic, PRESENT)]
        if epoch is not None:
            conditions.append(Check(owner, epoch))
        try:
            return await self._store.commit([*conditions, *changes])
        except ConflictError as error:
            if error.key == owner:
                raise LostOwnershipError(
                    f"topic {self._topic} has been taken by another process"
                ) from None
            raise TopicNotFoundError(f"topic {self._topic} does not exist: {error}") from None


def drop_compacted(topic: TopicName, ledgers: Sequence[int]) -> list[Change]:
    """Make the changes that drop compacted ledgers, to be committed with others."""
    return [
        change
        for ledger in ledgers
        for change in (
            Delete(numbered(paths.compacted(topic), ledger)),
            Put(numbered(paths.DROPPED, ledger), b""),
        )
    ]
