"""The topics of a namespace whose names fit a pattern, as they are, come and go.

    Port.topics ───────▶ which fit? ──▶ the topics to begin with
    Port.watch_topics ─▶ which fit? ──▶ one is added, or goes

A partitioned topic is one, whatever the number of its partitions. As in Pulsar's clients, the
pattern is about persistent topics unless it says `non-persistent://` itself.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from magnetar.broker.doors.pattern import Pattern, matching
from magnetar.broker.doors.websocket.service import Service
from magnetar.broker.port import ListMode, NotAllowedError, PortError
from magnetar.names import Domain, InvalidNameError, NamespaceName, TopicName

logger = logging.getLogger(__name__)

FITTING_MAX = 1_000
"""Topics of one consumer, however many fit."""


class TopicPattern(NamedTuple):
    """Which topics a client wants, in its own words."""

    domain: Domain
    namespace: NamespaceName
    text: str
    """Tenant, namespace and expression, as they are compared with names."""

    @classmethod
    def parse(cls, text: str) -> "TopicPattern":
        """Read `persistent://tenant/namespace/expression`, or the expression alone.

        Raises:
            PatternError: it is no regular expression.
            InvalidNameError: domain, tenant or namespace are no names.
        """
        domain, _, rest = text.rpartition("://")
        if domain not in {"", *(each.value for each in Domain)}:
            raise InvalidNameError(f"{domain[:100]!r} is neither persistent nor non-persistent")
        if rest.count("/") < 2:
            rest = f"public/default/{rest}"
        tenant, namespace, _ = rest.split("/", 2)
        name = NamespaceName.parse(f"{tenant}/{namespace}")
        Pattern(rest)
        return cls(Domain(domain or Domain.PERSISTENT.value), name, rest)

    @property
    def mode(self) -> ListMode:
        """The list of topics it is compared with."""
        memory = self.domain is Domain.NON_PERSISTENT
        return ListMode.NON_PERSISTENT if memory else ListMode.PERSISTENT


class Fitting:
    """Follows a pattern for one consumer."""

    def __init__(
        self,
        service: Service,
        pattern: TopicPattern,
        add: Callable[[TopicName], Awaitable[None]],
        remove: Callable[[TopicName], Awaitable[None]],
    ) -> None:
        """Take a pattern, and whom to tell that a topic has come or gone."""
        self._service = service
        self._wanted = pattern
        self._pattern = Pattern(pattern.text)
        self._add = add
        self._remove = remove
        self._names: set[str] = set()
        """Topics and partitions that are there and fit."""
        self._news: dict[str, bool] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stop: Callable[[], None] | None = None

    async def begin(self) -> list[TopicName]:
        """Return the topics that fit now. What comes later is told after `follow`.

        Raises:
            PortError: there is no such namespace, or too many topics fit.
        """
        port, wanted = self._service.port, self._wanted
        self._stop = port.watch_topics(wanted.namespace, self._hear)
        found = await matching(await port.topics(wanted.namespace, wanted.mode), self._pattern)
        self._names = set(found)
        topics = self._topics()
        if len(topics) > FITTING_MAX:
            raise NotAllowedError(
                f"{len(topics)} topics fit topicsPattern, allowed: {FITTING_MAX}; narrow it"
            )
        return sorted(topics)

    def follow(self) -> None:
        """Tell from now on what comes and goes."""
        self._task = self._service.loop.create_task(self._follow())

    def stop(self) -> None:
        """Tell nothing more."""
        if self._stop is not None:
            self._stop()
            self._stop = None
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def _hear(self, news: Mapping[str, bool]) -> None:
        scheme = f"{self._wanted.domain.value}://"
        mine = {name: there for name, there in news.items() if name.startswith(scheme)}
        if mine:
            self._news.update(mine)
            self._wake.set()

    async def _follow(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            news, self._news = self._news, {}
            before = self._topics()
            for name in await matching(list(news), self._pattern):
                (self._names.add if news[name] else self._names.discard)(name)
            after = self._topics()
            for topic in sorted(before - after):
                await self._remove(topic)
            for topic in sorted(after - before):
                await self._come(topic, len(after))

    async def _come(self, topic: TopicName, count: int) -> None:
        if count > FITTING_MAX:
            logger.warning(
                "%s fits a pattern that fits %d topics already; it is left out", topic, FITTING_MAX
            )
            return
        try:
            await self._add(topic)
        except PortError as error:
            logger.info("%s fits a pattern, and cannot be consumed: %s", topic, error)

    def _topics(self) -> set[TopicName]:
        return {TopicName.parse(name).base for name in self._names}
