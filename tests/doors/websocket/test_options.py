"""Addresses: every parameter, its default, its bounds, and what is refused."""

from base64 import b64encode
from urllib.parse import quote

import pytest

from magnetar.broker.doors.websocket.options import (
    INT_MAX,
    PARAMETERS_MAX,
    RECEIVER_QUEUE_MAX,
    ConsumerOptions,
    CryptoFailure,
    NoSuchPathError,
    OptionError,
    ProducerOptions,
    ReaderOptions,
    options_of,
)
from magnetar.broker.port import SubscriptionType
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.names import InvalidNameError, TopicName

PLACE = "persistent/t/n/topic"


def producer(query: str) -> ProducerOptions:
    found = options_of(f"/ws/v2/producer/{PLACE}", query)
    assert isinstance(found, ProducerOptions)
    return found


def consumer(query: str) -> ConsumerOptions:
    found = options_of(f"/ws/v2/consumer/{PLACE}/s", query)
    assert isinstance(found, ConsumerOptions)
    return found


def reader(query: str) -> ReaderOptions:
    found = options_of(f"/ws/v2/reader/{PLACE}", query)
    assert isinstance(found, ReaderOptions)
    return found


def test_a_producer_without_parameters_has_the_defaults_of_pulsars_proxy() -> None:
    assert producer("") == ProducerOptions(TopicName.parse("persistent://t/n/topic"))
    assert not producer("").batching
    assert producer("").send_timeout_ms == 30_000


def test_all_parameters_of_a_producer_are_taken() -> None:
    asked = producer(
        "producerName=p&initialSequenceId=41&hashingScheme=Murmur3_32Hash&sendTimeoutMillis=5"
        "&batchingEnabled=TRUE&batchingMaxMessages=7&batchingMaxPublishDelay=9&compressionType=ZSTD"
        "&maxPendingMessages=3&messageRoutingMode=RoundRobinPartition"
    )
    assert asked == ProducerOptions(
        TopicName.parse("persistent://t/n/topic"),
        name="p",
        initial_sequence_id=41,
        murmur=True,
        round_robin=True,
        send_timeout_ms=5,
        pending_max=3,
        batching=True,
        batch_messages_max=7,
        batch_delay_ms=9,
        compression=api.ZSTD,
    )


def test_all_parameters_of_a_consumer_are_taken() -> None:
    asked = consumer(
        "ackTimeoutMillis=2000&subscriptionType=Key_Shared&subscriptionMode=NonDurable"
        "&subscriptionInitialPosition=Earliest&receiverQueueSize=5&consumerName=c&priorityLevel=2"
        "&maxRedeliverCount=3&deadLetterTopic=dead&pullMode=true&negativeAckRedeliveryDelay=10"
        "&cryptoFailureAction=CONSUME"
    )
    assert asked == ConsumerOptions(
        topics=[TopicName.parse("persistent://t/n/topic")],
        subscription="s",
        type=SubscriptionType.KEY_SHARED,
        durable=False,
        from_earliest=True,
        name="c",
        priority=2,
        queue=5,
        pull=True,
        ack_timeout_ms=2_000,
        negative_ack_delay_ms=10,
        redeliveries_max=3,
        dead_letter_topic=TopicName.parse("dead"),
        crypto_failure=CryptoFailure.CONSUME,
    )


def test_dead_letters_go_to_the_name_that_java_would_choose() -> None:
    found = consumer("maxRedeliverCount=1").dead_letter_topic
    assert str(found) == "persistent://t/n/topic-s-DLQ"


def test_a_receiver_queue_has_at_least_one_place_and_at_most_a_thousand() -> None:
    assert consumer("receiverQueueSize=0").queue == 1
    assert reader("receiverQueueSize=99999").queue == RECEIVER_QUEUE_MAX


def test_a_reader_begins_where_it_is_told() -> None:
    place = api.MessageIdData(ledgerId=3, entryId=4, batch_index=1)
    text = b64encode(place.SerializeToString()).decode().replace("+", "%2B")
    assert reader(f"messageId={text}&readerName=r").start == place
    assert reader("messageId=earliest").earliest
    assert not reader("").earliest


def test_several_topics_are_consumed_under_one_subscription() -> None:
    found = options_of("/ws/v3/consumer/s%2F1", "topics=a,persistent://t/n/b,a")
    assert isinstance(found, ConsumerOptions)
    assert found.subscription == "s/1"
    assert list(map(str, found.topics)) == ["persistent://public/default/a", "persistent://t/n/b"]


def test_names_in_a_path_are_escaped() -> None:
    found = options_of("/ws/v2/consumer/persistent/t/n/a%20b/s%2F%C3%A9", "")
    assert isinstance(found, ConsumerOptions)
    assert (found.topics[0].local, found.subscription) == ("a b", "s/é")


def test_the_first_of_several_values_counts_and_unknown_ones_are_passed_over() -> None:
    assert producer("producerName=a&producerName=b&what=ever&token=t").name == "a"


@pytest.mark.parametrize(
    "query",
    [
        "initialSequenceId=x",
        "initialSequenceId=-2",
        "initialSequenceId=99999999999999999999",
        "hashingScheme=MD5",
        "sendTimeoutMillis=-1",
        f"sendTimeoutMillis={INT_MAX + 1}",
        "batchingMaxMessages=-1",
        "batchingMaxPublishDelay=0",
        "compressionType=zip",
        "maxPendingMessages=-1",
        "maxPendingMessages=",
        "messageRoutingMode=Anywhere",
        "encryptionKeys=alice,bob",
        "encryptionKeys=e30=",
        "producerName=%FF",
        "&".join(f"p{i}=1" for i in range(PARAMETERS_MAX + 1)),
    ],
)
def test_a_producers_parameter_that_cannot_be_is_refused(query: str) -> None:
    with pytest.raises(OptionError):
        producer(query)


@pytest.mark.parametrize(
    "query",
    [
        "ackTimeoutMillis=999",
        "ackTimeoutMillis=1e3",
        "subscriptionType=exclusive",
        "subscriptionMode=durable",
        "subscriptionInitialPosition=First",
        "receiverQueueSize=-1",
        "receiverQueueSize=many",
        "priorityLevel=-1",
        "maxRedeliverCount=0",
        "deadLetterTopic=dead",
        "negativeAckRedeliveryDelay=-5",
    ],
)
def test_a_consumers_parameter_that_cannot_be_is_refused(query: str) -> None:
    with pytest.raises(OptionError):
        consumer(query)


@pytest.mark.parametrize("query", ["messageId=first", "messageId=AAAA", "receiverQueueSize=-1"])
def test_a_readers_parameter_that_cannot_be_is_refused(query: str) -> None:
    with pytest.raises(OptionError):
        reader(query)


@pytest.mark.parametrize(
    "query",
    [
        "",
        "topics=",
        "topics=a,,b",
        "topics=a&topicsPattern=b",
        "topicsPattern=a(",
        "topicsPattern=a&maxRedeliverCount=3",
    ],
)
def test_several_topics_must_be_named(query: str) -> None:
    with pytest.raises(OptionError):
        options_of("/ws/v3/consumer/s", query)


@pytest.mark.parametrize(
    "path",
    [
        "/ws/v2/producer/persistent/t/n/",
        "/ws/v2/producer/sometimes/t/n/a",
        "/ws/v2/producer/persistent/t!/n/a",
        "/ws/v2/producer/persistent/t/n/a%2Fb",
        "/ws/v2/consumer/persistent/t/n/a/",
        "/ws/v2/consumer/persistent/t/n/a/%00",
        "/ws/v2/reader/persistent/t/n/%FF",
    ],
)
def test_a_name_that_is_none_is_refused(path: str) -> None:
    with pytest.raises(InvalidNameError):
        options_of(path, "")


@pytest.mark.parametrize(
    "path",
    [
        "/ws/v2",
        "/ws/v2/producer/persistent/t/n",
        "/ws/v2/producer/persistent/t/n/a/b",
        "/ws/v2/consumer/persistent/t/n/a",
        "/ws/producer/persistent/t/c/n/a",
        "/ws/v3/reader/s",
        "/ws/v4/consumer/s",
    ],
)
def test_a_path_that_is_none_is_not_there(path: str) -> None:
    with pytest.raises(NoSuchPathError):
        options_of(path, "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("persistent://t/n/a.*", ("persistent", "t/n", "t/n/a.*")),
        ("non-persistent://t/n/a.*", ("non-persistent", "t/n", "t/n/a.*")),
        ("t/n/a.*", ("persistent", "t/n", "t/n/a.*")),
        ("a.*", ("persistent", "public/default", "public/default/a.*")),
    ],
)
def test_a_pattern_is_about_one_namespace(text: str, expected: tuple[str, str, str]) -> None:
    found = options_of("/ws/v3/consumer/s", f"topicsPattern={quote(text)}")
    assert isinstance(found, ConsumerOptions)
    assert found.pattern is not None
    domain, namespace, expression = found.pattern
    assert (domain.value, str(namespace), expression) == expected
    assert found.topics == []


@pytest.mark.parametrize("text", ["ftp://t/n/a", "persistent://t*/n/a", "persistent://t/.*/a"])
def test_a_pattern_of_namespaces_is_refused(text: str) -> None:
    with pytest.raises(InvalidNameError):
        options_of("/ws/v3/consumer/s", f"topicsPattern={quote(text)}")
