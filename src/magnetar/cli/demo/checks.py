"""What must hold at the end of the demo, as a table. Pure: what happened in, verdicts out.

Every expectation comes from the file, every finding from what was received. Delivery is at
least once: a message that came again is counted, shown and no fault, but one that never
came, or a result that differs from the file's, is.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from magnetar.cli.demo.readings import Mean, Reading, alerts, hourly_means


class Check(NamedTuple):
    """One line of the table."""

    check: str
    expected: int
    found: int
    ok: bool
    again: int | None = None
    """How many were delivered, or are stored, more than once; None: does not apply."""
    detail: str = ""


class Received(NamedTuple):
    """What one purpose of the topic got."""

    distinct: int
    again: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What happened."""

    acknowledged: int
    """Readings that the broker acknowledged to the publisher."""
    means_received: Received
    alerts_received: Received
    work_received: Received
    work_by_worker: Mapping[str, int]
    replayed: Sequence[Reading]
    """What the late-comer read, in the order in which it came."""
    means: Sequence[Mean]
    """What lies in the topic of means at the end."""
    alerts: Sequence[Reading]
    """What lies in the topic of alerts at the end."""
    backlog: Mapping[str, int]
    """What each subscription has left."""
    deduplication: bool
    """Whether the broker was asked to store what is sent twice only once."""


def checks(readings: Sequence[Reading], outcome: Outcome) -> list[Check]:
    """Return the table."""
    total = len(readings)

    def received(what: str, by: Received, detail: str = "") -> Check:
        return Check(what, total, by.distinct, by.distinct == total, by.again, detail)

    shares = outcome.work_by_worker.values()
    workers = f"{min(shares):,} to {max(shares):,} each"
    return [
        Check(
            "acknowledged to the publisher",
            total,
            outcome.acknowledged,
            outcome.acknowledged == total,
        ),
        received("received by the hourly means", outcome.means_received),
        received("received by the alerts", outcome.alerts_received),
        received("worked on by the queue", outcome.work_received, workers),
        _replay(readings, outcome),
        _results("hourly means as in the file", hourly_means(readings), outcome.means, "hour_ms"),
        _results("alerts as in the file", alerts(readings), outcome.alerts, "number"),
        Check(
            "left in the backlogs",
            0,
            sum(outcome.backlog.values()),
            len(outcome.backlog) == 3 and not any(outcome.backlog.values()),
        ),
    ]


def _replay(readings: Sequence[Reading], outcome: Outcome) -> Check:
    """Judge the late-comer: every reading, unchanged, in order of first appearance."""
    first_seen = list({each.number: each for each in outcome.replayed}.values())
    again = len(outcome.replayed) - len(first_seen)
    same = sum(map(Reading.__eq__, first_seen, readings))
    in_order = same == len(readings) == len(first_seen)
    return Check(
        "replayed by the late-comer",
        len(readings),
        same,
        in_order and not (again and outcome.deduplication),
        again,
        "" if outcome.deduplication else "deduplication off",
    )


def _results(
    what: str, expected: Mapping[int, Mean | Reading], found: Iterable[Mean | Reading], key: str
) -> Check:
    """Judge a topic of results: each of them there, none of them different, none invented."""
    every = list(found)
    by_key = {getattr(each, key): each for each in every}
    same = sum(by_key.get(number) == each for number, each in expected.items())
    wrong = sum(expected.get(getattr(each, key)) != each for each in every)
    detail = f"{wrong:,} differ" if wrong else ""
    ok = same == len(expected) and not wrong
    return Check(what, len(expected), same, ok, len(every) - len(by_key), detail)
