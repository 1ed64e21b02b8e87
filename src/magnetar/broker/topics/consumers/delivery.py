"""Handing entries to consumers: one kind of delivery for each kind of subscription.

    single_delivery   Exclusive, Failover   one active consumer, everything in order; going back
                                            is moving the read position back
    shared_delivery   Shared                first what is sent again, then what is due, then new
    keyed_delivery    Key_Shared            the same, by hash slot

    log ──▶ Reading ──▶ Portion ──▶ `dispatch` decides ──▶ ConsumerEvents.deliver, per consumer

Every entry between mark-delete and the read position is in exactly one place: acknowledged
(the cursor), unacknowledged at a consumer, to be sent again (`redelivery`), or waiting for
its time (`delayed`). One pass looks at a bounded number of entries and then gives way.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Protocol

from magnetar.broker.entry import EARLIEST, EntryId
from magnetar.broker.port import Selection
from magnetar.broker.run import LENGTH, Run
from magnetar.broker.storage.errors import Gap
from magnetar.broker.topics.compaction.view import View
from magnetar.broker.topics.consumers.consumer import Limits, OpenConsumer
from magnetar.broker.topics.consumers.consumption import Consumption
from magnetar.broker.topics.consumers.redelivery import NOTHING
from magnetar.broker.topics.cursors.cursor import Cursor
from magnetar.broker.topics.cursors.entry_set import runs_of_zeros
from magnetar.broker.topics.cursors.held_acks import HeldAcknowledgements
from magnetar.broker.topics.cursors.reading import (
    NEW,
    Ground,
    Log,
    Portion,
    Reading,
    Timer,
    fitting,
)
from magnetar.broker.topics.limits.rates import Meters


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
    def consumption(self) -> Consumption: ...
    @property
    def throttle(self) -> Meters | None: ...
    @property
    def view(self) -> View | None:
        """The compacted view of the topic, if there is one."""
        ...

    @property
    def kept_from(self) -> EntryId:
        """The first entry that the log itself still has."""
        ...

    @property
    def held(self) -> HeldAcknowledgements | None: ...
    def wake(self) -> None: ...
    def hidden(self, at: EntryId, run: Run) -> Sequence[int]:
        """Return the rows that belong to aborted transactions."""
        ...

    def pass_over(self, ledger: int, first: int, messages: Sequence[int]) -> None:
        """Acknowledge neighbouring entries that are never delivered, with so many messages each."""

    def pass_gap(self, gap: Gap) -> None:
        """Acknowledge entries that are lost, and say so."""

    def pass_compacted(self, first: EntryId, until: EntryId, messages: int | None) -> None:
        """Acknowledge what compaction has left out between two positions: so many messages."""

    def pass_compacted_between(self, at: EntryId, rows: Sequence[int], run: Run) -> None:
        """Acknowledge what compaction has left out between these rows of a run."""

    def pass_compacted_messages(self, at: EntryId, run: Run) -> None:
        """Acknowledge what compaction has left out of batches."""

    def count_lost(self, ledger: int, survivors: int) -> None:
        """Say that survivors are lost."""

    def count_out(self, entries: int, messages: int, size: int) -> None:
        """Count what was sent."""


class Delivery:
    """What all kinds have in common."""

    __slots__ = (
        "_account",
        "_pause",
        "_reading",
        "consumers",
        "read_position",
        "unacked_messages",
    )

    def __init__(self, account: Account) -> None:
        self._account = account
        self._reading = Reading(account.log, account.ground, account.wake, account.pass_gap)
        self.consumers: dict[int, OpenConsumer] = {}
        self.read_position = account.cursor.next_unacknowledged(EARLIEST, account.log)
        self.unacked_messages = 0
        self._pause: Timer | None = None
        """Set while nothing is sent because of a rate."""

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

    def read_from(self, log: Log) -> None:
        """Read from another view of the same log from now on."""
        self._reading.read_from(log)

    def park(
        self, ranges: Sequence[tuple[int, int, int]], parts: Sequence[tuple[EntryId, int]]
    ) -> None:
        """Do not send entries, nor count them as unacknowledged: a transaction holds them.

        `ranges`: ledger, first, how many. `parts`: so many messages of a batch.
        """

    def unpark(
        self, ranges: Sequence[tuple[int, int, int]], parts: Sequence[tuple[EntryId, int]]
    ) -> None:
        """Count them again: the transaction is decided. What becomes of them comes then."""

    def release(self, ranges: Sequence[tuple[int, int, int]]) -> None:
        """Send entries again that a transaction held, which is aborted. Ledger, first, how many."""

    def _hold_back(self, portion: Portion) -> None:
        """Look at entries that are read and left out because transactions hold them."""

    def _not_held(self, ledger: int, first: int, count: int) -> Iterator[tuple[int, int]]:
        """Yield (first, count) for each run of neighbours that no transaction holds."""
        held = self._account.held
        if held is None:
            yield first, count
            return
        for low, length in runs_of_zeros(held.bits(ledger, first, count), count):
            yield first + low, length

    def rewind(self) -> None:
        """Read on from the first entry that is not acknowledged."""
        self.read_position = self._account.cursor.next_unacknowledged(EARLIEST, self._account.log)

    def stop(self) -> None:
        """Let go of everything: nobody will call `dispatch` again."""
        self._reading.forget()
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None

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

    def _room(self, throttle: Meters) -> int:
        """Return how many messages the rates allow now; at 0 a timer will wake."""
        messages, _ = throttle.room()
        if not messages and self._pause is None:
            loop = self._account.ground.loop
            self._pause = loop.call_later(throttle.wait_s(), self._pause_is_over)
        return messages

    def _pause_is_over(self) -> None:
        self._pause = None
        self._account.wake()

    def _within_rate(self, portion: Portion, rows: Sequence[int]) -> Sequence[int]:
        """Return the first of these rows, as many as the rates allow; at least one."""
        throttle = self._account.throttle
        if throttle is None:
            return rows
        messages, size = throttle.room()
        count, _ = portion.fitting(rows, max(messages, 1))
        lengths = portion.run.u32(LENGTH).tolist()
        by_size, _ = fitting([lengths[row] for row in rows], max(size, 1))
        return rows[: min(count, by_size)]

    def _read_new(self, entries_max: int) -> Portion | None:
        """Read at the read position; None: nothing there, or not yet."""
        account = self._account
        if account.cursor.holes or self.read_position <= account.cursor.mark_delete:
            self.read_position = account.cursor.next_unacknowledged(self.read_position, account.log)
        found = self._reading.read(NEW, self.read_position, entries_max)
        if found is None:
            return None
        account.consumption.note_index(*found)
        return self._portion(*found)

    def _portion(self, at: EntryId, run: Run) -> Portion:
        account = self._account
        portion = Portion(at, run, account.cursor, account.held)
        if portion.special:
            unseen = portion.leave_out_unseen(account.hidden(at, run))
            for row, count in neighbours(unseen):
                account.pass_over(at.ledger, at.entry + row, portion.counts[row : row + count])
        if account.held is not None:
            self._hold_back(portion)
        if not portion.single:
            for row, count in neighbours(portion.rows):
                sizes = portion.counts[row : row + count]
                self._account.consumption.note_sizes(at.ledger, at.entry + row, sizes)
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
        size = portion.size_of(rows)
        consumer.permits -= messages
        consumer.messages_out += messages
        consumer.entries_out += len(rows)
        consumer.bytes_out += size
        consumer.last_sent_ms = account.ground.clock.wall_ms()
        account.count_out(len(rows), messages, size)
        if account.throttle is not None:
            account.throttle.take(messages, size)
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
