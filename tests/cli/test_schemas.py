"""`magnetar schemas`."""

import json
from pathlib import Path
from typing import Any

import pytest

from magnetar.broker.port import SchemaType
from magnetar.cli.schemas import TYPES

FOUND = {
    "version": 3,
    "type": "AVRO",
    "timestamp": 1000,
    "data": '{"type": "string"}',
    "properties": {},
}


def test_every_type_that_can_be_kept_can_be_given() -> None:
    assert set(TYPES) == set(SchemaType.__members__) - {"NONE", "AUTO_CONSUME"}


def test_people_see_the_definition_and_programs_everything(run: Any, admin: Any) -> None:
    admin.answers["schema"] = FOUND
    assert run("schemas", "get", "t").out == '{"type": "string"}\n'
    assert json.loads(run("schemas", "get", "t", "--version", "3", "-o", "json").out) == FOUND
    admin.answers["schema"] = {**FOUND, "type": "STRING", "data": ""}
    assert run("schemas", "get", "t").out == "STRING\n"
    assert admin.calls == [("schema", "t", None), ("schema", "t", 3), ("schema", "t", None)]


def test_versions_are_listed_with_their_types(run: Any, admin: Any) -> None:
    admin.answers["schemas"] = [FOUND]
    head, line = run("schemas", "list", "t").out.splitlines()
    assert head.split() == ["version", "type", "added", "characters"]
    assert line.split() == ["3", "AVRO", "1970-01-01T00:00:01.000Z", "18"]
    assert json.loads(run("schemas", "list", "t", "-o", "json").out) == [FOUND]


def test_a_definition_is_read_from_a_file(run: Any, admin: Any, tmp_path: Path) -> None:
    file = tmp_path / "order.avsc"
    file.write_text('"string"')
    admin.answers["add_schema"] = 7
    given = ("t", "--type", "avro", "--file", str(file), "--property", "a=b")
    ended = run("schemas", "upload", *given)
    assert (ended.code, ended.out) == (0, "t: version 7\n")
    assert json.loads(run("schemas", "upload", *given, "-o", "json").out)["version"] == 7
    assert admin.calls == [("add_schema", "t", "AVRO", '"string"', {"a": "b"})] * 2


def test_a_type_that_needs_no_definition_is_given_none(run: Any, admin: Any) -> None:
    admin.answers["add_schema"] = 0
    assert run("schemas", "upload", "t", "--type", "STRING").code == 0
    assert admin.calls == [("add_schema", "t", "STRING", "", {})]


@pytest.mark.parametrize(("compatible", "code"), [(True, 0), (False, 1)])
def test_the_exit_code_says_whether_a_schema_could_be_added(
    run: Any, admin: Any, compatible: bool, code: int
) -> None:
    admin.answers["schema_compatibility"] = (compatible, "FULL")
    ended = run("schemas", "compatibility", "t", "--type", "STRING", "-o", "json")
    assert ended.code == code
    assert json.loads(ended.out) == {"topic": "t", "compatible": compatible, "strategy": "FULL"}
    assert "(FULL)" in run("schemas", "compatibility", "t", "--type", "STRING").out


@pytest.mark.parametrize("force", [True, False])
def test_a_schema_is_deleted(run: Any, admin: Any, force: bool) -> None:
    admin.answers["delete_schema"] = 4
    ended = run("schemas", "delete", "t", *(["--force"] if force else []))
    assert (ended.code, ended.out) == (0, "deleted the schema of t\n")
    assert admin.calls == [("delete_schema", "t", {"force": force})]


def test_a_type_that_is_none_is_a_mistake_in_the_command(run: Any, admin: Any) -> None:
    assert run("schemas", "upload", "t", "--type", "NONSENSE").code == 2
    assert admin.calls == []
