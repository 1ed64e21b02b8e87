"""The sums of partitions' statistics."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from magnetar.broker.doors.admin.resources.totals import total


def test_counters_add_up_and_averages_are_weighted() -> None:
    parts = [
        {"msgInCounter": 3, "averageMsgSize": 10.0, "storageSize": 5},
        {"msgInCounter": 1, "averageMsgSize": 50.0, "storageSize": 7},
    ]
    assert total(parts) == {"msgInCounter": 4, "averageMsgSize": 20.0, "storageSize": 12}


def test_an_average_of_whole_numbers_is_one() -> None:
    parts = [
        {"msgOutCounter": 2, "avgMessagesPerEntry": 1},
        {"msgOutCounter": 1, "avgMessagesPerEntry": 3},
    ]
    for answer in (total(parts), total(parts[:1])):
        assert isinstance(answer["avgMessagesPerEntry"], int)
    assert total(parts)["avgMessagesPerEntry"] == 2


def test_times_are_the_latest_but_for_those_of_beginnings() -> None:
    parts: list[dict[str, Any]] = [
        {"lastPublishTimeStamp": 5, "topicCreationTimeStamp": 2, "lastAckedTimestamp": 0},
        {"lastPublishTimeStamp": 9, "topicCreationTimeStamp": 0, "lastAckedTimestamp": 3},
    ]
    assert total(parts) == {
        "lastPublishTimeStamp": 9,
        "topicCreationTimeStamp": 2,
        "lastAckedTimestamp": 3,
    }


def test_subscriptions_and_clients_are_added_by_name() -> None:
    def part(count: int, consumer: str) -> dict[str, Any]:
        return {
            "publishers": [{"producerName": "p", "producerId": 4, "msgRateIn": 1.5}],
            "subscriptions": {
                "s": {
                    "type": "Shared",
                    "isDurable": True,
                    "msgBacklog": count,
                    "consumers": [{"consumerName": consumer, "unackedMessages": count}],
                }
            },
        }

    assert total([part(1, "a"), part(2, "b"), part(4, "a")]) == {
        "publishers": [{"producerName": "p", "producerId": 4, "msgRateIn": 4.5}],
        "subscriptions": {
            "s": {
                "type": "Shared",
                "isDurable": True,
                "msgBacklog": 7,
                "consumers": [
                    {"consumerName": "a", "unackedMessages": 5},
                    {"consumerName": "b", "unackedMessages": 2},
                ],
            }
        },
    }


def test_a_subscription_that_only_one_partition_has_is_shown() -> None:
    parts: list[dict[str, Any]] = [
        {"subscriptions": {}},
        {"subscriptions": {"s": {"msgBacklog": 2}}},
    ]
    assert total(parts) == {"subscriptions": {"s": {"msgBacklog": 2}}}


def test_clients_without_names_are_not_mixed_up() -> None:
    parts: list[dict[str, Any]] = [
        {"publishers": [{"msgRateIn": 1}, {"msgRateIn": 2}]},
        {"publishers": [{"msgRateIn": 4}]},
    ]
    assert [each["msgRateIn"] for each in total(parts)["publishers"]] == [1, 2, 4]


def test_the_sum_of_nothing_is_nothing() -> None:
    assert total([]) == {}


@given(st.dictionaries(st.text("abc"), st.integers() | st.text() | st.booleans() | st.none()))
def test_the_sum_of_one_is_itself(part: dict[str, Any]) -> None:
    assert total([part]) == part
