"""`magnetar config`."""

import json
from typing import Any

import pytest

from magnetar.client.rest import AdminError

SAID = {"value": 50, "who": "ada", "at": "2026-01-02T03:04:05.000Z"}


def knob(name: str, **said: Any) -> dict[str, Any]:
    return {
        "name": name,
        "pulsarName": "dispatcherMaxReadBatchSize",
        "about": "Larger: throughput.",
        "unit": "entries",
        "default": 1000,
        "value": 1000,
        "low": 1,
        "high": 100_000,
        "words": [],
        "started": 1000,
        "hand": None,
        "operator": None,
        "reach": {
            "low": 1, "high": 1000, "add": 1, "times": 2, "dividedBy": 2, "intervalS": 1,
        },
        "holdsFrom": "now",
        "divided": False,
        "processes": [{"process": 0, "value": 1000}, {"process": 1, "value": 999}],
        "apply": "POST x",
        "readBack": "GET x",
    } | said  # fmt: skip


def test_settings_are_listed_with_bounds_and_what_each_process_runs_with(
    run: Any, admin: Any
) -> None:
    admin.answers["knobs"] = [
        knob("a", value=50, hand=SAID),
        knob("b", value=True, low=None, high=None, unit="", processes=[]),
        knob("c", value=None, apply="", processes=[]),
    ]
    [head, first, second, third] = run("config", "list").out.splitlines()
    assert head.split() == ["setting", "value", "unit", "allowed", "set", "by", "processes"]
    assert " ".join(first.split()) == (
        "a 50 entries 1 to 100000 hand (ada) 2026-01-02T03:04:05.000Z 1000 999"
    )
    assert second.split() == ["b", "true", "true", "or", "false"]
    assert "not built yet" in third
    [changed] = json.loads(run("config", "list", "--changed", "--output", "json").out)
    assert (changed["setting"], changed["value"]) == ("a", "50")


def test_people_at_a_terminal_get_a_table(
    run: Any, admin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin.answers["knobs"] = [knob("a", value=50, operator=SAID)]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    out = run("config", "list").out
    assert "setting" in out
    assert "operator (ada)" in out


def test_a_pulsar_brokers_settings_are_listed_as_it_shows_them(run: Any, admin: Any) -> None:
    admin.answers["knobs"] = AdminError(404, "no such path")
    admin.answers["settings"] = {"b": "2", "a": "1"}
    assert run("config", "list").out.splitlines()[1:] == ["a        1", "b        2"]
    assert run("config", "list", "--changed").code == 0
    assert [call for call in admin.calls if call[0] == "settings"] == [
        ("settings", {"changed": False}),
        ("settings", {"changed": True}),
    ]


def test_a_setting_is_described(run: Any, admin: Any) -> None:
    admin.answers["knob"] = knob("a", value=50, hand=SAID)
    out = run("config", "describe", "a").out
    assert "1 to 1000, in steps of 1 or x2 or /2, 1 s apart" in out
    assert "hand (ada)" in out
    assert "process 1       999" in out
    assert json.loads(run("config", "describe", "a", "-o", "json").out)["value"] == 50


def test_a_setting_is_shown_set_and_unset(run: Any, admin: Any) -> None:
    admin.answers["settings"] = {"dispatch_entries_max": "1000"}
    assert run("config", "get", "dispatch_entries_max").out == "1000\n"
    assert run("config", "set", "dispatch_entries_max", "50").code == 0
    assert run("config", "set", "dispatch_entries_max", "60", "--operator").code == 0
    assert run("config", "unset", "dispatch_entries_max").code == 0
    assert run("config", "unset", "--operator").code == 0
    assert admin.calls[1:] == [
        ("set_setting", "dispatch_entries_max", "50", {"operator": False}),
        ("set_setting", "dispatch_entries_max", "60", {"operator": True}),
        ("unset_setting", "dispatch_entries_max", {"operator": False}),
        ("hand_back",),
    ]
    assert run("config", "unset").code == 2


def test_a_setting_that_is_not_there_is_said_to_be(run: Any, admin: Any) -> None:
    admin.answers["settings"] = {}
    ran = run("config", "get", "nonsense")
    assert (ran.code, ran.out) == (3, "")
    assert "no live setting 'nonsense'" in ran.err
