"""Names of tenants, namespaces, topics and subscriptions: parse, check, print.

    persistent://tenant/namespace/local          canonical
    non-persistent://tenant/namespace/local      memory only
    tenant/namespace/local                       persistent
    local                                        persistent://public/default/local
    <topic>-partition-<i>                        partition i of a partitioned topic

Source: Pulsar's topic naming. The five-part form with a cluster in it is refused.
"""

import re
from enum import StrEnum
from typing import NamedTuple

NAME_LENGTH_MAX = 1024
"""Characters in one part of a name. Names become metadata keys; a bound keeps those small."""

_PART = re.compile(r"[-=:.\w]+")
_NEW_PART = re.compile(_PART.pattern, re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_PARTITION = re.compile(r"-partition-(0|[1-9][0-9]*)$")

_SYSTEM = frozenset(
    {
        "__change_events",
        "__transaction_buffer_snapshot",
        "__transaction_buffer_snapshot_segments",
        "__transaction_buffer_snapshot_indexes",
    }
)
_SYSTEM_ENDING = "__transaction_pending_ack"
_COORDINATORS = "transaction_coordinator_assign"
_SYSTEM_BEGINNINGS = (_COORDINATORS, "__transaction_log_")
"""Of topics in the namespace `pulsar/system`."""


class InvalidNameError(ValueError):
    """A name that Pulsar's grammar does not allow. The message says which part and why."""


class Domain(StrEnum):
    """Whether a topic is kept on disk."""

    PERSISTENT = "persistent"
    NON_PERSISTENT = "non-persistent"


class NamespaceName(NamedTuple):
    """`tenant/namespace`."""

    tenant: str
    namespace: str

    def __str__(self) -> str:
        return f"{self.tenant}/{self.namespace}"

    @classmethod
    def parse(cls, text: str) -> "NamespaceName":
        """Read `tenant/namespace`.

        Raises:
            InvalidNameError: there are not two parts, or one has a character it may not have.
        """
        parts = text.split("/")
        if len(parts) != 2:
            raise InvalidNameError(f"namespace {text!r}: expected tenant/namespace")
        return cls(_part("tenant", parts[0]), _part("namespace", parts[1]))


SYSTEM_NAMESPACE = NamespaceName("pulsar", "system")
"""What Pulsar keeps for itself lies here, as far as it belongs to no other namespace."""


class TopicName(NamedTuple):
    """The full name of a topic, or of one partition of it."""

    domain: Domain
    tenant: str
    namespace: str
    local: str

    def __str__(self) -> str:
        return f"{self.domain.value}://{self.tenant}/{self.namespace}/{self.local}"

    @property
    def persistent(self) -> bool:
        """Whether entries of this topic are kept on disk."""
        return self.domain is Domain.PERSISTENT

    @property
    def namespace_name(self) -> NamespaceName:
        """The namespace the topic lies in."""
        return NamespaceName(self.tenant, self.namespace)

    @property
    def partition(self) -> int:
        """The partition this name stands for; -1 if it is no partition."""
        match = _PARTITION.search(self.local)
        return int(match[1]) if match else -1

    @property
    def system(self) -> bool:
        """Whether the name is one of those that Pulsar keeps for itself, and does not list."""
        base = self.base.local
        if base in _SYSTEM or base.endswith(_SYSTEM_ENDING):
            return True
        return self.namespace_name == SYSTEM_NAMESPACE and base.startswith(_SYSTEM_BEGINNINGS)

    @property
    def base(self) -> "TopicName":
        """The partitioned topic this is a partition of; itself if it is no partition."""
        return self._replace(local=_PARTITION.sub("", self.local))

    def partition_name(self, index: int) -> "TopicName":
        """Return the name of partition `index` of this topic."""
        return self._replace(local=f"{self.local}-partition-{index}")

    @classmethod
    def parse(cls, text: str) -> "TopicName":
        """Read a topic name in its long or one of its short forms.

        Raises:
            InvalidNameError: the text is not a topic name.
        """
        scheme, separator, rest = text.partition("://")
        if not separator:
            scheme, rest = Domain.PERSISTENT.value, text
            if "/" not in rest:
                rest = f"public/default/{rest}"
        try:
            domain = Domain(scheme)
        except ValueError:
            raise InvalidNameError(
                f"topic {text!r}: {scheme!r} is neither persistent nor non-persistent"
            ) from None
        parts = rest.split("/", 2)
        if len(parts) != 3:
            raise InvalidNameError(f"topic {text!r}: expected tenant/namespace/topic")
        tenant, namespace, local = parts
        return cls(domain, _part("tenant", tenant), _part("namespace", namespace), _local(local))


def check_subscription(name: str) -> str:
    """Return the name of a subscription if it is one.

    Raises:
        InvalidNameError: it is empty, too long or has control characters.
    """
    return _free("subscription", name)


def check_tenant(name: str) -> str:
    """Return the name of a tenant if it is one.

    Raises:
        InvalidNameError: it has a character it may not have.
    """
    return _part("tenant", name)


def check_new(what: str, name: str) -> str:
    """Return the name that a tenant, namespace or cluster is to be given, if Pulsar takes it.

    Letters beyond ASCII are refused here alone: what was made under such a name can be used.

    Raises:
        InvalidNameError: it has a character it may not have.
    """
    if not _NEW_PART.fullmatch(_part(what, name)):
        raise InvalidNameError(
            f"{what} {name!r}: allowed are the letters a-z and A-Z, digits and - = : . _"
        )
    return name


def _part(what: str, text: str) -> str:
    if len(text) > NAME_LENGTH_MAX:
        raise InvalidNameError(
            f"{what} name of {len(text)} characters, the limit is {NAME_LENGTH_MAX}"
        )
    if not _PART.fullmatch(text):
        raise InvalidNameError(f"{what} {text!r}: allowed are letters, digits and - = : . _")
    return text


def _free(what: str, text: str) -> str:
    if not text or len(text) > NAME_LENGTH_MAX:
        raise InvalidNameError(
            f"{what} name of {len(text)} characters, allowed are 1 to {NAME_LENGTH_MAX}"
        )
    if _CONTROL.search(text):
        raise InvalidNameError(f"{what} {text!r}: control characters are not allowed")
    return text


def _local(text: str) -> str:
    if text.count("/") >= 1:
        # Pulsar's old form with a cluster (tenant/cluster/namespace/topic) reads like this.
        raise InvalidNameError(
            f"topic {text!r}: a slash in the last part; names with a cluster are not supported"
        )
    return _free("topic", text)


COORDINATORS_TOPIC = TopicName.parse(f"persistent://pulsar/system/{_COORDINATORS}")
"""Clients ask for its partitions: there are as many as coordinators of transactions. It has no
messages."""
