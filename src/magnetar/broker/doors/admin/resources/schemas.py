"""Schemas: what a topic's payloads are, in all versions.

    GET     .../schema, .../schema/{n}  {"version", "type", "timestamp", "data", "properties"}
    GET     .../schemas                 {"getSchemaResponses": [...]}
    GET     .../metadata                {"info": {...}, "index": [...]}: without definitions
    POST    .../schema          {"type", "schema", "properties"} ──▶ {"version": 3}
    POST    .../compatibility   the same ──▶ {"compatibility", "schemaCompatibilityStrategy"}
    POST    .../version         the same ──▶ {"version": 3}, -1: the topic has it not
    DELETE  .../schema          {"version": 4}: versions so far cannot be seen any more

A topic need not be there to have a schema; its namespace must. Any process answers: schemas are
in the metadata, which all share. The definition of KEY_VALUE is an object with `key` and `value`.
Source: Pulsar's `SchemasResource`: 409 incompatible, 422 no definition, 404 no schema.
"""

import asyncio
from typing import Any

from starlette.responses import Response

from magnetar.broker.doors.admin.call import NUMBER_MAX, Call, answer
from magnetar.broker.doors.admin.errors import Refusal
from magnetar.broker.doors.admin.routes import ADMIN, Right, Route
from magnetar.broker.doors.admin.shapes import (
    Compatibility,
    Json,
    SchemaGiven,
    SchemaShown,
    SchemasShown,
    SchemaVersion,
)
from magnetar.broker.port import (
    IncompatibleSchemaError,
    InvalidSchemaError,
    Schema,
    SchemaType,
    VersionedSchema,
)
from magnetar.broker.schema import key_value
from magnetar.broker.schema.compatibility import Strategy
from magnetar.broker.schema.registry import Registry
from magnetar.names import Domain, TopicName

SCHEMAS = f"{ADMIN}/schemas/{{tenant}}/{{namespace}}/{{topic}}"

_NOT_KEPT = frozenset({SchemaType.NONE, SchemaType.AUTO_CONSUME})


def topic_of(call: Call) -> TopicName:
    """Return the topic whose schema a call is about: that of a partition is its topic's."""
    parts = call.parameters
    return TopicName.parse(
        f"{Domain.PERSISTENT.value}://{parts['tenant']}/{parts['namespace']}/{parts['topic']}"
    ).base


def registry_of(call: Call) -> Registry:
    """Return all schemas."""
    return call.context.catalog.schemas


async def get_schema(call: Call) -> Response:
    """Return the latest version."""
    return answer(await _shown(await registry_of(call).get(topic_of(call))))


async def get_version(call: Call) -> Response:
    """Return one version."""
    version = call.number("version", high=NUMBER_MAX)
    return answer(await _shown(await registry_of(call).get(topic_of(call), version)))


async def get_all(call: Call) -> Response:
    """Return all versions, the oldest first."""
    await call.context.namespaces.get(call.namespace)
    found = await registry_of(call).all(topic_of(call))
    return answer({"getSchemaResponses": [await _shown(each) for each in found]})


async def get_metadata(call: Call) -> Response:
    """Return which versions there are."""
    found = await registry_of(call).all(topic_of(call))
    if not found:
        await registry_of(call).get(topic_of(call))  # says that there is none
    index = [
        {
            "version": each.version,
            "type": each.schema.type.name,
            "timestamp": each.created_ms,
            "size": len(each.schema.data),
        }
        for each in found
    ]
    return answer({"info": index[-1], "index": index})


async def post_schema(call: Call) -> Response:
    """Add a version, unless the topic has it already."""
    topic, schema = topic_of(call), _given(call)
    strategy = await _strategy(call)
    version = await registry_of(call).put(topic, schema, strategy)
    return answer({"version": version})


async def check(call: Call) -> Response:
    """Return whether a schema could be added."""
    topic, schema = topic_of(call), _given(call)
    strategy = await _strategy(call)
    try:
        await registry_of(call).check(topic, schema, strategy)
        compatible = True
    except InvalidSchemaError:
        raise
    except IncompatibleSchemaError:
        compatible = False
    return answer({"compatibility": compatible, "schemaCompatibilityStrategy": strategy.value})


async def find(call: Call) -> Response:
    """Return the version under which a topic has a schema; -1: it has it not."""
    topic, schema = topic_of(call), _given(call)
    await call.context.namespaces.get(call.namespace)
    return answer({"version": await registry_of(call).find(topic, schema)})


async def delete_schema(call: Call) -> Response:
    """Delete all versions so far; with `force`, forget that there were any."""
    version = await registry_of(call).delete(topic_of(call), force=call.flag("force"))
    return answer({"version": version})


async def _strategy(call: Call) -> Strategy:
    return (await call.context.catalog.rules_for(topic_of(call))).schema_strategy


def _given(call: Call) -> Schema:
    given: SchemaGiven = call.needed_json(SchemaGiven, "schema")
    name = {"BYTES": "NONE", "BOOL": "BOOLEAN"}.get(given.type, given.type)
    if name not in SchemaType.__members__ or SchemaType[name] in _NOT_KEPT:
        raise Refusal(422, f"{given.type[:100]!r} is not the type of a schema that can be kept")
    type_ = SchemaType[name]
    if type_ is SchemaType.KEY_VALUE:
        data = key_value.data_of(given.schema)
    else:
        data = given.schema.encode()
    return Schema(type_, data, given.properties or {}, call.parameters["topic"])


async def _shown(found: VersionedSchema) -> dict[str, Any]:
    await asyncio.sleep(0)  # a definition may be large, and there may be many
    schema = found.schema
    if schema.type is SchemaType.KEY_VALUE:
        data = key_value.text_of(schema)
    else:
        data = schema.data.decode("utf-8", "replace")
    return {
        "version": found.version,
        "type": schema.type.name,
        "timestamp": found.created_ms,
        "data": data,
        "properties": dict(schema.properties),
    }


ROUTES = [
    Route("GET", f"{SCHEMAS}/schema", get_schema, Right.READ, answer=SchemaShown),
    Route("GET", f"{SCHEMAS}/schema/{{version}}", get_version, Right.READ, answer=SchemaShown),
    Route("GET", f"{SCHEMAS}/schemas", get_all, Right.READ, answer=SchemasShown),
    Route("GET", f"{SCHEMAS}/metadata", get_metadata, Right.READ, answer=Json),
    Route(
        "POST",
        f"{SCHEMAS}/schema",
        post_schema,
        Right.PRODUCE,
        body=SchemaGiven,
        answer=SchemaVersion,
    ),
    Route(
        "POST",
        f"{SCHEMAS}/compatibility",
        check,
        Right.NAMESPACE,
        body=SchemaGiven,
        answer=Compatibility,
    ),
    Route("POST", f"{SCHEMAS}/version", find, Right.READ, body=SchemaGiven, answer=SchemaVersion),
    Route(
        "DELETE",
        f"{SCHEMAS}/schema",
        delete_schema,
        Right.NAMESPACE,
        answer=SchemaVersion,
        query={"force": bool},
    ),
]
