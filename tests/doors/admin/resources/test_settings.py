"""brokers/configuration: what can be changed while the broker runs, over HTTP."""

from functools import partial
from typing import Any

import pytest

from tests.doors.admin.processes import Process, Processes
from tests.waiting import until

C = "/admin/v2/brokers/configuration"


def apply(process: Process, _: frozenset[str]) -> None:
    """Let a process take over what has changed, as its node does."""
    process.ledgers.settings_changed()


async def test_a_setting_is_listed_set_shown_and_unset(ask: Any, two: Processes) -> None:
    for process in two.all:
        process.context.settings.watch()
    assert "dispatch_entries_max" in (await ask(two.front, "GET", C)).json
    assert (await ask(two.front, "GET", f"{C}/values")).json == {}

    def both_have(value: int) -> bool:
        return [each.context.config.dispatch_entries_max for each in two.all] == [value] * 2

    for method, value in (("POST", "17"), ("PUT", "18")):
        path = f"{C}/dispatch_entries_max/{value}"
        assert (await ask(two.front, method, path)).status == 204
        await until(partial(both_have, int(value)))
        runtime = (await ask(two.front, "GET", f"{C}/runtime")).json
        assert runtime["dispatch_entries_max"] == runtime["dispatcherMaxReadBatchSize"] == value
    assert (await ask(two.front, "GET", f"{C}/values")).json["dispatch_entries_max"] == "18"
    assert (await ask(two.front, "DELETE", f"{C}/dispatch_entries_max")).status == 204
    assert (await ask(two.front, "GET", f"{C}/values")).json == {}


async def test_a_setting_that_cannot_be_is_refused(ask: Any, one: Processes) -> None:
    for path, reason in (
        ("journal_window_ms/20.5", "allowed: 0 to 20"),
        ("journal_file_bytes/20", "read at the start only"),
        ("loadFactor/3", "there is no live setting 'loadFactor'"),
    ):
        answer = await ask(one.front, "POST", f"{C}/{path}")
        assert answer.status == 412
        assert reason in answer.reason
    assert (await ask(one.front, "DELETE", f"{C}/loadFactor")).status == 412
    for path, reason in (
        ("offload_threshold_bytes/20", "tiered storage is not built yet"),
        ("dispatch_entries_max/5?by=somebody", "expected hand or operator"),
        ("dispatch_entries_max/2000?by=operator", "an operator may set 1 to 1000"),
        ("disk_used_percent_warn/99", "above disk_used_percent_readonly"),
    ):
        answer = await ask(one.front, "POST", f"{C}/{path}")
        assert answer.status == 412
        assert reason in answer.reason
    assert (await ask(one.front, "DELETE", C)).status == 412
    assert (await ask(one.front, "GET", f"{C}/knobs/loadFactor")).status == 404


async def test_a_knob_is_read_back_as_each_process_runs_with_it(ask: Any, two: Processes) -> None:
    for process in two.all:
        process.context.settings.watch()
        process.context.settings.read_back = process.ledgers.settings_in_use
        process.context.settings.when_changed = partial(apply, process)
    assert (await ask(two.front, "POST", f"{C}/journal_window_ms/1.5")).status == 204
    assert (await ask(two.front, "POST", f"{C}/journal_window_ms/2?by=operator")).status == 204
    await until(lambda: all(each.context.config.journal_window_ms == 2 for each in two.all))
    knob = (await ask(two.front, "GET", f"{C}/knobs/journal_window_ms")).json
    assert knob["processes"] == [{"process": 0, "value": 2.0}, {"process": 1, "value": 2.0}]
    assert (knob["unit"], knob["low"], knob["high"]) == ("ms", 0, 20)
    assert knob["reach"] == {
        "low": 0, "high": 2, "add": 1, "times": 2, "dividedBy": 2, "intervalS": 1,
    }  # fmt: skip
    assert (knob["hand"]["value"], knob["operator"]["value"]) == (1.5, 2.0)
    all_knobs = (await ask(two.front, "GET", f"{C}/knobs")).json
    assert knob in all_knobs
    assert (
        next(each for each in all_knobs if each["name"] == "offload_threshold_bytes")["apply"] == ""
    )
    assert (await ask(two.front, "DELETE", f"{C}?by=operator")).status == 204
    knob = (await ask(two.front, "GET", f"{C}/knobs/journal_window_ms")).json
    assert (knob["value"], knob["operator"]) == (1.5, None)
    tenant = (await ask(two.front, "GET", f"{C}/knobs/tenant_publish_rate_bytes_max")).json
    assert tenant["apply"] == "PUT /admin/v2/resourcegroups/{group}"


async def test_the_number_of_processes_is_a_knob_that_asks_the_supervisor(
    ask: Any, one: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    [process] = one.all
    asked: list[Any] = []

    async def supervisor(question: Any) -> Any:
        asked.append(question["count"])
        return {"processes": []}

    monkeypatch.setattr("os.cpu_count", lambda: 4)
    object.__setattr__(process.context, "ask_supervisor", supervisor)
    for count, by, reason in (
        ("0", "hand", "allowed: 1 to 64"),
        ("65", "hand", "allowed: 1 to 64"),
        ("5", "operator", "an operator may set 1 to 4"),
        ("4", "operator", "too far for one step of an operator: 1 to 3"),
    ):
        answer = await ask(one.front, "POST", f"{C}/broker_processes/{count}?by={by}")
        assert answer.status == 412
        assert reason in answer.reason
    assert (await ask(one.front, "POST", f"{C}/broker_processes/7")).status == 204
    assert (await ask(one.front, "POST", f"{C}/broker_processes/2?by=operator")).status == 204
    answer = await ask(one.front, "POST", f"{C}/broker_processes/3?by=operator")
    assert "waits 30 s between two changes" in answer.reason
    assert asked == [7, 2]
    knob = (await ask(one.front, "GET", f"{C}/knobs/broker_processes")).json
    assert (knob["value"], knob["reach"]["high"], knob["operator"]["value"]) == (1, 4, 2)
    assert (await ask(one.front, "DELETE", f"{C}/broker_processes")).status == 412
