"""Topics go to another process: nothing is copied, nothing acknowledged is lost.

    serving ──still──▶ nothing is taken, what was taken is durable and reported
               │       ends of ledgers, cursors, sequences in the metadata; entries in entry logs
               ▼
            `change`: the metadata say whose they are now    fails ──▶ they stay; clients come back
               │
               ▼
            clients are told where to go

Only from `change` on may another process serve them, and from `still` on nothing is acknowledged
here: there is no moment at which two do. A crash in between leaves them here, to whoever takes this
process's place. Looked to: Pulsar's bundle unloading, and its transfer of topics in PIP-307.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping

from magnetar.broker.port import PortError, ServiceNotReadyError
from magnetar.broker.storage.errors import StorageError
from magnetar.broker.storage.ledgers import Ledgers
from magnetar.broker.topics.loading import Loader
from magnetar.broker.topics.topic import Topic
from magnetar.names import TopicName

logger = logging.getLogger(__name__)


class HandOverError(Exception):
    """The topics stay where they are. The message says why."""


class HandOver:
    """Gives topics away, some at a time."""

    def __init__(
        self,
        topics: MutableMapping[TopicName, Topic],
        loading: MutableMapping[TopicName, asyncio.Task[Topic]],
        closing: MutableMapping[TopicName, asyncio.Task[None]],
        ledgers: Ledgers,
        loader: Callable[[], Loader | None],
    ) -> None:
        """Share what the catalog keeps of topics that are there, come, and go."""
        self._topics = topics
        self._loading = loading
        self._closing = closing
        self._ledgers = ledgers
        self._loader = loader

    async def prepare(self) -> None:
        """Write down what can be written down while the topics are still served.

        Raises:
            HandOverError: the disk does not let us.
        """
        try:
            await self._ledgers.flush()
        except StorageError as error:
            raise HandOverError(f"nothing can be stored: {error}") from error

    async def give(
        self,
        goes: Callable[[TopicName], bool],
        change: Callable[[], Awaitable[None]],
        told: Callable[[TopicName], PortError],
    ) -> int:
        """Give away the topics that `goes` says; return how many of them were in memory.

        From before this is called, nobody may load one of them. `change` makes it known that they
        belong to somebody else; `told` is what their clients hear after that.

        Raises:
            HandOverError: they stay.
        """
        await self._arrived(goes)
        leaving = [topic for name, topic in self._topics.items() if goes(name) and not topic.closed]
        task = asyncio.get_running_loop().create_task(self._give(leaving, change))
        for topic in leaving:
            self._closing[topic.name] = task
        error: Exception | None = None
        try:
            await asyncio.shield(task)
        except (PortError, StorageError, HandOverError) as found:
            error = found
        finally:
            for topic in leaving:
                if self._topics.get(topic.name) is topic:
                    del self._topics[topic.name]
                self._closing.pop(topic.name, None)
                topic.send_away(
                    ServiceNotReadyError(f"topic {topic.name} was unloaded: {error}")
                    if error
                    else told(topic.name)
                )
                await asyncio.sleep(0)
        if error is not None:
            raise HandOverError(f"{len(leaving)} topics stay: {error}") from error
        return len(leaving)

    async def _arrived(self, goes: Callable[[TopicName], bool]) -> None:
        """Wait for those that are about to come or go."""
        while True:
            under_way = [
                task
                for tasks in (self._loading, self._closing)
                for name, task in tasks.items()
                if goes(name)
            ]
            if not under_way:
                return
            await asyncio.wait(under_way)
            await asyncio.sleep(0)  # what they leave behind is put away in the next turn

    async def _give(self, leaving: list[Topic], change: Callable[[], Awaitable[None]]) -> None:
        loader = self._loader()
        assert loader is not None, "whoever serves has started"
        reason = ServiceNotReadyError("the topic moves to another process")
        await loader.save_left()
        await asyncio.gather(*(topic.still(reason) for topic in leaving))
        # Everything that was taken is in the journal: nothing more comes while the rest is saved.
        # Also where no topic is in memory: what was unloaded lately may still be in the cache.
        saved = asyncio.gather(*(loader.put_away(topic) for topic in leaving))
        flushed = self._ledgers.flush(recycle=False)
        results = await asyncio.gather(saved, flushed, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        if not all(await saved):
            raise HandOverError("not all of what has to be known of them could be saved")
        await change()
