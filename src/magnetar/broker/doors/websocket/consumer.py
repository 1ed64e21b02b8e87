"""A consumer's connection: messages out, acknowledgements in.

    push   at most receiverQueueSize messages are with the client, not acknowledged
    pull   as many as it permitted: {"type": "permit", "permitMessages": n}

    negative acknowledgement ──after its delay──┬─▶ redelivered
    ackTimeoutMillis passed ────────────────────┤
                                                └─▶ maxRedeliverCount reached: dead letter topic

What a Java client library does behind Pulsar's proxy is done here. Exclusive and Failover
subscriptions cannot send one message again, only everything that is not acknowledged.
"""

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from typing import Any, NamedTuple

from magnetar.broker.doors.websocket.dead_letters import DeadLetters
from magnetar.broker.doors.websocket.fitting import Fitting
from magnetar.broker.doors.websocket.intake import BATCH_MESSAGES_MAX, Text, without
from magnetar.broker.doors.websocket.line import CloseCode, Line
from magnetar.broker.doors.websocket.options import ConsumerOptions, message_id
from magnetar.broker.doors.websocket.receiving import CLIENT_VERSION, NOT_JSON, Receiving
from magnetar.broker.doors.websocket.service import Service
from magnetar.broker.doors.websocket.shapes import Command
from magnetar.broker.doors.websocket.source import Source
from magnetar.broker.doors.websocket.timers import Later
from magnetar.broker.entry import EntryId
from magnetar.broker.port import (
    Acknowledged,
    PortError,
    SubscribeRequest,
    SubscriptionType,
)
from magnetar.broker.wire.pulsar.commands import entry_id
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.names import TopicName

logger = logging.getLogger(__name__)

PERMITS_MAX = 2**31 - 1

_SINGLE = {SubscriptionType.EXCLUSIVE, SubscriptionType.FAILOVER}


class _Key(NamedTuple):
    """What an id says about a message, without the topic."""

    ledger: int
    entry: int
    partition: int
    batch_index: int


class _Sent:
    """A message that is with the client, once or several times."""

    __slots__ = ("copies", "key", "source", "text")

    def __init__(self, key: _Key, source: Source, text: Text) -> None:
        self.key = key
        self.source = source
        self.text = text
        self.copies = 0


class ConsumerSession(Receiving):
    """One consumer of one client. Implements `line.Session`."""

    def __init__(self, line: Line, options: ConsumerOptions, service: Service) -> None:
        super().__init__(line, service, queue=options.queue, crypto_failure=options.crypto_failure)
        self._options = options
        self._sent: dict[_Key, _Sent] = {}
        self._permits = 0
        """Pull mode: messages that the client wants and has not got."""
        self._acks: dict[Source, list[Acknowledged]] = {}
        self._fitting: Fitting | None = None
        if options.pattern is not None:
            self._fitting = Fitting(service, options.pattern, self._came, self._went)
        self._negative = Later[tuple[Source, Text]](
            options.negative_ack_delay_ms / 1000, self._give_back, service
        )
        self._overdue = Later[_Sent](options.ack_timeout_ms / 1000, self._time_is_up, service)
        self._dead_letters: DeadLetters | None = None
        if options.dead_letter_topic is not None and options.type not in _SINGLE:
            self._dead_letters = DeadLetters(service, options.dead_letter_topic, line)
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False

    async def open(self) -> None:
        """Subscribe to every topic, and to each partition of those that have some."""
        topics = self._options.topics
        if self._fitting is not None:
            topics = await self._fitting.begin()
        for topic in topics:
            await self._add_topic(topic, from_earliest=self._options.from_earliest)
        self._growth.start()
        if self._fitting is not None:
            self._fitting.follow()

    async def _add_topic(self, topic: TopicName, *, from_earliest: bool) -> None:
        for name, partition in await self._partitions(topic):
            await self._add(name, partition, from_earliest=from_earliest)

    async def _came(self, topic: TopicName) -> None:
        """Consume a topic that has come and fits the pattern, from its beginning."""
        try:
            await self._add_topic(topic, from_earliest=True)
        except PortError:
            await self._went(topic)
            raise
        self._growth.start()
        self._inbox.pump()

    async def _went(self, topic: TopicName) -> None:
        """Forget a topic that is not there any more."""
        self._growth.forget(topic)
        for source in [each for each in self._sources if each.request.topic.base == topic]:
            self._sources.remove(source)
            self.lost(source)
            await source.close()

    async def _add(self, topic: TopicName, partition: int, *, from_earliest: bool) -> None:
        options = self._options
        request = SubscribeRequest(
            topic=topic,
            subscription=options.subscription,
            type=options.type,
            consumer_name=options.name,
            priority=options.priority,
            durable=options.durable,
            from_earliest=from_earliest,
            client_address=self._line.address,
            client_version=CLIENT_VERSION,
            caller=self._line.caller,
        )
        await self._source(request, partition).open()

    async def _open_new(self, topic: TopicName, partition: int) -> None:
        await self._add(topic, partition, from_earliest=True)

    async def close(self) -> None:
        """Leave; what the client has not acknowledged goes back to the subscription."""
        self._closing = True
        if self._fitting is not None:
            self._fitting.stop()
        self._growth.stop()
        self._negative.stop()
        self._overdue.stop()
        for task in self._tasks:
            task.cancel()
        self._acknowledge()
        for source in self._sources:
            await source.close()
        if self._dead_letters is not None:
            await self._dead_letters.close()

    # --- a client's texts

    def _obey(self, asked: Command) -> None:
        if asked.type == "permit":
            self._permit(asked.permitMessages)
        elif asked.type == "unsubscribe":
            self._start(self._unsubscribe())
        else:
            found = message_id(asked.messageId or "")
            if found is None:
                self._line.fail(CloseCode.INVALID, f"{NOT_JSON}: messageId is no message's id")
            elif asked.type == "negativeAcknowledge":
                self._negative_ack(found)
            else:
                self._ack(found)

    def _permit(self, permits: int | None) -> None:
        if permits is None or not 0 < permits <= PERMITS_MAX:
            self._line.fail(
                CloseCode.INVALID, f"{NOT_JSON}: permitMessages is missing, or not from 1 to 2^31-1"
            )
        elif self._options.pull:
            self._permits = min(self._permits + permits, PERMITS_MAX)

    def _ack(self, found: api.MessageIdData) -> None:
        key = _key(found)
        sent = self._sent.pop(key, None)
        if sent is not None:
            sent.source.outstanding -= sent.copies
            self._acks.setdefault(sent.source, []).extend(_all_of(sent.text))
            return
        source = self._source_of(key)
        if source is None or found.batch_size > BATCH_MESSAGES_MAX:
            return
        if key.batch_index >= max(found.batch_size, 0):
            return  # an id of a batch that does not say how large it was: not from here
        entry = entry_id(found)
        ids = [_acknowledged(entry, found.batch_index, found.batch_size)]
        if found.HasField("first_chunk_message_id"):
            ids.append(Acknowledged(*entry_id(found.first_chunk_message_id)))
        self._acks.setdefault(source, []).extend(ids)

    def _source_of(self, key: _Key) -> Source | None:
        """Return what an id that was not sent on this connection belongs to; None: who knows."""
        if len(self._sources) == 1:
            return self._sources[0]
        if len(self._options.topics) != 1:
            return None
        return next((each for each in self._sources if each.partition == key.partition), None)

    def _negative_ack(self, found: api.MessageIdData) -> None:
        sent = self._sent.pop(_key(found), None)
        if sent is not None:
            sent.source.outstanding -= sent.copies
            self._negative.add((sent.source, sent.text))

    async def _unsubscribe(self) -> None:
        try:
            for source in self._sources:
                self._inbox.forget(source)
                await source.unsubscribe()
        except PortError as error:
            self._line.fail(CloseCode.INTERNAL, f"the subscription stays: {error}")

    def flush(self) -> None:
        """Acknowledge what the client did, and send what it wants now."""
        self._acknowledge()
        self._inbox.pump()

    def _acknowledge(self) -> None:
        acks, self._acks = self._acks, {}
        for source, ids in acks.items():
            source.acknowledge(ids)

    # --- messages to the client

    def wanted(self) -> bool:
        """Whether the client may get another message."""
        if self._options.pull:
            return self._permits > 0
        return sum(source.outstanding for source in self._sources) < self._options.queue

    def filtered(self, source: Source, text: Text) -> bool:
        """Whether a message goes to the dead letter topic instead."""
        if self._dead_letters is None or text.message.encrypted:
            return False
        if text.redeliveries <= self._options.redeliveries_max:
            return False
        self._start(self._bury(source, text))
        return True

    def sent(self, source: Source, text: Text) -> None:
        """Remember a message until its fate is known."""
        if self._options.pull:
            self._permits -= 1
        source.outstanding += 1
        key = _Key(*text.entry, source.partition, text.batch_index)
        source.begin_after(text.entry, text.batch_index)
        sent = self._sent.get(key)
        if sent is None:
            # Only what may become a dead letter is sent a second time from here.
            text = text.without_text(contents=self._dead_letters is not None)
            sent = self._sent[key] = _Sent(key, source, text)
            if self._options.ack_timeout_ms:
                self._overdue.add(sent)
        sent.copies += 1

    def _top_up(self) -> None:
        share = self._share()
        queued = sum(source.queued for source in self._sources)
        for source in self._sources:
            if self._options.pull:
                source.grant(self._permits - queued - source.granted)
            elif source.granted <= share // 2:
                source.grant(share - source.granted - source.queued - source.outstanding)

    # --- a source's news

    def lost(self, source: Source) -> None:
        """Forget what is not acknowledged: it comes again."""
        super().lost(source)
        self._sent = {key: sent for key, sent in self._sent.items() if sent.source is not source}

    # --- back to the subscription

    def _time_is_up(self, those: Sequence[_Sent]) -> None:
        overdue = [sent for sent in those if self._sent.get(sent.key) is sent]
        for sent in overdue:
            del self._sent[sent.key]
            sent.source.outstanding -= sent.copies
        if overdue:
            self._give_back([(sent.source, sent.text) for sent in overdue])

    def _give_back(self, messages: Sequence[tuple[Source, Text]]) -> None:
        """Have messages sent again, but those that were too often."""
        self._acknowledge()
        again: dict[Source, dict[EntryId, None]] = {}
        for source, text in messages:
            last_time = text.redeliveries >= self._options.redeliveries_max
            if self._dead_letters is not None and last_time and not text.message.encrypted:
                self._start(self._bury(source, text))
                continue
            again.setdefault(source, {}).update(dict.fromkeys(text.entries))
        for source, entries in again.items():
            if self._options.type in _SINGLE:
                self.lost(source)
                source.outstanding = 0
                source.chunks.clear()
                source.redeliver(None)
            else:
                source.redeliver(list(entries))
        self._inbox.pump()

    async def _bury(self, source: Source, text: Text) -> None:
        """Send a message to the dead letter topic, and acknowledge it once it is stored there."""
        assert self._dead_letters is not None
        try:
            await self._dead_letters.add(source.request.topic, source.partition, text)
        except (PortError, TimeoutError) as error:
            logger.warning(
                "%s: a message stays, because it cannot go to its dead letter topic: %s",
                source.request.topic,
                error,
            )
            source.redeliver(list(text.entries))
            return
        source.acknowledge(_all_of(text))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        if self._closing:
            work.close()
            return
        task = self._service.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("%s: a consumer's work failed", self._line.address, exc_info=error)
            self._line.fail(CloseCode.INTERNAL, "the broker failed on this; its log says why")


def _key(found: api.MessageIdData) -> _Key:
    return _Key(*entry_id(found), found.partition, found.batch_index)


def _all_of(text: Text) -> list[Acknowledged]:
    """Return what acknowledges a message: a part of its entry, or all entries that it came in."""
    if text.chunks:
        return [Acknowledged(*entry) for entry in text.chunks]
    return [_acknowledged(text.entry, text.batch_index, text.batch_size)]


def _acknowledged(entry: EntryId, batch_index: int, batch_size: int) -> Acknowledged:
    if batch_index < 0 or batch_size <= 1:
        return Acknowledged(*entry)
    return Acknowledged(*entry, without(batch_index, batch_size))
