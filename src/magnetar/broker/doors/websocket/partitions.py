"""Partitioned topics grow: looks now and then whether those that a client consumes did."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from magnetar.broker.doors.websocket.service import Service
from magnetar.broker.port import PortError
from magnetar.names import TopicName

logger = logging.getLogger(__name__)

INTERVAL_S = 60.0
"""Java's interval."""

Add = Callable[[TopicName, int, int], Awaitable[None]]
"""Given a topic, how many partitions were known, and how many there are."""


class Growth:
    """The partitioned topics of one client."""

    def __init__(self, service: Service, add: Add) -> None:
        self._service = service
        self._add = add
        self._known: dict[TopicName, int] = {}
        self._task: asyncio.Task[None] | None = None

    def watch(self, topic: TopicName, count: int) -> None:
        """Look after a topic that has so many partitions now."""
        self._known[topic] = count

    def forget(self, topic: TopicName) -> None:
        """Look no more after a topic."""
        self._known.pop(topic, None)

    def start(self) -> None:
        """Begin to look, if there is anything to look after."""
        if self._known and self._task is None:
            self._task = self._service.loop.create_task(self._look_again_and_again())

    def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _look_again_and_again(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL_S)
            await self.look()

    async def look(self) -> None:
        """Look once."""
        for topic, known in list(self._known.items()):
            try:
                count = await self._service.port.partitions(topic, create=False)
                if count > known:
                    await self._add(topic, known, count)
                    self._known[topic] = count
            except PortError as error:
                logger.info("%s: looking for new partitions: %s", topic, error)
