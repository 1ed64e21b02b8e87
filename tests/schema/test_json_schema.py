"""JSON schemas of old clients."""

import pytest

from magnetar.broker.schema.json_schema import is_old_form, same_class

ORDER = {"type": "object", "id": "urn:jsonschema:com:acme:Order", "properties": {}}


@pytest.mark.parametrize("definition", [ORDER, {"type": "array"}, {"type": "number"}])
def test_jacksons_form_is_known(definition: object) -> None:
    assert is_old_form(definition)


@pytest.mark.parametrize(
    "definition", [None, 1, "object", [], {}, {"type": "record"}, {"type": 1}, {"type": []}]
)
def test_anything_else_is_not(definition: object) -> None:
    assert not is_old_form(definition)


def test_two_are_about_the_same_class_if_they_name_it() -> None:
    assert same_class(ORDER, {**ORDER, "properties": {"a": {}}})
    assert not same_class(ORDER, {**ORDER, "id": "urn:jsonschema:com:acme:Invoice"})
