"""Subscriptions: list, create, delete, and moving their cursors.

on a topic or partition    done by the process that owns it
on a partitioned topic     done on every partition, except where a position is meant
"""

from typing import Any
from urllib.parse import quote

from starlette.responses import Response

from magnetar.broker.doors.admin.call import Call, Position, answer, done
from magnetar.broker.doors.admin.context import Context
from magnetar.broker.doors.admin.errors import Refusal
from magnetar.broker.doors.admin.owners import everywhere
from magnetar.broker.doors.admin.resources.namespaces import check_properties
from magnetar.broker.doors.admin.resources.topics import TOPIC, refuse_partitioned
from magnetar.broker.doors.admin.routes import Right, Route
from magnetar.broker.doors.admin.slices import listed
from magnetar.broker.entry import EARLIEST, LATEST, EntryId
from magnetar.broker.metadata.facts import AlreadyExistsError
from magnetar.broker.port import NotAllowedError, SubscriptionNotFoundError
from magnetar.broker.topics.subscription_names import AnySubscription
from magnetar.broker.topics.subscriptions.subscription import Subscription
from magnetar.names import TopicName

SUBSCRIPTION = f"{TOPIC}/subscription/{{subscription}}"

SECONDS_MAX = 2**31 - 1

_WORDS = {"earliest": EARLIEST, "latest": LATEST}


async def names_of(context: Context, topic: TopicName) -> list[str]:
    """Return the subscriptions of a topic or partition, wherever it is owned."""
    if context.ownership.mine(topic):
        return sorted((await context.catalog.topic(topic)).subscriptions)
    found = await context.ask_owner(topic, "GET", "/subscriptions")
    return [str(name) for name in found] if isinstance(found, list) else []


async def create_where_missing(context: Context, topic: TopicName, subscription: str) -> None:
    """Create a subscription at the start of a topic, wherever it is owned."""
    if context.ownership.mine(topic):
        try:
            await _create(context, topic, subscription, EARLIEST, {})
        except AlreadyExistsError:
            return
    else:
        try:
            tail = f"/subscription/{quote(subscription, safe='')}"
            await context.ask_owner(topic, "PUT", tail, b'"earliest"')
        except Refusal as refusal:
            if refusal.status != 409:
                raise


async def list_subscriptions(call: Call) -> Response:
    """Return the names of all subscriptions; of a partitioned topic, those of any partition."""

    async def here(topic: TopicName) -> list[str]:
        return list((await call.context.catalog.topic(topic)).subscriptions)

    found = await everywhere(call, here)
    return await listed(sorted({name for names in found for name in names}))


async def create_subscription(call: Call) -> Response:
    """Create a durable subscription: at a position, at the `earliest`, or at the end."""
    start, properties = _start(call)
    name = call.subscription

    async def here(topic: TopicName) -> None:
        await _create(call.context, topic, name, start, properties)

    await everywhere(call, here)
    return done()


async def _create(
    context: Context, topic: TopicName, name: str, start: EntryId, properties: dict[str, str]
) -> None:
    await context.catalog.create_subscription(topic, name, start, properties)


def _start(call: Call) -> tuple[EntryId, dict[str, str]]:
    body: Any = call.json(Any, "message id")
    if body is None:
        return LATEST, {}
    if isinstance(body, str):
        if body.lower() not in _WORDS:
            raise Refusal(400, f"{body[:100]!r} is neither earliest nor latest nor a message id")
        return _WORDS[body.lower()], {}
    position: Position = call.needed_json(Position, "message id")
    properties = body.get("properties") or {}
    check_properties(properties)
    return position.entry, properties


async def delete_subscription(call: Call) -> Response:
    """Delete a subscription; with `force`, although consumers are connected."""
    force, name = call.flag("force"), call.subscription

    async def here(topic: TopicName) -> None:
        await call.context.catalog.delete_subscription(topic, name, force=force)

    await everywhere(call, here)
    return done()


# --- moving the cursor --------------------------------------------------------------------


async def any_subscription(context: Context, topic: TopicName, name: str) -> AnySubscription:
    """Return a subscription that there is.

    Raises:
        TopicNotFoundError: the topic is missing.
        SubscriptionNotFoundError: the subscription is missing.
    """
    found = (await context.catalog.topic(topic)).subscriptions.get(name)
    if found is None:
        raise SubscriptionNotFoundError(f"topic {topic} has no subscription {name!r}")
    return found


async def subscription_of(context: Context, topic: TopicName, name: str) -> Subscription:
    """Return a subscription that has a cursor.

    Raises:
        TopicNotFoundError: the topic is missing.
        SubscriptionNotFoundError: the subscription is missing.
        NotAllowedError: the topic is not persistent.
    """
    return with_cursor(await any_subscription(context, topic, name), topic)


def with_cursor(subscription: AnySubscription, topic: TopicName) -> Subscription:
    """Return a subscription if it has a cursor.

    Raises:
        NotAllowedError: the topic is not persistent.
    """
    if not isinstance(subscription, Subscription):
        raise NotAllowedError(f"topic {topic} is not persistent: nothing of it is stored")
    return subscription


async def skip(call: Call) -> Response:
    """Acknowledge the next messages."""
    count = call.number("count")
    await refuse_partitioned(call)
    subscription = await subscription_of(call.context, call.topic, call.subscription)
    await subscription.skip(count)
    return done()


async def skip_all(call: Call) -> Response:
    """Acknowledge everything published so far."""
    name = call.subscription

    async def here(topic: TopicName) -> None:
        found = await any_subscription(call.context, topic, name)
        if isinstance(found, Subscription):  # any other has no backlog to clear
            await found.clear_backlog()

    await everywhere(call, here)
    return done()


async def expire(call: Call) -> Response:
    """Acknowledge everything older than some seconds."""
    seconds, name = call.number("seconds", high=SECONDS_MAX), call.subscription

    async def here(topic: TopicName) -> None:
        await (await subscription_of(call.context, topic, name)).expire(seconds)

    await everywhere(call, here)
    return done()


async def expire_all(call: Call) -> Response:
    """Acknowledge everything older than some seconds, in every subscription."""
    seconds = call.number("seconds", high=SECONDS_MAX)

    async def here(topic: TopicName) -> None:
        for subscription in list((await call.context.catalog.topic(topic)).subscriptions.values()):
            await with_cursor(subscription, topic).expire(seconds)

    await everywhere(call, here)
    return done()


async def expire_to(call: Call) -> Response:
    """Acknowledge everything up to a position, inclusive unless it says that it is excluded."""
    position: Position = call.needed_json(Position, "message id")
    await refuse_partitioned(call)
    subscription = await subscription_of(call.context, call.topic, call.subscription)
    await subscription.expire_to(position.entry, inclusive=not position.is_excluded)
    return done()


async def reset_to_time(call: Call) -> Response:
    """Move to the first entry published at or after a time; the consumers come back."""
    time_ms, name = call.number("time"), call.subscription

    async def here(topic: TopicName) -> None:
        await (await subscription_of(call.context, topic, name)).reset(time_ms=time_ms)

    await everywhere(call, here)
    return done()


async def reset_to(call: Call) -> Response:
    """Move to a position, or behind it if it says that it is excluded; the consumers come back."""
    position: Position = call.needed_json(Position, "message id")
    await refuse_partitioned(call)
    subscription = await subscription_of(call.context, call.topic, call.subscription)
    start = position.entry
    if position.is_excluded and start not in {EARLIEST, LATEST}:
        start = EntryId(start.ledger, start.entry + 1)
    await subscription.reset(position=start)
    return done()


async def get_properties(call: Call) -> Response:
    """Return what a subscription's creator noted about it."""

    async def here(topic: TopicName) -> dict[str, str]:
        return dict((await any_subscription(call.context, topic, call.subscription)).properties)

    parts = await everywhere(call, here)
    return answer(parts[0])


async def set_properties(call: Call) -> Response:
    """Replace what is noted about a subscription."""
    properties: dict[str, str] = call.json(dict[str, str], "properties") or {}
    check_properties(properties)

    async def here(topic: TopicName) -> None:
        found = await call.context.catalog.topic(topic)
        await found.set_subscription_properties(call.subscription, properties)

    await everywhere(call, here)
    return done()


_C = Right.CONSUME
_Properties = dict[str, str]

ROUTES = [
    Route("GET", f"{TOPIC}/subscriptions", list_subscriptions, Right.CONSUME, answer=list[str]),
    Route("PUT", SUBSCRIPTION, create_subscription, _C, body=Position | str | None),
    Route("DELETE", SUBSCRIPTION, delete_subscription, _C, query={"force": bool}),
    Route("GET", f"{SUBSCRIPTION}/properties", get_properties, Right.CONSUME, answer=_Properties),
    Route("PUT", f"{SUBSCRIPTION}/properties", set_properties, _C, body=_Properties | None),
    Route("POST", f"{SUBSCRIPTION}/skip/{{count}}", skip, _C),
    Route("POST", f"{SUBSCRIPTION}/skip_all", skip_all, _C),
    Route("POST", f"{SUBSCRIPTION}/expireMessages", expire_to, _C, body=Position),
    Route("POST", f"{SUBSCRIPTION}/expireMessages/{{seconds}}", expire, _C),
    Route(
        "POST",
        f"{TOPIC}/all_subscription/expireMessages/{{seconds}}",
        expire_all,
        Right.CONSUME_ALL,
    ),
    Route("POST", f"{SUBSCRIPTION}/resetcursor", reset_to, _C, body=Position),
    Route("POST", f"{SUBSCRIPTION}/resetcursor/{{time}}", reset_to_time, _C),
]
