"""Facts: one JSON document under one key. What all nouns of this folder do with theirs."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import msgspec

from magnetar.broker.metadata.documents import decode, encode
from magnetar.broker.metadata.store import (
    PRESENT,
    Change,
    Check,
    ConflictError,
    Increment,
    Put,
    Store,
    StoreError,
)

S = TypeVar("S", bound=msgspec.Struct)

REVISE_ATTEMPTS_MAX = 20
"""Times that a change is tried again because somebody else changed the same fact first."""


class AlreadyExistsError(StoreError):
    """There is one of that name."""


class NotFoundError(StoreError):
    """There is none of that name."""


class NotEmptyError(StoreError):
    """It still holds something."""


async def read(store: Store, key: str, kind: type[S]) -> S | None:
    """Return the fact under a key; None: there is none."""
    found = await store.get(key)
    return None if found is None else decode(key, found.value, kind)


async def create(store: Store, what: str, key: str, fact: msgspec.Struct, *more: Change) -> None:
    """Write a new fact, and `more` with it.

    Raises:
        AlreadyExistsError: there is one under this key. `what` says in words what it is.
        ConflictError: a condition in `more` does not hold.
    """
    try:
        await store.commit([Check(key, None), Put(key, encode(fact)), *more])
    except ConflictError as error:
        if error.key != key:
            raise
        raise AlreadyExistsError(f"{what} already exists") from None


async def replace(store: Store, what: str, key: str, fact: msgspec.Struct) -> None:
    """Write a fact where there is one.

    Raises:
        NotFoundError: there is none. `what` says in words what is missing.
    """
    try:
        await store.commit([Check(key, PRESENT), Put(key, encode(fact))])
    except ConflictError:
        raise NotFoundError(f"{what} does not exist") from None


async def revise(
    store: Store, what: str, key: str, kind: type[S], change: Callable[[S], Sequence[Change] | None]
) -> S:
    """Change a fact in place, and return it; whoever comes second starts from the new state.

    `change` edits the fact it is given, may be called several times, and may return further
    changes for the same commit.

    Raises:
        NotFoundError: there is none. `what` says in words what is missing.
        ConflictError: others kept changing it, or a further condition does not hold.
    """
    for attempt in range(REVISE_ATTEMPTS_MAX):
        found = await store.get(key)
        if found is None:
            raise NotFoundError(f"{what} does not exist")
        fact = decode(key, found.value, kind)
        more = change(fact) or ()
        try:
            await store.commit([Put(key, encode(fact), found.version), *more])
        except ConflictError as error:
            if error.key != key or attempt == REVISE_ATTEMPTS_MAX - 1:
                raise
        else:
            return fact
    raise AssertionError("the loop above returns or raises")


async def raise_counter(store: Store, key: str, number: int) -> None:
    """Make sure that a counter gives out no number up to and including this one (again)."""
    found = await store.get(key)
    missing = number - (0 if found is None else int(found.value))
    if missing > 0:
        await store.commit([Increment(key, missing)])


async def commit_where_present(store: Store, groups: Mapping[str, Sequence[Change]]) -> None:
    """Commit groups of changes, each by the key that must exist for it to make sense.

    A group whose key is gone is left out: its thing was deleted meanwhile. The others are
    committed together.
    """
    left = dict(groups)
    while left:
        try:
            conditions = [Check(key, PRESENT) for key in left]
            await store.commit([*conditions, *(each for group in left.values() for each in group)])
        except ConflictError as error:
            del left[error.key]
        else:
            return
