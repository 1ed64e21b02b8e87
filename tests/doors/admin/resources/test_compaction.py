"""Compaction, trim, truncate and finding by index through admin REST."""

import asyncio
from typing import Any

import pytest

from magnetar.broker.topics.compaction.passes import Compaction
from tests.doors.admin.processes import Processes
from tests.topics.bodies import Said, run_of, single

A = "/admin/v2"
T = f"{A}/persistent/public/default/orders"
NAME = "persistent://public/default/orders"


async def ended(ask: Any, processes: Processes, path: str) -> dict[str, str]:
    while True:
        answer = await ask(processes.front, "GET", f"{path}/compaction")
        assert answer.status == 200
        if answer.json["status"] != "RUNNING":
            return dict(answer.json)
        await asyncio.sleep(0.01)


async def filled(processes: Processes, name: str = NAME, count: int = 6) -> None:
    said = [single(Said(f"k{n % 2}", b"%d" % n)) for n in range(count)]
    await processes.owner(name).publish_run(name, run_of(said))


async def test_a_topic_is_compacted_when_asked(ask: Any, any_number: Processes) -> None:
    await filled(any_number)
    before = await ask(any_number.front, "GET", f"{T}/compaction")
    assert before.json == {"status": "NOT_RUN", "lastError": ""}
    assert (await ask(any_number.front, "PUT", f"{T}/compaction")).status == 204
    assert await ended(ask, any_number, T) == {"status": "SUCCESS", "lastError": ""}
    shown = (await ask(any_number.front, "GET", f"{T}/stats")).json["compaction"]
    assert shown["lastCompactionRemovedEventCount"] == 4
    internal = (await ask(any_number.front, "GET", f"{T}/internalStats")).json
    assert internal["compactedLedger"]["entries"] == 2
    metrics = await ask(any_number.front, "GET", "/metrics")
    assert b"pulsar_compaction_removed_event_count{" in metrics.body
    (took,) = [
        line
        for line in metrics.body.decode().splitlines()
        if line.startswith("pulsar_compaction_latency_count{")
    ]
    assert took.split()[-1] == "2", "both survivors were written"


async def test_the_name_of_a_partitioned_topic_means_all_its_partitions(
    ask: Any, any_number: Processes
) -> None:
    await ask(any_number.front, "PUT", f"{T}/partitions", 4)
    for index in range(4):
        await filled(any_number, f"{NAME}-partition-{index}")
    assert (await ask(any_number.front, "PUT", f"{T}/compaction")).status == 204
    assert (await ended(ask, any_number, T))["status"] == "SUCCESS"
    for index in range(4):
        part = await ask(any_number.front, "GET", f"{T}-partition-{index}/compaction")
        assert part.json["status"] == "SUCCESS"


async def test_one_compaction_at_a_time(
    ask: Any, one: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(one)
    go_on = asyncio.Event()
    first_pass = Compaction.first_pass

    async def patiently(self: Compaction) -> None:
        await go_on.wait()
        await first_pass(self)

    monkeypatch.setattr(Compaction, "first_pass", patiently)
    answers = [await ask(one.front, "PUT", f"{T}/compaction") for _ in range(2)]
    assert [each.status for each in answers] == [204, 409]
    go_on.set()
    assert (await ended(ask, one, T))["status"] == "SUCCESS"
    assert (await ask(one.front, "PUT", f"{T}/compaction")).status == 204, "it has ended"


@pytest.mark.parametrize(
    ("method", "tail"),
    [("PUT", "/compaction"), ("GET", "/compaction"), ("POST", "/trim"), ("DELETE", "/truncate")],
)
async def test_what_is_not_there_or_not_stored_is_refused(
    ask: Any, one: Processes, method: str, tail: str
) -> None:
    assert (await ask(one.front, method, f"{T}{tail}")).status == 404
    fleeting = f"{A}/non-persistent/public/default/t"
    await ask(one.front, "PUT", fleeting)
    assert (await ask(one.front, method, f"{fleeting}{tail}")).status == 405


async def test_trim_drops_nothing_that_retention_keeps(ask: Any, any_number: Processes) -> None:
    await filled(any_number)
    assert (await ask(any_number.front, "POST", f"{T}/trim")).status == 204
    assert (await ask(any_number.front, "GET", f"{T}/internalStats")).json["numberOfEntries"] == 6


@pytest.mark.parametrize("method", ["DELETE", "PUT"])
async def test_truncate_empties_the_backlogs(ask: Any, any_number: Processes, method: str) -> None:
    await ask(any_number.front, "PUT", T)
    await ask(any_number.front, "PUT", f"{T}/subscription/s")
    await filled(any_number)
    await ask(any_number.front, "PUT", f"{T}/compaction")
    await ended(ask, any_number, T)
    assert (await ask(any_number.front, method, f"{T}/truncate")).status == 204
    stats = (await ask(any_number.front, "GET", f"{T}/stats")).json
    assert stats["subscriptions"]["s"]["msgBacklog"] == 0
    internal = (await ask(any_number.front, "GET", f"{T}/internalStats")).json
    assert internal["compactedLedger"]["ledgerId"] == -1


async def test_a_message_is_found_by_its_index(ask: Any, any_number: Processes) -> None:
    await filled(any_number)
    for index in (0, 3, 5):
        answer = await ask(any_number.front, "GET", f"{T}/getMessageIdByIndex?index={index}")
        assert (answer.status, answer.json["entryId"]) == (200, index)
    missing = await ask(any_number.front, "GET", f"{T}/getMessageIdByIndex?index=6")
    assert missing.status == 404
