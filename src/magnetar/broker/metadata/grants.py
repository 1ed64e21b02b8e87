"""What is granted in a namespace: the `auth_policies` of Pulsar's Policies object.

    {"namespace_auth": {"role": ["produce"]}, "destination_auth": {"persistent://...": {...}},
     "subscription_auth_roles": {"subscription": ["role"]}}

What a grant means is decided in `access`.
"""

import msgspec

from magnetar.broker.metadata.documents import Document


class Grants(Document):
    """Which roles may do what, by namespace, by topic and by subscription.

    The actions: `produce`, `consume`, `functions`, `sources`, `sinks`, `packages`.
    """

    namespace: dict[str, list[str]] = msgspec.field(default_factory=dict, name="namespace_auth")
    """Role -> actions."""
    topics: dict[str, dict[str, list[str]]] = msgspec.field(
        default_factory=dict, name="destination_auth"
    )
    """Full name of a topic -> role -> actions."""
    subscriptions: dict[str, list[str]] = msgspec.field(
        default_factory=dict, name="subscription_auth_roles"
    )
    """Subscription -> the only roles that may consume from it."""
