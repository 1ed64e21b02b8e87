"""While nothing can be stored, no producer is let in; when it is over, that is found out."""

import asyncio
import errno
import logging
from collections.abc import Sequence
from pathlib import Path

import pytest

from magnetar.broker.clock import ManualClock
from magnetar.broker.metadata.memory import MemoryStore
from magnetar.broker.metadata.store import Change, StoreUnavailableError
from magnetar.broker.port import PersistenceError, PortError
from magnetar.broker.topics.trouble import TELL_INTERVAL_S, Trouble
from tests.storage.disk import SimulatedDisk
from tests.topics.whole_core import Core


class Book:
    """A journal that fails when it is told to."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.trials = 0
        self.asked = asyncio.Event()

    def note(self, key: int, payload: bytes, token: object | None = None) -> None:
        self.trials += 1
        self.asked.set()
        assert callable(token)
        asyncio.get_running_loop().call_soon(token, self.error)


class Facts(MemoryStore):
    """A store that fails when it is told to."""

    full = False

    async def commit(self, changes: Sequence[Change]) -> list[int | None]:
        if self.full:
            raise StoreUnavailableError("the metadata cannot grow")
        return await super().commit(changes)


class Bench:
    """One process's trouble."""

    def __init__(self) -> None:
        self.book, self.facts, self.clock = Book(), Facts(), ManualClock()
        self.trouble = Trouble(self.book, self.facts, self.clock, asyncio.get_running_loop())


@pytest.fixture
async def bench() -> Bench:
    return Bench()


async def test_without_trouble_nothing_is_tried(bench: Bench) -> None:
    await bench.trouble.demand_none()
    assert bench.book.trials == 0


async def test_a_failure_that_is_over_is_forgotten_by_the_first_who_asks(bench: Bench) -> None:
    bench.trouble.found("a sync failed")
    assert bench.trouble.reason == "a sync failed"
    await bench.trouble.demand_none()
    assert bench.trouble.reason == ""


async def test_while_the_journal_fails_everybody_is_refused_with_its_reason(bench: Bench) -> None:
    bench.trouble.found("first")
    bench.book.error = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(PersistenceError, match="No space left"):
        await bench.trouble.demand_none()
    assert "No space left" in bench.trouble.reason


async def test_while_the_metadata_fails_everybody_is_refused_with_its_reason(bench: Bench) -> None:
    bench.trouble.found("no ledger could be opened")
    bench.facts.full = True
    with pytest.raises(PersistenceError, match="the metadata cannot grow"):
        await bench.trouble.demand_none()
    bench.facts.full = False
    await bench.trouble.demand_none()


async def test_many_who_ask_at_once_make_one_trial(bench: Bench) -> None:
    bench.trouble.found("first")
    bench.book.error = OSError(errno.EIO, "Input/output error")
    asked = [bench.trouble.demand_none() for _ in range(1000)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(each, PersistenceError) for each in answers)
    assert bench.book.trials == 1


async def test_a_limit_is_not_tried_it_is_looked_at(bench: Bench) -> None:
    bench.trouble.limit = "the disk is 96% full"
    with pytest.raises(PersistenceError, match="96% full"):
        await bench.trouble.demand_none()
    assert bench.book.trials == 0


async def test_what_fails_during_a_trial_is_not_forgotten_with_it(bench: Bench) -> None:
    bench.trouble.found("first")
    trial = asyncio.ensure_future(bench.trouble.try_again())
    await bench.book.asked.wait()
    bench.trouble.found("first")
    await trial
    assert bench.trouble.reason == "first"


async def test_the_log_says_when_it_begins_once_a_minute_and_when_it_ends(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    bench.trouble.tell(0)
    bench.trouble.limit = "the disk is 96.0% full"
    for second in range(150):
        bench.trouble.limit = f"the disk is {96 + second / 100:.1f}% full"
        bench.trouble.tell(refused=second)
        bench.clock.advance(1)
    bench.trouble.limit = ""
    bench.trouble.tell(150)
    bench.trouble.tell(150)
    assert caplog.messages == [
        "the disk is 96.0% full: nothing more is stored",
        "the disk is 96.6% full: nothing is stored for 60 s, 60 entries refused",
        "the disk is 97.2% full: nothing is stored for 120 s, 120 entries refused",
        "publishing goes on after 150 s",
    ]
    assert TELL_INTERVAL_S == 60


# --- on a disk


async def test_on_a_disk_that_became_read_only_no_producer_is_let_in_until_it_can_be_written() -> (
    None
):
    disk = SimulatedDisk()
    core = await Core(Path("/data"), ManualClock(), disk).start()
    client = await core.producer("t", "p")
    await client.send("kept")
    disk.fail = lambda step, what, path: errno.EROFS
    with pytest.raises(PersistenceError):
        await client.send("refused", first_sequence_id=1)
    with pytest.raises(PersistenceError, match="Read-only file system"):
        await core.producer("t", "p", epoch=1)
    listener = await core.consumer("t", from_earliest=True)
    assert await listener.bodies(1) == ["kept"]
    disk.fail = lambda step, what, path: None
    client = await core.producer("t", "p", epoch=2)
    await client.send("after", first_sequence_id=2)
    assert await listener.bodies(2) == ["kept", "after"]
    await core.stop()


async def test_on_a_full_disk_a_producer_that_comes_back_is_kept_out_until_there_is_room() -> None:
    disk = SimulatedDisk()
    core = await Core(Path("/data"), ManualClock(), disk, ledger_entries_max=7).start()
    client = await core.producer("t", "p")
    await client.send("kept")
    disk.capacity = disk.used
    for number in range(1, 400):
        try:
            await client.send("x" * 10_000, first_sequence_id=number)
        except PortError:
            break
    for epoch in range(1, 5):
        with pytest.raises(PersistenceError, match="stores nothing at the moment"):
            await core.producer("t", "p", epoch=epoch)
    with pytest.raises(PersistenceError):
        await core.producer("a-new-topic")
    assert core.catalog.trouble.reason
    disk.capacity = None
    await core.catalog._duties.look_at_disk()
    assert not core.catalog.trouble.reason, "found out although nobody publishes"
    client = await core.producer("t", "p", epoch=9)
    await client.send("after", first_sequence_id=1000)
    await core.stop()
