"""`standalone --listen 0.0.0.0` by itself: what it prints works, and nothing else does."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pulsar
import pytest

from magnetar.broker.ownership import owner_of
from magnetar.cli.demo.broker import free_ports
from magnetar.client.admin import Admin
from magnetar.client.credentials import Credentials
from magnetar.client.rest import AdminError
from tests.conformance.conftest import new_client
from tests.conformance.talk import LIMIT_S

WORKERS = 2


class Exposed:
    """A broker that other machines can reach."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.offset = free_ports(WORKERS).offset
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MAGNETAR_")}
        self.log = (folder / "log").open("wb")
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "magnetar", "standalone", "--listen", "0.0.0.0"),  # noqa: S104
                *("--data", str(self.data), "--workers", str(WORKERS)),
                *("--port-offset", str(self.offset), "--advertised-address", "localhost"),
            ],
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=environment,
        )
        self.banner = self._read_banner()

    def _read_banner(self) -> str:
        assert self.process.stdout is not None
        lines: list[str] = []
        for line in self.process.stdout:
            lines.append(line)
            if line.startswith("magnetar tokens create"):
                break
        return "".join(lines)

    def block(self, heading: str) -> str:
        """What is printed below a heading, up to the next empty line."""
        return self.banner.split(f"\n{heading}:\n\n")[1].split("\n\n")[0]

    @property
    def credentials(self) -> Credentials:
        return Credentials(
            trust=self.data / "tls" / "ca.pem", token_file=self.data / "access" / "admin.token"
        )

    def admin(self) -> Admin:
        return Admin(f"https://localhost:{8443 + self.offset}", credentials=self.credentials)

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(LIMIT_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.log.close()


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exposed]:
    broker = Exposed(tmp_path_factory.mktemp("exposed"))
    try:
        yield broker
    finally:
        broker.end()


def shell(exposed: Exposed, text: str) -> str:
    """Run lines as a person would who copied them."""
    line = f'magnetar() {{ "{sys.executable}" -m magnetar "$@"; }}\n{text}'
    done = subprocess.run(
        ["bash", "-euc", line], capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_lines_for_the_command_line_work(exposed: Exposed) -> None:
    shell(exposed, exposed.block("Command line"))
    told = exposed.block("Command line").rsplit("\n", 1)[0]
    there = "magnetar topics create from-the-banner; magnetar topics list"
    assert "from-the-banner" in shell(exposed, f"{told}\n{there}")
    produced = "magnetar produce from-the-banner hello; magnetar peek from-the-banner"
    assert "hello" in shell(exposed, f"{told}\n{produced}")


def test_the_lines_for_python_work_whoever_owns_the_topic(exposed: Exposed) -> None:
    names = [f"persistent://public/default/python-{i}" for i in range(20)]
    topics = list({owner_of(name, WORKERS): name for name in names}.values())
    program = (
        exposed.block("Python")
        + f"""
for topic in {topics!r}:
    consumer = client.subscribe(topic, "s")
    client.create_producer(topic).send(b"hello")
    assert consumer.receive(30_000).data() == b"hello"
client.close()
"""
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl")
def test_the_line_for_admin_rest_works(exposed: Exposed) -> None:
    assert "standalone" in shell(exposed, exposed.block("Admin REST"))


def test_the_line_for_another_token_makes_one_that_is_let_in_and_may_nothing(
    exposed: Exposed,
) -> None:
    line = exposed.block("A token for another role").replace("ROLE", "nobody")
    token = shell(exposed, line).strip()
    client = new_client(
        f"pulsar+ssl://localhost:{6651 + exposed.offset}",
        tls_trust_certs_file_path=str(exposed.data / "tls" / "ca.pem"),
        tls_validate_hostname=True,
        authentication=pulsar.AuthenticationToken(token),
    )
    try:
        with pytest.raises(pulsar.AuthorizationError):
            client.create_producer("persistent://public/default/t")
    finally:
        client.close()


def test_no_port_is_open_that_does_not_speak_tls_and_ask_who_it_is(exposed: Exposed) -> None:
    for port in (6650, 8080, *(6660 + i for i in range(WORKERS))):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port + exposed.offset), timeout=LIMIT_S)
    context = exposed.credentials.tls()
    for port in (6651, *(6860 + i for i in range(WORKERS))):
        with (
            socket.create_connection(("127.0.0.1", port + exposed.offset), timeout=LIMIT_S) as sock,
            context.wrap_socket(sock, server_hostname="localhost") as tls,
        ):
            tls.sendall(stranger())
            answer = b""
            while data := tls.recv(4096):
                answer += data
            assert b"log in" in answer


def stranger() -> bytes:
    """CONNECT of somebody who claims to be a process of the broker, and shows nothing."""
    from magnetar.broker.wire.pulsar import client_role

    return client_role.connect("Magnetar 1.0, worker 1")


def test_whoever_does_not_say_who_they_are_learns_nothing_over_http(exposed: Exposed) -> None:
    trust = Credentials(trust=exposed.data / "tls" / "ca.pem")
    with Admin(f"https://localhost:{8443 + exposed.offset}", credentials=trust) as admin:
        for ask in (admin.namespaces, admin.metrics, admin.tenants):
            with pytest.raises(AdminError) as refused:
                ask()
            assert refused.value.status == 401
        assert admin.ready() == "ok"


def test_the_safe_start_says_in_its_metrics_that_it_is_safe(exposed: Exposed) -> None:
    with exposed.admin() as admin:
        metrics = admin.metrics()
    told = [line for line in metrics.splitlines() if line.startswith("magnetar_insecure")]
    assert told
    assert {line.rpartition(" ")[2] for line in told} == {"0"}
