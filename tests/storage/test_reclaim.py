"""Which logs are worth rewriting."""

from magnetar.broker.storage.reclaim import (
    REWRITE_BYTES_MAX,
    SMALL_LOG_BYTES,
    SMALL_LOGS_MAX,
    choose,
)
from magnetar.broker.storage.segment import Table
from tests.storage.test_index import table_of


def log_of(name: str, *extents: tuple[int, int], size: int = SMALL_LOG_BYTES) -> Table:
    """Make a log from ledgers and how many bytes each has."""
    table = table_of(name, [(ledger, 0, 1) for ledger, _ in extents])
    for row, ledger in enumerate(table.ledgers):
        table.bytes[row] = dict(extents)[ledger]
    table.size = size
    return table


def names(tables: list[Table]) -> list[str]:
    return [table.name for table in tables]


def test_only_empty_logs_and_those_below_half_are_touched() -> None:
    tables = [
        log_of("whole", (1, 100)),
        log_of("half", (1, 50), (7, 50)),
        log_of("less", (1, 40), (7, 60)),
        log_of("least", (1, 10), (7, 90)),
        log_of("empty", (7, 100)),
    ]
    empty, chosen = choose(tables, frozenset({7}))
    assert names(empty) == ["empty"]
    assert names(chosen) == ["least", "less"]
    assert choose(tables, frozenset()) == ([], [])


def test_a_ledger_of_empty_bodies_is_live_too() -> None:
    assert choose([log_of("a", (1, 0))], frozenset({2})) == ([], [])


def test_small_logs_are_left_until_there_are_many() -> None:
    few = [log_of(f"{n}", (1, 5), size=1000) for n in range(SMALL_LOGS_MAX)]
    assert choose(few, frozenset()) == ([], [])
    many = [*few, log_of("more", (1, 5), size=1000)]
    assert len(choose(many, frozenset())[1]) == SMALL_LOGS_MAX + 1


def test_one_round_moves_a_bounded_number_of_bytes() -> None:
    part = REWRITE_BYTES_MAX // 3
    tables = [log_of(f"{n}", (1, part), (7, part * 2)) for n in range(10)]
    assert len(choose(tables, frozenset({7}))[1]) == 3
    huge = [log_of("huge", (1, REWRITE_BYTES_MAX * 2), (7, REWRITE_BYTES_MAX * 3))]
    assert names(choose(huge, frozenset({7}))[1]) == ["huge"]
