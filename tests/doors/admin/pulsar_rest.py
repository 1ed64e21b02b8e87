"""Pulsar's admin REST as one table: every call its documentation and its tools know.

A line is a path and the methods it takes. `{ns}` and `{t}` stand for a namespace and a topic.
"""

from collections.abc import Iterator

_TOPIC = "persistent/acme/shop/orders"
_PLACES = {
    "{ns}": "namespaces/acme/shop",
    "{b}": "namespaces/acme/shop/0x00000000_0x40000000",
    "{t}": _TOPIC,
    "{s}": f"{_TOPIC}/subscription/billing",
    "{schemas}": "schemas/acme/shop/orders",
}

V2 = """
brokers                                             GET
brokers/standalone                                  GET
brokers/leaderBroker                                GET
brokers/health                                      GET
brokers/ready                                       GET
brokers/version                                     GET
brokers/standalone/localhost:8080/ownedNamespaces   GET
brokers/configuration                               GET
brokers/configuration/values                        GET
brokers/configuration/runtime                       GET
brokers/configuration/loadFactor                    DELETE
brokers/configuration/loadFactor/3                  POST
brokers/internal-configuration                      GET
brokers/backlog-quota-check                         GET
brokers/shutdown                                    POST
broker-stats/metrics                                GET
broker-stats/mbeans                                 GET
broker-stats/topics                                 GET
broker-stats/destinations                           GET
broker-stats/load-report                            GET
broker-stats/allocator-stats/default                GET
broker-stats/bookieops                              GET
broker-stats/broker-resource-availability/acme/shop GET
bookies/all                                         GET
bookies/racks-info                                  GET
bookies/racks-info/bookie1                          GET POST DELETE
clusters                                            GET
clusters/west                                       GET PUT POST DELETE
clusters/west/peers                                 GET POST
clusters/west/migrate                               POST
clusters/west/failureDomains                        GET
clusters/west/failureDomains/one                    GET POST DELETE
clusters/west/namespaceIsolationPolicies            GET
clusters/west/namespaceIsolationPolicies/one        GET POST DELETE
clusters/west/namespaceIsolationPolicies/brokers    GET
clusters/west/namespaceIsolationPolicies/brokers/b  GET
resource-quotas                                     GET POST
resource-quotas/acme/shop/0x00000000_0x40000000     GET POST DELETE
resourcegroups                                      GET
resourcegroups/gold                                 GET PUT DELETE
tenants                                             GET
tenants/acme                                        GET PUT POST DELETE
transactions/coordinatorStats                       GET
worker/cluster                                      GET
worker/cluster/leader                               GET
worker/assignments                                  GET
worker-stats/metrics                                GET
worker-stats/functionsmetrics                       GET
namespaces/acme                                     GET
{ns}                                                GET PUT DELETE
{ns}/topics                                         GET
{ns}/bundles                                        GET
{ns}/properties                                     GET PUT DELETE
{ns}/property/key                                   GET DELETE
{ns}/property/key/value                             PUT
{ns}/permissions                                    GET
{ns}/permissions/role                               POST DELETE
{ns}/permissions/subscription                       GET
{ns}/permissions/subscription/billing               POST
{ns}/permissions/subscription/billing/role          DELETE
{ns}/messageTTL                                     GET POST DELETE
{ns}/retention                                      GET POST DELETE
{ns}/backlogQuotaMap                                GET
{ns}/backlogQuota                                   POST DELETE
{ns}/persistence                                    GET POST DELETE
{ns}/persistence/bookieAffinity                     GET POST DELETE
{ns}/deduplication                                  GET POST DELETE
{ns}/deduplicationSnapshotInterval                  GET POST
{ns}/dispatchRate                                   GET POST DELETE
{ns}/subscriptionDispatchRate                       GET POST DELETE
{ns}/replicatorDispatchRate                         GET POST DELETE
{ns}/publishRate                                    GET POST DELETE
{ns}/subscribeRate                                  GET POST DELETE
{ns}/autoTopicCreation                              GET POST DELETE
{ns}/autoSubscriptionCreation                       GET POST DELETE
{ns}/maxProducersPerTopic                           GET POST DELETE
{ns}/maxConsumersPerTopic                           GET POST DELETE
{ns}/maxConsumersPerSubscription                    GET POST DELETE
{ns}/maxUnackedMessagesPerConsumer                  GET POST DELETE
{ns}/maxUnackedMessagesPerSubscription              GET POST DELETE
{ns}/maxSubscriptionsPerTopic                       GET POST DELETE
{ns}/maxTopicsPerNamespace                          GET POST DELETE
{ns}/compactionThreshold                            GET PUT DELETE
{ns}/offloadThreshold                               GET PUT
{ns}/offloadThresholdInSeconds                      GET PUT
{ns}/offloadDeletionLagMs                           GET PUT DELETE
{ns}/offloadPolicies                                GET POST
{ns}/removeOffloadPolicies                          DELETE
{ns}/schemaCompatibilityStrategy                    GET PUT
{ns}/schemaAutoUpdateCompatibilityStrategy          GET PUT
{ns}/isAllowAutoUpdateSchema                        GET POST
{ns}/schemaValidationEnforced                       GET POST
{ns}/delayedDelivery                                GET POST DELETE
{ns}/inactiveTopicPolicies                          GET POST DELETE
{ns}/subscriptionExpirationTime                     GET POST DELETE
{ns}/subscriptionTypesEnabled                       GET POST DELETE
{ns}/subscriptionAuthMode                           GET POST
{ns}/encryptionRequired                             GET POST
{ns}/entryFilters                                   GET POST DELETE
{ns}/resourcegroup                                  GET DELETE
{ns}/resourcegroup/gold                             POST
{ns}/antiAffinity                                   GET POST DELETE
namespaces/west/antiAffinity/group                  GET
namespaces/grantPermissionsOnTopics                 POST
namespaces/revokePermissionsOnTopics                POST
{ns}/allowedTopicPropertyKeysForMetrics             GET POST DELETE
metadata/migration/status                           GET
metadata/migration/start                            POST
{ns}/replication                                    GET POST
{ns}/scanOffloadedLedgers                           GET
{ns}/allowedClusters                                GET POST
{ns}/migration                                      POST
{ns}/dispatcherPauseOnAckStatePersistent            GET POST DELETE
{ns}/clearBacklog                                   POST
{ns}/clearBacklog/billing                           POST
{b}/clearBacklog                                    POST
{b}/clearBacklog/billing                            POST
{ns}/unsubscribe/billing                            POST
{b}/unsubscribe/billing                             POST
{ns}/unload                                         PUT
{b}/unload                                          PUT
{b}/split                                           PUT
{b}/topicHashPositions                              GET
{b}                                                 DELETE
persistent/acme/shop                                GET
persistent/acme/shop/partitioned                    GET
non-persistent/acme/shop                            GET
non-persistent/acme/shop/partitioned                GET
non-persistent/acme/shop/orders/stats               GET
{t}                                                 PUT DELETE
{t}/partitions                                      PUT POST GET DELETE
{t}/createMissedPartitions                          POST
{t}/properties                                      GET PUT DELETE
{t}/stats                                           GET
{t}/partitioned-stats                               GET
{t}/internalStats                                   GET
{t}/internal-info                                   GET
{t}/partitioned-internalStats                       GET
{t}/subscriptions                                   GET
{s}                                                 PUT DELETE
{s}/skip/3                                          POST
{s}/skip_all                                        POST
{s}/expireMessages                                  POST
{s}/expireMessages/60                               POST
{s}/resetcursor                                     POST
{s}/resetcursor/1700000000000                       POST
{s}/properties                                      GET PUT
{s}/replicatedSubscriptionStatus                    GET POST
{s}/analyzeBacklog                                  GET POST
{s}/position/1                                      GET
{t}/all_subscription/expireMessages/60              POST
{t}/ledger/1/entry/0                                GET
{t}/examinemessage                                  GET
{t}/lastMessageId                                   GET
{t}/messageid/1700000000000                         GET
{t}/getMessageIdByIndex                             GET
{t}/backlogSize                                     PUT
{t}/backlog                                         GET
{t}/terminate                                       POST
{t}/terminate/partitions                            POST
{t}/compaction                                      GET PUT
{t}/offload                                         GET PUT
{t}/unload                                          PUT
{t}/truncate                                        DELETE PUT
{t}/trim                                            POST
{t}/permissions                                     GET
{t}/permissions/role                                POST DELETE
{t}/retention                                       GET POST DELETE
{t}/messageTTL                                      GET POST DELETE
{t}/backlogQuotaMap                                 GET
{t}/backlogQuota                                    POST DELETE
{t}/persistence                                     GET POST DELETE
{t}/deduplicationEnabled                            GET POST DELETE
{t}/deduplicationSnapshotInterval                   GET POST DELETE
{t}/dispatchRate                                    GET POST DELETE
{t}/subscriptionDispatchRate                        GET POST DELETE
{t}/billing/dispatchRate                            GET POST DELETE
{t}/replicatorDispatchRate                          GET POST DELETE
{t}/publishRate                                     GET POST DELETE
{t}/subscribeRate                                   GET POST DELETE
{t}/compactionThreshold                             GET POST DELETE
{t}/maxProducers                                    GET POST DELETE
{t}/maxConsumers                                    GET POST DELETE
{t}/maxConsumersPerSubscription                     GET POST DELETE
{t}/maxSubscriptionsPerTopic                        GET POST DELETE
{t}/maxMessageSize                                  GET POST DELETE
{t}/maxUnackedMessagesOnConsumer                    GET POST DELETE
{t}/maxUnackedMessagesOnSubscription                GET POST DELETE
{t}/delayedDelivery                                 GET POST DELETE
{t}/inactiveTopicPolicies                           GET POST DELETE
{t}/offloadPolicies                                 GET POST DELETE
{t}/replication                                     GET POST DELETE
{t}/schemaCompatibilityStrategy                     GET PUT DELETE
{t}/schemaValidationEnforced                        GET POST
{t}/autoSubscriptionCreation                        GET POST DELETE
{t}/subscriptionTypesEnabled                        GET POST DELETE
{t}/policies                                        DELETE
{t}/subscriptionExpirationTime                      GET POST DELETE
{t}/entryFilters                                    GET POST DELETE
{t}/shadowTopics                                    GET PUT DELETE
{t}/dispatcherPauseOnAckStatePersistent             GET POST DELETE
{schemas}/schema                                    GET POST DELETE
{schemas}/schema/1                                  GET
{schemas}/schemas                                   GET
{schemas}/compatibility                             POST
{schemas}/version                                   POST
{schemas}/metadata                                  GET
functions/acme/shop                                 GET
functions/connectors                                GET
sources/acme/shop                                   GET
sinks/acme/shop                                     GET
packages/function/acme/shop                         GET
"""

V3 = """
functions/upload                                    POST
functions/download                                  GET
functions/connectors                                GET
functions/acme/shop                                 GET
functions/acme/shop/f                               GET POST PUT DELETE
functions/acme/shop/f/status                        GET
functions/acme/shop/f/0/stats                       GET
functions/acme/shop/f/0/restart                     POST
functions/acme/shop/f/trigger                       POST
functions/acme/shop/f/state/key                     GET POST
sources/builtinsources                              GET
sources/reloadBuiltInSources                        POST
sources/acme/shop/s                                 GET POST PUT DELETE
sinks/builtinsinks                                  GET
sinks/reloadBuiltInSinks                            POST
sinks/acme/shop/s                                   GET POST PUT DELETE
packages/function/acme/shop                         GET
packages/function/acme/shop/f                       GET
packages/function/acme/shop/f/1                     GET POST DELETE
packages/function/acme/shop/f/1/metadata            GET PUT
transactions/coordinators                           GET
transactions/coordinatorStats                       GET
transactions/transactionMetadata/1/2                GET
transactions/transactionInBufferStats/acme/shop/orders/1/2  GET
transactions/transactionInPendingAckStats/acme/shop/orders/billing/1/2  GET
transactions/slowTransactions/1000                  GET
transactions/transactionBufferStats/acme/shop/orders  GET
transactions/pendingAckStats/acme/shop/orders/billing  GET
transactions/abortTransaction/1/2                   POST
"""

OUTSIDE = """
/lookup/v2/topic/persistent/acme/shop/orders        GET
/lookup/v2/topic/persistent/acme/shop/orders/bundle GET
/metrics                                            GET
/ws/v2/producer/persistent/acme/shop/orders         GET
/ws/v2/consumer/persistent/acme/shop/orders/billing GET
/ws/v2/reader/persistent/acme/shop/orders           GET
/topics/persistent/acme/shop/orders                 POST
/topics/persistent/acme/shop/orders/partitions/0    POST
"""


def calls() -> Iterator[tuple[str, str]]:
    """Return method and path of each call."""
    for prefix, table in (("/admin/v2/", V2), ("/admin/v3/", V3), ("", OUTSIDE)):
        for line in table.strip().splitlines():
            template, *methods = line.split()
            path = template
            for place, meant in _PLACES.items():
                path = path.replace(place, meant)
            for method in methods:
                yield method, prefix + path
