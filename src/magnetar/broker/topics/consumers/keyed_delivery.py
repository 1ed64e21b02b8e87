"""Key_Shared: each slot of key hashes to one consumer at a time, in order.

    new ──▶ slot free, its owner has room ──▶ sent
       └──▶ else it waits (`redelivery.KeyedReplay`), and what follows with its slot behind it

A slot that moved to another owner is drained: the new one gets nothing of it before the old
one acknowledged, or lost, what it has. Nothing else waits for that.
"""

from bisect import bisect_right
from collections.abc import Sequence

from magnetar.broker.entry import EntryFlags, EntryId
from magnetar.broker.run import FLAGS, KEY_HASH, SEQUENCE_ID, Run
from magnetar.broker.topics.consumers.consumer import OpenConsumer
from magnetar.broker.topics.consumers.delayed import Spill
from magnetar.broker.topics.consumers.delivery import Account
from magnetar.broker.topics.consumers.dispatch import (
    SLOTS,
    Assignment,
    KeyedState,
    Owners,
    Slot,
    assign_keyed,
    slot_without_key,
)
from magnetar.broker.topics.consumers.redelivery import KeyedReplay
from magnetar.broker.topics.consumers.shared_delivery import SharedDelivery
from magnetar.broker.topics.cursors.reading import AGAIN, Portion

KEYED_WAITING_MAX = 20_000
"""Key_Shared reads no further while this many entries wait for their slots' owners."""

_KEYED = EntryFlags.KEYED.value


class KeyedDelivery(SharedDelivery):
    """Each slot of key hashes to one consumer at a time, in order."""

    __slots__ = ("_any_order", "_keyed", "owners")

    def __init__(
        self, account: Account, spill: Spill | None, owners: Owners, *, allow_out_of_order: bool
    ) -> None:
        """Serve a Key_Shared subscription whose slots belong to `owners`."""
        super().__init__(account, spill)
        self.owners = owners
        self._any_order = allow_out_of_order
        self._replay = self._keyed = KeyedReplay(self._target)

    def change_owners(self, owners: Owners) -> None:
        """Give the slots to others; what is on its way is waited for (unless order is waived)."""
        self.owners = owners
        self._keyed.rearrange()

    def _target(self, slot: int) -> int | None:
        owner = self.owners.owner(slot)
        if owner is None or self._any_order:
            return owner
        return owner if self._keyed.holders.get(slot, owner) == owner else None

    def _step(self, slots: list[Slot], budget: int) -> int:
        for slot in slots:
            ready = self._keyed.ready_for.get(slot.consumer)
            found = None if ready is None else ready.first()
            if found is not None:
                ledger, first, count = found
                count = min(count, budget, slot.permits)
                looked_at = self._send_ready(slot, EntryId(ledger, first), count)
                if looked_at:
                    return looked_at
        if self._collect_due(budget):
            return self._send_due(budget, slots)
        if self._delayed.full or self._keyed.waiting >= KEYED_WAITING_MAX:
            return 0
        return self._send_new(budget, slots)

    def _send_ready(self, slot: Slot, position: EntryId, count: int) -> int:
        """Send to one consumer what it has been waiting for."""
        found = self._reading.read(AGAIN, position, count)
        if found is None and self._exists(position):
            return 0
        if found is None or found[0] != position:
            self._forget(position)
            return 1
        portion = self._portion(*found)
        for entry in portion.left_out(position.entry):
            self._keyed.unwait(position.ledger, entry)
        if portion.rows:
            slower = self._within_rate(portion, portion.rows)
            fits, messages = portion.fitting(slower, slot.permits)
            rows = slower[:fits]
            for row in rows:
                keyed_slot = self._keyed.unwait(position.ledger, position.entry + row)
                self._keyed.hold(keyed_slot, slot.consumer)
            self._hand_out(portion, Assignment(slot.consumer, rows, messages))
        return portion.run.count

    def _deal(self, portion: Portion, rows: Sequence[int], slots: list[Slot]) -> int:
        if not rows:
            return 0
        rows = self._within_rate(portion, rows)
        keyed, (ledger, first) = self._keyed, portion.at
        by_row = slots_of(portion.run)
        state = KeyedState(
            self.owners,
            {slot.consumer: slot.permits for slot in slots},
            {} if self._any_order else keyed.holders,
            keyed.queued,
        )
        found = assign_keyed(
            rows, [by_row[row] for row in rows], portion.message_counts(rows), state
        )
        last = rows[-1]
        if not _room_left(slots, found.assignments):
            # What follows the last row that was sent may as well stay unread.
            last = max((each.rows[-1] for each in found.assignments), default=rows[0] - 1)
        for row in found.waiting:
            if row <= last:
                keyed.wait(ledger, first + row, by_row[row])
        for assignment in found.assignments:
            for row in assignment.rows:
                keyed.remember(ledger, first + row, by_row[row])
                keyed.hold(by_row[row], assignment.consumer)
            self._hand_out(portion, assignment)
        return bisect_right(rows, last)

    def _returned(self, ledger: int, first: int, count: int) -> None:
        self._keyed.returned(ledger, first, count)

    def park(
        self, ranges: Sequence[tuple[int, int, int]], parts: Sequence[tuple[EntryId, int]]
    ) -> None:
        super().park(ranges, parts)
        for ledger, first, count in ranges:
            for entry in range(first, first + count):
                self._keyed.unwait(ledger, entry)

    def _hold_back(self, portion: Portion) -> None:
        # Their slots are asked for when the transaction is aborted.
        (ledger, first), left = portion.at, set(portion.rows)
        for row, slot in enumerate(slots_of(portion.run)):
            at = EntryId(ledger, first + row)
            if row not in left and not self._account.cursor.is_acknowledged(at):
                self._keyed.remember(*at, slot)

    def leave(self, consumer: OpenConsumer) -> None:
        # Whatever it had is free before anything of it is given to somebody.
        for ledger, first, count in consumer.unacked.ranges():
            self._returned(ledger, first, count)
        super().leave(consumer)

    @property
    def ready_count(self) -> int:
        return self._keyed.waiting


def _room_left(slots: Sequence[Slot], assignments: Sequence[Assignment]) -> bool:
    """Whether anybody could still be sent something."""
    used = {each.consumer: each.messages for each in assignments}
    return any(slot.permits > used.get(slot.consumer, 0) for slot in slots)


def slots_of(run: Run) -> list[int]:
    """Return the slot of each entry."""
    flags = run.u32(FLAGS).tolist()
    hashes = run.u32(KEY_HASH).tolist()
    if all(each & _KEYED for each in set(flags)):
        return [each % SLOTS or 1 for each in hashes]
    sequence_ids = run.i64(SEQUENCE_ID).tolist()
    return [
        (key_hash % SLOTS or 1) if flag & _KEYED else slot_without_key(sequence_id)
        for flag, key_hash, sequence_id in zip(flags, hashes, sequence_ids, strict=True)
    ]
