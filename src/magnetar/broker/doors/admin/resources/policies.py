"""Policies of namespaces and topics, one resource each.

    GET     .../retention      {"retentionTimeInMinutes": 60, ...}, or 204: unset
            ?applied=true      what holds: the topic's, else the namespace's, else the broker's
    POST    .../retention      sets it; a few of Pulsar's take PUT instead, here all take both
    DELETE  .../retention      unsets it: what stands above it holds again

`policy_table` says which there are. Loaded topics follow a change within a second, in every
process, because they watch the metadata. What is set on a partition is set on its topic. What
we do not do yet is refused by name, not quietly stored: a limit that is set and not kept is
worse than none.
"""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, cast

import msgspec
from starlette.responses import Response

from magnetar.broker.doors.admin.call import Call, answer, done
from magnetar.broker.doors.admin.context import in_parallel
from magnetar.broker.doors.admin.errors import Refusal
from magnetar.broker.doors.admin.resources.policy_table import (
    NOT_YET,
    POLICIES,
    QUOTA_KINDS,
    Policy,
    contradiction,
    wrong_quota,
)
from magnetar.broker.doors.admin.routes import ADMIN, Right, Route
from magnetar.broker.metadata.documents import Document
from magnetar.broker.metadata.partitions import TopicRecord
from magnetar.broker.metadata.policies import BacklogQuota, DispatchRate, Policies
from magnetar.broker.port import TopicNotFoundError
from magnetar.broker.topics.limits.policies import overlaid
from magnetar.names import TopicName

NAMESPACE = f"{ADMIN}/namespaces/{{tenant}}/{{namespace}}"
TOPIC = f"{ADMIN}/{{domain}}/{{tenant}}/{{namespace}}/{{topic}}"

OWN_RATES_MAX = 1_000
"""Subscriptions of one topic that may have a rate of their own."""

Handler = Callable[[Call], Awaitable[Response]]
Change = Callable[[Policies], None]


class Level(NamedTuple):
    """Where policies are set: how they are read there, and changed."""

    template: str
    read: Callable[[Call], Awaitable[Policies]]
    applied: Callable[[Call], Awaitable[Policies]]
    """Returns them with those of what stands above."""
    update: Callable[[Call, Change], Awaitable[None]]


# --- namespaces ---------------------------------------------------------------------------


async def _of_namespace(call: Call) -> Policies:
    return await call.context.namespaces.get(call.namespace)


async def _update_namespace(call: Call, change: Change) -> None:
    await call.context.namespaces.update(call.namespace, _checked(change))


# --- topics -------------------------------------------------------------------------------


async def _of_topic(call: Call) -> Policies:
    context, topic = call.context, call.topic
    try:
        await context.partitions.policies.anchor(topic)
    except TopicNotFoundError:
        await context.namespaces.get(call.namespace)  # is it that which is missing?
        raise
    said = await context.partitions.policies.get(topic)
    if said.deduplication is None:
        record = await context.partitions.topic(topic)
        said.deduplication = None if record is None else record.deduplication
    return said


async def _of_topic_applied(call: Call) -> Policies:
    return overlaid(await _of_namespace(call), await _of_topic(call))


async def _update_topic(call: Call, change: Change) -> None:
    namespace = await _of_namespace(call)
    policies = call.context.partitions.policies
    said = await policies.update(call.topic, _checked(change, below=namespace))
    if said.deduplication is None:
        await _forget_old_deduplication(call)


async def _forget_old_deduplication(call: Call) -> None:
    """Remove what older versions wrote for each partition, which would show through now."""
    partitions = call.context.partitions

    def forget(record: TopicRecord) -> None:
        record.deduplication = None

    async def look(name: TopicName) -> None:
        record = await partitions.topic(name)
        if record is not None and record.deduplication is not None:
            await partitions.update_topic(name, forget)

    names = await call.context.partition_names(call.topic.base) or [call.topic]
    await in_parallel([look(name) for name in names])


LEVELS = {
    "namespace": Level(NAMESPACE, _of_namespace, _of_namespace, _update_namespace),
    "topic": Level(TOPIC, _of_topic, _of_topic_applied, _update_topic),
}


def _checked(change: Change, below: Policies | None = None) -> Change:
    """Return a change that is refused if it makes two policies contradict each other.

    Raises:
        Refusal: 412, with what to do. It comes out of the update, and nothing is changed.
    """

    def checked(policies: Policies) -> None:
        before = contradiction(policies if below is None else overlaid(below, policies))
        change(policies)
        after = contradiction(policies if below is None else overlaid(below, policies))
        if after and after != before:
            raise Refusal(412, after)

    return checked


# --- one policy ---------------------------------------------------------------------------


def _get(policy: Policy, level: Level) -> Handler:
    async def get(call: Call) -> Response:
        context = call.context
        if call.flag("applied"):
            value = policy.get(await level.applied(call), context.cluster)
            value = policy.default(context.config) if value is None else value
        else:
            value = policy.get(await level.read(call), context.cluster)
            value = policy.unset if value is None else value
        if value is None:
            return done()
        return answer(whole(value) if isinstance(value, Document) else value)

    return get


def _set(policy: Policy, level: Level) -> Handler:
    async def set_policy(call: Call) -> Response:
        if policy.empty_unsets and _is_empty(call):
            return await _unset(policy, level)(call)
        value = _value(call, policy)
        await level.read(call)  # is there what it is to be set on?
        await level.update(call, lambda policies: policy.put(policies, call.context.cluster, value))
        return done()

    return set_policy


def _is_empty(call: Call) -> bool:
    return call.body.strip() in {b"", b"null"}


def _unset(policy: Policy, level: Level) -> Handler:
    async def unset(call: Call) -> Response:
        await level.read(call)
        await level.update(call, lambda policies: policy.put(policies, call.context.cluster, None))
        return done()

    return unset


def _value(call: Call, policy: Policy) -> object:
    """Return the value that a call sets, from its body or, as Pulsar's tools do, from the query.

    Raises:
        Refusal: 400, there is none or it has another shape; 412, it cannot be.
    """
    name = call.path.rstrip("/").rpartition("/")[2]
    value: object
    if isinstance(policy.shape, type) and issubclass(policy.shape, Document):
        if _is_empty(call) or not call.body.lstrip().startswith(b"{"):
            fields = [each.encode_name for each in msgspec.structs.fields(policy.shape)]
            known = ", ".join(each for each in fields if each)
            raise Refusal(400, f"{name}: expected a JSON object with {known}")
        value = call.document(policy.shape, name)
    elif policy.shape is int and call.word(name):
        value = call.query_number(name, 0, -(2**31), 2**63 - 1)
    else:
        value = call.json(policy.shape, name)
    if value is None:
        raise Refusal(400, f"{name}: the body is missing")
    complaint = policy.refusal(name, value)
    if complaint:
        raise Refusal(412, complaint)
    return value


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


def _unknown(level: Level) -> Handler:
    async def nothing(call: Call) -> Response:
        await level.read(call)
        return done()

    return nothing


# --- backlog quotas: one policy, a map ----------------------------------------------------


def _get_quotas(level: Level) -> Handler:
    async def get_quotas(call: Call) -> Response:
        applied = call.flag("applied")
        policies = await (level.applied if applied else level.read)(call)
        return answer({kind: whole(quota) for kind, quota in policies.backlog_quotas.items()})

    return get_quotas


def _set_quota(level: Level) -> Handler:
    async def set_quota(call: Call) -> Response:
        kind = quota_kind(call)
        quota = call.document(BacklogQuota, "backlogQuota")
        if quota is None:
            raise Refusal(400, "backlogQuota: the body is missing")
        complaint = wrong_quota(kind, quota)
        if complaint:
            raise Refusal(412, complaint)

        def change(policies: Policies) -> None:
            policies.backlog_quotas = {**policies.backlog_quotas, kind: quota}

        await level.read(call)
        await level.update(call, change)
        return done()

    return set_quota


def _remove_quota(level: Level) -> Handler:
    async def remove_quota(call: Call) -> Response:
        kind = quota_kind(call)

        def change(policies: Policies) -> None:
            rest = {k: quota for k, quota in policies.backlog_quotas.items() if k != kind}
            policies.backlog_quotas = rest

        await level.read(call)
        await level.update(call, change)
        return done()

    return remove_quota


def quota_kind(call: Call) -> str:
    """Return which kind of backlog quota a call is about.

    Raises:
        Refusal: 412, there is no such kind.
    """
    kind = call.word("backlogQuotaType") or QUOTA_KINDS[0]
    if kind not in QUOTA_KINDS:
        raise Refusal(412, f"backlogQuotaType is {kind!r}, allowed: {', '.join(QUOTA_KINDS)}")
    return kind


# --- replication: this cluster and no other, for now --------------------------------------


def _get_replication(level: Level) -> Handler:
    async def get_replication(call: Call) -> Response:
        applied = level is LEVELS["namespace"] or call.flag("applied")
        clusters = (await (level.applied if applied else level.read)(call)).replication_clusters
        if not clusters and not applied:
            return done()
        return answer(clusters or [call.context.cluster])

    return get_replication


def _set_replication(level: Level) -> Handler:
    async def set_replication(call: Call) -> Response:
        clusters: list[str] = call.needed_json(list[str], "replication")
        if not clusters:
            raise Refusal(412, "replication: no cluster is named")
        check_clusters(call, clusters)
        await level.read(call)
        await level.update(call, lambda policies: _replicate(policies, clusters))
        return done()

    return set_replication


def check_clusters(call: Call, clusters: list[str]) -> None:
    """Refuse to replicate to anywhere.

    Raises:
        Refusal: 412, another cluster than this one is among them.
    """
    if not set(clusters) <= {call.context.cluster}:
        raise Refusal(412, f"replication is not supported; expected [{call.context.cluster!r}]")


def _remove_replication(level: Level) -> Handler:
    async def remove_replication(call: Call) -> Response:
        await level.read(call)
        await level.update(call, lambda policies: _replicate(policies, []))
        return done()

    return remove_replication


def _replicate(policies: Policies, clusters: list[str]) -> None:
    policies.replication_clusters = clusters


async def _remove_offload(call: Call) -> Response:
    level = LEVELS["namespace"]
    await level.update(call, lambda policies: setattr(policies, "offload", None))
    return done()


async def _remove_all(call: Call) -> Response:
    """Let the namespace's policies hold again for everything that was set on a topic."""

    def change(policies: Policies) -> None:
        nothing = Policies()
        for field in msgspec.structs.fields(Policies):
            setattr(policies, field.name, getattr(nothing, field.name))

    await _of_topic(call)
    await _update_topic(call, change)
    return done()


# --- one subscription ---------------------------------------------------------------------


async def _get_own_rate(call: Call) -> Response:
    """Return how fast one subscription is sent messages; 204: as fast as the others."""
    name, applied = call.subscription, call.flag("applied")
    policies = await (_of_topic_applied if applied else _of_topic)(call)
    rate = (policies.own_dispatch_rates or {}).get(name)
    if rate is None and applied:
        cluster = call.context.cluster
        rate = _SUBSCRIPTION_RATE.get(policies, cluster) or DispatchRate()
    return done() if rate is None else answer(whole(rate))


async def _set_own_rate(call: Call) -> Response:
    """Limit how fast one subscription is sent messages."""
    name = call.subscription
    rate = cast("DispatchRate", _value(call, _SUBSCRIPTION_RATE))

    def change(policies: Policies) -> None:
        rates = (policies.own_dispatch_rates or {}) | {name: rate}
        if len(rates) > OWN_RATES_MAX:
            raise Refusal(412, f"{OWN_RATES_MAX} subscriptions have rates of their own already")
        policies.own_dispatch_rates = rates

    await _of_topic(call)
    await _update_topic(call, change)
    return done()


async def _unset_own_rate(call: Call) -> Response:
    """Let one subscription be sent messages as fast as the others."""
    name = call.subscription

    def change(policies: Policies) -> None:
        rates = {k: v for k, v in (policies.own_dispatch_rates or {}).items() if k != name}
        policies.own_dispatch_rates = rates or None

    await _of_topic(call)
    await _update_topic(call, change)
    return done()


OWN_RATE = f"{TOPIC}/{{subscription}}/dispatchRate"
_SUBSCRIPTION_RATE = next(each for each in POLICIES if each.field == "subscription_dispatch_rate")

# --- the routes ---------------------------------------------------------------------------


_APPLIED = {"applied": bool}
_Quotas = dict[str, BacklogQuota]
_Clusters = list[str]
_REFUSED = "Not supported: asking is answered with `unset`, setting is refused."
_QUOTAS = "How large or old a backlog may grow, and what happens then"
_KIND = {"backlogQuotaType": str}


def _routes(
    level: Level, name: str, handlers: dict[str, Handler], shape: Any, does: str
) -> list[Route[Handler]]:
    """Return the routes of one policy: what its GET answers, unless unset, is what sets it."""
    template = f"{level.template}/{name}"
    gets = shape if shape is None else shape | None
    return [
        Route("GET", template, handler, Right.NAMESPACE, None, gets, _APPLIED, does)
        if method == "GET"
        else Route(method, template, handler, Right.NAMESPACE, shape, does=f"Set it: {does}")
        if method != "DELETE"
        else Route(
            method, template, handler, Right.NAMESPACE, does="Let what stands above it hold."
        )
        for method, handler in handlers.items()
    ]


def _routes_of(level_name: str, level: Level) -> list[Route[Handler]]:
    routes: list[Route[Handler]] = []
    for policy in POLICIES:
        name = getattr(policy, level_name)
        if name:
            change = _set(policy, level)
            methods = {"GET": _get(policy, level), "POST": change, "PUT": change}
            methods["DELETE"] = _unset(policy, level)
            routes += _routes(level, name, methods, policy.shape, policy.does)
    for name in NOT_YET[level_name]:
        refused = dict.fromkeys(("POST", "PUT", "DELETE"), _refuse)
        routes += _routes(level, name, {"GET": _unknown(level), **refused}, None, _REFUSED)
    get_quotas = {"GET": _get_quotas(level)}
    routes += _routes(level, "backlogQuotaMap", get_quotas, _Quotas, f"{_QUOTAS}, by kind.")
    quota, allowed = f"{level.template}/backlogQuota", Right.NAMESPACE
    lets = "Let what stands above it hold."
    routes += [
        Route("POST", quota, _set_quota(level), allowed, BacklogQuota, None, _KIND, f"{_QUOTAS}."),
        Route("DELETE", quota, _remove_quota(level), allowed, None, None, _KIND, lets),
    ]
    replication = {"GET": _get_replication(level), "POST": _set_replication(level)}
    replication["DELETE"] = _remove_replication(level)
    routes += _routes(level, "replication", replication, _Clusters, "The clusters it lives on.")
    return routes


ROUTES = [
    *_routes_of("namespace", LEVELS["namespace"]),
    *_routes_of("topic", LEVELS["topic"]),
    Route("DELETE", f"{TOPIC}/policies", _remove_all, Right.NAMESPACE),
    Route("GET", OWN_RATE, _get_own_rate, Right.NAMESPACE, None, DispatchRate | None, _APPLIED),
    Route("POST", OWN_RATE, _set_own_rate, Right.NAMESPACE, body=DispatchRate),
    Route("DELETE", OWN_RATE, _unset_own_rate, Right.NAMESPACE),
    Route(
        "DELETE", f"{NAMESPACE}/removeOffloadPolicies", _remove_offload, Right.NAMESPACE,
        does="Take back what was said about moving entries to a tier.",
    ),
]  # fmt: skip
