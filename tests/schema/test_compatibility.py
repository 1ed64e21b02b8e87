"""The strategies, and where they come from."""

import pytest

from magnetar.broker.schema.compatibility import (
    LEGACY,
    Demand,
    Strategy,
    demanded,
    demanded_of_consumer,
    effective,
)


@pytest.mark.parametrize(
    ("strategy", "demand"),
    [
        (Strategy.BACKWARD, Demand(reads_old=True, read_by_old=False, all_versions=False)),
        (Strategy.FORWARD, Demand(reads_old=False, read_by_old=True, all_versions=False)),
        (Strategy.FULL, Demand(reads_old=True, read_by_old=True, all_versions=False)),
        (
            Strategy.BACKWARD_TRANSITIVE,
            Demand(reads_old=True, read_by_old=False, all_versions=True),
        ),
        (Strategy.FORWARD_TRANSITIVE, Demand(reads_old=False, read_by_old=True, all_versions=True)),
        (Strategy.FULL_TRANSITIVE, Demand(reads_old=True, read_by_old=True, all_versions=True)),
    ],
)
def test_a_strategy_says_who_must_read_what(strategy: Strategy, demand: Demand) -> None:
    assert demanded(strategy) == demand


@pytest.mark.parametrize(
    "strategy", [Strategy.BACKWARD, Strategy.FORWARD, Strategy.FORWARD_TRANSITIVE, Strategy.FULL]
)
def test_a_consumer_must_read_what_is_there_whoever_is_updated_first(strategy: Strategy) -> None:
    expected = Demand(reads_old=True, read_by_old=False, all_versions=False)
    assert demanded_of_consumer(strategy) == expected


def test_a_consumer_must_go_with_all_versions_where_that_is_demanded() -> None:
    for strategy in (Strategy.BACKWARD_TRANSITIVE, Strategy.FULL_TRANSITIVE):
        assert demanded_of_consumer(strategy) == demanded(strategy)


@pytest.mark.parametrize(
    ("levels", "legacy", "strategy"),
    [
        ((), None, Strategy.FULL),
        ((None, "FULL"), None, Strategy.FULL),
        ((None, "BACKWARD"), None, Strategy.BACKWARD),
        (("FORWARD", "BACKWARD"), None, Strategy.FORWARD),
        (("UNDEFINED", "BACKWARD"), None, Strategy.BACKWARD),
        (("something newer", "BACKWARD"), None, Strategy.BACKWARD),
        ((None, "BACKWARD"), "AlwaysCompatible", Strategy.ALWAYS_COMPATIBLE),
        (("FORWARD", "BACKWARD"), "AlwaysCompatible", Strategy.FORWARD),
        (("UNDEFINED", "FULL"), "AutoUpdateDisabled", Strategy.ALWAYS_INCOMPATIBLE),
        ((None, "FULL"), "something else", Strategy.FULL),
        ((None, "FORWARD", "BACKWARD"), None, Strategy.FORWARD),
        (("UNDEFINED", None, "UNDEFINED"), None, Strategy.FULL),
    ],
)
def test_the_closest_level_that_says_something_decides(
    levels: tuple[str | None, ...], legacy: str | None, strategy: Strategy
) -> None:
    assert effective(*levels, legacy=legacy) is strategy


def test_every_older_word_has_a_meaning() -> None:
    assert len(set(LEGACY.values())) == len(LEGACY) == len(Strategy) - 1
