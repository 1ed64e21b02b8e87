"""Chains: which ledgers a topic consists of, and which ledgers nobody has any more.

    ledgers/<topic>/<id>   id 7: index 0..99, sealed   id 9: 100..249, sealed   id 12: open
    dropped/<id>           ids 3, 4: no topic has them; their bytes may go

Ledger ids come from one counter for all topics, taken in the very transaction that extends
a chain, so that ids only grow along a topic, also when it moves between processes. Only a
ledger that stands under `dropped/` is garbage: one that is merely unknown (because a copy of
the metadata was restored, say) is never thrown away.

A process that writes a topic takes it first; the number it gets is its epoch. Once another
process has taken the topic, a late extension by the first one fails.
"""

from collections.abc import Iterable, Sequence

import msgspec

from magnetar.broker.metadata import paths
from magnetar.broker.metadata.documents import decode, encode
from magnetar.broker.metadata.facts import raise_counter
from magnetar.broker.metadata.store import (
    PRESENT,
    Append,
    Change,
    Check,
    ConflictError,
    Delete,
    Put,
    Store,
    StoreError,
    number_of,
    numbered,
)
from magnetar.broker.port import TopicNotFoundError
from magnetar.names import TopicName


class LostOwnershipError(StoreError):
    """Another process has taken the topic. This one may acknowledge nothing more of it."""


class _Ledger(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What is stored under `ledgers/<topic>/<id>`."""

    first_index: int
    worker: int
    end_entry: int | None = None
    next_index: int | None = None
    bytes: int = 0
    first_publish_ms: int = 0
    last_publish_ms: int = 0


class LedgerRecord(msgspec.Struct, kw_only=True, frozen=True):
    """One link of a chain."""

    ledger: int
    first_index: int
    """Messages of the topic before this ledger."""
    worker: int
    """The process that writes it, or wrote it."""
    end_entry: int | None = None
    """Entries in it; None: it is open, and what the journal says counts."""
    next_index: int | None = None
    """Messages of the topic up to its end; None while it is open."""
    bytes: int = 0
    """Bytes of all bodies. 0 while it is open."""
    first_publish_ms: int = 0
    last_publish_ms: int = 0
    """Lowest and highest publish time within. 0 while it is open."""

    @property
    def sealed(self) -> bool:
        """Whether its end is recorded: nothing is appended any more."""
        return self.end_entry is not None


class Chain:
    """The ledgers of one topic."""

    def __init__(self, store: Store, topic: TopicName) -> None:
        self._store = store
        self._topic = topic
        self._prefix = paths.ledgers(topic)

    async def load(self) -> list[LedgerRecord]:
        """Return all links, oldest first."""
        return [_record(key, found.value) for key, found in await self._store.scan(self._prefix)]

    async def take(self, worker: int) -> int:
        """Become the one process that may extend this chain; return the epoch.

        Raises:
            TopicNotFoundError: the topic does not exist.
        """
        key = paths.topic(self._topic)
        try:
            _, epoch = await self._store.commit(
                [Check(key, PRESENT), Put(paths.owner(self._topic), b"%d" % worker)]
            )
        except ConflictError:
            raise TopicNotFoundError(f"topic {self._topic} does not exist") from None
        assert epoch is not None
        return epoch

    async def extend(self, first_index: int, worker: int, epoch: int | None = None) -> int:
        """Add an open ledger; return its id, higher than that of any other.

        `epoch` is what `take` returned; None: do not check.

        Raises:
            TopicNotFoundError: the topic does not exist (any more).
            LostOwnershipError: another process has taken the topic since.
        """
        fresh = encode(_Ledger(first_index=first_index, worker=worker))
        added = Append(paths.LEDGER_COUNTER, self._prefix, fresh)
        *_, ledger = await commit_as_owner(self._store, self._topic, epoch, added)
        assert ledger is not None
        return ledger

    async def seal(self, record: LedgerRecord, epoch: int | None = None) -> None:
        """Record where a ledger ends. `record.end_entry` and `record.next_index` are set.

        Raises:
            LostOwnershipError: another process has taken the topic since.
            TopicNotFoundError: the topic, or the ledger in it, does not exist any more.
        """
        if record.end_entry is None or record.next_index is None:
            raise ValueError(f"ledger {record.ledger} cannot be sealed without its end")
        key = numbered(self._prefix, record.ledger)
        fields = msgspec.structs.asdict(record)
        del fields["ledger"]  # it is in the key
        sealed = Check(key, PRESENT), Put(key, encode(_Ledger(**fields)))
        await commit_as_owner(self._store, self._topic, epoch, *sealed)

    async def drop(self, ledgers: Sequence[int], epoch: int | None = None) -> None:
        """Take ledgers out of the chain, and mark them as garbage.

        Raises:
            LostOwnershipError: another process has taken the topic since.
        """
        await commit_as_owner(self._store, self._topic, epoch, *drop_changes(self._prefix, ledgers))


class Dropped:
    """Ledgers that no topic has any more, until their last bytes are gone."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def list(self) -> list[int]:
        """Return the ids, rising."""
        return [number_of(key) for key in await self._store.keys(paths.DROPPED)]

    async def forget(self, ledgers: Iterable[int]) -> None:
        """Forget ledgers of which no byte is left on disk."""
        await self._store.commit([Delete(numbered(paths.DROPPED, each)) for each in ledgers])


async def reserve_ledgers_up_to(store: Store, ledger: int) -> None:
    """Make sure that no ledger up to and including this id is given out (again).

    A data folder whose metadata was restored from a copy holds ledgers that the copy does
    not know. Their ids must not come back: another topic would serve what is in them.
    """
    await raise_counter(store, paths.LEDGER_COUNTER, ledger)


async def commit_as_owner(
    store: Store, topic: TopicName, epoch: int | None, *changes: Change
) -> list[int | None]:
    """Commit changes to a topic that exists, and that nobody else has taken since `epoch`.

    Raises:
        LostOwnershipError: another process has taken the topic since.
        TopicNotFoundError: the topic, or what the changes are about, does not exist any more.
    """
    present, owner = paths.topic(topic), paths.owner(topic)
    conditions = [Check(present, PRESENT)]
    if epoch is not None:
        conditions.append(Check(owner, epoch))
    try:
        return await store.commit([*conditions, *changes])
    except ConflictError as error:
        if error.key == owner:
            raise LostOwnershipError(f"topic {topic} has been taken by another process") from None
        if error.key == present:
            raise TopicNotFoundError(f"topic {topic} does not exist") from None
        raise TopicNotFoundError(f"topic {topic}: its {error}") from None


def drop_changes(prefix: str, ledgers: Iterable[int]) -> list[Change]:
    """Make the changes that drop ledgers listed under a prefix, to be committed with others."""
    return [
        change
        for ledger in ledgers
        for change in (
            Delete(numbered(prefix, ledger)),
            Put(numbered(paths.DROPPED, ledger), b""),
        )
    ]


def _record(key: str, value: bytes) -> LedgerRecord:
    return LedgerRecord(
        ledger=number_of(key), **msgspec.structs.asdict(decode(key, value, _Ledger))
    )
