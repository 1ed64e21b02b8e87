"""Keys: names go in and come out, and no two nouns share a prefix."""

from collections.abc import Callable

import pytest

from magnetar.broker.metadata import paths
from magnetar.names import TopicName

NAMES = [
    "persistent://public/default/readings",
    "non-persistent://a-b/c.d/e f",
    "persistent://t/n/x-partition-3",
    "persistent://t/n/ünïcode 温度",
]


@pytest.mark.parametrize("text", NAMES)
@pytest.mark.parametrize(
    ("kind", "key_of"),
    [
        (paths.TOPICS, paths.topic),
        (paths.PARTITIONED, paths.partitioned),
        (paths.LIVE, paths.live),
    ],
)
def test_a_topic_comes_back_from_its_key(
    kind: str, key_of: Callable[[TopicName], str], text: str
) -> None:
    name = TopicName.parse(text)
    assert paths.topic_name(kind, key_of(name)) == name


def test_a_page_comes_back_from_its_key() -> None:
    key = paths.page(7, 2**40, 3)
    assert key.startswith(paths.pages(7))
    assert paths.page_of(key) == (2**40, 3)


def test_what_belongs_to_a_topic_is_not_under_a_topic_whose_name_it_begins_with() -> None:
    short, long = TopicName.parse("persistent://t/n/a"), TopicName.parse("persistent://t/n/ab")
    for prefix_of in (paths.ledgers, paths.cursors, paths.sequences):
        assert not prefix_of(long).startswith(prefix_of(short))
