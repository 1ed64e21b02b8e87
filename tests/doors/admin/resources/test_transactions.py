"""Transactions through admin REST, with one process and with two."""

from typing import Any

import pytest

from magnetar.broker.entry import TransactionId
from magnetar.broker.metadata.transactions import COORDINATORS
from magnetar.broker.port import Acknowledged, SubscribeRequest, SubscriptionType
from magnetar.broker.transactions.coordinator import Coordinator
from magnetar.names import COORDINATORS_TOPIC, TopicName
from tests.doors.admin.processes import Processes
from tests.topics.whole_core import ConsumerDoor, run_of
from tests.transactions.bank import in_transactions

V3 = "/admin/v3/transactions"
TOPIC = "persistent://public/default/orders"
PATH = "public/default/orders"


def coordinator_of(processes: Processes) -> Coordinator:
    found = processes.owner(TOPIC).context.coordinator
    assert found is not None
    return found


async def begin(processes: Processes) -> TransactionId:
    return await coordinator_of(processes).open(1, 60_000, "ann")


async def publish_in(processes: Processes, transaction: TransactionId, *bodies: str) -> None:
    run = in_transactions(run_of(bodies), [transaction] * len(bodies))
    await processes.owner(TOPIC).publish_run(TOPIC, run)


async def hold(processes: Processes, transaction: TransactionId) -> tuple[int, int]:
    """Acknowledge the first message of the topic in a transaction."""
    door = ConsumerDoor()
    request = SubscribeRequest(
        TopicName.parse(TOPIC), "billing", type=SubscriptionType.SHARED, from_earliest=True
    )
    consumer = await processes.owner(TOPIC).context.catalog.subscribe(request, door)
    consumer.flow(10)
    await door.wait_for(1)
    [(place, _)] = door.received
    await consumer.acknowledge_in(transaction, [Acknowledged(*place)], cumulative=False)
    return place


async def test_coordinators_are_listed_counted_and_multiplied(
    ask: Any, any_number: Processes
) -> None:
    front = any_number.front
    await begin(any_number)
    listed = (await ask(front, "GET", f"{V3}/coordinators")).json
    assert [each["id"] for each in listed] == list(range(COORDINATORS))
    stats = (await ask(front, "GET", f"{V3}/coordinatorStats")).json
    assert [each["ongoingTxnSize"] for each in stats.values()] == [0, 1, 0, 0]
    one = (await ask(front, "GET", f"{V3}/coordinatorStats?coordinatorId=1")).json
    assert (one["leastSigBits"], one["state"]) == (1, "Ready")
    assert (await ask(front, "GET", f"{V3}/coordinatorStats?coordinatorId=9")).status == 404
    more = f"{V3}/transactionCoordinator/replicas"
    assert (await ask(front, "POST", more, COORDINATORS + 1)).status == 204
    assert len((await ask(front, "GET", f"{V3}/coordinators")).json) == COORDINATORS + 1
    for wrong in (COORDINATORS, 1_000, -1):
        assert (await ask(front, "POST", more, wrong)).status == 406


async def test_a_client_that_knows_only_http_finds_the_coordinators(
    ask: Any, any_number: Processes
) -> None:
    front, name = any_number.front, COORDINATORS_TOPIC.local
    path = f"/admin/v2/persistent/pulsar/system/{name}/partitions"
    assert (await ask(front, "GET", path)).json["partitions"] == COORDINATORS
    found = f"/lookup/v2/topic/persistent/pulsar/system/{name}-partition-1"
    assert (await ask(front, "GET", found)).json["brokerUrl"].startswith("pulsar://")
    other = "/admin/v2/persistent/pulsar/system/other/partitions"
    assert (await ask(front, "GET", other)).status == 404


async def test_a_transaction_is_shown_with_who_takes_part(ask: Any, any_number: Processes) -> None:
    front = any_number.front
    await any_number.owner(TOPIC).publish_run(TOPIC, run_of(["first"]))
    transaction = await begin(any_number)
    await publish_in(any_number, transaction, "a", "b")
    ledger, entry = await hold(any_number, transaction)
    path = f"{transaction.most}/{transaction.least}"
    shown = (await ask(front, "GET", f"{V3}/transactionMetadata/{path}")).json
    assert shown["txnId"] == str(transaction)
    assert (shown["status"], shown["owner"], shown["timeoutAt"]) == ("OPEN", "ann", 60_000)
    assert list(shown["producedPartitions"]) == [TOPIC]
    assert list(shown["ackedPartitions"][TOPIC]) == ["billing"]
    there = (await ask(front, "GET", f"{V3}/transactionInBufferStats/{PATH}/{path}")).json
    assert there == {"startPosition": f"{ledger}:{entry + 1}", "aborted": False}
    buffer = (await ask(front, "GET", f"{V3}/transactionBufferStats/{PATH}")).json
    assert (buffer["state"], buffer["ongoingTxnSize"]) == ("Ready", 1)
    assert buffer["maxReadPosition"] == f"{ledger}:{entry}"
    stats = (await ask(front, "GET", f"/admin/v2/persistent/{PATH}/stats")).json
    assert stats["ongoingTxnCount"] == 1
    pending = (await ask(front, "GET", f"{V3}/pendingAckStats/{PATH}/billing")).json
    assert (pending["state"], pending["ongoingTxnSize"]) == ("Ready", 1)
    held = await ask(front, "GET", f"{V3}/transactionInPendingAckStats/{PATH}/billing/{path}")
    assert held.json == {"cumulativeAckPosition": None, "individualAcks": 1}
    for place, state in (
        (f"{ledger}/{entry}", "PendingAck"),
        (f"{ledger}/{entry + 99}", "InvalidPosition"),
    ):
        found = await ask(front, "GET", f"{V3}/positionStatsInPendingAck/{PATH}/billing/{place}")
        assert found.json == {"state": state}


async def test_an_old_transaction_is_found(ask: Any, any_number: Processes) -> None:
    front = any_number.front
    transaction = await begin(any_number)
    assert (await ask(front, "GET", f"{V3}/slowTransactions/1000")).json == {}
    any_number.clock.advance(5)
    slow = (await ask(front, "GET", f"{V3}/slowTransactions/1000")).json
    assert list(slow) == [str(transaction)]
    assert (await ask(front, "GET", f"{V3}/slowTransactions/1000?coordinatorId=0")).json == {}


async def test_anybodys_transaction_can_be_aborted(ask: Any, one: Processes) -> None:
    transaction = await begin(one)
    await publish_in(one, transaction, "a")
    path = f"{transaction.most}/{transaction.least}"
    assert (await ask(one.front, "POST", f"{V3}/abortTransaction/{path}")).status == 204
    there = await ask(one.front, "GET", f"{V3}/transactionInBufferStats/{PATH}/{path}")
    assert there.json["aborted"] is True
    assert (await ask(one.front, "GET", f"{V3}/transactionMetadata/{path}")).status == 404


@pytest.mark.parametrize(
    "path",
    [
        "transactionMetadata/1/999",
        f"transactionInBufferStats/{PATH}/1/999",
        f"pendingAckStats/{PATH}/nobody",
        "transactionBufferStats/public/default/missing",
    ],
)
async def test_what_there_is_not_is_not_found(ask: Any, any_number: Processes, path: str) -> None:
    await any_number.owner(TOPIC).publish_run(TOPIC, run_of(["first"]))
    assert (await ask(any_number.front, "GET", f"{V3}/{path}")).status == 404
