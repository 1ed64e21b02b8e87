"""`magnetar topics`: list, create, delete and inspect topics, through admin REST."""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import click

from magnetar.cli import values
from magnetar.cli.errors import CommandError, ExitCode
from magnetar.cli.values import time_text
from magnetar.cli.verb import Asked, Noun, pass_asked

Stats = Mapping[str, Any]

RUNNING = "RUNNING"
POLL_S = 0.2
"""How often a compaction that is waited for is asked about."""


@click.group(cls=Noun)
def topics() -> None:
    """List, create, delete and inspect topics."""


@topics.command("list")
@click.argument("namespace", default="public/default")
@click.option("--partitioned", is_flag=True, help="Partitioned topics, by their base names.")
@pass_asked
def list_topics(asked: Asked, namespace: str, partitioned: bool) -> None:
    """List the topics of a NAMESPACE, partitions included."""
    with asked.admin() as admin:
        found = admin.partitioned_topics(namespace) if partitioned else admin.topics(namespace)
    asked.show_names(sorted(found))


@topics.command("create")
@click.argument("topic")
@click.option("--partitions", type=click.IntRange(min=1), help="Make it a partitioned topic.")
@click.option(
    "--property",
    "properties",
    type=values.key_value,
    metavar="KEY=VALUE",
    multiple=True,
    help="May be repeated.",
)
@pass_asked
def create(
    asked: Asked, topic: str, partitions: int | None, properties: Sequence[tuple[str, str]]
) -> None:
    """Create a topic."""
    with asked.admin() as admin:
        admin.create_topic(topic, partitions or 0, dict(properties))
    asked.show_one({"topic": topic, "partitions": partitions or 0}, f"created {topic}")


@topics.command("policy")
@click.argument("topic")
@click.argument("policy")
@click.option("--applied", is_flag=True, help="What holds, wherever it is said.")
@pass_asked
def show_policy(asked: Asked, topic: str, policy: str, applied: bool) -> None:
    """Show a POLICY of a topic, by its admin REST name."""
    with asked.admin() as admin:
        asked.show_one({policy: admin.topic_policy(topic, policy, applied=applied)})


@topics.command("set-policy")
@click.argument("topic")
@click.argument("policy")
@click.argument("value", type=values.json_value)
@pass_asked
def set_policy(asked: Asked, topic: str, policy: str, value: Any) -> None:
    """Set a POLICY of a topic by its admin REST name, to a VALUE: JSON, or one word."""
    with asked.admin() as admin:
        admin.set_topic_policy(topic, policy, value)
    asked.show_one({"topic": topic, policy: value}, f"{topic}: {policy} is {json.dumps(value)}")


@topics.command("unset-policy")
@click.argument("topic")
@click.argument("policy")
@pass_asked
def unset_policy(asked: Asked, topic: str, policy: str) -> None:
    """Let what the namespace says hold again for a POLICY of a topic."""
    with asked.admin() as admin:
        admin.remove_topic_policy(topic, policy)
    asked.show_one({"topic": topic, policy: None}, f"{topic}: {policy} is not set")


@topics.command("delete")
@click.argument("topic")
@click.option("--force", is_flag=True, help="Although clients are connected.")
@pass_asked
def delete(asked: Asked, topic: str, force: bool) -> None:
    """Delete a topic, its messages and its subscriptions."""
    with asked.admin() as admin:
        admin.delete_topic(topic, force=force)
    asked.show_one({"topic": topic, "deleted": True}, f"deleted {topic}")


@topics.command("stats")
@click.argument("topic")
@click.option("--internal", is_flag=True, help="Ledgers and cursors instead.")
@pass_asked
def stats(asked: Asked, topic: str, internal: bool) -> None:
    """Show what goes in and out of a topic, and what waits."""
    with asked.admin() as admin:
        if internal:
            asked.show_one(admin.internal_stats(topic))
            return
        told = admin.stats(topic)
    asked.show_one(told, stats_text(topic, told))


def stats_text(topic: str, told: Stats) -> str:
    """Return the figures of a topic that a person looks for first."""
    lines = [
        f"{topic}",
        f"  messages in    {told.get('msgInCounter', 0):,}",
        f"  bytes in       {told.get('bytesInCounter', 0):,}",
        f"  stored bytes   {told.get('storageSize', 0):,}",
        f"  producers      {len(told.get('publishers') or ()):,}",
    ]
    if last := told.get("lastPublishTimeStamp"):
        lines.append(f"  last publish   {time_text(int(last))}")
    if damaged := told.get("quarantinedRanges"):
        lines.append(f"  damaged        {damaged:,} ranges, see --internal")
    subscriptions: Stats = told.get("subscriptions") or {}
    lines.append(f"  subscriptions  {len(subscriptions):,}")
    for name, each in subscriptions.items():
        lines.append(
            f"    {name}: {_kind(each)}, backlog"
            f" {each.get('msgBacklog', 0):,}, unacknowledged {each.get('unackedMessages', 0):,},"
            f" consumers {len(each.get('consumers') or ()):,}{_gaps(each)}"
        )
    return "\n".join(lines)


def _gaps(subscription: Stats) -> str:
    passed, entries = subscription.get("gapsPassed"), subscription.get("gapEntriesPassed", 0)
    return f", led past {passed:,} gaps of {entries:,} damaged entries" if passed else ""


def _kind(subscription: Stats) -> str:
    kind = subscription.get("type")
    return "no consumer yet" if kind in {None, "", "None"} else str(kind)


@topics.command("partitions")
@click.argument("topic")
@click.option("--set", "wanted", type=click.IntRange(min=1), help="Grow to so many.")
@pass_asked
def partitions(asked: Asked, topic: str, wanted: int | None) -> None:
    """Show how many partitions a topic has, or grow them."""
    with asked.admin() as admin:
        if wanted is not None:
            admin.update_partitions(topic, wanted)
        count = admin.partitions(topic)
        if not count:
            admin.stats(topic)  # no partitions, or no topic? A missing one is an error here
    asked.show_one({"topic": topic, "partitions": count}, f"{count}")


@topics.command("terminate")
@click.argument("topic")
@pass_asked
def terminate(asked: Asked, topic: str) -> None:
    """Close a topic, or all its partitions, for good: it is read, but nothing more is published."""
    with asked.admin() as admin:
        if admin.partitions(topic):
            ends = admin.terminate_partitions(topic)
            told = {str(index): str(last) for index, last in ends.items()}
            text = f"terminated {len(ends)} partitions of {topic}"
            asked.show_one({"topic": topic, "last_ids": told}, text)
            return
        last = admin.terminate(topic)
    asked.show_one({"topic": topic, "last_id": str(last)}, f"terminated {topic} after {last}")


@topics.command("create-missed-partitions")
@click.argument("topic")
@pass_asked
def create_missed(asked: Asked, topic: str) -> None:
    """Make the partitions of a topic anew that are missing."""
    with asked.admin() as admin:
        admin.create_missed_partitions(topic)
    asked.show_one({"topic": topic, "created": True}, f"{topic} has all its partitions")


@topics.command("compact")
@click.argument("topic")
@click.option("--wait", is_flag=True, help="Until it is done.")
@pass_asked
def compact(asked: Asked, topic: str, wait: bool) -> None:
    """Make the view that holds the last message of every key."""
    with asked.admin() as admin:
        admin.compact(topic)
        status, error = admin.compaction(topic)
        while wait and status == RUNNING:
            time.sleep(POLL_S)
            status, error = admin.compaction(topic)
    if status == "ERROR":
        raise CommandError(f"{topic} could not be compacted: {error}", "see the log of the broker")
    asked.show_one({"topic": topic, "status": status}, f"{status.lower()}: {topic}")


@topics.command("trim")
@click.argument("topic")
@pass_asked
def trim(asked: Asked, topic: str) -> None:
    """Drop now what everybody has acknowledged and retention lets go."""
    with asked.admin() as admin:
        admin.trim(topic)
    asked.show_one({"topic": topic, "trimmed": True}, f"trimmed {topic}")


@topics.command("truncate")
@click.argument("topic")
@click.option("--force", is_flag=True, help="Needed: messages that nobody has read go, too.")
@pass_asked
def truncate(asked: Asked, topic: str, force: bool) -> None:
    """Acknowledge everything on all subscriptions, and drop it."""
    if not force:
        raise CommandError(
            f"this drops the messages of {topic}, also those that nobody has read",
            "say --force if you mean it",
            ExitCode.USAGE,
        )
    with asked.admin() as admin:
        admin.truncate(topic)
    asked.show_one({"topic": topic, "truncated": True}, f"truncated {topic}")


@topics.command("unload")
@click.argument("topic")
@pass_asked
def unload(asked: Asked, topic: str) -> None:
    """Let the broker forget a topic's memory; clients come back by themselves."""
    with asked.admin() as admin:
        for each in admin.partition_names(topic):
            admin.unload(each)
    asked.show_one({"topic": topic, "unloaded": True}, f"unloaded {topic}")
