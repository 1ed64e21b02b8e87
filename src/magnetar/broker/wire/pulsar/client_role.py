"""What a client says to a broker: one function per command, arguments in, one frame out.

The other half of `commands` and `replies`, for benchmarks, tests and whatever speaks to
another broker. What a broker answers is read with `frames.FrameReader`; `tally` counts
frames without opening them, for load generators that must not be the bottleneck.
Source: the Pulsar binary protocol specification, fields by number in PulsarApi.proto.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence

from crc32c import crc32c

from magnetar.broker.entry import EntryId
from magnetar.broker.run import Bytes
from magnetar.broker.wire.pulsar.commands import PROTOCOL_VERSION, fill_message_id
from magnetar.broker.wire.pulsar.fields import encode_varint
from magnetar.broker.wire.pulsar.frames import (
    CHECKSUM_MAGIC,
    encode_command,
    encode_payload_frame,
)
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api

CALLER_KEY = "magnetar-caller"
"""Key in the metadata of PRODUCER and SUBSCRIBE under which a broker process tells its sibling
in whose name it asks. From anybody else it means nothing, and it is never passed on."""

_U64_MASK = 2**64 - 1
_NO_PROPERTIES: Mapping[str, str] = {}
_SIZES = struct.Struct(">II")
_ENTRY_HEAD = struct.Struct(">HII")
_U32 = struct.Struct(">I")
_FRAME_KIND = struct.Struct(">IIBB")


# --- connection --------------------------------------------------------------------------


def connect(
    client_version: str = "magnetar",
    protocol_version: int = PROTOCOL_VERSION,
    *,
    auth_method: str = "",
    auth_data: bytes = b"",
    proxied_to: str = "",
) -> bytes:
    """Begin: the first command of every connection; through a proxy, to host:port behind it."""
    command = api.BaseCommand(type=api.BaseCommand.CONNECT)
    command.connect.client_version = client_version
    command.connect.protocol_version = protocol_version
    if auth_method:
        command.connect.auth_method_name = auth_method
        command.connect.auth_data = auth_data
    if proxied_to:
        command.connect.proxy_to_broker_url = proxied_to
    command.connect.feature_flags.supports_auth_refresh = True
    command.connect.feature_flags.supports_broker_entry_metadata = True
    return encode_command(command)


# --- lookup ------------------------------------------------------------------------------


def lookup(
    request_id: int, topic: str, *, authoritative: bool = False, listener: str = ""
) -> bytes:
    """Ask which broker serves a topic."""
    command = api.BaseCommand(type=api.BaseCommand.LOOKUP)
    command.lookupTopic.topic = topic
    command.lookupTopic.request_id = request_id
    command.lookupTopic.authoritative = authoritative
    if listener:
        command.lookupTopic.advertised_listener_name = listener
    return encode_command(command)


def partitions(request_id: int, topic: str, *, create: bool = True) -> bytes:
    """Ask how many partitions a topic has."""
    command = api.BaseCommand(type=api.BaseCommand.PARTITIONED_METADATA)
    command.partitionMetadata.topic = topic
    command.partitionMetadata.request_id = request_id
    command.partitionMetadata.metadata_auto_creation_enabled = create
    return encode_command(command)


def topics_of_namespace(
    request_id: int,
    namespace: str,
    mode: api.CommandGetTopicsOfNamespace.Mode = api.CommandGetTopicsOfNamespace.PERSISTENT,
    *,
    known_hash: str = "",
) -> bytes:
    """Ask for the topics of a namespace; with a hash, only if the list is another one."""
    command = api.BaseCommand(type=api.BaseCommand.GET_TOPICS_OF_NAMESPACE)
    request = command.getTopicsOfNamespace
    request.request_id = request_id
    request.namespace = namespace
    request.mode = mode
    if known_hash:
        request.topics_hash = known_hash
    return encode_command(command)


# --- producing ---------------------------------------------------------------------------


def producer(  # noqa: PLR0913 - the command has these fields
    request_id: int,
    producer_id: int,
    topic: str,
    *,
    name: str | None = None,
    epoch: int = 0,
    access_mode: api.ProducerAccessMode = api.Shared,
    topic_epoch: int | None = None,
    initial_subscription: str = "",
) -> bytes:
    """Open a producer. Without a name the broker makes one up."""
    command = api.BaseCommand(type=api.BaseCommand.PRODUCER)
    request = command.producer
    request.topic = topic
    request.producer_id = producer_id
    request.request_id = request_id
    if name is not None:
        request.producer_name = name
    request.user_provided_producer_name = name is not None
    request.epoch = epoch
    request.producer_access_mode = access_mode
    if topic_epoch is not None:
        request.topic_epoch = topic_epoch
    if initial_subscription:
        request.initial_subscription_name = initial_subscription
    return encode_command(command)


def send(
    producer_id: int,
    metadata: api.MessageMetadata,
    payload: Bytes,
    *,
    sequence_id: int | None = None,
    highest_sequence_id: int | None = None,
) -> bytes:
    """Publish one entry. Sequence id and number of messages are those of the metadata."""
    command = api.BaseCommand(type=api.BaseCommand.SEND)
    command.send.producer_id = producer_id
    command.send.sequence_id = metadata.sequence_id if sequence_id is None else sequence_id
    if metadata.HasField("num_messages_in_batch"):
        command.send.num_messages = metadata.num_messages_in_batch
    if highest_sequence_id is not None:
        command.send.highest_sequence_id = highest_sequence_id
    if metadata.num_chunks_from_msg > 1:
        command.send.is_chunk = True
    return encode_payload_frame(command, metadata.SerializeToString(), payload)


def sends(  # noqa: PLR0913 - what a load generator varies
    producer_id: int,
    first_sequence_id: int,
    count: int,
    payload: Bytes,
    *,
    producer_name: str,
    publish_time_ms: int,
) -> bytes:
    """Publish `count` entries with the same payload and consecutive sequence ids."""
    name = producer_name.encode()
    before = b"\x0a" + encode_varint(len(name)) + name + b"\x10"
    after = b"\x18" + encode_varint(publish_time_ms)
    start = b"\x08" + encode_varint(producer_id) + b"\x10"
    frames: list[Bytes] = []
    for sequence_id in range(first_sequence_id, first_sequence_id + count):
        sequence = encode_varint(sequence_id)
        size = len(start) + len(sequence)
        metadata = before + sequence + after
        checksum = crc32c(payload, crc32c(_U32.pack(len(metadata)) + metadata))
        frames += (
            _SIZES.pack(size + 18 + len(metadata) + len(payload), size + 4),
            b"\x08\x06\x32",
            encode_varint(size),
            start,
            sequence,
            _ENTRY_HEAD.pack(CHECKSUM_MAGIC, checksum, len(metadata)),
            metadata,
            payload,
        )
    return b"".join(frames)


def close_producer(request_id: int, producer_id: int) -> bytes:
    """Close a producer."""
    command = api.BaseCommand(type=api.BaseCommand.CLOSE_PRODUCER)
    command.close_producer.producer_id = producer_id
    command.close_producer.request_id = request_id
    return encode_command(command)


# --- consuming ---------------------------------------------------------------------------


def subscribe(  # noqa: PLR0913 - the command has these fields
    request_id: int,
    consumer_id: int,
    topic: str,
    subscription: str,
    kind: api.CommandSubscribe.SubType = api.CommandSubscribe.Exclusive,
    *,
    consumer_name: str = "",
    durable: bool = True,
    earliest: bool = False,
    start: EntryId | None = None,
    priority: int | None = None,
    properties: Mapping[str, str] = _NO_PROPERTIES,
    epoch: int | None = None,
) -> bytes:
    """Open a consumer."""
    command = api.BaseCommand(type=api.BaseCommand.SUBSCRIBE)
    request = command.subscribe
    request.topic = topic
    request.subscription = subscription
    request.subType = kind
    request.consumer_id = consumer_id
    request.request_id = request_id
    request.durable = durable
    request.initialPosition = (
        api.CommandSubscribe.Earliest if earliest else api.CommandSubscribe.Latest
    )
    if consumer_name:
        request.consumer_name = consumer_name
    if start is not None:
        fill_message_id(request.start_message_id, start)
    if priority is not None:
        request.priority_level = priority
    for key, value in properties.items():
        request.subscription_properties.add(key=key, value=value)
    if epoch is not None:
        request.consumer_epoch = epoch
    return encode_command(command)


def flow(consumer_id: int, permits: int) -> bytes:
    """Take this many more messages."""
    command = api.BaseCommand(type=api.BaseCommand.FLOW)
    command.flow.consumer_id = consumer_id
    command.flow.messagePermits = permits
    return encode_command(command)


def ack(
    consumer_id: int,
    ids: Iterable[EntryId],
    *,
    cumulative: bool = False,
    ack_set: Sequence[int] = (),
    request_id: int | None = None,
) -> bytes:
    """Acknowledge entries. `ack_set` says what of the last one is still to be acknowledged."""
    command = api.BaseCommand(type=api.BaseCommand.ACK)
    command.ack.consumer_id = consumer_id
    command.ack.ack_type = api.CommandAck.Cumulative if cumulative else api.CommandAck.Individual
    for each in ids:
        fill_message_id(command.ack.message_id.add(), each)
    if ack_set:
        command.ack.message_id[-1].ack_set.extend(ack_set)
    if request_id is not None:
        command.ack.request_id = request_id
    return encode_command(command)


def redeliver(consumer_id: int, ids: Iterable[EntryId] = (), epoch: int | None = None) -> bytes:
    """Ask for entries again; none named: for everything this consumer has not acknowledged."""
    command = api.BaseCommand(type=api.BaseCommand.REDELIVER_UNACKNOWLEDGED_MESSAGES)
    request = command.redeliverUnacknowledgedMessages
    request.consumer_id = consumer_id
    for each in ids:
        fill_message_id(request.message_ids.add(), each)
    if epoch is not None:
        request.consumer_epoch = epoch
    return encode_command(command)


def seek(
    request_id: int,
    consumer_id: int,
    *,
    entry: EntryId | None = None,
    publish_time_ms: int | None = None,
) -> bytes:
    """Move a subscription to an entry (inclusive) or to a publish time."""
    command = api.BaseCommand(type=api.BaseCommand.SEEK)
    command.seek.consumer_id = consumer_id
    command.seek.request_id = request_id
    if entry is not None:
        fill_message_id(command.seek.message_id, entry)
    if publish_time_ms is not None:
        command.seek.message_publish_time = publish_time_ms
    return encode_command(command)


def last_message_id(request_id: int, consumer_id: int) -> bytes:
    """Ask where the topic ends."""
    command = api.BaseCommand(type=api.BaseCommand.GET_LAST_MESSAGE_ID)
    command.getLastMessageId.consumer_id = consumer_id
    command.getLastMessageId.request_id = request_id
    return encode_command(command)


def consumer_stats(request_id: int, consumer_id: int) -> bytes:
    """Ask for a consumer's figures."""
    command = api.BaseCommand(type=api.BaseCommand.CONSUMER_STATS)
    command.consumerStats.request_id = request_id
    command.consumerStats.consumer_id = consumer_id
    return encode_command(command)


def unsubscribe(request_id: int, consumer_id: int, *, force: bool = False) -> bytes:
    """Delete the subscription of a consumer."""
    command = api.BaseCommand(type=api.BaseCommand.UNSUBSCRIBE)
    command.unsubscribe.consumer_id = consumer_id
    command.unsubscribe.request_id = request_id
    command.unsubscribe.force = force
    return encode_command(command)


def close_consumer(request_id: int, consumer_id: int) -> bytes:
    """Close a consumer."""
    command = api.BaseCommand(type=api.BaseCommand.CLOSE_CONSUMER)
    command.close_consumer.consumer_id = consumer_id
    command.close_consumer.request_id = request_id
    return encode_command(command)


# --- reading -----------------------------------------------------------------------------


def tally(buffer: memoryview, start: int, end: int) -> tuple[dict[int, int], int]:
    """Count the whole frames of `buffer[start:end]` by command type, without decoding them.

    Also returns the position after the last whole frame. Only for a broker that writes the
    type first, as protobuf libraries do.
    """
    counts: dict[int, int] = {}
    while end - start >= _FRAME_KIND.size:
        total_size, _, _, kind = _FRAME_KIND.unpack_from(buffer, start)
        if start + 4 + total_size > end:
            break
        counts[kind] = counts.get(kind, 0) + 1
        start += 4 + total_size
    return counts, start
