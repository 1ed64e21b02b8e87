"""Which topics of a namespace come and go, told to whoever watches it.

    metadata ──keys that may have changed──▶ names ──GATHER_S──▶ is each there? ──▶ watchers

The metadata say that something about a topic may be different, whichever process did it. What
is told is whether the topic is there, asked once for all watchers of a namespace; changes that
come close together are told together. Non-persistent topics are those that some process has
in memory. System topics are not told.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from itertools import count, islice
from typing import NamedTuple

from magnetar.broker.metadata import paths
from magnetar.broker.metadata.store import Store, StoreError
from magnetar.broker.port import TopicNews
from magnetar.names import Domain, NamespaceName, TopicName

logger = logging.getLogger(__name__)

GATHER_S = 0.02
"""How long changes are gathered before they are told."""

ASKED_AT_ONCE_MAX = 500
"""Topics looked up between two turns of everybody else."""

RETRY_S = 1.0
"""How long to wait after the metadata could not be read."""

IsThere = Callable[[TopicName], Awaitable[bool]]


class _Watched(NamedTuple):
    """A namespace that somebody watches."""

    watchers: dict[int, TopicNews]
    changed: dict[TopicName, None]
    """What may have come or gone and was not told yet. At most every topic there is or was."""
    stops: Sequence[Callable[[], None]]


class Comings:
    """Tells which topics come and go. Nothing is asked for of namespaces that nobody watches."""

    def __init__(self, store: Store, is_there: IsThere, loop: asyncio.AbstractEventLoop) -> None:
        self._store = store
        self._is_there = is_there
        self._loop = loop
        self._watched: dict[NamespaceName, _Watched] = {}
        self._numbers = count()
        self._tasks: dict[NamespaceName, asyncio.Task[None]] = {}

    def watch(self, namespace: NamespaceName, news: TopicNews) -> Callable[[], None]:
        """Tell about a namespace from now on; return how to stop that."""
        watched = self._watched.get(namespace)
        if watched is None:
            watched = self._watched[namespace] = self._watch(namespace)
        number = next(self._numbers)
        watched.watchers[number] = news

        def stop() -> None:
            if watched.watchers.pop(number, None) is not None and not watched.watchers:
                for each in watched.stops:
                    each()
                del self._watched[namespace]

        return stop

    def stop(self) -> None:
        """Tell nothing more."""
        for watched in self._watched.values():
            for each in watched.stops:
                each()
        for task in self._tasks.values():
            task.cancel()

    def _watch(self, namespace: NamespaceName) -> _Watched:
        changed: dict[TopicName, None] = {}
        rooms = ((paths.TOPICS, Domain.PERSISTENT), (paths.LIVE, Domain.NON_PERSISTENT))
        stops = [
            self._store.watch(
                paths.in_namespace(kind, namespace, domain.value),
                lambda keys, kind=kind: self._changed(namespace, kind, keys),  # type: ignore[misc]
            )
            for kind, domain in rooms
        ]
        return _Watched({}, changed, stops)

    def _changed(self, namespace: NamespaceName, kind: str, keys: Sequence[str]) -> None:
        watched = self._watched.get(namespace)
        if watched is None:
            return
        for key in keys:
            name = paths.topic_name(kind, key)
            if not name.system:
                watched.changed[name] = None
        if watched.changed and namespace not in self._tasks:
            self._tasks[namespace] = self._loop.create_task(self._tell(namespace))

    async def _tell(self, namespace: NamespaceName) -> None:
        """Tell what changed, until nothing is left to tell or nobody to hear it."""
        try:
            await asyncio.sleep(GATHER_S)
            while (watched := self._watched.get(namespace)) and watched.changed:
                names = list(islice(watched.changed, ASKED_AT_ONCE_MAX))
                for name in names:
                    del watched.changed[name]
                try:
                    there = await asyncio.gather(*map(self._is_there, names))
                except StoreError as error:
                    logger.warning("who watches topics of %s is told later: %s", namespace, error)
                    watched.changed.update(dict.fromkeys(names))
                    await asyncio.sleep(RETRY_S)
                else:
                    _tell_all(watched, dict(zip(map(str, names), there, strict=True)))
        finally:
            del self._tasks[namespace]


def _tell_all(watched: _Watched, news: dict[str, bool]) -> None:
    for callback in list(watched.watchers.values()):
        try:
            callback(news)
        except Exception:  # one watcher must not keep the others from hearing it
            logger.exception("a watcher of topics failed")
