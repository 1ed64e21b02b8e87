"""`magnetar tail`."""

from typing import Any


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
