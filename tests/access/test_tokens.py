"""Tokens: every way to get in without being entitled to, and none that works."""

import json
from base64 import urlsafe_b64encode
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from magnetar.broker.access.authentication import Credentials, ExpiredError
from magnetar.broker.access.caller import Caller
from magnetar.broker.access.keys import Key, public_key, secret_algorithms
from magnetar.broker.access.rights import AuthenticationError
from magnetar.broker.access.tokens import Tokens
from magnetar.broker.clock import ManualClock
from tests.access.conftest import SECRET, token

CLOCK = ManualClock()
NOW = CLOCK.wall_ms() // 1000
RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())


def pem(key: Any) -> bytes:
    data: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return data


def secret(key: bytes = SECRET, key_id: str | None = None) -> Key:
    return Key(key_id, key, secret_algorithms(key))


def tokens(*keys: Key, **options: Any) -> Tokens:
    return Tokens(lambda: keys or [secret()], clock=CLOCK, **options)


async def login(text: str | bytes, at: Tokens | None = None) -> Caller:
    data = text.encode() if isinstance(text, str) else text
    return await (at or tokens()).authenticate(Credentials("token", data))


def crafted(header: object, claims: object, signature: bytes = b"") -> str:
    parts = [json.dumps(each).encode() for each in (header, claims)]
    return ".".join(urlsafe_b64encode(each).rstrip(b"=").decode() for each in (*parts, signature))


async def test_a_token_names_a_role_until_it_ends() -> None:
    caller = await login(token("anna", exp=NOW + 60, jti="t-1"))
    assert (caller.role, caller.token_id, caller.expires_ms) == ("anna", "t-1", (NOW + 60) * 1000)
    assert (await login(token("anna"))).expires_ms is None


@pytest.mark.parametrize(
    ("key", "algorithm"), [(RSA, "RS256"), (RSA, "PS512"), (EC, "ES256")], ids=["RS", "PS", "ES"]
)
async def test_a_token_signed_with_a_private_key_fits_the_public_one(
    key: Any, algorithm: str
) -> None:
    at = tokens(public_key("s", None, pem(key)))
    assert (await login(jwt.encode({"sub": "anna"}, key, algorithm=algorithm), at)).role == "anna"


async def test_longer_secrets_take_longer_hashes() -> None:
    long = SECRET * 2
    for algorithm in ("HS256", "HS384", "HS512"):
        assert (
            await login(token("a", long, algorithm=algorithm), tokens(secret(long)))
        ).role == "a"


BAD = {
    "empty": "",
    "blank": "   ",
    "no dots": "anna",
    "not ASCII": "änna.b.c",
    "one dot": "a.b",
    "not base64": "!.!.!",
    "null header": crafted(None, {"sub": "anna"}),
    "list header": crafted([], {"sub": "anna"}),
    "none": crafted({"alg": "none", "typ": "JWT"}, {"sub": "anna"}),
    "None": crafted({"alg": "None"}, {"sub": "anna"}),
    "nOnE with a signature": crafted({"alg": "nOnE"}, {"sub": "anna"}, b"x"),
    "no algorithm": crafted({"typ": "JWT"}, {"sub": "anna"}),
    "an algorithm that is a number": crafted({"alg": 256}, {"sub": "anna"}),
    "another key": token("anna", b"o" * 32),
    "expired": token("anna", exp=NOW - 1),
    "expires now": token("anna", exp=NOW),
    "not valid yet": token("anna", nbf=NOW + 60),
    "no role": jwt.encode({"name": "anna"}, SECRET),
    "an empty role": token(""),
    "a role that is a number": jwt.encode({"sub": 7}, SECRET),
    "a role that is an empty list": jwt.encode({"sub": []}, SECRET),
    "an end that is text": token("anna", exp="soon"),
    "an end that is true": token("anna", exp=True),
    "an end that is infinite": token("anna", exp=1e308),
    "an end before time": token("anna", exp=-5),
    "cut off": token("anna")[:-2],
    "without its signature": token("anna").rpartition(".")[0] + ".",
    "claims that are a list": crafted({"alg": "HS256"}, ["anna"]),
    "an unknown critical header": jwt.encode(
        {"sub": "anna"}, SECRET, headers={"crit": ["exp2"], "exp2": 1}
    ),
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD.keys())
async def test_a_token_that_is_not_good_lets_nobody_in(text: str) -> None:
    with pytest.raises(AuthenticationError) as error:
        await login(text)
    assert text not in str(error.value) or not text.strip()


async def test_an_expired_token_is_told_from_a_forged_one() -> None:
    with pytest.raises(ExpiredError):
        await login(token("anna", exp=NOW - 1))
    with pytest.raises(AuthenticationError) as error:
        await login(token("anna", b"o" * 32, exp=NOW - 1))
    assert not isinstance(error.value, ExpiredError), "who has no key learns nothing about its end"


async def test_a_public_key_does_not_serve_as_a_secret() -> None:
    """The swap of algorithms: the public key, which everybody has, as the secret of an HMAC."""
    for key in (RSA, EC):
        at = tokens(public_key("s", None, pem(key)))
        header = {"alg": "HS256", "typ": "JWT"}
        unsigned = crafted(header, {"sub": "root"}).rpartition(".")[0]
        import hmac

        mark = hmac.digest(pem(key), unsigned.encode(), "sha256")
        forged = unsigned + "." + urlsafe_b64encode(mark).rstrip(b"=").decode()
        with pytest.raises(AuthenticationError):
            await login(forged, at)


async def test_a_key_that_the_token_brings_along_counts_for_nothing() -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    jwk = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(other.public_key()))
    for header in ({"jwk": jwk}, {"jku": "http://127.0.0.1:1/"}, {"x5u": "http://127.0.0.1:1/"}):
        forged = jwt.encode({"sub": "root"}, other, algorithm="ES256", headers=header)
        with pytest.raises(AuthenticationError):
            await login(forged, tokens(public_key("s", None, pem(EC))))


async def test_while_keys_change_both_are_good() -> None:
    old, new = b"o" * 32, b"n" * 32
    at = tokens(secret(old), secret(new, "2026"))
    assert (await login(token("a", old), at)).role == "a"
    assert (await login(token("a", new, kid="2026"), at)).role == "a"
    assert (await login(token("a", new), at)).role == "a"
    with pytest.raises(AuthenticationError):
        await login(token("a", old, kid="2026"), at)


async def test_changed_keys_take_effect_when_they_are_read_again() -> None:
    keys = [secret(b"o" * 32)]
    at = Tokens(lambda: list(keys), clock=CLOCK)
    keys[:] = [secret(b"n" * 32)]
    await at.refresh()
    assert (await login(token("a", b"n" * 32), at)).role == "a"
    with pytest.raises(AuthenticationError):
        await login(token("a", b"o" * 32), at)


async def test_a_token_for_somebody_else_is_not_for_us() -> None:
    at = tokens(audience="magnetar")
    for audience in ("magnetar", ["other", "magnetar"]):
        assert (await login(token("a", aud=audience), at)).role == "a"
    for claims in ({}, {"aud": "other"}, {"aud": ["other"]}, {"aud": 7}, {"aud": None}):
        with pytest.raises(AuthenticationError):
            await login(token("a", **claims), at)


async def test_claim_and_audience_may_have_other_names() -> None:
    at = tokens(claim="role", audience="here", audience_claim="for")
    text = jwt.encode({"role": ["anna", "x"], "for": "here"}, SECRET)
    assert (await login(text, at)).role == "anna"


async def test_an_audience_that_nobody_asked_for_does_no_harm() -> None:
    assert (await login(token("a", aud="whoever"))).role == "a"


@given(st.data())
async def test_no_changed_byte_leaves_a_token_good(data: st.DataObject) -> None:
    good = token("anna", exp=NOW + 60)
    place = data.draw(st.integers(0, len(good) - 1))
    char = data.draw(st.sampled_from("AZaz09-_.="))
    changed = good[:place] + char + good[place + 1 :]
    try:
        caller = await login(changed)
    except AuthenticationError:
        return
    # The last letter of a signature has bits that mean nothing; the claims are the same then.
    assert changed.rpartition(".")[0] == good.rpartition(".")[0]
    assert caller.role == "anna"


@given(st.binary(max_size=200))
async def test_bytes_that_are_no_token_are_refused_as_such(data: bytes) -> None:
    with pytest.raises(AuthenticationError):
        await login(data)
