"""Tests of what puts bytes together run twice: on plain Python, and on the compiled kernel."""

import os
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType

import pytest

from magnetar.broker.storage import journal, ledgers, pages, record, segment

KERNEL = "magnetar.broker.storage._journal"
DOUBLED = ("test_segment", "test_ledgers", "test_journal", "test_recovery_from_a_trace")


@pytest.fixture(scope="session")
def kernel() -> ModuleType:
    """The compiled kernel. Where it was not built, the tests that ask for it are skipped."""
    if os.environ.get("MAGNETAR_KERNELS") == "required":
        return import_module(KERNEL)
    found: ModuleType = pytest.importorskip(KERNEL, reason="`make kernels` builds it")
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.module.__name__.rpartition(".")[2] in DOUBLED:
        metafunc.parametrize("implementation", ["plain", "compiled"], indirect=True, scope="module")


@pytest.fixture(scope="module", autouse=True)
def implementation(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """Let the storage use one implementation; without a parameter, the one that it chose itself."""
    which: str | None = getattr(request, "param", None)
    if which is None:
        yield which
        return
    kernel = request.getfixturevalue("kernel") if which == "compiled" else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledgers, "lay", kernel.lay if kernel else record.lay)
        patch.setattr(journal, "finish", kernel.finish if kernel else record.finish)
        patch.setattr(segment, "Pages", kernel.Pages if kernel else pages.Pages)
        yield which
