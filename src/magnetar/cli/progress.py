"""A progress bar on standard error, for work that takes long and only where a person looks.

Without a terminal, or with `--output json`, nothing is drawn and rich is never imported.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


def is_watched() -> bool:
    """Return whether a person sees standard error."""
    return sys.stderr.isatty()


class Meter:
    """How far a piece of work is. This one draws nothing."""

    def advance(self, by: int) -> None:
        """Count what was done since the last call."""

    def reach(self, done: int, total: int) -> None:
        """Say how much is done, and how much there is."""


class _Bar(Meter):
    """A meter that is drawn."""

    def __init__(self, bars: "Progress", task: "TaskID") -> None:
        self._bars = bars
        self._task = task

    def advance(self, by: int) -> None:
        self._bars.advance(self._task, by)

    def reach(self, done: int, total: int) -> None:
        self._bars.update(self._task, completed=done, total=total)


@contextmanager
def progress(
    what: str, total: int | None = None, *, quiet: bool = False, as_bytes: bool = False
) -> Iterator[Meter]:
    """Show how far a piece of work is.

    Args:
        what: What is done, such as `publishing`.
        total: How much there is to do; None: not known, or not yet.
        quiet: Draw nothing, because a program reads or messages are being printed.
        as_bytes: Count in bytes, not in pieces.
    """
    if quiet or not is_watched():
        yield Meter()
        return
    # Imported here: rich costs more to import than most commands need in all.
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True) if as_bytes else MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bars:
        yield _Bar(bars, bars.add_task(what, total=total))
