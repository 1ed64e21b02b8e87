"""Transactions by raw frames: a door with a whole core behind it, every answer and every error."""

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from magnetar.broker.doors.listener import Entrance, Listener
from magnetar.broker.doors.pulsar import transactions as module
from magnetar.broker.doors.pulsar.door import PulsarDoor
from magnetar.broker.metadata.transactions import COORDINATORS
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from tests.doors.raw_client import RawClient, command, send
from tests.transactions.bank import Bank

ASSIGN = "persistent://pulsar/system/transaction_coordinator_assign"
TOPIC = "persistent://public/default/t"


class Rig:
    """A core, a door to it, and raw clients."""

    def __init__(self, bank: Bank) -> None:
        self.bank = bank
        loop = asyncio.get_running_loop()
        core = bank.core
        self.door = PulsarDoor(
            core.catalog,
            core.config,
            loop=loop,
            metrics=core.metrics,
            server_version="Magnetar-test",
            transactions=bank.coordinator,
        )
        self.listener = Listener(
            [Entrance([socket.create_server(("127.0.0.1", 0))])],
            self.door,
            connections_max=100,
            loop=loop,
            metrics=core.metrics,
        )
        self.listener.start()
        self.clients: list[RawClient] = []

    async def client(self) -> RawClient:
        client = await RawClient.dial(self.listener.addresses[0])
        self.clients.append(client)
        await client.connect()
        return client

    async def stop(self) -> None:
        for each in self.clients:
            each.close()
        self.listener.stop()
        self.door.abort()
        await self.bank.stop()


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    rig = Rig(await Bank.on(tmp_path / "data"))
    yield rig
    await rig.stop()


async def begin(client: RawClient, ttl_ms: int = 60_000) -> dict[str, int]:
    answer = await client.ask(
        "NEW_TXN", "NEW_TXN_RESPONSE", request_id=1, tc_id=1, txn_ttl_millis=ttl_ms
    )
    assert not answer.HasField("error")
    return bits(answer)


def bits(answer: Any) -> dict[str, int]:
    return {
        "txnid_most_bits": answer.txnid_most_bits,
        "txnid_least_bits": answer.txnid_least_bits,
    }


def send_in(transaction: dict[str, int], sequence_id: int, payload: bytes = b"in") -> bytes:
    return send(1, sequence_id, payload, in_transaction=transaction)


async def end(client: RawClient, transaction: dict[str, int], action: int) -> Any:
    return await client.ask(
        "END_TXN", "END_TXN_RESPONSE", request_id=9, txn_action=action, **transaction
    )


async def test_coordinators_are_found_as_clients_look_for_them(rig: Rig) -> None:
    client = await rig.client()
    answer = await client.ask(
        "PARTITIONED_METADATA", "PARTITIONED_METADATA_RESPONSE", topic=ASSIGN, request_id=1
    )
    assert answer.partitions == COORDINATORS
    for number in range(COORDINATORS):
        found = await client.ask(
            "LOOKUP", "LOOKUP_RESPONSE", topic=f"{ASSIGN}-partition-{number}", request_id=2
        )
        assert found.response == api.CommandLookupTopicResponse.Connect
        connected = await client.ask(
            "TC_CLIENT_CONNECT_REQUEST",
            "TC_CLIENT_CONNECT_RESPONSE",
            request_id=3,
            tc_id=number,
        )
        assert not connected.HasField("error")
    refused = await client.ask(
        "TC_CLIENT_CONNECT_REQUEST",
        "TC_CLIENT_CONNECT_RESPONSE",
        request_id=4,
        tc_id=COORDINATORS,
    )
    assert refused.error == api.TransactionCoordinatorNotFound
    opened = await client.ask("NEW_TXN", "NEW_TXN_RESPONSE", request_id=5, tc_id=99)
    assert opened.error == api.TransactionCoordinatorNotFound


async def test_a_transaction_from_its_beginning_to_its_end(rig: Rig) -> None:
    client = await rig.client()
    transaction = await begin(client)
    added = await client.ask(
        "ADD_PARTITION_TO_TXN",
        "ADD_PARTITION_TO_TXN_RESPONSE",
        request_id=2,
        partitions=[TOPIC],
        **transaction,
    )
    assert bits(added) == transaction
    await client.produce(1, TOPIC)
    await client.send(send(1, 0, b"out"), send_in(transaction, 1), send_in(transaction, 2))
    assert [(await client.expect("SEND_RECEIPT")).sequence_id for _ in range(3)] == [0, 1, 2]
    await client.subscribe(1, TOPIC, initialPosition=api.CommandSubscribe.Earliest)
    await client.send(_flow(10))
    [first] = await client.messages(1)
    await client.nothing()
    added = await client.ask(
        "ADD_SUBSCRIPTION_TO_TXN",
        "ADD_SUBSCRIPTION_TO_TXN_RESPONSE",
        request_id=3,
        subscription=[api.Subscription(topic=TOPIC, subscription="s")],
        **transaction,
    )
    assert bits(added) == transaction
    held = await ack_in(client, first.command.message.message_id, transaction)
    assert not held.HasField("error")
    assert bits(held) == transaction
    await client.send(
        _end(transaction, api.COMMIT),
    )
    kinds = [(await client.frame()).command for _ in range(3)]
    [answer] = [each for each in kinds if each.type == api.BaseCommand.END_TXN_RESPONSE]
    assert bits(answer.endTxnResponse) == transaction
    assert len([each for each in kinds if each.type == api.BaseCommand.MESSAGE]) == 2


async def test_what_a_client_gets_for_a_transaction_that_is_not_its_own_or_over(rig: Rig) -> None:
    client = await rig.client()
    unknown = {"txnid_most_bits": 1, "txnid_least_bits": 4711}
    over = await begin(client)
    assert not (await end(client, over, api.COMMIT)).HasField("error")
    for action in (api.COMMIT, api.ABORT):
        assert (await end(client, over, action)).error == api.TransactionNotFound
    assert (await end(client, unknown, api.COMMIT)).error == api.TransactionNotFound
    for each in (unknown, over):
        for kind, fields in (
            ("ADD_PARTITION_TO_TXN", {"partitions": [TOPIC]}),
            ("ADD_SUBSCRIPTION_TO_TXN", {}),
        ):
            answer = await client.ask(kind, f"{kind}_RESPONSE", request_id=7, **fields, **each)
            assert answer.error == api.TransactionNotFound
            assert bits(answer) == each


async def test_who_may_have_missed_how_a_transaction_ended_is_told_on_another_connection(
    rig: Rig,
) -> None:
    over = await begin(first := await rig.client())
    assert not (await end(first, over, api.COMMIT)).HasField("error")
    second = await rig.client()
    assert (await end(second, over, api.ABORT)).error == api.InvalidTxnStatus
    assert not (await end(second, over, api.COMMIT)).HasField("error")
    assert (await end(second, over, api.COMMIT)).error == api.TransactionNotFound


async def test_a_decided_transaction_that_is_not_finished_says_so(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await rig.client()
    transaction = await begin(client)
    await client.produce(1, TOPIC)
    await client.send(send_in(transaction, 0))
    await client.expect("SEND_RECEIPT")
    gate = asyncio.Event()

    async def never(*_: object) -> None:
        await gate.wait()

    monkeypatch.setattr(rig.bank.core.catalog, "settle", never)
    await client.send(_end(transaction, api.COMMIT))
    await asyncio.sleep(0.1)
    assert (await end(client, transaction, api.ABORT)).error == api.InvalidTxnStatus
    answer = await client.ask(
        "ADD_PARTITION_TO_TXN",
        "ADD_PARTITION_TO_TXN_RESPONSE",
        request_id=7,
        partitions=[TOPIC],
        **transaction,
    )
    assert answer.error == api.InvalidTxnStatus
    gate.set()
    assert not (await client.expect("END_TXN_RESPONSE")).HasField("error")


async def test_a_send_into_what_is_over_is_refused_and_nothing_else(rig: Rig) -> None:
    client = await rig.client()
    over = await begin(client)
    await end(client, over, api.ABORT)
    await client.produce(1, TOPIC)
    await client.send(send(1, 0), send_in(over, 1), send(1, 2))
    assert (await client.expect("SEND_RECEIPT")).sequence_id == 0
    refused = await client.expect("SEND_ERROR")
    assert (refused.sequence_id, refused.error) == (1, api.NotAllowedError)
    assert (await client.expect("SEND_RECEIPT")).sequence_id == 2
    await client.ask("PING", "PONG")


async def test_conflicts_and_wrong_kinds_of_acknowledgement_have_their_codes(rig: Rig) -> None:
    client = await rig.client()
    await client.produce(1, TOPIC)
    await client.send(send(1, 0))
    await client.expect("SEND_RECEIPT")
    await client.subscribe(1, TOPIC, initialPosition=api.CommandSubscribe.Earliest)
    await client.send(_flow(10))
    [message] = await client.messages(1)
    at = message.command.message.message_id
    first, second = await begin(client), await begin(client)
    assert not (await ack_in(client, at, first)).HasField("error")
    assert not (await ack_in(client, at, first)).HasField("error")
    assert (await ack_in(client, at, second)).error == api.TransactionConflict
    assert (await ack_in(client, at, {})).error == api.TransactionConflict
    wrong = await ack_in(client, at, second, api.CommandAck.Cumulative)
    assert wrong.error == api.NotAllowedError
    over = await begin(client)
    await end(client, over, api.COMMIT)
    await client.send(_end(first, api.ABORT))
    said = [(await client.frame()).command for _ in range(2)]
    [again] = [each for each in said if each.type == api.BaseCommand.MESSAGE]
    assert again.message.message_id == at
    assert again.message.redelivery_count == 1
    assert (await ack_in(client, at, over)).error == api.TransactionNotFound


async def test_one_connection_has_only_so_many_open(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "OPEN_PER_CONNECTION_MAX", 2)
    client = await rig.client()
    first = await begin(client)
    await begin(client)
    refused = await client.ask("NEW_TXN", "NEW_TXN_RESPONSE", request_id=5, tc_id=0)
    assert refused.error == api.TooManyRequests
    await begin(await rig.client())
    await end(client, first, api.ABORT)
    await begin(client, ttl_ms=1)
    await asyncio.sleep(0.01)
    await begin(client)  # the one before has timed out, and counts no more


async def test_a_name_that_is_none_is_refused(rig: Rig) -> None:
    client = await rig.client()
    transaction = await begin(client)
    answer = await client.ask(
        "ADD_PARTITION_TO_TXN",
        "ADD_PARTITION_TO_TXN_RESPONSE",
        request_id=2,
        partitions=["nonsense://a/b"],
        **transaction,
    )
    assert answer.error == api.InvalidTopicName


async def test_what_siblings_say_is_answered_and_decides_nothing(rig: Rig) -> None:
    client = await rig.client()
    transaction = await begin(client)
    answer = await client.ask(
        "END_TXN_ON_PARTITION",
        "END_TXN_ON_PARTITION_RESPONSE",
        request_id=2,
        topic=TOPIC,
        txn_action=api.COMMIT,
        **transaction,
    )
    assert bits(answer) == transaction
    answer = await client.ask(
        "END_TXN_ON_SUBSCRIPTION",
        "END_TXN_ON_SUBSCRIPTION_RESPONSE",
        request_id=2,
        subscription=api.Subscription(topic=TOPIC, subscription="s"),
        **transaction,
    )
    assert bits(answer) == transaction
    assert not (await end(client, transaction, api.ABORT)).HasField("error")


async def ack_in(
    client: RawClient,
    at: Any,
    transaction: dict[str, int],
    kind: int = api.CommandAck.Individual,
) -> Any:
    return await client.ask(
        "ACK",
        "ACK_RESPONSE",
        consumer_id=1,
        ack_type=kind,
        message_id=[at],
        request_id=6,
        **transaction,
    )


def _flow(permits: int) -> bytes:
    return command("FLOW", consumer_id=1, messagePermits=permits)


def _end(transaction: dict[str, int], action: int) -> bytes:
    return command("END_TXN", request_id=9, txn_action=action, **transaction)
