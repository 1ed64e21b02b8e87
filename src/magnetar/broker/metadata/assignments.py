"""The table of which process has which topic, as all processes of a data folder share it.

    assignment/topics      JSON: {"shares": [0, 1, ...], "pins": {"persistent://...": 1}}
                           its version is the version of the table

Whoever has a topic gives it away: only the owner changes what concerns it, once it holds nothing
of it any more. So a process never hears of a loss, and what it hears of late is a gain at most.
"""

from collections.abc import Callable
from typing import NamedTuple

from magnetar.broker.assignment import Assignment, Change
from magnetar.broker.metadata import paths
from magnetar.broker.metadata.documents import decode, encode
from magnetar.broker.metadata.store import ConflictError, Put, Store

ATTEMPTS_MAX = 50
"""Times that a change is tried again because another process changed the table first."""


class Known(NamedTuple):
    """The table as it was at some time."""

    table: Assignment
    version: int


async def load(store: Store) -> Known | None:
    """Return the table; None: no process has served yet, or none that knew of it."""
    found = await store.get(paths.ASSIGNMENT)
    if found is None:
        return None
    return Known(decode(paths.ASSIGNMENT, found.value, Assignment), found.version)


async def begin(store: Store, workers: int) -> Known:
    """Return the table for so many processes that start together. Nobody may serve meanwhile."""
    found = await load(store)
    if found is not None and found.table.suits(workers):
        return found
    table = Assignment.fresh(workers)
    _, version = await _put(store, table, None)
    return Known(table, version)


async def change(store: Store, wanted: Change) -> Known:
    """Change the table; return it as it is then.

    Raises:
        ConflictError: others kept changing it.
        TooManyPinsError: there is no room for more topics that were moved by hand.
    """
    for attempt in range(ATTEMPTS_MAX):
        found = await load(store)
        assert found is not None, "processes serve, so there is a table"
        table = found.table.changed(wanted)
        try:
            return Known(*await _put(store, table, found.version))
        except ConflictError:
            if attempt == ATTEMPTS_MAX - 1:
                raise
    raise AssertionError("the loop above returns or raises")


def watch(store: Store, news: Callable[[], None]) -> Callable[[], None]:
    """Call back when the table has changed; return how to stop that."""
    return store.watch(paths.ASSIGNMENTS, lambda _: news())


async def _put(store: Store, table: Assignment, version: int | None) -> tuple[Assignment, int]:
    [now] = await store.commit([Put(paths.ASSIGNMENT, encode(table), version)])
    assert now is not None
    return table, now
