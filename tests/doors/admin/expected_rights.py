"""Who may make which call over HTTP, written down by hand from Apache Pulsar, route by route.

Our own table of routes is not asked: a right that is declared wrongly there must show here. The
sources are Pulsar's PulsarAuthorizationProvider (which operation needs what), the resources under
`broker/admin` (which call is which operation), and its NamespaceAuthZTest and TopicAuthZTest
(who is let in and who is not). Where nothing is said of a method, the line holds for all.

    SUPERUSER   validateSuperUserAccess, and operations on brokers, clusters, resource groups
    ADMIN       tenant operations, policies, and what the provider grants to nobody else:
                CREATE_TOPIC, DELETE_TOPIC, *_BUNDLE, *_PERMISSION, TERMINATE, COMPACT, OFFLOAD,
                UNLOAD, TRIM_TOPIC, UPDATE_METADATA, DELETE_METADATA
    EITHER      LOOKUP, GET_STATS, GET_METADATA, GET_TOPICS, GET_BUNDLE: produce or consume
    PRODUCE     PRODUCE
    CONSUME     CONSUME, SUBSCRIBE, UNSUBSCRIBE, SKIP, EXPIRE_MESSAGES, PEEK_MESSAGES,
                RESET_CURSOR, GET_BACKLOG_SIZE, GET_SUBSCRIPTIONS, *_REPLICATED_SUBSCRIPTION_STATUS
    CONSUME_ALL the same for every subscription at once: none may be kept for other roles
"""

from collections.abc import Iterable, Iterator
from enum import Enum, auto


class Level(Enum):
    """Who may make a call."""

    EVERYBODY = auto()
    LOGGED_IN = auto()
    METRICS = auto()
    SUPERUSER = auto()
    ADMIN = auto()
    EITHER = auto()
    PRODUCE = auto()
    CONSUME = auto()
    CONSUME_ALL = auto()


E, L, M, SU = Level.EVERYBODY, Level.LOGGED_IN, Level.METRICS, Level.SUPERUSER
A, EI, P, C, CA = Level.ADMIN, Level.EITHER, Level.PRODUCE, Level.CONSUME, Level.CONSUME_ALL

Expected = Level | dict[str, Level]
"""For every method, or by method."""

V2, V3 = "/admin/v2", "/admin/v3"
NAMESPACE = f"{V2}/namespaces/{{tenant}}/{{namespace}}"
BUNDLE = f"{NAMESPACE}/{{bundle}}"
DOMAIN = f"{V2}/{{domain}}/{{tenant}}/{{namespace}}"
TOPIC = f"{DOMAIN}/{{topic}}"
SUBSCRIPTION = f"{TOPIC}/subscription/{{subscription}}"
SCHEMAS = f"{V2}/schemas/{{tenant}}/{{namespace}}/{{topic}}"
LOOKUP = "/lookup/v2/topic/{domain}/{tenant}/{namespace}/{topic}"
TRANSACTIONS = f"{V3}/transactions"
T_TOPIC, T_ID = "{tenant}/{namespace}/{topic}", "{most}/{least}"

NAMESPACE_POLICIES = """
    allowedClusters allowedTopicPropertyKeysForMetrics antiAffinity autoSubscriptionCreation
    autoTopicCreation backlogQuota backlogQuotaMap compactionThreshold deduplication
    deduplicationSnapshotInterval delayedDelivery dispatchRate
    dispatcherPauseOnAckStatePersistent encryptionRequired entryFilters inactiveTopicPolicies
    isAllowAutoUpdateSchema maxConsumersPerSubscription maxConsumersPerTopic
    maxProducersPerTopic maxSubscriptionsPerTopic maxTopicsPerNamespace
    maxUnackedMessagesPerConsumer maxUnackedMessagesPerSubscription messageTTL
    offloadDeletionLagMs offloadPolicies offloadThreshold offloadThresholdInSeconds persistence
    properties property/{key} property/{key}/{value} publishRate removeOffloadPolicies
    replication replicatorDispatchRate retention schemaAutoUpdateCompatibilityStrategy
    schemaCompatibilityStrategy schemaValidationEnforced subscribeRate subscriptionAuthMode
    subscriptionDispatchRate subscriptionExpirationTime subscriptionTypesEnabled
"""

TOPIC_POLICIES = """
    autoSubscriptionCreation backlogQuota backlogQuotaMap compactionThreshold
    deduplicationEnabled deduplicationSnapshotInterval delayedDelivery dispatchRate
    dispatcherPauseOnAckStatePersistent entryFilters inactiveTopicPolicies maxConsumers
    maxConsumersPerSubscription maxMessageSize maxProducers maxSubscriptionsPerTopic
    maxUnackedMessagesOnConsumer maxUnackedMessagesOnSubscription messageTTL offloadPolicies
    persistence policies publishRate replication replicatorDispatchRate retention
    schemaCompatibilityStrategy schemaValidationEnforced shadowTopics subscribeRate
    subscriptionDispatchRate subscriptionExpirationTime subscriptionTypesEnabled
    {subscription}/dispatchRate
"""


def _all(level: Level, prefix: str, words: str) -> Iterator[tuple[str, Expected]]:
    return ((f"{prefix}/{word}", level) for word in words.split())


def _table() -> Iterable[tuple[str, Expected]]:
    rest: dict[str, Expected] = {
        "/metrics": M,  # Pulsar's is open unless authenticateMetricsEndpoint is on
        f"{V2}/openapi.json": L,  # ours
        # --- the broker as a whole
        f"{V2}/brokers/health": E,  # Pulsar: superusers; ours says nothing, for load balancers
        f"{V2}/brokers/ready": E,
        f"{V2}/brokers/version": L,
        f"{V2}/clusters": L,  # Pulsar: everybody
        # What the body names decides: see `test_grants_on_many_topics_are_...`
        f"{V2}/namespaces/grantPermissionsOnTopics": L,
        f"{V2}/namespaces/revokePermissionsOnTopics": L,
    }
    yield from rest.items()
    yield from _all(
        SU,
        V2,
        """
        bookies/all bookies/racks-info bookies/racks-info/{bookie}
        broker-stats/allocator-stats/{allocator} broker-stats/bookieops
        broker-stats/broker-resource-availability/{tenant}/{namespace} broker-stats/destinations
        broker-stats/latencies broker-stats/load-report broker-stats/mbeans broker-stats/metrics
        broker-stats/topics
        brokers brokers/backlog-quota-check brokers/configuration brokers/configuration/runtime
        brokers/configuration/values brokers/configuration/{name}
        brokers/configuration/knobs brokers/configuration/knobs/{name}
        brokers/configuration/{name}/{value} brokers/internal-configuration brokers/leaderBroker
        brokers/{cluster} brokers/{cluster}/{broker}/ownedNamespaces
        brokers/processes brokers/processes/{count}
        clusters/{cluster} clusters/{cluster}/failureDomains
        clusters/{cluster}/failureDomains/{failureDomain}
        clusters/{cluster}/namespaceIsolationPolicies
        clusters/{cluster}/namespaceIsolationPolicies/brokers
        clusters/{cluster}/namespaceIsolationPolicies/brokers/{broker}
        clusters/{cluster}/namespaceIsolationPolicies/{policy} clusters/{cluster}/peers
        resource-quotas resource-quotas/{tenant}/{namespace}/{bundle}
        resourcegroups resourcegroups/{group} tenants
        """,
    )
    rest = {
        # --- tenants and namespaces
        f"{V2}/tenants/{{tenant}}": {"GET": A, "PUT": SU, "POST": SU, "DELETE": SU},
        f"{V2}/namespaces/{{tenant}}": A,
        # Pulsar: whoever administers one of the tenants; ours names those of all tenants.
        f"{V2}/namespaces/{{cluster}}/antiAffinity/{{group}}": SU,
        NAMESPACE: A,
        f"{NAMESPACE}/topics": EI,
        f"{NAMESPACE}/bundles": EI,
        f"{NAMESPACE}/unload": SU,
        f"{BUNDLE}/unload": SU,
        f"{BUNDLE}/split": SU,
        BUNDLE: A,
        f"{BUNDLE}/topicHashPositions": A,
        f"{NAMESPACE}/persistence/bookieAffinity": SU,
        # A tenant could leave the group that limits it; Pulsar lets it.
        f"{NAMESPACE}/resourcegroup": {"GET": A, "DELETE": SU},
        f"{NAMESPACE}/resourcegroup/{{group}}": SU,
        f"{NAMESPACE}/clearBacklog": CA,
        f"{BUNDLE}/clearBacklog": CA,
        f"{NAMESPACE}/clearBacklog/{{subscription}}": C,
        f"{BUNDLE}/clearBacklog/{{subscription}}": C,
        f"{NAMESPACE}/unsubscribe/{{subscription}}": C,
        f"{BUNDLE}/unsubscribe/{{subscription}}": C,
        f"{NAMESPACE}/permissions": A,
        f"{NAMESPACE}/permissions/{{role}}": A,
        f"{NAMESPACE}/permissions/subscription": A,
        f"{NAMESPACE}/permissions/subscription/{{name}}": A,
        f"{NAMESPACE}/permissions/subscription/{{name}}/{{role}}": A,
        f"{NAMESPACE}/permissions/{{name}}/{{role}}": A,
    }
    yield from rest.items()
    yield from _all(A, NAMESPACE, NAMESPACE_POLICIES)
    yield from _all(A, TOPIC, TOPIC_POLICIES)
    rest = {
        # --- topics
        DOMAIN: EI,
        f"{DOMAIN}/partitioned": EI,
        TOPIC: {"GET": EI, "PUT": A, "DELETE": A},
        f"{TOPIC}/partitions": {"GET": EI, "PUT": A, "POST": A, "DELETE": A},
        f"{TOPIC}/createMissedPartitions": A,
        f"{TOPIC}/properties": {"GET": EI, "PUT": A, "DELETE": A},
        f"{TOPIC}/permissions": A,
        f"{TOPIC}/permissions/{{role}}": A,
        f"{TOPIC}/terminate": A,
        f"{TOPIC}/terminate/partitions": A,
        f"{TOPIC}/compaction": A,
        f"{TOPIC}/offload": A,
        f"{TOPIC}/unload": A,
        f"{TOPIC}/process/{{process}}": SU,
        f"{TOPIC}/trim": A,
        f"{TOPIC}/truncate": A,
        # --- figures, and where things are
        LOOKUP: EI,
        f"{LOOKUP}/bundle": EI,  # Pulsar: on the namespace, not on the topic alone
        f"{TOPIC}/subscriptions": C,
        f"{TOPIC}/lastMessageId": C,
        f"{TOPIC}/messageid/{{time}}": C,
        f"{TOPIC}/getMessageIdByIndex": C,
        f"{TOPIC}/examinemessage": C,
        f"{TOPIC}/ledger/{{ledger}}/entry/{{entry}}": C,
        f"{TOPIC}/backlogSize": C,
        f"{TOPIC}/all_subscription/expireMessages/{{seconds}}": CA,
        # --- schemas
        f"{SCHEMAS}/schema": {"GET": EI, "POST": P, "DELETE": A},
        f"{SCHEMAS}/compatibility": A,
        # --- transactions. Pulsar asked nothing of these until CVE-2026-105931.
        f"{TRANSACTIONS}/pendingAckStats/{T_TOPIC}/{{subscription}}": C,
        f"{TRANSACTIONS}/transactionInPendingAckStats/{T_TOPIC}/{{subscription}}/{T_ID}": C,
        f"{TRANSACTIONS}/positionStatsInPendingAck/{T_TOPIC}/{{subscription}}/{{ledger}}/{{entry}}":
            C,
        f"{TRANSACTIONS}/transactionBufferStats/{T_TOPIC}": EI,
        f"{TRANSACTIONS}/transactionInBufferStats/{T_TOPIC}/{T_ID}": EI,
    }  # fmt: skip
    yield from rest.items()
    yield from _all(
        EI,
        TOPIC,
        "stats partitioned-stats internalStats internal-info partitioned-internalStats backlog",
    )
    yield from _all(EI, SCHEMAS, "schema/{version} schemas metadata version")
    yield (SUBSCRIPTION, C)
    yield from _all(
        C,
        SUBSCRIPTION,
        """
        analyzeBacklog expireMessages expireMessages/{seconds} position/{position} properties
        replicatedSubscriptionStatus resetcursor resetcursor/{time} skip/{count} skip_all
        """,
    )
    yield from _all(
        SU,
        TRANSACTIONS,
        """
        abortTransaction/{most}/{least} coordinatorStats coordinators slowTransactions/{timeout}
        transactionCoordinator/replicas transactionMetadata/{most}/{least}
        """,
    )


TABLE: dict[str, Expected] = dict(_table())
"""Template -> who may."""


def expected(method: str, template: str) -> Level | None:
    """Return who may make a call; None: nobody has thought about it."""
    told = TABLE.get(template)
    return told.get(method) if isinstance(told, dict) else told


HERE = {
    Level.METRICS: {"root", "monitor"},
    Level.SUPERUSER: {"root"},
    Level.ADMIN: {"root", "admin"},
    Level.EITHER: {"root", "admin", "producer", "consumer"},
    Level.PRODUCE: {"root", "admin", "producer"},
    Level.CONSUME: {"root", "admin", "consumer"},
    Level.CONSUME_ALL: {"root", "admin"},  # one subscription is kept for another role
}
"""Who they are in the namespace with all the grants. `on-topic` may both, on one topic."""

ABOUT_TOPICS = frozenset({Level.EITHER, Level.PRODUCE, Level.CONSUME})


def may(role: str, level: Level, tenant: str, template: str, domain: str) -> bool:
    """Return whether a role may make a call about a tenant's things."""
    if level in {Level.EVERYBODY, Level.LOGGED_IN}:
        return True
    if "{tenant}" in template and tenant == "there" and level is not Level.SUPERUSER:
        return role in {"root", "stranger"}
    if role == "on-topic":
        about_it = "{topic}" in template and domain == "persistent"
        return about_it and level in ABOUT_TOPICS
    return role in HERE[level]
