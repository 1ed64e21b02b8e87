"""`magnetar permissions`."""

import json
from typing import Any

import pytest


def test_what_is_granted_is_listed_by_role(run: Any, admin: Any) -> None:
    admin.answers["permissions"] = {"zoe": ["produce", "consume"], "anna": ["consume"]}
    assert run("permissions", "list", "a/b").out == "anna  consume\nzoe  consume, produce\n"
    told = run("permissions", "list", "a/b", "--output", "json").out
    assert json.loads(told) == admin.answers["permissions"]


@pytest.mark.parametrize("where", ["a/b", "a/b/topic", "persistent://a/b/topic"])
def test_grant_and_revoke_make_one_call_each(run: Any, admin: Any, where: str) -> None:
    assert run("permissions", "grant", where, "anna", "produce", "consume").code == 0
    assert run("permissions", "revoke", where, "anna").code == 0
    assert admin.calls == [
        ("grant", where, "anna", ["produce", "consume"]),
        ("revoke", where, "anna"),
    ]


@pytest.mark.parametrize("actions", [[], ["fly"]])
def test_an_action_that_there_is_not_is_refused_here(
    run: Any, admin: Any, actions: list[str]
) -> None:
    assert run("permissions", "grant", "a/b", "anna", *actions).code == 2
    assert admin.calls == []
