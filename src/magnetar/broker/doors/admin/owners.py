"""How a call reaches every process that it concerns.

call about a partitioned topic ──▶ its partitions ─┬─ owned here ──▶ the handler's function
└─ elsewhere  ──▶ the same call to the owner
call about a namespace's topics ─▶ those owned here, then every sibling, marked HERE
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar, cast

from magnetar.broker.doors.admin.call import Call
from magnetar.broker.doors.admin.context import in_parallel, topic_path
from magnetar.names import TopicName

T = TypeVar("T")


async def everywhere(call: Call, here: Callable[[TopicName], Awaitable[T]]) -> list[T]:
    """Do something to a topic; to a partitioned one, on each partition, where it is owned.

    `here` returns what the call answers, as JSON values, because for partitions that are
    owned elsewhere it is the answer of the same call there.
    """
    names = await call.context.partition_names(call.topic)
    if names is None:
        return [await here(call.topic)]
    return await on_partitions(call, names, here)


async def on_partitions(
    call: Call,
    names: Iterable[TopicName],
    here: Callable[[TopicName], Awaitable[T]],
    tail: str | None = None,
) -> list[T]:
    """Do something to the given partitions, each where it is owned.

    Where the call about a partition is another one than that about the topic, `tail` is
    what comes after the partition in its path.
    """
    ownership, siblings = call.context.ownership, call.context.siblings

    async def at_owner(topic: TopicName) -> T:
        if ownership.mine(topic):
            return await here(topic)
        target = call.target_for(topic_path(topic), tail)
        worker = ownership.worker_of(topic)
        return cast(T, await siblings.ask(worker, call.request.method, target, call.body))

    return await in_parallel([at_owner(name) for name in names])


async def from_all(
    call: Call, here: Callable[[], Awaitable[T]], path: str | None = None
) -> list[T]:
    """Return what every process has to say, this one first; passed on to us: only that.

    `here` returns what the call answers when it is passed on, as JSON values. The call is the
    same everywhere, or another one, given by its `path`.
    """
    own = await here()
    if call.here:
        return [own]
    siblings, target = call.context.siblings, path or call.target
    others = [siblings.ask(worker, "GET", target) for worker in siblings.others]
    return [own, *cast("list[T]", await in_parallel(others))]


async def pass_on(call: Call) -> None:
    """Make the same call to every other process, unless it was passed on to us."""
    if call.here:
        return
    siblings = call.context.siblings
    for worker in siblings.others:
        await siblings.ask(worker, call.request.method, call.target, call.body)
