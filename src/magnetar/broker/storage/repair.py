"""Entry logs at a start: load their tables, mend what can be mended, keep what cannot.

    our own unfinished file (.tmp)        removed: nothing in it was ever relied on
    tables damaged, blocks readable       written anew from its blocks; original to quarantine
    nothing readable                      to quarantine
    all of it in newer logs too           removed: a rewriting was cut off by a crash
    a name that is none of ours           to quarantine

Each process does this for the logs it has written, so nobody mends another's work.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise

from magnetar.broker.entry import EntryId
from magnetar.broker.storage import block
from magnetar.broker.storage.block import Block
from magnetar.broker.storage.errors import Gap
from magnetar.broker.storage.flush import CopiedBlock, write_blocks
from magnetar.broker.storage.index import Extents
from magnetar.broker.storage.quarantine import Quarantine
from magnetar.broker.storage.segment import (
    UNFINISHED,
    LogDamagedError,
    LogFolder,
    LogName,
    Table,
)
from magnetar.broker.storage.shelf import Shelf

logger = logging.getLogger(__name__)


def load_logs(
    logs: LogFolder, shelf: Shelf, quarantine: Quarantine, worker: int, *, with_unknown: bool
) -> list[Table]:
    """Return the tables of all entry logs, after mending those that `worker` has written."""
    _tidy(logs, quarantine, worker, with_unknown=with_unknown)
    tables = []
    for name in shelf.names():
        parsed = LogName.parse(name)
        ours = parsed is not None and parsed.worker == worker
        try:
            table = shelf.load_table(name)
        except FileNotFoundError:
            continue
        except LogDamagedError as error:
            if ours:
                shelf.forget(name)
                quarantine.move(logs.path / name, str(error))
            continue
        if ours and table.rebuilt is not None:
            table = _write_anew(logs, shelf, quarantine, table)
        tables.append(table)
    return _without_leftovers(logs, shelf, worker, tables)


def _tidy(logs: LogFolder, quarantine: Quarantine, worker: int, *, with_unknown: bool) -> None:
    """Remove our unfinished files; names that are no entry log go to quarantine."""
    removed = False
    files, folder, _ = logs
    for name in files.list(folder):
        finished = LogName.parse(name.removesuffix(UNFINISHED))
        if finished is None:
            if with_unknown:
                quarantine.move(folder / name, "not an entry log")
        elif name.endswith(UNFINISHED) and finished.worker == worker:
            files.remove(folder / name)
            removed = True
    if removed:
        files.sync_dir(folder)


def _write_anew(logs: LogFolder, shelf: Shelf, quarantine: Quarantine, table: Table) -> Table:
    """Write a log with damaged tables again, from its blocks; the original goes to quarantine."""
    files, folder, _ = logs
    gaps = list(_holes(table))
    reason = "its tables were damaged; its blocks were written to a new log"
    if not table.ledgers:
        shelf.forget(table.name)
        quarantine.move(folder / table.name, "no block of it can be read")
        return Table(table.name, table.salt, 0, 0, 0)
    file = files.open(folder / table.name)
    try:
        fresh = write_blocks(logs, _blocks(file.pread, table))
    finally:
        file.close()
    shelf.forget(table.name)
    quarantine.move(folder / table.name, reason, gaps)
    return fresh


def _blocks(
    pread: Callable[[int, int], bytes], table: Table
) -> Sequence[Callable[[], CopiedBlock]]:
    """Return, in order, how to read each block of a log whose table was rebuilt."""
    assert table.rebuilt is not None

    def read(ledger: int, offset: int, size: int) -> CopiedBlock:
        data = memoryview(pread(size, offset))
        header = block.parse_header(data, 0, table.salt)
        assert header is not None, "it was read a moment ago"
        run = block.decode_unchecked(data, header)
        damaged = not block.body_matches(header, data)
        return CopiedBlock(
            ledger, Block(header.first_entry, run), header.body_crc if damaged else None
        )

    order = sorted(range(len(table.ledgers)), key=lambda r: (table.ledgers[r], table.firsts[r]))
    return [
        partial(read, table.ledgers[row], offset, size)
        for row in order
        for offset, size in zip(
            table.rebuilt[row][1].offsets, table.rebuilt[row][1].sizes, strict=True
        )
    ]


def _holes(table: Table) -> Iterator[Gap]:
    """Yield the entries that are missing between the extents of one ledger."""
    rows = sorted(range(len(table.ledgers)), key=lambda r: (table.ledgers[r], table.firsts[r]))
    for row, after in pairwise(rows):
        ledger, end = table.ledgers[row], table.firsts[row] + table.counts[row]
        if table.ledgers[after] == ledger and table.firsts[after] > end:
            last = table.firsts[after] - 1
            yield Gap(EntryId(ledger, end), EntryId(ledger, last), "its block is damaged")


def _without_leftovers(
    logs: LogFolder, shelf: Shelf, worker: int, tables: list[Table]
) -> list[Table]:
    """Remove logs of ours that were rewritten just before a crash."""
    extents = Extents()
    for table in tables:
        extents.add(table)
    numbers = {table.name: LogName.parse(table.name) for table in tables}
    kept = []
    for table in tables:
        own = numbers[table.name]
        newer = frozenset(
            name
            for name, parsed in numbers.items()
            if own and parsed and parsed.worker == worker and parsed.number > own.number
        )
        if (
            own is not None
            and own.worker == worker
            and newer
            and extents.covered_by_others(table, newer)
        ):
            logger.info("entry log %s: everything in it is in newer ones", table.name)
            shelf.forget(table.name)
            logs.files.remove(logs.path / table.name)
            logs.files.sync_dir(logs.path)
        else:
            kept.append(table)
    return kept
