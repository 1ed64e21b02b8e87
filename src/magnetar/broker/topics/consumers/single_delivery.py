"""Exclusive and Failover: everything to one consumer, in order.

    read position ──▶ the active consumer
         ▲ rewind: somebody else is active, or asked for redelivery

    a compacted reader    up to the horizon of the view: its survivors, then the log
    the view is replaced  go on in the log, where nothing that was deleted can be missed;
                          in the new view, if the log is trimmed there

    of some keys only     the others count as acknowledged when they are read: a reader that shares
                          a topic with others by ranges of keys (as in Pulsar, on Exclusive)

Nothing is kept per entry: what the consumer has not acknowledged is what lies between the
cursor and the read position. A change of the active consumer on Failover takes a second,
in which the acknowledgements of the one before still arrive (as in Pulsar).
"""

from collections.abc import Sequence

from magnetar.broker.entry import EARLIEST, EntryId
from magnetar.broker.port import SubscriptionType
from magnetar.broker.run import FIRST_INDEX, MESSAGES
from magnetar.broker.topics.compaction.surviving import PAST, End, Surviving
from magnetar.broker.topics.consumers.consumer import OpenConsumer
from magnetar.broker.topics.consumers.delivery import Account, Delivery, neighbours
from magnetar.broker.topics.consumers.dispatch import (
    Candidate,
    Owners,
    active_consumer,
)
from magnetar.broker.topics.consumers.keyed_delivery import slots_of
from magnetar.broker.topics.cursors.reading import Portion, Timer

PORTION_COST = 25
"""What a portion costs at least, in entries: many small ones take a turn of the loop, too."""


class SingleDelivery(Delivery):
    """Everything to one consumer, in order."""

    __slots__ = (
        "_active",
        "_failover",
        "_index",
        "_keys",
        "_partition",
        "_surviving",
        "_take_over_timer",
        "_topic",
    )

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
        self._surviving: Surviving | None = None
        """While the view is read."""
        self._index: int | None = None
        """How many messages lie before the next entry of the view that is not looked at yet, and
        is not acknowledged either; None: it is not known."""
        self._keys: Owners | None = None
        """Set while the consumer wants only what has some keys."""

    @property
    def active(self) -> OpenConsumer | None:
        """The consumer that is served."""
        return self._active

    def deliver_only(self, keys: Owners | None) -> None:
        """Deliver from now on only what somebody here owns; None: everything."""
        self._keys = keys

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
        ground = self._account.ground
        budget = ground.config.dispatch_entries_max
        throttle = self._account.throttle
        while consumer.permits > 0 and not consumer.congested:
            if budget <= 0:
                return True
            wanted = min(budget, consumer.permits)
            if throttle is not None:
                wanted = min(wanted, self._room(throttle))
                if not wanted:
                    return False
            if self._surviving is None:
                portion = self._read_new(wanted)
            else:
                portion = self._read_survivors(self._surviving, wanted)
            if portion is None:
                return False
            budget -= max(portion.run.count, PORTION_COST)
            self._send_in_order(consumer, portion)
            if ground.rota.is_over:
                return True
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

    def rewind(self) -> None:
        self._surviving = None
        super().rewind()
        account = self._account
        view = account.view
        if view is None or self._active is None or not self._active.request.read_compacted:
            return
        mark = account.cursor.mark_delete
        start = EntryId(mark.ledger, mark.entry + 1)
        if start <= view.horizon:
            exact = not account.cursor.holes and not account.cursor.estimated
            self._index = account.cursor.consumed if exact else None
            self.read_position = start
            self._surviving = Surviving(view, account.ground, account.wake)

    def _read_survivors(self, surviving: Surviving, entries_max: int) -> Portion | None:
        """Read in the view; None: nothing there, or not yet."""
        account = self._account
        if account.view is not surviving.view:
            return self._leave_view(entries_max)
        found = surviving.read(self.read_position, entries_max)
        if found is None:
            return None
        if isinstance(found, End):
            if found is PAST:
                horizon = surviving.view.horizon
                after = EntryId(horizon.ledger, horizon.entry + 1)
                account.pass_compacted(self.read_position, after, None)
                self.read_position = max(self.read_position, after)
                self._surviving = None
            elif self._log_has_the_rest:
                self._surviving = None  # the log has it all
            else:
                account.count_lost(surviving.view.ledger, surviving.skip_damage())
            account.wake()
            return None
        at, run, rows = found
        indexes, index = run.i64(FIRST_INDEX), self._index
        left_out = None if index is None else indexes[0] - index
        account.pass_compacted(self.read_position, at, left_out)
        self._index = indexes[rows[-1]] + run.u32(MESSAGES)[rows[-1]]
        if len(rows) != run.count:
            account.pass_compacted_between(at, rows, run)
        account.pass_compacted_messages(at, run)
        portion = self._portion(at, run)
        if len(rows) != run.count:
            survivors = frozenset(rows)
            portion.rows = [row for row in portion.rows if row in survivors]
        return portion

    @property
    def _log_has_the_rest(self) -> bool:
        """Whether nothing behind the read position is in the view only."""
        account = self._account
        return account.log.next_position(self.read_position) >= account.kept_from

    def _leave_view(self, entries_max: int) -> Portion | None:
        """Another view has taken the place of the one that is read."""
        account = self._account
        self._surviving = None
        if account.view is not None and not self._log_has_the_rest:
            self._surviving = Surviving(account.view, account.ground, account.wake)
            return self._read_survivors(self._surviving, entries_max)
        return self._read_new(entries_max)

    def release(self, ranges: Sequence[tuple[int, int, int]]) -> None:
        if any((ledger, first) < self.read_position for ledger, first, _ in ranges):
            self.rewind()

    def _send_in_order(self, consumer: OpenConsumer, portion: Portion) -> None:
        (ledger, first), rows = portion.at, portion.rows
        self.read_position = EntryId(ledger, first + portion.run.count)
        if self._keys is not None:
            rows = self._wanted(self._keys, portion)
        if not rows:
            return
        slower = self._within_rate(portion, rows)
        count, messages = portion.fitting(slower, consumer.permits)
        if count < len(rows):
            self.read_position = EntryId(ledger, first + rows[count])
            rows = rows[:count]
        self._send(consumer, portion, rows, messages)

    def _wanted(self, keys: Owners, portion: Portion) -> list[int]:
        """Return the rows whose keys are wanted; the others count as acknowledged."""
        (ledger, first), slots = portion.at, slots_of(portion.run)
        wanted = {row for row in portion.rows if keys.owner(slots[row]) is not None}
        others = [row for row in portion.rows if row not in wanted]
        for row, count in neighbours(others):
            self._account.pass_over(ledger, first + row, portion.counts[row : row + count])
        return sorted(wanted)

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
