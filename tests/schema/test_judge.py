"""What is a definition, what says the same, and what goes together, for every type."""

import asyncio
import json
import threading
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magnetar.broker.port import InvalidSchemaError, Schema, SchemaType, ServiceNotReadyError
from magnetar.broker.schema import judge as judge_module
from magnetar.broker.schema.compatibility import Strategy, demanded
from magnetar.broker.schema.judge import (
    DEFINITION_BYTES_MAX,
    LARGE_BYTES,
    Judge,
    compare,
    fingerprint,
)
from magnetar.broker.schema.key_value import join
from magnetar.broker.schema.work import Budget

RECORD = b'{"type":"record","name":"R","fields":[{"name":"a","type":"int"}]}'
OTHER = b'{"type":"record","name":"R","fields":[{"name":"a","type":"string"}]}'
JACKSON = b'{"type":"object","id":"urn:jsonschema:R","properties":{"a":{"type":"integer"}}}'
FULL = demanded(Strategy.FULL)

PRIMITIVES = [
    SchemaType.STRING, SchemaType.BOOLEAN, SchemaType.INT8, SchemaType.INT16, SchemaType.INT32,
    SchemaType.INT64, SchemaType.FLOAT, SchemaType.DOUBLE, SchemaType.DATE, SchemaType.TIME,
    SchemaType.TIMESTAMP, SchemaType.INSTANT, SchemaType.LOCAL_DATE, SchemaType.LOCAL_TIME,
    SchemaType.LOCAL_DATE_TIME,
]  # fmt: skip


def avro(data: bytes) -> Schema:
    return Schema(SchemaType.AVRO, data)


def key_value(key: str = "INT32", encoding: str = "INLINE", value: bytes = RECORD) -> Schema:
    properties = {
        "key.schema.type": key,
        "value.schema.type": "AVRO",
        "kv.encoding.type": encoding,
    }
    return Schema(SchemaType.KEY_VALUE, join(b"", value), properties)


def said(schema: Schema) -> str:
    return fingerprint(schema, Budget())


def why_not(new: Schema, old: Schema) -> str:
    return compare(new, old, FULL, Budget())


# --- fingerprints -------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", [SchemaType.AVRO, SchemaType.JSON, SchemaType.PROTOBUF])
def test_spaces_and_comments_do_not_make_another_schema(type_: SchemaType) -> None:
    spaced = json.dumps({**json.loads(RECORD), "doc": "what it is"}, indent=2).encode()
    assert said(Schema(type_, spaced)) == said(Schema(type_, RECORD))
    assert said(Schema(type_, OTHER)) != said(Schema(type_, RECORD))


def test_the_type_makes_another_schema() -> None:
    of_all = [said(Schema(type_)) for type_ in PRIMITIVES]
    of_all += [said(Schema(type_, RECORD)) for type_ in (SchemaType.AVRO, SchemaType.JSON)]
    assert len(set(of_all)) == len(PRIMITIVES) + 2


def test_a_name_and_properties_do_not_make_another_schema() -> None:
    assert said(Schema(SchemaType.STRING, b"", {"a": "b"}, "mine")) == said(
        Schema(SchemaType.STRING)
    )


@pytest.mark.parametrize("type_", PRIMITIVES)
def test_types_that_need_no_definition_have_none(type_: SchemaType) -> None:
    assert said(Schema(type_, b"null")) == said(Schema(type_))


def test_types_and_place_of_the_key_make_another_schema() -> None:
    of_all = [key_value(), key_value("INT64"), key_value("INT32", "SEPARATED")]
    assert len({said(each) for each in of_all}) == 3


def test_logical_types_make_another_schema() -> None:
    days = RECORD.replace(b'"int"', b'{"type":"int","logicalType":"date"}')
    assert said(avro(days)) != said(avro(RECORD))


@pytest.mark.parametrize(
    "schema",
    [
        Schema(SchemaType.INT32, b"\0"),
        avro(b""),
        avro(b'["null", "string"]'),
        avro(JACKSON),
        Schema(SchemaType.PROTOBUF, JACKSON),
        Schema(SchemaType.JSON, b""),
        Schema(SchemaType.JSON, b'{"type": "nothing"}'),
        Schema(SchemaType.PROTOBUF_NATIVE, RECORD),
        Schema(SchemaType.KEY_VALUE, RECORD),
        key_value(value=b"{"),
    ],
)
def test_what_is_no_definition_is_refused(schema: Schema) -> None:
    with pytest.raises(InvalidSchemaError):
        said(schema)


def test_what_is_only_for_others_to_understand_may_be_anything() -> None:
    assert said(Schema(SchemaType.EXTERNAL, b"\xff")) != said(Schema(SchemaType.EXTERNAL, b""))


KINDS = [SchemaType.AVRO, SchemaType.JSON, SchemaType.PROTOBUF_NATIVE, SchemaType.KEY_VALUE]
words = st.sampled_from(
    ["type", "name", "fields", "record", "enum", "symbols", "array", "items", "union", "R", "int",
     "size", "fixed", "map", "values", "namespace", "default", "aliases", "fileDescriptorSet",
     "rootMessageTypeName", "key", "value", "", "null", "object", "doc", "logicalType", "decimal"]
)  # fmt: skip
shapes = st.recursive(
    words | st.none() | st.booleans() | st.integers(-1, 2**64) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=5),
    max_leaves=12,
)


@given(st.sampled_from(KINDS), st.binary() | shapes.map(lambda each: json.dumps(each).encode()))
@settings(max_examples=600, deadline=None)
def test_whatever_comes_is_a_definition_or_refused_as_none(kind: SchemaType, data: bytes) -> None:
    schema = Schema(kind, data, {"value.schema.type": "AVRO"})
    try:
        first = said(schema)
    except InvalidSchemaError:
        return
    assert first == said(schema)
    assert why_not(schema, schema) == ""


@given(st.data())
@settings(max_examples=600, deadline=None)
def test_a_definition_with_a_part_exchanged_is_one_or_refused(data: st.DataObject) -> None:
    definition = {
        "type": "record",
        "name": "R",
        "fields": [
            {"name": "a", "type": ["null", "int"], "default": None},
            {"name": "b", "type": {"type": "enum", "name": "E", "symbols": ["X"]}},
            {"name": "c", "type": {"type": "array", "items": "R"}},
        ],
    }
    here: Any = definition
    while isinstance(here, dict | list) and here:
        at = data.draw(st.sampled_from(list(here) if isinstance(here, dict) else range(len(here))))
        if data.draw(st.booleans()) or not isinstance(here[at], dict | list):
            here[at] = data.draw(shapes)
            break
        here = here[at]
    with suppress(InvalidSchemaError):
        said(avro(json.dumps(definition).encode()))


# --- comparing ----------------------------------------------------------------------------------


def test_another_type_does_not_go_with_it() -> None:
    assert "type is INT32" in why_not(Schema(SchemaType.INT32), Schema(SchemaType.STRING))
    assert "type is JSON" in why_not(Schema(SchemaType.JSON, RECORD), avro(RECORD))


@pytest.mark.parametrize("type_", [*PRIMITIVES, SchemaType.EXTERNAL])
def test_types_without_a_structure_go_together(type_: SchemaType) -> None:
    assert why_not(Schema(type_), Schema(type_)) == ""


@pytest.mark.parametrize("type_", [SchemaType.AVRO, SchemaType.JSON])
def test_the_direction_is_that_of_the_strategy(type_: SchemaType) -> None:
    more = b'{"type":"record","name":"R","fields":[{"name":"a","type":"long"}]}'
    new, old = Schema(type_, more), Schema(type_, RECORD)

    def under(strategy: Strategy) -> str:
        return compare(new, old, demanded(strategy), Budget())

    assert under(Strategy.BACKWARD) == ""
    assert "cannot be read with the topic's schema" in under(Strategy.FORWARD)
    assert "cannot be read" in under(Strategy.FULL)
    assert "cannot read what was written before" in compare(
        old, new, demanded(Strategy.BACKWARD), Budget()
    )


def test_the_old_form_of_json_and_the_new_one_go_together() -> None:
    old_form, new_form = Schema(SchemaType.JSON, JACKSON), Schema(SchemaType.JSON, RECORD)
    assert why_not(old_form, new_form) == why_not(new_form, old_form) == ""
    renamed = Schema(SchemaType.JSON, JACKSON.replace(b"schema:R", b"schema:Q"))
    assert "another class" in why_not(renamed, old_form)


def test_both_parts_of_a_key_value_have_to_go_together() -> None:
    assert why_not(key_value(encoding="SEPARATED"), key_value()) == ""
    assert why_not(key_value("INT64"), key_value()).startswith("key: ")
    assert why_not(key_value(value=OTHER), key_value()).startswith("value: ")


# --- on its thread ------------------------------------------------------------------------------


async def test_a_definition_beyond_the_limit_is_refused_unread() -> None:
    judge = Judge()
    with pytest.raises(InvalidSchemaError, match="the limit is"):
        await judge.fingerprint(avro(b" " * (DEFINITION_BYTES_MAX + 1)))
    with pytest.raises(InvalidSchemaError, match="properties"):
        await judge.fingerprint(Schema(SchemaType.STRING, b"", {"a": "x" * 70_000}))
    assert judge._threads == {}


async def test_a_definition_is_read_once_however_many_bring_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judge, read = Judge(), list[Schema]()

    def counted(schema: Schema, budget: Budget) -> str:
        read.append(schema)
        return fingerprint(schema, budget)

    monkeypatch.setattr(judge_module, "fingerprint", counted)
    found = {await judge.fingerprint(avro(RECORD)) for _ in range(5)}
    assert (len(found), len(read)) == (1, 1)
    judge.stop()


async def test_the_event_loop_goes_on_while_a_large_definition_is_read() -> None:
    fields = [{"name": f"f{number}", "type": "int"} for number in range(8_000)]
    large = json.dumps({"type": "record", "name": "R", "fields": fields}).encode()
    judge, turns = Judge(), 0
    reading = asyncio.create_task(judge.fingerprint(avro(large)))
    while not reading.done():
        await asyncio.sleep(0)
        turns += 1
    await reading
    assert turns > 3
    judge.stop()


async def test_an_ordinary_definition_does_not_wait_behind_a_large_one() -> None:
    judge, busy = Judge(), threading.Event()
    working = asyncio.create_task(judge._on_thread(True, busy.wait))
    large = asyncio.create_task(judge.fingerprint(avro(b" " * LARGE_BYTES + RECORD)))
    await judge.fingerprint(avro(RECORD))
    assert not large.done()
    busy.set()
    await asyncio.gather(working, large)
    judge.stop()


async def test_those_who_come_while_too_many_wait_are_asked_to_come_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(judge_module, "WAITING_MAX", 2)
    judge = Judge()
    answers: list[Any] = await asyncio.gather(
        *(judge.fingerprint(Schema(SchemaType.EXTERNAL, b"%d" % number)) for number in range(4)),
        return_exceptions=True,
    )
    assert [isinstance(each, ServiceNotReadyError) for each in answers] == [
        False,
        False,
        True,
        True,
    ]
    assert await judge.fingerprint(Schema(SchemaType.EXTERNAL, b"3"))
    judge.stop()
