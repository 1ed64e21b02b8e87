"""Entries on their way into topics: sent, answered, and sent again when a topic moves.

    put ──▶ waiting ──flush──▶ Port.publish ──▶ stored or a duplicate ──▶ answered(ledger, entry)
               ▲                  │
               │                  ├─ refused for good, or too late ─────▶ answered(error)
               └── reopened ◀─────┴─ the topic moved, or cannot store now

A lane is one topic, or one partition of one. Its entries are answered in any order, and sent
again in theirs. It does what a Pulsar client library does for its user when the broker closes
a producer: it comes back under the same name, with a higher epoch.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from magnetar.broker.doors.websocket.errors import PASSING
from magnetar.broker.doors.websocket.service import Service
from magnetar.broker.port import (
    Group,
    Port,
    PortError,
    Producer,
    ProducerRequest,
    ServiceNotReadyError,
)
from magnetar.broker.run import Run
from magnetar.broker.wire.pulsar.made import Made, run_of

logger = logging.getLogger(__name__)

REOPEN_DELAY_FIRST_S = 0.1
REOPEN_DELAY_MAX_S = 5.0
REOPEN_LIMIT_S = 60.0
"""A topic that cannot be opened again for so long is given up."""

Answered = Callable[[int, int, Exception | None], None]
"""Told once per entry: ledger and entry, -1 and -1 if it is nowhere, or why it was not stored."""


class _Waiting:
    """One entry without an answer."""

    __slots__ = ("answered", "deadline", "made", "sent", "settled")

    def __init__(self, made: Made, answered: Answered, deadline: float) -> None:
        self.made = made
        self.answered = answered
        self.deadline = deadline
        self.sent = False
        self.settled = False


class Lane:
    """One topic that is published to. The port tells it about its producer."""

    def __init__(self, outbox: "Outbox", slot: int, request: ProducerRequest) -> None:
        self._outbox = outbox
        self.slot = slot
        self.request = request
        self.producer: Producer | None = None
        self.waiting: deque[_Waiting] = deque()
        self.next_sequence_id = 0
        self.reopening: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """What its messages say who sent them."""
        return self.request.name or ""

    def ready(self, topic_epoch: int) -> None:
        """Take no notice: no access but a shared one is asked for."""

    def throttle(self, seconds: float) -> None:
        """Pass on that more was published than may be."""
        self._outbox.throttled(seconds)

    def closed(self, reason: PortError) -> None:
        """Come back: the broker ended the producer."""
        self.producer = None
        self._outbox.reopen(self, reason)

    async def open(self, port: Port) -> None:
        """Open, or open again, under the name that it has.

        Raises:
            PortError: the broker refuses.
        """
        producer = await port.open_producer(self.request, self)
        if not self.name:
            self.next_sequence_id = producer.last_sequence_id + 1
            self.request = replace(self.request, name=producer.name, user_provided_name=False)
        elif self.request.epoch == 0 and not self.next_sequence_id:
            self.next_sequence_id = producer.last_sequence_id + 1
        self.request = replace(self.request, epoch=self.request.epoch + 1)
        self.producer = producer


class Outbox:
    """What one client publishes."""

    def __init__(
        self,
        service: Service,
        requests: Sequence[ProducerRequest],
        *,
        failed: Callable[[Exception], None],
        congested: Callable[[bool], None] = lambda _: None,
        throttled: Callable[[float], None] = lambda _: None,
    ) -> None:
        """Publish to the topics of `requests`.

        Args:
            service: The port, the clock and the loop.
            requests: One per lane.
            failed: Called when a lane is given up; its entries are answered then.
            congested: Called with True when the log has too much to store, and with False later.
            throttled: Called with the seconds for which nothing more should be published.
        """
        self._service = service
        self._failed = failed
        self._congested = congested
        self.throttled = throttled
        self.lanes = [Lane(self, slot, request) for slot, request in enumerate(requests)]
        self.pending = 0
        """Messages without an answer."""
        self.pending_bytes = 0
        self._batch: list[tuple[Lane, _Waiting]] = []
        self._alarm: asyncio.TimerHandle | None = None
        self._closing = False

    async def open(self) -> None:
        """Open all lanes.

        Raises:
            PortError: the broker refuses one.
        """
        for lane in self.lanes:
            await lane.open(self._service.port)

    def put(self, lane: Lane, made: Made, answered: Answered, timeout_s: float) -> None:
        """Publish an entry with the next `flush`. `timeout_s` 0: it may take any time."""
        deadline = self._service.clock.monotonic() + timeout_s if timeout_s else float("inf")
        waiting = _Waiting(made, answered, deadline)
        lane.waiting.append(waiting)
        self.pending += made.messages
        self.pending_bytes += len(made.body)
        if lane.producer is not None:
            self._batch.append((lane, waiting))
        if timeout_s and self._alarm is None:
            self._alarm = self._service.loop.call_later(timeout_s, self._expire)

    def flush(self) -> None:
        """Publish what was put since the last time, as one run."""
        batch, self._batch = self._batch, []
        batch = [(lane, each) for lane, each in batch if lane.producer and not each.settled]
        if not batch:
            return
        for _, each in batch:
            each.sent = True
        run = run_of([(lane.slot, each.made) for lane, each in batch])
        producers = [lane.producer for lane in self.lanes]
        if not self._service.port.publish(run, producers, partial(self._settle, batch)):
            self._congested(True)
            self._service.port.call_when_clear(partial(self._congested, False))

    async def close(self) -> None:
        """Close every lane, after what was published is stored or refused."""
        self.flush()
        self._closing = True
        for lane in self.lanes:
            if lane.reopening is not None:
                lane.reopening.cancel()
        for lane in self.lanes:
            if lane.producer is not None:
                producer, lane.producer = lane.producer, None
                await producer.close()
        if self._alarm is not None:
            self._alarm.cancel()
        self._give_up_waiting(ServiceNotReadyError("the connection ended first"))

    # --- answers

    def _settle(
        self, batch: Sequence[tuple[Lane, _Waiting]], _run: Run, groups: Sequence[Group]
    ) -> None:
        for group in groups:
            for row in range(group.first_row, group.first_row + group.count):
                lane, waiting = batch[row]
                if isinstance(group.error, PASSING) and not self._closing:
                    waiting.sent = False
                    self.reopen(lane, group.error)
                    continue
                entry = group.first_entry + row - group.first_row if group.ledger >= 0 else -1
                self._answer(waiting, group.ledger, entry, group.error)
        for lane in self.lanes:
            _forget_settled(lane)

    def _answer(self, waiting: _Waiting, ledger: int, entry: int, error: Exception | None) -> None:
        if waiting.settled:
            return  # its time was up
        waiting.settled = True
        self.pending -= waiting.made.messages
        self.pending_bytes -= len(waiting.made.body)
        waiting.answered(ledger, entry, error)

    def _expire(self) -> None:
        """Answer what has waited too long; what is stored later all the same is not told."""
        self._alarm = None
        now, next_one = self._service.clock.monotonic(), float("inf")
        for lane in self.lanes:
            for waiting in lane.waiting:
                if waiting.deadline > now:
                    next_one = min(next_one, waiting.deadline)
                    break  # those behind it have later deadlines
                self._answer(waiting, -1, -1, TimeoutError("the message was not stored in time"))
            _forget_settled(lane)
        if next_one < float("inf"):
            self._alarm = self._service.loop.call_later(max(next_one - now, 0.01), self._expire)

    # --- coming back

    def reopen(self, lane: Lane, reason: PortError | TimeoutError) -> None:
        """Open a lane again, and send what has no answer."""
        if lane.reopening is None and not self._closing:
            lane.reopening = self._service.loop.create_task(self._reopen(lane, reason))

    async def _reopen(self, lane: Lane, reason: Exception) -> None:
        logger.info("%s: publishing pauses: %s", lane.request.topic, reason)
        try:
            await self._try_again_and_again(lane)
        except PortError as error:
            lane.reopening = None
            self._give_up_waiting(error)
            self._failed(error)
        except Exception as error:
            logger.exception("%s could not be opened again", lane.request.topic)
            lane.reopening = None
            self._failed(error)
        else:
            lane.reopening = None
            if self._closing and lane.producer is not None:
                await lane.producer.close()
            for waiting in lane.waiting:
                waiting.sent = False
            self._batch = [(one, each) for one, each in self._batch if one is not lane]
            self._batch += [(lane, each) for each in lane.waiting if not each.settled]
            self.flush()

    async def _try_again_and_again(self, lane: Lane) -> None:
        """Open a lane.

        Raises:
            PortError: the broker refuses for good, or for too long.
        """
        if lane.producer is not None:
            producer, lane.producer = lane.producer, None
            await producer.close()
        started, delay_s = self._service.clock.monotonic(), REOPEN_DELAY_FIRST_S
        while True:
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, REOPEN_DELAY_MAX_S)
            try:
                await lane.open(self._service.port)
            except PASSING as error:
                if self._service.clock.monotonic() - started > REOPEN_LIMIT_S:
                    raise ServiceNotReadyError(str(error)) from error
            else:
                return

    def _give_up_waiting(self, error: Exception) -> None:
        for lane in self.lanes:
            for waiting in lane.waiting:
                self._answer(waiting, -1, -1, error)
            lane.waiting.clear()


def _forget_settled(lane: Lane) -> None:
    while lane.waiting and lane.waiting[0].settled:
        lane.waiting.popleft()
