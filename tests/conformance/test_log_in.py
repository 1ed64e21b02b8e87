"""Log-in with the official client against a whole broker: tokens, rights, and what takes them away.

With two processes every client stays on the shared port, so that topics of the other process are
reached through the one that has the connection: in the client's name.
"""

import json
import os
import secrets
import time
from base64 import b64encode
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import jwt
import pulsar
import pytest

from magnetar.broker.access.caller import Caller
from tests.conformance.child import Child, eventually, running
from tests.conformance.talk import LIMIT_S, RECEIVE_MS

NAMESPACE = "public/default"
PERMISSIONS = f"namespaces/{NAMESPACE}/permissions"
TOKEN_S = 6
"""How long a token lives that is to be renewed: longer than a machine stands still."""
PASSWORD = "correct horse"  # noqa: S105 - of nobody


class Guarded:
    """A broker with log-in, and its clients."""

    def __init__(self, folder: Path, workers: int) -> None:
        self.secret = secrets.token_bytes(32)
        key, passwords = folder / "token.key", folder / "passwords"
        key.write_bytes(self.secret)
        self.password_line = "berta:{SHA}" + b64encode(_sha1(PASSWORD)).decode()
        passwords.write_text(self.password_line + "\n")
        settings = {
            "authentication": '"token basic"',
            "token_secret_key": f'"{key}"',
            "basic_file": f'"{passwords}"',
            "superuser_roles": '"root"',
            "credential_check_s": 1.0,
        }
        self.child = Child(folder, settings, workers=workers)
        if workers > 1:
            self.child.command.append("--single-port")
        self.clients: list[Any] = []

    def token(self, role: str, **claims: Any) -> str:
        return jwt.encode({"sub": role, **claims}, self.secret, algorithm="HS256")

    def client(self, role: str | None = None, timeout_s: int = 30, **options: Any) -> Any:
        if role is not None:
            options["authentication"] = pulsar.AuthenticationToken(self.token(role))
        log = pulsar.FileLogger(pulsar.LoggerLevel.Error, os.devnull)
        client = pulsar.Client(
            self.child.ports.url, logger=log, operation_timeout_seconds=timeout_s, **options
        )
        self.clients.append(client)
        return client

    def call(self, method: str, path: str, body: object = None, role: str = "root") -> int:
        """Call admin REST; return the status."""
        request = Request(  # noqa: S310 - of this broker
            f"{self.child.ports.admin_url}/admin/v2/{path}", method=method
        )
        request.add_header("Authorization", f"Bearer {self.token(role)}")
        if body is not None:
            request.add_header("Content-Type", "application/json")
            request.data = json.dumps(body).encode()
        try:
            with urlopen(request, timeout=LIMIT_S) as answer:  # noqa: S310
                return int(answer.status)
        except HTTPError as error:
            with error:
                return error.code

    def end(self) -> None:
        while self.clients:
            self.clients.pop().shutdown()


def _sha1(text: str) -> bytes:
    from hashlib import sha1

    return sha1(text.encode(), usedforsecurity=False).digest()


@pytest.fixture(params=[1, 2], ids=["one process", "two processes"])
def guarded(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Guarded]:
    if os.environ.get("MAGNETAR_URL"):
        pytest.skip("not with somebody else's cluster")
    broker = Guarded(tmp_path, request.param)
    with running(broker.child):
        try:
            yield broker
        finally:
            broker.end()


def topics(count: int) -> list[str]:
    """Enough topics for some to be owned by each process."""
    return [f"persistent://{NAMESPACE}/topic-{number}" for number in range(count)]


def test_a_role_does_what_it_was_granted_for_as_long_as_it_is(guarded: Guarded) -> None:
    assert guarded.call("POST", f"{PERMISSIONS}/sensors", ["produce"]) == 204
    assert guarded.call("POST", f"{PERMISSIONS}/reports", ["consume"]) == 204
    sensors, reports = guarded.client("sensors"), guarded.client("reports")
    for topic in topics(4):
        consumer = reports.subscribe(topic, "s")
        producer = sensors.create_producer(topic)
        producer.send(b"hello")
        assert consumer.receive(RECEIVE_MS).data() == b"hello"
        with pytest.raises(pulsar.AuthorizationError):
            reports.create_producer(topic)
        with pytest.raises(pulsar.AuthorizationError):
            sensors.subscribe(topic, "s2")
    kept = [sensors.create_producer(topic, send_timeout_millis=1000) for topic in topics(4)]

    assert guarded.call("DELETE", f"{PERMISSIONS}/sensors") == 204
    for producer in kept:
        eventually(partial(_fails, producer), LIMIT_S)

    # Permissions are as durable as everything else.
    guarded.end()
    guarded.child.kill()
    guarded.child.start()
    with pytest.raises(pulsar.AuthorizationError):
        guarded.client("sensors").create_producer(topics(1)[0])
    assert guarded.client("reports").subscribe(topics(1)[0], "s").receive(RECEIVE_MS)


def _fails(producer: Any) -> bool:
    try:
        producer.send(b"x")
    except (pulsar.AuthorizationError, pulsar.AlreadyClosed, pulsar.Timeout):
        return True
    time.sleep(0.1)
    return False


def test_nobody_gets_in_without_a_credential_and_no_secret_gets_out(guarded: Guarded) -> None:
    topic = topics(1)[0]
    stranger = jwt.encode({"sub": "root"}, b"o" * 32, algorithm="HS256")
    for options in (
        {"authentication": pulsar.AuthenticationToken(stranger)},
        {"authentication": pulsar.AuthenticationBasic("berta", "wrong horse")},
    ):
        # The client tries again and again, whatever it is told, and calls that a time-out.
        with pytest.raises((pulsar.AuthenticationError, pulsar.ConnectError, pulsar.Timeout)):
            guarded.client(timeout_s=1, **options).create_producer(topic)
        guarded.clients.pop().shutdown()
    assert guarded.call("GET", "tenants", role="berta") == 403
    for path, status in (("/metrics", 401), ("/healthz", 200), ("/admin/v2/brokers/ready", 200)):
        assert _status(guarded, path) == status

    berta = guarded.client(authentication=pulsar.AuthenticationBasic("berta", PASSWORD))
    with pytest.raises(pulsar.AuthorizationError):
        berta.create_producer(topic)
    assert guarded.call("POST", f"{PERMISSIONS}/berta", ["produce"]) == 204
    berta.create_producer(topic).send(b"x")

    audit = "persistent://pulsar/system/audit"
    reader = guarded.client("root").create_reader(audit, pulsar.MessageId.earliest)
    events = [json.loads(reader.read_next(RECEIVE_MS).data())]
    while reader.has_message_available():
        events.append(json.loads(reader.read_next(RECEIVE_MS).data()))
    assert {event["event"] for event in events} == {"refused", "denied", "changed"}

    said = "\n".join(
        [
            guarded.child.log.read_text(errors="replace"),
            json.dumps(events),
            _read(guarded, "/metrics"),
            *(Path(f"/proc/{pid}/cmdline").read_text() for pid in guarded.child.workers()),
        ]
    )
    for secret in (
        stranger, guarded.token("root"), guarded.token("root", exp=1), PASSWORD, "wrong horse",
        guarded.password_line.partition(":")[2], guarded.secret.hex(),
        b64encode(guarded.secret).decode(),
    ):  # fmt: skip
        assert secret not in said
        assert secret.rpartition(".")[2] not in said


def _status(guarded: Guarded, path: str) -> int:
    """Return what somebody without a credential gets, who says to be a sibling process."""
    request = Request(f"{guarded.child.ports.admin_url}{path}")  # noqa: S310 - of this broker
    request.add_header("x-magnetar-caller", Caller("root", "token").to_text())
    try:
        with urlopen(request, timeout=LIMIT_S) as answer:  # noqa: S310
            return int(answer.status)
    except HTTPError as error:
        with error:
            return error.code


def _read(guarded: Guarded, path: str) -> str:
    request = Request(f"{guarded.child.ports.admin_url}{path}")  # noqa: S310 - of this broker
    request.add_header("Authorization", f"Bearer {guarded.token('root')}")
    with urlopen(request, timeout=LIMIT_S) as answer:  # noqa: S310
        return str(answer.read().decode())


def test_a_client_brings_a_fresh_token_when_the_old_one_ends(guarded: Guarded) -> None:
    assert guarded.call("POST", f"{PERMISSIONS}/sensors", ["produce"]) == 204
    asked: list[float] = []

    def supply() -> str:
        asked.append(time.time())
        return guarded.token("sensors", exp=int(time.time()) + TOKEN_S)

    client = guarded.client(authentication=pulsar.AuthenticationToken(supply))
    producer = client.create_producer(topics(1)[0])
    end = time.time() + TOKEN_S + LIMIT_S
    while len(asked) < 2 or time.time() < asked[0] + TOKEN_S + 2:
        assert time.time() < end, "it was never asked for another one"
        producer.send(b"x")
        time.sleep(0.2)
