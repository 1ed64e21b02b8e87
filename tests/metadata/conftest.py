"""Both stores, for every test that asks for one: they must not differ."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from magnetar.broker.files import DiskFiles
from magnetar.broker.metadata.memory import MemoryStore
from magnetar.broker.metadata.sqlite import SqliteStore
from magnetar.broker.metadata.store import Store


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    opened: Store
    if request.param == "memory":
        opened = MemoryStore()
    else:
        opened = await SqliteStore.open(tmp_path / "metadata.sqlite", DiskFiles())
    yield opened
    await opened.close()
