"""What the pages refer to is there: files, and headings within them."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tidy.source import ROOT

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
_OUTSIDE = ("http://", "https://", "mailto:")


def pages(root: Path) -> list[Path]:
    """Return every page that people read."""
    return sorted([*root.glob("*.md"), *(root / "docs").rglob("*.md")])


def anchors(text: str) -> set[str]:
    """Return the names of a page's headings, as they stand behind a `#`."""
    kept = (
        re.sub(r"[^\w\- ]", "", each.lower()) for each in _HEADING.findall(_FENCE.sub("", text))
    )
    return {each.replace(" ", "-") for each in kept}


def broken(root: Path, page: Path) -> Iterator[str]:
    """Yield the links of a page that lead nowhere, or out of the project."""
    for target in _LINK.findall(_FENCE.sub("", page.read_text())):
        if target.startswith(_OUTSIDE):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        inside = file.is_relative_to(root.resolve()) or not path
        found = inside and file.exists()
        if not found or (anchor and anchor not in anchors(file.read_text())):
            yield target


@pytest.mark.parametrize("page", pages(ROOT), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    assert list(broken(ROOT, page)) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "there.md").write_text("# One `two` three\n")
    page = tmp_path / "README.md"
    page.write_text(
        "[a](docs/there.md) [b](docs/there.md#one-two-three) [c](https://example.org/x)\n"
        "[d](docs/gone.md) [e](docs/there.md#four) [f](../outside.md) [g](#here)\n"
        "```\n[h](in/code.md)\n```\n"
    )
    assert pages(tmp_path) == [page, tmp_path / "docs" / "there.md"]
    assert list(broken(tmp_path, page)) == [
        "docs/gone.md",
        "docs/there.md#four",
        "../outside.md",
        "#here",
    ]


def test_there_are_links_to_check() -> None:
    assert sum(len(_LINK.findall(page.read_text())) for page in pages(ROOT)) > 20
