"""What is done to a topic from time to time: expiry, retention, quotas.

    time to live   unacknowledged and older than this: acknowledged, on every subscription
    quota full     producers refused, or the slowest cursors moved on       `quotas`
    retention      whole sealed ledgers that everybody has passed, and that may go: dropped
    unused         subscriptions without consumers: expired ones go, and what readers left
    idle           nobody there for as long as configured: may be deleted, where that is on

What may go is decided by `backlog`; here it is done. In this order, because what expires
may then be dropped in the same round.
"""

import logging

from magnetar.broker.clock import Clock
from magnetar.broker.entry import EntryId
from magnetar.broker.topics.limits.backlog import trimmable
from magnetar.broker.topics.limits.policies import INACTIVE_S
from magnetar.broker.topics.topic import Topic
from magnetar.broker.topics.topic_stats import spans_of

logger = logging.getLogger(__name__)

READER_AWAY_S = 60.0
"""How long a subscription that is not durable waits for its consumer to come back."""


async def keep_up(topic: Topic, clock: Clock) -> int:
    """Apply what holds for a persistent topic; return how many ledgers were dropped."""
    rules = topic.rules
    topic.log.roll_if_old()
    if rules.ttl_s > 0:
        await expire(topic, rules.ttl_s)
    if topic.guard is not None:
        await topic.guard.look()
    if rules.retention.time_min < 0 and rules.retention.size_mib < 0:
        return 0
    return len(await trim(topic, clock.wall_ms()))


async def expire(topic: Topic, ttl_s: int) -> None:
    """Acknowledge what is older than the time to live, on every subscription that is durable."""
    for subscription in topic.durable:
        await subscription.expire(ttl_s)


async def trim(topic: Topic, now_ms: int) -> list[int]:
    """Drop the oldest ledgers that retention lets go; return which."""
    spans = spans_of(topic.log)
    dropped = trimmable(spans, topic.held_back_at, topic.rules.retention, now_ms)
    if not dropped:
        return []
    before = EntryId(spans[dropped].ledger, 0) if dropped < len(spans) else topic.log.end
    trimmed = await topic.log.trim(before)
    if topic.transactions is not None:
        await topic.transactions.trimmed()
    return trimmed


async def truncate(topic: Topic) -> list[int]:
    """Acknowledge everything on every subscription, and drop all ledgers but the last.

    Whatever retention says. Return which were dropped.
    """
    for subscription in topic.readers:
        await subscription.clear_backlog()
    return await topic.log.trim(topic.log.end)


async def remove_unused(topic: Topic, now_s: float) -> None:
    """Remove subscriptions that have had no consumer for long enough."""
    expiry_s = topic.rules.subscription_expiration_s
    for subscription in list(topic.subscriptions.values()):
        # A reader that seeks is away for a moment; its subscription waits for it that long.
        limit_s = expiry_s if subscription.durable else READER_AWAY_S
        if limit_s and topic.subscriptions.unused_for(subscription, now_s) >= limit_s:
            logger.info("topic %s: subscription %s is unused", topic.name, subscription.name)
            await topic.delete_subscription(subscription.name)


def is_idle(topic: Topic, now_s: float) -> bool:
    """Return whether a topic may be deleted because nobody uses it."""
    rules = topic.rules
    if not topic.name.persistent:
        used = topic.consumer_count or len(topic.producers)
        return not used and now_s - topic.idle_since_s >= INACTIVE_S
    if not rules.delete_inactive_after_s or topic.consumer_count or len(topic.producers):
        return False
    undecided = topic.transactions is not None and bool(topic.transactions.open)
    if undecided or now_s - topic.idle_since_s < rules.delete_inactive_after_s:
        return False
    if not topic.subscriptions:
        return True
    if not rules.delete_inactive_with_subscriptions:
        return False
    return all(not each.backlog_entries for each in topic.durable)
