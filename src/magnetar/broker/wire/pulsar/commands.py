"""What a broker says to a client: one function per command, arguments in, one frame out.

SEND_RECEIPT and MESSAGE come in thousands and are written by `replies` instead. A request's
answer carries its `request_id`; the broker's own initiative carries `NO_REQUEST`. Ledger and
entry ids may be negative here: -1 is "none" and travels as 64 one bits.
Source: the Pulsar binary protocol specification, fields by number in PulsarApi.proto.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from crc32c import crc32c

from magnetar.broker.entry import EntryId, TransactionId
from magnetar.broker.wire.pulsar.fields import signed
from magnetar.broker.wire.pulsar.frames import MESSAGE_BYTES_MAX, encode_command
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api

PROTOCOL_VERSION = 21
"""The highest version this broker speaks; it answers with the lower of this and the client's."""

NO_REQUEST = 2**64 - 1
"""The request id of a command that answers no request."""

_U64_MASK = 2**64 - 1
_NO_PROPERTIES: Mapping[str, str] = {}


# --- connection --------------------------------------------------------------------------


def connected(
    server_version: str,
    client_protocol_version: int,
    message_bytes_max: int = MESSAGE_BYTES_MAX,
    *,
    entry_metadata: bool = False,
) -> bytes:
    """Accept a CONNECT, and say what this broker can do.

    Clients hang up when the server version is empty.
    """
    command = api.BaseCommand(type=api.BaseCommand.CONNECTED)
    command.connected.server_version = server_version
    command.connected.protocol_version = min(client_protocol_version, PROTOCOL_VERSION)
    command.connected.max_message_size = message_bytes_max
    flags = command.connected.feature_flags
    flags.supports_auth_refresh = True
    flags.supports_broker_entry_metadata = entry_metadata
    flags.supports_partial_producer = True
    flags.supports_topic_watchers = True
    flags.supports_topic_watcher_reconcile = True
    flags.supports_get_partitioned_metadata_without_auto_creation = True
    flags.supports_scalable_topics = False
    return encode_command(command)


def auth_challenge(
    server_version: str, client_protocol_version: int, method: str, data: bytes
) -> bytes:
    """Ask for credentials, or for fresh ones."""
    command = api.BaseCommand(type=api.BaseCommand.AUTH_CHALLENGE)
    command.authChallenge.server_version = server_version
    command.authChallenge.protocol_version = min(client_protocol_version, PROTOCOL_VERSION)
    command.authChallenge.challenge.auth_method_name = method
    command.authChallenge.challenge.auth_data = data
    return encode_command(command)


def ping() -> bytes:
    """Ask whether the client is there."""
    return _PING


def pong() -> bytes:
    """Answer a PING."""
    return _PONG


def success(request_id: int) -> bytes:
    """Say that a request was done."""
    command = api.BaseCommand(type=api.BaseCommand.SUCCESS)
    command.success.request_id = request_id
    return encode_command(command)


def error(request_id: int, code: api.ServerError, message: str) -> bytes:
    """Refuse a request; or, with `NO_REQUEST`, the connection."""
    command = api.BaseCommand(type=api.BaseCommand.ERROR)
    command.error.request_id = request_id
    command.error.error = code
    command.error.message = message
    return encode_command(command)


# --- lookup ------------------------------------------------------------------------------


def partitions(request_id: int, count: int) -> bytes:
    """Say how many partitions a topic has; 0: it is not partitioned."""
    command = api.BaseCommand(type=api.BaseCommand.PARTITIONED_METADATA_RESPONSE)
    response = command.partitionMetadataResponse
    response.request_id = request_id
    response.response = api.CommandPartitionedTopicMetadataResponse.Success
    response.partitions = count
    return encode_command(command)


def partitions_failed(request_id: int, code: api.ServerError, message: str) -> bytes:
    """Refuse to say how many partitions a topic has."""
    command = api.BaseCommand(type=api.BaseCommand.PARTITIONED_METADATA_RESPONSE)
    response = command.partitionMetadataResponse
    response.request_id = request_id
    response.response = api.CommandPartitionedTopicMetadataResponse.Failed
    response.error = code
    response.message = message
    return encode_command(command)


def lookup_connect(
    request_id: int, url: str, *, url_tls: str = "", proxy_through_service_url: bool = False
) -> bytes:
    """Say that the broker at `url` serves the topic.

    With `proxy_through_service_url` the client stays with the address it came by.
    """
    command = api.BaseCommand(type=api.BaseCommand.LOOKUP_RESPONSE)
    response = command.lookupTopicResponse
    response.request_id = request_id
    response.response = api.CommandLookupTopicResponse.Connect
    response.authoritative = True
    response.brokerServiceUrl = url
    if url_tls:
        response.brokerServiceUrlTls = url_tls
    response.proxy_through_service_url = proxy_through_service_url
    return encode_command(command)


def lookup_failed(request_id: int, code: api.ServerError, message: str) -> bytes:
    """Refuse to say where a topic is served."""
    command = api.BaseCommand(type=api.BaseCommand.LOOKUP_RESPONSE)
    response = command.lookupTopicResponse
    response.request_id = request_id
    response.response = api.CommandLookupTopicResponse.Failed
    response.error = code
    response.message = message
    return encode_command(command)


def topics_of_namespace(
    request_id: int, topics: Sequence[str], *, client_hash: str = "", filtered: bool = False
) -> bytes:
    """List the topics of a namespace, by full names.

    A client that sent the hash of the list it has gets no list when nothing changed.
    """
    command = api.BaseCommand(type=api.BaseCommand.GET_TOPICS_OF_NAMESPACE_RESPONSE)
    response = command.getTopicsOfNamespaceResponse
    response.request_id = request_id
    response.topics_hash = topics_hash(topics)
    response.changed = response.topics_hash != client_hash
    response.filtered = filtered
    if response.changed:
        response.topics.extend(topics)
    return encode_command(command)


def topic_list(request_id: int, watcher_id: int, topics: Iterable[str], current_hash: str) -> bytes:
    """Say that a watcher was made, and which topics there are that it did not know of."""
    command = api.BaseCommand(type=api.BaseCommand.WATCH_TOPIC_LIST_SUCCESS)
    response = command.watchTopicListSuccess
    response.request_id = request_id
    response.watcher_id = watcher_id
    response.topic.extend(topics)
    response.topics_hash = current_hash
    return encode_command(command)


def topic_update(
    watcher_id: int, new: Iterable[str], deleted: Iterable[str], current_hash: str
) -> bytes:
    """Tell a watcher which topics came and went."""
    command = api.BaseCommand(type=api.BaseCommand.WATCH_TOPIC_UPDATE)
    update = command.watchTopicUpdate
    update.watcher_id = watcher_id
    update.new_topics.extend(new)
    update.deleted_topics.extend(deleted)
    update.topics_hash = current_hash
    return encode_command(command)


def topics_hash(topics: Iterable[str]) -> str:
    """Return the hash by which client and broker compare lists of topics.

    CRC32-C over the sorted names with commas between, as eight hex digits in little-endian
    byte order, which is how Guava prints it.
    """
    checksum = crc32c(",".join(sorted(topics)).encode())
    return checksum.to_bytes(4, "little").hex()


# --- producers ---------------------------------------------------------------------------


def producer_success(  # noqa: PLR0913 - the command has these fields
    request_id: int,
    name: str,
    *,
    last_sequence_id: int = -1,
    topic_epoch: int | None = None,
    ready: bool = True,
    schema_version: bytes = b"",
) -> bytes:
    """Say that a producer is open, or, not `ready`, that it waits for exclusive access."""
    command = api.BaseCommand(type=api.BaseCommand.PRODUCER_SUCCESS)
    response = command.producer_success
    response.request_id = request_id
    response.producer_name = name
    response.last_sequence_id = last_sequence_id
    response.schema_version = schema_version
    if topic_epoch is not None:
        response.topic_epoch = topic_epoch
    response.producer_ready = ready
    return encode_command(command)


def send_error(producer_id: int, sequence_id: int, code: api.ServerError, message: str) -> bytes:
    """Refuse a SEND."""
    command = api.BaseCommand(type=api.BaseCommand.SEND_ERROR)
    command.send_error.producer_id = producer_id
    command.send_error.sequence_id = sequence_id & _U64_MASK
    command.send_error.error = code
    command.send_error.message = message
    return encode_command(command)


def close_producer(
    producer_id: int, *, assigned_url: str = "", assigned_url_tls: str = ""
) -> bytes:
    """End a producer. The client looks the topic up again, or goes straight to `assigned_url`."""
    command = api.BaseCommand(type=api.BaseCommand.CLOSE_PRODUCER)
    command.close_producer.producer_id = producer_id
    command.close_producer.request_id = NO_REQUEST
    if assigned_url:
        command.close_producer.assignedBrokerServiceUrl = assigned_url
    if assigned_url_tls:
        command.close_producer.assignedBrokerServiceUrlTls = assigned_url_tls
    return encode_command(command)


# --- consumers ---------------------------------------------------------------------------


def close_consumer(
    consumer_id: int, *, assigned_url: str = "", assigned_url_tls: str = ""
) -> bytes:
    """End a consumer. The client looks the topic up again, or goes straight to `assigned_url`."""
    command = api.BaseCommand(type=api.BaseCommand.CLOSE_CONSUMER)
    command.close_consumer.consumer_id = consumer_id
    command.close_consumer.request_id = NO_REQUEST
    if assigned_url:
        command.close_consumer.assignedBrokerServiceUrl = assigned_url
    if assigned_url_tls:
        command.close_consumer.assignedBrokerServiceUrlTls = assigned_url_tls
    return encode_command(command)


def active_consumer_change(consumer_id: int, *, active: bool) -> bytes:
    """Tell a Failover or Exclusive consumer whether it is the one served."""
    command = api.BaseCommand(type=api.BaseCommand.ACTIVE_CONSUMER_CHANGE)
    command.active_consumer_change.consumer_id = consumer_id
    command.active_consumer_change.is_active = active
    return encode_command(command)


def reached_end_of_topic(consumer_id: int) -> bytes:
    """Tell a consumer that it has had everything and nothing will follow."""
    command = api.BaseCommand(type=api.BaseCommand.REACHED_END_OF_TOPIC)
    command.reachedEndOfTopic.consumer_id = consumer_id
    return encode_command(command)


def ack_response(
    consumer_id: int,
    request_id: int,
    code: api.ServerError | None = None,
    message: str = "",
    transaction: TransactionId | None = None,
) -> bytes:
    """Answer an ACK that asked for an answer; with a code, refuse it."""
    command = api.BaseCommand(type=api.BaseCommand.ACK_RESPONSE)
    if transaction is not None:
        command.ackResponse.txnid_most_bits = transaction.most
        command.ackResponse.txnid_least_bits = transaction.least
    command.ackResponse.consumer_id = consumer_id
    command.ackResponse.request_id = request_id
    if code is not None:
        command.ackResponse.error = code
        command.ackResponse.message = message
    return encode_command(command)


def last_message_id(
    request_id: int,
    last: EntryId,
    mark_delete: EntryId,
    *,
    partition: int = -1,
    batch_size: int = 0,
) -> bytes:
    """Say where a topic ends and how far the subscription is.

    `batch_size` is the number of messages in the last entry if that is a batch, else 0.
    """
    command = api.BaseCommand(type=api.BaseCommand.GET_LAST_MESSAGE_ID_RESPONSE)
    response = command.getLastMessageIdResponse
    response.request_id = request_id
    fill_message_id(response.last_message_id, last, partition)
    if batch_size:
        response.last_message_id.batch_index = batch_size - 1
        response.last_message_id.batch_size = batch_size
    fill_message_id(response.consumer_mark_delete_position, mark_delete, partition)
    return encode_command(command)


def consumer_stats(  # noqa: PLR0913 - the command has these fields
    request_id: int,
    *,
    name: str,
    type_name: str,
    permits: int,
    unacked: int,
    blocked: bool,
    backlog: int,
    message_rate: float,
    byte_rate: float,
    redelivery_rate: float,
    ack_rate: float,
    expired_rate: float,
    address: str,
    connected_since: str,
) -> bytes:
    """Report a consumer's figures; rates are per second."""
    command = api.BaseCommand(type=api.BaseCommand.CONSUMER_STATS_RESPONSE)
    response = command.consumerStatsResponse
    response.request_id = request_id
    response.consumerName = name
    response.type = type_name
    response.availablePermits = max(permits, 0)
    response.unackedMessages = unacked
    response.blockedConsumerOnUnackedMsgs = blocked
    response.msgBacklog = backlog
    response.msgRateOut = message_rate
    response.msgThroughputOut = byte_rate
    response.msgRateRedeliver = redelivery_rate
    response.messageAckRate = ack_rate
    response.msgRateExpired = expired_rate
    response.address = address
    response.connectedSince = connected_since
    return encode_command(command)


def consumer_stats_failed(request_id: int, code: api.ServerError, message: str) -> bytes:
    """Refuse to report a consumer's figures."""
    command = api.BaseCommand(type=api.BaseCommand.CONSUMER_STATS_RESPONSE)
    command.consumerStatsResponse.request_id = request_id
    command.consumerStatsResponse.error_code = code
    command.consumerStatsResponse.error_message = message
    return encode_command(command)


# --- schemas -----------------------------------------------------------------------------


def schema(  # noqa: PLR0913 - the command has these fields
    request_id: int,
    *,
    name: str,
    kind: api.Schema.Type,
    data: bytes,
    version: bytes,
    properties: Mapping[str, str] = _NO_PROPERTIES,
) -> bytes:
    """Hand out a topic's schema. Versions are eight bytes, big-endian."""
    command = api.BaseCommand(type=api.BaseCommand.GET_SCHEMA_RESPONSE)
    response = command.getSchemaResponse
    response.request_id = request_id
    response.schema.name = name
    response.schema.type = kind
    response.schema.schema_data = data
    for key, value in properties.items():
        response.schema.properties.add(key=key, value=value)
    response.schema_version = version
    return encode_command(command)


def schema_failed(request_id: int, code: api.ServerError, message: str) -> bytes:
    """Say that there is no such schema; `TopicNotFound` is what clients expect then."""
    command = api.BaseCommand(type=api.BaseCommand.GET_SCHEMA_RESPONSE)
    command.getSchemaResponse.request_id = request_id
    command.getSchemaResponse.error_code = code
    command.getSchemaResponse.error_message = message
    return encode_command(command)


def schema_created(request_id: int, version: bytes) -> bytes:
    """Say under which version a schema is known."""
    command = api.BaseCommand(type=api.BaseCommand.GET_OR_CREATE_SCHEMA_RESPONSE)
    command.getOrCreateSchemaResponse.request_id = request_id
    command.getOrCreateSchemaResponse.schema_version = version
    return encode_command(command)


def schema_refused(request_id: int, code: api.ServerError, message: str) -> bytes:
    """Refuse a schema."""
    command = api.BaseCommand(type=api.BaseCommand.GET_OR_CREATE_SCHEMA_RESPONSE)
    command.getOrCreateSchemaResponse.request_id = request_id
    command.getOrCreateSchemaResponse.error_code = code
    command.getOrCreateSchemaResponse.error_message = message
    return encode_command(command)


# --- message ids -------------------------------------------------------------------------


def fill_message_id(target: api.MessageIdData, entry: EntryId, partition: int = -1) -> None:
    """Write an entry id into a message. `EARLIEST` travels as all ones."""
    target.ledgerId = entry.ledger & _U64_MASK
    target.entryId = entry.entry & _U64_MASK
    if partition != -1:
        target.partition = partition


def entry_id(source: api.MessageIdData) -> EntryId:
    """Read an entry id; all ones is `EARLIEST`."""
    return EntryId(signed(source.ledgerId), signed(source.entryId))


_PING = encode_command(api.BaseCommand(type=api.BaseCommand.PING, ping=api.CommandPing()))
_PONG = encode_command(api.BaseCommand(type=api.BaseCommand.PONG, pong=api.CommandPong()))


# --- transactions ------------------------------------------------------------------------


def coordinator_connected(request_id: int) -> bytes:
    """Say that a transaction coordinator is served here."""
    command = api.BaseCommand(type=api.BaseCommand.TC_CLIENT_CONNECT_RESPONSE)
    command.tcClientConnectResponse.request_id = request_id
    return encode_command(command)


def coordinator_refused(request_id: int, code: api.ServerError, message: str) -> bytes:
    """Say that a transaction coordinator is not served here."""
    command = api.BaseCommand(type=api.BaseCommand.TC_CLIENT_CONNECT_RESPONSE)
    response = command.tcClientConnectResponse
    response.request_id, response.error, response.message = request_id, code, message
    return encode_command(command)


TRANSACTION_RESPONSES: Mapping[int, str] = {
    api.BaseCommand.NEW_TXN_RESPONSE: "newTxnResponse",
    api.BaseCommand.ADD_PARTITION_TO_TXN_RESPONSE: "addPartitionToTxnResponse",
    api.BaseCommand.ADD_SUBSCRIPTION_TO_TXN_RESPONSE: "addSubscriptionToTxnResponse",
    api.BaseCommand.END_TXN_RESPONSE: "endTxnResponse",
    api.BaseCommand.END_TXN_ON_PARTITION_RESPONSE: "endTxnOnPartitionResponse",
    api.BaseCommand.END_TXN_ON_SUBSCRIPTION_RESPONSE: "endTxnOnSubscriptionResponse",
}
"""The answers to commands about a transaction, which all have the same fields."""


def transaction_answer(
    kind: api.BaseCommand.Type, request_id: int, transaction: TransactionId
) -> bytes:
    """Say that a command about a transaction was done."""
    command, response = _transaction_answer(kind, request_id, transaction)
    del response
    return encode_command(command)


def transaction_refused(
    kind: api.BaseCommand.Type,
    request_id: int,
    transaction: TransactionId,
    code: api.ServerError,
    message: str,
) -> bytes:
    """Refuse a command about a transaction."""
    command, response = _transaction_answer(kind, request_id, transaction)
    response.error, response.message = code, message
    return encode_command(command)


def _transaction_answer(
    kind: api.BaseCommand.Type, request_id: int, transaction: TransactionId
) -> tuple[api.BaseCommand, Any]:
    command = api.BaseCommand(type=kind)
    response = getattr(command, TRANSACTION_RESPONSES[kind])
    response.request_id = request_id
    response.txnid_most_bits, response.txnid_least_bits = transaction
    return command, response
