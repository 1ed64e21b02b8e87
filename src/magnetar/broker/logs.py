"""What a process logs: one line per event, and no event more than once a minute.

    warning or worse ──▶ the same line within REPEAT_S?   ──yes──▶ counted, not written
                     ──▶ LINES_MAX others from there?     ──yes──▶ counted, not written
                     ──▶ a disk that is full or read-only ───────▶ its error, without a traceback

A disk that is full fails every flush, every note of a cursor and every look at the metadata,
many times a second and in places that do not know of each other. Each of them is right to say
so; together they would fill what is left of the disk. So the limit is here, behind all of them.
The next line that is written tells how many were not.
"""

import errno
import logging
import sys
from collections import OrderedDict
from dataclasses import dataclass

REPEAT_S = 60.0
"""How long a line is not written again."""
LINES_MAX = 10
"""Different lines from one place in the source within that time, such as one per topic."""
PLACES_MAX = 1_000
"""Lines and places that are remembered; the one that was written longest ago is forgotten."""

_DISK_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
_SQLITE_CODES = frozenset({8, 13})  # SQLITE_READONLY, SQLITE_FULL

_Key = tuple[str, int, str]


@dataclass(slots=True)
class _Window:
    """What came of one kind since its window began."""

    began_s: float
    written: int = 0
    dropped: int = 0


class Quiet(logging.Filter):
    """Lets a line through, or counts it. Belongs to a handler."""

    def __init__(self) -> None:
        super().__init__()
        self._windows: OrderedDict[_Key, _Window] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the line is to be written; it may be told shorter."""
        if record.levelno < logging.WARNING:
            return True
        text = record.getMessage()
        line = self._window((record.pathname, record.lineno, text), record.created)
        place = self._window((record.pathname, record.lineno, ""), record.created)
        if line.written or place.written >= LINES_MAX:
            line.dropped += 1
            place.dropped += 1
            return False
        line.written += 1
        place.written += 1
        cause = disk_trouble(record.exc_info[1]) if record.exc_info else None
        if cause is not None:
            text = f"{text}: {cause}"
            record.exc_info = record.exc_text = None
        missed = max(line.dropped, place.dropped if place.written == 1 else 0)
        if missed:
            text = f"{text} ({missed} more like it were not written)"
            line.dropped = place.dropped = 0
        record.msg, record.args = text, None
        return True

    def _window(self, key: _Key, now_s: float) -> _Window:
        """Return the window that a line falls into; a new one keeps count of what was dropped."""
        window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = _Window(now_s)
            if len(self._windows) > PLACES_MAX:
                self._windows.popitem(last=False)
        elif now_s - window.began_s >= REPEAT_S or now_s < window.began_s:
            window.began_s, window.written = now_s, 0
            self._windows.move_to_end(key)
        return window


def log_to_stderr() -> None:
    """Write what this process logs to its standard error, through a limit of its own."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(Quiet())
    logging.basicConfig(
        level=logging.INFO,
        handlers=[handler],
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )


def disk_trouble(error: BaseException | None) -> BaseException | None:
    """Return what a full or read-only disk said, if that is what an error comes from."""
    seen = set[int]()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in _DISK_ERRNOS:
            return error
        if (getattr(error, "sqlite_errorcode", 0) & 0xFF) in _SQLITE_CODES:
            return error
        error = error.__cause__ or error.__context__
    return None
