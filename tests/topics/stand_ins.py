"""Stand-ins for the ledgers and doors around publishing, which do what a test tells them."""

import asyncio
from collections.abc import Callable, Sequence

from magnetar.broker.port import Group, PortError
from magnetar.broker.run import ROW, Run
from magnetar.broker.storage.record import Part


def make_run(
    rows: Sequence[tuple[int, int]], *, messages: int = 1, flags: int = 0, publish_ms: int = 5
) -> Run:
    """A run as a walker makes it: (slot, sequence id) per row, bodies that name both."""
    packed, buffer = bytearray(), bytearray(b"head of the read buffer")
    for slot, sequence_id in rows:
        body = f"{slot}/{sequence_id}".encode()
        packed += ROW.pack(
            1000 + len(buffer),
            len(body),
            7,
            messages,
            0,
            flags,
            slot,
            0,
            sequence_id,
            sequence_id,
            publish_ms,
            0,
            0,
            0,
        )
        buffer += b"?" + body
        packed[-80:-76] = (1000 + len(buffer) - len(body)).to_bytes(4, "little")
    return Run(packed, buffer, 1000)


class Record:
    """One append, as a journal would keep it: it copies what it needs at once."""

    def __init__(self, run: Run, parts: Sequence[Part], token: object) -> None:
        self.token = token
        self.parts = list(parts)
        self.bodies = {
            (part.ledger, part.first_entry + i): bytes(run.body(part.first_row + i))
            for part in parts
            for i in range(part.count)
        }
        self.indexes = {
            (part.ledger, part.first_entry + i): run.envelope(part.first_row + i).first_index
            for part in parts
            for i in range(part.count)
        }


class ScriptedLedgers:
    """Takes runs and makes them durable when told."""

    def __init__(self) -> None:
        self.congested = False
        self.pending: list[Record] = []
        self.durable: list[Record] = []
        self.on_commit: Callable[[Sequence[object], Exception | None], None] = lambda *_: None
        self.waiting: list[Callable[[], None]] = []

    def append(self, run: Run, parts: Sequence[Part], token: object) -> None:
        assert parts
        self.pending.append(Record(run, parts, token))

    def call_when_clear(self, callback: Callable[[], None]) -> None:
        self.waiting.append(callback)

    def commit(self, count: int | None = None) -> None:
        """Make the next `count` appends durable; None: all."""
        done, self.pending = self.pending[:count], self.pending[count:] if count else []
        self.durable += done
        self.on_commit([record.token for record in done], None)

    def fail(self, error: Exception) -> None:
        """Let everything that is on its way fail, as the journal does."""
        done, self.pending = self.pending, []
        self.on_commit([record.token for record in done], error)

    def bodies(self) -> list[str]:
        """All durable bodies, in order of appending."""
        return [body.decode() for record in self.durable for body in record.bodies.values()]


class ScriptedLog:
    """A log whose ledgers hold `entries_max` entries and open when the test lets them."""

    def __init__(self, ledger: int = 100, *, ready: bool = True, entries_max: int = 1000) -> None:
        self.next_index = 0
        self.ready = ready
        self.ledger = ledger
        self.entry = 0
        self.entries_max = entries_max
        self.may_open = asyncio.Event()
        self.may_open.set()
        self.open_error: Exception | None = None
        self.opened = 0
        self.end: tuple[int, int] | None = None
        self.written: list[tuple[int, int, int, int]] = []

    async def open(self) -> None:
        await self.may_open.wait()
        if self.open_error is not None:
            raise self.open_error
        self.opened += 1
        self.ledger, self.entry, self.ready = self.ledger + 1, 0, True

    def reserve(self, entries: int) -> tuple[int, int]:
        assert self.ready
        first = self.entry
        self.entry += entries
        return self.ledger, first

    def wrote(
        self, entries: int, size_bytes: int, publish_first_ms: int, publish_last_ms: int
    ) -> None:
        self.written.append((entries, size_bytes, publish_first_ms, publish_last_ms))
        self.ready = self.entry < self.entries_max

    def take(
        self,
        entries: int,
        messages: int,
        size_bytes: int,
        publish_first_ms: int,
        publish_last_ms: int,
        now_s: float,
    ) -> tuple[int, int, int] | None:
        if not self.ready:
            return None
        place = (*self.reserve(entries), self.next_index)
        self.next_index += messages
        self.wrote(entries, size_bytes, publish_first_ms, publish_last_ms)
        return place

    def committed(self, ledger: int, end_entry: int) -> None:
        self.end = (ledger, end_entry)


class Receipts:
    """What a door was told, as (slot, sequence id, what became of it) in order."""

    def __init__(self) -> None:
        self.calls: list[tuple[Run, list[Group]]] = []
        self.rows: list[tuple[int, int, tuple[int, int] | PortError]] = []

    def __call__(self, run: Run, groups: Sequence[Group]) -> None:
        self.calls.append((run, list(groups)))
        for slot, first_row, count, ledger, first_entry, error in groups:
            for i in range(count):
                envelope = run.envelope(first_row + i)
                assert envelope.producer == slot
                entry = first_entry + i if ledger >= 0 else first_entry
                self.rows.append((slot, envelope.sequence_id, error or (ledger, entry)))


class ProducerDoor:
    """Remembers what it was told about a producer."""

    def __init__(self) -> None:
        self.epochs: list[int] = []
        self.reasons: list[PortError] = []

    def ready(self, topic_epoch: int) -> None:
        self.epochs.append(topic_epoch)

    def closed(self, reason: PortError) -> None:
        self.reasons.append(reason)
