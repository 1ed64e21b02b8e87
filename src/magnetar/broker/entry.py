"""The entry: what one publish stores, and the part of it that the core may read.

An entry is an envelope, which the broker reads, and a body, which the broker never
opens: the bytes as the protocol sent them. In memory and on disk the envelope is one
fixed-size row (see `run`); `Envelope` is the same row as a Python object, for the cold
paths that want one (peek, statistics, tests).
"""

from enum import IntFlag
from typing import NamedTuple


class EntryId(NamedTuple):
    """Where an entry lies. Sorts in log order: ledger ids only grow along a topic."""

    ledger: int
    entry: int

    def __str__(self) -> str:
        return f"{self.ledger}:{self.entry}"


class TransactionId(NamedTuple):
    """Which transaction: the coordinator that opened it, and its number there."""

    most: int
    """The coordinator. The names are Pulsar's, which writes both as one number of 128 bits."""
    least: int

    def __str__(self) -> str:
        return f"({self.most},{self.least})"


EARLIEST = EntryId(-1, -1)
"""Before the first entry of any topic. Pulsar writes it as two unsigned 64-bit all-ones."""

LATEST = EntryId(2**63 - 1, 2**63 - 1)
"""After the last entry of any topic."""


class EntryFlags(IntFlag):
    """What a door found out about an entry on arrival, one bit each.

    The low 8 bits of a row's `flags` number the body's format; the bits above are these.
    """

    BATCH = 1 << 8
    """The body holds several messages, or one in the batch format."""
    ENCRYPTED = 1 << 9
    CHUNK = 1 << 10
    """One piece of a larger message."""
    LAST_CHUNK = 1 << 11
    """The last piece; only then may deduplication compare its sequence id."""
    KEYED = 1 << 12
    """`key_hash` is the hash of a key. Without it the entry has no key and no order to keep."""
    MARKER = 1 << 13
    """Internal to brokers: occupies a position, is never delivered."""
    REPLICATED = 1 << 14
    TRANSACTIONAL = 1 << 15
    COMPACTED = 1 << 16
    """Compaction has taken messages out of this batch."""


class BodyFormat:
    """How the body of an entry is written: the low 8 bits of `flags`."""

    PULSAR = 0
    """`metadata_size u32 | MessageMetadata | payload`, as covered by the Pulsar checksum."""
    KAFKA = 1


class Envelope(NamedTuple):
    """One row of a run as an object. Times are milliseconds since 1970, UTC."""

    offset: int
    """First byte of the body, counted as the run's `base` counts."""
    length: int
    """Bytes in the body."""
    checksum: int
    """CRC32-C of the body."""
    messages: int
    """Messages in the entry, at least 1."""
    key_hash: int
    """Murmur3 (x86, 32 bit, seed 0, sign bit cleared) of the outer key; 0 without a key."""
    flags: int
    producer: int
    """The slot of the producer within its connection; means nothing once stored."""
    transaction: int
    """Which of the topic's transactions stored it, 0: none. In a run that a door publishes, its
    place among `Run.transactions`, counted from 1."""
    sequence_id: int
    highest_sequence_id: int
    """The last sequence id of a batch; equal to `sequence_id` otherwise."""
    publish_time_ms: int
    """The producer's clock."""
    deliver_at_ms: int
    """0: at once."""
    first_index: int
    """How many messages the topic had taken before this entry's first one."""
    broker_time_ms: int
    """The broker's clock when the entry was appended."""
