"""Schemas on the wire: GET_SCHEMA, GET_OR_CREATE_SCHEMA, and what PRODUCER and SUBSCRIBE declare.

    version      eight bytes, big-endian; absent: the latest; no bytes at all: that of messages
                 without a schema, as producers of plain bytes are told
    type, name, definition, properties ──▶ port.Schema, and back

A topic without a schema answers TopicNotFound, and clients then go on without one. Source: the
Pulsar binary protocol, `Schema` and its commands.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any, cast

from magnetar.broker.doors.pulsar.requests import Line, Requests
from magnetar.broker.port import IncompatibleSchemaError, Port, Schema, SchemaType
from magnetar.broker.wire.pulsar import commands
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.names import TopicName

VERSION_BYTES = 8
VERSION_MAX = 2**63 - 1


class Schemas:
    """Answers one connection's questions about schemas."""

    __slots__ = ("_line", "_port", "_requests")

    def __init__(self, line: Line, requests: Requests, port: Port) -> None:
        self._line = line
        self._requests = requests
        self._port = port

    def get(self, command: api.CommandGetSchema) -> None:
        """Answer GET_SCHEMA."""
        self._requests.start(
            self._get(command), partial(commands.schema_failed, command.request_id)
        )

    async def _get(self, command: api.CommandGetSchema) -> bytes:
        topic = TopicName.parse(command.topic)
        version = None
        if command.HasField("schema_version"):
            if not command.schema_version:
                return _no_schema(command.request_id, topic)
            version = _unpacked(command.schema_version)
        found = await self._port.schema(topic, version)
        return commands.schema(
            command.request_id,
            name=found.schema.name or topic.base.local,
            kind=cast("api.Schema.Type", found.schema.type.value),
            data=found.schema.data,
            version=packed(found.version),
            properties=found.schema.properties,
        )

    def create(self, command: api.CommandGetOrCreateSchema) -> None:
        """Answer GET_OR_CREATE_SCHEMA."""
        self._requests.start(
            self._create(command), partial(commands.schema_refused, command.request_id)
        )

    async def _create(self, command: api.CommandGetOrCreateSchema) -> bytes:
        schema = declared(command.schema)
        version = await self._port.create_schema(TopicName.parse(command.topic), schema)
        return commands.schema_created(command.request_id, packed(version))


def declared(schema: api.Schema) -> Schema:
    """Return what a client declares."""
    # A constant of the enumeration in this message hides the message KeyValue from type checkers.
    pairs: Iterable[Any] = schema.properties
    return Schema(
        SchemaType(schema.type),
        schema.schema_data,
        {each.key: each.value for each in pairs},
        schema.name,
    )


def packed(version: int | None) -> bytes:
    """Return a version as it travels; None: no bytes."""
    return b"" if version is None else version.to_bytes(VERSION_BYTES, "big")


def _no_schema(request_id: int, topic: TopicName) -> bytes:
    """Return the schema of plain bytes: what a message of the empty version is.

    Pulsar refuses to answer; the Go client writes that version into messages, and asks for it.
    """
    return commands.schema(
        request_id,
        name=topic.base.local,
        kind=cast("api.Schema.Type", SchemaType.NONE.value),
        data=b"",
        version=b"",
        properties={},
    )


def _unpacked(version: bytes) -> int:
    if len(version) != VERSION_BYTES:
        raise IncompatibleSchemaError(
            f"a schema version has {VERSION_BYTES} bytes, this one has {len(version)}"
        )
    return min(int.from_bytes(version, "big"), VERSION_MAX)
