"""Valid frames of every kind, made by the generated protobuf code, for tests to use and to damage.

The generated code is the independent witness here: nothing in this file uses what it tests.
"""

from random import Random
from struct import pack

from crc32c import crc32c
from google.protobuf.message import Message

from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.broker.wire.pulsar.walker import MESSAGES_PER_BATCH_MAX

NOW_MS = 1_763_880_000_123


def seeded(seed: int) -> Random:
    """Return a source of numbers that a seed repeats."""
    return Random(seed)


def metadata(sequence_id: int = 7, **fields: object) -> api.MessageMetadata:
    """Return metadata with the three fields that all have, and some more."""
    made = api.MessageMetadata(
        producer_name="standalone-0-12", sequence_id=sequence_id, publish_time=NOW_MS
    )
    made.MergeFrom(api.MessageMetadata(**fields))  # type: ignore[arg-type]
    return made


def frame(command: bytes, entry: bytes = b"") -> bytes:
    """Return a frame."""
    return pack(">II", 4 + len(command) + len(entry), len(command)) + command + entry


def entry(metadata_: bytes, payload: bytes, *, checksum: bool = True) -> bytes:
    """Return what stands behind the command of a SEND."""
    body = pack(">I", len(metadata_)) + metadata_ + payload
    return (b"\x0e\x01" + pack(">I", crc32c(body)) if checksum else b"") + body


def send(
    producer_id: int = 3,
    sequence_id: int = 7,
    payload: bytes = b"hello",
    metadata_: api.MessageMetadata | None = None,
    **fields: object,
) -> bytes:
    """Return a SEND."""
    command = api.BaseCommand(
        type=api.BaseCommand.SEND,
        send=api.CommandSend(producer_id=producer_id, sequence_id=sequence_id, **fields),  # type: ignore[arg-type]
    )
    made = metadata(sequence_id) if metadata_ is None else metadata_
    return frame(command.SerializeToString(), entry(made.SerializeToString(), payload))


def shuffled(message: Message, random: Random) -> bytes:
    """Return a message with its fields in some other order, which protobuf allows."""
    pieces: dict[int, list[bytes]] = {}
    for field, value in message.ListFields():
        repeated = not isinstance(value, int | str | bytes | float | Message)
        for each in value if repeated else (value,):
            if isinstance(each, Message):
                content = shuffled(each, random)
                piece = varint(field.number << 3 | 2) + varint(len(content)) + content
            else:
                alone = type(message)()
                if repeated:
                    getattr(alone, field.name).append(each)
                else:
                    setattr(alone, field.name, each)
                piece = alone.SerializePartialToString()
            pieces.setdefault(field.number, []).append(piece)
    # Values of one field keep their order: it means something.
    order = [number for number, values in pieces.items() for _ in values]
    random.shuffle(order)
    return b"".join(pieces[number].pop(0) for number in order)


def unknown_field(random: Random) -> bytes:
    """Return a field that no version of the protocol has."""
    number = random.choice((69, 150, 2000, 2**29 - 1))
    kind = random.choice((0, 1, 2, 5))
    value = {
        0: varint(random.getrandbits(random.choice((1, 8, 64)))),
        1: random.randbytes(8),
        2: b"\x03abc",
        5: random.randbytes(4),
    }[kind]
    return varint(number << 3 | kind) + value


def random_frame(random: Random) -> bytes:
    """Return some frame that a client may send: valid, often unusual."""
    kind = random.random()
    entry_ = b""
    if kind < 0.5:
        command = api.BaseCommand(type=api.BaseCommand.SEND, send=_random_send(random))
        made = _bytes_of(_random_metadata(random), random)
        entry_ = entry(made, random.randbytes(random.choice((0, 1, 5, 300))))
        if random.random() < 0.2:
            entry_ = entry_[6:]
    elif kind < 0.7:
        command = api.BaseCommand(type=api.BaseCommand.ACK, ack=_random_ack(random))
    elif kind < 0.8:
        command = api.BaseCommand(type=api.BaseCommand.FLOW)
        command.flow.consumer_id = _random_number(random)
        command.flow.messagePermits = _random_number(random) % 2**32
    else:
        command = random.choice(_COLD)(random)
    return frame(_bytes_of(command, random), entry_)


def _random_send(random: Random) -> api.CommandSend:
    made = api.CommandSend(
        producer_id=random.choice((0, 3, 3, 3, 127, 128, 300, 2**64 - 1)),
        sequence_id=_random_number(random),
    )
    if random.random() < 0.4:
        made.num_messages = random.choice((0, 1, 5, 1000, -1))
    if random.random() < 0.3:
        made.highest_sequence_id = _random_number(random)
    if random.random() < 0.1:
        made.is_chunk = True
    if random.random() < 0.1:
        made.txnid_most_bits = _random_number(random)
    if random.random() < 0.1:
        made.message_id.ledgerId, made.message_id.entryId = 4, 5
    return made


def _random_metadata(random: Random) -> api.MessageMetadata:
    made = metadata(_random_number(random))
    made.producer_name = random.choice(("", "p", "standalone-0-12", "x" * 127, "y" * 128))
    made.publish_time = random.choice((NOW_MS, NOW_MS + 1, NOW_MS, 0, 2**35, 2**42, 2**64 - 1))
    for name, value in (
        ("partition_key", random.choice(("", "key", "a2V5", "a2V5=", "schlüssel"))),
        ("partition_key_b64_encoded", True),
        ("ordering_key", random.choice((b"", b"order", b"\xff\x00"))),
        ("compression", api.LZ4),
        ("uncompressed_size", 1000),
        ("num_messages_in_batch", random.choice((1, 2, 1000, MESSAGES_PER_BATCH_MAX))),
        ("event_time", NOW_MS),
        ("schema_version", b"\0" * 8),
        ("deliver_at_time", random.choice((NOW_MS + 5000, -1, 0))),
        ("marker_type", 21),
        ("txnid_least_bits", 9),
        ("txnid_most_bits", 0),
        ("highest_sequence_id", 50),
        ("num_chunks_from_msg", random.choice((1, 3))),
        ("chunk_id", random.choice((0, 2))),
        ("replicated_from", "other"),
        ("uuid", "u" * 200),
    ):
        if random.random() < 0.15:
            setattr(made, name, value)
    for _ in range(random.choice((0, 0, 0, 1, 3))):
        made.properties.add(key="name", value="value" * random.choice((1, 40)))
    if random.random() < 0.1:
        made.encryption_keys.add(key="k", value=b"v")
    return made


def _random_ack(random: Random) -> api.CommandAck:
    made = api.CommandAck(
        consumer_id=_random_number(random),
        ack_type=random.choice((api.CommandAck.Individual, api.CommandAck.Cumulative)),
    )
    for _ in range(random.choice((0, 1, 1, 3, 40))):
        id_ = made.message_id.add(ledgerId=_random_number(random), entryId=_random_number(random))
        if random.random() < 0.3:
            id_.ack_set.extend(random.choice(((-1,), (5, 0), (2**63 - 1, -(2**63)))))
        if random.random() < 0.3:
            id_.partition = random.choice((-1, 3))
        if random.random() < 0.1:
            id_.first_chunk_message_id.ledgerId = id_.first_chunk_message_id.entryId = 1
    if random.random() < 0.3:
        made.request_id = _random_number(random)
    if random.random() < 0.1:
        made.validation_error = api.CommandAck.DecryptionError
    if random.random() < 0.1:
        made.txnid_least_bits = 5
    return made


_COLD = (
    lambda random: api.BaseCommand(type=api.BaseCommand.PING, ping=api.CommandPing()),
    lambda random: api.BaseCommand(
        type=api.BaseCommand.CLOSE_PRODUCER,
        close_producer=api.CommandCloseProducer(producer_id=3, request_id=_random_number(random)),
    ),
    lambda random: api.BaseCommand(
        type=api.BaseCommand.LOOKUP,
        lookupTopic=api.CommandLookupTopic(topic="persistent://a/b/ç", request_id=1),
    ),
    lambda random: api.BaseCommand(
        type=api.BaseCommand.SEEK,
        seek=api.CommandSeek(
            consumer_id=1,
            request_id=2,
            message_id=api.MessageIdData(ledgerId=2**64 - 1, entryId=2**64 - 1),
        ),
    ),
)


def _random_number(random: Random) -> int:
    return random.getrandbits(random.choice((1, 7, 8, 14, 21, 22, 31, 35, 63, 64)))


def _bytes_of(message: Message, random: Random) -> bytes:
    """Return a message: mostly as libraries write it, sometimes in any order, with more in it."""
    kind = random.random()
    if kind < 0.7:
        return message.SerializeToString()
    if kind < 0.9:
        return shuffled(message, random)
    return unknown_field(random) + message.SerializeToString() + unknown_field(random)


def varint(value: int) -> bytes:
    """Return a number as a varint, the long way."""
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes((*encoded, value))
