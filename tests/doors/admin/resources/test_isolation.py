"""Peers, failure domains and isolation policies of clusters are kept and shown."""

from typing import Any

import pytest

from tests.doors.admin.processes import Processes

A = "/admin/v2/clusters"
HERE = f"{A}/standalone"


async def test_peers_are_kept_and_must_be_other_clusters(ask: Any, one: Processes) -> None:
    west = {"serviceUrl": "http://west:8080"}
    assert (await ask(one.front, "PUT", f"{A}/west", west)).status == 204
    assert (await ask(one.front, "GET", f"{HERE}/peers")).json == []
    assert (await ask(one.front, "POST", f"{HERE}/peers", ["west", "west"])).status == 204
    assert (await ask(one.front, "GET", f"{HERE}/peers")).json == ["west"]
    assert (await ask(one.front, "GET", HERE)).json["peerClusterNames"] == ["west"]
    for bad in (["east"], ["standalone"]):
        assert (await ask(one.front, "POST", f"{HERE}/peers", bad)).status == 412
    assert (await ask(one.front, "POST", f"{HERE}/peers", ["west"] * 3)).status == 204
    assert (await ask(one.front, "POST", f"{HERE}/peers", b"[]")).status == 204
    assert (await ask(one.front, "GET", f"{HERE}/peers")).json == []
    assert (await ask(one.front, "GET", f"{A}/nowhere/peers")).status == 404
    assert (await ask(one.front, "POST", f"{A}/nowhere/peers", [])).status == 404


async def test_failure_domains_are_kept_and_a_broker_is_in_one(ask: Any, one: Processes) -> None:
    path = f"{HERE}/failureDomains"
    assert (await ask(one.front, "POST", f"{path}/a", {"brokers": ["b1:8080"]})).status == 204
    assert (await ask(one.front, "GET", f"{path}/a")).json == {"brokers": ["b1:8080"]}
    taken = await ask(one.front, "POST", f"{path}/b", {"brokers": ["b1:8080"]})
    assert (taken.status, "b1:8080" in taken.reason) == (409, True)
    assert (await ask(one.front, "POST", f"{path}/a", {"brokers": ["b2:8080"]})).status == 204
    assert (await ask(one.front, "GET", path)).json == {"a": {"brokers": ["b2:8080"]}}
    assert (await ask(one.front, "DELETE", f"{path}/a")).status == 204
    assert (await ask(one.front, "DELETE", f"{path}/a")).status == 404
    assert (await ask(one.front, "GET", f"{path}/a")).status == 404
    assert (await ask(one.front, "POST", f"{path}/a")).status == 400
    assert (await ask(one.front, "POST", f"{A}/nowhere/failureDomains/a", {})).status == 412


POLICY = {
    "namespaces": ["acme/.*"],
    "primary": ["localhost"],
    "secondary": [],
    "auto_failover_policy": {"policy_type": "min_available", "parameters": {"min_limit": "1"}},
}


async def test_isolation_policies_are_kept_and_shown_by_broker(ask: Any, one: Processes) -> None:
    path = f"{HERE}/namespaceIsolationPolicies"
    assert (await ask(one.front, "POST", f"{path}/p", POLICY)).status == 204
    assert (await ask(one.front, "GET", f"{path}/p")).json == POLICY
    assert (await ask(one.front, "GET", path)).json == {"p": POLICY}
    (told,) = (await ask(one.front, "GET", f"{path}/brokers")).json
    assert told == {
        "brokerName": "localhost:8080",
        "policyName": "p",
        "isPrimary": True,
        "namespaceRegex": ["acme/.*"],
    }
    assert (await ask(one.front, "GET", f"{path}/brokers/localhost:8080")).json == told
    assert (await ask(one.front, "GET", f"{path}/brokers/elsewhere:1")).status == 404
    assert (await ask(one.front, "DELETE", f"{path}/p")).status == 204
    assert (await ask(one.front, "GET", f"{path}/p")).status == 404
    assert (await ask(one.front, "GET", f"{path}/brokers")).json == []


@pytest.mark.parametrize(
    "body", [b"", {"namespaces": [], "primary": ["x"]}, {"namespaces": ["("], "primary": ["x"]}]
)
async def test_an_isolation_policy_that_makes_no_sense_is_refused(
    ask: Any, one: Processes, body: Any
) -> None:
    path = f"{HERE}/namespaceIsolationPolicies/p"
    assert (await ask(one.front, "POST", path, body)).status == 400


async def test_a_cluster_that_is_used_is_not_forgotten(ask: Any, one: Processes) -> None:
    west, policy = f"{A}/west", f"{A}/west/namespaceIsolationPolicies/p"
    assert (await ask(one.front, "PUT", west, {"serviceUrl": "http://west"})).status == 204
    tenant = {"allowedClusters": ["west"]}
    assert (await ask(one.front, "PUT", "/admin/v2/tenants/acme", tenant)).status == 204
    assert (await ask(one.front, "DELETE", west)).status == 412
    assert (await ask(one.front, "DELETE", "/admin/v2/tenants/acme")).status == 204
    assert (await ask(one.front, "POST", policy, POLICY)).status == 204
    domain = f"{west}/failureDomains/d"
    assert (await ask(one.front, "POST", domain, {"brokers": ["b"]})).status == 204
    assert (await ask(one.front, "DELETE", west)).status == 412
    assert (await ask(one.front, "DELETE", policy)).status == 204
    assert (await ask(one.front, "DELETE", west)).status == 204
    assert (await ask(one.front, "PUT", west, {"serviceUrl": "http://west"})).status == 204
    assert (await ask(one.front, "GET", f"{west}/failureDomains")).json == {}
