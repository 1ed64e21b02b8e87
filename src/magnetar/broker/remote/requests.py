"""What a door asked of the port, as the commands that a sibling's door makes the same of again.

    ProducerRequest  ──▶ PRODUCER          Acknowledged *  ──▶ ACK *
    SubscribeRequest ──▶ SUBSCRIBE         seek            ──▶ SEEK

Field by field the inverse of how a Pulsar door reads them. Long lists become several
commands, because a command has a largest size.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from magnetar.broker.entry import EntryId, TransactionId
from magnetar.broker.port import (
    AccessMode,
    Acknowledged,
    ConsumerStats,
    KeyShared,
    ProducerRequest,
    Schema,
    SubscribeRequest,
    SubscriptionType,
)
from magnetar.broker.wire.pulsar import client_role
from magnetar.broker.wire.pulsar.client_role import CALLER_KEY
from magnetar.broker.wire.pulsar.commands import fill_message_id
from magnetar.broker.wire.pulsar.frames import encode_command
from magnetar.broker.wire.pulsar.generated import PulsarApi_pb2 as api
from magnetar.names import TopicName

IDS_PER_COMMAND_MAX = 5_000
"""Message ids in one ACK or redelivery: some thirty bytes each."""

WORDS_PER_COMMAND_MAX = 50_000
"""Words of ack sets in one ACK: up to eleven bytes each."""

_TYPES = {
    SubscriptionType.EXCLUSIVE: api.CommandSubscribe.Exclusive,
    SubscriptionType.SHARED: api.CommandSubscribe.Shared,
    SubscriptionType.FAILOVER: api.CommandSubscribe.Failover,
    SubscriptionType.KEY_SHARED: api.CommandSubscribe.Key_Shared,
}
_ACCESS_MODES = {
    AccessMode.SHARED: api.Shared,
    AccessMode.EXCLUSIVE: api.Exclusive,
    AccessMode.WAIT_FOR_EXCLUSIVE: api.WaitForExclusive,
    AccessMode.EXCLUSIVE_WITH_FENCING: api.ExclusiveWithFencing,
}


def producer(request_id: int, producer_id: int, request: ProducerRequest) -> bytes:
    """Return PRODUCER."""
    command = api.BaseCommand(type=api.BaseCommand.PRODUCER)
    wanted = command.producer
    wanted.topic = str(request.topic)
    wanted.producer_id = producer_id
    wanted.request_id = request_id
    if request.name is not None:
        wanted.producer_name = request.name
    wanted.user_provided_producer_name = request.user_provided_name
    wanted.epoch = request.epoch
    wanted.producer_access_mode = _ACCESS_MODES[request.access_mode]
    if request.topic_epoch is not None:
        wanted.topic_epoch = request.topic_epoch
    wanted.encrypted = request.encrypted
    if request.initial_subscription is not None:
        wanted.initial_subscription_name = request.initial_subscription
    if request.schema is not None:
        _fill_schema(wanted.schema, request.schema)
    _fill_metadata(wanted.metadata, request)
    return encode_command(command)


def subscribe(request_id: int, consumer_id: int, request: SubscribeRequest) -> bytes:
    """Return SUBSCRIBE."""
    command = api.BaseCommand(type=api.BaseCommand.SUBSCRIBE)
    wanted = command.subscribe
    wanted.topic = str(request.topic)
    wanted.subscription = request.subscription
    wanted.subType = _TYPES[request.type]
    wanted.consumer_id = consumer_id
    wanted.request_id = request_id
    wanted.consumer_name = request.consumer_name
    wanted.priority_level = request.priority
    wanted.durable = request.durable
    wanted.initialPosition = (
        api.CommandSubscribe.Earliest if request.from_earliest else api.CommandSubscribe.Latest
    )
    if request.start is not None:
        fill_message_id(wanted.start_message_id, request.start)
        wanted.start_message_id.ack_set.extend(request.start_ack_set)
    wanted.start_message_rollback_duration_sec = request.rollback_seconds
    wanted.read_compacted = request.read_compacted
    wanted.force_topic_creation = request.create_topic
    if request.key_shared is not None:
        _fill_key_shared(wanted.keySharedMeta, request.key_shared)
    _fill(wanted.subscription_properties, request.properties)
    _fill_metadata(wanted.metadata, request)
    if request.epoch is not None:
        wanted.consumer_epoch = request.epoch
    if request.schema is not None:
        _fill_schema(wanted.schema, request.schema)
    return encode_command(command)


def acks(consumer_id: int, ids: Sequence[Acknowledged], *, cumulative: bool) -> Iterator[bytes]:
    """Yield the ACKs for some ids."""
    command, words = _ack(consumer_id, cumulative=cumulative), 0
    for each in ids:
        ack = command.ack
        if ack.message_id and (
            len(ack.message_id) >= IDS_PER_COMMAND_MAX
            or words + len(each.ack_set) > WORDS_PER_COMMAND_MAX
        ):
            yield encode_command(command)
            command, words = _ack(consumer_id, cumulative=cumulative), 0
        wanted = command.ack.message_id.add()
        fill_message_id(wanted, EntryId(each.ledger, each.entry))
        wanted.ack_set.extend(each.ack_set)
        words += len(each.ack_set)
    yield encode_command(command)


def acks_in(
    request_id: int,
    consumer_id: int,
    transaction: TransactionId,
    ids: Sequence[Acknowledged],
    *,
    cumulative: bool,
) -> bytes:
    """Return the ACK for some ids in a transaction."""
    command = _ack(consumer_id, cumulative=cumulative)
    ack = command.ack
    ack.request_id = request_id
    ack.txnid_most_bits, ack.txnid_least_bits = transaction
    for each in ids:
        wanted = ack.message_id.add()
        fill_message_id(wanted, EntryId(each.ledger, each.entry))
        wanted.ack_set.extend(each.ack_set)
    return encode_command(command)


def settle(request_id: int, topic: TopicName, transaction: TransactionId) -> bytes:
    """Return END_TXN_ON_PARTITION. What is decided, the owner of the topic looks up."""
    command = api.BaseCommand(type=api.BaseCommand.END_TXN_ON_PARTITION)
    wanted = command.endTxnOnPartition
    wanted.request_id, wanted.topic = request_id, str(topic)
    wanted.txnid_most_bits, wanted.txnid_least_bits = transaction
    return encode_command(command)


def settle_subscription(
    request_id: int, topic: TopicName, subscription: str, transaction: TransactionId
) -> bytes:
    """Return END_TXN_ON_SUBSCRIPTION."""
    command = api.BaseCommand(type=api.BaseCommand.END_TXN_ON_SUBSCRIPTION)
    wanted = command.endTxnOnSubscription
    wanted.request_id = request_id
    wanted.subscription.topic, wanted.subscription.subscription = str(topic), subscription
    wanted.txnid_most_bits, wanted.txnid_least_bits = transaction
    return encode_command(command)


def redeliveries(
    consumer_id: int, ids: Sequence[EntryId] | None, epoch: int | None
) -> Iterator[bytes]:
    """Yield the commands that ask for entries again; None: for everything."""
    if ids is None:
        yield client_role.redeliver(consumer_id, (), epoch)
        return
    for first in range(0, len(ids), IDS_PER_COMMAND_MAX):
        yield client_role.redeliver(consumer_id, ids[first : first + IDS_PER_COMMAND_MAX], epoch)


def seek(
    request_id: int,
    consumer_id: int,
    position: EntryId | None,
    ack_set: Sequence[int],
    time_ms: int | None,
) -> bytes:
    """Return SEEK."""
    command = api.BaseCommand(type=api.BaseCommand.SEEK)
    command.seek.consumer_id = consumer_id
    command.seek.request_id = request_id
    if position is not None:
        fill_message_id(command.seek.message_id, position)
        command.seek.message_id.ack_set.extend(ack_set)
    elif time_ms is not None:
        command.seek.message_publish_time = time_ms
    return encode_command(command)


def figures(
    answer: api.CommandConsumerStatsResponse, request: SubscribeRequest, connected_since_ms: int
) -> ConsumerStats:
    """Return a consumer's figures as its owner reports them, with the client's own address."""
    return ConsumerStats(
        name=answer.consumerName,
        type=request.type,
        permits=answer.availablePermits,
        unacked=answer.unackedMessages,
        blocked=answer.blockedConsumerOnUnackedMsgs,
        backlog=answer.msgBacklog,
        message_rate=answer.msgRateOut,
        byte_rate=answer.msgThroughputOut,
        redelivery_rate=answer.msgRateRedeliver,
        ack_rate=answer.messageAckRate,
        expired_rate=answer.msgRateExpired,
        address=request.client_address,
        connected_since_ms=connected_since_ms,
    )


def _ack(consumer_id: int, *, cumulative: bool) -> api.BaseCommand:
    command = api.BaseCommand(type=api.BaseCommand.ACK)
    command.ack.consumer_id = consumer_id
    command.ack.ack_type = api.CommandAck.Cumulative if cumulative else api.CommandAck.Individual
    return command


def _fill_key_shared(target: api.KeySharedMeta, wanted: KeyShared) -> None:
    target.keySharedMode = api.STICKY if wanted.sticky else api.AUTO_SPLIT
    target.allowOutOfOrderDelivery = wanted.allow_out_of_order
    for start, end in wanted.ranges:
        target.hashRanges.add(start=start, end=end)


def _fill_metadata(target: Any, request: ProducerRequest | SubscribeRequest) -> None:
    """Pass metadata on, and in whose name it is asked. What a client put there does not count."""
    _fill(target, {key: each for key, each in request.metadata.items() if key != CALLER_KEY})
    if request.caller:
        target.add(key=CALLER_KEY, value=request.caller)


def _fill_schema(target: api.Schema, schema: Schema) -> None:
    target.name = schema.name
    target.type = cast("api.Schema.Type", schema.type.value)
    target.schema_data = schema.data
    _fill(target.properties, schema.properties)


def _fill(target: Any, pairs: Mapping[str, str]) -> None:
    for key, value in pairs.items():
        target.add(key=key, value=value)
