"""A reader's WebSocket: where it begins, how far it runs ahead, and coming back."""

import asyncio
from typing import Any

import pytest

from magnetar.broker.doors.websocket import source
from magnetar.broker.entry import LATEST
from magnetar.broker.port import ServiceNotReadyError
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from tests.doors.websocket.conftest import LEDGER_OF_THE_FAKE as LEDGER
from tests.doors.websocket.conftest import NAME, Rig, base64, id_of
from tests.doors.websocket.test_consumer import payloads, store_batch, texts


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "RETURN_DELAY_FIRST_S", 0.01)


def place(entry: int, **more: Any) -> str:
    found = api.MessageIdData(ledgerId=LEDGER, entryId=entry, **more)
    return base64(found.SerializeToString()).replace("+", "%2B")


async def test_a_reader_begins_with_what_comes(rig: Rig) -> None:
    rig.store(b"old")
    client = await rig.reader("readerName=r")
    request = rig.port.subscribed[0].request
    assert (request.durable, request.start, request.consumer_name) == (False, LATEST, "r")
    assert request.subscription.startswith("reader-")
    rig.store(b"new")
    assert payloads(await client.receive()) == texts(b"new")


async def test_a_reader_begins_at_the_first_message(rig: Rig) -> None:
    rig.store(b"1", b"2")
    client = await rig.reader("messageId=earliest")
    assert payloads(await client.receive(2)) == texts(b"1", b"2")


async def test_a_reader_begins_behind_the_message_it_names(rig: Rig) -> None:
    rig.store(b"0", b"1", b"2")
    client = await rig.reader(f"messageId={place(1)}")
    assert payloads(await client.receive()) == texts(b"2")


async def test_a_reader_begins_in_the_middle_of_a_batch(rig: Rig) -> None:
    store_batch(rig, b"0", b"1", b"2")
    rig.store(b"3")
    client = await rig.reader(f"messageId={place(0, batch_index=1, batch_size=3)}")
    assert payloads(await client.receive(2)) == texts(b"2", b"3")


async def test_a_reader_runs_ahead_of_its_client_no_further_than_its_queue(rig: Rig) -> None:
    rig.store(b"0", b"1", b"2")
    client = await rig.reader("messageId=earliest&receiverQueueSize=2")
    received = await client.receive(2)
    await client.silence()
    await client.ack(received[0])
    assert payloads(await client.receive()) == texts(b"2")


async def test_what_was_read_is_acknowledged_without_the_clients_doing(rig: Rig) -> None:
    rig.store(b"0")
    store_batch(rig, b"1", b"2")
    client = await rig.reader("messageId=earliest")
    await client.receive(3)
    (subscription,) = rig.topic().subscriptions.values()
    await rig.until(lambda: subscription.acknowledged == {0, 1})


async def test_a_reader_of_partitions_reads_them_all(rig: Rig) -> None:
    rig.port.partitioned[NAME] = 2
    client = await rig.reader("messageId=earliest")
    rig.store(b"a", name=f"{NAME}-partition-0")
    rig.store(b"b", name=f"{NAME}-partition-1")
    received = await client.receive(2)
    assert {id_of(each).partition for each in received} == {0, 1}


async def test_a_reader_that_the_broker_closes_goes_on_where_it_was(rig: Rig) -> None:
    rig.store(b"0")
    store_batch(rig, b"1", b"2")
    client = await rig.reader("messageId=earliest&receiverQueueSize=2")
    received = await client.receive(2)
    (first,) = rig.port.subscribed
    await first.close()
    first.events.closed(ServiceNotReadyError("unloaded"))
    await asyncio.sleep(0.05)
    await client.ack(received[0])
    assert payloads(await client.receive()) == texts(b"2")


async def test_a_reader_answers_questions_and_does_not_count_them(rig: Rig) -> None:
    rig.store(b"0", b"1")
    client = await rig.reader("messageId=earliest&receiverQueueSize=1")
    await client.receive()
    await client.tell(type="isEndOfTopic")
    assert await client.hear() == {"endOfTopic": False}
    await client.tell(type="ping")
    assert await client.hear() == {"result": "ok"}
    await client.silence()


async def test_a_reader_that_hears_nonsense_hangs_up(rig: Rig) -> None:
    client = await rig.reader()
    await client.socket.send("nonsense")
    assert (await client.end())[0] == 1007
    await rig.until(lambda: all(each.closed for each in rig.port.subscribed))
