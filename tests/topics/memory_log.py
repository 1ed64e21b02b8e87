"""A log in memory with the interface of `storage.log.Log`, for tests of the core.

Ledgers roll after a number of entries, old ones can be trimmed, ranges can be damaged, and
entries can be made "cold": then they are only found by `read`, which takes a turn of the loop.
"""

import asyncio
import struct
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from magnetar.broker.clock import ManualClock
from magnetar.broker.entry import EARLIEST, EntryFlags, EntryId
from magnetar.broker.run import MESSAGES, PUBLISH_TIME, ROW, ROW_SIZE, Run
from magnetar.broker.storage.errors import Gap


class MemoryLedger:
    """One ledger: its rows and bodies, and whether it is still written."""

    def __init__(self, ledger: int) -> None:
        self.ledger = ledger
        self.rows: list[bytes] = []
        self.bodies: list[bytes] = []
        self.sealed = False


class MemoryLog:
    """The chain of ledgers of one partition, every entry durable at once."""

    def __init__(
        self, clock: ManualClock, *, ledger_entries_max: int = 1 << 30, first_ledger: int = 1
    ) -> None:
        self.clock = clock
        self.ledger_entries_max = ledger_entries_max
        self.ledgers: list[MemoryLedger] = [MemoryLedger(first_ledger)]
        self.next_index = 0
        self.cold = False
        """Nothing is in the cache."""
        self.gaps: list[Gap] = []
        self.reads = 0
        self.failures: list[Exception] = []
        """Raised by the next reads, one each."""

    # --- writing

    def append(
        self,
        body: bytes = b"x",
        *,
        messages: int = 1,
        key_hash: int = 0,
        flags: int = 0,
        sequence_id: int = 0,
        deliver_at_ms: int = 0,
        publish_time_ms: int | None = None,
    ) -> EntryId:
        """Store one entry."""
        ledger = self.ledgers[-1]
        if len(ledger.rows) >= self.ledger_entries_max:
            ledger = self.roll()
        if messages > 1:
            flags |= EntryFlags.BATCH
        if key_hash:
            flags |= EntryFlags.KEYED
        now = self.clock.wall_ms()
        ledger.rows.append(
            ROW.pack(
                0, len(body), 0, messages, key_hash, flags, 0, 0,
                sequence_id, sequence_id, now if publish_time_ms is None else publish_time_ms,
                deliver_at_ms, self.next_index, now,
            )
        )  # fmt: skip
        ledger.bodies.append(body)
        self.next_index += messages
        return EntryId(ledger.ledger, len(ledger.rows) - 1)

    def roll(self) -> MemoryLedger:
        """Seal the last ledger and open the next one."""
        self.ledgers[-1].sealed = True
        self.ledgers.append(MemoryLedger(self.ledgers[-1].ledger + 2))
        return self.ledgers[-1]

    async def trim(self, before: EntryId) -> list[int]:
        """Drop whole sealed ledgers that end at or before `before`."""
        dropped = [
            each.ledger
            for each in self.ledgers
            if each.sealed and (each.ledger, len(each.rows)) <= before
        ]
        self.ledgers = [each for each in self.ledgers if each.ledger not in dropped]
        return dropped

    def damage(self, first: EntryId, last: EntryId) -> None:
        """Quarantine a range within one ledger."""
        self.gaps.append(Gap(first, last, "checksum does not match"))

    # --- asking

    @property
    def first(self) -> EntryId:
        return self.next_position(EARLIEST)

    @property
    def end(self) -> EntryId:
        last = self.ledgers[-1]
        return EntryId(last.ledger, len(last.rows))

    @property
    def last(self) -> EntryId:
        for each in reversed(self.ledgers):
            if each.rows:
                return EntryId(each.ledger, len(each.rows) - 1)
        return EARLIEST

    @property
    def bytes_total(self) -> int:
        return sum(len(body) for each in self.ledgers for body in each.bodies)

    def next_position(self, position: EntryId) -> EntryId:
        """Return the first entry at or after a position, or the end."""
        for each in self.ledgers:
            entry = position.entry if each.ledger == position.ledger else 0
            if each.ledger >= position.ledger and max(entry, 0) < len(each.rows):
                return EntryId(each.ledger, max(entry, 0))
        return self.end

    def previous_position(self, position: EntryId) -> EntryId:
        """Return the last entry before a position, or EARLIEST."""
        for each in reversed(self.ledgers):
            end = len(each.rows)
            if each.ledger == position.ledger:
                end = min(end, position.entry)
            if each.ledger <= position.ledger and end > 0:
                return EntryId(each.ledger, end - 1)
        return EARLIEST

    def distance(self, first: EntryId, end: EntryId) -> int:
        """Count the entries in [first, end)."""
        return max(self._rank(end) - self._rank(first), 0)

    async def find_time(self, publish_ms: int) -> EntryId:
        """Return the first entry published at or after a time, or the end."""
        for each in self.ledgers:
            for entry, row in enumerate(each.rows):
                if struct.unpack_from("<q", row, PUBLISH_TIME * 8)[0] >= publish_ms:
                    return EntryId(each.ledger, entry)
        return self.end

    # --- reading

    def read_cached(
        self, position: EntryId, entries_max: int, bytes_max: int
    ) -> tuple[EntryId, Run] | None:
        """Return entries from a position on, unless they are cold, damaged or not there."""
        if self.cold:
            return None
        found = self._read(position, entries_max, bytes_max)
        return None if isinstance(found, Gap) or found[1].count == 0 else found

    async def read(
        self, position: EntryId, entries_max: int, bytes_max: int
    ) -> tuple[EntryId, Run] | Gap:
        """Return entries from a position on; takes a turn of the loop."""
        self.reads += 1
        await asyncio.sleep(0)
        if self.failures:
            raise self.failures.pop(0)
        return self._read(position, entries_max, bytes_max)

    def entries(self) -> list[EntryId]:
        """Return the ids of all entries."""
        return [EntryId(each.ledger, i) for each in self.ledgers for i in range(len(each.rows))]

    def messages(self, position: EntryId) -> int:
        """Return how many messages an entry holds."""
        ledger = next(each for each in self.ledgers if each.ledger == position.ledger)
        return int(struct.unpack_from("<I", ledger.rows[position.entry], MESSAGES * 4)[0])

    def _rank(self, position: EntryId) -> int:
        before = sum(len(each.rows) for each in self.ledgers if each.ledger < position.ledger)
        for each in self.ledgers:
            if each.ledger == position.ledger:
                return before + min(max(position.entry, 0), len(each.rows))
        return before

    def _read(
        self, position: EntryId, entries_max: int, bytes_max: int
    ) -> tuple[EntryId, Run] | Gap:
        at = self.next_position(position)
        for gap in self.gaps:
            if gap.first <= at <= gap.last:
                return gap
        ledger = next(each for each in self.ledgers if each.ledger == at.ledger)
        stop = min(len(ledger.rows), at.entry + entries_max)
        for gap in self.gaps:
            if gap.first.ledger == at.ledger and at < gap.first:
                stop = min(stop, gap.first.entry)
        rows, bodies, size = bytearray(), bytearray(), 0
        for entry in range(at.entry, stop):
            body = ledger.bodies[entry]
            size += len(body)
            if size > bytes_max and entry > at.entry:
                break
            rows += ledger.rows[entry]
            struct.pack_into("<I", rows, len(rows) - ROW_SIZE, len(bodies))
            bodies += body
        return at, Run(bytes(rows), bytes(bodies))


class ManualLoop:
    """An event loop whose timers obey a manual clock. Callbacks and tasks run on the real one."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self._timers: list[Timer] = []
        self._running = 0

    def call_soon(self, callback: Callable[[], None]) -> asyncio.Handle:
        """Run at the next turn."""
        self._running += 1

        def run() -> None:
            self._running -= 1
            callback()

        return asyncio.get_running_loop().call_soon(run)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> "Timer":
        """Run once the clock was advanced far enough."""
        timer = Timer(self.clock.monotonic() + delay_s, callback)
        self._timers.append(timer)
        return timer

    def create_task(self, coroutine: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Run a coroutine."""
        self._running += 1
        task = asyncio.get_running_loop().create_task(coroutine)
        task.add_done_callback(self._done)
        return task

    def _done(self, _: object) -> None:
        self._running -= 1

    async def settle(self, turns_max: int = 5_000) -> None:
        """Let everything happen that waits for nothing but a turn."""
        await asyncio.sleep(0)
        for _ in range(turns_max):
            if not self._running:
                return
            await asyncio.sleep(0)
        raise AssertionError(f"something still runs after {turns_max} turns")

    async def advance(self, seconds: float) -> None:
        """Let time pass; timers fire in order, each at its own time."""
        end = self.clock.monotonic() + seconds
        while True:
            due = [timer for timer in self._timers if not timer.cancelled and timer.at <= end]
            if not due:
                break
            timer = min(due, key=lambda each: each.at)
            self._timers.remove(timer)
            self.clock.advance(max(timer.at - self.clock.monotonic(), 0.0))
            timer.callback()
            await self.settle()
        self._timers = [timer for timer in self._timers if not timer.cancelled]
        self.clock.advance(end - self.clock.monotonic())
        await self.settle()


class Timer:
    """A callback that waits for its time."""

    def __init__(self, at: float, callback: Callable[[], None]) -> None:
        self.at = at
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        """Never call."""
        self.cancelled = True


def ids(found: tuple[EntryId, Run], rows: Sequence[int]) -> list[EntryId]:
    """Return the entry ids of some rows of a run."""
    return [EntryId(found[0].ledger, found[0].entry + row) for row in rows]
