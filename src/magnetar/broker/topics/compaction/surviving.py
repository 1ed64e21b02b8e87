"""What a compacted reader is sent before the horizon: survivors, a stretch at a time.

    read(position) ──▶ survivors of one ledger, from the first one at or after it
                    ├─ None: a read is on its way, and will wake
                    ├─ PAST: there is none; the log goes on behind the horizon
                    └─ LOST: here is damage

What is sent together has neighbouring ids: row `i` is entry `first + i`. So the gaps that
compaction has left are filled with void rows, which nobody is sent, unless they are wide.
"""

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

from magnetar.broker.entry import EntryId
from magnetar.broker.run import ROW, ROW_SIZE, Run
from magnetar.broker.storage.errors import QuarantinedError, StorageError
from magnetar.broker.topics.compaction.view import Stretch, View
from magnetar.broker.topics.cursors.reading import RETRY_S, Ground

logger = logging.getLogger(__name__)


SPAN_MAX = 4_096
"""Entries between the first and the last of a portion."""
SURVIVORS_MAX = 250
"""Survivors sent in one portion: what is acknowledged around each takes its time."""

_VOID = ROW.pack(0, 0, 0, 1, *[0] * 10)


class Some(NamedTuple):
    """Survivors of one ledger."""

    at: EntryId
    run: Run
    rows: Sequence[int]
    """Those of the run that are survivors; the others are void."""


class End:
    """Why there is nothing to send."""


PAST, LOST = End(), End()


class Surviving:
    """One reader's way through one view. Its positions only rise; going back is a new one."""

    __slots__ = (
        "_at",
        "_busy",
        "_config",
        "_held",
        "_loop",
        "_lost",
        "_place",
        "_wake",
        "view",
    )

    def __init__(self, view: View, ground: Ground, wake: Callable[[], None]) -> None:
        self.view = view
        self._loop = ground.loop
        self._config = ground.config
        self._wake = wake
        self._busy = False
        self._place: int | None = None
        """Where to read on; None: to be found."""
        self._lost = -1
        """The last place of the damage at `_place`."""
        self._held: Stretch | None = None
        self._at = 0
        """How much of what is held was passed."""

    def read(self, position: EntryId, entries_max: int) -> Some | End | None:
        """Return what comes next from a position on."""
        found = self._from_held(position, entries_max)
        if found is not None or self._busy:
            return found
        place = self._place
        if place is None:
            self._start(position)
            return None
        if place >= self.view.places:
            return PAST
        if self._lost >= place:
            return LOST
        held = self.view.read_cached(
            place, self._config.dispatch_entries_max, self._config.dispatch_bytes_max
        )
        if held is None:
            self._start(position)
            return None
        self._held, self._at = held, 0
        return self.read(position, entries_max)

    def skip_damage(self) -> int:
        """Go on behind the damage; return how many survivors it holds."""
        place = self._place or 0
        self._place = min(self._lost + 1, self.view.places)
        return self._place - place

    def _from_held(self, position: EntryId, entries_max: int) -> Some | None:
        """Return some of what was read ahead; None: it is used up."""
        held, at = self._held, self._at
        if held is None:
            return None
        ids = held.ids
        while at < len(ids) and ids[at] < position:
            at += 1
        self._at = at
        if at == len(ids):
            self._place, self._held = held.place + at, None
            return None
        ledger, entry = ids[at]
        limit = min(len(ids) - at, entries_max, SURVIVORS_MAX)
        if ids[at + limit - 1] == (ledger, entry + limit - 1):
            return Some(ids[at], held.run.slice(at, limit), range(limit))
        end = EntryId(ledger, entry + SPAN_MAX)
        rows = [each.entry - entry for each in ids[at : at + limit] if each < end]
        return Some(ids[at], spread(held.run, at, rows), rows)

    def _start(self, position: EntryId) -> None:
        self._busy = True
        self._loop.create_task(self._bring(position))

    async def _bring(self, position: EntryId) -> None:
        """Find a position's place, and bring what is there into memory."""
        try:
            if self._place is None:
                self._place = await self.view.find(position)
            if self._place < self.view.places:
                self._held = await self.view.read(
                    self._place, self._config.dispatch_entries_max, self._config.dispatch_bytes_max
                )
                self._at = 0
        except QuarantinedError as error:
            self._lost = error.last
        except StorageError as error:
            logger.warning("cannot read the compacted ledger, trying again: %s", error)
            self._loop.call_later(RETRY_S, self._try_again)
            return
        self._try_again()

    def _try_again(self) -> None:
        self._busy = False
        self._wake()


def spread(run: Run, first: int, rows: Sequence[int]) -> Run:
    """Return a run whose rows `rows` are those of `run` from `first` on; all others are void."""
    if rows[-1] == len(rows) - 1:
        return run.slice(first, len(rows))
    wide = bytearray(_VOID * (rows[-1] + 1))
    at = first * ROW_SIZE
    for row in rows:
        wide[row * ROW_SIZE : (row + 1) * ROW_SIZE] = run.rows[at : at + ROW_SIZE]
        at += ROW_SIZE
    return Run(wide, run.buffer, run.base)
