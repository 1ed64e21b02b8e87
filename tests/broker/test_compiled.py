"""Compiled kernels: used where they are, done without where they are not."""

import logging
import sys
from pathlib import Path

import pytest

from magnetar.broker import compiled

SOURCES = sorted(Path(compiled.__file__).parent.rglob("_*.pyx"))
BROKEN = "raise ImportError('built for another machine')"


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that modules are imported from, which are forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(compiled, "_loaded", {})
    monkeypatch.delenv(compiled.PURE, raising=False)
    for name in ("_there", "_broken", "_careless"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def test_a_kernel_that_was_not_built_is_done_without(modules: Path) -> None:
    assert compiled.load("magnetar.broker._not_built") is None
    assert compiled.described() == "plain Python: not_built"


def test_a_kernel_that_is_there_is_used_unless_plain_python_is_asked_for(
    modules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (modules / "_there.py").write_text("answer = 42")
    kernel = compiled.load("_there")
    assert kernel is not None
    assert kernel.answer == 42
    assert compiled.described() == "compiled: there"
    monkeypatch.setenv(compiled.PURE, "0")
    assert compiled.load("_there") is kernel
    monkeypatch.setenv(compiled.PURE, "1")
    assert compiled.load("_there") is None
    assert compiled.described() == "plain Python: there"


def test_one_for_another_machine_is_done_without_and_that_is_said(
    modules: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (modules / "_broken.py").write_text(BROKEN)
    with caplog.at_level(logging.WARNING):
        assert compiled.load("_broken") is None
    assert "built for another machine" in caplog.text


def test_what_a_kernel_needs_must_be_there(modules: Path) -> None:
    (modules / "_careless.py").write_text("import there_is_no_such_module")
    with pytest.raises(ModuleNotFoundError, match="there_is_no_such_module"):
        compiled.load("_careless")


def test_no_kernel_in_this_checkout_is_older_than_what_it_is_made_of() -> None:
    """Otherwise everything here would be about code that is not there any more."""
    assert SOURCES
    stale = [
        made.name
        for source in SOURCES
        for made in source.parent.glob(f"{source.stem}.*.so")
        if made.stat().st_mtime < source.stat().st_mtime
    ]
    assert not stale, "make kernels"
