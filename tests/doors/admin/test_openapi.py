"""The description of admin REST is complete, and what it refers to is there."""

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from magnetar.broker.doors.admin.app import TABLE
from magnetar.broker.doors.admin.openapi import OPENAPI, description
from magnetar.broker.doors.admin.routes import Right, Route, Text
from magnetar.names import Domain
from tests.doors.admin.processes import Processes


@pytest.fixture(scope="module")
def told() -> Any:
    return json.loads(msgspec.json.encode(description(TABLE, "1.2.3")))


def missing(table: list[Any], told: Any) -> list[str]:
    """Return the routes that a description does not have."""
    return [
        f"{route.method} {template}"
        for route in table
        for template in {route.template.replace("{domain}", domain.value) for domain in Domain}
        if route.method.lower() not in told["paths"].get(template, {})
    ]


def test_every_route_is_described(told: Any) -> None:
    assert missing(TABLE, told) == []
    assert told["openapi"].startswith("3.1")
    assert told["info"]["version"] == "1.2.3"


def test_a_route_that_is_not_described_is_noticed(told: Any) -> None:
    async def handler(_: object) -> None: ...

    planted = Route("GET", "/admin/v2/planted", handler, Right.OPEN)
    assert missing([*TABLE, planted], told) == ["GET /admin/v2/planted"]


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


def test_everything_referred_to_is_there_and_ids_are_unique(told: Any) -> None:
    schemas = {f"#/components/schemas/{name}" for name in told["components"]["schemas"]}
    assert set(references(told)) <= schemas
    ids = [each["operationId"] for path in told["paths"].values() for each in path.values()]
    assert len(ids) == len(set(ids))


def test_a_described_operation_says_what_it_takes_and_gives() -> None:
    async def handler(_: object) -> None:
        """Do it.

        With more to say.
        """

    routes: list[Any] = [
        Route(
            "POST", "/admin/v2/things/{thing}/{count}", handler, Right.TENANT,
            body=list[int] | None, answer=dict[str, float] | None, query={"force": bool},
        ),
        Route("GET", "/admin/v2/things", handler, Right.OPEN, answer=Text),
        Route("DELETE", "/admin/v2/things", handler, Right.OPEN),
    ]  # fmt: skip
    paths = description(routes, "1")["paths"]
    posted = paths["/admin/v2/things/{thing}/{count}"]["post"]
    assert (posted["summary"], posted["x-right"]) == ("Do it.", "tenant")
    assert [(each["name"], each["in"]) for each in posted["parameters"]] == [
        ("thing", "path"), ("count", "path"), ("force", "query"),
    ]  # fmt: skip
    assert posted["requestBody"]["required"] is False
    schema = posted["requestBody"]["content"]["application/json"]["schema"]
    assert schema == {"type": "array", "items": {"type": "integer"}}
    assert set(posted["responses"]) == {"200", "204", "default"}
    assert set(paths["/admin/v2/things"]["get"]["responses"]["200"]["content"]) == {"text/plain"}
    assert set(paths["/admin/v2/things"]["delete"]["responses"]) == {"204", "default"}


async def test_the_broker_serves_its_description(ask: Any, any_number: Processes) -> None:
    answer = await ask(any_number.front, "GET", OPENAPI)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert OPENAPI in answer.json["paths"]
