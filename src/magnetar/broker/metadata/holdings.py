"""Holdings: what must be on the disk, written down so that a loss does not pass unnoticed.

    ledgers/<topic>/<id>   where a sealed ledger ends                         (see `chains`)
    compacted/<topic>/<id> where its compacted ledger ends                (see `compactions`)
    held/<worker>          JSON: {"journal": [4, 5], "old": [3], "ends": {"7": 1500}}
                           journal: files with records that no entry log holds yet
                           old: files that are flushed, and would still be replayed
                           ends: how much of its open ledgers was flushed to entry logs
    synced/<worker>        JSON: {"file": 5, "number": 8101}, how far its journal was durable a
                           moment ago; lower numbers in that file are durable too

A file that is cut off or removed cannot say so itself. Both halves of a record are on the
disk before it is written, and a file leaves `journal` before it is used again: so whatever
stands here must be found, whenever a crash came. What is not here yet may be there.

Pure but for two functions that read and write; what is compared with it is `stock`'s business.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from magnetar.broker.metadata import paths
from magnetar.broker.metadata.documents import decode, encode
from magnetar.broker.metadata.store import Change, Delete, Put, Store, number_of, numbered

FACT_PREFIXES = (paths.LEDGERS, paths.COMPACTED, paths.DROPPED, paths.HELD, paths.SYNCED)
"""Everything that `facts_of` wants to see."""


class Held(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """What is stored under `held/<worker>`."""

    journal: list[int] = []
    """Numbers of the journal files of which a record is durable and in no entry log."""
    old: list[int] = []
    """Numbers of those that are flushed, and were not used again when this was written."""
    ends: dict[int, int] = {}
    """Open ledger -> the entry id after the last one in an entry log."""


class Synced(msgspec.Struct, frozen=True):
    """What is stored under `synced/<worker>`."""

    file: int
    number: int
    """Of a record in that file."""


class LedgerFact(msgspec.Struct, frozen=True):
    """What is needed here of a ledger's record in a chain."""

    worker: int
    end_entry: int | None = None
    """None: it is open."""


class Facts(NamedTuple):
    """What the metadata knows of the bytes on the disk."""

    ledgers: dict[int, LedgerFact]
    """Every ledger that a topic has, compacted ones included."""
    dropped: set[int]
    """Ledgers that no topic has any more."""
    held: dict[int, Held]
    """By worker."""
    synced: dict[int, tuple[int, int]]
    """Worker -> file, and number of a record in it."""

    @property
    def sealed_ends(self) -> dict[int, int]:
        """Where each sealed ledger ends: what the journal holds beyond it does not count."""
        return {
            ledger: fact.end_entry
            for ledger, fact in self.ledgers.items()
            if fact.end_entry is not None
        }

    @property
    def known(self) -> set[int]:
        """Every ledger of which the metadata has heard."""
        return self.ledgers.keys() | self.dropped


def facts_of(rows: Iterable[tuple[str, bytes]]) -> Facts:
    """Sort the rows under `FACT_PREFIXES`.

    Raises:
        CorruptMetadataError: one of them is no fact.
    """
    facts = Facts({}, set(), {}, {})
    for key, value in rows:
        if key.startswith((paths.LEDGERS, paths.COMPACTED)):
            facts.ledgers[number_of(key)] = decode(key, value, LedgerFact)
        elif key.startswith(paths.DROPPED):
            facts.dropped.add(number_of(key))
        elif key.startswith(paths.HELD):
            facts.held[number_of(key)] = decode(key, value, Held)
        elif key.startswith(paths.SYNCED):
            synced = decode(key, value, Synced)
            facts.synced[number_of(key)] = synced.file, synced.number
    return facts


async def load_facts(store: Store) -> Facts:
    """Read all facts. Not at one moment: what is dropped meanwhile may stand in two of them."""
    rows = [(key, each.value) for prefix in FACT_PREFIXES for key, each in await store.scan(prefix)]
    return facts_of(rows)


async def replayable(store: Store, but: int) -> set[tuple[int, int]]:
    """Return worker and number of the journal files that a start would replay, of all but one."""
    facts = facts_of([(key, each.value) for key, each in await store.scan(paths.HELD)])
    return {
        (worker, number)
        for worker, held in facts.held.items()
        if worker != but
        for number in (*held.journal, *held.old)
    }


async def save_held(store: Store, worker: int, held: Held) -> None:
    """Write down what one worker holds, in place of its last record."""
    await store.commit([Put(numbered(paths.HELD, worker), encode(held))])


async def save_synced(store: Store, worker: int, synced: Synced) -> None:
    """Write down how far one worker's journal is durable."""
    await store.commit([Put(numbered(paths.SYNCED, worker), encode(synced))])


async def begin_holding(store: Store, worker: int, held: Held, replayed: Iterable[int]) -> None:
    """Replace the records of all workers whose journals were replayed by one of this worker."""
    changes: list[Change] = []
    for each in replayed:
        changes += [Delete(numbered(kind, each)) for kind in (paths.HELD, paths.SYNCED)]
    await store.commit([*changes, Put(numbered(paths.HELD, worker), encode(held))])


def expected_ends(facts: Facts, workers: Iterable[int]) -> Mapping[int, int]:
    """Return how far the ledgers that these workers have written must reach on the disk."""
    mine = frozenset(workers)
    ends = {
        ledger: fact.end_entry
        for ledger, fact in facts.ledgers.items()
        if fact.worker in mine and fact.end_entry
    }
    for worker in mine & facts.held.keys():
        for ledger, end in facts.held[worker].ends.items():
            fact = facts.ledgers.get(ledger)
            if fact is not None and fact.end_entry is None:
                ends[ledger] = max(end, ends.get(ledger, 0))
    return ends
