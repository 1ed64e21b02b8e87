"""The official client over TLS, with one process and with two."""

import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pulsar
import pytest

from magnetar.broker.ownership import owner_of
from magnetar.cli.demo.broker import BrokerProcess, free_ports
from magnetar.client.admin import Admin
from magnetar.client.credentials import Credentials
from magnetar.client.rest import AdminError
from tests.conformance.conftest import new_client
from tests.conformance.talk import LIMIT_S, RECEIVE_MS, eventually
from tests.doors.papers import Papers

PULSAR_TLS, HTTPS = 6651, 8443


class Secure:
    """A broker that speaks TLS beside its plain ports, on loopback."""

    def __init__(self, folder: Path, workers: int, *more: str) -> None:
        self.papers = Papers(folder / "papers")
        self.files = self.papers.server(clients=self.papers.ca)
        self.process = BrokerProcess(folder, free_ports(workers), workers)
        self.workers = workers
        self.process._command += [
            *("--tls-certificate", str(self.files.certificate)),
            *("--tls-key", str(self.files.key)),
            *("--tls-client-ca", str(self.files.client_ca)),
            *more,
        ]
        self.process.start()
        offset = self.process.ports.offset
        self.url = f"pulsar+ssl://localhost:{PULSAR_TLS + offset}"
        self.https = f"https://localhost:{HTTPS + offset}"

    @property
    def credentials(self) -> Credentials:
        return Credentials(trust=self.papers.ca)

    def admin(self) -> Admin:
        return Admin(self.https, credentials=self.credentials)

    def topics(self) -> list[str]:
        """One topic of every process."""
        names = [f"persistent://public/default/tls-{i}-{time.time_ns()}" for i in range(50)]
        found = {owner_of(name, self.workers): name for name in names}
        assert len(found) == self.workers
        return list(found.values())


@pytest.fixture(scope="module", params=[1, 2], ids=["one process", "two processes"])
def secure(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Secure]:
    broker = Secure(tmp_path_factory.mktemp("tls"), request.param)
    try:
        yield broker
        assert broker.process.stop() == 0, broker.process.log_end()
    finally:
        broker.process.discard()


@pytest.fixture
def dial(secure: Secure) -> Iterator[Callable[..., Any]]:
    with ExitStack() as opened:

        def connect(url: str = secure.url, **options: Any) -> Any:
            options.setdefault("tls_trust_certs_file_path", str(secure.papers.ca))
            client = new_client(url, tls_validate_hostname=True, **options)
            opened.callback(client.shutdown)
            return client

        yield connect


def there_and_back(client: Any, topic: str, count: int = 20) -> None:
    consumer = client.subscribe(topic, "s")
    producer = client.create_producer(topic)
    for number in range(count):
        producer.send(str(number).encode())
    for number in range(count):
        message = consumer.receive(RECEIVE_MS)
        assert message.data() == str(number).encode()
        consumer.acknowledge(message)
    producer.close()
    consumer.close()


def test_messages_go_there_and_back_whoever_owns_the_topic(secure: Secure, dial: Any) -> None:
    client = dial()
    for topic in secure.topics():
        there_and_back(client, topic)


def test_a_large_message_arrives_whole(secure: Secure, dial: Any) -> None:
    client, topic, body = dial(), secure.topics()[0], bytes(range(256)) * 16_000
    consumer = client.subscribe(topic, "s")
    client.create_producer(topic).send(body)
    assert consumer.receive(RECEIVE_MS).data() == body


def test_a_client_that_looks_topics_up_by_https_is_led_to_tls_ports(
    secure: Secure, dial: Any
) -> None:
    client = dial(secure.https)
    for topic in secure.topics():
        there_and_back(client, topic)
        with secure.admin() as admin:
            found = admin.lookup(topic)
        offset = secure.process.ports.offset
        port = PULSAR_TLS if secure.workers == 1 else 6860 + owner_of(topic, secure.workers)
        assert found.broker_url_tls == f"pulsar+ssl://localhost:{port + offset}"
        assert found.http_url_tls == secure.https
        assert found.broker_url.startswith("pulsar://localhost:")


def test_a_client_with_a_certificate_is_let_in_and_one_of_a_stranger_is_not(
    secure: Secure, dial: Any, tmp_path: Path
) -> None:
    shown = secure.papers.client("alice")
    topic = secure.topics()[0]
    there_and_back(dial(authentication=pulsar.AuthenticationTLS(*map(str, shown))), topic)
    stranger = Papers(tmp_path, "another CA").client("alice")
    refused = dial(
        authentication=pulsar.AuthenticationTLS(*map(str, stranger)), operation_timeout_seconds=2
    )
    with pytest.raises(pulsar.PulsarException):
        refused.create_producer(topic)
    there_and_back(dial(), topic)


def test_a_client_that_trusts_somebody_else_does_not_talk_to_it(
    secure: Secure, dial: Any, tmp_path: Path
) -> None:
    stranger = Papers(tmp_path, "another CA")
    client = dial(tls_trust_certs_file_path=str(stranger.ca), operation_timeout_seconds=2)
    with pytest.raises(pulsar.PulsarException):
        client.create_producer(secure.topics()[0])
    with (
        Admin(secure.https, credentials=Credentials(trust=stranger.ca)) as admin,
        pytest.raises(AdminError, match=r"not trusted.*--tls-trust-certs"),
    ):
        admin.clusters()


def test_plain_clients_at_the_tls_port_and_the_reverse_are_told_apart_in_the_log(
    secure: Secure, dial: Any
) -> None:
    offset = secure.process.ports.offset
    crossed = [
        dial(f"pulsar://localhost:{PULSAR_TLS + offset}", operation_timeout_seconds=2),
        dial(f"pulsar+ssl://localhost:{6650 + offset}", operation_timeout_seconds=2),
    ]
    for client in crossed:
        with pytest.raises(pulsar.PulsarException):
            client.create_producer(secure.topics()[0])
    with pytest.raises(AdminError), Admin(f"http://localhost:{HTTPS + offset}") as admin:
        admin.clusters()
    wrong = Admin(f"https://localhost:{8080 + offset}", credentials=secure.credentials)
    with pytest.raises(AdminError, match="TLS"), wrong:
        wrong.clusters()
    log = secure.process.log
    eventually(lambda: "it does not speak TLS" in log.read_text())
    eventually(lambda: "it speaks TLS, and this port does not" in log.read_text())
    assert "Traceback" not in log.read_text()


def test_a_renewed_certificate_is_shown_to_who_comes_next_and_nobody_else_notices(
    secure: Secure, dial: Any
) -> None:
    topic = secure.topics()[0]
    client = dial()
    producer = client.create_producer(topic)
    consumer = client.subscribe(topic, "s")
    connections = connections_of(secure, topic)
    before = serial(secure)
    sent = 0
    stop = threading.Event()

    def publish() -> None:
        nonlocal sent
        while not stop.is_set():
            producer.send(str(sent).encode())
            sent += 1

    publishing = threading.Thread(target=publish)
    publishing.start()
    try:
        secure.papers.server(clients=secure.papers.ca)
        end = time.monotonic() + LIMIT_S
        while serial(secure) == before:
            assert time.monotonic() < end, "the old certificate is still shown"
            time.sleep(0.1)
        time.sleep(0.2)
    finally:
        stop.set()
        publishing.join()
    for number in range(sent):
        assert consumer.receive(RECEIVE_MS).data() == str(number).encode()
    assert connections_of(secure, topic) == connections
    there_and_back(dial(), secure.topics()[-1])


def serial(secure: Secure) -> str:
    """The number of the certificate that the HTTPS port shows."""
    address = ("localhost", HTTPS + secure.process.ports.offset)
    return ssl.get_server_certificate(address)


def connections_of(secure: Secure, topic: str) -> list[str]:
    """Where the publishers and consumers of a topic come from, and since when."""
    with secure.admin() as admin:
        stats = admin.stats(topic)
    ends = [*stats["publishers"]]
    for each in stats["subscriptions"].values():
        ends += each["consumers"]
    return sorted(f"{each['address']} {each['connectedSince']}" for each in ends)


def test_https_answers_whoever_trusts_the_authority(secure: Secure) -> None:
    context = secure.papers.trust()
    with urllib.request.urlopen(f"{secure.https}/metrics", context=context) as answer:  # noqa: S310
        assert b"pulsar_active_connections" in answer.read()
