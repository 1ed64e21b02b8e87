"""`magnetar subscriptions`: see and move the subscriptions of a topic, through admin REST."""

from collections.abc import Mapping, Sequence
from typing import Any

import click

from magnetar.cli import values
from magnetar.cli.errors import CommandError, ExitCode
from magnetar.cli.messages import stored
from magnetar.cli.values import Position
from magnetar.cli.verb import Asked, Noun, pass_asked
from magnetar.client.admin import Admin
from magnetar.client.rest import AdminError
from magnetar.client.stored import Message, MessageId

COLUMNS = ("subscription", "type", "backlog", "unacknowledged", "consumers", "gaps_passed")


@click.group(cls=Noun)
def subscriptions() -> None:
    """See and move subscriptions of a topic."""


@subscriptions.command("list")
@click.argument("topic")
@pass_asked
def list_subscriptions(asked: Asked, topic: str) -> None:
    """List the subscriptions of a TOPIC and what waits for them.

    Gaps are ranges of damaged messages that consumers were led past, since the topic was loaded.
    """
    with asked.admin() as admin:
        told = admin.stats(topic)["subscriptions"]
    rows = [
        {
            "subscription": name,
            "type": _kind(each),
            "backlog": each.get("msgBacklog", 0),
            "unacknowledged": each.get("unackedMessages", 0),
            "consumers": len(each.get("consumers") or ()),
            "gaps_passed": each.get("gapsPassed", 0),
        }
        for name, each in sorted(told.items())
    ]
    asked.show(rows, COLUMNS)


def _kind(stats: Mapping[str, Any]) -> str | None:
    """Return the type of a subscription; None: it has had no consumer yet to give it one."""
    kind = stats.get("type")
    return None if kind in {None, "", "None"} else str(kind)


@subscriptions.command("create")
@click.argument("topic")
@click.argument("subscription", type=values.subscription)
@click.option(
    "--from",
    "start",
    type=values.position,
    metavar="earliest|latest|LEDGER:ENTRY",
    default="latest",
    show_default=True,
    help="Where.",
)
@pass_asked
def create(asked: Asked, topic: str, subscription: str, start: str | Position) -> None:
    """Create a SUBSCRIPTION that keeps a TOPIC's messages from now on."""
    at = MessageId(start.ledger, start.entry) if isinstance(start, Position) else start
    with asked.admin() as admin:
        if isinstance(start, Position):
            demand_ledger(admin, topic, start)
        admin.create_subscription(topic, subscription, at)
    told = {"topic": topic, "subscription": subscription}
    asked.show_one(told, f"created {subscription} on {topic}")


@subscriptions.command("analyze")
@click.argument("topic")
@click.argument("subscription", type=values.subscription)
@pass_asked
def analyze(asked: Asked, topic: str, subscription: str) -> None:
    """Count what waits for a SUBSCRIPTION entry by entry, reading all of it."""
    with asked.admin() as admin:
        told = admin.analyze(topic, subscription)
    broken_off = ", and more: it was too long to be counted" if told["aborted"] else ""
    text = f"{told['messages']:,} messages in {told['entries']:,} entries{broken_off}"
    asked.show_one(told, text)


@subscriptions.command("delete")
@click.argument("topic")
@click.argument("subscription", type=values.subscription)
@click.option("--force", is_flag=True, help="Although consumers are connected.")
@pass_asked
def delete(asked: Asked, topic: str, subscription: str, force: bool) -> None:
    """Delete a SUBSCRIPTION; its backlog is gone with it."""
    with asked.admin() as admin:
        admin.delete_subscription(topic, subscription, force=force)
    told = {"topic": topic, "subscription": subscription, "deleted": True}
    asked.show_one(told, f"deleted {subscription} of {topic}")


@subscriptions.command("skip")
@click.argument("topic")
@click.argument("subscription", type=values.subscription)
@click.argument("count", type=click.IntRange(min=1))
@pass_asked
def skip(asked: Asked, topic: str, subscription: str, count: int) -> None:
    """Acknowledge the next COUNT messages."""
    with asked.admin() as admin:
        admin.skip(topic, subscription, count)
    _show_backlog(asked, topic, subscription, f"skipped {count:,}")


@subscriptions.command("clear")
@click.argument("topic")
@click.argument("subscription", type=values.subscription)
@pass_asked
def clear(asked: Asked, topic: str, subscription: str) -> None:
    """Acknowledge everything published so far."""
    with asked.admin() as admin:
        admin.clear(topic, subscription)
    _show_backlog(asked, topic, subscription, "cleared")


@subscriptions.command("expire")
@click.argument("topic")
@click.argument("subscription", type=values.subscription)
@click.option(
    "--older-than",
    type=values.age,
    metavar="AGE",
    required=True,
    help="Seconds, or such as 15m or 7d; rounded up to whole seconds.",
)
@pass_asked
def expire(asked: Asked, topic: str, subscription: str, older_than: int) -> None:
    """Acknowledge what is older than an age."""
    with asked.admin() as admin:
        admin.expire(topic, subscription, older_than)
    _show_backlog(asked, topic, subscription, f"expired what is older than {older_than:,} s")


@subscriptions.command("reset")
@click.argument("topic")
@click.argument("subscription", type=values.subscription)
@click.option(
    "--to",
    type=values.target,
    metavar="earliest|latest|LEDGER:ENTRY|TIME",
    required=True,
    help="earliest, latest, ledger:entry, or a time: ISO 8601, 15m (ago) or ms; before 1970 is"
    " earliest.",
)
@pass_asked
def reset(asked: Asked, topic: str, subscription: str, to: str | Position | int) -> None:
    """Move a SUBSCRIPTION: what comes after is delivered again, what is before is done."""
    with asked.admin() as admin:
        if to == "latest":
            admin.clear(topic, subscription)
        elif to == "earliest":
            admin.reset(topic, subscription, 0)  # the first message published since 1970
        elif isinstance(to, Position):
            demand_ledger(admin, topic, to)
            admin.reset(topic, subscription, MessageId(to.ledger, to.entry))
        elif isinstance(to, int):
            admin.reset(topic, subscription, to)
    _show_backlog(asked, topic, subscription, "moved")


@subscriptions.command("peek")
@click.argument("topic")
@click.argument("subscription", type=values.subscription)
@click.option("--count", "-n", type=click.IntRange(1, 10_000), default=1, show_default=True)
@pass_asked
def peek(asked: Asked, topic: str, subscription: str, count: int) -> None:
    """Look at what a SUBSCRIPTION would be given next."""
    with asked.admin() as admin:
        shown = 0
        for partition in admin.partition_names(topic):
            found = peek_backlog(admin, partition, subscription, count)
            for message in found:
                stored(message, partition).print(as_json=asked.json, meta=True)
            shown += len(found)
    if not shown:
        raise CommandError(
            f"{subscription} of {topic} has no backlog", exit_code=ExitCode.NOT_FOUND
        )


def demand_ledger(admin: Admin, topic: str, position: Position) -> None:
    """Check that a position lies in a topic. As in Pulsar, any other counts as its end.

    Raises:
        CommandError: its ledger is none of the topic's.
    """
    if admin.partitions(topic):
        return  # the broker says that a position is one of a partition
    ledgers = sorted(int(each["ledgerId"]) for each in admin.internal_stats(topic)["ledgers"])
    if position.ledger not in ledgers:
        known = f"it has {_spans(ledgers)}" if ledgers else "it is empty"
        raise CommandError(
            f"{topic} has no ledger {position.ledger}", known, exit_code=ExitCode.NOT_FOUND
        )


def _spans(numbers: Sequence[int]) -> str:
    """Return sorted numbers with neighbours put together: `1-3, 7`."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(f"{low}-{high}" if low < high else f"{low}" for low, high in spans)


def peek_backlog(admin: Admin, topic: str, subscription: str, count: int) -> list[Message]:
    """Return the next messages of a backlog; none if it is empty.

    Raises:
        AdminError: the topic or the subscription is not there.
    """
    try:
        return admin.peek(topic, subscription, count)[:count]
    except AdminError as error:
        # An empty backlog and a missing subscription are both 404.
        if error.status == 404 and subscription in admin.subscriptions(topic):
            return []
        raise


def _show_backlog(asked: Asked, topic: str, subscription: str, done: str) -> None:
    with asked.admin() as admin:
        backlog = admin.stats(topic)["subscriptions"][subscription]["msgBacklog"]
    told = {"topic": topic, "subscription": subscription, "backlog": backlog}
    asked.show_one(told, f"{subscription} of {topic}: {done}, backlog {backlog:,}")
