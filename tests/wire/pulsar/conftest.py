"""Tests of the hot commands run twice: on plain Python, and on the compiled kernel."""

import os
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType

import pytest

from magnetar.broker.wire.pulsar import replies, walker
from tests.wire.pulsar import session

HOT = ("walk", "encode_receipts", "encode_messages")
PLAIN = {
    "walk": walker.walk,
    "encode_receipts": replies.encode_receipts,
    "encode_messages": replies.encode_messages,
}
KERNEL = "magnetar.broker.wire.pulsar._walker"


@pytest.fixture(scope="session")
def kernel() -> ModuleType:
    """The compiled kernel. Where it was not built, the tests that ask for it are skipped."""
    if os.environ.get("MAGNETAR_KERNELS") == "required":
        return import_module(KERNEL)
    found: ModuleType = pytest.importorskip(KERNEL, reason="`make kernels` builds it")
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Double the tests of modules that name one of the functions.

    `PLAIN_ONLY` in a module says that it describes how the plain one goes about it.
    """
    if getattr(metafunc.module, "PLAIN_ONLY", False):
        return
    if any(getattr(metafunc.module, name, None) is PLAIN[name] for name in HOT):
        metafunc.parametrize("implementation", ["plain", "compiled"], indirect=True, scope="module")


@pytest.fixture(scope="module", autouse=True)
def implementation(request: pytest.FixtureRequest) -> Iterator[str]:
    """Put the functions of one implementation in the place of those that a module names."""
    which = getattr(request, "param", "plain")
    if which == "plain":
        yield which
        return
    compiled = request.getfixturevalue("kernel")
    with pytest.MonkeyPatch.context() as patch:
        for module in (request.module, session):
            for name in HOT:
                if getattr(module, name, None) is PLAIN[name]:
                    patch.setattr(module, name, getattr(compiled, name))
        yield which
