"""The JSON that admin REST takes and gives, as types, where no type of the core is what is shown.

The names of the fields are Pulsar's. `openapi` describes every route by these; what an answer
has beyond them is described as allowed.
"""

from typing import Any

import msgspec

Json = dict[str, Any]


class Reason(msgspec.Struct, rename="camel"):
    """The body of every refusal."""

    reason: str


class MessagePlace(msgspec.Struct, rename="camel"):
    """Where an entry lies."""

    ledger_id: int
    entry_id: int
    partition_index: int


class Progress(msgspec.Struct, rename="camel"):
    """How something that takes long goes."""

    status: str
    """NOT_RUN, RUNNING, SUCCESS or ERROR."""
    last_error: str


class BrokerInfo(msgspec.Struct, rename="camel"):
    """One broker."""

    broker_id: str
    service_url: str


class ProcessShown(msgspec.Struct, rename="camel"):
    """One process of the broker."""

    number: int
    pid: int
    serving: bool
    service_url: str
    service_url_tls: str
    shares: int


class Owned(msgspec.Struct):
    """How a bundle is owned."""

    broker_assignment: str
    is_controlled: bool
    is_active: bool


class BundlesShown(msgspec.Struct, rename="camel"):
    """The bundles of a namespace."""

    boundaries: list[str]
    num_bundles: int


class HashPositions(msgspec.Struct, rename="camel"):
    """Where topics lie between the borders of bundles."""

    namespace: str
    bundle: str
    topic_hash_positions: dict[str, int]


class IsolationOfBroker(msgspec.Struct, rename="camel"):
    """Which isolation policies a broker falls under."""

    broker_name: str
    policy_name: str
    is_primary: bool
    namespace_regex: list[str]


class PartitionsShown(msgspec.Struct, rename="camel"):
    """How many partitions a topic has; 0: it is an ordinary one."""

    partitions: int
    deleted: bool
    properties: dict[str, str]


class Located(msgspec.Struct, rename="camel"):
    """Who serves a topic. The C++ client takes an absent URL for a broken answer."""

    broker_url: str
    broker_url_tls: str
    http_url: str
    http_url_tls: str
    native_url: str
    broker_url_ssl: str


class Sample(msgspec.Struct, rename="camel"):
    """Numbers, and what they are about."""

    metrics: dict[str, float]
    dimensions: dict[str, str]


class Usage(msgspec.Struct, rename="camel"):
    """How much of something is used, and how much there is."""

    usage: float
    limit: float


class LoadReport(msgspec.Struct, rename="camel"):
    """What this broker carries."""

    web_service_url: str
    pulsar_service_url: str
    persistent_topics_enabled: bool
    non_persistent_topics_enabled: bool
    cpu: Usage
    memory: Usage
    direct_memory: Usage
    bandwidth_in: Usage
    bandwidth_out: Usage
    msg_throughput_in: float
    msg_throughput_out: float
    msg_rate_in: float
    msg_rate_out: float
    num_topics: int
    num_bundles: int
    num_consumers: int
    num_producers: int
    bundles: list[str]
    broker_version_string: str
    load_report_type: str


class Allocator(msgspec.Struct, rename="camel"):
    """What Netty's allocator would say."""

    num_direct_arenas: int
    num_heap_arenas: int
    num_thread_local_caches: int
    normal_cache_size: int
    small_cache_size: int
    direct_arenas: list[Json]
    heap_arenas: list[Json]
    used_direct_memory: int
    used_heap_memory: int


class Bookies(msgspec.Struct, rename="camel"):
    """Where entries are stored beside the broker: nowhere."""

    bookies: list[Json]


class LongRunning(msgspec.Struct, rename="camel"):
    """How far a long-running process is."""

    status: str
    last_error: str


class OfflineLedger(msgspec.Struct, rename="camel"):
    """One ledger of a topic."""

    entries: int
    timestamp: int
    size: int
    ledger_id: int


class OfflineBacklog(msgspec.Struct, rename="camel"):
    """What is stored of a topic, and how much of it is to be consumed."""

    storage_size: int
    total_messages: int
    message_backlog: int
    broker_name: str
    topic_name: str
    data_ledger_details: list[OfflineLedger]
    cursor_details: dict[str, Json]
    stat_generated_at: str


class BacklogAnalysis(msgspec.Struct, rename="camel"):
    """What a look through a backlog has found."""

    entries: int
    messages: int
    filter_rejected_entries: int
    filter_accepted_entries: int
    filter_rescheduled_entries: int
    filter_rejected_messages: int
    filter_accepted_messages: int
    filter_rescheduled_messages: int
    aborted: bool


class SubscriptionStats(msgspec.Struct, rename="camel"):
    """The figures of a subscription, of this moment."""

    type: str
    msg_backlog: int
    unacked_messages: int
    msg_rate_out: float
    msg_out_counter: int
    is_durable: bool
    consumers: list[Json]


class TopicStats(msgspec.Struct, rename="camel"):
    """The figures of a topic, of this moment."""

    msg_rate_in: float
    msg_throughput_in: float
    msg_rate_out: float
    msg_throughput_out: float
    bytes_in_counter: int
    msg_in_counter: int
    bytes_out_counter: int
    msg_out_counter: int
    average_msg_size: float
    storage_size: int
    backlog_size: int
    publishers: list[Json]
    subscriptions: dict[str, SubscriptionStats]
    replication: dict[str, Json]
    deduplication_status: str


class PartitionedStats(TopicStats, rename="camel"):
    """The sums over all partitions, and each of them."""

    metadata: PartitionsShown
    partitions: dict[str, TopicStats]


class Ledger(msgspec.Struct, rename="camel"):
    """One ledger of a topic."""

    ledger_id: int
    entries: int
    size: int


class InternalStats(msgspec.Struct, rename="camel"):
    """The ledgers and cursors of a topic."""

    entries_added_counter: int
    number_of_entries: int
    total_size: int
    current_ledger_entries: int
    current_ledger_size: int
    last_confirmed_entry: str
    state: str
    ledgers: list[Ledger]
    cursors: dict[str, Json]


class PartitionCount(msgspec.Struct, rename="camel"):
    """How many partitions a topic has."""

    partitions: int


class PartitionedInternalStats(msgspec.Struct, rename="camel"):
    """The ledgers and cursors of every partition."""

    metadata: PartitionCount
    partitions: dict[str, InternalStats]


class InternalInfo(msgspec.Struct, rename="camel"):
    """What is stored about a topic, in short."""

    version: int
    ledgers: list[Ledger]
    cursors: dict[str, Json]


class TenantShown(msgspec.Struct, rename="camel"):
    """Who may administer a tenant, and on which clusters."""

    admin_roles: list[str]
    allowed_clusters: list[str]


class StoreShown(msgspec.Struct, rename="camel"):
    """Where the metadata is."""

    metadata_store_url: str
    configuration_metadata_store_url: str
    ledgers_root_path: str
    bookkeeper_metadata_service_uri: str | None
    state_storage_service_url: str | None


class SchemaGiven(msgspec.Struct):
    """A schema to add, or to ask about."""

    type: str
    """AVRO, JSON, STRING, ..."""
    schema: str = ""
    """The definition; of KEY_VALUE an object with `key` and `value`."""
    properties: dict[str, str] | None = None


class SchemaShown(msgspec.Struct):
    """One version of a schema."""

    version: int
    type: str
    timestamp: int
    data: str
    properties: dict[str, str]


class SchemasShown(msgspec.Struct, rename="camel"):
    """All versions of a schema."""

    get_schema_responses: list[SchemaShown]


class SchemaVersion(msgspec.Struct):
    """The number of a version; -1: there is none."""

    version: int


class Compatibility(msgspec.Struct, rename="camel"):
    """Whether a schema could be added."""

    compatibility: bool
    schema_compatibility_strategy: str
