"""Acknowledgements in transactions that are not decided. Pure; `transacting` makes them durable.

    ACK in a transaction ──▶ held: not sent again, not acknowledged
        committed ──▶ acknowledged          aborted ──▶ sent again

    one message, two wishes                                      answer
    another transaction holds it, or it is acknowledged          conflict
    an ordinary acknowledgement of what a transaction holds      conflict
    the same transaction again                                   nothing new, no error
    other messages of the same batch                             both are held

A cumulative acknowledgement holds everything up to its place; of those there is one at a time.
The rules are those of Apache Pulsar's pending acknowledgements; that a repetition is no error
is for clients whose answer was lost.
"""

from collections.abc import Sequence
from typing import NamedTuple

from magnetar.broker.entry import EARLIEST, EntryId, TransactionId
from magnetar.broker.metadata.transactions import HeldAcks
from magnetar.broker.port import Acknowledged, TooManyRequestsError, TransactionConflictError
from magnetar.broker.topics.cursors.cursor import AckSet, Cursor
from magnetar.broker.topics.cursors.entry_set import EntrySet, Range

HELD_ENTRIES_MAX = 1_000_000
"""Entries whose acknowledgements one subscription holds back."""

_WORD = 1 << 64
_SIGN = 1 << 63


def as_bits(words: Sequence[int]) -> int:
    """Return an ack set as one number: bit `i` stands for message `i`, 1 = still to be done."""
    bits = 0
    for number, word in enumerate(words):
        bits |= (word % _WORD) << 64 * number
    return bits


def as_words(bits: int) -> AckSet:
    """Return one number as an ack set, at least one word."""
    words: list[int] = []
    while bits or not words:
        word = bits % _WORD
        words.append(word - _WORD if word & _SIGN else word)
        bits >>= 64
    return tuple(words)


class Wish(NamedTuple):
    """Messages of a batch that are to be acknowledged."""

    at: EntryId
    size: int
    """Messages in the batch."""
    bits: int
    """Bit `i` stands for message `i`, 1 = acknowledge it."""


class _Held:
    """What one transaction holds."""

    __slots__ = ("before", "cumulative", "entries", "next_number", "parts")

    def __init__(self) -> None:
        self.entries = EntrySet()
        self.parts: dict[EntryId, Wish] = {}
        self.cumulative: Acknowledged | None = None
        self.before: Acknowledged | None = None
        """The cumulative one before that."""
        self.next_number = 1
        """Of the next record on disk."""


class Taken(NamedTuple):
    """What a transaction held, once it is decided."""

    ranges: list[Range]
    parts: list[tuple[EntryId, AckSet]]
    cumulative: Acknowledged | None
    part_sizes: list[int]
    """Of each part: how many messages were held."""


class HeldAcknowledgements:
    """What transactions hold of one subscription."""

    __slots__ = ("_all", "_cumulative", "_parts", "_transactions")

    def __init__(self) -> None:
        self._transactions: dict[TransactionId, _Held] = {}
        self._all = EntrySet()
        self._parts: dict[EntryId, dict[TransactionId, int]] = {}
        self._cumulative: TransactionId | None = None

    def __len__(self) -> int:
        return len(self._transactions)

    @property
    def transactions(self) -> list[TransactionId]:
        """Which transactions hold something."""
        return list(self._transactions)

    def entries_of(self, transaction: TransactionId) -> int:
        """Return how many entries a transaction holds one by one."""
        held = self._transactions.get(transaction)
        return 0 if held is None else held.entries.count + len(held.parts)

    def up_to_of(self, transaction: TransactionId) -> EntryId | None:
        """Return up to which entry a transaction holds everything; None: it does not."""
        return self.up_to if transaction == self._cumulative else None

    @property
    def count(self) -> int:
        """How many entries are held one by one."""
        return self._all.count + len(self._parts)

    @property
    def up_to(self) -> EntryId:
        """Every entry up to this one is held; EARLIEST: no cumulative acknowledgement is."""
        held = None if self._cumulative is None else self._transactions[self._cumulative].cumulative
        if held is None:
            return EARLIEST
        return EntryId(held.ledger, held.entry - 1 if any(held.ack_set) else held.entry)

    def everything(self) -> tuple[list[Range], list[tuple[EntryId, int]]]:
        """Return all entries that are held one by one, and of which batches how many messages."""
        parts = [
            (at, sum(bits.bit_count() for bits in each.values()))
            for at, each in self._parts.items()
        ]
        return list(self._all.ranges()), parts

    # --- what must not be sent

    def bits(self, ledger: int, first: int, count: int) -> int:
        """Return which of `count` entries are held, as a bitmap: bit `i` is entry `first + i`."""
        bits = self._all.bits(ledger, first, count)
        last = self.up_to
        if ledger < last.ledger:
            return (1 << count) - 1
        if ledger == last.ledger:
            bits |= (1 << min(max(last.entry + 1 - first, 0), count)) - 1
        return bits

    def left(self, at: EntryId, words: AckSet | None, size: int) -> AckSet | None:
        """Return which messages of an entry are neither done nor held, given which are not done.

        None: all of them.
        """
        held = self._parts.get(at)
        if held is None:
            return words
        bits = (1 << size) - 1 if words is None else as_bits(words)
        for each in held.values():
            bits &= ~each
        return as_words(bits)

    @property
    def has_parts(self) -> bool:
        """Whether batches are held in part."""
        return bool(self._parts)

    # --- acknowledging

    def free(self, ids: Sequence[Acknowledged], *, cumulative: bool) -> list[Acknowledged]:
        """Return the ids of an ordinary acknowledgement that nothing holds."""
        return [each for each in ids if not self._is_held(each, cumulative=cumulative)]

    def _is_held(self, each: Acknowledged, *, cumulative: bool) -> bool:
        at = EntryId(each.ledger, each.entry)
        if at <= self.up_to or (cumulative and self._cumulative is not None):
            return True
        if cumulative:
            first = self._all.first()
            places = [EntryId(first.ledger, first.first)] if first else []
            return any(place <= at for place in [*places, *self._parts])
        if at in self._all:
            return True
        held = self._parts.get(at)
        if held is None:
            return False
        left = as_bits(each.ack_set)
        return any(bits & ~left for bits in held.values()) if any(each.ack_set) else True

    def hold(
        self,
        transaction: TransactionId,
        entries: Sequence[EntryId],
        wishes: Sequence[Wish],
        cursor: Cursor,
    ) -> tuple[int, HeldAcks]:
        """Hold entries and parts of batches; return what is new, and the number of its record.

        Raises:
            TransactionConflictError: one of them is acknowledged, or held by somebody else.
                Nothing is held then.
            TooManyRequestsError: too many are.
        """
        held = self._transactions.get(transaction) or _Held()
        new_entries = [each for each in entries if self._is_new(transaction, held, each, cursor)]
        new_parts = [
            wish for each in wishes if (wish := self._new_part(transaction, held, each, cursor))
        ]
        if self.count + len(new_entries) + len(new_parts) > HELD_ENTRIES_MAX:
            raise TooManyRequestsError(
                f"transactions hold {HELD_ENTRIES_MAX} acknowledgements of this subscription"
            )
        fresh = EntrySet()
        for ledger, entry in new_entries:
            fresh.add(ledger, entry)
        acks = HeldAcks(
            ranges=[(each.ledger, each.first, each.length) for each in fresh.ranges()],
            parts=[(*at, size, list(as_words(bits))) for at, size, bits in new_parts],
        )
        number = held.next_number
        if acks.ranges or acks.parts:
            self.restore(transaction, number, acks)
        return number, acks

    def hold_up_to(
        self, transaction: TransactionId, wanted: Acknowledged, cursor: Cursor
    ) -> tuple[int, HeldAcks]:
        """Hold everything up to an entry; return what is new, and the number of its record.

        Raises:
            TransactionConflictError: it is acknowledged, or another transaction holds some of it.
        """
        at = EntryId(wanted.ledger, wanted.entry)
        held = self._transactions.get(transaction)
        if self._cumulative not in {None, transaction}:
            raise TransactionConflictError(
                f"transaction {self._cumulative} holds everything up to {self.up_to}"
            )
        if at <= cursor.mark_delete:
            raise TransactionConflictError(f"{at} is acknowledged already")
        before = None if held is None else held.cumulative
        if before is not None and (
            at < (before.ledger, before.entry)
            or (at == (before.ledger, before.entry) and not any(before.ack_set))
        ):
            return 0, HeldAcks()
        for other, each in self._transactions.items():
            if other == transaction:
                continue
            first = each.entries.first()
            places = [EntryId(first.ledger, first.first)] if first else []
            if any(place <= at for place in [*places, *each.parts]):
                raise TransactionConflictError(f"transaction {other} holds an entry before {at}")
        number = 1 if held is None else held.next_number
        acks = HeldAcks(up_to=(wanted.ledger, wanted.entry, list(wanted.ack_set)))
        self.restore(transaction, number, acks)
        return number, acks

    def restore(self, transaction: TransactionId, number: int, acks: HeldAcks) -> None:
        """Hold what a record says."""
        held = self._transactions.setdefault(transaction, _Held())
        held.next_number = max(held.next_number, number + 1)
        if acks.up_to is not None:
            self._cumulative = transaction
            held.before, held.cumulative = held.cumulative, Acknowledged(*acks.up_to)
        for ledger, first, count in acks.ranges:
            held.entries.add(ledger, first, count)
            self._all.add(ledger, first, count)
        for ledger, entry, size, words in acks.parts:
            at = EntryId(ledger, entry)
            before = held.parts.get(at)
            bits = as_bits(words) | (0 if before is None else before.bits)
            held.parts[at] = Wish(at, size, bits)
            self._parts.setdefault(at, {})[transaction] = bits

    # --- the end

    def take(self, transaction: TransactionId) -> Taken | None:
        """Hold nothing of a transaction any more, and return what was; None: nothing was."""
        held = self._transactions.pop(transaction, None)
        if held is None:
            return None
        ranges = list(held.entries.ranges())
        for ledger, first, count in ranges:
            self._all.discard(ledger, first, count)
        parts: list[tuple[EntryId, AckSet]] = []
        part_sizes: list[int] = []
        for at, size, bits in held.parts.values():
            self._drop_part(transaction, at)
            parts.append((at, as_words(~bits & (1 << size) - 1)))
            part_sizes.append(bits.bit_count())
        if self._cumulative == transaction:
            self._cumulative = None
        return Taken(ranges, parts, held.cumulative, part_sizes)

    def give_back(self, transaction: TransactionId, acks: HeldAcks) -> None:
        """Hold less again: what `hold` returned could not be written down."""
        held = self._transactions.get(transaction)
        if held is None:
            return
        if acks.up_to is not None:
            held.cumulative = held.before
            self._cumulative = None if held.before is None else transaction
        for ledger, first, count in acks.ranges:
            held.entries.discard(ledger, first, count)
            self._all.discard(ledger, first, count)
        for ledger, entry, _, words in acks.parts:
            at = EntryId(ledger, entry)
            part = held.parts[at]
            bits = part.bits & ~as_bits(words)
            if bits:
                held.parts[at] = part._replace(bits=bits)
                self._parts[at][transaction] = bits
            else:
                del held.parts[at]
                self._drop_part(transaction, at)
        if not held.entries.count and not held.parts and held.cumulative is None:
            del self._transactions[transaction]

    # --- inside

    def _is_new(self, transaction: TransactionId, held: _Held, at: EntryId, cursor: Cursor) -> bool:
        if at in held.entries:
            return False
        self._demand_free(transaction, at, cursor)
        if at in self._all:
            raise TransactionConflictError(f"another transaction holds {at}")
        if any(other != transaction for other in self._parts.get(at, ())):
            raise TransactionConflictError(f"another transaction holds messages of {at}")
        return True

    def _new_part(
        self, transaction: TransactionId, held: _Held, wish: Wish, cursor: Cursor
    ) -> Wish | None:
        at, size, bits = wish
        if at in held.entries:
            return None
        self._demand_free(transaction, at, cursor)
        words = cursor.ack_sets.get(at)
        done = 0 if words is None else ((1 << size) - 1) & ~as_bits(words)
        others = 0
        for other, each in self._parts.get(at, {}).items():
            if other != transaction:
                others |= each
        if at in self._all or bits & (done | others):
            raise TransactionConflictError(
                f"messages of {at} are acknowledged, or another transaction holds them"
            )
        mine = held.parts.get(at)
        bits &= -1 if mine is None else ~mine.bits
        return Wish(at, size, bits) if bits else None

    def _demand_free(self, transaction: TransactionId, at: EntryId, cursor: Cursor) -> None:
        if cursor.is_acknowledged(at):
            raise TransactionConflictError(f"{at} is acknowledged already")
        if self._cumulative not in {None, transaction} and at <= self.up_to:
            raise TransactionConflictError(f"transaction {self._cumulative} holds {at}")

    def _drop_part(self, transaction: TransactionId, at: EntryId) -> None:
        holders = self._parts[at]
        del holders[transaction]
        if not holders:
            del self._parts[at]
