"""What Pulsar's admin REST has and this version has not: said as such, with 501.

    /admin/v3/functions/...                        one that is not switched on: as Pulsar says it
    /admin/v2/namespaces/t/n/migration             a word about a namespace
    /admin/v2/clusters/west/migrate                a word about a cluster

A tool that is told 404 looks for a mistake in its path; there is none. Source: Pulsar's admin
REST, v2 and v3.
"""

from collections.abc import Sequence

from magnetar.broker.doors.admin.errors import Refusal

_NOUNS_V2 = {
    "transactions": "transactions of version 2: they are at /admin/v3/transactions",
}
_WORKER = (409, "functions and connectors are not enabled in this broker")
_PACKAGES = (503, "package management is not enabled in this broker")
NOT_ENABLED = {
    "functions": _WORKER,
    "packages": _PACKAGES,
    "sink": _WORKER,
    "sinks": _WORKER,
    "source": _WORKER,
    "sources": _WORKER,
    "worker": _WORKER,
    "worker-stats": _WORKER,
}
"""Whole nouns that Pulsar has only where they are switched on, with what it answers if not."""
BROKER_WORDS = {
    "shutdown": "a shutdown over HTTP: send SIGTERM",
}
_TRANSACTION_WORDS = (
    "coordinatorInternalStats",
    "pendingAckInternalStats",
    "transactionBufferInternalStats",
)
_CLUSTER_WORDS = {
    "migrate": "migrating to another cluster",
}
_WORDS = {
    "migration": "migrating to another cluster",
    "scanOffloadedLedgers": "tiered storage",
}


def not_enabled(segments: Sequence[str]) -> Refusal | None:
    """Return Pulsar's answer for what is not switched on; None: a path is about something else."""
    match segments:
        case ["admin", "v2" | "v3", noun, _, *_] if "" not in segments:
            found = NOT_ENABLED.get(noun)
            return None if found is None else Refusal(*found)
        case _:
            return None


def missing_feature(segments: Sequence[str]) -> str | None:
    """Return what a path asks for that Pulsar has and this version has not; None: neither has.

    Args:
        segments: Those of the path, undecoded. Asked only when no route takes the call.
    """
    if "" in segments:
        return None
    found: str | None = None
    match segments:
        case ["admin", "v2", noun, *rest]:
            found = _missing_v2(noun, rest)
        case ["admin", "v3", "transactions", word, _, *_] if word in _TRANSACTION_WORDS:
            found = "ledgers of transactions: they are kept with the metadata"
        case ["topics", "persistent" | "non-persistent", *_]:
            found = "publishing over HTTP"
        case _:
            pass
    return found


def _missing_v2(noun: str, rest: Sequence[str]) -> str | None:
    found: str | None = None
    match [noun, *rest]:
        case ["brokers", word, *_]:
            found = BROKER_WORDS.get(word)
        case ["metadata", "migration", *_]:
            found = "moving the metadata to another store"
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
        case [_, word, *_]:
            return _WORDS.get(word)
        case _:
            return None


def _about_topic(words: Sequence[str]) -> str | None:
    match words:
        case ["subscription", _, word, *_] | [word, *_]:
            return _WORDS.get(word)
        case _:
            return None
