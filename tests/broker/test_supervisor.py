"""The supervisor replaces what dies, in time and not for ever."""

import asyncio
import socket

from magnetar.broker.supervisor import (
    RESTART_DELAY_FIRST_S,
    RESTART_DELAY_MAX_S,
    RESTARTS_PER_MINUTE_MAX,
    Channel,
    restart_delay_s,
)


def test_the_first_restart_is_quick_and_later_ones_wait_longer() -> None:
    delays = [restart_delay_s(deaths) for deaths in range(1, RESTARTS_PER_MINUTE_MAX + 1)]
    assert delays[0] == RESTART_DELAY_FIRST_S
    assert delays == sorted(delays, key=lambda delay: delay or 0)
    assert delays[-1] == RESTART_DELAY_MAX_S


def test_a_worker_that_keeps_dying_is_given_up() -> None:
    assert restart_delay_s(RESTARTS_PER_MINUTE_MAX + 1) is None


async def test_a_channel_carries_messages_both_ways_and_reports_the_end() -> None:
    left, right = socket.socketpair()
    ours, theirs = await asyncio.gather(Channel.over(left), Channel.over(right))
    ours.send({"start": {"worker": 0}})
    theirs.send({"ready": True})
    assert await theirs.receive() == {"start": {"worker": 0}}
    assert await ours.receive() == {"ready": True}
    await theirs.close()
    assert await ours.receive() is None
    ours.send({"stop": True})  # nobody listens: no error
    await ours.close()


async def test_half_a_line_is_no_message() -> None:
    left, right = socket.socketpair()
    ours = await Channel.over(left)
    right.send(b'{"ready"')
    right.close()
    assert await ours.receive() is None
    await ours.close()
