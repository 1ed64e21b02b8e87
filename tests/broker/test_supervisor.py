"""The supervisor replaces what dies, in time and not for ever."""

from magnetar.broker.supervisor import (
    RESTART_DELAY_FIRST_S,
    RESTART_DELAY_MAX_S,
    RESTARTS_PER_MINUTE_MAX,
    restart_delay_s,
)


def test_the_first_restart_is_quick_and_later_ones_wait_longer() -> None:
    delays = [restart_delay_s(deaths) for deaths in range(1, RESTARTS_PER_MINUTE_MAX + 1)]
    assert delays[:2] == [0.0, RESTART_DELAY_FIRST_S]
    assert delays == sorted(delays, key=lambda delay: delay or 0)
    assert delays[-1] == RESTART_DELAY_MAX_S


def test_a_worker_that_keeps_dying_is_given_up() -> None:
    assert restart_delay_s(RESTARTS_PER_MINUTE_MAX + 1) is None
