"""`magnetar topics`."""

import json
from typing import Any

import pytest

from magnetar.cli.topics import stats_text
from magnetar.client.rest import AdminError
from magnetar.client.stored import MessageId


def test_topics_are_listed_in_order_for_people_and_for_programs(run: Any, admin: Any) -> None:
    admin.answers["topics"] = ["b", "a"]
    assert run("topics", "list").out == "a\nb\n"
    assert json.loads(run("topics", "list", "x/y", "-o", "json").out) == ["a", "b"]
    assert admin.calls == [("topics", "public/default"), ("topics", "x/y")]


def test_no_topics_are_no_lines_and_an_empty_array(run: Any, admin: Any) -> None:
    admin.answers |= {"topics": [], "partitioned_topics": []}
    assert run("topics", "list").out == ""
    assert run("topics", "list", "--partitioned", "-o", "json").out == "[]\n"


@pytest.mark.parametrize(
    ("arguments", "call"),
    [
        (["create", "t"], ("create_topic", "t", 0, {})),
        (["create", "t", "--partitions", "4"], ("create_topic", "t", 4, {})),
        (["create", "t", "--property", "a=b"], ("create_topic", "t", 0, {"a": "b"})),
        (["delete", "t"], ("delete_topic", "t", {"force": False})),
        (["delete", "t", "--force"], ("delete_topic", "t", {"force": True})),
        (["trim", "t"], ("trim", "t")),
        (["truncate", "t", "--force"], ("truncate", "t")),
    ],
)
def test_each_verb_makes_one_call(
    run: Any, admin: Any, arguments: list[str], call: tuple[Any, ...]
) -> None:
    ended = run("topics", *arguments)
    assert ended.code == 0
    assert admin.calls == [call]
    assert "t" in ended.out


def test_statistics_show_first_what_a_person_looks_for(run: Any, admin: Any) -> None:
    told = {
        "msgInCounter": 1234,
        "storageSize": 10,
        "publishers": [{}],
        "lastPublishTimeStamp": 1000,
        "subscriptions": {"s": {"type": "Shared", "msgBacklog": 7, "consumers": [{}, {}]}},
    }
    admin.answers["stats"] = told
    out = run("topics", "stats", "t").out
    assert "messages in    1,234" in out
    assert "s: Shared, backlog 7, unacknowledged 0, consumers 2" in out
    assert "1970-01-01T00:00:01.000Z" in out
    assert json.loads(run("topics", "stats", "t", "-o", "json").out) == told
    assert "subscriptions  0" in stats_text("t", {})
    assert "damaged" not in out
    assert "gaps" not in out


def test_statistics_show_damage_and_who_was_led_past_it() -> None:
    subscriptions = {"s": {"type": "Shared", "gapsPassed": 2, "gapEntriesPassed": 1001}}
    out = stats_text("t", {"quarantinedRanges": 3, "subscriptions": subscriptions})
    assert "damaged        3 ranges, see --internal" in out
    assert "consumers 0, led past 2 gaps of 1,001 damaged entries" in out


def test_internal_statistics_are_shown_whole(run: Any, admin: Any) -> None:
    admin.answers["internal_stats"] = {"ledgers": []}
    assert json.loads(run("topics", "stats", "t", "--internal").out) == {"ledgers": []}


def test_a_topic_that_is_not_there_is_exit_code_3(run: Any, admin: Any) -> None:
    admin.answers |= {"partitions": 0, "stats": AdminError(404, "topic t does not exist")}
    for verb in ("stats", "partitions"):
        ended = run("topics", verb, "t")
        assert ended.code == 3
        assert ended.err == "magnetar: topic t does not exist\n"


def test_partitions_can_be_seen_and_grown(run: Any, admin: Any) -> None:
    admin.answers["partitions"] = 4
    assert run("topics", "partitions", "t").out == "4\n"
    assert run("topics", "partitions", "t", "--set", "8").code == 0
    assert ("update_partitions", "t", 8) in admin.calls


def test_terminating_tells_the_last_message(run: Any, admin: Any) -> None:
    admin.answers |= {"partitions": 0, "terminate": MessageId(3, 4)}
    assert run("topics", "terminate", "t").out == "terminated t after 3:4\n"
    admin.answers |= {"partitions": 2, "terminate_partitions": {0: MessageId(3, 4, 0)}}
    told = json.loads(run("topics", "terminate", "t", "-o", "json").out)
    assert told == {"topic": "t", "last_ids": {"0": "3:4:0"}}


def test_missing_partitions_are_made_anew(run: Any, admin: Any) -> None:
    assert run("topics", "create-missed-partitions", "t").code == 0
    assert admin.calls == [("create_missed_partitions", "t")]


def test_unloading_a_partitioned_topic_unloads_each_partition(run: Any, admin: Any) -> None:
    admin.answers["partition_names"] = ["t-0", "t-1"]
    assert run("topics", "unload", "t").code == 0
    assert admin.calls[1:] == [("unload", "t-0"), ("unload", "t-1")]


def test_a_name_alone_shows_the_verbs(run: Any) -> None:
    shown = run("topics")
    assert shown.code == 2
    for verb in ("list", "create", "delete", "stats", "partitions", "terminate", "unload"):
        assert verb in shown.out + shown.err


def test_messages_are_not_thrown_away_by_mistake(run: Any, admin: Any) -> None:
    ended = run("topics", "truncate", "t")
    assert ended.code == 2
    assert "--force" in ended.err
    assert admin.calls == []


def test_compaction_is_begun_and_waited_for_where_asked(
    run: Any, admin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("magnetar.cli.topics.POLL_S", 0)
    told = iter([("RUNNING", ""), ("RUNNING", ""), ("SUCCESS", "")])
    monkeypatch.setattr(type(admin), "compaction", lambda *_: next(told), raising=False)
    assert run("topics", "compact", "t").out == "running: t\n"
    assert run("topics", "compact", "t", "--wait").out == "success: t\n"


def test_a_compaction_that_failed_is_an_error_with_its_reason(run: Any, admin: Any) -> None:
    admin.answers["compaction"] = ("ERROR", "no room")
    ended = run("topics", "compact", "t", "--wait")
    assert ended.code == 1
    assert "no room" in ended.err


def test_a_policy_of_a_topic_is_set_shown_and_unset(run: Any, admin: Any) -> None:
    admin.answers["topic_policy"] = 3
    assert run("topics", "set-policy", "t", "maxProducers", "3").code == 0
    shown = json.loads(run("topics", "policy", "t", "maxProducers", "--applied").out)
    assert shown == {"maxProducers": 3}
    assert run("topics", "unset-policy", "t", "maxProducers").code == 0
    assert admin.calls == [
        ("set_topic_policy", "t", "maxProducers", 3),
        ("topic_policy", "t", "maxProducers", {"applied": True}),
        ("remove_topic_policy", "t", "maxProducers"),
    ]
    assert run("topics", "set-policy", "t", "schema", "FULL").code == 0
    assert admin.calls[-1] == ("set_topic_policy", "t", "schema", "FULL")
    ran = run("topics", "set-policy", "t", "schema", "FULL {")
    assert ran.code == 2
    assert "needs quotes of its own" in ran.err
