"""`magnetar brokers`."""

import json
from typing import Any

from magnetar.client.rest import AdminError


def test_the_broker_says_who_it_is_and_how(run: Any, admin: Any) -> None:
    admin.answers |= {"brokers": ["h:8080"], "health": "ok", "version": "1.2"}
    assert run("brokers", "list").out == "h:8080\n"
    assert run("brokers", "health").out == "ok\n"
    assert run("brokers", "version").out == "1.2\n"


def test_a_broker_that_is_not_well_is_a_failure(run: Any, admin: Any) -> None:
    admin.answers["health"] = AdminError(503, "nothing can be stored: the disk is full")
    done = run("brokers", "health")
    assert done.code == 1
    assert "the disk is full" in done.err


def test_the_processes_are_shown_as_they_are_and_as_they_are_after_a_change(
    run: Any, admin: Any
) -> None:
    one = {"number": 0, "pid": 4711, "serving": True, "shares": 1024, "serviceUrl": "pulsar://h:1"}
    two = [one | {"shares": 512}, one | {"number": 1, "pid": 4712, "shares": 512}]
    admin.answers |= {"processes": [one], "scale": two}
    lines = run("brokers", "processes").out.splitlines()
    assert lines[1].split() == ["0", "4711", "True", "1,024", "pulsar://h:1"]
    assert len(run("brokers", "scale", "2").out.splitlines()) == 3
    assert json.loads(run("brokers", "scale", "2", "-o", "json").out) == two


def test_a_number_of_processes_that_cannot_be_is_a_failure_that_says_so(
    run: Any, admin: Any
) -> None:
    admin.answers["scale"] = AdminError(412, "0 broker processes, allowed: 1 to 64")
    done = run("brokers", "scale", "0")
    assert done.code == 1
    assert "allowed: 1 to 64" in done.err


def test_the_load_is_shown_for_people_and_for_programs(run: Any, admin: Any) -> None:
    admin.answers["load_report"] = {"numTopics": 2000, "msgRateIn": 1.25, "bundles": []}
    text = run("brokers", "load").out
    assert "2,000 in use" in text
    assert "1.2/s" in text
    assert json.loads(run("brokers", "load", "-o", "json").out)["numTopics"] == 2000


def test_latencies_are_a_table_in_milliseconds(run: Any, admin: Any) -> None:
    told = {
        "magnetar_publish_latency_seconds": {"count": 1200, "p50": 0.0015, "p99": 0.02},
        "magnetar_loop_lag_seconds": {"count": 0, "p50": None},
    }
    admin.answers["latencies"] = told
    lines = run("brokers", "latency").out.splitlines()
    assert lines[0].split() == ["milliseconds", "count", "p50", "p90", "p99", "p99.9", "max"]
    assert lines[1].split()[1:5] == ["1,200", "1.500", "-", "20.000"]
    assert lines[2].split()[1:3] == ["0", "-"]
    assert json.loads(run("brokers", "latency", "-o", "json").out) == told
