"""The checker of transactions finds each of the faults that it is for, and no other."""

from tests.conformance.transaction_histories import (
    Attempt,
    Wish,
    lost_commits,
    never_done,
    torn,
    twice,
    uncommitted_reads,
)

ATTEMPTS = [
    Attempt("a", 0, Wish.COMMIT, answered=True),
    Attempt("b", 1, Wish.ABORT, answered=True),
    Attempt("c", 1, Wish.COMMIT),
    Attempt("d", 2),
    Attempt("e", 2, Wish.COMMIT, answered=True),
]
GOOD = {"x": ["a", "c", "e"], "y": ["a", "c", "e"]}


def faults(seen: dict[str, list[str]]) -> list[object]:
    return [
        uncommitted_reads(ATTEMPTS, seen),
        lost_commits(ATTEMPTS, seen),
        torn(seen),
        twice(ATTEMPTS, seen),
        never_done(range(3), ATTEMPTS, seen),
    ]


def test_a_good_history_has_no_faults() -> None:
    assert faults(GOOD) == [[], [], [], [], []]


def test_an_aborted_or_unfinished_transaction_that_is_seen_is_found() -> None:
    for name in "bd":
        seen = {topic: [*names, name] for topic, names in GOOD.items()}
        assert uncommitted_reads(ATTEMPTS, seen) == [name]


def test_a_commit_that_is_missing_is_found() -> None:
    assert lost_commits(ATTEMPTS, {"x": ["c", "e"], "y": ["c", "e"]}) == ["a"]


def test_a_commit_without_an_answer_may_be_there_or_not_but_whole() -> None:
    gone = {"x": ["a", "e"], "y": ["a", "e"]}
    assert not lost_commits(ATTEMPTS, gone)
    assert never_done(range(3), ATTEMPTS, gone) == [1]
    assert torn({"x": ["a", "c", "e"], "y": ["a", "e"]}) == ["c"]


def test_an_input_that_counts_twice_is_found() -> None:
    both = [*ATTEMPTS, Attempt("f", 0, Wish.COMMIT)]
    assert twice(both, {"x": ["a", "f"], "y": ["a", "f"]}) == [0]
