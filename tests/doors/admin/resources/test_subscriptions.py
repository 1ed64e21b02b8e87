"""Subscriptions through admin REST, and the messages in their backlogs."""

import base64
from typing import Any

import pytest

from magnetar.broker.port import PortError
from magnetar.broker.wire.pulsar.generated.PulsarApi_pb2 import (
    MessageMetadata,
    SingleMessageMetadata,
)
from magnetar.broker.wire.pulsar.metadata import batch_contents
from tests.doors.admin.processes import Processes, body_of, run_of

A = "/admin/v2"
T = f"{A}/persistent/public/default/orders"
S = f"{T}/subscription/s"


async def backlog(ask: Any, processes: Processes) -> int:
    shown = (await ask(processes.front, "GET", f"{T}/stats")).json
    return int(shown["subscriptions"]["s"]["msgBacklog"])


async def peeked(ask: Any, processes: Processes, position: int = 1) -> bytes:
    answer = await ask(processes.front, "GET", f"{S}/position/{position}")
    assert answer.status == 200, answer.body
    return bytes(answer.body)


@pytest.fixture
async def ten(ask: Any, one: Processes) -> Processes:
    """Ten messages `0` to `9`, published at 1000 ms to 1009 ms, none acknowledged."""
    assert (await ask(one.front, "PUT", S, "earliest")).status == 204
    await one.owner("orders").publish("orders", [b"%d" % i for i in range(10)], first_ms=1000)
    return one


async def test_a_subscription_is_created_shown_and_deleted(ask: Any, one: Processes) -> None:
    path = f"{T}/subscription/a%2Fb%20%C3%BC"
    assert (await ask(one.front, "PUT", path)).status == 204
    assert (await ask(one.front, "PUT", path)).status == 409
    assert (await ask(one.front, "GET", f"{T}/subscriptions")).json == ["a/b ü"]
    assert (await ask(one.front, "DELETE", path)).status == 204
    assert (await ask(one.front, "DELETE", path)).status == 404


@pytest.mark.parametrize("name", ["%00", "a%0D%0Ab", "s" * 1025])
async def test_a_name_that_no_subscription_can_have_is_refused(
    ask: Any, one: Processes, name: str
) -> None:
    assert (await ask(one.front, "PUT", f"{T}/subscription/{name}")).status == 412


async def test_a_subscription_starts_where_it_was_told(ask: Any, ten: Processes) -> None:
    ids = [
        (await ask(ten.front, "GET", f"{T}/messageid/{time}")).json for time in (1000, 1004, 1009)
    ]
    starts: list[tuple[object, int]] = [
        ("earliest", 10),
        ("latest", 0),
        (b"", 0),
        (ids[0], 10),
        (ids[1], 6),
        (ids[2] | {"properties": {"a": "b"}}, 1),
        ({"ledgerId": -1, "entryId": -1}, 10),
        ({"ledgerId": 2**63 - 1, "entryId": 2**63 - 1}, 0),
    ]
    for number, (start, expected) in enumerate(starts):
        path = f"{T}/subscription/from-{number}"
        assert (await ask(ten.front, "PUT", path, start)).status == 204, start
        shown = (await ask(ten.front, "GET", f"{T}/stats")).json
        assert shown["subscriptions"][f"from-{number}"]["msgBacklog"] == expected, start
    noted = await ask(ten.front, "GET", f"{T}/subscription/from-5/properties")
    assert noted.json == {"a": "b"}


@pytest.mark.parametrize(
    "body",
    [
        "middle",
        5,
        [],
        {"ledgerId": "x", "entryId": 1},
        {"ledgerId": 1},
        {"ledgerId": 2**70, "entryId": 0},
    ],
)
async def test_a_start_that_is_none_is_refused(ask: Any, one: Processes, body: object) -> None:
    assert (await ask(one.front, "PUT", S, body)).status == 400
    assert (await ask(one.front, "GET", f"{T}/stats")).status == 404


async def test_messages_are_skipped_in_order(ask: Any, ten: Processes) -> None:
    assert (await ask(ten.front, "POST", f"{S}/skip/3")).status == 204
    assert (await backlog(ask, ten), await peeked(ask, ten)) == (7, b"3")
    assert (await ask(ten.front, "POST", f"{S}/skip/0")).status == 204
    assert await backlog(ask, ten) == 7
    assert (await ask(ten.front, "POST", f"{S}/skip/100")).status == 204
    assert await backlog(ask, ten) == 0


@pytest.mark.parametrize(
    ("count", "status"),
    [("x", 400), ("1.5", 400), ("-1", 412), ("9" * 30, 400), ("%D9%A3", 400), ("1_0", 400)],
)
async def test_a_count_that_is_none_is_refused(
    ask: Any, ten: Processes, count: str, status: int
) -> None:
    assert (await ask(ten.front, "POST", f"{S}/skip/{count}")).status == status
    assert await backlog(ask, ten) == 10


async def test_all_messages_are_skipped_at_once(ask: Any, ten: Processes) -> None:
    assert (await ask(ten.front, "POST", f"{S}/skip_all")).status == 204
    assert await backlog(ask, ten) == 0


async def test_old_messages_expire_and_young_ones_stay(ask: Any, ten: Processes) -> None:
    ten.clock.set_wall_ms(11_004)
    assert (await ask(ten.front, "POST", f"{S}/expireMessages/10")).status == 204
    assert (await backlog(ask, ten), await peeked(ask, ten)) == (6, b"4")
    path = f"{T}/all_subscription/expireMessages/9"
    ten.clock.set_wall_ms(11_004)
    assert (await ask(ten.front, "POST", path)).status == 204
    assert await backlog(ask, ten) == 0


async def test_messages_expire_up_to_a_position(ask: Any, ten: Processes) -> None:
    at = (await ask(ten.front, "GET", f"{T}/messageid/1004")).json
    assert (await ask(ten.front, "POST", f"{S}/expireMessages", at)).status == 204
    assert await peeked(ask, ten) == b"5"


async def test_a_cursor_is_reset_to_a_time_or_a_position(ask: Any, ten: Processes) -> None:
    await ask(ten.front, "POST", f"{S}/skip_all")
    assert (await ask(ten.front, "POST", f"{S}/resetcursor/1007")).status == 204
    assert (await backlog(ask, ten), await peeked(ask, ten)) == (3, b"7")
    at = (await ask(ten.front, "GET", f"{T}/messageid/1002")).json
    assert (await ask(ten.front, "POST", f"{S}/resetcursor", at)).status == 204
    assert (await backlog(ask, ten), await peeked(ask, ten)) == (8, b"2")
    excluded = at | {"isExcluded": True}
    assert (await ask(ten.front, "POST", f"{S}/resetcursor", excluded)).status == 204
    assert (await backlog(ask, ten), await peeked(ask, ten)) == (7, b"3")
    start = {"ledgerId": -1, "entryId": -1}
    assert (await ask(ten.front, "POST", f"{S}/resetcursor", start)).status == 204
    assert await backlog(ask, ten) == 10


async def test_a_reset_sends_the_consumers_away(ask: Any, ten: Processes) -> None:
    events = await ten.owner("orders").consumer("orders", "s")
    assert (await ask(ten.front, "POST", f"{S}/resetcursor/0")).status == 204
    assert events.ended


async def test_a_subscription_in_use_is_deleted_only_by_force(ask: Any, ten: Processes) -> None:
    events = await ten.owner("orders").consumer("orders", "s")
    assert (await ask(ten.front, "DELETE", S)).status == 412
    assert not events.ended
    assert (await ask(ten.front, "DELETE", f"{S}?force=true")).status == 204
    assert events.ended


@pytest.mark.parametrize(
    ("method", "tail"),
    [
        ("DELETE", ""),
        ("POST", "/skip/1"),
        ("POST", "/skip_all"),
        ("POST", "/expireMessages/1"),
        ("POST", "/resetcursor/1"),
        ("GET", "/properties"),
    ],
)
async def test_a_subscription_that_is_missing_is_said_to_be(
    ask: Any, ten: Processes, method: str, tail: str
) -> None:
    answer = await ask(ten.front, method, f"{T}/subscription/nobody{tail}")
    assert answer.status == 404
    assert "nobody" in answer.reason


# --- messages -----------------------------------------------------------------------------


async def test_who_peeks_at_a_subscription_that_is_missing_sees_the_topic_and_makes_none(
    ask: Any, ten: Processes
) -> None:
    before = (await ask(ten.front, "GET", f"{T}/subscriptions")).json
    answers = [
        await ask(ten.front, "GET", f"{T}/subscription/nobody/position/{n}") for n in (1, 10)
    ]
    assert [answer.body for answer in answers] == [b"0", b"9"]
    assert (await ask(ten.front, "GET", f"{T}/subscription/nobody/position/11")).status == 404
    assert (await ask(ten.front, "GET", f"{T}/subscriptions")).json == before


async def test_messages_are_peeked_and_stay(ask: Any, ten: Processes) -> None:
    assert [await peeked(ask, ten, n) for n in (1, 2, 10)] == [b"0", b"1", b"9"]
    assert await backlog(ask, ten) == 10
    answer = await ask(ten.front, "GET", f"{S}/position/11")
    assert (answer.status, answer.reason) == (404, "the backlog of 's' has no entry 11")


@pytest.mark.parametrize(("position", "status"), [("0", 412), ("x", 400), (str(2**31), 412)])
async def test_a_position_that_is_none_is_refused(
    ask: Any, ten: Processes, position: str, status: int
) -> None:
    assert (await ask(ten.front, "GET", f"{S}/position/{position}")).status == status


async def test_acknowledged_messages_are_examined_from_both_ends(ask: Any, ten: Processes) -> None:
    await ask(ten.front, "POST", f"{S}/skip_all")
    path = f"{T}/examinemessage"
    for query, expected in [
        ("?initialPosition=earliest&messagePosition=1", b"0"),
        ("?initialPosition=earliest&messagePosition=7", b"6"),
        ("?initialPosition=latest&messagePosition=1", b"9"),
        ("?initialPosition=latest&messagePosition=10", b"0"),
        ("", b"9"),
    ]:
        assert (await ask(ten.front, "GET", path + query)).body == expected
    assert (await ask(ten.front, "GET", f"{path}?messagePosition=11")).status == 404
    assert (await ask(ten.front, "GET", f"{path}?messagePosition=0")).status == 412
    assert (await ask(ten.front, "GET", f"{path}?initialPosition=middle")).status == 412


async def test_an_entry_that_is_not_there_is_said_so(ask: Any, ten: Processes) -> None:
    for place in ("999/entry/0", "0/entry/999", "9223372036854775807/entry/0"):
        assert (await ask(ten.front, "GET", f"{T}/ledger/{place}")).status == 404


async def test_every_message_of_a_stored_batch_is_shown(ask: Any, one: Processes) -> None:
    await ask(one.front, "PUT", S)
    metadata = MessageMetadata(
        producer_name="p", sequence_id=0, publish_time=1000, num_messages_in_batch=3
    )
    contents = batch_contents((SingleMessageMetadata(), b"m%d" % i) for i in range(3))
    run = run_of([body_of(metadata, contents)], [1000], messages=3)
    await one.owner("orders").publish_run("orders", run)
    shown = (await ask(one.front, "GET", f"{S}/position/1?format=json")).json["messages"]
    assert [base64.b64decode(each["payload"]) for each in shown] == [b"m0", b"m1", b"m2"]
    assert [each["batchIndex"] for each in shown] == [0, 1, 2]
    assert await backlog(ask, one) == 3


@pytest.mark.parametrize(
    ("method", "tail", "status"),
    [
        ("POST", "/subscription/s/skip_all", 204),
        ("POST", "/subscription/s/skip/1", 405),
        ("POST", "/subscription/s/expireMessages/1", 405),
        ("POST", "/subscription/s/resetcursor/1", 405),
        ("GET", "/subscription/s/position/1", 405),
        ("GET", "/examinemessage", 405),
        ("GET", "/lastMessageId", 405),
        ("POST", "/terminate", 405),
        ("GET", "/subscriptions", 200),
        ("DELETE", "/subscription/s", 204),
    ],
)
async def test_a_non_persistent_topic_says_that_nothing_is_stored(
    ask: Any, one: Processes, method: str, tail: str, status: int
) -> None:
    path = f"{A}/non-persistent/public/default/orders"
    assert (await ask(one.front, "PUT", f"{path}/subscription/s")).status == 204
    answer = await ask(one.front, method, path + tail)
    assert answer.status == status
    assert status != 405 or "not persistent" in answer.reason


async def test_a_call_in_the_middle_of_publishing_disturbs_nobody(ask: Any, ten: Processes) -> None:
    """A refused call costs no client anything."""
    events = await ten.owner("orders").consumer("orders", "s")
    for path in (f"{S}/skip/x", f"{S}/position/0", f"{T}/subscription/%00"):
        await ask(ten.front, "POST", path)
    assert not events.ended
    with pytest.raises(PortError):
        await ten.owner("orders").consumer("orders", "s")
