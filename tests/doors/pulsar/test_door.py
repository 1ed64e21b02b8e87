"""What a door does with bytes and time, whatever they mean."""

import asyncio
import contextlib
import mmap
import random
import struct

import pytest

from magnetar.broker.doors.pulsar import door as door_module
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from tests.doors.pulsar.conftest import MakeRig, Rig
from tests.doors.raw_client import RawClient, command, connect, receipts, send

# --- frames ----------------------------------------------------------------------------


async def test_a_session_means_the_same_however_the_network_splits_it(rig: Rig) -> None:
    stream = b"".join(
        (
            connect(),
            command("PRODUCER", topic="t", producer_id=1, request_id=1, producer_name="a"),
        )
    )
    sends = b"".join((send(1, 0), command("PING"), send(1, 1, b"x" * 300)))
    for cut in range(1, len(stream) + 1):
        client = await rig.dial()
        await client.send(stream[:cut])
        await asyncio.sleep(0)
        await client.send(stream[cut:])
        await client.expect("CONNECTED")
        await client.expect("PRODUCER_SUCCESS")
        at = cut * len(sends) // len(stream)
        await client.send(sends[:at])
        await asyncio.sleep(0.001)
        await client.send(sends[at:])
        kinds = sorted([(await client.frame()).command.type for _ in range(3)])
        receipt = api.BaseCommand.SEND_RECEIPT
        assert kinds == [receipt, receipt, api.BaseCommand.PONG]
        client.close()
        await rig.until(lambda: not rig.port.topic("t").producers)


async def test_one_byte_at_a_time_is_slow_but_right(rig: Rig) -> None:
    client = await rig.dial()
    session = connect() + command("PRODUCER", topic="t", producer_id=1, request_id=1)
    for position in range(len(session)):
        await client.send(session[position : position + 1])
        await asyncio.sleep(0)
    await client.expect("CONNECTED")
    await client.expect("PRODUCER_SUCCESS")
    frame = send(1, 5, b"payload")
    for position in range(len(frame)):
        await client.send(frame[position : position + 1])
        await asyncio.sleep(0.0005)
    assert (await client.expect("SEND_RECEIPT")).sequence_id == 5


@pytest.mark.parametrize("size", [15_000, 16_384, 17_000, 900_000, 1_048_576, 1_100_000, 5_242_880])
async def test_entries_of_every_size_survive_a_bad_cut(rig: Rig, size: int) -> None:
    client = await rig.client()
    await client.produce(1)
    payloads = [random.Random(size + number).randbytes(size) for number in range(3)]
    stream = b"".join(send(1, number, payload) for number, payload in enumerate(payloads))
    for cut in range(0, len(stream), size // 2 + 7):
        await client.send(stream[cut : cut + size // 2 + 7])
        await asyncio.sleep(0.002)
    assert [each[1] for each in receipts([await client.frame() for _ in range(3)])] == [0, 1, 2]
    bodies = rig.port.topic("t").bodies
    assert all(body.endswith(payload) for body, payload in zip(bodies, payloads, strict=True))
    assert rig.door.buffers.own_bytes == 0, "every buffer came back"


async def test_a_partial_frame_keeps_only_what_it_needs(rig: Rig) -> None:
    clients = [await rig.client() for _ in range(20)]
    for client in clients:
        await client.produce(1, topic=f"t{clients.index(client)}")
        await client.send(send(1, 0, b"x" * 2_000)[:-1])
    await asyncio.sleep(0.02)
    assert rig.door.buffers.own_bytes == 0
    assert {len(each._left) for each in rig.door._connections} == {
        len(send(1, 0, b"x" * 2_000)) - 1
    }


async def test_a_header_that_claims_five_mebibytes_costs_what_has_arrived(rig: Rig) -> None:
    client = await rig.client()
    await client.produce(1)
    frame = send(1, 0, b"x" * 5_000_000)
    await client.send(frame[:100])
    await rig.until(lambda: rig.door.buffers.own_bytes == len(frame))
    (connection,) = rig.door._connections
    assert connection._own is not None
    assert isinstance(connection._own.obj, mmap.mmap), "its pages exist once they are written"
    await client.send(frame[100:])
    await client.expect("SEND_RECEIPT")


@pytest.mark.parametrize("claim", [5 * 1024 * 1024 + 10 * 1024 + 1, 2**31, 2**32 - 1])
async def test_a_frame_beyond_the_limit_is_refused_by_its_header(
    rig: Rig, claim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await rig.client()

    def take(size: int) -> memoryview:
        raise AssertionError(f"the door asked for {size} bytes")

    monkeypatch.setattr(rig.door.buffers, "take", take)
    await client.send(struct.pack(">I", claim))
    (error,) = await client.closed()
    assert f"{claim} bytes" in error.error.message
    assert error.error.request_id == 2**64 - 1
    assert rig.metric("magnetar_connections_broken_total") == 1


async def test_when_the_receive_buffers_are_used_up_the_next_one_has_to_go(rig: Rig) -> None:
    rig.door.buffers._own_bytes_max = 3 * 1024 * 1024
    clients = [await rig.client() for _ in range(4)]
    for client in clients:
        await client.produce(1, topic=f"t{clients.index(client)}")
        await client.send(send(1, 0, b"x" * 900_000)[:500_000])
        await asyncio.sleep(0.02)
    (error,) = await clients[3].closed()
    assert "receive buffers" in error.error.message
    for client in clients[:3]:
        await client.send(send(1, 0, b"x" * 900_000)[500_000:])
        await client.expect("SEND_RECEIPT")
    assert rig.door.buffers.own_bytes == 0


async def test_a_connection_that_ends_in_the_middle_of_a_frame_gives_its_buffer_back(
    rig: Rig,
) -> None:
    client = await rig.client()
    await client.produce(1)
    await client.send(send(1, 0, b"x" * 900_000)[:500_000])
    await rig.until(lambda: rig.door.buffers.own_bytes > 0)
    client.close()
    await rig.until(lambda: rig.door.buffers.own_bytes == 0)


# --- before CONNECT --------------------------------------------------------------------


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 100,
        b"\0" * 100,
        b"\xff" * 100,
        struct.pack(">I", 64 * 1024 + 1),
    ],
)
async def test_garbage_before_connect_is_cut_short(rig: Rig, garbage: bytes) -> None:
    client = await rig.dial()
    await client.send(garbage)
    await client.closed()
    assert rig.metric("pulsar_connection_create_fail_count") == 1


async def test_a_client_that_never_finishes_connect_is_closed(make_rig: MakeRig) -> None:
    rig = make_rig(connect_timeout_s=0.2)
    silent, slow, good = await rig.dial(), await rig.dial(), await rig.client()
    hello = connect()
    for position in range(8):
        await slow.send(hello[position : position + 1])
        await asyncio.sleep(0.01)
    assert await silent.closed() == []
    assert await slow.closed() == []
    await good.ask("PING", "PONG")


async def test_too_many_strangers_make_room_for_each_other(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door_module, "STRANGERS_MAX", 5)
    monkeypatch.setattr(door_module, "STRANGER_GRACE_S", 0.05)
    strangers = [await rig.dial() for _ in range(12)]
    good = await rig.dial()
    await good.send(connect())
    await good.expect("CONNECTED")
    assert rig.door.connections <= 6
    for each in strangers:
        each.close()


async def test_three_hundred_slow_strangers_do_not_keep_a_good_client_out(rig: Rig) -> None:
    strangers = [await rig.dial() for _ in range(300)]
    for each in strangers:
        await each.send(b"\0")
    good = await rig.dial()
    await good.send(connect())
    await good.expect("CONNECTED")
    assert rig.door.connections <= door_module.STRANGERS_MAX + 1


# --- time ------------------------------------------------------------------------------


async def test_a_silent_client_is_asked_and_then_closed(make_rig: MakeRig) -> None:
    rig = make_rig(keep_alive_s=0.1)
    client = await rig.dial()
    await client.connect()
    loop = asyncio.get_running_loop()
    start = loop.time()
    await client.closed()
    assert loop.time() - start > 0.15


async def test_a_client_that_answers_pings_stays(make_rig: MakeRig) -> None:
    rig = make_rig(keep_alive_s=0.5)
    client = await rig.client()
    for _ in range(6):
        await asyncio.sleep(0.2)
        await client.send(command("PONG"))
    await client.ask("PING", "PONG")


async def test_a_client_that_waits_for_us_is_not_taken_for_dead(make_rig: MakeRig) -> None:
    rig = make_rig(keep_alive_s=0.1, pending_publish_bytes_per_connection_max=64 * 1024)
    client = await rig.client()
    await client.produce(1)
    rig.port.hold = True
    await client.send(send(1, 0, b"x" * 100_000))
    await rig.until(lambda: bool(rig.port.held))
    await asyncio.sleep(0.4)
    rig.port.commit()
    await client.expect("SEND_RECEIPT")


# --- draining --------------------------------------------------------------------------


async def test_draining_answers_what_was_sent_and_sends_clients_elsewhere(rig: Rig) -> None:
    rig.port.hold = True
    client, stranger = await rig.client(), await rig.dial()
    await client.produce(1)
    await client.subscribe(2)
    await client.send(send(1, 0))
    await rig.until(lambda: rig.port.published_runs == 1)
    drain = asyncio.ensure_future(rig.listener.drain(2.0))
    await asyncio.sleep(0.02)
    rig.port.commit()
    said = await client.closed()
    kinds = [each.type for each in said]
    assert sorted(kinds) == sorted(
        [
            api.BaseCommand.SEND_RECEIPT,
            api.BaseCommand.CLOSE_PRODUCER,
            api.BaseCommand.CLOSE_CONSUMER,
        ]
    )
    assert kinds.index(api.BaseCommand.SEND_RECEIPT) < kinds.index(api.BaseCommand.CLOSE_PRODUCER)
    assert await stranger.closed() == []
    assert await drain == 0


async def test_draining_does_not_wait_for_ever(rig: Rig) -> None:
    rig.port.hold = True
    client = await rig.client()
    await client.produce(1)
    await client.send(send(1, 0))
    await rig.until(lambda: rig.port.published_runs == 1)
    assert await rig.listener.drain(0.1) == 1
    rig.port.commit()
    assert rig.door.connections == 0


# --- figures ---------------------------------------------------------------------------


async def test_connections_are_counted(rig: Rig) -> None:
    first, stranger = await rig.client(), await rig.dial()
    await rig.until(lambda: rig.door.connections == 2)
    assert rig.metric("pulsar_active_connections") == 2
    first.close()
    stranger.close()
    await rig.until(lambda: not rig.door.connections)
    assert rig.metric("pulsar_connection_created_total_count") == 2
    assert rig.metric("pulsar_connection_create_success_count") == 1
    assert rig.metric("pulsar_connection_create_fail_count") == 1
    assert rig.metric("pulsar_connection_closed_total_count") == 2


# --- hostility -------------------------------------------------------------------------


def hostile_stream(rng: random.Random, *, opened: bool = False) -> bytes:
    """A valid session, or the rest of one that has been opened, with something wrong in it."""
    opening = [
        connect(),
        command("PRODUCER", topic="h", producer_id=1, request_id=1),
        command("SUBSCRIBE", topic="h", subscription="s", subType=1, consumer_id=1, request_id=2),
    ]
    frames = [
        *(() if opened else opening),
        command("FLOW", consumer_id=1, messagePermits=rng.randrange(2**32)),
        *(send(1, number, rng.randbytes(rng.randrange(300))) for number in range(10)),
        command("LOOKUP", topic=rng.choice(["h", "", "a/b", "x" * 5000]), request_id=3),
        command("SEEK", consumer_id=1, request_id=4, message_publish_time=rng.randrange(2**64)),
        command(
            "ACK",
            consumer_id=1,
            ack_type=0,
            message_id=[
                api.MessageIdData(ledgerId=rng.randrange(2**64), entryId=rng.randrange(2**64))
            ],
        ),
        command("CLOSE_CONSUMER", consumer_id=1, request_id=5),
        command("CLOSE_PRODUCER", producer_id=1, request_id=6),
    ]
    match rng.randrange(5):
        case 0:
            rng.shuffle(frames)
        case 1:
            frames = rng.choices(frames, k=20)
        case 2:
            del frames[rng.randrange(len(frames))]
        case _:
            pass
    stream = bytearray(b"".join(frames))
    for _ in range(rng.choice([0, 1, 1, 3, 50])):
        stream[rng.randrange(len(stream))] = rng.randrange(256)
    return bytes(stream[: rng.randrange(len(stream))] if rng.random() < 0.3 else stream)


async def test_hostile_sessions_cost_nobody_else_anything(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    good = await rig.client()
    await good.produce(1, topic="good")
    for seed in range(50):
        rng = random.Random(seed)
        client = await RawClient.dial(rig.address)
        stream = hostile_stream(rng, opened=bool(seed % 3))
        try:
            if seed % 3:
                await client.connect()
                await client.produce(1, topic="h")
                await client.subscribe(1, topic="h")
            while stream:
                cut = rng.choice([1, 7, 100, 1_000, len(stream)])
                await client.send(stream[:cut])
                stream = stream[cut:]
                await asyncio.sleep(0)
            await client.send(connect())  # twice: whatever it was, this ends it
        except ConnectionError:
            pass
        await good.send(send(1, seed))
        assert (await good.expect("SEND_RECEIPT")).sequence_id == seed
        client.close()
    await rig.until(lambda: rig.door.connections == 1)
    await rig.until(lambda: all(each.closed for each in rig.port.opened[1:]))
    assert "Traceback" not in caplog.text
    assert rig.door.buffers.own_bytes == 0


async def test_the_error_arrives_although_the_client_had_more_to_send(rig: Rig) -> None:
    for _ in range(3):
        client = await rig.client(send_buffer=1 << 20)
        with contextlib.suppress(ConnectionError):
            await client.send(struct.pack(">I", 2**31) + b"x" * 3_000_000)
        (error,) = await client.closed()
        assert "2147483648 bytes" in error.error.message
