"""The supervisor: starts the broker processes, watches them, and stops them.

    supervisor ──exec──▶ worker 0, worker 1, ...      a channel each: JSON lines over a socket pair

    supervisor                          worker
        │  {"start": config}  ─────────▶  │  replays its journal
        │  ◀─────────────  {"recovered"}  │
        │  {"serve": true}    ─────────▶  │  opens its doors       (once every worker has recovered)
        │  ◀─────────────────  {"ready"}  │
        │  ◀── {"table":..., "version":...} │  who has which topic, as it found or made it
        │  the same           ─────────▶  │  to all others
        │  questions          ◀───────▶   │  see `scaling`
        │  {"stop": true}     ─────────▶  │  drains, flushes, exits 0
        │  ◀──────────  {"failed": text}  │  instead of any of its lines: it cannot go on

Two phases, because the number of workers may differ from last time: a topic may only be
opened once the journal that holds its tail has been replayed, whoever wrote it. A worker
that dies later is reaped first and then replaced; its siblings go on serving. A worker
whose channel ends has lost its supervisor, and drains by itself.

As in uvicorn's and NSQ's process handling, the decisions (how long to wait before the next
start, when to give up) are small pure functions; this module acts on them.
"""

import asyncio
import logging
import os
import socket
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import msgspec

from magnetar.broker.assignment import Assignment
from magnetar.broker.channel import Address, Channel, Conversation, RefusedError
from magnetar.broker.clock import Clock
from magnetar.broker.ownership import Table

logger = logging.getLogger(__name__)

RECOVER_TIMEOUT_S = 600.0
"""How long a worker may replay its journal. The write cache bounds the journal; this is a limit
for broken disks, far above the seconds that a replay takes."""

DRAIN_TIMEOUT_S = 30.0
"""How long a worker may take to flush and leave before it is killed."""

ALLOCATOR = {
    "MALLOC_TRIM_THRESHOLD_": str(32 << 20),
    "MALLOC_MMAP_THRESHOLD_": str(1 << 20),
}
"""For the C library of GNU systems: memory up to these sizes is used again, not given back to the
system and fetched anew for every delivery. That took a third of the CPU of a consumer that catches
up; see mallopt(3). What the environment says already goes before it."""

RESTART_DELAY_FIRST_S = 0.1
"""Before the second start within a minute. The first one is at once."""
RESTART_DELAY_MAX_S = 5.0
RESTARTS_PER_MINUTE_MAX = 10
"""More deaths than this within a minute mean that starting again does not help."""


class StartError(Exception):
    """A worker cannot start, and says why. Starting it again would not help."""


@dataclass(frozen=True, slots=True)
class WorkerStart:
    """What a worker is told before it does anything. Everything in it can be written as JSON."""

    config: Mapping[str, Any]
    """The fields of `BrokerConfig`."""
    addresses: Sequence[Address]
    """Per worker, as clients reach it."""
    shared_address: Address
    """The same for the broker as a whole: the ports that all workers share."""
    siblings: Sequence[str]
    """Per worker: the Unix socket at which the others reach it; empty if it is the only one."""
    listeners: Mapping[str, Sequence[Address]]
    pulsar_fds: Sequence[int]
    """Bound sockets, inherited, on which this worker accepts Pulsar clients."""
    admin_sockets: Sequence[str]
    """Per worker: the path of the Unix socket that answers admin REST."""
    http_hosts: Sequence[str]
    """Names under which the HTTP port may be called (the Host header)."""
    lock_fd: int
    """The folder's lock, kept open so that it is held while any process writes."""
    divided: Sequence[str] = ()
    """The settings in `config` of which it has a part that depends on how many there are."""
    alone: bool = True
    """No process serves: what earlier ones have left falls to the first."""
    passing_fd: int = -1
    """On this socket further ones may come while it serves."""
    inherit_fds: Sequence[int] = ()
    pulsar_tls_fds: Sequence[int] = ()
    """The same for clients that speak TLS."""
    sibling_fds: Sequence[int] = ()
    """The same for siblings."""
    tls: Sequence[str] = ()
    """The files of `certificates.TlsFiles`; the last may be empty. Empty: no TLS."""
    proxy_protocol: bool = False
    """Clients come through proxies, which say who they are."""
    insecure: bool = False
    """Other machines are let in unsafely; said in the metrics."""


def restart_delay_s(recent_deaths: int) -> float | None:
    """Return how long to wait before starting a worker again; None: give up.

    `recent_deaths` counts its deaths within the last minute, this one included.
    """
    if recent_deaths > RESTARTS_PER_MINUTE_MAX:
        return None
    if recent_deaths == 1:
        return 0.0  # its topics wait for it
    delay: float = RESTART_DELAY_FIRST_S * 2.0 ** (recent_deaths - 2)
    return min(delay, RESTART_DELAY_MAX_S)


@dataclass(slots=True)
class _Worker:
    """One worker as the supervisor sees it."""

    number: int
    start: WorkerStart
    process: asyncio.subprocess.Process | None = None
    channel: Channel | None = None
    conversation: Conversation | None = None
    listening: asyncio.Task[None] | None = None
    watching: asyncio.Task[None] | None = None
    passing: socket.socket | None = None
    """Where sockets are passed to it."""
    given: set[int] = field(default_factory=set[int])
    """The descriptors, of ours, of the sockets that it has."""
    serving: bool = False
    deaths: deque[float] = field(default_factory=deque[float])


class Supervisor:
    """Keeps one process per worker running until it is told to stop."""

    def __init__(self, starts: Sequence[WorkerStart], clock: Clock) -> None:
        self._workers = [_Worker(number, start) for number, start in enumerate(starts)]
        self._clock = clock
        self.table = Table(Assignment.fresh(max(len(starts), 1)))
        """Who has which topic."""
        self.answer: Callable[[int, Mapping[str, Any]], Awaitable[Mapping[str, Any]]] = _no_answer
        """Answers the questions of workers; the first argument is whose."""
        self._changed = asyncio.Event()
        """Set whenever a worker begins or ends to serve."""
        self.unfinished: list[str] = []
        """What became of workers that did not end well when they were told to."""
        self.kernels = ""
        """What of the workers' code is compiled, in words."""
        self.failed: asyncio.Future[StartError] = asyncio.get_running_loop().create_future()
        """Gets the reason when a worker is beyond help."""

    @property
    def serving(self) -> list[bool]:
        """Which workers have their doors open."""
        return [worker.serving for worker in self._workers]

    async def launch(self) -> None:
        """Start every worker's process. What they do until `start` is done beside us."""
        await asyncio.gather(*(self._launch(worker) for worker in self._workers))

    async def start(self) -> None:
        """Return when all workers serve.

        Raises:
            StartError: one of them cannot. The others have been stopped.
        """
        try:
            await asyncio.gather(*(self._await(worker, "recovered") for worker in self._workers))
            await asyncio.gather(*(self._serve(worker) for worker in self._workers))
        except StartError:
            await self.stop()
            raise
        for worker in self._workers:
            worker.watching = asyncio.create_task(self._watch(worker))

    async def stop(self) -> None:
        """Let every worker drain; kill what does not leave in time."""
        # Watchers first: one in the middle of a restart must not start a process that nobody
        # stops. A process whose start was cut short finds its channel closed and leaves.
        watchers = [worker.watching for worker in self._workers if worker.watching is not None]
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)
        await asyncio.gather(*(self._stop(worker) for worker in self._workers))

    async def _launch(self, worker: _Worker) -> None:
        """Start the process and hand it its config. Must not overlap with an older one of it."""
        ours, theirs = socket.socketpair()
        if worker.passing is not None:
            worker.passing.close()
        worker.passing, passing = socket.socketpair()
        with theirs, passing:
            worker.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "magnetar.broker.node",
                str(theirs.fileno()),
                pass_fds=(theirs.fileno(), passing.fileno(), *worker.start.inherit_fds),
                stdin=asyncio.subprocess.DEVNULL,
                env=ALLOCATOR | os.environ,
            )
            start = replace(worker.start, passing_fd=passing.fileno())
            worker.given = set(worker.start.inherit_fds)
        worker.channel = await Channel.over(ours)
        worker.channel.send({"start": _as_json(start)})
        # Whoever comes later finds others that serve, and what was left has been taken care of.
        worker.start = replace(worker.start, alone=False)

    async def _serve(self, worker: _Worker) -> None:
        assert worker.channel
        worker.channel.send({"serve": True})
        ready = await self._await(worker, "ready")
        self.kernels = str(ready.get("kernels", ""))
        if "table" in ready:
            self._heard(worker, ready)
        worker.conversation = Conversation(
            worker.channel,
            partial(self._answer, worker),
            partial(self._heard, worker),
        )
        worker.listening = asyncio.create_task(worker.conversation.listen())
        self._note(worker, serving=True)

    def _note(self, worker: _Worker, *, serving: bool) -> None:
        worker.serving = serving
        self._changed.set()
        self._changed = asyncio.Event()

    # --- while they serve

    def _heard(self, worker: _Worker, news: Mapping[str, Any]) -> None:
        """Take what a worker tells of the table, and tell the others."""
        table = msgspec.convert(news["table"], Assignment)
        if self.table.learn(table, news["version"]):
            for other in self._workers:
                if other is not worker and other.conversation is not None:
                    other.conversation.tell({"table": news["table"], "version": news["version"]})

    async def _answer(self, worker: _Worker, question: Mapping[str, Any]) -> Mapping[str, Any]:
        return await self.answer(worker.number, question)

    @property
    def count(self) -> int:
        """How many workers there are to be."""
        return len(self._workers)

    @property
    def pids(self) -> list[int]:
        """The process of each worker; 0 while it is being replaced."""
        return [
            each.process.pid if each.process and each.process.returncode is None else 0
            for each in self._workers
        ]

    @property
    def addresses(self) -> list[Address]:
        """Where clients reach each worker."""
        return [each.start.addresses[each.number] for each in self._workers]

    async def all_serve(self, timeout_s: float) -> None:
        """Return when every worker serves.

        Raises:
            RefusedError: one of them does not in time.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while not all(self.serving):
                    await self._changed.wait()
        except TimeoutError:
            late = [worker.number for worker in self._workers if not worker.serving]
            raise RefusedError(f"process {late[0]} does not serve; its log says why") from None

    async def ask(
        self,
        number: int,
        question: Mapping[str, Any],
        timeout_s: float,
        sockets: Sequence[int] = (),
    ) -> Mapping[str, Any]:
        """Ask a worker, passing it descriptors if there are any; return its answer.

        Raises:
            RefusedError: it refuses, or has gone.
        """
        worker = self._workers[number]
        if not worker.serving or worker.conversation is None or worker.passing is None:
            raise RefusedError(f"process {number} is being replaced")
        if sockets:
            socket.send_fds(worker.passing, [b"."], list(sockets))
        answer = await worker.conversation.ask(question, timeout_s)
        worker.given |= set(sockets)
        return answer

    def prepare(self, starts: Sequence[WorkerStart]) -> list[list[int]]:
        """Let the workers there are begin like this when they are replaced.

        Returns which sockets each of them does not have yet.
        """
        fresh: list[list[int]] = []
        for worker, start in zip(self._workers, starts, strict=False):
            fresh.append([each for each in start.inherit_fds if each not in worker.given])
            worker.start = replace(start, alone=False)
        return fresh

    async def add(self, starts: Sequence[WorkerStart]) -> None:
        """Start further workers; return when they serve.

        Raises:
            StartError: one of them cannot. None of them is there then.
        """
        first = len(self._workers)
        added = [
            _Worker(number, replace(start, alone=False))
            for number, start in enumerate(starts, first)
        ]
        self._workers += added
        try:
            await asyncio.gather(*(self._launch(worker) for worker in added))
            await asyncio.gather(*(self._await(worker, "recovered") for worker in added))
            await asyncio.gather(*(self._serve(worker) for worker in added))
        except BaseException:
            await asyncio.gather(*(self._stop(worker) for worker in added))
            del self._workers[first:]
            raise
        for worker in added:
            worker.watching = asyncio.create_task(self._watch(worker))

    async def dismiss(self, count: int) -> None:
        """Let all workers but the first `count` drain and leave. They must have no topics."""
        leaving = self._workers[count:]
        del self._workers[count:]
        for worker in leaving:
            if worker.watching is not None:
                worker.watching.cancel()
        await asyncio.gather(
            *(worker.watching for worker in leaving if worker.watching), return_exceptions=True
        )
        await asyncio.gather(*(self._stop(worker) for worker in leaving))

    # --- one worker

    async def _await(self, worker: _Worker, word: str) -> Mapping[str, Any]:
        """Wait until the worker says `word`; return what it says with it.

        Raises:
            StartError: it says that it failed, dies, or takes longer than a replay can take.
        """
        assert worker.channel
        try:
            message = await asyncio.wait_for(worker.channel.receive(), RECOVER_TIMEOUT_S)
        except TimeoutError:
            raise StartError(
                f"worker {worker.number} did not say {word!r} within {RECOVER_TIMEOUT_S:.0f} s"
            ) from None
        if message is None:
            raise StartError(f"worker {worker.number} died while starting; its log says why")
        if "failed" in message:
            raise StartError(str(message["failed"]))
        if word not in message:
            raise StartError(f"worker {worker.number} said {message}, expected {word!r}")
        return message

    async def _watch(self, worker: _Worker) -> None:
        """Replace the worker each time it dies, until there is no point."""
        while True:
            assert worker.process
            code = await worker.process.wait()  # reaped: from here on nothing of it can write
            self._note(worker, serving=False)
            await self._hang_up(worker)
            now = self._clock.monotonic()
            worker.deaths.append(now)
            while worker.deaths[0] < now - 60:
                worker.deaths.popleft()
            delay_s = restart_delay_s(len(worker.deaths))
            logger.error("worker %d ended with code %s", worker.number, code)
            if delay_s is None:
                reason = f"worker {worker.number} died {len(worker.deaths)} times within a minute"
                self._give_up(StartError(reason))
                return
            await asyncio.sleep(delay_s)
            try:
                await self._launch(worker)
                await self._await(worker, "recovered")
                await self._serve(worker)
            except StartError as error:
                logger.error("worker %d: %s", worker.number, error)  # noqa: TRY400 - the text says it all

    async def _hang_up(self, worker: _Worker) -> None:
        listening, worker.listening, worker.conversation = worker.listening, None, None
        if worker.channel:
            await worker.channel.close()
        if listening is not None:
            # It reads to the end by itself; what was asked of the process is refused then.
            await asyncio.gather(listening, return_exceptions=True)

    def _give_up(self, error: StartError) -> None:
        if not self.failed.done():
            self.failed.set_result(error)

    async def _stop(self, worker: _Worker) -> None:
        if worker.process is None:
            return
        running = worker.process.returncode is None
        if worker.channel:
            worker.channel.send({"stop": True})
        try:
            await asyncio.wait_for(worker.process.wait(), DRAIN_TIMEOUT_S)
        except TimeoutError:
            logger.warning(
                "worker %d did not drain in %.0f s, killing it", worker.number, DRAIN_TIMEOUT_S
            )
            worker.process.kill()
            await worker.process.wait()
        worker.serving = False
        await self._hang_up(worker)
        if worker.passing is not None:
            worker.passing.close()
        if running and worker.process.returncode:
            self.unfinished.append(
                f"worker {worker.number} ended with code {worker.process.returncode}"
            )


def _as_json(start: WorkerStart) -> dict[str, Any]:
    """Return the start message as JSON can carry it: paths as text."""
    return {
        "config": {
            name: os.fspath(value) if isinstance(value, os.PathLike) else value
            for name, value in start.config.items()
        },
        "shared_address": list(start.shared_address),
        "addresses": [list(address) for address in start.addresses],
        "siblings": list(start.siblings),
        "listeners": {
            name: [list(address) for address in addresses]
            for name, addresses in start.listeners.items()
        },
        "pulsar_fds": list(start.pulsar_fds),
        "pulsar_tls_fds": list(start.pulsar_tls_fds),
        "sibling_fds": list(start.sibling_fds),
        "tls": list(start.tls),
        "proxy_protocol": start.proxy_protocol,
        "insecure": start.insecure,
        "admin_sockets": list(start.admin_sockets),
        "http_hosts": list(start.http_hosts),
        "lock_fd": start.lock_fd,
        "alone": start.alone,
        "passing_fd": start.passing_fd,
    }


async def _no_answer(number: int, question: Mapping[str, Any]) -> Mapping[str, Any]:  # noqa: ARG001 - an answer
    raise RefusedError("this supervisor answers no questions")
