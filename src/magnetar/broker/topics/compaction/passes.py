"""Compaction: the last message of every key, of everything up to a horizon.

    the former view, then the log behind it, up to the horizon
        │ first pass    which message is the last of its key?        `last_of_key`
        │               once more for the keys that had no room
        └ second pass   what survives goes into a ledger of its own  `view`

    a message        survives if it is the last of its key, and not empty: that deletes the key
    a batch          is opened; what is left of it keeps its place and its index
    a chunked one    is one message: all its chunks or none; unfinished ones stay
    without a key    is left out, or kept where `retain_null_key` says so
    sealed           an encrypted batch, or one that nobody can read: stays as it is
    a marker         of brokers for brokers: left out

Both passes see the same, entry by entry, or the second one gives up: what is lost in between
must not shift what survives. Entries that cannot be read are counted and left out, as
consumers are led past them; while the log has all that a damaged view spoke for, the view is
made anew from the log. Nothing here holds the event loop: work is done in slices, with pauses.
Looked to: Pulsar's two-phase compactor, and what it keeps.
"""

import asyncio
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from crc32c import crc32c

from magnetar.broker.clock import Clock
from magnetar.broker.entry import BodyFormat, EntryFlags, EntryId
from magnetar.broker.run import FLAGS, LENGTH, MESSAGES, ROW, ROW_SIZE, Run
from magnetar.broker.storage.errors import Gap, QuarantinedError
from magnetar.broker.topics.compaction.last_of_key import ORDINAL_MAX, LastOfKey, Survivors
from magnetar.broker.topics.compaction.view import View

SLICE_S = 0.002
"""How long the event loop is kept at once."""
REST = 1.0
"""How long it is left alone then, in parts of that."""
READ_ENTRIES = 1_000
READ_BYTES = 1 << 20
"""Read at once, and written at once."""
THREAD_BYTES = 128 * 1024
"""Contents from this size on are compressed and decompressed in a thread."""
OPEN_CHUNKED_MAX = 100_000
"""Chunked messages that have begun and not ended. What is more counts as never finished."""

_MARKER = EntryFlags.MARKER.value
_COMPACTED = EntryFlags.COMPACTED.value
_FORMAT_MASK = 0xFF

Keyed = tuple[bytes | None, bool]
"""The key of a message, and whether it deletes what the key had."""


class CompactionError(Exception):
    """A compaction cannot go on. What was there before is untouched."""


class ViewDamagedError(CompactionError):
    """The former view has lost entries."""


class Opened(Protocol):
    """A body, looked into. `wire` has one for what Pulsar's clients write."""

    @property
    def sealed(self) -> bool: ...
    @property
    def batch(self) -> bool: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def deletes(self) -> bool: ...
    @property
    def chunk(self) -> tuple[str, int, int] | None: ...
    @property
    def contents_bytes(self) -> int: ...
    def contents(self) -> memoryview: ...
    def keys(self, contents: memoryview, /) -> Iterator[Keyed | None]: ...
    def pieces(self, contents: memoryview, keep: Sequence[bool], /) -> Iterator[bytes]: ...
    def rewritten(self, pieces: Sequence[bytes], keep: Sequence[bool], /) -> bytes: ...
    def survivors(self) -> list[int]: ...


Opener = Callable[[memoryview], Opened]


class Log(Protocol):
    """The log of a partition, as far as it is read here."""

    async def read(
        self, position: EntryId, entries_max: int, bytes_max: int, /
    ) -> tuple[EntryId, Run] | Gap: ...


@dataclass(slots=True)
class Tally:
    """What one compaction did."""

    messages: int = 0
    """Messages that were there."""
    kept: int = 0
    """Messages that survive."""
    entries: int = 0
    """Entries that survive."""
    bytes: int = 0
    """Bytes of their bodies."""
    bytes_read: int = 0
    lost: list[Gap] = field(default_factory=list[Gap])
    """What could not be read."""

    @property
    def removed(self) -> int:
        """Messages that were left out."""
        return self.messages - self.kept


class Survivor(NamedTuple):
    """An entry that goes into the compacted ledger."""

    id: EntryId
    row: bytes
    body: memoryview | bytes
    last_batch: int
    """The batch index after that of the last message that is left; 0: it is no batch."""


class Pace:
    """Lets others work, too."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began_s = clock.monotonic()

    @property
    def due(self) -> bool:
        """Whether the event loop was kept long enough."""
        return self._clock.monotonic() - self._began_s >= SLICE_S

    async def rest(self) -> None:
        """Give way for about as long as was worked."""
        await asyncio.sleep(REST * (self._clock.monotonic() - self._began_s))
        self._began_s = self._clock.monotonic()


class _Chunked:
    """Which chunks are one message: a number for each, in the order of their first chunks."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[int, int]] = {}
        """uuid -> number of the message, and of the chunk that comes next."""
        self.count = 0

    def number(self, uuid: str, chunk: int, chunks: int) -> tuple[int | None, bool]:
        """Return which message a chunk belongs to, and whether it is complete now.

        None: its beginning is not there, so that nobody can read it.
        """
        if chunk == 0:
            self._open.pop(uuid, None)
            if len(self._open) >= OPEN_CHUNKED_MAX:
                del self._open[next(iter(self._open))]
            self._open[uuid] = self.count, 1
            self.count += 1
            return self.count - 1, False
        number, expected = self._open.get(uuid, (None, 0))
        if number is None or chunk < expected:  # sent twice: stays with the others
            return number, False
        if chunk > expected:
            del self._open[uuid]
            return None, False
        if chunk + 1 >= chunks:
            del self._open[uuid]
            return number, True
        self._open[uuid] = number, chunk + 1
        return number, False


class _Walk:
    """One way through all entries, in which messages get their ordinals."""

    def __init__(self) -> None:
        self.ordinal = 0
        """Of the next message with a key."""
        self.chunked = _Chunked()
        self.tally = Tally()

    def next_ordinal(self) -> int:
        """Number a message with a key."""
        ordinal = self.ordinal
        if ordinal > ORDINAL_MAX:
            raise CompactionError(f"more than {ORDINAL_MAX:,} messages with keys")
        self.ordinal = ordinal + 1
        return ordinal


class Compaction:
    """Finds the survivors of one topic."""

    def __init__(  # noqa: PLR0913 - what it reads, up to where, and how
        self,
        log: Log,
        view: View | None,
        horizon: EntryId,
        open_body: Opener,
        clock: Clock,
        *,
        salt: bytes,
        memory_bytes_max: int,
        retain_null_key: bool = False,
        pass_damage: bool = False,
        in_thread: Callable[..., Awaitable[object]] = asyncio.to_thread,
    ) -> None:
        """Read a view, if there is one, and the log behind it, up to and including `horizon`.

        With `pass_damage`, what the view has lost is left out; else that is an error.
        """
        self._log = log
        self._view = view
        self._horizon = horizon
        self._open_body = open_body
        self._clock = clock
        self._salt = salt
        self._memory_bytes_max = memory_bytes_max
        self._retain_null_key = retain_null_key
        self._pass_damage = pass_damage
        self._in_thread = in_thread
        self._pace = Pace(clock)
        self._survivors = Survivors()
        self._fates = array("q")
        """Of chunked messages: the ordinal, or one of the two below."""
        self._first = Tally()
        self.rounds = 0
        """How often the first pass was made."""

    # --- first pass

    async def first_pass(self) -> None:
        """Find out which message is the last of its key.

        Raises:
            ViewDamagedError: the former view has lost entries.
            StorageError: the disk did not let us read.
        """
        part = 0
        while True:
            keys = LastOfKey(self._salt, part, self._memory_bytes_max)
            walk = _Walk()
            fates = array("q")
            await self._first_round(walk, keys, fates)
            if self.rounds and self._first.lost != walk.tally.lost:
                raise CompactionError("entries became unreadable meanwhile")
            self._first, self._fates = walk.tally, fates
            self.rounds += 1
            done, part = keys.done, keys.end_part
            for _ in keys.settle_into(self._survivors):
                if self._pace.due:
                    await self._pace.rest()
            if done:
                return

    async def _first_round(self, walk: _Walk, keys: LastOfKey, fates: "array[int]") -> None:
        async for _, run, row in self._entries(walk):
            opened = self._opened(run, row)
            if opened is None or opened.sealed:
                continue
            chunk = opened.chunk
            if chunk is not None:
                number, complete = walk.chunked.number(*chunk)
                while len(fates) < walk.chunked.count:
                    fates.append(_UNFINISHED)
                if complete and number is not None:
                    if opened.key is None:
                        fates[number] = _WITHOUT_KEY
                    else:
                        fates[number] = walk.next_ordinal()
                        keys.put(opened.key, fates[number], deletes=False)
                continue
            if opened.batch:
                await self._put_batch(walk, keys, opened)
            elif opened.key is not None:
                keys.put(opened.key, walk.next_ordinal(), deletes=opened.deletes)

    async def _put_batch(self, walk: _Walk, keys: LastOfKey, opened: Opened) -> None:
        _, found = await self._messages(opened)
        for each in found or ():
            if each is not None and each[0] is not None:
                keys.put(each[0], walk.next_ordinal(), deletes=each[1])
                if self._pace.due:
                    await self._pace.rest()

    # --- second pass

    async def second_pass(self) -> AsyncIterator[Survivor]:
        """Yield what survives, in order. `tally` is complete behind the last one.

        Raises:
            CompactionError: something cannot be read any more that could in the first pass.
            StorageError: the disk did not let us read.
        """
        walk = _Walk()
        self.tally = walk.tally
        async for at, run, row in self._entries(walk):
            body: memoryview | bytes = run.body(row)
            flags = 0
            opened = self._opened(run, row)
            count = run.u32(MESSAGES)[row]
            last_batch = 0
            if opened is None or opened.sealed:
                kept = count
                last_batch = count if run.u32(FLAGS)[row] & EntryFlags.BATCH else 0
            elif opened.chunk is not None:
                kept = count if self._keeps_chunk(walk, opened.chunk) else 0
            elif not opened.batch:
                kept = count if self._keeps(walk, opened.key) else 0
            else:
                contents, found = await self._messages(opened)
                if found is None:
                    kept, last_batch = count, count
                else:
                    keep = await self._keep(walk, found)
                    kept = sum(keep)
                    if kept:
                        last_batch = len(keep) - keep[::-1].index(True)
                    if kept and kept < len(keep) - found.count(None):
                        body = await self._rewritten(opened, contents, keep)
                        flags = _COMPACTED
            if kept:
                walk.tally.kept += kept
                walk.tally.entries += 1
                walk.tally.bytes += len(body)
                yield Survivor(at, _row(run, row, at, body, flags), body, last_batch)
        if walk.tally.lost != self._first.lost or walk.tally.messages != self._first.messages:
            raise CompactionError("entries became unreadable while they were compacted")

    async def _keep(self, walk: _Walk, found: Sequence[Keyed | None]) -> list[bool]:
        """Return which messages of a batch survive."""
        keep: list[bool] = []
        for each in found:
            keep.append(each is not None and self._keeps(walk, each[0]))
            if self._pace.due:
                await self._pace.rest()
        return keep

    def _keeps(self, walk: _Walk, key: bytes | None) -> bool:
        if key is None:
            return self._retain_null_key
        return walk.next_ordinal() in self._survivors

    def _keeps_chunk(self, walk: _Walk, chunk: tuple[str, int, int]) -> bool:
        number, complete = walk.chunked.number(*chunk)
        if number is None:
            return False
        fate = self._fates[number]
        if complete and fate >= 0:
            walk.next_ordinal()
        if fate == _WITHOUT_KEY:
            return self._retain_null_key
        return fate == _UNFINISHED or fate in self._survivors

    async def _rewritten(self, opened: Opened, contents: memoryview, keep: Sequence[bool]) -> bytes:
        pieces: list[bytes] = []
        for piece in opened.pieces(contents, keep):
            pieces.append(piece)
            if self._pace.due:
                await self._pace.rest()
        if len(contents) < THREAD_BYTES:
            return opened.rewritten(pieces, keep)
        found = await self._in_thread(opened.rewritten, pieces, keep)
        assert isinstance(found, bytes)
        return found

    # --- both

    def _opened(self, run: Run, row: int) -> Opened | None:
        """Look into an entry; None: it is not one that can be looked into."""
        if run.u32(FLAGS)[row] & _FORMAT_MASK != BodyFormat.PULSAR:
            return None
        return self._open_body(run.body(row))

    async def _messages(self, opened: Opened) -> tuple[memoryview, list[Keyed | None] | None]:
        """Return the contents of a batch and the keys in it; None: nobody can read it."""
        try:
            if opened.contents_bytes < THREAD_BYTES:
                contents = opened.contents()
            else:
                decompressed = await self._in_thread(opened.contents)
                assert isinstance(decompressed, memoryview)
                contents = decompressed
            found: list[Keyed | None] = []
            for each in opened.keys(contents):
                found.append(each)
                if self._pace.due:
                    await self._pace.rest()
        except ValueError:
            return memoryview(b""), None
        return contents, found

    async def _entries(self, walk: _Walk) -> AsyncIterator[tuple[EntryId, Run, int]]:
        """Yield every entry up to the horizon, but for those that are never delivered."""
        tally = walk.tally
        async for ids, run in self._stretches(tally):
            flags = run.u32(FLAGS).tolist()
            counts = run.u32(MESSAGES).tolist()
            tally.bytes_read += sum(run.u32(LENGTH).tolist())
            for row, at in enumerate(ids):
                if self._pace.due:
                    await self._pace.rest()
                if flags[row] & _MARKER:
                    continue
                tally.messages += counts[row]
                yield at, run, row

    async def _stretches(self, tally: Tally) -> AsyncIterator[tuple[list[EntryId], Run]]:
        position = EntryId(-1, -1)
        if self._view is not None:
            async for stretch in self._view_stretches(self._view, tally):
                yield stretch
            horizon = self._view.horizon
            position = EntryId(horizon.ledger, horizon.entry + 1)
        while position <= self._horizon:
            found = await self._log.read(position, READ_ENTRIES, READ_BYTES)
            if isinstance(found, Gap):
                last = min(found.last, self._horizon)
                if found.first <= self._horizon:
                    tally.lost.append(Gap(found.first, last, found.reason))
                position = EntryId(found.last.ledger, found.last.entry + 1)
                continue
            at, run = found
            if not run.count or at > self._horizon:
                return
            if at.ledger == self._horizon.ledger:
                run = run.slice(0, min(run.count, self._horizon.entry - at.entry + 1))
            yield [EntryId(at.ledger, at.entry + row) for row in range(run.count)], run
            position = EntryId(at.ledger, at.entry + run.count)
            await asyncio.sleep(0)

    async def _view_stretches(
        self, view: View, tally: Tally
    ) -> AsyncIterator[tuple[list[EntryId], Run]]:
        place = 0
        while place < view.places:
            try:
                found = await view.read(place, READ_ENTRIES, READ_BYTES)
            except QuarantinedError as error:
                if not self._pass_damage:
                    raise ViewDamagedError(
                        f"the compacted ledger {view.ledger} has lost entries: {error.reason}"
                    ) from error
                last = min(error.last, view.places - 1)
                lost = EntryId(view.ledger, place), EntryId(view.ledger, last)
                tally.lost.append(Gap(*lost, error.reason))
                place = last + 1
                continue
            yield found.ids, found.run
            place += found.run.count
            await asyncio.sleep(0)


_UNFINISHED = -1
_WITHOUT_KEY = -2


def _row(run: Run, row: int, at: EntryId, body: memoryview | bytes, flags: int) -> bytes:
    """Return the row of a survivor. Its offset comes when it is written."""
    start = row * ROW_SIZE
    if not flags:
        packed = bytearray(run.rows[start : start + ROW_SIZE])
        packed[24:32] = (at.entry << 32).to_bytes(8, "little")  # no producer slot, and RESERVED
        return bytes(packed)
    envelope = run.envelope(row)
    return ROW.pack(
        *envelope._replace(
            length=len(body),
            checksum=crc32c(body),
            flags=envelope.flags | flags,
            producer=0,
            transaction=at.entry,
        )
    )
