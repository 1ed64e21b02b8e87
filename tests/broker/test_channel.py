"""What supervisor and worker say to each other arrives whole, or not at all."""

import asyncio
import socket

from magnetar.broker.channel import Channel


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
