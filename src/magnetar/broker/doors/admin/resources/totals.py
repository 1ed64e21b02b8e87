"""The statistics of a partitioned topic: those of its partitions, added up.

    counters, rates, sizes    added
    times                     the latest; of creation and of the oldest message, the earliest
    averages                  weighted by what they average over; whole numbers stay whole
    words                     the first
    subscriptions             by name, producers and consumers by name too

Pure. The shapes are Pulsar's, and fields we do not know follow the rules above by their kind.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Stats = Mapping[str, Any]

_EARLIEST = frozenset({"topicCreationTimeStamp", "earliestMsgPublishTimeInBacklog"})
_LATEST_ENDINGS = ("TimeStamp", "Timestamp")
_KEPT = frozenset({"partition", "producerId", "lastOffloadLedgerId", "topicEpoch"})
"""Numbers that name something and cannot be added."""
_AVERAGES = {"averageMsgSize": "msgInCounter", "avgMessagesPerEntry": "msgOutCounter"}
_NAMED_LISTS = {"publishers": "producerName", "consumers": "consumerName"}
_NAMED_MAPS = frozenset({"subscriptions", "replication"})


def total(parts: Sequence[Stats]) -> dict[str, Any]:
    """Return the sum of statistics; of none, nothing."""
    keys = dict.fromkeys(key for part in parts for key in part)
    return {key: _total_of(key, [part for part in parts if key in part]) for key in keys}


def _total_of(key: str, parts: Sequence[Stats]) -> Any:
    values = [part[key] for part in parts]
    first = values[0]
    if key in _NAMED_LISTS:
        groups = _by_name((each for value in values for each in value), _NAMED_LISTS[key])
        return [total(group) for group in groups.values()]
    if key in _NAMED_MAPS:
        names = dict.fromkeys(name for value in values for name in value)
        return {name: total([v[name] for v in values if name in v]) for name in names}
    if isinstance(first, Mapping):
        return total(values) if all(isinstance(value, Mapping) for value in values) else first
    if isinstance(first, bool):
        return any(values)
    if not isinstance(first, int | float) or key in _KEPT:
        return first
    return _number(key, parts, values)


def _number(key: str, parts: Sequence[Stats], values: Sequence[float]) -> float:
    if key in _EARLIEST:
        return min((value for value in values if value > 0), default=0)
    if key.endswith(_LATEST_ENDINGS):
        return max(values)
    if key in _AVERAGES:
        weights: list[float] = [part.get(_AVERAGES[key], 0) for part in parts]
        weight = sum(weights)
        if not weight:
            return max(values)
        average = sum(value * each for value, each in zip(values, weights, strict=True)) / weight
        # Clients read some of them into an integer, which takes no 1.0.
        return average if any(isinstance(value, float) for value in values) else round(average)
    return sum(values)


def _by_name(items: Iterable[Stats], field: str) -> dict[object, list[Stats]]:
    groups: dict[object, list[Stats]] = {}
    for index, item in enumerate(items):
        groups.setdefault(item.get(field) or index, []).append(item)
    return groups
