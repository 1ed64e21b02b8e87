"""Transactions: their coordinators, what is open, and what topics and subscriptions have of it.

    GET  transactions/coordinators, coordinatorStats       they have no state: see `transactions`
    POST transactions/transactionCoordinator/replicas      have more of them
    GET  transactions/transactionMetadata/{most}/{least}   state, time-out, who takes part
    GET  transactions/slowTransactions/{ms}                those that are open for longer
    POST transactions/abortTransaction/{most}/{least}      whoever opened it
    GET  transactions/...BufferStats, pendingAckStats, ... of a topic: asked of its owner

What Pulsar calls low watermarks, snapshots and recoveries is not there: 0, or left out.
"""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

from starlette.responses import Response

from magnetar.broker.doors.admin.call import Call, answer, done
from magnetar.broker.doors.admin.errors import Refusal
from magnetar.broker.doors.admin.routes import Right, Route
from magnetar.broker.entry import EntryId, TransactionId
from magnetar.broker.metadata.transactions import (
    COORDINATORS_MAX,
    BufferRecord,
    State,
    Transaction,
    TransactionStore,
)
from magnetar.broker.topics.subscriptions.subscription import Subscription
from magnetar.broker.topics.topic import Topic
from magnetar.broker.transactions.coordinator import Coordinator
from magnetar.names import TopicName

Json = dict[str, Any]
V3 = "/admin/v3/transactions"
_TOPIC = "{tenant}/{namespace}/{topic}"
_ID = "{most}/{least}"
SLOW_SHOWN_MAX = 1_000
"""Transactions in one answer, the oldest first: each costs some reads."""


def _coordinator(call: Call) -> Coordinator:
    coordinator = call.context.coordinator
    if coordinator is None:
        raise Refusal(501, "this broker has no transactions")
    return coordinator


def _store(call: Call) -> TransactionStore:
    return _coordinator(call).store


def _transaction(call: Call) -> TransactionId:
    return TransactionId(call.number("most"), call.number("least"))


# --- coordinators


async def coordinators(call: Call) -> Response:
    """Return the coordinators: any process serves each of them."""
    url = call.context.address.url
    count = await _store(call).coordinators()
    return answer([{"id": number, "brokerServiceUrl": url} for number in range(count)])


async def coordinator_stats(call: Call) -> Response:
    """Return the figures of all coordinators, or of one."""
    store = _store(call)
    count = await store.coordinators()
    if call.word("coordinatorId"):
        wanted = call.query_number("coordinatorId", 0)
        if wanted >= count:
            raise Refusal(404, f"there is no coordinator {wanted}: they are 0 to {count - 1}")
        return answer(await _coordinator_figures(store, wanted))
    return answer({str(each): await _coordinator_figures(store, each) for each in range(count)})


async def _coordinator_figures(store: TransactionStore, coordinator: int) -> Json:
    return {
        "state": "Ready",
        "leastSigBits": await store.last_number(coordinator),
        "lowWaterMark": 0,
        "ongoingTxnSize": await store.count(coordinator),
        "recoverStartTime": 0,
        "recoverEndTime": 0,
    }


async def scale(call: Call) -> Response:
    """Have more coordinators. Fewer there cannot be: transactions name theirs."""
    wanted = call.needed_json(int, "the number of coordinators")
    if not 0 < wanted <= COORDINATORS_MAX:
        raise Refusal(406, f"{wanted} coordinators, allowed: up to {COORDINATORS_MAX}")
    if wanted <= await _store(call).coordinators():
        raise Refusal(406, "the number of coordinators can only grow")
    await _store(call).scale(wanted)
    return done()


# --- one transaction


async def metadata(call: Call) -> Response:
    """Return what is known of a transaction that is not over."""
    store = _store(call)
    return answer(await _shown(store, await store.find(_transaction(call))))


async def slow(call: Call) -> Response:
    """Return the transactions that are open for longer than so many milliseconds."""
    store, now_ms = _store(call), call.context.clock.wall_ms()
    opened_before = now_ms - call.number("timeout")
    only = call.query_number("coordinatorId", -1, low=-1)
    found: list[Transaction] = []
    for coordinator in range(await store.coordinators()):
        if only in {-1, coordinator}:
            found += [
                each
                for each in await store.of(coordinator)
                if each.record.state is State.OPEN and each.record.opened_ms < opened_before
            ]
    found = sorted(found, key=lambda each: each.record.opened_ms)[:SLOW_SHOWN_MAX]
    return answer({str(each.id): await _shown(store, each) for each in found})


async def abort(call: Call) -> Response:
    """Abort a transaction, whoever opened it."""
    await _coordinator(call).abort(_transaction(call))
    return done()


async def _shown(store: TransactionStore, transaction: Transaction) -> Json:
    participants = await store.participants(transaction.id)
    produced: dict[str, Json] = {}
    for topic, number in participants.topics:
        record = (await store.buffers(topic)).get(number)
        if record is not None:
            produced[str(topic)] = _buffer_json(record)
    acked: dict[str, dict[str, Json]] = {}
    for each in participants.cursors:
        acked.setdefault(str(each.topic), {})[each.subscription] = {}
    record_ = transaction.record
    return {
        "txnId": str(transaction.id),
        "status": record_.state.value,
        "openTimestamp": record_.opened_ms,
        "timeoutAt": record_.ttl_ms,
        "owner": record_.owner,
        "producedPartitions": produced,
        "ackedPartitions": acked,
    }


def _buffer_json(record: BufferRecord) -> Json:
    return {"startPosition": str(record.first), "aborted": record.aborted}


# --- what topics have


def _by_owner(
    tell: Callable[[Call, Topic], Awaitable[Response]],
) -> Callable[[Call], Awaitable[Response]]:
    """Have a call answered by the process that owns the topic it is about."""

    @wraps(tell)
    async def answered(call: Call) -> Response:
        path, ownership = call.parameters, call.context.ownership
        name = TopicName.parse(f"persistent://{path['tenant']}/{path['namespace']}/{path['topic']}")
        if ownership.mine(name):
            return await tell(call, await call.context.catalog.topic(name))
        worker = ownership.worker_of(name)
        return answer(await call.context.siblings.ask(worker, "GET", call.target))

    return answered


@_by_owner
async def buffer_stats(_call: Call, topic: Topic) -> Response:
    """Return how far a topic may be read, and how many transactions hold that up."""
    buffer = topic.transactions
    return answer(
        {
            "state": "NoSnapshot" if buffer is None else "Ready",
            "maxReadPosition": str(topic.readable.last),
            "ongoingTxnSize": 0 if buffer is None else len(buffer.open),
            "totalAbortedTransactions": 0 if buffer is None else len(buffer.aborted),
            "lastSnapshotTimestamps": 0,
            "recoverStartTime": 0,
            "recoverEndTime": 0,
        }
    )


@_by_owner
async def in_buffer(call: Call, topic: Topic) -> Response:
    """Return where in a topic the entries of a transaction begin, and whether it is aborted."""
    wanted = _transaction(call)
    for record in (await _store(call).buffers(topic.name)).values():
        if record.transaction == wanted:
            first = None
            if topic.transactions is not None and wanted in topic.transactions.open:
                first = topic.transactions.open[wanted].first
            return answer({"startPosition": str(first or record.first), "aborted": record.aborted})
    raise Refusal(404, f"topic {topic.name} has nothing undecided or aborted of {wanted}")


@_by_owner
async def pending_stats(call: Call, topic: Topic) -> Response:
    """Return how many transactions hold acknowledgements of a subscription."""
    held = _subscription(call, topic).held
    return answer(
        {
            "state": "None" if held is None else "Ready",
            "ongoingTxnSize": 0 if held is None else len(held),
            "recoverStartTime": 0,
            "recoverEndTime": 0,
        }
    )


@_by_owner
async def in_pending(call: Call, topic: Topic) -> Response:
    """Return what a transaction holds of a subscription."""
    held, wanted = _subscription(call, topic).held, _transaction(call)
    if held is None or wanted not in held.transactions:
        raise Refusal(404, f"transaction {wanted} holds nothing of this subscription")
    up_to = held.up_to_of(wanted)
    shown: Json = {"cumulativeAckPosition": None if up_to is None else str(up_to)}
    return answer(shown | {"individualAcks": held.entries_of(wanted)})


@_by_owner
async def position_in_pending(call: Call, topic: Topic) -> Response:
    """Return whether a message is acknowledged, or held by a transaction."""
    subscription = _subscription(call, topic)
    at = EntryId(call.number("ledger"), call.number("entry"))
    if subscription.cursor.is_acknowledged(at):
        state = "MarkDelete"
    elif not subscription.exists(at):
        state = "InvalidPosition"
    elif subscription.held is not None and subscription.held.bits(*at, 1):
        state = "PendingAck"
    else:
        state = "NotInPendingAck"
    return answer({"state": state})


def _subscription(call: Call, topic: Topic) -> Subscription:
    found = topic.subscriptions.get(call.subscription)
    if not isinstance(found, Subscription):
        raise Refusal(404, f"topic {topic.name} has no subscription {call.subscription!r}")
    return found


_PENDING = f"{_TOPIC}/{{subscription}}"
_SUPER, _READ = Right.SUPERUSER, Right.READ

ROUTES = [
    Route("GET", f"{V3}/coordinators", coordinators, _SUPER, answer=list[Json]),
    Route(
        "GET",
        f"{V3}/coordinatorStats",
        coordinator_stats,
        _SUPER,
        answer=Json,
        query={"coordinatorId": int},
    ),
    Route("POST", f"{V3}/transactionCoordinator/replicas", scale, _SUPER, body=int, answer=None),
    Route("GET", f"{V3}/transactionMetadata/{_ID}", metadata, _SUPER, answer=Json),
    Route(
        "GET",
        f"{V3}/slowTransactions/{{timeout}}",
        slow,
        _SUPER,
        answer=Json,
        query={"coordinatorId": int},
    ),
    Route("POST", f"{V3}/abortTransaction/{_ID}", abort, _SUPER),
    Route("GET", f"{V3}/transactionBufferStats/{_TOPIC}", buffer_stats, _READ, answer=Json),
    Route("GET", f"{V3}/transactionInBufferStats/{_TOPIC}/{_ID}", in_buffer, _READ, answer=Json),
    Route("GET", f"{V3}/pendingAckStats/{_PENDING}", pending_stats, Right.CONSUME, answer=Json),
    Route(
        "GET",
        f"{V3}/transactionInPendingAckStats/{_PENDING}/{_ID}",
        in_pending,
        Right.CONSUME,
        answer=Json,
    ),
    Route(
        "GET",
        f"{V3}/positionStatsInPendingAck/{_PENDING}/{{ledger}}/{{entry}}",
        position_in_pending,
        Right.CONSUME,
        answer=Json,
    ),
]
