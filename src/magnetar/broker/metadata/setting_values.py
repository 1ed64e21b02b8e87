"""Values of live settings: what they are called, how they are read from text and shown. Pure.

dispatch_entries_max          17            ours
dispatcherMaxReadBatchSize    17            Pulsar's, of the same meaning
managedLedgerCacheSizeMB      64            Pulsar's, in another unit: 67,108,864 bytes
"""

import math
from collections.abc import Mapping
from typing import Any, cast

from magnetar.broker.config import LIVE, BrokerConfig, ConfigError, check
from magnetar.broker.knobs import ABSENT, ELSEWHERE, PROCESSES

Value = bool | int | float | str

_WORDS = {"true": True, "false": False}
_OURS = {metadata["pulsar"]: name for name, metadata in LIVE.items() if metadata["pulsar"]}
_ELSEWHERE = {each.name: each for each in ELSEWHERE}


def named(name: str) -> str:
    """Return our name of a live setting.

    Raises:
        ConfigError: there is none of that name.
    """
    if name in LIVE:
        return name
    if name in _OURS:
        return _OURS[name]
    if name == PROCESSES.name:
        raise ConfigError(f"{name} is never unset: say how many there should be")
    if name in ABSENT:
        raise ConfigError(f"{name} cannot be set: {ABSENT[name]}")
    if name in _ELSEWHERE:
        other = _ELSEWHERE[name]
        raise ConfigError(f"{name} is one per tenant: PUT {other.path} with {other.field}")
    if name in BrokerConfig.__dataclass_fields__:
        raise ConfigError(
            f"{name} is read at the start only: write it into the --config file, or start"
            f" `magnetar standalone` with MAGNETAR_{name.upper()}"
        )
    raise ConfigError(f"there is no live setting {name[:200]!r}; brokers/configuration lists them")


def parse(name: str, text: str) -> Value:
    """Return a value of a live setting, which is given under our name or Pulsar's, in its unit.

    Raises:
        ConfigError: there is no such live setting, or the value is not one of it.
    """
    ours = named(name)
    default = BrokerConfig.__dataclass_fields__[ours].default
    if isinstance(default, bool):
        if text.lower() not in _WORDS:
            raise ConfigError(f"{name}: {text[:50]!r} is neither true nor false")
        return _WORDS[text.lower()]
    if isinstance(default, str):
        check(ours, text[:50])
        return text
    unit = LIVE[ours]["pulsar_unit"] if ours != name else 1
    value = _number(name, text, whole=isinstance(default, int)) * unit
    check(ours, value)  # which NaN does not pass
    return value


def _number(name: str, text: str, *, whole: bool) -> int | float:
    try:
        value = int(text) if whole else float(text)
    except ValueError:
        kind = "a whole number" if whole else "a number"
        raise ConfigError(f"{name}: {text[:50]!r} is not {kind}") from None
    return value


def default_of(name: str) -> Value:
    """Return the default of a live setting."""
    return cast(Value, BrokerConfig.__dataclass_fields__[name].default)


def of_kind(name: str, value: object) -> Value:
    """Return a value that was stored, if it still is one of a live setting.

    Raises:
        ConfigError: it is not.
    """
    default = BrokerConfig.__dataclass_fields__[name].default if name in LIVE else None
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if default is None or type(value) is not type(default):
        raise ConfigError(f"there is no live setting {name[:200]!r} that {value!r} would be one of")
    check(name, value)
    assert isinstance(value, bool | int | float | str)
    return value


def shown(values: Mapping[str, Value]) -> dict[str, str]:
    """Return settings as texts, as Pulsar shows them, under our names and Pulsar's."""
    told: dict[str, str] = {}
    for name, value in values.items():
        told[name] = text_of(value)
        metadata: Mapping[str, Any] = LIVE[name]
        if metadata["pulsar"]:
            told[metadata["pulsar"]] = text_of(_in_unit(value, metadata["pulsar_unit"]))
    return told


def _in_unit(value: Value, unit: float) -> Value:
    if unit == 1 or isinstance(value, str):
        return value
    return math.floor(value / unit)


def text_of(value: Value) -> str:
    """Return a value as a person would write it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.12g}" if isinstance(value, float) else str(value)
