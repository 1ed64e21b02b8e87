"""Pulsar frames: one command each, and for SEND and MESSAGE an entry behind it.

    simple frame   total_size u32 | command_size u32 | command
    payload frame  simple frame   | 0x0e01 u16 | crc32c u32 | metadata_size u32 | metadata | payload
                                                            └────────── the body ──────────────┘

Numbers are big-endian; `total_size` does not count its own four bytes. The checksum covers
the body: everything after itself. From a broker, `0x0e02 u16 | size u32 | broker metadata`
may stand before 0x0e01. Source: the Pulsar binary protocol specification, "Framing".

This is the cold form, one object per frame, for either role: clients in benchmarks and
tests read the broker with it. A broker reads its clients with `walker` instead, which takes
all frames of one read at once.
"""

from struct import Struct
from typing import NamedTuple

from crc32c import crc32c
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, Message

from magnetar.broker.run import Bytes
from magnetar.broker.wire.pulsar.generated.PulsarApi_pb2 import DESCRIPTOR, BaseCommand

FRAME_OVERHEAD_MAX = 10 * 1024
"""A frame may be larger than the largest message by its command and metadata: Pulsar's number."""
MESSAGE_BYTES_MAX = 5 * 1024 * 1024
FRAME_BYTES_MAX = MESSAGE_BYTES_MAX + FRAME_OVERHEAD_MAX
COMMAND_BYTES_MAX = 1024 * 1024
"""A command becomes Python objects, some thirty times its size. The largest that clients send,
a group of acknowledgements or a schema, stay far below this."""

CHECKSUM_MAGIC = 0x0E01
BROKER_METADATA_MAGIC = 0x0E02

_U32 = Struct(">I")
_SIZES = Struct(">II")
_MAGIC = Struct(">H")
_CHECKSUM = Struct(">HI")


class FrameError(ValueError):
    """The peer sent bytes that are not a frame. Its connection cannot continue."""


class Payload(NamedTuple):
    """The entry half of a frame."""

    metadata: bytes
    """A serialized MessageMetadata."""
    payload: bytes
    """What the producer sent: compressed, encrypted, a batch, as the metadata says."""
    checksum: int | None = None
    """CRC32-C of the body as the frame claimed it; it was verified. None: the frame had none."""


class Frame(NamedTuple):
    """One frame."""

    command: BaseCommand
    payload: Payload | None = None


class FrameReader:
    """Cuts a byte stream into frames, however the network split it."""

    def __init__(self, frame_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self._buffer = bytearray()
        self._frame_bytes_max = frame_bytes_max

    def feed(self, data: Bytes) -> list[Frame]:
        """Return the frames completed by `data`; a partial frame waits for the next call.

        Raises:
            FrameError: a size is out of bounds or the contents do not add up.
        """
        self._buffer += data
        frames: list[Frame] = []
        start = 0
        while (end := self._frame_end(start)) is not None:
            frames.append(decode_frame(bytes(self._buffer[start + _U32.size : end])))
            start = end
        del self._buffer[:start]
        return frames

    def _frame_end(self, start: int) -> int | None:
        content = start + _U32.size
        if len(self._buffer) < content:
            return None
        (total_size,) = _U32.unpack_from(self._buffer, start)
        if not _U32.size <= total_size <= self._frame_bytes_max:
            raise FrameError(
                f"frame of {total_size} bytes,"
                f" the limits are {_U32.size} and {self._frame_bytes_max}"
            )
        end: int = content + total_size
        return end if len(self._buffer) >= end else None


def decode_frame(content: bytes) -> Frame:
    """Decode one frame, given everything after `total_size`.

    Raises:
        FrameError: the contents do not add up, or the checksum does not match.
    """
    command, rest = _split(content, "command")
    if not rest:
        return Frame(decode_command(command))
    if rest.startswith(_MAGIC.pack(BROKER_METADATA_MAGIC)):
        _, rest = _split(rest[_MAGIC.size :], "broker metadata")
    checksum = None
    if rest.startswith(_MAGIC.pack(CHECKSUM_MAGIC)):
        if len(rest) < _CHECKSUM.size:
            raise FrameError(f"{len(rest)} bytes where a checksum of {_CHECKSUM.size} should be")
        _, checksum = _CHECKSUM.unpack_from(rest)
        rest = rest[_CHECKSUM.size :]
        if checksum != crc32c(rest):
            raise FrameError("the payload's checksum does not match")
    return Frame(decode_command(command), Payload(*_split(rest, "metadata"), checksum))


def decode_command(content: Bytes) -> BaseCommand:
    """Decode one command, and see that all of it can be used without surprises.

    Raises:
        FrameError: the bytes are no command, or one of a type nobody knows; a field that every
            such command has is missing; or a text is not UTF-8, which protobuf lets pass.
    """
    try:
        command = BaseCommand.FromString(bytes(content))
    except DecodeError as error:
        raise FrameError(f"a command of {len(content)} bytes that protobuf cannot read") from error
    if not command.HasField("type"):
        raise FrameError("a command without a type, or of a type that is not known")
    if not command.IsInitialized():
        raise FrameError(f"a {type_name(command)} without a field that it must have")
    if not command.HasField(_FIELD_OF_TYPE[command.type]):
        raise FrameError(f"a {type_name(command)} without its contents")
    _check_texts(command, type_name(command))
    return command


def type_name(command: BaseCommand) -> str:
    """Return the name of a command's type, such as `SEND`."""
    name: str = BaseCommand.Type.Name(command.type)
    return name


def encode_command(command: BaseCommand) -> bytes:
    """Return a command as a simple frame."""
    content: bytes = command.SerializeToString()
    return _SIZES.pack(len(content) + _U32.size, len(content)) + content


def encode_payload_frame(command: BaseCommand, metadata: bytes, payload: Bytes) -> bytes:
    """Return a command with an entry behind it as a payload frame, checksum included."""
    content: bytes = command.SerializeToString()
    body = b"".join((_U32.pack(len(metadata)), metadata, payload))
    total_size = _U32.size + len(content) + _CHECKSUM.size + len(body)
    return b"".join(
        (
            _SIZES.pack(total_size, len(content)),
            content,
            _CHECKSUM.pack(CHECKSUM_MAGIC, crc32c(body)),
            body,
        )
    )


# The sub-message's field number equals the number of the type.
_FIELD_OF_TYPE: dict[int, str] = {
    field.number: field.name for field in BaseCommand.DESCRIPTOR.fields if field.name != "type"
}


def _split(content: bytes, what: str) -> tuple[bytes, bytes]:
    """Split `size u32 | part | rest` into part and rest."""
    if len(content) < _U32.size:
        raise FrameError(f"{len(content)} stray bytes where the size of a {what} should be")
    (size,) = _U32.unpack_from(content)
    end = _U32.size + size
    if end > len(content):
        raise FrameError(f"a {what} of {size} bytes in {len(content) - _U32.size} bytes")
    return content[_U32.size : end], content[end:]


def _has_text(message: Descriptor, above: tuple[Descriptor, ...] = ()) -> bool:
    """Tell whether a message has texts in it, or messages that do."""
    parts = [field.message_type for field in message.fields if field.message_type is not None]
    return any(field.type == field.TYPE_STRING for field in message.fields) or any(
        _has_text(part, (*above, message)) for part in parts if part not in above
    )


# Most commands are numbers only, and lists of message ids can be long.
_TEXTUAL = frozenset(
    message.full_name for message in DESCRIPTOR.message_types_by_name.values() if _has_text(message)
)


def _check_texts(message: Message, path: str) -> None:
    """Refuse texts that are not UTF-8: the runtime hands those out as bytes, unasked."""
    for field, value in message.ListFields():
        if field.message_type is not None:
            if field.message_type.full_name in _TEXTUAL:
                for each in (value,) if isinstance(value, Message) else value:
                    _check_texts(each, f"{path}.{field.name}")
        elif field.type == field.TYPE_STRING:
            for text in (value,) if isinstance(value, str | bytes) else value:
                if not isinstance(text, str):
                    raise FrameError(f"{path}.{field.name} is not UTF-8")
