"""Retention, quotas: what may go, decided without touching anything."""

from hypothesis import given
from hypothesis import strategies as st

from magnetar.broker.entry import EntryId
from magnetar.broker.topics.limits.backlog import (
    QuotaPolicy,
    Retention,
    Span,
    backlog_bytes,
    evict_to,
    strictest,
    trimmable,
)

MIB = 1024 * 1024
NOW_MS = 1_700_000_000_000
HOUR_MS = 3_600_000

KEEP_ALL = Retention(-1, -1)
KEEP_NOTHING = Retention(0, 0)


def spans(*sizes_mib: int, open_last: bool = True, age_hours: int = 5) -> list[Span]:
    """Ledgers 10, 11, ... of 100 entries each, one hour younger each time."""
    return [
        Span(
            10 + i,
            100,
            size * MIB,
            NOW_MS - (age_hours - i) * HOUR_MS,
            not (open_last and i == len(sizes_mib) - 1),
        )
        for i, size in enumerate(sizes_mib)
    ]


END = EntryId(99, 0)


def test_by_default_nothing_ever_goes() -> None:
    assert trimmable(spans(1, 1, 1), END, KEEP_ALL, NOW_MS) == 0


def test_without_retention_whole_sealed_ledgers_go_once_acknowledged() -> None:
    assert trimmable(spans(1, 1, 1), EntryId(11, 99), KEEP_NOTHING, NOW_MS) == 2


def test_a_ledger_with_one_unacknowledged_entry_stays() -> None:
    assert trimmable(spans(1, 1, 1), EntryId(11, 98), KEEP_NOTHING, NOW_MS) == 1


def test_the_open_ledger_stays_even_when_all_of_it_is_acknowledged() -> None:
    assert trimmable(spans(1, 1), END, KEEP_NOTHING, NOW_MS) == 1


def test_without_any_subscription_everything_counts_as_acknowledged() -> None:
    assert trimmable(spans(1, 1, 1), None, KEEP_NOTHING, NOW_MS) == 2


def test_what_is_younger_than_the_retention_time_stays() -> None:
    # The ledgers end 5, 4 and 3 hours ago.
    assert trimmable(spans(1, 1, 1), END, Retention(4 * 60, -1), NOW_MS) == 2
    assert trimmable(spans(1, 1, 1), END, Retention(4 * 60 + 1, -1), NOW_MS) == 1


def test_what_is_over_the_retention_size_goes_even_while_it_is_young() -> None:
    assert trimmable(spans(10, 10, 10), END, Retention(1_000_000, 15), NOW_MS) == 2
    assert trimmable(spans(10, 10, 10), END, Retention(1_000_000, 20), NOW_MS) == 1


def test_retention_never_takes_what_a_subscription_still_needs() -> None:
    assert trimmable(spans(10, 10, 10), EntryId(10, 5), Retention(0, 0), NOW_MS) == 0


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 20), st.booleans()), max_size=8),
    st.one_of(st.none(), st.tuples(st.integers(9, 20), st.integers(-1, 6))),
    st.integers(-1, 12),
    st.integers(-1, 12),
)
def test_trimming_agrees_with_a_plain_model(
    shapes: list[tuple[int, int, bool]], mark: tuple[int, int] | None, minutes: int, mib: int
) -> None:
    ledgers = [
        Span(10 + i, entries, entries * MIB, NOW_MS - age * 60_000, sealed)
        for i, (entries, age, sealed) in enumerate(shapes)
    ]
    slowest = None if mark is None else EntryId(*mark)
    count = trimmable(ledgers, slowest, Retention(minutes, mib), NOW_MS)
    for position, span in enumerate(ledgers[: count + 1]):
        rest_bytes = sum(each.size_bytes for each in ledgers[position:])
        acknowledged = slowest is None or all(
            (span.ledger, entry) <= slowest for entry in range(span.entries)
        )
        # An empty ledger is acknowledged whatever the mark, if the mark is not before it.
        acknowledged = acknowledged and (slowest is None or slowest.ledger >= span.ledger)
        limit = (minutes >= 0 and NOW_MS - span.last_publish_ms >= minutes * 60_000) or (
            mib >= 0 and rest_bytes > mib * MIB
        )
        assert (position < count) == (span.sealed and acknowledged and limit)


def test_a_backlog_is_what_lies_after_the_mark() -> None:
    ledgers = spans(10, 10, 20)
    assert backlog_bytes(ledgers, EntryId(-1, -1)) == 40 * MIB
    assert backlog_bytes(ledgers, EntryId(11, 49)) == 25 * MIB
    assert backlog_bytes(ledgers, EntryId(12, 99)) == 0


def test_an_eviction_moves_the_mark_until_a_tenth_of_the_quota_is_free() -> None:
    ledgers = spans(10, 10, 20)
    mark = evict_to(ledgers, 20 * MIB)
    assert mark == EntryId(12, 9)
    assert backlog_bytes(ledgers, mark) == 18 * MIB


def test_a_topic_below_its_quota_evicts_nothing() -> None:
    assert evict_to(spans(1, 1), 100 * MIB) is None


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 100)), max_size=6), st.integers(1, 1000)
)
def test_after_an_eviction_the_backlog_is_below_the_quota(
    shapes: list[tuple[int, int]], limit: int
) -> None:
    ledgers = [
        Span(10 + i, entries, entries * size, NOW_MS, True)
        for i, (entries, size) in enumerate(shapes)
    ]
    mark = evict_to(ledgers, limit)
    if mark is None:
        assert sum(span.size_bytes for span in ledgers) <= limit
    else:
        assert backlog_bytes(ledgers, mark) <= limit


def test_refusing_producers_beats_evicting_consumers() -> None:
    assert strictest([QuotaPolicy.EVICTION, QuotaPolicy.HOLD]) is QuotaPolicy.HOLD
    assert strictest([QuotaPolicy.HOLD, QuotaPolicy.EXCEPTION]) is QuotaPolicy.EXCEPTION
    assert strictest([QuotaPolicy.EVICTION]) is QuotaPolicy.EVICTION
