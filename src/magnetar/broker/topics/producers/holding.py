"""Rows that wait for a ledger: their topic has none open, or has to join a transaction first.

    rows ──copied──▶ held, in order ──a ledger is open──▶ admitted ──▶ sent off
                       │ what will be refused waits too: it is reported in its turn
                       └─ no ledger could be opened ────▶ refused

How many bytes are held is bounded: beyond that the doors stop reading.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol

from magnetar.broker.entry import TransactionId
from magnetar.broker.port import NotAllowedError, PersistenceError, PortError, PublishDone
from magnetar.broker.topics.producers.pacing import pace
from magnetar.broker.topics.producers.producer import AppendLog, Held, Inlet, OpenProducer, detached
from magnetar.broker.topics.producers.reports import Report
from magnetar.broker.topics.producers.rows import Rows, number_rows, stretches, transactions_of

logger = logging.getLogger(__name__)


class Desk(Protocol):
    """The publisher, as it is seen here."""

    on_failure: Callable[[str], None]

    def refusal_for(self, producer: OpenProducer) -> PortError | None: ...
    def refuse(self, report: Report, rows: Rows, error: PortError) -> None: ...
    def admit(self, report: Report, rows: Rows, log: AppendLog) -> None: ...
    def send_off(self, report: Report) -> None: ...


class Clearable(Protocol):
    """The ledgers of this process, as they are seen here."""

    def call_when_clear(self, callback: Callable[[], None]) -> None: ...


class Holding:
    """What is held for all topics of a process."""

    def __init__(
        self, desk: Desk, ledgers: Clearable, loop: asyncio.AbstractEventLoop, bytes_max: int
    ) -> None:
        self._desk = desk
        self._ledgers = ledgers
        self._loop = loop
        self.bytes_max = bytes_max
        self.bytes = 0
        self.when_clear: list[Callable[[], None]] = []
        """Called once half of what may be held is free."""

    def hold(self, rows: Rows, done: PublishDone) -> None:
        """Keep a copy of rows until the log has a ledger for them."""
        producer, slot, _, run = rows
        inlet = producer.inlet
        copy = detached(run)
        size_bytes = len(copy.rows) + len(copy.buffer)
        if inlet.held is None:
            inlet.held = deque()
        inlet.held.append(Held(copy, producer, slot, done, size_bytes))
        self.bytes += size_bytes
        if inlet.gate is not None and inlet.gate.meters is not None:
            pace(inlet.gate.meters, producer, run.message_count(), run.body_bytes())
        producer.pending += 1
        if inlet.opening is None:
            inlet.opening = self._loop.create_task(self._open(inlet))

    async def _open(self, inlet: Inlet) -> None:
        """Open a ledger for a topic and append what was held for it."""
        reason = "the broker is stopping"
        try:
            # A topic that was closed meanwhile must not open a ledger any more.
            while inlet.held and inlet.log is not None and inlet.refusal is None:
                if not inlet.log.ready:
                    await inlet.log.open()
                before = len(inlet.held)
                if inlet.held[0].run.transactions is not None:
                    await self._join(inlet)
                self._append_held(inlet)
                if inlet.held and len(inlet.held) == before and not inlet.log.ready:
                    reason = "a new ledger was closed before anything could be written"
                    break
        except PortError as error:
            reason = str(error)
        except Exception as error:  # whatever it was: those who wait have to be told
            logger.exception("a ledger could not be opened")
            reason = str(error)
        finally:
            if inlet.held and inlet.refusal is None:
                reason = f"no ledger could be opened: {reason}"
                self._desk.on_failure(reason)
            self._refuse_held(inlet, inlet.refusal or PersistenceError(reason))
            inlet.opening = None
            inlet.held = None
            self._release_held()

    def _append_held(self, inlet: Inlet) -> None:
        held, log = inlet.held, inlet.log
        while held and log is not None and log.ready:
            run, refusal = held[0].run, held[0].error
            if (
                refusal is None
                and run.transactions is not None
                and not number_rows(run, inlet.transactions)
            ):
                return  # it has to join first
            rows, report = self._next_held(held)
            refusal = self._desk.refusal_for(rows.producer) or refusal
            if refusal is not None:
                self._desk.refuse(report, rows, refusal)
            else:
                self._desk.admit(report, rows, log)
            self._desk.send_off(report)

    async def _join(self, inlet: Inlet) -> None:
        """Let a topic take part in the transactions of what is held first.

        Rows of transactions in which it cannot are refused, the others are not.
        """
        held = inlet.held
        assert held
        head = held[0]
        # Those of the others too: they are written down in the same commit.
        wanted = set[TransactionId]().union(*(transactions_of(each.run) for each in held))
        failed: Mapping[TransactionId, PortError]
        if inlet.join is None:
            failed = dict.fromkeys(wanted, NotAllowedError("no transactions on this topic"))
        else:
            failed = await inlet.join(wanted)
        if not failed:
            return
        held.popleft()
        pieces = [
            head._replace(run=piece, size_bytes=0, error=error)
            for piece, error in stretches(head.run, failed)
        ]
        pieces[0] = pieces[0]._replace(size_bytes=head.size_bytes)
        head.producer.pending += len(pieces) - 1
        held.extendleft(reversed(pieces))

    def _refuse_held(self, inlet: Inlet, error: PortError) -> None:
        while inlet.held:
            rows, report = self._next_held(inlet.held)
            self._desk.refuse(report, rows, error)
            self._desk.send_off(report)

    def _next_held(self, held: deque[Held]) -> tuple[Rows, Report]:
        run, producer, slot, done, size_bytes, _ = held.popleft()
        self.bytes -= size_bytes
        producer.pending -= 1  # counted again with the report
        gate = producer.inlet.gate
        if gate is not None and gate.meters is not None:
            gate.meters.take(-run.message_count(), -run.body_bytes())  # measured again, too
        return Rows(producer, slot, 0, run), Report(run, done)

    def _release_held(self) -> None:
        """Let the doors read on once half of what may be held is free."""
        if self.when_clear and self.bytes <= self.bytes_max // 2:
            callbacks, self.when_clear = self.when_clear, []
            for callback in callbacks:
                self._ledgers.call_when_clear(callback)
