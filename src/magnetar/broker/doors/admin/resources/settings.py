"""Settings of the running broker: which there are, what they are, and how to change them.

    GET                brokers/configuration              the names, ours and Pulsar's
    GET                brokers/configuration/values       what is set     {"name": "text"}
    GET                brokers/configuration/runtime      what holds      {"name": "text"}
    POST, PUT, DELETE  brokers/configuration/{name}[/{value}]

    GET                brokers/configuration/knobs[/{name}]   all there is to know of them
    POST, DELETE       brokers/configuration/{name}[/{value}]?by=operator
    DELETE             brokers/configuration?by=operator      everything that one has set

A change is durable, and holds in every process within a second. Bounds are those of `config`,
and for an operator those of `knobs`. What is beyond Pulsar's is in the second half.
"""

import os
from typing import Any

import msgspec
from starlette.responses import Response

from magnetar.broker.clock import iso_time
from magnetar.broker.config import LIVE, ConfigError
from magnetar.broker.doors.admin.call import Call, answer, done
from magnetar.broker.doors.admin.errors import Refusal
from magnetar.broker.doors.admin.owners import from_all
from magnetar.broker.doors.admin.resources.processes import PROCESSES as PROCESS_LIST
from magnetar.broker.doors.admin.resources.processes import scale_to
from magnetar.broker.doors.admin.routes import ADMIN, Right, Route
from magnetar.broker.knobs import ABSENT, ELSEWHERE, KNOBS, PROCESSES, Elsewhere
from magnetar.broker.metadata.setting_values import Value, default_of, named, shown
from magnetar.broker.metadata.turning import By, Said, Standing

CONFIGURATION = f"{ADMIN}/brokers/configuration"


# --- as in Pulsar -----------------------------------------------------------------------------


async def list_settings(call: Call) -> Response:  # noqa: ARG001 - a handler
    """Return the names of the settings that can be changed."""
    aliases = [metadata["pulsar"] for metadata in LIVE.values() if metadata["pulsar"]]
    return answer([*LIVE, *aliases])


async def get_values(call: Call) -> Response:
    """Return the settings that were changed."""
    return answer(shown(await call.context.settings.stored()))


async def get_runtime(call: Call) -> Response:
    """Return all settings that can be changed, as they are."""
    return answer(shown(call.context.settings.in_force()))


async def set_setting(call: Call) -> Response:
    """Change a setting."""
    by = _by(call)
    name, value = call.parameters["name"], call.parameters["value"]
    if name == PROCESSES.name:
        return await _set_processes(call, by)
    try:
        await call.context.settings.set(name, value, by, call.caller.principal)
    except ConfigError as error:
        raise Refusal(412, str(error)) from None
    return done()


async def unset_setting(call: Call) -> Response:
    """Let what the broker was started with hold again; by an operator: what people had set."""
    by = _by(call)
    try:
        await call.context.settings.unset(call.parameters["name"], by, call.caller.principal)
    except ConfigError as error:
        raise Refusal(412, str(error)) from None
    return done()


async def _set_processes(call: Call, by: By) -> Response:
    count = call.number("value", 1, int(PROCESSES.high))
    if by is By.OPERATOR:
        settings = call.context.settings
        try:
            await settings.judge_processes(count, os.cpu_count() or 1, call.caller.principal)
        except ConfigError as error:
            raise Refusal(412, str(error)) from None
    await scale_to(call, count)
    return done()


# --- knobs ------------------------------------------------------------------------------------


class Reach(msgspec.Struct, rename="camel"):
    """How far an operator may turn a knob."""

    low: float
    high: float
    add: float
    """The largest step that is always allowed, up or down,"""
    times: float
    """... or up to this factor at once,"""
    divided_by: float
    """... or down to this part."""
    interval_s: float
    """The shortest time between two changes."""


class SetBy(msgspec.Struct, rename="camel"):
    """A value, who set it, and when."""

    value: Value
    who: str
    at: str


class InProcess(msgspec.Struct, rename="camel"):
    """What one process runs with."""

    process: int
    value: Value


class KnobShown(msgspec.Struct, rename="camel"):
    """A live setting with everything that is known of it."""

    name: str
    pulsar_name: str
    about: str
    unit: str
    default: Value | None
    value: Value | None
    """What holds, for the whole data folder; null: it is not turned here."""
    low: float | None
    high: float | None
    words: list[str]
    """What is allowed, if it is a word."""
    started: Value | None
    """What the broker was started with."""
    hand: SetBy | None
    """What people have set."""
    operator: SetBy | None
    """What an operator has set, which holds over it."""
    reach: Reach | None
    """Null: it is not for an operator to turn."""
    holds_from: str
    divided: bool
    """Each process has an equal part of it."""
    processes: list[InProcess]
    apply: str
    """The call that changes it; empty: there is none yet, `about` says why."""
    read_back: str


async def list_knobs(call: Call) -> Response:
    """Return all live settings: bounds, steps, who set them, what each process runs with."""
    processes = await from_all(call, lambda: _here(call))
    if call.here:
        return answer(processes[0])
    standing = await call.context.settings.standing()
    known = [_shown(name, standing, processes) for name in LIVE]
    known.append(await _processes(call))
    known += [_elsewhere(each) for each in ELSEWHERE]
    return answer([*known, *(_absent(name, reason) for name, reason in ABSENT.items())])


async def get_knob(call: Call) -> Response:
    """Return one live setting: bounds, steps, who set it, what each process runs with."""
    name = call.parameters["name"]
    for each in ELSEWHERE:
        if each.name == name:
            return answer(_elsewhere(each))
    if name == PROCESSES.name:
        return answer(await _processes(call))
    if name in ABSENT:
        return answer(_absent(name, ABSENT[name]))
    try:
        name = named(name)
    except ConfigError as error:
        raise Refusal(404, str(error)) from None
    processes = await from_all(call, lambda: _here(call), f"{CONFIGURATION}/knobs")
    return answer(_shown(name, await call.context.settings.standing(), processes))


async def let_go(call: Call) -> Response:
    """Let everything that people set hold again; what an operator has set is forgotten."""
    if _by(call) is not By.OPERATOR:
        raise Refusal(412, "?by=operator is missing; people's settings are removed one by one")
    await call.context.settings.hand_back(call.caller.principal)
    return done()


async def _here(call: Call) -> dict[str, Any]:
    return {"process": call.context.config.worker, **call.context.settings.applied()}


def _by(call: Call) -> By:
    word = call.word("by", By.HAND.value)
    try:
        return By(word)
    except ValueError:
        raise Refusal(412, f"by={word[:100]!r}: expected hand or operator") from None


def _shown(name: str, standing: Standing, processes: list[dict[str, Any]]) -> KnobShown:
    metadata = LIVE[name]
    knob = KNOBS.get(name)
    return KnobShown(
        name=name,
        pulsar_name=metadata["pulsar"],
        about="" if knob is None else knob.effect,
        unit=_unit(name) if knob is None else knob.unit,
        default=default_of(name),
        value=standing.value(name),
        low=metadata.get("low"),
        high=metadata.get("high"),
        words=list(metadata.get("words", ())),
        started=standing.started[name],
        hand=_set_by(standing.hand.get(name)),
        operator=_set_by(standing.operator.get(name)),
        reach=knob
        and Reach(
            knob.low, knob.high_on(standing.memory_bytes), knob.add, knob.up, knob.down,
            knob.interval_s,
        ),
        holds_from="now" if knob is None else knob.holds_from,
        divided=metadata["divided"],
        processes=sorted(
            (InProcess(each["process"], each[name]) for each in processes),
            key=lambda each: each.process,
        ),
        apply=f"POST {CONFIGURATION}/{name}/{{value}}",
        read_back=f"GET {CONFIGURATION}/knobs/{name}",
    )  # fmt: skip


def _unit(name: str) -> str:
    """Return the unit that the name of a setting says."""
    known = {"bytes": "bytes", "s": "s", "ms": "ms", "messages": "messages", "percent": "%"}
    words = name.split("_")
    return next((known[word] for word in words if word in known), "")


def _set_by(said: Said | None) -> SetBy | None:
    if said is None:
        return None
    return SetBy(said.value, said.who, iso_time(said.at_ms) if said.at_ms else "")


async def _processes(call: Call) -> KnobShown:
    knob, count = PROCESSES, call.context.config.workers
    last = await call.context.settings.asked_for_processes()
    cores = min(knob.high, os.cpu_count() or 1)
    return KnobShown(
        name=knob.name, pulsar_name="", about=knob.effect, unit=knob.unit, default=1, value=count,
        low=knob.low, high=knob.high, words=[], started=None, hand=None,
        operator=_set_by(last), reach=Reach(knob.low, cores, knob.add, 1, 1, knob.interval_s),
        holds_from=knob.holds_from, divided=False,
        processes=[InProcess(number, count) for number in range(count)],
        apply=f"POST {CONFIGURATION}/{knob.name}/{{value}}", read_back=f"GET {PROCESS_LIST}",
    )  # fmt: skip


def _elsewhere(each: Elsewhere) -> KnobShown:
    return KnobShown(
        name=each.name, pulsar_name=each.field, about=each.effect, unit=each.unit,
        default=None, value=None, low=each.low, high=None, words=[], started=None, hand=None,
        operator=None, reach=None, holds_from="now", divided=True, processes=[],
        apply=f"PUT {each.path}", read_back=f"GET {each.path}",
    )  # fmt: skip


def _absent(name: str, reason: str) -> KnobShown:
    return KnobShown(
        name=name, pulsar_name="", about=reason, unit="", default=None, value=None, low=None,
        high=None, words=[], started=None, hand=None, operator=None, reach=None, holds_from="",
        divided=False, processes=[], apply="", read_back="",
    )  # fmt: skip


_Texts = dict[str, str]
_BY = {"by": str}

ROUTES = [
    Route("GET", CONFIGURATION, list_settings, Right.SUPERUSER, answer=list[str]),
    Route("GET", f"{CONFIGURATION}/values", get_values, Right.SUPERUSER, answer=_Texts),
    Route("GET", f"{CONFIGURATION}/runtime", get_runtime, Right.SUPERUSER, answer=_Texts),
    Route("POST", f"{CONFIGURATION}/{{name}}/{{value}}", set_setting, Right.SUPERUSER, query=_BY),
    Route("PUT", f"{CONFIGURATION}/{{name}}/{{value}}", set_setting, Right.SUPERUSER, query=_BY),
    Route("DELETE", f"{CONFIGURATION}/{{name}}", unset_setting, Right.SUPERUSER, query=_BY),
    Route("GET", f"{CONFIGURATION}/knobs", list_knobs, Right.SUPERUSER, answer=list[KnobShown]),
    Route("GET", f"{CONFIGURATION}/knobs/{{name}}", get_knob, Right.SUPERUSER, answer=KnobShown),
    Route("DELETE", CONFIGURATION, let_go, Right.SUPERUSER, query=_BY),
]
