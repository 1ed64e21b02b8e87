"""A reader's connection: every message from a place on, without a subscription that is kept.

    messageId   earliest ──▶ from the first message
                latest   ──▶ what is published from now on
                an id    ──▶ from the message behind it

At most receiverQueueSize messages are sent ahead of what the client has answered: any text but a
question counts as the answer to one message, as in Pulsar's proxy.
"""

from magnetar.broker.doors.websocket.intake import Text
from magnetar.broker.doors.websocket.line import Line
from magnetar.broker.doors.websocket.options import ReaderOptions
from magnetar.broker.doors.websocket.receiving import CLIENT_VERSION, Receiving
from magnetar.broker.doors.websocket.service import Service
from magnetar.broker.doors.websocket.shapes import Command
from magnetar.broker.doors.websocket.source import Source
from magnetar.broker.entry import EARLIEST, LATEST, EntryId
from magnetar.broker.port import Acknowledged, SubscribeRequest
from magnetar.broker.wire.pulsar.commands import entry_id
from magnetar.names import TopicName


class ReaderSession(Receiving):
    """One reader of one client. Implements `line.Session`."""

    def __init__(self, line: Line, options: ReaderOptions, service: Service) -> None:
        super().__init__(line, service, queue=options.queue, crypto_failure=options.crypto_failure)
        self._options = options
        self._unanswered = 0
        self._open_entry: dict[Source, EntryId] = {}
        """Of each source the entry that was sent in part."""

    async def open(self) -> None:
        """Begin to read the topic, or each of its partitions."""
        start = self._options.start
        place = EARLIEST if self._options.earliest else LATEST
        if start is not None:
            place = entry_id(start)
        for name, partition in await self._partitions(self._options.topic):
            source = self._of(name, partition, place)
            if start is not None and start.partition in {partition, -1}:
                source.begin_after(place, start.batch_index)
            await source.open()
        self._growth.start()

    def _of(self, topic: TopicName, partition: int, start: EntryId) -> Source:
        request = SubscribeRequest(
            topic=topic,
            subscription=self._options.subscription,
            consumer_name=self._options.name,
            durable=False,
            start=start,
            client_address=self._line.address,
            client_version=CLIENT_VERSION,
            caller=self._line.caller,
        )
        return self._source(request, partition)

    async def _open_new(self, topic: TopicName, partition: int) -> None:
        await self._of(topic, partition, EARLIEST).open()

    async def close(self) -> None:
        """Leave. Nothing is kept."""
        self._growth.stop()
        for source in self._sources:
            await source.close()

    def _obey(self, asked: Command) -> None:  # noqa: ARG002 - anything is an answer
        self._unanswered = max(self._unanswered - 1, 0)

    # --- messages to the client

    def wanted(self) -> bool:
        """Whether the client may get another message."""
        return self._unanswered < self._options.queue

    def sent(self, source: Source, text: Text) -> None:
        """Go on behind a message, and acknowledge entries that are done with."""
        self._unanswered += 1
        source.begin_after(text.entry, text.batch_index)
        before = self._open_entry.pop(source, None)
        done = [] if before is None or before == text.entry else [Acknowledged(*before)]
        if text.ends_entry:
            done += [Acknowledged(*entry) for entry in text.entries]
        else:
            self._open_entry[source] = text.entry
        if done:
            source.acknowledge(done)

    def _top_up(self) -> None:
        share = self._share()
        for source in self._sources:
            if source.granted <= share // 2:
                source.grant(share - source.granted - source.queued)

    # --- a source's news

    def lost(self, source: Source) -> None:
        """Forget what was not sent: it comes again."""
        super().lost(source)
        self._open_entry.pop(source, None)
