"""The table of the demo. Each check has its negative control: what it guards is broken."""

from dataclasses import replace
from typing import Any

import pytest

from magnetar.cli.demo.checks import Outcome, Received, checks
from magnetar.cli.demo.readings import Reading, alerts, hourly_means, load

READINGS = load()[3600:4200]
READINGS = [each._replace(number=number) for number, each in enumerate(READINGS)]
TOTAL = len(READINGS)
MEANS = list(hourly_means(READINGS).values())
ALERTS = list(alerts(READINGS).values())

GOOD = Outcome(
    acknowledged=TOTAL,
    means_received=Received(TOTAL, 3),
    alerts_received=Received(TOTAL, 0),
    work_received=Received(TOTAL, 7),
    work_by_worker={"worker 0": TOTAL},
    replayed=READINGS,
    means=MEANS,
    alerts=ALERTS,
    backlog={"hourly-means": 0, "alerts": 0, "work": 0},
    deduplication=True,
)


def wrong(outcome: Outcome) -> list[str]:
    """Return the checks that do not hold."""
    return [each.check for each in checks(READINGS, outcome) if not each.ok]


def test_when_nothing_is_lost_everything_holds_whatever_came_twice() -> None:
    assert ALERTS
    assert wrong(GOOD) == []
    again = {each.check: each.again for each in checks(READINGS, GOOD)}
    assert again["worked on by the queue"] == 7


def warmer(reading: Reading) -> Reading:
    return reading._replace(fahrenheit=reading.fahrenheit + 1e-9)


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ({"acknowledged": TOTAL - 1}, "acknowledged to the publisher"),
        ({"means_received": Received(TOTAL - 1, 9)}, "received by the hourly means"),
        ({"alerts_received": Received(TOTAL - 1, 9)}, "received by the alerts"),
        ({"work_received": Received(TOTAL - 1, 9)}, "worked on by the queue"),
        ({"replayed": READINGS[1:]}, "replayed by the late-comer"),
        ({"replayed": READINGS[:-1]}, "replayed by the late-comer"),
        (
            {"replayed": [READINGS[1], READINGS[0], *READINGS[2:]]},
            "replayed by the late-comer",
        ),
        (
            {"replayed": [warmer(READINGS[0]), *READINGS[1:]]},
            "replayed by the late-comer",
        ),
        (
            {"replayed": [READINGS[0], *READINGS]},
            "replayed by the late-comer",
        ),
        ({"means": MEANS[1:]}, "hourly means as in the file"),
        (
            {"means": [MEANS[0]._replace(mean=0.0), *MEANS[1:]]},
            "hourly means as in the file",
        ),
        (
            {"means": [MEANS[0]._replace(mean=0.0), *MEANS]},
            "hourly means as in the file",
        ),
        ({"alerts": ALERTS[:-1]}, "alerts as in the file"),
        (
            {"alerts": [*ALERTS, READINGS[0]._replace(number=TOTAL)]},
            "alerts as in the file",
        ),
        (
            {"backlog": {"hourly-means": 0, "alerts": 0, "work": 1}},
            "left in the backlogs",
        ),
        ({"backlog": {}}, "left in the backlogs"),
    ],
)
def test_whatever_is_lost_changed_or_invented_is_noticed(
    change: dict[str, Any], check: str
) -> None:
    assert wrong(replace(GOOD, **change)) == [check]


def test_without_deduplication_a_stored_copy_is_shown_but_no_fault() -> None:
    outcome = replace(
        GOOD, replayed=[*READINGS[:9], *READINGS[5:]], means=[*MEANS, *MEANS], deduplication=False
    )
    assert wrong(outcome) == []
    replay = checks(READINGS, outcome)[4]
    assert (replay.again, replay.detail) == (4, "deduplication off")
