"""Replay: what of a journal counts after a crash, record by record.

    for each file, oldest first                      numbers, claims: see `record`
    valid record, in sequence ───────────────▶ handed on
    damaged, and a later record says it was synced ─▶ lost: a gap is reported, reading goes on
    damaged, and nobody says so ─────────────▶ the end: it was never acknowledged
    beyond the START of a later file ────────▶ void: its sync failed

The journal is read twice, once for the claims. Nothing is changed, and nothing kept: what counts
goes to a `Sink`.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from crc32c import crc32c

from magnetar.broker.entry import EntryId
from magnetar.broker.files import File, Files
from magnetar.broker.run import CHECKSUM, Run
from magnetar.broker.storage import record
from magnetar.broker.storage.errors import Gap
from magnetar.broker.storage.journal import SPARE_PREFIX, SUFFIX, file_number
from magnetar.broker.storage.quarantine import TAIL_REASON, VOID_REASON
from magnetar.broker.storage.record import Header, Kind, Part

logger = logging.getLogger(__name__)

SEARCH_BYTES = 1 << 20
"""How much is searched at once for the next record behind damage."""
SECTOR_BYTES = 4096
"""What is given up as zeros when the disk refuses to read it."""


class Found(NamedTuple):
    """A record whose head is whole."""

    position: int
    header: Header
    data: memoryview
    body_ok: bool


class Damage(NamedTuple):
    """Bytes that are no record. `end`: where the next one starts; None: none follows."""

    position: int
    end: int | None


class JournalFile(NamedTuple):
    """One file of a journal folder."""

    path: Path
    number: int


class Survey(NamedTuple):
    """What the first reading of one file found out."""

    follows: int | None
    """The `synced` of its START; None if it has none that can be read."""
    claim: int
    """The highest number that a record in it knows to be durable; -1: none."""
    traces: bool
    """Whether anything in it looks like a record of this file, whole or damaged."""


class Sink(NamedTuple):
    """Where recovered things go."""

    run: Callable[[Run, Sequence[Part]], None]
    note: Callable[[int, bytes], None]
    lost: Callable[[Path, int, int, str], None]
    """Path, first byte, byte after the last, reason: a damaged range that was durable."""
    tail: Callable[[Path, int, int, str], None]
    """Path, first byte, byte after the last, reason: what a crash cut off."""
    gap: Callable[[Gap], None]


def list_journal(files: Files, folder: Path) -> tuple[list[JournalFile], list[str]]:
    """Return the journal files of a folder in order, and the names that do not belong there."""
    found, unknown = [], []
    for name in files.list(folder):
        number = file_number(name)
        if number is not None:
            found.append(JournalFile(folder / name, number))
        elif not (name.startswith(SPARE_PREFIX) and name.endswith(SUFFIX)):
            unknown.append(name)
    return sorted(found, key=lambda each: each.number), unknown


def read_patiently(file: File, size: int, offset: int) -> bytes:
    """Read; sectors that the disk refuses twice come back as zeros, which no record is."""
    try:
        return file.pread(size, offset)
    except OSError:
        logger.warning("journal: a read of %d bytes at %d failed", size, offset, exc_info=True)
    pieces = []
    for at in range(offset, offset + size, SECTOR_BYTES):
        wanted = min(SECTOR_BYTES, offset + size - at)
        try:
            pieces.append(file.pread(wanted, at))
        except OSError:
            logger.exception("journal: %d bytes at %d cannot be read", wanted, at)
            pieces.append(bytes(wanted))
    return b"".join(pieces)


def walk(file: File, number: int) -> Iterator[Found | Damage]:
    """Yield the records of one file in order, and the damage between them."""
    end = file.size()
    at = 0
    salt: int | None = None
    while at < end:
        found = _record_at(file, at, end, number, salt)
        if found is None:
            after = _search(file, at + record.ALIGNMENT, partial(_is_record, file, number, salt))
            yield Damage(at, after)
            if after is None:
                return
            at = after
            continue
        salt = found.header.salt
        yield found
        at += found.header.size


def _record_at(file: File, at: int, end: int, number: int, salt: int | None) -> Found | None:
    header = record.parse_header(read_patiently(file, record.HEADER_SIZE, at))
    if header is None or header.file != number or at + header.size > end:
        return None
    if salt is not None and header.salt != salt:
        return None
    data = memoryview(read_patiently(file, header.size, at))
    if not record.head_is_valid(header, data):
        return None
    return Found(at, header, data, record.body_is_valid(header, data))


def _is_record(file: File, number: int, salt: int | None, at: int) -> bool:
    return _record_at(file, at, file.size(), number, salt) is not None


def _looks_like_ours(file: File, number: int, at: int) -> bool:
    """Tell whether a record of this file lies here, whole or damaged."""
    header = record.parse_header(read_patiently(file, record.HEADER_SIZE, at))
    return header is not None and header.file == number


def _search(file: File, at: int, accept: Callable[[int], bool]) -> int | None:
    """Return where something that begins like a record is accepted; None if nowhere."""
    end = file.size()
    while at < end:
        data = read_patiently(file, min(SEARCH_BYTES, end - at), at)
        found = data.find(record.MAGIC_BYTES)
        while found >= 0:
            if (at + found) % record.ALIGNMENT == 0 and accept(at + found):
                return at + found
            found = data.find(record.MAGIC_BYTES, found + 1)
        # A magic across the border starts at a multiple of 8, so it is not missed.
        at += len(data) - len(data) % record.ALIGNMENT or record.ALIGNMENT
    return None


def survey(file: File, number: int) -> Survey:
    """Read one file for what it says about itself and others."""
    follows: int | None = None
    claim = -1
    records = 0
    for item in walk(file, number):
        if isinstance(item, Found):
            header = item.header
            if not records and (header.kind == Kind.START or header.number == header.synced + 2):
                # Of a first batch, only the START can be damaged: it is as if it were there.
                follows = header.synced
            claim = max(claim, header.synced)
            records += 1
    traces = records > 0 or (_search(file, 0, partial(_looks_like_ours, file, number)) is not None)
    return Survey(follows, claim, traces)


class Replay:
    """Reads the files of one journal, oldest first, and hands on what counts."""

    def __init__(
        self,
        files: Files,
        journal: Sequence[JournalFile],
        sink: Sink,
        *,
        sync: bool = True,
        synced: tuple[int, int] | None = None,
    ) -> None:
        """Take the files in order.

        `synced`: number of a file, and of a record in it that is known to have been durable.
        """
        self._files = files
        self._sync = sync
        self._synced = synced
        self._journal = journal
        self._sink = sink
        self.last_served = 0
        """The highest number handed on or lost; a new START follows it."""
        self.bytes = 0
        self.lost = 0
        """Damaged ranges that had been durable."""
        self.empty: list[Path] = []
        """Files into which nothing was ever written, as far as one can see."""
        self.void: list[tuple[Path, str]] = []
        """Files with records, whole or damaged, none of which counts, and why."""
        self.short: list[Path] = []
        """Files that were cut off, or the end of which was durable and is damaged."""

    def run(self) -> None:
        """Read everything."""
        surveys = []
        for each in self._journal:
            file = self._files.open(each.path)
            try:
                surveys.append(survey(file, each.number))
            finally:
                file.close()
        claim = max((each.claim for each in surveys), default=-1)
        for at, each in enumerate(self._journal):
            later = [s.follows for s in surveys[at + 1 :] if s.follows is not None]
            file = self._files.open(each.path)
            before = self.bytes, self.lost
            try:
                self._file(file, each, claim, min(later) if later else None)
                # What is handed on may be known to the page cache only, and the next START
                # will call it durable.
                if self._sync:
                    file.sync()
            finally:
                file.close()
            if (self.bytes, self.lost) != before:
                continue
            if surveys[at].traces:
                self.void.append((each.path, _why(min(later) if later else None)))
            else:
                self.empty.append(each.path)

    def _file(self, file: File, source: JournalFile, claim: int, limit: int | None) -> None:
        """Read one file. Numbers above `limit` are void; those up to `claim` were durable."""
        durable = self._durable_in(source, claim, limit)
        expected: int | None = None
        damaged_at: int | None = None
        size = 0
        for item in walk(file, source.number):
            if isinstance(item, Damage):
                damaged_at = item.position
                continue
            header = item.header
            if limit is not None and header.number > limit and header.kind != Kind.START:
                return
            if header.kind == Kind.MARK:
                self._mark(source, header, item.position, expected, damaged_at)
                expected, damaged_at = header.number + 1, None
                continue
            if damaged_at is not None:
                if not self._passes(source, damaged_at, item, expected, durable, _why(limit)):
                    return
                damaged_at = None
            if not item.body_ok and header.number > durable:
                after = item.position + header.size
                self._sink.tail(source.path, item.position, after, _why(limit))
                return
            self._hand_on(source, item)
            expected = header.number + 1
            self.last_served = header.number
            if header.kind == Kind.START:
                size = header.base
        if expected is None and limit is not None:
            expected = self.last_served + 1
            durable = limit
        self._check_size(file, source, size)
        at = file.size() if damaged_at is None else damaged_at
        self._end(file, source, at, expected, durable, _why(limit))

    def _durable_in(self, source: JournalFile, claim: int, limit: int | None) -> int:
        """Return the highest number of which something says that it was durable."""
        if self._synced is not None and self._synced[0] == source.number:
            claim = max(claim, self._synced[1])
        return claim if limit is None else min(claim, limit)

    def _passes(  # noqa: PLR0913, PLR0917 - one judgement, in one place
        self,
        source: JournalFile,
        damaged_at: int,
        item: Found,
        expected: int | None,
        durable: int,
        why: str,
    ) -> bool:
        """Judge damage in front of a record; False: it is the end, and the record void."""
        header = item.header
        if header.number - 1 <= durable:
            self._lost(source, damaged_at, item.position, expected, header.number)
            return True
        self._sink.tail(source.path, damaged_at, item.position, why)
        # Of a first batch only the START may be damaged, and that holds no entries.
        return expected is None and header.number == header.synced + 2

    def _check_size(self, file: File, source: JournalFile, size: int) -> None:
        """Report a file that was cut off. What it held there nobody knows."""
        if file.size() < size:
            reason = f"the file is {size - file.size()} bytes shorter than it was"
            self._sink.lost(source.path, file.size(), file.size(), reason)
            self.lost += 1
            self.short.append(source.path)

    def _mark(
        self,
        source: JournalFile,
        header: Header,
        position: int,
        expected: int | None,
        damaged_at: int | None,
    ) -> None:
        if damaged_at is not None:
            self._lost(source, damaged_at, position, expected, header.number + 1)

    def _lost(
        self, source: JournalFile, start: int, end: int, expected: int | None, number: int
    ) -> None:
        first = "its START" if expected is None else f"record {expected}"
        reason = f"{first} up to record {number} of the journal were durable and are damaged"
        self._sink.lost(source.path, start, end, reason)
        self.lost += 1
        self.last_served = max(self.last_served, number - 1)

    def _end(  # noqa: PLR0913, PLR0917 - one judgement, in one place
        self,
        file: File,
        source: JournalFile,
        at: int,
        expected: int | None,
        durable: int,
        why: str,
    ) -> None:
        """Judge the bytes behind the last record."""
        header = record.parse_header(read_patiently(file, record.HEADER_SIZE, at))
        ours = header is not None and header.file == source.number
        if expected is not None and expected <= durable:
            size = header.size if header is not None and ours else SECTOR_BYTES
            self._lost(source, at, min(at + size, file.size()), expected, durable + 1)
            if why == TAIL_REASON:  # nothing comes behind it that would name what is missing
                self.short.append(source.path)
        elif header is not None and ours:
            self._sink.tail(source.path, at, min(at + header.size, file.size()), why)

    def _hand_on(self, source: JournalFile, item: Found) -> None:
        header, data = item.header, item.data
        self.bytes += header.size
        if header.kind == Kind.NOTE:
            if item.body_ok:
                self._sink.note(*record.decode_note(header, data))
            else:
                self._lost_body(source, item, "a note is damaged")
        elif header.kind == Kind.RUN:
            run = record.decode_run(header, data)
            parts = record.decode_directory(header, data)
            if not item.body_ok:
                self._lost_body(source, item, "entries are damaged")
                for gap in damaged_parts(run, parts):
                    self._sink.gap(gap)
                parts = whole_parts(run, parts)
            self._sink.run(run, parts)

    def _lost_body(self, source: JournalFile, item: Found, reason: str) -> None:
        end = item.position + item.header.size
        self._sink.lost(source.path, item.position, end, reason)
        self.lost += 1


def _why(limit: int | None) -> str:
    """Return why records do not count: a later START says so, or nobody says that they do."""
    return TAIL_REASON if limit is None else VOID_REASON


def _row_is_whole(run: Run, row: int) -> bool:
    return crc32c(run.body(row)) == run.u32(CHECKSUM)[row]


def whole_parts(run: Run, parts: Iterable[Part]) -> list[Part]:
    """Return the parts without the entries whose bodies are damaged."""
    kept: list[Part] = []
    for part in parts:
        for row in range(part.first_row, part.first_row + part.count):
            if not _row_is_whole(run, row):
                continue
            entry = part.first_entry + row - part.first_row
            last = kept[-1] if kept else None
            if (
                last is not None
                and last.ledger == part.ledger
                and last.first_row + last.count == row
                and last.first_entry + last.count == entry
                and last.producer == part.producer
            ):
                kept[-1] = last._replace(count=last.count + 1)
            else:
                kept.append(part._replace(first_entry=entry, first_row=row, count=1))
    return kept


def damaged_parts(run: Run, parts: Iterable[Part]) -> Iterator[Gap]:
    """Yield the entries whose bodies are damaged, one by one."""
    for part in parts:
        for row in range(part.first_row, part.first_row + part.count):
            if not _row_is_whole(run, row):
                entry = EntryId(part.ledger, part.first_entry + row - part.first_row)
                yield Gap(entry, entry, "damaged in the journal")
