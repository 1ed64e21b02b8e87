"""Who gets which entry. Pure: a snapshot goes in, assignments come out.

    Exclusive, Failover   one consumer is active and gets everything    `active_consumer`
    Shared                neighbouring rows in turn, best priority first `assign_shared`
    Key_Shared            by hash slot; a slot has one consumer at a time `assign_keyed`

The slot of an entry is its key hash modulo 65,536, and 1 instead of 0 (Pulsar reserves 0).
Who owns a slot is told by a `HashRing` (automatic split, consistent hashing with 100 points
for each consumer), by `Halves` (automatic split, where that is switched off) or by
`StickyRanges` (each consumer names its own).

Permits count messages. A batch is never split, so its last entry may drive permits below 0.
Consumers are numbers here: their owner gave them out.

Source: Apache Pulsar's documentation, "Subscription types"; PIP-34, PIP-119, PIP-282 and PIP-379 of
Apache Pulsar for key-shared order (the last one for draining by hash).
"""

import hashlib
import struct
from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple, Protocol

SLOTS = 65_536
POINTS_PER_CONSUMER = 100
"""More points split the slots more evenly; 100 is Pulsar's number."""
_SPLIT_MIN = 2
_POINTS = struct.Struct(f"<{POINTS_PER_CONSUMER}H")
_SPREAD = 0x9E37_79B1
"""2^32 divided by the golden ratio: Knuth's multiplier, spreads neighbouring sequence ids."""


class RangeOverlapError(ValueError):
    """Two sticky consumers claim the same slot, or a range is none."""


class Slot(NamedTuple):
    """What dispatch needs to know about one connected consumer."""

    consumer: int
    permits: int
    """Messages the consumer has room for."""
    priority: int = 0
    """0 is served first."""


class Candidate(NamedTuple):
    """What the choice of the active consumer needs to know about each."""

    consumer: int
    name: str
    priority: int = 0


class Assignment(NamedTuple):
    """Send some rows, in rising order, to a consumer."""

    consumer: int
    rows: Sequence[int]
    messages: int


# --- exclusive and failover


def active_consumer(candidates: Sequence[Candidate], topic: str, partition: int) -> int | None:
    """Return the consumer that gets everything; None if there is none.

    Only the best priority counts. Of a partitioned topic each partition takes the next
    consumer by name, so that partitions spread; otherwise a hash of the topic decides, so
    that topics spread. `partition`: -1 if the topic is none.
    """
    if not candidates:
        return None
    best = min(candidate.priority for candidate in candidates)
    ring = sorted(
        (candidate for candidate in candidates if candidate.priority == best),
        key=lambda candidate: (candidate.name, candidate.consumer),
    )
    if partition >= 0:
        return ring[partition % len(ring)].consumer
    hashed = HashRing((each.consumer, each.name) for each in ring)
    return hashed.owner(slot_of(int.from_bytes(hashlib.shake_128(topic.encode()).digest(4), "big")))


# --- shared


def assign_shared(
    messages: Sequence[int], slots: Sequence[Slot], turn: int, chunk_max: int = 64
) -> tuple[list[Assignment], int, int]:
    """Deal rows to consumers in turn, the best priority that has room first.

    `messages[i]` is the number of messages in row `i`; `turn` counts how often anybody was
    served; `chunk_max` neighbours go to one consumer before it is the next one's turn. Returns
    the assignments, the new turn and how many rows, from the first on, found room; the others
    stay in the backlog.
    """
    sums = [0, *accumulate(messages)]
    total = len(messages)
    dealt: dict[int, list[range]] = {}
    at = 0
    for priority in sorted({slot.priority for slot in slots}):
        ring = [[slot.consumer, slot.permits] for slot in slots if slot.priority == priority]
        ring = [each for each in ring if each[1] > 0]
        chunk = max(1, min(chunk_max, -(-(total - at) // max(len(ring), 1))))
        while at < total and ring:
            each = ring[turn % len(ring)]
            # The first row at which the permits are used up is still sent: a batch is whole.
            fits = bisect_left(sums, sums[at] + each[1], at + 1, min(at + chunk, total)) - at
            each[1] -= sums[at + fits] - sums[at]
            dealt.setdefault(each[0], []).append(range(at, at + fits))
            at += fits
            if each[1] > 0:
                turn += 1
            else:
                # The next one has moved to this place.
                place = turn % len(ring)
                del ring[place]
                turn = place
    return [_joined(consumer, ranges, sums) for consumer, ranges in dealt.items()], turn, at


def _joined(consumer: int, ranges: list[range], sums: Sequence[int]) -> Assignment:
    messages = sum(sums[each.stop] - sums[each.start] for each in ranges)
    first, last = ranges[0], ranges[-1]
    if sum(map(len, ranges)) == last.stop - first.start:
        return Assignment(consumer, range(first.start, last.stop), messages)
    return Assignment(consumer, [row for each in ranges for row in each], messages)


# --- key_shared


def slot_of(key_hash: int) -> int:
    """Return the slot of a key."""
    return key_hash % SLOTS or 1


def slot_without_key(sequence_id: int) -> int:
    """Return a slot for an entry without a key: it has no order to keep, only to spread."""
    return slot_of((sequence_id * _SPREAD & 0xFFFF_FFFF) >> 16)


class Owners(Protocol):
    """Who owns which slot."""

    def owner(self, slot: int) -> int | None:
        """Return the consumer that owns a slot; None if nobody does."""
        ...

    def ranges(self) -> dict[int, list[tuple[int, int]]]:
        """Return the slots of each consumer as inclusive ranges."""
        ...


class HashRing:
    """Automatic split: each consumer has 100 points on a ring, a slot goes to the next point.

    Who joins takes slots from the others, who leaves gives his to the others, and no slot
    moves between two that stay.
    """

    __slots__ = ("_owners", "_points")

    def __init__(self, consumers: Iterable[tuple[int, str]]) -> None:
        points: list[tuple[int, int, str, int]] = []
        seen: dict[str, int] = {}
        for number, name in consumers:
            # Consumers of the same name are told apart by the order in which they came.
            twin = seen[name] = seen.get(name, -1) + 1
            digest = hashlib.shake_128(f"{name}\0{twin}".encode()).digest(_POINTS.size)
            points += [(point, twin, name, number) for point in _POINTS.unpack(digest)]
        points.sort()
        self._points = [point[0] for point in points]
        self._owners = [point[3] for point in points]

    def owner(self, slot: int) -> int | None:
        """Return the consumer that owns a slot; None without consumers."""
        if not self._points:
            return None
        return self._owners[bisect_left(self._points, slot) % len(self._points)]

    def ranges(self) -> dict[int, list[tuple[int, int]]]:
        """Return the slots of each consumer as inclusive ranges."""
        found: dict[int, list[tuple[int, int]]] = {}
        if not self._points:
            return found
        start = 0
        for point, owner in [
            *zip(self._points, self._owners, strict=True),
            (SLOTS - 1, self._owners[0]),
        ]:
            if point < start:
                continue
            mine = found.setdefault(owner, [])
            if mine and mine[-1][1] == start - 1:
                mine[-1] = (mine[-1][0], point)
            else:
                mine.append((start, point))
            start = point + 1
        return found


class Halves:
    """Automatic split: who joins takes the lower half of the longest range there is.

    With few keys and few consumers it is known beforehand who gets which, whatever the names.
    When somebody leaves, the others have what they would have had without him.
    """

    __slots__ = ("_ends", "_owners")

    def __init__(self, consumers: Iterable[int]) -> None:
        """Take everybody, in the order in which they joined."""
        self._ends: list[int] = []
        """The last slot of each range."""
        self._owners: list[int] = []
        for number in consumers:
            if not self._ends:
                self._ends, self._owners = [SLOTS - 1], [number]
                continue
            starts = [0, *(end + 1 for end in self._ends[:-1])]
            lengths = [end - start + 1 for start, end in zip(starts, self._ends, strict=True)]
            longest = lengths.index(max(lengths))
            if lengths[longest] < _SPLIT_MIN:
                break  # more consumers than slots: those who come now wait
            self._ends.insert(longest, starts[longest] + lengths[longest] // 2 - 1)
            self._owners.insert(longest, number)

    def owner(self, slot: int) -> int | None:
        """Return the consumer that owns a slot; None without consumers."""
        return self._owners[bisect_left(self._ends, slot)] if self._ends else None

    def ranges(self) -> dict[int, list[tuple[int, int]]]:
        """Return the slots of each consumer as inclusive ranges."""
        starts = [0, *(end + 1 for end in self._ends[:-1])]
        each = zip(self._owners, starts, self._ends, strict=True)
        return {owner: [(start, end)] for owner, start, end in each} if self._ends else {}


class StickyRanges:
    """Each consumer declared its slots; what nobody declared is not delivered."""

    __slots__ = ("_ends", "_owners", "_starts")

    def __init__(self, consumers: Iterable[tuple[int, Sequence[tuple[int, int]]]]) -> None:
        """Take (consumer, inclusive ranges) of everybody.

        Raises:
            RangeOverlapError: a range is empty, out of bounds or overlaps another one.
        """
        claims = sorted((low, high, number) for number, each in consumers for low, high in each)
        before = -1
        for low, high, _ in claims:
            if not 0 <= low <= high < SLOTS:
                raise RangeOverlapError(
                    f"key range {low} to {high}: allowed are 0 to {SLOTS - 1}, lower end first"
                )
            if low <= before:
                raise RangeOverlapError(f"key range {low} to {high} overlaps one of a consumer")
            before = high
        self._starts = [claim[0] for claim in claims]
        self._ends = [claim[1] for claim in claims]
        self._owners = [claim[2] for claim in claims]

    def owner(self, slot: int) -> int | None:
        """Return the consumer that declared a slot; None if nobody did."""
        at = bisect_left(self._ends, slot)
        return self._owners[at] if at < len(self._ends) and self._starts[at] <= slot else None

    def ranges(self) -> dict[int, list[tuple[int, int]]]:
        """Return what each consumer declared."""
        found: dict[int, list[tuple[int, int]]] = {}
        for low, high, owner in zip(self._starts, self._ends, self._owners, strict=True):
            found.setdefault(owner, []).append((low, high))
        return found


class KeyedRows(NamedTuple):
    """What becomes of rows on a Key_Shared subscription."""

    assignments: list[Assignment]
    waiting: list[int]
    """Rows that cannot be sent now, in rising order. Whatever has their slot queues behind."""


class KeyedState(NamedTuple):
    """What stands in the way of a row on a Key_Shared subscription."""

    owners: Owners
    permits: Mapping[int, int]
    """Messages each consumer has room for."""
    holders: Mapping[int, int] = {}
    """Slots of which a consumer has unacknowledged entries, and who that is. Nobody else gets
    the slot before those are done: this is how a slot that moved is drained."""
    queued: Collection[int] = ()
    """Slots of which earlier entries wait already."""


def assign_keyed(
    rows: Sequence[int], slots: Sequence[int], messages: Sequence[int], state: KeyedState
) -> KeyedRows:
    """Give each row to the owner of its slot, if nothing of that slot is in the way.

    `slots[i]` and `messages[i]` belong to `rows[i]`.
    """
    owners, permits, holders, queued = state
    left = dict(permits)
    blocked: set[int] = set()
    dealt: dict[int, tuple[list[int], list[int]]] = {}
    waiting: list[int] = []
    for row, slot, count in zip(rows, slots, messages, strict=True):
        if slot not in blocked:
            owner = owners.owner(slot)
            if (
                owner is not None
                and left.get(owner, 0) > 0
                and slot not in queued
                and holders.get(slot, owner) == owner
            ):
                left[owner] -= count
                mine = dealt.setdefault(owner, ([], []))
                mine[0].append(row)
                mine[1].append(count)
                continue
            blocked.add(slot)
        waiting.append(row)
    return KeyedRows(
        [Assignment(owner, rows, sum(counts)) for owner, (rows, counts) in dealt.items()], waiting
    )
