"""Permissions: which roles may produce, consume, and so on, by namespace, topic and subscription.

    GET     .../permissions                 {"role": ["produce", "consume"]}
    POST    .../permissions/{role}          ["produce"]       exactly this, from now on
    DELETE  .../permissions/{role}
    POST    namespaces/grantPermissionsOnTopics   [{"topic": ..., "role": ..., "actions": [...]}]
    .../permissions/subscription/{s}        ["role", ...]     only these may consume from it

Only the tenant's administrators may look at them or change them. They are kept with the
namespace's policies (`auth_policies`), whether or not log-in is on, and hold in every process
within a second: what a client has open and may not have any more is closed. Revoking what is
not granted is no error, as in Pulsar.
"""

from collections.abc import Callable
from typing import Literal

import msgspec
from starlette.responses import Response

from magnetar.broker.access.rights import GRANTED, Demand
from magnetar.broker.doors.admin.call import Call, answer, done
from magnetar.broker.doors.admin.errors import Refusal
from magnetar.broker.doors.admin.resources.policies import NAMESPACE
from magnetar.broker.doors.admin.resources.topics import TOPIC
from magnetar.broker.doors.admin.routes import ADMIN, Right, Route
from magnetar.broker.metadata.grants import Grants
from magnetar.broker.metadata.policies import Policies
from magnetar.names import NamespaceName, TopicName, check_subscription

ROLE_LENGTH_MAX = 1_024
ROLES_MAX = 10_000
"""Roles in one list, and lists in one namespace: they are kept in memory by every process."""

Action = Literal["produce", "consume", "functions", "sources", "sinks", "packages"]
ACTIONS = frozenset(right.value for right in GRANTED)


async def get_namespace_permissions(call: Call) -> Response:
    """Return what is granted on a namespace."""
    return answer((await _grants(call)).namespace)


async def grant_on_namespace(call: Call) -> Response:
    """Let a role do something on every topic of a namespace."""
    role, actions = _role(call), _actions(call)

    def change(grants: Grants) -> None:
        grants.namespace[role] = actions
        _check_size(len(grants.namespace))

    return await _changed(call, change)


async def revoke_on_namespace(call: Call) -> Response:
    """Take back what a role was granted on a namespace."""
    role = _role(call)
    return await _changed(call, lambda grants: grants.namespace.pop(role, None))


async def get_topic_permissions(call: Call) -> Response:
    """Return what is granted on a topic, by its namespace too."""
    grants = await _grants(call)
    merged = {role: set(actions) for role, actions in grants.namespace.items()}
    for name in dict.fromkeys((str(call.topic.base), str(call.topic))):
        for role, actions in grants.topics.get(name, {}).items():
            merged.setdefault(role, set()).update(actions)
    return answer({role: sorted(actions) for role, actions in merged.items()})


async def grant_on_topic(call: Call) -> Response:
    """Let a role do something on one topic, and on its partitions."""
    role, actions, topic = _role(call), _actions(call), str(call.topic)

    def change(grants: Grants) -> None:
        granted = grants.topics.setdefault(topic, {})
        granted[role] = actions
        _check_size(len(grants.topics) + len(granted))

    return await _changed(call, change)


async def revoke_on_topic(call: Call) -> Response:
    """Take back what a role was granted on a topic."""
    role, topic = _role(call), str(call.topic)

    def change(grants: Grants) -> None:
        granted = grants.topics.get(topic, {})
        if granted.pop(role, None) is None:
            raise Refusal(412, f"role {role!r} was granted nothing on this topic")
        if not granted:
            del grants.topics[topic]

    return await _changed(call, change)


class OnTopic(msgspec.Struct, kw_only=True):
    """What a role is granted on one of many topics, as Pulsar's clients write it."""

    topic: str
    role: str
    actions: list[Action] = []

    @property
    def name(self) -> TopicName:
        return TopicName.parse(self.topic)


async def grant_on_topics(call: Call) -> Response:
    """Let roles do something on many topics, which the caller must administer."""

    def grant(grants: Grants, asked: OnTopic) -> None:
        granted = grants.topics.setdefault(str(asked.name), {})
        granted[asked.role] = sorted(set(asked.actions))
        _check_size(len(grants.topics) + len(granted))

    return await _on_topics(call, grant)


async def revoke_on_topics(call: Call) -> Response:
    """Take back what roles were granted on many topics, which the caller must administer."""

    def revoke(grants: Grants, asked: OnTopic) -> None:
        granted = grants.topics.get(str(asked.name), {})
        granted.pop(asked.role, None)
        if not granted:
            grants.topics.pop(str(asked.name), None)

    return await _on_topics(call, revoke)


async def _on_topics(call: Call, change: Callable[[Grants, OnTopic], None]) -> Response:
    """Change the grants of many topics; all are looked at before the first is changed."""
    told: list[OnTopic] = call.needed_json(list[OnTopic], "permissions")
    if len(told) > ROLES_MAX:
        raise Refusal(412, f"{len(told)} permissions, the limit is {ROLES_MAX}")
    by_namespace: dict[NamespaceName, list[OnTopic]] = {}
    for each in told:
        _check_role(each.role)
        by_namespace.setdefault(each.name.namespace_name, []).append(each)
    access = call.context.access
    if access is not None:
        demands = [Demand(Right.NAMESPACE, each) for each in by_namespace]
        await access.authorize(call.caller, demands)
    for namespace in by_namespace:
        await call.context.namespaces.get(namespace)
    for namespace, some in by_namespace.items():

        def edit(policies: Policies, some: list[OnTopic] = some) -> None:
            policies.grants = policies.grants or Grants()
            for each in some:
                change(policies.grants, each)

        await call.context.namespaces.update(namespace, edit)
    return done()


async def get_subscription_permissions(call: Call) -> Response:
    """Return which subscriptions are kept for some roles, and for which."""
    return answer((await _grants(call)).subscriptions)


async def grant_on_subscription(call: Call) -> Response:
    """Keep a subscription for some roles."""
    subscription = check_subscription(call.parameters["name"])
    roles: list[str] = call.needed_json(list[str], "roles")
    if len(roles) > ROLES_MAX:
        raise Refusal(412, f"{len(roles)} roles, the limit is {ROLES_MAX}")
    for role in roles:
        _check_role(role)

    def change(grants: Grants) -> None:
        grants.subscriptions[subscription] = sorted(set(roles))
        _check_size(len(grants.subscriptions))

    return await _changed(call, change)


async def revoke_on_subscription(call: Call) -> Response:
    """Take a role from those that a subscription is kept for; without any left, all may use it."""
    subscription, role = check_subscription(call.parameters["name"]), _role(call)

    def change(grants: Grants) -> None:
        roles = [each for each in grants.subscriptions.get(subscription, []) if each != role]
        if roles:
            grants.subscriptions[subscription] = roles
        else:
            grants.subscriptions.pop(subscription, None)

    return await _changed(call, change)


async def _grants(call: Call) -> Grants:
    return (await call.context.namespaces.get(call.namespace)).grants or Grants()


async def _changed(call: Call, change: Callable[[Grants], object]) -> Response:
    def edit(policies: Policies) -> None:
        policies.grants = policies.grants or Grants()
        change(policies.grants)

    await call.context.namespaces.update(call.namespace, edit)
    return done()


def _role(call: Call) -> str:
    return _check_role(call.parameters["role"])


def _check_role(role: str) -> str:
    """Return a role if it can be one.

    Raises:
        Refusal: 412, it is empty, too long, or cannot be printed.
    """
    if not 0 < len(role) <= ROLE_LENGTH_MAX or not role.isprintable():
        raise Refusal(412, f"role {role[:50]!r}: 1 to {ROLE_LENGTH_MAX} printable characters")
    return role


def _actions(call: Call) -> list[str]:
    """Return the actions in the body.

    Raises:
        Refusal: 400, it is no list of texts; 412, one of them is no action.
    """
    told: list[str] = call.needed_json(list[str], "actions")
    for each in told:
        if each not in ACTIONS:
            raise Refusal(412, f"action {each[:50]!r}, allowed: {', '.join(sorted(ACTIONS))}")
    return sorted(set(told))


def _check_size(count: int) -> None:
    if count > ROLES_MAX:
        raise Refusal(412, f"more than {ROLES_MAX} permissions in one namespace")


ON_NAMESPACE = f"{NAMESPACE}/permissions"
ON_TOPIC = f"{TOPIC}/permissions"
ON_SUBSCRIPTION = f"{ON_NAMESPACE}/subscription"

MANY = f"{ADMIN}/namespaces"

_N, _K = Right.NAMESPACE, Right.KNOWN
_Roles = list[str]
_Granted = dict[str, list[Action]]

# `name`, not `subscription`: the right to say who may use one is not that to use it.
ROUTES = [
    Route("GET", ON_NAMESPACE, get_namespace_permissions, _N, answer=_Granted),
    Route("POST", f"{ON_NAMESPACE}/{{role}}", grant_on_namespace, _N, body=list[Action]),
    Route("DELETE", f"{ON_NAMESPACE}/{{role}}", revoke_on_namespace, _N),
    Route("GET", ON_SUBSCRIPTION, get_subscription_permissions, _N, answer=dict[str, _Roles]),
    Route("POST", f"{ON_SUBSCRIPTION}/{{name}}", grant_on_subscription, _N, body=_Roles),
    Route("DELETE", f"{ON_SUBSCRIPTION}/{{name}}/{{role}}", revoke_on_subscription, _N),
    # Pulsar's own clients leave a segment out when they take one back.
    Route("DELETE", f"{ON_NAMESPACE}/{{name}}/{{role}}", revoke_on_subscription, _N),
    # Who may is looked at topic by topic, once the body is read.
    Route("POST", f"{MANY}/grantPermissionsOnTopics", grant_on_topics, _K, body=list[OnTopic]),
    Route("POST", f"{MANY}/revokePermissionsOnTopics", revoke_on_topics, _K, body=list[OnTopic]),
    Route("GET", ON_TOPIC, get_topic_permissions, _N, answer=_Granted),
    Route("POST", f"{ON_TOPIC}/{{role}}", grant_on_topic, _N, body=list[Action]),
    Route("DELETE", f"{ON_TOPIC}/{{role}}", revoke_on_topic, _N),
]
