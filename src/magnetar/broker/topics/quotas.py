"""The backlog quotas of one topic: when to look, what is full, and what is done about it.

    published ──▶ so many bytes that a quota may be full ──┐
    the oldest message becomes too old ────────────────────┼──▶ look ──▶ full: refuse producers,
    acknowledged, while producers are refused ─────────────┘      │         or move cursors on
                                                                  └────▶ not: let them in again

The size of a backlog grows by nothing but what is published: after a look it is known how many
bytes may still come, so that nothing is computed before. What may go is decided by `backlog`.
Looked to: Pulsar's precise checks of both kinds of quotas.
"""

import asyncio
import logging
from typing import Protocol

from magnetar.broker.clock import Clock
from magnetar.broker.entry import EARLIEST, EntryId
from magnetar.broker.port import PortError, QuotaExceededError
from magnetar.broker.storage.errors import StorageError
from magnetar.broker.storage.log import Log
from magnetar.broker.topics.consumers.places import read_one
from magnetar.broker.topics.limits.backlog import (
    Quota,
    QuotaPolicy,
    Span,
    backlog_bytes,
    evict_to,
    strictest,
)
from magnetar.broker.topics.limits.policies import Rules
from magnetar.broker.topics.producers.access_modes import Producers
from magnetar.broker.topics.producers.producer import Inlet
from magnetar.broker.topics.subscriptions.subscription import Subscription
from magnetar.broker.topics.topic_stats import spans_of
from magnetar.names import TopicName

logger = logging.getLogger(__name__)

NEVER = 1 << 62
AGAIN_S = 0.05
"""How soon to look again after something was acknowledged while producers are refused."""
AGE_WAIT_S_MAX = 60.0
"""How long at most to wait for the oldest message to become too old: clocks are set."""
EVICTIONS_MAX = 4
"""Times that cursors are moved on in one look. The size of a backlog is an estimate."""


class Guarded(Protocol):
    """The topic, as its guard sees it."""

    name: TopicName
    rules: Rules
    inlet: Inlet
    producers: Producers

    @property
    def log(self) -> Log: ...
    @property
    def closed(self) -> bool: ...
    @property
    def durable(self) -> list[Subscription]: ...


class QuotaGuard:
    """Keeps one topic within its backlog quotas."""

    __slots__ = ("_clock", "_loop", "_task", "_timer", "_topic", "look_at_bytes")

    def __init__(self, topic: Guarded, clock: Clock, loop: asyncio.AbstractEventLoop) -> None:
        self._topic = topic
        self._clock = clock
        self._loop = loop
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.look_at_bytes = 0
        """How much has to be published, since the topic was loaded, until one may be full."""

    # --- when to look

    def published(self) -> None:
        """Something was published: look soon, if it was enough."""
        if self._topic.inlet.bytes_in >= self.look_at_bytes:
            self.look_at_bytes = NEVER
            self._look_soon()

    def acknowledged(self) -> None:
        """Something was acknowledged: producers may perhaps be let in again."""
        if isinstance(self._topic.inlet.refusal, QuotaExceededError):
            self._look_in(AGAIN_S)

    @property
    def due(self) -> bool:
        """Whether to look before a producer is let in."""
        return not self.look_at_bytes or self.look_at_bytes == NEVER

    def changed(self) -> None:
        """Other quotas hold now."""
        self.look_at_bytes = 0
        self._look_soon()

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is not None:
            self._task.cancel()

    def _look_in(self, seconds: float) -> None:
        when = self._loop.time() + seconds
        if self._timer is not None:
            if self._timer.when() <= when:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._time_has_come)

    def _time_has_come(self) -> None:
        self._timer = None
        self._look_soon()

    def _look_soon(self) -> None:
        if self._task is None or self._task.done():
            self._task = self._loop.create_task(self.look_quietly())

    async def look_quietly(self) -> None:
        """Look; what keeps us from it is logged, and the next look comes by itself."""
        try:
            await self.look()
        except (PortError, StorageError) as error:
            logger.warning("quotas of topic %s: %s", self._topic.name, error)

    # --- looking

    async def look(self) -> None:
        """Refuse producers, or let them in again, or move the slowest cursors on.

        Raises:
            PersistenceError: the log could not be read.
        """
        topic = self._topic
        if topic.closed:
            return
        quotas = topic.rules.quotas
        for _ in range(EVICTIONS_MAX):
            spans = spans_of(topic.log)
            full = [quota for quota in quotas if await self._is_full(quota, spans)]
            policy = strictest([quota.policy for quota in full]) if full else None
            if policy in {QuotaPolicy.HOLD, QuotaPolicy.EXCEPTION}:
                self._refuse(hold=policy is QuotaPolicy.HOLD)
                return
            if isinstance(topic.inlet.refusal, QuotaExceededError):
                topic.inlet.refusal = None
            if not full:
                return
            for quota in full:
                await self._evict(quota, spans)

    async def _is_full(self, quota: Quota, spans: list[Span]) -> bool:
        size_full = self._is_too_large(quota, spans)
        return await self._is_too_old(quota) or size_full

    def _is_too_large(self, quota: Quota, spans: list[Span]) -> bool:
        if quota.size_bytes <= 0:
            return False
        topic = self._topic
        slowest = min((each.cursor.mark_delete for each in topic.durable), default=None)
        size = 0 if slowest is None else backlog_bytes(spans, slowest)
        left = quota.size_bytes - size
        if left > 0:
            at = topic.inlet.bytes_in + left
            self.look_at_bytes = at if self.look_at_bytes == NEVER else min(at, self.look_at_bytes)
        return left <= 0

    async def _is_too_old(self, quota: Quota) -> bool:
        if quota.age_s <= 0:
            return False
        now_ms = self._clock.wall_ms()
        oldest_ms = await oldest_unacknowledged_ms(self._topic, now_ms - quota.age_s * 1000)
        if oldest_ms is None:
            return False
        left_s = quota.age_s - (now_ms - oldest_ms) / 1000
        if left_s >= 0:
            self._look_in(min(left_s + AGAIN_S, AGE_WAIT_S_MAX))
        return left_s < 0

    # --- what is done about it

    def _refuse(self, *, hold: bool) -> None:
        topic = self._topic
        if topic.inlet.refusal is not None:
            return
        error = QuotaExceededError(
            f"the backlog quota of topic {topic.name} is full; acknowledge or skip messages",
            hold=hold,
        )
        topic.inlet.refusal = error
        topic.producers.end_all(error)

    async def _evict(self, quota: Quota, spans: list[Span]) -> None:
        topic = self._topic
        mark = None
        if quota.size_bytes > 0:
            mark = evict_to(spans, quota.size_bytes)
        for subscription in topic.durable:
            if quota.age_s > 0:
                await subscription.expire(quota.age_s)
            if mark is not None and subscription.cursor.mark_delete < mark:
                logger.warning(
                    "topic %s: the backlog quota is full, subscription %s skips to %s",
                    topic.name,
                    subscription.name,
                    mark,
                )
                await subscription.expire_to(mark)


async def oldest_unacknowledged_ms(topic: Guarded, limit_ms: int) -> int | None:
    """Return when the oldest message was published that somebody has not acknowledged.

    Where a whole ledger is younger than `limit_ms`, its first message stands for all of it.
    None: there is no backlog.

    Raises:
        PersistenceError: it could not be read.
    """
    oldest: EntryId | None = None
    for subscription in topic.durable:
        at = subscription.cursor.next_unacknowledged(EARLIEST, topic.log)
        if at < topic.log.end and (oldest is None or at < oldest):
            oldest = at
    if oldest is None:
        return None
    for info in topic.log.ledger_infos():
        if info.ledger == oldest.ledger and info.first_publish_ms >= limit_ms:
            return info.first_publish_ms
    found = await read_one(topic.log, oldest)
    return found.envelope.publish_time_ms
