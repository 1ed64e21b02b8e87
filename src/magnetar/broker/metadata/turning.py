"""What becomes of live settings when somebody turns one. Pure.

    started with ◀── by hand ◀── by an operator          what lies further right holds

    by hand, set      holds at once; what an operator had set of it is forgotten
    by hand, unset    what the process was started with holds again
    operator, set     within `knobs`: bounds, step, pause. What people had set is kept below it
    operator, unset   what people had set holds again: this is its kill switch

Whatever people set goes together with whatever else people set, so that the kill switch always
leads to settings that go together.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, NamedTuple

import msgspec

from magnetar.broker.config import ConfigError
from magnetar.broker.knobs import KNOBS, Knob, conflicts
from magnetar.broker.metadata.setting_values import Value, named, of_kind, parse, text_of


class By(Enum):
    """On whose behalf a setting is changed."""

    HAND = "hand"
    OPERATOR = "operator"


class Said(NamedTuple):
    """A value, who set it, and when."""

    value: Value
    who: str = ""
    at_ms: int = 0

    def encode(self) -> bytes:
        """Return it as it is stored."""
        return msgspec.json.encode({"value": self.value, "who": self.who, "at_ms": self.at_ms})


def decode(name: str, data: bytes) -> Said:
    """Return what was stored: with who set it, or, by older versions, the bare value.

    Raises:
        ConfigError: it cannot be understood, because it was another version that stored it.
    """
    try:
        found: Any = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name}: {error}") from None
    if not isinstance(found, dict):
        return Said(of_kind(name, found))
    who, at_ms = found.get("who", ""), found.get("at_ms", 0)
    if not isinstance(who, str) or not isinstance(at_ms, int):
        raise ConfigError(f"{name}: who set it, and when, cannot be read")
    return Said(of_kind(name, found.get("value")), who, at_ms)


def decode_number(data: bytes) -> Said | None:
    """Return a whole number that was stored with who set it; None: it cannot be understood."""
    try:
        found = msgspec.json.decode(data, type=dict[str, Any])
        return Said(int(found["value"]), str(found["who"]), int(found["at_ms"]))
    except (msgspec.DecodeError, KeyError, TypeError, ValueError):
        return None


class Change(NamedTuple):
    """One wish. `text` None: unset; `name` None: everything that the operator has set."""

    name: str | None
    text: str | None
    by: By
    who: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Standing:
    """What is set, and by whom."""

    started: Mapping[str, Value]
    """What the process was started with; what is divided, for the whole data folder."""
    hand: Mapping[str, Said] = field(default_factory=dict[str, Said])
    operator: Mapping[str, Said] = field(default_factory=dict[str, Said])
    memory_bytes: int = 0
    workers: int = 1

    def said(self, name: str) -> Said | None:
        """Return what holds of a setting, if anybody set it."""
        return self.operator.get(name) or self.hand.get(name)

    def all_set(self) -> dict[str, Value]:
        """Return what holds of every setting that anybody set."""
        found = {**self.hand, **self.operator}
        return {name: said.value for name, said in found.items()}

    def after(self, change: Change) -> "Standing":
        """Return how it stands after a change.

        Raises:
            ConfigError: it is refused. The message says why, and what to do.
        """
        if change.name is None:
            return replace(self, operator={})
        name = named(change.name)
        if change.text is None:
            stands = self._without(name, change.by)
        else:
            said = Said(parse(change.name, change.text), change.who, change.at_ms)
            stands = self._with(name, said, change.by)
        if change.by is By.HAND or change.text is not None:
            self._demand_peace(stands, name, change.by)
        return stands

    def _without(self, name: str, by: By) -> "Standing":
        operator = {each: said for each, said in self.operator.items() if each != name}
        if by is By.OPERATOR:
            return replace(self, operator=operator)
        hand = {each: said for each, said in self.hand.items() if each != name}
        return replace(self, hand=hand, operator=operator)

    def _with(self, name: str, said: Said, by: By) -> "Standing":
        if by is By.OPERATOR:
            self._demand_small_step(name, said)
            return replace(self, operator={**self.operator, name: said})
        stands = self._without(name, By.OPERATOR)
        return replace(stands, hand={**self.hand, name: said})

    def _demand_small_step(self, name: str, said: Said) -> None:
        knob = KNOBS.get(name)
        if knob is None:
            raise ConfigError(f"{name} is not for an operator to set: only people may")
        assert not isinstance(said.value, str)
        last, before = self.operator.get(name), self.value(name)
        assert not isinstance(before, str)
        high = knob.high_on(self.memory_bytes)
        demand_small_step(knob, before, said.value, high)
        if last is not None:
            demand_pause(knob, last.at_ms, said.at_ms)

    def value(self, name: str) -> Value:
        """Return what holds of a setting."""
        said = self.said(name)
        return self.started[name] if said is None else said.value

    def _demand_peace(self, stands: "Standing", name: str, by: By) -> None:
        held = {**stands.started, **stands.all_set()}
        by_hand = {**stands.started, **{each: said.value for each, said in stands.hand.items()}}
        for values in (held, by_hand) if by is By.HAND else (held,):
            for each in conflicts(_numbers(values), stands.memory_bytes, stands.workers):
                if name in each.names:
                    raise ConfigError(each.advice)


def demand_small_step(knob: Knob, before: float, wanted: float, high: float) -> None:
    """See that an operator turns a knob within its bounds, `high` being the upper one, and not far.

    Raises:
        ConfigError: it does not.
    """
    if not knob.low <= wanted <= high:
        raise ConfigError(
            f"{knob.name} is {text_of(wanted)}, an operator may set {knob.low:g} to {high:g}"
        )
    # From outside of its bounds, where people have put it, an operator may come to the next.
    start = min(max(before, knob.low), high)
    if not (knob.allows(before, wanted) or wanted == start):
        raise ConfigError(_step_text(knob, start, wanted, high))


def demand_pause(knob: Knob, last_ms: int, now_ms: int) -> None:
    """See that an operator has waited since it last turned a knob.

    A clock that was set back holds nobody up.

    Raises:
        ConfigError: it has not.
    """
    wait_ms = last_ms + knob.interval_s * 1000 - now_ms
    if 0 < wait_ms <= knob.interval_s * 1000:
        raise ConfigError(
            f"{knob.name} was changed {now_ms - last_ms} ms ago: an operator waits"
            f" {knob.interval_s:g} s between two changes, another {wait_ms / 1000:.1f} s"
        )


def _numbers(values: Mapping[str, Value]) -> dict[str, float]:
    return {name: value for name, value in values.items() if not isinstance(value, str)}


def _step_text(knob: Knob, start: float, wanted: Value, high: float) -> str:
    low_next = max(min(start - knob.add, start / knob.down), knob.low)
    high_next = min(max(start + knob.add, start * knob.up), high)
    return (
        f"{knob.name} is {text_of(start)}, and {text_of(wanted)} is too far for one step of an"
        f" operator: {low_next:.12g} to {high_next:.12g} is allowed"
    )
