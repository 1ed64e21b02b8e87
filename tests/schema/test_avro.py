"""Who can read whose data, by Avro's rules, and what is no definition at all."""

import io
import json
from typing import Any

import fastavro
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from magnetar.broker.port import InvalidSchemaError
from magnetar.broker.schema import avro
from magnetar.broker.schema.work import Budget


def parsed(definition: object) -> Any:
    data = json.dumps(definition).encode()
    return avro.parse(avro.read(data, Budget()), Budget())


def readable(reader: object, writer: object) -> str:
    return avro.can_read(parsed(reader), parsed(writer), Budget())


def record(*fields: object, name: str = "R", **more: object) -> dict[str, object]:
    return {"type": "record", "name": name, "fields": list(fields), **more}


def field(name: str, type_: object, **more: object) -> dict[str, object]:
    return {"name": name, "type": type_, **more}


def enum(*symbols: str, **more: object) -> dict[str, object]:
    return {"type": "enum", "name": "E", "symbols": list(symbols), **more}


A, B = field("a", "int"), field("b", "string")
B_WITH_DEFAULT = field("b", "string", default="")


@pytest.mark.parametrize(
    ("reader", "writer", "why"),
    [
        ("int", "int", ""),
        ("long", "int", ""),
        ("int", "long", "type mismatch"),
        ("double", "float", ""),
        ("float", "double", "type mismatch"),
        ("string", "bytes", ""),
        (record(A), record(A, B), ""),
        (record(A, B), record(A), "default"),
        (record(A, B_WITH_DEFAULT), record(A), ""),
        (record(A), record(A, name="Other"), ""),
        (record(B), record(A, name="Other"), "default"),
        ([record(A, name="X"), record(B, name="Y")], record(B, name="Z"), ""),
        (enum("X"), {**enum("X"), "name": "Other"}, "name mismatch"),
        (record(A, name="x.R"), record(A, name="y.R"), ""),
        (record(A, aliases=["Old"]), record(A, name="Old"), ""),
        (record(field("new", "int", aliases=["a"])), record(A), ""),
        (record(field("a", "long")), record(A), ""),
        (record(field("a", "string")), record(A), "type mismatch"),
        (enum("X", "Y"), enum("X"), ""),
        (enum("X"), enum("X", "Y"), "symbols"),
        (enum("X", default="X"), enum("X", "Y"), ""),
        (["null", "int"], "int", ""),
        ("int", ["null", "int"], "type mismatch"),
        (["null", "int", "string"], ["null", "int"], ""),
        (["null", "int"], ["null", "string"], "missing union branch"),
        ({"type": "array", "items": "long"}, {"type": "array", "items": "int"}, ""),
        ({"type": "array", "items": "int"}, {"type": "map", "values": "int"}, "type mismatch"),
        ({"type": "map", "values": "int"}, {"type": "map", "values": "long"}, "type mismatch"),
        (
            {"type": "fixed", "name": "F", "size": 4},
            {"type": "fixed", "name": "F", "size": 8},
            "fixed size",
        ),
    ],
)
def test_a_reader_understands_a_writer_as_avro_has_it(
    reader: object, writer: object, why: str
) -> None:
    answer = readable(reader, writer)
    assert (answer == "") == (why == "")
    assert why in answer


def test_the_reason_names_the_place() -> None:
    assert "/fields/0" in readable(record(field("a", "string")), record(A))


def test_a_type_that_contains_itself_is_compared_once() -> None:
    tree = record(A, field("next", ["null", "R"], default=None))
    assert readable(tree, tree) == ""


def test_names_of_javas_nested_classes_are_names() -> None:
    inner = record(A, name="Inner", namespace="org.acme.Outer$")
    assert readable(inner, record(A, name="Outer$Inner")) == ""


@pytest.mark.parametrize(
    "definition",
    [
        record(A, doc="what it is for"),
        {"fields": [A], "name": "R", "type": "record"},
        record({"type": "int", "name": "a", "doc": "a number"}),
        record({"name": "a", "type": {"type": {"type": "int"}}}),
    ],
)
def test_comments_and_the_order_of_keys_say_nothing(definition: object) -> None:
    spaced = json.dumps(definition, indent=4).encode()
    normal = avro.read(spaced, Budget())
    if normal["fields"][0]["type"] == {"type": "int"}:
        normal["fields"][0]["type"] = "int"
    assert normal == avro.read(json.dumps(record(A)).encode(), Budget())


def test_a_default_is_not_looked_into() -> None:
    with_doc = record(field("m", {"type": "map", "values": "string"}, default={"doc": "kept"}))
    assert avro.read(json.dumps(with_doc).encode(), Budget()) == with_doc


@pytest.mark.parametrize(
    "definition",
    [
        b"",
        b"\xff\xfe",
        b"{",
        b"null",
        b"17",
        b'"nothing"',
        b'{"type": "nothing"}',
        b'{"fields": []}',
        b'{"type": "record", "name": "R"}',
        b'{"type": "record", "name": "R", "fields": 1}',
        b'{"type": "record", "name": "R", "fields": [{"name": "a"}]}',
        b'{"type": "record", "name": "1R", "fields": []}',
        b'{"type": "record", "name": 1, "fields": []}',
        b'{"type": "record", "fields": []}',
        b'{"type": "record", "name": "R", "fields": [{"name": "a", "type": "Unknown"}]}',
        b'{"type": "enum", "name": "E", "symbols": "X"}',
        b'{"type": "enum", "name": "E", "symbols": ["X", "X"]}',
        b'{"type": "array"}',
        b'{"type": "fixed", "name": "F", "size": "large"}',
        b'{"type": {"name": "x"}}',
        b'[["int"], "string"]',
        b'["int", "int"]',
        b'"\xff"',
    ],
)
def test_what_is_no_definition_is_refused(definition: bytes) -> None:
    with pytest.raises(InvalidSchemaError):
        avro.parse(avro.read(definition, Budget()), Budget())


@pytest.mark.parametrize("depth", [200, 10_000, 100_000])
def test_a_definition_nested_too_deeply_is_refused(depth: int) -> None:
    nested = b'{"type":"array","items":' * depth + b'"int"' + b"}" * depth
    with pytest.raises(InvalidSchemaError, match=r"nested|no JSON"):
        avro.read(nested, Budget())


def test_a_comparison_without_end_is_refused() -> None:
    """A thousand branches against a thousand are a million pairs."""

    def union(prefix: str) -> Any:
        records = [
            record(field(f"{prefix}{number}", "int"), name=f"{prefix}{number}")
            for number in range(1_000)
        ]
        return parsed(record(field("a", records)))

    with pytest.raises(InvalidSchemaError, match="too complex"):
        avro.can_read(union("A"), union("B"), Budget())


# --- against somebody else's reading ------------------------------------------------------------

names = st.sampled_from(["a", "b", "c", "d"])
primitives = st.sampled_from(
    ["null", "boolean", "int", "long", "float", "double", "bytes", "string"]
)
DEFAULTS = {
    "null": None, "boolean": True, "int": 7, "long": 7, "float": 0.5, "double": 0.5,
    "bytes": "x", "string": "x",
}  # fmt: skip


@st.composite
def definitions(draw: st.DrawFn, depth: int = 2) -> Any:
    """A definition; the names of named types depend on what they are, so each occurs once."""
    kind = draw(st.sampled_from(["primitive", "union", "array", "map", "record", "enum"]))
    if depth == 0 or kind == "primitive":
        return draw(primitives)
    if kind == "union":
        return draw(st.lists(primitives, min_size=1, max_size=3, unique=True))
    if kind == "array":
        return {"type": "array", "items": draw(definitions(depth - 1))}
    if kind == "map":
        return {"type": "map", "values": draw(definitions(depth - 1))}
    if kind == "enum":
        symbols = draw(st.lists(st.sampled_from("XYZ"), min_size=1, unique=True))
        found: dict[str, Any] = {"type": "enum", "name": f"E{depth}", "symbols": symbols}
        if draw(st.booleans()):
            found["default"] = symbols[0]
        return found
    fields: list[Any] = []
    for name in draw(st.lists(names, unique=True, max_size=3)):
        type_ = draw(definitions(depth - 1 if not fields else 0))
        each: dict[str, Any] = {"name": name, "type": type_}
        if isinstance(type_, str) and draw(st.booleans()):
            each["default"] = DEFAULTS[type_]
        fields.append(each)
    return {"type": "record", "name": f"R{depth}", "fields": fields}


@st.composite
def data_of(draw: st.DrawFn, definition: Any) -> Any:
    """Something that can be written with a definition."""
    if isinstance(definition, list):
        return draw(data_of(draw(st.sampled_from(definition))))
    if isinstance(definition, str):
        return draw(
            {
                "null": st.none(),
                "boolean": st.booleans(),
                "int": st.integers(-(2**31), 2**31 - 1),
                "long": st.integers(-(2**63), 2**63 - 1),
                "float": st.floats(width=32, allow_nan=False),
                "double": st.floats(allow_nan=False),
                "bytes": st.text("abc").map(str.encode),
                "string": st.text("abc"),
            }[definition]
        )
    match definition["type"]:
        case "array":
            return draw(st.lists(data_of(definition["items"]), max_size=2))
        case "map":
            return draw(st.dictionaries(names, data_of(definition["values"]), max_size=2))
        case "enum":
            return draw(st.sampled_from(definition["symbols"]))
        case _:
            return {each["name"]: draw(data_of(each["type"])) for each in definition["fields"]}


@st.composite
def evolved(draw: st.DrawFn, definition: Any) -> Any:
    """A definition changed somewhere, so that it often goes with the old one."""
    if isinstance(definition, dict) and definition["type"] == "record":
        fields = [
            {**each, "type": draw(evolved(each["type"]))}
            for each in definition["fields"]
            if draw(st.integers(0, 3))
        ]
        for each in fields:
            if "default" in each and each["type"] not in DEFAULTS:
                del each["default"]
            elif "default" in each:
                each["default"] = DEFAULTS[each["type"]]
        if draw(st.booleans()):
            fields.append({"name": "new", "type": "int", "default": 3})
        return {**definition, "fields": fields}
    if isinstance(definition, str):
        wider = {"int": ["int", "long", "double"], "long": ["long", "float"], "float": ["double"]}
        return draw(st.sampled_from([definition, *wider.get(definition, ["string"])]))
    if isinstance(definition, dict) and definition["type"] == "enum":
        more = [*definition["symbols"], "W"]
        return {**definition, "symbols": more} if draw(st.booleans()) else definition
    return definition


@given(st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
def test_what_is_called_readable_fastavro_can_read(data: st.DataObject) -> None:
    writer = data.draw(definitions())
    reader = data.draw(st.one_of(evolved(writer), definitions()))
    assume(readable(reader, writer) == "")
    value = data.draw(data_of(writer))

    written = io.BytesIO()
    fastavro.schemaless_writer(written, fastavro.parse_schema(writer), value)
    written.seek(0)
    fastavro.schemaless_reader(
        written, fastavro.parse_schema(writer), fastavro.parse_schema(reader)
    )
    assert written.read() == b""
