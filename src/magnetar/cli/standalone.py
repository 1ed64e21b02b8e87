"""`magnetar standalone`: start a broker on this machine and serve until told to stop."""

import os
from pathlib import Path
from typing import Any

import click

from magnetar.broker.access.settings import check_settings
from magnetar.broker.config import BrokerConfig, ConfigError
from magnetar.cli.errors import CommandError, ExitCode, write_out
from magnetar.cli.settings import Merged, SettingsError, kinds_of, merge
from magnetar.cli.verb import Asked, LocalVerb, pass_asked
from magnetar.standalone.options import StandaloneOptions
from magnetar.standalone.serve import STARTING_ERRORS, run

DEFAULT_DATA = "magnetar-data"
OPTIONS: dict[str, type] = {
    "data": str,
    "listen": str,
    "advertised_address": str,
    "port_offset": int,
    "workers": int,
    "single_port": bool,
    "insecure": bool,
    "tls_certificate": str,
    "tls_key": str,
    "tls_client_ca": str,
    "proxy_protocol": bool,
}
PATHS = ("tls_certificate", "tls_key", "tls_client_ca")


@click.command(cls=LocalVerb)
@click.option("--data", metavar="DIR", help=f"The data folder.  [default: {DEFAULT_DATA}]")
@click.option("--listen", metavar="ADDRESS", help="Where to listen.  [default: 127.0.0.1]")
@click.option("--advertised-address", metavar="A", help="What clients are told to dial.")
@click.option("--port-offset", type=click.IntRange(0, 56_000), help="Move all ports by so much.")
@click.option(
    "--workers", metavar="N|auto", help="Broker processes; auto: one per core.  [default: 1]"
)
@click.option(
    "--single-port",
    is_flag=True,
    default=None,
    help="Clients reach one Pulsar port only, whatever the number of workers.",
)
@click.option(
    "--insecure",
    is_flag=True,
    default=None,
    help="Listen beyond this machine without TLS, and without log-in unless it is set.",
)
@click.option("--tls-certificate", metavar="FILE", help="The server's certificate, in PEM.")
@click.option("--tls-key", metavar="FILE", help="Its key.")
@click.option(
    "--tls-client-ca", metavar="FILE", help="The CA of client certificates that may log in."
)
@click.option(
    "--proxy-protocol",
    is_flag=True,
    default=None,
    help="Only proxies connect, and say who is behind them.",
)
@click.option(
    "--auth",
    "authentication",
    metavar="WAYS",
    help='How clients log in: "token", "basic", "tls", or several.  [default: they need not]',
)
@click.option("--token-secret-key", metavar="FILE", help="Secret that tokens are signed with.")
@click.option("--token-public-key", metavar="FILE", help="Public key that tokens fit.")
@click.option("--basic-file", metavar="FILE", help="Names and passwords, as htpasswd writes them.")
@click.option("--oidc-issuer", "oidc_issuers", metavar="URL", help="An issuer of tokens.")
@click.option("--oidc-audience", "oidc_audiences", metavar="A", help="What its tokens are for.")
@click.option("--superuser", "superuser_roles", metavar="ROLES", help="May do everything.")
@click.option("--proxy-role", "proxy_roles", metavar="ROLES", help="May speak for others.")
@click.option("--anonymous-role", metavar="ROLE", help="Role of those who do not log in.")
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="MAGNETAR_CONFIG",
    help="Settings, in TOML. [env: MAGNETAR_CONFIG]",
)
@pass_asked
def standalone(asked: Asked, /, config: Path | None, **flags: Any) -> int:
    """Start a broker on this machine.

    It serves until SIGTERM or Ctrl-C. Settings come from the --config file, then from
    MAGNETAR_* variables, then from flags.

    \b
      magnetar standalone --data /var/lib/magnetar
      MAGNETAR_JOURNAL_WINDOW_MS=0.5 magnetar standalone --workers auto
    """  # noqa: D301 - click keeps the lines after a \b as they are
    try:
        merged = merge(
            OPTIONS,
            kinds_of(BrokerConfig.__dataclass_fields__, leave_out={"worker", "workers", "data"}),
            file=_text(config) if config else "",
            environment=os.environ,
            flags=flags,
        )
        options = options_from(merged)
    except SettingsError as error:
        raise CommandError(str(error), "see `magnetar standalone --help`", ExitCode.USAGE) from None
    try:  # a bad value is a mistake in the command line, whichever way it came
        check_settings(BrokerConfig(data=options.data, workers=options.workers, **options.settings))
    except ConfigError as error:
        raise CommandError(
            str(error), "see docs/reference/settings.md", exit_code=ExitCode.USAGE
        ) from None
    for variable in merged.unknown_variables:
        click.echo(f"magnetar: {variable} is no setting, ignored", err=True)
    try:
        return run(options, write_out, as_json=asked.json)
    except STARTING_ERRORS as error:
        raise CommandError(str(error)) from None


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"the settings file is no text in UTF-8: {file}, byte {error.start}"
        ) from None


def options_from(merged: Merged) -> StandaloneOptions:
    """Return what to start.

    Raises:
        SettingsError: the number of workers is no number.
    """
    told = dict(merged.options)
    workers = told.pop("workers", 1)
    if workers == "auto":
        workers = (
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        )
    elif not str(workers).isdecimal() or int(workers) < 1:
        raise SettingsError(f"workers is {workers!r}, expected auto or a number from 1")
    told |= {name: Path(told[name]) for name in PATHS if name in told}
    return StandaloneOptions(
        data=Path(told.pop("data", DEFAULT_DATA)),
        workers=int(workers or 1),
        listeners=merged.listeners,
        settings=merged.settings,
        **told,
    )
