"""`magnetar config`."""

from typing import Any


def test_settings_are_listed_in_order(run: Any, admin: Any) -> None:
    admin.answers["settings"] = {"b": "2", "a": "1"}
    assert run("config", "list").out.splitlines()[1:] == ["a        1", "b        2"]
    assert run("config", "list", "--changed").code == 0
    assert admin.calls == [("settings", {"changed": False}), ("settings", {"changed": True})]


def test_a_setting_is_shown_set_and_unset(run: Any, admin: Any) -> None:
    admin.answers["settings"] = {"dispatch_entries_max": "1000"}
    assert run("config", "get", "dispatch_entries_max").out == "1000\n"
    assert run("config", "set", "dispatch_entries_max", "50").code == 0
    assert run("config", "unset", "dispatch_entries_max").code == 0
    assert admin.calls[1:] == [
        ("set_setting", "dispatch_entries_max", "50"),
        ("unset_setting", "dispatch_entries_max"),
    ]


def test_a_setting_that_is_not_there_is_said_to_be(run: Any, admin: Any) -> None:
    admin.answers["settings"] = {}
    ran = run("config", "get", "nonsense")
    assert (ran.code, ran.out) == (3, "")
    assert "no live setting 'nonsense'" in ran.err
