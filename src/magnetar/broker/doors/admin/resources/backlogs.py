"""Backlogs looked into, and what Pulsar does with stored entries that this broker does not.

GET       .../backlog                                     what is stored and not consumed
GET POST  .../subscription/{s}/analyzeBacklog             counted entry by entry
GET POST  .../subscription/{s}/replicatedSubscriptionStatus
GET PUT   .../offload                                     to a tier: there is none
GET PUT DELETE .../shadowTopics                           copies without bytes: there are none
"""

from typing import Any

from starlette.responses import Response

from magnetar.broker.clock import iso_time
from magnetar.broker.doors.admin.call import Call, Position, answer, done
from magnetar.broker.doors.admin.errors import Refusal
from magnetar.broker.doors.admin.owners import everywhere
from magnetar.broker.doors.admin.resources.subscriptions import (
    SUBSCRIPTION,
    any_subscription,
    subscription_of,
    with_cursor,
)
from magnetar.broker.doors.admin.resources.topics import TOPIC, one_topic, refuse_partitioned
from magnetar.broker.doors.admin.routes import Right, Route
from magnetar.broker.doors.admin.shapes import (
    BacklogAnalysis,
    LongRunning,
    OfflineBacklog,
    OfflineLedger,
)
from magnetar.broker.entry import EARLIEST
from magnetar.broker.port import TopicNotFoundError
from magnetar.broker.topics.subscriptions.backlog_scan import scan
from magnetar.broker.topics.topic_stats import spans_of
from magnetar.names import TopicName


async def backlog(call: Call) -> Response:
    """Return what is stored of a topic, and how much of it is to be consumed."""
    topic = await one_topic(call)
    spans = spans_of(topic.log)
    cursors: dict[str, dict[str, Any]] = {
        each.name: {
            "cursorBacklog": each.backlog,
            "cursorLedgerId": each.mark_delete.ledger,
            "markDeletePosition": str(each.mark_delete),
        }
        for each in topic.readers
        if each.durable
    }
    return answer(
        OfflineBacklog(
            storage_size=topic.log.bytes_total,
            total_messages=sum(span.entries for span in spans),
            message_backlog=sum(each["cursorBacklog"] for each in cursors.values()),
            broker_name=call.context.broker_id,
            topic_name=str(call.topic),
            data_ledger_details=[
                OfflineLedger(span.entries, span.last_publish_ms, span.size_bytes, span.ledger)
                for span in spans
            ],
            cursor_details=cursors,
            stat_generated_at=iso_time(call.context.clock.wall_ms()),
        )
    )


async def analyze(call: Call) -> Response:
    """Count the backlog of a subscription entry by entry, from a position if there is one."""
    position: Position | None = call.json(Position, "message id")
    await refuse_partitioned(call)
    subscription = await subscription_of(call.context, call.topic, call.subscription)
    found = await scan(subscription, EARLIEST if position is None else position.entry)
    return answer(
        BacklogAnalysis(
            entries=found.entries,
            messages=found.messages,
            filter_rejected_entries=0,
            filter_accepted_entries=found.entries,
            filter_rescheduled_entries=0,
            filter_rejected_messages=0,
            filter_accepted_messages=found.messages,
            filter_rescheduled_messages=0,
            aborted=not found.complete,
        )
    )


# --- replication of a subscription's position ---------------------------------------------------


async def get_replicated(call: Call) -> Response:
    """Return, topic by topic, whether clusters agree on a subscription's position: never."""

    async def here(topic: TopicName) -> dict[str, bool]:
        await subscription_of(call.context, topic, call.subscription)
        return {str(topic): False}

    parts = await everywhere(call, here)
    return answer({name: told for part in parts for name, told in part.items()})


async def set_replicated(call: Call) -> Response:
    """Take back that clusters agree on a subscription's position; that they do is refused."""
    wanted: bool = call.needed_json(bool, "replicatedSubscriptionStatus")
    if wanted:
        raise Refusal(412, "a subscription is replicated between clusters; there is only this one")

    async def here(topic: TopicName) -> None:
        with_cursor(await any_subscription(call.context, topic, call.subscription), topic)

    await everywhere(call, here)
    return done()


# --- tiers and shadows ----------------------------------------------------------------------


async def get_offload(call: Call) -> Response:
    """Return how far moving entries to a tier is: it was never started."""
    await one_topic(call)
    return answer(LongRunning("NOT_RUN", ""))


async def start_offload(call: Call) -> Response:
    """Refuse to move entries to a tier: none is configured."""
    call.json(Position, "message id")
    await one_topic(call)
    raise Refusal(405, "no tier is configured that entries could be moved to")


async def get_shadows(call: Call) -> Response:
    """Return the shadow topics of a topic: none."""
    await _demand_topic(call)
    return answer([])


async def set_shadows(call: Call) -> Response:
    """Refuse to make shadow topics; none are what there is."""
    wanted: list[str] = call.json(list[str], "shadowTopics") or []
    await _demand_topic(call)
    if wanted:
        raise Refusal(412, "shadow topics are not supported by this broker")
    return done()


async def _demand_topic(call: Call) -> None:
    partitions, topic = call.context.partitions, call.topic
    if not topic.persistent:
        await call.context.catalog.topic(topic)
    elif not (await partitions.partitioned(topic) or await partitions.topic(topic)):
        await call.context.namespaces.get(call.namespace)  # is it that which is missing?
        raise TopicNotFoundError(f"topic {topic} does not exist")


_ANALYZE = f"{SUBSCRIPTION}/analyzeBacklog"
_REPLICATED = f"{SUBSCRIPTION}/replicatedSubscriptionStatus"
_OFFLOAD, _SHADOWS = f"{TOPIC}/offload", f"{TOPIC}/shadowTopics"

ROUTES = [
    Route("GET", f"{TOPIC}/backlog", backlog, Right.READ, answer=OfflineBacklog),
    Route("GET", _ANALYZE, analyze, Right.CONSUME, answer=BacklogAnalysis),
    Route("POST", _ANALYZE, analyze, Right.CONSUME, Position | None, BacklogAnalysis),
    Route("GET", _REPLICATED, get_replicated, Right.CONSUME, answer=dict[str, bool]),
    Route("POST", _REPLICATED, set_replicated, Right.CONSUME, body=bool),
    Route("GET", _OFFLOAD, get_offload, Right.NAMESPACE, answer=LongRunning),
    Route("PUT", _OFFLOAD, start_offload, Right.NAMESPACE, body=Position | None),
    Route("GET", _SHADOWS, get_shadows, Right.NAMESPACE, answer=list[str]),
    Route("PUT", _SHADOWS, set_shadows, Right.NAMESPACE, body=list[str] | None),
    Route("DELETE", _SHADOWS, set_shadows, Right.NAMESPACE),
]
