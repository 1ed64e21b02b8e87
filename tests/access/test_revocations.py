"""A revoked token or role: a line in a file, soon known everywhere."""

from pathlib import Path

import pytest

from magnetar.broker.access.caller import Caller
from magnetar.broker.access.revocations import Revocations, revoked
from magnetar.broker.config import ConfigError


def caller(token_id: str) -> Caller:
    return Caller("anna", "token", None, None, token_id)


def opened(path: Path) -> Revocations:
    return Revocations(path, Path.read_bytes)


async def test_a_line_takes_effect_when_the_file_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "revoked"
    path.write_text("")
    revocations = opened(path)
    stolen, fresh = caller("t-1"), caller("t-2")
    assert not revocations.has(stolen)
    path.write_text("# found in a paste\nid t-1\nrole build server\n")
    await revocations.refresh()
    assert revocations.has(stolen)
    assert not revocations.has(fresh)
    assert revocations.has(Caller("build server", "basic"))
    assert revocations.has(Caller("proxy", "token", original="build server"))


async def test_a_file_that_makes_no_sense_any_more_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "revoked"
    path.write_text("id t-1\n")
    revocations = opened(path)
    for bad in (b"t-2", b"id", b"user x", b"\xff"):
        path.write_bytes(bad)
        with pytest.raises(ConfigError):
            await revocations.refresh()
    path.unlink()
    with pytest.raises(ConfigError):
        await revocations.refresh()
    assert revocations.has(caller("t-1"))


def test_a_token_without_an_id_is_not_the_one_that_was_revoked() -> None:
    assert revoked(b"") == (frozenset(), frozenset())
    assert revoked(b"id  a b \n") == (frozenset({"a b"}), frozenset())
