"""`magnetar consume`: receive messages through a subscription.

    subscribe ──▶ receive ──▶ print ──▶ acknowledge
                     └─ nothing for POLL_MS: is this the end?

A message is acknowledged after it was printed, so that a full pipe loses nothing; and Ctrl-C
waits until what was printed is acknowledged, too.

`--until-end` ends when the last message that was there at the start has come, or when the
subscription has no backlog left. Where neither can be known (several consumers share the
rest), it ends when nothing has come for QUIET_MS.
"""

import sys
from collections.abc import Callable, Iterator
from typing import Any

import click
import pulsar

from magnetar.cli import values
from magnetar.cli.errors import CommandError, ExitCode
from magnetar.cli.interrupt import between_steps
from magnetar.cli.messages import received
from magnetar.cli.patience import patient
from magnetar.cli.progress import progress
from magnetar.cli.verb import Asked, Verb, pass_asked
from magnetar.client.admin import Admin
from magnetar.client.cluster import Cluster, SubscriptionType
from magnetar.client.follow import never
from magnetar.client.rest import AdminError

POLL_MS = 250
"""How long one look for the next message takes: how soon the end is noticed."""
QUIET_MS = 2000
"""Nothing for this long counts as the end, where nobody can tell for sure."""

Receive = Callable[[int], Any]


def receive_all(
    receive: Receive,
    *,
    count: int | None = None,
    ended: Callable[[Any, int], bool] | None = None,
    stopped: Callable[[], bool] = never,
) -> Iterator[Any]:
    """Yield messages until `count` of them came, or until `ended` says so.

    Args:
        receive: Waits up to so many ms for the next message, or raises `pulsar.Timeout`.
        count: None: as many as there are.
        ended: Given the last message (None: nothing came) and for how many ms nothing has
            come; asked after each. None: goes on for ever.
        stopped: Asked before each; nothing more is received once it says so.
    """
    seen = quiet_ms = 0
    while (count is None or seen < count) and not stopped():
        try:
            message = receive(POLL_MS)
        except pulsar.Timeout:
            quiet_ms += POLL_MS
            if ended is not None and ended(None, quiet_ms):
                return
            continue
        seen += 1
        quiet_ms = 0
        yield message
        if ended is not None and ended(message, 0):
            return


class End:
    """Knows when a subscription has nothing more to give."""

    def __init__(self, last_id: Any | None, has_backlog: Callable[[], bool | None]) -> None:
        """Remember where the end is.

        Args:
            last_id: The last message when we began; None: not known.
            has_backlog: Whether the subscription has anything left; None: not known.
        """
        self._last = _order(last_id) if last_id is not None else None
        self._has_backlog = has_backlog

    def __call__(self, message: Any | None, quiet_ms: int) -> bool:
        """Return whether this was the end, given the last message or how long it was quiet."""
        if message is not None:
            return self._last is not None and _order(message.message_id()) >= self._last
        return self._has_backlog() is False or quiet_ms >= QUIET_MS


def _order(message_id: Any) -> tuple[int, int, int]:
    return (message_id.ledger_id(), message_id.entry_id(), message_id.batch_index())


def backlog_check(admin: Admin, topic: str, subscription: str) -> Callable[[], bool | None]:
    """Return a function that tells whether a subscription has a backlog; None: cannot tell."""

    def has_backlog() -> bool | None:
        try:
            stats = admin.stats(topic)["subscriptions"][subscription]
        except (AdminError, KeyError):
            return None
        return bool(stats["msgBacklog"] > 0)

    return has_backlog


@click.command(cls=Verb)
@click.argument("topic")
@click.option(
    "--subscription",
    "-s",
    type=values.subscription,
    metavar="NAME",
    required=True,
    help="Made if it is not there.",
)
@click.option(
    "--type",
    "kind",
    type=click.Choice([each.value for each in SubscriptionType]),
    default=SubscriptionType.EXCLUSIVE.value,
    show_default=True,
    help="Who of its consumers gets a message.",
)
@click.option(
    "--from",
    "start",
    type=values.start,
    metavar="earliest|latest|TIME",
    default="earliest",
    show_default=True,
    help="Where a new subscription starts; a time moves one that is there, too; before 1970 means"
    " everything.",
)
@click.option("--count", "-n", type=click.IntRange(min=1), help="Stop after so many messages.")
@click.option("--until-end", is_flag=True, help="Stop when nothing more is there.")
@click.option("--ack/--no-ack", default=True, help="Acknowledge what was printed.")
@click.option("--meta", is_flag=True, help="Print id, time, key and properties, too.")
@pass_asked
def consume(  # noqa: PLR0913, PLR0917 - one argument per option
    asked: Asked,
    topic: str,
    subscription: str,
    kind: str,
    start: str | int,
    count: int | None,
    until_end: bool,
    ack: bool,
    meta: bool,
) -> None:
    """Receive messages of a topic through a subscription.

    Each message is acknowledged once it is printed.

    \b
      magnetar consume orders -s billing --type shared
      magnetar consume orders -s audit --from 2026-01-31 --until-end --output json
    """  # noqa: D301 - click keeps the lines after a \b as they are
    with asked.cluster() as cluster, cluster.admin() as admin:
        consumer = _opened(asked, cluster, topic, subscription, SubscriptionType(kind), start)
        ended = None
        if until_end:
            ended = End(_last_id(consumer), backlog_check(admin, topic, subscription))
        quiet = sys.stdout.isatty()  # the messages show how it goes
        try:
            with (
                between_steps() as stopped,
                progress("consuming", count, quiet=quiet) as meter,
            ):
                for message in receive_all(
                    consumer.receive, count=count, ended=ended, stopped=stopped
                ):
                    received(message).print(as_json=asked.json, meta=meta)
                    if ack:
                        consumer.acknowledge(message)
                    meter.advance(1)
                if stopped():
                    raise click.exceptions.Exit(ExitCode.INTERRUPTED)
        except KeyboardInterrupt:
            raise click.exceptions.Exit(ExitCode.INTERRUPTED) from None
        finally:
            consumer.close()  # sends the acknowledgements that still wait


def _opened(  # noqa: PLR0913, PLR0917 - where, as whom, and from where
    asked: Asked,
    cluster: Cluster,
    topic: str,
    subscription: str,
    kind: SubscriptionType,
    start: str | int,
) -> Any:
    """Return a consumer of the official client.

    Raises:
        CommandError: nothing came, and it is known why.
    """
    with patient(asked) as patience:
        patience.expect()
        try:
            return cluster.consumer(
                topic,
                subscription,
                kind,
                start,
                # So that what is left of a batch comes again, and what was printed does not.
                batch_index_ack_enabled=True,
            )
        except pulsar.PulsarException as error:
            if patience.reason:
                raise CommandError(
                    f"{topic}: {patience.reason}", exit_code=ExitCode.NO_ANSWER
                ) from error
            raise


def _last_id(consumer: Any) -> Any | None:
    try:
        last = consumer.get_last_message_id()
    except pulsar.PulsarException:  # the client cannot tell for partitioned topics
        return None
    return last if last.entry_id() >= 0 else None
