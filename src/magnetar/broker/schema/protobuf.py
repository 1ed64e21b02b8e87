"""PROTOBUF_NATIVE: a set of file descriptors, and which message of it the payloads are.

    {"fileDescriptorSet": "<base64>", "rootMessageTypeName": "shop.Order",
     "rootFileDescriptorName": "shop.proto"}

Protobuf reads old data by field number, so a field keeps its number and a type of the same kind
on the wire; fields may come and go, but not required ones; a name keeps its number. Sources:
the Protocol Buffers guide, "Updating a message type", and Pulsar's advanced check of the same.
"""

import base64
import binascii
from collections.abc import Iterable

import msgspec
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError

from magnetar.broker.port import InvalidSchemaError
from magnetar.broker.schema.work import Budget

FILES_MAX = 500
"""Files of one definition."""

_SAME_ON_THE_WIRE = (
    {
        FieldDescriptor.TYPE_INT32,
        FieldDescriptor.TYPE_INT64,
        FieldDescriptor.TYPE_UINT32,
        FieldDescriptor.TYPE_UINT64,
        FieldDescriptor.TYPE_BOOL,
        FieldDescriptor.TYPE_ENUM,
    },
    {FieldDescriptor.TYPE_SINT32, FieldDescriptor.TYPE_SINT64},
    {FieldDescriptor.TYPE_FIXED32, FieldDescriptor.TYPE_SFIXED32},
    {FieldDescriptor.TYPE_FIXED64, FieldDescriptor.TYPE_SFIXED64},
    {FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES},
)
_KIND = {type_: kind for kind, types in enumerate(_SAME_ON_THE_WIRE) for type_ in types}
_ONE_OR_MANY = frozenset(
    {
        FieldDescriptor.TYPE_STRING,
        FieldDescriptor.TYPE_BYTES,
        FieldDescriptor.TYPE_MESSAGE,
    }
)
"""Types of which one value and a list of them can be read as each other: the last one counts."""


class Native(msgspec.Struct):
    """The definition's JSON."""

    descriptors: str = msgspec.field(name="fileDescriptorSet")
    message: str = msgspec.field(name="rootMessageTypeName")
    file: str = msgspec.field(default="", name="rootFileDescriptorName")


def parse(data: bytes, budget: Budget) -> Descriptor:
    """Return the message that a definition is about.

    Raises:
        InvalidSchemaError: it is not such a definition.
    """
    try:
        native = msgspec.json.decode(data, type=Native)
        files = FileDescriptorSet.FromString(base64.b64decode(native.descriptors, validate=True))
    except (
        msgspec.DecodeError,
        UnicodeDecodeError,
        RecursionError,
        binascii.Error,
        DecodeError,
    ) as error:
        raise InvalidSchemaError(f"the definition is no set of descriptors: {error}") from None
    if len(files.file) > FILES_MAX:
        raise InvalidSchemaError(f"{len(files.file)} files, the limit is {FILES_MAX}")
    pool = DescriptorPool()
    try:
        for each in _in_order(files.file, budget):
            pool.AddSerializedFile(each.SerializeToString())
        # What is wrong with a file may come out only when it is used.
        return pool.FindMessageTypeByName(native.message)
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidSchemaError(
            f"the descriptors of message {native.message[:100]!r} do not hold: {str(error)[:300]}"
        ) from None


def _in_order(files: Iterable[FileDescriptorProto], budget: Budget) -> list[FileDescriptorProto]:
    """Return files after those that they import."""
    waiting = {each.name: each for each in files}
    ordered: dict[str, FileDescriptorProto] = {}
    while waiting:
        ready = [
            each
            for each in waiting.values()
            if not any(name in waiting for name in each.dependency)
        ]
        budget.spend(sum(1 + len(each.dependency) for each in waiting.values()))
        if not ready:
            raise InvalidSchemaError("the files of the definition import each other in a circle")
        for each in ready:
            ordered[each.name] = waiting.pop(each.name)
    return list(ordered.values())


def can_read(reader: Descriptor, writer: Descriptor, budget: Budget) -> str:
    """Return why `reader` cannot read what `writer` has written; empty: it can.

    Raises:
        InvalidSchemaError: that takes too long to find out.
    """
    if reader.full_name != writer.full_name:
        return f"the root message is {reader.full_name}, not {writer.full_name}"
    seen: set[tuple[str, str]] = set()
    to_compare = [(reader, writer)]
    while to_compare:
        one, other = to_compare.pop()
        if (one.full_name, other.full_name) in seen:
            continue
        seen.add((one.full_name, other.full_name))
        budget.spend(1 + len(one.fields) + len(other.fields))
        why = _why_not(one, other)
        if why:
            return f"message {one.full_name}: {why}"
        for field in one.fields:
            written = other.fields_by_number.get(field.number)
            if written is not None and field.message_type and written.message_type:
                to_compare.append((field.message_type, written.message_type))
    return ""


def _why_not(reader: Descriptor, writer: Descriptor) -> str:
    """Return what of one message cannot be read, those within it left out."""
    labels, written_labels = _labels(reader), _labels(writer)
    for field in reader.fields:
        number, name = field.number, field.name
        written = writer.fields_by_number.get(number)
        namesake = writer.fields_by_name.get(name)
        if namesake is not None and namesake.number != number:
            return f"field {name} has number {number}, not {namesake.number}"
        label, written_label = labels[number], written_labels.get(number)
        required = FieldDescriptorProto.LABEL_REQUIRED
        if label == required and written_label != required:
            return f"field {name} is required, and what was written may not have it"
        if written is None:
            continue
        many = FieldDescriptorProto.LABEL_REPEATED
        if not _same_kind(field.type, written.type) or (
            (label == many) != (written_label == many) and field.type not in _ONE_OR_MANY
        ):
            return f"the type of field {name} ({number}) has changed"
    return ""


def _labels(message: Descriptor) -> dict[int, int]:
    """Return whether each field is optional, required or repeated, by its number."""
    proto = DescriptorProto()
    message.CopyToProto(proto)
    return {field.number: field.label for field in proto.field}


def _same_kind(one: int, other: int) -> bool:
    return one == other or (one in _KIND and _KIND[one] == _KIND.get(other))
