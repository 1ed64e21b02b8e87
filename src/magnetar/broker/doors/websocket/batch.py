"""Messages become entries: one each, or several in one, as a producer library would do it.

    message ──▶ MessageMetadata | payload
    batch   ──▶ MessageMetadata, a count | size | SingleMessageMetadata | payload | ...

A batch holds messages of one key, or without any: Key_Shared looks at nothing else of an entry.
Delayed messages, and large ones, go alone. Source: the Pulsar binary protocol, batches and chunks.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from magnetar.broker.doors.websocket.options import EncryptionKey, ProducerOptions
from magnetar.broker.doors.websocket.shapes import Outgoing
from magnetar.broker.run import Bytes
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.broker.wire.pulsar.made import Made, made
from magnetar.broker.wire.pulsar.metadata import batch_contents, compress

BATCH_BYTES_MAX = 128 * 1024
"""Java's number."""
BATCH_MESSAGES_MAX = 10_000
"""Of a batch that a client does not bound itself."""


class Batch:
    """Messages that will be one entry."""

    def __init__(self, messages_max: int) -> None:
        """Take at most so many; 0: as many as make sense."""
        self.messages: list[Outgoing] = []
        self.publish_time_ms = 0
        self._messages_max = min(messages_max or BATCH_MESSAGES_MAX, BATCH_MESSAGES_MAX)
        self._bytes = 0

    @property
    def full(self) -> bool:
        """Whether nothing more fits."""
        return len(self.messages) >= self._messages_max or self._bytes >= BATCH_BYTES_MAX

    def fits(self, message: Outgoing) -> bool:
        """Return whether a message may come behind those that are in it."""
        if not self.messages:
            return True
        size = self._bytes + size_of(message)
        return size <= BATCH_BYTES_MAX and message.key == self.messages[0].key

    def add(self, message: Outgoing, publish_time_ms: int) -> None:
        """Take a message."""
        if not self.messages:
            self.publish_time_ms = publish_time_ms
        self.messages.append(message)
        self._bytes += size_of(message)


def size_of(message: Outgoing) -> int:
    """Return about how many bytes a message takes."""
    pairs = sum(len(name) + len(value) + 8 for name, value in message.properties.items())
    return len(message.payload) + pairs + len(message.key or "") + 32


def goes_alone(message: Outgoing) -> bool:
    """Return whether a message must not be in a batch."""
    return bool(
        message.deliver_at_ms
        or message.deliver_after_ms
        or message.replicate_to
        or size_of(message) > BATCH_BYTES_MAX
    )


class Stamp(NamedTuple):
    """What an entry says of how it came to be."""

    producer_name: str
    sequence_id: int
    """Of its first message; those behind have the next ones."""
    publish_time_ms: int


def alone(message: Outgoing, payload: Bytes, options: ProducerOptions, stamp: Stamp) -> Made:
    """Return an entry of one message. `payload` is compressed already, if it has to be."""
    metadata = _metadata(stamp)
    now_ms = stamp.publish_time_ms
    add_properties(metadata, message.properties)
    if message.key is not None:
        metadata.partition_key = message.key
    if message.event_time_ms:
        metadata.event_time = message.event_time_ms
    metadata.replicate_to.extend(message.replicate_to)
    if message.deliver_after_ms:
        metadata.deliver_at_time = min(now_ms + message.deliver_after_ms, 2**63 - 1)
    elif message.deliver_at_ms:
        metadata.deliver_at_time = message.deliver_at_ms
    if options.encryption_keys:
        _add_encryption(metadata, message, options.encryption_keys)
    elif options.compression:
        metadata.compression = options.compression
        metadata.uncompressed_size = len(message.payload)
    return made(metadata, payload)


def together(messages: Sequence[Outgoing], options: ProducerOptions, stamp: Stamp) -> Made:
    """Return an entry of several messages."""
    contents = batch_contents(
        (_single(message, stamp.sequence_id + index), message.payload)
        for index, message in enumerate(messages)
    )
    metadata = _metadata(stamp)
    metadata.highest_sequence_id = stamp.sequence_id + len(messages) - 1
    metadata.num_messages_in_batch = len(messages)
    if messages[0].key is not None:
        metadata.partition_key = messages[0].key
    payload: Bytes = contents
    if options.compression:
        metadata.compression = options.compression
        metadata.uncompressed_size = len(contents)
        payload = compress(contents, options.compression)
    return made(metadata, payload, len(messages))


def _metadata(stamp: Stamp) -> api.MessageMetadata:
    return api.MessageMetadata(
        producer_name=stamp.producer_name,
        sequence_id=stamp.sequence_id,
        publish_time=stamp.publish_time_ms,
    )


def _single(message: Outgoing, sequence_id: int) -> api.SingleMessageMetadata:
    single = api.SingleMessageMetadata(sequence_id=sequence_id)
    add_properties(single, message.properties)
    if message.key is not None:
        single.partition_key = message.key
    if message.event_time_ms:
        single.event_time = message.event_time_ms
    return single


def add_properties(
    metadata: api.MessageMetadata | api.SingleMessageMetadata, properties: Mapping[str, str]
) -> None:
    """Write properties into metadata."""
    for name, value in properties.items():
        metadata.properties.add(key=name, value=value)


def _add_encryption(
    metadata: api.MessageMetadata, message: Outgoing, keys: Mapping[str, EncryptionKey]
) -> None:
    """Say how the client has encrypted. Its order is compress, then encrypt."""
    for name, key in keys.items():
        each = metadata.encryption_keys.add(key=name, value=key.keyValue)
        for pair_name, value in (key.metadata or {}).items():
            each.metadata.add(key=pair_name, value=value)
    if message.encryption_param is not None:
        metadata.encryption_param = message.encryption_param
    if message.uncompressed_size is not None:
        metadata.compression = message.compression
        metadata.uncompressed_size = message.uncompressed_size
