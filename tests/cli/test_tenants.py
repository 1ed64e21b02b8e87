"""`magnetar tenants`."""

import json
from typing import Any

import pytest


def test_tenants_are_listed_in_order(run: Any, admin: Any) -> None:
    admin.answers["tenants"] = ["public", "acme"]
    assert run("tenants", "list").out == "acme\npublic\n"
    assert json.loads(run("tenants", "list", "-o", "json").out) == ["acme", "public"]


@pytest.mark.parametrize(
    ("arguments", "calls"),
    [
        (["create", "acme"], [("create_tenant", "acme", None, [])]),
        (
            ["create", "acme", "--role", "a", "--role", "b", "--cluster", "west"],
            [("create_tenant", "acme", ["west"], ["a", "b"])],
        ),
        (
            ["update", "acme", "--role", "a"],
            [("tenant", "acme"), ("update_tenant", "acme", ["here"], ["a"])],
        ),
        (
            ["update", "acme", "--cluster", "west"],
            [("update_tenant", "acme", ["west"], [])],
        ),
        (["delete", "acme", "--force"], [("delete_tenant", "acme", {"force": True})]),
    ],
)
def test_each_verb_makes_its_calls(
    run: Any, admin: Any, arguments: list[str], calls: list[tuple[Any, ...]]
) -> None:
    admin.answers["tenant"] = {"adminRoles": [], "allowedClusters": ["here"]}
    assert run("tenants", *arguments).code == 0
    assert admin.calls == calls


def test_a_tenant_is_shown(run: Any, admin: Any) -> None:
    admin.answers["tenant"] = {"adminRoles": ["a"], "allowedClusters": ["here"]}
    assert json.loads(run("tenants", "show", "acme").out) == admin.answers["tenant"]
