"""A registry on both kinds of stores."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from magnetar.broker.files import DiskFiles
from magnetar.broker.metadata.memory import MemoryStore
from magnetar.broker.metadata.namespaces import Namespaces
from magnetar.broker.metadata.sqlite import SqliteStore
from magnetar.broker.metadata.store import Store
from magnetar.broker.metadata.tenants import Tenant, Tenants
from magnetar.names import NamespaceName


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    opened: Store
    if request.param == "memory":
        opened = MemoryStore()
    else:
        opened = await SqliteStore.open(tmp_path / "metadata.sqlite", DiskFiles())
    await Tenants(opened).create("t", Tenant())
    await Namespaces(opened).create(NamespaceName("t", "n"))
    yield opened
    await opened.close()
