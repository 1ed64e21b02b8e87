"""Every topic has one owner, and a look-up leads there."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magnetar.broker import ownership
from magnetar.broker.assignment import Assignment, Change
from magnetar.broker.ownership import Address, Ownership, owner_of
from magnetar.broker.port import NotAllowedError, ServiceNotReadyError
from magnetar.names import TopicName

ADDRESSES = [Address(f"pulsar://127.0.0.1:{6660 + i}", "http://127.0.0.1:8080") for i in range(3)]
TOPICS = st.integers(0, 10_000).map(lambda number: TopicName.parse(f"orders-{number}"))


@given(TOPICS)
def test_exactly_one_worker_says_mine_and_all_point_to_it(topic: TopicName) -> None:
    views = [Ownership(worker, ADDRESSES) for worker in range(3)]
    owners = [view.worker for view in views if view.mine(topic)]
    assert len(owners) == 1
    assert {view.location(topic).url for view in views} == {ADDRESSES[owners[0]].url}
    assert [view.location(topic).here for view in views] == [view.mine(topic) for view in views]


def test_the_partitions_of_a_topic_spread_over_the_workers() -> None:
    topic = TopicName.parse("orders")
    owners = {owner_of(str(topic.partition_name(index)), 3) for index in range(32)}
    assert owners == {0, 1, 2}


def test_a_named_listener_has_its_own_addresses_and_an_unknown_one_is_refused() -> None:
    outside = [
        Address(f"pulsar://example.org:{6660 + i}", "http://example.org:8080") for i in range(3)
    ]
    view = Ownership(0, ADDRESSES, {"outside": outside})
    topic = TopicName.parse("orders")
    assert view.location(topic, "outside").url == outside[view.worker_of(topic)].url
    with pytest.raises(NotAllowedError, match="outside"):
        view.location(topic, "elsewhere")


# --- topics that move --------------------------------------------------------------------


def moved(view: Ownership, topic: TopicName, to: int) -> Assignment:
    return view.table.now.changed(Change(pins={str(topic): to}))


TOPIC = TopicName.parse("orders")


async def test_who_asks_for_a_topic_that_is_being_handed_over_waits_for_its_end() -> None:
    view = Ownership(0, ADDRESSES)
    view.table.learn(moved(view, TOPIC, 0), 1)
    after = moved(view, TOPIC, 1)
    with view.giving(after):
        assert not view.mine(TOPIC)
        waiting = asyncio.ensure_future(view.settled(TOPIC))
        await asyncio.sleep(0)
        assert not waiting.done()
        view.learn(after, 2)
    await waiting
    assert view.worker_of(TOPIC) == 1


async def test_a_topic_that_could_not_be_given_away_is_ours_as_before() -> None:
    view = Ownership(0, ADDRESSES)
    view.table.learn(moved(view, TOPIC, 0), 1)
    with pytest.raises(OSError, match="no"), view.giving(moved(view, TOPIC, 1)):
        raise OSError("no")
    await view.settled(TOPIC)
    assert view.mine(TOPIC)


async def test_what_has_come_is_served_once_it_is_prepared_and_not_before() -> None:
    view = Ownership(1, ADDRESSES)
    view.table.learn(moved(view, TOPIC, 0), 1)
    assert view.learn(moved(view, TOPIC, 1), 2)
    assert view.worker_of(TOPIC) == 1
    assert not view.mine(TOPIC)
    view.prepared(1)
    assert not view.mine(TOPIC), "what was prepared is older than what came"
    waiting = asyncio.ensure_future(view.settled(TOPIC))
    await asyncio.sleep(0)
    view.prepared(2)
    await waiting
    assert view.mine(TOPIC)


def test_an_older_table_changes_nothing() -> None:
    view = Ownership(1, ADDRESSES)
    now = moved(view, TOPIC, 0)
    view.learn(now, 5)
    assert not view.learn(moved(view, TOPIC, 1), 4)
    assert view.table.now == now


def test_a_topic_that_left_and_came_back_has_to_be_prepared_again() -> None:
    view = Ownership(1, ADDRESSES)
    other = next(each for each in map(TopicName.parse, "abcdefgh") if not view.mine(each))
    ours = next(each for each in map(TopicName.parse, "abcdefgh") if view.mine(each))
    view.learn(moved(view, other, 1), 1)
    view.learn(moved(view, ours, 0), 2)
    view.learn(moved(view, ours, 1), 3)
    assert not view.mine(ours)
    view.prepared(1)
    assert not view.mine(ours)
    view.prepared(3)
    assert view.mine(ours)
    assert view.mine(other)


async def test_a_move_that_never_ends_is_told_as_something_to_try_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ownership, "SETTLE_TIMEOUT_S", 0.01)
    view = Ownership(0, ADDRESSES)
    view.table.learn(moved(view, TOPIC, 0), 1)
    with view.giving(moved(view, TOPIC, 1)), pytest.raises(ServiceNotReadyError, match="again"):
        await view.settled(TOPIC)


@pytest.mark.parametrize("name", ["1", "127.0.0.1:6661", "pulsar://127.0.0.1:6661"])
def test_a_process_has_a_number_and_an_address(name: str) -> None:
    view = Ownership(0, ADDRESSES)
    assert view.worker_called(name) == 1
    assert view.worker_called("127.0.0.1:1") is None
