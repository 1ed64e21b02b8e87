"""`magnetar peek`: look at messages anywhere in a topic, through admin REST.

    --position ledger:entry    from that entry on
    --position earliest        from the first entry that is kept
    --position latest          the last ones
    --subscription S           what S would be given next

Nothing is acknowledged, no consumer is opened, and messages that every subscription has
acknowledged are shown like any other, as long as retention keeps them.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from magnetar.cli import values
from magnetar.cli.errors import CommandError, ExitCode
from magnetar.cli.messages import stored
from magnetar.cli.subscriptions import peek_backlog
from magnetar.cli.values import Position
from magnetar.cli.verb import Asked, Verb, pass_asked
from magnetar.client.admin import Admin
from magnetar.client.rest import AdminError
from magnetar.client.stored import Message
from magnetar.names import TopicName


def entries_of(ledgers: Sequence[Mapping[str, Any]], end: str) -> list[tuple[int, range]]:
    """Return which entries each ledger of a topic has, in order.

    Args:
        ledgers: `ledgers` of the internal statistics; the open one may claim no entries yet.
        end: `lastConfirmedEntry`, as `ledger:entry`.
    """
    last = Position(*map(int, end.split(":")))
    counts = {int(each["ledgerId"]): int(each.get("entries", 0)) for each in ledgers}
    return [
        (ledger, range(last.entry + 1 if ledger == last.ledger else count))
        for ledger, count in sorted(counts.items())
        if ledger <= last.ledger
    ]


def positions_from(entries: Sequence[tuple[int, range]], start: Position) -> Iterator[Position]:
    """Yield the positions of a topic from `start` on, which itself need not exist."""
    for ledger, numbers in entries:
        if ledger >= start.ledger:
            first = start.entry if ledger == start.ledger else 0
            yield from (Position(ledger, entry) for entry in numbers[first:])


def positions_back(entries: Sequence[tuple[int, range]]) -> Iterator[Position]:
    """Yield the positions of a topic, the last one first."""
    for ledger, numbers in reversed(entries):
        yield from (Position(ledger, entry) for entry in reversed(numbers))


def messages_at(admin: Admin, topic: str, position: str | Position, count: int) -> list[Message]:
    """Return up to `count` messages of one topic or partition from a position on, in order.

    Raises:
        AdminError: the topic or the entry is not there.
    """
    internal = admin.internal_stats(topic)
    entries = entries_of(internal["ledgers"], str(internal["lastConfirmedEntry"]))
    found: list[Message] = []
    if position == "latest":
        for each in positions_back(entries):
            found[:0] = admin.entry(topic, *each)
            if len(found) >= count:
                break
        return found[-count:]
    start = position if isinstance(position, Position) else Position(0, 0)
    for each in positions_from(entries, start):
        found += admin.entry(topic, *each)
        if len(found) >= count:
            break
    if not found and isinstance(position, Position):
        raise AdminError(
            404, f"{topic} has no entry at or after {position.ledger}:{position.entry}"
        )
    return found[:count]


@click.command(cls=Verb)
@click.argument("topic")
@click.option(
    "--position",
    type=values.position,
    metavar="earliest|latest|LEDGER:ENTRY",
    help="ledger:entry, earliest or latest.  [default: earliest]",
)
@click.option(
    "--subscription",
    "-s",
    type=values.subscription,
    metavar="NAME",
    help="What this subscription would be given next.",
)
@click.option("--count", "-n", type=click.IntRange(1, 10_000), default=1, show_default=True)
@pass_asked
def peek(
    asked: Asked,
    topic: str,
    position: str | Position | None,
    subscription: str | None,
    count: int,
) -> None:
    """Look at messages anywhere in a topic, acknowledging nothing.

    Those that are acknowledged already are there, too, as long as retention keeps them.

    \b
      magnetar peek orders --position latest --count 5
      magnetar peek orders --position 12:340
      magnetar peek orders --subscription billing
    """  # noqa: D301 - click keeps the lines after a \b as they are
    if position is not None and subscription is not None:
        raise click.UsageError("--position and --subscription exclude each other.")
    with asked.admin() as admin:
        shown = 0
        for partition in admin.partition_names(topic):
            found = _peek_one(admin, partition, position or "earliest", subscription, count)
            for message in found:
                stored(message, partition).print(as_json=asked.json, meta=True)
            shown += len(found)
    if not shown:
        where = f"the backlog of {subscription}" if subscription else "the topic"
        raise CommandError(
            f"{TopicName.parse(topic)}: nothing to show, {where} is empty",
            exit_code=ExitCode.NOT_FOUND,
        )


def _peek_one(
    admin: Admin, topic: str, position: str | Position, subscription: str | None, count: int
) -> list[Message]:
    if subscription is None:
        return messages_at(admin, topic, position, count)
    return peek_backlog(admin, topic, subscription, count)
