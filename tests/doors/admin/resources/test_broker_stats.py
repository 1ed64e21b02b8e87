"""What the broker carries, of all its processes, in the shapes Pulsar's tools read."""

from typing import Any

import pytest

from magnetar.broker.doors.admin.bundles import Bundles
from magnetar.names import TopicName
from tests.access.conftest import new_guard, token
from tests.doors.admin.processes import Processes

STATS = "/admin/v2/broker-stats"


async def use(processes: Processes) -> list[str]:
    names = [f"persistent://public/default/t{i}" for i in range(12)]
    names += [f"persistent://public/functions/t{i}" for i in range(3)]
    for name in names:
        await processes.owner(name).publish(name, [b"x", b"y"])
    memory = "non-persistent://public/default/n"
    process = processes.owner(memory)
    process.clients.append(await process.producer(memory))
    return [*names, memory]


@pytest.mark.parametrize("word", ["topics", "destinations"])
async def test_topics_in_use_are_shown_by_namespace_bundle_and_domain(
    ask: Any, any_number: Processes, word: str
) -> None:
    assert (await ask(any_number.front, "GET", f"{STATS}/{word}")).json == {}
    names = await use(any_number)
    shown = (await ask(any_number.front, "GET", f"{STATS}/{word}")).json
    found = {
        topic: (namespace, bundle, domain, figures)
        for namespace, bundles in shown.items()
        for bundle, domains in bundles.items()
        for domain, topics in domains.items()
        for topic, figures in topics.items()
    }
    assert sorted(found) == sorted(names)
    for name, (namespace, bundle, domain, figures) in found.items():
        topic = TopicName.parse(name)
        assert (namespace, domain) == (str(topic.namespace_name), topic.domain.value)
        assert bundle == Bundles.equal(4).of_topic(topic)
        assert figures["producerCount"] == len(figures["publishers"])
        if topic.persistent:
            assert figures["msgInCount"] == figures["msgInCounter"] == 2


async def test_with_log_in_the_topics_of_all_processes_are_shown_and_no_refusal_among_them(
    ask: Any, two: Processes
) -> None:
    names = await use(two)
    guard = new_guard(two.store)
    await guard.access.start()
    for process in two.all:
        object.__setattr__(process.context, "access", guard.access)
    headers = {"authorization": f"Bearer {token('root')}"}
    shown = (await ask(two.front, "GET", f"{STATS}/topics", headers=headers)).json
    found = [
        topic
        for bundles in shown.values()
        for domains in bundles.values()
        for topics in domains.values()
        for topic in topics
    ]
    assert sorted(found) == sorted(names)
    stranger = {"authorization": f"Bearer {token('nobody')}"}
    assert (await ask(two.front, "GET", f"{STATS}/topics", headers=stranger)).status == 403
    await guard.access.stop()


async def test_the_load_of_all_processes_is_added_up(ask: Any, any_number: Processes) -> None:
    names = await use(any_number)
    report = (await ask(any_number.front, "GET", f"{STATS}/load-report")).json
    assert (report["numTopics"], report["numProducers"]) == (len(names), 1)
    assert report["numBundles"] == len(report["bundles"]) > 2
    assert report["webServiceUrl"] == "http://localhost:8080"
    assert report["memory"]["usage"] > 1


async def test_bundles_in_use_are_owned_by_this_broker(ask: Any, any_number: Processes) -> None:
    await use(any_number)
    path = "/admin/v2/brokers/standalone/localhost:8080/ownedNamespaces"
    owned = (await ask(any_number.front, "GET", path)).json
    report = (await ask(any_number.front, "GET", f"{STATS}/load-report")).json
    assert sorted(owned) == report["bundles"]
    assert all(each["is_active"] for each in owned.values())
    for cluster, broker in (("west", "localhost:8080"), ("standalone", "elsewhere:1")):
        path = f"/admin/v2/brokers/{cluster}/{broker}/ownedNamespaces"
        assert (await ask(any_number.front, "GET", path)).status == 404


@pytest.mark.parametrize("word", ["metrics", "mbeans"])
async def test_every_process_says_its_figures(ask: Any, any_number: Processes, word: str) -> None:
    shown = (await ask(any_number.front, "GET", f"{STATS}/{word}")).json
    assert {each["dimensions"]["worker"] for each in shown} == {
        str(i) for i in range(len(any_number.all))
    }
    assert all(each["metrics"] for each in shown)


async def test_how_long_things_took_is_that_of_all_processes_together(
    ask: Any, any_number: Processes
) -> None:
    for number, process in enumerate(any_number.all):
        latencies = process.context.metrics.latencies("magnetar_x_seconds", "X.")
        latencies.record(0.001, 60)
        latencies.record(1.0 + number, 40)
    shown = (await ask(any_number.front, "GET", f"{STATS}/latencies")).json["magnetar_x_seconds"]
    assert shown["count"] == 100 * len(any_number.all)
    assert shown["p50"] == pytest.approx(0.001, rel=0.05)
    assert shown["p99"] == shown["max"] == pytest.approx(len(any_number.all), rel=0.05)


async def test_what_only_netty_and_bookkeeper_have_is_answered_as_empty(
    ask: Any, one: Processes
) -> None:
    for name in ("default", "ml-cache"):
        shown = (await ask(one.front, "GET", f"{STATS}/allocator-stats/{name}")).json
        assert shown["usedHeapMemory"] == 0
    assert (await ask(one.front, "GET", f"{STATS}/allocator-stats/other")).status == 406
    assert (await ask(one.front, "GET", f"{STATS}/bookieops")).json == {}
    path = f"{STATS}/broker-resource-availability/public/default"
    assert (await ask(one.front, "GET", path)).status == 409


async def test_quotas_are_checked_when_somebody_asks_for_it(
    ask: Any, any_number: Processes
) -> None:
    await use(any_number)
    path = "/admin/v2/brokers/backlog-quota-check"
    assert (await ask(any_number.front, "GET", path)).status == 204
