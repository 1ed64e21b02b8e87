"""Times, positions and properties as people type them."""

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from magnetar.broker.config import BrokerConfig
from magnetar.cli.values import (
    SETTING_MAX,
    TIME_MS_MAX,
    Position,
    age,
    key_value,
    parse_position,
    parse_property,
    parse_seconds,
    parse_time,
    position,
    rate,
    start,
    target,
    time,
    time_text,
)

NOW_MS = 1_769_860_800_000  # 2026-01-31T12:00:00Z


@pytest.mark.parametrize(
    ("text", "expected_ms"),
    [
        ("2026-01-31T12:00:00Z", NOW_MS),
        ("2026-01-31 12:00", NOW_MS),
        ("2026-01-31T13:00:00+01:00", NOW_MS),
        ("2026-01-31", NOW_MS - 12 * 3_600_000),
        (str(NOW_MS), NOW_MS),
        ("15m", NOW_MS - 900_000),
        ("1.5h ago", NOW_MS - 5_400_000),
        ("250 ms", NOW_MS - 250),
    ],
)
def test_a_time_may_be_written_in_several_ways(text: str, expected_ms: int) -> None:
    assert parse_time(text, NOW_MS) == expected_ms


@given(st.integers(0, 4_000_000_000_000))
def test_a_time_that_was_printed_is_read_back(ms: int) -> None:
    assert parse_time(time_text(ms), NOW_MS) == ms


@pytest.mark.parametrize("text", ["", "soon", "15", "2026-13-01", "m", "-5m"])
def test_what_is_no_time_is_refused_unless_it_is_a_number(text: str) -> None:
    if text.isdecimal():
        assert parse_time(text, NOW_MS) == int(text)
    else:
        with pytest.raises(ValueError, match="is no time, expected 2026"):
            parse_time(text, NOW_MS)


def test_a_position_is_an_end_or_an_entry() -> None:
    assert parse_position("earliest") == "earliest"
    assert parse_position("12:340") == Position(12, 340)
    assert parse_position("12:340:-1:7") == Position(12, 340)  # a message within a batch
    for text in ("12", "12:", "a:b", "-1:-1", "1:2:", "1:2:3:4:5"):
        with pytest.raises(ValueError, match="expected earliest, latest or ledger:entry"):
            parse_position(text)


def test_a_property_may_hold_more_equal_signs_but_needs_a_key() -> None:
    assert parse_property("a=b=c") == ("a", "b=c")
    assert parse_property("a=") == ("a", "")
    for text in ("a", "=b"):
        with pytest.raises(ValueError, match="expected key=value"):
            parse_property(text)


def test_an_age_is_in_seconds() -> None:
    assert parse_seconds("90") == parse_seconds("90s") == parse_seconds("1.5m") == 90
    assert parse_seconds("7d") == 604_800
    with pytest.raises(ValueError, match="is no age"):
        parse_seconds("old")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 1), ("1ms", 1), ("0", 0), ("0ms", 0), ("1.1m", 66), ("1001ms", 2)],
)
def test_a_short_age_never_becomes_0_which_means_never(text: str, seconds: int) -> None:
    assert parse_seconds(text) == age(text) == seconds


def test_an_age_has_the_bounds_of_the_setting_of_the_same_meaning() -> None:
    bounds = {name: each.metadata for name, each in BrokerConfig.__dataclass_fields__.items()}
    for name in ("message_ttl_s", "retention_time_min", "retention_size_mib"):
        assert SETTING_MAX in bounds[name].values()
    assert age(str(SETTING_MAX)) == SETTING_MAX
    for text in (str(SETTING_MAX + 1), "99999999d", "9" * 400 + "d"):
        with pytest.raises(click.BadParameter, match="expected at most 2147483648 s"):
            age(text)


@pytest.mark.parametrize("text", ["99999d", "1969-12-31", "0001-01-01", "9" * 400 + "w", "0"])
def test_a_start_before_1970_is_the_very_beginning(text: str) -> None:
    assert start(text) == target(text) == 0


@pytest.mark.parametrize("text", ["9" * 20, str(TIME_MS_MAX + 1), str(2**63)])
def test_a_time_after_the_year_9999_is_refused_with_the_bounds(text: str) -> None:
    for convert in (time, start, target):
        with pytest.raises(
            click.BadParameter, match=r"expected a time .* 9999-12-31T23:59:59.999Z"
        ):
            convert(text)
    assert time(str(TIME_MS_MAX)) == start("9999-12-31T23:59:59.999Z") == TIME_MS_MAX


@pytest.mark.parametrize("text", ["1969-12-31", "99999d"])
def test_what_happened_before_1970_cannot_be_said(text: str) -> None:
    with pytest.raises(click.BadParameter, match=r"expected a time 1970-01-01T.* to 9999"):
        time(text)


@pytest.mark.parametrize("text", ["1e-300", "nan", "inf", "0", "-1", "1e7", "fast"])
def test_a_rate_is_a_number_within_bounds(text: str) -> None:
    assert rate("0.5") == 0.5
    with pytest.raises(click.BadParameter, match=r"expected 0.000001 to 1,000,000 per second"):
        rate(text)


def test_a_start_is_an_end_or_a_time_and_a_target_may_be_an_entry_too() -> None:
    assert start("latest") == "latest"
    assert start("2026-01-31T12:00:00Z") == NOW_MS
    assert target("3:4") == Position(3, 4)
    assert target("earliest") == "earliest"
    assert target("2026-01-31 12:00") == NOW_MS


@pytest.mark.parametrize("ms", [2**64 - 1, 2**63, -(2**63), -1, 0, 253_402_300_800_000])
def test_any_64_bits_are_shown_as_a_time_or_as_the_number(ms: int) -> None:
    text = time_text(ms)
    assert text == f"{ms} ms" or text.endswith("Z")
    assert time_text(2**64 - 1) == "18446744073709551615 ms"


@pytest.mark.parametrize("convert", [start, target, time, position, age, rate, key_value])
def test_on_the_command_line_nonsense_is_a_usage_error_with_the_reason(convert: object) -> None:
    assert callable(convert)
    with pytest.raises(click.BadParameter, match="expected"):
        convert("?")
