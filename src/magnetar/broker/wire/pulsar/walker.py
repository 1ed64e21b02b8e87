"""The walker: the frames of one socket read, all at once.

    SEND  size u32 | size u32 | 08 06 32 n | 08 producer 10 sequence [18 messages] ...
          | 0e 01 | crc32c u32 | metadata_size u32 | 0a n name 10 sequence 18 time ... | payload
                                └──────────── the body: offset, length ────────────────────────┘
    ACK   size u32 | size u32 | 08 0a 52 n | 08 consumer 10 type (1a n | 08 ledger 10 entry ...)*
    FLOW  size u32 | size u32 | 08 0b 5a n | 08 consumer 10 permits

Every SEND becomes one row of a run over the caller's buffer; nothing is copied, and no
protobuf object is made. The forms drawn above are what clients send, because libraries
write fields in the order of their numbers. They are read by hand; a command in any other
form is read by protobuf. Metadata is always read by hand, since the broker wants a few of
its fields and must not pay for the rest.

SENDs, acknowledgements and flow do not wait for each other, but all of them must keep their
place before and after any other command (CLOSE_PRODUCER, SEEK). So such a command ends the walk.

Limits stand before trust: a frame's size is checked as soon as its four bytes are there. A
damaged frame ends the walk too, and raises when it is the first: what came before it counts.

Written in plain Python and called once per read. Its loop is as flat as it is because a
call costs as much as reading four fields; see docs/performance.md before making it prettier.
"""

import struct
from array import array
from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import NamedTuple, NoReturn

from crc32c import crc32c

from magnetar.broker.entry import EntryFlags, TransactionId
from magnetar.broker.port import Acknowledged, Neighbours
from magnetar.broker.run import ROW, TRANSACTION, Run
from magnetar.broker.wire.pulsar.fields import (
    BYTES,
    FIXED32,
    FIXED64,
    I64_END,
    TAG_END,
    VARINT,
    int32,
    read_field,
    read_varint,
    signed,
)
from magnetar.broker.wire.pulsar.frames import (
    CHECKSUM_MAGIC,
    COMMAND_BYTES_MAX,
    FRAME_BYTES_MAX,
    FrameError,
    decode_command,
    type_name,
)
from magnetar.broker.wire.pulsar.generated.PulsarApi_pb2 import (
    BaseCommand,
    CommandAck,
    CommandSend,
)
from magnetar.broker.wire.pulsar.keys import key_hash
from magnetar.broker.wire.pulsar.stretch import (
    FRAMES_MIN,
    IDS_MIN,
    read_ids_alike,
    take_alike,
)

_head = struct.Struct(">IIIBBB").unpack_from
_HEAD_SIZE = 15
"""Sizes, then `type tag, type, contents tag, contents size` as one number, then three bytes of the
contents. The shortest SEND is longer than this."""
_sizes = struct.Struct(">II").unpack_from
_size = struct.Struct(">I").unpack_from
_checksum_head = struct.Struct(">HII").unpack_from
_eight_bytes = struct.Struct("<Q").unpack_from
_pack_row = ROW.pack

_SEND_TAGS = 0x080632
_ACK_TAGS = 0x080A52
_FLOW_TAGS = 0x080B5A

STRETCH_TRIES = 3
"""How often frames that are alike are looked for in vain before all are taken one by one."""

MESSAGES_PER_BATCH_MAX = 64 * 1024 * 1024 // 6
"""More than fit: each message of a batch takes at least 6 bytes (a size and a metadata that
says 0), and no setting allows entries above 64 MiB. Compressed, more would fit, but clients close
a batch after some thousands. Everything counts messages: permits, indexes, statistics."""
_ENTRY_BYTES_MIN = 10
"""What is behind the command of a SEND at the least: a size and three fields of metadata."""

_BATCH = int(EntryFlags.BATCH)
_ENCRYPTED = int(EntryFlags.ENCRYPTED)
_CHUNK = int(EntryFlags.CHUNK)
_LAST_CHUNK = int(EntryFlags.LAST_CHUNK)
_KEYED = int(EntryFlags.KEYED)
_MARKER = int(EntryFlags.MARKER)
_REPLICATED = int(EntryFlags.REPLICATED)
_TRANSACTIONAL = int(EntryFlags.TRANSACTIONAL)

_ACK_TYPES = frozenset(CommandAck.AckType.values())
_VALIDATION_ERRORS = frozenset(CommandAck.ValidationError.values())

_NO_TRANSACTION = TransactionId(0, 0)

_SEEN_NAME, _SEEN_SEQUENCE, _SEEN_TIME = 1, 2, 4
_SEEN_ALL = _SEEN_NAME | _SEEN_SEQUENCE | _SEEN_TIME

# The fields of MessageMetadata that a row needs: number << 3 | wire type.
_PRODUCER_NAME = 1 << 3 | BYTES
_SEQUENCE_ID = 2 << 3 | VARINT
_PUBLISH_TIME = 3 << 3 | VARINT
_REPLICATED_FROM = 5 << 3 | BYTES
_PARTITION_KEY = 6 << 3 | BYTES
_NUM_MESSAGES_IN_BATCH = 11 << 3 | VARINT
_ENCRYPTION_KEYS = 13 << 3 | BYTES
_PARTITION_KEY_B64_ENCODED = 17 << 3 | VARINT
_ORDERING_KEY = 18 << 3 | BYTES
_DELIVER_AT_TIME = 19 << 3 | VARINT
_NOT_NEEDED = frozenset(
    # compression, uncompressed_size, event_time, highest_sequence_id
    (8 << 3 | VARINT, 9 << 3 | VARINT, 12 << 3 | VARINT, 24 << 3 | VARINT)
)
_MARKER_TYPE = 20 << 3 | VARINT
_TXNID_LEAST_BITS = 22 << 3 | VARINT
_TXNID_MOST_BITS = 23 << 3 | VARINT
_NUM_CHUNKS = 27 << 3 | VARINT
_CHUNK_ID = 29 << 3 | VARINT

# `18` and six bytes of which all but the last have their top bit set: a publish time from
# 2004 to 2109, as seen through an 8-byte little-endian load.
_TIME_LOAD = 0x00FFFFFFFFFFFFFF
_TIME_FORM_MASK = 0x00808080808080FF
_TIME_FORM = 0x0000808080808018


class Ack(NamedTuple):
    """One ACK."""

    consumer_id: int
    ids: Sequence[Acknowledged]
    cumulative: bool = False
    request_id: int | None = None
    """Set: the client wants an ACK_RESPONSE."""
    validation_error: int | None = None
    """Why the client could not use the message (CommandAck.ValidationError); it is discarded."""
    transaction: TransactionId | None = None


class Flow(NamedTuple):
    """One FLOW: the consumer takes this many more messages."""

    consumer_id: int
    permits: int


class Stray(NamedTuple):
    """A SEND for a producer id that is not open on this connection."""

    producer_id: int
    sequence_id: int


class Broken(NamedTuple):
    """A SEND whose checksum does not match. It is not in the run."""

    producer_id: int
    sequence_id: int
    slot: int
    row: int
    """How many rows of the run came before it."""


class Walk(NamedTuple):
    """What the whole frames of a buffer said, up to the first cold command."""

    run: Run | None
    acks: list[Ack]
    flows: list[Flow]
    strays: list[Stray]
    broken: list[Broken]
    command: BaseCommand | None
    """The command that ended the walk; it came after everything else in here."""
    consumed: int
    """Position after the last frame that was taken."""
    more: bool
    """Walk on from `consumed` at once: there is more than a partial frame. Otherwise read."""
    frame_bytes: int
    """Size of the partial frame at `consumed`, its size field included; 0: not known yet."""


def walk(  # noqa: C901, PLR0912, PLR0915 - flat because it is hot
    buffer: memoryview,
    start: int,
    end: int,
    slots: Mapping[int, int],
    frame_bytes_max: int = FRAME_BYTES_MAX,
) -> Walk:
    """Take the whole frames of `buffer[start:end]`, up to and including one cold command.

    `slots` maps the producer ids open on this connection to what their rows carry in
    `producer`. The rows of the run are its own; its bodies lie in `buffer`. The caller
    walks on from `consumed` while `more` is set.

    Raises:
        FrameError: the first frame's size is out of bounds or its contents do not add up.
    """
    rows: list[bytes | array[int]] = []
    acks: list[Ack] = []
    flows: list[Flow] = []
    strays: list[Stray] = []
    broken: list[Broken] = []
    command: BaseCommand | None = None
    position = start
    frame_bytes = 0
    more = False
    last_time = last_publish_time = 0
    count = 0  # of rows
    row = b""
    last = last_tags = last_producer = -1  # the SEND that the last row was made of
    tries = STRETCH_TRIES
    transactions: dict[int, TransactionId] | None = None  # by row
    try:
        while position < end:
            # --- the frame
            if end - position >= _HEAD_SIZE:
                total_size, command_size, tags, tag, producer_id, next_tag = _head(buffer, position)
            elif end - position >= 4:
                (total_size,) = _size(buffer, position)
                command_size = tags = tag = producer_id = next_tag = 0
            else:
                break
            if total_size > frame_bytes_max:
                _refuse(f"frame of {total_size} bytes, the limit is {frame_bytes_max}")
            frame_end = position + 4 + total_size
            if frame_end > end:
                frame_bytes = 4 + total_size
                break
            if not tags:
                (command_size,) = _size(buffer, position + 4)
            command_end = position + 8 + command_size
            if command_end > frame_end:
                _refuse(f"command of {command_size} bytes in a frame of {total_size}")

            # --- a stretch of frames like the one before
            if (
                producer_id == last_producer
                and tags == last_tags
                and tries
                and end - position >= FRAMES_MIN * (frame_end - position)
            ):
                found = take_alike(buffer, last, row, position, end, frame_bytes_max)
                last_tags = -1
                if found is None or found.frames < FRAMES_MIN:
                    tries -= 1
                if found is not None:
                    rows.append(found.rows)
                    count += found.frames
                    position = found.end
                    continue

            # --- the command
            form = tags >> 8
            usual = False  # written as drawn above
            if form == _SEND_TAGS and tags & 0xFF == command_size - 4 and tag == 0x08:
                at = position + _HEAD_SIZE
                if producer_id > 127 or next_tag != 0x10:
                    producer_id, at = read_varint(buffer, at - 2)
                    next_tag = buffer[at]
                    at += 1
                # Each `- 1` takes back the top bit of the byte before.
                sequence_id = buffer[at]
                at += 1
                if sequence_id > 127:
                    byte = buffer[at]
                    at += 1
                    sequence_id += (byte - 1) << 7
                    if byte > 127:
                        byte = buffer[at]
                        at += 1
                        sequence_id += (byte - 1) << 14
                        if byte > 127:
                            sequence_id, at = read_varint(buffer, at - 3)
                            sequence_id = signed(sequence_id)
                highest_sequence_id = sequence_id
                messages = 1
                flags = 0
                usual = next_tag == 0x10
                while at < command_end:
                    tag = buffer[at]
                    value = buffer[at + 1]
                    at += 2
                    if value > 127:
                        value, at = read_varint(buffer, at - 1)
                    if tag == 0x18:
                        messages = max(int32(value), 1)
                    elif tag == 0x30:
                        highest_sequence_id = signed(value)
                    elif tag in {0x20, 0x28}:
                        flags = _TRANSACTIONAL
                        transactions = transactions or {}
                        most, least = transactions.get(count, _NO_TRANSACTION)
                        most, least = (most, value) if tag == 0x20 else (value, least)
                        transactions[count] = TransactionId(most, least)
                    elif tag not in {0x38, 0x40}:  # is_chunk and marker: the metadata says so
                        usual = False
                        break
                if at != command_end:
                    usual = False
            elif form in {_ACK_TAGS, _FLOW_TAGS}:
                size, at = read_varint(buffer, position + 11)
                if at + size == command_end == frame_end:
                    if form == _ACK_TAGS:
                        acks.append(_read_ack(buffer, at, command_end))
                    else:
                        flows.append(_read_flow(buffer, at, command_end))
                    position = frame_end
                    continue
            if not usual:
                if command_size > COMMAND_BYTES_MAX:
                    _refuse(f"command of {command_size} bytes, the limit is {COMMAND_BYTES_MAX}")
                decoded = decode_command(buffer[position + 8 : command_end])
                if decoded.type != BaseCommand.SEND:
                    if command_end != frame_end:
                        _refuse(
                            f"{frame_end - command_end} stray bytes after a {type_name(decoded)}"
                        )
                    position = frame_end
                    if decoded.type == BaseCommand.ACK:
                        content = memoryview(decoded.ack.SerializeToString())
                        acks.append(_read_ack(content, 0, len(content)))
                        continue
                    if decoded.type == BaseCommand.FLOW:
                        flows.append(Flow(decoded.flow.consumer_id, decoded.flow.messagePermits))
                        continue
                    command = decoded
                    more = position < end
                    break
                producer_id, sequence_id, highest_sequence_id, messages, flags = _send_fields(
                    decoded.send
                )
                if flags:
                    transactions = transactions or {}
                    transactions[count] = TransactionId(
                        decoded.send.txnid_most_bits, decoded.send.txnid_least_bits
                    )
            slot = slots.get(producer_id)
            if slot is None:
                strays.append(Stray(producer_id, sequence_id))
                if transactions:
                    transactions.pop(count, None)
                position = frame_end
                continue

            # --- the entry
            if frame_end - command_end < _ENTRY_BYTES_MIN:
                _refuse(f"a SEND with an entry of {frame_end - command_end} bytes")
            magic, checksum, metadata_size = _checksum_head(buffer, command_end)
            if magic == CHECKSUM_MAGIC:
                body = command_end + 6
                if crc32c(buffer[body:frame_end]) != checksum:
                    broken.append(Broken(producer_id, sequence_id, slot, count))
                    if transactions:
                        transactions.pop(count, None)
                    position = frame_end
                    continue
            else:
                body = command_end
                (metadata_size,) = _size(buffer, body)
                checksum = crc32c(buffer[body:frame_end])
            at = body + 4
            metadata_end = at + metadata_size
            if metadata_end > frame_end:
                _refuse(f"metadata of {metadata_size} bytes in an entry of {frame_end - body}")

            # --- its metadata: name, sequence id and time, which nearly always come like this
            publish_time = deliver_at = key = seen = 0
            size = buffer[at + 1]
            if buffer[at] == 0x0A and size < 128 and metadata_size > size + 10:
                here = at + size + 2
                if buffer[here] == 0x10:
                    here += 1
                    while buffer[here] > 127:
                        here += 1
                    here += 1
                    if here - at - size < 14 and here + 7 <= metadata_end and here + 8 <= end:
                        time = _eight_bytes(buffer, here)[0] & _TIME_LOAD
                        if time != last_time and time & _TIME_FORM_MASK == _TIME_FORM:
                            last_time = time
                            last_publish_time = (
                                (time >> 8 & 0x7F)
                                | (time >> 9 & 0x3F80)
                                | (time >> 10 & 0x1FC000)
                                | (time >> 11 & 0xFE00000)
                                | (time >> 12 & 0x7F0000000)
                                | (time >> 13 & 0x3F800000000)
                            )
                        if time == last_time:
                            publish_time = last_publish_time
                            seen = _SEEN_ALL
                            at = here + 7
            if at != metadata_end or not seen:
                publish_time, deliver_at, key, flags, batch = read_metadata(
                    buffer, at, metadata_end, seen, publish_time, flags
                )
                messages = batch or messages
            if messages > MESSAGES_PER_BATCH_MAX:
                _refuse_batch(messages)
            row = _pack_row(
                body,
                frame_end - body,
                checksum,
                messages,
                key,
                flags,
                slot,
                0,
                sequence_id,
                max(highest_sequence_id, sequence_id),
                publish_time,
                deliver_at,
                0,
                0,
            )
            rows.append(row)
            count += 1
            last, last_tags, last_producer = position, tags, producer_id
            position = frame_end
    except (FrameError, IndexError, struct.error) as error:
        if position == start:
            if isinstance(error, FrameError):
                raise
            raise FrameError("a field runs past the end of its frame") from error
        more = True
    run = Run(bytearray().join(rows), buffer) if rows else None
    if transactions and run is not None:
        _put_transactions(run, transactions)
    return Walk(run, acks, flows, strays, broken, command, position, more, frame_bytes)


def _put_transactions(run: Run, by_row: Mapping[int, TransactionId]) -> None:
    """Number the transactions of a run, and write the numbers into its rows."""
    numbers: dict[TransactionId, int] = {}
    column = run.u32(TRANSACTION)
    for row, each in by_row.items():
        if row < run.count:  # that of a damaged frame is not there
            column[row] = numbers.setdefault(each, len(numbers) + 1)
    run.transactions = list(numbers) or None


def _refuse(message: str) -> NoReturn:
    raise FrameError(message)


def _refuse_batch(messages: int) -> NoReturn:
    _refuse(f"a batch of {messages} messages, allowed: 1 to {MESSAGES_PER_BATCH_MAX}")


def read_metadata(  # noqa: C901, PLR0912, PLR0913, PLR0915, PLR0917 - one branch per field
    buffer: memoryview, at: int, end: int, seen: int, publish_time: int, flags: int
) -> tuple[int, int, int, int, int]:
    """Read what a row needs from `buffer[at:end]`, the fields of a MessageMetadata.

    `seen` and `publish_time` tell what came before `at`. Returns publish time, deliver-at
    time, key hash, flags, and the number of messages if this is a batch, else 0.
    """
    deliver_at = batch = chunks = chunk = 0
    key_start = key_end = ordering_start = ordering_end = -1
    base64 = False
    while at < end:
        tag = buffer[at]
        value = buffer[at + 1]
        at += 2
        if tag > 127:
            tag, at = read_varint(buffer, at - 2)
            value = buffer[at]
            at += 1
        wire_type = tag & 7
        if value > 127 and not tag & 1:  # varints and sizes: their wire types are even
            byte = buffer[at]
            at += 1
            if byte < 128:
                value += (byte - 1) << 7
            else:
                value, at = read_varint(buffer, at - 2)
        if wire_type == VARINT:
            if tag in _NOT_NEEDED:
                continue
            if tag == _NUM_MESSAGES_IN_BATCH:
                batch = int32(value)
                if batch < 1:
                    _refuse_batch(batch)
                flags |= _BATCH
            elif tag == _SEQUENCE_ID:
                seen |= _SEEN_SEQUENCE
            elif tag == _PUBLISH_TIME:
                publish_time = signed(value)
                seen |= _SEEN_TIME
            elif tag == _PARTITION_KEY_B64_ENCODED:
                base64 = value != 0
            elif tag == _DELIVER_AT_TIME:
                deliver_at = max(signed(value), 0)
            elif tag == _NUM_CHUNKS:
                chunks = int32(value)
            elif tag == _CHUNK_ID:
                chunk = int32(value)
            elif tag == _MARKER_TYPE:
                flags |= _MARKER
            elif tag in {_TXNID_LEAST_BITS, _TXNID_MOST_BITS}:
                flags |= _TRANSACTIONAL
        elif wire_type == BYTES:
            start = at
            at += value
            if tag == _PARTITION_KEY:
                key_start, key_end = start, at
            elif tag == _PRODUCER_NAME:
                seen |= _SEEN_NAME
            elif tag == _ORDERING_KEY:
                ordering_start, ordering_end = start, at
            elif tag == _ENCRYPTION_KEYS:
                flags |= _ENCRYPTED
            elif tag == _REPLICATED_FROM:
                flags |= _REPLICATED
        elif wire_type == FIXED64:
            at += 7
        elif wire_type == FIXED32:
            at += 3
        else:
            raise FrameError(f"metadata field with wire type {wire_type}")
        if not 8 <= tag < TAG_END:
            raise FrameError(f"metadata field with tag {tag}")
    if at != end:
        raise FrameError(f"metadata whose last field ends {at - end} bytes after it")
    if seen != _SEEN_ALL:
        raise FrameError("metadata without producer name, sequence id or publish time")
    key = 0
    if ordering_start >= 0:
        key = key_hash(bytes(buffer[ordering_start:ordering_end]))
        flags |= _KEYED
    elif key_start >= 0:
        key = key_hash(bytes(buffer[key_start:key_end]), base64=base64)
        flags |= _KEYED
    if chunks > 1:
        flags |= _CHUNK | _LAST_CHUNK if chunk == chunks - 1 else _CHUNK
    return publish_time, deliver_at, key, flags, batch


def _read_ack(  # noqa: C901, PLR0912 - one branch per field
    buffer: memoryview, at: int, end: int
) -> Ack:
    """Read `buffer[at:end]`, the fields of a CommandAck."""
    consumer_id = kind = -1
    ids: list[Acknowledged] = []
    request_id: int | None = None
    validation_error: int | None = None
    txn_least = txn_most = 0
    transactional = False
    # What libraries write comes first: consumer, type, ids. The loop below knows every form.
    if buffer[at] == 0x08:
        consumer_id, at = read_varint(buffer, at + 1)
    if buffer[at] == 0x10 and buffer[at + 1] in _ACK_TYPES:
        kind = buffer[at + 1]
        at += 2
    neighbours: Neighbours | None = None
    tries = STRETCH_TRIES
    while at < end and buffer[at] == 0x1A:
        first = at
        size, at = read_varint(buffer, at + 1)
        if at + size > end:
            raise FrameError(f"a message id of {size} bytes, {end - at} are left")
        ids.append(_read_id(buffer, at, at + size))
        at += size
        if end - at >= IDS_MIN * (at - first) and tries and not ids[-1].ack_set:
            ledger, entry, _ = ids[-1]
            entries, at = read_ids_alike(buffer, first, at, end)
            after = range(entry + 1, entry + 1 + len(entries))
            if (
                len(ids) == 1
                and entries
                and entries == list(after)
                and (at == end or buffer[at] != 0x1A)
            ):
                neighbours = Neighbours(ledger, range(entry, after.stop))
            else:
                ids += map(Acknowledged, repeat(ledger), entries)
            tries -= not entries
    while at < end:
        tag, value, at = read_field(buffer, at, end)
        if tag == 0x1A:
            if neighbours is not None:
                ids, neighbours = list(neighbours), None
            ids.append(_read_id(buffer, value, at))
        elif tag == 0x08:
            consumer_id = value
        elif tag == 0x10 and value in _ACK_TYPES:
            kind = value
        elif tag == 0x40:
            request_id = value
        elif tag == 0x20 and value in _VALIDATION_ERRORS:
            validation_error = value
        elif tag == 0x30:
            txn_least, transactional = value, True
        elif tag == 0x38:
            txn_most, transactional = value, True
    if consumer_id < 0 or kind < 0 or at > end:
        raise FrameError("an ACK without consumer id or type")
    return Ack(
        consumer_id,
        neighbours or ids,
        kind == CommandAck.Cumulative,
        request_id,
        validation_error,
        TransactionId(txn_most, txn_least) if transactional else None,
    )


def _read_id(  # noqa: C901 - one branch per field
    buffer: memoryview, at: int, end: int
) -> Acknowledged:
    """Read `buffer[at:end]`, the fields of a MessageIdData."""
    ledger = entry = None
    ack_set: list[int] = []
    if end - at >= 4 and buffer[at] == 0x08:
        ledger, at = read_varint(buffer, at + 1)
        if buffer[at] == 0x10:
            entry, at = read_varint(buffer, at + 1)
            if at == end and ledger < I64_END and entry < I64_END:
                return Acknowledged(ledger, entry)
    while at < end:
        tag, value, at = read_field(buffer, at, end)
        if tag == 0x08:
            ledger = value
        elif tag == 0x10:
            entry = value
        elif tag == 0x28:
            ack_set.append(signed(value))
        elif tag == 0x2A:  # the same, packed
            while value < at:
                word, value = read_varint(buffer, value)
                ack_set.append(signed(word))
            if value > at:
                raise FrameError("an ack set that ends after its field")
    if ledger is None or entry is None or at > end:
        raise FrameError("a message id without ledger or entry")
    return Acknowledged(signed(ledger), signed(entry), tuple(ack_set))


def _read_flow(buffer: memoryview, at: int, end: int) -> Flow:
    """Read `buffer[at:end]`, the fields of a CommandFlow."""
    consumer_id = permits = -1
    while at < end:
        tag, value, at = read_field(buffer, at, end)
        if tag == 0x08:
            consumer_id = value
        elif tag == 0x10:
            permits = value & 0xFFFFFFFF
    if consumer_id < 0 or permits < 0:
        raise FrameError("a FLOW without consumer id or permits")
    return Flow(consumer_id, permits)


def _send_fields(send: CommandSend) -> tuple[int, int, int, int, int]:
    """Return what the loop of `walk` reads from a SEND: ids, highest id, messages, flags."""
    sequence_id = signed(send.sequence_id)
    return (
        send.producer_id,
        sequence_id,
        signed(send.highest_sequence_id) if send.HasField("highest_sequence_id") else sequence_id,
        max(send.num_messages, 1),
        _TRANSACTIONAL
        if send.HasField("txnid_least_bits") or send.HasField("txnid_most_bits")
        else 0,
    )
