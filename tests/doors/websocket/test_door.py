"""The door: handshakes, limits, silence, and leaving."""

import asyncio
import json
from base64 import b64encode
from contextlib import suppress
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from magnetar.broker.doors.websocket import connection as connection_module
from magnetar.broker.doors.websocket import door as door_module
from magnetar.broker.port import (
    ConsumerBusyError,
    PortError,
    ProducerFencedError,
    QuotaExceededError,
    ServiceNotReadyError,
    SubscriptionNotFoundError,
    TopicNotFoundError,
    TopicTerminatedError,
)
from tests.doors.websocket.conftest import TOPIC, Rig, Serve, base64

UPGRADE = ["Upgrade: websocket", "Sec-WebSocket-Version: 13"]
KEY = b64encode(bytes(16)).decode()


async def shake(path: str, *lines: str, target: str = f"/ws/v2/producer/{TOPIC}") -> bytes:
    """Send a handshake by hand; return what came until the door was silent."""
    reader, writer = await asyncio.open_unix_connection(path)
    head = [f"GET {target} HTTP/1.1", "Host: localhost", "Connection: Upgrade", *lines, "", ""]
    writer.write("\r\n".join(head).encode())
    try:
        return await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("v2/producer/persistent/no/where/t", 404),
        ("v2/producer/persistent/public/default", 404),
        ("v1/producer/persistent/public/default/t", 404),
        (f"v2/producer/{TOPIC}?sendTimeoutMillis=soon", 400),
        (f"v2/consumer/{TOPIC}/s?subscriptionType=All", 400),
        ("v2/reader/persistent/public/default/%00", 400),
    ],
)
async def test_what_cannot_be_is_refused_before_the_upgrade(
    rig: Rig, target: str, status: int
) -> None:
    told, reason = await rig.refused(target)
    assert told == status
    assert reason


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (TopicNotFoundError("x"), 404),
        (SubscriptionNotFoundError("x"), 404),
        (ConsumerBusyError("x"), 409),
        (ProducerFencedError("x"), 409),
        (QuotaExceededError("x", hold=True), 503),
        (TopicTerminatedError("x"), 503),
        (ServiceNotReadyError("x"), 503),
        (PortError("x"), 500),
        (RuntimeError("a bug"), 500),
    ],
)
async def test_each_refusal_of_the_broker_has_its_status(
    rig: Rig, error: Exception, status: int
) -> None:
    rig.port.failures["subscribe"] = error
    told, reason = await rig.refused(f"v2/consumer/{TOPIC}/s")
    assert told == status
    assert ("a bug" in reason) is False
    assert len(rig.door._connections) == 0 or await _gone(rig)


async def _gone(rig: Rig) -> bool:
    await rig.until(lambda: not rig.door._connections)
    return True


async def test_a_broker_that_does_not_answer_is_a_504(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "OPEN_TIMEOUT_S", 0.05)
    rig.port.gate = asyncio.Event()
    assert (await rig.refused(f"v2/producer/{TOPIC}"))[0] == 504


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["Upgrade: websocket", f"Sec-WebSocket-Key: {KEY}", "Sec-WebSocket-Version: 8"], 426),
        (["Upgrade: websocket", f"Sec-WebSocket-Key: {KEY}"], 426),
        (UPGRADE, 400),
        ([*UPGRADE, "Sec-WebSocket-Key: short"], 400),
        (
            ["Upgrade: websocket", "Sec-WebSocket-Version: 13", *[f"Sec-WebSocket-Key: {KEY}"] * 2],
            400,
        ),
        (["Upgrade: h2c"], 404),
        ([], 404),
    ],
)
async def test_a_handshake_that_is_none_is_refused(rig: Rig, lines: list[str], status: int) -> None:
    answer = await shake(rig.path, *lines)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert not rig.port.opened


async def test_the_proof_of_a_handshake_is_that_of_the_standard(rig: Rig) -> None:
    answer = await shake(
        rig.path,
        "Upgrade: WebSocket",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
    )
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in answer


async def test_a_client_that_leaves_while_its_producer_is_opened_leaves_nothing(rig: Rig) -> None:
    rig.port.gate = asyncio.Event()
    connecting = asyncio.create_task(rig.producer())
    await rig.until(lambda: bool(rig.door._connections))
    await asyncio.sleep(0.05)
    connecting.cancel()
    with suppress(asyncio.CancelledError):
        await connecting
    await rig.until(lambda: not rig.door._connections)
    rig.port.gate.set()
    await asyncio.sleep(0.05)
    assert all(each.closed for each in rig.port.opened)


async def test_connections_are_bounded_and_one_that_leaves_makes_room(serve: Serve) -> None:
    rig = await serve(websocket_connections_max=2)
    first = await rig.producer()
    await rig.reader()
    assert (await rig.refused(f"v2/producer/{TOPIC}"))[0] == 503
    await first.socket.close()
    await rig.until(lambda: len(rig.door._connections) == 1)
    assert (await (await rig.producer()).publish())["result"] == "ok"


async def test_a_binary_message_is_refused(rig: Rig) -> None:
    client = await rig.producer()
    await client.socket.send(b"bytes")
    assert (await client.end())[0] == 1003


@pytest.mark.parametrize("data", [b"\xff\xff", b"\x81\x05hello", b"\x83\x80\0\0\0\0"])
async def test_frames_that_are_none_end_their_connection_and_no_other(
    rig: Rig, data: bytes
) -> None:
    good, bad = await rig.producer(), await rig.producer()
    bad.socket.transport.write(data)
    with suppress(ConnectionClosed):
        await asyncio.wait_for(bad.socket.recv(), 30)
    assert bad.socket.close_code == 1002
    assert (await good.publish())["result"] == "ok"


async def test_a_silent_client_is_asked_and_one_that_answers_stays(serve: Serve) -> None:
    rig = await serve(keep_alive_s=0.1)
    client = await rig.producer()
    await asyncio.sleep(0.5)
    assert (await client.publish())["result"] == "ok"


async def test_a_client_that_does_not_answer_is_let_go(serve: Serve) -> None:
    rig = await serve(keep_alive_s=0.1)
    client = await rig.consumer()
    client.socket.transport.pause_reading()
    await rig.until(lambda: not rig.door._connections)
    await rig.until(lambda: all(each.closed for each in rig.port.subscribed))


async def test_a_client_that_asks_without_reading_is_not_read_from(serve: Serve) -> None:
    rig = await serve(write_buffer_bytes_per_connection_max=64 * 1024)
    client = await rig.producer()
    client.socket.transport.pause_reading()
    padding = "x" * 10_000

    async def flood() -> None:
        for number in range(3_000):
            await client.tell(payload="?", context=padding)
            assert number < 2_999

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(flood(), 1.5)
    (connection,) = rig.door._connections
    assert connection._waiting() < 2 * 1024 * 1024
    client.socket.transport.abort()


async def test_texts_on_their_way_are_bounded_together(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "PARTIAL_BYTES_MAX", 100_000)
    first, second = await rig.producer(), await rig.producer()
    whole = json.dumps({"payload": base64(bytes(60_000))})

    def begun(client: Any) -> None:
        client.socket.protocol.send_text(whole.encode(), fin=False)
        client.socket.transport.write(b"".join(client.socket.protocol.data_to_send()))

    begun(first)
    await rig.until(lambda: rig.door.partial_bytes > 60_000)
    begun(second)
    assert (await second.end())[0] == 1013
    await rig.until(lambda: rig.door.partial_bytes < 100_000)
    first.socket.transport.abort()
    await rig.until(lambda: rig.door.partial_bytes == 0)


async def test_a_door_that_closes_answers_what_it_took_and_says_good_bye(rig: Rig) -> None:
    client = await rig.producer("batchingEnabled=true&batchingMaxPublishDelay=60000")
    await client.tell(payload="eA==")
    await rig.until(lambda: bool(next(iter(rig.door._connections))._session._batches))  # type: ignore[union-attr]
    await rig.door.stop()
    assert (await client.hear())["result"] == "ok"
    assert (await client.end())[0] == 1001
    assert not rig.door._connections


async def test_a_door_that_closes_does_not_wait_for_clients_for_ever(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door_module, "DRAIN_S", 0.1)
    client = await rig.consumer()
    client.socket.transport.pause_reading()
    await asyncio.wait_for(rig.door.stop(), 30)
    await rig.until(lambda: not rig.door._connections)


async def test_a_bug_costs_one_connection_and_no_other(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = await rig.producer(), await rig.consumer()

    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("magnetar.broker.doors.websocket.consumer.ConsumerSession.handle", fail)
    with suppress(ConnectionClosed):
        await bad.tell(type="ping")
    await bad.end()
    assert (await good.publish())["result"] == "ok"
