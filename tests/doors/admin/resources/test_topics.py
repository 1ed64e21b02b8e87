"""Topics through admin REST, on real topics and through the public port."""

from itertools import pairwise
from typing import Any

import pytest

from magnetar.broker.port import ListMode
from magnetar.names import NamespaceName, TopicName
from tests.doors.admin.processes import Processes

A = "/admin/v2"
T = f"{A}/persistent/public/default/orders"
NAME = "persistent://public/default/orders"


@pytest.mark.parametrize("domain", ["persistent", "non-persistent"])
async def test_a_topic_is_created_listed_and_deleted(
    ask: Any, any_number: Processes, domain: str
) -> None:
    front, path = any_number.front, f"{A}/{domain}/public/default/%C3%BC%3F"
    assert (await ask(front, "PUT", path)).status == 204
    names = [f"{domain}://public/default/ü?"]
    assert (await ask(front, "GET", f"{A}/{domain}/public/default")).json == names
    assert (await ask(front, "GET", f"{A}/namespaces/public/default/topics?mode=ALL")).json == names
    assert (await ask(front, "GET", f"{path}/stats")).status == 200
    assert (await ask(front, "GET", f"{path}/partitions")).json["partitions"] == 0
    assert (await ask(front, "DELETE", path)).status == 204
    assert (await ask(front, "GET", f"{A}/{domain}/public/default")).json == []


async def test_topics_named_like_calls_are_topics(ask: Any, any_number: Processes) -> None:
    for namespace in ("public/default", "public/functions"):  # with two processes, both own some
        for name in ("partitioned", "stats", "partitions"):
            path = f"{A}/persistent/{namespace}/{name}"
            assert (await ask(any_number.front, "PUT", path)).status == 204
            assert (await ask(any_number.front, "GET", f"{path}/stats")).status == 200
            assert (await ask(any_number.front, "DELETE", path)).status == 204


async def test_every_process_lists_the_non_persistent_topics_of_all(
    ask: Any, two: Processes
) -> None:
    names = [f"non-persistent://public/default/t{i}" for i in range(6)]
    for name in names:
        await two.owner(name).consumer(name, "s")
    owners = {id(two.owner(name)) for name in names}
    assert len(owners) == 2
    namespace = NamespaceName("public", "default")
    for process in two.all:
        assert await process.catalog.topics(namespace, ListMode.NON_PERSISTENT) == names
        assert await process.catalog.partitions(TopicName.parse(names[0]), create=False) == 0
    assert (await ask(two.front, "GET", f"{A}/non-persistent/public/default")).json == names


async def test_a_topic_that_exists_cannot_be_created(ask: Any, one: Processes) -> None:
    await ask(one.front, "PUT", T)
    assert (await ask(one.front, "PUT", T)).status == 409
    assert (await ask(one.front, "PUT", f"{T}/partitions", 2)).status == 409


@pytest.mark.parametrize(
    ("method", "tail"),
    [
        ("DELETE", ""),
        ("GET", "/stats"),
        ("GET", "/internalStats"),
        ("GET", "/internal-info"),
        ("GET", "/partitions"),
        ("GET", "/partitioned-stats"),
        ("DELETE", "/partitions"),
        ("POST", "/partitions"),
        ("GET", "/properties"),
        ("PUT", "/properties"),
        ("GET", "/subscriptions"),
        ("DELETE", "/subscription/s"),
        ("POST", "/subscription/s/skip/1"),
        ("POST", "/subscription/s/skip_all"),
        ("POST", "/subscription/s/expireMessages/1"),
        ("POST", "/subscription/s/resetcursor/1"),
        ("GET", "/subscription/s/position/1"),
        ("GET", "/examinemessage"),
        ("GET", "/ledger/0/entry/0"),
        ("GET", "/lastMessageId"),
        ("GET", "/messageid/1"),
        ("POST", "/terminate"),
        ("GET", "/deduplicationEnabled"),
        ("GET", "/retention"),
    ],
)
async def test_a_topic_that_is_missing_is_said_to_be(
    ask: Any, one: Processes, method: str, tail: str
) -> None:
    body: Any = {"/partitions": 3, "/properties": {}}.get(tail, b"") if method != "GET" else b""
    answer = await ask(one.front, method, T + tail, body)
    assert answer.status == 404
    assert "orders" in answer.reason


async def test_a_topic_of_no_namespace_is_not_created(ask: Any, one: Processes) -> None:
    answer = await ask(one.front, "PUT", f"{A}/persistent/public/nothing/orders")
    assert (answer.status, answer.reason) == (404, "Namespace does not exist")


@pytest.mark.parametrize("name", ["a%2Fb", "%00", "a%0Ab", "a" * 1025, "%7F"])
async def test_a_name_that_no_topic_can_have_is_refused(
    ask: Any, one: Processes, name: str
) -> None:
    for method, tail in (("PUT", ""), ("GET", "/stats"), ("DELETE", "")):
        answer = await ask(one.front, method, f"{A}/persistent/public/default/{name}{tail}")
        assert answer.status == 412


@pytest.mark.parametrize("name", ["..", ".", "%2e%2e", "a b%20c", "K%E2%84%AA", "partitioned%2D1"])
async def test_an_odd_name_is_a_name_like_any_other(ask: Any, one: Processes, name: str) -> None:
    path = f"{A}/persistent/public/default/{name.replace(' ', '%20')}"
    assert (await ask(one.front, "PUT", path)).status == 204
    assert (await ask(one.front, "GET", f"{path}/stats")).status == 200
    assert (await ask(one.front, "DELETE", path)).status == 204


async def test_two_names_that_only_look_alike_are_two_topics(ask: Any, one: Processes) -> None:
    kelvin, letter = "%E2%84%AA", "K"
    for name in (kelvin, letter):
        assert (await ask(one.front, "PUT", f"{A}/persistent/public/default/{name}")).status == 204


async def test_a_topic_in_use_is_deleted_only_by_force(ask: Any, one: Processes) -> None:
    await ask(one.front, "PUT", T)
    events = await one.owner("orders").consumer("orders", "s")
    answer = await ask(one.front, "DELETE", T)
    assert answer.status == 409
    assert "1 consumers" in answer.reason
    assert not events.ended
    assert (await ask(one.front, "DELETE", f"{T}?force=true")).status == 204
    assert events.ended


async def test_stats_are_of_this_moment_and_under_pulsars_names(
    ask: Any, any_number: Processes
) -> None:
    process = any_number.owner("orders")
    await ask(any_number.front, "PUT", f"{T}/subscription/s")
    await process.publish("orders", [b"one", b"two"])
    events = await process.consumer("orders", "s")
    shown = (await ask(any_number.front, "GET", f"{T}/stats")).json
    assert (shown["msgInCounter"], shown["bytesInCounter"] > 6) == (2, True)
    assert shown["ownerBroker"] == "localhost:8080"
    assert shown["subscriptions"]["s"]["msgBacklog"] == 2
    assert shown["subscriptions"]["s"]["consumers"][0]["consumerName"] == "c"
    assert not events.ended
    assert shown["subscriptions"]["s"]["earliestMsgPublishTimeInBacklog"] == 0
    asked = f"{T}/stats?getEarliestTimeInBacklog=true"
    shown = (await ask(any_number.front, "GET", asked)).json
    assert shown["subscriptions"]["s"]["earliestMsgPublishTimeInBacklog"] == 1000


async def test_stats_may_leave_out_who_publishes_and_consumes(
    ask: Any, any_number: Processes
) -> None:
    process = any_number.owner("orders")
    await ask(any_number.front, "PUT", f"{T}/subscription/s")
    await process.producer("orders")
    await process.consumer("orders", "s")
    for query, shown in [("", (1, 1)), ("?excludePublishers=true", (0, 1))]:
        found = (await ask(any_number.front, "GET", f"{T}/stats{query}")).json
        consumers = found["subscriptions"]["s"]["consumers"]
        assert (len(found["publishers"]), len(consumers)) == shown
    found = (await ask(any_number.front, "GET", f"{T}/stats?excludeConsumers=true")).json
    assert (len(found["publishers"]), found["subscriptions"]["s"]["consumers"]) == (1, [])
    assert found["subscriptions"]["s"]["type"] == "Exclusive"


async def test_internal_stats_show_ledgers_and_cursors(ask: Any, one: Processes) -> None:
    await ask(one.front, "PUT", f"{T}/subscription/s")
    await one.owner("orders").publish("orders", [b"x"] * 12)
    shown = (await ask(one.front, "GET", f"{T}/internalStats")).json
    assert shown["numberOfEntries"] == 12
    assert len(shown["ledgers"]) >= 2
    assert "markDeletePosition" in shown["cursors"]["s"]
    info = (await ask(one.front, "GET", f"{T}/internal-info")).json
    assert [each["ledgerId"] for each in info["ledgers"]] == [
        each["ledgerId"] for each in shown["ledgers"]
    ]


async def test_the_last_entry_and_the_first_after_a_time_are_found(
    ask: Any, one: Processes
) -> None:
    await ask(one.front, "PUT", T)
    empty = (await ask(one.front, "GET", f"{T}/lastMessageId")).json
    assert empty == {"ledgerId": -1, "entryId": -1, "partitionIndex": -1}
    await one.owner("orders").publish("orders", [b"%d" % i for i in range(12)], first_ms=1000)
    last = (await ask(one.front, "GET", f"{T}/lastMessageId")).json
    for time_ms, expected in ((0, b"0"), (1003, b"3"), (1011, b"11"), (9999, b"11")):
        at = (await ask(one.front, "GET", f"{T}/messageid/{time_ms}")).json
        entry = await ask(one.front, "GET", f"{T}/ledger/{at['ledgerId']}/entry/{at['entryId']}")
        assert entry.body == expected
    assert at == last
    body = (await ask(one.front, "PUT", f"{T}/backlogSize", last)).json
    assert body == 0


async def test_a_terminated_topic_can_be_read_and_takes_nothing_more(
    ask: Any, one: Processes
) -> None:
    process = one.owner("orders")
    await ask(one.front, "PUT", T)
    await process.publish("orders", [b"one"])
    last = (await ask(one.front, "POST", f"{T}/terminate")).json
    assert last == (await ask(one.front, "GET", f"{T}/lastMessageId")).json
    assert (await ask(one.front, "POST", f"{T}/terminate")).json == last
    with pytest.raises(Exception, match="terminated"):
        await process.publish("orders", [b"two"])


async def test_an_unloaded_topic_sends_its_clients_away_and_comes_back(
    ask: Any, one: Processes
) -> None:
    process = one.owner("orders")
    await process.publish("orders", [b"one"])
    events = await process.consumer("orders", "s")
    assert (await ask(one.front, "PUT", f"{T}/unload")).status == 204
    assert events.ended
    shown = (await ask(one.front, "GET", f"{T}/stats")).json
    assert shown["storageSize"] > 0


async def test_properties_of_a_topic_are_added_shown_and_removed(ask: Any, one: Processes) -> None:
    await ask(one.front, "PUT", T, {"a": "1"})
    assert (await ask(one.front, "PUT", f"{T}/properties", {"b": "2"})).status == 204
    assert (await ask(one.front, "GET", f"{T}/properties")).json == {"a": "1", "b": "2"}
    assert (await ask(one.front, "DELETE", f"{T}/properties?key=a")).status == 204
    assert (await ask(one.front, "GET", f"{T}/properties")).json == {"b": "2"}


async def test_deduplication_of_one_topic_follows_the_switch(ask: Any, one: Processes) -> None:
    await one.owner("orders").publish("orders", [b"x"])
    path = f"{T}/deduplicationEnabled"
    assert (await ask(one.front, "GET", path)).status == 204
    assert (await ask(one.front, "POST", path, True)).status == 204
    assert (await ask(one.front, "GET", path)).json is True
    assert (await ask(one.front, "POST", path, "yes")).status == 400
    assert (await ask(one.front, "DELETE", path)).status == 204
    assert (await ask(one.front, "GET", path)).status == 204


async def test_a_lookup_says_who_serves_a_topic(ask: Any, two: Processes) -> None:
    urls = set()
    for i in range(10):
        path = f"/lookup/v2/topic/persistent/public/default/t{i}"
        found = (await ask(two.front, "GET", path)).json
        assert set(found) >= {"brokerUrl", "brokerUrlTls", "httpUrl", "httpUrlTls", "nativeUrl"}
        urls.add(found["brokerUrl"])
    assert urls == {"pulsar://localhost:6660", "pulsar://localhost:6661"}


async def test_a_lookup_that_cannot_be_answered_is_refused(ask: Any, one: Processes) -> None:
    missing = await ask(one.front, "GET", "/lookup/v2/topic/persistent/nobody/x/y")
    assert missing.status == 404
    path = "/lookup/v2/topic/persistent/public/default/t?listenerName=moon"
    assert (await ask(one.front, "GET", path)).status == 405
    path = "/lookup/v2/topic/persistent/public/default/t"
    answer = await ask(one.front, "GET", path, headers={"X-Pulsar-ListenerName": "moon"})
    assert answer.status == 405


async def test_a_namespace_is_emptied_unloaded_and_deleted_on_all_processes(
    ask: Any, two: Processes
) -> None:
    ns = f"{A}/namespaces/public/default"
    for i in range(6):
        await ask(two.front, "PUT", f"{A}/persistent/public/default/t{i}/subscription/s")
        await two.owner(f"t{i}").publish(f"t{i}", [b"x"])
        await two.owner(f"t{i}").consumer(f"non-persistent://public/default/t{i}", "s") if (
            two.owner(f"t{i}") is two.owner(f"non-persistent://public/default/t{i}")
        ) else None
    await ask(two.front, "PUT", f"{A}/persistent/public/default/parted/partitions", 3)

    async def backlogs() -> list[int]:
        paths = [f"{A}/persistent/public/default/t{i}/stats" for i in range(6)]
        shown = [(await ask(two.front, "GET", path)).json for path in paths]
        return [each["subscriptions"].get("s", {}).get("msgBacklog", -1) for each in shown]

    assert await backlogs() == [1] * 6
    assert (await ask(two.front, "POST", f"{ns}/clearBacklog/other")).status == 204
    assert await backlogs() == [1] * 6
    assert (await ask(two.front, "POST", f"{ns}/clearBacklog/s")).status == 204
    assert await backlogs() == [0] * 6
    assert (await ask(two.front, "PUT", f"{ns}/unload")).status == 204
    assert not any(list(each.catalog.loaded()) for each in two.all)
    assert (await ask(two.front, "POST", f"{ns}/unsubscribe/s")).status == 204
    assert await backlogs() == [-1] * 6
    assert (await ask(two.front, "DELETE", ns)).status == 409
    assert (await ask(two.front, "DELETE", f"{ns}?force=true")).status == 204
    assert (await ask(two.front, "GET", ns)).status == 404


async def test_a_bundle_is_a_part_of_its_namespace(ask: Any, one: Processes) -> None:
    ns = f"{A}/namespaces/public/default"
    for i in range(12):
        await ask(one.front, "PUT", f"{A}/persistent/public/default/t{i}/subscription/s")
    borders = (await ask(one.front, "GET", f"{ns}/bundles")).json["boundaries"]
    left = len(list(one.all[0].catalog.loaded()))
    for low, high in pairwise(borders):
        assert (await ask(one.front, "PUT", f"{ns}/{low}_{high}/unload")).status == 204
        now = len(list(one.all[0].catalog.loaded()))
        assert now < left
        left = now
    assert left == 0
    assert (await ask(one.front, "PUT", f"{ns}/0x0_0x1/unload")).status == 412
