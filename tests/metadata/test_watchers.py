"""Who hears of which keys."""

import logging

import pytest

from magnetar.broker.metadata.watchers import Watchers


def test_each_watcher_hears_of_its_keys_once_and_sorted() -> None:
    watchers, a, everything = Watchers(), list[str](), list[str]()
    watchers.add("a/", a.extend)
    watchers.add("", everything.extend)
    watchers.tell(["b/1", "a/2", "a/1", "a/2"])
    assert a == ["a/1", "a/2"]
    assert everything == ["a/1", "a/2", "b/1"]


def test_a_watcher_that_fails_is_logged_and_keeps_nobody_from_hearing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(keys: object) -> None:
        raise RuntimeError("planted")

    watchers, heard = Watchers(), list[str]()
    watchers.add("a/", fail)
    watchers.add("a/", heard.extend)
    with caplog.at_level(logging.ERROR):
        watchers.tell(["a/1"])
        watchers.tell(["a/2"])
    assert heard == ["a/1", "a/2"]
    assert caplog.text.count("RuntimeError: planted") == 2


def test_a_watcher_may_stop_itself_while_it_is_told() -> None:
    watchers, heard = Watchers(), list[str]()

    def once(keys: object) -> None:
        heard.append("first")
        stop()

    stop = watchers.add("", once)
    watchers.add("", heard.extend)
    watchers.tell(["a"])
    watchers.tell(["b"])
    assert heard == ["first", "a", "b"]


def test_watchers_are_true_while_there_are_any() -> None:
    watchers = Watchers()
    assert not watchers
    stop = watchers.add("", lambda keys: None)
    assert watchers
    stop()
    assert not watchers
