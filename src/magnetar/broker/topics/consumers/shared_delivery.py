"""Shared: each entry to whoever has room.

    first   what has to be sent again      `redelivery`, lowest position first
    then    what has become due            `delayed`, in order of time
    then    what is new                    the log, from the read position

What a consumer has is kept as a bitmap until it is acknowledged, or comes back: by a
negative acknowledgement, or because the consumer left.
"""

from collections import deque
from collections.abc import Sequence

from magnetar.broker.entry import EntryId
from magnetar.broker.topics.consumers.consumer import OpenConsumer
from magnetar.broker.topics.consumers.delayed import Delayed, Spill, SteadyTime
from magnetar.broker.topics.consumers.delivery import Account, Delivery, neighbours
from magnetar.broker.topics.consumers.dispatch import (
    Assignment,
    Slot,
    assign_shared,
)
from magnetar.broker.topics.consumers.redelivery import Replay
from magnetar.broker.topics.cursors.cursor import ones
from magnetar.broker.topics.cursors.entry_set import EntrySet, runs_of_ones, runs_of_zeros
from magnetar.broker.topics.cursors.reading import AGAIN, DUE, Portion, Timer

UNLIMITED = 1 << 62
READ_ENTRIES_MIN = 100
"""Shared reads at least this far ahead: some of it may be delayed."""


class SharedDelivery(Delivery):
    """Each entry to whoever has room; what comes back is sent again before anything new."""

    __slots__ = (
        "_blocked",
        "_delayed",
        "_due",
        "_due_timer",
        "_due_timer_ms",
        "_parked",
        "_parked_parts",
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
        self._parked = EntrySet()
        """What transactions hold: nobody is sent it, and it does not count as unacknowledged."""
        self._parked_parts: dict[EntryId, int] = {}
        """How many messages of batches they hold."""

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
        ground = self._account.ground
        budget = ground.config.dispatch_entries_max
        more = True
        while more and budget > 0:
            slots = self._slots()
            if not slots:
                return False
            looked_at = self._step(slots, budget)
            budget -= looked_at
            more = looked_at > 0
            if ground.rota.is_over:
                break
        self._start_timer()
        return more

    def _slots(self) -> list[Slot]:
        """Return who has room for how many messages."""
        account = self._account
        if account.throttle is not None and not self._room(account.throttle):
            return []
        limits = account.limits
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
        throttle = self._account.throttle
        if throttle is not None:
            room = min(room, throttle.room()[0])
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
        for entry in portion.left_out(position.entry):
            self._replay.ready.discard(position.ledger, entry)
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
        rows = self._within_rate(portion, rows)
        assigned, self._turn, taken = assign_shared(
            portion.message_counts(rows),
            slots,
            self._turn,
            self._account.ground.config.round_robin_entries_max,
        )
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
            lost = self._account.consumption.extras.get(ledger, entry) + 1 - ones(words)
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
        self._count_back(consumer, self._messages(ledger, first, count))
        self._returned(ledger, first, count)

    def _messages(self, ledger: int, first: int, count: int) -> int:
        """Return how many messages of neighbouring entries count as unacknowledged."""
        if self._parked.count:
            parked = self._parked.bits(ledger, first, count)
            if parked:
                return sum(
                    self._messages_of(ledger, first + low, length)
                    for low, length in runs_of_zeros(parked, count)
                )
        return self._messages_of(ledger, first, count)

    def _messages_of(self, ledger: int, first: int, count: int) -> int:
        extras = self._account.consumption.extras
        messages = count + sum(extras.window(ledger, first, count) or ())
        parts = self._account.cursor.ack_sets
        if parts or self._parked_parts:
            for entry in range(first, first + count):
                at = EntryId(ledger, entry)
                words = parts.get(at)
                if words is not None:
                    messages -= extras.get(ledger, entry) + 1 - ones(words)
                messages -= self._parked_parts.get(at, 0)
        return messages

    def _count_back(self, consumer: OpenConsumer, messages: int) -> None:
        # Sizes of very old batches may be forgotten: never count below 0, and an empty set is 0.
        left = max(consumer.unacked_messages - messages, 0) if consumer.unacked.count else 0
        self.unacked_messages -= consumer.unacked_messages - left
        consumer.unacked_messages = left

    def _again(self, consumer: OpenConsumer, ledger: int, first: int, count: int) -> None:
        consumer.redelivered += count
        for start, length in self._not_held(ledger, first, count):
            self._replay.again(ledger, start, length)

    def park(
        self, ranges: Sequence[tuple[int, int, int]], parts: Sequence[tuple[EntryId, int]]
    ) -> None:
        # Who has them keeps them, because of the order of keys; they do not count, as in Pulsar.
        for ledger, first, count in ranges:
            self._replay.ready.discard(ledger, first, count)
            for consumer in self.consumers.values():
                for low, length in runs_of_ones(consumer.unacked.bits(ledger, first, count)):
                    messages = self._messages(ledger, first + low, length)
                    self._count_back(consumer, messages)
            self._parked.add(ledger, first, count)
        for at, messages in parts:
            self._parked_parts[at] = self._parked_parts.get(at, 0) + messages
            for consumer in self.consumers.values():
                if at in consumer.unacked:
                    self._count_back(consumer, messages)

    def unpark(
        self, ranges: Sequence[tuple[int, int, int]], parts: Sequence[tuple[EntryId, int]]
    ) -> None:
        for ledger, first, count in ranges:
            parked = self._parked.bits(ledger, first, count)
            self._parked.discard(ledger, first, count)
            for consumer in self.consumers.values():
                mine = consumer.unacked.bits(ledger, first, count) & parked
                for low, length in runs_of_ones(mine):
                    self._count_back(consumer, -self._messages(ledger, first + low, length))
        for at, messages in parts:
            left = self._parked_parts.pop(at, 0)
            if left > messages:
                self._parked_parts[at] = left - messages
            for consumer in self.consumers.values():
                if at in consumer.unacked:
                    self._count_back(consumer, -min(messages, left))

    def release(self, ranges: Sequence[tuple[int, int, int]]) -> None:
        for ledger, first, count in ranges:
            for consumer in self.consumers.values():
                self._take_from(consumer, ledger, first, count)
            read = self.read_position
            below = min(count, read.entry - first) if ledger == read.ledger else count
            if ledger <= read.ledger and below > 0:
                done = self._account.cursor.acknowledged_bits(ledger, first, below)
                for low, left in runs_of_zeros(done, below):
                    for start, length in self._not_held(ledger, first + low, left):
                        self._replay.again(ledger, start, length)

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
