"""Taking stock: what the metadata says must be on the disk, against what is there.

    must be there                  is there                 told as
    ledger 7 up to 1500            7: 0..399, 900..1499     lost: 7:400 to 7:899
    journal file 4 of worker 0     cut off, or nothing      doubtful: the rest of every ledger
                                                            that was open
    (nothing)                      11: 0..59                unowned: kept, served to nobody

The first happens when a file is cut off, emptied or removed; the second to a journal; the
third when the metadata is older than the disk, because a copy was restored or its own log
was damaged. At a start what is lost goes to the quarantine as explicit gaps, so that topics
show it and consumers pass it; `verify` says the same and changes nothing.

Nobody is served an unowned ledger, and its number is never given out again.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

from magnetar.broker.entry import EntryId
from magnetar.broker.metadata.holdings import (
    Facts,
    Held,
    Synced,
    begin_holding,
    expected_ends,
    load_facts,
    save_held,
    save_synced,
)
from magnetar.broker.metadata.store import Store, StoreError
from magnetar.broker.storage.errors import REST_OF_LEDGER, Gap, StorageError
from magnetar.broker.storage.ledgers import Ledgers, Recovered
from magnetar.broker.storage.quarantine import OF_JOURNAL

logger = logging.getLogger(__name__)

SYNCED_INTERVAL_S = 1.0
"""How old the record of the journal's durable end may be while messages come in."""
NAMED_MAX = 50
"""Ledgers named in one line of the log; the doctor names all."""

Missing = Callable[[int, int], Iterable[tuple[int, int]]]
"""Ledger and end -> the parts of [0, end) that are not on the disk, ends exclusive."""


WHAT_IS_LOST = (
    "held records that no entry log has, and is gone, empty, cut off or damaged at its end"
)
"""What is said of a lost journal file."""


class LostJournal(NamedTuple):
    """A journal file that has less than was durable in it."""

    worker: int
    number: int

    def __str__(self) -> str:
        return f"journal file {self.number:016x} of worker {self.worker}"


class Shortage(NamedTuple):
    """What is missing."""

    gaps: list[Gap]
    """Entries that are not on the disk."""
    journals: list[LostJournal]
    doubtful: list[Gap]
    """What the journals that are lost may have held: the rest of the ledgers open there."""

    def __bool__(self) -> bool:
        return bool(self.gaps or self.journals)


def shortage(
    facts: Facts,
    workers: Sequence[int],
    missing: Missing,
    journals: Mapping[int, AbstractSet[int]],
    known: Iterable[Gap] = (),
) -> Shortage:
    """Compare what these workers have written with what is there.

    `journals`: worker -> numbers of the files that hold records that count, and are whole up to
    their end. `known`: what is in quarantine already, and not told again.
    """
    lost = [
        LostJournal(worker, number)
        for worker in workers
        for number in facts.held.get(worker, Held()).journal
        if number not in journals.get(worker, ())
    ]
    ends = expected_ends(facts, workers)
    quarantined = _by_ledger(known)
    gaps = [
        Gap(EntryId(ledger, first), EntryId(ledger, after - 1), "no entry log has it any more")
        for ledger, end in sorted(ends.items())
        for hole in missing(ledger, end)
        for first, after in _without(hole, quarantined.get(ledger, ()))
    ]
    losers = {each.worker for each in lost}
    doubtful = [
        Gap(EntryId(ledger, first), EntryId(ledger, REST_OF_LEDGER), "may be lost from the journal")
        for ledger, fact in sorted(facts.ledgers.items())
        if fact.end_entry is None and fact.worker in losers
        for first in [_after_all(missing(ledger, REST_OF_LEDGER))]
    ]
    return Shortage(gaps, lost, doubtful)


def _after_all(holes: Iterable[tuple[int, int]]) -> int:
    """Return where the last of these holes begins, the one behind everything that is there."""
    *_, (first, _) = holes
    return first


def _by_ledger(gaps: Iterable[Gap]) -> dict[int, list[tuple[int, int]]]:
    """Return gaps as half-open ranges of entries, in order, by ledger."""
    found: dict[int, list[tuple[int, int]]] = {}
    for gap in sorted(gaps):
        found.setdefault(gap.first.ledger, []).append((gap.first.entry, gap.last.entry + 1))
    return found


def _without(hole: tuple[int, int], known: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield the parts of a half-open range that are in none of the known ones."""
    first, end = hole
    for low, high in known:
        if high <= first or low >= end:
            continue
        if low > first:
            yield first, low
        first = max(first, high)
    if first < end:
        yield first, end


def unowned(facts: Facts, stored: Iterable[int]) -> list[int]:
    """Return the ledgers on the disk that no topic has and nobody has dropped."""
    return sorted(set(stored) - facts.known)


def unowned_text(entries: Mapping[int, int]) -> str:
    """Return one line about unowned ledgers and how many entries each has."""
    named = [f"{ledger} ({count:,} entries)" for ledger, count in sorted(entries.items())]
    more = f" and {len(named) - NAMED_MAX} more" if len(named) > NAMED_MAX else ""
    return (
        f"{len(named)} ledgers on the disk belong to no topic that the metadata knows:"
        f" {', '.join(named[:NAMED_MAX])}{more}"
    )


class Stock:
    """Takes stock at the start of one process, and keeps the record from then on."""

    def __init__(self, store: Store, ledgers: Ledgers, worker: int) -> None:
        self._store = store
        self._ledgers = ledgers
        self._worker = worker
        self._files_begun = 0
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = False

    async def take(self, recovered: Recovered, workers: int) -> None:
        """Report what is missing and what nobody owns, then write down what is held now.

        To be called when everything that `recovered` brought is safe. `workers`: how many
        processes there are; the first one answers for those that are gone.

        Raises:
            StorageError, StoreError: it could not be found out, or written down.
        """
        facts = await load_facts(self._store)
        writers = facts.held.keys() | {each.worker for each in facts.ledgers.values()}
        gone = {each for each in writers if each >= workers} if self._worker == 0 else set[int]()
        mine = sorted({self._worker, *recovered.journals, *gone})
        await self._report_shortage(facts, mine, recovered)
        await self._report_unowned(facts, recovered)
        ends = expected_ends(facts, mine)
        open_ends = {
            ledger: max(end, self._ledgers.stored.end(ledger))
            for ledger, end in ends.items()
            if facts.ledgers[ledger].end_entry is None
        }
        for ledger in recovered.ends:
            fact = facts.ledgers.get(ledger)
            if fact is not None and fact.end_entry is None:
                end = max(open_ends.get(ledger, 0), self._ledgers.stored.end(ledger))
                open_ends[ledger] = end
        self._ledgers.carry(open_ends)
        await begin_holding(self._store, self._worker, self._held(), mine)
        self._files_begun = self._ledgers.journal_files_begun
        self._ledgers.write_down = self._write_down
        self._ledgers.on_durable = self._durable
        self._ledgers.on_recycled = lambda: self._start(self._save_held())

    async def stop(self) -> None:
        """Write nothing down any more but what a flush asks for."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        await asyncio.gather(*self._tasks)

    async def _report_shortage(
        self, facts: Facts, mine: Sequence[int], recovered: Recovered
    ) -> None:
        ledgers = self._ledgers

        def compare() -> Shortage:
            known = ledgers.stored.quarantined()
            return shortage(facts, mine, ledgers.stored.missing, recovered.journals, known)

        found = compare()
        if found.gaps:  # another process may have been moving them to another entry log
            await ledgers.stored.look_again()
            facts = await load_facts(self._store)
            found = compare()
        if found.gaps:
            first = found.gaps[0].first
            reason = "the metadata knows these entries, and no file has them any more"
            name = f"lost-{first.ledger:x}-{first.entry:x}"
            await ledgers.stored.report_lost(name, found.gaps, reason)
        for journal in found.journals:
            reason = f"{journal} {WHAT_IS_LOST}"
            name = f"{OF_JOURNAL}{journal.worker}-{journal.number:016x}-lost"
            await ledgers.stored.report_lost(name, found.doubtful, reason)

    async def _report_unowned(self, facts: Facts, recovered: Recovered) -> None:
        """Log the ledgers that nobody owns: the first process all, others those of its journal."""
        ledgers = self._ledgers

        def find() -> list[int]:
            stored = ledgers.stored.ledgers() if self._worker == 0 else recovered.ends
            return unowned(facts, stored)

        found = find()
        if found:  # dropped, and given back, between the two looks?
            await ledgers.stored.look_again()
            facts = await load_facts(self._store)
            found = [each for each in find() if ledgers.stored.end(each)]
        if found:
            logger.error(
                "%s. They are kept, and served to nobody; the metadata is older than the disk",
                unowned_text({each: ledgers.stored.entries(each) for each in found}),
            )

    # --- the record

    async def _write_down(self) -> None:
        try:
            await self._save_held()
        except StoreError as error:
            raise StorageError(f"what is stored could not be written down: {error}") from error

    def _durable(self) -> None:
        """Take note of one commit. Its end is written down at most every `SYNCED_INTERVAL_S`."""
        if self._files_begun != self._ledgers.journal_files_begun:
            self._files_begun = self._ledgers.journal_files_begun
            self._start(self._save_held())
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(SYNCED_INTERVAL_S, self._time_is_up)

    def _time_is_up(self) -> None:
        self._timer = None
        self._start(self._save_synced())

    async def _save_held(self) -> None:
        await save_held(self._store, self._worker, self._held())

    def _held(self) -> Held:
        journal, ends = self._ledgers.held()
        return Held(journal=journal, old=self._ledgers.old_journal_files, ends=ends)

    async def _save_synced(self) -> None:
        synced = self._ledgers.synced
        if synced is not None:
            await save_synced(self._store, self._worker, Synced(*synced))

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        if self._stopped:
            coroutine.close()
            return
        task = asyncio.get_running_loop().create_task(_or_warn(coroutine))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _or_warn(saving: Coroutine[Any, Any, None]) -> None:
    try:
        await saving
    except StoreError as error:
        # The next one says it too; until then the loss of what came last goes unnoticed.
        logger.warning("what the journal holds could not be written down: %s", error)
