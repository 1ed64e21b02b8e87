"""Two schemas in one."""

import json
import struct
from typing import Any

import pytest

from magnetar.broker.port import InvalidSchemaError, Schema, SchemaType
from magnetar.broker.schema.key_value import data_of, join, split, text_of

RECORD = b'{"type":"record","name":"R","fields":[]}'


def key_value(value: bytes = RECORD, **properties: str) -> Schema:
    said = {name.replace("_", "."): text for name, text in properties.items()}
    return Schema(SchemaType.KEY_VALUE, join(b"", value), said)


def test_both_parts_have_their_own_type_name_and_properties() -> None:
    schema = key_value(
        key_schema_type="INT32",
        value_schema_type="AVRO",
        value_schema_name="R",
        value_schema_properties='{"a": "b"}',
    )
    key, value = split(schema)
    assert key == Schema(SchemaType.INT32)
    assert value == Schema(SchemaType.AVRO, RECORD, {"a": "b"}, "R")


def test_a_part_without_a_type_is_bytes() -> None:
    assert split(key_value(value=b"")) == (Schema(SchemaType.NONE), Schema(SchemaType.NONE))


def test_a_part_may_be_absent() -> None:
    data = struct.pack(">i", -1) + struct.pack(">i", 1) + b"x"
    key, value = split(Schema(SchemaType.KEY_VALUE, data))
    assert (key.data, value.data) == (b"", b"x")


@pytest.mark.parametrize(
    "data",
    [b"", b"\0\0", b"\0\0\0\5ab", b"\0\0\0\0", b"\0\0\0\0\0\0\0\0x", b"\xff\xff\xff\xfe" * 2,
     b"\x7f\xff\xff\xff" * 2],
)  # fmt: skip
def test_sizes_that_do_not_add_up_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidSchemaError):
        split(Schema(SchemaType.KEY_VALUE, data))


@pytest.mark.parametrize(
    "properties",
    [
        {"key_schema_type": "SOMETHING"},
        {"key_schema_type": "KEY_VALUE"},
        {"value_schema_properties": "["},
        {"value_schema_properties": '{"a": {}}'},
    ],
)
def test_properties_that_are_none_are_refused(properties: dict[str, Any]) -> None:
    with pytest.raises(InvalidSchemaError):
        split(key_value(**properties))


def test_as_text_it_is_an_object_and_back() -> None:
    schema = key_value(key_schema_type="STRING", value_schema_type="AVRO")
    text = text_of(schema)
    assert json.loads(text) == {"key": "", "value": json.loads(RECORD)}
    assert data_of(text) == schema.data


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"key": ""}', "[" * 100_000])
def test_text_that_is_no_such_object_is_refused(text: str) -> None:
    with pytest.raises(InvalidSchemaError):
        data_of(text)
