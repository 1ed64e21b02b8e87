"""Tables, and the boundary at which errors become one line."""

from typing import Any

import click
import pytest

from magnetar.cli.errors import CommandError
from magnetar.cli.verb import Asked, LocalVerb, pass_asked, table


def test_a_table_aligns_numbers_to_the_right_and_text_to_the_left() -> None:
    rows = [{"name": "a", "backlog": 5}, {"name": "long", "backlog": 12_345}]
    assert table(rows, ("name", "backlog")) == ("name  backlog\na           5\nlong   12,345\n")


def test_no_rows_are_no_table_and_missing_cells_a_dash() -> None:
    assert table([], ("a",)) == ""
    assert table([{"a": None, "b": True}], ("a", "b")).splitlines()[1].split() == ["-", "True"]


@click.command(cls=LocalVerb)
@pass_asked
def defect(asked: Asked) -> None:
    """Go wrong."""
    raise ZeroDivisionError("oops")


def test_a_defect_is_one_line_unless_a_traceback_is_asked_for() -> None:
    with pytest.raises(CommandError, match="unexpected ZeroDivisionError: oops"):
        defect.main([], standalone_mode=False)
    with pytest.raises(ZeroDivisionError):
        defect.main(["--debug"], standalone_mode=False)


def test_what_a_function_returns_is_what_the_command_returns() -> None:
    @click.command(cls=LocalVerb)
    @pass_asked
    def seven(asked: Asked) -> int:
        return 7

    result: Any = seven.main([], standalone_mode=False)
    assert result == 7
