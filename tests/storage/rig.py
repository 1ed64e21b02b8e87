"""What the storage tests have in common: entries that can be told apart, ledgers on any disk."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from itertools import count
from pathlib import Path
from typing import Any

from crc32c import crc32c

from magnetar.broker.clock import ManualClock
from magnetar.broker.config import BrokerConfig
from magnetar.broker.files import Files
from magnetar.broker.metrics import Metrics
from magnetar.broker.run import ROW, Run
from magnetar.broker.storage.errors import StorageError
from magnetar.broker.storage.ledgers import Ledgers, Recovered
from magnetar.broker.storage.pools import Pools
from magnetar.broker.storage.record import Part

DATA = Path("/data")
READ_BYTES = 1 << 20


class InlineExecutor(Executor):
    """Runs everything at once, in the caller's thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - whoever waits for the future gets it
            future.set_exception(error)
        return future


def inline_pools() -> Pools:
    """Return pools that have no threads: a test goes on only when all is done."""
    return Pools(asyncio.get_running_loop(), InlineExecutor(), InlineExecutor())


def small_config(data: Path = DATA, **settings: Any) -> BrokerConfig:
    """Return a config with tiny files; `journal_file_bytes` may be below what users may set."""
    file_bytes = settings.pop("journal_file_bytes", 16 * 1024)
    cache_bytes = settings.pop("write_cache_bytes_max", 4 << 20)
    config = BrokerConfig(data=data, **settings)
    object.__setattr__(config, "journal_file_bytes", file_bytes)
    object.__setattr__(config, "write_cache_bytes_max", cache_bytes)
    return config


def body_of(ledger: int, entry: int) -> bytes:
    """Return the body that an entry must have."""
    text = f"<{ledger}:{entry}>".encode()
    return text * (1 + (ledger * 7 + entry * 13) % 23)


def run_of(
    bodies: Sequence[bytes], *, index: int = 0, framed: int = 3, publish_ms: int = 1_000
) -> Run:
    """Return a run with these bodies, with `framed` strange bytes before each."""
    rows, buffer = bytearray(), bytearray()
    for at, body in enumerate(bodies):
        buffer += b"\xff" * framed
        rows += ROW.pack(
            len(buffer) + 100, len(body), crc32c(body), 1, 0, 0, 0, 0,
            index + at, index + at, publish_ms + index + at, 0, index + at, 5,
        )  # fmt: skip
        buffer += body
    return Run(rows, buffer, base=100)


class Rig:
    """Ledgers on a disk, driven step by step, with a plain model of what they must hold."""

    def __init__(self, files: Files, config: BrokerConfig | None = None, **options: Any) -> None:
        self.files = files
        self.config = config or small_config()
        salts = count(0x1234_5678_9ABC)
        options.setdefault("threaded", False)
        if not options["threaded"]:
            options.setdefault("pools", inline_pools())
            options.setdefault("new_salt", lambda: next(salts) * 0x9E3779B1 % (1 << 62) | 1)
        self.clock = ManualClock()
        self.metrics = Metrics()
        self.ledgers = Ledgers(
            self.config,
            files,
            self.clock,
            self.metrics,
            asyncio.get_running_loop(),
            **options,
        )
        self.appended: dict[int, int] = {}
        self.acknowledged: dict[int, int] = {}
        self.errors: list[StorageError] = []
        self.on_acknowledged: Callable[[dict[int, int]], None] = lambda acknowledged: None
        self.ledgers.on_commit = self._on_commit
        self.cuts: list[tuple[int, int, bool]] = []

    def _on_commit(self, tokens: Sequence[Any], error: StorageError | None) -> None:
        if error is not None:
            self.errors.append(error)
            return
        for ends in tokens:
            self.acknowledged.update(ends)
        self.on_acknowledged(dict(self.acknowledged))

    async def recover(self, *workers: int, **options: Any) -> Recovered:
        return await self.ledgers.recover(workers or [self.config.worker], **options)

    def create(self, *ledgers: int) -> None:
        for ledger in ledgers:
            self.ledgers.create(ledger, self._on_cut)
            self.appended[ledger] = 0

    def _on_cut(self, ledger: int, end: int, sealed: bool) -> None:
        self.cuts.append((ledger, end, sealed))
        self.appended[ledger] = end

    def append(self, *counts: tuple[int, int], framed: int = 3) -> None:
        """Append one run: so many entries to each ledger."""
        bodies: list[bytes] = []
        parts: list[Part] = []
        ends: dict[int, int] = {}
        for ledger, entries in counts:
            first = self.appended[ledger]
            parts.append(Part(ledger, first, len(bodies), entries, f"producer-{ledger}"))
            bodies += [body_of(ledger, first + at) for at in range(entries)]
            self.appended[ledger] = ends[ledger] = first + entries
        index = self.appended[counts[0][0]]
        self.ledgers.append(run_of(bodies, index=index, framed=framed), parts, ends)

    async def settle(self) -> None:
        await self.ledgers._settle()

    async def entries(self, ledger: int, first: int = 0, end: int | None = None) -> list[bytes]:
        """Read a ledger from memory and disk, as consumers do; stop at its durable end."""
        end = self.ledgers.durable_end(ledger) if end is None else end
        bodies: list[bytes] = []
        entry = first
        while entry < end:
            run = self.ledgers.read_cached(ledger, entry, end - entry, READ_BYTES)
            if run is None:
                run = await self.ledgers.read(ledger, entry, end - entry, READ_BYTES)
            assert run.count
            bodies += [bytes(run.body(row)) for row in range(run.count)]
            entry += run.count
        return bodies

    async def check(self, ledger: int, end: int | None = None) -> int:
        """Compare every entry of a ledger with what it must be; return how many there are."""
        found = await self.entries(ledger, 0, end)
        for entry, body in enumerate(found):
            assert body == body_of(ledger, entry), f"entry {ledger}:{entry}"
        return len(found)

    def abandon(self) -> None:
        """Let go of it as a killed process would."""
        self.ledgers._restart_flush_timer()
        if self.ledgers._flush_task is not None:
            self.ledgers._flush_task.cancel()
        if self.ledgers._committer is not None and self.ledgers._committer._thread is not None:
            self.ledgers._committer._stopping = True
            self.ledgers._committer._wake.set()
            self.ledgers._committer._thread.join()
