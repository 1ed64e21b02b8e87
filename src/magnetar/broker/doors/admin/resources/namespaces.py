"""Namespaces: list, show, create, delete, their properties, and what is done to all their topics.

What holds for a namespace is in `policies`. What is done to all topics is done by every
broker process to those it owns: the call goes to one process, which passes it on to its
siblings, marked so that they do not pass it on again.
"""

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from magnetar.broker.doors.admin.bundles import Bundles
from magnetar.broker.doors.admin.call import Call, answer, done
from magnetar.broker.doors.admin.context import in_parallel
from magnetar.broker.doors.admin.errors import Refusal
from magnetar.broker.doors.admin.owners import pass_on
from magnetar.broker.doors.admin.resources.policies import NAMESPACE, check_clusters
from magnetar.broker.doors.admin.resources.policy_table import wrong_with
from magnetar.broker.doors.admin.resources.processes import destination, send
from magnetar.broker.doors.admin.routes import ADMIN, Right, Route
from magnetar.broker.doors.admin.shapes import BundlesShown, Json
from magnetar.broker.doors.admin.slices import listed
from magnetar.broker.metadata.facts import AlreadyExistsError
from magnetar.broker.metadata.first_start import furnish_namespace
from magnetar.broker.metadata.policies import Policies
from magnetar.broker.port import ListMode, SubscriptionNotFoundError
from magnetar.broker.topics.subscriptions.subscription import Subscription
from magnetar.names import SYSTEM_NAMESPACE, TopicName, check_new, check_subscription, check_tenant

PROPERTIES_MAX = 64
PROPERTY_LENGTH_MAX = 1024

_UNSET: dict[str, Any] = {
    "auth_policies": {"namespace_auth": {}, "destination_auth": {}, "subscription_auth_roles": {}},
    "backlog_quota_map": {},
    "clusterDispatchRate": {},
    "topicDispatchRate": {},
    "subscriptionDispatchRate": {},
    "replicatorDispatchRate": {},
    "clusterSubscribeRate": {},
    "publishMaxMessageRate": {},
    "latency_stats_sample_rate": {},
    "persistence": None,
    "retention_policies": None,
    "message_ttl_in_seconds": None,
    "deduplicationEnabled": None,
    "autoTopicCreationOverride": None,
    "autoSubscriptionCreationOverride": None,
    "encryption_required": False,
    "subscription_auth_mode": "None",
    "schema_compatibility_strategy": "UNDEFINED",
    "schema_auto_update_compatibility_strategy": None,
    "schema_validation_enforced": False,
    "is_allow_auto_update_schema": None,
    "max_producers_per_topic": None,
    "max_consumers_per_topic": None,
    "max_consumers_per_subscription": None,
    "compaction_threshold": None,
    "offload_threshold": -1,
    "offload_deletion_lag_ms": None,
    "deleted": False,
    "properties": {},
}
"""The parts of Pulsar's object that its clients expect to find, as they are when nothing is set."""


async def list_namespaces(call: Call) -> Response:
    """Return the namespaces of a tenant."""
    await call.context.tenants.get(call.tenant)
    return answer([str(name) for name in await call.context.namespaces.list(call.tenant)])


async def get_namespace(call: Call) -> Response:
    """Return everything that is set on a namespace."""
    policies = await call.context.namespaces.get(call.namespace)
    shown = _UNSET | policies.to_dict()
    shown["replication_clusters"] = policies.replication_clusters or [call.context.cluster]
    shown["bundles"] = Bundles.of(policies.unknown.get("bundles")).to_json()
    return answer(shown)


async def create_namespace(call: Call) -> Response:
    """Add a namespace, with the policies in the body if there are any."""
    name = call.namespace
    check_new("namespace", name.namespace)
    policies = call.document(Policies, "policies")
    if policies is not None:
        Bundles.of(policies.unknown.get("bundles"), check=True)
        complaint = wrong_with(policies, call.context.cluster)
        if complaint:
            raise Refusal(412, complaint)
        check_clusters(call, policies.replication_clusters)
    context = call.context
    try:
        await context.namespaces.create(name, policies)
    except AlreadyExistsError:
        if context.access is None or policies is None:
            raise
        if not await furnish_namespace(context.namespaces, name, policies, context.cluster):
            raise
    return done()


async def delete_namespace(call: Call) -> Response:
    """Remove a namespace; with `force`, its topics too."""
    context, name = call.context, call.namespace
    if name == SYSTEM_NAMESPACE:
        raise Refusal(412, f"{name} is the broker's own: its audit and its transactions need it")
    if call.flag("force"):
        await context.delete_namespace(name)
    else:
        await context.delete_system_topics(name)
        await context.namespaces.delete(name)
    return done()


async def list_topics(call: Call) -> Response:
    """Return the topics of a namespace, partitions included; as in Pulsar, persistent ones."""
    word = call.word("mode", ListMode.PERSISTENT.name).upper()
    modes = [mode.name for mode in ListMode]
    if word not in modes:
        raise Refusal(412, f"mode is {word!r}, allowed: {', '.join(modes)}")
    system = call.flag("includeSystemTopic")
    names = await call.context.catalog.topics(call.namespace, ListMode[word], system=system)
    return await listed(names)


async def get_bundles(call: Call) -> Response:
    """Return the hash ranges that a namespace is shown in."""
    return answer((await call.context.bundles(call.namespace)).to_json())


# --- properties ---------------------------------------------------------------------------


async def get_properties(call: Call) -> Response:
    """Return the properties of a namespace."""
    return answer((await call.context.namespaces.get(call.namespace)).properties)


async def set_properties(call: Call) -> Response:
    """Add properties, or change them."""
    added: dict[str, str] = call.needed_json(dict[str, str], "properties")
    await _change_properties(call, lambda properties: properties | added)
    return done()


async def clear_properties(call: Call) -> Response:
    """Remove all properties."""
    await _change_properties(call, lambda _: {})
    return done()


async def get_property(call: Call) -> Response:
    """Return one property."""
    properties = (await call.context.namespaces.get(call.namespace)).properties
    value = properties.get(call.parameters["key"])
    return done() if value is None else answer(value)


async def set_property(call: Call) -> Response:
    """Set one property."""
    key, value = call.parameters["key"], call.parameters["value"]
    await _change_properties(call, lambda properties: properties | {key: value})
    return done()


async def remove_property(call: Call) -> Response:
    """Remove one property; return what it was."""
    key = call.parameters["key"]
    before = (await call.context.namespaces.get(call.namespace)).properties.get(key)
    await _change_properties(
        call, lambda properties: {k: v for k, v in properties.items() if k != key}
    )
    return done() if before is None else answer(before)


def check_properties(properties: Mapping[str, str]) -> None:
    """Refuse more properties than a record of metadata should have to carry.

    Raises:
        Refusal: 412, there are too many, or one is too long.
    """
    if len(properties) > PROPERTIES_MAX:
        raise Refusal(412, f"{len(properties)} properties, the limit is {PROPERTIES_MAX}")
    for key, value in properties.items():
        if not key or max(len(key), len(value)) > PROPERTY_LENGTH_MAX:
            raise Refusal(
                412, f"property {key[:50]!r}: allowed are 1 to {PROPERTY_LENGTH_MAX} characters"
            )


async def _change_properties(call: Call, change: Any) -> None:
    def edit(policies: Policies) -> None:
        changed: dict[str, str] = change(policies.properties)
        check_properties(changed)
        policies.properties = changed

    await call.context.namespaces.update(call.namespace, edit)


# --- which clusters, and which namespaces should be apart ------------------------------------


async def get_allowed_clusters(call: Call) -> Response:
    """Return the clusters that a namespace may live on; none: those of its tenant."""
    policies = await call.context.namespaces.get(call.namespace)
    return answer(policies.unknown.get("allowed_clusters") or [])


async def set_allowed_clusters(call: Call) -> Response:
    """Set the clusters that a namespace may live on; this one is always among them."""
    wanted: list[str] = call.needed_json(list[str], "allowedClusters")
    known = await call.context.clusters.list()
    for cluster in wanted:
        if cluster not in known:
            raise Refusal(412, f"cluster {cluster!r} does not exist; there are {', '.join(known)}")
    if wanted and call.context.cluster not in wanted:
        raise Refusal(400, f"the namespace lives on {call.context.cluster}; it has to be allowed")

    def change(policies: Policies) -> None:
        rest = {key: each for key, each in policies.unknown.items() if key != "allowed_clusters"}
        added = {"allowed_clusters": list(dict.fromkeys(wanted))} if wanted else {}
        policies.unknown = rest | added

    await call.context.namespaces.update(call.namespace, change)
    return done()


async def list_anti_affinity(call: Call) -> Response:
    """Return the namespaces of an anti-affinity group, of one tenant or of all."""
    context, group = call.context, call.parameters["group"]
    if call.parameters["cluster"] not in await context.clusters.list():
        raise Refusal(404, f"cluster {call.parameters['cluster'][:200]!r} does not exist")
    tenant = call.word("tenant") or call.word("property") or None
    names = await context.namespaces.list(None if tenant is None else check_tenant(tenant))
    policies = await in_parallel([context.namespaces.get(name) for name in names])
    both = zip(names, policies, strict=True)
    return answer([str(name) for name, said in both if said.anti_affinity_group == group])


# --- all topics of a namespace --------------------------------------------------------------


async def unload(call: Call) -> Response:
    """Close the clients of every topic and forget the topics' memory, or send them elsewhere."""
    worker = destination(call)
    if worker is not None:
        await send(call, await _own_topics(call), worker)
        await pass_on(call)
        return done()
    for topic in await _own_topics(call, loaded=True):
        await call.context.catalog.unload(topic)
    await pass_on(call)
    return done()


async def clear_backlog(call: Call) -> Response:
    """Acknowledge everything that one subscription, or every one, has not acknowledged yet."""
    wanted = call.parameters.get("subscription")
    if wanted is not None:
        check_subscription(wanted)
    for name in await _own_topics(call):
        topic = await call.context.catalog.topic(name)
        for subscription in list(topic.subscriptions.values()):
            if wanted in {None, subscription.name} and isinstance(subscription, Subscription):
                await subscription.clear_backlog()
    await pass_on(call)
    return done()


async def unsubscribe(call: Call) -> Response:
    """Delete one subscription from every topic that has it."""
    wanted = call.subscription
    for name in await _own_topics(call):
        try:
            await call.context.catalog.delete_subscription(name, wanted)
        except SubscriptionNotFoundError:
            continue
    await pass_on(call)
    return done()


async def _own_topics(call: Call, *, loaded: bool = False) -> list[TopicName]:
    """Return the topics of the namespace, or of one bundle, that this process owns, or serves."""
    context, namespace = call.context, call.namespace
    bundles = await context.bundles(namespace)
    bundle = call.parameters.get("bundle")
    wanted = None if bundle is None else bundles.check(bundle)
    names = [topic.name for topic in context.catalog.loaded()]
    if not loaded:
        names = [*map(TopicName.parse, await context.catalog.topics(namespace, ListMode.ALL))]
    return [
        name
        for name in names
        if name.namespace_name == namespace
        and context.ownership.mine(name)
        and (wanted is None or wanted == bundles.of_topic(name))
    ]


BUNDLE = f"{NAMESPACE}/{{bundle}}"

BUNDLE = f"{NAMESPACE}/{{bundle}}"

_Properties = dict[str, str]
_N = Right.NAMESPACE

ROUTES = [
    Route(
        "GET", f"{ADMIN}/namespaces/{{tenant}}", list_namespaces, Right.TENANT, answer=list[str]
    ),
    Route("GET", NAMESPACE, get_namespace, _N, answer=Json),
    Route("PUT", NAMESPACE, create_namespace, Right.TENANT, body=Policies | None),
    Route("DELETE", NAMESPACE, delete_namespace, Right.TENANT, query={"force": bool}),
    Route(
        "GET", f"{NAMESPACE}/topics", list_topics, Right.LOOKUP, answer=list[str],
        query={"mode": str, "includeSystemTopic": bool},
    ),
    Route("GET", f"{NAMESPACE}/bundles", get_bundles, Right.LOOKUP, answer=BundlesShown),
    Route("GET", f"{NAMESPACE}/allowedClusters", get_allowed_clusters, _N, answer=list[str]),
    Route("POST", f"{NAMESPACE}/allowedClusters", set_allowed_clusters, _N, body=list[str]),
    Route(
        "GET", f"{ADMIN}/namespaces/{{cluster}}/antiAffinity/{{group}}", list_anti_affinity,
        Right.SUPERUSER, answer=list[str], query={"tenant": str, "property": str},
    ),
    Route("GET", f"{NAMESPACE}/properties", get_properties, _N, answer=_Properties),
    Route("PUT", f"{NAMESPACE}/properties", set_properties, _N, body=_Properties),
    Route("DELETE", f"{NAMESPACE}/properties", clear_properties, _N),
    Route("GET", f"{NAMESPACE}/property/{{key}}", get_property, _N, answer=str | None),
    Route("PUT", f"{NAMESPACE}/property/{{key}}/{{value}}", set_property, _N),
    Route("DELETE", f"{NAMESPACE}/property/{{key}}", remove_property, _N, answer=str | None),
    Route(
        "PUT", f"{NAMESPACE}/unload", unload, Right.SUPERUSER, query={"destinationBroker": str}
    ),
    Route("PUT", f"{BUNDLE}/unload", unload, Right.SUPERUSER, query={"destinationBroker": str}),
    Route("POST", f"{NAMESPACE}/clearBacklog", clear_backlog, Right.CONSUME_ALL),
    Route("POST", f"{NAMESPACE}/clearBacklog/{{subscription}}", clear_backlog, Right.CONSUME),
    Route("POST", f"{BUNDLE}/clearBacklog", clear_backlog, Right.CONSUME_ALL),
    Route("POST", f"{BUNDLE}/clearBacklog/{{subscription}}", clear_backlog, Right.CONSUME),
    Route("POST", f"{NAMESPACE}/unsubscribe/{{subscription}}", unsubscribe, Right.CONSUME),
    Route("POST", f"{BUNDLE}/unsubscribe/{{subscription}}", unsubscribe, Right.CONSUME),
]  # fmt: skip
