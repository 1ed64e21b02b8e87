"""A whole core for the tests of topics."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.topics.whole_core import Core


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    """A whole core on a folder of its own. Modules that want another one say so."""
    core = await Core(tmp_path / "data").start()
    yield core
    await core.stop()
