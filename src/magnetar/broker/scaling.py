"""The number of broker processes changes while they serve.

    more   others write down what they hold of processes that were ──▶ all are told the addresses
           ──▶ the new ones start, with nothing ──▶ topics move to them
    fewer  topics move off the last ones ──▶ the others are told ──▶ they drain, and exit 0

    supervisor                                   worker
        │ {"do": "let_go"}          ─────────▶     │ journals of processes that may come back
        │ {"do": "meet", ...}       ─────────▶     │ who there is, where, and further sockets
        │ {"do": "give", "shares": {"7": 2}, ..} ▶ │ see `moving`
        │ ◀── {"do": "scale", "count": 3}          │ an administrator asks, at its door
        │ ◀── {"do": "processes"}                  │

What has to move is worked out anew from the table after each failure, so a process that dies
meanwhile, on whichever side, only delays it: it is replaced, and has what the table says it has.
Numbers are dense: the last ones come and go. One change at a time.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from magnetar.broker.assignment import evened
from magnetar.broker.channel import BUSY, OUT_OF_BOUNDS, RefusedError
from magnetar.broker.supervisor import StartError, Supervisor, WorkerStart

logger = logging.getLogger(__name__)

PROCESSES_MAX = 64
"""More than any machine has use for. Each takes some 50 MB, a port, and a part of the cores."""

SERVE_TIMEOUT_S = 60.0
"""How long a process that died may take to serve again, before a change is given up."""

GIVE_TIMEOUT_S = 120.0
"""For all topics that one process gives away; a part of them takes milliseconds."""

MEET_TIMEOUT_S = 30.0

FAILURES_MAX = 20
"""Times that giving may fail within one change."""

FAILURE_PAUSE_S = 0.2


@dataclass(frozen=True, slots=True)
class Shown:
    """One process, as administrators see it."""

    number: int
    pid: int
    """0: it is being replaced."""
    serving: bool
    serviceUrl: str  # noqa: N815 - as Pulsar's API spells
    serviceUrlTls: str  # noqa: N815
    shares: int
    """How many of the 1,024 parts of all topics it has."""


class Layout(Protocol):
    """What processes are started with, and the sockets they share."""

    def starts(self, workers: int) -> Sequence[WorkerStart]:
        """Return how each of so many starts. What is not bound yet is bound.

        Raises:
            RefusedError: an address is taken.
        """
        ...

    def close(self, workers: int) -> None:
        """Close what only processes from this number on had."""
        ...

    def met(self, starts: Sequence[WorkerStart]) -> None:
        """Take note of which processes there are from now on."""
        ...


class Scaling:
    """Changes the number of processes."""

    def __init__(self, supervisor: Supervisor, layout: Layout) -> None:
        self._supervisor = supervisor
        self._layout = layout
        self._wanted: int | None = None
        self._changing: asyncio.Task[None] | None = None
        supervisor.answer = self.answer

    async def stop(self) -> None:
        """Give up what is under way: all processes stop."""
        if self._changing is not None:
            self._changing.cancel()
            await asyncio.gather(self._changing, return_exceptions=True)

    async def answer(self, worker: int, question: Mapping[str, Any]) -> Mapping[str, Any]:  # noqa: ARG002 - whoever asks
        """Answer a worker.

        Raises:
            RefusedError: what it asks for cannot be.
        """
        if question["do"] == "processes":
            return {"processes": [asdict(each) for each in self.shown()]}
        if question["do"] != "scale":
            raise RefusedError(f"nobody knows how to {question['do']!r}")
        await self.scale(int(question["count"]))
        return {"processes": [asdict(each) for each in self.shown()]}

    def shown(self) -> list[Shown]:
        """Return all processes."""
        supervisor = self._supervisor
        both = zip(supervisor.pids, supervisor.serving, supervisor.addresses, strict=True)
        owned = supervisor.table.now.owned
        return [
            Shown(number, pid, serving, address.url, address.url_tls, owned(number))
            for number, (pid, serving, address) in enumerate(both)
        ]

    async def scale(self, count: int) -> None:
        """Change the number of processes; return when topics have moved and all serve.

        Raises:
            RefusedError: the number makes no sense, another change is under way, or it failed
                halfway: then there are as many as there are, and all of them serve.
        """
        if not 1 <= count <= PROCESSES_MAX:
            text = f"{count} broker processes, allowed: 1 to {PROCESSES_MAX}"
            raise RefusedError(text, OUT_OF_BOUNDS)
        if self._wanted is not None:
            raise RefusedError(
                f"a change to {self._wanted} broker processes is under way; ask again once it is"
                " done",
                BUSY,
            )
        self._wanted = count
        # Not cut short because whoever asked has gone, or the process that asked for him leaves.
        self._changing = asyncio.get_running_loop().create_task(self._change(count))
        await asyncio.shield(self._changing)

    async def _change(self, count: int) -> None:
        try:
            before = self._supervisor.count
            logger.info("from %d broker processes to %d", before, count)
            await self._supervisor.all_serve(SERVE_TIMEOUT_S)
            if count > before:
                await self._grow(count)
            await self._even(count)
            if count < before:
                await self._shrink(count)
            logger.info("there are %d broker processes", count)
        finally:
            self._wanted = None

    async def _grow(self, count: int) -> None:
        supervisor, before = self._supervisor, self._supervisor.count
        for number in range(before):
            await supervisor.ask(number, {"do": "let_go"}, MEET_TIMEOUT_S)
        try:
            starts = self._layout.starts(count)
            await self._meet(starts, before)
            await supervisor.add(starts[before:])
        except (StartError, RefusedError) as error:
            await self._meet(self._layout.starts(before), before)
            self._layout.close(before)
            raise RefusedError(f"there are still {before} processes: {error}") from error

    async def _shrink(self, count: int) -> None:
        starts = self._layout.starts(count)
        await self._meet(starts, count)
        await self._supervisor.dismiss(count)
        self._layout.close(count)

    async def _meet(self, starts: Sequence[WorkerStart], count: int) -> None:
        """Tell the first `count` processes that those of `starts` are all there are."""
        fresh = self._supervisor.prepare(starts)
        self._layout.met(starts)
        for number in range(count):
            await self._retried(number, meeting(starts[number], fresh[number]), fresh[number])

    async def _retried(
        self, number: int, question: Mapping[str, Any], sockets: Sequence[int]
    ) -> None:
        """Ask a process, or whichever takes its place: that one knows already."""
        pid = self._supervisor.pids[number]
        try:
            await self._supervisor.ask(number, question, MEET_TIMEOUT_S, sockets)
        except RefusedError:
            await self._supervisor.all_serve(SERVE_TIMEOUT_S)
            if self._supervisor.pids[number] == pid:
                raise

    async def _even(self, count: int) -> None:
        """Move topics until the first `count` processes have about equally many shares."""
        supervisor = self._supervisor
        failures = 0
        while True:
            table = supervisor.table.now
            change = evened(table, count)
            if not change.shares and not change.pins:
                return
            shares: dict[int, dict[int, int]] = {}
            pins: dict[int, dict[str, int]] = {}
            for share, to in change.shares.items():
                shares.setdefault(table.shares[share], {})[share] = to
            for name, to in change.pins.items():
                pins.setdefault(table.worker_of(name), {})[name] = to
            await supervisor.all_serve(SERVE_TIMEOUT_S)
            asked = [
                supervisor.ask(
                    number,
                    {"do": "give", "shares": shares.get(number, {}), "pins": pins.get(number, {})},
                    GIVE_TIMEOUT_S,
                )
                for number in sorted(shares.keys() | pins.keys())
            ]
            for result in await asyncio.gather(*asked, return_exceptions=True):
                if isinstance(result, RefusedError):
                    failures += 1
                    logger.warning("topics could not be moved: %s", result)
                    if failures > FAILURES_MAX:
                        raise RefusedError(f"not all topics could be moved: {result}") from result
                    await asyncio.sleep(FAILURE_PAUSE_S)
                elif isinstance(result, BaseException):
                    raise result


def meeting(start: WorkerStart, sockets: Sequence[int]) -> Mapping[str, Any]:
    """Return what a process is told of all there are, and of the sockets that come with it."""
    secure = set(start.pulsar_tls_fds)
    return {
        "do": "meet",
        "config": {name: start.config[name] for name in ("workers", *start.divided)},
        "addresses": [list(each) for each in start.addresses],
        "listeners": {
            name: [list(each) for each in addresses] for name, addresses in start.listeners.items()
        },
        "siblings": list(start.siblings),
        "admin_sockets": list(start.admin_sockets),
        "secure": [each in secure for each in sockets],
    }
