"""Handing entries to consumers: one kind of delivery for each kind of subscription.

    SingleDelivery   Exclusive, Failover   one active consumer, everything in order; going back
                                           is moving the read position back
    SharedDelivery   Shared                first what is sent again, then what is due, then new
    KeyedDelivery    Key_Shared            the same, by hash slot

    log ──▶ Reading ──▶ Portion ──▶ `dispatch` decides ──▶ ConsumerEvents.deliver, per consumer

Every entry between mark-delete and the read position is in exactly one place: acknowledged
(the cursor), unacknowledged at a consumer, to be sent again (`redelivery`), or waiting for
its time (`delayed`). One pass looks at a bounded number of entries and then gives way.
"""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, groupby
from typing import Protocol

from magnetar.broker.entry import EARLIEST, EntryFlags, EntryId
from magnetar.broker.port import Selection, SubscriptionType
from magnetar.broker.run import FLAGS, KEY_HASH, LENGTH, SEQUENCE_ID, Run
from magnetar.broker.storage.errors import Gap
from magnetar.broker.topics.consumer import Limits, OpenConsumer
from magnetar.broker.topics.cursor import Cursor, ones
from magnetar.broker.topics.delayed import Delayed, Spill, SteadyTime
from magnetar.broker.topics.dispatch import (
    SLOTS,
    Assignment,
    Candidate,
    KeyedState,
    Owners,
    Slot,
    active_consumer,
    assign_keyed,
    assign_shared,
    slot_without_key,
)
from magnetar.broker.topics.entry_set import EntryMap, runs_of_ones
from magnetar.broker.topics.reading import AGAIN, DUE, NEW, Ground, Log, Portion, Reading, Timer
from magnetar.broker.topics.redelivery import NOTHING, KeyedReplay, Replay

KEYED_WAITING_MAX = 20_000
"""Key_Shared reads no further while this many entries wait for their slots' owners."""
UNLIMITED = 1 << 62
READ_ENTRIES_MIN = 100
"""Shared reads at least this far ahead: some of it may be delayed."""

_KEYED = EntryFlags.KEYED.value


class Account(Protocol):
    """The subscription, as its delivery sees it."""

    @property
    def log(self) -> Log: ...
    @property
    def cursor(self) -> Cursor: ...
    @property
    def ground(self) -> Ground: ...
    @property
    def limits(self) -> Limits: ...
    @property
    def extras(self) -> EntryMap:
        """Of unacknowledged batches that were read: how many messages beyond the first."""
        ...

    def wake(self) -> None: ...
    def pass_over(self, ledger: int, entry: int, messages: int) -> None:
        """Acknowledge an entry that is never delivered."""

    def pass_gap(self, gap: Gap) -> None:
        """Acknowledge entries that are lost, and say so."""

    def note_index(self, at: EntryId, run: Run) -> None:
        """Take the chance to learn how many messages lie before an entry."""

    def note_sizes(self, ledger: int, first: int, counts: Sequence[int]) -> None:
        """Remember how many messages neighbouring entries hold, until they are acknowledged."""

    def count_out(self, entries: int, messages: int, size: int) -> None:
        """Count what was sent."""


class Delivery:
    """What all kinds have in common."""

    __slots__ = ("_account", "_reading", "consumers", "read_position", "unacked_messages")

    def __init__(self, account: Account) -> None:
        self._account = account
        self._reading = Reading(account.log, account.ground, account.wake, account.pass_gap)
        self.consumers: dict[int, OpenConsumer] = {}
        self.read_position = account.cursor.next_unacknowledged(EARLIEST, account.log)
        self.unacked_messages = 0

    # --- what each kind does its own way

    def join(self, consumer: OpenConsumer) -> None:
        """Take in a consumer."""
        self.consumers[consumer.number] = consumer

    def leave(self, consumer: OpenConsumer) -> None:
        """Let a consumer go; what it has goes to others."""
        del self.consumers[consumer.number]
        if not self.consumers:
            self._reading.forget()

    def dispatch(self) -> bool:
        """Send what can be sent; True: there is more to do at once."""
        raise NotImplementedError

    def redeliver(
        self, consumer: OpenConsumer, ids: Sequence[EntryId] | None, epoch: int | None
    ) -> None:
        """Send entries of a consumer again; None: all it has."""
        raise NotImplementedError

    def before_acknowledge(
        self, consumer: OpenConsumer | None, ledger: int, first: int, count: int
    ) -> None:
        """Take entries from whoever has them: they will be acknowledged in a moment."""

    def before_part(self, ledger: int, entry: int, words: Sequence[int]) -> None:
        """Count messages of a batch as acknowledged: they will be in a moment."""

    def before_acknowledge_up_to(self, position: EntryId) -> None:
        """Take everything up to and including a position from whoever has it."""
        if self.read_position <= position:
            self.read_position = EntryId(position.ledger, position.entry + 1)

    def rewind(self) -> None:
        """Read on from the first entry that is not acknowledged."""
        self.read_position = self._account.cursor.next_unacknowledged(EARLIEST, self._account.log)

    def stop(self) -> None:
        """Let go of everything: nobody will call `dispatch` again."""
        self._reading.forget()

    @property
    def caught_up(self) -> bool:
        """Whether everything in the log was delivered, as far as this delivery goes."""
        return self.read_position >= self._account.log.end

    @property
    def forgettable(self) -> bool:
        """Whether nothing is lost if somebody else begins anew: nobody is there, no counts kept."""
        return not self.consumers

    @property
    def active(self) -> OpenConsumer | None:
        """The one consumer that is served, where it is one."""
        return None

    @property
    def blocked(self) -> bool:
        """Whether too much is unacknowledged on the whole."""
        return False

    @property
    def delayed_count(self) -> int:
        """How many entries wait for their time."""
        return 0

    @property
    def delayed_bytes(self) -> int:
        """How much memory those take."""
        return 0

    @property
    def ready_count(self) -> int:
        """How many entries wait to be sent (again) before anything new."""
        return 0

    # --- what they share

    def _read_new(self, entries_max: int) -> Portion | None:
        """Read at the read position; None: nothing there, or not yet."""
        account = self._account
        if account.cursor.holes:
            self.read_position = account.cursor.next_unacknowledged(self.read_position, account.log)
        found = self._reading.read(NEW, self.read_position, entries_max)
        if found is None:
            return None
        account.note_index(*found)
        return self._portion(*found)

    def _portion(self, at: EntryId, run: Run) -> Portion:
        portion = Portion(at, run, self._account.cursor)
        for row in portion.markers():
            self._account.pass_over(at.ledger, at.entry + row, portion.counts[row])
        if not portion.single:
            for row, count in neighbours(portion.rows):
                sizes = portion.counts[row : row + count]
                self._account.note_sizes(at.ledger, at.entry + row, sizes)
        return portion

    def _send(
        self,
        consumer: OpenConsumer,
        portion: Portion,
        rows: Sequence[int],
        messages: int,
        redeliveries: Mapping[int, int] = NOTHING,
    ) -> None:
        account, run, (ledger, first) = self._account, portion.run, portion.at
        ack_sets = portion.ack_sets
        if ack_sets:
            ack_sets = {row: words for row, words in ack_sets.items() if row in rows}
        if len(rows) == run.count:
            size = run.body_bytes()
        else:
            lengths = run.u32(LENGTH).tolist()
            size = sum([lengths[row] for row in rows])
        consumer.permits -= messages
        consumer.messages_out += messages
        consumer.entries_out += len(rows)
        consumer.bytes_out += size
        consumer.last_sent_ms = account.ground.clock.wall_ms()
        account.count_out(len(rows), messages, size)
        selection = Selection(ledger, first, rows, redeliveries, ack_sets, consumer.epoch)
        if not consumer.events.deliver(run, selection):
            consumer.congested = True


def neighbours(rows: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield (first, count) for each run of neighbouring rows."""
    if isinstance(rows, range):
        if rows:
            yield rows.start, len(rows)
        return
    for _, group in groupby(enumerate(rows), lambda pair: pair[1] - pair[0]):
        members = [row for _, row in group]
        yield members[0], len(members)


def fitting(messages: Sequence[int], permits: int) -> tuple[int, int]:
    """Return how many entries, and messages in them, `permits` are enough for.

    The entry that uses the last permit up is still sent: a batch is never split.
    """
    total = sum(messages)
    if total <= permits:
        return len(messages), total
    sums = list(accumulate(messages))
    count = bisect_left(sums, permits) + 1
    return count, sums[count - 1]


# --- exclusive and failover --------------------------------------------------------------


class SingleDelivery(Delivery):
    """Everything to one consumer, in order."""

    __slots__ = ("_active", "_failover", "_partition", "_take_over_timer", "_topic")

    def __init__(
        self, account: Account, kind: SubscriptionType, topic: str, partition: int
    ) -> None:
        """Serve an Exclusive or Failover subscription of a partition; -1: the topic is none."""
        super().__init__(account)
        self._failover = kind is SubscriptionType.FAILOVER
        self._topic = topic
        self._partition = partition
        self._active: OpenConsumer | None = None
        self._take_over_timer: Timer | None = None

    @property
    def active(self) -> OpenConsumer | None:
        """The consumer that is served."""
        return self._active

    def join(self, consumer: OpenConsumer) -> None:
        super().join(consumer)
        if not self._elect():
            consumer.events.active(False)

    def leave(self, consumer: OpenConsumer) -> None:
        super().leave(consumer)
        self._elect()

    def stop(self) -> None:
        super().stop()
        if self._take_over_timer is not None:
            self._take_over_timer.cancel()
            self._take_over_timer = None

    def dispatch(self) -> bool:
        consumer = self._active
        if consumer is None or self._take_over_timer is not None:
            return False
        budget = self._account.ground.config.dispatch_entries_max
        while consumer.permits > 0 and not consumer.congested:
            if budget <= 0:
                return True
            portion = self._read_new(min(budget, consumer.permits))
            if portion is None:
                return False
            budget -= portion.run.count
            self._send_in_order(consumer, portion)
        return False

    def redeliver(
        self,
        consumer: OpenConsumer,
        ids: Sequence[EntryId] | None,  # noqa: ARG002 - see below
        epoch: int | None,
    ) -> None:
        """Go back to the first unacknowledged entry: single ones would come out of order."""
        if epoch is not None:
            if consumer.epoch is not None and epoch < consumer.epoch:
                return
            consumer.epoch = epoch
        if consumer is self._active:
            consumer.redelivered += self._account.log.distance(
                self._account.cursor.next_unacknowledged(EARLIEST, self._account.log),
                self.read_position,
            )
            self.rewind()

    def _send_in_order(self, consumer: OpenConsumer, portion: Portion) -> None:
        (ledger, first), rows = portion.at, portion.rows
        self.read_position = EntryId(ledger, first + portion.run.count)
        if not rows:
            return
        count, messages = fitting(portion.message_counts(rows), consumer.permits)
        if count < len(rows):
            self.read_position = EntryId(ledger, first + rows[count])
            rows = rows[:count]
        self._send(consumer, portion, rows, messages)

    def _elect(self) -> bool:
        """Choose who is served; True: that changed, and everybody knows or will."""
        number = active_consumer(
            [
                Candidate(each.number, each.name, each.request.priority)
                for each in self.consumers.values()
            ],
            self._topic,
            self._partition,
        )
        chosen = None if number is None else self.consumers[number]
        if chosen is self._active:
            return False
        before, self._active = self._active, chosen
        if chosen is None:
            self.stop()
        elif before is None or not self._failover:
            self._take_over()
        elif self._take_over_timer is None:
            # Acknowledgements of the one before may still be on their way.
            ground = self._account.ground
            self._take_over_timer = ground.loop.call_later(
                ground.config.failover_delay_s, self._take_over
            )
        return True

    def _take_over(self) -> None:
        self._take_over_timer = None
        self.rewind()
        for each in self.consumers.values():
            each.events.active(each is self._active)
        self._account.wake()


# --- shared ------------------------------------------------------------------------------


class SharedDelivery(Delivery):
    """Each entry to whoever has room; what comes back is sent again before anything new."""

    __slots__ = (
        "_blocked",
        "_delayed",
        "_due",
        "_due_timer",
        "_due_timer_ms",
        "_replay",
        "_time",
        "_turn",
    )

    def __init__(self, account: Account, spill: Spill | None) -> None:
        """Serve a Shared subscription; `spill` takes what memory has no room for."""
        super().__init__(account)
        config = account.ground.config
        self._replay = Replay()
        self._time = SteadyTime(account.ground.clock)
        self._delayed = Delayed(config.delayed_entries_in_memory_max, spill)
        self._due: deque[tuple[int, int]] = deque()
        self._due_timer: Timer | None = None
        self._due_timer_ms = 0
        self._turn = 0
        self._blocked = False

    # --- consumers

    def leave(self, consumer: OpenConsumer) -> None:
        super().leave(consumer)
        self.unacked_messages -= consumer.unacked_messages
        consumer.unacked_messages = 0
        for ledger, first, count in consumer.unacked.ranges():
            self._again(consumer, ledger, first, count)
        consumer.unacked.clear()
        if not self.consumers:
            self._stop_timer()

    def stop(self) -> None:
        super().stop()
        self._stop_timer()
        self._delayed.clear()

    def rewind(self) -> None:
        """Forget what was read ahead, and who has what: the cursor was moved."""
        super().rewind()
        self._replay.clear()
        self._delayed.clear()
        self._due.clear()

    # --- sending

    def dispatch(self) -> bool:
        budget = self._account.ground.config.dispatch_entries_max
        more = True
        while more and budget > 0:
            slots = self._slots()
            if not slots:
                return False
            looked_at = self._step(slots, budget)
            budget -= looked_at
            more = looked_at > 0
        self._start_timer()
        return more

    def _slots(self) -> list[Slot]:
        """Return who has room for how many messages."""
        limits = self._account.limits
        total_max = limits.unacked_per_subscription_max
        left = UNLIMITED
        if total_max:
            if self._blocked and self.unacked_messages * 2 > total_max:
                return []
            left = total_max - self.unacked_messages
            self._blocked = left <= 0
            if self._blocked:
                return []
        slots = []
        for each in self.consumers.values():
            room = min(each.room(limits.unacked_per_consumer_max), left)
            if room > 0:
                slots.append(Slot(each.number, room, each.request.priority))
        return slots

    def _step(self, slots: list[Slot], budget: int) -> int:
        """Send from one place; return how many entries were looked at, 0: nothing to do now."""
        room = sum(slot.permits for slot in slots)
        found = self._replay.ready.first()
        if found is not None:
            ledger, first, count = found
            return self._send_again(EntryId(ledger, first), min(count, budget, room), slots)
        if self._collect_due(budget):
            return self._send_due(min(budget, room), slots)
        if self._delayed.full:
            return 0
        return self._send_new(min(budget, max(room, READ_ENTRIES_MIN)), slots)

    def _send_again(self, position: EntryId, count: int, slots: list[Slot]) -> int:
        found = self._reading.read(AGAIN, position, count)
        if found is None and self._exists(position):
            return 0
        if found is None or found[0] != position:
            self._forget(position)
            return 1
        portion = self._portion(*found)
        taken = self._deal(portion, portion.rows, slots)
        for row, length in neighbours(portion.rows[:taken]):
            self._replay.ready.discard(position.ledger, position.entry + row, length)
        return portion.run.count

    def _collect_due(self, entries_max: int) -> bool:
        """Take out what is due and not acknowledged; False: there is nothing."""
        due, cursor = self._due, self._account.cursor
        while True:
            while due and cursor.is_acknowledged(EntryId(*due[0])):
                due.popleft()
            if due or not self._delayed.count:
                return bool(due)
            due.extend(self._delayed.take_due(self._time.now_ms(), entries_max))
            if not due:
                return False

    def _send_due(self, entries_max: int, slots: list[Slot]) -> int:
        due = self._due
        ledger, first = due[0]
        count = 1
        while count < min(entries_max, len(due)) and due[count] == (ledger, first + count):
            count += 1
        position = EntryId(ledger, first)
        found = self._reading.read(DUE, position, count)
        if found is None and self._exists(position):
            return 0
        if found is None or found[0] != position:
            due.popleft()
            return 1
        portion = self._portion(*found)
        taken = self._deal(portion, portion.rows, slots)
        # What was not dealt stays due; what was acknowledged meanwhile does not.
        left = portion.rows[taken] if taken < len(portion.rows) else portion.run.count
        for _ in range(left):
            due.popleft()
        return portion.run.count

    def _send_new(self, entries_max: int, slots: list[Slot]) -> int:
        portion = self._read_new(entries_max)
        if portion is None:
            return 0
        (ledger, first), run = portion.at, portion.run
        later: list[tuple[int, int]] = []
        if self._account.limits.delayed_delivery:
            later = portion.later(self._account.ground.clock.wall_ms())
        taken = self._deal(portion, portion.rows, slots)
        stop = portion.rows[taken] if taken < len(portion.rows) else run.count
        for row, wall_ms in later:
            if row < stop:
                self._delayed.add(self._time.due_ms(wall_ms), ledger, first + row)
        self.read_position = EntryId(ledger, first + stop)
        return max(stop, 1)

    def _deal(self, portion: Portion, rows: Sequence[int], slots: list[Slot]) -> int:
        """Send rows to consumers; return how many, from the first on, are dealt with."""
        if not rows:
            return 0
        assigned, self._turn, taken = assign_shared(portion.message_counts(rows), slots, self._turn)
        for each in assigned:
            mine: Sequence[int] = each.rows
            if rows != range(portion.run.count):
                mine = [rows[i] for i in each.rows]
            self._hand_out(portion, Assignment(each.consumer, mine, each.messages))
        return taken

    def _hand_out(self, portion: Portion, assignment: Assignment) -> None:
        """Send rows to a consumer, which has them then."""
        consumer = self.consumers[assignment.consumer]
        ledger, first = portion.at
        for row, count in neighbours(assignment.rows):
            consumer.unacked.add(ledger, first + row, count)
        consumer.unacked_messages += assignment.messages
        self.unacked_messages += assignment.messages
        counts = self._replay.counts(ledger, first, portion.run.count)
        if counts:
            mine = set(assignment.rows)
            counts = {row: times for row, times in counts.items() if row in mine}
        self._send(consumer, portion, assignment.rows, assignment.messages, counts)

    # --- what comes back

    def redeliver(
        self, consumer: OpenConsumer, ids: Sequence[EntryId] | None, epoch: int | None
    ) -> None:
        """Send entries again, as far as this consumer has them."""
        if epoch is not None:
            consumer.epoch = max(epoch, consumer.epoch or 0)
        ranges = (
            list(consumer.unacked.ranges())
            if ids is None
            else [(each.ledger, each.entry, 1) for each in ids if each in consumer.unacked]
        )
        for ledger, first, count in ranges:
            self._give_back(consumer, ledger, first, count)
            self._again(consumer, ledger, first, count)

    def before_acknowledge(
        self, consumer: OpenConsumer | None, ledger: int, first: int, count: int
    ) -> None:
        left = count
        if consumer is not None:
            left -= self._take_from(consumer, ledger, first, count)
        if left:
            for other in self.consumers.values():
                if other is not consumer and other.unacked.count:
                    left -= self._take_from(other, ledger, first, count)
                    if not left:
                        break
        self._replay.done(ledger, first, count)

    def before_part(self, ledger: int, entry: int, words: Sequence[int]) -> None:
        key = EntryId(ledger, entry)
        before = self._account.cursor.ack_sets.get(key)
        if before is None:
            lost = self._account.extras.get(ledger, entry) + 1 - ones(words)
        else:
            left = [a & b for a, b in zip(before, words, strict=False)]
            lost = ones(before) - ones(left)
        for consumer in self.consumers.values():
            if key in consumer.unacked:
                self._count_back(consumer, max(lost, 0))
                return

    def before_acknowledge_up_to(self, position: EntryId) -> None:
        for consumer in self.consumers.values():
            for ledger, first, count in list(consumer.unacked.ranges()):
                if (ledger, first) > position:
                    break
                below = position.entry + 1 - first if ledger == position.ledger else count
                self._take_from(consumer, ledger, first, min(count, below))
        self._replay.done_up_to(position)
        if self._due:
            self._due = deque(each for each in self._due if each > position)
        if self.read_position <= EntryId(position.ledger, position.entry + 1):
            self._delayed.clear()
        super().before_acknowledge_up_to(position)

    def _take_from(self, consumer: OpenConsumer, ledger: int, first: int, count: int) -> int:
        """Take whatever a consumer has of some entries; return how many that were."""
        bits = consumer.unacked.bits(ledger, first, count)
        if not bits:
            return 0
        for low, length in runs_of_ones(bits):
            self._give_back(consumer, ledger, first + low, length)
        return bits.bit_count()

    def _give_back(self, consumer: OpenConsumer, ledger: int, first: int, count: int) -> None:
        """A consumer has neighbouring entries no longer."""
        consumer.unacked.discard(ledger, first, count)
        messages = count + sum(self._account.extras.window(ledger, first, count) or ())
        parts = self._account.cursor.ack_sets
        if parts:
            for entry in range(first, first + count):
                words = parts.get(EntryId(ledger, entry))
                if words is not None:
                    messages -= self._account.extras.get(ledger, entry) + 1 - ones(words)
        self._count_back(consumer, messages)
        self._returned(ledger, first, count)

    def _count_back(self, consumer: OpenConsumer, messages: int) -> None:
        # Sizes of very old batches may be forgotten: never count below 0, and an empty set is 0.
        left = max(consumer.unacked_messages - messages, 0) if consumer.unacked.count else 0
        self.unacked_messages -= consumer.unacked_messages - left
        consumer.unacked_messages = left

    def _again(self, consumer: OpenConsumer, ledger: int, first: int, count: int) -> None:
        consumer.redelivered += count
        self._replay.again(ledger, first, count)

    def _returned(self, ledger: int, first: int, count: int) -> None:
        """A consumer has neighbouring entries no longer."""

    # --- time

    def _start_timer(self) -> None:
        due_ms = self._delayed.next_due_ms()
        if due_ms is None or not self.consumers or self._due or self._reading.busy:
            # Nothing waits, or something else will wake before.
            return
        if self._due_timer is not None:
            if self._due_timer_ms <= due_ms:
                return
            self._due_timer.cancel()
        ground = self._account.ground
        wait_ms = max(due_ms - self._time.now_ms(), 1)
        self._due_timer_ms = due_ms
        self._due_timer = ground.loop.call_later(wait_ms / 1000, self._time_has_come)

    def _time_has_come(self) -> None:
        self._due_timer = None
        self._account.wake()

    def _stop_timer(self) -> None:
        if self._due_timer is not None:
            self._due_timer.cancel()
            self._due_timer = None

    # --- the rest

    def _exists(self, position: EntryId) -> bool:
        return self._account.log.next_position(position) == position

    def _forget(self, position: EntryId) -> None:
        """An entry is not in the log any more."""
        self._replay.done(position.ledger, position.entry, 1)

    @property
    def forgettable(self) -> bool:
        return not self.consumers and not self.delayed_count and not self._replay.counted

    @property
    def caught_up(self) -> bool:
        return super().caught_up and not self.ready_count and not self.delayed_count

    @property
    def blocked(self) -> bool:
        return self._blocked

    @property
    def delayed_count(self) -> int:
        return self._delayed.count + len(self._due)

    @property
    def delayed_bytes(self) -> int:
        return self._delayed.in_memory_bytes

    @property
    def ready_count(self) -> int:
        return self._replay.ready.count


# --- key_shared --------------------------------------------------------------------------


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
        if portion.rows:
            fits, messages = fitting(portion.message_counts(portion.rows), slot.permits)
            rows = portion.rows[:fits]
            for row in rows:
                keyed_slot = self._keyed.unwait(position.ledger, position.entry + row)
                self._keyed.hold(keyed_slot, slot.consumer)
            self._hand_out(portion, Assignment(slot.consumer, rows, messages))
        return portion.run.count

    def _deal(self, portion: Portion, rows: Sequence[int], slots: list[Slot]) -> int:
        if not rows:
            return 0
        keyed, (ledger, first) = self._keyed, portion.at
        by_row = _slots_of(portion.run)
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

    def _again(self, consumer: OpenConsumer, ledger: int, first: int, count: int) -> None:
        consumer.redelivered += count
        self._keyed.again(ledger, first, count)

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


def _slots_of(run: Run) -> list[int]:
    flags = run.u32(FLAGS).tolist()
    hashes = run.u32(KEY_HASH).tolist()
    if all(each & _KEYED for each in set(flags)):
        return [each % SLOTS or 1 for each in hashes]
    sequence_ids = run.i64(SEQUENCE_ID).tolist()
    return [
        (key_hash % SLOTS or 1) if flag & _KEYED else slot_without_key(sequence_id)
        for flag, key_hash, sequence_id in zip(flags, hashes, sequence_ids, strict=True)
    ]
