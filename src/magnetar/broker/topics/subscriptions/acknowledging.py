"""What acknowledgements do to a subscription: which entries they mean, and what follows.

    ids ──▶ neighbours together ──▶ do they exist? ──▶ the consumer gives them back
                                        │ no: ignored     └──▶ cursor ──▶ consumption

An id that is unknown, trimmed or acknowledged already is no error: acknowledgements may be late,
or come twice. What is never delivered (markers, damage) is acknowledged by the subscription.
"""

import logging
from collections.abc import Mapping, Sequence

from magnetar.broker.entry import EntryId
from magnetar.broker.port import (
    Acknowledged,
    Neighbours,
    NotAllowedError,
    SubscriptionType,
    TransactionConflictError,
)
from magnetar.broker.storage.errors import Gap
from magnetar.broker.topics.consumers.consumer import OpenConsumer
from magnetar.broker.topics.consumers.consumption import Consumption
from magnetar.broker.topics.consumers.delivery import Delivery
from magnetar.broker.topics.cursors.cursor import Cursor
from magnetar.broker.topics.cursors.held_acks import HeldAcknowledgements, Taken
from magnetar.broker.topics.cursors.reading import Ground, Log
from magnetar.broker.topics.figures import TYPE_NAMES
from magnetar.broker.topics.subscriptions.subscription_stats import Figures

logger = logging.getLogger(__name__)


class Acknowledging:
    """The part of a subscription that takes acknowledgements."""

    __slots__ = ()

    name: str
    log: Log
    cursor: Cursor
    consumption: Consumption
    delivery: Delivery | None
    held: HeldAcknowledgements | None
    ground: Ground
    type: SubscriptionType

    @property
    def consumers(self) -> Mapping[int, OpenConsumer]:
        """Everybody who is connected."""
        raise NotImplementedError

    @property
    def figures(self) -> Figures:
        """Counters."""
        raise NotImplementedError

    def wake(self) -> None:
        """Look soon whether something can be sent."""
        raise NotImplementedError

    def _note_change(self) -> None:
        """See that what changed in the cursor is written down."""
        raise NotImplementedError

    def acknowledge(
        self, consumer: OpenConsumer, ids: Sequence[Acknowledged], *, cumulative: bool
    ) -> None:
        """Acknowledge entries. Ids that are unknown or already acknowledged are no error.

        Raises:
            NotAllowedError: cumulative on a Shared or Key_Shared subscription.
            TransactionConflictError: transactions hold some of them; the others are acknowledged.
        """
        if self.consumers.get(consumer.number) is not consumer:
            return
        wanted, held = len(ids), self.held
        if held is not None and len(held):
            ids = held.free(ids, cumulative=cumulative)
        consumer.last_acked_ms = self.ground.clock.wall_ms()
        self.figures.last_acked_ms = consumer.last_acked_ms
        mark = self.cursor.mark_delete
        if cumulative:
            if self.type in {SubscriptionType.SHARED, SubscriptionType.KEY_SHARED}:
                raise NotAllowedError(
                    f"cumulative acknowledgement on {TYPE_NAMES[self.type]}"
                    f" subscription {self.name!r}"
                )
            for each in ids:
                consumer.acked += self._acknowledge_up_to_id(each)
        else:
            consumer.acked += self._acknowledge_each(consumer, ids)
        if self.cursor.mark_delete != mark:
            self.figures.last_advanced_ms = consumer.last_acked_ms
            self.figures.advances += 1
        self._note_change()
        # Somebody may have been blocked, a slot may be free, or this was the last entry.
        self.wake()
        if len(ids) < wanted:
            raise TransactionConflictError("a transaction holds what is acknowledged here")

    def acknowledge_taken(self, taken: Taken) -> None:
        """Acknowledge what a transaction held that is committed."""
        for ledger, first, count in taken.ranges:
            self._acknowledge_range(None, ledger, first, count)
        for position, ack_set in taken.parts:
            self._acknowledge_part(None, position, ack_set)
        if taken.cumulative is not None:
            self._acknowledge_up_to_id(taken.cumulative)
        self._note_change()
        self.wake()

    def exists(self, position: EntryId) -> bool:
        """Whether there is, or was, an entry that may be read."""
        return self._exist(*position, 1)

    def _acknowledge_each(self, consumer: OpenConsumer | None, ids: Sequence[Acknowledged]) -> int:
        """Acknowledge ids, neighbours together; return how many entries were new."""
        if isinstance(ids, Neighbours) and ids:
            return self._acknowledge_range(consumer, ids.ledger, ids.entries.start, len(ids))
        new = 0
        ledger, first, end = -1, 0, 0
        for each_ledger, entry, ack_set in ids:
            if ack_set:
                new += self._acknowledge_part(consumer, EntryId(each_ledger, entry), ack_set)
            elif each_ledger == ledger and entry == end:
                end += 1
            else:
                if end > first:
                    new += self._acknowledge_range(consumer, ledger, first, end - first)
                ledger, first, end = each_ledger, entry, entry + 1
        if end > first:
            new += self._acknowledge_range(consumer, ledger, first, end - first)
        return new

    def _acknowledge_range(
        self, consumer: OpenConsumer | None, ledger: int, first: int, count: int
    ) -> int:
        """Acknowledge neighbouring entries; return how many were new."""
        if not self._exist(ledger, first, count):
            if count == 1:
                return 0
            return sum(
                self._acknowledge_range(consumer, ledger, entry, 1)
                for entry in range(first, first + count)
            )
        delivery = self.delivery
        if delivery is None or EntryId(ledger, first + count) > delivery.read_position:
            self.consumption.learn_sizes(ledger, first, count)
        if delivery is not None:
            delivery.before_acknowledge(consumer, ledger, first, count)
        new = self.cursor.acknowledge(ledger, first, count, self.log)
        if new:
            self.consumption.done(ledger, first, count, new)
        return new

    def _acknowledge_part(
        self, consumer: OpenConsumer | None, position: EntryId, ack_set: Sequence[int]
    ) -> int:
        ledger, entry = position
        if self.cursor.is_acknowledged(position) or not self._exist(ledger, entry, 1):
            return 0
        words = self.cursor.ack_sets.get(position)
        left = ack_set if words is None else [a & b for a, b in zip(words, ack_set, strict=False)]
        if not any(left):
            return self._acknowledge_range(consumer, ledger, entry, 1)
        if self.delivery is not None:
            self.delivery.before_part(ledger, entry, ack_set)
        return self.cursor.acknowledge_part(ledger, entry, ack_set, self.log)

    def _acknowledge_up_to_id(self, each: Acknowledged) -> int:
        ledger, entry, ack_set = each
        position = EntryId(ledger, entry)
        if position <= self.cursor.mark_delete or not self._exist(ledger, entry, 1):
            return 0
        if not any(ack_set):
            return self._acknowledge_up_to(position)
        new = self._acknowledge_up_to(EntryId(ledger, entry - 1))
        return new + self._acknowledge_part(None, position, ack_set)

    def _acknowledge_up_to(self, position: EntryId) -> int:
        """Acknowledge everything up to a position; return how many entries were new."""
        if position <= self.cursor.mark_delete:
            return 0
        delivery = self.delivery
        all_read = delivery is not None and position < delivery.read_position
        if delivery is not None:
            delivery.before_acknowledge_up_to(position)
        new = self.cursor.acknowledge_up_to(position, self.log)
        self.consumption.done_up_to(position, new)
        if not all_read:
            self.consumption.learn_index(self.cursor.mark_delete)
        return new

    def _exist(self, ledger: int, first: int, count: int) -> bool:
        """Whether neighbouring entries are in the log, or were and are trimmed."""
        last = EntryId(ledger, first + count - 1)
        if first < 0 or last >= self.log.end:
            return False
        mark = self.cursor.mark_delete
        if last <= mark:
            return True
        delivery = self.delivery
        if delivery is not None:
            read = delivery.read_position
            if ledger == read.ledger and last < read and first >= 0:
                return True
        return self.log.next_position(last) == last

    # --- what is never delivered

    def pass_over(self, ledger: int, first: int, messages: Sequence[int]) -> None:
        """Acknowledge neighbouring entries that are never delivered, with so many messages each."""
        self.consumption.note_sizes(ledger, first, messages)
        self._acknowledge_range(None, ledger, first, len(messages))
        self._note_change()

    def pass_gap(self, gap: Gap) -> None:
        """Acknowledge entries that are lost, and say so."""
        last = self.log.previous_position(EntryId(gap.last.ledger, gap.last.entry + 1))
        count = last.entry - gap.first.entry + 1
        if last.ledger != gap.first.ledger or count <= 0:
            # The log knows of no entry there: nothing to acknowledge, but go on after it.
            logger.error("%r: %s to %s is damaged: %s", self, gap.first, gap.last, gap.reason)
            return
        bits = self.cursor.acknowledged_bits(gap.first.ledger, gap.first.entry, count)
        lost = count - bits.bit_count()
        if not lost:
            return
        logger.error(
            "%r passes %d entries from %s to %s that are damaged and in quarantine: %s",
            self,
            lost,
            gap.first,
            last,
            gap.reason,
        )
        self.figures.gaps_passed += 1
        self.figures.gap_entries += lost
        self.cursor.estimated = True
        self._acknowledge_range(None, gap.first.ledger, gap.first.entry, count)
        self._note_change()
