"""Protobuf's descriptors: read, and compared field by field."""

import base64
import json
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import (
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)

from magnetar.broker.port import InvalidSchemaError
from magnetar.broker.schema import protobuf
from magnetar.broker.schema.work import Budget

OPTIONAL, REQUIRED, REPEATED = (
    FieldDescriptorProto.LABEL_OPTIONAL,
    FieldDescriptorProto.LABEL_REQUIRED,
    FieldDescriptorProto.LABEL_REPEATED,
)
Field = tuple[str, int, str] | tuple[str, int, str, int]


def file_of(fields: list[Field], message: str = "Order", **more: Any) -> FileDescriptorProto:
    found = FileDescriptorProto(name="shop.proto", package="shop", syntax="proto2", **more)
    order = found.message_type.add(name=message)
    nested = found.message_type.add(name="Line")
    nested.field.add(name="sku", number=1, type=FieldDescriptorProto.TYPE_STRING, label=OPTIONAL)
    found.enum_type.add(name="Kind").value.add(name="A", number=0)
    for name, number, kind, *label in fields:
        order.field.add(
            name=name,
            number=number,
            label=label[0] if label else OPTIONAL,
            type=FieldDescriptorProto.Type.Value(f"TYPE_{kind.partition(':')[0].upper()}"),
            type_name=kind.partition(":")[2] or None,
        )
    return found


def definition(*files: FileDescriptorProto, message: str = "shop.Order") -> bytes:
    encoded = base64.b64encode(FileDescriptorSet(file=files).SerializeToString()).decode()
    return json.dumps(
        {
            "fileDescriptorSet": encoded,
            "rootMessageTypeName": message,
            "rootFileDescriptorName": "shop.proto",
        }
    ).encode()


def parsed(fields: list[Field], **more: Any) -> Any:
    message = more.get("message", "Order")
    data = definition(file_of(fields, **more), message=f"shop.{message}")
    return protobuf.parse(data, Budget())


ID: Field = ("id", 1, "int32")


@pytest.mark.parametrize(
    ("reader", "writer", "why"),
    [
        ([ID], [ID], ""),
        ([ID, ("name", 2, "string")], [ID], ""),
        ([ID], [ID, ("name", 2, "string")], ""),
        ([("id", 1, "int64")], [ID], ""),
        ([("id", 1, "enum:.shop.Kind")], [ID], ""),
        ([("name", 2, "bytes")], [("name", 2, "string")], ""),
        ([("renamed", 1, "int32")], [ID], ""),
        ([("id", 1, "int32", REPEATED)], [ID], "type of field id"),
        ([("names", 1, "string", REPEATED)], [("names", 1, "string")], ""),
        ([("id", 1, "sint32")], [ID], "type of field id"),
        ([("id", 1, "string")], [ID], "type of field id"),
        ([("id", 1, "double")], [("id", 1, "float")], "type of field id"),
        ([("id", 2, "int32")], [ID], "number 2, not 1"),
        ([("id", 1, "int32", REQUIRED)], [ID], "required"),
        ([ID, ("new", 2, "int32", REQUIRED)], [ID], "required"),
        ([ID], [("id", 1, "int32", REQUIRED)], ""),
        ([("line", 1, "message:.shop.Line")], [("line", 1, "message:.shop.Line")], ""),
        ([("line", 1, "message:.shop.Line")], [("line", 1, "string")], "type of field line"),
    ],
)
def test_a_field_keeps_its_number_and_a_type_of_the_same_kind(
    reader: list[Field], writer: list[Field], why: str
) -> None:
    answer = protobuf.can_read(parsed(reader), parsed(writer), Budget())
    assert (answer == "") == (why == "")
    assert why in answer


def test_another_root_message_is_another_thing() -> None:
    other = parsed([ID], message="Invoice")
    assert "root message" in protobuf.can_read(other, parsed([ID]), Budget())


def test_messages_within_messages_are_compared() -> None:
    line: list[Field] = [("line", 1, "message:.shop.Line")]
    changed = file_of(line)
    changed.message_type[1].field[0].type = FieldDescriptorProto.TYPE_INT32
    reader = protobuf.parse(definition(changed), Budget())
    answer = protobuf.can_read(reader, parsed(line), Budget())
    assert answer == "message shop.Line: the type of field sku (1) has changed"


def test_a_message_that_contains_itself_is_compared_once() -> None:
    tree = parsed([ID, ("parent", 2, "message:.shop.Order")])
    assert protobuf.can_read(tree, tree, Budget()) == ""


def test_files_may_come_in_any_order() -> None:
    imported = FileDescriptorProto(name="money.proto", package="shop", syntax="proto3")
    imported.message_type.add(name="Money")
    using = file_of([("price", 1, "message:.shop.Money")], dependency=["money.proto"])
    for files in ((imported, using), (using, imported)):
        assert protobuf.parse(definition(*files), Budget()).name == "Order"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"fileDescriptorSet": "%%%", "rootMessageTypeName": "shop.Order"}',
        b'{"fileDescriptorSet": "AAAA", "rootMessageTypeName": "shop.Order"}',
        b'{"fileDescriptorSet": "", "rootMessageTypeName": "shop.Order"}',
        definition(file_of([ID]), message="shop.Missing"),
        definition(file_of([("x", 1, "message:.shop.Missing")])),
        definition(file_of([ID], dependency=["missing.proto"])),
        definition(file_of([ID, ("twice", 1, "string")])),
        definition(file_of([ID], dependency=["shop.proto"])),
    ],
)
def test_what_is_no_definition_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidSchemaError):
        protobuf.parse(data, Budget())


def test_files_that_import_each_other_are_refused() -> None:
    one = FileDescriptorProto(name="one.proto", dependency=["two.proto"])
    two = FileDescriptorProto(name="two.proto", dependency=["one.proto"])
    with pytest.raises(InvalidSchemaError, match="circle"):
        protobuf.parse(definition(one, two), Budget())


def test_more_files_than_the_limit_are_refused() -> None:
    many = [FileDescriptorProto(name=f"{number}.proto") for number in range(501)]
    with pytest.raises(InvalidSchemaError, match="501 files"):
        protobuf.parse(definition(*many), Budget())
