"""A reader's connection: every message from a place on, without a subscription that is kept.

    messageId   earliest ──▶ from the first message
                latest   ──▶ what is published from now on
                an id    ──▶ from the message behind it

At most receiverQueueSize messages are sent ahead of what the client has answered: any text but a
question counts as the answer to one message, as in Pulsar's proxy.
"""

from magnetar.broker.doors.websocket.consumer import CLIENT_VERSION, NOT_JSON
from magnetar.broker.doors.websocket.inbox import Inbox
from magnetar.broker.doors.websocket.intake import Text
from magnetar.broker.doors.websocket.line import CloseCode, Line
from magnetar.broker.doors.websocket.options import ReaderOptions
from magnetar.broker.doors.websocket.partitions import Growth
from magnetar.broker.doors.websocket.service import Service
from magnetar.broker.doors.websocket.shapes import PONG, Command, ShapeError, command, end_of_topic
from magnetar.broker.doors.websocket.source import Source
from magnetar.broker.entry import EARLIEST, LATEST, EntryId
from magnetar.broker.port import Acknowledged, Selection, SubscribeRequest
from magnetar.broker.run import Run
from magnetar.broker.wire.pulsar.commands import entry_id
from magnetar.names import TopicName


class ReaderSession:
    """One reader of one client. Implements `line.Session`."""

    def __init__(self, line: Line, options: ReaderOptions, service: Service) -> None:
        self._line = line
        self._service = service
        self._options = options
        self._sources: list[Source] = []
        self._unanswered = 0
        self._open_entry: dict[Source, EntryId] = {}
        """Of each source the entry that was sent in part."""
        self._inbox = Inbox(
            line,
            self,
            bytes_max=service.config.write_buffer_bytes_per_connection_max,
            crypto_failure=options.crypto_failure,
            loop=service.loop,
            now_ms=service.clock.wall_ms,
        )
        self._growth = Growth(service, self._add_partitions)

    async def open(self) -> None:
        """Begin to read the topic, or each of its partitions."""
        topic, start = self._options.topic, self._options.start
        count = 0
        if topic.partition < 0:
            count = await self._service.port.partitions(topic, create=True)
            if count:
                self._growth.watch(topic, count)
        place = EARLIEST if self._options.earliest else LATEST
        if start is not None:
            place = entry_id(start)
        for partition in range(count) if count else (-1,):
            name = topic if partition < 0 else topic.partition_name(partition)
            source = self._source(name, partition, place)
            if start is not None and start.partition in {partition, -1}:
                source.begin_after(place, start.batch_index)
            await source.open()
        self._growth.start()

    def _source(self, topic: TopicName, partition: int, start: EntryId) -> Source:
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
        source = Source(self, request, partition, self._service)
        self._sources.append(source)
        return source

    async def _add_partitions(self, topic: TopicName, known: int, count: int) -> None:
        for partition in range(known, count):
            await self._source(topic.partition_name(partition), partition, EARLIEST).open()
        self._inbox.pump()

    async def close(self) -> None:
        """Leave. Nothing is kept."""
        self._growth.stop()
        for source in self._sources:
            await source.close()

    # --- a client's texts

    def decode(self, text: bytes) -> Command | ShapeError:
        """Read a text."""
        try:
            return command(text)
        except ShapeError as error:
            return error

    def handle(self, decoded: Command | ShapeError) -> None:
        """Do what a text asks."""
        if isinstance(decoded, ShapeError):
            self._line.fail(CloseCode.INVALID, f"{NOT_JSON}: {decoded}")
        elif decoded.type == "isEndOfTopic":
            reached = all(source.ended and not source.queued for source in self._sources)
            self._line.send(end_of_topic(reached=reached))
        elif decoded.type == "ping":
            self._line.send(PONG)
        else:
            self._unanswered = max(self._unanswered - 1, 0)

    def flush(self) -> None:
        """Send what the client has room for now."""
        self._inbox.pump()

    def resume(self) -> None:
        """Send on: the client's socket has room again."""
        self._inbox.pump()

    # --- messages to the client

    def wanted(self) -> bool:
        """Whether the client may get another message."""
        return self._unanswered < self._options.queue

    def filtered(self, source: Source, text: Text) -> bool:  # noqa: ARG002 - a reader wants all
        """Whether a message is not for the client."""
        return False

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

    def progress(self) -> None:
        """Ask for more, as far as there is room for it."""
        self._top_up()
        for source in self._sources:
            if self._inbox.full:
                return
            source.resume()

    def _top_up(self) -> None:
        share = max(self._options.queue // max(len(self._sources), 1), 1)
        for source in self._sources:
            if source.granted <= share // 2:
                source.grant(share - source.granted - source.queued)

    # --- a source's news

    def take(self, source: Source, run: Run, selection: Selection) -> bool:
        """Take entries of a source."""
        return self._inbox.add(source, run, selection)

    def lost(self, source: Source) -> None:
        """Forget what was not sent: it comes again."""
        self._inbox.forget(source)
        self._open_entry.pop(source, None)

    def returned(self, source: Source) -> None:  # noqa: ARG002 - all get their share
        """Let it send."""
        self._inbox.pump()

    def gave_up(self, source: Source, error: Exception) -> None:
        """End: a part of what the client reads does not come any more."""
        self._line.fail(CloseCode.INTERNAL, f"{source.request.topic}: {error}")
