"""Schemas on the wire: asked for, declared, refused."""

from typing import Any

import pytest

from magnetar.broker.port import (
    IncompatibleSchemaError,
    InvalidSchemaError,
    Schema,
    SchemaType,
    TopicNotFoundError,
)
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from tests.doors.pulsar.conftest import Rig

TOPIC = "persistent://public/default/t"
DEFINITION = b'{"type":"record","name":"R","fields":[]}'
TYPED = Schema(SchemaType.AVRO, DEFINITION, {"a": "b"}, "R")
ON_THE_WIRE = api.Schema(
    name="R",
    schema_data=DEFINITION,
    type=api.Schema.Avro,
    properties=[{"key": "a", "value": "b"}],
)


async def ask_for(rig: Rig, **fields: Any) -> Any:
    client = await rig.client()
    return await client.ask(
        "GET_SCHEMA", "GET_SCHEMA_RESPONSE", **{"topic": "t", "request_id": 1, **fields}
    )


async def create(rig: Rig, **fields: Any) -> Any:
    client = await rig.client()
    fields = {"topic": "t", "request_id": 2, "schema": ON_THE_WIRE, **fields}
    return await client.ask("GET_OR_CREATE_SCHEMA", "GET_OR_CREATE_SCHEMA_RESPONSE", **fields)


async def test_a_topic_without_a_schema_is_said_to_have_none(rig: Rig) -> None:
    answer = await ask_for(rig)
    assert (answer.error_code, answer.request_id) == (api.TopicNotFound, 1)


async def test_the_latest_version_is_handed_out_or_the_one_that_is_named(rig: Rig) -> None:
    rig.port.schemas[TOPIC] = [Schema(SchemaType.STRING), TYPED]
    latest = await ask_for(rig)
    assert (latest.schema, latest.schema_version) == (ON_THE_WIRE, b"\0\0\0\0\0\0\0\1")
    assert not latest.HasField("error_code")
    first = await ask_for(rig, schema_version=bytes(8))
    assert (first.schema.type, first.schema.name) == (api.Schema.String, "t")
    missing = await ask_for(rig, schema_version=b"\xff" * 8)
    assert missing.error_code == api.TopicNotFound


@pytest.mark.parametrize("version", [b"\0", b"0", bytes(9)])
async def test_a_version_that_is_none_is_refused(rig: Rig, version: bytes) -> None:
    rig.port.schemas[TOPIC] = [TYPED]
    answer = await ask_for(rig, schema_version=version)
    assert answer.error_code == api.IncompatibleSchema
    assert "8 bytes" in answer.error_message


async def test_a_message_of_the_empty_version_is_plain_bytes(rig: Rig) -> None:
    for topic in (TOPIC, "persistent://public/default/none"):
        rig.port.schemas[TOPIC] = [TYPED]
        answer = await ask_for(rig, topic=topic, schema_version=b"")
        assert not answer.HasField("error_code")
        assert (answer.schema.type, answer.schema.schema_data) == (0, b"")
        assert answer.schema_version == b""


async def test_a_schema_is_created_and_its_version_told(rig: Rig) -> None:
    answer = await create(rig)
    assert answer.schema_version == bytes(8)
    assert rig.port.schemas[TOPIC] == [TYPED]


async def test_plain_bytes_get_no_version(rig: Rig) -> None:
    plain = api.Schema(name="b", schema_data=b"", type=api.Schema.NoSchema)
    answer = await create(rig, schema=plain)
    assert answer.schema_version == b""
    assert not answer.HasField("error_code")


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (IncompatibleSchemaError("no"), api.IncompatibleSchema),
        (InvalidSchemaError("no"), api.IncompatibleSchema),
        (TopicNotFoundError("no"), api.TopicNotFound),
    ],
)
async def test_a_refusal_has_the_code_that_clients_know(
    rig: Rig, raised: Exception, code: int
) -> None:
    rig.port.failures["create_schema"] = raised
    answer = await create(rig)
    assert (answer.error_code, answer.error_message) == (code, "no")
    rig.port.failures["open_producer"] = raised
    client = await rig.client()
    error = await client.ask("PRODUCER", "ERROR", topic="t", producer_id=1, request_id=3)
    assert error.error == code


async def test_a_name_that_is_none_is_refused(rig: Rig) -> None:
    answer = await ask_for(rig, topic="persistent://a/b/c/d")
    assert answer.error_code == api.InvalidTopicName
    assert (await create(rig, topic="")).error_code == api.InvalidTopicName


async def test_a_producer_is_told_the_version_of_its_schema(rig: Rig) -> None:
    client = await rig.client()
    assert (await client.produce(1, schema=ON_THE_WIRE)).schema_version == bytes(8)
    assert (await client.produce(2)).schema_version == b""
