"""Group commit: one sync in flight, everything that came meanwhile in the next.

    loop     append ─▶ waiting ─┐          ┌─▶ done(records, error), once per commit
    thread            take all ─┴─▶ journal.write ─┘

The thread takes whatever waits as soon as its last sync has ended, without asking the
loop. After a failure it halts: what was waiting behind the failed records depends on them,
so it fails with them, and only then does the thread go on.
"""

import logging
import threading
from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Callable, Sequence

from magnetar.broker.clock import Clock
from magnetar.broker.storage.cache import CachedRecord
from magnetar.broker.storage.journal import Journal, JournalError

logger = logging.getLogger(__name__)

MARK_AFTER_S = 0.5
"""Seconds without a record after which the journal notes that all of it is durable."""

Done = Callable[[Sequence[CachedRecord], JournalError | None, float], None]
"""Records in order, why they failed if they did, seconds that the write and sync took."""


class Committer:
    """Hands records to the journal and tells the event loop what became of them."""

    def __init__(  # noqa: PLR0913 - built in one place
        self,
        journal: Journal,
        loop: AbstractEventLoop,
        clock: Clock,
        done: Done,
        *,
        window_s: float = 0.0,
        window_bytes: int = 0,
        threaded: bool = True,
    ) -> None:
        self._journal = journal
        self._loop = loop
        self._clock = clock
        self._done = done
        self.window_s = window_s
        """How long to wait for more before a commit, or until so much waits. Both may change."""
        self.window_bytes = window_bytes
        self._waiting: deque[CachedRecord] = deque()
        self._submitted_bytes = 0
        self._taken_bytes = 0
        self._wake = threading.Event()
        self._gathering = False
        """The thread waits for the window: it need not hear of every record."""
        self._halted = False
        self._stopping = False
        self._scheduled = False
        self._thread: threading.Thread | None = None
        if threaded:
            self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
            self._thread.start()

    @property
    def waiting(self) -> int:
        """Records that the next commit takes."""
        return len(self._waiting)

    def submit(self, record: CachedRecord) -> None:
        """Make a record durable, after all that were submitted before."""
        self._waiting.append(record)
        self._submitted_bytes += record.size
        if self._thread is not None:
            if not self._wake.is_set() and (not self._gathering or self._enough):
                self._wake.set()
        elif not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._commit_on_loop)

    def take_back(self) -> list[CachedRecord]:
        """After a failure: return what still waits, and let the thread go on."""
        records = list(self._waiting)
        self._waiting.clear()
        self._taken_bytes = self._submitted_bytes
        self._halted = False
        self._wake.set()
        return records

    def stop(self) -> None:
        """Return when the thread has ended. Nothing may be waiting."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        self._journal.close()

    # --- on the thread

    def _run(self) -> None:
        try:
            while not self._stopping:
                if not self._wake.wait(MARK_AFTER_S):
                    self._journal.mark()
                    self._wake.wait()
                if self.window_s:
                    self._gather()
                self._wake.clear()
                if self._waiting and not self._halted:
                    self._commit(self._tell_loop)
        except Exception:  # a bug: without its thread the journal would hang without a word
            logger.exception("the journal thread ended; this process can write nothing any more")
            raise

    @property
    def _enough(self) -> bool:
        """Whether so much waits that the window need not end."""
        return self._submitted_bytes - self._taken_bytes >= self.window_bytes

    def _gather(self) -> None:
        """Wait for the window, or until enough bytes wait."""
        deadline = self._clock.monotonic() + self.window_s
        self._wake.clear()
        self._gathering = True
        while not self._enough and (left := deadline - self._clock.monotonic()) > 0:
            # Woken early: there is enough, somebody stops us, or a record came as we cleared.
            if not self._wake.wait(left) or self._stopping:
                break
            self._wake.clear()
        self._gathering = False

    def _tell_loop(
        self, records: Sequence[CachedRecord], error: JournalError | None, seconds: float
    ) -> None:
        self._loop.call_soon_threadsafe(self._done, records, error, seconds)

    # --- on either

    def _commit(self, tell: Done) -> None:
        waiting = self._waiting
        records = [waiting.popleft() for _ in range(len(waiting))]
        self._taken_bytes += sum(record.size for record in records)
        done = 0
        while done < len(records):
            started = self._clock.monotonic()
            try:
                after = self._journal.write(records, done)
            except JournalError as error:
                self._halted = True
                tell(records[done:], error, self._clock.monotonic() - started)
                return
            seconds = self._clock.monotonic() - started
            tell(records[done:after] if done or after < len(records) else records, None, seconds)
            done = after

    def _commit_on_loop(self) -> None:
        """Without a thread, for tests: the same, between two callbacks of the loop."""
        self._scheduled = False
        if self._waiting and not self._halted:
            self._commit(self._done)
