"""Whether this process can store anything at the moment, who is told, and how it is found out.

    fine ──a commit or a new ledger failed──▶ failing ──a trial is stored──▶ fine
     │                                            ▲
     └──disk above its limit, cache stuck─────────┴──▶ read-only, until the disk says otherwise

A client whose producer is let in, and whose first message then fails, comes back at once, ten
times a second and for ever: being let in resets its back-off and its send timeout. So while
nothing can be stored no producer is let in; then the client waits longer each time, and tells
its application after its send timeout. As letting nobody in would also mean that nobody finds
out when it is over, a trial is made for each producer that asks, and every second anyway: a
note in the journal and a counter in the metadata, since either can be full alone.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from magnetar.broker.clock import Clock
from magnetar.broker.metadata.store import Increment, Store, StoreError
from magnetar.broker.port import PersistenceError

logger = logging.getLogger(__name__)

TELL_INTERVAL_S = 60.0
"""How often the log says that it is not over."""

TRIAL_NOTE = 0
"""No cursor has this number: the note says nothing to anybody who reads it back."""
TRIAL_COUNTER = "counters/write-trials"


class Notebook(Protocol):
    """The ledgers of this process, as far as a trial needs them."""

    def note(self, key: int, payload: bytes, token: object | None = None) -> None: ...


class Trouble:
    """Knows why nothing can be stored."""

    def __init__(
        self, notebook: Notebook, store: Store, clock: Clock, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._notebook = notebook
        self._store = store
        self._clock = clock
        self._loop = loop
        self._trial: asyncio.Task[None] | None = None
        self._found = 0
        self._told = ""
        self._since_s = self._told_s = 0.0
        self.limit = ""
        """What forbids storing anything: the disk is too full. Empty: nothing does."""
        self.failure = ""
        """What went wrong when something was last to be stored. Empty: nothing did."""

    @property
    def reason(self) -> str:
        """Why nothing can be stored; empty if it can."""
        return self.limit or self.failure

    def found(self, failure: str) -> None:
        """Take note that something could not be stored."""
        self.failure = failure
        self._found += 1

    async def demand_none(self) -> None:
        """Return if something can be stored; if that is not certain, try.

        Raises:
            PersistenceError: nothing can, with the reason.
        """
        if self.failure and not self.limit:
            await self.try_again()
        if self.reason:
            raise PersistenceError(f"the broker stores nothing at the moment: {self.reason}")

    async def try_again(self) -> None:
        """Find out whether what failed works again; once, however many ask."""
        if self._trial is None or self._trial.done():
            self._trial = self._loop.create_task(self._try())
        await asyncio.shield(self._trial)

    async def _try(self) -> None:
        before = self._found
        noted: asyncio.Future[Exception | None] = self._loop.create_future()
        self._notebook.note(TRIAL_NOTE, b"", _settling(noted))
        error = await noted
        if error is None:
            try:
                await self._store.commit([Increment(TRIAL_COUNTER)])
            except StoreError as unavailable:
                error = unavailable
        if error is not None:
            self.failure = str(error)
        elif self._found == before:  # otherwise something else failed meanwhile
            self.failure = ""

    def tell(self, refused: int) -> None:
        """Write to the log when it begins, once a minute, and when it is over.

        Args:
            refused: How many entries were refused since the start of the process.
        """
        reason, now_s = self.reason, self._clock.monotonic()
        if reason and not self._told:
            logger.error("%s: nothing more is stored", reason)
            self._since_s = self._told_s = now_s
        elif reason and now_s - self._told_s >= TELL_INTERVAL_S:
            lasts_s = now_s - self._since_s
            logger.error(
                "%s: nothing is stored for %d s, %d entries refused", reason, lasts_s, refused
            )
            self._told_s = now_s
        elif self._told and not reason:
            logger.warning("publishing goes on after %d s", now_s - self._since_s)
        self._told = reason


def _settling(
    future: asyncio.Future[Exception | None],
) -> Callable[[Exception | None], None]:
    """Return a token that puts what became of it into a future."""

    def settle(error: Exception | None) -> None:
        if not future.done():
            future.set_result(error)

    return settle
