"""JSON schemas of clients before protocol version 13: what Jackson wrote about a class.

    {"type": "object", "id": "urn:jsonschema:com:acme:Order", "properties": {...}}

Since then every client writes an Avro definition for them. As in Pulsar, the old form and the new
one say nothing about each other, so going from one to the other is allowed; two old forms go
together if they are about the same class.
"""

from typing import Any

_TYPES = frozenset(
    {"any", "array", "boolean", "integer", "null", "number", "object", "string"},
)


def is_old_form(definition: Any) -> bool:
    """Return whether a definition, which is not Avro, is in the old form."""
    kind = definition.get("type") if isinstance(definition, dict) else None
    return isinstance(kind, str) and kind in _TYPES


def same_class(one: Any, other: Any) -> bool:
    """Return whether two definitions in the old form are about the same class."""
    return bool(one.get("id") == other.get("id"))
