"""Random lives of acknowledgements in transactions, against a plain model of each message.

    model   per message: free, held by a transaction, or acknowledged
    asked   after each step: how many entries are left, how many messages count as unacknowledged
            and, of whoever comes anew, which entries it is sent

Batches are acknowledged whole and message by message. Restarts and crashes are steps like any
other. The rules are those at the head of `held_acks`.
"""

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from magnetar.broker.entry import EntryFlags, EntryId, TransactionId
from magnetar.broker.port import Acknowledged, SubscriptionType, TransactionConflictError
from magnetar.broker.run import FLAGS, MESSAGES, Run
from magnetar.broker.topics.cursors.held_acks import HeldAcknowledgements
from magnetar.broker.topics.subscriptions.subscription import Subscription
from magnetar.names import TopicName
from tests.topics.whole_core import Listener, run_of
from tests.transactions.bank import Bank

TOPIC = TopicName.parse("t")
SIZES = (1, 4, 1, 3, 1, 2, 1, 1)
"""Messages of each entry."""
SLOTS = 3
"""Transactions that a life has at a time."""
SHARED, KEYED = SubscriptionType.SHARED, SubscriptionType.KEY_SHARED
PATIENCE = 400
FREE, DONE = "free", "done"

ENTRY = st.integers(0, len(SIZES) - 1)
SLOT = st.integers(0, SLOTS - 1)
SOME = st.sets(st.integers(0, 3), min_size=1, max_size=3)
STEP = st.one_of(
    st.tuples(st.just("ack"), st.none(), ENTRY, st.none() | SOME),
    st.tuples(st.just("ack"), SLOT, ENTRY, st.none() | SOME),
    st.tuples(st.just("ack"), SLOT, ENTRY, st.none() | SOME),
    st.tuples(st.just("commit"), SLOT, st.none(), st.none()),
    st.tuples(st.just("abort"), SLOT, st.none(), st.none()),
    st.tuples(st.just("nack"), st.none(), ENTRY, st.none()),
    st.tuples(st.sampled_from(["come again", "restart", "crash"]), *[st.none()] * 3),
)


class Life:
    """A broker and its model, step by step."""

    def __init__(self, folder: Path, kind: SubscriptionType) -> None:
        self._folder = folder
        self._kind = kind
        self._crashes = 0
        self._messages: list[list[str]] = [[FREE] * size for size in SIZES]
        self._whole: dict[int, TransactionId] = {}
        """Entries that a transaction holds as such, not message by message."""

    async def begin(self) -> None:
        self.bank = await Bank.on(self._folder / "0")
        sender = await self.bank.producer()
        self._places: list[EntryId] = []
        for size in SIZES:
            run = run_of(["x"])
            run.u32(MESSAGES)[0] = size
            run.u32(FLAGS)[0] = EntryFlags.BATCH if size > 1 else 0
            [(_, place)] = await sender.client.post(Run(run.rows, run.buffer))
            assert isinstance(place, EntryId)
            self._places.append(place)
        self._slots = [await self.bank.begin() for _ in range(SLOTS)]
        self._listener: Listener | None = None
        await self._come()

    async def _come(self) -> None:
        """A consumer comes, and is sent what is free."""
        if self._listener is not None:
            await self._listener.consumer.close()
        self._listener = await self.bank.consumer(type=self._kind)
        wanted = {place for place, each in zip(self._places, self._messages, strict=True)
                  if FREE in each}  # fmt: skip
        await self._listener.bodies(len(wanted))
        assert {place for place, _ in self._listener.door.received} == wanted

    async def step(self, kind: str, slot: int | None, entry: int | None, some: Any) -> None:
        listener = self._listener
        assert listener is not None
        match kind:
            case "ack":
                assert entry is not None
                await self._acknowledge(listener, slot, entry, some)
            case "commit" | "abort":
                assert slot is not None
                await self._end(slot, kind)
            case "nack":
                assert entry is not None
                listener.consumer.redeliver([self._places[entry]], None)
            case "come again":
                await self._come()
            case "restart":
                self.bank, self._listener = await self.bank.restarted(), None
                await self._come()
            case _:
                self._crashes += 1
                await self._settled()
                before = self.bank
                self.bank = await before.crashed(self._folder / str(self._crashes))
                self._listener = None
                await before.stop()
                await self._come()
        await self._check()

    async def _settled(self) -> None:
        """What was acknowledged is on the disk, so that a crash does not bring it back."""
        await self.bank.core.catalog.checkpoints.save_cursors()

    async def _acknowledge(
        self, listener: Listener, slot: int | None, entry: int, some: set[int] | None
    ) -> None:
        size = SIZES[entry]
        wanted = set(range(size)) if some is None else {each % size for each in some}
        whole = some is None or size == 1
        words = () if whole else ((1 << size) - 1 & ~sum(1 << each for each in wanted),)
        if not whole and not any(words):
            words, whole = (), True
        wish = Acknowledged(*self._places[entry], words)
        transaction = None if slot is None else self._slots[slot]
        holder = self._whole.get(entry)
        if holder is not None:  # what is held whole is nobody else's, not even what was done before
            conflict = holder != transaction
        else:
            conflict = self._conflicts(self._messages[entry], wanted, transaction, whole=whole)
        try:
            if transaction is None:
                listener.consumer.acknowledge([wish], cumulative=False)
            else:
                await listener.consumer.acknowledge_in(transaction, [wish], cumulative=False)
        except TransactionConflictError:
            assert conflict
            return
        assert not conflict
        if whole and transaction is not None:
            self._whole[entry] = transaction
        for message in wanted:
            if self._messages[entry][message] == FREE:
                self._messages[entry][message] = DONE if transaction is None else str(transaction)

    @staticmethod
    def _conflicts(
        messages: list[str], wanted: set[int], transaction: TransactionId | None, *, whole: bool
    ) -> bool:
        mine = {FREE, DONE, str(transaction)}
        states = {messages[each] for each in wanted}
        if transaction is None:
            return bool(states - mine)
        if whole:
            return set(messages) == {DONE} or bool(set(messages) - mine)
        return bool(states - {FREE, str(transaction)})

    async def _end(self, slot: int, kind: str) -> None:
        old, self._slots[slot] = self._slots[slot], await self.bank.begin()
        await (self.bank.commit if kind == "commit" else self.bank.abort)(old)
        self._whole = {entry: each for entry, each in self._whole.items() if each != old}
        after = DONE if kind == "commit" else FREE
        for messages in self._messages:
            for number, state in enumerate(messages):
                if state == str(old):
                    messages[number] = after

    async def _check(self) -> None:
        [subscription] = self.bank.core.catalog._topics[TOPIC].readers
        assert isinstance(subscription, Subscription)
        assert subscription.delivery is not None
        left = sum(set(each) != {DONE} for each in self._messages)
        assert subscription.backlog_entries == left
        free = sum(each.count(FREE) for each in self._messages)
        for _ in range(PATIENCE):
            if subscription.delivery.unacked_messages == free:
                break
            await asyncio.sleep(0.005)  # something is being sent again
        assert subscription.delivery.unacked_messages == free
        [consumer] = subscription.consumers.values()
        assert consumer.unacked_messages == free


async def live(kind: SubscriptionType, steps: list[tuple[str, Any, Any, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        life = Life(Path(folder), kind)
        await life.begin()
        try:
            for step in steps:
                await life.step(*step)
        finally:
            await life.bank.stop()


@settings(max_examples=60, deadline=None)
@example(SHARED, [("ack", 0, 1, {0}), ("restart", None, None, None), ("commit", 0, None, None)])
@given(
    st.sampled_from([SHARED, KEYED]),
    st.lists(STEP, max_size=25),
)
def test_what_is_held_is_what_a_plain_model_says(
    kind: SubscriptionType, steps: list[tuple[str, Any, Any, Any]]
) -> None:
    asyncio.run(live(kind, steps))


def test_the_model_would_notice_a_conflict_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HeldAcknowledgements, "_demand_free", lambda *_: None)
    with pytest.raises(AssertionError):
        asyncio.run(live(SHARED, [("ack", None, 0, None), ("ack", 0, 0, None)]))
