"""`magnetar subscriptions`."""

import json
from typing import Any

import pytest

from magnetar.client.rest import AdminError
from magnetar.client.stored import Message, MessageId

STATS = {
    "subscriptions": {
        "s": {
            "type": "Shared",
            "msgBacklog": 1500,
            "unackedMessages": 2,
            "consumers": [{}],
            "gapsPassed": 3,
        },
        "idle": {"msgBacklog": 0},
    }
}


def test_subscriptions_are_a_table_for_people_and_rows_for_programs(run: Any, admin: Any) -> None:
    admin.answers["stats"] = STATS
    lines = run("subscriptions", "list", "t").out.splitlines()
    assert lines[0].split() == [
        "subscription",
        "type",
        "backlog",
        "unacknowledged",
        "consumers",
        "gaps",
        "passed",
    ]
    assert lines[1].split() == ["idle", "-", "0", "0", "0", "0"]
    assert lines[2].split() == ["s", "Shared", "1,500", "2", "1", "3"]
    rows = json.loads(run("subscriptions", "list", "t", "-o", "json").out)
    assert rows[1]["backlog"] == 1500


@pytest.mark.parametrize(
    ("arguments", "call"),
    [
        (["create", "t", "s"], ("create_subscription", "t", "s", "latest")),
        (
            ["create", "t", "s", "--from", "3:4"],
            ("create_subscription", "t", "s", MessageId(3, 4)),
        ),
        (["delete", "t", "s"], ("delete_subscription", "t", "s", {"force": False})),
        (["skip", "t", "s", "5"], ("skip", "t", "s", 5)),
        (["clear", "t", "s"], ("clear", "t", "s")),
        (["expire", "t", "s", "--older-than", "2h"], ("expire", "t", "s", 7200)),
        (["reset", "t", "s", "--to", "earliest"], ("reset", "t", "s", 0)),
        (["reset", "t", "s", "--to", "latest"], ("clear", "t", "s")),
        (["reset", "t", "s", "--to", "3:4"], ("reset", "t", "s", MessageId(3, 4))),
        (["reset", "t", "s", "--to", "1970-01-01T00:00:05Z"], ("reset", "t", "s", 5000)),
    ],
)
def test_each_verb_makes_its_call(
    run: Any, admin: Any, arguments: list[str], call: tuple[Any, ...]
) -> None:
    admin.answers |= {"stats": STATS, "internal_stats": {"ledgers": [{"ledgerId": 3}]}}
    ended = run("subscriptions", *arguments)
    assert ended.code == 0
    assert call in admin.calls
    if arguments[0] in {"skip", "clear", "expire", "reset"}:
        assert "backlog 1,500" in ended.out


@pytest.mark.parametrize("arguments", [["reset", "t", "s", "--to"], ["create", "t", "s", "--from"]])
def test_a_ledger_that_is_none_of_the_topics_is_refused(
    run: Any, admin: Any, arguments: list[str]
) -> None:
    """The broker, as Pulsar's, would take it for the end, and the backlog would be gone."""
    admin.answers["internal_stats"] = {"ledgers": [{"ledgerId": n} for n in (7, 1, 2, 3)]}
    ended = run("subscriptions", *arguments, "5:5")
    assert (ended.code, ended.err) == (3, "magnetar: t has no ledger 5; it has 1-3, 7\n")
    assert [call[0] for call in admin.calls] == ["partitions", "internal_stats"]
    admin.answers["internal_stats"] = {"ledgers": []}
    assert "it is empty" in run("subscriptions", *arguments, "5:5").err


@pytest.mark.parametrize("verb", ["create", "delete", "clear", "peek"])
def test_a_subscription_without_a_name_is_a_usage_error(run: Any, admin: Any, verb: str) -> None:
    ended = run("subscriptions", verb, "t", "")
    assert ended.code == 2
    assert "subscription" in ended.err
    assert admin.calls == []


def test_where_to_may_be_said_in_ways_that_a_mistake_lists(run: Any) -> None:
    ended = run("subscriptions", "reset", "t", "s", "--to", "banana")
    assert ended.code == 2
    for form in ("earliest", "latest", "ledger:entry", "2026-01-31T12:00:00Z", "15m"):
        assert form in ended.err


def test_peeking_shows_the_messages_and_their_places(run: Any, admin: Any) -> None:
    body = Message(id=MessageId(3, 4), payload=b"x", publish_time_ms=0)
    admin.answers |= {"partition_names": ["t"], "peek": [body, body]}
    assert run("subscriptions", "peek", "t", "s").out.split()[0] == "3:4"


def test_a_backlog_is_counted(run: Any, admin: Any) -> None:
    admin.answers["analyze"] = {"entries": 1200, "messages": 3400, "aborted": False}
    assert run("subscriptions", "analyze", "t", "s").out == "3,400 messages in 1,200 entries\n"
    admin.answers["analyze"]["aborted"] = True
    assert "and more" in run("subscriptions", "analyze", "t", "s").out


def test_an_empty_backlog_is_exit_code_3(run: Any, admin: Any) -> None:
    admin.answers |= {
        "partition_names": ["t"],
        "peek": AdminError(404, "nothing there"),
        "subscriptions": ["s"],
    }
    ended = run("subscriptions", "peek", "t", "s")
    assert ended.code == 3
    assert "no backlog" in ended.err
