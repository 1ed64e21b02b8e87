"""A progress bar on standard error, for work that takes long and only where a person looks.

Without a terminal, or with `--output json`, nothing is drawn and rich is never imported.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[[int], None]
"""Called with how much more is done."""


def is_watched() -> bool:
    """Return whether a person sees standard error."""
    return sys.stderr.isatty()


def _draw_nothing(_: int) -> None:
    """Count for nobody."""


@contextmanager
def progress(what: str, total: int | None, *, quiet: bool = False) -> Iterator[Advance]:
    """Show how far a piece of work is; yields what to call for each step.

    Args:
        what: What is done, such as `publishing`.
        total: How much there is to do; None: not known.
        quiet: Draw nothing, because a program reads or messages are being printed.
    """
    if quiet or not is_watched():
        yield _draw_nothing
        return
    from rich.console import Console  # noqa: PLC0415 - costs more to import than most commands
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bars:
        task = bars.add_task(what, total=total)

        def advance(by: int) -> None:
            bars.advance(task, by)

        yield advance
