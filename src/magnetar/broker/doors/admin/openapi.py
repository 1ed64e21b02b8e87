"""The description of admin REST as OpenAPI 3.1, made of the table of routes.

    Route(method, template, handler, right, body, answer, query)
        │                                     └───┴──▶ JSON schemas, by msgspec
        └──▶ paths: parameters, request body, answers; the first line of the handler's docstring

What a tool that tests or calls this broker reads; served under OPENAPI. Types that appear in
several routes are written once. A field that is not described may be there all the same.
"""

import asyncio
import re
from collections.abc import Callable, Iterable, Sequence
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import msgspec
from starlette.responses import Response

from magnetar.broker.doors.admin.call import NUMBER_MAX, Call
from magnetar.broker.doors.admin.routes import ADMIN, Right, Route, Text
from magnetar.broker.doors.admin.shapes import Json, Reason
from magnetar.names import Domain

OPENAPI = f"{ADMIN}/openapi.json"

_REFS = "#/components/schemas/{name}"
_PARAMETER = re.compile(r"\{(\w+)\}")
_QUERY: dict[type, Json] = {
    bool: {"type": "boolean"},
    int: {"type": "integer", "minimum": 0, "maximum": NUMBER_MAX},
    str: {"type": "string"},
}
_NUMBERS = frozenset({"count", "entry", "ledger", "position", "seconds", "time"})
"""Parameters of paths that are numbers."""


def description(routes: Iterable[Route[Any]], version: str) -> Json:
    """Return the description of all routes, as the JSON object that it is."""
    expanded = [twin for route in routes for twin in _twins(route)]
    wanted = [each for route in expanded for each in (_plain(route.body), _plain(route.answer))]
    shapes = [each for each in wanted if each not in {None, Text, bytes}]
    unique: list[Any] = [Reason]
    unique += [each for index, each in enumerate(shapes) if each not in shapes[:index]]
    schemas, components = msgspec.json.schema_components(unique, ref_template=_REFS)
    by_shape = list(zip(unique, schemas, strict=True))

    def schema(shape: Any) -> Json:
        return next(found for each, found in by_shape if each == shape)

    paths: dict[str, Json] = {}
    for route in expanded:
        path = paths.setdefault(route.template, {})
        path[route.method.lower()] = _operation(route, schema)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Magnetar admin REST",
            "version": version,
            "description": "Apache Pulsar's admin REST, as this broker answers it.",
        },
        "security": [{}, {"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": {name: _without_unknown(each) for name, each in components.items()},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _twins(route: Route[Any]) -> list[Route[Any]]:
    if "{domain}" not in route.template:
        return [route]
    return [
        route._replace(template=route.template.replace("{domain}", domain.value))
        for domain in Domain
    ]


def _operation(route: Route[Any], schema: Callable[[Any], Json]) -> Json:
    names = _PARAMETER.findall(route.template)
    operation: Json = {
        "operationId": "_".join([route.method.lower(), *re.findall(r"\w+", route.template)]),
        "summary": route.summary,
        "tags": [route.template.removeprefix(f"{ADMIN}/").strip("/").partition("/")[0]],
        "x-right": route.right.value,
        "parameters": [
            *({"name": n, "in": "path", "required": True, "schema": _path(n)} for n in names),
            *(
                {"name": name, "in": "query", "schema": _QUERY[kind]}
                for name, kind in route.query.items()
            ),
        ],
        "responses": {
            **_answers(route.answer, schema),
            "default": {
                "description": "Refused; the reason says why.",
                "content": {"application/json": {"schema": schema(Reason)}},
            },
        },
    }
    if route.body is not None:
        operation["requestBody"] = {
            "required": NoneType not in _members(route.body),
            "content": {"application/json": {"schema": schema(_plain(route.body))}},
        }
    return operation


def _path(name: str) -> Json:
    return _QUERY[int] if name in _NUMBERS else {"type": "string", "minLength": 1}


def _answers(shape: Any, schema: Callable[[Any], Json]) -> Json:
    """Return what a call that worked is answered with."""
    answers: Json = {}
    if shape is None or NoneType in _members(shape):
        answers["204"] = {"description": "Done, or there is nothing."}
    plain = _plain(shape)
    if plain is Text:
        answers["200"] = {"description": "Text.", "content": {"text/plain": {}}}
    elif plain is bytes:
        contents: Json = {"application/octet-stream": {}, "application/json": {}}
        answers["200"] = {"description": "One entry.", "content": contents}
    elif plain is not None:
        contents = {"application/json": {"schema": schema(plain)}}
        answers["200"] = {"description": "Done.", "content": contents}
    return answers


def _members(shape: Any) -> Sequence[Any]:
    return get_args(shape) if get_origin(shape) in {Union, UnionType} else (shape,)


def _plain(shape: Any) -> Any:
    """Return a shape without `None` as one of several."""
    members = [each for each in _members(shape) if each is not NoneType]
    if len(members) == len(_members(shape)):
        return shape
    return members[0] if len(members) == 1 else Union[tuple(members)]  # noqa: UP007 - made here


def _without_unknown(schema: Json) -> Json:
    """Leave out the nameless field in which a document keeps what it does not know."""
    known = {name: each for name, each in schema.get("properties", {}).items() if name}
    return schema | {"properties": known} if "properties" in schema else schema


def describing(routes: Sequence[Route[Any]]) -> list[Route[Any]]:
    """Return the routes that serve the description of these, and of themselves."""
    made: list[bytes] = []

    async def describe(call: Call) -> Response:
        """Return this description."""
        if not made:
            made.append(await asyncio.to_thread(render, call.context.version))
        return Response(made[0], media_type="application/json")

    def render(version: str) -> bytes:
        return msgspec.json.encode(description([*routes, *own], version))

    own: list[Route[Any]] = [Route("GET", OPENAPI, describe, Right.KNOWN, answer=Json)]
    return own
