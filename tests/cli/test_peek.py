"""`magnetar peek`: any position, also what is acknowledged already."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magnetar.cli.peek import entries_of, positions_back, positions_from
from magnetar.cli.values import Position
from magnetar.client.rest import AdminError
from magnetar.client.stored import Message, MessageId

LEDGERS = [{"ledgerId": 3, "entries": 2}, {"ledgerId": 5, "entries": 0}, {"ledgerId": 9}]
END = "9:1"  # the open ledger does not say how many it has
INTERNAL = {"ledgers": LEDGERS, "lastConfirmedEntry": END}


def message(ledger: int, entry: int) -> list[Message]:
    body = f"{ledger}:{entry}".encode()
    return [Message(id=MessageId(ledger, entry), payload=body, publish_time_ms=0)]


@pytest.fixture
def topic(admin: Any) -> Any:
    admin.answers |= {
        "partition_names": ["persistent://public/default/t"],
        "internal_stats": INTERNAL,
        "entry": lambda _, ledger, entry: message(ledger, entry),
    }
    return admin


def payloads(out: str) -> list[str]:
    return [json.loads(line)["payload"] for line in out.splitlines()]


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ([], ["3:0"]),
        (["--count", "3"], ["3:0", "3:1", "9:0"]),
        (["--position", "earliest", "-n", "99"], ["3:0", "3:1", "9:0", "9:1"]),
        (["--position", "3:1", "-n", "2"], ["3:1", "9:0"]),
        (["--position", "5:0"], ["9:0"]),
        (["--position", "4:7"], ["9:0"]),
        (["--position", "latest"], ["9:1"]),
        (["--position", "latest", "-n", "3"], ["3:1", "9:0", "9:1"]),
    ],
)
def test_any_position_can_be_looked_at(
    run: Any, topic: Any, arguments: list[str], shown: list[str]
) -> None:
    ended = run("peek", "t", *arguments, "-o", "json")
    assert ended.code == 0
    assert payloads(ended.out) == shown


def test_a_batch_is_cut_to_what_was_wanted_from_the_right_end(run: Any, topic: Any) -> None:
    topic.answers["entry"] = lambda _, ledger, entry: message(ledger, entry) * 2
    first = payloads(run("peek", "t", "-n", "3", "-o", "json").out)
    last = payloads(run("peek", "t", "-n", "3", "--position", "latest", "-o", "json").out)
    assert first == ["3:0", "3:0", "3:1"]
    assert last == ["9:0", "9:1", "9:1"]


def test_after_the_end_there_is_nothing_to_find(run: Any, topic: Any) -> None:
    ended = run("peek", "t", "--position", "9:2")
    assert ended.code == 3
    assert "no entry at or after 9:2" in ended.err


def test_an_empty_topic_says_so(run: Any, topic: Any) -> None:
    topic.answers["internal_stats"] = {"ledgers": [{"ledgerId": 3}], "lastConfirmedEntry": "3:-1"}
    ended = run("peek", "t")
    assert ended.code == 3
    assert "the topic is empty" in ended.err


def test_a_subscription_shows_what_it_would_be_given_next(run: Any, topic: Any) -> None:
    topic.answers["peek"] = message(9, 0)
    assert payloads(run("peek", "t", "-s", "s", "-o", "json").out) == ["9:0"]
    assert topic.calls[-1] == ("peek", "persistent://public/default/t", "s", 1)


def test_an_empty_backlog_and_a_missing_subscription_are_told_apart(run: Any, topic: Any) -> None:
    topic.answers |= {"peek": AdminError(404, "not there"), "subscriptions": ["s"]}
    assert "the backlog of s is empty" in run("peek", "t", "-s", "s").err
    assert "not there" in run("peek", "t", "-s", "other").err


def test_a_position_and_a_subscription_exclude_each_other(run: Any) -> None:
    assert run("peek", "t", "-s", "s", "--position", "1:2").code == 2


@given(st.lists(st.integers(0, 4), min_size=1, max_size=5), st.data())
def test_positions_agree_with_a_plain_list(sizes: list[int], data: st.DataObject) -> None:
    ids = data.draw(
        st.lists(st.integers(0, 20), min_size=len(sizes), max_size=len(sizes), unique=True)
    )
    ids.sort()
    every = [Position(i, e) for i, size in zip(ids, sizes, strict=True) for e in range(size)]
    end = every[-1] if every else Position(ids[-1], -1)
    start = Position(data.draw(st.integers(0, 21)), data.draw(st.integers(0, 5)))
    ledgers = [{"ledgerId": i, "entries": n} for i, n in zip(ids, sizes, strict=True)]
    entries = entries_of(ledgers, f"{end.ledger}:{end.entry}")
    assert list(positions_from(entries, start)) == [each for each in every if each >= start]
    assert list(positions_back(entries)) == every[::-1]


def test_the_end_of_ten_million_entries_is_found_without_counting_to_it() -> None:
    ledgers = [{"ledgerId": number, "entries": 250_000} for number in range(40)]
    back = positions_back(entries_of(ledgers, "39:249999"))
    assert [next(back), next(back)] == [Position(39, 249_999), Position(39, 249_998)]
