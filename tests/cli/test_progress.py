"""Progress bars appear only where a person looks."""

import sys

import pytest

from magnetar.cli import progress as module
from magnetar.cli.progress import progress


def test_without_a_terminal_nothing_is_drawn(capfd: pytest.CaptureFixture[str]) -> None:
    with progress("working", 3) as meter:
        meter.advance(3)
        meter.reach(3, 3)
    assert capfd.readouterr() == ("", "")


def test_a_quiet_command_draws_nothing_on_a_terminal_either(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "is_watched", lambda: True)
    with progress("working", 3, quiet=True) as meter:
        meter.advance(3)
        meter.reach(3, 3)
    assert capfd.readouterr() == ("", "")


def test_on_a_terminal_the_bar_goes_to_standard_error(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "is_watched", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress("working", 3) as meter:
        meter.advance(3)
        meter.reach(3, 3)
    sys.stderr.flush()
    out, err = capfd.readouterr()
    assert out == ""
    assert "working" in err
