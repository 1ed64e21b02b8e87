"""OpenID Connect: an issuer of the test's own, honest and otherwise."""

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from magnetar.broker.access import issuers as issuers_module
from magnetar.broker.access.authentication import Credentials
from magnetar.broker.access.issuers import (
    ANSWER_BYTES_MAX,
    KEYS_KEPT_S,
    KEYS_S,
    RETRY_S,
    UNASKED_S_MAX,
    Issuers,
    check_url,
    fetch_json,
    published_key,
)
from magnetar.broker.access.rights import AuthenticationError
from magnetar.broker.access.tokens import Tokens
from magnetar.broker.clock import ManualClock
from magnetar.broker.config import ConfigError

RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
NEW = ec.generate_private_key(ec.SECP256R1())
CONFIGURATION = "/.well-known/openid-configuration"


def jwk(key: Any, key_id: str, **changed: Any) -> dict[str, Any]:
    kind = jwt.algorithms.RSAAlgorithm if key is RSA else jwt.algorithms.ECAlgorithm
    told: dict[str, Any] = json.loads(kind.to_jwk(key.public_key()))
    return told | {"kid": key_id, "use": "sig"} | changed


class Issuer:
    """A server that answers what a test says."""

    def __init__(self) -> None:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked.append(self.path)
                issuer.stall.wait(60)
                status, body, *headers = issuer.answers.get(self.path, (404, b""))
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.asked: list[str] = []
        self.stall = threading.Event()
        """While it is not set, nothing is answered."""
        self.stall.set()
        self.answers: dict[str, Any] = {}
        self.clock = ManualClock()
        self.publish(jwk(RSA, "r"), jwk(EC, "e"))
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def publish(self, *keys: object) -> None:
        told = {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
        self.answers[CONFIGURATION] = (200, json.dumps(told).encode())
        self.answers["/keys"] = (200, json.dumps({"keys": keys}).encode())

    def token(self, key: Any = RSA, key_id: str = "r", **claims: Any) -> str:
        algorithm = "RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256"
        told = {"iss": self.url, "aud": "magnetar", "sub": "anna"} | claims
        return jwt.encode(told, key, algorithm=algorithm, headers={"kid": key_id})

    def tokens(self, **options: Any) -> Tokens:
        issuers = Issuers([self.url], ["magnetar", "other"], self.clock, **options)
        return Tokens(list, clock=self.clock, issuers=issuers)


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    opened = Issuer()
    yield opened
    opened.stall.set()
    opened.server.shutdown()
    opened.server.server_close()


async def login(at: Tokens, text: str) -> str:
    return (await at.authenticate(Credentials("token", text.encode()))).role


async def test_a_token_of_an_issuer_names_a_role(issuer: Issuer) -> None:
    at = issuer.tokens()
    assert await login(at, issuer.token()) == "anna"
    assert await login(at, issuer.token(EC, "e")) == "anna"
    assert issuer.asked == [CONFIGURATION, "/keys"], "and it was asked once"


async def test_the_role_may_be_in_another_claim(issuer: Issuer) -> None:
    assert await login(issuer.tokens(claim="role"), issuer.token(role="berta")) == "berta"


@pytest.mark.parametrize(
    "claims",
    [{"aud": "stranger"}, {"aud": None}, {"exp": 1}, {"nbf": 2**40}, {"sub": None},
     {"iss": "https://evil.example"}],
)  # fmt: skip
async def test_a_token_that_is_not_for_us_or_not_now_is_refused(
    issuer: Issuer, claims: dict[str, Any]
) -> None:
    with pytest.raises(AuthenticationError):
        await login(issuer.tokens(), issuer.token(**claims))


async def test_a_token_that_the_issuer_did_not_sign_is_refused(issuer: Issuer) -> None:
    other = rsa.generate_private_key(65537, 2048)
    for key_id in ("r", "e", "unknown"):
        with pytest.raises(AuthenticationError):
            await login(issuer.tokens(), issuer.token(other, key_id))
    secret = jwt.encode(
        {"iss": issuer.url, "aud": "magnetar", "sub": "root"}, b"x" * 32, algorithm="HS256"
    )
    with pytest.raises(AuthenticationError):
        await login(issuer.tokens(), secret)


async def test_keys_are_fetched_again_when_a_token_names_a_new_one(issuer: Issuer) -> None:
    at = issuer.tokens()
    await login(at, issuer.token())
    issuer.publish(jwk(NEW, "new"))
    with pytest.raises(AuthenticationError):  # too soon: nobody makes us ask at every token
        await login(at, issuer.token(NEW, "new"))
    issuer.clock.advance(RETRY_S + 1)
    assert await login(at, issuer.token(NEW, "new")) == "anna"
    with pytest.raises(AuthenticationError):  # and what is not published any more is not good
        await login(at, issuer.token())


async def test_an_issuer_that_is_away_for_a_while_keeps_nobody_out(issuer: Issuer) -> None:
    at = issuer.tokens()
    await login(at, issuer.token())
    issuer.answers.clear()
    issuer.clock.advance(KEYS_S + 1)
    assert await login(at, issuer.token()) == "anna"
    issuer.clock.advance(KEYS_KEPT_S)
    with pytest.raises(AuthenticationError, match="cannot be reached"):
        await login(at, issuer.token())


async def test_nobody_whose_key_is_known_waits_for_an_issuer_that_is_slow(issuer: Issuer) -> None:
    at = issuer.tokens()
    await login(at, issuer.token())
    issuer.clock.advance(KEYS_S + 1)
    issuer.stall.clear()
    stranger = asyncio.create_task(login(at, issuer.token(NEW, "new")))
    for _ in range(20):  # whoever waited for the issuer would wait for ever
        assert await login(at, issuer.token()) == "anna"
    assert not stranger.done(), "who shows a key that nobody knows waits for the issuer's word"
    issuer.publish(jwk(RSA, "r"), jwk(NEW, "new"))
    issuer.stall.set()
    assert await stranger == "anna"


async def test_after_a_long_silence_the_issuer_is_asked_before_a_token_is_taken(
    issuer: Issuer,
) -> None:
    at = issuer.tokens()
    await login(at, issuer.token())
    issuer.publish(jwk(NEW, "new"))
    issuer.clock.advance(UNASKED_S_MAX + 1)
    with pytest.raises(AuthenticationError):
        await login(at, issuer.token())


async def test_an_answer_that_trickles_is_not_waited_for(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuers_module, "TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def trickle() -> None:
            with contextlib.suppress(OSError):
                connection, _ = server.accept()
                with connection:
                    connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
                    while True:
                        connection.sendall(b" ")
                        time.sleep(0.05)

        trickling = threading.Thread(target=trickle)
        trickling.start()
        with pytest.raises(TimeoutError):  # it would trickle for ever
            await asyncio.to_thread(fetch_json, f"http://127.0.0.1:{server.getsockname()[1]}/")
        trickling.join()


def test_keys_that_are_weak_or_were_published_by_mistake_are_left_out() -> None:
    weak = rsa.generate_private_key(65537, 1024)  # noqa: S505 - that is the point
    told = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(weak.public_key()))
    assert published_key(told) is None
    assert published_key(json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(RSA))) is None
    assert published_key(json.loads(jwt.algorithms.ECAlgorithm.to_jwk(EC))) is None


def _redirect(issuer: Issuer) -> None:
    issuer.answers["/elsewhere"] = issuer.answers["/keys"]
    issuer.answers["/keys"] = (302, b"", ("Location", f"{issuer.url}/elsewhere"))


def _configuration(**changed: Any) -> Callable[[Issuer], None]:
    def change(issuer: Issuer) -> None:
        told = json.loads(issuer.answers[CONFIGURATION][1]) | changed
        issuer.answers[CONFIGURATION] = (200, json.dumps(told).encode())

    return change


def _keys(status: int, body: bytes) -> Callable[[Issuer], None]:
    def change(issuer: Issuer) -> None:
        issuer.answers["/keys"] = (status, body)

    return change


@pytest.mark.parametrize(
    "break_it",
    [
        _redirect,
        _configuration(issuer="https://evil.example"),
        _configuration(jwks_uri="file:///etc/passwd"),
        _configuration(jwks_uri="http://192.0.2.1/keys"),
        _configuration(jwks_uri=None),
        _keys(500, b""),
        _keys(200, b"nonsense"),
        _keys(200, b"[]"),
        _keys(200, b'{"keys": 7}'),
        _keys(200, b'{"keys": []}'),
        _keys(200, b'{"keys": [7, null, {}, {"kty": "oct", "k": "eHh4", "kid": "r"}]}'),
        _keys(200, b" " * (ANSWER_BYTES_MAX + 1)),
    ],
)
async def test_an_issuer_that_misbehaves_lets_nobody_in(
    issuer: Issuer, break_it: Callable[[Issuer], None]
) -> None:
    break_it(issuer)
    with pytest.raises(AuthenticationError):
        await login(issuer.tokens(), issuer.token())
    assert "/elsewhere" not in issuer.asked


def test_keys_that_are_not_for_signatures_are_left_out() -> None:
    assert published_key(jwk(RSA, "r")) is not None
    for changed in (
        {"use": "enc"},
        {"alg": "HS256"},
        {"alg": "RSA-OAEP"},
        {"n": "x"},
        {"kty": "x"},
    ):
        assert published_key(jwk(RSA, "r", **changed)) is None
    narrowed = published_key(jwk(RSA, "r", alg="RS512"))
    assert narrowed is not None
    assert narrowed.algorithms == ["RS512"]


@pytest.mark.parametrize(
    "url",
    ["http://example.com", "ftp://127.0.0.1", "file:///x", "https://", "https://u:p@example.com",
     "127.0.0.1", "", "http://127.0.0.1.example.com"],
)  # fmt: skip
def test_only_https_or_this_machine_is_asked(url: str) -> None:
    with pytest.raises(ConfigError):
        check_url("oidc_issuers", url)


def test_tokens_for_any_audience_are_not_taken() -> None:
    with pytest.raises(ConfigError, match="oidc_audiences"):
        Issuers(["https://issuer.example"], [], ManualClock())
