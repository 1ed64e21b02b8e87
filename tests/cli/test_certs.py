"""`magnetar certs`: files, their privacy, and what is said of them."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from magnetar.authority import facts_of


@pytest.fixture
def folder(run: Any, tmp_path: Path) -> Path:
    folder = tmp_path / "certs"
    assert run("certs", "create-ca", str(folder), "--name", "a CA").code == 0
    return folder


def test_everything_is_readable_by_its_owner_only(run: Any, folder: Path) -> None:
    assert run("certs", "create-server", str(folder), "broker.example", "192.0.2.7").code == 0
    assert run("certs", "create-client", str(folder), "alice").code == 0
    names = {each.name for each in folder.iterdir()}
    assert names == {
        *("ca.pem", "ca.key", "server.pem", "server.key", "alice.pem", "alice.key"),
    }
    assert {stat.S_IMODE(each.stat().st_mode) for each in folder.iterdir()} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_what_is_shown_is_what_they_say(run: Any, folder: Path) -> None:
    run("certs", "create-server", str(folder), "broker.example", "192.0.2.7", "--days", "10")
    run("certs", "create-client", str(folder), "tenant/alice", "--file", "alice")
    shown = json.loads(run("certs", "show", str(folder), "-o", "json").out)
    assert [(each["kind"], each["name"]) for each in shown] == [
        ("client", "tenant/alice"),
        ("ca", "a CA"),
        ("server", "broker.example"),
    ]
    assert shown[2]["valid_for"] == ["broker.example", "192.0.2.7"]
    assert shown[2]["days_left"] == 9
    assert "broker.example, 192.0.2.7" in run("certs", "show", str(folder / "server.pem")).out


def test_only_what_ends_soon_is_renewed_unless_it_is_named(run: Any, folder: Path) -> None:
    run("certs", "create-server", str(folder), "broker.example", "--days", "10")
    run("certs", "create-client", str(folder), "alice", "--days", "100")
    before = {each: each.read_bytes() for each in folder.iterdir()}
    assert run("certs", "renew", str(folder)).code == 0
    changed = {each.name for each in folder.iterdir() if each.read_bytes() != before[each]}
    assert changed == {"server.pem", "server.key"}
    again = run("certs", "renew", str(folder))
    assert (again.code, again.out) == (0, "")
    assert "nothing in" in again.err
    run("certs", "renew", str(folder), "alice")
    assert (folder / "alice.pem").read_bytes() != before[folder / "alice.pem"]
    assert facts_of((folder / "alice.pem").read_bytes()).common_name == "alice"
    assert stat.S_IMODE((folder / "alice.key").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["create-ca", "{}"], 1, "has a CA already"),
        (["create-client", "{}/other", "alice"], 3, "create-ca"),
        (["create-server", "{}", "not a name"], 2, "neither a host name nor an address"),
        (["create-server", "{}"], 2, "NAMES"),
        (["create-client", "{}", "alice", "--file", "../x"], 2, "no name of a file"),
        (["create-client", "{}", "ca"], 1, "is there already"),
        (["create-client", "{}", "alice", "--days", "0"], 2, "--days"),
        (["renew", "{}", "nobody"], 3, "nobody.pem"),
        (["renew", "{}", "ca"], 2, "made anew"),
        (["show", "{}/ca.key"], 2, "no certificate"),
        (["show", "{}/nothing.pem"], 2, "nothing.pem"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    run: Any, folder: Path, arguments: list[str], code: int, told: str
) -> None:
    before = {each: each.read_bytes() for each in folder.iterdir()}
    ended = run("certs", *(each.format(folder) for each in arguments))
    assert ended.code == code
    assert told in ended.err
    assert {each: each.read_bytes() for each in folder.iterdir()} == before
