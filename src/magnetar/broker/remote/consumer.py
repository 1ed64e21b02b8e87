"""A consumer of a topic that a sibling owns: permits out in portions, entries in.

    the client's permits ──▶ wanted ──FLOW──▶ granted ──MESSAGE──▶ deliver
                              window: some 256 KiB at a time            │ False: no room
                                                                        ▼
                                                       parked until `resume`, no more FLOW

Many clients share the link, so none may stop it: a client that does not read gets what was
granted parked, and nothing more is granted. The window keeps that small. Should all of them
together have too much parked all the same, the one that would add to it is closed; what it had
is delivered again when it comes back.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from magnetar.broker.config import KIB, MIB
from magnetar.broker.entry import EntryId, TransactionId
from magnetar.broker.port import (
    Acknowledged,
    ConsumerEvents,
    ConsumerStats,
    LastMessage,
    NotAllowedError,
    PortError,
    Selection,
    ServiceNotReadyError,
    SubscribeRequest,
    SubscriptionType,
)
from magnetar.broker.remote import requests
from magnetar.broker.remote.link import Link
from magnetar.broker.run import Run
from magnetar.broker.wire.pulsar import client_role, commands
from magnetar.broker.wire.pulsar.relay import Delivery

logger = logging.getLogger(__name__)

WINDOW_BYTES = 256 * KIB
"""What may be on its way to one consumer, judged by the size of what came before."""

WINDOW_MESSAGES_MAX = 1_000
ENTRY_BYTES_FIRST = 16 * KIB
"""What an entry is thought to take before the first one came."""

PARKED_BYTES_MAX = 64 * MIB
"""What all consumers of this process together may have parked."""


class Parking:
    """How much is parked in this process."""

    def __init__(self, bytes_max: int = PARKED_BYTES_MAX) -> None:
        self.bytes = 0
        self.bytes_max = bytes_max


class RemoteConsumer:
    """An open consumer of a topic elsewhere. Implements `port.Consumer`."""

    def __init__(
        self,
        link: Link,
        request: SubscribeRequest,
        events: ConsumerEvents,
        parking: Parking,
        now_ms: int,
    ) -> None:
        """Take a place on the link; `open` must be awaited before anything else."""
        self._link = link
        self._request = request
        self._events = events
        self._parking = parking
        self._id = link.new_id()
        self._closed = False
        self._left = False
        self._seeking = False
        self._wanted = 0
        """Messages that the client allowed and the owner does not know of."""
        self._granted = 0
        """Messages that the owner may still send. The last batch may drive this below 0."""
        self._message_bytes = ENTRY_BYTES_FIRST
        self._no_room = False
        self._parked: deque[tuple[Run, Selection, int, int]] = deque()
        self._parked_bytes = 0
        self._end = False
        """Tell the end of the topic once nothing is parked."""
        self._figures: ConsumerStats | None = None
        self._asking: asyncio.Task[None] | None = None
        self._since_ms = now_ms

    @property
    def name(self) -> str:
        """What the client calls itself."""
        return self._request.consumer_name

    async def open(self) -> None:
        """Subscribe where the topic is.

        Raises:
            PortError: the owner refuses, or cannot be reached.
        """
        self._link.consumers[self._id] = self
        try:
            await self._link.ask(lambda number: requests.subscribe(number, self._id, self._request))
        except PortError:
            self._leave()
            raise
        except BaseException:  # nobody waits any more for what is being opened
            self._link.send(client_role.close_consumer(self._link.new_id(), self._id))
            self._leave()
            raise
        self._request = replace(self._request, schema=None)  # a definition may be large

    # --- the door calls these

    def flow(self, permits: int) -> None:
        """Allow `permits` more messages."""
        self._wanted += permits
        self._grant()

    def resume(self) -> None:
        """Take back the False of `deliver`: the connection has room again."""
        self._no_room = False
        while self._parked and not self._no_room:
            run, selection, _, size = self._parked.popleft()
            self._free(size)
            self._no_room = not self._events.deliver(run, selection)
        if self._end and not self._parked:
            self._end = False
            self._events.end_of_topic()
        self._grant()

    def acknowledge(self, ids: Sequence[Acknowledged], *, cumulative: bool) -> None:
        """Acknowledge entries. Ids that are unknown or already acknowledged are no error.

        Raises:
            NotAllowedError: cumulative on a Shared or Key_Shared subscription, or too large.
        """
        shared = {SubscriptionType.SHARED, SubscriptionType.KEY_SHARED}
        if cumulative and self._request.type in shared:
            raise NotAllowedError(
                f"a {self._request.type.name} subscription has no cumulative acknowledgement"
            )
        for frame in requests.acks(self._id, ids, cumulative=cumulative):
            self._link.send(self._link.bounded(frame))

    async def acknowledge_in(
        self, transaction: TransactionId, ids: Sequence[Acknowledged], *, cumulative: bool
    ) -> None:
        """Acknowledge entries if a transaction is committed, as `port.Consumer` says."""
        step = requests.IDS_PER_COMMAND_MAX
        for first in range(0, len(ids), step):
            some = ids[first : first + step]
            await self._link.ask(
                lambda number, some=some: requests.acks_in(  # type: ignore[misc]
                    number, self._id, transaction, some, cumulative=cumulative
                )
            )

    def redeliver(self, ids: Sequence[EntryId] | None, epoch: int | None) -> None:
        """Send entries again; None: everything this consumer has not acknowledged."""
        if ids is None:
            # The owner sends these again too, and the client has not seen them yet.
            self._wanted += sum(messages for _, _, messages, _ in self._parked)
            self._forget_parked()
        for frame in requests.redeliveries(self._id, ids, epoch):
            self._link.send(self._link.bounded(frame))

    async def seek(
        self, position: EntryId | None, ack_set: Sequence[int], time_ms: int | None
    ) -> None:
        """Reset the subscription to a position (inclusive) or a publish time."""
        self._seeking = True
        try:
            await self._link.ask(
                lambda number: requests.seek(number, self._id, position, ack_set, time_ms)
            )
        finally:
            self._seeking = False

    async def last_message(self) -> LastMessage:
        """Return where the topic ends, and how far the subscription is."""
        answer = await self._link.ask(lambda number: client_role.last_message_id(number, self._id))
        last = answer.last_message_id
        return LastMessage(
            commands.entry_id(last),
            last.batch_index + 1 if last.batch_index >= 0 else 0,
            commands.entry_id(answer.consumer_mark_delete_position),
        )

    def stats(self) -> ConsumerStats:
        """Return the figures that the owner reported last, and ask it for newer ones.

        Before its first report they hold what is known here: who it is, and its permits.
        """
        if self._asking is None and not self._closed:
            self._asking = self._link.loop.create_task(self._refresh())
        if self._figures is not None:
            return self._figures
        request = self._request
        return ConsumerStats(
            name=request.consumer_name,
            type=request.type,
            permits=self._wanted + max(self._granted, 0),
            unacked=0,
            blocked=False,
            backlog=0,
            message_rate=0.0,
            byte_rate=0.0,
            redelivery_rate=0.0,
            ack_rate=0.0,
            expired_rate=0.0,
            address=request.client_address,
            connected_since_ms=self._since_ms,
        )

    async def unsubscribe(self, *, force: bool) -> None:
        """Delete the subscription and its cursor.

        Raises:
            ConsumerBusyError: others are connected, and `force` is off.
        """
        await self._link.ask(lambda number: client_role.unsubscribe(number, self._id, force=force))
        self._closed = True
        self._leave()

    async def close(self) -> None:
        """Leave. What was delivered and not acknowledged goes back to the subscription."""
        if self._closed:
            return
        self._closed = True
        self._link.consumers.pop(self._id, None)
        self._forget_parked()
        try:
            await self._link.ask(lambda number: client_role.close_consumer(number, self._id))
        except PortError as error:
            logger.debug("closing a consumer: %s", error)  # the owner has noticed by itself
        finally:
            self._leave()

    # --- the link calls these

    def take(self, delivery: Delivery) -> None:
        """Pass entries on to the client, or park them."""
        run, selection = delivery.run, delivery.selection
        messages, size = run.message_count(), run.body_bytes()
        self._granted -= messages
        # Rises at once and falls slowly: what counts is the largest that is to be expected.
        self._message_bytes = max(size // messages, self._message_bytes * 7 // 8, 1)
        if self._no_room:
            self._park(run, selection, messages, size)
        else:
            self._no_room = not self._events.deliver(run, selection)
            self._grant()

    def active(self, active: bool) -> None:
        """Tell the client whether this is the consumer served."""
        self._events.active(active)

    def end_of_topic(self) -> None:
        """Tell the client, behind what is parked, that nothing will follow."""
        if self._parked:
            self._end = True
        else:
            self._events.end_of_topic()

    def ended(self, reason: PortError) -> None:
        """Close: the owner did, or the link is lost."""
        self._leave()
        if not self._closed:
            self._closed = True
            self._events.closed(None if self._seeking else reason)

    # --- permits and parking

    def _grant(self) -> None:
        """Let the owner send as much as the client wants and the window holds."""
        if self._no_room or self._closed or not self._wanted:
            return
        if self._request.topic.persistent:
            window = max(min(WINDOW_BYTES // self._message_bytes, WINDOW_MESSAGES_MAX), 1)
            room = window - self._granted
            if room * 2 < window:
                return
            permits = min(self._wanted, room)
        else:
            # Nobody keeps what such a topic cannot send at once.
            permits = self._wanted
        self._wanted -= permits
        self._granted += permits
        self._link.send(client_role.flow(self._id, permits))

    def _park(self, run: Run, selection: Selection, messages: int, size: int) -> None:
        if self._parking.bytes + size > self._parking.bytes_max:
            logger.warning("a consumer that does not read what it asked for is closed")
            self._link.send(client_role.close_consumer(self._link.new_id(), self._id))
            self.ended(ServiceNotReadyError("the client takes too little of what it asks for"))
            return
        self._parked.append((_alone(run), selection, messages, size))
        self._parked_bytes += size
        self._parking.bytes += size

    def _free(self, size: int) -> None:
        self._parked_bytes -= size
        self._parking.bytes -= size

    def _forget_parked(self) -> None:
        self._parked.clear()
        self._free(self._parked_bytes)

    def _leave(self) -> None:
        if not self._left:
            self._left = True
            self._link.consumers.pop(self._id, None)
            self._link.endpoints -= 1
            self._forget_parked()

    async def _refresh(self) -> None:
        try:
            answer = await self._link.ask(
                lambda number: client_role.consumer_stats(number, self._id)
            )
        except PortError as error:
            logger.debug("asking for a consumer's figures: %s", error)  # the old ones will do
        else:
            self._figures = requests.figures(answer, self._request, self._since_ms)
        finally:
            self._asking = None


def _alone(run: Run) -> Run:
    """Return a run that keeps no more memory than its own."""
    start, end = run.body_span()
    return Run(run.rows, bytes(run.buffer[start:end]), run.base + start)
