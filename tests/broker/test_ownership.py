"""Every topic has one owner, and a look-up leads there."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magnetar.broker.ownership import Address, Ownership, owner_of
from magnetar.broker.port import NotAllowedError
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
