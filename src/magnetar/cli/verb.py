"""A command of the command line: the options that all have, and the boundary of errors.

    --url, --admin-url    where the broker is (MAGNETAR_URL, MAGNETAR_ADMIN_URL)
    --token, ...          who is asking, and whose certificates are trusted (MAGNETAR_TOKEN, ...)
    --output text|json    for people or for programs
    --debug               a traceback, and the client's own log on standard error

A command function gets them as one `Asked`. Whatever it raises leaves `Verb` as a
`CommandError`: one line, never a traceback, unless `--debug` asks for one.
"""

import json
import os
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from magnetar.cli.errors import NO_LOG_IN, START_ONE, CommandError, ExitCode, explain, write_out
from magnetar.cli.values import now_ms, time_text
from magnetar.client.address import DEFAULT_URL, admin_url_beside, service_addresses
from magnetar.client.admin import Admin
from magnetar.client.credentials import Credentials, tls_trouble
from magnetar.client.rest import AdminError
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
    credentials: Credentials = field(default_factory=Credentials)

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

        if self.credentials.expired_ms(now_ms()) is not None:
            # The client would try again and again, until its time is up.
            raise CommandError("the token is not good any more", log_in_advice(self.credentials))
        _dial(self.url, service_addresses(self.url), self.credentials)
        return Cluster(
            self.url,
            self.admin_url,
            credentials=self.credentials,
            log="/dev/stderr" if self.debug else "/dev/null",
        )

    def admin(self) -> "Admin":
        """Return admin REST of the cluster."""
        return Admin(self.admin_url or admin_url_beside(self.url), credentials=self.credentials)

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

    def show_names(self, names: Sequence[str]) -> None:
        """Print names, one a line, or as one JSON list."""
        if self.json:
            self.show_one(names)
        else:
            write_out("".join(f"{each}\n" for each in names), newline=False)


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


def log_in_advice(credentials: Credentials) -> str:
    """Return what to do about a log-in that was refused."""
    ended = credentials.expired_ms(now_ms())
    if ended is not None:
        return (
            f"the token expired at {time_text(ended)};"
            " ask for another, or make one with `magnetar tokens create`"
        )
    if credentials == Credentials(trust=credentials.trust):
        return "log in with --token-file FILE or MAGNETAR_TOKEN"
    return NO_LOG_IN


def _dial(url: str, addresses: Sequence[tuple[str, int]], credentials: Credentials) -> None:
    tls = credentials.tls() if url.startswith("pulsar+ssl://") else None
    for host, port in addresses:
        try:
            with socket.create_connection((host, port), timeout=DIAL_TIMEOUT_S) as sock:
                if tls is not None:
                    tls.wrap_socket(sock, server_hostname=host).close()
        except ssl.SSLError as error:
            message, advice = tls_trouble(error, host)
            raise CommandError(f"{url}: {message}", advice, ExitCode.NO_ANSWER) from error
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
        *([*addresses, *_credentials()] if cluster else []),
        click.Option(
            ["--output", "-o"],
            type=click.Choice(["text", "json"]),
            default="text",
            help="For people or for programs.",
        ),
        click.Option(["--debug"], is_flag=True, help="Show tracebacks and the client's log."),
    ]


_CREDENTIALS = {
    "token": ("TOKEN", "Who is asking; better by its variable. [env: MAGNETAR_TOKEN]"),
    "token_file": ("FILE", "The same, in a file. [env: MAGNETAR_TOKEN_FILE]"),
    "basic_file": ("FILE", "user:password, in a file. [env: MAGNETAR_BASIC, user:password]"),
    "client_certificate": ("FILE", "Who is asking, in PEM. [env: MAGNETAR_CLIENT_CERTIFICATE]"),
    "client_key": ("FILE", "Its key. [env: MAGNETAR_CLIENT_KEY]"),
    "tls_trust_certs": ("FILE", "Whom to trust, in PEM. [env: MAGNETAR_TLS_TRUST_CERTS]"),
}
"""Option -> what it takes, and its help."""


def _credentials() -> list[click.Parameter]:
    return [
        click.Option(
            ["--" + name.replace("_", "-")],
            envvar=None if name == "basic_file" else "MAGNETAR_" + name.upper(),
            metavar=metavar,
            help=text,
        )
        for name, (metavar, text) in _CREDENTIALS.items()
    ]


def credentials_in(ctx: click.Context) -> Credentials:
    """Take what says who is asking out of a command's options.

    Raises:
        CommandError: a file cannot be read.
        CredentialsError: something makes no sense.
    """
    source, kinds = ctx.get_parameter_source, click.core.ParameterSource
    by_hand = source("token_file") is kinds.COMMANDLINE
    if by_hand and source("token") is kinds.ENVIRONMENT:
        ctx.params["token"] = None  # a file that is named by hand is meant
    told = {name: ctx.params.pop(name, None) for name in _CREDENTIALS}
    paths = {name: Path(told[name]) if told[name] else None for name in told if name != "token"}
    basic = os.environ.get("MAGNETAR_BASIC")
    if (file := paths["basic_file"]) is not None:
        try:
            basic = file.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"{file}: {getattr(error, 'strerror', None) or error}") from None
    return Credentials(
        token=told["token"] or None,
        token_file=paths["token_file"],
        basic=basic or None,
        certificate=paths["client_certificate"],
        key=paths["client_key"],
        trust=paths["tls_trust_certs"],
    )


class Verb(click.Command):
    """A command with the common options; its function gets them as `Asked`."""

    uses_cluster = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(_common(cluster=self.uses_cluster))

    def invoke(self, ctx: click.Context) -> Any:
        common = ("url", "admin_url", "output", "debug")
        asked = Asked(**{name: ctx.params.pop(name) for name in common if name in ctx.params})
        try:
            if self.uses_cluster:
                asked = replace(asked, credentials=credentials_in(ctx))
            ctx.obj = asked
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
            elif told.advice == NO_LOG_IN:
                told.advice = log_in_advice(asked.credentials)
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
