"""Which message is the last of its key: for any number of keys, in bounded memory. Pure.

    key ──keyed hash, 14 bytes──▶ part (2 bytes) | digest (12 bytes)

    part 0x1a3   digests   |d1|d2|d1|d3|      12 bytes each, as they came
                 ordinals  | 0| 1| 2| 3|       4 bytes each: which message it was
                 settle ─▶ |d1:2|d2:1|d3:3|    only the last of each digest

22 bytes for each key, room to grow included, and at most half as much again for repetitions not
settled yet; Python's own dictionary takes six times that. The hash is blake2b with a random key:
that two keys of ten million share 96 bits and a part is less likely than 1 in 10^18, and nobody
can provoke it.

When even that is too much, the upper half of the parts is given up, and the caller comes
again for it: a round more over the log, instead of memory without limit.

What is known in the end is one bit per message: whether it is the last of its key, and its
key was not deleted.
"""

import struct
from array import array
from collections.abc import Iterator
from hashlib import blake2b
from itertools import chain

PARTS = 4096
ORDINAL_MAX = 2**32 - 2
"""Messages that can be told apart in one compaction."""

_DELETED = 2**32 - 1
_PART_BYTES = 2
_DIGEST_BYTES = 12
_ROW_BYTES = _DIGEST_BYTES + 4 + 6
"""What a row takes: with the room that Python's arrays keep to grow."""
_DIGEST = struct.Struct(f"{_DIGEST_BYTES}s")
_SETTLE_AT = 64
"""A part with fewer rows is not settled."""


class Survivors:
    """One bit per message."""

    __slots__ = ("_bits", "count")

    def __init__(self) -> None:
        self._bits = bytearray()
        self.count = 0

    def add(self, ordinal: int) -> None:
        """Let a message survive. Once."""
        at = ordinal >> 3
        if at >= len(self._bits):
            self._bits.extend(bytes(max(at + 1 - len(self._bits), len(self._bits) >> 2)))
        self._bits[at] |= 1 << (ordinal & 7)
        self.count += 1

    def __contains__(self, ordinal: int) -> bool:
        at = ordinal >> 3
        return at < len(self._bits) and bool(self._bits[at] >> (ordinal & 7) & 1)


class _Part:
    """The rows of keys whose hashes begin alike."""

    __slots__ = ("digests", "ordinals", "settle_at")

    def __init__(self) -> None:
        self.digests = bytearray()
        self.ordinals = array("I")
        self.settle_at = _SETTLE_AT

    def settle(self) -> int:
        """Keep the last of each digest; return how many rows that saves."""
        before = len(self.ordinals)
        last = dict(zip(_DIGEST.iter_unpack(self.digests), self.ordinals, strict=True))
        self.digests = bytearray().join(chain.from_iterable(last))
        self.ordinals = array("I", last.values())
        after = len(self.ordinals)
        self.settle_at = max(_SETTLE_AT, after + after // 2)
        return before - after


class LastOfKey:
    """One round: the last message of every key whose hash falls into the parts looked at."""

    def __init__(self, salt: bytes, first_part: int, bytes_max: int) -> None:
        """Look at the parts from `first_part` on, as many as fit."""
        self._salt = salt
        self._first = first_part
        self.end_part = PARTS
        """The part after the last one that was looked at."""
        self._rows_max = max(bytes_max // _ROW_BYTES, PARTS)
        self._rows = 0
        self._parts: dict[int, _Part] = {}

    def put(self, key: bytes, ordinal: int, *, deletes: bool) -> None:
        """Take note of a message. Ordinals only rise."""
        hashed = blake2b(key, digest_size=_PART_BYTES + _DIGEST_BYTES, key=self._salt).digest()
        number = (hashed[0] << 8 | hashed[1]) & PARTS - 1
        if not self._first <= number < self.end_part:
            return
        part = self._parts.get(number)
        if part is None:
            part = self._parts[number] = _Part()
        part.digests += hashed[_PART_BYTES:]
        part.ordinals.append(_DELETED if deletes else ordinal)
        self._rows += 1
        if len(part.ordinals) >= part.settle_at:
            self._rows -= part.settle()
            if self._rows > self._rows_max:
                self._give_up_half()

    def _give_up_half(self) -> None:
        """Leave the upper half of the parts to another round."""
        if self.end_part - self._first > 1:
            self.end_part = (self._first + self.end_part) // 2
            for number in [each for each in self._parts if each >= self.end_part]:
                self._rows -= len(self._parts.pop(number).ordinals)

    def settle_into(self, survivors: Survivors) -> Iterator[None]:
        """Add the ordinals that survive, a part between two yields. Nothing is left here then."""
        while self._parts:
            _, part = self._parts.popitem()
            part.settle()
            for ordinal in part.ordinals:
                if ordinal != _DELETED:
                    survivors.add(ordinal)
            yield
        self._rows = 0

    @property
    def done(self) -> bool:
        """Whether no part is left for another round."""
        return self.end_part == PARTS
