"""Log-in by client certificate, with two processes behind one port, for clients and for commands.

Half of the topics belong to the process that a connection did not land on, so what is asked of them
travels between the processes.
"""

import http.client
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jwt
import pulsar
import pytest

from magnetar.client.admin import Admin
from magnetar.client.credentials import Credentials
from magnetar.client.rest import AdminError
from tests.conformance.conftest import new_client
from tests.conformance.talk import LIMIT_S
from tests.conformance.test_tls import HTTPS, Secure, there_and_back
from tests.doors.papers import Papers

SECRET = b"a secret of thirty-two bytes, here"


class Asking(Secure):
    """A broker that asks who is calling."""

    def __init__(self, folder: Path) -> None:
        (folder / "secret.key").write_bytes(SECRET)
        super().__init__(
            folder,
            2,
            *("--single-port", "--auth", "tls token", "--superuser", "admin"),
            *("--token-secret-key", str(folder / "secret.key")),
        )

    def shown_by(self, role: str) -> Credentials:
        certificate, key = self.papers.client(role)
        return Credentials(trust=self.papers.ca, certificate=certificate, key=key)


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    broker = Asking(tmp_path_factory.mktemp("asking"))
    try:
        yield broker
    finally:
        broker.process.discard()


Dial = Callable[..., Any]


@pytest.fixture
def dial(asking: Asking) -> Iterator[Dial]:
    with ExitStack() as opened:

        def connect(credentials: Credentials, **options: Any) -> Any:
            client = new_client(asking.url, **credentials.of_official_client(), **options)
            opened.callback(client.shutdown)
            return client

        yield connect


def test_the_role_is_the_common_name_for_clients_of_topics_everywhere(
    asking: Asking, dial: Dial
) -> None:
    topics = asking.topics()
    for _ in range(3):  # each lands on either process
        for topic in topics:
            there_and_back(dial(asking.shown_by("admin")), topic, 3)
    for topic in topics:
        with pytest.raises(pulsar.AuthorizationError):
            dial(asking.shown_by("alice")).create_producer(topic)
    with Admin(asking.https, credentials=asking.shown_by("admin")) as admin:
        admin.json(
            "POST", "/admin/v2/namespaces/public/default/permissions/alice", ["produce", "consume"]
        )
    for topic in topics:
        there_and_back(dial(asking.shown_by("alice")), topic, 3)


def test_who_shows_nothing_is_not_let_in(asking: Asking, dial: Dial) -> None:
    stranger = dial(Credentials(trust=asking.papers.ca), operation_timeout_seconds=5)
    with pytest.raises(pulsar.PulsarException):
        stranger.create_producer(asking.topics()[0])


def test_a_token_is_a_log_in_beside_a_certificate_and_goes_before_it(
    asking: Asking, dial: Dial
) -> None:
    token = jwt.encode({"sub": "admin"}, SECRET, "HS256")
    there_and_back(dial(Credentials(trust=asking.papers.ca, token=token)), asking.topics()[0], 3)


def test_the_role_is_the_common_name_over_https_too(asking: Asking) -> None:
    with Admin(asking.https, credentials=asking.shown_by("admin")) as admin:
        assert "public" in admin.tenants()
    with (
        Admin(asking.https, credentials=asking.shown_by("nobody")) as admin,
        pytest.raises(AdminError) as refused,
    ):
        admin.tenants()
    assert refused.value.status in {401, 403}


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("x-magnetar-peer", json.dumps({"address": "127.0.0.1:1", "common_name": "admin"})),
        ("X-Magnetar-Caller", json.dumps(["admin", "token", None, None, ""])),
        ("x-magnetar-caller", json.dumps(["broker", "magnetar-sibling", None, None, ""])),
        ("x-magnetar-here", "1"),
    ],
)
def test_nobody_outside_can_say_what_processes_tell_each_other(
    asking: Asking, header: str, value: str
) -> None:
    offset, trust = asking.process.ports.offset, asking.papers.trust()
    for connection in (
        http.client.HTTPConnection("localhost", 8080 + offset, timeout=LIMIT_S),
        http.client.HTTPSConnection("localhost", HTTPS + offset, timeout=LIMIT_S, context=trust),
    ):
        connection.request("GET", "/admin/v2/tenants", headers={header: value})
        assert connection.getresponse().status == 401
        connection.close()


def command(asking: Asking, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "magnetar", *arguments],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
        env={"MAGNETAR_URL": asking.url, "PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path)},
    )


def test_commands_log_in_by_certificate_token_and_file(asking: Asking, tmp_path: Path) -> None:
    certificate, key = asking.papers.client("admin")
    trust = ("--tls-trust-certs", str(asking.papers.ca))
    token = jwt.encode({"sub": "admin"}, SECRET, "HS256")
    (tmp_path / "token").write_text(token)
    for shown in (
        ("--client-certificate", str(certificate), "--client-key", str(key)),
        ("--token", token),
        ("--token-file", str(tmp_path / "token")),
    ):
        for line in (("topics", "list"), ("produce", "from-a-command", "hello")):
            done = command(asking, *line, *trust, *shown)
            assert done.returncode == 0, done.stderr


def test_commands_say_what_to_do(asking: Asking, tmp_path: Path) -> None:
    trust = ("--tls-trust-certs", str(asking.papers.ca))
    ended = jwt.encode({"sub": "admin", "exp": int(time.time()) - 60}, SECRET, "HS256")
    stranger = Papers(tmp_path, "another CA")
    asked = command(asking, "topics", "list", *trust)
    assert asked.returncode != 0
    assert "log in with --token-file FILE" in asked.stderr
    for arguments, told in (
        ((*trust, "--token", ended), "the token expired at"),
        ((), "name the broker's CA with --tls-trust-certs FILE"),
        (("--tls-trust-certs", str(stranger.ca)), "--tls-trust-certs FILE"),
        (("--tls-trust-certs", str(tmp_path / "none")), "cannot be used as trusted"),
    ):
        for line in (("topics", "list"), ("produce", "t", "hello")):
            done = command(asking, *line, *arguments)
            assert done.returncode != 0
            assert told in done.stderr, (line, arguments)
            assert "Traceback" not in done.stderr
