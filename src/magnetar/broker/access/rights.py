"""Rights and what they are about. Types only.

    demand = right + resource        CONSUME on (persistent://t/n/topic, subscription)

    superuser ⊃ tenant's admin roles ⊃ grants on a namespace, topic or subscription

A command or a route makes demands; a caller meets them or does not. What a right means is
decided in `permissions`; who demands what is written in two tables: `commands` for the binary
protocol, `Route.right` for HTTP.
"""

from enum import Enum
from typing import NamedTuple

from magnetar.broker.port import PortError
from magnetar.names import NamespaceName, TopicName


class Right(Enum):
    """What a caller must be allowed to do."""

    OPEN = "open"
    """Nothing: it says nothing about anybody's data, and needs no log-in."""
    KNOWN = "known"
    """Nothing beyond being logged in."""
    HELD = "held"
    """To have opened the producer, the consumer or the like that it names, on this connection."""
    LOOKUP = "lookup"
    """To learn where a topic is, or what topics there are: whoever may produce or consume."""
    READ = "read"
    """To see figures of a topic: whoever may produce or consume."""
    CONSUME = "consume"
    CONSUME_ALL = "consume from every subscription"
    """To consume, whatever subscription it is: none may be kept for others."""
    PRODUCE = "produce"
    FUNCTIONS = "functions"
    SOURCES = "sources"
    SINKS = "sinks"
    PACKAGES = "packages"
    NAMESPACE = "namespace"
    """Administer topics and policies of one namespace: the tenant's administrators."""
    TENANT = "tenant"
    """Administer the namespaces of a tenant: the same roles."""
    METRICS = "metrics"
    """See the figures of the whole broker."""
    SUPERUSER = "superuser"


GRANTED = (
    Right.PRODUCE,
    Right.CONSUME,
    Right.FUNCTIONS,
    Right.SOURCES,
    Right.SINKS,
    Right.PACKAGES,
)
"""What can be granted to a role on a namespace or a topic."""


class TenantName(NamedTuple):
    """A tenant as the thing that a right is about."""

    tenant: str


class SubscriptionOf(NamedTuple):
    """One subscription of one topic."""

    topic: TopicName
    name: str


class SubscriptionsOf(NamedTuple):
    """The subscriptions of one name, of whatever topics of a namespace."""

    namespace: NamespaceName
    name: str


Resource = TenantName | NamespaceName | TopicName | SubscriptionOf | SubscriptionsOf | None
"""What a right is about; None: the broker as a whole."""


class Demand(NamedTuple):
    """One thing that a caller must be allowed to do."""

    right: Right
    resource: Resource = None


class AccessError(PortError):
    """Somebody may not do what they ask. The message says nothing that they may not know."""


class AuthenticationError(AccessError):
    """Nobody can be sure who is calling. The message never quotes a credential."""


class AuthorizationError(AccessError):
    """The caller is known, and may not do this. Whether the thing exists is not said."""
