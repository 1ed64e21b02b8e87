"""What a connection means: CONNECT first, questions, refusals."""

import pytest

from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from tests.doors.pulsar.conftest import MakeRig, Rig
from tests.doors.raw_client import command, connect, send

NO_REQUEST = 2**64 - 1


async def test_connect_is_answered_with_what_the_broker_can_do(rig: Rig) -> None:
    client = await rig.dial()
    connected = await client.connect()
    assert connected.server_version == "Magnetar-test"
    assert connected.protocol_version == 21
    assert connected.max_message_size == 5 * 1024 * 1024
    assert not connected.feature_flags.supports_scalable_topics


async def test_the_lower_protocol_version_wins(rig: Rig) -> None:
    client = await rig.dial()
    assert (await client.connect(protocol_version=15)).protocol_version == 15


@pytest.mark.parametrize(
    "first",
    [
        command("PING"),
        command("LOOKUP", topic="t", request_id=1),
        command("FLOW", consumer_id=1, messagePermits=1),
        send(1, 1),
    ],
)
async def test_anything_before_connect_closes_the_connection(rig: Rig, first: bytes) -> None:
    client = await rig.dial()
    await client.send(first)
    (error,) = await client.closed()
    assert error.error.request_id == NO_REQUEST
    assert "AWAITING_CONNECT" in error.error.message


async def test_connect_twice_closes_the_connection(rig: Rig) -> None:
    client = await rig.client()
    await client.send(connect())
    assert "CONNECT is not allowed" in (await client.closed())[0].error.message


async def test_a_command_that_only_brokers_send_closes_the_connection(rig: Rig) -> None:
    client = await rig.client()
    await client.send(command("SUCCESS", request_id=1))
    assert "SUCCESS is not allowed" in (await client.closed())[0].error.message


async def test_an_unknown_command_closes_the_connection(rig: Rig) -> None:
    client = await rig.client()
    await client.send(b"\0\0\0\x06\0\0\0\x02\x08\x63")
    (error,) = await client.closed()
    assert error.type == api.BaseCommand.ERROR


async def test_ping_gets_pong(rig: Rig) -> None:
    client = await rig.client()
    await client.ask("PING", "PONG")


async def test_the_first_requests_may_follow_connect_in_one_packet(rig: Rig) -> None:
    client = await rig.dial()
    await client.send(
        connect(),
        command("PARTITIONED_METADATA", topic="t", request_id=1),
        command("LOOKUP", topic="t", request_id=2),
        command("PRODUCER", topic="t", producer_id=1, request_id=3),
        command("PING"),
    )
    await client.expect("CONNECTED")
    kinds = {(await client.frame()).command.type for _ in range(4)}
    assert kinds == {
        api.BaseCommand.PARTITIONED_METADATA_RESPONSE,
        api.BaseCommand.LOOKUP_RESPONSE,
        api.BaseCommand.PRODUCER_SUCCESS,
        api.BaseCommand.PONG,
    }


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("NEW_TXN", {}),
        ("END_TXN", {"txn_action": api.COMMIT}),
        ("TC_CLIENT_CONNECT_REQUEST", {"tc_id": 0}),
    ],
)
async def test_what_is_not_there_yet_is_refused_by_name(
    rig: Rig, kind: str, fields: dict[str, object]
) -> None:
    client = await rig.client()
    error = await client.ask(kind, "ERROR", request_id=5, **fields)
    assert (error.request_id, error.error) == (5, api.NotAllowedError)
    assert kind in error.message


async def test_one_connection_may_only_have_so_many_producers_and_consumers(
    make_rig: MakeRig,
) -> None:
    rig = make_rig(endpoints_per_connection_max=2)
    client = await rig.client()
    await client.produce(1)
    await client.subscribe(1)
    error = await client.ask("PRODUCER", "ERROR", topic="t", producer_id=2, request_id=9)
    assert "the limit" in error.message
    await client.ask("CLOSE_PRODUCER", "SUCCESS", producer_id=1, request_id=10)
    await client.produce(2)


async def test_a_bug_behind_one_request_costs_nothing_else(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    client = await rig.client()
    rig.port.failures["locate"] = ZeroDivisionError("planted")
    answer = await client.ask("LOOKUP", "LOOKUP_RESPONSE", topic="t", request_id=1)
    assert (answer.response, answer.error) == (
        api.CommandLookupTopicResponse.Failed,
        api.UnknownError,
    )
    assert "planted" not in answer.message
    assert "planted" in caplog.text
    await client.ask("PING", "PONG")


async def test_a_bug_in_publishing_costs_that_connection_only(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    other, client = await rig.client(), await rig.client()
    await client.produce(1)

    def fail(_: object) -> None:
        raise ZeroDivisionError("planted")

    rig.port.on_publish = fail
    await client.send(send(1, 0))
    await client.closed()
    assert "planted" in caplog.text
    await other.ask("PING", "PONG")


async def test_a_flood_of_commands_does_not_hold_up_the_others(rig: Rig) -> None:
    flooding, other = await rig.client(), await rig.client()
    await flooding.send(command("PING") * 5_000)
    await other.ask("PING", "PONG")
    assert max(each._filled + len(each._left) for each in rig.door._connections) > 10_000
    for _ in range(5_000):
        await flooding.expect("PONG")


async def test_a_bad_header_behind_a_flood_of_commands_is_still_refused(rig: Rig) -> None:
    client = await rig.client()
    await client.send(command("PING") * 100 + b"\xff\xff\xff\xff" + b"x" * 100)
    said = await client.closed()
    assert len(said) == 101
    assert "4294967295 bytes" in said[-1].error.message
