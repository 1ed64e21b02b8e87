"""The contract of a store. Every sentence holds for the one in memory and the one on disk."""

import asyncio
from collections.abc import Sequence

import pytest

from magnetar.broker.metadata.store import (
    PRESENT,
    Append,
    Change,
    Check,
    CheckEmpty,
    ConflictError,
    CorruptMetadataError,
    Delete,
    DeleteAll,
    Increment,
    Put,
    Store,
    StoreUnavailableError,
    Versioned,
    number_of,
    numbered,
)


async def test_what_was_put_is_there_with_the_version_that_the_put_returned(store: Store) -> None:
    (version,) = await store.commit([Put("a/1", b"x")])
    assert version is not None
    assert await store.get("a/1") == Versioned(b"x", version)


async def test_a_key_that_was_never_written_is_none(store: Store) -> None:
    assert await store.get("nothing") is None


async def test_keys_under_a_prefix_come_sorted_and_nothing_beside_them(store: Store) -> None:
    await store.commit([Put(key, b"") for key in ["a/2", "a/1", "a0", "a", "ab/1", "a/\U0001f600"]])
    assert await store.keys("a/") == ["a/1", "a/2", "a/\U0001f600"]
    assert [key for key, _ in await store.scan("a/")] == ["a/1", "a/2", "a/\U0001f600"]
    assert len(await store.keys("")) == 6


async def test_a_prefix_that_does_not_end_in_a_slash_is_a_mistake(store: Store) -> None:
    await store.commit([Put("a/1", b"")])
    with pytest.raises(ValueError, match="must end in a slash"):
        await store.keys("a")
    with pytest.raises(ValueError, match="must end in a slash"):
        await store.commit([DeleteAll("a")])


async def test_a_key_that_is_no_unicode_is_refused_without_its_neighbours(store: Store) -> None:
    good, bad = store.commit([Put("a", b"")]), store.commit([Put("\ud800", b"")])
    outcomes = await asyncio.gather(good, bad, return_exceptions=True)
    assert outcomes[0] == [1]
    assert isinstance(outcomes[1], ValueError)


async def test_a_later_write_has_a_higher_version_even_after_a_delete(store: Store) -> None:
    (first,) = await store.commit([Put("a", b"1")])
    await store.commit([Delete("a")])
    (second,) = await store.commit([Put("a", b"1")])
    assert first is not None
    assert second is not None
    assert second > first


async def test_one_condition_that_fails_stops_the_whole_commit(store: Store) -> None:
    await store.commit([Put("a", b"1")])
    with pytest.raises(ConflictError) as caught:
        await store.commit([Put("b", b"1"), Increment("n"), Check("a", None), Delete("a")])
    assert caught.value.key == "a"
    assert await store.keys("") == ["a"]


@pytest.mark.parametrize(
    "condition", [Check("gone", PRESENT), Check("gone", 1), Check("here", None), CheckEmpty("x/")]
)
async def test_a_condition_that_does_not_hold_names_its_key(
    store: Store, condition: Check | CheckEmpty
) -> None:
    await store.commit([Put("here", b""), Put("x/1", b"")])
    with pytest.raises(ConflictError) as caught:
        await store.commit([condition])
    assert caught.value.key in {"gone", "here", "x/"}
    assert caught.value.key in str(caught.value)


@pytest.mark.parametrize(
    "condition", [Check("here", PRESENT), Check("gone", None), CheckEmpty("y/")]
)
async def test_a_condition_that_holds_changes_nothing(
    store: Store, condition: Check | CheckEmpty
) -> None:
    await store.commit([Put("here", b"")])
    assert await store.commit([condition]) == [None]
    assert await store.keys("") == ["here"]


async def test_a_put_with_a_version_loses_against_whoever_was_faster(store: Store) -> None:
    (version,) = await store.commit([Put("a", b"1")])
    await store.commit([Put("a", b"2", version)])
    with pytest.raises(ConflictError, match="changed in the meantime"):
        await store.commit([Put("a", b"3", version)])
    found = await store.get("a")
    assert found is not None
    assert found.value == b"2"


async def test_conditions_see_the_state_before_the_commit(store: Store) -> None:
    await store.commit([Put("x/1", b"")])
    await store.commit(
        [DeleteAll("x/"), Put("x/2", b""), Check("x/2", None), Check("x/1", PRESENT)]
    )
    assert await store.keys("x/") == ["x/2"]


async def test_writes_of_one_commit_happen_in_order(store: Store) -> None:
    await store.commit([Put("x/1", b"old"), Put("x/2", b"old")])
    await store.commit([Put("x/3", b""), DeleteAll("x/"), Put("x/1", b"new"), Delete("x/2")])
    assert [(key, found.value) for key, found in await store.scan("x/")] == [("x/1", b"new")]


async def test_counters_start_at_zero_and_count_every_commit(store: Store) -> None:
    results = await asyncio.gather(*(store.commit([Increment("n", 2)]) for _ in range(50)))
    assert sorted(number for (number,) in results if number) == list(range(2, 102, 2))


async def test_appended_values_lie_under_growing_numbers(store: Store) -> None:
    results = await asyncio.gather(
        *(store.commit([Append("n", f"x/{each % 2}/", b"%d" % each)]) for each in range(20))
    )
    numbers = [number for (number,) in results]
    assert sorted(number for number in numbers if number) == list(range(1, 21))
    for each, number in enumerate(numbers):
        assert number is not None
        found = await store.get(numbered(f"x/{each % 2}/", number))
        assert found is not None
        assert found.value == b"%d" % each


def test_numbered_keys_sort_as_their_numbers_do() -> None:
    numbers = [0, 9, 10, 255, 2**40, 2**63 - 1]
    assert sorted(numbered("x/", number) for number in reversed(numbers)) == [
        numbered("x/", number) for number in numbers
    ]
    assert [number_of(numbered("x/", number)) for number in numbers] == numbers


async def test_a_counter_that_holds_no_number_is_reported_and_nothing_is_written(
    store: Store,
) -> None:
    await store.commit([Put("n", b"nonsense")])
    with pytest.raises(CorruptMetadataError, match="n is no counter"):
        await store.commit([Put("a", b""), Append("n", "x/", b"")])
    assert await store.keys("") == ["n"]


async def test_one_of_many_rivals_wins(store: Store) -> None:
    await store.commit([Put("a", b"0")])
    found = await store.get("a")
    assert found is not None
    outcomes = await asyncio.gather(
        *(store.commit([Put("a", b"%d" % each, found.version)]) for each in range(20)),
        return_exceptions=True,
    )
    assert sum(isinstance(each, list) for each in outcomes) == 1
    assert sum(isinstance(each, ConflictError) for each in outcomes) == 19


async def test_a_refused_commit_costs_its_neighbours_nothing(store: Store) -> None:
    commits: list[Sequence[Change]] = [
        [Put(f"k/{each:02}", b""), Check("never", PRESENT if each % 3 == 0 else None)]
        for each in range(30)
    ]
    outcomes = await asyncio.gather(*map(store.commit, commits), return_exceptions=True)
    refused = [each for each, outcome in enumerate(outcomes) if isinstance(outcome, ConflictError)]
    assert refused == list(range(0, 30, 3))
    assert await store.keys("k/") == [f"k/{each:02}" for each in range(30) if each % 3]


async def test_a_watcher_hears_of_a_change_before_the_commit_returns(store: Store) -> None:
    heard: list[str] = []
    store.watch("a/", heard.extend)
    await store.commit([Put("a/1", b""), Put("b/1", b""), Put("a/2", b"")])
    assert heard == ["a/1", "a/2"]
    await store.commit([DeleteAll("a/")])
    assert heard == ["a/1", "a/2", "a/1", "a/2"]


async def test_a_watcher_hears_nothing_of_a_refused_commit_nor_after_it_stopped(
    store: Store,
) -> None:
    heard: list[str] = []
    stop = store.watch("a/", heard.extend)
    with pytest.raises(ConflictError):
        await store.commit([Put("a/1", b""), Check("x", PRESENT)])
    stop()
    stop()
    await store.commit([Put("a/1", b"")])
    assert heard == []


async def test_deleting_what_is_not_there_is_no_change(store: Store) -> None:
    heard: list[str] = []
    store.watch("", heard.extend)
    await store.commit([Delete("a"), DeleteAll("b/")])
    assert heard == []


async def test_a_closed_store_refuses_and_closing_twice_is_harmless(store: Store) -> None:
    await store.close()
    await store.close()
    with pytest.raises(StoreUnavailableError, match="closed"):
        await store.commit([Put("a", b"")])
    with pytest.raises(StoreUnavailableError, match="closed"):
        await store.get("a")
