"""The command line: which commands there are, loaded when they are used.

    magnetar NOUN VERB ...    topics create, subscriptions reset, ...
    magnetar VERB ...         produce, consume, standalone, demo, ...

Every command lies in a module of its own with its name. `magnetar --help` imports none of
them: the table below holds one line of help for each, and a test compares it with theirs.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

import click

from magnetar import __version__
from magnetar.cli.errors import CommandError, ExitCode, OutputError, usage_error

PROGRAM = "magnetar"
COMPLETION = "_MAGNETAR_COMPLETE"
"""Set by a shell that completes a command line."""
OFFICIAL_CLIENT = "_pulsar"
"""The C++ part of the official client, as a module."""

# name: (module, attribute, one line of help)
COMMANDS: dict[str, tuple[str, str, str]] = {
    "standalone": ("standalone", "standalone", "Start a broker on this machine."),
    "demo": ("demo.command", "demo", "Watch queues, streams and replay survive a killed broker."),
    "produce": ("produce", "produce", "Publish messages to a topic."),
    "consume": ("consume", "consume", "Receive messages of a topic through a subscription."),
    "tail": ("tail", "tail", "Follow a topic without a subscription."),
    "peek": ("peek", "peek", "Look at messages anywhere in a topic, acknowledging nothing."),
    "topics": ("topics", "topics", "List, create, delete and inspect topics."),
    "namespaces": ("namespaces", "namespaces", "List, create, delete and configure namespaces."),
    "schemas": ("schemas", "schemas", "See, add and delete the schemas of topics."),
    "subscriptions": ("subscriptions", "subscriptions", "See and move subscriptions of a topic."),
    "tenants": ("tenants", "tenants", "List, create, change and delete tenants."),
    "permissions": ("permissions", "permissions", "See, grant and revoke what roles may do."),
    "clusters": ("clusters", "clusters", "List clusters, and make others known."),
    "brokers": ("brokers", "brokers", "Ask the broker how it is and what it carries."),
    "certs": ("certs", "certs", "Make and renew TLS certificates of your own."),
    "tokens": ("tokens", "tokens", "Make signing keys and tokens, and look into them."),
    "config": ("config", "config", "See and change settings while the broker runs."),
    "bench": ("bench", "bench", "Measure how fast a broker is, and what it costs."),
    "doctor": ("doctor", "doctor", "Verify a data folder, checksum by checksum."),
    "backup": ("backup", "backup", "Copy a data folder, also while it is written to."),
    "restore": ("backup", "restore", "Make a data folder of a backup."),
}


class Lazy(click.Group):
    """A group that imports a command's module when that command is asked for."""

    # click passes a context to each of these; the table below needs none.

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(f"magnetar.cli.{module}"), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])


@click.command(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, package_name="magnetar", message="%(prog)s %(version)s")
def magnetar() -> None:
    """Magnetar: a durable messaging broker that speaks the Apache Pulsar protocol.

    Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 no broker answers, 130 interrupted.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; return its exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if COMPLETION in os.environ:
        magnetar.main(args=given, prog_name=PROGRAM)  # a shell asks for words; ends the program
    try:
        # Not through click's own `main`: it has other ideas about Ctrl-C and broken pipes.
        with magnetar.make_context(PROGRAM, given) as context:
            result = magnetar.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo(err=True)  # end the line that shows ^C
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough, as in `magnetar tail t | head`.
        _drop_output()
        return ExitCode.OK
    except (CommandError, click.ClickException, OSError) as error:
        return _tell(error, given)
    return result if isinstance(result, int) else ExitCode.OK


def run() -> NoReturn:
    """Be the program: run the command line it was given, and end.

    Threads of the official client hold Python objects: callbacks of messages, the function that
    is asked for a token. One that lets go of them while the interpreter is being taken down is
    ended by it in the middle of a C++ function that must not be left so, and the whole process is
    aborted ("terminate called without an active exception"). Closing the client does not wait for
    its threads. So whoever has loaded it leaves without taking the interpreter down; what was
    opened is closed by then, and what was printed is written here.
    """
    try:
        code = main()
    except Exception:
        if OFFICIAL_CLIENT not in sys.modules:
            raise
        traceback.print_exc()  # with --debug, or a fault of ours
        code = ExitCode.FAILED
    if OFFICIAL_CLIENT not in sys.modules:
        sys.exit(code)
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        code = code or ExitCode.FAILED  # nobody is left to be told
    os._exit(code)


def _tell(error: CommandError | click.ClickException | OSError, given: Sequence[str]) -> int:
    """Say what went wrong; return the exit code."""
    if isinstance(error, click.ClickException):
        if not _wants_json(given):
            error.show()
            return error.exit_code
        told = usage_error(error)
        told.as_json = True
    elif isinstance(error, OSError):
        told = OutputError(error)  # of a help text: commands make CommandErrors of theirs
    else:
        told = error
    if isinstance(told, OutputError):
        _drop_output()
    click.echo(told.render(), err=True)
    return told.exit_code


def _drop_output() -> None:
    """Give standard output somewhere to go: Python flushes it at exit, and would complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _wants_json(given: Sequence[str]) -> bool:
    """Return whether a command line asks for JSON, although it cannot be understood."""
    words = given[: given.index("--")] if "--" in given else given
    asked = zip(words, [*words[1:], ""], strict=True)
    return any(
        word in {"--output=json", "-ojson"} or (word in {"--output", "-o"} and value == "json")
        for word, value in asked
    )
