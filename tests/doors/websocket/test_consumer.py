"""A consumer's WebSocket: delivery, acknowledgement, redelivery, dead letters, coming back."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from magnetar.broker.doors.websocket import inbox, partitions, source
from magnetar.broker.doors.websocket.options import RECEIVER_QUEUE_MAX
from magnetar.broker.entry import EntryId
from magnetar.broker.port import (
    Acknowledged,
    ServiceNotReadyError,
    SubscriptionType,
    TopicNotFoundError,
)
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.broker.wire.pulsar.made import made
from magnetar.broker.wire.pulsar.metadata import batch_contents, messages
from tests.doors.fake_port import FakeConsumer
from tests.doors.websocket.conftest import (
    LEDGER_OF_THE_FAKE as LEDGER,
)
from tests.doors.websocket.conftest import NAME, Client, Rig, Serve, base64, id_of


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "RETURN_DELAY_FIRST_S", 0.01)


def payloads(received: Sequence[dict[str, Any]]) -> list[str]:
    return [each["payload"] for each in received]


def texts(*contents: bytes) -> list[str]:
    return [base64(each) for each in contents]


def consumers(rig: Rig) -> list[FakeConsumer]:
    return [each for each in rig.port.subscribed if not each.closed]


def store_batch(rig: Rig, *contents: bytes) -> None:
    parts = [(api.SingleMessageMetadata(payload_size=0), each) for each in contents]
    head = api.MessageMetadata(
        producer_name="p", sequence_id=0, publish_time=1, num_messages_in_batch=len(contents)
    )
    rig.put(made(head, batch_contents(parts), len(contents)))


def store_chunks(rig: Rig, content: bytes, count: int) -> None:
    size = -(-len(content) // count)
    for number in range(count):
        head = api.MessageMetadata(
            producer_name="p",
            sequence_id=1,
            publish_time=1,
            uuid="u",
            chunk_id=number,
            num_chunks_from_msg=count,
            total_chunk_msg_size=len(content),
        )
        rig.put(made(head, content[number * size : (number + 1) * size]))


async def test_a_message_comes_with_everything_that_was_said_about_it(rig: Rig) -> None:
    client = await rig.consumer()
    properties = [api.KeyValue(key="a", value="b")]
    rig.store(b"x", partition_key="k", event_time=1_700_000_000_000, properties=properties)
    (received,) = await client.receive()
    del received["messageId"]
    assert received == {
        "payload": "eA==",
        "properties": {"a": "b"},
        "publishTime": "2023-11-14T22:13:20.123Z",
        "eventTime": "2023-11-14T22:13:20.000Z",
        "redeliveryCount": 0,
        "key": "k",
    }


async def test_what_the_client_asked_for_reaches_the_port(rig: Rig) -> None:
    await rig.consumer(
        "subscriptionType=Key_Shared&consumerName=c&priorityLevel=3"
        "&subscriptionInitialPosition=Earliest"
    )
    request = rig.port.subscribed[0].request
    assert (request.type, request.consumer_name, request.priority, request.durable) == (
        SubscriptionType.KEY_SHARED,
        "c",
        3,
        True,
    )
    assert request.from_earliest


async def test_an_acknowledged_message_is_acknowledged_in_the_log(rig: Rig) -> None:
    client = await rig.consumer()
    rig.store(b"1", b"2")
    await client.receive(2, ack=True)
    await rig.until(lambda: rig.topic().subscriptions["s"].acknowledged == {0, 1})


async def test_an_id_from_an_earlier_connection_is_acknowledged_too(rig: Rig) -> None:
    client = await rig.consumer("subscriptionType=Shared")
    rig.store(b"1")
    store_batch(rig, b"2", b"3")
    received = await client.receive(3)
    again = await rig.consumer("subscriptionType=Shared")
    await again.ack(received[0])
    await again.ack(received[2])
    await rig.until(lambda: len(consumers(rig)[1].acks) == 2)
    assert consumers(rig)[1].acks == [Acknowledged(LEDGER, 0), Acknowledged(LEDGER, 1, [0b01])]


async def test_the_messages_of_a_batch_are_acknowledged_one_by_one(rig: Rig) -> None:
    client = await rig.consumer()
    store_batch(rig, b"1", b"2", b"3")
    received = await client.receive(3)
    assert payloads(received) == texts(b"1", b"2", b"3")
    await client.ack(received[1])
    await rig.until(lambda: bool(consumers(rig)[0].acks))
    assert consumers(rig)[0].acks == [Acknowledged(LEDGER, 0, [0b101])]


async def test_at_most_the_receiver_queue_is_with_the_client(rig: Rig) -> None:
    client = await rig.consumer("receiverQueueSize=2")
    rig.store(b"1", b"2", b"3")
    received = await client.receive(2)
    await client.silence()
    await client.ack(received[0])
    assert payloads(await client.receive()) == texts(b"3")


async def test_a_batch_beyond_the_receiver_queue_waits_in_the_door(rig: Rig) -> None:
    client = await rig.consumer("receiverQueueSize=1")
    store_batch(rig, b"1", b"2", b"3")
    rig.store(b"4")
    for content in (b"1", b"2", b"3", b"4"):
        (received,) = await client.receive()
        assert received["payload"] == base64(content)
        await client.silence(0.02)
        await client.ack(received)


async def test_a_client_that_acknowledges_gets_far_more_than_its_queue(rig: Rig) -> None:
    client = await rig.consumer("receiverQueueSize=10")
    rig.store(*(b"%d" % number for number in range(300)))
    received = await client.receive(300, ack=True)
    assert payloads(received) == texts(*(b"%d" % number for number in range(300)))
    await rig.until(lambda: len(rig.topic().subscriptions["s"].acknowledged) == 300)


async def test_in_pull_mode_a_client_gets_what_it_permits(rig: Rig) -> None:
    client = await rig.consumer("pullMode=true")
    rig.store(b"1", b"2", b"3", b"4")
    await client.silence()
    await client.tell(type="permit", permitMessages=1)
    assert payloads(await client.receive()) == texts(b"1")
    await client.silence()
    await client.tell(type="permit", permitMessages=2)
    assert payloads(await client.receive(2)) == texts(b"2", b"3")
    await client.silence()
    assert consumers(rig)[0].permits == 0


async def test_permits_hold_for_the_messages_of_batches_too(rig: Rig) -> None:
    client = await rig.consumer("pullMode=true")
    store_batch(rig, b"1", b"2", b"3")
    rig.store(b"4", b"5")
    await client.tell(type="permit", permitMessages=2)
    assert payloads(await client.receive(2)) == texts(b"1", b"2")
    await client.silence()
    await client.tell(type="permit", permitMessages=2)
    assert payloads(await client.receive(2)) == texts(b"3", b"4")
    await client.silence()


async def test_permits_mean_nothing_to_a_client_that_is_pushed_to(rig: Rig) -> None:
    client = await rig.consumer("receiverQueueSize=1")
    await client.tell(type="permit", permitMessages=10)
    rig.store(b"1", b"2")
    await client.receive()
    await client.silence()


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"messageId":"?"}',
        '{"messageId":"AAAA"}',
        '{"type":"negativeAcknowledge"}',
        '{"type":"permit"}',
        '{"type":"permit","permitMessages":0}',
        '{"type":"permit","permitMessages":-1}',
        '{"type":"permit","permitMessages":2147483648}',
        '{"type":"permit","permitMessages":"many"}',
    ],
)
async def test_what_cannot_be_understood_ends_the_connection(rig: Rig, text: str) -> None:
    client = await rig.consumer("pullMode=true")
    await client.socket.send(text)
    code, reason = await client.end()
    assert code == 1007
    assert str(reason).startswith("Failed to de-serialize from JSON")
    await rig.until(lambda: not consumers(rig))


async def test_a_negative_acknowledgement_brings_a_message_again_after_its_delay(rig: Rig) -> None:
    client = await rig.consumer("subscriptionType=Shared&negativeAckRedeliveryDelay=50")
    rig.store(b"1", b"2")
    first, second = await client.receive(2)
    await client.tell(type="negativeAcknowledge", messageId=first["messageId"])
    await client.ack(second)
    await client.silence(0.02)
    (again,) = await client.receive()
    assert (again["payload"], again["redeliveryCount"]) == (base64(b"1"), 1)
    assert again["messageId"] == first["messageId"]
    await client.ack(again)
    await rig.until(lambda: rig.topic().subscriptions["s"].acknowledged == {0, 1})


async def test_a_message_that_is_not_acknowledged_in_time_comes_again(rig: Rig) -> None:
    client = await rig.consumer("subscriptionType=Shared&ackTimeoutMillis=1000&receiverQueueSize=2")
    rig.store(b"1", b"2")
    received = await client.receive(2)
    await client.ack(received[1])
    assert [each["redeliveryCount"] for each in await client.receive()] == [1]
    await client.silence()


async def test_on_an_exclusive_subscription_everything_unacknowledged_comes_again(
    rig: Rig,
) -> None:
    client = await rig.consumer("negativeAckRedeliveryDelay=10&receiverQueueSize=3")
    rig.store(b"1", b"2", b"3")
    received = await client.receive(3)
    await client.ack(received[0])
    await client.tell(type="negativeAcknowledge", messageId=received[2]["messageId"])
    again = await client.receive(2)
    assert set(payloads(again)) == set(texts(b"2", b"3"))


async def test_a_message_that_fails_too_often_goes_to_the_dead_letter_topic(rig: Rig) -> None:
    client = await rig.consumer(
        "subscriptionType=Shared&maxRedeliverCount=1&negativeAckRedeliveryDelay=5"
    )
    rig.store(b"1", partition_key="k", properties=[api.KeyValue(key="a", value="b")])
    for count in range(2):
        (received,) = await client.receive()
        assert received["redeliveryCount"] == count
        await client.tell(type="negativeAcknowledge", messageId=received["messageId"])
    dead = rig.topic(f"{NAME}-s-DLQ")
    await rig.until(lambda: len(dead.bodies) == 1)
    (letter,) = messages(dead.bodies[0])
    assert (letter.payload, letter.key) == (b"1", "k")
    assert letter.properties == {
        "a": "b",
        "REAL_TOPIC": NAME,
        "ORIGIN_MESSAGE_ID": f"{LEDGER}:0:-1",
    }
    await rig.until(lambda: rig.topic().subscriptions["s"].acknowledged == {0})
    await client.silence()


async def test_a_message_that_others_failed_on_is_not_even_shown(rig: Rig) -> None:
    query = "subscriptionType=Shared&maxRedeliverCount=1&deadLetterTopic=dead"
    rig.store(b"1")
    first = await rig.consumer(f"{query}&subscriptionInitialPosition=Earliest&ackTimeoutMillis=0")
    await first.receive()
    rig.topic().subscriptions["s"].redeliveries[0] = 5
    second = await rig.consumer(query)
    first.socket.transport.abort()
    await rig.until(lambda: len(rig.topic("dead").bodies) == 1)
    await second.silence()


async def test_a_dead_letter_that_cannot_be_stored_is_delivered_again(rig: Rig) -> None:
    client = await rig.consumer(
        "subscriptionType=Shared&maxRedeliverCount=1&negativeAckRedeliveryDelay=5"
    )
    rig.store(b"1")
    rig.port.failures["open_producer"] = TopicNotFoundError("no such topic")
    for _ in range(2):
        (received,) = await client.receive()
        await client.tell(type="negativeAcknowledge", messageId=received["messageId"])
    await asyncio.sleep(0.05)
    del rig.port.failures["open_producer"]
    await rig.until(lambda: len(rig.topic(f"{NAME}-s-DLQ").bodies) == 1)
    await rig.until(lambda: rig.topic().subscriptions["s"].acknowledged == {0})


async def test_exclusive_subscriptions_have_no_dead_letters(rig: Rig) -> None:
    client = await rig.consumer("maxRedeliverCount=1&negativeAckRedeliveryDelay=5")
    rig.store(b"1")
    for _ in range(4):
        (received,) = await client.receive()
        await client.tell(type="negativeAcknowledge", messageId=received["messageId"])
    assert f"{NAME}-s-DLQ" not in rig.port.topic_table


async def test_chunks_come_as_one_message_and_are_acknowledged_as_one(rig: Rig) -> None:
    client = await rig.consumer("receiverQueueSize=1")
    store_chunks(rig, b"0123456789", 4)
    rig.store(b"next")
    (received,) = await client.receive()
    assert received["payload"] == base64(b"0123456789")
    found = id_of(received)
    assert (found.entryId, found.first_chunk_message_id.entryId) == (3, 0)
    await client.ack(received)
    await rig.until(lambda: rig.topic().subscriptions["s"].acknowledged == {0, 1, 2, 3})
    assert payloads(await client.receive()) == texts(b"next")


async def test_large_chunks_keep_their_order_with_other_messages(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "INLINE_BYTES_MAX", 50)
    client = await rig.consumer()
    content = bytes(range(256)) * 4
    rig.store(b"before")
    store_chunks(rig, content, 4)
    rig.store(b"x" * 100, b"after")
    received = await client.receive(4)
    assert payloads(received) == texts(b"before", content, b"x" * 100, b"after")


async def test_what_cannot_be_opened_is_acknowledged_and_passed_over(rig: Rig) -> None:
    client = await rig.consumer("receiverQueueSize=1")
    rig.store(b"not lz4", compression=api.LZ4, uncompressed_size=100)
    rig.store(b"good")
    assert payloads(await client.receive()) == texts(b"good")
    await rig.until(lambda: 0 in rig.topic().subscriptions["s"].acknowledged)


@pytest.mark.parametrize(
    ("action", "shown", "acknowledged"),
    [("FAIL", False, False), ("DISCARD", False, True), ("CONSUME", True, False)],
)
async def test_an_encrypted_message_is_dealt_with_as_asked(
    rig: Rig, action: str, shown: bool, acknowledged: bool
) -> None:
    client = await rig.consumer(f"cryptoFailureAction={action}&receiverQueueSize=1")
    keys = [api.EncryptionKeys(key="alice", value=b"\1")]
    rig.store(b"secret", encryption_keys=keys, encryption_param=b"\2")
    rig.store(b"plain")
    (received,) = await client.receive()
    assert ("encryptionContext" in received) is shown
    assert (0 in rig.topic().subscriptions["s"].acknowledged) is acknowledged


async def test_partitions_are_consumed_together_and_acknowledged_apart(rig: Rig) -> None:
    rig.port.partitioned[NAME] = 3
    client = await rig.consumer("receiverQueueSize=2")
    for partition in range(3):
        rig.store(b"a", b"b", name=f"{NAME}-partition-{partition}")
    received = await client.receive(6, ack=True)
    assert {id_of(each).partition for each in received} == {0, 1, 2}
    for partition in range(3):
        topic = rig.topic(f"{NAME}-partition-{partition}")
        done = topic.subscriptions["s"]
        await rig.until(lambda done=done: done.acknowledged == {0, 1})  # type: ignore[misc]


async def test_partitions_that_are_added_are_consumed_from_their_beginning(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "INTERVAL_S", 0.02)
    rig.port.partitioned[NAME] = 1
    client = await rig.consumer()
    rig.store(b"early", name=f"{NAME}-partition-1")
    rig.port.partitioned[NAME] = 2
    assert payloads(await client.receive()) == texts(b"early")


async def test_several_topics_come_over_one_connection(rig: Rig) -> None:
    client = await rig.connect("v3/consumer/s?topics=a,b")
    for name in "ab":
        rig.store(name.encode(), name=name)
        assert payloads(await client.receive(ack=True)) == texts(name.encode())
        done = rig.topic(name).subscriptions["s"]
        await rig.until(lambda done=done: done.acknowledged == {0})  # type: ignore[misc]


def fitting(rig: Rig) -> list[str]:
    return sorted(each.request.topic.local for each in consumers(rig))


PATTERN = "v3/consumer/s?topicsPattern=persistent://public/default/a.*"


async def test_all_topics_that_fit_a_pattern_come_over_one_connection(rig: Rig) -> None:
    for name in ("a1", "a2", "b1", "non-persistent://public/default/a3"):
        rig.topic(name)
    client = await rig.connect(PATTERN)
    for name in ("a1", "a2"):
        rig.store(name.encode(), name=name)
        assert payloads(await client.receive(ack=True)) == texts(name.encode())
    assert fitting(rig) == ["a1", "a2"]
    await client.socket.close()
    await rig.until(lambda: not consumers(rig) and not rig.port.watches)


async def test_topics_that_fit_are_consumed_when_they_come_and_forgotten_when_they_go(
    rig: Rig,
) -> None:
    client = await rig.connect(PATTERN)
    await client.tell(type="isEndOfTopic")
    assert await client.hear() == {"endOfTopic": False}
    rig.store(b"early", name="a1")
    rig.port.tell(a1=True, b1=True)
    assert payloads(await client.receive()) == texts(b"early")
    await rig.until(lambda: fitting(rig) == ["a1"])
    rig.port.tell(a1=False)
    await rig.until(lambda: not consumers(rig))
    rig.port.tell(a1=True)
    await rig.until(lambda: fitting(rig) == ["a1"])
    rig.store(b"again", name="a1")
    assert payloads(await client.receive()) == texts(b"again")


async def test_a_partitioned_topic_that_fits_is_one_and_grows(rig: Rig) -> None:
    name = "persistent://public/default/a"
    rig.port.partitioned[name] = 2
    rig.topic(f"{name}-partition-0")
    client = await rig.connect(PATTERN)
    assert fitting(rig) == ["a-partition-0", "a-partition-1"]
    rig.port.tell(**{"a-partition-1": True})
    rig.store(b"x", name=f"{name}-partition-1")
    assert payloads(await client.receive()) == texts(b"x")
    assert fitting(rig) == ["a-partition-0", "a-partition-1"]


async def test_more_topics_than_one_consumer_may_have_are_refused(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("magnetar.broker.doors.websocket.fitting.FITTING_MAX", 2)
    for name in ("a1", "a2", "a3"):
        rig.topic(name)
    _, reason = await rig.refused(PATTERN)
    assert "3 topics fit topicsPattern, allowed: 2" in reason
    await rig.until(lambda: not rig.port.watches)
    rig.port.tell(a3=False)
    await rig.connect(PATTERN)
    rig.port.tell(a4=True)
    await asyncio.sleep(0.1)
    assert fitting(rig) == ["a1", "a2"]


async def test_one_topic_that_cannot_be_had_refuses_them_all(rig: Rig) -> None:
    status, _ = await rig.refused("v3/consumer/s?topics=a,persistent://no/where/b")
    assert status == 404
    await rig.until(lambda: not consumers(rig))


async def test_a_subscription_is_deleted_when_the_client_says_so(rig: Rig) -> None:
    client = await rig.consumer()
    await client.tell(type="unsubscribe")
    await rig.until(lambda: "s" not in rig.topic().subscriptions)
    await client.tell(type="ping")
    assert await client.hear() == {"result": "ok"}


async def test_a_subscription_that_others_use_stays(rig: Rig) -> None:
    client = await rig.consumer("subscriptionType=Shared")
    await rig.consumer("subscriptionType=Shared")
    await client.tell(type="unsubscribe")
    code, reason = await client.end()
    assert (code, reason) == (1011, "the subscription stays: others are connected")
    assert "s" in rig.topic().subscriptions


async def test_a_client_learns_whether_anything_can_follow(rig: Rig) -> None:
    client = await rig.consumer()
    await client.tell(type="isEndOfTopic")
    assert await client.hear() == {"endOfTopic": False}
    consumers(rig)[0].events.end_of_topic()
    await client.tell(type="isEndOfTopic")
    assert await client.hear() == {"endOfTopic": True}


async def test_a_consumer_that_the_broker_closes_comes_back(rig: Rig) -> None:
    client = await rig.consumer()
    rig.store(b"1")
    await client.receive()
    (first,) = consumers(rig)
    await first.close()
    first.events.closed(ServiceNotReadyError("unloaded"))
    received = await client.receive()
    assert payloads(received) == texts(b"1")
    assert received[0]["redeliveryCount"] == 1
    rig.store(b"2")
    assert payloads(await client.receive()) == texts(b"2")


async def test_a_consumer_that_cannot_come_back_says_why(rig: Rig) -> None:
    client = await rig.consumer()
    (first,) = consumers(rig)
    await first.close()
    rig.port.failures["subscribe"] = TopicNotFoundError("the topic was deleted")
    first.events.closed(ServiceNotReadyError("deleted"))
    assert await client.end() == (1011, f"{NAME}: the topic was deleted")


async def test_a_subscription_that_nobody_keeps_goes_on_behind_what_was_sent(rig: Rig) -> None:
    client = await rig.consumer("subscriptionMode=NonDurable")
    rig.store(b"1")
    store_batch(rig, b"2", b"3")
    await client.receive(3)
    (first,) = consumers(rig)
    await first.close()
    del rig.topic().subscriptions["s"]
    first.events.closed(None)
    rig.store(b"4")
    assert payloads(await client.receive()) == texts(b"4")
    assert rig.port.subscribed[-1].request.start == EntryId(LEDGER, 1)


async def test_a_client_that_leaves_gives_back_what_it_had(rig: Rig) -> None:
    client = await rig.consumer("subscriptionType=Shared")
    rig.store(b"1")
    await client.receive()
    client.socket.transport.abort()
    other = await rig.consumer("subscriptionType=Shared")
    assert payloads(await other.receive()) == texts(b"1")


async def test_a_client_that_does_not_read_is_not_sent_everything(serve: Serve) -> None:
    rig = await serve(write_buffer_bytes_per_connection_max=64 * 1024)
    client = await rig.consumer("subscriptionType=Shared")
    client.socket.transport.pause_reading()
    rig.store(*[bytes(20_000)] * 300)
    await asyncio.sleep(0.3)
    taken = rig.topic().subscriptions["s"].position
    assert taken < 60, "the door took more than its buffers and the kernel's hold"
    client.socket.transport.resume_reading()
    assert len(await client.receive(300, ack=True)) == 300


async def test_a_consumer_of_a_topic_in_memory_goes_on_however_little_ids_say(rig: Rig) -> None:
    client = await rig.consumer("receiverQueueSize=2", topic="non-persistent/public/default/m")
    rig.store(*[b"x"] * 6, name="non-persistent://public/default/m")
    assert len(await client.receive(6, ack=True)) == 6


async def test_a_queue_may_not_be_larger_than_pulsars(rig: Rig) -> None:
    await rig.consumer("receiverQueueSize=100000")
    assert consumers(rig)[0].permits == RECEIVER_QUEUE_MAX


async def test_a_text_that_is_cut_into_frames_is_one_text(rig: Rig) -> None:
    client: Client = await rig.consumer()
    await client.socket.send(iter(["{", '"type":"pi', 'ng"}']))
    assert await client.hear() == {"result": "ok"}
    assert json.loads("{}") == {}
