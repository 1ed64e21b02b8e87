"""Names and passwords as htpasswd writes them."""

import asyncio
import subprocess
import time
from base64 import b64encode
from hashlib import sha1
from pathlib import Path
from statistics import median

import bcrypt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magnetar.broker.access.authentication import Credentials
from magnetar.broker.access.passwords import (
    WAITING_PER_HOST_MAX,
    Passwords,
    apr1,
    matches,
    password_hashes,
)
from magnetar.broker.access.rights import AuthenticationError
from magnetar.broker.clock import ManualClock
from magnetar.broker.config import ConfigError

BCRYPT = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
APR1 = "$apr1$abcdefgh$6LbQcMCxitqz7DTxoNR2s1"
"""Of 123456, by another program."""
SHA = "{SHA}" + b64encode(sha1(b"hello", usedforsecurity=False).digest()).decode()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "passwords"
    path.write_text(f"# people\nanna:{BCRYPT}\nberta:{APR1}\n\nclara:{SHA}\n")
    return path


def opened(path: Path) -> Passwords:
    return Passwords(path, Path.read_bytes, ManualClock())


async def login(at: Passwords, pair: bytes) -> str:
    return (await at.authenticate(Credentials("basic", pair))).role


@pytest.mark.parametrize("pair", [b"anna:secret", b"berta:123456", b"clara:hello"])
async def test_the_right_password_lets_in(file: Path, pair: bytes) -> None:
    at = opened(file)
    for _ in range(2):
        assert await login(at, pair) == pair.split(b":")[0].decode()


@pytest.mark.parametrize(
    "pair",
    [b"anna:Secret", b"anna:", b"anna", b"", b":", b":secret", b"dora:secret", b"berta:12345",
     b"clara:", b"anna:secret:more", b"\xff:secret", b"anna:" + b"x" * 5000, b"anna:secre\0t"],
)  # fmt: skip
async def test_anything_else_does_not(file: Path, pair: bytes) -> None:
    with pytest.raises(AuthenticationError) as error:
        await login(opened(file), pair)
    assert str(error.value) == "the name or the password is wrong"


async def test_a_password_may_have_colons(tmp_path: Path) -> None:
    path = tmp_path / "p"
    path.write_text(f"anna:{bcrypt.hashpw(b'a:b', bcrypt.gensalt(4)).decode()}\n")
    assert await login(opened(path), b"anna:a:b") == "anna"


async def test_a_changed_file_takes_effect(file: Path) -> None:
    at = opened(file)
    caller = await at.authenticate(Credentials("basic", b"anna:secret"))
    assert at.still(caller)
    file.write_text(f"berta:{APR1}\n")
    await at.refresh()
    assert not at.still(caller)
    with pytest.raises(AuthenticationError):
        await login(at, b"anna:secret")


async def test_a_file_that_became_unreadable_changes_nothing(file: Path) -> None:
    at = opened(file)
    file.write_text("nonsense\n")
    with pytest.raises(ConfigError):
        await at.refresh()
    assert await login(at, b"anna:secret") == "anna"


@pytest.mark.parametrize("line", ["anna", ":x", "anna:plain", "anna:xyCRYPTxyzabc", "anna:$1$a$b"])
def test_a_line_that_is_none_is_named_and_not_quoted(line: str) -> None:
    with pytest.raises(ConfigError, match="line 2") as error:
        password_hashes(f"# x\n{line}\n".encode())
    assert line.rpartition(":")[2] not in str(error.value).partition("expected")[0]


@given(
    st.text(st.characters(codec="ascii", min_codepoint=33), max_size=40),
    st.text("ab.", min_size=1, max_size=8),
)
@settings(max_examples=10, deadline=None)
def test_apaches_md5_is_openssls(password: str, salt: str) -> None:
    done = subprocess.run(
        ["openssl", "passwd", "-apr1", "-salt", salt, "-stdin"],
        input=password + "\n", capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode or not password:
        return
    assert apr1(password.encode(), salt.encode()) == done.stdout.strip()


@pytest.mark.parametrize("stored", ["$2b$", "$2y$99$x", "$apr1$", "$apr1$salt", "{SHA}", "{SHA}!"])
def test_a_damaged_hash_fits_no_password(stored: str) -> None:
    for password in (b"", b"x"):
        assert not matches(password, stored)


def test_an_unknown_name_costs_as_much_as_a_known_one(tmp_path: Path) -> None:
    path = tmp_path / "p"
    path.write_text(f"anna:{bcrypt.hashpw(b's', bcrypt.gensalt(6)).decode()}\n")
    at = opened(path)

    def cost(name: str) -> float:
        times = []
        for _ in range(15):
            began = time.thread_time()
            at._matches(name, b"wrong")
            times.append(time.thread_time() - began)
        return median(times)

    known, unknown = cost("anna"), cost("nobody")
    assert 0.5 < known / unknown < 2


async def test_a_changed_password_ends_what_was_opened_with_the_old_one(file: Path) -> None:
    at = opened(file)
    caller = await at.authenticate(Credentials("basic", b"anna:secret"))
    hashed = bcrypt.hashpw(b"another", bcrypt.gensalt(4)).decode()
    rest = "\n".join(line for line in file.read_text().splitlines() if line[:5] != "anna:")
    file.write_text(f"{rest}\n# a comment changes nothing\n" + f"anna:{hashed}\n")
    await at.refresh()
    assert not at.still(caller)
    renewed = await at.authenticate(Credentials("basic", b"anna:another"))
    assert at.still(renewed)
    file.write_text(file.read_text() + "# one more\n")
    await at.refresh()
    assert at.still(renewed)


async def test_who_guesses_does_not_keep_others_out(tmp_path: Path) -> None:
    path = tmp_path / "p"
    path.write_text(f"anna:{bcrypt.hashpw(b's', bcrypt.gensalt(8)).decode()}\n")
    at = opened(path)

    async def outcome(data: bytes, address: str) -> str:
        try:
            return (await at.authenticate(Credentials("basic", data, address=address))).role
        except AuthenticationError as error:
            return str(error)

    guesses = [outcome(b"anna:%d" % each, f"192.0.2.1:{each}") for each in range(200)]
    *guessed, anna = await asyncio.gather(*guesses, outcome(b"anna:s", "192.0.2.2:1"))
    assert anna == "anna"
    assert guessed.count("too many log-ins at once; try again") == 200 - WAITING_PER_HOST_MAX
    assert not at._waiting
