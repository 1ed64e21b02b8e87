"""Settings of a broker: a TOML file, then the environment, then flags. The later one wins.

    magnetar.toml                 environment                    flag
    workers = 2                   MAGNETAR_WORKERS=2             --workers 2
    [settings]
    journal_window_ms = 0.5       MAGNETAR_JOURNAL_WINDOW_MS=0.5
    [listeners]
    outside = "broker.example"    MAGNETAR_LISTENERS=outside=broker.example,...

What the command line calls a flag is a key at the top of the file. Every field of
`BrokerConfig` is a key under `[settings]`. In the environment both have the same form.
Pure: text in, values out. Bounds are checked where the settings are used.
"""

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

PREFIX = "MAGNETAR_"
NOT_SETTINGS = frozenset(
    {
        "MAGNETAR_ADMIN_URL",
        "MAGNETAR_BASIC",
        "MAGNETAR_CLIENT_CERTIFICATE",
        "MAGNETAR_CLIENT_KEY",
        "MAGNETAR_CONFIG",
        "MAGNETAR_TLS_TRUST_CERTS",
        "MAGNETAR_TOKEN",
        "MAGNETAR_TOKEN_FILE",
        "MAGNETAR_URL",
    }
)
"""Variables of the same name space that other commands read."""

Kinds = Mapping[str, type]
"""Name of a setting -> bool, int, float or str."""


class SettingsError(ValueError):
    """A setting makes no sense. The message names it, and where it came from."""


@dataclass(frozen=True, slots=True)
class Merged:
    """What was asked for, wherever it was said."""

    options: Mapping[str, Any]
    """Values of the command's own options."""
    settings: Mapping[str, Any]
    """Fields of the broker's config."""
    listeners: Mapping[str, str] = field(default_factory=dict[str, str])
    unknown_variables: tuple[str, ...] = ()
    """Environment variables with our prefix that mean nothing. Perhaps a typing error."""


def merge(
    options: Kinds,
    settings: Kinds,
    *,
    file: str = "",
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Merged:
    """Return the settings that hold.

    Args:
        options: The command's own options, such as `workers`, and what they hold.
        settings: The fields of the broker's config.
        file: Text of the TOML file.
        environment: Environment variables.
        flags: Values of flags, of either; None: the flag was not given.

    Raises:
        SettingsError: the file is no TOML, or a value does not fit its setting.
    """
    told = _parse(file)
    chosen, tuned, listeners = (
        _top(told, options),
        _table(told, "settings", settings),
        _listeners(told.get("listeners", {})),
    )
    unknown: list[str] = []
    for variable, text in sorted((environment or {}).items()):
        name = variable.removeprefix(PREFIX).lower()
        if not variable.startswith(PREFIX) or variable in NOT_SETTINGS:
            continue
        if name == "listeners":
            pairs = (each.partition("=") for each in text.split(",") if each)
            listeners |= {key: host for key, _, host in pairs}
        elif name in options:
            chosen[name] = _from_text(variable, text, options[name])
        elif name in settings:
            tuned[name] = _from_text(variable, text, settings[name])
        else:
            unknown.append(variable)
    for name, value in (flags or {}).items():
        if value is not None:
            (tuned if name in settings else chosen)[name] = value
    return Merged(chosen, tuned, listeners, tuple(unknown))


def kinds_of(fields: Mapping[str, Any], leave_out: Iterable[str] = ()) -> dict[str, type]:
    """Return what each field of a dataclass holds, from its annotation."""
    left_out = set(leave_out)
    return {
        name: each.type
        for name, each in fields.items()
        if each.type in _WORDS and name not in left_out
    }


def _parse(file: str) -> dict[str, Any]:
    try:
        return tomllib.loads(file)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"the settings file is no TOML: {error}") from None


def _top(told: Mapping[str, Any], options: Kinds) -> dict[str, Any]:
    mine = {name: value for name, value in told.items() if name not in {"settings", "listeners"}}
    return {name: _fit(name, value, _kind(name, options)) for name, value in mine.items()}


def _table(told: Mapping[str, Any], table: str, kinds: Kinds) -> dict[str, Any]:
    values = told.get(table, {})
    if not isinstance(values, dict):
        raise SettingsError(f"[{table}] in the settings file is no table")
    return {name: _fit(name, value, _kind(name, kinds)) for name, value in values.items()}


def _listeners(values: Any) -> dict[str, str]:
    if not isinstance(values, dict) or not all(isinstance(each, str) for each in values.values()):
        raise SettingsError("[listeners] in the settings file: expected name = address")
    return dict(values)


def _kind(name: str, kinds: Kinds) -> type:
    if name in kinds:
        return kinds[name]
    close = difflib.get_close_matches(name, kinds, n=1)
    hint = f", did you mean {close[0]}?" if close else ""
    raise SettingsError(f"unknown setting {name} in the settings file{hint}")


def _fit(name: str, value: Any, kind: type) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if name == "workers" and value == "auto":
        return value
    if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise SettingsError(f"{name} in the settings file is {value!r}, expected {_WORDS[kind]}")


def _from_text(variable: str, text: str, kind: type) -> Any:
    if variable == PREFIX + "WORKERS" and text == "auto":
        return text
    if kind is bool and text.lower() in _BOOLS:
        return _BOOLS[text.lower()]
    try:
        if kind is not bool:
            return kind(text)
    except ValueError:
        pass
    raise SettingsError(f"{variable} is {text!r}, expected {_WORDS[kind]}")


_WORDS: dict[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
}
_BOOLS = {"true": True, "1": True, "yes": True, "on": True}
_BOOLS |= {"false": False, "0": False, "no": False, "off": False}
