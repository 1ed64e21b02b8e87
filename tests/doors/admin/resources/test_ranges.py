"""Bundles of a namespace are split, emptied, and show where topics lie."""

from typing import Any

import pytest

from magnetar.broker.doors.admin.bundles import Bundles, position
from magnetar.names import TopicName
from tests.doors.admin.processes import Processes

NS = "/admin/v2/namespaces/public/default"
FIRST = "0x00000000_0x40000000"


async def filled(processes: Processes, count: int = 24) -> list[str]:
    names = [f"persistent://public/default/t{i}" for i in range(count)]
    for name in names:
        await processes.owner(name).publish(name, [b"x"])
    return names


@pytest.mark.parametrize(
    ("query", "body", "borders"),
    [
        ("", b"", 5),
        ("?splitAlgorithmName=range_equally_divide&unload=true", b"", 5),
        ("?splitAlgorithmName=topic_count_equally_divide", b"", 5),
        ("?splitAlgorithmName=specified_positions_divide", [0x1000, 0x2000], 6),
    ],
)
async def test_a_bundle_is_split(
    ask: Any, any_number: Processes, query: str, body: Any, borders: int
) -> None:
    await filled(any_number)
    answer = await ask(any_number.front, "PUT", f"{NS}/{FIRST}/split{query}", body)
    assert answer.status == 204
    shown = (await ask(any_number.front, "GET", f"{NS}/bundles")).json
    assert shown["numBundles"] == len(shown["boundaries"]) - 1 == borders
    assert (await ask(any_number.front, "GET", NS)).json["bundles"] == shown
    topic = "persistent://public/default/t1"
    path = "/lookup/v2/topic/persistent/public/default/t1/bundle"
    found = (await ask(any_number.front, "GET", path)).body.decode()
    assert found == Bundles.of(shown).of_topic(TopicName.parse(topic))


async def test_the_largest_bundle_is_found_and_halved_by_its_topics(
    ask: Any, one: Processes
) -> None:
    names = await filled(one)
    path = f"{NS}/LARGEST/split?splitAlgorithmName=topic_count_equally_divide"
    assert (await ask(one.front, "PUT", path)).status == 204
    before = Bundles.equal(4)
    counts = {
        name: sum(before.of_topic(TopicName.parse(each)) == name for each in names)
        for name in before.names
    }
    largest = max(counts.values())
    after = Bundles.of((await ask(one.front, "GET", f"{NS}/bundles")).json)
    halves = sorted(
        sum(after.of_topic(TopicName.parse(each)) == name for each in names)
        for name in after.names
        if name not in before.names
    )
    assert halves == [largest // 2, largest - largest // 2]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (f"{FIRST}/split?splitAlgorithmName=magic", b""),
        ("0x00000000_0x00000001/split", b""),
        (f"{FIRST}/split?splitAlgorithmName=specified_positions_divide", [0]),
        (f"{FIRST}/split?splitAlgorithmName=specified_positions_divide", b""),
    ],
)
async def test_a_split_that_makes_no_sense_is_refused(
    ask: Any, one: Processes, path: str, body: Any
) -> None:
    assert (await ask(one.front, "PUT", f"{NS}/{path}", body)).status == 412
    assert (await ask(one.front, "GET", f"{NS}/bundles")).json["numBundles"] == 4


async def test_a_bundle_with_topics_is_only_emptied_by_force(
    ask: Any, any_number: Processes
) -> None:
    names = await filled(any_number)
    inside = {n for n in names if Bundles.equal(4).of_topic(TopicName.parse(n)) == FIRST}
    assert inside
    assert (await ask(any_number.front, "DELETE", f"{NS}/{FIRST}")).status == 409
    assert (await ask(any_number.front, "DELETE", f"{NS}/{FIRST}?force=true")).status == 204
    left = (await ask(any_number.front, "GET", f"{NS}/topics")).json
    assert set(left) == set(names) - inside
    assert (await ask(any_number.front, "DELETE", f"{NS}/{FIRST}")).status == 204


async def test_the_places_of_topics_are_shown(ask: Any, any_number: Processes) -> None:
    names = await filled(any_number)
    shown = (await ask(any_number.front, "GET", f"{NS}/{FIRST}/topicHashPositions")).json
    assert shown["bundle"] == FIRST
    assert shown["topicHashPositions"] == {
        name: position(TopicName.parse(name))
        for name in names
        if Bundles.equal(4).of_topic(TopicName.parse(name)) == FIRST
    }
    (wanted, *_) = shown["topicHashPositions"]
    path = f"{NS}/{FIRST}/topicHashPositions?topics={wanted}"
    assert list((await ask(any_number.front, "GET", path)).json["topicHashPositions"]) == [wanted]


async def test_the_topics_of_one_bundle_are_listed(ask: Any, any_number: Processes) -> None:
    names = await filled(any_number)
    inside = sorted(n for n in names if Bundles.equal(4).of_topic(TopicName.parse(n)) == FIRST)
    for path in (f"persistent/public/default?bundle={FIRST}", f"persistent/public/default/{FIRST}"):
        assert (await ask(any_number.front, "GET", f"/admin/v2/{path}")).json == inside
    path = f"/admin/v2/non-persistent/public/default/{FIRST}"
    assert (await ask(any_number.front, "GET", path)).json == []


async def test_namespaces_that_should_be_apart_are_listed_by_group(
    ask: Any, one: Processes
) -> None:
    front, group = one.front, "/admin/v2/namespaces/standalone/antiAffinity/apart"
    assert (await ask(front, "GET", group)).json == []
    assert (await ask(front, "POST", f"{NS}/antiAffinity", "apart")).status == 204
    assert (await ask(front, "GET", group)).json == ["public/default"]
    assert (await ask(front, "GET", f"{group}?tenant=pulsar")).json == []
    assert (await ask(front, "GET", group.replace("standalone", "west"))).status == 404


async def test_a_namespace_is_allowed_on_clusters_that_there_are(ask: Any, one: Processes) -> None:
    front, path = one.front, f"{NS}/allowedClusters"
    assert (await ask(front, "GET", path)).json == []
    assert (await ask(front, "POST", path, ["standalone", "west"])).status == 412
    west = {"serviceUrl": "http://west:8080"}
    assert (await ask(front, "PUT", "/admin/v2/clusters/west", west)).status == 204
    assert (await ask(front, "POST", path, ["west"])).status == 400
    assert (await ask(front, "POST", path, ["standalone", "west"])).status == 204
    assert (await ask(front, "GET", path)).json == ["standalone", "west"]
    assert (await ask(front, "POST", path, [])).status == 204
    assert (await ask(front, "GET", path)).json == []
