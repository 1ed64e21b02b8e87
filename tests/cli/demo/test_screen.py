"""What the demo shows."""

import pytest

from magnetar.cli.demo.checks import Check
from magnetar.cli.demo.command import Kill, Told, as_json
from magnetar.cli.demo.screen import Screen, Silent, Terminal, screen_for

CHECKS = [Check("first", 1891, 1891, ok=True, again=3), Check("second", 0, 2, ok=False)]


def test_plain_lines_where_nobody_looks(capfd: pytest.CaptureFixture[str]) -> None:
    screen = screen_for(json=False)
    assert type(screen) is Screen
    screen.phase("1.0 s  started")
    screen.counts({"published": 5}, 10)
    screen.verdict(CHECKS)
    screen.close()
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "1.0 s  started"
    assert lines[2].split() == ["check", "expected", "found", "again", "ok", "detail"]
    assert lines[3].split() == ["first", "1,891", "1,891", "3", "ok"]
    assert lines[4].split() == ["second", "0", "2", "-", "WRONG"]


def test_a_program_gets_the_result_alone(capfd: pytest.CaptureFixture[str]) -> None:
    screen = screen_for(json=True)
    assert isinstance(screen, Silent)
    screen.phase("started")
    screen.verdict(CHECKS)
    assert capfd.readouterr().out == ""
    told = Told(CHECKS, Kill(2, 10, 3, 1.5), 7.0)
    assert as_json(told, None) == {
        "ok": False,
        "seconds": 7.0,
        "folder": None,
        "kill": {"processes": 2, "acknowledged": 10, "in_flight": 3, "ready_again_s": 1.5},
        "checks": [each._asdict() for each in CHECKS],
    }


def test_a_terminal_gets_bars_and_a_table(capfd: pytest.CaptureFixture[str]) -> None:
    screen = Terminal()
    screen.phase("started")
    screen.counts({"published": 5}, 10)
    screen.counts({"published": 10}, 10)
    screen.verdict(CHECKS)
    screen.close()
    out = capfd.readouterr().out
    assert "published" in out
    assert "10/10" in out
    assert "WRONG" in out
