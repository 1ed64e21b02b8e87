"""brokers/configuration: what can be changed while the broker runs, over HTTP."""

from functools import partial
from typing import Any

from tests.doors.admin.processes import Processes
from tests.waiting import until

C = "/admin/v2/brokers/configuration"


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
        ("journal_window_ms/20", "allowed: 0 to 2"),
        ("journal_file_bytes/20", "read at the start only"),
        ("loadFactor/3", "there is no live setting 'loadFactor'"),
    ):
        answer = await ask(one.front, "POST", f"{C}/{path}")
        assert answer.status == 412
        assert reason in answer.reason
    assert (await ask(one.front, "DELETE", f"{C}/loadFactor")).status == 412
