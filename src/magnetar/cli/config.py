"""`magnetar config`: settings of a running broker, through admin REST.

A Magnetar broker says of each how far it may be turned, who set it, and what each of its
processes runs with. A Pulsar broker says only what they are; then that is shown.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from magnetar.cli.errors import CommandError, ExitCode
from magnetar.cli.verb import Asked, Noun, Row, pass_asked
from magnetar.client.rest import AdminError

_COLUMNS = ("setting", "value", "unit", "allowed", "set_by", "processes")
_PLAIN = ("setting", "value")


@click.group(cls=Noun)
def config() -> None:
    """See and change settings while the broker runs."""


@config.command("list")
@click.option("--changed", is_flag=True, help="Only those that were changed.")
@pass_asked
def list_settings(asked: Asked, changed: bool) -> None:
    """List the settings that may change while the broker runs, as they are."""
    with asked.admin() as admin:
        try:
            knobs = admin.knobs()
        except AdminError as error:
            if error.status not in {404, 405}:
                raise
            found = admin.settings(changed=changed)
            plain = [{"setting": name, "value": value} for name, value in sorted(found.items())]
            asked.show(plain, _PLAIN)
            return
    if changed:
        knobs = [each for each in knobs if each["hand"] or each["operator"]]
    rows = [_row(each) for each in knobs]
    if asked.json or not sys.stdout.isatty():
        asked.show(rows, _COLUMNS)
    else:
        _draw(rows)


@config.command("get")
@click.argument("setting")
@pass_asked
def get_setting(asked: Asked, setting: str) -> None:
    """Show a SETTING as it is."""
    with asked.admin() as admin:
        found = admin.settings()
    if setting not in found:
        raise CommandError(
            f"there is no live setting {setting!r}",
            "`magnetar config list` names them",
            ExitCode.NOT_FOUND,
        )
    asked.show_one({setting: found[setting]}, found[setting])


@config.command("describe")
@click.argument("setting")
@pass_asked
def describe_setting(asked: Asked, setting: str) -> None:
    """Show everything that is known of a SETTING: bounds, steps, who set it, what is in use."""
    with asked.admin() as admin:
        knob = admin.knob(setting)
    asked.show_one(knob, _description(knob))


@config.command("set")
@click.argument("setting")
@click.argument("value")
@click.option("--operator", is_flag=True, help="As a program would: in small steps, see describe.")
@pass_asked
def set_setting(asked: Asked, setting: str, value: str, operator: bool) -> None:
    """Change a SETTING to a VALUE, for good and in all processes of the broker."""
    with asked.admin() as admin:
        admin.set_setting(setting, value, operator=operator)
    asked.show_one({setting: value}, f"{setting} is {value}")


@config.command("unset")
@click.argument("setting", required=False)
@click.option(
    "--operator", is_flag=True, help="Only what a program set; of all settings if none is named."
)
@pass_asked
def unset_setting(asked: Asked, setting: str | None, operator: bool) -> None:
    """Let what the broker was started with hold again for a SETTING."""
    if setting is None and not operator:
        raise click.UsageError("name a SETTING, or say --operator for all that a program set")
    with asked.admin() as admin:
        if setting is None:
            admin.hand_back()
        else:
            admin.unset_setting(setting, operator=operator)
    if setting is None:
        asked.show_one({}, "everything is as people set it")
    else:
        before = "people set it" if operator else "it was started with"
        asked.show_one({setting: None}, f"{setting} is as {before}")


# --- for people ---------------------------------------------------------------------------------


def _row(knob: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "setting": knob["name"],
        "value": _text(knob["value"]),
        "unit": knob["unit"],
        "allowed": _allowed(knob),
        "set_by": _setter(knob),
        "processes": " ".join(_text(each["value"]) for each in knob["processes"]),
    }


def _allowed(knob: Mapping[str, Any]) -> str:
    if not knob["apply"]:
        return "not built yet"
    if knob["value"] is None:
        return f"per tenant: {knob['apply']}"
    if knob["words"]:
        return " ".join(knob["words"])
    if knob["low"] is None:
        return "true or false"
    return f"{_text(knob['low'])} to {_text(knob['high'])}"


def _setter(knob: Mapping[str, Any]) -> str:
    for by in ("operator", "hand"):
        said = knob[by]
        if said:
            who = f" ({said['who']})" if said["who"] else ""
            return f"{by}{who} {said['at']}".rstrip()
    return ""


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.12g}"
    return str(value)


def _description(knob: Mapping[str, Any]) -> str:
    reach = knob["reach"]
    lines = [
        (knob["name"], knob["about"]),
        ("in Pulsar", knob["pulsarName"]),
        ("value", f"{_text(knob['value'])} {knob['unit']}".strip()),
        ("started with", _text(knob["started"])),
        ("default", _text(knob["default"])),
        ("allowed", _allowed(knob)),
        ("set by", _setter(knob)),
        ("people's value", _text(knob["hand"] and knob["hand"]["value"])),
        ("an operator", _reach(reach) if reach else "may not turn it"),
        ("holds from", knob["holdsFrom"]),
        *((f"process {each['process']}", _text(each["value"])) for each in knob["processes"]),
        ("change it", knob["apply"]),
        ("read it back", knob["readBack"]),
    ]
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:<{width}}  {told}" for name, told in lines if told)


def _reach(reach: Mapping[str, Any]) -> str:
    steps = [f"x{_text(reach['times'])} or /{_text(reach['dividedBy'])}"]
    if reach["add"]:
        steps.insert(0, f"{_text(reach['add'])}")
    return (
        f"{_text(reach['low'])} to {_text(reach['high'])}, in steps of {' or '.join(steps)},"
        f" {_text(reach['intervalS'])} s apart"
    )


def _draw(rows: Sequence[Row]) -> None:
    # Imported here: rich costs more to import than most commands need in all.
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    drawn = Table(box=None, header_style="bold", pad_edge=False)
    for column in _COLUMNS:
        drawn.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        changed = "bold" if row["set_by"] else None
        drawn.add_row(*(str(row[column]) for column in _COLUMNS), style=changed)
    Console(markup=False, highlight=False).print(drawn)
