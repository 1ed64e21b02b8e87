"""Settings that are changed while the broker runs: durable, and the same in all processes.

    settings/<name>     the value as JSON; no key: what the broker was started with holds

    set ──▶ metadata ──▶ watch, in every process ──▶ its config ──▶ `when_changed`

Only settings that `config` declares live can be set, within their bounds. What is stored and
can no longer be understood, because it was another version that stored it, is left alone.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping

import msgspec

from magnetar.broker.config import LIVE, BrokerConfig, ConfigError, check, share_of
from magnetar.broker.metadata import paths
from magnetar.broker.metadata.store import Delete, Put, Store

logger = logging.getLogger(__name__)

Value = bool | int | float | str

_WORDS = {"true": True, "false": False}


class LiveSettings:
    """The live settings of one process."""

    def __init__(self, store: Store, config: BrokerConfig) -> None:
        """Take the settings as the process was started with them; they are changed in place."""
        self._store = store
        self._config = config
        self._started: dict[str, Value] = {name: getattr(config, name) for name in LIVE}
        self._set: dict[str, Value] = {}
        self._looking: asyncio.Task[None] | None = None
        self.when_changed: Callable[[], None] = _nothing

    # --- what holds

    async def load(self) -> None:
        """Let hold what is stored. Before anything else reads the config."""
        self._apply(await self.stored())

    def watch(self) -> Callable[[], None]:
        """Follow changes, by whichever process, from now on; return how to stop that."""
        return self._store.watch(paths.SETTINGS, lambda _: self._look_soon())

    def _look_soon(self) -> None:
        self._looking = asyncio.get_running_loop().create_task(self._look())

    async def _look(self) -> None:
        before = self._set
        await self.load()
        if self._set != before:
            self.when_changed()

    def _apply(self, found: Mapping[str, Value]) -> None:
        self._set = dict(found)
        workers = self._config.workers
        for name, metadata in LIVE.items():
            value = found.get(name, self._started[name])
            if name in found and metadata["divided"]:
                value = share_of(int(value), workers)
            setattr(self._config, name, value)

    # --- what is set

    async def stored(self) -> dict[str, Value]:
        """Return what is set, by name."""
        found: dict[str, Value] = {}
        for key, each in await self._store.scan(paths.SETTINGS):
            name = key.removeprefix(paths.SETTINGS)
            try:
                found[name] = parse(name, each.value.decode().strip('"'))
            except (ConfigError, UnicodeDecodeError) as error:
                logger.warning("the setting %s is left as it was started with: %s", name, error)
        return found

    async def set(self, name: str, text: str) -> None:
        """Set a live setting, under our name or Pulsar's; durable when it returns.

        Raises:
            ConfigError: there is no such live setting, or the value is out of bounds.
        """
        name = named(name)
        value = parse(name, text)
        await self._store.commit([Put(paths.SETTINGS + name, msgspec.json.encode(value))])

    async def unset(self, name: str) -> None:
        """Let what the broker was started with hold again.

        Raises:
            ConfigError: there is no such live setting.
        """
        await self._store.commit([Delete(paths.SETTINGS + named(name))])

    def in_force(self) -> dict[str, Value]:
        """Return all live settings as they are; those that are divided, for the whole folder."""
        shown: dict[str, Value] = {}
        for name, metadata in LIVE.items():
            value: Value = getattr(self._config, name)
            if metadata["divided"]:
                value = self._set.get(name, value * self._config.workers)
            shown[name] = value
        return shown


def named(name: str) -> str:
    """Return our name of a live setting.

    Raises:
        ConfigError: there is none of that name.
    """
    if name in LIVE:
        return name
    ours = [each for each, metadata in LIVE.items() if name and metadata["pulsar"] == name]
    if ours:
        return ours[0]
    if name in BrokerConfig.__dataclass_fields__:
        raise ConfigError(
            f"{name} is read at the start only: write it into the --config file, or start"
            f" `magnetar standalone` with MAGNETAR_{name.upper()}"
        )
    raise ConfigError(f"there is no live setting {name!r}; brokers/configuration lists them")


def parse(name: str, text: str) -> Value:
    """Return a value of a live setting.

    Raises:
        ConfigError: there is no such live setting, or the value is not one of it.
    """
    if name not in LIVE:
        raise ConfigError(f"there is no live setting {name!r}")
    default = BrokerConfig.__dataclass_fields__[name].default
    if isinstance(default, bool):
        if text.lower() not in _WORDS:
            raise ConfigError(f"{name}: {text[:50]!r} is neither true nor false")
        return _WORDS[text.lower()]
    value: Value
    if isinstance(default, str):
        check(name, text[:50])
        return text
    try:
        value = int(text) if isinstance(default, int) else float(text)
    except ValueError:
        kind = "a whole number" if isinstance(default, int) else "a number"
        raise ConfigError(f"{name}: {text[:50]!r} is not {kind}") from None
    check(name, value)  # which NaN does not pass
    return value


def shown(values: Mapping[str, Value]) -> dict[str, str]:
    """Return settings as texts, as Pulsar shows them, under our names and Pulsar's."""
    told: dict[str, str] = {}
    for name, value in values.items():
        for each in (name, LIVE[name]["pulsar"]):
            if each:
                told[each] = _text(value)
    return told


def _text(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def _nothing() -> None:
    """Stand in for `when_changed` until somebody listens."""
