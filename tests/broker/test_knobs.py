"""The table of knobs: bounded, in step with the settings, and nothing in it touches a promise."""

from dataclasses import fields
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from magnetar.broker.config import LIVE, MIB, BrokerConfig
from magnetar.broker.knobs import ABSENT, ELSEWHERE, KNOBS, conflicts
from tests.tidy.knobs_page import PAGE, page

DEFAULTS: dict[str, Any] = {
    each.name: each.default for each in fields(BrokerConfig) if each.metadata.get("live")
}


def test_every_knob_is_a_live_setting_and_within_its_bounds() -> None:
    for name, knob in KNOBS.items():
        assert LIVE[name]["low"] <= knob.low < knob.high <= LIVE[name]["high"], name
        assert knob.low <= DEFAULTS[name] <= knob.high, name
        assert knob.unit, name
        assert knob.effect, name
        assert knob.interval_s >= 1, name


def test_no_name_means_two_things() -> None:
    others = [each.name for each in ELSEWHERE]
    aliases = [metadata["pulsar"] for metadata in LIVE.values() if metadata["pulsar"]]
    names = [*LIVE, *aliases, *others, *ABSENT]
    assert len(names) == len(set(names))


def test_no_knob_has_to_do_with_what_is_promised() -> None:
    promised = (
        "sync_",
        "fsync",
        "retention",
        "message_ttl",
        "deduplication",
        "schema",
        "auth",
        "quota",
    )
    assert not [name for name in KNOBS if any(word in name for word in promised)]


@given(st.sampled_from(sorted(KNOBS)), st.floats(0, 1), st.floats(0, 1))
def test_from_anywhere_to_anywhere_in_allowed_steps(name: str, start: float, end: float) -> None:
    knob = KNOBS[name]
    at, goal = (knob.low + part * (knob.high - knob.low) for part in (start, end))
    steps = 0
    while at != goal:
        up = max(at + knob.add, at * knob.up)
        down = min(at - knob.add, at / knob.down)
        after = min(max(goal, down), up)
        assert knob.allows(at, after)
        assert not knob.allows(at, max(at * knob.up, at + knob.add) * 1.01)
        at, steps = after, steps + 1
        assert steps < 100


def test_what_contradicts_itself_is_said_with_what_to_do() -> None:
    assert conflicts(DEFAULTS, 0, 1) == []
    assert conflicts(DEFAULTS, 2048 * MIB, 2) == []
    for values, memory, words in (
        ({"journal_window_bytes": 4 * MIB, "write_cache_bytes_max": 8 * MIB}, 0, "at least"),
        ({"write_cache_bytes_max": 600 * MIB}, 2048 * MIB, "set 536870912 at most"),
        ({"read_cache_bytes_max": 900 * MIB}, 2048 * MIB, "more than 40%"),
        ({"disk_used_percent_warn": 96}, 0, "lower the former"),
    ):
        [found] = conflicts(DEFAULTS | values, memory, 1)
        assert words in found.advice
        assert set(values) & set(found.names)


def test_bounds_follow_the_memory_of_the_machine() -> None:
    knob = KNOBS["write_cache_bytes_max"]
    assert knob.high_on(0) == knob.high
    assert knob.high_on(1024 * MIB) == 256 * MIB
    assert knob.high_on(1) == knob.low


def test_the_page_about_knobs_is_what_the_table_says() -> None:
    text = PAGE.read_text()
    assert page(text) == text, "run: python tests/tidy/knobs_page.py"
