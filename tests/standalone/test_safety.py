"""Beyond loopback nobody is let in who cannot say who they are."""

import json
import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest

from magnetar.authority import facts_of
from magnetar.broker.access.settings import check_settings
from magnetar.broker.config import BrokerConfig
from magnetar.broker.files import DiskFiles
from magnetar.standalone.addresses import own_names
from magnetar.standalone.options import AddressError, StandaloneOptions
from magnetar.standalone.safety import MARK, Safe, secured

NOW = datetime(2026, 3, 1, tzinfo=UTC)
FAR = "192.0.2.1"


def options(folder: Path, **more: Any) -> StandaloneOptions:
    return StandaloneOptions(
        data=folder, **{"listen": FAR, "advertised_address": "broker.example", **more}
    )


def made(folder: Path, at: datetime = NOW, **more: Any) -> Safe:
    (folder / "run").mkdir(exist_ok=True)
    return secured(options(folder, **more), folder, DiskFiles(), at)


def test_on_loopback_nothing_is_made_and_nothing_changes(tmp_path: Path) -> None:
    asked = options(tmp_path, listen="127.0.0.1")
    assert secured(asked, tmp_path, DiskFiles(), NOW) == Safe(asked, [], {})
    assert not [*tmp_path.iterdir()]


def test_beyond_it_log_in_and_tls_are_on_and_there_are_no_plain_ports(tmp_path: Path) -> None:
    safe = made(tmp_path).options
    assert not safe.plain
    assert safe.tls is not None
    config = BrokerConfig(data=tmp_path, **safe.settings)
    check_settings(config)
    assert config.authentication == "token"
    assert config.superuser_roles == "admin"
    assert config.anonymous_role == ""


def test_the_token_is_signed_with_the_key_and_shown_once(tmp_path: Path) -> None:
    first, second = made(tmp_path), made(tmp_path)
    token = (tmp_path / "access" / "admin.token").read_text()
    secret = (tmp_path / "access" / "secret.key").read_bytes()
    assert jwt.decode(token, secret, algorithms=["HS256"]) == {"sub": "admin"}
    assert len(secret) >= 32
    assert token in first.lines
    assert token not in "\n".join(second.lines)
    assert token not in json.dumps([*map(str, (first.told, second.told))])


def test_what_is_made_is_private(tmp_path: Path) -> None:
    made(tmp_path)
    for folder in (tmp_path / "access", tmp_path / "tls"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {stat.S_IMODE(each.stat().st_mode) for each in folder.iterdir()} == {0o600}


def test_a_second_start_changes_no_file(tmp_path: Path) -> None:
    made(tmp_path)
    before = {each: each.read_bytes() for each in tmp_path.rglob("*") if each.is_file()}
    made(tmp_path)
    assert before == {each: each.read_bytes() for each in tmp_path.rglob("*") if each.is_file()}


@pytest.mark.parametrize(("days", "more"), [(340, {}), (0, {"advertised_address": "new.example"})])
def test_the_certificate_is_renewed_when_it_ends_or_the_names_change_and_the_authority_stays(
    tmp_path: Path, days: int, more: Any
) -> None:
    made(tmp_path)
    old = {each.name: each.read_bytes() for each in (tmp_path / "tls").iterdir()}
    made(tmp_path, NOW + timedelta(days=days), **more)
    new = {each.name: each.read_bytes() for each in (tmp_path / "tls").iterdir()}
    assert {name for name in old if old[name] != new[name]} == {"server.pem", "server.key"}
    assert set(own_names(options(tmp_path, **more))) <= set(facts_of(new["server.pem"]).names)


def test_a_given_certificate_is_used_and_none_is_made(tmp_path: Path) -> None:
    given: dict[str, Any] = {"tls_certificate": tmp_path / "a.pem", "tls_key": tmp_path / "a.key"}
    safe = made(tmp_path, **given)
    assert safe.options.tls_certificate == tmp_path / "a.pem"
    assert not (tmp_path / "tls").exists()
    assert "tls_trust_certs" not in safe.told


def test_a_given_log_in_is_used_and_no_token_is_made(tmp_path: Path) -> None:
    told = {"authentication": "basic", "basic_file": "users"}
    safe = made(tmp_path, settings=told)
    assert safe.options.settings == told
    assert not (tmp_path / "access").exists()
    assert safe.options.tls is not None


def test_client_certificates_are_a_log_in_beside_tokens(tmp_path: Path) -> None:
    given: dict[str, Any] = {
        each: tmp_path / each for each in ("tls_certificate", "tls_key", "tls_client_ca")
    }
    assert made(tmp_path, **given).options.settings["authentication"] == "token tls"


def test_an_authority_of_clients_alone_needs_a_certificate_on_loopback_and_gets_one_beyond(
    tmp_path: Path,
) -> None:
    given: dict[str, Any] = {"tls_client_ca": tmp_path / "a.pem"}
    assert made(tmp_path, **given).options.settings["authentication"] == "token tls"
    with pytest.raises(AddressError, match="--tls-certificate"):
        assert options(tmp_path, listen="127.0.0.1", **given).tls


def test_further_superusers_stay(tmp_path: Path) -> None:
    safe = made(tmp_path, settings={"superuser_roles": "root admin"})
    assert safe.options.settings["superuser_roles"] == "admin root"


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"settings": {"authentication": ""}}, "--insecure"),
        ({"settings": {"authentication": "  "}}, "--insecure"),
        (
            {
                "settings": {
                    "authentication": "token",
                    "token_secret_key": "k",
                    "superuser_roles": "root guest",
                    "anonymous_role": "guest",
                }
            },
            "--anonymous-role",
        ),
        ({"settings": {"basic_file": "users"}}, "--auth"),
        ({"settings": {"token_secret_key": "key"}}, "--auth"),
        ({"tls_certificate": Path("a.pem")}, "--tls-key"),
        ({"tls_key": Path("a.key")}, "--tls-certificate"),
    ],
)
def test_what_is_half_done_is_refused_with_what_to_do(tmp_path: Path, more: Any, told: str) -> None:
    with pytest.raises(AddressError, match=told):
        assert made(tmp_path, **more).options.tls


def test_files_that_somebody_spoilt_are_named_and_not_replaced(tmp_path: Path) -> None:
    made(tmp_path)
    (tmp_path / "tls" / "ca.key").write_bytes(b"nothing")
    with pytest.raises(AddressError, match="Move the folder away"):
        made(tmp_path, advertised_address="new.example")
    assert (tmp_path / "tls" / "ca.key").read_bytes() == b"nothing"


def test_insecure_makes_nothing_says_so_and_leaves_a_mark_until_the_next_start(
    tmp_path: Path,
) -> None:
    safe = made(tmp_path, insecure=True)
    assert safe.options.plain
    assert "INSECURE" in safe.lines[0]
    assert safe.told == {"insecure": True}
    assert (tmp_path / "run" / MARK).exists()
    assert not (tmp_path / "tls").exists()
    made(tmp_path, listen="127.0.0.1")
    assert not (tmp_path / "run" / MARK).exists()


def test_paths_with_spaces_are_one_word(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    safe = made(folder)
    assert len(str(safe.options.settings["token_secret_key"]).split()) == 1
    assert any(f"MAGNETAR_TOKEN_FILE='{folder}/access/admin.token'" in each for each in safe.lines)
    check_settings(BrokerConfig(data=folder, **safe.options.settings))


def test_without_other_options_the_default_stays_as_it_was(tmp_path: Path) -> None:
    default = StandaloneOptions(data=tmp_path)
    assert default.plain
    assert default.tls is None
    assert not default.exposed
    assert not replace(default, insecure=True).exposed
