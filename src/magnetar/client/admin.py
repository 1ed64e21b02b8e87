"""Typed admin REST calls, for the command line and for programs.

    Admin ──HTTP/1.1, JSON──▶ http://host:8080/admin/v2/...   or https://host:8443/admin/v2/...

One `Admin` is one connection (see `rest`), kept open between calls, and belongs to one thread.
Every call is blocking and bounded by `timeout_s`. Works against our broker and, where no call says
otherwise, against Apache Pulsar. Source: Pulsar's admin REST v2.

Topic arguments may be long (`persistent://public/default/orders`) or short (`orders`).
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple
from urllib.parse import quote

from magnetar.client.credentials import Credentials
from magnetar.client.rest import AdminError, Json, Rest
from magnetar.client.stored import Message, MessageId, message_id_of, message_of, position_json
from magnetar.names import Domain, NamespaceName, TopicName, check_subscription, check_tenant

DEFAULT_URL = "http://127.0.0.1:8080"
TIMEOUT_S = 60.0


class Location(NamedTuple):
    """Who serves a topic."""

    broker_url: str
    http_url: str
    broker_url_tls: str = ""
    http_url_tls: str = ""


class Admin(Rest):
    """Admin REST of one broker. Usable as a context manager; one thread only."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        timeout_s: float = TIMEOUT_S,
        token: str | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        """Dial nobody yet.

        Raises:
            AdminError: the address makes no sense.
            CredentialsError: a credential cannot be read.
        """
        super().__init__(url, credentials or Credentials(token=token), timeout_s)

    # --- the broker itself ----------------------------------------------------------------

    def health(self) -> str:
        """Return `ok` when every broker process answers.

        Raises:
            AdminError: one does not, with its reason.
        """
        return self.text("GET", "/admin/v2/brokers/health")

    def ready(self) -> str:
        """Return `ok` when every broker process serves, be it well or not.

        Raises:
            AdminError: one does not answer.
        """
        return self.text("GET", "/admin/v2/brokers/ready")

    def version(self) -> str:
        return self.text("GET", "/admin/v2/brokers/version")

    def brokers(self) -> list[str]:
        return _strings(self.json("GET", "/admin/v2/brokers"))

    def processes(self) -> list[Json]:
        """Return the processes of the broker, by number. Not in Pulsar."""
        found: list[Json] = self.json("GET", "/admin/v2/brokers/processes")
        return found

    def scale(self, processes: int) -> list[Json]:
        """Change how many processes there are; return them. Not in Pulsar."""
        found: list[Json] = self.json("POST", f"/admin/v2/brokers/processes/{processes}")
        return found

    def load_report(self) -> Json:
        """Return what the broker carries: rates, counts and bundles, of all its processes."""
        return self.json("GET", "/admin/v2/broker-stats/load-report")

    def latencies(self) -> Json:
        """Return how long things took in the last whole minute, of all processes. Not in Pulsar."""
        return self.json("GET", "/admin/v2/broker-stats/latencies")

    def clusters(self) -> list[str]:
        return _strings(self.json("GET", "/admin/v2/clusters"))

    def cluster(self, cluster: str) -> Json:
        """Return where a cluster can be reached."""
        return self.json("GET", f"/admin/v2/clusters/{_quoted(cluster)}")

    def create_cluster(self, cluster: str, service_url: str, broker_url: str = "") -> None:
        """Make another cluster known."""
        body = {"serviceUrl": service_url, "brokerServiceUrl": broker_url or None}
        self.json("PUT", f"/admin/v2/clusters/{_quoted(cluster)}", body)

    def delete_cluster(self, cluster: str) -> None:
        self.json("DELETE", f"/admin/v2/clusters/{_quoted(cluster)}")

    def metrics(self) -> str:
        """Return the Prometheus text of all broker processes."""
        return self.text("GET", "/metrics")

    # --- tenants and namespaces -------------------------------------------------------------

    def tenants(self) -> list[str]:
        return _strings(self.json("GET", "/admin/v2/tenants"))

    def tenant(self, tenant: str) -> Json:
        """Return who may administer a tenant, and on which clusters."""
        return self.json("GET", f"/admin/v2/tenants/{_quoted(check_tenant(tenant))}")

    def create_tenant(
        self, tenant: str, clusters: Sequence[str] | None = None, roles: Sequence[str] = ()
    ) -> None:
        """Create a tenant; without `clusters`, one that may use all there are."""
        allowed = self.clusters() if clusters is None else list(clusters)
        body = {"adminRoles": list(roles), "allowedClusters": allowed}
        self.json("PUT", f"/admin/v2/tenants/{_quoted(check_tenant(tenant))}", body)

    def update_tenant(self, tenant: str, clusters: Sequence[str], roles: Sequence[str]) -> None:
        """Replace who may administer a tenant, and on which clusters."""
        body = {"adminRoles": list(roles), "allowedClusters": list(clusters)}
        self.json("POST", f"/admin/v2/tenants/{_quoted(check_tenant(tenant))}", body)

    def delete_tenant(self, tenant: str, *, force: bool = False) -> None:
        path = f"/admin/v2/tenants/{_quoted(check_tenant(tenant))}"
        self.json("DELETE", path, query={"force": force})

    def namespaces(self, tenant: str | None = None) -> list[str]:
        """Return the namespaces of one tenant, or of all."""
        tenants = self.tenants() if tenant is None else [check_tenant(tenant)]
        return [
            namespace
            for each in tenants
            for namespace in _strings(self.json("GET", f"/admin/v2/namespaces/{_quoted(each)}"))
        ]

    def namespace(self, namespace: str) -> Json:
        """Return everything set on a namespace."""
        return self.json("GET", _namespace(namespace))

    def create_namespace(self, namespace: str, policies: Json | None = None) -> None:
        self.json("PUT", _namespace(namespace), policies)

    def delete_namespace(self, namespace: str, *, force: bool = False) -> None:
        """Delete a namespace; with `force`, its topics too."""
        self.json("DELETE", _namespace(namespace), query={"force": force})

    def policy(self, namespace: str, name: str) -> Json:
        """Return one policy, such as `retention` or `messageTTL`; None: not set."""
        return self.json("GET", f"{_namespace(namespace)}/{_quoted(name)}")

    def set_policy(self, namespace: str, name: str, value: Json) -> None:
        self.json("POST", f"{_namespace(namespace)}/{_quoted(name)}", value)

    def remove_policy(self, namespace: str, name: str) -> None:
        self.json("DELETE", f"{_namespace(namespace)}/{_quoted(name)}")

    def topic_policy(self, topic: str, name: str, *, applied: bool = False) -> Json:
        """Return one policy of a topic; None: it says nothing itself.

        Args:
            topic: The topic; partitions have the policies of theirs.
            name: Such as `retention` or `maxProducers`.
            applied: What holds instead, wherever it is said.
        """
        return self.json("GET", f"{_topic(topic)}/{_quoted(name)}", query={"applied": applied})

    def set_topic_policy(self, topic: str, name: str, value: Json) -> None:
        """Set a policy of one topic, over that of its namespace."""
        self.json("POST", f"{_topic(topic)}/{_quoted(name)}", value)

    def remove_topic_policy(self, topic: str, name: str) -> None:
        """Let what the namespace says hold again."""
        self.json("DELETE", f"{_topic(topic)}/{_quoted(name)}")

    def set_retention(self, namespace: str, time_min: int, size_mib: int) -> None:
        """Keep what is acknowledged this long and up to this size; -1: no such limit."""
        value = {"retentionTimeInMinutes": time_min, "retentionSizeInMB": size_mib}
        self.set_policy(namespace, "retention", value)

    def bundles(self, namespace: str) -> list[str]:
        """Return the hash ranges that a namespace is shown in, such as `0x00000000_0x40000000`."""
        borders = self.json("GET", f"{_namespace(namespace)}/bundles")["boundaries"]
        return [f"{low}_{high}" for low, high in pairwise(borders)]

    def split_bundle(self, namespace: str, bundle: str) -> None:
        """Cut a bundle into halves; `LARGEST` is the one with the most topics."""
        self.json("PUT", f"{_namespace(namespace)}/{_quoted(bundle)}/split")

    def unload_namespace(self, namespace: str) -> None:
        """Close the clients of all topics of a namespace; they come back by themselves."""
        self.json("PUT", f"{_namespace(namespace)}/unload")

    def clear_namespace(self, namespace: str, subscription: str | None = None) -> None:
        """Acknowledge everything in all topics of a namespace, for one subscription or for all."""
        tail = "" if subscription is None else f"/{_quoted(check_subscription(subscription))}"
        self.json("POST", f"{_namespace(namespace)}/clearBacklog{tail}")

    # --- topics -----------------------------------------------------------------------------

    def topics(self, namespace: str, *, mode: str = "ALL") -> list[str]:
        """Return the topics of a namespace, partitions included.

        Args:
            namespace: `tenant/namespace`.
            mode: PERSISTENT, NON_PERSISTENT or ALL.
        """
        path = f"{_namespace(namespace)}/topics"
        return _strings(self.json("GET", path, query={"mode": mode}))

    def partitioned_topics(self, namespace: str) -> list[str]:
        """Return the partitioned topics of a namespace, by their base names."""
        name = NamespaceName.parse(namespace)
        found: list[str] = []
        for domain in Domain:
            path = f"/admin/v2/{domain.value}/{_quoted(name.tenant)}/{_quoted(name.namespace)}"
            found += _strings(self.json("GET", f"{path}/partitioned"))
        return found

    def create_topic(
        self, topic: str, partitions: int = 0, properties: Mapping[str, str] | None = None
    ) -> None:
        """Create a topic; with `partitions` above 0, a partitioned one."""
        if partitions:
            body: Json = {"partitions": partitions, "properties": dict(properties or {})}
            self.json("PUT", f"{_topic(topic)}/partitions", partitions if not properties else body)
        else:
            self.json("PUT", _topic(topic), dict(properties) if properties else None)

    def delete_topic(self, topic: str, *, force: bool = False) -> None:
        """Delete a topic, and all its partitions; `force`: although clients are connected."""
        tail = "/partitions" if self.partitions(topic) else ""
        self.json("DELETE", _topic(topic) + tail, query={"force": force})

    def partitions(self, topic: str) -> int:
        """Return how many partitions a topic has; 0: it is not partitioned, or not there."""
        answer = self.json("GET", f"{_topic(topic)}/partitions")
        return int(answer.get("partitions", 0))

    def update_partitions(self, topic: str, partitions: int) -> None:
        """Grow a partitioned topic. It can never shrink."""
        self.json("POST", f"{_topic(topic)}/partitions", partitions)

    def partition_names(self, topic: str) -> list[str]:
        """Return the names of all partitions; of a topic that has none, its own."""
        name = TopicName.parse(topic)
        count = 0 if name.partition >= 0 else self.partitions(topic)
        return [str(name.partition_name(i)) for i in range(count)] or [str(name)]

    def stats(self, topic: str, *, earliest_in_backlog: bool = False) -> Json:
        """Return Pulsar's topic statistics; those of a partitioned topic are sums."""
        query = {"getPreciseBacklog": True, "subscriptionBacklogSize": True}
        if earliest_in_backlog:
            query["getEarliestTimeInBacklog"] = True
        try:
            return self.json("GET", f"{_topic(topic)}/stats", query=query)
        except AdminError as error:
            if error.status not in {404, 405, 412} or not self.partitions(topic):
                raise
            return self.partitioned_stats(topic)

    def partitioned_stats(self, topic: str, *, per_partition: bool = False) -> Json:
        query = {"perPartition": per_partition, "getPreciseBacklog": True}
        return self.json("GET", f"{_topic(topic)}/partitioned-stats", query=query)

    def internal_stats(self, topic: str) -> Json:
        """Return the ledgers and cursors of one topic or partition."""
        return self.json("GET", f"{_topic(topic)}/internalStats")

    def lookup(self, topic: str) -> Location:
        """Return who serves a topic."""
        name = TopicName.parse(topic)
        path = f"/lookup/v2/topic/{_topic_path(name)}"
        answer = self.json("GET", path)
        return Location(
            answer.get("brokerUrl") or "",
            answer.get("httpUrl") or "",
            answer.get("brokerUrlTls") or "",
            answer.get("httpUrlTls") or "",
        )

    def last_message_id(self, topic: str) -> MessageId:
        """Return where the last entry of one topic or partition lies; -1:-1 if it is empty."""
        return message_id_of(self.json("GET", f"{_topic(topic)}/lastMessageId"))

    def message_id_at(self, topic: str, time_ms: int) -> MessageId:
        """Return the first entry published at or after a time (ms since 1970)."""
        return message_id_of(self.json("GET", f"{_topic(topic)}/messageid/{time_ms}"))

    def backlog_size(self, topic: str, after: MessageId) -> int:
        """Return how many bytes lie after an entry."""
        return int(self.json("PUT", f"{_topic(topic)}/backlogSize", position_json(after)))

    def terminate(self, topic: str) -> MessageId:
        """Close a topic for good; it can still be read. Returns its last entry."""
        return message_id_of(self.json("POST", f"{_topic(topic)}/terminate"))

    def terminate_partitions(self, topic: str) -> dict[int, MessageId]:
        """Close every partition for good; return the last entry of each."""
        told = self.json("POST", f"{_topic(topic)}/terminate/partitions")
        return {int(index): message_id_of(each) for index, each in told.items()}

    def create_missed_partitions(self, topic: str) -> None:
        """Make the partitions of a partitioned topic anew that are missing."""
        self.json("POST", f"{_topic(topic)}/createMissedPartitions")

    def topic_properties(self, topic: str) -> dict[str, str]:
        return dict(self.json("GET", f"{_topic(topic)}/properties") or {})

    def set_topic_properties(self, topic: str, properties: Mapping[str, str]) -> None:
        """Add properties to a topic, or change them."""
        self.json("PUT", f"{_topic(topic)}/properties", dict(properties))

    def compact(self, topic: str) -> None:
        """Begin to compact a topic, all its partitions."""
        self.json("PUT", f"{_topic(topic)}/compaction")

    def compaction(self, topic: str) -> tuple[str, str]:
        """Return how compaction goes (NOT_RUN, RUNNING, SUCCESS or ERROR), and what went wrong."""
        answer = self.json("GET", f"{_topic(topic)}/compaction")
        return str(answer.get("status") or ""), str(answer.get("lastError") or "")

    def trim(self, topic: str) -> None:
        """Drop now what everybody has acknowledged and retention lets go."""
        self.json("POST", f"{_topic(topic)}/trim")

    def truncate(self, topic: str) -> None:
        """Acknowledge everything for everybody, and drop it but for what is being written."""
        self.json("DELETE", f"{_topic(topic)}/truncate")

    def message_id_by_index(self, topic: str, index: int) -> MessageId:
        """Return the entry that holds the n-th message of a topic; the first is 0."""
        query = {"index": index}
        return message_id_of(self.json("GET", f"{_topic(topic)}/getMessageIdByIndex", query=query))

    def unload(self, topic: str) -> None:
        """Close all clients and forget the topic's memory; the next client loads it again."""
        self.json("PUT", f"{_topic(topic)}/unload")

    # --- permissions --------------------------------------------------------------------------

    def permissions(self, where: str) -> dict[str, list[str]]:
        """Return which roles may do what on a namespace (`tenant/namespace`) or a topic."""
        return dict(self.json("GET", f"{_place(where)}/permissions") or {})

    def grant(self, where: str, role: str, actions: Sequence[str]) -> None:
        """Let a role do exactly this on a namespace or a topic, such as `produce`."""
        self.json("POST", f"{_place(where)}/permissions/{_quoted(role)}", list(actions))

    def revoke(self, where: str, role: str) -> None:
        """Take back what a role was granted on a namespace or a topic."""
        self.json("DELETE", f"{_place(where)}/permissions/{_quoted(role)}")

    # --- settings of the broker ---------------------------------------------------------------

    def settings(self, *, changed: bool = False) -> dict[str, str]:
        """Return the settings that may change while the broker runs, as they are.

        Args:
            changed: Only those that were changed since the start.
        """
        which = "values" if changed else "runtime"
        return dict(self.json("GET", f"/admin/v2/brokers/configuration/{which}") or {})

    def set_setting(self, name: str, value: str, *, operator: bool = False) -> None:
        """Change a setting of the running broker, for good and in all its processes.

        Args:
            name: The setting.
            value: Its new value.
            operator: On behalf of a program that runs the broker, which is held to small steps.
                What people set is kept below it. Pulsar knows no such thing.
        """
        path = f"/admin/v2/brokers/configuration/{_quoted(name)}/{_quoted(value)}"
        self.json("POST", path, query=_by(operator=operator))

    def unset_setting(self, name: str, *, operator: bool = False) -> None:
        """Let what the broker was started with hold again; or what people set, see above."""
        path = f"/admin/v2/brokers/configuration/{_quoted(name)}"
        self.json("DELETE", path, query=_by(operator=operator))

    def knobs(self) -> list[dict[str, Any]]:
        """Return all live settings of a Magnetar broker, with everything known of each."""
        return list(self.json("GET", "/admin/v2/brokers/configuration/knobs") or [])

    def knob(self, name: str) -> dict[str, Any]:
        """Return one of them."""
        return dict(self.json("GET", f"/admin/v2/brokers/configuration/knobs/{_quoted(name)}"))

    def hand_back(self) -> None:
        """Let everything that people set hold again: forget what an operator set."""
        self.json("DELETE", "/admin/v2/brokers/configuration", query=_by(operator=True))

    # --- subscriptions ----------------------------------------------------------------------

    def subscriptions(self, topic: str) -> list[str]:
        return _strings(self.json("GET", f"{_topic(topic)}/subscriptions"))

    def create_subscription(
        self, topic: str, subscription: str, start: str | MessageId = "latest"
    ) -> None:
        """Create a subscription; on a partitioned topic, on every partition.

        Args:
            topic: The topic.
            subscription: Its name.
            start: `earliest`, `latest`, or the first entry to deliver.
        """
        body = start if isinstance(start, str) else position_json(start)
        self.json("PUT", _subscription(topic, subscription), body)

    def delete_subscription(self, topic: str, subscription: str, *, force: bool = False) -> None:
        self.json("DELETE", _subscription(topic, subscription), query={"force": force})

    def skip(self, topic: str, subscription: str, count: int) -> None:
        """Acknowledge the next `count` messages."""
        self.json("POST", f"{_subscription(topic, subscription)}/skip/{count}")

    def clear(self, topic: str, subscription: str) -> None:
        """Acknowledge everything published so far."""
        self.json("POST", f"{_subscription(topic, subscription)}/skip_all")

    def expire(self, topic: str, subscription: str, seconds: int) -> None:
        """Acknowledge everything older than `seconds`."""
        self.json("POST", f"{_subscription(topic, subscription)}/expireMessages/{seconds}")

    def analyze(self, topic: str, subscription: str) -> Json:
        """Count a backlog entry by entry. `aborted` says that it was too long to be counted."""
        return self.json("GET", f"{_subscription(topic, subscription)}/analyzeBacklog")

    def subscription_properties(self, topic: str, subscription: str) -> dict[str, str]:
        return dict(self.json("GET", f"{_subscription(topic, subscription)}/properties") or {})

    def set_subscription_properties(
        self, topic: str, subscription: str, properties: Mapping[str, str]
    ) -> None:
        """Replace what is noted about a subscription."""
        self.json("PUT", f"{_subscription(topic, subscription)}/properties", dict(properties))

    def reset(self, topic: str, subscription: str, to: MessageId | int) -> None:
        """Move a subscription to an entry (inclusive) or to a time (ms since 1970).

        Its consumers are disconnected and come back by themselves.
        """
        path = f"{_subscription(topic, subscription)}/resetcursor"
        if isinstance(to, MessageId):
            self.json("POST", path, position_json(to))
        else:
            self.json("POST", f"{path}/{to}")

    # --- messages ---------------------------------------------------------------------------

    def peek(self, topic: str, subscription: str, count: int = 1) -> list[Message]:
        """Return the messages of the next `count` entries of a backlog, acknowledging nothing.

        One entry can hold many messages, so the list can be longer than `count`.
        """
        path = f"{_subscription(topic, subscription)}/position"
        found: list[Message] = []
        for position in range(1, count + 1):
            try:
                found += self._messages(f"{path}/{position}", topic)
            except AdminError as error:
                if error.status == 404 and position > 1:
                    break
                raise
        return found

    def examine(self, topic: str, position: int = 1, *, start: str = "earliest") -> list[Message]:
        """Return the messages of one entry, also of one that is acknowledged already.

        Args:
            topic: One topic or partition.
            position: 1 is the first entry from `start`.
            start: Count from the `earliest` entry onwards or from the `latest` one backwards.
        """
        query = {"initialPosition": start, "messagePosition": position}
        return self._messages(f"{_topic(topic)}/examinemessage", topic, query)

    def entry(self, topic: str, ledger: int, entry: int) -> list[Message]:
        """Return the messages of the entry at a known place."""
        return self._messages(f"{_topic(topic)}/ledger/{ledger}/entry/{entry}", topic)

    def _messages(
        self, path: str, topic: str, query: Mapping[str, object] | None = None
    ) -> list[Message]:
        answer = self.json("GET", path, query={**(query or {}), "format": "json"})
        partition = TopicName.parse(topic).partition
        return [message_of(each, partition) for each in answer["messages"]]

    # --- schemas ----------------------------------------------------------------------------

    def schema(self, topic: str, version: int | None = None) -> Json:
        """Return a topic's schema: type, definition (`data`), properties; None: the latest."""
        tail = "" if version is None else f"/{version}"
        return self.json("GET", f"{_schemas(topic)}/schema{tail}")

    def schemas(self, topic: str) -> list[Json]:
        """Return all versions of a topic's schema, the oldest first."""
        return list(self.json("GET", f"{_schemas(topic)}/schemas")["getSchemaResponses"])

    def add_schema(
        self, topic: str, kind: str, definition: str, properties: Mapping[str, str] | None = None
    ) -> int:
        """Return the version of a schema, which is added if the topic has it not.

        Args:
            topic: It need not be there yet.
            kind: Pulsar's name of the type, such as AVRO, JSON or STRING.
            definition: Empty for types that have none.
            properties: Anything; for KEY_VALUE, the types of both parts.
        """
        body = _schema(kind, definition, properties)
        return int(self.json("POST", f"{_schemas(topic)}/schema", body)["version"])

    def schema_compatibility(
        self, topic: str, kind: str, definition: str, properties: Mapping[str, str] | None = None
    ) -> tuple[bool, str]:
        """Return whether a schema could be added, and the strategy that decides that."""
        body = _schema(kind, definition, properties)
        answer = self.json("POST", f"{_schemas(topic)}/compatibility", body)
        return bool(answer["compatibility"]), str(answer["schemaCompatibilityStrategy"])

    def delete_schema(self, topic: str, *, force: bool = False) -> int:
        """Delete a topic's schema; `force`: and forget that there was one. Return its number."""
        answer = self.json("DELETE", f"{_schemas(topic)}/schema", query={"force": force})
        return int(answer["version"])


def _quoted(part: str) -> str:
    return quote(part, safe="")


def _namespace(namespace: str) -> str:
    name = NamespaceName.parse(namespace)
    return f"/admin/v2/namespaces/{_quoted(name.tenant)}/{_quoted(name.namespace)}"


def _place(where: str) -> str:
    """Return the path of a namespace, or of a topic, which has one slash more or a domain."""
    is_namespace = where.count("/") == 1
    return _namespace(where) if is_namespace else _topic(where)


def _topic_path(name: TopicName) -> str:
    return "/".join((name.domain.value, *map(_quoted, (name.tenant, name.namespace, name.local))))


def _topic(topic: str) -> str:
    return f"/admin/v2/{_topic_path(TopicName.parse(topic))}"


def _schemas(topic: str) -> str:
    return f"/admin/v2/schemas/{_topic_path(TopicName.parse(topic)).partition('/')[2]}"


def _schema(kind: str, definition: str, properties: Mapping[str, str] | None) -> Json:
    return {"type": kind, "schema": definition, "properties": dict(properties or {})}


def _subscription(topic: str, subscription: str) -> str:
    return f"{_topic(topic)}/subscription/{_quoted(check_subscription(subscription))}"


def _strings(answer: Json) -> list[str]:
    return [str(each) for each in answer or ()]


def _by(*, operator: bool) -> dict[str, str]:
    return {"by": "operator"} if operator else {}
