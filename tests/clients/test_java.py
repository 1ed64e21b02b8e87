"""The official Java client, which has everything, and the tools that are built on it."""

from pathlib import Path

import pytest

from magnetar.cli.demo.broker import BrokerProcess
from magnetar.client.admin import Admin
from tests.clients.conftest import CACHE, HERE, needs, prepare, run

JVM = ("java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx512m")
"""The programs live for seconds: it is starting that costs."""


def jars(name: str) -> Path:
    """Return the folder with what a pom names, fetched if it is not there."""
    needs("java", "javac", "mvn")
    pom = HERE / "java" / name / "pom.xml"
    fetch = [
        *("mvn", "-B", "-q", f"-Dmaven.repo.local={CACHE / 'maven'}", "-f", str(pom)),
        *("dependency:copy-dependencies", f"-DoutputDirectory={CACHE / f'java-{name}' / 'lib'}"),
    ]
    return prepare(f"java-{name}", [pom], [fetch]) / "lib"


def program(name: str, lib: Path) -> tuple[Path, str]:
    """Return the folder of a compiled program, and its class path."""
    source = next((HERE / "java").rglob(f"{name}.java"))
    beside = sorted(source.parent.glob("*.java"))
    compiling = ["javac", "-nowarn", "-d", ".", "-cp", f"{lib}/*", *map(str, beside)]
    folder = prepare(f"java-{name}", beside, [compiling])
    return folder, f"{folder}:{lib}/*"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["Script", "Further"])
def test_the_java_client_finds_nothing_wrong(broker: BrokerProcess, name: str) -> None:
    folder, classes = program(name, jars("client"))
    addresses = [broker.ports.url, broker.ports.admin_url]
    assert not run([*JVM, "-cp", classes, name, *addresses], folder)


@pytest.mark.timeout(900)
def test_pulsar_admin_finds_nothing_wrong(broker: BrokerProcess) -> None:
    folder, classes = program("AdminCalls", jars("tools"))
    (folder / "client.conf").write_text(
        f"webServiceUrl={broker.ports.admin_url}\nbrokerServiceUrl={broker.ports.url}\n"
    )
    main = "org.apache.pulsar.admin.cli.AdminCalls"
    assert not run([*JVM, "-cp", classes, main, "client.conf"], folder)


@pytest.mark.timeout(900)
def test_pulsar_perf_produces_consumes_reads_and_more(broker: BrokerProcess) -> None:
    folder, classes = program("Perf", jars("tools"))
    url, admin_url = broker.ports.url, broker.ports.admin_url
    sockets = admin_url.replace("http://", "ws://")
    topic = "persistent://public/default/perf"
    failed: list[str] = []
    for command in (
        ["produce", "-u", url, "-r", "20000", "-m", "20000", "-s", "100", topic],
        ["consume", "-u", url, "-m", "20000", "-ss", "sub", "-sp", "Earliest", topic],
        ["read", "-u", url, "-n", "20000", topic],
        ["transaction", "-u", url, "-au", admin_url, "--topics-c", topic,
         "--topics-p", f"{topic}-out", "-ntxn", "50", "-sp", "Earliest", "-ss", "txn"],
        ["websocket-producer", "-u", sockets, "-m", "2000", "-r", "2000", "-s", "100",
         f"{topic}-ws"],
    ):  # fmt: skip
        failed += run([*JVM, "-cp", classes, "Perf", *command], folder, checks=False)
    with Admin(admin_url) as admin:
        stored = {end: admin.stats(topic + end)["msgInCounter"] for end in ("", "-out", "-ws")}
        backlog = admin.stats(topic)["subscriptions"]["sub"]["msgBacklog"]
    assert failed == []
    assert stored[""] >= 20_000
    assert stored["-out"] >= 50
    assert stored["-ws"] == 2_000
    assert backlog < stored[""], "nothing was acknowledged"
