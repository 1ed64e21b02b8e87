"""Commits come back in order, grouped by what the disk takes, and failures take all behind them."""

import asyncio
import errno
import threading
from collections.abc import Sequence

from magnetar.broker.clock import SystemClock
from magnetar.broker.storage.cache import CachedRecord, Generation
from magnetar.broker.storage.commit import Committer
from magnetar.broker.storage.journal import JournalError
from tests.storage.test_journal import note


class SlowJournal:
    """A journal whose writes wait until they are let go."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.let_go = threading.Semaphore(0)
        self.written: list[int] = []
        self.fail_next = False
        self.marks = 0
        self.closed = False

    def write(self, records: Sequence[CachedRecord], first: int = 0) -> int:
        self.begun.release()
        assert self.let_go.acquire(timeout=30)
        if self.fail_next:
            self.fail_next = False
            raise JournalError(OSError(errno.EIO, "broken"), written=True)
        self.written.append(len(records) - first)
        return len(records)

    def mark(self) -> None:
        self.marks += 1

    def close(self) -> None:
        self.closed = True


class Listener:
    """Hears of commits."""

    def __init__(self) -> None:
        self.done: list[CachedRecord] = []
        self.failed: list[CachedRecord] = []
        self.committer: Committer | None = None
        self.news = asyncio.Event()

    def __call__(
        self, records: Sequence[CachedRecord], error: JournalError | None, seconds: float
    ) -> None:
        assert seconds >= 0
        if error is None:
            self.done += records
        else:
            assert self.committer is not None
            self.failed += [*records, *self.committer.take_back()]
        self.news.set()

    async def wait_for(self, count: int) -> None:
        while len(self.done) + len(self.failed) < count:
            self.news.clear()
            await asyncio.wait_for(self.news.wait(), 30)


def committer_on(journal: SlowJournal, listener: Listener) -> Committer:
    loop = asyncio.get_running_loop()
    made = Committer(journal, loop, SystemClock(), listener)  # type: ignore[arg-type]
    listener.committer = made
    return made


async def test_what_comes_during_a_sync_is_in_the_next_one() -> None:
    journal, listener = SlowJournal(), Listener()
    committer = committer_on(journal, listener)
    generation = Generation()
    records = [note(generation, b"%d" % n) for n in range(10)]
    committer.submit(records[0])
    assert journal.begun.acquire(timeout=30)
    for record in records[1:]:
        committer.submit(record)
    journal.let_go.release()
    journal.let_go.release()
    await listener.wait_for(10)
    assert journal.written == [1, 9]
    assert listener.done == records
    committer.stop()
    assert journal.closed


async def test_a_failure_takes_along_what_waits_behind_it() -> None:
    journal, listener = SlowJournal(), Listener()
    committer = committer_on(journal, listener)
    generation = Generation()
    records = [note(generation, b"%d" % n) for n in range(4)]
    journal.fail_next = True
    committer.submit(records[0])
    assert journal.begun.acquire(timeout=30)
    committer.submit(records[1])
    committer.submit(records[2])
    journal.let_go.release()
    await listener.wait_for(3)
    assert listener.failed == records[:3]
    assert listener.done == []
    committer.submit(records[3])
    journal.let_go.release()
    await listener.wait_for(4)
    assert listener.done == [records[3]]
    committer.stop()


async def test_a_pause_is_marked_once() -> None:
    journal, listener = SlowJournal(), Listener()
    committer = committer_on(journal, listener)
    journal.let_go.release()
    committer.submit(note(Generation(), b"x"))
    await listener.wait_for(1)
    for _ in range(200):
        await asyncio.sleep(0.01)
        if journal.marks:
            break
    assert journal.marks == 1
    committer.stop()
