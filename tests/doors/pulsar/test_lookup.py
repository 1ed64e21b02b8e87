"""Questions about topics."""

import asyncio

import pytest

from magnetar.broker.doors.pattern import matching
from magnetar.broker.doors.pulsar.lookup import compiled
from magnetar.broker.doors.pulsar.requests import REQUESTS_IN_FLIGHT_MAX
from magnetar.broker.port import MetadataError, NamespaceNotFoundError, TopicNotFoundError
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from tests.doors.pulsar.conftest import Rig
from tests.doors.raw_client import command

FAILED = api.CommandLookupTopicResponse.Failed


async def test_a_lookup_says_where_to_connect(rig: Rig) -> None:
    client = await rig.client()
    answer = await client.ask("LOOKUP", "LOOKUP_RESPONSE", topic="t", request_id=1)
    assert answer.response == api.CommandLookupTopicResponse.Connect
    assert answer.brokerServiceUrl == rig.port.url
    assert answer.authoritative


async def test_an_unknown_listener_name_fails(rig: Rig) -> None:
    client = await rig.client()
    answer = await client.ask(
        "LOOKUP", "LOOKUP_RESPONSE", topic="t", request_id=1, advertised_listener_name="nowhere"
    )
    assert (answer.response, answer.error) == (FAILED, api.NotAllowedError)


@pytest.mark.parametrize(
    ("topic", "error"),
    [
        ("persistent://a/b/c/d", api.InvalidTopicName),
        ("", api.InvalidTopicName),
        ("no tenant/ns/t", api.InvalidTopicName),
        ("ftp://public/default/t", api.InvalidTopicName),
        ("persistent://public/missing/t", api.TopicNotFound),
    ],
)
async def test_a_bad_name_gets_its_own_error(rig: Rig, topic: str, error: int) -> None:
    client = await rig.client()
    answer = await client.ask("LOOKUP", "LOOKUP_RESPONSE", topic=topic, request_id=1)
    assert (answer.response, answer.error) == (FAILED, error)
    answer = await client.ask(
        "PARTITIONED_METADATA", "PARTITIONED_METADATA_RESPONSE", topic=topic, request_id=2
    )
    assert (answer.response, answer.error) == (
        api.CommandPartitionedTopicMetadataResponse.Failed,
        error,
    )


async def test_partitions_are_counted(rig: Rig) -> None:
    rig.port.partitioned["persistent://public/default/many"] = 4
    client = await rig.client()
    for topic, count in (("many", 4), ("t", 0), ("many-partition-3", 0)):
        answer = await client.ask(
            "PARTITIONED_METADATA", "PARTITIONED_METADATA_RESPONSE", topic=topic, request_id=1
        )
        assert answer.partitions == count


async def test_a_topic_that_may_not_be_created_is_not_found(rig: Rig) -> None:
    rig.port.failures["partitions"] = TopicNotFoundError("no such topic")
    client = await rig.client()
    answer = await client.ask(
        "PARTITIONED_METADATA", "PARTITIONED_METADATA_RESPONSE", topic="t", request_id=1
    )
    assert (answer.error, answer.message) == (api.TopicNotFound, "no such topic")


async def test_a_namespace_that_there_is_not_has_no_topics(rig: Rig) -> None:
    rig.port.failures["topics"] = NamespaceNotFoundError("no such namespace")
    client = await rig.client()
    answer = await client.ask(
        "GET_TOPICS_OF_NAMESPACE",
        "GET_TOPICS_OF_NAMESPACE_RESPONSE",
        request_id=1,
        namespace="public/none",
    )
    assert list(answer.topics) == []


async def test_the_topics_of_a_namespace_come_with_a_hash_that_saves_the_next_list(
    rig: Rig,
) -> None:
    for name in ("b", "a-partition-1", "a-partition-0", "non-persistent://public/default/n"):
        rig.port.topic(name)
    client = await rig.client()

    async def ask(**fields: object) -> api.CommandGetTopicsOfNamespaceResponse:
        answer: api.CommandGetTopicsOfNamespaceResponse = await client.ask(
            "GET_TOPICS_OF_NAMESPACE",
            "GET_TOPICS_OF_NAMESPACE_RESPONSE",
            request_id=1,
            namespace="public/default",
            **fields,
        )
        return answer

    answer = await ask()
    assert {each.rpartition("/")[2] for each in answer.topics} == {
        "b",
        "a-partition-0",
        "a-partition-1",
    }
    assert answer.changed
    again = await ask(topics_hash=answer.topics_hash)
    assert not again.changed
    assert list(again.topics) == []
    everything = await ask(mode=api.CommandGetTopicsOfNamespace.ALL)
    assert len(everything.topics) == 4
    filtered = await ask(topics_pattern="persistent://public/default/a.*")
    assert filtered.filtered
    assert len(filtered.topics) == 2
    assert filtered.topics_hash != answer.topics_hash


@pytest.mark.parametrize("pattern", ["(", "a" * 2000, "(" * 900])
async def test_a_bad_pattern_is_an_error_and_nothing_worse(rig: Rig, pattern: str) -> None:
    client = await rig.client()
    error = await client.ask(
        "GET_TOPICS_OF_NAMESPACE",
        "ERROR",
        request_id=1,
        namespace="public/default",
        topics_pattern=pattern,
    )
    assert (error.error, error.request_id) == (api.MetadataError, 1)


async def test_a_pattern_has_to_fit_the_whole_name_without_domain_and_partition() -> None:
    names = [f"persistent://public/default/{each}" for each in ("a", "ab", "a-partition-7")]
    assert await matching(names, compiled("public/default/a")) == [names[0], names[2]]
    assert await matching(names, compiled("public/default/a.*")) == names
    with pytest.raises(MetadataError):
        compiled("[")


async def test_questions_beyond_those_that_may_wait_are_not_read_before_some_are_answered(
    rig: Rig,
) -> None:
    rig.port.gate = asyncio.Event()
    client = await rig.client()
    await client.send(*(command("LOOKUP", topic="t", request_id=number) for number in range(3_000)))
    (connection,) = rig.door._connections
    await rig.until(lambda: connection.held)
    await asyncio.sleep(0.05)
    assert rig.metric("pulsar_broker_lookup_pending_requests") == REQUESTS_IN_FLIGHT_MAX
    rig.port.gate.set()
    numbers = [(await client.expect("LOOKUP_RESPONSE")).request_id for _ in range(3_000)]
    assert sorted(numbers) == list(range(3_000))
    assert rig.metric("pulsar_broker_lookup_answers_total") == 3_000
    await client.ask("PING", "PONG")
