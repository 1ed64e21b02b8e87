"""`magnetar namespaces`."""

import json
from typing import Any

import click
import pytest

from magnetar.cli.namespaces import parse_mebibytes, parse_minutes


def test_namespaces_are_listed_in_order(run: Any, admin: Any) -> None:
    admin.answers["namespaces"] = ["public/default", "acme/orders"]
    assert run("namespaces", "list").out == "acme/orders\npublic/default\n"
    assert admin.calls == [("namespaces", None)]


def test_a_new_tenant_is_created_with_its_first_namespace(run: Any, admin: Any) -> None:
    admin.answers["tenants"] = ["public"]
    assert run("namespaces", "create", "acme/orders").code == 0
    assert admin.calls[1:] == [("create_tenant", "acme"), ("create_namespace", "acme/orders")]
    admin.calls.clear()
    assert run("namespaces", "create", "public/orders").code == 0
    assert admin.calls[1:] == [("create_namespace", "public/orders")]


@pytest.mark.parametrize(
    ("arguments", "call"),
    [
        (["delete", "a/b", "--force"], ("delete_namespace", "a/b", {"force": True})),
        (
            ["set-retention", "a/b", "--time", "7d", "--size", "10G"],
            ("set_retention", "a/b", 10080, 10240),
        ),
        (
            ["set-retention", "a/b", "--time", "unlimited", "--size", "-1"],
            ("set_retention", "a/b", -1, -1),
        ),
        (["set-ttl", "a/b", "3d"], ("set_policy", "a/b", "messageTTL", 259_200)),
        (["set-ttl", "a/b", "500ms"], ("set_policy", "a/b", "messageTTL", 1)),
        (["set-deduplication", "a/b", "on"], ("set_policy", "a/b", "deduplication", True)),
        (
            ["set", "a/b", "maxConsumersPerTopic", "7"],
            ("set_policy", "a/b", "maxConsumersPerTopic", 7),
        ),
        (["unset", "a/b", "retention"], ("remove_policy", "a/b", "retention")),
        (["unload", "a/b"], ("unload_namespace", "a/b")),
        (["clear", "a/b"], ("clear_namespace", "a/b", None)),
        (["clear", "a/b", "-s", "s"], ("clear_namespace", "a/b", "s")),
    ],
)
def test_each_verb_makes_one_call(
    run: Any, admin: Any, arguments: list[str], call: tuple[Any, ...]
) -> None:
    assert run("namespaces", *arguments).code == 0
    assert admin.calls == [call]


def test_bundles_are_shown_after_they_were_split(run: Any, admin: Any) -> None:
    admin.answers["bundles"] = ["0x00000000_0x80000000", "0x80000000_0xffffffff"]
    done = run("namespaces", "bundles", "a/b", "--split", "LARGEST")
    assert done.out == "0x00000000_0x80000000\n0x80000000_0xffffffff\n"
    assert admin.calls == [("split_bundle", "a/b", "LARGEST"), ("bundles", "a/b")]


def test_policies_that_are_not_set_are_left_out(run: Any, admin: Any) -> None:
    admin.answers["namespace"] = {"message_ttl_in_seconds": 5, "retention_policies": None}
    told = json.loads(run("namespaces", "policies", "a/b").out)
    assert told == {"message_ttl_in_seconds": 5}


def test_a_retention_time_is_rounded_up_to_minutes() -> None:
    assert parse_minutes("61s") == 2
    assert parse_minutes("0") == 0


def test_a_retention_size_alone_is_mebibytes() -> None:
    assert parse_mebibytes("10") == parse_mebibytes("10M") == parse_mebibytes("10MiB") == 10
    assert parse_mebibytes("2t") == 2 * 2**20


@pytest.mark.parametrize("text", ["", "G", "ten", "1.5G", "10k", "10GGB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no size"):
        parse_mebibytes(text)


@pytest.mark.parametrize(
    "arguments",
    [
        ["set-ttl", "a/b", "old"],
        ["set-ttl", "a/b", "99999999d"],
        ["set-retention", "a/b", "--time", "99999999d", "--size", "1"],
        ["set-retention", "a/b", "--time", "1d", "--size", "99999999T"],
        ["set", "a/b", "x", "{"],
        ["set-retention", "a/b", "--time", "7d"],
        ["set-retention", "a/b", "--time", "long", "--size", "1"],
    ],
)
def test_what_makes_no_sense_is_a_usage_error(run: Any, admin: Any, arguments: list[str]) -> None:
    assert run("namespaces", *arguments).code == 2
    assert not admin.calls
