"""What consumers and readers are made of: topics, or all partitions of them, and one inbox.

    topic ──partitions?──▶ a Source for each ──entries──▶ Inbox ──texts──▶ client
                               ▲                            │
                               └──────── permits ◀──────────┘   what is wanted, each kind says

A text of a client that is a question is answered here. What others mean, each kind knows.
"""

from collections.abc import Iterable

from magnetar.broker.doors.websocket.inbox import Inbox
from magnetar.broker.doors.websocket.intake import Text
from magnetar.broker.doors.websocket.line import CloseCode, Line
from magnetar.broker.doors.websocket.options import CryptoFailure
from magnetar.broker.doors.websocket.partitions import Growth
from magnetar.broker.doors.websocket.service import Service
from magnetar.broker.doors.websocket.shapes import PONG, Command, ShapeError, command, end_of_topic
from magnetar.broker.doors.websocket.source import Source
from magnetar.broker.port import Selection, SubscribeRequest
from magnetar.broker.run import Run
from magnetar.names import TopicName

CLIENT_VERSION = "WebSocket"
NOT_JSON = "Failed to de-serialize from JSON"
"""Pulsar's words."""


class Receiving:
    """What both have in common. Implements most of `line.Session`."""

    def __init__(
        self, line: Line, service: Service, *, queue: int, crypto_failure: CryptoFailure
    ) -> None:
        self._line = line
        self._service = service
        self._queue = queue
        self._sources: list[Source] = []
        self._inbox = Inbox(
            line,
            self,
            bytes_max=service.config.write_buffer_bytes_per_connection_max,
            crypto_failure=crypto_failure,
            loop=service.loop,
            now_ms=service.clock.wall_ms,
        )
        self._growth = Growth(service, self._add_partitions)

    # --- what each kind does its own way

    async def _open_new(self, topic: TopicName, partition: int) -> None:
        """Open a partition that has come, from its beginning."""
        raise NotImplementedError

    def _obey(self, asked: Command) -> None:
        """Do what a text asks that is no question."""
        raise NotImplementedError

    def wanted(self) -> bool:
        """Whether the client may get another message."""
        raise NotImplementedError

    def filtered(self, source: Source, text: Text) -> bool:  # noqa: ARG002 - a reader wants all
        """Whether a message is not for the client."""
        return False

    def sent(self, source: Source, text: Text) -> None:
        """Note that a message was sent."""
        raise NotImplementedError

    def _top_up(self) -> None:
        """Grant every source its share of what the client wants."""
        raise NotImplementedError

    # --- topics

    async def _partitions(self, topic: TopicName) -> Iterable[tuple[TopicName, int]]:
        """Return what a topic consists of, with its number; -1: it has no partitions.

        If it has some, more are opened when they come.
        """
        count = 0
        if topic.partition < 0:
            count = await self._service.port.partitions(topic, create=True)
            if count:
                self._growth.watch(topic, count)
        if not count:
            return [(topic, -1)]
        return [(topic.partition_name(number), number) for number in range(count)]

    async def _add_partitions(self, topic: TopicName, known: int, count: int) -> None:
        for partition in range(known, count):
            await self._open_new(topic.partition_name(partition), partition)
        self._inbox.pump()

    def _source(self, request: SubscribeRequest, partition: int) -> Source:
        source = Source(self, request, partition, self._service)
        self._sources.append(source)
        return source

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
            each = [source.ended and not source.queued for source in self._sources]
            reached = bool(each) and all(each)  # of a pattern, the first topic may be yet to come
            self._line.send(end_of_topic(reached=reached))
        elif decoded.type == "ping":
            self._line.send(PONG)
        else:
            self._obey(decoded)

    def flush(self) -> None:
        """Send what the client has room for now."""
        self._inbox.pump()

    def resume(self) -> None:
        """Send on: the client's socket has room again."""
        self._inbox.pump()

    def progress(self) -> None:
        """Ask for more, as far as there is room for it."""
        self._top_up()
        for source in self._sources:
            if self._inbox.full:
                return
            source.resume()

    def _share(self) -> int:
        """Return how many messages each source may be ahead of the client."""
        return max(self._queue // max(len(self._sources), 1), 1)

    # --- a source's news

    def take(self, source: Source, run: Run, selection: Selection) -> bool:
        """Take entries of a source."""
        return self._inbox.add(source, run, selection)

    def lost(self, source: Source) -> None:
        """Forget what was not sent: it comes again."""
        self._inbox.forget(source)

    def returned(self, source: Source) -> None:  # noqa: ARG002 - all get their share
        """Let it send."""
        self._inbox.pump()

    def gave_up(self, source: Source, error: Exception) -> None:
        """End: a part of what the client wants does not come any more."""
        self._line.fail(CloseCode.INTERNAL, f"{source.request.topic}: {error}")
