"""Random lives of transactions on one topic, against a plain model of what may be seen.

    model   a list of (body, transaction or none); states of transactions; what was acknowledged
    asked   after each step: what does somebody who begins at the start see, and what comes last?

Restarts and crashes are steps like any other.
"""

import asyncio
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from magnetar.broker.entry import EARLIEST, TransactionId
from magnetar.broker.port import NotAllowedError, PortError
from magnetar.names import TopicName
from tests.transactions.bank import Bank

OPEN, COMMITTED, ABORTED = "open", "committed", "aborted"
SLOTS = 4
"""Transactions that a life has at a time."""

STEP = st.one_of(
    st.tuples(st.just("plain"), st.integers(1, 3)),
    st.tuples(st.just("send"), st.integers(0, SLOTS - 1)),
    st.tuples(st.just("mixed"), st.lists(st.integers(-1, SLOTS - 1), min_size=1, max_size=5)),
    st.tuples(st.just("commit"), st.integers(0, SLOTS - 1)),
    st.tuples(st.just("abort"), st.integers(0, SLOTS - 1)),
    st.tuples(st.just("restart"), st.just(0)),
    st.tuples(st.just("crash"), st.just(0)),
    st.tuples(st.just("unload"), st.just(0)),
)


@dataclass
class Model:
    """What there is, without any cleverness."""

    entries: list[tuple[str, TransactionId | None]] = field(default_factory=list)
    states: dict[TransactionId, str] = field(default_factory=dict)

    def visible(self) -> list[str]:
        seen: list[str] = []
        for body, transaction in self.entries:
            state = COMMITTED if transaction is None else self.states[transaction]
            if state == OPEN:
                break
            if state == COMMITTED:
                seen.append(body)
        return seen


class Life:
    """A broker and its model, step by step."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = Model()
        self.slots: list[TransactionId] = []
        self.bodies = 0

    async def begin(self) -> None:
        self.bank = await Bank.on(self.folder / "0", ledger_entries_max=7)
        self.crashes = 0
        self.slots = [await self._open() for _ in range(SLOTS)]
        self.sender = await self.bank.producer()

    async def _open(self) -> TransactionId:
        transaction = await self.bank.begin()
        self.model.states[transaction] = OPEN
        return transaction

    async def step(self, kind: str, what: Any) -> None:
        match kind:
            case "plain":
                await self._send([None] * what)
            case "send":
                await self._send([self.slots[what]])
            case "mixed":
                await self._send([None if each < 0 else self.slots[each] for each in what])
            case "commit" | "abort":
                old, self.slots[what] = self.slots[what], await self._open()
                end = self.bank.commit if kind == "commit" else self.bank.abort
                await end(old)
                self.model.states[old] = COMMITTED if kind == "commit" else ABORTED
                [late] = await self.sender.post("late", within=old)
                assert isinstance(late, NotAllowedError)
            case "restart":
                self.bank = await self.bank.restarted()
                self.sender = await self.bank.producer()
            case "crash":
                self.crashes += 1
                before, self.bank = (
                    self.bank,
                    await self.bank.crashed(self.folder / str(self.crashes)),
                )
                await before.stop()
                self.sender = await self.bank.producer()
            case _:
                await self.bank.core.catalog.unload(TopicName.parse("t"))
                self.sender = await self.bank.producer()

    async def _send(self, within: list[TransactionId | None]) -> None:
        bodies = [str(self.bodies + each) for each in range(len(within))]
        self.bodies += len(within)
        found = await self.sender.post(*bodies, within=within)
        assert not [each for each in found if isinstance(each, PortError)]
        self.model.entries += zip(bodies, within, strict=True)

    async def check(self) -> None:
        wanted = self.model.visible()
        listener = await self.bank.consumer(subscription="check", durable=False)
        if wanted:
            await listener.bodies(len(wanted))
        await asyncio.sleep(0)
        last = (await listener.consumer.last_message()).entry
        assert listener.door.bodies == wanted
        assert last == (listener.door.received[-1][0] if wanted else EARLIEST)
        await listener.consumer.close()


@settings(max_examples=60, deadline=None)
@given(st.lists(STEP, max_size=25))
def test_what_is_seen_is_what_a_plain_model_says(steps: list[tuple[str, Any]]) -> None:
    async def live() -> None:
        with tempfile.TemporaryDirectory() as folder:
            life = Life(Path(folder))
            await life.begin()
            for kind, what in steps:
                await life.step(kind, what)
                await life.check()
            await life.bank.stop()

    _run(live())


def _run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def test_the_model_would_notice_an_aborted_entry_that_is_seen() -> None:
    """The negative control."""
    model = Model([("a", TransactionId(0, 1)), ("b", None)], {TransactionId(0, 1): ABORTED})
    assert model.visible() == ["b"]
    model.states[TransactionId(0, 1)] = OPEN
    assert model.visible() == []
