"""Waiting for what must come. The limit ends a test that would wait for ever; it is no promise."""

import asyncio
from collections.abc import Callable

LIMIT_S = 30.0
"""For whatever must come, on a machine that does other things too."""
POLL_S = 0.002


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that happens by itself in this process."""
    async with asyncio.timeout(LIMIT_S):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event for tests
            await asyncio.sleep(POLL_S)
