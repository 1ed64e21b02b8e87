"""What Pulsar's admin REST has and this version has not: said as such, with 501.

    /admin/v2/schemas/...                          a noun that is missing as a whole
    /admin/v3/...                                  functions, connectors, packages, transactions
    /admin/v2/persistent/t/n/topic/compaction      a word about a topic
    /admin/v2/namespaces/t/n/permissions           a word about a namespace

A tool that is told 404 looks for a mistake in its path; there is none. Source: Pulsar's admin
REST, v2 and v3.
"""

from collections.abc import Sequence

_NOUNS_V2 = {
    "bookies": "bookies: entries are stored by the broker itself",
    "broker-stats": "broker statistics in this form: see /metrics",
    "functions": "functions",
    "resource-quotas": "resource quotas",
    "resourcegroups": "resource groups",
    "schemas": "schemas",
    "sinks": "connectors",
    "sources": "connectors",
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
_WORDS = {
    "analyzeBacklog": "analysing a backlog",
    "antiAffinity": "anti-affinity groups",
    "bookieAffinity": "bookies: entries are stored by the broker itself",
    "compaction": "compaction",
    "compactionThreshold": "compaction",
    "entryFilters": "entry filters",
    "offload": "tiered storage",
    "offloadDeletionLagMs": "tiered storage",
    "offloadPolicies": "tiered storage",
    "offloadThreshold": "tiered storage",
    "offloadThresholdInSeconds": "tiered storage",
    "permissions": "permissions",
    "removeOffloadPolicies": "tiered storage",
    "replicatedSubscriptionStatus": "replication between clusters",
    "resourcegroup": "resource groups",
    "schemaAutoUpdateCompatibilityStrategy": "schemas",
    "schemaCompatibilityStrategy": "schemas",
    "schemaValidationEnforced": "schemas",
    "isAllowAutoUpdateSchema": "schemas",
    "shadowTopics": "shadow topics",
    "truncate": "truncating a topic",
    "unsubscribe": "removing a subscription from a whole namespace",
}
_ABOUT = {"namespaces": 5, "persistent": 6, "non-persistent": 6}
"""How many segments come before the words about a namespace or a topic."""


def missing_feature(segments: Sequence[str]) -> str | None:
    """Return what a path asks for that Pulsar has and this version has not; None: neither has.

    Args:
        segments: Those of the path, undecoded.
    """
    if "" in segments:
        return None
    found: str | None = None
    match segments:
        case ["admin", "v3", noun, *_]:
            found = _NOUNS_V3.get(noun)
        case ["admin", "v2", noun, *_] if noun in _ABOUT:
            words = (_WORDS[word] for word in segments[_ABOUT[noun] :] if word in _WORDS)
            found = next(words, None)
        case ["admin", "v2", noun, *_]:
            found = _NOUNS_V2.get(noun)
        case ["ws", "v2" | "v3", *_]:
            found = "the WebSocket API"
        case ["topics", "persistent" | "non-persistent", *_]:
            found = "publishing over HTTP"
        case _:
            pass
    return found
