"""What went wrong, in one line, with what to do next and an exit code.

    code  meaning
    0     done
    1     it did not work
    2     the command line makes no sense
    3     the topic, subscription or namespace is not there
    4     no broker answers at the address
    130   interrupted with Ctrl-C

Errors go to standard error; standard output then stays as it was. With `--output json` the
error is one JSON object: `{"error": ..., "advice": ..., "exit_code": ...}`.

Clients raise their own errors; `explain` puts them into words, by name, so that nothing has
to be imported to explain what never happened.
"""

import errno
import json
from enum import IntEnum

import click


class ExitCode(IntEnum):
    """How a command ended."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    NO_ANSWER = 4
    INTERRUPTED = 130


class CommandError(Exception):
    """A command could not do what it was asked for. Shown without a traceback."""

    def __init__(
        self, message: str, advice: str = "", exit_code: ExitCode = ExitCode.FAILED
    ) -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice
        self.exit_code = exit_code
        self.as_json = False

    def render(self) -> str:
        """Return the line to show."""
        if self.as_json:
            told = {"error": self.message, "advice": self.advice, "exit_code": int(self.exit_code)}
            return json.dumps(told, ensure_ascii=False)
        return "magnetar: " + printable(self.message + (f"; {self.advice}" if self.advice else ""))


class OutputError(CommandError):
    """What a command had to say could not be written."""

    def __init__(self, error: OSError) -> None:
        advice = "free space, or write elsewhere" if error.errno == errno.ENOSPC else ""
        super().__init__(f"cannot write to standard output: {error.strerror or error}", advice)


def write_out(text: str, *, newline: bool = True) -> None:
    """Write to standard output, at once.

    Raises:
        OutputError: the disk behind it is full, for instance.
        BrokenPipeError: whoever read it has gone, which is no error; see `main`.
    """
    try:
        click.echo(text, nl=newline)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(error) from error


def printable(text: str) -> str:
    """Return a text without control characters: a peer may send any, a terminal obeys them."""
    return "".join(
        each if each.isprintable() or each == "\n" else each.encode("unicode_escape").decode()
        for each in text
    )


def usage_error(error: click.ClickException) -> CommandError:
    """Return what click has to say against a command line."""
    context = getattr(error, "ctx", None)
    advice = f"see `{context.command_path} --help`" if context is not None else ""
    return CommandError(error.format_message(), advice, ExitCode(error.exit_code))


LIST_TOPICS = "see `magnetar topics list`"
START_ONE = (
    "start one with `magnetar standalone`, or name another address with --url or MAGNETAR_URL"
)
IN_USE = "see who holds it with `magnetar topics stats`, or wait until they are gone"
NO_LOG_IN = "ask for a token that may do this"
SEE_LOG = "see the broker's log"

# What the official client raises, by class name: (message, what to do next, exit code).
_CLIENT_ERRORS: dict[str, tuple[str, str, ExitCode]] = {
    "ConnectError": ("no broker answers", START_ONE, ExitCode.NO_ANSWER),
    "Timeout": ("the broker did not answer in time", SEE_LOG, ExitCode.NO_ANSWER),
    "NotConnected": ("the connection to the broker was lost", "try again", ExitCode.NO_ANSWER),
    "TopicNotFound": ("the topic does not exist", LIST_TOPICS, ExitCode.NOT_FOUND),
    "SubscriptionNotFound": (
        "the subscription does not exist",
        "see `magnetar subscriptions list TOPIC`",
        ExitCode.NOT_FOUND,
    ),
    "InvalidTopicName": (
        "that is not a topic name",
        "expected TOPIC or persistent://tenant/namespace/TOPIC",
        ExitCode.USAGE,
    ),
    "BrokerMetadataError": (
        "the broker does not know the namespace, or cannot read its metadata",
        "see `magnetar namespaces list`",
        ExitCode.NOT_FOUND,
    ),
    "ConsumerBusy": ("the subscription is taken by another consumer", IN_USE, ExitCode.FAILED),
    "ProducerBusy": ("another producer holds the topic or the name", IN_USE, ExitCode.FAILED),
    "ProducerFenced": ("the topic belongs to another producer now", IN_USE, ExitCode.FAILED),
    "TopicTerminated": ("the topic was closed for good", "it can still be read", ExitCode.FAILED),
    "MessageTooBig": ("the message is too large", "send a smaller one", ExitCode.FAILED),
    "BrokerPersistenceError": ("the broker could not write it", SEE_LOG, ExitCode.FAILED),
    "AuthenticationError": ("the broker does not accept the log-in", NO_LOG_IN, ExitCode.FAILED),
    "AuthorizationError": ("that is not allowed", NO_LOG_IN, ExitCode.FAILED),
    "ProducerBlockedQuotaExceededError": (
        "the backlog of the topic is full",
        "consume it, or see `magnetar subscriptions clear`",
        ExitCode.FAILED,
    ),
}
_CLIENT_ERRORS["ProducerBlockedQuotaExceededException"] = _CLIENT_ERRORS[
    "ProducerBlockedQuotaExceededError"
]

_CLIENT_MODULES = {"_pulsar", "pulsar", "pulsar.exceptions"}


def client_error(name: str, about: str = "") -> CommandError:
    """Return what an error of the official client means.

    Args:
        name: The name of its class, or of its result code.
        about: What it happened to, such as a topic or an address.
    """
    known = (f"the client reported {name}", SEE_LOG, ExitCode.FAILED)
    message, advice, code = _CLIENT_ERRORS.get(name, known)
    return CommandError(f"{about}: {message}" if about else message, advice, code)


def explain(error: Exception, about: str = "") -> CommandError:
    """Return what any error means, in one line."""
    kind = type(error)
    told = CommandError(str(error))
    if isinstance(error, CommandError):
        told = error
    elif kind.__module__ in _CLIENT_MODULES:
        told = client_error(kind.__name__, about)
    elif kind.__name__ == "AdminError":
        told = _admin_error(getattr(error, "status", 0), str(error))
    elif kind.__name__ in {"InvalidNameError", "AddressError", "CredentialsError"}:
        told.exit_code = ExitCode.USAGE
    elif isinstance(error, OSError) and error.filename is not None:
        told = CommandError(f"{error.filename}: {error.strerror or error}")
    elif not kind.__module__.startswith("magnetar."):
        told = CommandError(
            f"unexpected {kind.__name__}: {error}",
            "this is a defect; --debug shows where it happened",
        )
    return told


def _admin_error(status: int, reason: str) -> CommandError:
    if status == 0:
        advised = any(word in reason for word in ("--admin-url", "certificate", "TLS"))
        advice = "" if advised else START_ONE
        return CommandError(reason, advice, ExitCode.NO_ANSWER)
    if status == 404:
        return CommandError(reason, exit_code=ExitCode.NOT_FOUND)
    if status in {401, 403}:
        return CommandError(reason, NO_LOG_IN)
    return CommandError(reason)
