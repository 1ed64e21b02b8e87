"""`magnetar tokens`: keys, tokens, and what is said of them."""

import base64
import hmac
import io
import json
import stat
import sys
import time
from pathlib import Path
from typing import Any

import jwt
import pytest


@pytest.fixture
def secret(run: Any, tmp_path: Path) -> Path:
    assert run("tokens", "create-secret-key", str(tmp_path / "secret.key")).code == 0
    return tmp_path / "secret.key"


def make(run: Any, *arguments: str) -> str:
    ended = run("tokens", "create", *arguments)
    assert ended.code == 0, ended.err
    return str(ended.out.strip())


def test_a_secret_is_private_and_as_long_as_its_algorithm_asks(run: Any, tmp_path: Path) -> None:
    for algorithm, size in {"HS256": 32, "HS384": 48, "HS512": 64}.items():
        path = tmp_path / algorithm
        run("tokens", "create-secret-key", str(path), "-a", algorithm)
        assert len(path.read_bytes()) == size
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_secret_can_be_written_as_text_and_used_as_text(run: Any, tmp_path: Path) -> None:
    run("tokens", "create-secret-key", str(tmp_path / "k"), "--base64")
    text = (tmp_path / "k").read_text()
    token = make(run, "-sk", f"data:;base64,{text}", "-s", "alice")
    assert jwt.decode(token, base64.b64decode(text), algorithms=["HS256"]) == {"sub": "alice"}


def test_a_token_says_what_was_asked_for(run: Any, secret: Path) -> None:
    token = make(
        run,
        *("--secret-key", f"file://{secret}", "--subject", "alice", "--expiry", "2h"),
        *("--audience", "us", "--key-id", "2026", "--token-id", "t1"),
    )
    claims = jwt.decode(token, secret.read_bytes(), algorithms=["HS256"], audience="us")
    assert (claims["sub"], claims["aud"], claims["jti"]) == ("alice", "us", "t1")
    assert 7_100 < claims["exp"] - time.time() <= 7_201
    assert jwt.get_unverified_header(token)["kid"] == "2026"


@pytest.mark.parametrize("algorithm", ["RS256", "RS512", "ES256", "ES384", "ES512"])
def test_a_pair_signs_with_one_half_and_checks_with_the_other(
    run: Any, tmp_path: Path, algorithm: str
) -> None:
    private, public = tmp_path / "private", tmp_path / "public"
    run("tokens", "create-key-pair", str(private), str(public), "-a", algorithm)
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    token = make(run, "--private-key", str(private), "-s", "alice", "-a", algorithm)
    assert jwt.get_unverified_header(token)["alg"] == algorithm
    checked = run("tokens", "validate", token, "--public-key", str(public), "-o", "json")
    assert json.loads(checked.out) == {"valid": True, "claims": {"sub": "alice"}}


def test_the_public_half_cannot_be_passed_off_as_a_secret(run: Any, tmp_path: Path) -> None:
    private, public = tmp_path / "private", tmp_path / "public"
    run("tokens", "create-key-pair", str(private), str(public), "-a", "ES256")
    refused = run("tokens", "create", "--secret-key", str(public), "-s", "admin")
    assert (refused.code, refused.out) == (1, "")
    head, body = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
        for part in ({"alg": "HS256"}, {"sub": "admin"})
    )
    mac = hmac.digest(public.read_bytes(), head + b"." + body, "sha256")
    forged = b".".join([head, body, base64.urlsafe_b64encode(mac).rstrip(b"=")]).decode()
    assert run("tokens", "validate", forged, "--public-key", str(public)).code == 1


def test_a_token_can_come_by_argument_file_variable_or_pipe(
    run: Any, secret: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = make(run, "-sk", str(secret), "-s", "alice")
    (tmp_path / "token").write_text(token + "\n")
    assert "alice" in run("tokens", "show", token).out
    assert "alice" in run("tokens", "show", "-f", str(tmp_path / "token")).out
    monkeypatch.setattr(sys, "stdin", io.StringIO(token))
    assert "alice" in run("tokens", "show").out
    monkeypatch.setenv("MAGNETAR_TOKEN", token)
    assert "alice" in run("tokens", "show").out


def test_an_expired_token_is_shown_and_not_valid(run: Any, secret: Path) -> None:
    token = jwt.encode({"sub": "alice", "exp": 1_700_000_000}, secret.read_bytes(), "HS256")
    assert "2023-11-14T22:13:20" in run("tokens", "show", token).out
    ended = run("tokens", "validate", token, "-sk", str(secret))
    assert ended.code == 1
    assert "expired" in ended.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["create", "-s", "a"], "name one key"),
        (["create", "-s", "a", "-sk", "{s}", "-pk", "{s}"], "name one key"),
        (["create", "-sk", "{s}"], "--subject"),
        (["create", "-sk", "{s}", "-s", ""], "role"),
        (["create", "-sk", "{s}", "-s", "a", "-a", "none"], "cannot sign with none"),
        (["create", "-sk", "{s}", "-s", "a", "-a", "HS512"], "cannot sign with HS512"),
        (["create", "-sk", "{s}", "-s", "a", "-e", "soon"], "no age"),
        (["create", "-sk", "data:;base64,c2hvcnQ=", "-s", "a"], "at least 32"),
        (["create", "-sk", "data:;base64,!", "-s", "a"], "base64"),
        (["create", "-sk", "data:c2hvcnQ=", "-s", "a"], "base64"),
        (["create", "-sk", "/nowhere", "-s", "a"], "/nowhere"),
        (["create", "-pk", "{s}", "-s", "a"], "no private key"),
        (["create-secret-key", "{s}"], "there already"),
        (["show", "nonsense"], "no token"),
        (["validate", "nonsense", "-sk", "{s}"], "no token"),
        (["validate", "nonsense", "-pk", "{s}"], "no public key"),
        (["show", "x" * 17_000], "at most"),
    ],
)
def test_what_makes_no_sense_is_said_in_one_line(
    run: Any, secret: Path, arguments: list[str], told: str
) -> None:
    ended = run("tokens", *(each.format(s=secret) for each in arguments))
    assert ended.code != 0
    assert ended.out == ""
    assert told in ended.err
    assert "Traceback" not in ended.err


def test_a_token_of_another_key_or_without_a_signature_is_not_valid(run: Any, secret: Path) -> None:
    for token in (
        jwt.encode({"sub": "a"}, b"x" * 32, "HS256"),
        jwt.encode({"sub": "a"}, "", "none"),
    ):
        assert run("tokens", "validate", token, "-sk", str(secret)).code == 1
