"""Backlogs are counted, and what this broker does not do with stored entries is said clearly."""

from typing import Any

import pytest

from tests.doors.admin.processes import Processes

T = "/admin/v2/persistent/public/default/t"
P = "/admin/v2/persistent/public/default/p"
S = f"{T}/subscription/s"
NAME = "persistent://public/default/t"


@pytest.fixture
async def filled(ask: Any, any_number: Processes) -> Processes:
    """Seven messages, two of them acknowledged; a partitioned topic beside it."""
    owner = any_number.owner(NAME)
    await owner.publish(NAME, [b"%d" % i for i in range(7)])
    assert (await ask(any_number.front, "PUT", S, "earliest")).status == 204
    assert (await ask(any_number.front, "POST", f"{S}/skip/2")).status == 204
    assert (await ask(any_number.front, "PUT", f"{P}/partitions", 3)).status == 204
    assert (await ask(any_number.front, "PUT", f"{P}/subscription/s", "earliest")).status == 204
    return any_number


async def test_a_backlog_is_counted_entry_by_entry(ask: Any, filled: Processes) -> None:
    for method in ("GET", "POST"):
        told = (await ask(filled.front, method, f"{S}/analyzeBacklog")).json
        assert (told["entries"], told["messages"], told["aborted"]) == (5, 5, False)
    everything = {"ledgerId": 2**63 - 1, "entryId": 2**63 - 1}
    told = (await ask(filled.front, "POST", f"{S}/analyzeBacklog", everything)).json
    assert told["entries"] == 0
    assert (await ask(filled.front, "GET", f"{T}/subscription/no/analyzeBacklog")).status == 404
    assert (await ask(filled.front, "GET", f"{P}/subscription/s/analyzeBacklog")).status == 405


async def test_what_is_stored_and_to_be_consumed_is_shown(ask: Any, filled: Processes) -> None:
    told = (await ask(filled.front, "GET", f"{T}/backlog")).json
    assert (told["totalMessages"], told["messageBacklog"]) == (7, 5)
    assert sum(each["entries"] for each in told["dataLedgerDetails"]) == 7
    assert list(told["cursorDetails"]) == ["s"]
    assert (await ask(filled.front, "GET", f"{P}/backlog")).status == 405


async def test_a_subscription_is_not_replicated(ask: Any, filled: Processes) -> None:
    path = f"{S}/replicatedSubscriptionStatus"
    assert (await ask(filled.front, "GET", path)).json == {NAME: False}
    partitioned = f"{P}/subscription/s/replicatedSubscriptionStatus"
    told = (await ask(filled.front, "GET", partitioned)).json
    assert told == {f"persistent://public/default/p-partition-{i}": False for i in range(3)}
    assert (await ask(filled.front, "POST", path, False)).status == 204
    assert (await ask(filled.front, "POST", path, True)).status == 412
    assert (await ask(filled.front, "POST", path, {})).status == 400


async def test_there_is_no_tier_and_there_are_no_shadows(ask: Any, filled: Processes) -> None:
    front = filled.front
    assert (await ask(front, "GET", f"{T}/offload")).json == {"status": "NOT_RUN", "lastError": ""}
    place = {"ledgerId": 1, "entryId": 0}
    assert (await ask(front, "PUT", f"{T}/offload", place)).status == 405
    assert (await ask(front, "GET", f"{T}/shadowTopics")).json == []
    assert (await ask(front, "PUT", f"{T}/shadowTopics", ["persistent://a/b/c"])).status == 412
    assert (await ask(front, "PUT", f"{T}/shadowTopics", [])).status == 204
    assert (await ask(front, "DELETE", f"{T}/shadowTopics")).status == 204
    missing = "/admin/v2/persistent/public/default/no"
    for tail in ("/offload", "/shadowTopics", "/backlog"):
        assert (await ask(front, "GET", missing + tail)).status == 404


async def test_missed_partitions_are_made_anew(ask: Any, filled: Processes) -> None:
    front = filled.front
    assert (await ask(front, "DELETE", f"{P}-partition-1?force=true")).status == 204
    assert len((await ask(front, "GET", "/admin/v2/namespaces/public/default/topics")).json) == 3
    assert (await ask(front, "POST", f"{P}/createMissedPartitions")).status == 204
    assert len((await ask(front, "GET", "/admin/v2/namespaces/public/default/topics")).json) == 4
    assert (await ask(front, "POST", f"{P}/createMissedPartitions")).status == 204
    assert (await ask(front, "POST", f"{T}/createMissedPartitions")).status == 409


async def test_properties_of_a_subscription_are_replaced_for_good(
    ask: Any, filled: Processes
) -> None:
    front = filled.front
    for path in (S, f"{P}/subscription/s"):
        assert (await ask(front, "PUT", f"{path}/properties", {"a": "1", "b": "2"})).status == 204
        assert (await ask(front, "GET", f"{path}/properties")).json == {"a": "1", "b": "2"}
        assert (await ask(front, "PUT", f"{path}/properties", {"a": "3"})).status == 204
    assert (await ask(front, "PUT", f"{T}/unload")).status == 204
    assert (await ask(front, "GET", f"{S}/properties")).json == {"a": "3"}
    shown = (await ask(front, "GET", f"{T}/stats")).json["subscriptions"]["s"]
    assert shown["subscriptionProperties"] == {"a": "3"}
    assert (await ask(front, "PUT", f"{S}/properties", {"a": "x" * 2000})).status == 412
    assert (await ask(front, "PUT", f"{T}/subscription/no/properties", {})).status == 404


async def test_system_topics_are_hidden_and_shown_to_who_asks(ask: Any, one: Processes) -> None:
    front, system = one.front, "/admin/v2/persistent/public/default/__change_events"
    assert (await ask(front, "PUT", system)).status == 204
    assert (await ask(front, "PUT", "/admin/v2/persistent/public/default/__mine")).status == 204
    for path in ("namespaces/public/default/topics", "persistent/public/default"):
        assert (await ask(front, "GET", f"/admin/v2/{path}")).json == [
            "persistent://public/default/__mine"
        ]
        told = (await ask(front, "GET", f"/admin/v2/{path}?includeSystemTopic=true")).json
        assert "persistent://public/default/__change_events" in told
    assert (await ask(front, "DELETE", "/admin/v2/namespaces/public/default")).status == 409
    mine = "/admin/v2/persistent/public/default/__mine"
    assert (await ask(front, "DELETE", mine)).status == 204
    assert (await ask(front, "DELETE", "/admin/v2/namespaces/public/default")).status == 204


async def test_a_topic_that_is_missing_cannot_be_unloaded(ask: Any, any_number: Processes) -> None:
    for domain in ("persistent", "non-persistent"):
        path = f"/admin/v2/{domain}/public/default/no/unload"
        assert (await ask(any_number.front, "PUT", path)).status == 404
    namespace = "/admin/v2/persistent/public/nothing/t/unload"
    assert (await ask(any_number.front, "PUT", namespace)).reason == ("Namespace does not exist")


async def test_a_topic_in_memory_has_no_ledgers_but_names_of_subscriptions(
    ask: Any, any_number: Processes
) -> None:
    name = "non-persistent://public/default/n"
    process = any_number.owner(name)
    process.clients.append(await process.producer(name))
    path = "/admin/v2/non-persistent/public/default/n"
    assert (await ask(any_number.front, "PUT", f"{path}/subscription/s")).status == 204
    told = (await ask(any_number.front, "GET", f"{path}/internalStats")).json
    assert (told["ledgers"], told["cursors"]) == ([], {"s": {}})
    assert (await ask(any_number.front, "PUT", f"{path}/unload")).status == 204
