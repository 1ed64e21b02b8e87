"""The JSON of Pulsar's WebSocket API: what clients send and what they are told.

    to a producer     {"payload": base64, "properties": {}, "context": any, "key": "", ...}
      its answer      {"result": "ok", "messageId": base64, "context": any}
                      {"result": "send-error:3", "errorMsg": "", "context": any}
    from a consumer   {"messageId", "payload": base64, "properties", "publishTime", ...}
      its answers     {"messageId"}, {"type": "negativeAcknowledge", "messageId"},
                      {"type": "permit", "permitMessages"}, {"type": "unsubscribe"},
                      {"type": "isEndOfTopic"} ──▶ {"endOfTopic": true}
    from anybody      {"type": "ping"} ──▶ {"result": "ok"}

Message ids are base64 of a MessageIdData; times are ISO 8601. What Jackson would turn into
another type is turned here too: numbers in properties become texts.
"""

import binascii
from base64 import b64encode
from collections.abc import Mapping
from datetime import datetime
from enum import IntEnum
from typing import Any

import msgspec

from magnetar.broker.clock import iso_time
from magnetar.broker.doors.websocket.options import COMPRESSIONS
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.broker.wire.pulsar.metadata import Message

_TIME_MS_MAX = 253_402_300_799_999
"""The end of the year 9999: what comes after has no ISO form."""


class SendError(IntEnum):
    """Why a message was not published. Numbers are Pulsar's."""

    NOT_JSON = 3
    BAD_PAYLOAD = 7
    UNKNOWN = 8


class ShapeError(ValueError):
    """A client's message is not what it should be."""

    def __init__(self, message: str, error: SendError = SendError.NOT_JSON) -> None:
        super().__init__(message)
        self.error = error
        self.context: msgspec.Raw | None = None


class _Asked(msgspec.Struct):
    """What a producer's client sends, as it comes."""

    type: str | None = None
    payload: str | None = None
    properties: dict[str, str | int | float | bool] | None = None
    context: msgspec.Raw = msgspec.Raw(b"null")
    key: str | int | float | bool | None = None
    replicationClusters: list[str] | None = None  # noqa: N815 - JSON's names from here on
    eventTime: str | int | float | None = None  # noqa: N815
    deliverAt: int = 0  # noqa: N815
    deliverAfterMs: int = 0  # noqa: N815
    encryptionParam: str | None = None  # noqa: N815
    compressionType: str | None = None  # noqa: N815
    uncompressedMessageSize: int | None = None  # noqa: N815


class Outgoing(msgspec.Struct, frozen=True):
    """One message to be published, checked."""

    payload: bytes
    properties: Mapping[str, str]
    key: str | None
    context: msgspec.Raw | None
    replicate_to: tuple[str, ...] = ()
    event_time_ms: int = 0
    deliver_at_ms: int = 0
    deliver_after_ms: int = 0
    encryption_param: bytes | None = None
    compression: api.CompressionType = api.NONE
    """Of what the client has compressed before it encrypted."""
    uncompressed_size: int | None = None


class Ping(msgspec.Struct, frozen=True):
    """A client wants to know whether anybody is there."""


class Command(msgspec.Struct, frozen=True):
    """What a consumer's client sends."""

    type: str | None = None
    messageId: str | None = None  # noqa: N815
    permitMessages: int | None = None  # noqa: N815


_asked = msgspec.json.Decoder(_Asked, strict=False)
_command = msgspec.json.Decoder(Command, strict=False)
_encode = msgspec.json.Encoder().encode


# --- from clients -------------------------------------------------------------------------


def outgoing(text: bytes) -> Outgoing | Ping:
    """Read what a producer's client sends.

    Raises:
        ShapeError: it cannot be published; with the client's context where that could be read.
    """
    try:
        asked = _asked.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ShapeError(str(error)) from None
    if asked.type == "ping" and asked.payload is None:
        return Ping()
    context = None if bytes(asked.context) == b"null" else msgspec.Raw(bytes(asked.context))
    try:
        return _checked(asked, context)
    except ShapeError as error:
        error.context = context
        raise


def _checked(asked: _Asked, context: msgspec.Raw | None) -> Outgoing:
    if asked.payload is None:
        raise ShapeError("there is no payload", SendError.BAD_PAYLOAD)
    size = asked.uncompressedMessageSize
    compression = asked.compressionType
    if (size is None) != (compression is None or (size is None and compression == "NONE")):
        raise ShapeError(
            "compressionType and uncompressedMessageSize come together or not at all",
            SendError.BAD_PAYLOAD,
        )
    if compression is not None and compression not in COMPRESSIONS:
        raise ShapeError(f"there is no compressionType {compression[:100]!r}")
    if size is not None and not 0 <= size < 2**32:
        raise ShapeError(f"an uncompressedMessageSize of {size}", SendError.BAD_PAYLOAD)
    param = asked.encryptionParam
    return Outgoing(
        payload=_bytes(asked.payload, "payload"),
        properties={name: _text(value) for name, value in (asked.properties or {}).items()},
        key=None if asked.key is None else _text(asked.key),
        context=context,
        replicate_to=tuple(asked.replicationClusters or ()),
        event_time_ms=0 if asked.eventTime is None else _time_ms(asked.eventTime),
        deliver_at_ms=_bounded(asked.deliverAt, "deliverAt"),
        deliver_after_ms=_bounded(asked.deliverAfterMs, "deliverAfterMs"),
        encryption_param=None if param is None else _bytes(param, "encryptionParam"),
        compression=COMPRESSIONS[compression or "NONE"],
        uncompressed_size=size,
    )


def command(text: bytes) -> Command:
    """Read what a consumer's or a reader's client sends.

    Raises:
        ShapeError: it is none of that.
    """
    try:
        return _command.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ShapeError(str(error)) from None


def _bytes(text: str, what: str) -> bytes:
    """Undo base64. Padding may be missing, as Java allows; anything else may not."""
    try:
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        return binascii.a2b_base64(padded, strict_mode=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ShapeError(f"Invalid Base64 {what}: {error}", SendError.BAD_PAYLOAD) from None


def _text(value: str | float) -> str:
    """Return a scalar as Jackson makes a text of it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _time_ms(value: str | float) -> int:
    try:
        time = datetime.fromisoformat(str(value))
        milliseconds = round(time.timestamp() * 1000)
    except (ValueError, OverflowError):
        time, milliseconds = None, 0
    if time is None or time.tzinfo is None:
        told = str(value)[:100]
        raise ShapeError(
            f"eventTime is {told!r}, expected ISO 8601 with an offset", SendError.BAD_PAYLOAD
        )
    return max(milliseconds, 0)


def _bounded(milliseconds: int, what: str) -> int:
    if milliseconds >= 2**63:
        raise ShapeError(f"{what} is {milliseconds}, which no clock will show")
    return max(milliseconds, 0)


# --- to clients ---------------------------------------------------------------------------

PONG = b'{"result":"ok"}'


def published(message_id: str, context: msgspec.Raw | None) -> bytes:
    """Return the answer to a message that is stored."""
    told: dict[str, Any] = {"result": "ok", "messageId": message_id}
    if context is not None:
        told["context"] = context
    return _encode(told)


def not_published(error: SendError, why: str, context: msgspec.Raw | None) -> bytes:
    """Return the answer to a message that is not."""
    told: dict[str, Any] = {"result": f"send-error:{error.value}", "errorMsg": why}
    if context is not None:
        told["context"] = context
    return _encode(told)


def end_of_topic(*, reached: bool) -> bytes:
    """Return the answer to the question whether anything can follow."""
    return _encode({"endOfTopic": reached})


def delivered(
    message_id: str,
    message: Message,
    redeliveries: int,
    encryption: Mapping[str, Any] | None = None,
) -> bytes:
    """Return a message as a consumer's client gets it."""
    told: dict[str, Any] = {
        "messageId": message_id,
        "payload": b64encode(message.payload).decode("ascii"),
        "properties": message.properties,
        "publishTime": iso_time(message.publish_time_ms),
        "redeliveryCount": redeliveries,
    }
    if message.event_time_ms:
        told["eventTime"] = iso_time(message.event_time_ms)
    if message.key is not None:
        told["key"] = message.key
    if encryption is not None:
        told["encryptionContext"] = encryption
    return _encode(told)


def encryption_context(metadata: api.MessageMetadata) -> dict[str, Any]:
    """Return what a reader with the right key needs to decrypt a payload."""
    batch = metadata.HasField("num_messages_in_batch")
    return {
        "keys": {
            _utf8(each.key): {
                "keyValue": b64encode(each.value).decode("ascii"),
                "metadata": {_utf8(pair.key): _utf8(pair.value) for pair in each.metadata},
            }
            for each in metadata.encryption_keys
        },
        "param": b64encode(metadata.encryption_param).decode("ascii"),
        "algorithm": _utf8(metadata.encryption_algo),
        "compressionType": api.CompressionType.Name(metadata.compression),
        "uncompressedMessageSize": metadata.uncompressed_size,
        "batchSize": metadata.num_messages_in_batch if batch else None,
    }


def _utf8(value: str | bytes) -> str:
    return value if isinstance(value, str) else bytes(value).decode(errors="replace")


def id_text(message_id: api.MessageIdData) -> str:
    """Return a message's id as clients are told it."""
    return b64encode(message_id.SerializeToString()).decode("ascii")
