"""The readings of the demo: a real machine's temperature, and what follows from it. Pure.

    file      timestamp,value                   2013-12-02 21:15:00,73.96732207
    message   {"number": 0, "time_ms": 1386018900000, "fahrenheit": 73.96732207}
    mean      {"hour_ms": 1386018000000, "readings": 9, "mean": 77.45...}
    alert     {"number": 3731, "time_ms": ..., "fahrenheit": 100.04...}

22,695 readings, one each five minutes, from the Numenta Anomaly Benchmark; its licence lies
beside the file. Numbers count the rows, because a reading has no other name: at one place the
clock of the machine was set back, and twelve times of day come twice.
"""

import csv
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.resources import files
from math import fsum
from typing import Any, NamedTuple

FILE = "machine_temperature_system_failure.csv"
HOUR_MS = 3_600_000
ALERT_ABOVE_F = 100.0
"""Degrees Fahrenheit."""


class Reading(NamedTuple):
    """One temperature."""

    number: int
    time_ms: int
    """When it was measured."""
    fahrenheit: float

    @property
    def hour_ms(self) -> int:
        """The start of the hour it belongs to."""
        return self.time_ms // HOUR_MS * HOUR_MS

    @property
    def alarming(self) -> bool:
        """Whether somebody should be told."""
        return self.fahrenheit > ALERT_ABOVE_F


class Mean(NamedTuple):
    """The mean of one hour."""

    hour_ms: int
    readings: int
    mean: float


def load() -> list[Reading]:
    """Return all readings of the file that comes with the package."""
    text = (files("magnetar") / "demo_data" / FILE).read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines())
    return [
        Reading(number, _time_ms(row["timestamp"]), float(row["value"]))
        for number, row in enumerate(rows)
    ]


def _time_ms(text: str) -> int:
    """Return a time of the file, which names no zone, as if it were UTC."""
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def mean_of(hour_ms: int, temperatures: Iterable[float]) -> Mean:
    """Return the mean of one hour. Exact summation: the order does not matter."""
    values = list(temperatures)
    return Mean(hour_ms, len(values), fsum(values) / len(values))


def hourly_means(readings: Iterable[Reading]) -> dict[int, Mean]:
    """Return the mean of every hour by its start, computed straight from the readings."""
    hours: dict[int, list[float]] = {}
    for each in readings:
        hours.setdefault(each.hour_ms, []).append(each.fahrenheit)
    return {hour_ms: mean_of(hour_ms, values) for hour_ms, values in hours.items()}


def alerts(readings: Iterable[Reading]) -> dict[int, Reading]:
    """Return the readings above the limit by their numbers."""
    return {each.number: each for each in readings if each.alarming}


def encode(record: Reading | Mean) -> bytes:
    """Return a record as the body of a message. Floats keep every bit."""
    return json.dumps(record._asdict()).encode()


def decode_reading(body: bytes) -> Reading:
    """Return the reading in a message."""
    return Reading(**_fields(body))


def decode_mean(body: bytes) -> Mean:
    """Return the mean in a message."""
    return Mean(**_fields(body))


def _fields(body: bytes) -> Mapping[str, Any]:
    fields: Mapping[str, Any] = json.loads(body)
    return fields
