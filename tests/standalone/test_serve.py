"""The supervisor itself, apart from the command line that starts it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from magnetar.standalone.options import AddressError, StandaloneOptions
from magnetar.standalone.serve import run


@contextmanager
def bare_logging() -> Iterator[logging.Logger]:
    """Give logging as a new process finds it, without what the test runner put there."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    root.handlers = []
    try:
        yield root
    finally:
        root.handlers = handlers
        root.setLevel(level)


def test_the_supervisor_writes_a_warning_once_a_minute(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with bare_logging() as root:
        with pytest.raises(AddressError):
            run(
                StandaloneOptions(
                    data=tmp_path, listen="192.0.2.1", settings={"authentication": ""}
                ),
                say=pytest.fail,
            )
        for _ in range(100):
            root.warning("socket.send() raised exception.")
            root.info("told as often as it happens")
    lines = capsys.readouterr().err.splitlines()
    assert sum("WARNING root: socket.send() raised" in line for line in lines) == 1
    assert sum("INFO root: told as often" in line for line in lines) == 100
    assert not any(tmp_path.iterdir())
