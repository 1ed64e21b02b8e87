"""Messages that nobody could process go to another topic, with a note where they come from.

    properties   those of the message, REAL_TOPIC and ORIGIN_MESSAGE_ID
    key, time    those of the message

The names are those of Pulsar's client libraries, so that their users find what they know.
"""

import asyncio

from magnetar.broker.doors.websocket.batch import add_properties
from magnetar.broker.doors.websocket.intake import Text
from magnetar.broker.doors.websocket.line import Line
from magnetar.broker.doors.websocket.outbox import Outbox
from magnetar.broker.doors.websocket.service import Service
from magnetar.broker.port import ProducerRequest
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.broker.wire.pulsar.made import made
from magnetar.names import TopicName

TIMEOUT_S = 30.0
"""For a dead letter to be stored. After that its message is delivered once more."""


class DeadLetters:
    """The dead letter topic of one consumer. Opened when the first message goes there."""

    def __init__(self, service: Service, topic: TopicName, line: Line) -> None:
        self._service = service
        self._topic = topic
        self._line = line
        self._outbox: Outbox | None = None
        self._at = 0
        self._opening = asyncio.Lock()

    async def add(self, origin: TopicName, partition: int, text: Text) -> None:
        """Return once a message is stored.

        Raises:
            PortError: it cannot be.
            TimeoutError: it takes too long.
        """
        async with asyncio.timeout(TIMEOUT_S):
            outbox = await self._opened()
            self._at = (self._at + 1) % len(outbox.lanes)
            lane = outbox.lanes[self._at]
            sequence_id = lane.next_sequence_id
            lane.next_sequence_id += 1
            metadata = api.MessageMetadata(
                producer_name=lane.name,
                sequence_id=sequence_id,
                publish_time=self._service.clock.wall_ms(),
                partition_key_b64_encoded=text.message.key_is_base64,
                null_value=text.message.null_value,
            )
            properties = dict(text.message.properties)
            properties.setdefault("REAL_TOPIC", str(origin.base))
            properties.setdefault("ORIGIN_MESSAGE_ID", _place(text, partition))
            add_properties(metadata, properties)
            if text.message.key is not None:
                metadata.partition_key = text.message.key
            if text.message.ordering_key is not None:
                metadata.ordering_key = text.message.ordering_key
            if text.message.event_time_ms:
                metadata.event_time = text.message.event_time_ms
            stored: asyncio.Future[None] = self._service.loop.create_future()

            def answered(_ledger: int, _entry: int, error: Exception | None) -> None:
                if not stored.done():
                    if error is None:
                        stored.set_result(None)
                    else:
                        stored.set_exception(error)

            outbox.put(lane, made(metadata, text.message.payload), answered, TIMEOUT_S)
            outbox.flush()
            await stored

    async def _opened(self) -> Outbox:
        async with self._opening:
            if self._outbox is None:
                count = 0
                if self._topic.partition < 0:
                    count = await self._service.port.partitions(self._topic, create=True)
                topics = [self._topic.partition_name(i) for i in range(count)] or [self._topic]
                outbox = Outbox(
                    self._service,
                    [self._request(each) for each in topics],
                    failed=self._forget,
                )
                try:
                    await outbox.open()
                except BaseException:
                    await outbox.close()
                    raise
                self._outbox = outbox
            return self._outbox

    def _request(self, topic: TopicName) -> ProducerRequest:
        return ProducerRequest(
            topic=topic,
            client_address=self._line.address,
            caller=self._line.caller,
            owner=self._line.owner,
        )

    def _forget(self, _error: Exception) -> None:
        """Open anew for the next message."""
        self._outbox = None

    async def close(self) -> None:
        """Leave."""
        if self._outbox is not None:
            await self._outbox.close()


def _place(text: Text, partition: int) -> str:
    """Return a message's id as Java prints it."""
    place = f"{text.entry.ledger}:{text.entry.entry}:{partition}"
    return place if text.batch_index < 0 else f"{place}:{text.batch_index}"
