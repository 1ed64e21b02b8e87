"""Compacting a topic, and throwing away what is old in it.

    PUT    .../compaction             begin, for every partition      409: it runs already
    GET    .../compaction             {"status": "RUNNING", "lastError": ""}
    POST   .../trim                   drop what retention lets go, now
    DELETE .../truncate               acknowledge everything, and drop it but for the open ledger
    GET    .../getMessageIdByIndex    which entry holds the n-th message

Status is Pulsar's LongRunningProcessStatus; of a partitioned topic, that of its worst partition.
"""

from typing import Any, cast

from starlette.responses import Response

from magnetar.broker.doors.admin.call import Call, answer, done
from magnetar.broker.doors.admin.errors import Refusal
from magnetar.broker.doors.admin.owners import everywhere
from magnetar.broker.doors.admin.resources.topics import TOPIC, one_topic, position_json
from magnetar.broker.doors.admin.routes import Right, Route
from magnetar.broker.doors.admin.shapes import MessagePlace, Progress
from magnetar.broker.entry import EARLIEST
from magnetar.broker.topics.compaction.compacted import NOT_COMPACTED, Status
from magnetar.broker.topics.compaction.compactor import AlreadyRunningError
from magnetar.broker.topics.upkeep import trim as trim_topic
from magnetar.broker.topics.upkeep import truncate as truncate_topic
from magnetar.names import TopicName

Json = dict[str, Any]
INDEX_MAX = 2**63 - 1
_WORST_FIRST = (Status.RUNNING, Status.ERROR, Status.NOT_RUN, Status.SUCCESS)


async def compact(call: Call) -> Response:
    """Begin to compact a topic, every partition of it."""

    async def here(topic: TopicName) -> None:
        catalog = call.context.catalog
        try:
            catalog.compactor.start(await catalog.topic(topic))
        except AlreadyRunningError as error:
            raise Refusal(409, str(error)) from None

    await everywhere(call, here)
    return done()


async def compaction_status(call: Call) -> Response:
    """Return how the last compaction went."""

    async def here(topic: TopicName) -> Json:
        found = await call.context.catalog.topic(topic)
        _ = found.log  # a topic that is not persistent has none
        side = found.compacted or NOT_COMPACTED
        return {"status": str(side.status), "lastError": side.error}

    return answer(worst(await everywhere(call, here)))


def worst(found: list[Json]) -> Json:
    """Return the status of several partitions as one."""
    return min(found, key=lambda each: _WORST_FIRST.index(cast(Status, each["status"])))


async def trim(call: Call) -> Response:
    """Drop what everybody has acknowledged and retention lets go."""

    async def here(topic: TopicName) -> None:
        context = call.context
        await trim_topic(await context.catalog.topic(topic), context.clock.wall_ms())

    await everywhere(call, here)
    return done()


async def truncate(call: Call) -> Response:
    """Acknowledge everything for everybody, and drop all ledgers that are closed."""

    async def here(topic: TopicName) -> None:
        catalog = call.context.catalog
        found = await catalog.topic(topic)
        await catalog.compactor.forget(found)
        await truncate_topic(found)

    await everywhere(call, here)
    return done()


async def message_id_by_index(call: Call) -> Response:
    """Return the entry that holds the n-th message of the topic; the first is 0."""
    index = call.query_number("index", 0, low=0, high=INDEX_MAX)
    found = await (await one_topic(call)).log.find_index(index)
    if found == EARLIEST:
        raise Refusal(404, f"topic {call.topic} has no message of index {index}")
    return answer(position_json(found, call.topic))


ROUTES = [
    Route("PUT", f"{TOPIC}/compaction", compact, Right.NAMESPACE),
    Route("GET", f"{TOPIC}/compaction", compaction_status, Right.NAMESPACE, answer=Progress),
    Route("POST", f"{TOPIC}/trim", trim, Right.NAMESPACE),
    Route("DELETE", f"{TOPIC}/truncate", truncate, Right.NAMESPACE),
    Route("PUT", f"{TOPIC}/truncate", truncate, Right.NAMESPACE),  # as older tools have it
    Route(
        "GET",
        f"{TOPIC}/getMessageIdByIndex",
        message_id_by_index,
        Right.CONSUME,
        query={"index": int},
        answer=MessagePlace,
    ),
]
