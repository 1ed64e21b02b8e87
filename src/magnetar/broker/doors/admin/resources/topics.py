"""Topics: list, create, delete, properties, statistics, and where they end.

A call about a partitioned topic is about all its partitions where that makes sense (delete,
unload, statistics), and refused with 405 where it does not (what is its last entry?).
"""

from collections.abc import Iterable
from typing import Any

from starlette.responses import Response

from magnetar.broker.doors.admin.bundles import Bundles
from magnetar.broker.doors.admin.call import Call, Position, answer, done
from magnetar.broker.doors.admin.errors import Refusal
from magnetar.broker.doors.admin.owners import everywhere, on_partitions
from magnetar.broker.doors.admin.resources.namespaces import check_properties
from magnetar.broker.doors.admin.resources.processes import process_called, send
from magnetar.broker.doors.admin.resources.totals import Stats, total
from magnetar.broker.doors.admin.routes import ADMIN, Right, Route
from magnetar.broker.doors.admin.shapes import (
    InternalInfo,
    InternalStats,
    MessagePlace,
    PartitionedInternalStats,
    PartitionedStats,
    TopicStats,
)
from magnetar.broker.doors.admin.slices import listed
from magnetar.broker.entry import EntryId
from magnetar.broker.metadata.partitions import PartitionedRecord, TopicRecord
from magnetar.broker.port import ListMode, TopicNotFoundError
from magnetar.broker.topics.subscriptions.subscription import Subscription
from magnetar.broker.topics.topic import Topic
from magnetar.names import Domain, TopicName

LIST = f"{ADMIN}/{{domain}}/{{tenant}}/{{namespace}}"
TOPIC = f"{LIST}/{{topic}}"


def position_json(entry: EntryId, topic: TopicName) -> dict[str, int]:
    """Return a message id as Pulsar writes it in JSON."""
    return {
        "ledgerId": entry.ledger,
        "entryId": entry.entry,
        "partitionIndex": topic.partition,
    }


async def one_topic(call: Call) -> Topic:
    """Return the topic a call is about.

    Raises:
        TopicNotFoundError: there is none.
        Refusal: 405, it is a partitioned topic, and the call makes sense only for one partition.
    """
    await refuse_partitioned(call)
    return await call.context.catalog.topic(call.topic)


async def refuse_partitioned(call: Call) -> None:
    """Refuse a call that makes sense only for one partition.

    Raises:
        Refusal: 405, the topic is partitioned.
    """
    names = await call.context.partition_names(call.topic)
    if names is not None:
        raise Refusal(
            405, f"topic {call.topic} has {len(names)} partitions; call it for one of them, "
            f"such as {names[0].local}"
        )  # fmt: skip


# --- which there are ----------------------------------------------------------------------


async def list_topics(call: Call) -> Response:
    """Return the topics and partitions of a namespace, of one domain."""
    context, wanted = call.context, call.word("bundle")
    bundles = await context.bundles(call.namespace)
    system = call.flag("includeSystemTopic")
    names = await context.catalog.topics(call.namespace, _mode(call), system=system)
    if wanted:
        names = _in_bundle(names, bundles, bundles.check(wanted))
    return await listed(names)


async def list_bundle(call: Call) -> Response:
    """Return the topics and partitions of one bundle, of one domain."""
    bundles = await call.context.bundles(call.namespace)
    wanted = bundles.check(call.parameters["topic"])
    names = await call.context.catalog.topics(call.namespace, _mode(call))
    return await listed(_in_bundle(names, bundles, wanted))


def _in_bundle(names: Iterable[str], bundles: Bundles, wanted: str) -> list[str]:
    return [name for name in names if bundles.of_topic(TopicName.parse(name)) == wanted]


def _mode(call: Call) -> ListMode:
    persistent = call.parameters["domain"] == Domain.PERSISTENT.value
    return ListMode.PERSISTENT if persistent else ListMode.NON_PERSISTENT


async def create_topic(call: Call) -> Response:
    """Create an ordinary topic, with the properties in the body."""
    properties = call.json(dict[str, str], "properties")
    check_properties(properties or {})
    await call.context.catalog.create(call.topic, properties or {})
    return done()


async def delete_topic(call: Call) -> Response:
    """Delete an ordinary topic or one partition; with `force`, although clients are connected."""
    names = await call.context.partition_names(call.topic)
    if names is not None:
        raise Refusal(
            409,
            f"topic {call.topic} has {len(names)} partitions;"
            " DELETE .../partitions deletes all of them",
        )
    await call.context.catalog.delete(call.topic, force=call.flag("force"))
    await call.context.namespaces.forget_grants(call.topic)
    return done()


async def unload(call: Call) -> Response:
    """Close all clients and forget the topic's memory."""

    async def here(topic: TopicName) -> None:
        if topic.persistent or topic.partition < 0:  # such a partition may not be in use
            await call.context.catalog.demand(topic)
        await call.context.catalog.unload(topic)

    await everywhere(call, here)
    return done()


async def move(call: Call) -> Response:
    """Hand a topic to another process; its clients are told to go there."""
    worker = process_called(call, call.parameters["process"])

    async def here(topic: TopicName) -> None:
        await call.context.catalog.demand(topic)
        await send(call, [topic], worker)

    await everywhere(call, here)
    return done()


# --- properties ---------------------------------------------------------------------------


async def get_properties(call: Call) -> Response:
    """Return the properties of a topic, partitioned or not."""
    return answer((await _record(call)).properties)


async def set_properties(call: Call) -> Response:
    """Add properties, or change them."""
    added: dict[str, str] = call.needed_json(dict[str, str], "properties")
    await _change_properties(call, lambda properties: properties | added)
    return done()


async def remove_property(call: Call) -> Response:
    """Remove one property."""
    key = call.word("key")
    await _change_properties(call, lambda properties: _without(properties, key))
    return done()


def _without(properties: dict[str, str], key: str) -> dict[str, str]:
    return {k: v for k, v in properties.items() if k != key}


async def _record(call: Call) -> TopicRecord | PartitionedRecord:
    partitions = call.context.partitions
    found = await partitions.partitioned(call.topic) or await partitions.topic(call.topic)
    if found is None:
        await call.context.namespaces.get(call.namespace)  # is it that which is missing?
        raise TopicNotFoundError(f"topic {call.topic} does not exist")
    return found


async def _change_properties(call: Call, change: Any) -> None:
    def edit(record: TopicRecord | PartitionedRecord) -> None:
        changed: dict[str, str] = change(record.properties)
        check_properties(changed)
        record.properties = changed

    partitions = call.context.partitions
    if isinstance(await _record(call), PartitionedRecord):
        await partitions.update_partitioned(call.topic, edit)
    else:
        await partitions.update_topic(call.topic, edit)


# --- statistics ---------------------------------------------------------------------------


async def stats(call: Call) -> Response:
    """Return the statistics of a topic; of a partitioned one, their sums."""

    async def here(topic: TopicName) -> Stats:
        return await _stats(call, topic)

    return answer(total(await everywhere(call, here)))


async def _stats(call: Call, topic: TopicName) -> Stats:
    found = await call.context.catalog.topic(topic)
    shown: dict[str, Any] = found.stats() | {"ownerBroker": call.context.broker_id}
    if call.flag("excludePublishers"):
        shown["publishers"] = []
    if call.flag("excludeConsumers"):
        about_all = shown["subscriptions"].items()
        shown["subscriptions"] = {name: each | {"consumers": []} for name, each in about_all}
    if call.flag("getEarliestTimeInBacklog"):
        for subscription in list(found.subscriptions.values()):
            if isinstance(subscription, Subscription):
                oldest = await subscription.peek(1)
                about = shown["subscriptions"].get(subscription.name, {})
                about["earliestMsgPublishTimeInBacklog"] = (
                    0 if oldest is None else oldest.envelope.publish_time_ms
                )
    return shown


async def partitioned_stats(call: Call) -> Response:
    """Return the sums over all partitions, and with `perPartition` each of them."""
    names = await call.context.partition_names(call.topic)
    if names is None:
        raise TopicNotFoundError(f"topic {call.topic} is not partitioned")

    async def here(topic: TopicName) -> Stats:
        return await _stats(call, topic)

    parts = await on_partitions(call, names, here, tail="/stats")
    each = {str(name): part for name, part in zip(names, parts, strict=True)}
    record = await _record(call)
    metadata = {"partitions": len(names), "deleted": False, "properties": record.properties}
    shown = each if call.flag("perPartition", default=True) else {}
    return answer(total(parts) | {"metadata": metadata, "partitions": shown})


async def internal_stats(call: Call) -> Response:
    """Return the ledgers and cursors of a topic."""
    return answer(await (await one_topic(call)).internal_stats())


async def partitioned_internal_stats(call: Call) -> Response:
    """Return the ledgers and cursors of every partition."""
    names = await call.context.partition_names(call.topic)
    if names is None:
        raise TopicNotFoundError(f"topic {call.topic} is not partitioned")

    async def here(topic: TopicName) -> Stats:
        return await (await call.context.catalog.topic(topic)).internal_stats()

    parts = await on_partitions(call, names, here, tail="/internalStats")
    each = {str(name): part for name, part in zip(names, parts, strict=True)}
    return answer({"metadata": {"partitions": len(names)}, "partitions": each})


async def internal_info(call: Call) -> Response:
    """Return what is stored about a topic's ledgers and cursors, in short."""
    internal = await (await one_topic(call)).internal_stats()
    ledgers = [
        {"ledgerId": each["ledgerId"], "entries": each["entries"], "size": each["size"]}
        for each in internal["ledgers"]
    ]
    cursors = {
        name: {"markDelete": cursor["markDeletePosition"]}
        for name, cursor in internal["cursors"].items()
    }
    return answer({"version": 1, "ledgers": ledgers, "cursors": cursors})


# --- where it ends ------------------------------------------------------------------------


async def last_message_id(call: Call) -> Response:
    """Return where the last entry lies; -1:-1 if there is none."""
    topic = await one_topic(call)
    return answer(position_json(topic.log.last, call.topic))


async def message_id_at(call: Call) -> Response:
    """Return the first entry published at or after a time."""
    time_ms = call.number("time")
    log = (await one_topic(call)).log
    found = await log.find_time(time_ms)
    return answer(position_json(min(found, log.last), call.topic))


async def backlog_size(call: Call) -> Response:
    """Return how many bytes lie after an entry."""
    position: Position = call.needed_json(Position, "message id")
    topic = await one_topic(call)
    return answer(topic.bytes_after(position.entry))


async def terminate(call: Call) -> Response:
    """Close a topic for good; return its last entry."""
    topic = await one_topic(call)
    return answer(position_json(await topic.terminate(), call.topic))


async def terminate_partitions(call: Call) -> Response:
    """Close every partition for good; return the last entry of each."""
    names = await call.context.partition_names(call.topic)
    if names is None:
        raise Refusal(405, f"topic {call.topic} is not partitioned")

    async def here(topic: TopicName) -> dict[str, int]:
        last = await (await call.context.catalog.topic(topic)).terminate()
        return position_json(last, topic)

    parts = await on_partitions(call, names, here, tail="/terminate")
    return answer({str(index): part for index, part in enumerate(parts)})


_Properties = dict[str, str]
_STATS = {
    "getPreciseBacklog": bool,
    "subscriptionBacklogSize": bool,
    "getEarliestTimeInBacklog": bool,
    "excludePublishers": bool,
    "excludeConsumers": bool,
}

ROUTES = [
    Route(
        "GET", LIST, list_topics, Right.LOOKUP, answer=list[str],
        query={"bundle": str, "includeSystemTopic": bool},
    ),
    Route("GET", TOPIC, list_bundle, Right.LOOKUP, answer=list[str]),
    Route("PUT", TOPIC, create_topic, Right.NAMESPACE, body=_Properties | None),
    Route("DELETE", TOPIC, delete_topic, Right.NAMESPACE, query={"force": bool}),
    Route("PUT", f"{TOPIC}/unload", unload, Right.NAMESPACE),
    Route("PUT", f"{TOPIC}/process/{{process}}", move, Right.SUPERUSER),
    Route("GET", f"{TOPIC}/properties", get_properties, Right.READ, answer=_Properties),
    Route("PUT", f"{TOPIC}/properties", set_properties, Right.NAMESPACE, body=_Properties),
    Route("DELETE", f"{TOPIC}/properties", remove_property, Right.NAMESPACE, query={"key": str}),
    Route("GET", f"{TOPIC}/stats", stats, Right.READ, answer=TopicStats, query=_STATS),
    Route(
        "GET", f"{TOPIC}/partitioned-stats", partitioned_stats, Right.READ,
        answer=PartitionedStats, query={"perPartition": bool, **_STATS},
    ),
    Route("GET", f"{TOPIC}/internalStats", internal_stats, Right.READ, answer=InternalStats),
    Route(
        "GET", f"{TOPIC}/partitioned-internalStats", partitioned_internal_stats, Right.READ,
        answer=PartitionedInternalStats,
    ),
    Route("GET", f"{TOPIC}/internal-info", internal_info, Right.READ, answer=InternalInfo),
    Route("GET", f"{TOPIC}/lastMessageId", last_message_id, Right.CONSUME, answer=MessagePlace),
    Route("GET", f"{TOPIC}/messageid/{{time}}", message_id_at, Right.CONSUME, answer=MessagePlace),
    Route("PUT", f"{TOPIC}/backlogSize", backlog_size, Right.CONSUME, body=Position, answer=int),
    Route("POST", f"{TOPIC}/terminate", terminate, Right.NAMESPACE, answer=MessagePlace),
    Route(
        "POST", f"{TOPIC}/terminate/partitions", terminate_partitions, Right.NAMESPACE,
        answer=dict[str, MessagePlace],
    ),
]  # fmt: skip
