"""Topic patterns, checked against Python's own regular expressions."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magnetar.broker.doors.pattern import Pattern, PatternError

EXPLODING_S = 10.0
"""Of CPU. Engines that go back need longer than a life for each of these; ours, milliseconds."""

pieces = st.sampled_from(
    ["a", "b", "-", ".", "[ab]", "[^a]", "[a-c]", r"\d", r"\w", r"\.", r"[\d-]", "^", "$", "{", "}"]
)
repeats = st.sampled_from(["", "", "*", "+", "?", "*?", "{2}", "{1,}", "{0,2}"])
patterns = st.recursive(
    st.builds(str.__add__, pieces, repeats),
    lambda inner: st.one_of(
        st.builds("".join, st.lists(inner, max_size=4)),
        st.builds("({}){}".format, inner, repeats),
        st.builds("(?:{}|{})".format, inner, inner),
    ),
    max_leaves=8,
)


@given(patterns, st.lists(st.text("abc-.1\n{}é", max_size=8), min_size=1, max_size=5))
def test_it_agrees_with_python(text: str, names: list[str]) -> None:
    try:
        python = re.compile(text, re.ASCII)
    except re.error:
        return
    pattern = Pattern(text)
    for name in names:
        # Python's $ also fits before a newline at the end; RE2's and Pulsar's does not.
        if not ("$" in text and "\n" in name):
            assert pattern.fits(name) == bool(python.fullmatch(name)), name


@given(st.text("ab()[]{}*+?|\\^$.-,1:", max_size=20))
def test_any_text_compiles_or_is_refused(text: str) -> None:
    complaint = "at some position"
    try:
        Pattern(text).fits("ab")
    except PatternError as error:
        complaint = str(error)
    assert "position" in complaint


@pytest.mark.parametrize(
    "text",
    [
        "(",
        ")",
        "[",
        "[a",
        "a**",
        "*a",
        "\\",
        "a{2,1}",
        "(?=a)",
        r"(a)\1",
        r"\b",
        "[b-a]",
        "(?P<n>a)",
    ],
)
def test_what_is_no_pattern_is_refused(text: str) -> None:
    with pytest.raises(PatternError):
        Pattern(text)


@pytest.mark.parametrize(
    "text", ["a" * 1025, "(" * 60 + ")" * 60, "((a{99}){99}){99}", "a{99999}", "a{999999999}"]
)
def test_what_is_too_large_is_refused(text: str) -> None:
    with pytest.raises(PatternError):
        Pattern(text)


@pytest.mark.parametrize("text", ["(a+)+$", "(a|a)*b", "(.*)*(.*)*(.*)*x", "(a?){200}a{200}"])
def test_patterns_that_explode_elsewhere_come_to_an_end_here(text: str) -> None:
    began_s = time.process_time()
    for length in range(100, 400, 100):
        assert not Pattern(text).fits("a" * length + "!")
    assert time.process_time() - began_s < EXPLODING_S


def test_what_is_remembered_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("magnetar.broker.doors.pattern.REMEMBERED_MAX", 10)
    pattern = Pattern(".*[a-f].*")
    for number in range(2_000):
        assert pattern.fits(f"x{chr(200 + number)}f")
        assert not pattern.fits(f"x{chr(200 + number)}g")
        assert len(pattern._known) <= 12
