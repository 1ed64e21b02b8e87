"""The cursor: what of a log has been acknowledged. Pure data; the subscription persists it.

    entries     0 1 2 3 4 5 6 7 8 9
    acked       x x x x . x x . . x        mark-delete = 3: it and everything before it is done
                      ▲   └┬┘     ▲        holes: 5-6 and 9, as bitmaps (see `entry_set`)
                 mark-delete       └──     an entry of which a part is acknowledged (a batch)
                                           has an ack set: words of 64 bits, 1 = still to do

Mark-delete moves over neighbouring holes, also from the end of one ledger to the start of
the next; where ledgers end the log tells (`Ledgers`). It may name entry -1 of a ledger:
nothing in that ledger is done, everything in earlier ones is.

Changes, as they ride in the journal and lie in metadata, little-endian:

    format u8 = 1 | flags u8 | 0 u16 | pages u32 | ack sets u32
    | version u64 | consumed i64 | mark-delete ledger i64, entry i64
    flags: 1: forget everything first, 2: `consumed` is an estimate
    then for each changed page
        ledger i64 | page u32 | first byte u16 | bytes u16 (0: empty, 65535: whole) | bitmap
    then for each changed ack set
        ledger i64 | entry i64 | words u32 (0: gone) | words i64 ...

A page is written without the zero bytes at its two ends. Changes whose version is not above
the cursor's own are ignored, so a journal may be replayed over a newer snapshot. Losing the
last changes only brings entries back that were done.

Terms are Pulsar's (ManagedCursor); the layout is ours.
"""

import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from magnetar.broker.entry import EARLIEST, EntryId
from magnetar.broker.topics.cursors.entry_set import FULL, PAGE_BITS, EntrySet, PageKey, Range

_HEAD = struct.Struct("<BBHIIQqqq")
_PAGE = struct.Struct("<qIHH")
_SET = struct.Struct("<qqI")
_FORMAT = 1
_FORGET = 1
_ESTIMATED = 2
_WHOLE = 0xFFFF
_PAGE_BYTES = 512

ACK_SET_WORDS_MAX = 1 << 16
"""4 million messages in one batch: no door lets an entry that large in."""

AckSet = tuple[int, ...]
"""Words of 64 bits, signed as the protocol has them, 1 = still to be acknowledged."""


class CursorFormatError(ValueError):
    """Bytes that are no cursor changes. Ours to answer for: they were checksummed on the way."""


class Ledgers(Protocol):
    """Where the ledgers of a log end. `storage.log.Log` is one."""

    def next_position(self, position: EntryId, /) -> EntryId:
        """Return the first existing entry at or after a position, or the end of the log."""
        ...

    def distance(self, first: EntryId, end: EntryId, /) -> int:
        """Count the entries from `first` up to, not including, `end`."""
        ...


HEAD: PageKey = (0, 1 << 20)
"""The key under which what is no page lies among the pages of a store. No ledger has that page."""

UNKNOWN = -1
"""As `consumed`: nobody counted yet."""


class CursorPages(NamedTuple):
    """A cursor's state for a store that keeps pages apart and writes only changed ones."""

    mark_delete: EntryId
    version: int
    pages: dict[PageKey, bytes | None]
    """Bitmaps of 512 bytes, None: the page is gone; under `HEAD` everything else."""


def ones(words: Sequence[int]) -> int:
    """Count the messages an ack set still waits for."""
    return sum((word & 0xFFFF_FFFF_FFFF_FFFF).bit_count() for word in words)


class _Changes:
    """What of a cursor nobody has stored yet. Most cursors have no holes, and none of this."""

    __slots__ = ("pages", "sets", "unsaved")

    def __init__(self) -> None:
        self.pages: set[PageKey] = set()
        """Since the last `take_changes`."""
        self.sets: set[EntryId] = set()
        self.unsaved: set[PageKey] = set()
        """Since the last `take_pages`, as far as `take_changes` returned them."""


class Cursor:
    """What has been acknowledged, in any order and any number of times.

    `consumed` counts messages: how many of the topic, from its very first, are done; whether
    that is `estimated` is noted beside it. The cursor stores both, its owner keeps them.
    """

    __slots__ = (
        "_acked",
        "_changes",
        "_forget",
        "_sets",
        "_taken_version",
        "consumed",
        "estimated",
        "mark_delete",
        "version",
    )

    def __init__(self, mark_delete: EntryId = EARLIEST, consumed: int = 0) -> None:
        self.mark_delete = mark_delete
        self.consumed = consumed
        self.estimated = consumed == UNKNOWN
        self.version = 1
        self._acked = EntrySet()
        self._sets: dict[EntryId, AckSet] = {}
        self._changes: _Changes | None = None
        self._forget = True
        self._taken_version = 0

    # --- acknowledging

    def acknowledge(self, ledger: int, first: int, count: int, ledgers: Ledgers) -> int:
        """Acknowledge neighbouring entries; return how many were not acknowledged before.

        The entries must exist: a bit beyond the end of a ledger would stay for ever.
        """
        mark = self.mark_delete
        if ledger <= mark.ledger:
            if ledger < mark.ledger:
                return 0
            known = mark.entry + 1 - first
            if known > 0:
                first += known
                count -= known
                if count <= 0:
                    return 0
            contiguous = known >= 0
        else:
            contiguous = ledgers.next_position(EntryId(mark.ledger, mark.entry + 1)) == (
                ledger,
                first,
            )
        if self._sets:
            self._drop_sets(ledger, first, count)
        if contiguous and not self._acked.count:
            self.mark_delete = EntryId(ledger, first + count - 1)
            self.version += 1
            return count
        new = self._acked.add(ledger, first, count)
        if new:
            self.version += 1
            for page in range(first >> PAGE_BITS, (first + count - 1 >> PAGE_BITS) + 1):
                self._noted().pages.add((ledger, page))
            if contiguous:
                self._advance(ledgers)
        return new

    def acknowledge_part(
        self, ledger: int, entry: int, ack_set: Sequence[int], ledgers: Ledgers
    ) -> int:
        """Acknowledge messages of a batch: those with a 0 in `ack_set`, and those with one before.

        When no ones are left, the entry is done. Returns how many entries that makes: 0 or 1.
        """
        key = EntryId(ledger, entry)
        if self.is_acknowledged(key):
            return 0
        before = self._sets.get(key)
        words = tuple(ack_set)
        if before is not None:
            words = tuple(a & b for a, b in zip(before, words, strict=False))
        if not any(words):
            return self.acknowledge(ledger, entry, 1, ledgers)
        if words != before:
            self._sets[key] = words
            self._noted().sets.add(key)
            self.version += 1
        return 0

    def acknowledge_up_to(self, position: EntryId, ledgers: Ledgers) -> int:
        """Acknowledge everything up to and including `position`; return how many were new."""
        mark = self.mark_delete
        if position <= mark:
            return 0
        after = EntryId(position.ledger, position.entry + 1)
        new = ledgers.distance(EntryId(mark.ledger, mark.entry + 1), after)
        self.version += 1
        self.mark_delete = position
        new -= self._trim_to_mark()
        self._advance(ledgers)
        return new

    def reset(self, mark_delete: EntryId, consumed: int) -> None:
        """Start again after `mark_delete`: everything later is to be done, holes are forgotten."""
        self.mark_delete = mark_delete
        self.consumed = consumed
        self.estimated = False
        self._noted().unsaved.update(self._acked.pages)
        self._acked.clear()
        self._sets = {}
        self._forget_changes()
        self._forget = True
        self.version += 1

    # --- asking

    def is_acknowledged(self, position: EntryId) -> bool:
        """Return whether an entry is done as a whole."""
        return position <= self.mark_delete or position in self._acked

    def acknowledged_bits(self, ledger: int, first: int, count: int) -> int:
        """Return which of `count` entries are done, as a bitmap: bit `i` is entry `first + i`."""
        mark = self.mark_delete
        if ledger > mark.ledger:
            return self._acked.bits(ledger, first, count)
        if ledger < mark.ledger:
            return (1 << count) - 1
        below = min(max(mark.entry + 1 - first, 0), count)
        return ((1 << below) - 1) | self._acked.bits(ledger, first, count)

    def next_unacknowledged(
        self, position: EntryId, ledgers: Ledgers, pages_max: int = 1 << 20
    ) -> EntryId:
        """Return the first entry from `position` on that is not done, or the end of the log.

        Looks into at most `pages_max` pages; what it then returns may be done after all.
        """
        if position <= self.mark_delete:
            position = EntryId(self.mark_delete.ledger, self.mark_delete.entry + 1)
        position = ledgers.next_position(position)
        for _ in range(pages_max):
            run = self._acked.run_at(*position)
            if not run:
                break
            position = ledgers.next_position(EntryId(position.ledger, position.entry + run))
        return position

    @property
    def holes(self) -> int:
        """How many entries beyond mark-delete are done."""
        return self._acked.count

    @property
    def ack_sets(self) -> dict[EntryId, AckSet]:
        """The entries of which a part is done. Do not change."""
        return self._sets

    @property
    def range_count(self) -> int:
        """How many ranges `ranges` yields."""
        return self._acked.range_count()

    def ranges(self) -> Iterator[Range]:
        """Yield what is done beyond mark-delete, in log order."""
        return self._acked.ranges()

    def backlog(self, ledgers: Ledgers, end: EntryId) -> int:
        """Count the entries before `end` that are not done."""
        start = EntryId(self.mark_delete.ledger, self.mark_delete.entry + 1)
        return max(ledgers.distance(start, end) - self._acked.count, 0)

    # --- persisting

    @property
    def changed(self) -> bool:
        """Whether there is anything that `take_changes` did not return yet."""
        return self.version != self._taken_version

    def take_changes(self) -> bytes:
        """Return what changed since the last call. To be applied in the order of the calls."""
        if self._forget:
            changes = self.snapshot()
        else:
            mark, noted = self.mark_delete, self._changes
            border = (mark.ledger, mark.entry + 1 >> PAGE_BITS)
            changes = self._encode(
                0,
                [key for key in noted.pages if key >= border] if noted else (),
                [key for key in noted.sets if key > mark] if noted else (),
            )
        self._forget_changes()
        self._forget = False
        self._taken_version = self.version
        return changes

    def changes_lost(self) -> None:
        """Report that what `take_changes` returned was not stored; the next call returns all."""
        self._forget = True
        self._taken_version = 0

    def snapshot(self) -> bytes:
        """Return everything, in the format of `take_changes`. Forgets no changes."""
        return self._encode(_FORGET, self._acked.pages, self._sets)

    def take_pages(self, *, everything: bool = False) -> CursorPages:
        """Return the state with the pages that changed since the last call of this."""
        noted, bitmaps = self._changes, self._acked.pages
        keys = noted.unsaved | noted.pages if noted else set[PageKey]()
        pages: dict[PageKey, bytes | None] = {
            key: bitmaps[key].to_bytes(_PAGE_BYTES, "little") if key in bitmaps else None
            for key in (keys.union(bitmaps) if everything else keys)
        }
        if noted:
            noted.unsaved = set()
            self._forget_nothing(noted)
        pages[HEAD] = self._encode(_FORGET, (), self._sets)
        return CursorPages(self.mark_delete, self.version, pages)

    def apply(self, changes: bytes) -> bool:
        """Take over changes; False if they are older than what is here.

        Raises:
            CursorFormatError: the bytes are not changes of a cursor.
        """
        try:
            return self._apply(memoryview(changes))
        except struct.error as error:
            raise CursorFormatError(f"cursor changes of {len(changes)} bytes: {error}") from None

    @classmethod
    def restore(cls, snapshot: bytes) -> "Cursor":
        """Return the cursor of a snapshot.

        Raises:
            CursorFormatError: the bytes are not a snapshot.
        """
        cursor = cls()
        cursor.version = 0
        cursor.apply(snapshot)
        cursor.version = max(cursor.version, 1)
        return cursor

    @classmethod
    def from_pages(
        cls, mark_delete: EntryId, version: int, pages: Mapping[PageKey, bytes]
    ) -> "Cursor":
        """Return the cursor whose pages a store kept apart.

        Raises:
            CursorFormatError: the head is damaged.
        """
        head = pages.get(HEAD)
        cursor = cls(mark_delete, UNKNOWN) if head is None else cls.restore(head)
        cursor.load_pages(mark_delete, version, pages)
        return cursor

    def load_pages(
        self, mark_delete: EntryId, version: int, pages: Mapping[PageKey, bytes]
    ) -> None:
        """Take over bitmaps that a store kept apart; nothing counts as changed then."""
        self.mark_delete = mark_delete
        self.version = self._taken_version = version
        self._forget = False
        for key, bitmap in pages.items():
            if key != HEAD:
                self._acked.load_page(key, int.from_bytes(bitmap, "little"))
        self._trim_to_mark()
        self._changes = None

    # --- inside

    def _advance(self, ledgers: Ledgers) -> None:
        acked = self._acked
        position = self.mark_delete
        while acked.count:
            ledger, entry = ledgers.next_position(EntryId(position.ledger, position.entry + 1))
            run = acked.run_at(ledger, entry)
            if not run:
                break
            acked.discard(ledger, entry, run)
            self._noted().pages.add((ledger, entry >> PAGE_BITS))
            position = EntryId(ledger, entry + run - 1)
        self.mark_delete = position

    def _drop_sets(self, ledger: int, first: int, count: int) -> None:
        if count > len(self._sets):
            keys = [
                key for key in self._sets if key[0] == ledger and first <= key[1] < first + count
            ]
        else:
            keys = [EntryId(ledger, entry) for entry in range(first, first + count)]
        for key in keys:
            if self._sets.pop(key, None) is not None:
                self._noted().sets.add(key)

    def _trim_to_mark(self) -> int:
        """Forget what mark-delete implies; return how many holes that were."""
        mark = self.mark_delete
        if self._sets:
            self._sets = {key: words for key, words in self._sets.items() if key > mark}
        if not self._acked.count:
            return 0
        border = (mark.ledger, mark.entry + 1 >> PAGE_BITS)
        self._noted().pages.update(key for key in self._acked.pages if key <= border)
        return self._acked.discard_up_to(mark)

    def _forget_changes(self) -> None:
        noted = self._changes
        if noted is not None:
            noted.unsaved |= noted.pages
            noted.pages, noted.sets = set(), set()
            self._forget_nothing(noted)

    def _noted(self) -> "_Changes":
        if self._changes is None:
            self._changes = _Changes()
        return self._changes

    def _forget_nothing(self, noted: "_Changes") -> None:
        if not (noted.pages or noted.sets or noted.unsaved):
            self._changes = None

    def _encode(self, flags: int, pages: Collection[PageKey], sets: Collection[EntryId]) -> bytes:
        parts = [
            _HEAD.pack(
                _FORMAT,
                flags | self.estimated * _ESTIMATED,
                0,
                len(pages),
                len(sets),
                self.version,
                self.consumed,
                *self.mark_delete,
            )
        ]
        for ledger, page in pages:
            parts += _encode_page(ledger, page, self._acked.pages.get((ledger, page), 0))
        for key in sets:
            words = self._sets.get(key, ())
            parts.append(_SET.pack(*key, len(words)) + struct.pack(f"<{len(words)}q", *words))
        return b"".join(parts)

    def _apply(self, changes: memoryview) -> bool:
        number, flags, _, pages, sets, version, consumed, ledger, entry = _HEAD.unpack_from(changes)
        if number != _FORMAT:
            raise CursorFormatError(
                f"cursor changes of format {number}, this version knows {_FORMAT}"
            )
        if version <= self.version:
            return False
        if flags & _FORGET:
            self._noted().unsaved.update(self._acked.pages)
            self._acked.clear()
            self._sets = {}
        self.version = self._taken_version = version
        self._forget = False
        self.consumed = consumed
        self.estimated = bool(flags & _ESTIMATED)
        self.mark_delete = EntryId(ledger, entry)
        at: int = _HEAD.size
        for _ in range(pages):
            at = self._apply_page(changes, at)
        for _ in range(sets):
            at = self._apply_set(changes, at)
        if at != len(changes):
            raise CursorFormatError(f"cursor changes of {len(changes)} bytes, {at} expected")
        self._trim_to_mark()
        return True

    def _apply_page(self, changes: memoryview, at: int) -> int:
        ledger: int
        page: int
        size: int
        ledger, page, first_byte, size = _PAGE.unpack_from(changes, at)
        at += _PAGE.size
        key = (ledger, page)
        self._noted().unsaved.add(key)
        if size == _WHOLE:
            self._acked.load_page(key, FULL)
            return at
        if first_byte + size > _PAGE_BYTES or at + size > len(changes):
            raise CursorFormatError(f"a bitmap of {size} bytes from byte {first_byte} of its page")
        bits = int.from_bytes(changes[at : at + size], "little") << 8 * first_byte
        self._acked.load_page(key, bits)
        return at + size

    def _apply_set(self, changes: memoryview, at: int) -> int:
        ledger: int
        entry: int
        count: int
        ledger, entry, count = _SET.unpack_from(changes, at)
        at += _SET.size
        if count > ACK_SET_WORDS_MAX:
            raise CursorFormatError(
                f"an ack set of {count} words, the limit is {ACK_SET_WORDS_MAX}"
            )
        if count:
            self._sets[EntryId(ledger, entry)] = struct.unpack_from(f"<{count}q", changes, at)
        else:
            self._sets.pop(EntryId(ledger, entry), None)
        return at + 8 * count


def _encode_page(ledger: int, page: int, bits: int) -> Iterator[bytes]:
    if not bits:
        yield _PAGE.pack(ledger, page, 0, 0)
    elif bits == FULL:
        yield _PAGE.pack(ledger, page, 0, _WHOLE)
    else:
        first_byte = ((bits & -bits).bit_length() - 1) >> 3
        bits >>= 8 * first_byte
        size = bits.bit_length() + 7 >> 3
        yield _PAGE.pack(ledger, page, first_byte, size)
        yield bits.to_bytes(size, "little")
