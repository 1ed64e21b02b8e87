"""What a role may do, by what is granted to it. Pure.

    superuser role                      everything
    admin role of the tenant            everything in the tenant
    grant on the namespace              produce, consume, ... on every topic of it
    grant on the topic                  the same on this topic, and on its partitions
    roles of the subscription           if there are any, only these may consume from it
    subscription mode Prefix            its name must begin with the role

Who may produce or consume may look a topic up and see its figures. No grant lets anybody
change a policy: that is left to the tenant's administrators. With wildcards, a role in a grant
may begin or end with `*`. Source: Apache Pulsar's PulsarAuthorizationProvider.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from magnetar.broker.access.rights import (
    Demand,
    Resource,
    Right,
    SubscriptionOf,
    SubscriptionsOf,
    TenantName,
)
from magnetar.names import NamespaceName, TopicName

NO_ROLES: frozenset[str] = frozenset()

Granted = Mapping[str, frozenset[str]]
"""Role -> actions."""


@dataclass(frozen=True, slots=True)
class NamespaceGrants:
    """What is granted in one namespace."""

    namespace: Granted = field(default_factory=dict[str, frozenset[str]])
    topics: Mapping[str, Granted] = field(default_factory=dict[str, Granted])
    subscriptions: Mapping[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])
    prefix: bool = False


NOTHING_GRANTED = NamespaceGrants()


@dataclass(frozen=True, slots=True)
class Known:
    """Everything that is decided from: kept up to date by `Access`."""

    superusers: frozenset[str] = NO_ROLES
    watchers: frozenset[str] = NO_ROLES
    """Roles that may see the figures of the whole broker."""
    wildcards: bool = False
    admins: dict[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])
    """Tenant -> its admin roles."""
    namespaces: dict[NamespaceName, NamespaceGrants] = field(
        default_factory=dict[NamespaceName, NamespaceGrants]
    )


def meets(role: str, demand: Demand, known: Known) -> bool:
    """Return whether a role may do what is demanded."""
    right, resource = demand
    if right in {Right.OPEN, Right.KNOWN, Right.HELD} or role in known.superusers:
        return True
    if right is Right.METRICS:
        return role in known.watchers
    if right is Right.SUPERUSER or resource is None:
        return False
    if _named(role, known.admins.get(resource_tenant(resource), NO_ROLES), known):
        return True
    if right in {Right.NAMESPACE, Right.TENANT} or isinstance(resource, TenantName):
        return False
    return _granted(role, right, resource, known)


def resource_tenant(
    resource: TenantName | NamespaceName | TopicName | SubscriptionOf | SubscriptionsOf,
) -> str:
    """Return the tenant that a resource belongs to."""
    match resource:
        case SubscriptionOf(topic):
            return topic.tenant
        case SubscriptionsOf(namespace):
            return namespace.tenant
        case _:
            return resource.tenant


def resource_namespace(resource: Resource) -> NamespaceName | None:
    """Return the namespace that a resource lies in; None: in none."""
    match resource:
        case SubscriptionOf(topic):
            return topic.namespace_name
        case SubscriptionsOf(namespace):
            return namespace
        case TopicName():
            return resource.namespace_name
        case NamespaceName():
            return resource
        case _:
            return None


_WANTED = {
    Right.LOOKUP: {Right.PRODUCE.value, Right.CONSUME.value},
    Right.READ: {Right.PRODUCE.value, Right.CONSUME.value},
    Right.CONSUME_ALL: {Right.CONSUME.value},
}
"""The actions of which one is enough, where it is not the right itself."""


def _granted(
    role: str,
    right: Right,
    resource: NamespaceName | TopicName | SubscriptionOf | SubscriptionsOf,
    known: Known,
) -> bool:
    name = resource_namespace(resource)
    grants = known.namespaces.get(name, NOTHING_GRANTED) if name else NOTHING_GRANTED
    wanted = _WANTED.get(right, {right.value})
    place: NamespaceName | TopicName
    match resource:
        case SubscriptionOf(place) | SubscriptionsOf(place):
            pass
        case _:
            place = resource
    if not any(_actions(role, each, known) & wanted for each in _levels(grants, place)):
        return False
    if right is Right.CONSUME_ALL:
        return _may_use_all(role, grants, known)
    if isinstance(resource, SubscriptionOf | SubscriptionsOf):
        return _may_use(role, resource.name, grants, known)
    return True


def _levels(grants: NamespaceGrants, topic: NamespaceName | TopicName) -> Iterable[Granted]:
    """Return where a grant may stand that covers a topic, or a whole namespace."""
    yield grants.namespace
    if isinstance(topic, TopicName) and grants.topics:
        for name in {topic, topic.base}:
            if (granted := grants.topics.get(str(name))) is not None:
                yield granted


def _may_use(role: str, subscription: str, grants: NamespaceGrants, known: Known) -> bool:
    roles = grants.subscriptions.get(subscription, NO_ROLES)
    if roles and not _named(role, roles, known):
        return False
    return not grants.prefix or subscription.startswith(role)


def _may_use_all(role: str, grants: NamespaceGrants, known: Known) -> bool:
    """Return whether no subscription is kept for others, of whatever name."""
    kept = (roles for roles in grants.subscriptions.values() if roles)
    return not grants.prefix and all(_named(role, roles, known) for roles in kept)


def _actions(role: str, granted: Granted, known: Known) -> set[str]:
    if not known.wildcards:
        return set(granted.get(role, NO_ROLES))
    return {action for each, actions in granted.items() if fits(each, role) for action in actions}


def _named(role: str, roles: Collection[str], known: Known) -> bool:
    return role in roles or (known.wildcards and any(fits(each, role) for each in roles))


def fits(pattern: str, role: str) -> bool:
    """Return whether a role is meant by one with a `*` at either end."""
    if pattern in {role, "*"}:
        return True
    if pattern.startswith("*"):
        return role.endswith(pattern[1:])
    return pattern.endswith("*") and role.startswith(pattern[:-1])
