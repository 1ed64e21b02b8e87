"""The strategies: which data must be readable by whom before a new schema is taken. Pure.

    BACKWARD   the new schema reads what the old one wrote       consumers are updated first
    FORWARD    the old schema reads what the new one writes      producers are updated first
    FULL       both
    ..._TRANSITIVE   that holds for every version, not only for the latest

A consumer's schema is asked something else: can it read what is in the topic? So under BACKWARD,
FORWARD, FORWARD_TRANSITIVE and FULL it must read the latest; under the two others that look at all
versions, they hold for it as for a new schema. As Pulsar decides it.
"""

from enum import Enum
from typing import NamedTuple


class Strategy(Enum):
    """How a new schema must go with those before it. Names are Pulsar's."""

    UNDEFINED = "UNDEFINED"
    """As the next level says: the namespace, the broker."""
    ALWAYS_INCOMPATIBLE = "ALWAYS_INCOMPATIBLE"
    ALWAYS_COMPATIBLE = "ALWAYS_COMPATIBLE"
    BACKWARD = "BACKWARD"
    FORWARD = "FORWARD"
    FULL = "FULL"
    BACKWARD_TRANSITIVE = "BACKWARD_TRANSITIVE"
    FORWARD_TRANSITIVE = "FORWARD_TRANSITIVE"
    FULL_TRANSITIVE = "FULL_TRANSITIVE"


LEGACY = {
    "AutoUpdateDisabled": Strategy.ALWAYS_INCOMPATIBLE,
    "Backward": Strategy.BACKWARD,
    "Forward": Strategy.FORWARD,
    "Full": Strategy.FULL,
    "AlwaysCompatible": Strategy.ALWAYS_COMPATIBLE,
    "BackwardTransitive": Strategy.BACKWARD_TRANSITIVE,
    "ForwardTransitive": Strategy.FORWARD_TRANSITIVE,
    "FullTransitive": Strategy.FULL_TRANSITIVE,
}
"""What older tools set, and what it means."""


class Demand(NamedTuple):
    """What has to be shown."""

    reads_old: bool
    """The new schema must read what the old one wrote."""
    read_by_old: bool
    """The old schema must read what the new one writes."""
    all_versions: bool


_BACKWARD, _FORWARD = (
    frozenset({Strategy.BACKWARD, Strategy.BACKWARD_TRANSITIVE}),
    frozenset({Strategy.FORWARD, Strategy.FORWARD_TRANSITIVE}),
)
_TRANSITIVE = frozenset(
    {Strategy.BACKWARD_TRANSITIVE, Strategy.FORWARD_TRANSITIVE, Strategy.FULL_TRANSITIVE}
)
_ONLY_LATEST_FOR_CONSUMERS = frozenset(
    {Strategy.BACKWARD, Strategy.FORWARD, Strategy.FORWARD_TRANSITIVE, Strategy.FULL}
)


def effective(*levels: str | None, legacy: str | None = None) -> Strategy:
    """Return the first strategy that is set and known, the closest level first.

    `legacy` is what the namespace was told in older words; it comes before the broker's own, which
    is the last level. FULL if nothing is set.
    """
    *closer, broker = levels or (None,)
    words = [*closer, LEGACY[legacy].value if legacy in LEGACY else None, broker]
    for each in words:
        if each and each in Strategy.__members__ and each != Strategy.UNDEFINED.value:
            return Strategy[each]
    return Strategy.FULL


def demanded(strategy: Strategy) -> Demand:
    """Return what a strategy demands of a new schema, beside the same type."""
    return Demand(
        reads_old=strategy not in _FORWARD,
        read_by_old=strategy not in _BACKWARD,
        all_versions=strategy in _TRANSITIVE,
    )


def demanded_of_consumer(strategy: Strategy) -> Demand:
    """Return what a strategy demands of a consumer's schema."""
    if strategy in _ONLY_LATEST_FOR_CONSUMERS:
        return Demand(reads_old=True, read_by_old=False, all_versions=False)
    return demanded(strategy)._replace(all_versions=True)
