"""A condition that lasts is told once a minute, whoever finds it out how often."""

import errno
import io
import logging
import sqlite3
from pathlib import Path

import pytest

from magnetar.broker.logs import LINES_MAX, PLACES_MAX, REPEAT_S, Quiet


class Page:
    """A logger whose lines are written behind the limit, at a time of our choosing."""

    def __init__(self, name: str, *, limited: bool = True) -> None:
        self.now_s = 1000.0
        self._stream = io.StringIO()
        handler = logging.StreamHandler(self._stream)
        handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
        handler.addFilter(self._date)
        if limited:
            handler.addFilter(Quiet())
        self.log = logging.getLogger(f"page.{name}")
        self.log.propagate = False
        self.log.handlers = [handler]
        self.log.setLevel(logging.DEBUG)

    def _date(self, record: logging.LogRecord) -> bool:
        record.created = self.now_s
        return True

    @property
    def lines(self) -> list[str]:
        return self._stream.getvalue().splitlines()


@pytest.fixture
def page(request: pytest.FixtureRequest) -> Page:
    return Page(request.node.name)


def complain(page: Page, text: str, times: int = 1) -> None:
    for _ in range(times):
        page.log.warning("%s", text)


def test_the_same_line_is_written_once_a_minute_and_tells_how_often_it_came(page: Page) -> None:
    complain(page, "no room", 500)
    assert page.lines == ["WARNING no room"]
    page.now_s += REPEAT_S
    complain(page, "no room", 2)
    assert page.lines[1:] == ["WARNING no room (499 more like it were not written)"]
    page.now_s += 10 * REPEAT_S
    complain(page, "no room")
    assert page.lines[2:] == ["WARNING no room (1 more like it were not written)"]


def test_without_the_limit_every_line_is_written(request: pytest.FixtureRequest) -> None:
    page = Page(request.node.name, limited=False)
    complain(page, "no room", 5)
    assert len(page.lines) == 5


def test_different_lines_from_one_place_are_written_up_to_a_limit(page: Page) -> None:
    for topic in range(1000):
        complain(page, f"topic {topic} could not be kept up")
    assert len(page.lines) == LINES_MAX
    page.now_s += REPEAT_S
    complain(page, "topic 7 could not be kept up")
    assert f"({1000 - LINES_MAX} more like it" in page.lines[-1]


def test_what_is_only_worth_knowing_is_never_held_back(page: Page) -> None:
    for _ in range(100):
        page.log.info("a client came")
    assert len(page.lines) == 100


def test_other_places_are_not_concerned(page: Page) -> None:
    complain(page, "no room", 50)
    page.log.error("something else")
    assert page.lines == ["WARNING no room", "ERROR something else"]


def test_a_clock_that_is_set_back_silences_nobody(page: Page) -> None:
    complain(page, "no room")
    page.now_s -= 100 * REPEAT_S
    complain(page, "no room")
    assert len(page.lines) == 2


def test_what_is_remembered_is_bounded() -> None:
    quiet = Quiet()
    for line in range(3 * PLACES_MAX):
        record = logging.LogRecord("x", logging.ERROR, "x.py", line, "text", None, None)
        assert quiet.filter(record)
    assert len(quiet._windows) <= PLACES_MAX


def test_a_full_disk_has_no_traceback(page: Page) -> None:
    full = RuntimeError("flush failed")
    full.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    page.log.error("it is tried again", exc_info=full)
    assert page.lines == ["ERROR it is tried again: [Errno 28] No space left on device"]


def test_a_metadata_file_that_cannot_grow_has_no_traceback(page: Page, tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "x.sqlite")
    database.execute("PRAGMA max_page_count = 2")
    try:
        database.execute("CREATE TABLE t (x)")
        database.execute("INSERT INTO t VALUES (zeroblob(100000))")
    except sqlite3.OperationalError:
        page.log.exception("not recorded")
    finally:
        database.close()
    assert page.lines == ["ERROR not recorded: database or disk is full"]


def test_a_defect_keeps_its_traceback(page: Page) -> None:
    page.log.error("this should not happen", exc_info=KeyError("a bug"))
    assert page.lines[-1] == "KeyError: 'a bug'"
