"""KEY_VALUE: two schemas in one.

    definition   size u32 | key's definition | size u32 | value's definition     -1: there is none
    properties   key.schema.type, key.schema.name, key.schema.properties (JSON); value. likewise
                 kv.encoding.type: INLINE, or SEPARATED with the key as the message's key

In admin REST the definition is a JSON object with `key` and `value`. Source: Pulsar's
`KeyValueSchemaInfo`.
"""

import struct
from typing import Any, NamedTuple

import msgspec

from magnetar.broker.port import InvalidSchemaError, Schema, SchemaType

_SIZE = struct.Struct(">i")
_TEXT = frozenset(
    {SchemaType.AVRO, SchemaType.JSON, SchemaType.PROTOBUF, SchemaType.PROTOBUF_NATIVE}
)
ENCODING = "kv.encoding.type"


class KeyValue(NamedTuple):
    """Both parts."""

    key: Schema
    value: Schema


def split(schema: Schema) -> KeyValue:
    """Return both parts of a schema.

    Raises:
        InvalidSchemaError: it is not two of them.
    """
    key, rest = _cut(schema.data)
    value, rest = _cut(rest)
    if rest:
        raise InvalidSchemaError(f"the key/value definition has {len(rest)} bytes too many")
    return KeyValue(_part(schema, "key", key), _part(schema, "value", value))


def join(key: bytes, value: bytes) -> bytes:
    """Return the definition made of those of both parts."""
    return _SIZE.pack(len(key)) + key + _SIZE.pack(len(value)) + value


def text_of(schema: Schema) -> str:
    """Return the definition as admin REST shows it."""
    parts = split(schema)
    return msgspec.json.encode({"key": _shown(parts.key), "value": _shown(parts.value)}).decode()


def data_of(text: str) -> bytes:
    """Return the definition that admin REST was given.

    Raises:
        InvalidSchemaError: it is not an object with both parts.
    """
    try:
        given = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        return join(_taken(given["key"]), _taken(given["value"]))
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, RecursionError) as error:
        raise InvalidSchemaError(
            f"a KEY_VALUE definition is a JSON object with key and value: {error}"
        ) from None


def _cut(data: bytes) -> tuple[bytes, bytes]:
    size = _SIZE.unpack_from(data)[0] if len(data) >= _SIZE.size else None
    if size is None or size < -1 or size > len(data) - _SIZE.size:
        raise InvalidSchemaError("the key/value definition ends too early")
    end = _SIZE.size + max(size, 0)
    return data[_SIZE.size : end], data[end:]


def _part(schema: Schema, which: str, data: bytes) -> Schema:
    properties = schema.properties.get(f"{which}.schema.properties", "")
    return Schema(
        _type(schema.properties.get(f"{which}.schema.type", "BYTES")),
        data,
        _properties(properties) if properties else {},
        schema.properties.get(f"{which}.schema.name", ""),
    )


def _type(name: str) -> SchemaType:
    name = {"BYTES": "NONE", "BOOL": "BOOLEAN"}.get(name.upper(), name.upper())
    if name not in SchemaType.__members__ or name in {"KEY_VALUE", "AUTO_CONSUME"}:
        raise InvalidSchemaError(f"{name[:100]!r} is not the type of a key or a value")
    return SchemaType[name]


def _properties(text: str) -> dict[str, str]:
    try:
        return msgspec.json.decode(text, type=dict[str, str], strict=False)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidSchemaError("the properties of a key or a value are no JSON object") from None


def _shown(part: Schema) -> Any:
    if part.type not in _TEXT:
        return part.data.decode("utf-8", "replace")
    try:
        msgspec.json.decode(part.data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return part.data.decode("utf-8", "replace")
    return msgspec.Raw(part.data)


def _taken(given: msgspec.Raw) -> bytes:
    value = bytes(given)
    if value.lstrip().startswith(b'"'):
        return msgspec.json.decode(value, type=str).encode()
    return value
