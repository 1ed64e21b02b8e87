"""Which message is the last of its key, against a dictionary."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magnetar.broker.topics.compaction import last_of_key
from magnetar.broker.topics.compaction.last_of_key import LastOfKey, Survivors

SALT = b"s" * 16


def survivors(said: list[tuple[bytes, bool]], bytes_max: int = 1 << 30) -> tuple[Survivors, int]:
    found, part, rounds = Survivors(), 0, 0
    while True:
        keys = LastOfKey(SALT, part, bytes_max)
        for ordinal, (key, deletes) in enumerate(said):
            keys.put(key, ordinal, deletes=deletes)
        rounds += 1
        part = keys.end_part
        done = keys.done
        for _ in keys.settle_into(found):
            pass
        if done:
            return found, rounds


def expected(said: list[tuple[bytes, bool]]) -> set[int]:
    state: dict[bytes, int] = {}
    for ordinal, (key, deletes) in enumerate(said):
        state.pop(key, None)
        if not deletes:
            state[key] = ordinal
    return set(state.values())


@given(st.lists(st.tuples(st.binary(max_size=2), st.booleans())))
def test_the_last_of_every_key_survives_unless_it_deletes(said: list[tuple[bytes, bool]]) -> None:
    found, _ = survivors(said)
    assert {ordinal for ordinal in range(len(said)) if ordinal in found} == expected(said)
    assert found.count == len(expected(said))


def test_more_keys_than_fit_take_more_rounds_with_the_same_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(last_of_key, "_SETTLE_AT", 1)
    monkeypatch.setattr(last_of_key, "PARTS", 128)
    said = [(b"%d" % (n * 7 % 3000), n % 5 == 0) for n in range(9000)]
    found, rounds = survivors(said, bytes_max=500 * 16)
    assert rounds > 3
    assert {ordinal for ordinal in range(len(said)) if ordinal in found} == expected(said)


def test_what_is_remembered_is_bounded_whatever_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_of_key, "_SETTLE_AT", 1)
    monkeypatch.setattr(last_of_key, "PARTS", 128)
    keys = LastOfKey(SALT, 0, 1000 * 16)
    for n in range(50_000):
        keys.put(b"%d" % n, n, deletes=False)
        assert keys._rows <= 1600
    assert not keys.done


def test_one_key_again_and_again_takes_no_room() -> None:
    keys = LastOfKey(SALT, 0, 1 << 30)
    for n in range(20_000):
        keys.put(b"same", n, deletes=False)
    assert keys._rows < 100
