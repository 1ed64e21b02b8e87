"""What a compacted reader is sent before the horizon: survivors, a stretch at a time.

    read(position) ──▶ neighbours of one ledger, from the first survivor at or after it
                    ├─ None: a read is on its way, and will wake
                    ├─ PAST: there is none; the log goes on behind the horizon
                    └─ LOST: here is damage

A stretch is cut where ids leave a gap, because what is sent together has neighbouring ids.
"""

import logging
from collections.abc import Callable

from magnetar.broker.entry import EntryId
from magnetar.broker.run import Run
from magnetar.broker.storage.errors import QuarantinedError, StorageError
from magnetar.broker.topics.reading import RETRY_S, Ground
from magnetar.broker.topics.view import Stretch, View

logger = logging.getLogger(__name__)


class End:
    """Why there is nothing to send."""


PAST, LOST = End(), End()


class Surviving:
    """One reader's way through one view. Its positions only rise; going back is a new one."""

    __slots__ = (
        "_at",
        "_busy",
        "_bytes_max",
        "_entries_max",
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
        self._bytes_max = ground.config.dispatch_bytes_max
        self._entries_max = ground.config.dispatch_entries_max
        self._wake = wake
        self._busy = False
        self._place: int | None = None
        """Where to read on; None: to be found."""
        self._lost = -1
        """The last place of the damage at `_place`."""
        self._held: Stretch | None = None
        self._at = 0
        """How much of what is held was passed."""

    def read(self, position: EntryId, entries_max: int) -> tuple[EntryId, Run] | End | None:
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
        held = self.view.read_cached(place, self._entries_max, self._bytes_max)
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

    def _from_held(self, position: EntryId, entries_max: int) -> tuple[EntryId, Run] | None:
        """Return neighbours of what was read ahead; None: it is used up."""
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
        limit = min(len(ids) - at, entries_max)
        count = limit
        if ids[at + limit - 1] != (ledger, entry + limit - 1):
            count = 1
            while ids[at + count] == (ledger, entry + count):
                count += 1
        return ids[at], held.run.slice(at, count)

    def _start(self, position: EntryId) -> None:
        self._busy = True
        self._loop.create_task(self._bring(position))

    async def _bring(self, position: EntryId) -> None:
        """Find a position's place, and bring what is there into memory."""
        try:
            if self._place is None:
                self._place = await self.view.find(position)
            if self._place < self.view.places:
                self._held = await self.view.read(self._place, self._entries_max, self._bytes_max)
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
