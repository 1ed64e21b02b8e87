"""The reference page of admin REST is the table of routes."""

from pathlib import Path

from magnetar.broker.doors.admin.app import TABLE
from tests.tidy.rest_page import page

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "rest.md"


def test_the_page_of_admin_rest_is_up_to_date() -> None:
    told = "python tests/tidy/rest_page.py > docs/reference/rest.md"
    assert PAGE.read_text() == page(), f"write it anew: {told}"


def test_the_page_has_a_row_for_every_route() -> None:
    rows = PAGE.read_text()
    assert [
        route.template
        for route in TABLE
        if f"| `{route.method} {route.template.removeprefix('/admin/v2')}` |" not in rows
    ] == []
