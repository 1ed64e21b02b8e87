"""Facts as JSON: what is written under a key, so that a person can read it with any tool.

    struct  ──encode──▶  {"retention_policies": {...}, "future_field": 1}  ──decode──▶  struct

A `Document` keeps the fields that this version does not know, at every depth, and writes
them back: a policy set by a newer tool survives an older broker. Unset fields (None) are
left out, and a null that somebody sends is taken as unset.
"""

from collections.abc import Mapping
from typing import Any, Self, TypeVar

import msgspec

from magnetar.broker.metadata.store import CorruptMetadataError

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)


class InvalidDocumentError(ValueError):
    """The caller's JSON does not fit. The message names the field."""


class Document(msgspec.Struct, kw_only=True):
    """A JSON object with known fields, and others that are kept as they came."""

    unknown: dict[str, Any] = msgspec.field(default_factory=dict, name="")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read a JSON object that somebody sent.

        Raises:
            InvalidDocumentError: a known field has a wrong type or value.
        """
        given = {key: value for key, value in data.items() if value is not None}
        try:
            document = msgspec.convert(given, cls)
        except msgspec.ValidationError as error:
            raise InvalidDocumentError(str(error)) from None
        _keep_unknown(document, given)
        return document

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object, unknown fields included, unset ones left out."""
        data: dict[str, Any] = msgspec.to_builtins(self)
        _restore_unknown(self, data)
        return data


def encode(value: msgspec.Struct) -> bytes:
    """Return the bytes to store."""
    return msgspec.json.encode(value.to_dict() if isinstance(value, Document) else value)


def decode(key: str, data: bytes, kind: type[S]) -> S:
    """Read what was stored under `key`.

    Raises:
        CorruptMetadataError: it is not what this version, or an older one, wrote there.
    """
    try:
        if issubclass(kind, Document):
            return kind.from_dict(msgspec.json.decode(data, type=dict[str, Any]))
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, InvalidDocumentError) as error:
        raise CorruptMetadataError(f"metadata key {key} cannot be understood: {error}") from error


def _keep_unknown(value: object, data: object) -> None:
    match value, data:
        case Document(), Mapping():
            known = {field.encode_name: field.name for field in msgspec.structs.fields(value)}
            value.unknown = {key: data[key] for key in data if key not in known}
            for key, name in known.items():
                _keep_unknown(getattr(value, name), data.get(key))
        case Mapping(), Mapping():
            for key, each in value.items():
                _keep_unknown(each, data.get(key))
        case _:
            pass


def _restore_unknown(value: object, data: object) -> None:
    match value, data:
        case Document(), dict():
            for field in msgspec.structs.fields(value):
                _restore_unknown(getattr(value, field.name), data.get(field.encode_name))
                if getattr(value, field.name) is None:
                    del data[field.encode_name]
            data.pop("", None)
            data.update(value.unknown)
        case Mapping(), dict():
            for key, each in value.items():
                _restore_unknown(each, data.get(key))
        case _:
            pass
