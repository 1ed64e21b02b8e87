"""Random lives of a subscription agree with a plain model of it (reliability O2)."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from magnetar.broker.entry import EARLIEST, EntryId
from magnetar.broker.port import Acknowledged, SubscriptionType
from magnetar.broker.topics.consumers.consumer import OpenConsumer
from magnetar.broker.topics.consumers.consumption import Consumption
from magnetar.broker.topics.consumers.delayed import Delayed
from magnetar.broker.topics.consumers.dispatch import Owners
from magnetar.broker.topics.consumers.keyed_delivery import KeyedDelivery
from magnetar.broker.topics.consumers.redelivery import Replay
from magnetar.broker.topics.consumers.shared_delivery import SharedDelivery
from magnetar.broker.topics.consumers.single_delivery import SingleDelivery
from magnetar.broker.topics.cursors.cursor import Cursor
from magnetar.broker.topics.cursors.reading import Portion
from magnetar.broker.topics.subscriptions.subscription import Subscription
from tests.topics.reference_model import SINGLE, Acked, Model
from tests.topics.stage import Guest, Stage

Step = tuple[str, int, int]

VERBS = {
    "publish": 8,
    "publish_batch": 3,
    "publish_later": 3,
    "join": 6,
    "leave": 2,
    "flow": 10,
    "ack": 10,
    "ack_part": 3,
    "ack_up_to": 3,
    "nack": 4,
    "nack_all": 2,
    "congest": 1,
    "resume": 2,
    "seek": 1,
    "skip": 1,
    "expire_to": 1,
    "clear": 1,
    "time": 4,
    "roll": 2,
    "cold": 1,
    "warm": 1,
    "persist": 3,
    "crash": 1,
}

verbs = st.sampled_from([verb for verb, weight in VERBS.items() for _ in range(weight)])
steps = st.tuples(verbs, st.integers(0, 40), st.integers(1, 12))
# Short lives hold no surprises; shrinking still finds the shortest that fails.
lives = st.one_of(st.lists(steps, max_size=30), st.lists(steps, min_size=25, max_size=90))
kinds = st.lists(st.sampled_from(list(SubscriptionType)), min_size=1, max_size=4)


class Life:
    """A subscription and its model, going through the same things."""

    def __init__(self, kinds: list[SubscriptionType], subscription: Subscription, stage: Stage):
        self.stage = stage
        self.subscription = subscription
        self.model = Model(stage.log)
        self.kinds = kinds
        self.kind = kinds[0]
        self.joined = 0
        self.guests: dict[int, Guest] = {}
        self.journal = [subscription.take_changes()]
        self.durable = Acked()
        self._active: OpenConsumer | None = None
        self._failing_over = False
        self.overtaken: dict[EntryId, int] = {}

    async def do(self, verb: str, at: int, number: int) -> None:
        """Do one thing to both, let everything settle, and compare."""
        self.overtaken = {}
        result = getattr(self, f"_{verb}")(at, number)
        if result is not None:
            await result
        await self.stage.settle()
        self._compare()

    # --- each verb

    def _publish(self, at: int, number: int, messages: int = 1, later_s: int = 0) -> None:
        due_ms = self.stage.clock.wall_ms() + later_s * 1000 if later_s else 0
        for i in range(number):
            key = 1 + (at + i) % 5 * 13_007  # far apart: not all of one owner
            [entry] = self.stage.publish(1, messages=messages, key_hash=key, deliver_at_ms=due_ms)
            self.model.publish(entry, messages, key, due_ms)
        self.subscription.wake()

    def _publish_batch(self, at: int, number: int) -> None:
        self._publish(at, 1 + number % 3, messages=1 + at % 7)

    def _publish_later(self, at: int, number: int) -> None:
        self._publish(at, 1 + number % 3, later_s=1 + at % 9)

    def _join(self, at: int, number: int) -> None:
        if not self.guests:
            self.kind = self.kinds[self.joined % len(self.kinds)]
        elif len(self.guests) > 3 or self.kind is SubscriptionType.EXCLUSIVE:
            return
        self.joined += 1
        guest = self.stage.join(self.subscription, self.kind, f"c{at % 4}")
        self.model.join(guest.consumer.number, self.kind)
        self.guests[guest.consumer.number] = guest
        # An empty failover subscription serves its first consumer at once; a change takes 1 s.
        if self.kind in SINGLE:
            self._served_from_the_start()

    def _guest(self, at: int) -> Guest | None:
        numbers = sorted(self.guests)
        return self.guests[numbers[at % len(numbers)]] if numbers else None

    async def _leave(self, at: int, number: int) -> None:
        guest = self._guest(at)
        if guest is not None:
            await guest.consumer.close()
            del self.guests[guest.consumer.number]
            self.model.leave(guest.consumer.number)
            if self.kind in SINGLE:
                self._served_from_the_start()

    def _served_from_the_start(self) -> None:
        """The active consumer may have changed: let the failover delay pass."""
        if self.subscription.active is not self._active:
            self._active = self.subscription.active
            self.model.rewind()
            self._failing_over = True

    def _flow(self, at: int, number: int) -> None:
        guest = self._guest(at)
        if guest is not None:
            self.model.consumers[guest.consumer.number].permits += number
            guest.consumer.flow(number)

    def _ack(self, at: int, number: int) -> None:
        guest = self._guest(at)
        if guest is not None:
            entries = self.stage.log.entries()[at : at + number]
            guest.consumer.acknowledge([Acknowledged(*each) for each in entries], cumulative=False)
            for each in entries:
                self.model.acknowledge(each)

    def _ack_part(self, at: int, number: int) -> None:
        guest = self._guest(at)
        batches = [key for key, each in self.model.entries.items() if each.messages > 1]
        if guest is not None and batches:
            entry = batches[at % len(batches)]
            bits = number & ((1 << self.model.entries[entry].messages) - 1)
            guest.ack_part(entry, bits)
            if bits:
                self.model.acknowledge_part(entry, bits)
            else:
                self.model.acknowledge(entry)

    def _ack_up_to(self, at: int, number: int) -> None:
        guest = self._guest(at)
        entries = self.stage.log.entries()
        if guest is not None and self.kind in SINGLE and at < len(entries):
            guest.ack(entries[at], cumulative=True)
            self.model.acknowledge_up_to(entries[at])

    def _nack(self, at: int, number: int) -> None:
        guest = self._guest(at)
        if guest is not None:
            entries = self.stage.log.entries()[at : at + number]
            self._redeliver(guest, entries)

    def _nack_all(self, at: int, number: int) -> None:
        guest = self._guest(at)
        if guest is not None:
            self._redeliver(guest, None)

    def _redeliver(self, guest: Guest, entries: list[EntryId] | None) -> None:
        guest.consumer.redeliver(entries, None)
        if self.kind not in SINGLE:
            named = None if entries is None else set(entries)
            self.model.redeliver(guest.consumer.number, named)
        elif self.subscription.active is guest.consumer:
            self.model.rewind()

    def _congest(self, at: int, number: int) -> None:
        guest = self._guest(at)
        if guest is not None:
            guest.door.congested = True

    def _resume(self, at: int, number: int) -> None:
        guest = self._guest(at)
        if guest is not None:
            guest.door.congested = guest.door.refused = False
            self.model.consumers[guest.consumer.number].congested = False
            guest.consumer.resume()

    async def _seek(self, at: int, number: int) -> None:
        entries = [*self.stage.log.entries(), self.stage.log.end]
        position = entries[at % len(entries)]
        await self.subscription.seek(position, (), None)
        for guest in self.guests.values():
            assert guest.door.closed_with == [None]
        self.guests.clear()
        self._active = None
        self.model.reset(position)

    async def _skip(self, at: int, number: int) -> None:
        rest = sorted(set(self.model.entries) - self.model.acked.entries)[:number]
        self._overtake(rest)
        assert await self.subscription.skip(number) == len(rest)
        for entry in rest:
            self.model.acknowledge(entry)

    def _overtake(self, entries: list[EntryId]) -> None:
        """These will be acknowledged in steps; between them some may still be delivered."""
        pending = set(self.model.pending()) if self.kind not in SINGLE else set(entries)
        self.overtaken = {each: self.model.left_of(each) for each in entries if each in pending}

    async def _expire_to(self, at: int, number: int) -> None:
        entries = self.stage.log.entries()
        if at < len(entries):
            self._overtake([e for e in entries[: at + 1] if e not in self.model.acked.entries])
            await self.subscription.expire_to(entries[at])
            self.model.acknowledge_up_to(entries[at])

    async def _clear(self, at: int, number: int) -> None:
        self._overtake(sorted(set(self.model.entries) - self.model.acked.entries))
        await self.subscription.clear_backlog()
        self.model.acknowledge_up_to(self.stage.log.end)

    async def _time(self, at: int, number: int) -> None:
        await self.stage.loop.advance(number / 2)

    def _roll(self, at: int, number: int) -> None:
        self.stage.log.roll()

    def _cold(self, at: int, number: int) -> None:
        self.stage.log.cold = True

    def _warm(self, at: int, number: int) -> None:
        self.stage.log.cold = False

    def _persist(self, at: int, number: int) -> None:
        self.journal.append(self.subscription.take_changes())
        self.durable = self.model.acked.copy()

    async def _crash(self, at: int, number: int) -> None:
        self.subscription.end_consumers(None)
        self.guests.clear()
        self._active = None
        cursor = Cursor.restore(self.journal[0])
        for changes in self.journal[1:]:
            cursor.apply(changes)
        self.subscription = await self.stage.subscription(cursor=cursor)
        self.model.crash(self.durable)

    # --- comparing

    async def rest(self) -> None:
        """Let a change of the active consumer take effect."""
        if self._failing_over:
            self._failing_over = False
            await self.stage.loop.advance(1.0)

    def _owners(self) -> Owners | None:
        delivery = self.subscription.delivery
        return delivery.owners if isinstance(delivery, KeyedDelivery) else None

    def _compare(self) -> None:
        now_ms = self.stage.clock.wall_ms()
        arrived = [(number, each) for number, g in self.guests.items() for each in g.door.take()]
        if self.kind is SubscriptionType.SHARED:
            # Deliveries of one turn went to several doors: put what came again first.
            arrived.sort(key=lambda pair: (pair[1].id not in self.model.seen, pair[1].id))
        for number, each in arrived:
            if each.id in self.overtaken:
                self.model.consumers[number].permits -= self.overtaken[each.id]
                continue
            self.model.delivered(number, each, now_ms, self._owners())
        for number, guest in self.guests.items():
            consumer = self.model.consumers[number]
            consumer.congested = guest.consumer.congested
            assert not guest.door.uninvited
            assert guest.consumer.permits == consumer.permits
            if self.kind not in SINGLE:
                left = sum(self.model.left_of(entry) for entry in consumer.has)
                assert guest.consumer.unacked_messages == left
        active = None if self._failing_over else self.subscription.active
        self.model.complete(now_ms, self._owners(), None if active is None else active.number)
        if not self.subscription.cursor.estimated:  # sizes of cold batches that were never read
            assert self.subscription.backlog == self.model.backlog()
        undone = set(self.model.entries) - self.model.acked.entries
        assert self.subscription.backlog_entries == len(undone)
        assert self.subscription.cursor.next_unacknowledged(EARLIEST, self.stage.log) == min(
            undone, default=self.stage.log.end
        )


async def live(kinds: list[SubscriptionType], steps: list[Step], **settings: Any) -> Life:
    stage = Stage(ledger_entries_max=9, settings=settings)
    life = Life(kinds, await stage.subscription(), stage)
    for verb, at, number in steps:
        await life.do(verb, at, number)
        await life.rest()
        await stage.settle()
        life._compare()
    return life


@settings(deadline=None, max_examples=500)
@given(kinds, lives)
def test_a_subscription_lives_as_its_model_says(
    kinds: list[SubscriptionType], steps: list[Step]
) -> None:
    asyncio.run(live(kinds, steps))


@settings(deadline=None, max_examples=100)
@given(kinds, lives)
def test_a_subscription_that_does_two_entries_at_a_time_lives_the_same(
    kinds: list[SubscriptionType], steps: list[Step]
) -> None:
    asyncio.run(live(kinds, steps, dispatch_entries_max=2))


# --- negative controls: each of these faults must be seen -----------------------------------


def nothing(*_: Any, **__: Any) -> None:
    """Do not do it."""


FAULTS: dict[str, tuple[type, str, Callable[..., Any]]] = {
    "acknowledged entries are sent again": (Cursor, "acknowledged_bits", lambda *_: 0),
    "changes are not persisted": (Cursor, "take_changes", lambda self: Cursor().snapshot()),
    "redeliveries are not counted": (Replay, "count", nothing),
    "delayed entries are sent at once": (Portion, "later", lambda *_: []),
    "delayed entries are forgotten": (Delayed, "add", nothing),
    "slots are not drained": (
        KeyedDelivery,
        "_target",
        lambda self, slot: self.owners.owner(slot),
    ),
    "what a leaver had is forgotten": (SharedDelivery, "_again", nothing),
    "nobody goes back": (SingleDelivery, "rewind", nothing),
    "congestion is ignored": (OpenConsumer, "room", lambda self, limit: self.permits),
    "an acknowledgement wakes nobody": (Subscription, "wake", nothing),
    "sizes of batches are forgotten": (Consumption, "note_sizes", nothing),
    "parts of batches are not given": (Portion, "_leave_out_parts", nothing),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_model_sees(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, name, broken = FAULTS[fault]
    monkeypatch.setattr(where, name, broken)

    def fails(life: tuple[list[SubscriptionType], list[Step]]) -> bool:
        try:
            asyncio.run(live(*life))
        except (AssertionError, KeyError):
            return True
        return False

    generate = settings(
        max_examples=3_000, deadline=None, phases=[Phase.generate], database=None, derandomize=True
    )
    find(st.tuples(kinds, lives), fails, settings=generate)
