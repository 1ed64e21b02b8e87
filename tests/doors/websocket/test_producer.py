"""A producer's WebSocket: answers, batches, partitions, limits, and topics that move."""

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from magnetar.broker.doors.websocket import outbox
from magnetar.broker.doors.websocket.producer import java_hash, murmur_hash
from magnetar.broker.port import (
    ProducerBusyError,
    ProducerFencedError,
    ServiceNotReadyError,
    TopicTerminatedError,
)
from magnetar.broker.run import HIGHEST_SEQUENCE_ID, MESSAGES, SEQUENCE_ID
from magnetar.broker.wire.pulsar.metadata import messages
from tests.doors.websocket.conftest import LEDGER_OF_THE_FAKE as LEDGER
from tests.doors.websocket.conftest import NAME, Rig, Serve, base64, id_of


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "REOPEN_DELAY_FIRST_S", 0.01)


async def test_a_message_is_stored_and_answered_with_its_id_and_context(rig: Rig) -> None:
    client = await rig.producer("producerName=me")
    answer = await client.publish(b"hi", properties={"a": 1}, key="k", context={"n": 1})
    assert (answer["result"], answer["context"]) == ("ok", {"n": 1})
    assert (id_of(answer).ledgerId, id_of(answer).entryId) == (LEDGER, 0)
    (stored,) = messages(rig.topic().bodies[0])
    assert (stored.payload, stored.properties, stored.key) == (b"hi", {"a": "1"}, "k")
    assert (stored.producer_name, stored.sequence_id) == ("me", 0)


async def test_nothing_is_answered_before_it_is_stored(rig: Rig) -> None:
    client = await rig.producer()
    rig.port.hold = True
    await client.tell(payload="eA==")
    await client.silence()
    rig.port.commit()
    assert (await client.hear())["result"] == "ok"


async def test_messages_of_one_read_are_one_run(rig: Rig) -> None:
    client = await rig.producer()
    rig.port.hold = True
    for _ in range(50):
        await client.tell(payload="eA==")
    await rig.until(lambda: len(rig.topic().rows) == 50)
    assert rig.port.published_runs < 25
    rig.port.commit()
    entries = [id_of(each).entryId for each in await client.receive(50)]
    assert entries == list(range(50))


async def test_sequence_ids_go_on_from_where_the_client_or_the_broker_says(rig: Rig) -> None:
    client = await rig.producer("initialSequenceId=41&producerName=me")
    await client.publish()
    await client.publish()
    assert [messages(body)[0].sequence_id for body in rig.topic().bodies] == [42, 43]


async def test_a_batch_closes_when_it_is_full(rig: Rig) -> None:
    query = "batchingEnabled=true&batchingMaxMessages=3&batchingMaxPublishDelay=60000"
    client = await rig.producer(query)
    for _ in range(3):
        await client.tell(payload="eA==")
    ids = [id_of(each) for each in await client.receive(3)]
    assert [(each.entryId, each.batch_index, each.batch_size) for each in ids] == [
        (0, 0, 3),
        (0, 1, 3),
        (0, 2, 3),
    ]
    row = rig.topic().run(0, 1)
    assert (row.u32(MESSAGES)[0], row.i64(SEQUENCE_ID)[0], row.i64(HIGHEST_SEQUENCE_ID)[0]) == (
        3,
        0,
        2,
    )


async def test_a_batch_closes_when_its_time_is_up(rig: Rig) -> None:
    client = await rig.producer("batchingEnabled=true&batchingMaxPublishDelay=20")
    answer = await client.publish()
    assert (id_of(answer).batch_index, id_of(answer).batch_size) == (0, 1)


async def test_what_waits_for_its_batch_is_stored_when_the_client_leaves(rig: Rig) -> None:
    client = await rig.producer("batchingEnabled=true&batchingMaxPublishDelay=60000")
    await client.tell(payload="eA==")
    await client.tell(payload="eQ==")
    await client.tell(type="ping")
    assert await client.hear() == {"result": "ok"}
    await client.socket.close()
    await rig.until(lambda: len(rig.topic().bodies) == 1)
    assert [each.payload for each in messages(rig.topic().bodies[0])] == [b"x", b"y"]


async def test_order_holds_between_batches_and_messages_that_go_alone(rig: Rig) -> None:
    client = await rig.producer("batchingEnabled=true&batchingMaxPublishDelay=60000")
    await client.tell(payload=base64(b"1"))
    await client.tell(payload=base64(b"2"), deliverAt=1)
    await client.tell(payload=base64(b"3"), key="k")
    await client.tell(payload=base64(b"4"))
    await client.receive(2)
    await client.socket.close()
    await rig.until(lambda: len(rig.topic().bodies) == 4)
    found = [each.payload for body in rig.topic().bodies for each in messages(body)]
    assert found == [b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize("kind", ["LZ4", "ZLIB", "ZSTD", "SNAPPY"])
@pytest.mark.parametrize("batching", ["true", "false"])
async def test_contents_are_compressed_as_asked(rig: Rig, kind: str, batching: str) -> None:
    client = await rig.producer(f"compressionType={kind}&batchingEnabled={batching}")
    await client.publish(b"x" * 1000)
    assert len(rig.topic().bodies[0]) < 500
    assert messages(rig.topic().bodies[0])[0].payload == b"x" * 1000


async def test_a_large_message_is_decoded_apart_and_keeps_its_turn(rig: Rig) -> None:
    client = await rig.producer("compressionType=ZLIB")
    large = bytes(1_500_000)
    for payload in (b"1", large, b"3"):
        await client.tell(payload=base64(payload))
    await client.receive(3)
    assert [messages(body)[0].payload for body in rig.topic().bodies] == [b"1", large, b"3"]


async def test_keyed_messages_keep_to_a_partition_and_others_stay_together(rig: Rig) -> None:
    rig.port.partitioned[NAME] = 4
    client = await rig.producer()
    keyed = [await client.publish(key=key) for key in "abcdabcd"]
    assert [id_of(each).partition for each in keyed] == [java_hash(key) % 4 for key in "abcdabcd"]
    assert len({id_of(await client.publish()).partition for _ in range(5)}) == 1
    round_robin = await rig.producer("messageRoutingMode=RoundRobinPartition")
    assert {id_of(await round_robin.publish()).partition for _ in range(4)} == {0, 1, 2, 3}
    hashed = await rig.producer("hashingScheme=Murmur3_32Hash")
    assert id_of(await hashed.publish(key="key")).partition == murmur_hash("key") % 4


def test_keys_hash_as_in_pulsars_libraries() -> None:
    assert java_hash("key1") == 3288498
    assert java_hash("") == 0
    assert java_hash("a" * 100) < 2**31
    assert java_hash("\U0001f600") == 31 * 0xD83D + 0xDE00
    assert murmur_hash("key1") < 2**31


@pytest.mark.parametrize(
    ("text", "result", "context"),
    [
        ("{", "send-error:3", None),
        ('{"context":"c"}', "send-error:7", "c"),
        ('{"payload":"?","context":5}', "send-error:7", 5),
    ],
)
async def test_what_cannot_be_published_is_refused_and_the_connection_goes_on(
    rig: Rig, text: str, result: str, context: Any
) -> None:
    client = await rig.producer()
    await client.socket.send(text)
    answer = await client.hear()
    assert (answer["result"], answer.get("context")) == (result, context)
    assert answer["errorMsg"]
    assert (await client.publish())["result"] == "ok"


async def test_a_message_that_is_too_large_is_refused_and_one_below_is_not(serve: Serve) -> None:
    rig = await serve(message_bytes_max=100_000)
    client = await rig.producer()
    assert (await client.publish(bytes(100_000)))["result"] == "ok"
    answer = await client.publish(bytes(100_001))
    assert answer["result"] == "send-error:8"
    assert "100001" in answer["errorMsg"]
    much = await client.publish(b"x", properties={"a": "b" * 150_000})
    assert much["result"] == "send-error:8"


async def test_a_text_beyond_every_limit_ends_the_connection(serve: Serve) -> None:
    rig = await serve(message_bytes_max=100_000)
    client = await rig.producer()
    with suppress(ConnectionClosed):
        await client.tell(payload=base64(bytes(500_000)))
    assert (await client.end())[0] == 1009


async def test_a_full_queue_refuses_as_pulsars_does(rig: Rig) -> None:
    client = await rig.producer("maxPendingMessages=2")
    rig.port.hold = True
    for context in range(3):
        await client.tell(payload="eA==", context=context)
    refused = await client.hear()
    assert refused == {
        "result": "send-error:8",
        "errorMsg": "Producer send queue is full",
        "context": 2,
    }
    rig.port.commit()
    assert {each["result"] for each in await client.receive(2)} == {"ok"}


async def test_messages_of_an_open_batch_count_as_waiting_too(rig: Rig) -> None:
    query = "maxPendingMessages=2&batchingEnabled=true&batchingMaxPublishDelay=60000"
    client = await rig.producer(query)
    for _ in range(3):
        await client.tell(payload="eA==")
    assert (await client.hear())["result"] == "send-error:8"


async def test_bytes_that_wait_for_the_disk_are_bounded(serve: Serve) -> None:
    rig = await serve(pending_publish_bytes_per_connection_max=64 * 1024)
    client = await rig.producer()
    rig.port.hold = True

    async def flood() -> None:
        for _ in range(100):
            await client.tell(payload=base64(bytes(60_000)))

    flooding = asyncio.create_task(flood())
    await asyncio.sleep(0.3)
    waiting = len(rig.topic().rows)
    assert waiting < 15
    while len(rig.topic().rows) < 100 or rig.port.held:
        rig.port.commit()
        await asyncio.sleep(0.002)
    await flooding
    assert {each["result"] for each in await client.receive(100)} == {"ok"}


async def test_nothing_is_read_while_the_log_has_too_much_to_store(rig: Rig) -> None:
    client = await rig.producer()
    rig.port.congested = True
    assert (await client.publish())["result"] == "ok"
    await client.tell(payload="eA==")
    await client.silence()
    rig.port.clear()
    assert (await client.hear())["result"] == "ok"


async def test_a_message_that_takes_too_long_is_answered_once(rig: Rig) -> None:
    client = await rig.producer("sendTimeoutMillis=50")
    rig.port.hold = True
    answer = await client.publish(context=1)
    assert (answer["result"], answer["context"]) == ("send-error:8", 1)
    assert "in time" in answer["errorMsg"]
    rig.port.commit()
    await client.silence()
    rig.port.hold = False
    assert (await client.publish())["result"] == "ok"


async def test_a_refusal_for_good_is_passed_on(rig: Rig) -> None:
    client = await rig.producer()
    rig.port.failures["publish"] = TopicTerminatedError("the topic is closed")
    answer = await client.publish()
    assert (answer["result"], answer["errorMsg"]) == ("send-error:8", "the topic is closed")


async def test_a_topic_that_moves_costs_the_client_nothing(rig: Rig) -> None:
    client = await rig.producer()
    await client.publish()
    (first,) = rig.port.opened
    rig.port.failures["publish"] = ServiceNotReadyError("moved")
    await client.tell(payload=base64(b"a"))
    await client.tell(payload=base64(b"b"))
    await client.silence(0.05)
    del rig.port.failures["publish"]
    assert [(await client.hear())["result"] for _ in range(2)] == ["ok", "ok"]
    again = rig.port.opened[-1]
    assert again.name == first.name
    assert again.request.epoch > first.request.epoch
    assert [messages(body)[0].payload for body in rig.topic().bodies][-2:] == [b"a", b"b"]


async def test_a_producer_that_the_broker_closes_comes_back_under_its_name(rig: Rig) -> None:
    client = await rig.producer()
    (first,) = rig.port.opened
    await first.close()
    first.events.closed(ServiceNotReadyError("unloaded"))
    await client.tell(payload="eA==")
    assert (await client.hear())["result"] == "ok"
    assert [each.name for each in rig.port.opened] == [first.name, first.name]
    assert rig.port.opened[1].request.epoch == 1


async def test_a_producer_that_cannot_come_back_says_so_and_leaves(rig: Rig) -> None:
    client = await rig.producer()
    (first,) = rig.port.opened
    rig.port.failures["open_producer"] = ProducerFencedError("another one has it")
    await first.close()
    first.events.closed(ServiceNotReadyError("fenced"))
    await client.tell(payload="eA==", context=1)
    assert await client.hear() == {
        "result": "send-error:8",
        "errorMsg": "another one has it",
        "context": 1,
    }
    assert (await client.end()) == (1011, "another one has it")


async def test_what_the_port_sees_is_the_client_and_not_the_door(rig: Rig) -> None:
    keys = base64(b'{"alice":{"keyValue":"AQ=="}}')
    await rig.producer(f"encryptionKeys={keys}&producerName=p")
    request = rig.port.opened[0].request
    assert (request.encrypted, request.name, request.user_provided_name) == (True, "p", True)


async def test_a_ping_is_answered_and_not_published(rig: Rig) -> None:
    client = await rig.producer()
    await client.tell(type="ping")
    assert await client.hear() == {"result": "ok"}
    assert not rig.topic().rows


async def test_a_name_that_is_taken_is_refused_before_the_upgrade(rig: Rig) -> None:
    rig.port.failures["open_producer"] = ProducerBusyError("that name is taken")
    status, why = await rig.refused("v2/producer/persistent/public/default/t")
    assert (status, why) == (409, "Failed to create producer/consumer: that name is taken")


async def test_a_client_that_sends_more_than_it_may_has_to_wait(rig: Rig) -> None:
    client = await rig.producer()
    events: Any = rig.port.opened[0].events
    events.throttle(0.0)
    await client.publish()
    events.throttle(0.3)
    await client.tell(payload="eA==")
    await client.silence(0.15)
    assert (await client.hear())["result"] == "ok"
