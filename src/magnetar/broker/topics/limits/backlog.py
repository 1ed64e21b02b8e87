"""Retention, time to live, backlog quotas: what may go, and when writing must stop. Pure.

    ledgers of a partition, oldest first          cursors
    ┌────────┬────────┬────────┬─────────┐
    │ sealed │ sealed │ sealed │  open   │
    └────────┴────────┴────────┴─────────┘
         acknowledged by all ▲ slowest durable cursor

Only whole sealed ledgers below the slowest durable cursor may go, and only once retention
lets them: while they are younger than its time AND the topic is within its size, they stay
(-1: no limit of that kind; both -1, the default, keeps everything; both 0 keeps nothing
that was acknowledged). Sources: Pulsar's cookbook "message retention and expiry", and its
backlog quota policies.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from magnetar.broker.entry import EntryId

_MINUTE_MS = 60_000
_MIB = 1024 * 1024

EVICT_TO = 0.9
"""An eviction leaves this share of the quota, so that it does not have to run for every entry."""


class Span(NamedTuple):
    """What these decisions need to know about one ledger."""

    ledger: int
    entries: int
    size_bytes: int
    last_publish_ms: int
    sealed: bool


class Retention(NamedTuple):
    """How long, and how much, of what everybody acknowledged is kept. -1: no limit."""

    time_min: int
    size_mib: int


class QuotaPolicy(StrEnum):
    """What happens when a backlog quota is full. Values are Pulsar's."""

    HOLD = "producer_request_hold"
    EXCEPTION = "producer_exception"
    EVICTION = "consumer_backlog_eviction"


class Quota(NamedTuple):
    """A backlog quota. A limit of -1 or 0 is none."""

    policy: QuotaPolicy
    size_bytes: int = -1
    age_s: int = -1


def trimmable(
    spans: Sequence[Span], slowest: EntryId | None, retention: Retention, now_ms: int
) -> int:
    """Return how many of the oldest ledgers may go.

    `slowest` is the mark-delete position of the slowest durable cursor: the last entry that
    every subscription has acknowledged. None means that there is no subscription, so that
    everything counts as acknowledged.
    """
    kept_bytes = sum(span.size_bytes for span in spans)
    count = 0
    for span in spans:
        if not span.sealed or not _acknowledged(span, slowest):
            break
        if not _over(span, kept_bytes, retention, now_ms):
            break
        kept_bytes -= span.size_bytes
        count += 1
    return count


def backlog_bytes(spans: Sequence[Span], mark_delete: EntryId) -> int:
    """Estimate how many bytes lie after a mark-delete position.

    Within a ledger entries are taken to be of equal size.
    """
    total = 0
    for span in spans:
        if span.ledger > mark_delete.ledger:
            total += span.size_bytes
        elif span.ledger == mark_delete.ledger and span.entries:
            left = max(0, span.entries - mark_delete.entry - 1)
            total += span.size_bytes * left // span.entries
    return total


def evict_to(spans: Sequence[Span], limit_bytes: int) -> EntryId | None:
    """Return the new mark-delete position that brings a backlog below its quota.

    None: the topic as a whole is below it already.
    """
    excess = sum(span.size_bytes for span in spans) - int(limit_bytes * EVICT_TO)
    if excess <= 0:
        return None
    for span in spans:
        if not span.entries:
            continue
        if excess < span.size_bytes:
            entries = -(-excess * span.entries // span.size_bytes)
            return EntryId(span.ledger, entries - 1)
        excess -= span.size_bytes
        last = EntryId(span.ledger, span.entries - 1)
        if excess <= 0:
            return last
    return last if spans else None


def strictest(policies: Sequence[QuotaPolicy]) -> QuotaPolicy:
    """Return which of several policies of full quotas wins: refusing beats evicting."""
    for policy in (QuotaPolicy.EXCEPTION, QuotaPolicy.HOLD):
        if policy in policies:
            return policy
    return QuotaPolicy.EVICTION


def _acknowledged(span: Span, slowest: EntryId | None) -> bool:
    if slowest is None or slowest.ledger > span.ledger:
        return True
    return slowest.ledger == span.ledger and slowest.entry >= span.entries - 1


def _over(span: Span, kept_bytes: int, retention: Retention, now_ms: int) -> bool:
    """Return whether one of the two limits of retention is exceeded with this ledger kept."""
    if retention.time_min >= 0 and now_ms - span.last_publish_ms >= retention.time_min * _MINUTE_MS:
        return True
    return retention.size_mib >= 0 and kept_bytes > retention.size_mib * _MIB
