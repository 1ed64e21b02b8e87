"""What all nouns do with their facts."""

import asyncio

import msgspec
import pytest

from magnetar.broker.metadata import facts
from magnetar.broker.metadata.facts import AlreadyExistsError, NotFoundError
from magnetar.broker.metadata.memory import MemoryStore
from magnetar.broker.metadata.store import (
    PRESENT,
    Change,
    Check,
    ConflictError,
    Put,
    Store,
    Versioned,
)


class Count(msgspec.Struct):
    """Any fact."""

    number: int


async def test_a_fact_is_created_once(store: Store) -> None:
    await facts.create(store, "the count", "a", Count(1), Put("b", b""))
    with pytest.raises(AlreadyExistsError, match="the count already exists"):
        await facts.create(store, "the count", "a", Count(2), Put("c", b""))
    assert await facts.read(store, "a", Count) == Count(1)
    assert await store.keys("") == ["a", "b"]


async def test_a_further_condition_of_a_creation_shows_as_itself(store: Store) -> None:
    with pytest.raises(ConflictError) as caught:
        await facts.create(store, "the count", "a", Count(1), Check("b", PRESENT))
    assert caught.value.key == "b"


async def test_only_what_exists_is_replaced(store: Store) -> None:
    with pytest.raises(NotFoundError, match="the count does not exist"):
        await facts.replace(store, "the count", "a", Count(1))
    await facts.create(store, "the count", "a", Count(1))
    await facts.replace(store, "the count", "a", Count(2))
    assert await facts.read(store, "a", Count) == Count(2)


async def test_rivals_who_revise_lose_nothing_of_each_other(store: Store) -> None:
    await facts.create(store, "the count", "a", Count(0))

    def add_one(count: Count) -> None:
        count.number += 1

    await asyncio.gather(
        *(facts.revise(store, "the count", "a", Count, add_one) for _ in range(10))
    )
    assert await facts.read(store, "a", Count) == Count(10)


async def test_revising_nothing_says_what_is_missing(store: Store) -> None:
    with pytest.raises(NotFoundError, match="the count does not exist"):
        await facts.revise(store, "the count", "a", Count, lambda count: None)


async def test_a_fact_that_never_stands_still_is_given_up_with_an_error() -> None:
    class Restless(MemoryStore):
        async def get(self, key: str) -> Versioned | None:
            found = await super().get(key)
            await self.commit([Put(key, b'{"number":1}')])
            return found

    store = Restless()
    await facts.create(store, "the count", "a", Count(0))
    with pytest.raises(ConflictError, match="changed in the meantime"):
        await facts.revise(store, "the count", "a", Count, lambda count: None)


async def test_groups_whose_key_is_gone_are_left_out_and_the_others_are_kept(store: Store) -> None:
    await store.commit([Put("a", b""), Put("c", b"")])
    groups: dict[str, list[Change]] = {key: [Put(f"{key}/x", b"")] for key in "abcd"}
    await facts.commit_where_present(store, groups)
    assert await store.keys("") == ["a", "a/x", "c", "c/x"]
