"""Compiled kernels: optional twins of plain modules, which of them this process runs.

    storage/journal.py     plain Python, always there
    storage/_journal.pyx   some of its functions in Cython: an extension, where it could be built

Both do the same, to the byte and the error; the same tests run against both. A module that has
a twin asks `load` for it once, when it is imported, and takes the plain functions if there is
none. `MAGNETAR_PURE=1` asks for plain Python everywhere.
"""

import logging
import os
from importlib import import_module
from types import ModuleType

logger = logging.getLogger(__name__)

PURE = "MAGNETAR_PURE"
"""Environment variable: set to anything but 0, no kernel is used."""

_loaded: dict[str, bool] = {}
"""By the name of the plain module, whether its twin is in use."""


def load(name: str) -> ModuleType | None:
    """Return the extension module of that full name; None: plain Python is to do its work."""
    kernel = None if os.environ.get(PURE, "0") not in {"", "0"} else _import(name)
    _loaded[name.rpartition(".")[2].removeprefix("_")] = kernel is not None
    return kernel


def _import(name: str) -> ModuleType | None:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise  # it is there, and something that it needs is not: a bug
    except ImportError as error:  # built for another machine or another Python
        logger.warning("%s cannot be loaded, plain Python does its work: %s", name, error)
    return None


def described() -> str:
    """Return in words what this process runs, such as `compiled: walker`."""
    parts = (
        (what, sorted(name for name, compiled in _loaded.items() if compiled is wanted))
        for what, wanted in (("compiled", True), ("plain Python", False))
    )
    return "; ".join(f"{what}: {', '.join(names)}" for what, names in parts if names)
