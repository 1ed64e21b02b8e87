"""One topic, or partition, that a client consumes: its consumer, its permits, and coming back.

    subscribe ──▶ open ──closed by the broker──▶ subscribe again, later and later ──▶ given up
                   │
                   ├─ granted      messages that the subscription may still send us
                   ├─ queued       came, and not sent to the client yet
                   └─ outstanding  sent, and neither acknowledged nor given back

It does what a Pulsar client library does for its user when the broker closes a consumer.
"""

import asyncio
import logging
from dataclasses import replace
from math import inf
from typing import NamedTuple, Protocol

from magnetar.broker.doors.websocket.chunks import Chunks
from magnetar.broker.doors.websocket.errors import PASSING
from magnetar.broker.doors.websocket.intake import Text
from magnetar.broker.doors.websocket.service import Service
from magnetar.broker.entry import EntryId
from magnetar.broker.port import (
    Acknowledged,
    Consumer,
    ConsumerBusyError,
    PortError,
    Selection,
    ServiceNotReadyError,
    SubscribeRequest,
)
from magnetar.broker.run import Run

logger = logging.getLogger(__name__)

RETURN_DELAY_FIRST_S = 0.1
RETURN_DELAY_MAX_S = 5.0
RETURN_LIMIT_S = 60.0
"""A topic that cannot be subscribed to again for so long is given up."""


class Place(NamedTuple):
    """Where a message lies. Sorts as messages do."""

    entry: EntryId
    batch_index: float
    """Infinity: the last of its entry, or the only one."""


class Host(Protocol):
    """What a source tells its session."""

    def take(self, source: "Source", run: Run, selection: Selection) -> bool:
        """Take entries; False: no more for now."""
        ...

    def lost(self, source: "Source") -> None:
        """Forget what came: what is not acknowledged will come again."""
        ...

    def returned(self, source: "Source") -> None:
        """Know that it is open again, and has no permits."""
        ...

    def gave_up(self, source: "Source", error: Exception) -> None:
        """Know that it cannot be opened again."""
        ...


class Source:
    """One subscribed topic. The port delivers to it and tells it about its consumer."""

    def __init__(
        self, host: Host, request: SubscribeRequest, partition: int, service: Service
    ) -> None:
        self._host = host
        self._service = service
        self.request = request
        self.partition = partition
        """For message ids; -1: the topic is not partitioned."""
        self.consumer: Consumer | None = None
        self.chunks = Chunks()
        self.granted = 0
        self.queued = 0
        self.outstanding = 0
        self.stuck = False
        """It was told that there is no room."""
        self.ended = False
        """The topic is terminated, and everything in it came."""
        self._after: Place | None = None
        """Of a subscription that nobody keeps: the last message that was sent, or that it begins
        after."""
        self._opening = False
        self._closing = False
        self._returning: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Subscribe.

        Raises:
            PortError: the broker refuses.
        """
        self._opening = True
        lost = False
        try:
            self.consumer = consumer = await self._service.port.subscribe(self.request, self)
        finally:
            lost, self._opening = not self._opening, False
        if lost:
            self.consumer = None
            await consumer.close()
            raise ServiceNotReadyError("the subscription was closed while it was opened")

    async def close(self) -> None:
        """Leave. What was not acknowledged goes back to the subscription."""
        self._closing = True
        if self._returning is not None:
            self._returning.cancel()
        consumer, self.consumer = self.consumer, None
        if consumer is not None:
            await consumer.close()

    async def unsubscribe(self) -> None:
        """Delete the subscription.

        Raises:
            ConsumerBusyError: others are connected.
        """
        if self.consumer is not None:
            self._closing = True
            try:
                await self.consumer.unsubscribe(force=False)
            except PortError:
                self._closing = False
                raise
            self.consumer = None

    def grant(self, permits: int) -> None:
        """Let so many messages more come."""
        if permits > 0 and self.consumer is not None:
            self.granted += permits
            self.consumer.flow(permits)

    def resume(self) -> None:
        """Take back that there is no room, if it was told so."""
        if self.stuck and self.consumer is not None:
            self.stuck = False
            self.consumer.resume()

    def acknowledge(self, ids: list[Acknowledged]) -> None:
        """Acknowledge entries, each alone. While it is away, nothing can be: they come again."""
        if self.consumer is None:
            return
        try:
            self.consumer.acknowledge(ids, cumulative=False)
        except PortError as error:
            logger.info("%s: acknowledgement refused: %s", self.request.topic, error)

    def redeliver(self, ids: list[EntryId] | None) -> None:
        """Have entries sent again; None: all that are not acknowledged."""
        if self.consumer is not None:
            self.consumer.redeliver(ids, None)

    def begin_after(self, entry: EntryId, batch_index: int) -> None:
        """Leave out what lies at this message and before, now and when it comes back.

        Ids mean nothing where a topic stores nothing, and a durable subscription knows by itself.
        """
        if self.request.topic.persistent and not self.request.durable:
            self._after = Place(entry, batch_index if batch_index >= 0 else inf)

    def is_behind(self, text: Text) -> bool:
        """Whether a message lies before the place where this begins."""
        return (
            self._after is not None and Place(text.entry, max(text.batch_index, 0)) <= self._after
        )

    # --- the port calls these

    def deliver(self, run: Run, selection: Selection) -> bool:
        """Take entries."""
        if self._closing:
            return True
        room = self._host.take(self, run, selection)
        self.stuck = not room
        return room

    def active(self, active: bool) -> None:
        """Take no notice: clients of this door are not told."""

    def end_of_topic(self) -> None:
        """Remember it, for who asks."""
        self.ended = True

    def closed(self, reason: PortError | None) -> None:
        """Come back: the broker ended the consumer."""
        if self._opening:
            self._opening = False  # `open` sees that
            return
        self.consumer = None
        if self._closing or self._returning is not None:
            return
        self._forget()
        self._returning = self._service.loop.create_task(self._return(reason))

    def _forget(self) -> None:
        self._host.lost(self)
        self.chunks.clear()
        self.granted = self.queued = self.outstanding = 0
        self.stuck = self.ended = False

    async def _return(self, reason: PortError | None) -> None:
        logger.info("%s: consuming pauses: %s", self.request.topic, reason or "it was reset")
        started, delay_s = self._service.clock.monotonic(), RETURN_DELAY_FIRST_S
        try:
            while True:
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, RETURN_DELAY_MAX_S)
                if self._after is not None:
                    self.request = replace(self.request, start=self._after.entry)
                try:
                    await self.open()
                except (*PASSING, ConsumerBusyError) as error:
                    if self._service.clock.monotonic() - started > RETURN_LIMIT_S:
                        raise ServiceNotReadyError(str(error)) from error
                else:
                    break
        except PortError as error:
            self._returning = None
            self._host.gave_up(self, error)
        except Exception as error:
            logger.exception("%s could not be subscribed to again", self.request.topic)
            self._returning = None
            self._host.gave_up(self, error)
        else:
            self._returning = None
            if self._closing:
                await self.close()
            else:
                self._host.returned(self)
