"""What became of transactions, and what must never have become of them.

    attempt     one transaction: reads one input, writes one output to each of several topics
    wish        what its client asked for: nothing, commit, abort
    answered    whether the broker said that it was done

    seen        per output topic, what a reader from the start is given

A checker of its own, so that no claim about transactions stands without one.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto


class Wish(Enum):
    """What a client asked for last."""

    NOTHING = auto()
    COMMIT = auto()
    ABORT = auto()


@dataclass
class Attempt:
    """One transaction as its client knows it."""

    name: str
    """What it wrote, unique."""
    number: int
    """The input that it read."""
    wish: Wish = Wish.NOTHING
    answered: bool = False


Seen = Mapping[str, Sequence[str]]


def uncommitted_reads(attempts: Collection[Attempt], seen: Seen) -> list[str]:
    """Return what somebody was given although its commit was never asked for."""
    never = {each.name for each in attempts if each.wish is not Wish.COMMIT}
    return sorted({name for names in seen.values() for name in names if name in never})


def lost_commits(attempts: Collection[Attempt], seen: Seen) -> list[str]:
    """Return what was committed, as the broker has said, and is missing from some topic."""
    sure = {each.name for each in attempts if each.wish is Wish.COMMIT and each.answered}
    return sorted({name for names in seen.values() for name in sure - set(names)})


def torn(seen: Seen) -> list[str]:
    """Return what is in some of the topics and not in others."""
    every: list[set[str]] = [set(names) for names in seen.values()]
    return sorted(set[str]().union(*every) - every[0].intersection(*every))


def twice(attempts: Collection[Attempt], seen: Seen) -> list[int]:
    """Return the inputs that were turned into more than one output, in any topic."""
    number_of = {each.name: each.number for each in attempts}
    found: set[int] = set()
    for names in seen.values():
        counts = Counter(number_of[name] for name in names)
        found |= {number for number, times in counts.items() if times > 1}
    return sorted(found)


def never_done(inputs: Collection[int], attempts: Collection[Attempt], seen: Seen) -> list[int]:
    """Return the inputs that were turned into no output, in some topic."""
    number_of = {each.name: each.number for each in attempts}
    return sorted(
        {
            number
            for names in seen.values()
            for number in set(inputs) - {number_of[name] for name in names}
        }
    )
