"""Producers of a connection: their life, receipts in order, errors, back-pressure."""

import asyncio
from functools import partial
from typing import Any

import pytest

from magnetar.broker.entry import TransactionId
from magnetar.broker.port import (
    PersistenceError,
    PortError,
    ProducerBusyError,
    ProducerFencedError,
    QuotaExceededError,
    Schema,
    SchemaType,
    ServiceNotReadyError,
    ThrottledEvents,
    TopicTerminatedError,
)
from magnetar.broker.run import Run
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from tests.doors.pulsar.conftest import MakeRig, Rig
from tests.doors.raw_client import RawClient, command, receipts, send

BY_BROKER = 2**64 - 1


# --- opening ---------------------------------------------------------------------------


async def test_a_producer_gets_a_name_if_it_brings_none(rig: Rig) -> None:
    client = await rig.client()
    success = await client.produce(1)
    assert success.producer_name.startswith("standalone-")
    assert success.last_sequence_id == -1
    assert success.producer_ready


async def test_what_the_client_says_about_a_producer_reaches_the_port(rig: Rig) -> None:
    client = await rig.client()
    await client.produce(
        1,
        producer_name="mine",
        epoch=3,
        user_provided_producer_name=False,
        producer_access_mode=api.ExclusiveWithFencing,
        topic_epoch=9,
        encrypted=True,
        initial_subscription_name="first",
        metadata=[api.KeyValue(key="a", value="b")],
        schema=api.Schema(name="s", schema_data=b"x", type=api.Schema.String),
    )
    request = rig.port.opened[0].request
    assert (request.name, request.epoch, request.topic_epoch) == ("mine", 3, 9)
    assert request.access_mode.name == "EXCLUSIVE_WITH_FENCING"
    assert (request.encrypted, request.user_provided_name) == (True, False)
    assert (request.initial_subscription, request.metadata) == ("first", {"a": "b"})
    assert request.schema == Schema(SchemaType.STRING, b"x", {}, "s")
    assert request.client_version == "raw"
    assert request.client_address.startswith("127.0.0.1:")


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (ProducerBusyError("x"), api.ProducerBusy),
        (ProducerFencedError("x"), api.ProducerFenced),
        (ServiceNotReadyError("x"), api.ServiceNotReady),
        (QuotaExceededError("x", hold=True), api.ProducerBlockedQuotaExceededError),
        (QuotaExceededError("x", hold=False), api.ProducerBlockedQuotaExceededException),
        (TopicTerminatedError("x"), api.TopicTerminatedError),
    ],
)
async def test_a_refusal_keeps_its_reason_and_frees_the_id(
    rig: Rig, raised: PortError, code: int
) -> None:
    rig.port.failures["open_producer"] = raised
    client = await rig.client()
    error = await client.ask("PRODUCER", "ERROR", topic="t", producer_id=1, request_id=4)
    assert (error.request_id, error.error, error.message) == (4, code, "x")
    rig.port.failures.clear()
    await client.produce(1)


async def test_the_same_id_again_gets_the_same_answer_again(rig: Rig) -> None:
    client = await rig.client()
    first = await client.produce(1)
    again = await client.ask("PRODUCER", "PRODUCER_SUCCESS", topic="t", producer_id=1, request_id=8)
    assert (again.request_id, again.producer_name) == (8, first.producer_name)
    assert len(rig.port.opened) == 1


async def test_the_same_id_for_another_topic_is_refused_and_the_first_goes_on(rig: Rig) -> None:
    client = await rig.client()
    await client.produce(1)
    error = await client.ask("PRODUCER", "ERROR", topic="other", producer_id=1, request_id=8)
    assert (error.request_id, error.error) == (8, api.NotAllowedError)
    assert error.message == "producer 1 of this connection is open on t"
    await client.send(send(1, 0))
    await client.expect("SEND_RECEIPT")
    assert len(rig.port.opened) == 1


async def test_the_same_id_while_it_is_being_opened_is_told_to_wait(rig: Rig) -> None:
    rig.port.gate = asyncio.Event()
    client = await rig.client()
    await client.send(command("PRODUCER", topic="t", producer_id=1, request_id=1))
    error = await client.ask("PRODUCER", "ERROR", topic="t", producer_id=1, request_id=2)
    assert (error.request_id, error.error) == (2, api.ServiceNotReady)
    rig.port.gate.set()
    assert (await client.expect("PRODUCER_SUCCESS")).request_id == 1


async def test_a_close_waits_for_the_open_before_it(rig: Rig) -> None:
    rig.port.gate = asyncio.Event()
    client = await rig.client()
    await client.send(
        command("PRODUCER", topic="t", producer_id=1, request_id=1),
        command("CLOSE_PRODUCER", producer_id=1, request_id=2),
        command("PRODUCER", topic="t", producer_id=1, request_id=3),
    )
    await client.nothing()
    rig.port.gate.set()
    assert (await client.expect("PRODUCER_SUCCESS")).request_id == 1
    assert (await client.expect("SUCCESS")).request_id == 2
    assert (await client.expect("PRODUCER_SUCCESS")).request_id == 3
    assert [each.closed for each in rig.port.opened] == [True, False]


async def test_waiting_for_exclusive_access_is_answered_twice(rig: Rig) -> None:
    client = await rig.client()
    port_open = rig.port.open_producer

    async def not_yet(request: object, events: object) -> object:
        producer = await port_open(request, events)  # type: ignore[arg-type]
        producer.ready = False  # type: ignore[misc]
        return producer

    rig.port.open_producer = not_yet  # type: ignore[method-assign, assignment]
    first = await client.produce(1)
    assert not first.producer_ready
    producer = rig.port.opened[0]
    producer.ready = True
    producer.events.ready(5)
    second = await client.expect("PRODUCER_SUCCESS")
    assert (second.request_id, second.producer_ready, second.topic_epoch) == (
        first.request_id,
        True,
        5,
    )
    await client.send(send(1, 0))
    await client.expect("SEND_RECEIPT")


# --- closing ---------------------------------------------------------------------------


async def test_closing_an_unknown_producer_succeeds(rig: Rig) -> None:
    client = await rig.client()
    await client.ask("CLOSE_PRODUCER", "SUCCESS", producer_id=77, request_id=1)


async def test_a_close_comes_after_the_receipts_of_what_was_sent_before(rig: Rig) -> None:
    rig.port.hold = True
    client = await rig.client()
    await client.produce(1)
    await client.send(
        send(1, 0), send(1, 1), command("CLOSE_PRODUCER", producer_id=1, request_id=2)
    )
    await client.nothing()
    rig.port.commit()
    assert [(await client.expect("SEND_RECEIPT")).sequence_id for _ in range(2)] == [0, 1]
    await client.expect("SUCCESS")


async def test_a_client_that_goes_leaves_no_producer_behind(rig: Rig) -> None:
    client = await rig.client()
    await client.produce(1)
    await client.produce(2)
    client.close()
    await rig.until(lambda: all(each.closed for each in rig.port.opened))


async def test_a_client_that_goes_while_a_producer_is_being_opened_leaves_none(rig: Rig) -> None:
    rig.port.gate = asyncio.Event()
    client = await rig.client()
    await client.send(command("PRODUCER", topic="t", producer_id=1, request_id=1))
    await asyncio.sleep(0.02)
    client.close()
    await rig.until(lambda: not rig.door.connections)
    rig.port.gate.set()
    await rig.until(lambda: bool(rig.port.opened) and rig.port.opened[0].closed)


async def test_a_producer_closed_by_the_broker_is_told_and_its_late_sends_are_dropped(
    rig: Rig,
) -> None:
    rig.port.hold = True
    client = await rig.client()
    await client.produce(1)
    await client.send(send(1, 0))
    await rig.until(lambda: rig.port.published_runs == 1)
    rig.port.opened[0].events.closed(ServiceNotReadyError("moved"))
    closed = await client.expect("CLOSE_PRODUCER")
    assert (closed.producer_id, closed.request_id) == (1, BY_BROKER)
    rig.port.commit()
    await client.nothing()  # no receipt for a producer that is closed
    await client.send(send(1, 1), send(1, 2))
    await client.ask("PING", "PONG")
    rig.port.opened[0].topic.producers.clear()
    await client.produce(1)
    await client.send(send(1, 1))
    await rig.until(lambda: rig.port.published_runs == 2)
    rig.port.commit()
    assert (await client.expect("SEND_RECEIPT")).sequence_id == 1


async def test_a_producer_closed_while_it_was_being_opened_is_refused(rig: Rig) -> None:
    client = await rig.client()
    port_open = rig.port.open_producer

    async def open_and_lose(request: object, events: object) -> object:
        producer = await port_open(request, events)  # type: ignore[arg-type]
        producer.events.closed(ServiceNotReadyError("moved"))  # type: ignore[attr-defined]
        return producer

    rig.port.open_producer = open_and_lose  # type: ignore[method-assign, assignment]
    error = await client.ask("PRODUCER", "ERROR", topic="t", producer_id=1, request_id=1)
    assert error.error == api.ServiceNotReady
    assert rig.port.opened[0].closed


@pytest.mark.parametrize("opened_before", [False, True])
async def test_sending_without_an_open_producer_closes_the_connection(
    rig: Rig, opened_before: bool
) -> None:
    client = await rig.client()
    if opened_before:
        await client.produce(1)
        await client.ask("CLOSE_PRODUCER", "SUCCESS", producer_id=1, request_id=2)
    await client.send(send(1, 0))
    assert "not open" in (await client.closed())[0].error.message


# --- receipts --------------------------------------------------------------------------


async def test_receipts_come_in_order_over_several_commits(rig: Rig) -> None:
    rig.port.hold = True
    client = await rig.client()
    for producer_id in (1, 2):
        await client.produce(producer_id, topic=f"t{producer_id}")
    for first in range(0, 60, 20):
        await client.send(
            *(
                send(producer, sequence)
                for sequence in range(first, first + 20)
                for producer in (1, 2)
            )
        )
        await rig.until(partial(has_published, rig, first // 20 + 1))
    while rig.port.held:
        rig.port.commit(runs=1)
        await asyncio.sleep(0)
    got = receipts([await client.frame() for _ in range(120)])
    for producer_id in (1, 2):
        mine = [each for each in got if each[0] == producer_id]
        assert mine == [(producer_id, sequence, sequence) for sequence in range(60)]


def has_published(rig: Rig, runs: int) -> bool:
    return rig.port.published_runs >= runs


async def test_one_commit_is_one_write(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.port.hold = True
    client = await rig.client()
    await client.produce(1)
    for sequence in range(5):
        await client.send(send(1, sequence))
        await rig.until(partial(has_published, rig, sequence + 1))
    (connection,) = rig.door._connections
    writes: list[object] = []
    transport = connection._transport
    assert transport is not None
    write = transport.write

    class Spy:
        def __getattr__(self, name: str) -> object:
            return getattr(transport, name)

        def write(self, data: bytes) -> None:
            writes.append(data)
            write(data)

    monkeypatch.setattr(connection, "_transport", Spy())
    rig.port.commit()
    assert len([await client.expect("SEND_RECEIPT") for _ in range(5)]) == 5
    assert len(writes) == 1


async def test_the_ids_of_a_batch_are_echoed_exactly(rig: Rig) -> None:
    client = await rig.client()
    await client.produce(1)
    await client.send(send(1, 100, batch=10, highest=109), send(1, 2**63 - 1))
    receipt = await client.expect("SEND_RECEIPT")
    assert (receipt.sequence_id, receipt.highest_sequence_id) == (100, 109)
    assert (await client.expect("SEND_RECEIPT")).sequence_id == 2**63 - 1


async def test_a_wrong_checksum_is_reported_after_the_receipts_before_it(rig: Rig) -> None:
    rig.port.hold = True
    client = await rig.client()
    await client.produce(1)
    await client.produce(2)
    await client.send(
        send(1, 0), send(2, 0), send(1, 1, damaged=True), send(1, 2), send(2, 1, damaged=True)
    )
    await client.nothing()
    while rig.port.held:
        rig.port.commit(runs=1)
        await asyncio.sleep(0.01)
    frames = [await client.frame() for _ in range(5)]
    said = [
        (frame.command.send_receipt.producer_id, frame.command.send_receipt.sequence_id, "receipt")
        if frame.command.type == api.BaseCommand.SEND_RECEIPT
        else (frame.command.send_error.producer_id, frame.command.send_error.sequence_id, "error")
        for frame in frames
    ]
    assert [each for each in said if each[0] == 1] == [
        (1, 0, "receipt"),
        (1, 1, "error"),
        (1, 2, "receipt"),
    ]
    assert [each for each in said if each[0] == 2] == [(2, 0, "receipt"), (2, 1, "error")]
    assert len(rig.port.topic("t").rows) == 3


async def test_a_wrong_checksum_with_nothing_before_it_is_reported_at_once(rig: Rig) -> None:
    client = await rig.client()
    await client.produce(1)
    await client.send(send(1, 7, damaged=True))
    error = await client.expect("SEND_ERROR")
    assert (error.producer_id, error.sequence_id, error.error) == (1, 7, api.ChecksumError)
    await client.send(send(1, 7))
    await client.expect("SEND_RECEIPT")


async def test_what_the_log_refuses_gets_an_error_each(rig: Rig) -> None:
    client = await rig.client()
    await client.produce(1)
    rig.port.failures["publish"] = PersistenceError("the disk is full")
    await client.send(send(1, 0), send(1, 1))
    for sequence in (0, 1):
        error = await client.expect("SEND_ERROR")
        assert (error.sequence_id, error.error, error.message) == (
            sequence,
            api.PersistenceError,
            "the disk is full",
        )


async def test_what_is_sent_is_what_is_stored(rig: Rig) -> None:
    client = await rig.client()
    await client.produce(1)
    payloads = [
        bytes([number]) * size for number, size in enumerate((0, 1, 1000, 70_000, 2_000_000))
    ]
    for sequence, payload in enumerate(payloads):
        await client.send(send(1, sequence, payload))
    for _ in payloads:
        await client.expect("SEND_RECEIPT")
    bodies = rig.port.topic("t").bodies
    assert all(body.endswith(payload) for body, payload in zip(bodies, payloads, strict=True))


async def test_a_send_in_a_transaction_names_it_to_the_port(rig: Rig) -> None:
    client = await rig.client()
    await client.produce(1)
    await client.send(send(1, 0), send(1, 1, transaction=5), send(1, 2), send(1, 3, transaction=5))
    assert receipts([await client.frame() for _ in range(4)])[-1] == (1, 3, 3)
    assert rig.port.transactions == [None, TransactionId(0, 5), None, TransactionId(0, 5)]


# --- slots -----------------------------------------------------------------------------


async def test_a_hundred_openings_and_closings_need_one_slot(rig: Rig) -> None:
    client = await rig.client()
    for _ in range(100):
        await client.produce(1)
        await client.send(send(1, 0))
        await client.expect("SEND_RECEIPT")
        await client.ask("CLOSE_PRODUCER", "SUCCESS", producer_id=1, request_id=2)
    (connection,) = rig.door._connections
    assert len(connection.session.producers._by_slot) == 1


# --- back-pressure ---------------------------------------------------------------------


async def publish_until_blocked(client: RawClient, size: int = 100_000) -> int:
    """Send until the socket takes no more; return how many entries were begun."""
    sequence = 0
    while True:
        try:
            async with asyncio.timeout(1.0):
                await client.send(send(1, sequence, b"x" * size))
        except TimeoutError:
            return sequence
        sequence += 1
        assert sequence < 1_000, "nothing holds this producer back"


async def test_a_congested_log_stops_the_reading(rig: Rig) -> None:
    client = await rig.client(send_buffer=64 * 1024)
    await client.produce(1)
    rig.port.hold = rig.port.congested = True
    await publish_until_blocked(client)
    taken = rig.port.published_runs
    assert taken < 20
    assert rig.metric("pulsar_broker_throttled_connections_global_limit") == 1
    assert rig.metric("pulsar_broker_throttled_connections") == 0, "it is not what it sent itself"
    rig.port.hold = False
    rig.port.commit()
    rig.port.clear()
    await rig.until(lambda: rig.port.published_runs > taken)
    assert rig.metric("pulsar_broker_throttled_connections_global_limit") == 0


async def test_one_connection_may_only_have_so_much_waiting_for_the_disk(
    make_rig: MakeRig,
) -> None:
    rig = make_rig(pending_publish_bytes_per_connection_max=1024 * 1024)
    other, client = await rig.client(), await rig.client(send_buffer=64 * 1024)
    await client.produce(1)
    rig.port.hold = True
    await publish_until_blocked(client)
    waiting = sum(len(body) for body in rig.port.topic("t").bodies)
    assert 1024 * 1024 <= waiting <= 3 * 1024 * 1024
    await other.ask("PING", "PONG")
    rig.port.hold = False
    rig.port.commit()
    await rig.until(lambda: sum(map(len, rig.port.topic("t").bodies)) > waiting)


# --- rates -----------------------------------------------------------------------------


def _events(rig: Rig, number: int = 0) -> ThrottledEvents:
    events = rig.port.opened[number].events
    assert isinstance(events, ThrottledEvents)
    return events


async def test_a_client_that_was_too_fast_is_not_read_from_for_a_while(rig: Rig) -> None:
    client, other = await rig.client(), await rig.client()
    await client.produce(1)
    await other.produce(1, topic="other")
    _events(rig).throttle(0.2)
    await client.send(send(1, 0))
    await other.send(send(1, 0))
    await other.expect("SEND_RECEIPT")
    await client.nothing(0.1)
    await client.expect("SEND_RECEIPT")


async def test_what_a_limited_client_sends_is_looked_at_piece_by_piece(rig: Rig) -> None:
    client = await rig.client()
    await client.produce(1)
    _events(rig).throttle(0.0)
    taken = rig.port.publish
    rows: list[int] = []

    def publish(run: Run, *others: Any) -> bool:
        rows.append(run.count)
        return taken(run, *others)

    rig.port.publish = publish  # type: ignore[assignment, method-assign]
    await client.send(*(send(1, number, b"x" * 1000) for number in range(40)))
    for _ in range(40):
        await client.expect("SEND_RECEIPT")
    assert len(rows) >= 10
    assert max(rows) <= 4
    rows.clear()
    _events(rig).throttle(-1.0)
    await client.send(*(send(1, number, b"x" * 1000) for number in range(40, 80)))
    for _ in range(40):
        await client.expect("SEND_RECEIPT")
    assert max(rows) > 4


async def test_a_sibling_is_told_which_producer_has_to_wait_and_is_read_from(rig: Rig) -> None:
    client = await rig.client(sibling=True)
    opened = await client.produce(1)
    _events(rig).throttle(1.25)
    told = await client.expect("PRODUCER_SUCCESS")
    assert (told.request_id, told.producer_ready) == (opened.request_id, False)
    assert told.last_sequence_id == 1250
    await client.send(send(1, 0))
    await client.expect("SEND_RECEIPT")


async def test_the_time_from_socket_to_receipt_is_measured_for_every_entry(rig: Rig) -> None:
    client = await rig.client()
    await client.produce(1)
    rig.port.hold = True
    await client.send(*(send(1, sequence_id, b"x") for sequence_id in range(3)))
    await rig.until(lambda: rig.port.published_runs > 0)
    await asyncio.sleep(0.05)
    assert rig.metric("magnetar_publish_latency_seconds_count") == 0, "no receipt was sent yet"
    rig.port.commit()
    for _ in range(3):
        await client.expect("SEND_RECEIPT")
    assert rig.metric("magnetar_publish_latency_seconds_count") == 3
    assert rig.metric("magnetar_publish_latency_seconds_sum") >= 3 * 0.04
