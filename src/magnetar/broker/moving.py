"""Topics come and go while this process serves: the table is followed, and given from.

    supervisor, or admin REST ──▶ give ──▶ some topics at a time ──▶ `topics.handover`
                                                   │ durable: the table says whose they are
    metadata, supervisor ──▶ heard ──▶ topics came ▼──▶ announced to everybody

Who gives decides nothing: it is told what and where to. Who gets is not asked: it hears of it, or
looks, when the first client comes that was told before it.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from typing import Any, Protocol

import msgspec

from magnetar.broker.assignment import Assignment, Change, TooManyPinsError, share_of
from magnetar.broker.metadata import assignments
from magnetar.broker.metadata.assignments import Known
from magnetar.broker.metadata.store import Store, StoreError
from magnetar.broker.metrics import Metrics
from magnetar.broker.ownership import Ownership
from magnetar.broker.port import NotAllowedError, PortError, TopicMovedError
from magnetar.broker.storage.errors import StorageError
from magnetar.broker.topics.catalog import Catalog
from magnetar.broker.topics.handover import HandOverError
from magnetar.names import TopicName

logger = logging.getLogger(__name__)

TOPICS_PER_MOVE = 16
"""Topics in memory that are handed over together: their clients wait for each other."""

ARRIVE_RETRY_S = 0.1
"""Pause after topics could not be prepared, because the disk or the metadata did not let us."""


class Moves(Protocol):
    """What the door of admin REST needs of this."""

    async def give(self, change: Change) -> int:
        """Give topics away; return how many of them were in memory.

        Raises:
            HandOverError: not all could be given. Those that could are gone.
        """
        ...


class Moving:
    """Follows the table for one process, and gives topics away when it is told to."""

    def __init__(
        self, catalog: Catalog, ownership: Ownership, store: Store, metrics: Metrics
    ) -> None:
        self._catalog = catalog
        self._ownership = ownership
        self._store = store
        self.announce: Callable[[Known], None] = _nobody
        """Is told of each table that this process has made."""
        self._giving = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stop_watch: Callable[[], None] | None = None
        self._given = metrics.counter(
            "magnetar_topics_handed_over_total",
            "Topics in memory that went to another process.",
        )
        metrics.gauge(
            "magnetar_shares_owned",
            "How many of the 1,024 shares of all topics this process has.",
            lambda: ownership.table.now.owned(ownership.worker),
        )

    # --- following

    async def start(self) -> None:
        """Take the table as it is, and follow it.

        Raises:
            StoreError: it could not be read.
        """
        found = await assignments.load(self._store)
        if found is not None:
            # Nothing is served yet, so there is nothing to prepare either.
            self._ownership.learn(*found)
            self._ownership.prepared(found.version)
        self._ownership.look = self.look
        self._stop_watch = assignments.watch(self._store, self._look_soon)

    async def stop(self) -> None:
        """Follow it no more."""
        if self._stop_watch is not None:
            self._stop_watch()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def look(self) -> None:
        """Read the table: a client or a sibling says that it must have changed."""
        try:
            found = await assignments.load(self._store)
        except StoreError as error:
            logger.warning("the table of topics could not be read: %s", error)
            return
        if found is not None:
            self.heard(found)

    def heard(self, known: Known) -> None:
        """Take a table that another process has made. An old one changes nothing."""
        if self._ownership.learn(*known):
            self._soon(self._arrive(known.version))

    async def _arrive(self, version: int) -> None:
        while True:
            try:
                await self._catalog.arrive()
            except (StoreError, StorageError) as error:
                logger.warning("topics that came cannot be served yet: %s", error)
                await asyncio.sleep(ARRIVE_RETRY_S)
            else:
                self._ownership.prepared(version)
                return

    def _look_soon(self) -> None:
        self._soon(self.look())

    def _soon(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- giving

    async def give(self, change: Change) -> int:
        """Give topics away, as `Moves.give` says. What is not ours is left alone."""
        given = 0
        async with self._giving:
            mine = self._mine(change)
            if not mine.shares and not mine.pins:
                return 0
            hand_over = self._catalog.hand_over
            await hand_over.prepare()
            loaded = [str(topic.name) for topic in self._catalog.loaded()]
            for part in parts(mine, loaded):
                given += await self._give(part)
        return given

    def _mine(self, change: Change) -> Change:
        """Return what of a change concerns topics of this process."""
        now, here = self._ownership.table.now, self._ownership.worker
        return Change(
            shares={s: to for s, to in change.shares.items() if now.shares[s] == here != to},
            pins={
                name: to for name, to in change.pins.items() if now.worker_of(name) == here != to
            },
        )

    async def _give(self, part: Change) -> int:
        ownership = self._ownership
        before, here = ownership.table.now, ownership.worker
        try:
            after = before.changed(part)
        except TooManyPinsError as error:
            raise HandOverError(str(error)) from error

        def goes(topic: TopicName) -> bool:
            name = str(topic)
            return before.worker_of(name) == here and after.worker_of(name) != here

        async def commit() -> None:
            known = await assignments.change(self._store, part)
            self.announce(known)
            self.heard(known)

        try:
            with ownership.giving(after):
                count = await self._catalog.hand_over.give(goes, commit, self._told)
        except HandOverError:
            await self.look()  # what failed may have been done all the same
            raise
        self._given.value += count
        return count

    def _told(self, topic: TopicName) -> PortError:
        """Return what the clients of a topic hear that is elsewhere now."""
        text = f"topic {topic} moved to another process"
        if self._ownership.named_listeners:
            return TopicMovedError(text)  # by which of its names this machine is known is not known
        try:
            place = self._ownership.location(topic)
        except NotAllowedError:
            return TopicMovedError(text)
        return TopicMovedError(text, place.url, place.url_tls)


def parts(change: Change, loaded: Iterable[str]) -> Iterator[Change]:
    """Yield a change in parts, each of some topics in memory; what is not comes with the first."""
    counts: dict[int, int] = {}
    for name in loaded:
        share = share_of(name)
        counts[share] = counts.get(share, 0) + 1
    shares: dict[int, int] = {}
    pins: dict[str, int] = {}
    room = TOPICS_PER_MOVE
    by_size = sorted(change.shares, key=lambda share: counts.get(share, 0))
    for share in by_size:
        if counts.get(share, 0) > room and (shares or pins):
            yield Change(shares=shares, pins=pins)
            shares, pins, room = {}, {}, TOPICS_PER_MOVE
        shares[share] = change.shares[share]
        room -= counts.get(share, 0)
    for name, worker in change.pins.items():
        if room <= 0 and (shares or pins):
            yield Change(shares=shares, pins=pins)
            shares, pins, room = {}, {}, TOPICS_PER_MOVE
        pins[name] = worker
        room -= 1
    if shares or pins:
        yield Change(shares=shares, pins=pins)


def change_from(told: Mapping[str, Mapping[str, int]]) -> Change:
    """Return a change as it came over a channel: JSON's keys are texts."""
    shares = {int(share): worker for share, worker in told.get("shares", {}).items()}
    return Change(shares=shares, pins=told.get("pins", {}))


def known_from(told: Mapping[str, object]) -> Known:
    """Return a table as it came over a channel."""
    return Known(msgspec.convert(told["table"], Assignment), int(str(told["version"])))


def _nobody(known: Known) -> None:
    """Stand in for `announce` where there is nobody else."""
