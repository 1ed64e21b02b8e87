"""Every setting of a broker: unit, default, bounds.

Units are in the names. A value out of bounds is refused when the config is built, with a
message that names the setting and what is allowed. What the memory settings bound is
per data folder and divided among the processes.

A live setting may change while the broker runs; `metadata.live_settings` is the only one that
changes it. So it has to be read where it is used, each time. None of them changes what is
promised: syncs, acknowledgements and what is kept stay as they are.
"""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


class ConfigError(ValueError):
    """A setting is out of bounds. The message names the setting and the bounds."""


def setting(default: Any, low: float, high: float) -> Any:
    """Declare a numeric setting with its bounds, both inclusive."""
    return field(default=default, metadata={"low": low, "high": high})


def live(  # noqa: PLR0913 - what may be said of one
    default: Any,
    low: float = 0,
    high: float = 1,
    *,
    pulsar: str = "",
    pulsar_unit: float = 1,
    divided: bool = False,
) -> Any:
    """Declare a setting that may change while the broker runs.

    Args:
        default: Its default.
        low: The lowest value allowed; switches have no bounds.
        high: The highest.
        pulsar: What Pulsar, or its bookie, calls a setting of the same meaning.
        pulsar_unit: How many of our units one of its is.
        divided: It holds for the data folder, and each process has an equal part.
    """
    metadata: dict[str, Any] = {
        "live": True, "pulsar": pulsar, "pulsar_unit": pulsar_unit, "divided": divided
    }  # fmt: skip
    if not isinstance(default, bool):
        metadata |= {"low": low, "high": high}
    return field(default=default, metadata=metadata)


def live_one_of(default: str, *others: str) -> Any:
    """Declare a setting that is one of some words, and may change while the broker runs."""
    words = (default, *others)
    return field(
        default=default,
        metadata={"live": True, "pulsar": "", "pulsar_unit": 1, "divided": False, "words": words},
    )


@dataclass(slots=True, kw_only=True)
class BrokerConfig:
    """The settings of one broker process."""

    # --- where it is
    data: Path
    """The data folder."""
    worker: int = setting(0, 0, 1023)
    """The number of this process, from 0."""
    workers: int = setting(1, 1, 1024)
    """How many broker processes serve the folder."""
    cluster: str = "standalone"
    """The name of the cluster, as admin REST and metrics show it."""

    # --- journal: group commit
    journal_window_ms: float = live(0.0, 0, 20, pulsar="journalMaxGroupWaitMSec")
    """Wait this long for more entries before a sync; 0: sync as soon as the last one ended."""
    journal_window_bytes: int = live(
        1 * MIB, 16 * KIB, 4 * MIB, pulsar="journalBufferedWritesThreshold"
    )
    """A group this large does not wait for the window to end."""
    journal_file_bytes: int = setting(64 * MIB, 1 * MIB, 1 * GIB)
    """Size of one preallocated journal file."""
    unsynced_bytes_max: int = field(
        default=64 * MIB, metadata={"low": 1 * MIB, "high": 1 * GIB, "divided": True}
    )
    """Publishing pauses while more than this waits for a sync."""

    # --- write cache and entry logs
    write_cache_bytes_max: int = live(
        128 * MIB, 4 * MIB, 64 * GIB, divided=True,
        pulsar="dbStorage_writeCacheMaxSizeMb", pulsar_unit=MIB,
    )  # fmt: skip
    """Entries not yet in an entry log. Half of it starts a flush, all of it pauses publishing."""
    flush_interval_s: float = live(600.0, 0.1, 86_400)
    """Flush at least this often while there is anything to flush."""
    read_cache_bytes_max: int = live(
        128 * MIB, 1 * MIB, 64 * GIB, divided=True,
        pulsar="managedLedgerCacheSizeMB", pulsar_unit=MIB,
    )  # fmt: skip
    """Blocks read back from entry logs, for consumers that catch up."""
    read_cache_ttl_ms: float = live(
        1_000.0, 100, 600_000, pulsar="managedLedgerCacheEvictionTimeThresholdMillis"
    )
    """A block that nobody has used for so long leaves the read cache."""
    read_ahead_entries: int = live(100, 1, 5_000, pulsar="dbStorage_readAheadCacheBatchSize")
    """A consumer that reads old entries in order has at least so many brought along at first."""
    reclaim_interval_s: float = setting(10.0, 0.05, 86_400)
    """How often entry logs are checked for space to give back."""
    ledger_entries_max: int = live(250_000, 1, 2**31, pulsar="managedLedgerMaxEntriesPerLedger")
    """A ledger is sealed when it has so many entries. Only sealed ledgers can be trimmed."""
    ledger_bytes_max: int = live(
        256 * MIB, 64 * KIB, 16 * GIB,
        pulsar="managedLedgerMaxSizePerLedgerMbytes", pulsar_unit=MIB,
    )  # fmt: skip
    """... or so many bytes,"""
    ledger_age_s_max: float = live(
        4 * 3600.0, 1, 30 * 86_400,
        pulsar="managedLedgerMaxLedgerRolloverTimeMinutes", pulsar_unit=60,
    )  # fmt: skip
    """... or is so old."""

    # --- disk watermark
    disk_used_percent_warn: float = live(85.0, 1, 100)
    """A warning is logged above this."""
    disk_used_percent_readonly: float = live(95.0, 1, 100)
    """Producers get a retryable error above this; consumers and deletes go on."""

    # --- subscriptions
    cursor_interval_ms: float = setting(50.0, 1, 100)
    """Acknowledgements are durable within twice this time."""
    unacked_messages_per_consumer_max: int = live(
        50_000, 1, 10_000_000, pulsar="maxUnackedMessagesPerConsumer"
    )
    """A consumer with more delivered and unacknowledged messages gets nothing new."""
    unacked_messages_per_subscription_max: int = live(
        200_000, 1, 100_000_000, pulsar="maxUnackedMessagesPerSubscription"
    )
    """The same for all consumers of a Shared or Key_Shared subscription together."""
    dispatch_entries_max: int = live(1_000, 1, 100_000, pulsar="dispatcherMaxReadBatchSize")
    """How many entries one subscription reads ahead at once."""
    dispatch_bytes_max: int = live(1 * MIB, 4 * KIB, 64 * MIB, pulsar="dispatcherMaxReadSizeBytes")
    """How much one subscription reads ahead at once."""
    round_robin_entries_max: int = live(64, 1, 200, pulsar="dispatcherMaxRoundRobinBatchSize")
    """Shared: so many neighbours go to one consumer before it is the next one's turn."""
    failover_delay_s: float = live(1.0, 0, 60)
    """A new active consumer of a Failover subscription waits so long for the old one to settle."""
    key_shared_consistent_hashing: bool = True
    """Key_Shared: keys go to points on a ring; off: to halves of ranges, as consumers come."""
    delayed_entries_in_memory_max: int = setting(2_000_000, 1_000, 1_000_000_000)
    """Beyond this the farthest delayed entries wait in a file; they are 24 bytes each."""
    expiry_interval_s: float = setting(5.0, 0.05, 3_600)
    """How often time to live and retention are applied."""

    # --- topics
    auto_topic_creation: bool = live(True, pulsar="allowAutoTopicCreation")
    """Make a topic when a client asks for it. Namespaces may differ."""
    auto_topic_partitions: int = live(0, 0, 10_000)
    """Partitions of a topic made by asking for it; 0: an ordinary topic."""
    auto_subscription_creation: bool = live(True, pulsar="allowAutoSubscriptionCreation")
    """Make a subscription when a client asks for it. Namespaces may differ."""
    deduplication: bool = False
    """Store a message that a producer sends twice only once. Namespaces may differ."""
    delete_inactive_topics: bool = live(False, pulsar="brokerDeleteInactiveTopicsEnabled")
    """Delete topics without clients and subscriptions, as Pulsar does by default."""
    retention_time_min: int = setting(-1, -1, 2**31)
    """Minutes to keep what every subscription acknowledged; -1: no limit."""
    retention_size_mib: int = setting(-1, -1, 2**31)
    """Mebibytes to keep of it; -1: no limit. It may go once either limit is exceeded."""
    message_ttl_s: int = setting(0, 0, 2**31)
    """Seconds after which a message counts as acknowledged; 0: never."""
    schema_strategy: str = live_one_of(
        "FULL", "FULL_TRANSITIVE", "BACKWARD", "BACKWARD_TRANSITIVE", "FORWARD",
        "FORWARD_TRANSITIVE", "ALWAYS_COMPATIBLE", "ALWAYS_INCOMPATIBLE",
    )  # fmt: skip
    """How a new schema must go with those before it, in Pulsar's words. Namespaces may differ."""
    schema_required: bool = live(False)
    """Refuse producers without a schema on topics that have one. Namespaces may differ."""
    schema_updates_allowed: bool = live(True, pulsar="isAllowAutoUpdateSchemaEnabled")
    """Clients may add versions of a schema. Namespaces may differ."""

    # --- compaction
    compaction_threshold_bytes: int = live(
        0, 0, 2**62, pulsar="brokerServiceCompactionThresholdInBytes"
    )
    """Compact a topic when so many bytes came since the last time; 0: only when asked."""
    compaction_memory_bytes_max: int = live(64 * MIB, 8 * MIB, 64 * GIB)
    """What one compaction remembers of keys, 22 bytes for each; more keys take more rounds."""
    compaction_retain_null_key: bool = False
    """Keep messages without a key in compacted views, as Pulsar may."""

    broker_entry_metadata: bool = False
    """Tell clients that ask for it when the broker took a message, and its index in the topic."""

    # --- metrics
    metrics_of_topics: bool = live(True, pulsar="exposeTopicLevelMetricsInPrometheus")
    """Show each topic by itself in /metrics; off: namespaces."""
    metrics_of_producers: bool = live(True, pulsar="exposeProducerLevelMetricsInPrometheus")
    """With topics: producers, too, while a process has at most 1,000 clients."""
    metrics_of_consumers: bool = live(True, pulsar="exposeConsumerLevelMetricsInPrometheus")
    """With topics: consumers, too, while a process has at most 1,000 clients."""
    metrics_of_bundles: bool = live(False, pulsar="exposeBundlesMetricsInPrometheus")
    """Show sums of bundles, too."""

    # --- rates of the whole broker
    publish_rate_messages_max: int = live(
        0, 0, 2**31, pulsar="brokerPublisherThrottlingMaxMessageRate"
    )
    """Messages per second published to all topics together; 0: no limit. In this setting and
    those below, each process takes an equal part."""
    publish_rate_bytes_max: int = live(0, 0, 2**40, pulsar="brokerPublisherThrottlingMaxByteRate")
    """Bytes per second published to all topics together; 0: no limit."""
    dispatch_rate_messages_max: int = live(0, 0, 2**31, pulsar="dispatchThrottlingRateInMsg")
    """Messages per second sent to all consumers together; 0: no limit."""
    dispatch_rate_bytes_max: int = live(0, 0, 2**40, pulsar="dispatchThrottlingRateInByte")
    """Bytes per second sent to all consumers together; 0: no limit."""

    # --- connections
    message_bytes_max: int = setting(5 * MIB, 1 * KIB, 64 * MIB)
    """The largest message; clients are told, and cut larger ones into chunks."""
    keep_alive_s: float = setting(30.0, 0.1, 3_600)
    """A silent connection is asked after this time, and closed after as much again."""
    connect_timeout_s: float = setting(5.0, 0.1, 3_600)
    """A connection that has not sent CONNECT by then is closed."""
    connections_max: int = setting(10_000, 1, 1_000_000)
    """Open connections of one process."""
    websocket_connections_max: int = setting(2_000, 1, 1_000_000)
    """Open WebSocket connections of one process; each is one producer, consumer or reader."""
    endpoints_per_connection_max: int = live(10_000, 1, 10_000_000)
    """Producers and consumers of one connection."""
    pending_publish_bytes_per_connection_max: int = live(64 * MIB, 64 * KIB, 1 * GIB)
    """A connection with more unsynced bytes is not read from."""
    write_buffer_bytes_per_connection_max: int = setting(1 * MIB, 64 * KIB, 1 * GIB)
    """A consumer's connection that has more than this unsent gets nothing new."""

    # --- log-in and rights
    authentication: str = ""
    """Ways to log in, separated by spaces: `token`, `basic`, `tls`. Empty: nobody has to."""
    superuser_roles: str = ""
    """Roles that may do everything, separated by spaces."""
    proxy_roles: str = ""
    """Roles of proxies, which may speak for others."""
    metrics_roles: str = ""
    """Roles beside the superusers that may see /metrics."""
    anonymous_role: str = ""
    """The role of whoever shows no credential. Empty: nobody gets in without."""
    role_wildcards: bool = False
    """Whether a role in a grant may begin or end with `*`."""
    token_secret_key: str = field(default="", repr=False)
    """File with the secret that tokens are signed with; `file://` and `data:;base64,` work too.
    Several, separated by spaces, while keys are changed; `ID=FILE`: for tokens of this `kid`."""
    token_public_key: str = ""
    """The same for public keys, in PEM or DER."""
    token_claim: str = "sub"  # noqa: S105 - the name of a claim
    """The claim of a token that names the role."""
    token_audience: str = ""
    """What a token must name as its audience. Empty: that is not looked at."""
    token_audience_claim: str = "aud"  # noqa: S105
    """The claim that names it."""
    token_revocations: str = ""
    """File with tokens and roles that are not to be taken any more."""
    basic_file: str = ""
    """File with names and passwords, as htpasswd writes it."""
    oidc_issuers: str = ""
    """Addresses of OpenID Connect issuers whose tokens are taken, separated by spaces."""
    oidc_audiences: str = ""
    """Audiences of which such a token must name one."""
    oidc_claim: str = "sub"
    """The claim of such a token that names the role."""
    credential_check_s: float = setting(60.0, 0.05, 3_600)
    """How often credentials of open connections are looked at again."""
    strangers_per_address_max: int = setting(32, 1, 1_000_000)
    """With log-in: connections from one address that have not logged in yet."""

    def __post_init__(self) -> None:
        for each in fields(self):
            check(each.name, getattr(self, each.name))


def check(name: str, value: Any) -> None:
    """Make sure that a value is within the bounds of its setting.

    Raises:
        ConfigError: it is not.
    """
    metadata = BrokerConfig.__dataclass_fields__[name].metadata
    words = metadata.get("words")
    if words and value not in words:
        raise ConfigError(f"{name} is {value!r}, allowed: {', '.join(words)}")
    low, high = metadata.get("low"), metadata.get("high")
    if low is not None and high is not None and not low <= value <= high:
        raise ConfigError(f"{name} is {_text(value)}, allowed: {_text(low)} to {_text(high)}")


def _text(number: float) -> str:
    """Return a number as a person would write it: no exponent, no digits that nobody typed."""
    return str(number) if isinstance(number, int) else f"{number:.12f}".rstrip("0").rstrip(".")


LIVE: dict[str, Any] = {
    each.name: each.metadata for each in fields(BrokerConfig) if each.metadata.get("live")
}
"""The settings that may change while the broker runs, and what is known of each."""

DIVIDED = tuple(each.name for each in fields(BrokerConfig) if each.metadata.get("divided"))
"""Settings that bound memory for the whole data folder, and are divided among the workers."""

DIVIDED_BYTES_MIN = 4 * MIB
"""What a process has of each at the least."""


def share_of(whole: int, workers: int) -> int:
    """Return what each of so many processes has of a setting that is divided."""
    return max(whole // workers, DIVIDED_BYTES_MIN)
