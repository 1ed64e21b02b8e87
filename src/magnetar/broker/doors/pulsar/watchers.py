"""Topic list watchers: a client learns of topics whose names fit a pattern as they come and go.

    WATCH_TOPIC_LIST ──▶ view (namespace, pattern) ──▶ WATCH_TOPIC_LIST_SUCCESS names, hash
                           │  shared by all watchers of the door
    Port.watch_topics ──▶ which fit? ──▶ names, hash ··▶ WATCH_TOPIC_UPDATE new, deleted, hash

The names of a pattern are matched, kept and hashed once, however many consumers use it. As in
Pulsar a pattern is about persistent topics, as the consumers are that open a watcher, unless
it says `non-persistent://` itself. A watcher that is opened again under its id is told what
there is, or, if the hash it brings is the right one, only that: so a client makes sure that
it has missed nothing. A client that does not read is told later what is left to tell.
Source: the Pulsar binary protocol, CommandWatchTopicList, and PIP-145.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

from magnetar.broker.access.rights import Demand, Right
from magnetar.broker.doors.pattern import Pattern, matching
from magnetar.broker.doors.pulsar.errors import server_error
from magnetar.broker.doors.pulsar.lookup import compiled
from magnetar.broker.doors.pulsar.requests import Line, Requests
from magnetar.broker.port import (
    ListMode,
    NotAllowedError,
    Port,
    PortError,
    ServiceNotReadyError,
)
from magnetar.broker.wire.pulsar import commands
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.names import Domain, InvalidNameError, NamespaceName

logger = logging.getLogger(__name__)

WATCHERS_PER_CONNECTION_MAX = 1_000

VIEWS_MAX = 1_000
"""Different patterns watched through one door. Each keeps the names that fit it."""

HASHED_IN_PLACE_MAX = 10_000
"""Names that are sorted and hashed on the event loop: one or two milliseconds."""

UPDATE_BYTES_MAX = 256 * 1024
"""Of names in one command. What is longer is told in several."""

NON_PERSISTENT = f"{Domain.NON_PERSISTENT.value}://"


class View:
    """The topics of a namespace that fit a pattern, as they are now."""

    def __init__(self, port: Port, namespace: NamespaceName, pattern: str) -> None:
        """Take a pattern.

        Raises:
            MetadataError: it is no regular expression.
        """
        self._port = port
        self._namespace = namespace
        self._pattern: Pattern = compiled(pattern)
        memory = pattern.startswith(NON_PERSISTENT)
        self._mode = ListMode.NON_PERSISTENT if memory else ListMode.PERSISTENT
        self._domain = f"{Domain.NON_PERSISTENT if memory else Domain.PERSISTENT}://"
        self.names: list[str] = []
        """Sorted."""
        self.hash = commands.topics_hash(())
        self.watchers: set[Watcher] = set()
        self.users = 0
        """Watchers, and those that are being opened."""
        self._news: dict[str, bool] = {}
        self._wake = asyncio.Event()
        self._stop: Callable[[], None] = port.watch_topics(namespace, self._hear)

    async def follow(self, ready: asyncio.Future[None]) -> None:
        """Take what there is, say that this is done, then keep up."""
        await self._change(
            dict.fromkeys(await self._port.topics(self._namespace, self._mode), True)
        )
        if not ready.done():
            ready.set_result(None)
        while True:
            await self._wake.wait()
            self._wake.clear()
            news, self._news = self._news, {}
            changed = await self._change(news)
            # Nothing is awaited from here on: whoever joins has seen all of it or none.
            for watcher in list(self.watchers):
                watcher.tell(changed)

    def stop(self) -> None:
        """Hear nothing more."""
        self._stop()

    def _hear(self, news: Mapping[str, bool]) -> None:
        mine = {name: there for name, there in news.items() if name.startswith(self._domain)}
        if mine:
            self._news.update(mine)
            self._wake.set()

    async def _change(self, news: Mapping[str, bool]) -> dict[str, bool]:
        """Take over what fits and is new to us, and return it."""
        known = set(self.names)
        fits = await matching(
            [name for name in news if news[name] is not (name in known)], self._pattern
        )
        changed = {name: news[name] for name in fits}
        if changed:
            names = [name for name in self.names if changed.get(name, True)]
            names += [name for name, there in changed.items() if there]
            if len(names) > HASHED_IN_PLACE_MAX:
                self.names, self.hash = await asyncio.to_thread(_sorted_and_hashed, names)
            else:
                self.names, self.hash = _sorted_and_hashed(names)
        return changed


def _sorted_and_hashed(names: list[str]) -> tuple[list[str], str]:
    names.sort()
    return names, commands.topics_hash(names)


class Views:
    """The views of a door that somebody uses."""

    def __init__(self, port: Port, loop: asyncio.AbstractEventLoop) -> None:
        self._port = port
        self._loop = loop
        self._views: dict[tuple[NamespaceName, str], _Followed] = {}

    def __len__(self) -> int:
        return len(self._views)

    async def use(self, namespace: NamespaceName, pattern: str) -> View:
        """Return the view of a pattern, once it is complete. `leave` gives it back.

        Raises:
            MetadataError: the pattern is no regular expression.
            NamespaceNotFoundError: the tenant or namespace is missing.
            NotAllowedError: too many different patterns are watched.
        """
        key = namespace, pattern
        followed = self._views.get(key)
        if followed is None:
            if len(self._views) >= VIEWS_MAX:
                raise NotAllowedError(
                    f"{VIEWS_MAX} different patterns are watched already; poll for topics instead"
                )
            followed = self._views[key] = _Followed(
                View(self._port, namespace, pattern), self._loop
            )
        view = followed.view
        view.users += 1
        try:
            await asyncio.shield(followed.ready)
        except BaseException:
            self.leave(namespace, pattern, view)
            raise
        return view

    def leave(self, namespace: NamespaceName, pattern: str, view: View) -> None:
        """Give a view back; one that nobody uses is forgotten."""
        view.users -= 1
        followed = self._views.get((namespace, pattern))
        if not view.users and followed is not None and followed.view is view:
            del self._views[namespace, pattern]
            followed.stop()


class _Followed:
    """A view, and the task that keeps it up to date."""

    def __init__(self, view: View, loop: asyncio.AbstractEventLoop) -> None:
        self.view = view
        self.ready: asyncio.Future[None] = loop.create_future()
        self._task = loop.create_task(view.follow(self.ready))
        self._task.add_done_callback(self._ended)

    def stop(self) -> None:
        self.view.stop()
        self._task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            self.ready.cancel()
        elif (error := task.exception()) is None or self.ready.done():
            logger.error("a list of topics is no longer kept up to date", exc_info=error)
        else:
            self.ready.set_exception(error)
            self.ready.exception()  # everybody who waited may have gone


class Watcher:
    """One watcher id of a connection."""

    __slots__ = ("_line", "id", "left", "namespace", "pattern", "stuck", "view")

    def __init__(self, line: Line, command: api.CommandWatchTopicList) -> None:
        self._line = line
        self.id = command.watcher_id
        self.namespace = NamespaceName.parse(command.namespace)
        self.pattern = command.topics_pattern
        self.view: View | None = None
        """None while it is being opened."""
        self.stuck = False
        """The client's socket has enough for now."""
        self.left: dict[str, bool] = {}
        """What is left to tell. Bounded by what the client was told, and what there is."""

    def tell(self, news: Mapping[str, bool]) -> None:
        """Tell the client, or keep it until the client has read something."""
        left = self.left
        for name, there in news.items():
            if left.get(name, there) is there:
                left[name] = there
            else:
                del left[name]  # came and went, and the client knows of neither
        self.send()

    def send(self) -> None:
        """Tell what is left to tell, as far as the client's socket takes it."""
        assert self.view is not None
        while self.left and not self.stuck:
            portion = _portion(self.left)
            for name in portion:
                del self.left[name]
            update = commands.topic_update(
                self.id,
                [name for name, there in portion.items() if there],
                [name for name, there in portion.items() if not there],
                self.view.hash,
            )
            self.stuck = not self._line.deliver([update])

    def answer(self, request_id: int, client_hash: str) -> None:
        """Tell the client all there is, unless its hash says that it knows."""
        assert self.view is not None
        names = [] if self.view.hash == client_hash else self.view.names
        self.left = dict.fromkeys(names, True)
        first = _portion(self.left)
        for name in first:
            del self.left[name]
        self._line.send(commands.topic_list(request_id, self.id, first, self.view.hash))
        self.send()


def _portion(news: Mapping[str, bool]) -> dict[str, bool]:
    """Return as much of the news as fits into one command."""
    return dict(_first_bytes(news.items()))


def _first_bytes(news: Iterable[tuple[str, bool]]) -> Iterator[tuple[str, bool]]:
    room = UPDATE_BYTES_MAX
    for name, there in news:
        if room <= 0:
            return
        room -= len(name)
        yield name, there


class Watchers:
    """All watchers of one connection."""

    __slots__ = ("_by_id", "_line", "_requests", "_views")

    def __init__(self, line: Line, requests: Requests, views: Views) -> None:
        self._line = line
        self._requests = requests
        self._views = views
        self._by_id: dict[int, Watcher] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def open(self, command: api.CommandWatchTopicList) -> None:
        """Answer WATCH_TOPIC_LIST."""
        refuse = partial(commands.error, command.request_id)
        try:
            watcher = self._by_id.get(command.watcher_id)
            if watcher is None:
                # Under its id from now on: CLOSE may follow in the same packet.
                watcher = self._new(command)
                self._requests.start(self._open(watcher, command), refuse)
            else:
                self._again(watcher, command)
        except (PortError, InvalidNameError) as error:
            self._line.send(refuse(server_error(error), str(error)))

    def _new(self, command: api.CommandWatchTopicList) -> Watcher:
        if len(self._by_id) >= WATCHERS_PER_CONNECTION_MAX:
            raise NotAllowedError(
                f"this connection has {WATCHERS_PER_CONNECTION_MAX} watchers, which is the limit"
            )
        watcher = self._by_id[command.watcher_id] = Watcher(self._line, command)
        return watcher

    def _again(self, watcher: Watcher, command: api.CommandWatchTopicList) -> None:
        wanted = NamespaceName.parse(command.namespace), command.topics_pattern
        if watcher.view is None:
            raise ServiceNotReadyError(f"watcher {watcher.id} is being opened")
        if wanted != (watcher.namespace, watcher.pattern):
            raise NotAllowedError(f"watcher {watcher.id} is open, for {watcher.pattern!r}")
        watcher.answer(command.request_id, command.topics_hash)

    async def _open(self, watcher: Watcher, command: api.CommandWatchTopicList) -> None:
        try:
            view = await self._views.use(watcher.namespace, watcher.pattern)
        except BaseException:
            if self._by_id.get(watcher.id) is watcher:
                del self._by_id[watcher.id]
            raise
        if self._by_id.get(watcher.id) is not watcher:
            self._views.leave(watcher.namespace, watcher.pattern, view)
            raise ServiceNotReadyError(f"watcher {watcher.id} was closed while it was opened")
        watcher.view = view
        view.watchers.add(watcher)
        watcher.answer(command.request_id, command.topics_hash)

    def withdraw(self, allowed: Callable[[Sequence[Demand]], bool]) -> None:
        """Tell nothing more of namespaces that the client may not look into any more."""
        for watcher in list(self._by_id.values()):
            if not allowed((Demand(Right.LOOKUP, watcher.namespace),)):
                del self._by_id[watcher.id]
                self._leave(watcher)

    def close(self, command: api.CommandWatchTopicListClose) -> None:
        """Answer WATCH_TOPIC_LIST_CLOSE. An id that is not open is closed already."""
        watcher = self._by_id.pop(command.watcher_id, None)
        if watcher is not None:
            self._leave(watcher)
        self._line.send(commands.success(command.request_id))

    def resume(self) -> None:
        """Go on telling: the socket has room again."""
        for watcher in self._by_id.values():
            if watcher.stuck:
                watcher.stuck = False
                watcher.send()

    def disconnected(self) -> None:
        """Close all: the connection is gone."""
        watchers, self._by_id = self._by_id, {}
        for watcher in watchers.values():
            self._leave(watcher)

    def _leave(self, watcher: Watcher) -> None:
        view = watcher.view
        if view is not None:  # what is still being opened leaves by itself
            view.watchers.discard(watcher)
            self._views.leave(watcher.namespace, watcher.pattern, view)
