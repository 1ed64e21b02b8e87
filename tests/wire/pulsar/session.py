"""What a client said, gathered from frames: by the walker, and by a slow and plain model of it.

Both give segments. A segment holds everything between two cold commands, and the command
that ends it: within one, SENDs keep their order, and so do ACKs and FLOWs, each for themselves.
"""

from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from struct import unpack
from typing import TypeVar

from crc32c import crc32c
from google.protobuf.message import DecodeError, Message

from magnetar.broker.entry import EntryFlags, TransactionId
from magnetar.broker.wire.pulsar.frames import FRAME_BYTES_MAX, FrameError
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.broker.wire.pulsar.keys import murmur3_32
from magnetar.broker.wire.pulsar.walker import walk

_Message = TypeVar("_Message", bound=Message)


@dataclass
class Segment:
    """What came before a cold command, and the command."""

    sends: list[dict[str, object]] = field(default_factory=list)
    acks: list[object] = field(default_factory=list)
    flows: list[tuple[int, int]] = field(default_factory=list)
    strays: list[tuple[int, int]] = field(default_factory=list)
    broken: list[tuple[int, int, int, int]] = field(default_factory=list)
    command: bytes | None = None

    @property
    def empty(self) -> bool:
        return self == Segment()


def walked(
    data: bytes,
    slots: Mapping[int, int],
    cuts: Iterable[int] = (),
    frame_bytes_max: int = FRAME_BYTES_MAX,
) -> tuple[list[Segment], str]:
    """Feed bytes to the walker in pieces, as a door does; return segments and the error, if any."""
    segments = [Segment()]
    start = 0
    for end in sorted({*cuts, len(data)}):
        # A fresh buffer of just these bytes: reading past the end would be noticed.
        buffer = memoryview(bytearray(data[:end]))
        more = True
        while more:
            try:
                walk_ = walk(buffer, start, end, slots, frame_bytes_max)
            except FrameError as error:
                return segments, str(error)
            assert start <= walk_.consumed <= end
            assert walk_.more or walk_.command is None or walk_.consumed == end
            segment = segments[-1]
            segment.broken += [
                (each.producer_id, each.sequence_id, each.slot, each.row + len(segment.sends))
                for each in walk_.broken
            ]
            if walk_.run is not None:
                for row, envelope in enumerate(walk_.run.envelopes()):
                    send: dict[str, object] = envelope._asdict()
                    named = (None, *(walk_.run.transactions or ()))
                    send["transaction"] = named[envelope.transaction]
                    del send["offset"]
                    send["body"] = bytes(walk_.run.body(row))
                    segment.sends.append(send)
            segment.acks += walk_.acks
            segment.flows += walk_.flows
            segment.strays += walk_.strays
            if walk_.command is not None:
                segment.command = walk_.command.SerializeToString(deterministic=True)
                segments.append(Segment())
            start, more = walk_.consumed, walk_.more
            if not more and end - start >= 4:
                assert walk_.frame_bytes == 4 + unpack(">I", data[start : start + 4])[0]
    return segments, ""


class RefusedError(Exception):
    """The model takes no more: the bytes are wrong, or protobuf says so."""


def modelled(data: bytes, slots: Mapping[int, int]) -> tuple[list[Segment], str]:
    """Do the same with one protobuf object per frame and no regard for speed."""
    segments = [Segment()]
    start = 0
    while len(data) - start >= 4:
        (size,) = unpack(">I", data[start : start + 4])
        if size > FRAME_BYTES_MAX:
            return segments, "size"
        if len(data) - start < 4 + size:
            break
        try:
            _model_frame(data[start + 4 : start + 4 + size], slots, segments)
        except RefusedError as error:
            return segments, str(error)
        start += 4 + size
    return segments, ""


def _model_frame(content: bytes, slots: Mapping[int, int], segments: list[Segment]) -> None:
    if len(content) < 4:
        raise RefusedError("no command size")
    (size,) = unpack(">I", content[:4])
    if len(content) < 4 + size:
        raise RefusedError("command size")
    command, entry = _parsed(api.BaseCommand(), content[4 : 4 + size]), content[4 + size :]
    if command.type not in {each.number for each, _ in command.ListFields()}:
        raise RefusedError("no contents")
    segment = segments[-1]
    if command.type == api.BaseCommand.SEND:
        _model_send(command.send, entry, slots, segment)
        return
    if entry:
        raise RefusedError("stray bytes")
    if command.type == api.BaseCommand.ACK:
        ack = command.ack
        segment.acks.append(
            (
                ack.consumer_id,
                [
                    (_i64(each.ledgerId), _i64(each.entryId), tuple(each.ack_set))
                    for each in ack.message_id
                ],
                ack.ack_type == api.CommandAck.Cumulative,
                ack.request_id if ack.HasField("request_id") else None,
                ack.validation_error if ack.HasField("validation_error") else None,
                (ack.txnid_most_bits, ack.txnid_least_bits)
                if ack.HasField("txnid_most_bits") or ack.HasField("txnid_least_bits")
                else None,
            )
        )
    elif command.type == api.BaseCommand.FLOW:
        segment.flows.append((command.flow.consumer_id, command.flow.messagePermits))
    else:
        _need_utf8(command)
        segment.command = command.SerializeToString(deterministic=True)
        segments.append(Segment())


def _model_send(  # noqa: C901 - one line per field
    send: api.CommandSend, entry: bytes, slots: Mapping[int, int], segment: Segment
) -> None:
    slot = slots.get(send.producer_id)
    sequence_id = _i64(send.sequence_id)
    if slot is None:
        segment.strays.append((send.producer_id, sequence_id))
        return
    if len(entry) < 10:
        raise RefusedError("no entry")
    body = entry
    if entry[:2] == b"\x0e\x01":
        body = entry[6:]
        if crc32c(body) != unpack(">I", entry[2:6])[0]:
            segment.broken.append((send.producer_id, sequence_id, slot, len(segment.sends)))
            return
    (size,) = unpack(">I", body[:4].ljust(4, b"\xff"))
    if len(body) < 4 + size:
        raise RefusedError("metadata size")
    metadata = _parsed(api.MessageMetadata(), body[4 : 4 + size])
    flags = EntryFlags(0)
    key_hash = 0
    if metadata.HasField("ordering_key"):
        flags |= EntryFlags.KEYED
        key_hash = murmur3_32(metadata.ordering_key) & 0x7FFFFFFF
    elif metadata.HasField("partition_key"):
        flags |= EntryFlags.KEYED
        # What is not UTF-8 comes out as bytes, whatever the stubs say.
        key: str | bytes = metadata.partition_key
        raw = key if isinstance(key, bytes) else key.encode()
        if metadata.partition_key_b64_encoded:
            with suppress(Base64Error):
                raw = b64decode(raw, validate=True)
        key_hash = murmur3_32(raw) & 0x7FFFFFFF
    for has, flag in (
        (metadata.HasField("num_messages_in_batch"), EntryFlags.BATCH),
        (bool(metadata.encryption_keys), EntryFlags.ENCRYPTED),
        (metadata.num_chunks_from_msg > 1, EntryFlags.CHUNK),
        (
            metadata.num_chunks_from_msg > 1
            and metadata.chunk_id == metadata.num_chunks_from_msg - 1,
            EntryFlags.LAST_CHUNK,
        ),
        (metadata.HasField("marker_type"), EntryFlags.MARKER),
        (metadata.HasField("replicated_from"), EntryFlags.REPLICATED),
        (
            metadata.HasField("txnid_least_bits")
            or metadata.HasField("txnid_most_bits")
            or send.HasField("txnid_least_bits")
            or send.HasField("txnid_most_bits"),
            EntryFlags.TRANSACTIONAL,
        ),
    ):
        if has:
            flags |= flag
    in_batch = metadata.HasField("num_messages_in_batch")
    segment.sends.append(
        {
            "length": len(body),
            "checksum": crc32c(body),
            "messages": max(metadata.num_messages_in_batch if in_batch else send.num_messages, 1),
            "key_hash": key_hash,
            "flags": int(flags),
            "producer": slot,
            "transaction": TransactionId(send.txnid_most_bits, send.txnid_least_bits)
            if send.HasField("txnid_least_bits") or send.HasField("txnid_most_bits")
            else None,
            "sequence_id": sequence_id,
            "highest_sequence_id": max(sequence_id, _i64(send.highest_sequence_id))
            if send.HasField("highest_sequence_id")
            else sequence_id,
            "publish_time_ms": _i64(metadata.publish_time),
            "deliver_at_ms": max(metadata.deliver_at_time, 0),
            "first_index": 0,
            "broker_time_ms": 0,
            "body": body,
        }
    )


def _parsed(message: _Message, content: bytes) -> _Message:
    try:
        message.ParseFromString(content)
    except DecodeError:
        raise RefusedError("protobuf") from None
    if not message.IsInitialized():
        raise RefusedError("a field is missing")
    return message


def _need_utf8(message: Message) -> None:
    for descriptor, value in message.ListFields():
        one = isinstance(value, int | float | str | bytes | Message)
        for each in (value,) if one else value:
            if isinstance(each, Message):
                _need_utf8(each)
            elif descriptor.type == descriptor.TYPE_STRING and isinstance(each, bytes):
                raise RefusedError("not UTF-8")


def _i64(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value
