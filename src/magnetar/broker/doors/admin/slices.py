"""Long answers in slices, so that none of them holds the event loop.

["persistent://a/b/c", ...]     SLICE items encoded per turn of the loop
"""

import asyncio
from collections.abc import AsyncIterator, Sequence

import msgspec
from starlette.responses import Response, StreamingResponse

SLICE = 2_000
"""Names encoded at once: about half a millisecond."""


async def listed(items: Sequence[str]) -> Response:
    """Return a JSON list of any length."""
    if len(items) <= SLICE:
        return Response(msgspec.json.encode(list(items)), media_type="application/json")
    return StreamingResponse(_json_list(items), media_type="application/json")


async def _json_list(items: Sequence[str]) -> AsyncIterator[bytes]:
    opening = b"["
    for start in range(0, len(items), SLICE):
        yield opening + msgspec.json.encode(items[start : start + SLICE])[1:-1]
        opening = b","
        await asyncio.sleep(0)
    yield b"]"


class Breather:
    """Gives the event loop a turn after every `every` steps of a loop that must not hold it."""

    def __init__(self, every: int) -> None:
        self._every = every
        self._steps = 0

    async def step(self) -> None:
        self._steps += 1
        if self._steps % self._every == 0:
            await asyncio.sleep(0)
