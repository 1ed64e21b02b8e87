"""Schemas over HTTP, with one process and with two: Pulsar's bodies and statuses."""

import json
from typing import Any

import pytest

from tests.doors.admin.processes import Processes

SCHEMAS = "/admin/v2/schemas/public/default/orders"
TOPIC = "/admin/v2/persistent/public/default/orders"
NAMESPACE = "/admin/v2/namespaces/public/default"


def avro(*fields: dict[str, Any]) -> dict[str, Any]:
    definition = {"type": "record", "name": "Order", "fields": list(fields)}
    return {"type": "AVRO", "schema": json.dumps(definition), "properties": {"a": "b"}}


A = {"name": "a", "type": "int"}
ONE = avro(A)
TWO = avro(A, {"name": "b", "type": "int", "default": 0})
OTHER = avro({"name": "a", "type": "string"})


async def test_a_schema_is_added_shown_and_deleted(ask: Any, any_number: Processes) -> None:
    front = any_number.front
    assert (await ask(front, "GET", f"{SCHEMAS}/schema")).status == 404
    assert (await ask(front, "GET", f"{SCHEMAS}/metadata")).status == 404
    for body, version in ((ONE, 0), (TWO, 1), (ONE, 0)):
        answer = await ask(front, "POST", f"{SCHEMAS}/schema", body)
        assert (answer.status, answer.json) == (200, {"version": version})
    shown = (await ask(front, "GET", f"{SCHEMAS}/schema")).json
    assert shown == {
        "version": 1,
        "type": "AVRO",
        "timestamp": shown["timestamp"],
        "data": TWO["schema"],
        "properties": {"a": "b"},
    }
    assert shown["timestamp"] > 0
    assert (await ask(front, "GET", f"{SCHEMAS}/schema/0")).json["data"] == ONE["schema"]
    every = (await ask(front, "GET", f"{SCHEMAS}/schemas")).json["getSchemaResponses"]
    assert [each["version"] for each in every] == [0, 1]
    metadata = (await ask(front, "GET", f"{SCHEMAS}/metadata")).json
    assert metadata["info"]["version"] == len(metadata["index"]) - 1 == 1
    assert (await ask(front, "DELETE", f"{SCHEMAS}/schema")).json == {"version": 2}
    for path in ("schema", "schema/0", "schema/1"):
        assert (await ask(front, "GET", f"{SCHEMAS}/{path}")).status == 404
    assert (await ask(front, "GET", f"{SCHEMAS}/schemas")).json == {"getSchemaResponses": []}
    assert (await ask(front, "POST", f"{SCHEMAS}/schema", OTHER)).json == {"version": 3}
    assert (await ask(front, "DELETE", f"{SCHEMAS}/schema?force=true")).status == 200
    assert (await ask(front, "POST", f"{SCHEMAS}/schema", OTHER)).json == {"version": 0}


async def test_whether_a_schema_could_be_added_is_answered_without_adding_it(
    ask: Any, any_number: Processes
) -> None:
    front = any_number.front
    await ask(front, "POST", f"{SCHEMAS}/schema", ONE)
    for body, compatible in ((TWO, True), (OTHER, False), (ONE, True)):
        answer = await ask(front, "POST", f"{SCHEMAS}/compatibility", body)
        assert (answer.status, answer.json) == (
            200,
            {"compatibility": compatible, "schemaCompatibilityStrategy": "FULL"},
        )
    for body, version in ((ONE, 0), (TWO, -1)):
        answer = await ask(front, "POST", f"{SCHEMAS}/version", body)
        assert answer.json == {"version": version}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (OTHER, 409),
        ({"type": "STRING", "schema": ""}, 409),
        ({"type": "AVRO", "schema": "{"}, 422),
        ({"type": "AVRO", "schema": ""}, 422),
        ({"type": "INT32", "schema": "x"}, 422),
        ({"type": "NONSENSE", "schema": ""}, 422),
        ({"type": "NONE", "schema": ""}, 422),
        ({"type": "AUTO_CONSUME", "schema": ""}, 422),
        ({"type": "KEY_VALUE", "schema": "[]"}, 422),
        ({"schema": ""}, 400),
        ({"type": "STRING", "schema": "", "properties": {"a": 1}}, 400),
        (b"", 400),
        (b"{", 400),
        (b"[" * 100_000, 400),
    ],
)
async def test_what_cannot_be_added_is_refused_with_the_reason(
    ask: Any, one: Processes, body: object, status: int
) -> None:
    await ask(one.front, "POST", f"{SCHEMAS}/schema", ONE)
    answer = await ask(one.front, "POST", f"{SCHEMAS}/schema", body)
    assert answer.status == status
    assert answer.reason
    assert (await ask(one.front, "GET", f"{SCHEMAS}/schema")).json["version"] == 0


async def test_a_namespace_that_is_missing_is_said_to_be(ask: Any, one: Processes) -> None:
    nowhere = SCHEMAS.replace("default", "nowhere")
    for method, path, body in (
        ("POST", "schema", ONE),
        ("POST", "compatibility", ONE),
        ("POST", "version", ONE),
        ("GET", "schemas", b""),
        ("GET", "schema", b""),
        ("DELETE", "schema", b""),
    ):
        assert (await ask(one.front, method, f"{nowhere}/{path}", body)).status == 404


@pytest.mark.parametrize("version", ["x", "-1", "99999999999999999999"])
async def test_a_version_that_is_none_is_refused(ask: Any, one: Processes, version: str) -> None:
    answer = await ask(one.front, "GET", f"{SCHEMAS}/schema/{version}")
    assert answer.status in {400, 412}


async def test_a_key_and_a_value_are_shown_as_an_object(ask: Any, one: Processes) -> None:
    record = json.loads(ONE["schema"])
    body = {
        "type": "KEY_VALUE",
        "schema": json.dumps({"key": "", "value": record}),
        "properties": {"key.schema.type": "STRING", "value.schema.type": "AVRO"},
    }
    assert (await ask(one.front, "POST", f"{SCHEMAS}/schema", body)).json == {"version": 0}
    shown = (await ask(one.front, "GET", f"{SCHEMAS}/schema")).json
    assert json.loads(shown["data"]) == {"key": "", "value": record}


async def test_a_partition_has_the_schema_of_its_topic(ask: Any, any_number: Processes) -> None:
    front = any_number.front
    await ask(front, "POST", f"{SCHEMAS}-partition-1/schema", ONE)
    for name in ("", "-partition-0"):
        assert (await ask(front, "GET", f"{SCHEMAS}{name}/schema")).json["version"] == 0


async def test_a_topic_takes_its_schema_with_it(ask: Any, any_number: Processes) -> None:
    front = any_number.front
    for path in (TOPIC, f"{TOPIC}/partitions"):
        body = 2 if path.endswith("partitions") else b""
        assert (await ask(front, "PUT", path, body)).status == 204
        await ask(front, "POST", f"{SCHEMAS}/schema", ONE)
        assert (await ask(front, "DELETE", path)).status == 204
        assert (await ask(front, "GET", f"{SCHEMAS}/schema")).status == 404


async def test_the_strategy_of_the_namespace_decides_at_once(
    ask: Any, any_number: Processes
) -> None:
    front = any_number.front
    await ask(front, "POST", f"{SCHEMAS}/schema", ONE)
    assert (await ask(front, "POST", f"{SCHEMAS}/schema", OTHER)).status == 409
    strategy = f"{NAMESPACE}/schemaCompatibilityStrategy"
    assert (await ask(front, "PUT", strategy, "ALWAYS_COMPATIBLE")).status == 204
    assert (await ask(front, "POST", f"{SCHEMAS}/schema", OTHER)).json == {"version": 1}
