"""A command of the command line: the options that all have, and the boundary of errors.

    --url, --admin-url    where the broker is (MAGNETAR_URL, MAGNETAR_ADMIN_URL)
    --output text|json    for people or for programs
    --debug               a traceback, and the client's own log on standard error

A command function gets them as one `Asked`. Whatever it raises leaves `Verb` as a
`CommandError`: one line, never a traceback, unless `--debug` asks for one.
"""

import json
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from magnetar.cli.errors import START_ONE, CommandError, ExitCode, explain, write_out
from magnetar.client.address import DEFAULT_URL, admin_url_beside, service_addresses
from magnetar.client.admin import Admin, AdminError
from magnetar.names import InvalidNameError, TopicName

if TYPE_CHECKING:
    from magnetar.client.cluster import Cluster

DIAL_TIMEOUT_S = 5.0
"""How long to wait for somebody to answer at the address before saying that nobody does."""

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """What every command may be asked for."""

    url: str = DEFAULT_URL
    admin_url: str | None = None
    output: str = "text"
    debug: bool = False

    @property
    def json(self) -> bool:
        """Whether a program reads the output."""
        return self.output == "json"

    def cluster(self) -> "Cluster":
        """Return the cluster, once somebody answers at its address.

        The official client tries for half a minute before it gives up; a person who mistyped
        a port should not wait for that.

        Raises:
            CommandError: nobody answers.
        """
        from magnetar.client.cluster import Cluster  # noqa: PLC0415 - loads the official client

        _dial(self.url, service_addresses(self.url))
        return Cluster(self.url, self.admin_url, log="/dev/stderr" if self.debug else "/dev/null")

    def admin(self) -> "Admin":
        """Return admin REST of the cluster."""
        return Admin(self.admin_url or admin_url_beside(self.url))

    def remark(self, text: str) -> None:
        """Tell people something on the way. Programs are told about the end only."""
        if not self.json:
            click.echo(f"magnetar: {text}", err=True)

    def show(self, rows: Iterable[Row], columns: Sequence[str] = ()) -> None:
        """Print rows: a table with these columns for people, one JSON array for programs."""
        if self.json:
            write_out(json.dumps([dict(row) for row in rows], indent=2, ensure_ascii=False))
        else:
            write_out(table(list(rows), columns), newline=False)

    def show_one(self, thing: Any, text: str | None = None) -> None:
        """Print one JSON document; for people, `text` if there is one."""
        if self.json or text is None:
            write_out(json.dumps(thing, indent=2, ensure_ascii=False))
        else:
            write_out(text)


def _namespace_missing(asked: Asked, topic: str) -> CommandError | None:
    """Return the error for a topic that is not there because its namespace is not.

    The protocol has one code for both.
    """
    try:
        with asked.admin() as admin:
            admin.namespace(str(TopicName.parse(topic).namespace_name))
    except AdminError as error:
        return explain(error) if error.status == 404 else None
    except InvalidNameError:
        return None
    return None


def _dial(url: str, addresses: Sequence[tuple[str, int]]) -> None:
    for host, port in addresses:
        try:
            socket.create_connection((host, port), timeout=DIAL_TIMEOUT_S).close()
        except OSError:
            continue
        return
    raise CommandError(f"no broker answers at {url}", START_ONE, ExitCode.NO_ANSWER)


def table(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """Return aligned columns under a head; nothing for no rows."""
    if not rows:
        return ""
    lines = [[column.replace("_", " ") for column in columns]]
    lines += [[_cell(row.get(column)) for column in columns] for row in rows]
    numeric = [all(isinstance(row.get(c), int | float | None) for row in rows) for c in columns]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return "".join(
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        + "\n"
        for line in lines
    )


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


# --- click ------------------------------------------------------------------------------


def _common(*, cluster: bool) -> list[click.Parameter]:
    addresses: list[click.Parameter] = [
        click.Option(
            ["--url"],
            envvar="MAGNETAR_URL",
            default=DEFAULT_URL,
            help="Where the broker is. [env: MAGNETAR_URL]",
            metavar="URL",
        ),
        click.Option(
            ["--admin-url"],
            envvar="MAGNETAR_ADMIN_URL",
            help="Where its HTTP port is; without it, beside --url. [env: MAGNETAR_ADMIN_URL]",
            metavar="URL",
        ),
    ]
    return [
        *(addresses if cluster else []),
        click.Option(
            ["--output", "-o"],
            type=click.Choice(["text", "json"]),
            default="text",
            help="For people or for programs.",
        ),
        click.Option(["--debug"], is_flag=True, help="Show tracebacks and the client's log."),
    ]


class Verb(click.Command):
    """A command with the common options; its function gets them as `Asked`."""

    uses_cluster = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(_common(cluster=self.uses_cluster))

    def invoke(self, ctx: click.Context) -> Any:
        common = ("url", "admin_url", "output", "debug")
        asked = Asked(**{name: ctx.params.pop(name) for name in common if name in ctx.params})
        ctx.obj = asked
        try:
            return super().invoke(ctx)
        except (click.UsageError, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            # The one boundary of a command: whatever it is, a person reads one line.
            if asked.debug and not isinstance(error, CommandError):
                raise
            topic = str(ctx.params.get("topic") or "")
            told = explain(error, topic)
            if type(error).__name__ == "TopicNotFound" and topic:
                told = _namespace_missing(asked, topic) or told
            told.as_json = asked.json
            raise told from error


class LocalVerb(Verb):
    """A command that works on this machine and needs no broker's address."""

    uses_cluster = False


Function = TypeVar("Function", bound=Callable[..., Any])

pass_asked = click.make_pass_decorator(Asked)
"""Hands the function an `Asked` as its first argument."""


class Noun(click.Group):
    """A group of verbs about one noun. Its name alone shows its help."""

    command_class = Verb
