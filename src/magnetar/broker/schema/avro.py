"""Definitions in Avro's form: what AVRO and JSON schemas, and PROTOBUF ones of the old kind, are.

    bytes ──read──▶ JSON, normal form ──┬──▶ fingerprint
                                        └─parse──▶ schema ──can_read──▶ "" or why not

The normal form leaves out what says nothing about data: comments, spaces, the order of keys. Who
can read whose data is judged by Avro's own library, as Avro's specification ("Schema Resolution")
has it; it is loaded when the first such schema comes. Like Pulsar, this looks at no default
value, no logical type and no record's name, and takes `$` in names, which Java's nested classes
have.
"""

from typing import Any

import msgspec
from avro.compatibility import (
    ReaderWriterCompatibilityChecker,
    SchemaCompatibilityResult,
    SchemaCompatibilityType,
)
from avro.errors import AvroException
from avro.name import Names
from avro.schema import RecordSchema, Schema, make_avsc_object

from magnetar.broker.port import InvalidSchemaError
from magnetar.broker.schema.work import DEPTH_MAX, Budget

_COMMENTS = frozenset({"doc"})
_LOGICAL = frozenset({"doc", "logicalType"})
_OPAQUE = frozenset({"default", "aliases", "symbols"})
"""Keys whose values are no schemas."""

_KINDS = frozenset(
    {"record", "error", "enum", "fixed", "array", "map"}
    | {"null", "boolean", "int", "long", "float", "double", "bytes", "string"}
)
_NAMED = ("record", "error", "enum", "fixed")

_NOT_AVRO = (
    AvroException,
    AssertionError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What the library raises on input that is none: it checks less than it says."""

PAIR_STEPS = 4
"""What it costs to compare two types, in steps of `work`: 20 us where a step is 5."""

FIELDS_PER_STEP = 100
"""How many fields the library goes through in a step."""

REASON_CHARS_MAX = 300
"""Of the library's own words: it quotes whole definitions."""


def read(data: bytes, budget: Budget) -> Any:
    """Return a definition in normal form.

    Raises:
        InvalidSchemaError: it is no JSON, or nested too deeply.
    """
    try:
        return _normal(msgspec.json.decode(data), _COMMENTS, budget, DEPTH_MAX)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidSchemaError(f"the definition is no JSON: {_short(error)}") from None


def parse(normal: Any, budget: Budget) -> Schema:
    """Return a definition as the library has it.

    Raises:
        InvalidSchemaError: it is not Avro.
    """
    try:
        plain = _normal(normal, _LOGICAL, budget, DEPTH_MAX)
        return make_avsc_object(plain, Names(validate_names=False), validate_names=False)
    except _NOT_AVRO as error:
        raise InvalidSchemaError(f"the definition is not Avro: {_short(error)}") from None


def can_read(reader: Schema, writer: Schema, budget: Budget) -> str:
    """Return why `reader` cannot read what `writer` has written; empty: it can.

    Raises:
        InvalidSchemaError: that takes too long to find out.
    """
    try:
        result = _Checker(budget).get_compatibility(reader, writer)
    except _NOT_AVRO as error:
        raise InvalidSchemaError(f"the definitions cannot be compared: {_short(error)}") from None
    if result.compatibility is SchemaCompatibilityType.compatible:
        return ""
    kinds = list(dict.fromkeys(each.value.replace("_", " ") for each in result.incompatibilities))
    where = ", ".join(sorted(result.locations)[:3])
    return _short(f"{', '.join(kinds[:3])} at {where} ({'; '.join(sorted(result.messages)[:3])})")


class _Checker(ReaderWriterCompatibilityChecker):
    """Avro's, with an end, and blind to the names of records."""

    def __init__(self, budget: Budget) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # the library's only one
        self._budget = budget

    def get_compatibility(
        self,
        reader: Schema,
        writer: Schema,
        reference_token: str = ReaderWriterCompatibilityChecker.ROOT_REFERENCE_TOKEN,
        location: list[str] | None = None,
    ) -> SchemaCompatibilityResult:
        self._budget.spend(PAIR_STEPS)
        return super().get_compatibility(reader, writer, reference_token, location)

    def calculate_compatibility(
        self, reader: Schema, writer: Schema, location: list[str]
    ) -> SchemaCompatibilityResult:
        # Java's validator, and so Pulsar, does not look at the names of records: people rename
        # the class that a record is made of, and the official clients' tests do.
        if isinstance(reader, RecordSchema) and isinstance(writer, RecordSchema):
            # The library goes through all of the writer's fields for each of the reader's.
            self._budget.spend(len(reader.fields) * len(writer.fields) // FIELDS_PER_STEP)
            return self.check_reader_writer_record_fields(reader, writer, location)
        return super().calculate_compatibility(reader, writer, location)


def _normal(node: Any, dropped: frozenset[str], budget: Budget, depth: int) -> Any:
    """Return a part of a definition without some keys, checked for size and names."""
    budget.spend()
    if depth == 0:
        raise InvalidSchemaError(f"the definition is nested more than {DEPTH_MAX} levels deep")
    if isinstance(node, list):
        return [_normal(each, dropped, budget, depth - 1) for each in node]
    if not isinstance(node, dict):
        return node
    kind = node.get("type")
    if isinstance(kind, dict | list) and "name" not in node:
        return _normal(kind, dropped, budget, depth - 1)  # {"type": {"type": ...}} says it twice
    if isinstance(kind, str) and kind not in _KINDS and not node.keys() - {"type", "doc"}:
        return kind  # {"type": "the.name"} of a type defined before
    if kind in _NAMED:
        _check_name(node.get("name"))
    if kind == "enum" and not isinstance(node.get("symbols"), list):
        raise InvalidSchemaError("the symbols of an enum are a list")
    return {
        key: value if key in _OPAQUE else _normal(value, dropped, budget, depth - 1)
        for key, value in node.items()
        if key not in dropped
    }


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not all(
        part.replace("$", "_").isidentifier() for part in name.split(".")
    ):
        raise InvalidSchemaError(f"{str(name)[:100]!r} is not the name of a type")


def _short(words: object) -> str:
    text = str(words) or type(words).__name__
    return text if len(text) <= REASON_CHARS_MAX else f"{text[:REASON_CHARS_MAX]}..."
