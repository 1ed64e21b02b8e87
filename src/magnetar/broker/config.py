"""Every setting of a broker: unit, default, bounds.

Units are in the names. A value out of bounds is refused when the config is built, with a
message that names the setting and what is allowed. What the memory settings bound is
per data folder and divided among the processes.
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


def one_of(default: str, *others: str) -> Any:
    """Declare a setting that is one of some words."""
    return field(default=default, metadata={"words": (default, *others)})


@dataclass(frozen=True, slots=True, kw_only=True)
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
    journal_window_ms: float = setting(0.0, 0, 2)
    """Wait this long for more entries before a sync; 0: sync as soon as the last one ended."""
    journal_window_bytes: int = setting(1 * MIB, 4 * KIB, 1 * MIB)
    """A group this large does not wait for the window to end."""
    journal_file_bytes: int = setting(64 * MIB, 1 * MIB, 1 * GIB)
    """Size of one preallocated journal file."""
    unsynced_bytes_max: int = setting(64 * MIB, 1 * MIB, 1 * GIB)
    """Publishing pauses while more than this waits for a sync."""

    # --- write cache and entry logs
    write_cache_bytes_max: int = setting(128 * MIB, 4 * MIB, 64 * GIB)
    """Entries not yet in an entry log. Half of it starts a flush, all of it pauses publishing."""
    flush_interval_s: float = setting(600.0, 1, 86_400)
    """Flush at least this often while there is anything to flush."""
    read_cache_bytes_max: int = setting(64 * MIB, 1 * MIB, 64 * GIB)
    """Blocks read back from entry logs, for consumers that catch up."""
    reclaim_interval_s: float = setting(10.0, 0.05, 86_400)
    """How often entry logs are checked for space to give back."""
    ledger_entries_max: int = setting(250_000, 1, 2**31)
    """A ledger is sealed when it has so many entries. Only sealed ledgers can be trimmed."""
    ledger_bytes_max: int = setting(256 * MIB, 64 * KIB, 16 * GIB)
    """... or so many bytes,"""
    ledger_age_s_max: float = setting(4 * 3600.0, 1, 30 * 86_400)
    """... or is so old."""

    # --- disk watermark
    disk_used_percent_warn: float = setting(85.0, 1, 100)
    """A warning is logged above this."""
    disk_used_percent_readonly: float = setting(95.0, 1, 100)
    """Producers get a retryable error above this; consumers and deletes go on."""

    # --- subscriptions
    cursor_interval_ms: float = setting(50.0, 1, 100)
    """Acknowledgements are durable within twice this time."""
    unacked_messages_per_consumer_max: int = setting(50_000, 1, 10_000_000)
    """A consumer with more delivered and unacknowledged messages gets nothing new."""
    unacked_messages_per_subscription_max: int = setting(200_000, 1, 100_000_000)
    """The same for all consumers of a Shared or Key_Shared subscription together."""
    dispatch_entries_max: int = setting(1_000, 1, 100_000)
    """How many entries one subscription reads ahead at once."""
    dispatch_bytes_max: int = setting(1 * MIB, 4 * KIB, 64 * MIB)
    """How much one subscription reads ahead at once."""
    failover_delay_s: float = setting(1.0, 0, 60)
    """A new active consumer of a Failover subscription waits so long for the old one to settle."""
    delayed_entries_in_memory_max: int = setting(2_000_000, 1_000, 1_000_000_000)
    """Beyond this the farthest delayed entries wait in a file; they are 24 bytes each."""
    expiry_interval_s: float = setting(5.0, 0.05, 3_600)
    """How often time to live and retention are applied."""

    # --- topics
    auto_topic_creation: bool = True
    """Make a topic when a client asks for it. Namespaces may differ."""
    auto_topic_partitions: int = setting(0, 0, 10_000)
    """Partitions of a topic made by asking for it; 0: an ordinary topic."""
    auto_subscription_creation: bool = True
    """Make a subscription when a client asks for it. Namespaces may differ."""
    deduplication: bool = False
    """Store a message that a producer sends twice only once. Namespaces may differ."""
    delete_inactive_topics: bool = False
    """Delete topics without clients and subscriptions, as Pulsar does by default."""
    retention_time_min: int = setting(-1, -1, 2**31)
    """Minutes to keep what every subscription acknowledged; -1: no limit."""
    retention_size_mib: int = setting(-1, -1, 2**31)
    """Mebibytes to keep of it; -1: no limit. It may go once either limit is exceeded."""
    message_ttl_s: int = setting(0, 0, 2**31)
    """Seconds after which a message counts as acknowledged; 0: never."""
    schema_strategy: str = one_of(
        "FULL", "FULL_TRANSITIVE", "BACKWARD", "BACKWARD_TRANSITIVE", "FORWARD",
        "FORWARD_TRANSITIVE", "ALWAYS_COMPATIBLE", "ALWAYS_INCOMPATIBLE",
    )  # fmt: skip
    """How a new schema must go with those before it, in Pulsar's words. Namespaces may differ."""
    schema_required: bool = False
    """Refuse producers without a schema on topics that have one. Namespaces may differ."""
    schema_updates_allowed: bool = True
    """Clients may add versions of a schema. Namespaces may differ."""

    # --- compaction
    compaction_threshold_bytes: int = setting(0, 0, 2**62)
    """Compact a topic when so many bytes came since the last time; 0: only when asked."""
    compaction_memory_bytes_max: int = setting(64 * MIB, 8 * MIB, 64 * GIB)
    """What one compaction remembers of keys, 22 bytes for each; more keys take more rounds."""
    compaction_retain_null_key: bool = False
    """Keep messages without a key in compacted views, as Pulsar may."""

    broker_entry_metadata: bool = False
    """Tell clients that ask for it when the broker took a message, and its index in the topic."""

    # --- connections
    message_bytes_max: int = setting(5 * MIB, 1 * KIB, 64 * MIB)
    """The largest message; clients are told, and cut larger ones into chunks."""
    keep_alive_s: float = setting(30.0, 0.1, 3_600)
    """A silent connection is asked after this time, and closed after as much again."""
    connect_timeout_s: float = setting(5.0, 0.1, 3_600)
    """A connection that has not sent CONNECT by then is closed."""
    connections_max: int = setting(10_000, 1, 1_000_000)
    """Open connections of one process."""
    endpoints_per_connection_max: int = setting(10_000, 1, 10_000_000)
    """Producers and consumers of one connection."""
    pending_publish_bytes_per_connection_max: int = setting(64 * MIB, 64 * KIB, 1 * GIB)
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
            words = each.metadata.get("words")
            if words and getattr(self, each.name) not in words:
                raise ConfigError(
                    f"{each.name} is {getattr(self, each.name)!r}, allowed: {', '.join(words)}"
                )
            if "low" in each.metadata:
                value, low, high = (
                    getattr(self, each.name),
                    each.metadata["low"],
                    each.metadata["high"],
                )
                if not low <= value <= high:
                    raise ConfigError(
                        f"{each.name} is {_text(value)}, allowed: {_text(low)} to {_text(high)}"
                    )


def _text(number: float) -> str:
    """Return a number as a person would write it: no exponent, no digits that nobody typed."""
    return str(number) if isinstance(number, int) else f"{number:.12f}".rstrip("0").rstrip(".")
