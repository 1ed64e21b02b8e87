"""What a subscription means, in plain sets: every delivery is judged, and what is missing found.

For each entry the model knows whether it is acknowledged, who has it, how often it was
delivered and when it is due. It does not say which consumer of several gets an entry, but
which ones may, and that nobody with room is left waiting for something he may have.
"""

from dataclasses import dataclass, field

from magnetar.broker.entry import EntryId
from magnetar.broker.port import SubscriptionType
from magnetar.broker.topics.consumers.dispatch import SLOTS, Owners
from tests.topics.memory_log import MemoryLog
from tests.topics.stage import Delivered

SINGLE = {SubscriptionType.EXCLUSIVE, SubscriptionType.FAILOVER}


@dataclass
class ModelEntry:
    """What was published."""

    messages: int
    slot: int
    due_ms: int


@dataclass
class ModelConsumer:
    """Somebody who is connected."""

    permits: int = 0
    has: set[EntryId] = field(default_factory=set)
    congested: bool = False


@dataclass
class Acked:
    """What survives a restart."""

    entries: set[EntryId] = field(default_factory=set)
    parts: dict[EntryId, int] = field(default_factory=dict)

    def copy(self) -> "Acked":
        return Acked(set(self.entries), dict(self.parts))


class Model:
    """One subscription."""

    def __init__(self, log: MemoryLog) -> None:
        self.log = log
        self.kind = SubscriptionType.EXCLUSIVE
        self.entries: dict[EntryId, ModelEntry] = {}
        self.acked = Acked()
        self.counts: dict[EntryId, int] = {}
        self.consumers: dict[int, ModelConsumer] = {}
        self.seen: set[EntryId] = set()
        """Delivered since the last rewind, or found to be due later."""

    # --- what happens

    def publish(self, entry: EntryId, messages: int, key: int, due_ms: int) -> None:
        self.entries[entry] = ModelEntry(messages, key % SLOTS or 1, due_ms)

    def join(self, number: int, kind: SubscriptionType) -> None:
        if not self.consumers:
            if kind != self.kind or kind in SINGLE:
                self.rewind()
            self.kind = kind
        self.consumers[number] = ModelConsumer()

    def leave(self, number: int) -> None:
        for entry in self.consumers.pop(number).has:
            self.counts[entry] = self.counts.get(entry, 0) + 1

    def rewind(self) -> None:
        self.seen.clear()
        self.counts.clear()

    def acknowledge(self, entry: EntryId) -> None:
        if entry in self.entries:
            self.acked.entries.add(entry)
            self.acked.parts.pop(entry, None)
            self.counts.pop(entry, None)
            for consumer in self.consumers.values():
                consumer.has.discard(entry)

    def acknowledge_part(self, entry: EntryId, bits: int) -> None:
        if entry in self.entries and entry not in self.acked.entries:
            whole = (1 << self.entries[entry].messages) - 1
            left = self.acked.parts.get(entry, whole) & bits
            if left:
                self.acked.parts[entry] = left
            else:
                self.acknowledge(entry)

    def acknowledge_up_to(self, entry: EntryId) -> None:
        for each in list(self.entries):
            if each <= entry:
                self.acknowledge(each)

    def redeliver(self, number: int, entries: set[EntryId] | None) -> None:
        """Shared and Key_Shared only: the others rewind."""
        has = self.consumers[number].has
        for entry in has if entries is None else has & entries:
            self.counts[entry] = self.counts.get(entry, 0) + 1
        has -= has if entries is None else entries

    def reset(self, entry: EntryId) -> None:
        self.acked = Acked({each for each in self.entries if each < entry})
        self.consumers.clear()
        self.rewind()

    def crash(self, durable: Acked) -> None:
        self.acked = durable.copy()
        self.consumers.clear()
        self.rewind()

    # --- what is asked

    def left_of(self, entry: EntryId) -> int:
        """Count the messages of an entry that are not acknowledged."""
        if entry in self.acked.parts:
            return self.acked.parts[entry].bit_count()
        return self.entries[entry].messages

    def pending(self) -> list[EntryId]:
        """Return what nobody has and nobody acknowledged, in log order."""
        held = {entry for consumer in self.consumers.values() for entry in consumer.has}
        return sorted(set(self.entries) - self.acked.entries - held)

    def backlog(self) -> int:
        """Count the messages of all entries that are not done."""
        return sum(
            entry.messages for key, entry in self.entries.items() if key not in self.acked.entries
        )

    def has_room(self, number: int) -> bool:
        consumer = self.consumers[number]
        return consumer.permits > 0 and not consumer.congested

    # --- judging

    def delivered(self, number: int, what: Delivered, now_ms: int, owners: Owners | None) -> None:
        """Judge one delivery, and take note of it."""
        entry, consumer = what.id, self.consumers[number]
        assert entry in self.entries
        assert entry not in self.acked.entries, "an acknowledged entry was delivered"
        assert consumer.permits > 0, "an entry was delivered without a permit"
        assert what.ack_set == self._words(entry)
        if self.kind in SINGLE:
            assert what.redeliveries == 0
            assert entry == self._next_in_order(), "out of order"
        else:
            pending = self.pending()
            assert entry in pending, "somebody has this entry already"
            assert self.entries[entry].due_ms <= now_ms, "delivered early"
            assert what.redeliveries == self.counts.get(entry, 0)
            if self.kind is SubscriptionType.SHARED:
                self._judge_shared(entry, pending)
            else:
                assert owners is not None
                self._judge_keyed(number, entry, pending, owners)
            consumer.has.add(entry)
        self.seen.add(entry)
        consumer.permits -= self.left_of(entry)

    def _words(self, entry: EntryId) -> tuple[int, ...]:
        return (self.acked.parts[entry],) if entry in self.acked.parts else ()

    def _next_in_order(self) -> EntryId | None:
        last = max(self.seen, default=None)
        rest = sorted(set(self.entries) - self.acked.entries)
        return next((each for each in rest if last is None or each > last), None)

    def _judge_shared(self, entry: EntryId, pending: list[EntryId]) -> None:
        if entry not in self.seen and not self.entries[entry].due_ms:
            again = [
                each for each in pending if each in self.seen and not self.entries[each].due_ms
            ]
            assert not again, "something new came before something that has to be sent again"

    def _judge_keyed(
        self, number: int, entry: EntryId, pending: list[EntryId], owners: Owners
    ) -> None:
        slot = self.entries[entry].slot
        assert owners.owner(slot) == number, "somebody else owns this slot"
        for other, consumer in self.consumers.items():
            assert other == number or all(
                self.entries[each].slot != slot for each in consumer.has
            ), "two consumers have entries of one slot"
        if not self.entries[entry].due_ms:
            before = [
                each
                for each in pending
                if each < entry
                and self.entries[each].slot == slot
                and not self.entries[each].due_ms
            ]
            assert not before, "a slot was delivered out of order"

    def complete(self, now_ms: int, owners: Owners | None, active: int | None) -> None:
        """Check at rest: nobody with room is left without something he may have."""
        if not self.consumers:
            return
        if self.kind in SINGLE:
            if active is not None and self.has_room(active):
                assert self._next_in_order() is None, "the active consumer was left waiting"
            return
        ready = [each for each in self.pending() if self.entries[each].due_ms <= now_ms]
        free = {number for number in self.consumers if self.has_room(number)}
        if self.kind is SubscriptionType.SHARED:
            assert not (ready and free), f"{ready[0]} was left though there was room"
            return
        assert owners is not None
        for entry in ready:
            slot = self.entries[entry].slot
            holders = {
                number
                for number, consumer in self.consumers.items()
                if any(self.entries[each].slot == slot for each in consumer.has)
            }
            owner = owners.owner(slot)
            if holders <= {owner}:
                assert owner not in free, f"{entry} was left though its owner has room"
