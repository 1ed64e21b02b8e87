"""Partitioned topics: how many partitions, create, grow, delete.

persistent://public/default/orders          what clients name
persistent://public/default/orders-partition-0 ...    what is stored, each with its own owner
"""

from contextlib import suppress
from typing import Annotated

import msgspec
from starlette.responses import Response

from magnetar.broker.doors.admin.call import Call, answer, done
from magnetar.broker.doors.admin.context import in_parallel
from magnetar.broker.doors.admin.errors import Refusal
from magnetar.broker.doors.admin.resources.namespaces import check_properties
from magnetar.broker.doors.admin.resources.subscriptions import create_where_missing, names_of
from magnetar.broker.doors.admin.resources.topics import LIST, TOPIC
from magnetar.broker.doors.admin.routes import Right, Route
from magnetar.broker.doors.admin.shapes import PartitionsShown
from magnetar.broker.doors.admin.slices import listed
from magnetar.broker.metadata.facts import AlreadyExistsError
from magnetar.broker.metadata.partitions import PARTITIONS_MAX, TopicRecord
from magnetar.broker.port import TopicNotFoundError
from magnetar.names import COORDINATORS_TOPIC, Domain

Number = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]


class Wanted(msgspec.Struct):
    """The long form of how many partitions are wanted."""

    partitions: Number
    properties: dict[str, str] | None = None


async def list_partitioned(call: Call) -> Response:
    """Return the partitioned topics of a namespace, by their base names."""
    await call.context.namespaces.get(call.namespace)
    domain = Domain(call.parameters["domain"])
    found = await call.context.partitions.list_partitioned(call.namespace, domain)
    system = call.flag("includeSystemTopic")
    return await listed([str(name) for name in found if system or not name.system])


async def get_partitions(call: Call) -> Response:
    """Return how many partitions a topic has; 0: it is an ordinary one.

    Of the coordinators' topic there are as many as coordinators.
    With `checkAllowAutoCreation`, as clients ask, a missing topic is created as its namespace
    prescribes.
    """
    context, topic = call.context, call.topic
    if topic == COORDINATORS_TOPIC and context.coordinator is not None:
        count = await context.coordinator.store.coordinators()
        return answer(PartitionsShown(count, deleted=False, properties={}))
    record = await context.partitions.partitioned(topic)
    count = 0
    if record is not None:
        count = record.partitions
    elif call.flag("checkAllowAutoCreation"):
        count = await context.catalog.partitions(topic, create=True)
    elif not await _exists(call):
        await context.namespaces.get(call.namespace)  # is it that which is missing?
        raise TopicNotFoundError(f"topic {topic} does not exist")
    properties = record.properties if record is not None else {}
    return answer(PartitionsShown(count, deleted=False, properties=properties))


async def _exists(call: Call) -> bool:
    if call.topic.persistent:
        return await call.context.partitions.topic(call.topic) is not None
    await call.context.catalog.topic(call.topic)
    return True


async def create_partitioned(call: Call) -> Response:
    """Create a partitioned topic."""
    wanted = _wanted(call)
    properties = wanted.properties or {}
    check_properties(properties)
    if call.topic.partition >= 0:
        raise Refusal(412, f"{call.topic.local!r} is the name of a partition, not of a topic")
    await call.context.catalog.create_partitioned(call.topic, wanted.partitions, properties)
    return done()


async def grow(call: Call) -> Response:
    """Add partitions; every subscription that partition 0 has is created on the new ones."""
    context, topic, wanted = call.context, call.topic, _wanted(call, 422)
    before = await context.partition_names(topic)
    if before is None:
        raise await _not_partitioned(call)
    if wanted.partitions < len(before):
        raise Refusal(
            422, f"topic {topic} has {len(before)} partitions; their number can only grow"
        )
    if wanted.partitions == len(before):  # somebody was here before, perhaps not to the end
        return await create_missed(call)
    subscriptions = await names_of(context, before[0])
    await context.partitions.grow(topic, wanted.partitions, context.clock.wall_ms())
    fresh = [topic.partition_name(i) for i in range(len(before), wanted.partitions)]
    await in_parallel(
        [create_where_missing(context, name, each) for name in fresh for each in subscriptions]
    )
    return done()


async def delete_partitioned(call: Call) -> Response:
    """Delete all partitions, then the topic; with `force`, although clients are connected.

    If that is cut short, or one of them is in use, it can be done again.
    """
    context, topic = call.context, call.topic
    names = await context.partition_names(topic)
    if names is None:
        raise await _not_partitioned(call)
    force = call.flag("force")
    await in_parallel([context.delete_if_there(name, force=force) for name in names])
    await context.partitions.delete_partitioned(topic)
    await context.namespaces.forget_grants(topic)
    return done()


async def create_missed(call: Call) -> Response:
    """Make the partitions of a partitioned topic anew that are missing."""
    context, topic = call.context, call.topic
    names = await context.partition_names(topic)
    if names is None:
        raise await _not_partitioned(call)
    if topic.persistent:  # the others are made when somebody uses them
        record = TopicRecord(created_ms=context.clock.wall_ms())
        for name in names:
            if await context.partitions.topic(name) is None:
                with suppress(AlreadyExistsError):
                    await context.partitions.create_topic(name, record)
    return done()


async def _not_partitioned(call: Call) -> Exception:
    """Return how a call about partitions is refused for a topic that has none."""
    if call.topic.persistent and await call.context.partitions.topic(call.topic) is not None:
        return Refusal(409, f"topic {call.topic} is not partitioned; leave out /partitions")
    return TopicNotFoundError(f"topic {call.topic} does not exist, or is not partitioned")


def _wanted(call: Call, status: int = 406) -> Wanted:
    """Return how many partitions are wanted.

    Raises:
        Refusal: 400, no number; with the status that Pulsar has for it, an impossible one.
    """
    wanted: Wanted | int = call.needed_json(Wanted | Number, "partitions")
    if isinstance(wanted, int):
        wanted = Wanted(wanted)
    if not 1 <= wanted.partitions <= PARTITIONS_MAX:
        raise Refusal(
            status,
            f"the number of partitions is {wanted.partitions}, allowed: 1 to {PARTITIONS_MAX}",
        )
    return wanted


PARTITIONS = f"{TOPIC}/partitions"

ROUTES = [
    Route(
        "GET", f"{LIST}/partitioned", list_partitioned, Right.LOOKUP, answer=list[str],
        query={"includeSystemTopic": bool},
    ),
    Route(
        "GET", PARTITIONS, get_partitions, Right.LOOKUP, answer=PartitionsShown,
        query={"checkAllowAutoCreation": bool},
    ),
    Route("PUT", PARTITIONS, create_partitioned, Right.NAMESPACE, body=Wanted | Number),
    Route("POST", PARTITIONS, grow, Right.NAMESPACE, body=Wanted | Number),
    Route("DELETE", PARTITIONS, delete_partitioned, Right.NAMESPACE, query={"force": bool}),
    Route("POST", f"{TOPIC}/createMissedPartitions", create_missed, Right.NAMESPACE),
]  # fmt: skip
