"""What Pulsar's admin REST has and this version has not: said as such, with 501.

    /admin/v2/schemas/...                          a noun that is missing as a whole
    /admin/v3/...                                  functions, connectors, packages, transactions
    /admin/v2/persistent/t/n/topic/compaction      a word about a topic
    /admin/v2/namespaces/t/n/permissions           a word about a namespace
    /admin/v2/clusters/west/peers                  a word about a cluster

A tool that is told 404 looks for a mistake in its path; there is none. Source: Pulsar's admin
REST, v2 and v3.
"""

from collections.abc import Sequence

_BOOKIES = "bookies: entries are stored by the broker itself"
_ISOLATION = "failure domains and isolation: there is one broker"
_NOUNS_V2 = {
    "bookies": _BOOKIES,
    "broker-stats": "broker statistics in this form: see /metrics",
    "functions": "functions",
    "packages": "packages",
    "proxy-stats": "statistics of a proxy: see /metrics",
    "resource-quotas": "resource quotas",
    "resourcegroups": "resource groups",
    "schemas": "schemas",
    "sinks": "connectors",
    "sources": "connectors",
    "transactions": "transactions",
    "worker": "functions",
    "worker-stats": "functions",
}
_NOUNS_V3 = {
    "functions": "functions",
    "packages": "packages",
    "sinks": "connectors",
    "sources": "connectors",
    "transactions": "transactions",
}
BROKER_WORDS = {
    "backlog-quota-check": "checking quotas at once: they are checked at each message",
    "configuration": "settings of a running broker: they are given at its start",
    "shutdown": "a shutdown over HTTP: send SIGTERM",
}
_CLUSTER_WORDS = {
    "failureDomains": _ISOLATION,
    "migrate": "migrating to another cluster",
    "namespaceIsolationPolicies": _ISOLATION,
    "peers": "replication between clusters",
}
_WORDS = {
    "allowedClusters": "replication between clusters",
    "analyzeBacklog": "analysing a backlog",
    "antiAffinity": "anti-affinity groups",
    "backlog": "the backlog in this form: see stats",
    "bookieAffinity": _BOOKIES,
    "compaction": "compaction",
    "compactionThreshold": "compaction",
    "createMissedPartitions": "creating missed partitions: all are made at once",
    "dispatchRate": "rate limits",
    "getMessageIdByIndex": "finding a message by its index",
    "isAllowAutoUpdateSchema": "schemas",
    "migration": "migrating to another cluster",
    "offload": "tiered storage",
    "permissions": "permissions",
    "replicatedSubscriptionStatus": "replication between clusters",
    "resourcegroup": "resource groups",
    "schemaAutoUpdateCompatibilityStrategy": "schemas",
    "schemaCompatibilityStrategy": "schemas",
    "schemaValidationEnforced": "schemas",
    "shadowTopics": "shadow topics",
    "split": "splitting a bundle",
    "topicHashPositions": "the positions of topics in a bundle",
    "trim": "trimming a topic: retention does it",
    "truncate": "truncating a topic",
    "unsubscribe": "removing a subscription from a whole namespace",
}


def missing_feature(segments: Sequence[str]) -> str | None:
    """Return what a path asks for that Pulsar has and this version has not; None: neither has.

    Args:
        segments: Those of the path, undecoded. Asked only when no route takes the call.
    """
    if "" in segments:
        return None
    found: str | None = None
    match segments:
        case ["admin", "v3", noun, *_]:
            found = _NOUNS_V3.get(noun)
        case ["admin", "v2", noun, *rest]:
            found = _missing_v2(noun, rest)
        case ["ws", "v2" | "v3", *_]:
            found = "the WebSocket API"
        case ["topics", "persistent" | "non-persistent", *_]:
            found = "publishing over HTTP"
        case _:
            pass
    return found


def _missing_v2(noun: str, rest: Sequence[str]) -> str | None:
    found: str | None = None
    match [noun, *rest]:
        case ["brokers", _, _, "ownedNamespaces"]:
            found = "namespaces by broker: there is one broker"
        case ["brokers", word, *_]:
            found = BROKER_WORDS.get(word)
        case ["clusters", _, word, *_]:
            found = _CLUSTER_WORDS.get(word)
        case ["namespaces", _, *words]:
            found = _about_namespace(words)
        case ["persistent" | "non-persistent", _, _, _, *words]:
            found = _about_topic(words)
        case _:
            found = _NOUNS_V2.get(noun)
    return found


def _about_namespace(words: Sequence[str]) -> str | None:
    match words:
        case [_, bundle] if bundle.startswith("0x"):
            return "deleting a bundle"
        case ["antiAffinity", _]:
            return _WORDS["antiAffinity"]
        case [_, first, word, *_] if first.startswith("0x") or first == "persistence":
            return _WORDS.get(word)
        case [_, word, *_]:
            return _WORDS.get(word)
        case _:
            return None


def _about_topic(words: Sequence[str]) -> str | None:
    match words:
        case ["subscription", _, "properties"]:
            return "changing the properties of a subscription"
        case ["subscription", _, word, *_] | [_, "dispatchRate" as word] | [word, *_]:
            return _WORDS.get(word)
        case _:
            return None
