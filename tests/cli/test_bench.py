"""`magnetar bench` against a broker, and what it refuses."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from magnetar.cli.demo.broker import BrokerProcess, free_ports
from magnetar.client.admin import Admin
from tests.doors.papers import Papers


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """A broker of two processes: topics are served by either."""
    process = BrokerProcess(tmp_path_factory.mktemp("bench"), free_ports(2), workers=2)
    try:
        process.start()
        yield process
    finally:
        process.discard()


def told(run: Any, served: BrokerProcess, *arguments: str) -> dict[str, Any]:
    ended = run("bench", *arguments, "--url", served.ports.url, "-o", "json")
    assert (ended.code, ended.err) == (0, "")
    found: dict[str, Any] = json.loads(ended.out)
    return found


def test_publishing_tells_rate_cost_and_conditions_and_leaves_no_topic(
    run: Any, served: BrokerProcess
) -> None:
    found = told(run, served, "publish", "--seconds", "0.3", "--warm-up", "0.1", "--topics", "3")
    assert found["messages"] > 0
    assert found["messages_per_s"] > 0
    assert (found["size_bytes"], found["batch"], found["connections"]) == (1024, 1, 1)
    assert 0 < found["p50_ms"] <= found["p99_ms"] <= found["p999_ms"] <= found["max_ms"]
    assert found["server_pid"] == served.pid
    assert found["server_cpu_us"] > 0
    with Admin(served.ports.admin_url) as admin:
        assert not [each for each in admin.topics("public/default") if "bench" in each]


def test_everything_that_was_published_is_consumed(run: Any, served: BrokerProcess) -> None:
    found = told(run, served, "consume", "--messages", "3000", "--batch", "10", "--topics", "4")
    assert found["messages"] == 3000


def test_fan_out_counts_every_delivery(run: Any, served: BrokerProcess) -> None:
    found = told(run, served, "fan-out", "--messages", "500", "--subscriptions", "3")
    assert found["messages"] == 1500
    assert found["subscriptions"] == 3


def test_latency_keeps_to_its_rate(run: Any, served: BrokerProcess) -> None:
    found = told(run, served, "latency", "--rate", "100", "--seconds", "0.5", "--warm-up", "0.1")
    assert sum(count for _, count in found["times_ms"]) == 50
    assert found["messages_per_s"] < 110


def test_many_topics_are_compared_with_one(run: Any, served: BrokerProcess) -> None:
    found = told(run, served, "topics", "--topics", "40", "--seconds", "0.2", "--warm-up", "0")
    assert found["throughput_ratio"] == pytest.approx(
        found["many"]["messages_per_s"] / found["one"]["messages_per_s"]
    )
    assert (found["one"]["topics"], found["many"]["topics"]) == (1, 40)


def test_people_are_told_the_same_in_words(run: Any, served: BrokerProcess) -> None:
    ended = run("bench", "publish", "--seconds", "0.2", "--url", served.ports.url)
    assert ended.code == 0
    for word in ("messages/s", "to receipt", "generator CPU", "server CPU", "1,024 B"):
        assert word in ended.out


def test_where_nobody_listens_it_says_so_at_once(run: Any) -> None:
    ended = run("bench", "publish", "--url", "pulsar://127.0.0.1:1")
    assert ended.code == 4
    assert "no broker answers at 127.0.0.1:1" in ended.err
    assert "magnetar standalone" in ended.err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("publish", "--size", "0"), "--size"),
        (("publish", "--size", "1048576", "--batch", "6"), "brokers take"),
        (("consume", "--messages", "5", "--topics", "10"), "do not fill one entry"),
        (("fan-out", "--acknowledge", "cumulative"), "cumulatively"),
        (("latency", "--rate", "0"), "--rate"),
        (("topics", "--topics", "1"), "--topics"),
        (("publish", "--seconds", "nan"), "--seconds"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_dialled(
    run: Any, arguments: tuple[str, ...], reason: str
) -> None:
    ended = run("bench", *arguments, "--url", "pulsar://127.0.0.1:1")
    assert ended.code == 2
    assert reason in ended.err


def test_an_address_or_a_namespace_that_is_none_is_refused(run: Any) -> None:
    assert run("bench", "publish", "--url", "http://localhost").code == 2
    assert run("bench", "publish", "--namespace", "a/b/c").code == 2


def test_a_namespace_that_is_not_there_is_named(run: Any, served: BrokerProcess) -> None:
    ended = run("bench", "publish", "--namespace", "no/where", "--url", served.ports.url)
    assert ended.code == 1
    assert "no/where" in ended.err


def test_over_tls_everything_comes_too(run: Any, tmp_path: Path) -> None:
    papers = Papers(tmp_path / "papers")
    files = papers.server(clients=papers.ca)
    process = BrokerProcess(tmp_path, free_ports(1))
    process._command += ["--tls-certificate", str(files.certificate), "--tls-key", str(files.key)]
    try:
        process.start()
        url = f"pulsar+ssl://localhost:{6651 + process.ports.offset}"
        secure = ("--url", url, "--admin-url", process.ports.admin_url, "-o", "json")
        ended = run(
            *("bench", "consume", "--messages", "300", "--size", "50000"),
            *("--tls-trust-certs", str(papers.ca), *secure),
        )
        assert ended.code == 0, ended.err
        assert json.loads(ended.out)["messages"] == 300
        ended = run("bench", "publish", *secure)
        assert ended.code == 4
        assert "is not trusted" in json.loads(ended.err)["error"]
    finally:
        process.discard()
