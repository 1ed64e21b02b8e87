"""Failures by source: few are remembered for long, and never too many."""

import pytest

from magnetar.broker.access.attempts import (
    FAILURES_PER_MINUTE_MAX,
    SOURCES_MAX,
    Attempts,
    host_of,
)
from magnetar.broker.clock import ManualClock


def test_failures_of_more_than_a_minute_ago_are_forgotten() -> None:
    clock = ManualClock()
    attempts = Attempts(clock)
    for _ in range(FAILURES_PER_MINUTE_MAX):
        attempts.failed("a:1")
        clock.advance(10)
    assert attempts.delay_s("a:2") == 0, "no more than seven were within a minute"


def test_the_number_of_sources_is_bounded() -> None:
    attempts = Attempts(ManualClock())
    for number in range(SOURCES_MAX + 100):
        attempts.failed(f"host-{number}:1")
    assert len(attempts._failures) == SOURCES_MAX
    assert attempts.delay_s("host-0:1") == 0


async def test_nobody_waits_who_has_not_failed() -> None:
    await Attempts(ManualClock()).wait("a:1")


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("192.0.2.1:5", "192.0.2.1"),
        ("::ffff:192.0.2.1:5", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6:700", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9:701", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::9:701", "2001:db8:1:3::/64"),
        ("fe80::1%eth0:700", "fe80::/64"),
        ("::1:700", "::1"),
        ("a process of this machine", "a process of this machine"),
        ("", ""),
    ],
)
def test_one_host_counts_once_however_many_addresses_it_has(address: str, host: str) -> None:
    assert host_of(address) == host
