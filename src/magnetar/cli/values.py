"""Values on the command line: times, positions, properties. Text in, value out; pure.

    time       2026-01-31T12:00:00Z   2026-01-31 12:00   15m (ago)   1769860800000 (ms since 1970)
    start      earliest | latest | a time
    position   earliest | latest | ledger:entry, or a whole message id as it is printed
    property   key=value

A time without a zone is UTC. A start before 1970 means everything. What is out of bounds is
refused here, before anything was asked of a broker.
"""

import json
import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple, TypeVar

import click

from magnetar.names import check_subscription

_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)(?:\s+ago)?")
_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_WORD = re.compile(r"[A-Za-z][A-Za-z_]*")
_POSITION = re.compile(r"(\d{1,19}):(\d{1,19})(?::-?\d{1,9}){0,2}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Value = TypeVar("Value")
TIME_MS_MAX = 253_402_300_799_999
"""The last millisecond of the year 9999."""
FAR_MS = 2**62
"""Longer ago than anybody means, and still 64 bits."""
SETTING_MAX = 2**31
"""What an age in seconds, and a retention in minutes or MiB, may be at most, as in the settings."""
RATE_MIN, RATE_MAX = 1e-6, 1e6
"""Messages per second: one in twelve days, and more than the client can send."""
TIME_FORMS = "2026-01-31T12:00:00Z, 15m (ago) or milliseconds since 1970"
START_FORMS = f"earliest, latest or a time: {TIME_FORMS}"
TARGET_FORMS = f"earliest, latest, ledger:entry or a time: {TIME_FORMS}"


class Position(NamedTuple):
    """One entry of a topic."""

    ledger: int
    entry: int


def parse_time(text: str, now_ms: int) -> int:
    """Return a time in ms since 1970; less than 0 if it is before. Without a zone it is UTC.

    Raises:
        ValueError: it is no time.
    """
    if text.isdecimal():
        return int(text)
    if ago := _AGO.fullmatch(text.strip()):
        return now_ms - round(min(float(ago[1]) * _UNIT_MS[ago[2]], FAR_MS))
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no time, expected {TIME_FORMS}") from None
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    return round(time.timestamp() * 1000)


def parse_seconds(text: str) -> int:
    """Return an age in seconds: a number, or one with a unit, such as `15m` or `7d`.

    Rounded up: 0 often means something else than a very short time.

    Raises:
        ValueError: it is no age.
    """
    if text.isdecimal():
        return int(text)
    if ago := _AGO.fullmatch(text.strip()):
        return math.ceil(Decimal(ago[1]) * _UNIT_MS[ago[2]] / 1000)
    raise ValueError(f"{text!r} is no age, expected seconds, or a number with ms, s, m, h, d or w")


def parse_position(text: str) -> str | Position:
    """Return `earliest`, `latest` or an entry.

    Raises:
        ValueError: it is neither.
    """
    if text in {"earliest", "latest"}:
        return text
    if match := _POSITION.fullmatch(text):
        return Position(int(match[1]), int(match[2]))
    raise ValueError(f"{text!r} is no position, expected earliest, latest or ledger:entry")


def parse_property(text: str) -> tuple[str, str]:
    """Return the key and the value of `key=value`.

    Raises:
        ValueError: there is no `=`, or nothing before it.
    """
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise ValueError(f"{text!r} is no property, expected key=value")
    return key, value


def time_text(ms: int) -> str:
    """Return a time as ISO 8601 in UTC, to the millisecond; the bare number if that is no time.

    Clients may send any 64 bits as a time.
    """
    try:
        stamp = _EPOCH + timedelta(milliseconds=ms)
    except OverflowError:
        return f"{ms} ms"
    return stamp.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def now_ms() -> int:
    """Return the wall time in ms since 1970."""
    return round(datetime.now(UTC).timestamp() * 1000)  # noqa: TID251 - the command line's clock


# --- click: what the functions above refuse is a usage error ------------------------------


def time(text: str) -> int:
    """Return a time in ms since 1970, and not before."""
    return _bounded(text, _usage(lambda: parse_time(text, now_ms())), first_ms=0)


def start(text: str) -> str | int:
    """Return `earliest`, `latest`, or a time in ms since 1970."""
    return text if text in {"earliest", "latest"} else _time_or(text, START_FORMS)


def position(text: str) -> str | Position:
    """Return `earliest`, `latest` or an entry."""
    return _usage(lambda: parse_position(text))


def target(text: str) -> str | Position | int:
    """Return `earliest`, `latest`, an entry, or a time in ms since 1970."""
    known = text in {"earliest", "latest"} or _POSITION.fullmatch(text)
    return position(text) if known else _time_or(text, TARGET_FORMS)


def subscription(text: str) -> str:
    """Return the name of a subscription."""
    return _usage(lambda: check_subscription(text))


def age(text: str) -> int:
    """Return an age in seconds."""
    seconds = _usage(lambda: parse_seconds(text))
    if seconds > SETTING_MAX:
        raise click.BadParameter(f"{text!r} is out of bounds, expected at most {SETTING_MAX} s")
    return seconds


def rate(text: str) -> float:
    """Return a number per second."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not RATE_MIN <= number <= RATE_MAX:
        bounds = f"{RATE_MIN:f} to {RATE_MAX:,.0f}"
        raise click.BadParameter(f"{text!r} is no rate, expected {bounds} per second")
    return number


def key_value(text: str) -> tuple[str, str]:
    """Return the key and the value of `key=value`."""
    return _usage(lambda: parse_property(text))


def json_value(text: str) -> Any:
    """Return what a JSON text says. One word is a text, with its quotes or without."""
    try:
        return json.loads(text)
    except ValueError:
        if _WORD.fullmatch(text):
            return text
        raise click.BadParameter(f"{text!r} is not JSON; a text needs quotes of its own") from None


def _time_or(text: str, forms: str) -> int:
    """Return a time to start at; `forms` says what else would have been possible."""
    try:
        ms = parse_time(text, now_ms())
    except ValueError:
        raise click.BadParameter(f"{text!r} is nothing of that, expected {forms}") from None
    return max(0, _bounded(text, ms, first_ms=None))


def _bounded(text: str, ms: int, *, first_ms: int | None) -> int:
    """Return the time if it is not after the year 9999, and not before `first_ms`."""
    if ms > TIME_MS_MAX or (first_ms is not None and ms < first_ms):
        first = "up" if first_ms is None else f"{time_text(first_ms)}"
        raise click.BadParameter(
            f"{text!r} is out of bounds, expected a time {first} to {time_text(TIME_MS_MAX)}"
        )
    return ms


def _usage(parse: Callable[[], Value]) -> Value:
    try:
        return parse()
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
