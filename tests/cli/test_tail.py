"""`magnetar tail`."""

from typing import Any

import pytest

from magnetar.client.rest import AdminError


@pytest.fixture(autouse=True)
def topic_there(admin: Any) -> Any:
    """A broker that has whatever topic is asked for."""
    admin.answers |= {"partitions": 0, "stats": {}}
    return admin


def test_a_topic_is_read_to_its_end_and_nothing_is_acknowledged(run: Any, cluster: Any) -> None:
    cluster.bodies = [b"one", b"two"]
    ended = run("tail", "t", "--from", "earliest", "--until-end")
    assert ended.code == 0
    assert ended.out == "one\ntwo\n"
    assert not cluster.acknowledged
    assert cluster.opened["args"] == ("t", "earliest")


def test_a_time_is_a_place_to_start(run: Any, cluster: Any) -> None:
    run("tail", "t", "--from", "1970-01-01T00:00:02Z", "--until-end")
    assert cluster.opened["args"] == ("t", 2000)


def test_it_stops_after_as_many_as_were_wanted_and_closes_the_reader(
    run: Any, cluster: Any
) -> None:
    cluster.bodies = [b"one", b"two", b"three"]
    assert run("tail", "t", "--from", "earliest", "-n", "2").out == "one\ntwo\n"
    assert cluster.closed == 2


def test_without_a_start_only_what_comes_now_is_shown(run: Any, cluster: Any) -> None:
    cluster.interrupt_after = 0
    assert run("tail", "t").code == 130
    assert cluster.opened["args"] == ("t", "latest")


def test_with_meta_each_line_tells_where_and_when(run: Any, cluster: Any) -> None:
    cluster.bodies = [b"one"]
    ended = run("tail", "t", "--from", "earliest", "--until-end", "--meta")
    assert ended.out == '7:0  2023-11-14T22:13:20.000Z  k  one  {"a": "b"}\n'


def test_a_missing_topic_is_never_opened(
    run: Any, cluster: Any, topic_there: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_it(*_: object, **__: object) -> None:
        pytest.fail("a reader was opened, which makes the topic")

    monkeypatch.setattr(cluster, "reader", open_it)
    topic_there.answers["stats"] = AdminError(404, "topic ghost does not exist")
    ended = run("tail", "ghost", "--until-end")
    assert (ended.code, ended.out, ended.err) == (3, "", "magnetar: topic ghost does not exist\n")


def test_a_partitioned_topic_is_there_and_one_in_memory_may_be_waited_for(
    run: Any, cluster: Any, topic_there: Any
) -> None:
    topic_there.answers |= {"partitions": 3, "stats": AdminError(404, "no")}
    assert run("tail", "t", "--until-end").code == 0
    topic_there.answers["partitions"] = AdminError(404, "no")
    assert run("tail", "non-persistent://public/default/t", "--until-end").code == 0


def test_without_an_admin_port_it_goes_on_and_says_what_that_means(
    run: Any, cluster: Any, topic_there: Any
) -> None:
    topic_there.answers["partitions"] = AdminError(0, "no broker answers at http://x:8080")
    ended = run("tail", "t", "--until-end")
    assert ended.code == 0
    assert "cannot ask whether t exists" in ended.err
