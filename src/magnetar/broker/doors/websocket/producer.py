"""A producer's connection: each text is a message, each answer says what became of one.

    text ──▶ Outgoing ──▶ lane by key ──▶ alone, or into the lane's batch ──▶ Outbox
                                                     │ full, or batchingMaxPublishDelay
    {"result": "ok", "messageId"} ◀── per message ───┘

Keyed messages go to the partition of their key. Others stay on one partition, chosen by chance
when the client comes, or go round. As in Pulsar's proxy, a queue that is full refuses; the bytes
that wait are bounded too, and while they are too many, nothing is read.
"""

import asyncio
import secrets
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import msgspec

from magnetar.broker.doors.websocket.batch import Batch, Stamp, alone, goes_alone, together
from magnetar.broker.doors.websocket.line import CloseCode, Hold, Line
from magnetar.broker.doors.websocket.options import ProducerOptions
from magnetar.broker.doors.websocket.outbox import Lane, Outbox
from magnetar.broker.doors.websocket.service import Service
from magnetar.broker.doors.websocket.shapes import (
    PONG,
    Outgoing,
    Ping,
    SendError,
    ShapeError,
    id_text,
    not_published,
    outgoing,
    published,
)
from magnetar.broker.port import ProducerRequest
from magnetar.broker.run import Bytes
from magnetar.broker.wire.pulsar.frames import FRAME_OVERHEAD_MAX
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.broker.wire.pulsar.keys import murmur3_32
from magnetar.broker.wire.pulsar.made import Made
from magnetar.broker.wire.pulsar.metadata import compress
from magnetar.broker.wire.pulsar.relay import SEND_BYTES_MAX

CLIENT_VERSION = "WebSocket"
"""What statistics show as the client's library."""

_U64 = 2**64 - 1


class _Message(NamedTuple):
    """A text that is a message."""

    message: Outgoing
    payload: Bytes
    """As it will be stored, if the message goes alone."""


class ProducerSession:
    """One producer of one client. Implements `line.Session`."""

    def __init__(self, line: Line, options: ProducerOptions, service: Service) -> None:
        self._line = line
        self._service = service
        self._options = options
        self._entry_bytes_max = (
            service.config.message_bytes_max + FRAME_OVERHEAD_MAX - SEND_BYTES_MAX
        )
        self._message_bytes_max = service.config.message_bytes_max
        self._outbox: Outbox | None = None
        self._batches: dict[Lane, Batch] = {}
        self._timers: dict[Lane, asyncio.TimerHandle] = {}
        self._collected = 0
        """Messages in batches that are not closed yet."""
        self._pause: asyncio.TimerHandle | None = None
        """Ends a wait for the topic's rate."""
        self._partitioned = False
        self._at = 0
        """The lane of messages without a key."""

    @property
    def _pending_bytes_max(self) -> int:
        return self._service.config.pending_publish_bytes_per_connection_max

    async def open(self) -> None:
        """Open a producer on the topic, or on each of its partitions."""
        options = self._options
        count = 0
        if options.topic.partition < 0:
            count = await self._service.port.partitions(options.topic, create=True)
        self._partitioned = count > 0
        topics = [options.topic.partition_name(i) for i in range(count)] or [options.topic]
        self._outbox = Outbox(
            self._service,
            [
                ProducerRequest(
                    topic=topic,
                    name=options.name,
                    user_provided_name=options.name is not None,
                    encrypted=bool(options.encryption_keys),
                    client_address=self._line.address,
                    client_version=CLIENT_VERSION,
                    caller=self._line.caller,
                    owner=self._line.owner,
                )
                for topic in topics
            ],
            failed=lambda error: self._line.fail(CloseCode.INTERNAL, str(error)),
            congested=self._disk_is_busy,
            throttled=self._throttle,
        )
        if options.initial_sequence_id is not None:
            for lane in self._outbox.lanes:
                lane.next_sequence_id = options.initial_sequence_id + 1
        await self._outbox.open()
        self._at = secrets.randbelow(len(topics))

    # --- a client's texts

    def decode(self, text: bytes) -> _Message | Ping | ShapeError:
        """Read a text, and compress what will be compressed alone."""
        try:
            message = outgoing(text)
        except ShapeError as error:
            return error
        if isinstance(message, Ping):
            return message
        payload: Bytes = message.payload
        if self._options.compression and (not self._options.batching or goes_alone(message)):
            payload = compress(payload, self._options.compression)
        return _Message(message, payload)

    def handle(self, decoded: _Message | Ping | ShapeError) -> None:
        """Publish a message, or say why not."""
        if isinstance(decoded, ShapeError):
            self._refuse(decoded.error, str(decoded), decoded.context)
        elif isinstance(decoded, Ping):
            self._line.send(PONG)
        else:
            self._take(decoded)

    def _take(self, decoded: _Message) -> None:
        message, payload = decoded
        assert self._outbox is not None
        options, outbox = self._options, self._outbox
        if len(payload) > self._message_bytes_max:
            why = f"a message of {len(payload)} bytes, the limit is {self._message_bytes_max}"
            self._refuse(SendError.UNKNOWN, why, message.context)
            return
        if options.pending_max and outbox.pending + self._collected >= options.pending_max:
            self._refuse(SendError.UNKNOWN, "Producer send queue is full", message.context)
            return
        now_ms = self._service.clock.wall_ms()
        lane = self._lane_for(message)
        if not options.batching or goes_alone(message):
            self._close_batch(lane)
            entry = alone(message, payload, options, _stamp(lane, now_ms))
            self._put(lane, entry, [message], batched=False)
            return
        batch = self._batches.get(lane)
        if batch is not None and not batch.fits(message):
            self._close_batch(lane)
            batch = None
        if batch is None:
            batch = self._batches[lane] = Batch(options.batch_messages_max)
            delay_s = options.batch_delay_ms / 1000
            self._timers[lane] = self._service.loop.call_later(delay_s, self._batch_is_due, lane)
        batch.add(message, now_ms)
        self._collected += 1
        if batch.full:
            self._close_batch(lane)

    def _lane_for(self, message: Outgoing) -> Lane:
        assert self._outbox is not None
        lanes = self._outbox.lanes
        if len(lanes) == 1:
            return lanes[0]
        if message.key is not None:
            key_hash = murmur_hash if self._options.murmur else java_hash
            return lanes[key_hash(message.key) % len(lanes)]
        if self._options.round_robin and lanes[self._at] not in self._batches:
            self._at = (self._at + 1) % len(lanes)
        return lanes[self._at]

    def flush(self) -> None:
        """Publish what is not waiting for a batch to fill."""
        if self._outbox is not None:
            self._outbox.flush()
            if self._outbox.pending_bytes > self._pending_bytes_max:
                self._line.hold(Hold.PENDING)

    def resume(self) -> None:
        """Do nothing: reading goes on by itself."""

    async def close(self) -> None:
        """Store what was taken, and leave."""
        if self._pause is not None:
            self._pause.cancel()
        for lane in list(self._batches):
            self._close_batch(lane)
        if self._outbox is not None:
            await self._outbox.close()

    # --- entries

    def _batch_is_due(self, lane: Lane) -> None:
        self._close_batch(lane)
        self.flush()

    def _close_batch(self, lane: Lane) -> None:
        timer = self._timers.pop(lane, None)
        if timer is not None:
            timer.cancel()
        batch = self._batches.pop(lane, None)
        if batch is None:
            return
        self._collected -= len(batch.messages)
        entry = together(batch.messages, self._options, _stamp(lane, batch.publish_time_ms))
        self._put(lane, entry, batch.messages, batched=True)

    def _put(self, lane: Lane, entry: Made, messages: Sequence[Outgoing], *, batched: bool) -> None:
        assert self._outbox is not None
        lane.next_sequence_id += len(messages)
        contexts = [message.context for message in messages]
        if len(entry.body) > self._entry_bytes_max:
            for context in contexts:
                why = f"with its properties an entry of {len(entry.body)} bytes, which is too large"
                self._refuse(SendError.UNKNOWN, why, context)
            return
        answered = partial(self._answer, lane, contexts, batched)
        self._outbox.put(lane, entry, answered, self._options.send_timeout_ms / 1000)

    # --- answers

    def _answer(  # noqa: PLR0913, PLR0917 - a partial: where it went, then what became of it
        self,
        lane: Lane,
        contexts: Sequence[msgspec.Raw | None],
        batched: bool,
        ledger: int,
        entry: int,
        error: Exception | None,
    ) -> None:
        for index, context in enumerate(contexts):
            if error is not None:
                self._refuse(SendError.UNKNOWN, str(error), context)
                continue
            found = api.MessageIdData(ledgerId=ledger & _U64, entryId=entry & _U64)
            if self._partitioned:
                found.partition = lane.slot
            if batched:
                found.batch_index, found.batch_size = index, len(contexts)
            self._line.send(published(id_text(found), context))
        if self._outbox is not None and self._outbox.pending_bytes <= self._pending_bytes_max // 2:
            self._line.release(Hold.PENDING)

    def _refuse(self, error: SendError, why: str, context: msgspec.Raw | None) -> None:
        self._line.send(not_published(error, why, context))

    def _throttle(self, seconds: float) -> None:
        """Take nothing from the client for a while: it has sent more than it may."""
        if seconds <= 0:
            return
        self._line.hold(Hold.RATE)
        if self._pause is not None:
            self._pause.cancel()
        self._pause = self._service.loop.call_later(seconds, self._line.release, Hold.RATE)

    def _disk_is_busy(self, busy: bool) -> None:
        if busy:
            self._line.hold(Hold.PUBLISHING)
        else:
            self._line.release(Hold.PUBLISHING)


def _stamp(lane: Lane, now_ms: int) -> Stamp:
    return Stamp(lane.name, lane.next_sequence_id, now_ms)


def java_hash(key: str) -> int:
    """Return Java's hash of a string without its sign: 31 h + c, over UTF-16."""
    value = 0
    units = key.encode("utf-16-le", "surrogatepass")
    for low, high in zip(units[::2], units[1::2], strict=True):
        value = (31 * value + (high << 8 | low)) & 0xFFFFFFFF
    return value & 0x7FFFFFFF


def murmur_hash(key: str) -> int:
    """Return Murmur3 of a string without its sign, as Pulsar's libraries choose partitions."""
    return murmur3_32(key.encode("utf-8", "surrogatepass")) & 0x7FFFFFFF
