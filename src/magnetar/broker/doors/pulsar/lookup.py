"""Questions about topics: partitions, owners, the list of a namespace.

    PARTITIONED_METADATA ──▶ Port.partitions      creates the topic, unless the client says no
    LOOKUP               ──▶ Port.locate          always Connect: this broker never redirects
    GET_TOPICS_OF_NAMESPACE ──▶ Port.topics ──▶ pattern ──▶ hash

Each answer has its own way to say no. Source: the Pulsar binary protocol, "Topic lookup".
"""

from functools import partial

from magnetar.broker.clock import Clock
from magnetar.broker.doors.pattern import Pattern, PatternError, matching
from magnetar.broker.doors.pulsar.requests import Line, Requests
from magnetar.broker.metrics import Metrics
from magnetar.broker.port import ListMode, MetadataError, NamespaceNotFoundError, Port, Transactions
from magnetar.broker.wire.pulsar import commands
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.names import COORDINATORS_TOPIC, NamespaceName, TopicName


def compiled(pattern: str) -> Pattern:
    """Return a pattern of topics, ready for use. A domain in front of it is left out.

    Raises:
        MetadataError: the pattern is no regular expression.
    """
    try:
        return Pattern(pattern.rpartition("://")[2])
    except PatternError as error:
        raise MetadataError(f"topic pattern {pattern!r}: {error}") from error


class Lookups:
    """What every connection of a door counts about look-ups."""

    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        self.pending = 0
        self.now_s = clock.monotonic
        self.took = metrics.latencies("magnetar_lookup_seconds", "How long look-ups took.")
        metrics.summary("pulsar_broker_lookup", "How long look-ups took, ms.", self.took)
        metrics.gauge(
            "pulsar_broker_lookup_pending_requests",
            "Look-ups not answered yet.",
            lambda: self.pending,
        )
        self.answers = metrics.counter("pulsar_broker_lookup_answers_total", "Look-ups answered.")
        self.failures = metrics.counter("pulsar_broker_lookup_failures_total", "Look-ups refused.")


class Lookup:
    """Answers one connection's questions about topics."""

    __slots__ = (
        "_line",
        "_lookups",
        "_port",
        "_requests",
        "_transactions",
    )

    def __init__(
        self,
        line: Line,
        requests: Requests,
        port: Port,
        lookups: Lookups,
        transactions: Transactions | None = None,
    ) -> None:
        self._transactions = transactions
        self._line = line
        self._requests = requests
        self._port = port
        self._lookups = lookups

    def partitions(self, command: api.CommandPartitionedTopicMetadata) -> None:
        """Answer PARTITIONED_METADATA."""
        refuse = partial(commands.partitions_failed, command.request_id)
        self._requests.start(self._partitions(command), refuse)

    async def _partitions(self, command: api.CommandPartitionedTopicMetadata) -> bytes:
        topic = TopicName.parse(command.topic)
        if topic == COORDINATORS_TOPIC and self._transactions is not None:
            return commands.partitions(command.request_id, await self._transactions.coordinators())
        create = command.metadata_auto_creation_enabled
        return commands.partitions(
            command.request_id, await self._port.partitions(topic, create=create)
        )

    def locate(self, command: api.CommandLookupTopic) -> None:
        """Answer LOOKUP."""
        refuse = partial(commands.lookup_failed, command.request_id)
        self._requests.start(self._locate(command), refuse)

    async def _locate(self, command: api.CommandLookupTopic) -> bytes:
        self._lookups.pending += 1
        begun_s = self._lookups.now_s()
        try:
            topic = TopicName.parse(command.topic)
            location = await self._port.locate(topic, command.advertised_listener_name or None)
        except BaseException:
            self._lookups.failures.value += 1
            raise
        finally:
            self._lookups.pending -= 1
        self._lookups.answers.value += 1
        self._lookups.took.record(self._lookups.now_s() - begun_s)
        return commands.lookup_connect(command.request_id, location.url, url_tls=location.url_tls)

    def topics(self, command: api.CommandGetTopicsOfNamespace) -> None:
        """Answer GET_TOPICS_OF_NAMESPACE."""
        refuse = partial(commands.error, command.request_id)
        self._requests.start(self._topics(command), refuse)

    async def _topics(self, command: api.CommandGetTopicsOfNamespace) -> bytes:
        namespace = NamespaceName.parse(command.namespace)
        try:
            names = await self._port.topics(namespace, ListMode(command.mode))
        except NamespaceNotFoundError:
            names = []  # as in Pulsar: who may ask learns that there are none
        if command.topics_pattern:
            names = await matching(names, compiled(command.topics_pattern))
        return commands.topics_of_namespace(
            command.request_id,
            names,
            client_hash=command.topics_hash,
            filtered=bool(command.topics_pattern),
        )
