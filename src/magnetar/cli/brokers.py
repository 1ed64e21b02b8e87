"""`magnetar brokers`: the broker itself, through admin REST."""

from collections.abc import Mapping, Sequence
from typing import Any

import click

from magnetar.cli.verb import Asked, Noun, pass_asked

PROCESS_COLUMNS = ("number", "pid", "serving", "shares", "serviceUrl")


@click.group(cls=Noun)
def brokers() -> None:
    """Ask the broker how it is and what it carries."""


@brokers.command("list")
@pass_asked
def list_brokers(asked: Asked) -> None:
    """List the brokers of the cluster: all processes of a data folder are one."""
    with asked.admin() as admin:
        found = admin.brokers()
    asked.show_names(found)


@brokers.command("processes")
@pass_asked
def processes(asked: Asked) -> None:
    """List the processes of the broker, and how many of the 1,024 shares of topics each has."""
    with asked.admin() as admin:
        found = admin.processes()
    _show_processes(asked, found)


@brokers.command("scale")
@click.argument("count", type=int)
@pass_asked
def scale(asked: Asked, count: int) -> None:
    """Let the broker have COUNT processes from now on, while it serves.

    Topics move without being copied, and clients follow them by themselves. A restart begins with
    as many as --workers says.
    """
    with asked.admin() as admin:
        found = admin.scale(count)
    _show_processes(asked, found)


@brokers.command("health")
@pass_asked
def health(asked: Asked) -> None:
    """Say ok if every process of the broker can do its work; else fail, with the reason."""
    with asked.admin() as admin:
        told = admin.health()
    asked.show_one({"health": told}, told)


@brokers.command("version")
@pass_asked
def version(asked: Asked) -> None:
    """Show which version the broker is."""
    with asked.admin() as admin:
        told = admin.version()
    asked.show_one({"version": told}, told)


@brokers.command("load")
@pass_asked
def load(asked: Asked) -> None:
    """Show what the broker carries at the moment."""
    with asked.admin() as admin:
        told = admin.load_report()
    asked.show_one(told, _load_text(told))


@brokers.command("latency")
@pass_asked
def latency(asked: Asked) -> None:
    """Show how long publishing, syncs and the rest took in the last minute."""
    with asked.admin() as admin:
        told = admin.latencies()
    asked.show_one(told, _latency_text(told))


_SHOWN = ("p50", "p90", "p99", "p99.9", "max")


def _latency_text(told: Mapping[str, Mapping[str, float | None]]) -> str:
    """Return a table in milliseconds."""
    width = max(map(len, told), default=0)
    head = f"{'milliseconds':<{width}} {'count':>11}" + "".join(f"{each:>10}" for each in _SHOWN)
    return "\n".join(
        [
            head,
            *(
                f"{name:<{width}} {each.get('count') or 0:>11,}"
                + "".join(_milliseconds(each.get(column)) for column in _SHOWN)
                for name, each in told.items()
            ),
        ]
    )


def _milliseconds(seconds: float | None) -> str:
    return f"{'-' if seconds is None else format(1000 * seconds, '.3f'):>10}"


def _show_processes(asked: Asked, found: Sequence[Mapping[str, Any]]) -> None:
    # A process id is a name, not an amount: no commas.
    rows = found if asked.json else [{**each, "pid": str(each.get("pid", ""))} for each in found]
    asked.show(rows, PROCESS_COLUMNS)


def _load_text(told: Mapping[str, Any]) -> str:
    """Return the figures that a person looks for first."""
    return "\n".join(
        [
            f"topics         {told.get('numTopics', 0):,} in use",
            f"producers      {told.get('numProducers', 0):,}",
            f"consumers      {told.get('numConsumers', 0):,}",
            f"messages in    {told.get('msgRateIn', 0.0):,.1f}/s",
            f"messages out   {told.get('msgRateOut', 0.0):,.1f}/s",
            f"bytes in       {told.get('msgThroughputIn', 0.0):,.0f}/s",
            f"bytes out      {told.get('msgThroughputOut', 0.0):,.0f}/s",
        ]
    )
