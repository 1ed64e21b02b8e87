"""What all doors have in common is tested on both loops that a broker may run on."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import uvloop

from tests.access.conftest import Guard, guarding


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Leave the folders below to themselves; they say for which loops they are."""
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if item.path.parent.name == "doors":
        loops["uvloop"] = uvloop.new_event_loop
    return loops


@pytest.fixture
async def guard() -> AsyncIterator[Guard]:
    """Who may do what, for doors where people have to log in."""
    async with guarding() as guard:
        yield guard
