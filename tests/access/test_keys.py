"""Keys: where they are, what they may verify, and that no message gives one away."""

from base64 import b64encode
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from magnetar.broker.access.keys import public_key, public_keys, secret_keys
from magnetar.broker.config import ConfigError

SECRET = b"s" * 32


def in_files(tmp_path: Path, **contents: bytes) -> Path:
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    return tmp_path


def read(path: Path) -> bytes:
    return path.read_bytes()


def encoded(key: object, encoding: Encoding) -> bytes:
    return key.public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined,no-any-return]


def test_a_secret_is_read_from_wherever_it_is_said_to_be(tmp_path: Path) -> None:
    file = in_files(tmp_path, key=SECRET) / "key"
    inline = "data:;base64," + b64encode(SECRET).decode()
    for place in (str(file), f"file://{file}", f"file:{file}", inline):
        (key,) = secret_keys("setting", place, read)
        assert (key.id, key.key) == (None, SECRET)


def test_two_keys_live_side_by_side(tmp_path: Path) -> None:
    folder = in_files(tmp_path, old=SECRET, new=b"n" * 64)
    old, new = secret_keys("setting", f"{folder / 'old'} 2026={folder / 'new'}", read)
    assert (old.id, old.key) == (None, SECRET)
    assert (new.id, new.key) == ("2026", b"n" * 64)


@pytest.mark.parametrize(
    ("size", "algorithms"),
    [(32, ["HS256"]), (48, ["HS256", "HS384"]), (64, ["HS256", "HS384", "HS512"])],
)
def test_a_secret_is_for_hashes_that_it_is_long_enough_for(
    size: int, algorithms: list[str]
) -> None:
    place = "data:;base64," + b64encode(b"x" * size).decode()
    assert list(secret_keys("setting", place, read)[0].algorithms) == algorithms


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
def test_a_public_key_is_for_the_algorithms_of_its_kind(encoding: Encoding) -> None:
    rsa_key = rsa.generate_private_key(65537, 2048).public_key()
    assert set(public_key("s", None, encoded(rsa_key, encoding)).algorithms) == {
        "RS256", "RS384", "RS512", "PS256", "PS384", "PS512",
    }  # fmt: skip
    for curve, algorithm in (
        (ec.SECP256R1(), "ES256"), (ec.SECP384R1(), "ES384"), (ec.SECP521R1(), "ES512"),
    ):  # fmt: skip
        key = ec.generate_private_key(curve).public_key()
        assert public_key("s", None, encoded(key, encoding)).algorithms == (algorithm,)


def weak_keys() -> list[bytes]:
    small = rsa.generate_private_key(65537, 1024).public_key()  # noqa: S505 - that is the point
    odd = ec.generate_private_key(ec.SECP256K1()).public_key()
    return [encoded(small, Encoding.PEM), encoded(odd, Encoding.PEM),
            encoded(ed25519.Ed25519PrivateKey.generate().public_key(), Encoding.PEM),
            b"", b"not a key", SECRET]  # fmt: skip


def test_a_weak_or_foreign_public_key_is_refused() -> None:
    for data in weak_keys():
        with pytest.raises(ConfigError, match="public key"):
            public_key("token_public_key", None, data)


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("data:;base64,!!", "base64"),
        ("data:,abc", "base64"),
        ("/nowhere/at-all", "cannot be read"),
        ("data:;base64," + b64encode(b"short").decode(), "5 bytes"),
        ("data:;base64," + b64encode(b"-----BEGIN PUBLIC KEY-----" * 2).decode(), "PEM"),
    ],
)
def test_a_secret_that_is_none_is_refused_without_quoting_it(place: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as error:
        secret_keys("token_secret_key", place, read)
    assert place not in str(error.value)
    assert "token_secret_key" in str(error.value)


def test_a_key_does_not_print_itself() -> None:
    (key,) = secret_keys("s", "data:;base64," + b64encode(SECRET).decode(), read)
    assert "sss" not in repr(key)


def test_public_keys_have_ids_too(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    folder = in_files(tmp_path, pub=encoded(key, Encoding.DER))
    assert public_keys("s", f"a={folder / 'pub'}", read)[0].id == "a"
