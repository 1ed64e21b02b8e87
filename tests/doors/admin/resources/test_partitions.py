"""Partitioned topics through admin REST: one topic outside, several inside."""

from typing import Any

import pytest

from tests.doors.admin.processes import Processes

A = "/admin/v2"
T = f"{A}/persistent/public/default/orders"


NO_NUMBERS: list[Any] = [2**40, "three", b"", [], 1.5, {}]


@pytest.mark.parametrize("body", [4, "4", {"partitions": 4, "properties": {"a": "b"}}])
async def test_a_partitioned_topic_is_created_listed_and_deleted(
    ask: Any, any_number: Processes, body: object
) -> None:
    front = any_number.front
    assert (await ask(front, "PUT", f"{T}/partitions", body)).status == 204
    shown = (await ask(front, "GET", f"{T}/partitions")).json
    properties = body["properties"] if isinstance(body, dict) else {}
    assert shown == {"partitions": 4, "deleted": False, "properties": properties}
    base = "persistent://public/default/orders"
    listed = (await ask(front, "GET", f"{A}/persistent/public/default/partitioned")).json
    assert listed == [base]
    names = (await ask(front, "GET", f"{A}/persistent/public/default")).json
    assert names == [f"{base}-partition-{i}" for i in range(4)]
    assert (await ask(front, "DELETE", f"{T}/partitions")).status == 204
    assert (await ask(front, "GET", f"{A}/persistent/public/default")).json == []
    assert (await ask(front, "GET", f"{T}/partitions")).status == 404


async def test_a_non_persistent_topic_can_be_partitioned_too(
    ask: Any, any_number: Processes
) -> None:
    path = f"{A}/non-persistent/public/default/orders"
    front = any_number.front
    assert (await ask(front, "PUT", f"{path}/partitions", 3)).status == 204
    assert (await ask(front, "GET", f"{path}/partitions")).json["partitions"] == 3
    name = "non-persistent://public/default/orders-partition-1"
    await any_number.owner(name).consumer(name, "s")
    assert (await ask(front, "DELETE", f"{path}/partitions?force=true")).status == 204
    assert (await ask(front, "GET", f"{A}/non-persistent/public/default/partitioned")).json == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (0, 406),
        (-1, 406),
        (10_001, 406),
        ({"partitions": 0}, 406),
        *((body, 400) for body in NO_NUMBERS),
    ],
)
async def test_a_number_of_partitions_that_cannot_be_is_refused(
    ask: Any, one: Processes, body: object, status: int
) -> None:
    assert (await ask(one.front, "PUT", f"{T}/partitions", body)).status == status


async def test_a_partition_cannot_be_partitioned_again(ask: Any, one: Processes) -> None:
    assert (await ask(one.front, "PUT", f"{T}-partition-0/partitions", 2)).status == 412


async def test_partitions_only_grow_and_take_their_subscriptions_along(
    ask: Any, any_number: Processes
) -> None:
    front = any_number.front
    await ask(front, "PUT", f"{T}/partitions", 2)
    await ask(front, "PUT", f"{T}/subscription/a%2Fb")
    assert (await ask(front, "POST", f"{T}/partitions", 2)).status == 204
    assert (await ask(front, "POST", f"{T}/partitions", 1)).status == 422
    assert (await ask(front, "POST", f"{T}/partitions", 10_001)).status == 422
    assert (await ask(front, "POST", f"{T}/partitions", 5)).status == 204
    assert (await ask(front, "GET", f"{T}/partitions")).json["partitions"] == 5
    for i in range(5):
        found = (await ask(front, "GET", f"{T}-partition-{i}/subscriptions")).json
        assert found == ["a/b"]


async def test_statistics_of_all_partitions_are_added(ask: Any, any_number: Processes) -> None:
    front = any_number.front
    await ask(front, "PUT", f"{T}/partitions", 3)
    await ask(front, "PUT", f"{T}/subscription/s")
    for i in range(3):
        name = f"orders-partition-{i}"
        await any_number.owner(name).publish(name, [b"x"] * (i + 1))
    shown = (await ask(front, "GET", f"{T}/partitioned-stats?perPartition=true")).json
    assert (shown["msgInCounter"], shown["subscriptions"]["s"]["msgBacklog"]) == (6, 6)
    assert shown["metadata"] == {"partitions": 3, "deleted": False, "properties": {}}
    each = shown["partitions"]
    assert [each[name]["msgInCounter"] for name in sorted(each)] == [1, 2, 3]
    brief = (await ask(front, "GET", f"{T}/partitioned-stats?perPartition=false")).json
    assert (brief["partitions"], brief["msgInCounter"]) == ({}, 6)
    assert (await ask(front, "GET", f"{T}/stats")).json["msgInCounter"] == 6
    internal = (await ask(front, "GET", f"{T}/partitioned-internalStats")).json
    assert sorted(internal["partitions"]) == sorted(each)


async def test_subscriptions_are_those_of_all_partitions(ask: Any, any_number: Processes) -> None:
    front = any_number.front
    await ask(front, "PUT", f"{T}/partitions", 3)
    assert (await ask(front, "PUT", f"{T}/subscription/s", "earliest")).status == 204
    assert (await ask(front, "PUT", f"{T}/subscription/s", "earliest")).status == 409
    assert (await ask(front, "GET", f"{T}/subscriptions")).json == ["s"]
    await ask(front, "PUT", f"{T}-partition-1/subscription/extra")
    assert (await ask(front, "GET", f"{T}/subscriptions")).json == ["extra", "s"]
    for i in range(3):
        name = f"orders-partition-{i}"
        await any_number.owner(name).publish(name, [b"x"] * 4, first_ms=1000)

    async def backlog() -> int:
        shown = (await ask(front, "GET", f"{T}/stats")).json
        return int(shown["subscriptions"]["s"]["msgBacklog"])

    assert await backlog() == 12
    assert (await ask(front, "POST", f"{T}/subscription/s/skip_all")).status == 204
    assert await backlog() == 0
    assert (await ask(front, "POST", f"{T}/subscription/s/resetcursor/1002")).status == 204
    assert await backlog() == 6
    assert (await ask(front, "POST", f"{T}/subscription/s/expireMessages/1")).status == 204
    assert await backlog() == 0
    assert (await ask(front, "DELETE", f"{T}/subscription/s")).status == 204
    assert (await ask(front, "GET", f"{T}/subscriptions")).json == ["extra"]


@pytest.mark.parametrize(
    ("method", "tail", "body"),
    [
        ("GET", "/internalStats", b""),
        ("GET", "/lastMessageId", b""),
        ("GET", "/messageid/0", b""),
        ("GET", "/examinemessage", b""),
        ("GET", "/ledger/0/entry/0", b""),
        ("GET", "/subscription/s/position/1", b""),
        ("POST", "/subscription/s/skip/1", b""),
        ("POST", "/subscription/s/resetcursor", {"ledgerId": 0, "entryId": 0}),
        ("POST", "/terminate", b""),
    ],
)
async def test_a_call_about_one_place_needs_one_partition(
    ask: Any, one: Processes, method: str, tail: str, body: object
) -> None:
    await ask(one.front, "PUT", f"{T}/partitions", 2)
    answer = await ask(one.front, method, T + tail, body)
    assert answer.status == 405
    assert "orders-partition-0" in answer.reason


async def test_all_partitions_are_terminated_by_one_call(ask: Any, any_number: Processes) -> None:
    front = any_number.front
    await ask(front, "PUT", f"{T}/partitions", 2)
    shown = (await ask(front, "POST", f"{T}/terminate/partitions")).json
    assert {index: each["partitionIndex"] for index, each in shown.items()} == {"0": 0, "1": 1}
    with pytest.raises(Exception, match="terminated"):
        await any_number.owner("orders-partition-1").publish("orders-partition-1", [b"x"])


async def test_a_partitioned_topic_in_use_is_deleted_only_by_force(
    ask: Any, any_number: Processes
) -> None:
    front = any_number.front
    await ask(front, "PUT", f"{T}/partitions", 3)
    name = "orders-partition-2"
    events = await any_number.owner(name).consumer(name, "s")
    assert (await ask(front, "DELETE", f"{T}/partitions")).status == 409
    assert (await ask(front, "GET", f"{T}/partitions")).json["partitions"] == 3
    assert (await ask(front, "DELETE", f"{T}/partitions?force=true")).status == 204
    assert events.ended
    assert (await ask(front, "GET", f"{T}/partitions")).status == 404


async def test_clients_that_look_a_topic_up_create_it_as_its_namespace_prescribes(
    ask: Any, one: Processes
) -> None:
    creation = f"{A}/namespaces/public/default/autoTopicCreation"
    query = "/partitions?checkAllowAutoCreation=true"
    assert (await ask(one.front, "GET", f"{T}{query}")).json["partitions"] == 0
    value = {"allowAutoTopicCreation": True, "topicType": "partitioned", "defaultNumPartitions": 3}
    assert (await ask(one.front, "POST", creation, value)).status == 204
    path = f"{A}/persistent/public/default/fresh{query}"
    assert (await ask(one.front, "GET", path)).json["partitions"] == 3
    await ask(one.front, "POST", creation, {"allowAutoTopicCreation": False})
    path = f"{A}/persistent/public/default/other{query}"
    assert (await ask(one.front, "GET", path)).status == 404


async def test_an_owner_that_is_down_fails_the_call_and_says_so(ask: Any, two: Processes) -> None:
    await ask(two.front, "PUT", f"{T}/partitions", 8)
    other = two.all[1 - two.all.index(two.owner("orders"))]
    await other.server.stop()
    answer = await ask(two.front, "GET", f"{T}/partitioned-stats")
    assert answer.status == 503
    assert "does not answer" in answer.reason


async def test_asking_again_for_as_many_partitions_makes_those_that_are_missing(
    ask: Any, any_number: Processes
) -> None:
    front = any_number.front
    await ask(front, "PUT", f"{T}/partitions", 3)
    assert (await ask(front, "DELETE", f"{T}-partition-1")).status == 204
    assert len((await ask(front, "GET", f"{A}/persistent/public/default")).json) == 2
    assert (await ask(front, "POST", f"{T}/partitions", 3)).status == 204
    assert len((await ask(front, "GET", f"{A}/persistent/public/default")).json) == 3


async def test_a_topic_is_told_what_it_is_when_it_is_taken_for_the_other_kind(
    ask: Any, any_number: Processes
) -> None:
    front, plain = any_number.front, f"{A}/persistent/public/default/plain"
    await ask(front, "PUT", f"{T}/partitions", 3)
    await ask(front, "PUT", plain)
    refused = await ask(front, "DELETE", T)
    assert (refused.status, "DELETE .../partitions" in refused.reason) == (409, True)
    for method, body in [("DELETE", b""), ("POST", 5)]:
        refused = await ask(front, method, f"{plain}/partitions", body)
        assert (refused.status, "is not partitioned" in refused.reason) == (409, True)
        missing = f"{A}/persistent/public/default/missing/partitions"
        assert (await ask(front, method, missing, body)).status == 404
