"""What is done again and again for all topics of a process.

    every cursor_interval_ms    changed cursors go into the journal      `checkpoints`, by itself
    every expiry_interval_s     expiry, retention, quotas, idle topics   `upkeep`, topic by topic
                                is there enough to compact?              `compactor`
    every reclaim_interval_s    space of dropped ledgers is given back
    every second                can anything be stored? how full is the disk? also at once when
                                the write cache is                           `trouble`

Each is one task that ends with the catalog. A round that fails is logged, and the next one
comes at its time; no duty holds the event loop for more than one topic at once.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Protocol

from magnetar.broker.clock import Clock
from magnetar.broker.config import BrokerConfig
from magnetar.broker.metadata.chains import Dropped
from magnetar.broker.metadata.holdings import replayable
from magnetar.broker.metadata.store import Store
from magnetar.broker.port import NotAllowedError, PersistenceError, PortError
from magnetar.broker.storage.errors import StorageError
from magnetar.broker.storage.ledgers import Ledgers
from magnetar.broker.topics.compaction.compactor import Compactor
from magnetar.broker.topics.producers.publishing import Publisher
from magnetar.broker.topics.topic import Topic
from magnetar.broker.topics.trouble import Trouble
from magnetar.broker.topics.upkeep import is_idle, keep_up, remove_unused
from magnetar.names import TopicName

logger = logging.getLogger(__name__)

DISK_INTERVAL_S = 1.0
SETTLED_S = 5.0
"""How long it takes at most until every process has written down that it began a journal file."""


class AllTopics(Protocol):
    """What duties need of the catalog."""

    publisher: Publisher
    trouble: Trouble
    compactor: Compactor

    def loaded(self) -> Iterator[Topic]: ...
    async def delete(self, name: TopicName, *, force: bool = False) -> None: ...
    async def load_those_that_shrink(self) -> None: ...


class Duties:
    """The tasks behind all topics of a process."""

    def __init__(
        self,
        topics: AllTopics,
        ledgers: Ledgers,
        store: Store,
        config: BrokerConfig,
        clock: Clock,
    ) -> None:
        self._topics = topics
        self._ledgers = ledgers
        self._store = store
        self._dropped = Dropped(store)
        self._config = config
        self._clock = clock
        self._tasks: list[asyncio.Task[None]] = []
        self._seen_s: dict[int, float] = {}
        """When each dropped ledger was seen first."""
        self._left: dict[int, set[tuple[int, int]]] = {}
        """Which journal files that may hold some of it are left."""
        self._warned = False

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin."""
        config = self._config
        self._ledgers.on_stuck = self._judge_disk
        self._judge_disk()
        self._tasks = [
            loop.create_task(self._again(config.expiry_interval_s, self.keep_up, "expiry")),
            loop.create_task(self._again(config.reclaim_interval_s, self.reclaim, "reclaim")),
            loop.create_task(self._again(DISK_INTERVAL_S, self.look_at_disk, "disk watermark")),
        ]

    async def stop(self) -> None:
        """End all of them; a round that runs is broken off."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def _again(
        self, interval_s: float, duty: Callable[[], Awaitable[object]], name: str
    ) -> None:
        while True:
            await asyncio.sleep(interval_s)
            try:
                await duty()
            except Exception:  # the next round may do better; stopping for good would not
                logger.exception("a round of %s failed; the next one is in %g s", name, interval_s)

    async def keep_up(self) -> None:
        """Apply time to live, retention and quotas to every topic, and delete idle ones."""
        await self._topics.load_those_that_shrink()
        for topic in self._topics.loaded():
            if topic.closed:
                continue
            try:
                await remove_unused(topic, self._clock.monotonic())
                if topic.name.persistent:
                    compactor = self._topics.compactor
                    if compactor.is_due(topic, topic.rules.compaction_threshold_bytes):
                        compactor.start(topic)
                    await keep_up(topic, self._clock)
                if is_idle(topic, self._clock.monotonic()):
                    logger.info("topic %s is deleted: nobody uses it", topic.name)
                    await self._topics.delete(topic.name)
            except NotAllowedError:
                pass  # somebody came just now
            except (PortError, StorageError) as error:
                logger.warning("topic %s could not be kept up: %s", topic.name, error)
            await asyncio.sleep(0)

    async def reclaim(self) -> None:
        """Give back the space of ledgers that no topic has any more."""
        dropped = set(await self._dropped.list())
        holds = self._ledgers.holds
        if dropped:
            await self._ledgers.stored.reclaim(dropped.__contains__)
        gone = {ledger for ledger in dropped if not holds(ledger)}
        if self._config.workers > 1:
            gone = await self._gone_everywhere(gone)
        if gone:
            await self._dropped.forget(sorted(gone))

    async def _gone_everywhere(self, gone: set[int]) -> set[int]:
        """Return which of these ledgers no process holds, given that this one does not.

        One process decides. Entries may lie in the journal of another one, which may have died
        and will be replayed: a ledger is gone once none of the journal files that were there
        when it was dropped is left, and no entry log has anything of it.
        """
        if self._config.worker:
            return set()
        now_s = self._clock.monotonic()
        files = await replayable(self._store, but=self._config.worker)
        self._seen_s = {each: self._seen_s.get(each, now_s) for each in gone}
        settled = {each for each, seen_s in self._seen_s.items() if seen_s + SETTLED_S <= now_s}
        self._left = {each: self._left.get(each, files) & files for each in settled}
        return {
            ledger
            for ledger, left in self._left.items()
            if not left and not (await self._ledgers.stored.end_of(ledger)).end
        }

    async def look_at_disk(self) -> None:
        """Turn publishing away while it cannot work; consumers and deletes go on."""
        self._judge_disk()
        trouble = self._topics.trouble
        if trouble.failure:
            await trouble.try_again()
            trouble.tell(self._topics.publisher.refused)

    def _judge_disk(self) -> None:
        config, publisher, trouble = self._config, self._topics.publisher, self._topics.trouble
        used = self._ledgers.disk_used_percent()
        if used >= config.disk_used_percent_readonly:
            trouble.limit = (
                f"the disk is {used:.1f}% full, the limit is {config.disk_used_percent_readonly:g}%"
            )
        elif self._ledgers.stuck:
            trouble.limit = "the write cache is full, and the disk does not take it"
        else:
            trouble.limit = ""
        publisher.refusal = PersistenceError(trouble.limit) if trouble.limit else None
        if trouble.limit or not trouble.failure:  # whether that lasts is found out by trying
            trouble.tell(publisher.refused)
        warn = used >= config.disk_used_percent_warn
        if warn and not self._warned and not trouble.limit:
            logger.warning(
                "the disk is %.1f%% full; at %g%% nothing more is stored",
                used,
                config.disk_used_percent_readonly,
            )
        self._warned = warn
