"""Random histories keep order and lose nothing (reliability O1).

Consumers join, leave, process, acknowledge, refuse and forget; the ledgers roll, the cache
goes cold. Then the faults stop, and everything has to arrive.
"""

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magnetar.broker.entry import EARLIEST, EntryId
from magnetar.broker.port import SubscriptionType
from magnetar.broker.topics.consumers.keyed_delivery import KeyedDelivery
from magnetar.broker.topics.consumers.shared_delivery import SharedDelivery
from magnetar.broker.topics.consumers.single_delivery import SingleDelivery
from magnetar.broker.topics.cursors.cursor import Cursor
from magnetar.broker.topics.subscriptions.subscription import Subscription
from tests.topics.stage import Delivered, Guest, Stage

KEYS = [1 + number * 9_173 for number in range(7)]


class Orders:
    """Checks what was processed against what was published."""

    def __init__(self, kind: SubscriptionType) -> None:
        self.kind = kind
        self.keys: dict[EntryId, int] = {}
        self.processed: dict[EntryId, int] = {}
        self.latest: dict[int, EntryId] = {}
        self.holding: dict[EntryId, int] = {}

    def process(self, consumer: int, what: Delivered) -> None:
        """Check an entry that a consumer got."""
        entry, key = what.id, self.keys[what.id]
        if self.kind is SubscriptionType.KEY_SHARED:
            rivals = {
                other
                for each, other in self.holding.items()
                if self.keys[each] == key and other != consumer
            }
            assert not rivals, f"consumers {rivals | {consumer}} have entries of one key"
            self.holding[entry] = consumer
        stream = {SubscriptionType.KEY_SHARED: key, SubscriptionType.SHARED: hash(entry)}.get(
            self.kind, 0
        )
        if entry not in self.processed:
            assert self.latest.get(stream, EARLIEST) < entry, "first seen out of order"
            self.latest[stream] = entry
        self.processed[entry] = self.processed.get(entry, 0) + 1

    def let_go(self, *entries: EntryId) -> None:
        for each in entries:
            self.holding.pop(each, None)


class History:
    """One subscription among careless consumers."""

    def __init__(self, kind: SubscriptionType, random: Random) -> None:
        self.kind = kind
        self.random = random
        self.stage = Stage(
            ledger_entries_max=random.choice([5, 40, 1000]),
            settings={"dispatch_entries_max": random.choice([3, 1000])},
        )
        self.orders = Orders(kind)
        self.guests: dict[Guest, list[EntryId]] = {}
        self.work: Subscription
        self.acked: set[EntryId] = set()

    async def run(self) -> None:
        self.work = await self.stage.subscription()
        for _ in range(self.random.randrange(20, 60)):
            await self.step()
        await self.heal()

    async def step(self) -> None:
        random = self.random
        chance = random.random()
        if chance < 0.25:
            for _ in range(random.randrange(1, 9)):
                key = random.choice(KEYS)
                messages = random.choice([1, 1, 3])
                [entry] = self.stage.publish(1, key_hash=key, messages=messages)
                self.orders.keys[entry] = key
            self.work.wake()
        elif chance < 0.4:
            self.join(random.choice("abcd"))
        elif chance < 0.5 and self.guests:
            await self.leave(random.choice(list(self.guests)))
        elif chance < 0.55:
            self.stage.log.cold = not self.stage.log.cold
        elif chance < 0.65:
            await self.stage.loop.advance(random.random() * 2)
        elif chance < 0.68:
            await self.restart()
        elif self.guests:
            self.careless(random.choice(list(self.guests)))
        await self.stage.settle()
        self.look()

    def join(self, name: str) -> None:
        if len(self.guests) > (0 if self.kind is SubscriptionType.EXCLUSIVE else 4):
            return
        permits = self.random.choice([1, 5, 1000])
        self.guests[self.stage.join(self.work, self.kind, name, permits=permits)] = []

    async def leave(self, guest: Guest) -> None:
        self.look()
        self.orders.let_go(*self.guests.pop(guest))
        await guest.consumer.close()

    async def restart(self) -> None:
        """The process dies; what was acknowledged was written."""
        self.look()
        self.work.end_consumers(None)
        self.guests.clear()
        self.orders.holding.clear()
        cursor = Cursor.restore(self.work.cursor.snapshot())
        self.work = await self.stage.subscription(cursor=cursor)

    def careless(self, guest: Guest) -> None:
        """Do something with what this consumer has: acknowledge it, refuse it, ask for more."""
        random, has = self.random, self.guests[guest]
        some = [each for each in has if random.random() < 0.5]
        what = random.random()
        if what < 0.45:
            # The permits of what is done are given back, as clients do.
            guest.consumer.flow(sum(map(self.stage.log.messages, some)))
            guest.ack(*some)
            self.acked.update(some)
        elif what < 0.7:
            guest.consumer.redeliver(some, None)
            if self.kind in {SubscriptionType.EXCLUSIVE, SubscriptionType.FAILOVER}:
                some = list(has)
        elif what < 0.8:
            guest.consumer.redeliver(None, None)
            some = list(has)
        else:
            guest.consumer.flow(random.randrange(1, 20))
            return
        self.orders.let_go(*some)
        self.guests[guest] = [each for each in has if each not in some]

    def look(self) -> None:
        """Let every consumer process what has arrived."""
        for guest, has in self.guests.items():
            for each in guest.door.take():
                self.orders.process(guest.consumer.number, each)
                assert each.id not in self.acked
                has.append(each.id)

    async def heal(self) -> None:
        """No more faults: everybody works."""
        careless = list(self.guests)
        if self.kind is not SubscriptionType.EXCLUSIVE:
            for name in "xy":
                self.guests[self.stage.join(self.work, self.kind, name, permits=20)] = []
        for guest in careless:
            await self.leave(guest)
        if not self.guests:
            self.guests[self.stage.join(self.work, self.kind, "x", permits=20)] = []
        for _ in range(200):
            await self.stage.loop.advance(1.0)
            self.look()
            for guest, has in self.guests.items():
                guest.consumer.flow(sum(map(self.stage.log.messages, has)))
                guest.ack(*has)
                self.orders.let_go(*has)
                has.clear()
            if not self.work.backlog_entries:
                break
        missing = set(self.orders.keys) - set(self.orders.processed)
        assert not missing, f"never processed: {sorted(missing)}"
        assert self.work.backlog == 0


@settings(deadline=None, max_examples=50)
@pytest.mark.parametrize("kind", list(SubscriptionType))
@given(seed=st.integers(0, 2**32))
def test_every_history_keeps_order_and_loses_nothing(kind: SubscriptionType, seed: int) -> None:
    asyncio.run(History(kind, new_random(seed)).run())


def new_random(seed: int) -> Random:
    """Return a generator that a seed replays."""
    return Random(seed)


# --- negative controls -------------------------------------------------------------------


FAULTS: dict[str, tuple[SubscriptionType, Any, str, Callable[..., Any]]] = {
    "slots are not drained": (
        SubscriptionType.KEY_SHARED,
        KeyedDelivery,
        "_target",
        lambda self, slot: self.owners.owner(slot),
    ),
    "a leaver takes his entries with him": (
        SubscriptionType.SHARED,
        SharedDelivery,
        "_again",
        lambda *_: None,
    ),
    "the next one does not go back": (
        SubscriptionType.FAILOVER,
        SingleDelivery,
        "rewind",
        lambda _: None,
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_checker_sees(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, where, name, broken = FAULTS[fault]
    monkeypatch.setattr(where, name, broken)

    def fails(seed: int) -> bool:
        try:
            asyncio.run(History(kind, new_random(seed)).run())
        except AssertionError:
            return True
        return False

    assert any(fails(seed) for seed in range(200))
