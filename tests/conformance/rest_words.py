"""Calls made from the description of admin REST, likely and unlikely ones, and a judge of answers.

    openapi.json ──▶ Words(seed) ──▶ method, target, headers, body ──▶ broker ──▶ complaint(...)

`Words` draws names from a small stock, so that calls meet what earlier calls have made. What a
schema allows is drawn as well as what it does not. `flaw` checks a value against as much of JSON
Schema as msgspec writes. The same seed makes the same calls.
"""

import json
import math
import random
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

Json = Any

PLACES = [("public", "default"), ("fuzz", "ns")]
"""Tenants and namespaces that there are."""
LIKELY = {
    "topic": ["t0", "t1", "p", "p-partition-0", "päck chen", "0x00000000_0x40000000"],
    "subscription": ["s0", "s1", "s/1"],
    "bundle": ["0x00000000_0x40000000", "0x40000000_0x80000000", "LARGEST"],
    "cluster": ["standalone", "west"],
    "broker": ["127.0.0.1:8080"],
    "mode": ["ALL", "PERSISTENT"],
    "initialPosition": ["earliest", "latest"],
    "format": ["json", ""],
    "backlogQuotaType": ["destination_storage", "message_age"],
    "listenerName": [""],
    "role": ["reader", "writer"],
}
OTHERS = ["a", "b", "west", "x" * 40]
UNLIKELY = [
    "",
    "..",
    "%",
    "\x00",
    "\n",
    "é" * 400,
    "x" * 1500,
    "*",
    "0x0_0x1",
    "-1",
    "a/b/c",
    "null",
]
NUMBERS = [0, 1, 1, 2, 3, 5, 60]
EDGES = [-1, 2**31 - 1, 2**31, 2**63 - 1, 2**63, 2**64, -(2**63), 10**30]
TEXTS = ["", "a", "producer_exception", "earliest", "standalone", "\x00", "é", "x" * 1100]
REFUSED_BY_HAND = [
    b"{",
    b"nul",
    b"[" * 3000,
    b'{"a":',
    b"\xff\xfe",
    b"1e999",
    b'"' + b"x" * 9000 + b'"',
]


class Call(NamedTuple):
    """One call, and the operation of the description that it is an instance of."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    operation: Mapping[str, Json]

    def __str__(self) -> str:
        return f"{self.method} {self.target[:300]} {self.body[:300]!r}"


class Words:
    """Draws calls."""

    def __init__(self, description: Mapping[str, Json], seed: int) -> None:
        self._schemas: Mapping[str, Json] = description["components"]["schemas"]
        self._paths: Mapping[str, Json] = description["paths"]
        self._random = random.Random(seed)

    def round(self) -> Iterator[Call]:
        """Yield one call of each operation, in any order."""
        operations = [
            (path, method, operation)
            for path, methods in self._paths.items()
            for method, operation in methods.items()
        ]
        self._random.shuffle(operations)
        for path, method, operation in operations:
            yield self.call(path, method, operation)

    def call(self, path: str, method: str, operation: Mapping[str, Json]) -> Call:
        """Return an instance of an operation."""
        query: dict[str, str] = {}
        tenant, namespace = self._random.choice(PLACES)
        if self._often(0.85):
            path = path.replace("{tenant}", tenant).replace("{namespace}", namespace)
        for parameter in operation["parameters"]:
            name, word = parameter["name"], self._parameter(parameter)
            if parameter["in"] == "path":
                path = path.replace(f"{{{name}}}", quote(word or "-", safe=""))
            elif self._often(0.5):
                query[name] = word
        body = self._body(operation.get("requestBody"))
        target = f"{path}?{urlencode(query)}" if query else path
        headers = {"Content-Type": "application/json"} if body else {}
        return Call(method.upper(), target, headers, body, operation)

    def _often(self, share: float) -> bool:
        return self._random.random() < share

    def _parameter(self, parameter: Mapping[str, Json]) -> str:
        schema, name = parameter["schema"], parameter["name"]
        if self._often(0.1):
            return self._random.choice(UNLIKELY)
        if schema["type"] == "boolean":
            return self._random.choice(["true", "false", "maybe"])
        if schema["type"] == "integer":
            return str(self._random.choice(EDGES if self._often(0.15) else NUMBERS))
        return self._random.choice(OTHERS if self._often(0.1) else LIKELY.get(name, OTHERS))

    def _body(self, wanted: Mapping[str, Json] | None) -> bytes:
        if wanted is None:
            return b"" if self._often(0.95) else b"{}"
        if self._often(0.1):
            return b""
        if self._often(0.1):
            return self._random.choice(REFUSED_BY_HAND)
        schema = wanted["content"]["application/json"]["schema"]
        value = self.value({} if self._often(0.1) else schema)
        return json.dumps(value).encode()

    def value(self, schema: Mapping[str, Json], depth: int = 0) -> Json:  # noqa: C901, PLR0911
        """Return something a schema allows, or, now and then, something else."""
        if "$ref" in schema:
            return self.value(self._schemas[schema["$ref"].rpartition("/")[2]], depth)
        if self._often(0.05):
            return self._random.choice(
                [None, True, -1, 1.5, "x", [], {}, [[[]]], {"a": {}}, *EDGES]
            )
        if "enum" in schema:
            return self._random.choice(schema["enum"])
        if "anyOf" in schema:
            return self.value(self._random.choice(schema["anyOf"]), depth)
        match schema.get("type"):
            case "object":
                return self._object(schema, depth)
            case "array":
                count = self._random.choice([0, 1, 2])
                return [self.value(schema.get("items", {}), depth + 1) for _ in range(count)]
            case "boolean":
                return self._often(0.5)
            case "integer":
                return self._random.choice(EDGES if self._often(0.15) else NUMBERS)
            case "number":
                return self._random.choice([0.0, 0.5, -1.0, 1e300, 7])
            case "string":
                return self._random.choice(TEXTS)
            case _:
                return self._random.choice([{}, [], 3, "x", None, True])

    def _object(self, schema: Mapping[str, Json], depth: int) -> Json:
        required = schema.get("required", ())
        made = {
            name: self.value(each, depth + 1)
            for name, each in schema.get("properties", {}).items()
            if name in required or self._often(0.4)
        }
        more = schema.get("additionalProperties")
        if isinstance(more, dict) and depth < 3:
            made |= {key: self.value(more, depth + 1) for key in ("a", "b") if self._often(0.5)}
        return made


# --- the judge ------------------------------------------------------------------------------


def flaw(  # noqa: PLR0911 - one return for each word of a schema
    value: Json, schema: Mapping[str, Json], schemas: Mapping[str, Json]
) -> str:
    """Return what a value has that its schema does not allow; empty: nothing.

    Raises:
        AssertionError: the schema has a word that is not understood here.
    """
    unknown = schema.keys() - _WORDS
    assert not unknown, f"schemas here do not say {unknown}"
    if "$ref" in schema:
        return flaw(value, schemas[schema["$ref"].rpartition("/")[2]], schemas)
    if "anyOf" in schema:
        flaws = [flaw(value, each, schemas) for each in schema["anyOf"]]
        return "" if "" in flaws else " and ".join(flaws)
    if "enum" in schema and value not in schema["enum"]:
        return f"{value!r} is none of {schema['enum']}"
    kind = schema.get("type")
    if kind is not None and not _is(value, kind):
        return f"{value!r:.100} is no {kind}"
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
        return "" if low <= value <= high else f"{value} is out of bounds"
    if isinstance(value, list):
        items = schema.get("items", {})
        return next((f"an item: {f}" for each in value if (f := flaw(each, items, schemas))), "")
    return _flaw_of_object(value, schema, schemas) if isinstance(value, dict) else ""


def _flaw_of_object(
    value: Mapping[str, Json], schema: Mapping[str, Json], schemas: Mapping[str, Json]
) -> str:
    for name in schema.get("required", ()):
        if name not in value:
            return f"{name} is missing"
    properties, more = schema.get("properties", {}), schema.get("additionalProperties", {})
    for name, each in value.items():
        found = flaw(each, properties.get(name, more if isinstance(more, dict) else {}), schemas)
        if found:
            return f"{name}: {found}"
    return ""


_WORDS = frozenset(
    {"$ref", "anyOf", "enum", "type", "minimum", "maximum", "items", "required", "properties",
     "additionalProperties", "title", "description", "default", "minLength", "format"}
)  # fmt: skip
_KINDS = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}


def _is(value: Json, kind: str) -> bool:
    if kind in {"integer", "number"}:
        allowed = int if kind == "integer" else int | float
        return isinstance(value, allowed) and not isinstance(value, bool)
    return isinstance(value, _KINDS[kind])


def complaint(  # noqa: PLR0911 - one return for each thing that may be wrong
    call: Call, status: int, kind: str, body: bytes, schemas: Mapping[str, Json]
) -> str:
    """Return what is wrong with an answer; empty: nothing."""
    if status >= 500 and status != 501:
        return f"{status}: {body[:300]!r}"
    responses = call.operation["responses"]
    if 200 <= status < 300 and str(status) not in responses:
        return f"{status} is not among {sorted(responses)}"
    contents = responses.get(str(status), responses["default"]).get("content")
    if contents is None:
        return f"a body of {len(body)} bytes where there is none" if body else ""
    media = kind.partition(";")[0]
    if media not in contents:
        return f"{media!r} is not among {sorted(contents)}"
    schema = contents[media].get("schema")
    if schema is None:
        return ""
    try:
        value = json.loads(body)
    except ValueError as error:
        return f"no JSON: {error}"
    found = flaw(value, schema, schemas)
    return f"{status}: {found}" if found else ""
