"""Entries that have to be sent again, or could not be sent yet.

    Shared       `Replay`       one set, sent lowest position first, before anything new
    Key_Shared   `KeyedReplay`  the same per consumer; and slots that drain are parked

    an entry beyond the read position is in exactly one place:
        unacknowledged at a consumer ──nack, disconnect──▶ ready ──sent──▶ unacknowledged
        new, but its slot is taken ──▶ parked ──slot is free──▶ ready

A redelivery raises the entry's count by one; merely having waited does not. Counts live in
memory: after a restart they begin at 0, as Pulsar's do. Dead letters are the client's work:
it reads the count. Exclusive and Failover need nothing of this, they rewind.
"""

from collections.abc import Callable, Iterator, Mapping

from magnetar.broker.entry import EntryId
from magnetar.broker.topics.cursors.entry_set import EntryMap, EntrySet, Range

NOTHING: Mapping[int, int] = {}


class Replay:
    """What a Shared subscription sends before anything new."""

    __slots__ = ("_counts", "ready")

    def __init__(self) -> None:
        self.ready = EntrySet()
        self._counts = EntryMap("H")

    def again(self, ledger: int, first: int, count: int) -> None:
        """Send neighbouring entries again, and count it."""
        self.count(ledger, first, count)
        self.ready.add(ledger, first, count)

    def count(self, ledger: int, first: int, count: int) -> None:
        """Raise how often neighbouring entries were delivered."""
        counts = self._counts.window(ledger, first, count)
        if counts is None:
            self._counts.put_range(ledger, first, [1] * count)
        else:
            self._counts.put_range(ledger, first, [min(each + 1, 65_535) for each in counts])

    def done(self, ledger: int, first: int, count: int) -> None:
        """Forget neighbouring entries: they are acknowledged."""
        if self.ready.count:
            self.ready.discard(ledger, first, count)
        if self._counts.pages:
            self._counts.pop_range(ledger, first, count)

    def done_up_to(self, position: EntryId) -> None:
        """Forget everything up to and including a position."""
        self.ready.discard_up_to(position)
        self._counts.pop_up_to(position)

    def counts(self, ledger: int, first: int, count: int) -> Mapping[int, int]:
        """Return how often each of `count` rows was delivered before, where that is not 0."""
        if not self._counts.pages:
            return NOTHING
        found = self._counts.window(ledger, first, count)
        if found is None:
            return NOTHING
        return {row: times for row, times in enumerate(found) if times}

    @property
    def counted(self) -> bool:
        """Whether the count of any entry is kept."""
        return bool(self._counts.pages)

    def clear(self) -> None:
        """Forget everything, counts too."""
        self.ready.clear()
        self._counts.clear()


class KeyedReplay(Replay):
    """What a Key_Shared subscription holds back, and which consumer holds which slot.

    `target` tells who gets a slot now; None: nobody may have it yet.
    """

    __slots__ = (
        "_held",
        "_parked",
        "_slots",
        "holders",
        "queued",
        "ready_for",
        "target",
        "waiting",
    )

    def __init__(self, target: Callable[[int], int | None]) -> None:
        super().__init__()
        self.target = target
        self.ready_for: dict[int, EntrySet] = {}
        """Consumer -> what it gets as soon as it has permits."""
        self.queued: dict[int, int] = {}
        """Slot -> how many of its entries wait."""
        self.holders: dict[int, int] = {}
        """Slot -> the consumer that has unacknowledged entries of it."""
        self.waiting = 0
        self._held: dict[int, int] = {}
        self._parked: dict[int, EntrySet] = {}
        # Of everything that waits or is unacknowledged.
        self._slots = EntryMap("H")

    # --- who holds what

    def remember(self, ledger: int, entry: int, slot: int) -> None:
        """Note the slot of an entry that is about to be sent."""
        self._slots.put(ledger, entry, slot)

    def hold(self, slot: int, consumer: int) -> None:
        """Note that a consumer has one more entry of a slot."""
        self.holders[slot] = consumer
        self._held[slot] = self._held.get(slot, 0) + 1

    def returned(self, ledger: int, first: int, count: int) -> None:
        """Note that a consumer has neighbouring entries no longer."""
        held = self._held
        for slot in self._slots.window(ledger, first, count) or ():
            left = held.get(slot, 0) - 1
            if left > 0:
                held[slot] = left
            elif left == 0:
                del held[slot]
                del self.holders[slot]
                if slot in self._parked:
                    self._release(slot)

    # --- what waits

    def again(self, ledger: int, first: int, count: int) -> None:
        """Send neighbouring entries again, and count it."""
        self.count(ledger, first, count)
        for entry in range(first, first + count):
            self.wait(ledger, entry, self._slots.get(ledger, entry))

    def wait(self, ledger: int, entry: int, slot: int) -> None:
        """Hold an entry back until its slot's owner can take it."""
        self._slots.put(ledger, entry, slot)
        self.queued[slot] = self.queued.get(slot, 0) + 1
        self.waiting += 1
        self._place(ledger, entry, slot)

    def unwait(self, ledger: int, entry: int) -> int:
        """Take an entry out of what waits; return its slot, 0 if it did not wait."""
        slot = self._slots.get(ledger, entry)
        if not slot or slot not in self.queued:
            return 0
        if not self._discard(ledger, entry, slot):
            return 0
        self.waiting -= 1
        self.queued[slot] -= 1
        if not self.queued[slot]:
            del self.queued[slot]
        return slot

    def rearrange(self) -> None:
        """Ask for every waiting entry anew who gets it: consumers came or went."""
        places = [*self.ready_for.values(), *self._parked.values()]
        self.ready_for, self._parked = {}, {}
        for place in places:
            for ledger, first, count in place.ranges():
                for entry in range(first, first + count):
                    self._place(ledger, entry, self._slots.get(ledger, entry))

    def waiting_ranges(self) -> Iterator[Range]:
        """Yield everything that waits, in no particular order."""
        for place in (*self.ready_for.values(), *self._parked.values()):
            yield from place.ranges()

    # --- what is done

    def done(self, ledger: int, first: int, count: int) -> None:
        """Forget neighbouring entries: they are acknowledged, and no consumer holds them."""
        if self._counts.pages:
            self._counts.pop_range(ledger, first, count)
        if self.waiting:
            for entry in range(first, first + count):
                self.unwait(ledger, entry)
        self._slots.pop_range(ledger, first, count)

    def done_up_to(self, position: EntryId) -> None:
        """Forget everything up to and including a position."""
        self._counts.pop_up_to(position)
        if self.waiting:
            for ledger, first, count in list(self.waiting_ranges()):
                for entry in range(first, first + count):
                    if (ledger, entry) <= position:
                        self.unwait(ledger, entry)
        self._slots.pop_up_to(position)

    def clear(self) -> None:
        """Forget everything, counts and holders too."""
        super().clear()
        for each in (self.ready_for, self.queued, self.holders, self._held, self._parked):
            each.clear()
        self._slots.clear()
        self.waiting = 0

    def _discard(self, ledger: int, entry: int, slot: int) -> bool:
        parked = self._parked.get(slot)
        if parked is not None and parked.discard(ledger, entry):
            if not parked.count:
                del self._parked[slot]
            return True
        owner = self.target(slot)
        ready = None if owner is None else self.ready_for.get(owner)
        return ready is not None and bool(ready.discard(ledger, entry))

    def _place(self, ledger: int, entry: int, slot: int) -> None:
        owner = self.target(slot)
        if owner is None:
            self._parked.setdefault(slot, EntrySet()).add(ledger, entry)
        else:
            self.ready_for.setdefault(owner, EntrySet()).add(ledger, entry)

    def _release(self, slot: int) -> None:
        owner = self.target(slot)
        if owner is not None:
            self.ready_for.setdefault(owner, EntrySet()).update(self._parked.pop(slot))
