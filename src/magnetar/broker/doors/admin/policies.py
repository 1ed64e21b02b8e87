"""Policies of a namespace, one resource each.

    GET     .../retention      {"retentionTimeInMinutes": 60, ...}, or 204: unset
    POST    .../retention      sets it; a few of Pulsar's take PUT instead, here all take both
    DELETE  .../retention      unsets it: the broker's own setting applies again

One line of `POLICIES` makes the three routes. Loaded topics follow a change within a second,
in every process, because they watch the metadata. What we do not do yet is refused by
name, not quietly stored: a limit that is set and not kept is worse than none.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from starlette.responses import Response

from magnetar.broker.doors.admin.call import Call, answer, done
from magnetar.broker.doors.admin.errors import Refusal
from magnetar.broker.doors.admin.routes import ADMIN, Right, Route
from magnetar.broker.metadata.documents import Document
from magnetar.broker.metadata.namespaces import (
    AutoSubscriptionCreation,
    AutoTopicCreation,
    BacklogQuota,
    DelayedDelivery,
    InactiveTopics,
    Persistence,
    Policies,
    Retention,
)

NAMESPACE = f"{ADMIN}/namespaces/{{tenant}}/{{namespace}}"

Count = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]

SubscriptionTypeName = Literal["Exclusive", "Shared", "Failover", "Key_Shared"]

QUOTA_KINDS = ("destination_storage", "message_age")
QUOTA_POLICIES = ("producer_request_hold", "producer_exception", "consumer_backlog_eviction")


class Policy(NamedTuple):
    """One resource: its last path segment, the field of `Policies`, and its JSON."""

    name: str
    field: str
    shape: Any


POLICIES = (
    Policy("retention", "retention", Retention),
    Policy("messageTTL", "message_ttl_s", Count),
    Policy("deduplication", "deduplication", bool),
    Policy("persistence", "persistence", Persistence),
    Policy("autoTopicCreation", "auto_topic_creation", AutoTopicCreation),
    Policy("autoSubscriptionCreation", "auto_subscription_creation", AutoSubscriptionCreation),
    Policy("delayedDelivery", "delayed_delivery", DelayedDelivery),
    Policy("inactiveTopicPolicies", "inactive_topics", InactiveTopics),
    Policy("maxProducersPerTopic", "producers_per_topic_max", Count),
    Policy("maxConsumersPerTopic", "consumers_per_topic_max", Count),
    Policy("maxConsumersPerSubscription", "consumers_per_subscription_max", Count),
    Policy("maxSubscriptionsPerTopic", "subscriptions_per_topic_max", Count),
    Policy("maxTopicsPerNamespace", "topics_per_namespace_max", Count),
    Policy("maxUnackedMessagesPerConsumer", "unacked_per_consumer_max", Count),
    Policy("maxUnackedMessagesPerSubscription", "unacked_per_subscription_max", Count),
    Policy("subscriptionExpirationTime", "subscription_expiration_min", Count),
    Policy("subscriptionTypesEnabled", "subscription_types_enabled", list[SubscriptionTypeName]),
    Policy("encryptionRequired", "encryption_required", bool),
)

NOT_YET = (
    "antiAffinity",
    "clusterAntiAffinity",
    "compactionThreshold",
    "deduplicationSnapshotInterval",
    "dispatchRate",
    "entryFilters",
    "isAllowAutoUpdateSchema",
    "offloadDeletionLagMs",
    "offloadPolicies",
    "offloadThreshold",
    "offloadThresholdInSeconds",
    "publishRate",
    "replicatorDispatchRate",
    "resourcegroup",
    "schemaAutoUpdateCompatibilityStrategy",
    "schemaCompatibilityStrategy",
    "schemaValidationEnforced",
    "subscribeRate",
    "subscriptionAuthMode",
    "subscriptionDispatchRate",
)
"""Pulsar's, which nothing here acts on. Asking is answered with `unset`, setting is refused."""


def _get(policy: Policy) -> Callable[[Call], Awaitable[Response]]:
    async def get(call: Call) -> Response:
        policies = await call.context.namespaces.get(call.namespace)
        value = getattr(policies, policy.field)
        if value is None:
            return done()
        return answer(whole(value) if isinstance(value, Document) else value)

    return get


def _set(policy: Policy) -> Callable[[Call], Awaitable[Response]]:
    async def set_policy(call: Call) -> Response:
        value = _value(call, policy)
        await call.context.namespaces.update(
            call.namespace, lambda policies: setattr(policies, policy.field, value)
        )
        return done()

    return set_policy


def _unset(policy: Policy) -> Callable[[Call], Awaitable[Response]]:
    async def unset(call: Call) -> Response:
        await call.context.namespaces.update(
            call.namespace, lambda policies: setattr(policies, policy.field, None)
        )
        return done()

    return unset


def _value(call: Call, policy: Policy) -> object:
    if isinstance(policy.shape, type) and issubclass(policy.shape, Document):
        value: object = call.document(policy.shape, policy.name)
        if value is None:
            raise Refusal(400, f"{policy.name}: the body is missing")
        return value
    return call.needed_json(policy.shape, policy.name)


def whole(document: Document) -> dict[str, Any]:
    """Return a document as JSON with its defaults, which Pulsar's clients expect to see."""
    shown = document.to_dict()
    for field in msgspec.structs.fields(document):
        if field.name != "unknown":
            shown.setdefault(field.encode_name, getattr(document, field.name))
    return shown


async def _refuse(call: Call) -> Response:
    name = call.path.rstrip("/").rpartition("/")[2]
    raise Refusal(405, f"the policy {name} is not supported by this broker")


async def _unknown_is_unset(call: Call) -> Response:
    await call.context.namespaces.get(call.namespace)
    return done()


# --- backlog quotas: one policy, a map --------------------------------------------------


async def get_quotas(call: Call) -> Response:
    """Return the backlog quotas by kind."""
    policies = await call.context.namespaces.get(call.namespace)
    return answer({kind: whole(quota) for kind, quota in policies.backlog_quotas.items()})


async def set_quota(call: Call) -> Response:
    """Set the quota of one kind."""
    kind = quota_kind(call)
    quota = call.document(BacklogQuota, "backlogQuota")
    if quota is None:
        raise Refusal(400, "backlogQuota: the body is missing")
    if quota.policy not in QUOTA_POLICIES:
        raise Refusal(412, f"policy is {quota.policy!r}, allowed: {', '.join(QUOTA_POLICIES)}")
    if kind == "message_age" and quota.limit_seconds <= 0:
        raise Refusal(412, f"limitTime is {quota.limit_seconds} s; message_age needs more than 0")

    def change(policies: Policies) -> None:
        policies.backlog_quotas = {**policies.backlog_quotas, kind: quota}

    await call.context.namespaces.update(call.namespace, change)
    return done()


async def remove_quota(call: Call) -> Response:
    """Remove the quota of one kind."""
    kind = quota_kind(call)

    def change(policies: Policies) -> None:
        policies.backlog_quotas = {k: v for k, v in policies.backlog_quotas.items() if k != kind}

    await call.context.namespaces.update(call.namespace, change)
    return done()


def quota_kind(call: Call) -> str:
    """Return which kind of backlog quota a call is about.

    Raises:
        Refusal: 412, there is no such kind.
    """
    kind = call.word("backlogQuotaType") or QUOTA_KINDS[0]
    if kind not in QUOTA_KINDS:
        raise Refusal(412, f"backlogQuotaType is {kind!r}, allowed: {', '.join(QUOTA_KINDS)}")
    return kind


# --- replication: this cluster and no other, for now -------------------------------------


async def get_replication(call: Call) -> Response:
    """Return the clusters a namespace lives on."""
    policies = await call.context.namespaces.get(call.namespace)
    return answer(policies.replication_clusters or [call.context.cluster])


async def set_replication(call: Call) -> Response:
    """Set the clusters a namespace lives on; it can be only this one."""
    clusters: list[str] = call.needed_json(list[str], "replication")
    if clusters != [call.context.cluster]:
        raise Refusal(412, f"replication is not supported; expected [{call.context.cluster!r}]")
    await call.context.namespaces.update(
        call.namespace, lambda policies: setattr(policies, "replication_clusters", clusters)
    )
    return done()


ROUTES = [
    *(
        Route(method, f"{NAMESPACE}/{policy.name}", handler, Right.NAMESPACE)
        for policy in POLICIES
        for method, handler in (
            ("GET", _get(policy)),
            ("POST", _set(policy)),
            ("PUT", _set(policy)),
            ("DELETE", _unset(policy)),
        )
    ),
    *(
        Route(
            method,
            f"{NAMESPACE}/{name}",
            _unknown_is_unset if method == "GET" else _refuse,
            Right.NAMESPACE,
        )
        for name in NOT_YET
        for method in ("GET", "POST", "PUT", "DELETE")
    ),
    Route("GET", f"{NAMESPACE}/backlogQuotaMap", get_quotas, Right.NAMESPACE),
    Route("POST", f"{NAMESPACE}/backlogQuota", set_quota, Right.NAMESPACE),
    Route("DELETE", f"{NAMESPACE}/backlogQuota", remove_quota, Right.NAMESPACE),
    Route("GET", f"{NAMESPACE}/replication", get_replication, Right.NAMESPACE),
    Route("POST", f"{NAMESPACE}/replication", set_replication, Right.NAMESPACE),
]
