"""The store on one machine: a SQLite file, and the one thread per process that touches it.

    event loop   commit  commit  get        commit  commit
                    └───────┴─────┴──▶ queue ──┴───────┘
    thread          [ one transaction, one sync ] [ one transaction, one sync ] ...
    event loop      ◀── one call: all results of a group, then the watchers

Self-clocked like the journal: whatever arrived while the last group was being synced is the
next group. Reads of a group come after its commits, so that who has committed sees it.

Several processes may share the file. Each looks for changes by the others whenever it
writes, when it is nudged, and every `poll_interval_s` while somebody watches.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, Self, TypeVar

from magnetar.broker.files import Files
from magnetar.broker.metadata.database import Database, Group, copy_database, snapshot_path
from magnetar.broker.metadata.store import (
    Change,
    StoreUnavailableError,
    Versioned,
    Watcher,
    check_change,
)
from magnetar.broker.metadata.watchers import Watchers

logger = logging.getLogger(__name__)

T = TypeVar("T")

JOBS_PER_GROUP_MAX = 2_000
"""Commits and reads in one group: bounds how long the first of them waits for the last."""

POLL_INTERVAL_S = 0.2


class _Commit(NamedTuple):
    changes: Sequence[Change]
    future: asyncio.Future[list[int | None]]


class _Read(NamedTuple):
    call: Callable[[Database], Any]
    future: asyncio.Future[Any]


class _Look(NamedTuple):
    """Look for changes by other processes, and nothing else."""


class _Stop(NamedTuple):
    future: asyncio.Future[None]


_Job = _Commit | _Read | _Look | _Stop


class SqliteStore:
    """A `Store` in a SQLite file. Make it with `open`."""

    def __init__(
        self, path: Path, files: Files, database: Database, poll_interval_s: float | None
    ) -> None:
        self._path = path
        self._files = files
        self._database = database
        self._poll_interval_s = poll_interval_s
        self._loop = asyncio.get_running_loop()
        self._watchers = Watchers()
        self._jobs: SimpleQueue[_Job] = SimpleQueue()
        self._closing: asyncio.Future[None] | None = None
        self._thread = threading.Thread(target=self._run, name="metadata", daemon=True)
        self._thread.start()

    @classmethod
    async def open(  # noqa: PLR0913 - what `Database` is told, and who asks
        cls,
        path: Path,
        files: Files,
        *,
        must_exist: bool = False,
        verify: bool = True,
        poll_interval_s: float | None = POLL_INTERVAL_S,
        busy_timeout_s: float = 10.0,
    ) -> Self:
        """Open the store, making the file if there is none.

        `must_exist`: the folder has been served from; without its metadata it is refused.
        `verify`: read through the whole file first; one process of several is enough.
        `poll_interval_s`: how often to look for changes by other processes while somebody
        watches; None: there are none.

        Raises:
            CorruptMetadataError: the file is damaged. The message says how to go back to the
                copy beside it. Nothing was changed.
            NewerFormatError: a newer program wrote it. Nothing was changed.
            StoreUnavailableError: the disk refused.
        """
        database = await asyncio.to_thread(
            Database,
            path,
            files,
            must_exist=must_exist,
            verify=verify,
            busy_timeout_s=busy_timeout_s,
        )
        return cls(path, files, database, poll_interval_s)

    async def get(self, key: str) -> Versioned | None:
        """Return what lies under a key; None: nothing."""
        return await self._read(lambda database: database.get(key))

    async def scan(self, prefix: str) -> list[tuple[str, Versioned]]:
        """Return everything under a prefix, sorted by key."""
        return await self._read(lambda database: database.scan(prefix))

    async def keys(self, prefix: str) -> list[str]:
        """Return the keys under a prefix, sorted."""
        return await self._read(lambda database: database.keys(prefix))

    async def commit(self, changes: Sequence[Change]) -> list[int | None]:
        """Make all changes or none; return once they are durable."""
        self._demand_open()
        for change in changes:
            check_change(change)
        future: asyncio.Future[list[int | None]] = self._loop.create_future()
        self._jobs.put(_Commit(changes, future))
        return await future

    def watch(self, prefix: str, callback: Watcher) -> Callable[[], None]:
        """Call back after each change under a prefix; return how to stop that."""
        stop = self._watchers.add(prefix, callback)
        self.nudge()  # the thread may be waiting without an end
        return stop

    def poll(self, interval_s: float | None) -> None:
        """Look for changes by other processes so often from now on; None: there are none."""
        self._poll_interval_s = interval_s
        self.nudge()

    def nudge(self) -> None:
        """Look now for changes by other processes."""
        self._jobs.put(_Look())

    async def snapshot(self) -> Path:
        """Copy the file as it is now beside itself; return where the copy lies.

        Other work goes on. For a clean start: what is copied was verified.

        Raises:
            StoreError: the copy could not be made; the one before it is still there.
        """
        self._demand_open()
        target = snapshot_path(self._path)
        await asyncio.to_thread(copy_database, self._path, target, self._files)
        return target

    async def close(self) -> None:
        """Finish what was begun, then let go of the file. Calling it twice is harmless."""
        if self._closing is None:
            self._closing = self._loop.create_future()
            self._jobs.put(_Stop(self._closing))
        await asyncio.shield(self._closing)
        self._thread.join()

    async def _read(self, call: Callable[[Database], T]) -> T:
        self._demand_open()
        future: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put(_Read(call, future))
        return await future

    def _demand_open(self) -> None:
        if self._closing is not None:
            raise StoreUnavailableError("the metadata store is closed")

    # --- on the metadata thread

    def _run(self) -> None:
        stopping: _Stop | None = None
        while stopping is None:
            group = self._next_group()
            stopping = next((job for job in group if isinstance(job, _Stop)), None)
            self._work_on(group)
        self._database.close()
        self._loop.call_soon_threadsafe(_settle, stopping.future, None)

    def _next_group(self) -> list[_Job]:
        """Wait for work; return what has come up to now. Empty: it is time to look around."""
        group: list[_Job] = []
        with suppress(Empty):
            group.append(self._jobs.get(timeout=self._poll_interval_s if self._watchers else None))
            while len(group) < JOBS_PER_GROUP_MAX:
                group.append(self._jobs.get_nowait())
        return group

    def _work_on(self, group: Sequence[_Job]) -> None:
        commits = [job for job in group if isinstance(job, _Commit)]
        reads = [job for job in group if isinstance(job, _Read)]
        outcomes, changed = self._write(commits)
        outcomes += [_attempt(job.call, self._database) for job in reads]
        if outcomes or changed:
            futures = [*(job.future for job in commits), *(job.future for job in reads)]
            self._loop.call_soon_threadsafe(self._deliver, futures, outcomes, changed)

    def _write(self, commits: Sequence[_Commit]) -> Group:
        """Write a group, or just look around if it is empty."""
        try:
            if commits:
                return self._database.write([job.changes for job in commits])
            return Group([], self._database.changed_elsewhere() if self._watchers else [])
        except Exception as error:
            # Whatever it was, those who wait must hear of it, and the next group gets its chance.
            if not commits:
                logger.exception("cannot look for changes of %s", self._path)
            return Group([error for _ in commits], [])

    # --- back on the event loop

    def _deliver(
        self,
        futures: Sequence[asyncio.Future[Any]],
        outcomes: Sequence[object],
        changed: Sequence[str],
    ) -> None:
        self._watchers.tell(changed)
        for future, outcome in zip(futures, outcomes, strict=True):
            _settle(future, outcome)


def _attempt(call: Callable[[Database], T], database: Database) -> T | Exception:
    try:
        return call(database)
    except Exception as error:  # noqa: BLE001 - it is raised again where the caller waits
        return error


def _settle(future: asyncio.Future[Any], outcome: object) -> None:
    if future.done():  # the caller was cancelled
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
