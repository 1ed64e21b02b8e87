"""Settings that are changed while the broker runs: durable, and the same in all processes.

    settings/<name>     what people set; no key: what the broker was started with holds
    operated/<name>     what an operator set, which holds over it

    set ──▶ waiting ──▶ one commit for all that wait ──▶ watch, in every process
                                                          └──▶ its config ──▶ `when_changed`

Only settings that `config` declares live can be set, within their bounds. Changes are judged one
after the other (see `turning`), and those that come while one commit is written go into the next
together: a knob that is turned a thousand times in a second costs a few commits. Every process
takes over what it finds at most twenty times in a second, and the last value wins. What is stored
and can no longer be understood, because it was another version that stored it, is left alone.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace

from magnetar.broker.clock import Clock, SystemClock
from magnetar.broker.config import LIVE, BrokerConfig, ConfigError, share_of
from magnetar.broker.knobs import PROCESSES
from magnetar.broker.metadata import paths
from magnetar.broker.metadata.setting_values import Value
from magnetar.broker.metadata.store import Change as StoreChange
from magnetar.broker.metadata.store import Check, ConflictError, Delete, Put, Store, StoreError
from magnetar.broker.metadata.turning import (
    By,
    Change,
    Said,
    Standing,
    decode,
    decode_number,
    demand_pause,
    demand_small_step,
)
from magnetar.broker.port import TooManyRequestsError

logger = logging.getLogger(__name__)

WAITING_MAX = 2_000
"""Changes that wait for a commit. More are refused: nobody turns knobs that fast for a reason."""
GROUP_MAX = 64
"""Changes in one commit: judging them must not hold up the loop."""
ATTEMPTS_MAX = 8
"""Times that a commit is tried again, because another process was faster."""
PAUSE_S = 0.05
"""Between two times that a process takes over what is stored."""


class TooManyChangesError(TooManyRequestsError):
    """More changes wait than will be remembered."""


class LiveSettings:
    """The live settings of one process."""

    def __init__(
        self,
        store: Store,
        config: BrokerConfig,
        *,
        clock: Clock | None = None,
        memory_bytes: int = 0,
    ) -> None:
        """Take the settings as the process was started with them; they are changed in place.

        `memory_bytes` is what the machine has; 0: it is not known.
        """
        self._store = store
        self._config = config
        self._clock = clock or SystemClock()
        self._started: dict[str, Value] = {name: getattr(config, name) for name in LIVE}
        whole = {
            name: int(value) * config.workers if LIVE[name]["divided"] else value
            for name, value in self._started.items()
        }
        self._standing = Standing(whole, memory_bytes=memory_bytes, workers=config.workers)
        self._looking: asyncio.Task[None] | None = None
        self._look_again = False
        self._waiting: list[tuple[Change, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None
        self.when_changed: Callable[[frozenset[str]], None] = _nothing
        """Called with the names of settings that have another value now."""
        self.read_back: Callable[[], dict[str, Value]] = _no_values
        """Returns what is in use, of settings that are not read from the config each time."""

    # --- what holds

    async def load(self) -> None:
        """Let hold what is stored. Before anything else reads the config."""
        self._apply((await self._stored())[0])

    def watch(self) -> Callable[[], None]:
        """Follow changes, by whichever process, from now on; return how to stop that."""
        stops = [
            self._store.watch(prefix, lambda _: self._look_soon())
            for prefix in (paths.SETTINGS, paths.OPERATED)
        ]

        def stop() -> None:
            for each in stops:
                each()

        return stop

    def _look_soon(self) -> None:
        self._look_again = True
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._look())

    async def _look(self) -> None:
        try:
            while self._look_again:
                self._look_again = False
                before = self._from_config()
                await self.load()
                after = self._from_config()
                changed = frozenset(name for name in LIVE if after[name] != before[name])
                if changed:
                    self.when_changed(changed)
                await asyncio.sleep(PAUSE_S)
        except StoreError as error:
            logger.warning("settings are as they were, until one is changed again: %s", error)
        finally:
            self._looking = None

    def _apply(self, standing: Standing) -> None:
        self._standing = standing
        found, workers = standing.all_set(), self._config.workers
        for name, metadata in LIVE.items():
            value = found.get(name, self._started[name])
            if name in found and metadata["divided"]:
                value = share_of(int(value), workers)
            setattr(self._config, name, value)

    def divide(self, workers: int, started: Mapping[str, Value]) -> None:
        """Share with so many processes from now on; `started`: a part of what is divided."""
        self._config.workers = workers
        for name, value in started.items():
            if name in self._started:
                self._started[name] = value
            else:
                setattr(self._config, name, value)
        self._apply(replace(self._standing, workers=workers))

    # --- what is set

    async def _stored(self) -> tuple[Standing, int | None]:
        """Return how it stands in the store, and the version of that."""
        version = await self._store.get(paths.SETTINGS_CHANGED)
        hand = await self._said(paths.SETTINGS)
        operator = await self._said(paths.OPERATED)
        standing = replace(self._standing, hand=hand, operator=operator)
        return standing, None if version is None else version.version

    async def _said(self, prefix: str) -> dict[str, Said]:
        found: dict[str, Said] = {}
        for key, each in await self._store.scan(prefix):
            name = key.removeprefix(prefix)
            try:
                found[name] = decode(name, each.value)
            except ConfigError as error:
                logger.warning("the setting %s is left as it was started with: %s", name, error)
        return found

    async def stored(self) -> dict[str, Value]:
        """Return what is set, by name: by people, or over that by an operator."""
        return (await self._stored())[0].all_set()

    async def standing(self) -> Standing:
        """Return what is set, by whom and since when."""
        return (await self._stored())[0]

    async def set(self, name: str, text: str, by: By = By.HAND, who: str = "") -> None:
        """Set a live setting, under our name or Pulsar's; durable when it returns.

        Raises:
            ConfigError: there is no such live setting, the value is out of bounds, too far away
                for an operator, or contradicts another setting.
            TooManyChangesError: so many changes wait already.
        """
        await self._change(Change(name, text, by, who, self._clock.wall_ms()))

    async def unset(self, name: str, by: By = By.HAND, who: str = "") -> None:
        """Let hold again what was before: for people what the broker was started with.

        Raises:
            ConfigError: there is no such live setting, or it would contradict another one then.
            TooManyChangesError: so many changes wait already.
        """
        await self._change(Change(name, None, by, who, self._clock.wall_ms()))

    async def hand_back(self, who: str = "") -> None:
        """Let everything that people set hold again; an operator has set nothing.

        Raises:
            TooManyChangesError: so many changes wait already.
        """
        await self._change(Change(None, None, By.OPERATOR, who, self._clock.wall_ms()))

    async def _change(self, change: Change) -> None:
        if len(self._waiting) >= WAITING_MAX:
            raise TooManyChangesError(
                f"{WAITING_MAX} changes of settings wait already: change them less often"
            )
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._waiting.append((change, future))
        if self._writing is None:
            self._writing = loop.create_task(self._write())
        await future

    async def _write(self) -> None:
        """Write what waits, until nothing does."""
        while self._waiting:
            group, self._waiting = self._waiting[:GROUP_MAX], self._waiting[GROUP_MAX:]
            try:
                outcomes = await self._write_group([change for change, _ in group])
            except Exception as error:  # noqa: BLE001 - whoever waits for the future gets it
                outcomes = [error] * len(group)
            for (_, future), outcome in zip(group, outcomes, strict=True):
                if future.done():  # the caller was cancelled
                    continue
                if outcome is None:
                    future.set_result(None)
                else:
                    future.set_exception(outcome)
        self._writing = None

    async def _write_group(self, changes: list[Change]) -> list[Exception | None]:
        """Judge changes one after the other, and make those durable that are allowed."""
        for _ in range(ATTEMPTS_MAX):
            before, version = await self._stored()
            after, outcomes = _judge(before, changes)
            writes = _difference(before, after)
            if not writes:
                return outcomes
            check = Check(paths.SETTINGS_CHANGED, version)
            try:
                await self._store.commit([check, Put(paths.SETTINGS_CHANGED, b""), *writes])
            except ConflictError:
                continue  # another process was faster
            return outcomes
        raise StoreError("other processes change settings all the time: try again")

    # --- how many processes there are, which is no setting

    async def judge_processes(self, wanted: int, cores: int, who: str) -> None:
        """See that an operator may have so many processes now; that is remembered.

        Raises:
            ConfigError: too many, too far from what there are, or too soon.
        """
        high = min(PROCESSES.high, max(cores, 1))
        demand_small_step(PROCESSES, self._config.workers, wanted, high)
        now_ms = self._clock.wall_ms()
        last = await self.asked_for_processes()
        if last is not None:
            demand_pause(PROCESSES, last.at_ms, now_ms)
        said = Said(wanted, who, now_ms)
        await self._store.commit([Put(paths.PROCESSES_CHANGED, said.encode())])

    async def asked_for_processes(self) -> Said | None:
        """Return how many an operator last asked for; None: none did."""
        found = await self._store.get(paths.PROCESSES_CHANGED)
        return None if found is None else decode_number(found.value)

    def in_force(self) -> dict[str, Value]:
        """Return all live settings as they are; those that are divided, for the whole folder."""
        return {name: self._standing.value(name) for name in LIVE}

    def applied(self) -> dict[str, Value]:
        """Return what this process runs with: of what is divided, its own part."""
        return self._from_config() | self.read_back()

    def _from_config(self) -> dict[str, Value]:
        return {name: getattr(self._config, name) for name in LIVE}


def _judge(before: Standing, changes: list[Change]) -> tuple[Standing, list[Exception | None]]:
    standing, outcomes = before, list[Exception | None]()
    for change in changes:
        try:
            standing = standing.after(change)
        except ConfigError as error:
            outcomes.append(error)
        else:
            outcomes.append(None)
    return standing, outcomes


def _difference(before: Standing, after: Standing) -> list[StoreChange]:
    """Return what has to be written."""
    writes: list[StoreChange] = []
    for prefix, old, new in (
        (paths.SETTINGS, before.hand, after.hand),
        (paths.OPERATED, before.operator, after.operator),
    ):
        writes += [Delete(prefix + name) for name in old if name not in new]
        writes += [
            Put(prefix + name, said.encode()) for name, said in new.items() if old.get(name) != said
        ]
    return writes


def _nothing(_: frozenset[str]) -> None:
    """Stand in for `when_changed` until somebody listens."""


def _no_values() -> dict[str, Value]:
    """Stand in for `read_back` until somebody has any."""
    return {}
