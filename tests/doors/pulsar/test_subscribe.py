"""Consumers of a connection: their life, deliveries, acknowledgements, seeks."""

import asyncio

import pytest

from magnetar.broker.entry import EARLIEST, LATEST, EntryId, TransactionId
from magnetar.broker.port import (
    ConsumerAssignError,
    ConsumerBusyError,
    KeyShared,
    PortError,
    Schema,
    SchemaType,
    Selection,
    ServiceNotReadyError,
    SubscriptionNotFoundError,
    TransactionConflictError,
)
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from tests.doors.fake_port import LEDGER
from tests.doors.pulsar.conftest import MakeRig, Rig
from tests.doors.raw_client import RawClient, command, message_payload, send

BY_BROKER = ALL_ONES = 2**64 - 1
EXCLUSIVE = api.CommandSubscribe.Exclusive
FAILOVER = api.CommandSubscribe.Failover


async def publish(client: RawClient, count: int, topic: str = "t", size: int = 5) -> None:
    await client.produce(99, topic=topic)
    for first in range(0, count, 50):
        chunk = range(first, min(first + 50, count))
        await client.send(*(send(99, number, b"%d" % number * size) for number in chunk))
        for _ in chunk:
            await client.expect("SEND_RECEIPT")


# --- opening ---------------------------------------------------------------------------


async def test_what_the_client_says_about_a_consumer_reaches_the_port(rig: Rig) -> None:
    client = await rig.client()
    await client.subscribe(
        1,
        subType=api.CommandSubscribe.Key_Shared,
        consumer_name="me",
        priority_level=2,
        durable=False,
        start_message_id=api.MessageIdData(ledgerId=7, entryId=9, ack_set=[-1, 3]),
        initialPosition=api.CommandSubscribe.Earliest,
        start_message_rollback_duration_sec=60,
        force_topic_creation=False,
        keySharedMeta=api.KeySharedMeta(
            keySharedMode=api.STICKY,
            hashRanges=[api.IntRange(start=0, end=99)],
            allowOutOfOrderDelivery=True,
        ),
        subscription_properties=[api.KeyValue(key="a", value="b")],
        consumer_epoch=4,
        schema=api.Schema(name="s", schema_data=b"x", type=api.Schema.Avro),
    )
    request = rig.port.subscribed[0].request
    assert (request.consumer_name, request.priority, request.durable) == ("me", 2, False)
    assert (request.start, list(request.start_ack_set)) == (EntryId(7, 9), [-1, 3])
    assert (request.from_earliest, request.rollback_seconds) == (True, 60)
    assert (request.create_topic, request.epoch) == (False, 4)
    assert request.key_shared == KeyShared([(0, 99)], sticky=True, allow_out_of_order=True)
    assert request.properties == {"a": "b"}
    assert request.schema == Schema(SchemaType.AVRO, b"x", {}, "s")


@pytest.mark.parametrize(
    ("ledger", "entry", "start"),
    [(ALL_ONES, ALL_ONES, EARLIEST), (2**63 - 1, 2**63 - 1, LATEST)],
)
async def test_the_ends_of_a_topic_have_ids_of_their_own(
    rig: Rig, ledger: int, entry: int, start: EntryId
) -> None:
    client = await rig.client()
    where = api.MessageIdData(ledgerId=ledger, entryId=entry)
    await client.subscribe(1, subType=EXCLUSIVE, durable=False, start_message_id=where)
    await client.expect("ACTIVE_CONSUMER_CHANGE")
    assert rig.port.subscribed[0].request.start == start


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (ConsumerBusyError("x"), api.ConsumerBusy),
        (ConsumerAssignError("x"), api.ConsumerAssignError),
        (SubscriptionNotFoundError("x"), api.SubscriptionNotFound),
    ],
)
async def test_a_refusal_keeps_its_reason_and_frees_the_id(
    rig: Rig, raised: PortError, code: int
) -> None:
    rig.port.failures["subscribe"] = raised
    client = await rig.client()
    fields = {"topic": "t", "subscription": "s", "subType": EXCLUSIVE, "consumer_id": 1}
    error = await client.ask("SUBSCRIBE", "ERROR", request_id=4, **fields)
    assert (error.request_id, error.error, error.message) == (4, code, "x")
    rig.port.failures.clear()
    await client.subscribe(1)


@pytest.mark.parametrize("subscription", ["", "a\0b"])
async def test_a_subscription_needs_a_name(rig: Rig, subscription: str) -> None:
    client = await rig.client()
    error = await client.ask(
        "SUBSCRIBE",
        "ERROR",
        request_id=4,
        topic="t",
        subscription=subscription,
        subType=EXCLUSIVE,
        consumer_id=1,
    )
    assert error.error == api.NotAllowedError, "a code after which clients give up"
    assert "subscription" in error.message


@pytest.mark.parametrize("version", [11, 12])
async def test_success_comes_before_the_news_of_being_active(rig: Rig, version: int) -> None:
    client = await rig.dial()
    await client.connect(version)
    await client.subscribe(1, subType=FAILOVER)
    if version >= 12:
        change = await client.expect("ACTIVE_CONSUMER_CHANGE")
        assert (change.consumer_id, change.is_active) == (1, True)
    await client.subscribe(2, subType=FAILOVER)
    if version >= 12:
        assert not (await client.expect("ACTIVE_CONSUMER_CHANGE")).is_active
    rig.port.subscribed[1].events.active(True)
    if version >= 12:
        change = await client.expect("ACTIVE_CONSUMER_CHANGE")
        assert (change.consumer_id, change.is_active) == (2, True)
    await client.ask("PING", "PONG")


async def test_the_same_id_again_succeeds_again(rig: Rig) -> None:
    client = await rig.client()
    await client.subscribe(1)
    await client.subscribe(1)
    assert len(rig.port.subscribed) == 1


async def test_the_same_id_while_it_is_being_opened_is_told_to_wait(rig: Rig) -> None:
    rig.port.gate = asyncio.Event()
    client = await rig.client()
    fields = {"topic": "t", "subscription": "s", "subType": EXCLUSIVE, "consumer_id": 1}
    await client.send(command("SUBSCRIBE", request_id=1, **fields))
    error = await client.ask("SUBSCRIBE", "ERROR", request_id=2, **fields)
    assert (error.request_id, error.error) == (2, api.ServiceNotReady)
    rig.port.gate.set()
    assert (await client.expect("SUCCESS")).request_id == 1


async def test_requests_about_a_consumer_may_follow_its_subscribe_in_one_packet(rig: Rig) -> None:
    client = await rig.client()
    await publish(client, 3)
    rig.port.gate = asyncio.Event()
    await client.send(
        command(
            "SUBSCRIBE",
            topic="t",
            subscription="s",
            subType=api.CommandSubscribe.Shared,
            initialPosition=api.CommandSubscribe.Earliest,
            consumer_id=1,
            request_id=1,
        ),
        command("FLOW", consumer_id=1, messagePermits=2),
        command("GET_LAST_MESSAGE_ID", consumer_id=1, request_id=2),
    )
    await client.nothing()
    rig.port.gate.set()
    assert (await client.expect("SUCCESS")).request_id == 1
    assert len(await client.messages(2)) == 2
    assert (await client.expect("GET_LAST_MESSAGE_ID_RESPONSE")).request_id == 2
    await client.nothing()


async def test_a_client_that_goes_leaves_no_consumer_behind(rig: Rig) -> None:
    client = await rig.client()
    await client.subscribe(1)
    rig.port.gate = asyncio.Event()
    await client.send(
        command(
            "SUBSCRIBE",
            topic="t",
            subscription="other",
            subType=EXCLUSIVE,
            consumer_id=2,
            request_id=1,
        )
    )
    await asyncio.sleep(0.02)
    client.close()
    await rig.until(lambda: not rig.door.connections)
    rig.port.gate.set()
    await rig.until(lambda: len(rig.port.subscribed) == 2)
    await rig.until(lambda: all(each.closed for each in rig.port.subscribed))


# --- delivery --------------------------------------------------------------------------


async def test_nothing_is_delivered_before_flow_and_never_more_than_permitted(rig: Rig) -> None:
    client = await rig.client()
    await publish(client, 5)
    await client.subscribe(1, initialPosition=api.CommandSubscribe.Earliest)
    await client.nothing()
    await client.send(command("FLOW", consumer_id=1, messagePermits=3))
    frames = await client.messages(3)
    assert [message_payload(frame) for frame in frames] == [b"0" * 5, b"1" * 5, b"2" * 5]
    ids = [frame.command.message.message_id for frame in frames]
    assert [(each.ledgerId, each.entryId, each.partition) for each in ids] == [
        (LEDGER, entry, -1) for entry in range(3)
    ]
    await client.nothing()


async def test_messages_of_a_partition_carry_its_number(rig: Rig) -> None:
    client = await rig.client()
    await publish(client, 1, topic="p-partition-3")
    await client.subscribe(1, topic="p-partition-3", initialPosition=api.CommandSubscribe.Earliest)
    await client.send(command("FLOW", consumer_id=1, messagePermits=1))
    (frame,) = await client.messages(1)
    assert frame.command.message.message_id.partition == 3


async def test_flow_for_a_consumer_that_is_not_open_is_ignored(rig: Rig) -> None:
    client = await rig.client()
    await client.send(
        command("FLOW", consumer_id=5, messagePermits=1),
        command(
            "ACK",
            consumer_id=5,
            ack_type=api.CommandAck.Individual,
            message_id=[api.MessageIdData(ledgerId=1, entryId=1)],
        ),
        command("REDELIVER_UNACKNOWLEDGED_MESSAGES", consumer_id=5),
    )
    await client.ask("PING", "PONG")


async def test_redeliveries_epoch_and_partial_batches_are_told(rig: Rig) -> None:
    client = await rig.client()
    await publish(client, 2)
    await client.subscribe(1)
    run = rig.port.topic("t").run(0, 2)
    selection = Selection(LEDGER, 0, [1], {1: 3}, {1: [-1, 5]}, epoch=6)
    assert rig.port.subscribed[0].events.deliver(run, selection)
    (frame,) = await client.messages(1)
    message = frame.command.message
    assert (message.message_id.entryId, message.redelivery_count) == (1, 3)
    assert (list(message.ack_set), message.consumer_epoch) == ([-1, 5], 6)


async def test_the_end_of_a_terminated_topic_is_told(rig: Rig) -> None:
    client = await rig.client()
    await client.subscribe(1)
    rig.port.subscribed[0].events.end_of_topic()
    assert (await client.expect("REACHED_END_OF_TOPIC")).consumer_id == 1


async def test_the_end_of_a_topic_is_not_told_to_clients_that_would_hang_up(rig: Rig) -> None:
    client = await rig.dial()
    await client.send(command("CONNECT", client_version="Pulsar-CPP-v4.2.0", protocol_version=21))
    await client.expect("CONNECTED")
    await client.subscribe(1)
    rig.port.subscribed[0].events.end_of_topic()
    await client.send(command("PING"))
    await client.expect("PONG")


async def test_a_consumer_that_does_not_read_is_not_delivered_to_without_end(
    make_rig: MakeRig,
) -> None:
    rig = make_rig(write_buffer_bytes_per_connection_max=256 * 1024)
    other = await rig.client()
    await publish(other, 100, size=20_000)
    slow = await rig.client(receive_buffer=16 * 1024)
    rig.shrink_send_buffers()
    await slow.subscribe(1, initialPosition=api.CommandSubscribe.Earliest)
    await slow.send(*[command("FLOW", consumer_id=1, messagePermits=1)] * 100)
    await rig.until(lambda: rig.port.subscribed[0].stuck)
    await asyncio.sleep(0.02)
    assert rig.port.subscribed[0].permits > 50
    waiting = max(each._waiting() for each in rig.door._connections)
    assert 128 * 1024 < waiting < 768 * 1024
    await other.ask("PING", "PONG")
    messages = await slow.messages(100)
    assert [each.command.message.message_id.entryId for each in messages] == list(range(100))
    assert rig.port.resumed >= 1


async def test_a_burst_that_the_socket_takes_at_once_does_not_leave_a_consumer_stuck(
    make_rig: MakeRig,
) -> None:
    rig = make_rig(write_buffer_bytes_per_connection_max=64 * 1024)
    client = await rig.client()
    await publish(client, 150, size=4_000)
    await client.subscribe(1, initialPosition=api.CommandSubscribe.Earliest)
    await client.send(command("FLOW", consumer_id=1, messagePermits=1_000))
    await client.messages(150)
    await rig.until(lambda: not rig.port.subscribed[0].stuck)


async def test_answers_nobody_reads_stop_the_reading(make_rig: MakeRig) -> None:
    rig = make_rig(write_buffer_bytes_per_connection_max=64 * 1024)
    rude = await rig.client(receive_buffer=16 * 1024, send_buffer=16 * 1024)
    rig.shrink_send_buffers()
    question = command("GET_SCHEMA", topic="t" * 1_000, request_id=1)
    sent = 0

    async def ask_on() -> None:
        nonlocal sent
        while sent < 100:
            async with asyncio.timeout(1.0):
                await rude.send(question * 20)
            sent += 1

    with pytest.raises(TimeoutError):
        await ask_on()
    (connection,) = rig.door._connections
    assert connection.held
    assert connection._waiting() < 512 * 1024
    for _ in range(sent * 20):
        await rude.expect("GET_SCHEMA_RESPONSE")
    await rig.until(lambda: not connection.held)


# --- acknowledgement -------------------------------------------------------------------


async def ack(client: RawClient, *entries: int, **fields: object) -> None:
    fields.setdefault("ack_type", api.CommandAck.Individual)
    ids = [api.MessageIdData(ledgerId=LEDGER, entryId=entry) for entry in entries]
    await client.send(command("ACK", consumer_id=1, message_id=ids, **fields))


async def test_acknowledgements_reach_the_port_and_are_answered_only_on_request(rig: Rig) -> None:
    client = await rig.client()
    await publish(client, 5)
    await client.subscribe(1, initialPosition=api.CommandSubscribe.Earliest)
    await client.send(command("FLOW", consumer_id=1, messagePermits=5))
    await client.messages(5)
    await ack(client, 0, 2)
    await client.nothing()
    assert rig.port.subscribed[0].subscription.acknowledged == {0, 2}
    await ack(client, 4, request_id=3)
    response = await client.expect("ACK_RESPONSE")
    assert (response.consumer_id, response.request_id, response.HasField("error")) == (1, 3, False)


async def test_a_cumulative_acknowledgement_on_shared_is_not_allowed(rig: Rig) -> None:
    client = await rig.client()
    await client.subscribe(1)
    await ack(client, 0, ack_type=api.CommandAck.Cumulative)
    await client.nothing()
    await ack(client, 0, ack_type=api.CommandAck.Cumulative, request_id=3)
    assert (await client.expect("ACK_RESPONSE")).error == api.NotAllowedError


async def test_an_acknowledgement_in_a_transaction_is_answered_when_it_is_durable(
    rig: Rig,
) -> None:
    client = await rig.client()
    await client.subscribe(1)
    await ack(client, 0, txnid_most_bits=1, txnid_least_bits=2, request_id=3)
    answer = await client.expect("ACK_RESPONSE")
    assert (answer.request_id, answer.txnid_most_bits, answer.txnid_least_bits) == (3, 1, 2)
    assert not answer.HasField("error")
    assert rig.port.subscribed[0].acks == []
    [(transaction, ids)] = rig.port.subscribed[0].transactional
    assert (transaction, [each.entry for each in ids]) == (TransactionId(1, 2), [0])


async def test_a_refused_acknowledgement_in_a_transaction_names_it(rig: Rig) -> None:
    client = await rig.client()
    await client.subscribe(1)
    rig.port.failures["acknowledge_in"] = TransactionConflictError("held")
    await ack(client, 0, txnid_most_bits=1, txnid_least_bits=2, request_id=3)
    answer = await client.expect("ACK_RESPONSE")
    assert answer.error == api.TransactionConflict
    assert (answer.txnid_most_bits, answer.txnid_least_bits) == (1, 2)


async def test_a_message_that_a_client_gave_up_is_counted(rig: Rig) -> None:
    client = await rig.client()
    await client.subscribe(1)
    await ack(client, 0, validation_error=api.CommandAck.ChecksumMismatch, request_id=1)
    await client.expect("ACK_RESPONSE")
    assert rig.metric("magnetar_messages_discarded_total") == 1


async def test_an_acknowledgement_just_before_the_close_counts(rig: Rig) -> None:
    client = await rig.client()
    await publish(client, 1)
    await client.subscribe(1, initialPosition=api.CommandSubscribe.Earliest)
    await client.send(command("FLOW", consumer_id=1, messagePermits=5))
    await client.messages(1)
    await ack(client, 0)
    await client.ask("CLOSE_CONSUMER", "SUCCESS", consumer_id=1, request_id=2)
    await ack(client, 0)  # too late, and no reason to complain
    await client.ask("PING", "PONG")
    assert rig.port.subscribed[0].subscription.acknowledged == {0}


async def test_negative_acknowledgement_brings_messages_again(rig: Rig) -> None:
    client = await rig.client()
    await publish(client, 3)
    await client.subscribe(1, initialPosition=api.CommandSubscribe.Earliest)
    await client.send(command("FLOW", consumer_id=1, messagePermits=100))
    await client.messages(3)
    ids = [api.MessageIdData(ledgerId=LEDGER, entryId=1)]
    await client.send(command("REDELIVER_UNACKNOWLEDGED_MESSAGES", consumer_id=1, message_ids=ids))
    (frame,) = await client.messages(1)
    assert (frame.command.message.message_id.entryId, frame.command.message.redelivery_count) == (
        1,
        1,
    )
    await client.send(command("REDELIVER_UNACKNOWLEDGED_MESSAGES", consumer_id=1))
    frames = await client.messages(3)
    assert [frame.command.message.redelivery_count for frame in frames] == [1, 2, 1]


# --- questions -------------------------------------------------------------------------


async def test_the_last_message_of_an_empty_topic_is_minus_one(rig: Rig) -> None:
    client = await rig.client()
    await client.subscribe(1)
    answer = await client.ask(
        "GET_LAST_MESSAGE_ID", "GET_LAST_MESSAGE_ID_RESPONSE", consumer_id=1, request_id=2
    )
    last = answer.last_message_id
    assert (last.ledgerId, last.entryId, last.batch_index) == (ALL_ONES, ALL_ONES, -1)
    assert answer.HasField("consumer_mark_delete_position")


@pytest.mark.parametrize(("batch", "index"), [(None, -1), (1, 0), (7, 6)])
async def test_the_last_message_names_the_last_of_its_batch(
    rig: Rig, batch: int | None, index: int
) -> None:
    client = await rig.client()
    await client.produce(9)
    await client.send(send(9, 0, batch=batch))
    await client.expect("SEND_RECEIPT")
    await client.subscribe(1)
    answer = await client.ask(
        "GET_LAST_MESSAGE_ID", "GET_LAST_MESSAGE_ID_RESPONSE", consumer_id=1, request_id=2
    )
    assert (answer.last_message_id.entryId, answer.last_message_id.batch_index) == (0, index)
    assert answer.consumer_mark_delete_position.entryId == 0


async def test_figures_of_a_consumer(rig: Rig) -> None:
    client = await rig.client()
    await client.subscribe(1, consumer_name="me")
    await client.send(command("FLOW", consumer_id=1, messagePermits=10))
    stats = await client.ask(
        "CONSUMER_STATS", "CONSUMER_STATS_RESPONSE", consumer_id=1, request_id=2
    )
    assert (stats.consumerName, stats.type, stats.availablePermits) == ("me", "Shared", 10)
    assert stats.connectedSince.startswith("2023-11-14T")
    unknown = await client.ask(
        "CONSUMER_STATS", "CONSUMER_STATS_RESPONSE", consumer_id=7, request_id=3
    )
    assert unknown.error_code == api.ConsumerNotFound


@pytest.mark.parametrize("kind", ["UNSUBSCRIBE", "SEEK", "GET_LAST_MESSAGE_ID"])
async def test_questions_about_an_unknown_consumer_are_refused(rig: Rig, kind: str) -> None:
    client = await rig.client()
    error = await client.ask(kind, "ERROR", consumer_id=1, request_id=2)
    assert (error.request_id, error.error) == (2, api.MetadataError)


# --- seek and unsubscribe --------------------------------------------------------------


async def test_a_seek_closes_every_consumer_and_then_succeeds(rig: Rig) -> None:
    client, other = await rig.client(), await rig.client()
    await publish(client, 5)
    await client.subscribe(1)
    await other.subscribe(8)
    where = api.MessageIdData(ledgerId=LEDGER, entryId=2, ack_set=[6])
    await client.send(command("SEEK", consumer_id=1, request_id=3, message_id=where))
    closed = await client.expect("CLOSE_CONSUMER")
    assert (closed.consumer_id, closed.request_id) == (1, BY_BROKER)
    await client.expect("SUCCESS")
    assert (await other.expect("CLOSE_CONSUMER")).consumer_id == 8
    assert rig.port.subscribed[0].seeks == [(EntryId(LEDGER, 2), (6,), None)]
    await client.subscribe(1)
    await client.send(command("FLOW", consumer_id=1, messagePermits=10))
    frames = await client.messages(3)
    assert [frame.command.message.message_id.entryId for frame in frames] == [2, 3, 4]


async def test_a_seek_by_time_reaches_the_port(rig: Rig) -> None:
    client = await rig.client()
    await client.subscribe(1)
    await client.send(command("SEEK", consumer_id=1, request_id=3, message_publish_time=12345))
    await client.expect("CLOSE_CONSUMER")
    await client.expect("SUCCESS")
    assert rig.port.subscribed[0].seeks == [(None, (), 12345)]


async def test_a_seek_to_nowhere_is_refused_and_closes_nobody(rig: Rig) -> None:
    client = await rig.client()
    await client.subscribe(1)
    error = await client.ask("SEEK", "ERROR", consumer_id=1, request_id=3)
    assert error.error == api.MetadataError
    await client.nothing()
    assert not rig.port.subscribed[0].closed


async def test_a_subscribe_right_after_a_seek_waits_for_it(rig: Rig) -> None:
    client = await rig.client()
    await client.subscribe(1)
    rig.port.gate = asyncio.Event()
    fields = {"topic": "t", "subscription": "s", "subType": api.CommandSubscribe.Shared}
    await client.send(command("SEEK", consumer_id=1, request_id=3, message_publish_time=1))
    await asyncio.sleep(0.01)
    rig.port.subscribed[0].events.closed(None)
    await client.expect("CLOSE_CONSUMER")
    await client.send(command("SUBSCRIBE", consumer_id=1, request_id=4, **fields))
    await client.nothing()
    rig.port.gate.set()
    assert [(await client.expect("SUCCESS")).request_id for _ in range(2)] == [3, 4]


async def test_unsubscribing_deletes_the_subscription(rig: Rig) -> None:
    client = await rig.client()
    await client.subscribe(1)
    await client.subscribe(2)
    error = await client.ask("UNSUBSCRIBE", "ERROR", consumer_id=1, request_id=3)
    assert error.error == api.ConsumerBusy
    await client.ask("CLOSE_CONSUMER", "SUCCESS", consumer_id=2, request_id=4)
    await client.ask("UNSUBSCRIBE", "SUCCESS", consumer_id=1, request_id=5)
    assert not rig.port.topic("t").subscriptions
    await client.subscribe(1)


async def test_a_consumer_closed_by_the_broker_is_told_once(rig: Rig) -> None:
    client = await rig.client()
    await client.subscribe(1)
    for _ in range(2):
        rig.port.subscribed[0].events.closed(ServiceNotReadyError("moved"))
    closed = await client.expect("CLOSE_CONSUMER")
    assert (closed.consumer_id, closed.request_id) == (1, BY_BROKER)
    await client.nothing()
    await client.ask("CLOSE_CONSUMER", "SUCCESS", consumer_id=1, request_id=3)


async def test_a_bug_in_a_delivery_costs_that_connection_only(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    client, other = await rig.client(), await rig.client()
    await publish(other, 1)
    await client.subscribe(1)
    events = rig.port.subscribed[0].events
    assert not events.deliver(rig.port.topic("t").run(0, 1), Selection(LEDGER, 0, [5]))
    await client.closed()
    assert "a delivery failed" in caplog.text
    await other.ask("PING", "PONG")


# --- broker entry metadata -------------------------------------------------------------


@pytest.mark.parametrize("switched_on", [True, False])
@pytest.mark.parametrize("known", [True, False])
async def test_only_a_client_that_knows_entry_metadata_gets_it_where_it_is_switched_on(
    make_rig: MakeRig, switched_on: bool, known: bool
) -> None:
    rig = make_rig(broker_entry_metadata=switched_on)
    client = await rig.dial()
    flags = api.FeatureFlags(supports_broker_entry_metadata=known)
    told = await client.ask(
        "CONNECT", "CONNECTED", client_version="raw", protocol_version=21, feature_flags=flags
    )
    assert told.feature_flags.supports_broker_entry_metadata is switched_on
    await client.subscribe(1, subType=EXCLUSIVE)
    await client.expect("ACTIVE_CONSUMER_CHANGE")
    await client.send(command("FLOW", consumer_id=1, messagePermits=10))
    await publish(client, 0)
    await client.send(send(99, 0, b"hello"))
    raw = b""
    async with asyncio.timeout(30):
        while b"hello" not in raw:
            raw += await asyncio.get_running_loop().sock_recv(client._socket, 1 << 16)
    assert (b"\x0e\x02\0\0\0" in raw) is (switched_on and known)
