"""Rates: exact over time, whatever comes in whichever pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magnetar.broker.topics.limits.rates import (
    BURST,
    NO_LIMIT,
    PACE_S,
    Limit,
    Meter,
    Meters,
    Turnstile,
)


def meters(*limits: Limit) -> tuple[Meters, list[float]]:
    now = [0.0]
    return Meters(lambda: now[0], [Meter(0.0, limit) for limit in limits]), now


@given(
    rate=st.floats(1, 10_000),
    pieces=st.lists(st.integers(1, 500), min_size=1, max_size=100),
)
def test_whoever_pays_its_debts_passes_as_fast_as_it_may_and_no_faster(
    rate: float, pieces: list[int]
) -> None:
    meter, now = Meter(0.0, Limit(messages=rate)), 0.0
    for piece in pieces:
        meter.take(piece, 0)
        now += meter.debt_s(now)
    passed = sum(pieces)
    assert passed <= rate * now + max(rate * BURST, 2) + 1e-3
    assert passed >= rate * now - 1e-3


@given(
    limit=st.builds(Limit, st.integers(0, 1000), st.integers(0, 100_000), st.integers(1, 5)),
    sizes=st.lists(st.integers(1, 5_000), min_size=1, max_size=100),
)
def test_whoever_waits_for_room_never_sends_more_than_one_message_too_many(
    limit: Limit, sizes: list[int]
) -> None:
    both, now = meters(limit)
    for sent, size in enumerate(sizes):
        while not both.room()[0]:
            now[0] += both.wait_s()
        both.take(1, size)
        if limit.messages:
            rate = limit.messages / limit.period_s
            assert sent + 1 <= rate * now[0] + max(limit.messages * BURST, 2) + 1e-3
    if limit.bytes:
        allowed = limit.bytes / limit.period_s * now[0] + max(limit.bytes * BURST, 2) + max(sizes)
        assert sum(sizes) <= allowed + 1e-3
    if not limit.any:
        assert now[0] == 0.0


def test_a_pause_saves_up_a_fraction_of_a_period_and_no_more() -> None:
    meter = Meter(0.0, Limit(messages=100))
    assert meter.room(0.0)[0] == 1
    assert meter.room(3600.0)[0] == 100 * BURST


def test_what_passes_several_meters_passes_as_fast_as_the_slowest() -> None:
    both, now = meters(Limit(messages=1000), Limit(messages=10), NO_LIMIT)
    passed = 0
    while now[0] < 10:
        room, _ = both.room()
        if room:
            both.take(room, 0)
            passed += room
        now[0] += max(both.wait_s(), PACE_S)
    assert passed == pytest.approx(100, rel=0.05)


def test_a_changed_limit_holds_from_now_on_and_a_lifted_one_is_gone() -> None:
    meter = Meter(0.0, Limit(messages=1))
    meter.take(1000, 0)
    assert meter.debt_s(0.0) > 900
    meter.set(Limit(messages=1000))
    assert meter.debt_s(0.0) < 1
    meter.set(NO_LIMIT)
    assert meter.debt_s(0.0) == 0
    meter.take(1000, 10**9)
    assert meter.room(0.0) == (float("inf"), float("inf"))


def test_a_relative_limit_is_what_is_published_and_so_much_more() -> None:
    meter = Meter(0.0, Limit(messages=10, relative=True), lambda _: (90.0, 0.0))
    now, passed = 0.0, 0
    while now < 10:
        now += 0.02
        room = int(meter.room(now)[0])
        meter.take(room, 0)
        passed += room
    assert passed == pytest.approx(1000, rel=0.03)


def test_each_of_those_who_come_may_pass_so_many_times_in_a_period() -> None:
    turnstile, limit = Turnstile(), Limit(messages=3, period_s=30)
    assert [turnstile.passes("a", limit, 0.0) for _ in range(5)] == [True] * 3 + [False] * 2
    assert turnstile.passes("b", limit, 0.0)
    assert not turnstile.passes("a", limit, 5.0)
    assert turnstile.passes("a", limit, 10.1)
    assert not turnstile.passes("a", limit, 10.2)
    other = Limit(messages=1, period_s=30)
    assert [turnstile.passes("a", other, 10.2) for _ in range(2)] == [True, False]
