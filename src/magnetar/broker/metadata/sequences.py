"""Sequences: the highest sequence id stored per producer, for deduplication.

    sequences/<topic>/<producer>   {"highest": 41}

A producer is never forgotten for having been silent: what reads its changelog from the
start may come back after weeks. Only the topic's deletion removes what is here.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from magnetar.broker.metadata import paths
from magnetar.broker.metadata.documents import decode, encode
from magnetar.broker.metadata.facts import commit_where_present
from magnetar.broker.metadata.store import Change, Put, Store
from magnetar.names import TopicName

SAVE_PRODUCERS_MAX = 10_000
"""Producers in one commit of `save_sequences`, so that none holds up the others."""


class _Sequence(msgspec.Struct):
    highest: int


class Checkpoint(NamedTuple):
    """What has changed in one topic since its last checkpoint."""

    topic: TopicName
    highest: Mapping[str, int]
    """Producer name -> highest sequence id stored."""


async def load_sequences(store: Store, topic: TopicName) -> dict[str, int]:
    """Return the highest sequence id per producer name, as of the last checkpoint."""
    prefix = paths.sequences(topic)
    return {
        key.removeprefix(prefix): decode(key, found.value, _Sequence).highest
        for key, found in await store.scan(prefix)
    }


async def save_sequences(store: Store, checkpoints: Iterable[Checkpoint]) -> None:
    """Make checkpoints of many topics durable. A topic that was deleted meanwhile is left out."""
    batch: dict[str, list[Change]] = {}
    count = 0
    for topic, highest in checkpoints:
        key, prefix = paths.topic(topic), paths.sequences(topic)
        puts = [Put(prefix + name, encode(_Sequence(number))) for name, number in highest.items()]
        batch.setdefault(key, []).extend(puts)
        count += len(puts)
        if count >= SAVE_PRODUCERS_MAX:
            await commit_where_present(store, batch)
            batch, count = {}, 0
    await commit_where_present(store, batch)
