"""What the demo shows while it runs: bars and colours on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal

from magnetar.cli.demo.checks import Check
from magnetar.cli.errors import write_out
from magnetar.cli.verb import table

COLUMNS = ("check", "expected", "found", "again", "ok", "detail")


class Screen:
    """Plain lines. Also what the others are made from."""

    def phase(self, text: str) -> None:
        """Say what happens now."""
        write_out(text)

    def counts(self, done: Mapping[str, int], total: int) -> None:
        """Show how far everybody is."""

    def verdict(self, checks: Sequence[Check]) -> None:
        """Show the table."""
        write_out("")
        rows = [
            {**each._asdict(), "ok": "ok" if each.ok else "WRONG", "detail": each.detail}
            for each in checks
        ]
        write_out(table(rows, COLUMNS), newline=False)

    def close(self) -> None:
        """Take down what moves."""


class Silent(Screen):
    """A program reads: it gets the result and nothing else."""

    def phase(self, text: str) -> None:
        """Say nothing."""

    def verdict(self, checks: Sequence[Check]) -> None:
        """Say nothing."""


class Terminal(Screen):
    """Bars that move, and a table with colours."""

    def __init__(self) -> None:
        # Imported here: most commands never draw, and rich takes long to load.
        from rich.console import Console  # noqa: PLC0415
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn  # noqa: PLC0415

        self._console = Console()
        self._bars = Progress(
            TextColumn("  {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            console=self._console,
        )
        self._tasks: dict[str, Any] = {}
        self._bars.start()

    def phase(self, text: str) -> None:
        self._console.print(text, highlight=False)

    def counts(self, done: Mapping[str, int], total: int) -> None:
        for name, count in done.items():
            if name not in self._tasks:
                self._tasks[name] = self._bars.add_task(name, total=total)
            self._bars.update(self._tasks[name], completed=count)

    def verdict(self, checks: Sequence[Check]) -> None:
        from rich.box import SIMPLE_HEAD  # noqa: PLC0415
        from rich.table import Table  # noqa: PLC0415

        self.close()
        shown = Table(box=SIMPLE_HEAD, pad_edge=False)
        for column in COLUMNS:
            numeric = column in {"expected", "found", "again"}
            side: Literal["left", "right"] = "right" if numeric else "left"
            shown.add_column(column, justify=side, no_wrap=column != "detail")
        for each in checks:
            verdict = "[green]ok[/]" if each.ok else "[bold red]WRONG[/]"
            again = "" if each.again is None else f"{each.again:,}"
            shown.add_row(
                each.check, f"{each.expected:,}", f"{each.found:,}", again, verdict, each.detail
            )
        self._console.print(shown)

    def close(self) -> None:
        with suppress(Exception):  # what is drawn must not hide what went wrong
            self._bars.stop()


def screen_for(*, json: bool) -> Screen:
    """Return the screen that fits whoever looks."""
    if json:
        return Silent()
    return Terminal() if sys.stdout.isatty() else Screen()
